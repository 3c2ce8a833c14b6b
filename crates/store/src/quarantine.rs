//! The quarantine of a relay: what is held or waits, page by page; who looks after a record; and the
//! trail of what was decided, which is only added to.
//!
//! A page is found by a walk along one index that has all that it asks of a verdict. What only the record
//! itself says is looked at for so many of them; a page may then be short, and says where to go on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fieldkeep_model::status::State;
use fieldkeep_model::{DeviceNumber, Outcome, RecordId, RecordKey, TypeName};
use rusqlite::{OptionalExtension as _, params};

use crate::error::damaged;
use crate::{Queries, Reader, RecordRow, Records, Result, Segments, Store, Verdicts};

/// What a page may take, in verdicts that are passed by.
const EFFORT: usize = 20_000;
/// What reading a record takes of it.
const READING: usize = 4;

/// Which records are asked for; all that stand, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of that type.
    pub ty: Option<TypeName>,
    /// In that scope.
    pub scope: Option<String>,
    /// For that rule, or that reason where no rule of the catalog is broken.
    pub rule: Option<String>,
    /// With a change of that device which the rules object to.
    pub device: Option<DeviceNumber>,
    /// Whose newest such change was written by then, milliseconds UTC.
    pub until: Option<i64>,
    /// With that text in its name, as `type/id`, or in its content, whatever its case.
    pub text: Option<String>,
    /// Put aside, or not.
    pub dismissed: Option<bool>,
    /// Assigned to that person.
    pub person: Option<String>,
}

/// Where a page ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    since: i64,
    sid: i64,
    id: String,
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its type.
    pub ty: TypeName,
    /// The record.
    pub row: RecordRow,
    /// When the newest change that the rules object to was written, by its author's clock, milliseconds
    /// UTC; 0 where they object to none.
    pub since: i64,
    /// Who looks after it.
    pub person: Option<String>,
}

/// What was decided about a record, or about all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its number: they rise.
    pub number: u64,
    /// When, milliseconds UTC.
    pub time: i64,
    /// Who decided it.
    pub who: String,
    /// What: `dismiss`, `reopen`, `assign`, `rejudge`, `accept`.
    pub act: String,
    /// The record.
    pub key: RecordKey,
    /// Why, or to whom.
    pub note: String,
}

/// Of which decisions the newest are sought; any by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoughtDecisions {
    /// About this record.
    pub about: Option<RecordKey>,
    /// What was decided, in a word of [`Decision::act`].
    pub act: Option<String>,
    /// Who decided it.
    pub who: Option<String>,
    /// Before that number.
    pub before: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.since, self.sid, self.id)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next()?.parse().ok();
        let (since, sid) = (number().ok_or(())?, number().ok_or(())?);
        Ok(Self { since, sid, id: parts.next().ok_or(())?.to_owned() })
    }
}

impl Store {
    /// Has somebody look after a record, or nobody.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn assign(&mut self, key: &RecordKey, person: Option<&str>) -> Result<()> {
        let connection = self.write()?;
        let (ty, id) = (key.ty.as_str(), key.id.as_str());
        match person {
            Some(person) => connection
                .prepare_cached("INSERT OR REPLACE INTO assignment VALUES (?, ?, ?)")?
                .execute([ty, id, person])?,
            None => connection
                .prepare_cached("DELETE FROM assignment WHERE ty = ? AND id = ?")?
                .execute([ty, id])?,
        };
        Ok(())
    }

    /// Adds to the trail; the decision's number is drawn here.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add_decision(&mut self, decision: &Decision) -> Result<()> {
        let Decision { time, who, act, key, note, .. } = decision;
        self.write()?
            .prepare_cached(
                "INSERT INTO decision (time, who, act, ty, id, note) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![time, who, act, key.ty.as_str(), key.id.as_str(), note])?;
        Ok(())
    }
}

/// Looking into the quarantine.
pub trait Quarantine: Queries + Records + Segments + Verdicts {
    /// The records that were asked for, those with the newest changes first, behind a place; at most so
    /// many. Where there may be more, the place from which to go on.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn quarantine(
        &self,
        wanted: &Wanted,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<(Vec<Found>, Option<Place>)> {
        let segments: BTreeMap<i64, TypeName> =
            self.segments()?.into_iter().map(|row| (row.sid, row.address.ty)).collect();
        let mut query = self.connection().prepare_cached(
            "SELECT since, sid, id FROM verdict INDEXED BY verdict_found
             WHERE (since, sid, id) < (?1, ?2, ?3) AND since <= ?4
                 AND (since <> 0 OR ?4 = 9223372036854775807)
                 AND (?5 IS NULL OR instr(about, ?5) > 0)
                 AND (?6 IS NULL OR instr(about, ?6) > 0)
                 AND ((?7 IS NULL AND ?8 IS NULL) OR sid IN (
                     SELECT sid FROM segment WHERE (?7 IS NULL OR ty = ?7)
                         AND (?8 IS NULL OR scope = ?8)))
             ORDER BY since DESC, sid DESC, id DESC",
        )?;
        let first = Place { since: i64::MAX, sid: i64::MAX, id: String::new() };
        let after = after.unwrap_or(&first);
        let mut rows = query.query(params![
            after.since,
            after.sid,
            after.id,
            wanted.until.unwrap_or(i64::MAX),
            wanted.rule.as_ref().map(|rule| about_rule(rule)),
            wanted.device.map(about_device),
            wanted.ty.as_ref().map(TypeName::as_str),
            wanted.scope,
        ])?;
        let text = wanted.text.as_ref().map(|text| text.to_lowercase());
        let says = |said: &str| text.as_ref().is_none_or(|text| said.to_lowercase().contains(text));
        let (mut found, mut effort) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let place = Place { since: row.get(0)?, sid: row.get(1)?, id: row.get(2)? };
            effort += 1;
            if let Some(ty) = segments.get(&place.sid) {
                let id = RecordId::new(&*place.id).map_err(|_| damaged("a record id"))?;
                let key = RecordKey::new(ty.clone(), id);
                let person = self.assignee(&key)?;
                let dismissal = self.dismissal(&key)?;
                let may_be_meant = (wanted.person.is_none() || wanted.person == person)
                    && (wanted.dismissed != Some(true) || dismissal.is_some());
                let row = if may_be_meant { self.record(place.sid, &key.id)? } else { None };
                effort += if may_be_meant { READING } else { 0 };
                let is_meant = |row: &RecordRow| {
                    let is_aside = dismissal.as_ref().is_some_and(|aside| aside.hash == row.hash);
                    matches!(row.state, State::Judged(Outcome::Held | Outcome::Waiting))
                        && !row.deleted
                        && wanted.dismissed.is_none_or(|asked| asked == is_aside)
                        && (says(&row.json) || says(&key.to_string()))
                };
                let row = row.filter(is_meant);
                found.extend(row.map(|row| Found { ty: key.ty, row, since: place.since, person }));
            }
            if found.len() == limit || effort >= EFFORT {
                return Ok((found, Some(place)));
            }
        }
        Ok((found, None))
    }

    /// How many records are held or wait for each rule, or for each reason that no rule has a name for. One
    /// that breaks two rules counts for both.
    ///
    /// # Errors
    /// When the disk fails.
    fn held_by_rule(&self) -> Result<BTreeMap<String, u64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT about, count(*) FROM verdict v JOIN record r ON r.id = v.id AND r.sid = v.sid
             WHERE r.state IN (1, 2) AND r.deleted = 0 GROUP BY about",
        )?;
        let rows =
            query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let mut rules: BTreeMap<String, u64> = BTreeMap::new();
        for row in rows {
            let (about, count) = row?;
            for rule in rules_of(&about) {
                *rules.entry(rule.to_owned()).or_default() += count as u64;
            }
        }
        Ok(rules)
    }

    /// Who looks after a record.
    ///
    /// # Errors
    /// When the disk fails.
    fn assignee(&self, key: &RecordKey) -> Result<Option<String>> {
        let sql = "SELECT person FROM assignment WHERE ty = ? AND id = ?";
        let mut query = self.connection().prepare_cached(sql)?;
        Ok(query.query_row([key.ty.as_str(), key.id.as_str()], |row| row.get(0)).optional()?)
    }

    /// What was decided; newest first, at most so many.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn decisions(&self, sought: &SoughtDecisions, limit: usize) -> Result<Vec<Decision>> {
        let mut query = self.connection().prepare_cached(
            "SELECT number, time, who, act, ty, id, note FROM decision
             WHERE number < ?1 AND (?2 IS NULL OR (ty = ?2 AND id = ?3))
                 AND (?4 IS NULL OR act = ?4) AND (?5 IS NULL OR who = ?5)
             ORDER BY number DESC LIMIT ?6",
        )?;
        let SoughtDecisions { about, act, who, before } = sought;
        let (ty, id) = about.as_ref().map(|key| (key.ty.as_str(), key.id.as_str())).unzip();
        let before = before.map_or(i64::MAX, |before| before as i64);
        let rows = query.query_map(params![before, ty, id, act, who, limit as i64], |row| {
            let named = (row.get::<_, String>(4)?, row.get::<_, String>(5)?);
            let number: i64 = row.get(0)?;
            Ok((number as u64, row.get(1)?, row.get(2)?, row.get(3)?, named, row.get(6)?))
        })?;
        rows.map(|row| {
            let (number, time, who, act, (ty, id), note) = row?;
            let ty = TypeName::new(ty).map_err(|_| damaged("a type name"))?;
            let id = RecordId::new(id).map_err(|_| damaged("a record id"))?;
            Ok(Decision { number, time, who, act, key: RecordKey::new(ty, id), note })
        })
        .collect()
    }
}

impl Quarantine for Store {}
impl Quarantine for Reader {}

/// How a verdict notes that it speaks of a rule; such notes stand one after the other.
#[must_use]
pub fn about_rule(rule: &str) -> String {
    format!(" rule:{rule} ")
}

/// The rules that such notes speak of.
fn rules_of(about: &str) -> impl Iterator<Item = &str> {
    about.split("  ").filter_map(|note| note.trim().strip_prefix("rule:"))
}

/// How it notes that it names a change of a device.
#[must_use]
pub fn about_device(device: DeviceNumber) -> String {
    format!(" device:{device} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_verdict_are_read_from_its_notes() {
        let about = [about_device(12), about_rule("discount"), about_rule("unique")].concat();
        assert_eq!(rules_of(&about).collect::<Vec<_>>(), ["discount", "unique"]);
        assert_eq!(rules_of("").count(), 0);
    }
}
