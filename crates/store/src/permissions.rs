//! What a change of permissions touches: the newest changes of a member, the mark that an entry was
//! merged without permission, and what the relay did not take and may take after all.

use std::collections::BTreeMap;

use fieldkeep_model::head::Head;
use fieldkeep_model::{ActorId, ChangeHash, DeviceNumber, Pos};
use rusqlite::params;

use crate::segments::SegmentRow;
use crate::{Log, PackRow, Queries, Reader, Result, Store};

/// Reading what a member wrote.
pub trait Permissions: Queries {
    /// The newest change of each of a device's actors in each segment that has a signed head of it:
    /// in a relay's log those are all.
    ///
    /// # Errors
    /// When the disk fails.
    fn newest_of(&self, device: DeviceNumber) -> Result<BTreeMap<(i64, ActorId), Head>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, actor, seq, hash FROM head WHERE substr(actor, 1, 8) = ? ORDER BY key",
        )?;
        let rows = query.query_map([device.to_be_bytes()], |row| {
            let head = Head {
                actor: ActorId(row.get(1)?),
                seq: row.get::<_, i64>(2)? as u64,
                hash: ChangeHash(row.get(3)?),
            };
            Ok(((row.get::<_, i64>(0)? >> 40, head.actor), head))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Permissions for Store {}
impl Permissions for Reader {}

impl Store {
    /// Marks an entry of the log as merged without permission.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn taint(&mut self, sid: i64, pos: Pos) -> Result<()> {
        let pack: Option<PackRow> = self.pack(sid, pos)?;
        let connection = self.write()?;
        let Some(mut pack) = pack else {
            connection
                .prepare_cached("UPDATE change SET flags = flags | 1 WHERE key = ?")?
                .execute([SegmentRow::key(sid, pos)])?;
            return Ok(());
        };
        pack.tainted.push(pos);
        pack.tainted.sort_unstable();
        pack.tainted.dedup();
        let flags: Vec<u8> = pack.tainted.iter().flat_map(|pos| pos.to_be_bytes()).collect();
        connection
            .prepare_cached("UPDATE pack SET flags = ? WHERE key = ?")?
            .execute(params![flags, SegmentRow::key(sid, pack.first)])?;
        Ok(())
    }

    /// Forgets why the relay did not take changes, where the reason begins like that: they are sent
    /// again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_refusals(&mut self, reason: &str) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE outbox SET refused = NULL WHERE refused LIKE ? || '%'")?
            .execute([reason])?;
        Ok(())
    }
}
