//! Reading a copy back: whether it is what a relay's store has to be.

use fieldkeep_model::{MembershipError, MembershipLog, Seed};
use fieldkeep_replica::integrity::verify;
use fieldkeep_replica::{Integrity, ReplicaError};
use fieldkeep_store::backup::Manifest;
use fieldkeep_store::{
    Catalogs as _, Reader, Records as _, SegmentRow, Segments as _, Settings as _, Soundness as _,
    StoreError,
};

use super::{Progress, Stage, Told};

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
    Unread(#[from] ReplicaError),
}

impl From<StoreError> for Flaw {
    fn from(error: StoreError) -> Self {
        Self::Unread(error.into())
    }
}

/// Reads all of a copy, and says in its manifest what it is of. Returns what of derived state is not as it
/// should be, in words: nothing is lost by that.
///
/// # Errors
/// When it cannot be relied on.
pub(super) fn check(
    copy: &Reader,
    keys: &[Seed],
    manifest: &mut Manifest,
    told: Told<'_>,
) -> Result<Vec<String>, Flaw> {
    if let Some(wrong) = copy.check()? {
        return Err(Flaw::File(wrong));
    }
    let members = MembershipLog::open(copy.members()?).map_err(Flaw::Members)?;
    let is_known =
        |seed: &Seed| members.by_tls(&seed.tls().public()).is_some_and(|member| member.relay);
    if !keys.iter().any(is_known) {
        return Err(Flaw::Key);
    }
    let epoch = copy.setting("epoch")?.and_then(|bytes| minicbor::decode(&bytes).ok());
    let epoch: fieldkeep_model::Epoch = epoch.unwrap_or_default();
    let mut rows = copy.segments()?;
    rows.sort_by_key(|row| row.id);
    let changes = rows.iter().map(|row| row.tip).sum();
    let (mut logs, mut done, mut notices) = (blake3::Hasher::new(), 0, Vec::new());
    for row in &rows {
        match verify(copy, row)? {
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
    manifest.organisation = members.org().to_string();
    manifest.name = members.name().to_owned();
    manifest.epoch = epoch.counter;
    manifest.catalog = copy.newest_catalog()?.map_or(0, |catalog| catalog.number);
    manifest.members = members.len();
    manifest.segments = rows.len() as u64;
    manifest.changes = changes;
    manifest.logs = logs.finalize().to_hex().to_string();
    manifest.records = rows.iter().map(|row| row.records).sum();
    Ok(notices)
}

fn note(logs: &mut blake3::Hasher, row: &SegmentRow) {
    logs.update(row.id.as_bytes()).update(&row.tip.to_be_bytes()).update(&row.chain.0);
}
