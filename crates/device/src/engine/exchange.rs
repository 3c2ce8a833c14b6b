//! What two devices exchange: changes, their own and carried ones, verdicts and receipts of the
//! relay, and proofs that both hold the same.
//!
//! Nothing of it leaves before it is on the disk here. What is under way to one peer is bounded, and
//! so is what a cut makes it send again.

use fieldkeep_documents::batch;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{Judged, Pos, Receipt, SegmentId, Signed, VerdictBlock};
use fieldkeep_protocol::frame::{self, Frame, Proof, Push, SegmentRef, Verdicts};
use fieldkeep_protocol::{BATCH, Code, PEER_WINDOW};
use fieldkeep_replica::{AdmitError, OutgoingBatch, ReplicaError, StatementError, VerdictPage};
use fieldkeep_store::Receipts as _;

use super::Engine;
use super::peer::{PeerId, PeerProgress};

impl Engine {
    /// How far the exchange with a peer has come; `None` if there is no such connection.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert_eq!(ann.peer_progress(1)?, None);
    /// wire.meet(&mut ann, &mut ben)?;
    /// let progress = ann.peer_progress(1)?.expect("they are connected");
    /// assert_eq!((progress.name.as_deref(), progress.sent), (Some("ben"), 1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store fails.
    pub fn peer_progress(&self, id: PeerId) -> Result<Option<PeerProgress>, ReplicaError> {
        let Some(peer) = self.peers.get(&id) else { return Ok(None) };
        let member = self.replica.members().by_tls(&peer.key);
        let mut progress = PeerProgress {
            name: member.map(|member| member.name.clone()),
            number: member.map(|member| member.number),
            met: peer.met && peer.told,
            parted: peer.has_all(),
            sent: peer.sent,
            received: peer.received,
            open: peer.expected.len() as u64,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            ended: peer.ended.clone(),
            ..PeerProgress::default()
        };
        for segment in self.shareable(id) {
            let row = &self.replica.segments()[&segment];
            let Some(shared) = peer.shared.get(&segment) else {
                progress.open += u64::from(row.tip > 0);
                continue;
            };
            let behind = shared.judged > self.replica.judged(&segment)? || row.done < row.tip;
            let told = shared.proof.is_some() && shared.sent == row.tip;
            let parted = !shared.forked.is_empty() && told && shared.in_flight.is_empty();
            match (behind, shared.agreed == Some(row.tip)) {
                (false, true) => progress.proven += 1,
                (false, false) if parted => progress.forked += shared.forked.len() as u64,
                _ => progress.open += 1,
            }
        }
        Ok(Some(progress))
    }

    /// How far the exchange with every peer has come.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert_eq!(ben.meetings()?.len(), 1);
    /// assert_eq!(ben.meetings()?[0].name.as_deref(), Some("ann"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store fails.
    pub fn meetings(&self) -> Result<Vec<PeerProgress>, ReplicaError> {
        let all = self.peers.keys().map(|id| self.peer_progress(*id));
        all.filter_map(Result::transpose).collect()
    }

    /// Whether the progress of an exchange is worth a look: cheap, and true whenever it is complete.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert!(!ann.may_be_equal(1)); // Nobody is met.
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert!(ann.may_be_equal(1) && ben.may_be_equal(1));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn may_be_equal(&self, id: PeerId) -> bool {
        let peer = self.peers.get(&id);
        peer.is_some_and(|peer| peer.met && peer.in_flight == 0 && peer.expected.is_empty())
    }

    /// Whether the session with a peer is over.
    ///
    /// ```
    /// # use fieldkeep_protocol::Code;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert!(!ann.has_parted(1));
    /// ann.peer_ended(1, Some(Code::GoingAway), "the battery is low");
    /// assert!(ann.has_parted(1));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn has_parted(&self, id: PeerId) -> bool {
        self.peers.get(&id).is_none_or(|peer| peer.ended.is_some())
    }

    /// Notes with which code a peer closed the connection, where its last frame was lost.
    ///
    /// ```
    /// # use fieldkeep_protocol::Code;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// ann.peer_ended(1, Some(Code::Revoked), "you were revoked");
    /// let progress = ann.peer_progress(1)?.expect("it is not forgotten yet");
    /// assert_eq!(progress.ended, Some((Code::Revoked, "you were revoked".to_owned())));
    /// # Ok(()) });
    /// ```
    pub fn peer_ended(&mut self, id: PeerId, code: Option<Code>, text: &str) {
        let Some(code) = code.filter(|code| *code != Code::Done) else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.ended.get_or_insert_with(|| (code, text.to_owned()));
        }
    }

    pub(super) fn peer_push(&mut self, id: PeerId, push: Push) -> Result<(), ReplicaError> {
        let SegmentRef { id: segment, address } = push.segment;
        let changes = match self.replica.batch(&segment, address, &push.batch, push.heads) {
            Ok(changes) => changes,
            Err(error) => {
                self.close_peer(id, Code::Malformed, &error.to_string());
                return Ok(());
            }
        };
        let address = &changes.segment;
        let member = self.peers.get(&id).and_then(|p| self.replica.members().by_tls(&p.key));
        let Some(member) = member.filter(|m| m.may(&address.ty, &address.scope)) else {
            self.close_peer(id, Code::Denied, "a device hands over what it was not granted");
            return Ok(());
        };
        let from = member.number;
        if !self.may_read(address) {
            self.close_peer(id, Code::Denied, "this device was not granted what is handed over");
            return Ok(());
        }
        if !self.replica.is_declared(address) {
            let text = "changes of a type that the catalog here does not have";
            self.close_peer(id, Code::Refused, text);
            return Ok(());
        }
        let count = changes.chunks.len() as u64;
        match self.replica.carry(from, &changes, self.now) {
            Ok(carried) => {
                let me = self.replica.me().actor();
                if carried.own || carried.forked.contains(&me) {
                    tracing::warn!(%segment, "another device holds changes of this one that it does not know: it was copied or restored");
                    self.replica.renew_incarnation()?;
                }
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.received += carried.changes;
                    peer.expected.remove(&segment);
                    let shared = peer.shared.entry(segment).or_default();
                    shared.taken += count;
                    for (actor, seq, _) in &carried.newest {
                        shared.learn(*actor, *seq);
                    }
                    carried.forked.iter().for_each(|actor| shared.part(*actor));
                    shared.seen = None;
                }
                self.note_changed(&segment, carried.records);
                self.settle_forks(&segment)
            }
            Err(AdmitError::Refused(refused)) => {
                tracing::warn!(peer = id, %segment, %refused, "refused");
                let comparable = matches!(
                    refused.code,
                    "missing-deps" | "fork" | "seq" | "predecessor" | "start-op"
                );
                if comparable && self.tell_again(id, &segment)? {
                    return Ok(());
                }
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.refused = Some(refused.code);
                }
                let code = if refused.stage == 1 { Code::Unvouched } else { Code::Refused };
                self.close_peer(id, code, &refused.to_string());
                Ok(())
            }
            Err(AdmitError::Replica(error)) => Err(error),
        }
    }

    pub(super) fn peer_catalog(
        &mut self,
        id: PeerId,
        catalog: frame::CatalogFile,
    ) -> Result<(), ReplicaError> {
        match self.replica.adopt_catalog(catalog.notice, catalog.source) {
            Ok(_) => {
                if self.take_generations() {
                    self.begin_anew();
                }
            }
            Err(ReplicaError::CatalogUnsigned) => {
                self.close_peer(id, Code::Unvouched, "the catalog is not signed by a relay");
            }
            Err(ReplicaError::Catalog(_)) => {
                self.close_peer(id, Code::Malformed, "the catalog cannot be used");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn peer_verdicts(
        &mut self,
        id: PeerId,
        verdicts: Verdicts,
    ) -> Result<(), ReplicaError> {
        let segment = verdicts.segment;
        if self.replica.segment(&segment).is_none() {
            return Ok(());
        }
        if !self.peer_may(id, &segment) {
            self.close_peer(id, Code::Denied, "a device brings verdicts of what it may not hold");
            return Ok(());
        }
        for block in &verdicts.blocks {
            let told = self.peers.get(&id).and_then(|p| p.shared.get(&segment)?.judged_told);
            match self.replica.take_verdicts(&segment, verdicts.relay, block, &verdicts.openings) {
                Ok(records) => self.note_changed(&segment, records),
                Err(StatementError::Unsigned) => {
                    self.close_peer(id, Code::Unvouched, "verdicts that no relay signed");
                    return Ok(());
                }
                Err(StatementError::Replica(error)) => return Err(error),
            }
            let order = judged_by(block);
            if order <= told {
                self.close_peer(id, Code::Refused, "verdicts that were known here already");
                return Ok(());
            }
            if let Some(shared) = self.peers.get_mut(&id).and_then(|p| p.shared.get_mut(&segment)) {
                shared.judged = order.max(shared.judged);
                shared.judged_told = order.max(shared.judged_told);
            }
        }
        self.settle_verdicts(&segment)
    }

    /// Settles what the relay's word of a segment covers, once it was taken.
    pub(super) fn settle_verdicts(&mut self, segment: &SegmentId) -> Result<(), ReplicaError> {
        let settled = self.replica.settle_judged(segment)?;
        self.note_receipt(segment, settled);
        let judged = self.replica.segments()[segment].judged;
        self.note_position(segment, judged)?;
        self.settle_forks(segment)
    }

    /// A peer has brought the relay's word of a position of its log: this device is not synced before it
    /// has got there, and while it is connected, a relay that does not have it is told.
    fn note_position(&mut self, segment: &SegmentId, pos: Pos) -> Result<(), ReplicaError> {
        let row = &self.replica.segments()[segment];
        if pos <= row.cursor.pos || !self.may_read(&row.address) {
            return Ok(());
        }
        if !self.is_online() || self.paused.covers(&row.address) {
            self.replica.note_told(segment, pos.max(row.told));
            return Ok(());
        }
        self.expect(segment, pos);
        self.witness(segment)
    }

    /// Where the relay is known to have decided for a branch that lies aside here, the one in the log
    /// gives way.
    fn settle_forks(&mut self, segment: &SegmentId) -> Result<(), ReplicaError> {
        // Each turn takes one forked actor out.
        for _ in 0..=fieldkeep_model::header::limit::DEPS {
            let Some((actor, seq)) = self.replica.lost_branch(segment)? else { break };
            if !self.write_branch_again(segment, &actor, seq)? {
                break;
            }
        }
        let records = self.replica.take_branches(segment)?;
        if !records.is_empty() {
            self.note_changed(segment, records);
            self.rescan(segment);
        }
        Ok(())
    }

    pub(super) fn peer_receipt(
        &mut self,
        id: PeerId,
        receipt: &Signed,
    ) -> Result<(), ReplicaError> {
        if !self.receipt(receipt)? {
            self.close_peer(id, Code::Unvouched, "a receipt that no relay signed");
            return Ok(());
        }
        // What it brings it has.
        let stated: Option<Receipt> = receipt.read();
        if let (Some(stated), Some(peer)) = (stated, self.peers.get_mut(&id))
            && let Some(shared) = peer.shared.get_mut(&stated.segment)
        {
            let told = shared.receipts.entry(stated.actor).or_default();
            *told = (stated.epoch, stated.seq).max(*told);
        }
        Ok(())
    }

    /// Takes over a receipt of the relay, whoever brings it. Returns whether a relay signed it.
    pub(super) fn receipt(&mut self, receipt: &Signed) -> Result<bool, ReplicaError> {
        match self.replica.take_receipt(receipt) {
            Err(StatementError::Unsigned) => return Ok(false),
            Err(StatementError::Replica(error)) => return Err(error),
            Ok(None) => {}
            Ok(Some((segment, settled))) => {
                self.note_receipt(&segment, settled);
                let stated: Option<Receipt> = receipt.read();
                self.note_position(&segment, stated.map_or(0, |receipt| receipt.pos))?;
                self.settle_forks(&segment)?;
                // Others may lack it.
                for peer in self.peers.values_mut() {
                    if let Some(shared) = peer.shared.get_mut(&segment) {
                        shared.seen = None;
                    }
                }
            }
        }
        Ok(true)
    }

    pub(super) fn peer_proof(&mut self, id: PeerId, proof: Proof) -> Result<(), ReplicaError> {
        let segment = proof.segment;
        if self.replica.segment(&segment).is_none() || !self.peer_may(id, &segment) {
            return Ok(());
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            let shared = peer.shared.entry(segment).or_default();
            shared.proof = Some(proof);
        }
        self.agree(id, &segment)
    }

    /// Compares what a peer last said of a segment with what is here.
    fn agree(&mut self, id: PeerId, segment: &SegmentId) -> Result<(), ReplicaError> {
        let tip = self.replica.segments()[segment].tip;
        let shared = self.peers.get(&id).and_then(|peer| peer.shared.get(segment));
        let Some(theirs) = shared.and_then(|shared| shared.proof) else { return Ok(()) };
        if theirs.pos != tip {
            return Ok(());
        }
        let Some(mine) = self.proof_of(segment)? else { return Ok(()) };
        if mine != theirs {
            return Ok(());
        }
        if let Some(shared) = self.peers.get_mut(&id).and_then(|p| p.shared.get_mut(segment)) {
            shared.agreed = Some(tip);
        }
        Ok(())
    }

    fn proof_of(&mut self, segment: &SegmentId) -> Result<Option<Proof>, ReplicaError> {
        let proof = self.replica.proof(segment)?;
        Ok(proof.map(|proof| Proof {
            segment: *segment,
            pos: proof.pos,
            heads: proof.heads,
            records: proof.records,
            rows: proof.rows.to_be_bytes(),
        }))
    }

    /// Brings every peer up to date with what is on the disk, as far as its window allows.
    pub(super) fn attend_peers(&mut self) -> Result<(), ReplicaError> {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.attend(id)?;
        }
        Ok(())
    }

    fn attend(&mut self, id: PeerId) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_open()) else { return Ok(()) };
        if peer.members < self.replica.members().len() {
            self.tell_members(id);
            self.turn_away_revoked(id);
        }
        let published = self.replica.published();
        let newest = published.map(|published| (published.epoch, published.number));
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_open()) else {
            return Ok(());
        };
        if newest.is_some_and(|newest| newest > peer.catalog) {
            peer.catalog = newest.expect("just looked at");
            let published = self.replica.published().expect("just looked at");
            let (notice, source) =
                (published.notice.clone(), published.catalog.source().to_owned());
            self.tell_peer(id, &Frame::Catalog(frame::CatalogFile { notice, source }));
        }
        for segment in self.shareable(id) {
            self.pump(id, &segment)?;
        }
        Ok(())
    }

    /// Sends a peer what it lacks of a segment.
    pub(super) fn pump(&mut self, id: PeerId, segment: &SegmentId) -> Result<(), ReplicaError> {
        let row = &self.replica.segments()[segment];
        let seen = (row.tip, row.verdict, row.judged);
        let done = row.done == row.tip;
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let met = peer.met;
        let shared = peer.shared.entry(*segment).or_default();
        let credit = shared.taken;
        let due = std::mem::replace(&mut shared.credited, credit) < credit;
        if shared.known.is_none() && met && !shared.waits_for_vector {
            // It came to be after both had said what they hold.
            shared.known = Some(Default::default());
        }
        // A segment that was derived again is shorter for a moment.
        shared.sent = shared.sent.min(seen.0);
        let attended = shared.seen == Some(seen) && shared.sent == seen.0;
        let comparable = shared.known.is_some();
        if due {
            self.tell_peer(id, &Frame::Credit(frame::Credit { segment: *segment, pos: credit }));
        }
        if attended || !comparable {
            return Ok(());
        }
        if !self.give_changes(id, segment)? {
            return Ok(());
        }
        self.give_verdicts(id, segment)?;
        self.give_receipts(id, segment)?;
        if done {
            self.prove(id, segment, seen.0)?;
            if let Some(shared) = self.peers.get_mut(&id).and_then(|p| p.shared.get_mut(segment)) {
                shared.seen = Some(seen);
            }
        }
        Ok(())
    }

    /// Sends what a peer lacks of a segment's changes. Returns whether all of it was sent.
    fn give_changes(&mut self, id: PeerId, segment: &SegmentId) -> Result<bool, ReplicaError> {
        loop {
            let tip = self.replica.segments()[segment].tip;
            let Some(peer) = self.peers.get(&id) else { return Ok(false) };
            let Some(shared) = peer.shared.get(segment) else { return Ok(false) };
            if shared.sent >= tip {
                return Ok(true);
            }
            let room = PEER_WINDOW.saturating_sub(peer.in_flight);
            if room < PEER_WINDOW / 4 {
                return Ok(false);
            }
            let known = |actor: &_, seq| shared.knows(actor, seq);
            let batch = self.replica.batch_for(segment, shared.sent, room as usize, known)?;
            let Some(peer) = self.peers.get_mut(&id) else { return Ok(false) };
            let Some(shared) = peer.shared.get_mut(segment) else { return Ok(false) };
            let Some(OutgoingBatch { chunks, heads, reached }) = batch else {
                shared.sent = tip;
                continue;
            };
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let encoded = batch::encode(&chunks, 3);
            shared.sent = reached;
            shared.given += chunks.len() as u64;
            shared.in_flight.push_back((shared.given, encoded.len() as u64));
            for head in &heads {
                shared.learn(head.head.actor, head.head.seq);
            }
            peer.in_flight += encoded.len() as u64;
            let address = self.replica.segments()[segment].address.clone();
            let segment = SegmentRef { id: *segment, address: Some(address) };
            self.tell_peer(id, &Frame::Push(Push { segment, batch: encoded, heads }));
        }
    }

    fn give_verdicts(&mut self, id: PeerId, segment: &SegmentId) -> Result<(), ReplicaError> {
        let Some(mine) = self.replica.judged(segment)? else { return Ok(()) };
        loop {
            let shared = self.peers.get(&id).and_then(|peer| peer.shared.get(segment));
            let theirs = shared.and_then(|shared| shared.judged);
            if theirs >= Some(mine) {
                return Ok(());
            }
            // Another epoch's numbers are others: it gets all of this one.
            let after = theirs.filter(|theirs| theirs.epoch == mine.epoch);
            let after = after.map_or(0, |theirs| theirs.number);
            let readable = |opening: &Opening| self.peer_may(id, &opening.segment);
            let page = self.replica.verdict_page(segment, (mine.epoch, after), BATCH, readable)?;
            let VerdictPage { blocks, openings, whole } = page;
            let told = blocks.last().and_then(judged_by);
            let Some(relay) = blocks.last().and_then(|block| self.replica.issuer(block)) else {
                return Ok(());
            };
            self.tell_peer(
                id,
                &Frame::Verdicts(Verdicts { segment: *segment, relay, blocks, openings }),
            );
            let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
            let shared = peer.shared.entry(*segment).or_default();
            shared.judged = if whole { Some(mine) } else { told.max(shared.judged) };
        }
    }

    fn give_receipts(&mut self, id: PeerId, segment: &SegmentId) -> Result<(), ReplicaError> {
        let sid = self.replica.segments()[segment].sid;
        for (actor, _, receipt) in self.replica.store().receipts(sid)? {
            let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
            let Some(stated) = receipt.read::<Receipt>() else { continue };
            let shared = peer.shared.entry(*segment).or_default();
            // What it has from the relay itself needs none.
            let has = |(epoch, pos)| stated.epoch == epoch && stated.pos <= pos;
            let newest = (stated.epoch, stated.seq);
            if shared.place.is_some_and(has)
                || shared.receipts.get(&actor).is_some_and(|told| *told >= newest)
            {
                continue;
            }
            shared.receipts.insert(actor, newest);
            self.tell_peer(id, &Frame::Receipt(receipt));
        }
        Ok(())
    }

    /// Tells a peer what a segment looks like here, once for each end of the log.
    fn prove(&mut self, id: PeerId, segment: &SegmentId, tip: u64) -> Result<(), ReplicaError> {
        self.agree(id, segment)?;
        let shared = self.peers.get(&id).and_then(|peer| peer.shared.get(segment));
        if tip == 0 || shared.is_none_or(|shared| shared.proved == Some(tip)) {
            return Ok(());
        }
        let Some(proof) = self.proof_of(segment)? else { return Ok(()) };
        self.tell_peer(id, &Frame::Proof(proof));
        if let Some(shared) = self.peers.get_mut(&id).and_then(|p| p.shared.get_mut(segment)) {
            shared.proved = Some(tip);
        }
        Ok(())
    }

    /// A segment's log was written again: what each peer lacks is looked for from the beginning.
    pub(super) fn rescan(&mut self, segment: &SegmentId) {
        for peer in self.peers.values_mut() {
            if let Some(shared) = peer.shared.get_mut(segment) {
                (shared.sent, shared.seen) = (0, None);
                (shared.agreed, shared.proved) = (None, None);
            }
        }
    }
}

/// Where a block lies in the order of verdicts.
fn judged_by(block: &Signed) -> Option<Judged> {
    block.read().map(|block: VerdictBlock| block.judged())
}
