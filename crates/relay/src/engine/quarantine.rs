//! What is decided about held records: by an operator here, by a member from his device. Each decision is
//! on the trail, in the commit that has its effect.

use fieldkeep_model::status::State;
use fieldkeep_model::{Outcome, RecordHash, RecordKey};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Decision, Dismissal, RecordRow, Records as _, StoreError};

use super::Engine;

/// The longest note, in characters; of a longer one the rest is not kept.
pub const NOTE: usize = 1_000;
/// The longest name of somebody who looks after a record, in characters; likewise.
pub const PERSON: usize = 100;
/// What nobody has to decide about.
const VALID: State = State::Judged(Outcome::Valid);

/// How a record that somebody decides about stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// It is valid, so that there is nothing to decide: nothing was done.
    Valid,
    /// It is not valid, and what was decided is noted.
    Decided,
}

impl Engine {
    /// Puts a record that is not valid aside, with why; or takes any up again. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_aside(
        &mut self,
        now: i64,
        who: &str,
        key: &RecordKey,
        note: Option<&str>,
    ) -> Result<Standing, ReplicaError> {
        let Some(row) = self.at_issue(key)? else { return Ok(Standing::Absent) };
        if note.is_some() && row.state == VALID {
            return Ok(Standing::Valid);
        }
        self.put_content_aside(now, who, key, row.hash, note)?;
        Ok(Standing::Decided)
    }

    /// The record of a key: where that occurs in several scopes, one that is not valid.
    fn at_issue(&self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        let mut rows = self.replica.store().find(&key.ty, &key.id)?;
        let at = rows.iter().position(|row| !row.deleted && row.state != VALID).unwrap_or(0);
        Ok((at < rows.len()).then(|| rows.swap_remove(at)))
    }

    /// The same for a record that is or was that content: a later one is a new matter.
    pub(super) fn put_content_aside(
        &mut self,
        now: i64,
        who: &str,
        key: &RecordKey,
        hash: RecordHash,
        note: Option<&str>,
    ) -> Result<(), ReplicaError> {
        let note: Option<String> = note.map(|note| note.chars().take(NOTE).collect());
        let dismissal = note.as_ref().map(|note| Dismissal {
            hash,
            who: who.to_owned(),
            note: note.clone(),
            time: now,
        });
        self.replica.store_mut().put_dismissal(key, dismissal.as_ref())?;
        self.tally.dismissed(&self.replica, &key.ty)?;
        let act = if note.is_some() { "dismiss" } else { "reopen" };
        self.decided(now, who, act, key, note.unwrap_or_default())
    }

    /// Has somebody look after a record that is not valid, or nobody after any. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assign(
        &mut self,
        now: i64,
        who: &str,
        key: &RecordKey,
        person: Option<&str>,
    ) -> Result<Standing, ReplicaError> {
        let Some(row) = self.at_issue(key)? else { return Ok(Standing::Absent) };
        if person.is_some() && row.state == VALID {
            return Ok(Standing::Valid);
        }
        let person: Option<String> = person.map(|person| person.chars().take(PERSON).collect());
        self.replica.store_mut().assign(key, person.as_deref())?;
        let to = person.unwrap_or_else(|| "nobody".to_owned());
        self.decided(now, who, "assign", key, to)?;
        Ok(Standing::Decided)
    }

    /// Judges records again as they stand, for an operator; what is not there is passed over. A commit must
    /// follow. Returns how many there were, and how many of them are not valid.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rejudge_for(
        &mut self,
        now: i64,
        who: &str,
        keys: &[RecordKey],
    ) -> Result<(u64, u64), ReplicaError> {
        let mut known = Vec::new();
        for key in keys {
            if !self.replica.store().find(&key.ty, &key.id)?.is_empty() {
                known.push(key.clone());
            }
        }
        match self.rejudge(&known) {
            Err(error) if error.is_damage() && known.len() > 1 => {
                tracing::warn!(%error, "what can be read is judged again, one after the other");
                let mut judged = Vec::new();
                for key in known {
                    match self.rejudge(std::slice::from_ref(&key)) {
                        Ok(()) => judged.push(key),
                        Err(error) if error.is_damage() => {
                            tracing::warn!(record = %key, %error, "not judged again");
                        }
                        Err(error) => return Err(error),
                    }
                }
                known = judged;
            }
            other => other?,
        }
        for key in &known {
            self.decided(now, who, "rejudge", key, String::new())?;
        }
        let mut still = 0;
        for key in &known {
            let judged = self.replica.views().record(key)?.map(|view| view.state);
            still += u64::from(judged != Some(VALID));
        }
        Ok((known.len() as u64, still))
    }

    pub(super) fn decided(
        &mut self,
        time: i64,
        who: &str,
        act: &str,
        key: &RecordKey,
        note: String,
    ) -> Result<(), ReplicaError> {
        let (who, act, key) = (who.to_owned(), act.to_owned(), key.clone());
        let decision = Decision { number: 0, time, who, act, key, note };
        self.tally.decided();
        Ok(self.replica.store_mut().add_decision(&decision)?)
    }
}
