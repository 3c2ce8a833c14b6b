//! What the owner of a relay's directory does for backups and for the doctor: what only the writer can.

use fieldkeep_console::{Code, Failure};
use fieldkeep_model::SegmentId;
use fieldkeep_relay::LastBackup;

use super::relay::relay;
use crate::access::Owner;
use crate::response::Response;

pub(super) fn note(owner: &Owner, backup: LastBackup) -> Result<Response, Failure> {
    relay(owner)?.note_backup(backup)?;
    Ok(Response::Noted)
}

/// A segment at a time: devices are served in between.
pub(super) fn mend(owner: &Owner, segments: &[String]) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let mut mended = 0;
    for segment in segments {
        let unknown = |_| Failure::new(Code::Usage, format!("{segment} is no segment"), "");
        let id: SegmentId = segment.parse().map_err(unknown)?;
        mended += u64::from(relay.with_engine(move |engine| Ok(engine.mend(&id)?))?);
    }
    relay.with_engine(|engine| Ok(engine.mend_counts()?))?;
    Ok(Response::Taken(mended))
}
