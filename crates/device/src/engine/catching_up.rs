//! What the device takes over: the relay's answer to its offer, log, verdicts and proofs.

use std::collections::{BTreeSet, VecDeque};

use fieldkeep_documents::batch;
use fieldkeep_model::{Epoch, Pos, SegmentAddress, SegmentId, Signed, VerdictBlock, VersionVector};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{
    Delta, Frame, OfferAnswer, OfferReply, Proof, Run, Standing, Vector, Verdicts,
};
use fieldkeep_replica::{
    Follow, FollowError, Item, ReplicaError, SegmentProof, Settled, StatementError,
};

use fieldkeep_store::{Log as _, Records as _, SegmentRow};

use super::{Engine, PARKED};

/// The setting that says when the relay last told how this device's cursors stand to its logs, in
/// milliseconds UTC, and which types were left out of that.
pub(crate) const OFFERED: &str = "offered";

/// The longest chunks of one stretch together, inflated, in bytes.
pub(super) const DELTA_RAW: usize = 8 * 1024 * 1024;

impl Engine {
    pub(super) fn offer_reply(&mut self, reply: OfferReply) -> Result<(), ReplicaError> {
        let before = self.replica.epoch();
        if reply.epoch.counter <= before.counter && reply.epoch != before {
            // It has gone back behind what it stated.
            let statement = self.replica.latest_witness()?;
            statement.into_iter().for_each(|one| self.show(one));
        }
        if reply.round == 0 {
            self.epoch_told(reply.epoch != before);
        }
        if reply.epoch != before {
            self.enter_epoch(reply.epoch)?;
        }
        let answered: BTreeSet<SegmentId> = reply.segments.iter().map(|a| a.segment.id).collect();
        for answer in reply.segments {
            self.answer(answer, reply.epoch == before)?;
        }
        if reply.round > 0 {
            self.require_unknown(&answered)?;
            self.witness_unknown(&answered)?;
            self.note_unchanged(&answered)?;
        }
        self.progress.offered = true;
        self.forgotten = false;
        self.forget_told_wishes()?;
        if reply.epoch == before { Ok(()) } else { self.take_up_what_waits() }
    }

    /// The relay's log is another one from now on. What the one before did not permit this one may.
    pub(super) fn enter_epoch(&mut self, epoch: Epoch) -> Result<(), ReplicaError> {
        self.replica.enter_epoch(epoch)?;
        self.replica.reset_verdicts()?;
        for (id, sid) in self.replica.segments().iter().map(|(id, row)| (id, row.sid)) {
            let outgoing = self.replica.store().outgoing(sid)?;
            let mut refused = outgoing.iter().filter_map(|change| change.refused.as_deref());
            if refused.any(|why| why.starts_with("not-permitted")) {
                self.pushed.remove(id);
            }
        }
        self.replica.store_mut().forget_refusals("not-permitted")?;
        self.replica.store_mut().bring_again(self.now)?;
        // What was told of its length was told of the one before.
        let rows = self.replica.segments().values();
        for (id, pos) in rows.map(|row| (row.id, row.cursor.pos)).collect::<Vec<_>>() {
            self.replica.doubt(&id);
            self.replica.note_told(&id, pos);
        }
        self.require_beyond_cursors()
    }

    /// A segment that was offered and is not answered ends in the relay's log where the device's
    /// cursor stands, with the same chain: that proves it.
    fn note_unchanged(&mut self, answered: &BTreeSet<SegmentId>) -> Result<(), ReplicaError> {
        let offered = self.replica.segments().values().filter(|row| {
            let asked = self.may_read(&row.address) && !self.paused.covers(&row.address);
            asked && row.cursor.pos > 0 && !answered.contains(&row.id)
        });
        let doubted = offered.filter(|row| row.proven != row.cursor.pos || row.told != row.proven);
        for (id, pos) in doubted.map(|row| (row.id, row.cursor.pos)).collect::<Vec<_>>() {
            self.replica.note_told(&id, pos);
            self.replica.note_equal(&id, pos, self.now);
        }
        // Where a record lies in the log may have been forgotten, when a segment was derived again.
        for sid in self.replica.store().pending_segments()? {
            let row = self.replica.segments().values().find(|row| row.sid == sid);
            let Some(row) = row.filter(|row| !answered.contains(&row.id)) else { continue };
            let (id, pos) = (row.id, row.cursor.pos);
            if self.replica.is_proven(&id) {
                let settled = self.replica.note_proven(&id, pos, self.now)?;
                self.note_changed(&id, settled);
            }
        }
        let offered = minicbor::to_vec((self.now, &self.paused));
        let offered = offered.expect("encoding into memory cannot fail");
        Ok(self.replica.store_mut().set(OFFERED, &offered)?)
    }

    /// A segment of which nothing came back is not offered, and the relay names every one that it
    /// has: where it says nothing of one, it has none of it, whatever it once gave receipts for.
    fn require_unknown(&mut self, answered: &BTreeSet<SegmentId>) -> Result<(), ReplicaError> {
        let unknown = self.replica.segments().values().filter(|row| {
            let asked = self.may_read(&row.address) && !self.paused.covers(&row.address);
            row.cursor.pos == 0 && row.tip > 0 && asked && !answered.contains(&row.id)
        });
        for id in unknown.map(|row| row.id).collect::<Vec<_>>() {
            if self.replica.require_upload(&id, &VersionVector::default())? > 0 {
                self.pushed.remove(&id);
            }
        }
        Ok(())
    }

    /// What another device's word was a receipt of is not, where the log has another epoch: what this
    /// device holds beyond its cursors is sent, unless the log brings it; also of scopes that it may
    /// not read any more, because nobody else may have it.
    fn require_beyond_cursors(&mut self) -> Result<(), ReplicaError> {
        let rows = self.replica.segments().values();
        let beyond = rows.filter(|row| row.tip > row.cursor.pos);
        for id in beyond.map(|row| row.id).collect::<Vec<_>>() {
            if self.replica.require_beyond_cursor(&id)? > 0 {
                self.pushed.remove(&id);
            }
        }
        Ok(())
    }

    /// Where the relay's log ends at this device's cursor, and the relay has once judged what lies
    /// beyond, it is shown that.
    fn witness_unknown(&mut self, answered: &BTreeSet<SegmentId>) -> Result<(), ReplicaError> {
        let rows = self.replica.segments().values();
        let silent = rows.filter(|row| {
            let asked = !self.paused.covers(&row.address);
            asked && !answered.contains(&row.id) && row.judged > row.cursor.pos
        });
        for id in silent.map(|row| row.id).collect::<Vec<_>>() {
            self.witness(&id)?;
        }
        Ok(())
    }

    fn answer(&mut self, answer: OfferAnswer, same_epoch: bool) -> Result<(), ReplicaError> {
        let short = fieldkeep_protocol::offer::short(&answer.segment.id.0);
        let id = match self.replica.segment_beginning(&short) {
            Some(row) => row.id,
            None => {
                let Some(address) = &answer.segment.address else { return Ok(()) };
                if address.id(&self.replica.org()) != answer.segment.id {
                    self.close(Code::Malformed, "a segment's address does not hash to its id");
                    return Ok(());
                }
                self.replica.open_segment(address)?
            }
        };
        match answer.standing {
            Standing::Denied => return Ok(()),
            Standing::Reset => {
                tracing::warn!(segment = %id, "the relay's log is not the one that was known: comparing all");
                let held = answer.vector.clone().unwrap_or_default();
                if same_epoch {
                    self.witness(&id)?;
                }
                self.replica.reset_cursor(&id);
                self.replica.require_upload(&id, &held)?;
                self.pushed.remove(&id);
                let vector = self.shared(&id, &held)?;
                self.control(&Frame::Vector(Vector { segment: id, vector }));
            }
            Standing::Same | Standing::Behind => {
                self.replica.carry_cursor(&id, self.replica.epoch());
                self.compare_own(&id, &answer)?;
            }
        }
        // Of a log that is lost nothing is proven; what is sent again opens it with its receipt.
        if answer.tip > 0 {
            self.open.insert(id, answer.tip);
        }
        self.replica.note_told(&id, answer.tip);
        Ok(())
    }

    /// Notes that the relay's log of a segment is known to reach to a position.
    pub(super) fn expect(&mut self, id: &SegmentId, pos: Pos) {
        let open = self.open.entry(*id).or_default();
        *open = pos.max(*open);
        self.replica.note_told(id, pos.max(self.replica.segments()[id].told));
    }

    /// Shows the relay the newest that it stated of a segment, once a connection.
    pub(super) fn witness(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        if self.witnessed.insert(*id) {
            let statement = self.replica.judged_block(id)?;
            statement.into_iter().for_each(|one| self.show(one));
        }
        Ok(())
    }

    /// Shows the relay what it once stated; the session goes on until it has said what came of it.
    pub(super) fn show(&mut self, statement: Signed) {
        self.shown += 1;
        self.control(&Frame::Witness(statement));
    }

    /// Whether this device's grants reach a segment, as far as it has heard.
    pub(super) fn may_read(&self, address: &SegmentAddress) -> bool {
        let me = self.replica.members().author(&self.replica.me().actor());
        me.is_some_and(|me| me.may(&address.ty, &address.scope))
    }

    /// The relay says its epoch, unasked or because it was shown something. In another one it states
    /// and proves everything again.
    fn epoch_told(&mut self, another: bool) {
        self.shown = self.shown.saturating_sub(1);
        let me = self.replica.members().author(&self.replica.me().actor());
        let Some(me) = me.filter(|_| another) else { return };
        let asked = |row: &&SegmentRow| {
            let SegmentAddress { ty, scope, .. } = &row.address;
            row.cursor.pos > 0 && me.may(ty, scope) && !self.paused.covers(&row.address)
        };
        for row in self.replica.segments().values().filter(asked) {
            self.open.entry(row.id).or_insert(row.cursor.pos);
        }
    }

    /// What this device holds, without the actors of whom the relay has another branch: their
    /// changes are to be sent.
    fn shared(
        &mut self,
        id: &SegmentId,
        held: &VersionVector,
    ) -> Result<VersionVector, ReplicaError> {
        let mut vector = self.replica.vector(id)?;
        let agreed = self.replica.agrees(id, held)?;
        vector.stamps.retain(|actor, stamp| {
            held.seq(actor) == 0 || held.seq(actor) > stamp.seq || agreed.stamps.contains_key(actor)
        });
        Ok(vector)
    }

    /// The relay says through which seq it holds this device's changes: fewer than it once
    /// acknowledged are sent again; more than the device has mean that the device was restored. Where
    /// that seq is another change there, a copy of this device wrote it: the log brings it.
    fn compare_own(&mut self, id: &SegmentId, answer: &OfferAnswer) -> Result<(), ReplicaError> {
        let (held, tip) = (answer.own_seq, answer.tip);
        let actor = self.replica.me().actor();
        let sid = self.replica.segments()[id].sid;
        let acknowledged = self.replica.store().acknowledged(sid, &actor)?;
        let own = self.replica.vector(id)?.seq(&actor);
        if held > own {
            tracing::warn!(segment = %id, held, own, "the relay knows later changes of this device: it was restored");
            return Ok(self.replica.renew_incarnation()?);
        }
        if held < acknowledged {
            let mut vector = self.replica.vector(id)?;
            match vector.stamps.get_mut(&actor) {
                Some(stamp) if held > 0 => stamp.seq = held,
                _ => {
                    vector.stamps.remove(&actor);
                }
            }
            self.replica.require_upload(id, &vector)?;
            self.pushed.remove(id);
        } else if held > acknowledged
            && answer.own_hash.is_some()
            && answer.own_hash == self.replica.hash_of(id, &actor, held)?
        {
            // The receipt was lost on the way, not the change.
            let receipt = self.replica.acknowledge(id, &actor, held, tip)?;
            self.note_receipt(id, receipt);
        }
        Ok(())
    }

    pub(super) fn delta(&mut self, delta: Delta) -> Result<(), ReplicaError> {
        let known = self.replica.segment(&delta.segment.id).map(|row| row.address.clone());
        let address = known.or_else(|| delta.segment.address.clone());
        let address = address.filter(|a| a.id(&self.replica.org()) == delta.segment.id);
        let (Some(segment), Ok(chunks)) = (address, batch::decode(&delta.batch, DELTA_RAW)) else {
            self.close(Code::Malformed, "a stretch of the log that does not decode");
            return Ok(());
        };
        let Some(items) = items(&delta.runs, chunks.len()) else {
            self.close(Code::Malformed, "a stretch of the log that does not add up");
            return Ok(());
        };
        let changes = chunks.len() as u64;
        let follow = Follow {
            segment,
            epoch: delta.epoch,
            first: delta.first,
            items,
            chunks,
            heads: delta.heads.clone(),
            chain: delta.chain,
        };
        let id = delta.segment.id;
        match self.follow(&id, &follow)? {
            Ok(receipt) => {
                self.progress.received += changes;
                self.note_receipt(&id, receipt);
                let pos = self.replica.segments()[&id].cursor.pos;
                self.expect(&id, pos);
                self.credits.insert(id, pos);
                self.take_early(&id)?;
            }
            Err(FollowError::Refused(refused)) if refused.code == "unknown-author" => {
                // The entry that admits the author comes on another stream.
                if self.parked.len() >= PARKED {
                    self.close(Code::Unvouched, "changes of authors who are not members");
                }
                self.parked.push_back(delta);
            }
            Err(FollowError::Refused(refused)) => {
                let code = if refused.stage == 1 { Code::Unvouched } else { Code::Refused };
                self.close(code, &refused.to_string());
            }
            Err(error) => self.close(Code::Unchained, &error.to_string()),
        }
        Ok(())
    }

    /// Takes a stretch over; where it shows that this device lost a fork, its branch is written
    /// again first.
    pub(super) fn follow(
        &mut self,
        id: &SegmentId,
        follow: &Follow,
    ) -> Result<Result<Settled, FollowError>, ReplicaError> {
        // Each turn takes one forked actor out.
        for _ in 0..=fieldkeep_model::header::limit::DEPS {
            match self.replica.follow(follow) {
                Ok(receipt) => return Ok(Ok(receipt)),
                Err(FollowError::Replica(error)) => return Err(error),
                Err(FollowError::Fork(actor, seq)) => {
                    if !self.write_branch_again(id, &actor, seq)? {
                        return Ok(Err(FollowError::Unchained));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(FollowError::Unchained))
    }

    /// Takes the verdicts that came before what they judge.
    pub(super) fn take_early(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        while let Some(at) = self.early.iter().position(|verdicts| verdicts.segment == *id) {
            if !self.is_here(&self.early[at]) {
                break;
            }
            let ready = self.early.remove(at);
            ready.into_iter().try_for_each(|verdicts| self.take_verdicts(verdicts))?;
        }
        Ok(())
    }

    /// Whether everything that verdicts judge is here, and merged. Before that a record would be shown
    /// as what the relay made of another content.
    fn is_here(&self, verdicts: &Verdicts) -> bool {
        let last = verdicts.blocks.last().and_then(Signed::read::<VerdictBlock>);
        let through = last.map_or(0, |block| block.pos);
        let row = self.replica.segment(&verdicts.segment);
        row.is_some_and(|row| row.cursor.pos >= through && row.done == row.tip)
    }

    pub(super) fn verdicts(&mut self, verdicts: Verdicts) -> Result<(), ReplicaError> {
        let waits = self.early.iter().any(|early| early.segment == verdicts.segment);
        if (waits || !self.is_here(&verdicts)) && self.early.len() < PARKED {
            // What they judge comes on another stream; these are not stated a second time.
            self.early.push_back(verdicts);
            return Ok(());
        }
        if self.replica.segment(&verdicts.segment).is_none() {
            self.close(Code::Unchained, "verdicts of segments that do not come");
            return Ok(());
        }
        // There is no room for more: those that wait, and these, are taken as they are.
        let early = std::mem::take(&mut self.early);
        let (of_it, rest) = early.into_iter().partition(|e| e.segment == verdicts.segment);
        self.early = rest;
        let of_it: VecDeque<Verdicts> = of_it;
        of_it.into_iter().try_for_each(|early| self.take_verdicts(early))?;
        self.take_verdicts(verdicts)
    }

    fn take_verdicts(&mut self, verdicts: Verdicts) -> Result<(), ReplicaError> {
        for block in &verdicts.blocks {
            let (segment, relay) = (&verdicts.segment, verdicts.relay);
            match self.replica.take_verdicts(segment, relay, block, &verdicts.openings) {
                Ok(records) => self.note_changed(segment, records),
                Err(StatementError::Unsigned) => {
                    self.close(Code::Unvouched, "verdicts that no relay signed");
                    return Ok(());
                }
                Err(StatementError::Replica(error)) => return Err(error),
            }
        }
        // A relay that states what it has long gone beyond has forgotten that.
        let order = |block: &Signed| block.read().map(|block: VerdictBlock| block.judged());
        let held = self.replica.judged_block(&verdicts.segment)?;
        if verdicts.blocks.last().and_then(order) < held.as_ref().and_then(order) {
            self.witness(&verdicts.segment)?;
        }
        Ok(())
    }

    pub(super) fn proof(&mut self, proof: &Proof) -> Result<(), ReplicaError> {
        let id = proof.segment;
        if self.replica.segment(&id).is_none_or(|row| row.cursor.pos != proof.pos) {
            return Ok(());
        }
        while self.replica.segments()[&id].done < self.replica.segments()[&id].tip {
            let done = self.replica.materialise(&id, usize::MAX)?;
            self.note_changed(&id, done.records);
        }
        self.take_early(&id)?;
        if self.replica.segments()[&id].judged < proof.pos {
            return Ok(());
        }
        let (pos, heads, records) = (proof.pos, proof.heads, proof.records);
        let rows = u128::from_be_bytes(proof.rows);
        // Every row is read once a connection; after that what was written is known.
        let check = self.verified.insert(id);
        let wrong = match if check { self.replica.verify(&id)? } else { None } {
            None if self.replica.holds(&id, &SegmentProof { pos, heads, records, rows }) => None,
            None => {
                let address = self.replica.segments()[&id].address.to_string();
                Some(fieldkeep_replica::Integrity::Records(address))
            }
            wrong => wrong,
        };
        match wrong {
            // A receipt that the device got for more than the relay has now is worth nothing.
            None if self.open.get(&id).is_none_or(|pos| *pos <= proof.pos)
                && self.replica.require_beyond_cursor(&id)? > 0 =>
            {
                tracing::warn!(segment = %id, "the relay has lost changes: they are sent again");
                self.replica.doubt(&id);
                self.pushed.remove(&id);
            }
            None => {
                let settled = self.replica.note_proven(&id, proof.pos, self.now)?;
                self.note_changed(&id, settled);
                self.open.remove(&id);
            }
            Some(wrong) => {
                tracing::error!(%wrong, "the proof is not equal");
                self.replica.doubt(&id);
                self.progress.integrity = Some(wrong);
            }
        }
        Ok(())
    }
}

/// The entries that runs stand for; `None` unless they use exactly the chunks that came.
pub(super) fn items(runs: &[Run], chunks: usize) -> Option<Vec<Item>> {
    /// More entries than any stretch has.
    const MOST: u64 = 1 << 20;
    let count: u64 = runs
        .iter()
        .map(|run| match run {
            Run::Sent(count) | Run::Known(_, _, count) => *count,
        })
        .try_fold(0u64, u64::checked_add)?;
    if count > MOST {
        return None;
    }
    let mut items = Vec::with_capacity(count as usize);
    for run in runs {
        match *run {
            Run::Sent(count) => items.extend((0..count).map(|_| Item::Sent)),
            Run::Known(actor, first, count) => {
                items.extend((0..count).map(|n| Item::Known(actor, first.saturating_add(n))));
            }
        }
    }
    let sent = items.iter().filter(|item| **item == Item::Sent).count();
    (sent == chunks).then_some(items)
}
