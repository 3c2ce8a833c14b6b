//! Wishes: what devices ask about records that are in question. Each is heard once, whether it comes in
//! a session, in a bundle, or in both.

use fieldkeep_model::status::State;
use fieldkeep_model::{Member, Outcome, RecordKey};
use fieldkeep_protocol::frame::Dismiss;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Records as _, Settings as _, StoreError};

use super::{ConnectionId, Engine};

/// Records that may wait to be judged again because devices asked, and wishes that one bundle brings.
pub(super) const WISHES: usize = 1_024;

/// What a device asks.
#[derive(Debug)]
pub(super) enum Wish {
    /// To judge a record again.
    Rejudge(RecordKey),
    /// To stop trying, or try again.
    Dismiss(Dismiss),
}

impl Engine {
    pub(super) fn asked_to_rejudge(
        &mut self,
        id: ConnectionId,
        key: RecordKey,
    ) -> Result<(), ReplicaError> {
        let Some(member) = self.connected(id) else { return Ok(()) };
        if self.wanted.len() < WISHES && self.may_be_rejudged(&member, &key)? {
            self.traces.wished(&key, id);
            self.wanted.insert(key);
        }
        Ok(())
    }

    pub(super) fn asked_to_dismiss(
        &mut self,
        id: ConnectionId,
        dismiss: &Dismiss,
    ) -> Result<(), ReplicaError> {
        let Some(member) = self.connected(id) else { return Ok(()) };
        self.dismiss(&member, dismiss)
    }

    /// Heeds the wishes that a bundle brings, if that tells of any that were not heard. What they speak
    /// of must be judged.
    pub(super) fn heed(
        &mut self,
        member: &Member,
        wishes: &[Wish],
        told: u64,
    ) -> Result<(), ReplicaError> {
        if told <= self.heard(member)? {
            return Ok(());
        }
        let mut keys = Vec::new();
        for wish in wishes {
            match wish {
                Wish::Rejudge(key) if self.may_be_rejudged(member, key)? => keys.push(key.clone()),
                Wish::Rejudge(_) => {}
                Wish::Dismiss(dismiss) => self.dismiss(member, dismiss)?,
            }
        }
        self.rejudge(&keys)?;
        self.has_heard(member, told)
    }

    /// Through which of its wishes a device was heard.
    pub(super) fn heard(&self, member: &Member) -> Result<u64, StoreError> {
        let kept = self.replica.store().setting(&setting(member))?;
        Ok(kept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    fn has_heard(&mut self, member: &Member, number: u64) -> Result<(), ReplicaError> {
        let number = number.max(self.heard(member)?);
        Ok(self.replica.store_mut().set(&setting(member), &number.to_be_bytes())?)
    }

    fn connected(&self, id: ConnectionId) -> Option<Member> {
        self.replica.members().by_tls(&self.peers[&id].key).cloned()
    }

    fn may_be_rejudged(&self, member: &Member, key: &RecordKey) -> Result<bool, StoreError> {
        let rows = self.replica.store().find(&key.ty, &key.id)?;
        let in_question = rows.iter().any(|row| row.state != State::Judged(Outcome::Valid));
        Ok(in_question && self.may_read(member, key)?)
    }

    fn dismiss(&mut self, member: &Member, dismiss: &Dismiss) -> Result<(), ReplicaError> {
        if dismiss.number <= self.heard(member)? {
            return Ok(());
        }
        self.has_heard(member, dismiss.number)?;
        if !self.may_read(member, &dismiss.record)? {
            return Ok(());
        }
        let Dismiss { record, note, content, dismissed, .. } = dismiss;
        let note = dismissed.then_some(note.as_str());
        self.put_content_aside(self.now, &member.name, record, *content, note)
    }

    fn may_read(&self, member: &Member, key: &RecordKey) -> Result<bool, StoreError> {
        let rows = self.replica.store().find(&key.ty, &key.id)?;
        let scope_of = |sid| self.replica.segments().values().find(|row| row.sid == sid);
        Ok(rows.iter().any(|row| {
            scope_of(row.sid).is_some_and(|s| member.may(&s.address.ty, &s.address.scope))
        }))
    }
}

fn setting(member: &Member) -> String {
    format!("heard {}", member.identity)
}
