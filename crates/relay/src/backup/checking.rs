//! Reading a copy back: whether it is what a relay's store has to be.

use fieldkeep_model::{MembershipError, MembershipLog, Seed};
use fieldkeep_replica::Integrity;
use fieldkeep_replica::integrity::verify;
use fieldkeep_store::{
    Catalogs as _, Reader, Records as _, SegmentRow, Segments as _, Settings as _, Soundness as _,
    StoreError,
};

use super::{Progress, Stage, Told};

/// What a copy is of, as it was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The organisation's id.
    pub organisation: String,
    /// Its name.
    pub name: String,
    /// The counter of the log's epoch.
    pub epoch: u64,
    /// The number of the catalog in force, 0 without one.
    pub catalog: u64,
    /// Entries of the membership log, each with its signature.
    pub members: u64,
    /// Segments.
    pub segments: u64,
    /// Changes: each was compared with its hash, and all of them with their segment's sum and chain.
    pub changes: u64,
    /// blake3 over each segment's id, the length of its log and the chain there, in hexadecimal.
    pub logs: String,
    /// Records, which were compared with their segment's sum.
    pub records: u64,
    /// What of derived state is not as it should be, in words: nothing is lost by that.
    pub notices: Vec<String>,
}

/// Why a store cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The file is no sound database.
    #[error("the database is not sound: {0}")]
    File(String),
    /// Changes are missing, or not what was written.
    #[error("changes of {0} are not what was written")]
    Changes(String),
    /// The membership log does not verify.
    #[error("the membership log does not verify: {0}")]
    Members(MembershipError),
    /// The key is not the relay's.
    #[error("the key is not the one by which members know the relay")]
    Key,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unread(StoreError),
}

impl From<StoreError> for Flaw {
    fn from(error: StoreError) -> Self {
        Self::Unread(error)
    }
}

/// Reads all of a copy.
///
/// # Errors
/// When it cannot be relied on.
pub(super) fn check(copy: &Reader, seed: &Seed, told: Told<'_>) -> Result<Checked, Flaw> {
    if let Some(wrong) = copy.check()? {
        return Err(Flaw::File(wrong));
    }
    let members = MembershipLog::open(copy.members()?).map_err(Flaw::Members)?;
    members.by_tls(&seed.tls().public()).filter(|member| member.relay).ok_or(Flaw::Key)?;
    let epoch = copy.setting("epoch")?.and_then(|bytes| minicbor::decode(&bytes).ok());
    let epoch: fieldkeep_model::Epoch = epoch.unwrap_or_default();
    let mut rows = copy.segments()?;
    rows.sort_by_key(|row| row.id);
    let changes = rows.iter().map(|row| row.tip).sum();
    let (mut logs, mut done, mut notices) = (blake3::Hasher::new(), 0, Vec::new());
    for row in &rows {
        match verify(copy, row).map_err(unread)? {
            None => {}
            Some(Integrity::Changes(address)) => return Err(Flaw::Changes(address)),
            Some(Integrity::Records(address)) => {
                notices.push(format!("records of {address} are not what their changes come to"));
            }
        }
        note(&mut logs, row);
        done += row.tip;
        told(Progress { stage: Stage::Checking, done, total: changes });
    }
    if copy.tallies()? != copy.recount()? {
        notices.push("the counts that are kept are not what a recount finds".to_owned());
    }
    Ok(Checked {
        organisation: members.org().to_string(),
        name: members.name().to_owned(),
        epoch: epoch.counter,
        catalog: copy.newest_catalog()?.map_or(0, |catalog| catalog.number),
        members: members.len(),
        segments: rows.len() as u64,
        changes,
        logs: logs.finalize().to_hex().to_string(),
        records: rows.iter().map(|row| row.records).sum(),
        notices,
    })
}

fn note(logs: &mut blake3::Hasher, row: &SegmentRow) {
    logs.update(row.id.as_bytes()).update(&row.tip.to_be_bytes()).update(&row.chain.0);
}

fn unread(error: fieldkeep_replica::ReplicaError) -> Flaw {
    match error {
        fieldkeep_replica::ReplicaError::Store(error) => Flaw::Unread(error),
        other => Flaw::Unread(StoreError::Damaged(other.to_string())),
    }
}
