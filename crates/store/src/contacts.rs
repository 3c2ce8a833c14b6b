//! What a relay notes of its members' visits: when each was there last, what it runs, and what it said
//! of itself. A row a member; whatever is in it is a claim of that member, but for the times.

use std::collections::BTreeMap;

use fieldkeep_model::{ActorId, PublicKey};
use rusqlite::params;

use crate::{Queries, Reader, Result, Store};

/// A member's last visit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// When it was there last, by the relay's clock, milliseconds UTC.
    pub seen: i64,
    /// What it runs, as it says.
    pub software: String,
    /// The number of the catalog that it has, as it says.
    pub catalog: u64,
    /// How many entries of the membership log it holds, as it says.
    pub members: u64,
    /// What it said of itself last, encoded, and when that was heard by the relay's clock.
    pub report: Option<(i64, Vec<u8>)>,
}

impl Store {
    /// Notes a visit; what the member said of itself before stays, where it has said nothing since.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_contact(&mut self, member: &PublicKey, contact: &Contact) -> Result<()> {
        let (heard, report) = contact.report.as_ref().map(|(at, bytes)| (*at, bytes)).unzip();
        self.write()?
            .prepare_cached(
                "INSERT INTO contact VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (member) DO UPDATE SET seen = excluded.seen,
                     software = excluded.software, catalog = excluded.catalog,
                     members = excluded.members, heard = coalesce(excluded.heard, heard),
                     report = coalesce(excluded.report, report)",
            )?
            .execute(params![
                member.0,
                contact.seen,
                contact.software,
                contact.catalog as i64,
                contact.members as i64,
                heard,
                report
            ])?;
        Ok(())
    }
}

/// Reading what was noted.
pub trait Contacts: Queries {
    /// The last visit of each member that was ever there, by its signing key.
    ///
    /// # Errors
    /// When the disk fails.
    fn contacts(&self) -> Result<BTreeMap<PublicKey, Contact>> {
        let mut query = self.connection().prepare_cached(
            "SELECT member, seen, software, catalog, members, heard, report FROM contact",
        )?;
        let rows = query.query_map([], |row| {
            let heard: Option<i64> = row.get(5)?;
            let contact = Contact {
                seen: row.get(1)?,
                software: row.get(2)?,
                catalog: row.get::<_, i64>(3)? as u64,
                members: row.get::<_, i64>(4)? as u64,
                report: heard.zip(row.get(6)?),
            };
            Ok((PublicKey(row.get(0)?), contact))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many changes of each actor the log of a relay holds, over all segments.
    ///
    /// # Errors
    /// When the disk fails.
    fn changes_by_actor(&self) -> Result<BTreeMap<ActorId, u64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT actor, sum(newest) FROM
                 (SELECT actor, max(seq) AS newest FROM head GROUP BY key >> 40, actor)
             GROUP BY actor",
        )?;
        let rows =
            query.query_map([], |row| Ok((ActorId(row.get(0)?), row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Contacts for Store {}
impl Contacts for Reader {}
