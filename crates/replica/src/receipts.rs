//! Receipts that a relay signs, and what they settle on a device, whoever brings them.

use std::collections::BTreeSet;

use fieldkeep_model::receipt::{self, Receipt};
use fieldkeep_model::{ActorId, ChangeHash, Pos, SegmentId, Seq, Signed};
use fieldkeep_store::{Log as _, Receipts as _};

use crate::received::Settled;
use crate::replica::{Replica, ReplicaError};
use crate::witness::StatementError;

impl Replica {
    /// Signs, as the relay, that a change is durable here, and lies at or before a position.
    #[must_use]
    pub fn receipt(
        &self,
        id: &SegmentId,
        actor: ActorId,
        (seq, hash): (Seq, ChangeHash),
        pos: Pos,
    ) -> Signed {
        let (org, epoch, segment) = (self.org(), self.epoch, *id);
        let receipt = Receipt { org, epoch, segment, actor, seq, hash, pos };
        Signed::new(receipt::CONTEXT, &receipt, &self.me.keys)
    }

    /// Takes over a receipt. Returns its segment and what it settles; nothing where it is of an epoch
    /// that is over, or of a change that is not here.
    ///
    /// # Errors
    /// [`StatementError::Unsigned`] where no relay of the organisation signed it; failures of the
    /// replica.
    pub fn take_receipt(
        &mut self,
        signed: &Signed,
    ) -> Result<Option<(SegmentId, Settled)>, StatementError> {
        let receipt = self.stated::<Receipt>(receipt::CONTEXT, signed).map(|(_, receipt)| receipt);
        let receipt = receipt.filter(|receipt| receipt.org == self.org());
        let receipt = receipt.ok_or(StatementError::Unsigned)?;
        let Receipt { epoch, segment, actor, seq, hash, pos, .. } = receipt;
        if epoch < self.epoch || !self.segments.contains_key(&segment) {
            return Ok(None);
        }
        let here = self.load(&segment)?.history.hash_of(&actor, seq) == Some(hash);
        let sid = self.row(&segment).sid;
        // A receipt of a branch that lies aside is the relay's decision for it.
        if !here && self.store.aside(sid, &hash)?.is_none() {
            return Ok(None);
        }
        let held = self.store.receipts(sid)?.into_iter().find(|(of, ..)| *of == actor);
        if held.is_none_or(|(_, held, _)| held < seq) {
            self.store.put_receipt(sid, &actor, seq, signed)?;
        }
        if !here || self.store.acknowledged(sid, &actor)? >= seq {
            return Ok(Some((segment, Settled::default())));
        }
        Ok(Some((segment, self.acknowledge(&segment, &actor, seq, pos)?)))
    }

    /// The changes that the relay is known to have, by what it signed: those that its receipts name,
    /// and the heads of the newest verdict block. What they build on it has, too.
    pub(crate) fn stated_changes(&self, id: &SegmentId) -> Result<Vec<ChangeHash>, ReplicaError> {
        let sid = self.row(id).sid;
        let mut stated = Vec::new();
        for (_, _, signed) in self.store.receipts(sid)? {
            let receipt: Option<Receipt> = signed.read();
            stated.extend(receipt.map(|receipt| receipt.hash));
        }
        let newest = self.newest_block(sid)?.map(|(block, _)| block);
        let newest = newest.filter(|block| block.epoch >= self.epoch);
        stated.extend(newest.map(|block| block.heads).unwrap_or_default());
        Ok(stated)
    }

    /// Settles what the newest verdict block covers: its heads are a prefix of the relay's log, which
    /// is as good as a receipt of everything in it.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn settle_judged(&mut self, id: &SegmentId) -> Result<Settled, ReplicaError> {
        let mut settled = Settled::default();
        let sid = self.row(id).sid;
        let outgoing = self.store.outgoing(sid)?;
        let actors: BTreeSet<ActorId> = outgoing.iter().map(|change| change.actor).collect();
        let newest = self.newest_block(sid)?.map(|(block, _)| block);
        let Some(block) = newest.filter(|block| block.epoch >= self.epoch) else {
            return Ok(settled);
        };
        let pos = block.pos;
        let Some(judged) = self.load(id)?.history.vector_at(&block.heads) else {
            return Ok(settled);
        };
        for actor in actors {
            let covers =
                |of: &fieldkeep_store::Outgoing| of.actor == actor && of.seq <= judged.seq(&actor);
            if outgoing.iter().any(covers) {
                settled.add(self.acknowledge(id, &actor, judged.seq(&actor), pos)?);
            }
        }
        let waiting = outgoing.len() as u64 - settled.changes;
        if judged.count() + waiting == self.row(id).tip {
            // Whatever is saved is judged, also where its place in the relay's log is not known.
            self.store.place(sid, pos)?;
            settled.records.extend(self.store.pass_judged(sid, pos)?);
        }
        Ok(settled)
    }
}
