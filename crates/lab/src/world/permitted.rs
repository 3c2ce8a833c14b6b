//! Permissions in the world: who may work where, and what becomes of what was written without one.
//!
//! What the membership log of the relay says in the end decides. A write that it does not authorise
//! is not lost as long as somebody holds it; one that it authorises is not refused, and is not marked
//! as merged without permission.

use fieldkeep_documents::batch;
use fieldkeep_model::{
    ChangeHash, ChangeHeader, Head, Member, SegmentAddress, SegmentId, TypeName,
};
use fieldkeep_replica::Replica;
use fieldkeep_store::{Log as _, SegmentRow, StoreError};

use super::World;
use super::ledger::Saved;
use super::oracle::{Checked, Oracle};

impl World {
    /// A person goes to another territory as soon as the device knows that it may work there.
    pub(crate) fn goes_where_it_may(&mut self, at: usize) {
        let outlets = TypeName::new("outlet").expect("a type of the catalog");
        let device = &self.devices[at];
        let Some(to) = device.bound_for.as_ref() else { return };
        let member = device.replica().and_then(|replica| replica.members().by_tls(&device.tls));
        if member.is_some_and(|member| member.may(&outlets, to)) {
            let device = &mut self.devices[at];
            device.territory = device.bound_for.take().unwrap_or_default();
        }
    }

    /// Whether a device follows a segment, as far as it has heard of its grants: of others it is shown
    /// what it has, and told nothing.
    pub(crate) fn may_read(&self, at: usize, row: &SegmentRow) -> bool {
        let device = &self.devices[at];
        let member = device.replica().and_then(|replica| replica.members().by_tls(&device.tls));
        member.is_some_and(|member| member.may(&row.address.ty, &row.address.scope))
    }

    /// Whether a device was revoked, and has been told.
    pub(crate) fn knows_it_is_revoked(&self, at: usize) -> bool {
        let tls = &self.devices[at].tls;
        let revoked = |replica: Option<&Replica>| {
            let member = replica.and_then(|replica| replica.members().by_tls(tls));
            member.is_some_and(|member| member.revoked)
        };
        revoked(self.relay.replica()) && revoked(self.devices[at].replica())
    }

    /// Whether a write is not in the relay's log because somebody had no permission, and nobody lost
    /// it. Nothing authorises it; or those who have it were revoked, and may speak to nobody. Or its
    /// author, who may not write there any more, wrote it on a branch beside the one that the cut-off
    /// names, as a device does that was put back: it has it alone; or aside, and what it wrote again
    /// is not permitted.
    pub(crate) fn is_kept_without_permission(&mut self, saved: &Saved) -> bool {
        if !self.is_held(saved.device, &saved.segment, &saved.hash) {
            return false;
        }
        if !self.is_authorised(saved) || self.is_with_the_revoked(saved) {
            return true;
        }
        let Some(address) = self.address(&saved.segment) else { return false };
        let members = self.relay.replica().map(Replica::members);
        let author = members.and_then(|members| members.author(&saved.actor));
        let may = author.is_some_and(|author| author.may(&address.ty, &address.scope));
        !may && (self.is_only_at(saved) || self.is_aside_at_author(saved))
    }

    /// Whether those who have a write were all revoked.
    fn is_with_the_revoked(&mut self, saved: &Saved) -> bool {
        (0..self.devices.len()).all(|at| {
            self.knows_it_is_revoked(at) || !self.device_holds(at, &saved.segment, &saved.hash)
        })
    }

    /// Whether its author's devices have a write, and no others.
    fn is_only_at(&mut self, saved: &Saved) -> bool {
        let author = self.devices[saved.device].original;
        (0..self.devices.len()).all(|at| {
            let own = self.devices[at].original == author;
            own || !self.device_holds(at, &saved.segment, &saved.hash)
        })
    }

    fn is_aside_at_author(&self, saved: &Saved) -> bool {
        let author = self.devices[saved.device].original;
        (0..self.devices.len()).any(|at| {
            let own = self.devices[at].original == author;
            own && self.aside(at, &saved.segment, &saved.hash).is_some()
        })
    }

    /// Whether the relay's membership log authorises a write.
    fn is_authorised(&self, saved: &Saved) -> bool {
        let change = Head { actor: saved.actor, seq: saved.seq, hash: saved.hash };
        let Some(address) = self.address(&saved.segment) else { return true };
        self.may_have_written(&address, saved.segment, &change)
    }

    fn may_have_written(&self, address: &SegmentAddress, id: SegmentId, change: &Head) -> bool {
        let members = self.relay.replica().map(Replica::members);
        let author: Option<&Member> = members.and_then(|members| members.author(&change.actor));
        author.is_some_and(|author| author.may_have_written(address, id, change))
    }

    fn address(&self, id: &SegmentId) -> Option<SegmentAddress> {
        let devices = self.devices.iter().filter_map(|device| device.replica());
        let mut replicas = self.relay.replica().into_iter().chain(devices);
        replicas.find_map(|replica| replica.segment(id)).map(|row| row.address.clone())
    }

    /// Whether all that the relay did not take of a device is what it has no permission for.
    pub(crate) fn is_refused_rightly(&self, at: usize) -> bool {
        let Some(replica) = self.devices[at].replica() else { return true };
        replica.segments().values().all(|row| {
            let outgoing = replica.store().outgoing(row.sid).unwrap_or_default();
            outgoing.iter().all(|change| {
                // It lies beyond a cut-off, so that its hash does not matter.
                let hash = ChangeHash([0; 32]);
                let head = Head { actor: change.actor, seq: change.seq, hash };
                let code = change.refused.as_deref().unwrap_or_default();
                code.starts_with("not-permitted")
                    && !self.may_have_written(&row.address, row.id, &head)
            })
        })
    }

    /// What is authorised is not marked in the relay's log as merged without permission, and what is
    /// not is.
    pub(crate) fn permissions_were_kept(&self) -> Checked {
        let Some(replica) = self.relay.replica() else { return Ok(()) };
        for row in replica.segments().values() {
            let entries = entries(replica, row);
            let entries =
                entries.map_err(|error| self.violation(Oracle::Permitted, error.to_string()))?;
            for (change, tainted) in entries {
                let permitted = self.may_have_written(&row.address, row.id, &change);
                if permitted == tainted {
                    let merged = if tainted { "as if it were not" } else { "though it is not" };
                    let text = format!(
                        "change {} of {} to {} is merged {merged} permitted",
                        change.seq, change.actor, row.address
                    );
                    return Err(self.violation(Oracle::Permitted, text));
                }
            }
        }
        Ok(())
    }
}

/// Every change of a log, with whether it is marked as merged without permission.
fn entries(replica: &Replica, row: &SegmentRow) -> Result<Vec<(Head, bool)>, StoreError> {
    let mut entries = Vec::new();
    let mut next = 1;
    while let Some(pack) = replica.store().pack(row.sid, next)? {
        let chunks = batch::decode(&pack.bytes, 1 << 26).unwrap_or_default();
        for (pos, chunk) in (pack.first..).zip(chunks) {
            let Ok(ChangeHeader { actor, seq, hash, .. }) = ChangeHeader::parse(&chunk) else {
                continue;
            };
            entries.push((Head { actor, seq, hash }, pack.tainted.contains(&pos)));
        }
        next = pack.last + 1;
    }
    for change in replica.store().changes(row.sid, next, usize::MAX >> 1)? {
        let head = Head { actor: change.actor, seq: change.seq, hash: change.hash };
        entries.push((head, change.flags.tainted));
    }
    Ok(entries)
}
