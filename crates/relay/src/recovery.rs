//! What came back after a relay was put back from an old copy: changes that were written before and are not
//! in the copy, whose they are, and which devices have not been here since.
//!
//! Whatever lies in a log behind the end that the copy has, came since. Whether it was written before the
//! relay was put back is told by the clock of whoever wrote it.

use std::collections::BTreeMap;

use fieldkeep_model::{DeviceNumber, MembershipLog, Pos, PublicKey, SegmentId};
use fieldkeep_replica::integrity::each_change_behind;
use fieldkeep_replica::{ACCEPTED, ReplicaError};
use fieldkeep_store::{Log as _, Reader, Segments, Settings, Store, StoreError};
use minicbor::{Decode, Encode};

/// The key of the mark.
const MARK: &str = "restored";
/// What the keys begin with under which it is noted that a device has been here since.
const SEEN: &str = "returned ";

/// Where a relay stood when it was put back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Mark {
    /// When that was, milliseconds UTC.
    #[n(0)]
    restored: i64,
    /// As of when the copy is, where that is known.
    #[n(1)]
    taken: Option<i64>,
    /// Where the log of each segment ended.
    #[n(2)]
    ends: Vec<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct End {
    #[n(0)]
    segment: SegmentId,
    #[n(1)]
    pos: Pos,
}

impl Mark {
    /// Where a store stands now.
    pub(crate) fn now(
        store: &impl Segments,
        restored: i64,
        taken: Option<i64>,
    ) -> Result<Self, StoreError> {
        let rows = store.segments()?.into_iter().filter(|row| row.tip > 0);
        let ends = rows.map(|row| End { segment: row.id, pos: row.tip }).collect();
        Ok(Self { restored, taken, ends })
    }

    /// Notes it in place of an earlier one, and that no device has been here since. A commit must follow.
    pub(crate) fn note(&self, store: &mut Store) -> Result<(), StoreError> {
        store.unset_beginning(SEEN)?;
        store.set(MARK, &minicbor::to_vec(self).expect("encoding into memory cannot fail"))
    }

    pub(crate) fn read(store: &impl Settings) -> Result<Option<Self>, StoreError> {
        Ok(store.setting(MARK)?.and_then(|bytes| minicbor::decode(&bytes).ok()))
    }
}

/// Notes that a device has been here since. A commit must follow.
pub(crate) fn note_seen(store: &mut Store, key: &PublicKey, now: i64) -> Result<(), StoreError> {
    store.set(&format!("{SEEN}{key}"), &now.to_be_bytes())
}

/// The devices that have been here since, by their keys, and when they first were.
pub(crate) fn seen(store: &impl Settings) -> Result<BTreeMap<PublicKey, i64>, StoreError> {
    let noted = store.settings_under(SEEN)?.into_iter();
    let seen = noted.filter_map(|(key, time)| {
        let key = data_encoding::HEXLOWER.decode(key.as_bytes()).ok()?.try_into().ok()?;
        Some((PublicKey(key), i64::from_be_bytes(time.try_into().ok()?)))
    });
    Ok(seen.collect())
}

/// What came back, and who was here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// When the relay was put back, milliseconds UTC.
    pub restored: i64,
    /// As of when the copy is, where that is known.
    pub taken: Option<i64>,
    /// Changes that are in the log and not in the copy, and were written before it was put in place.
    pub back: u64,
    /// Changes that were written since.
    pub written_since: u64,
    /// Changes that lie aside, whenever they came: `relay quarantine list` shows them.
    pub aside: u64,
    /// The devices, by number.
    pub devices: Vec<Returned>,
}

/// A device, after the relay was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name.
    pub name: String,
    /// Whether it was revoked: it does not come any more.
    pub revoked: bool,
    /// Changes of its own that came back, whoever brought them.
    pub back: u64,
    /// Changes that it wrote since.
    pub written_since: u64,
    /// When it first was here since, milliseconds UTC; nothing if it was not.
    pub seen: Option<i64>,
}

impl Recovery {
    /// What a store tells of it; nothing where the relay was never put back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(store: &Reader) -> Result<Option<Self>, ReplicaError> {
        let Some(Mark { restored, taken, ends }) = Mark::read(store)? else { return Ok(None) };
        let ends: BTreeMap<SegmentId, Pos> =
            ends.into_iter().map(|end| (end.segment, end.pos)).collect();
        let (members, seen) = (MembershipLog::open(store.members()?)?, seen(store)?);
        let mut recovery = Self { restored, taken, ..Self::default() };
        let mut counts: BTreeMap<PublicKey, (u64, u64)> = BTreeMap::new();
        for row in store.segments()? {
            let end = ends.get(&row.id).copied().unwrap_or(0);
            each_change_behind(store, row.sid, end, |header| {
                // What the relay wrote itself was nowhere else.
                let author = members.author(&header.actor).filter(|member| !member.relay);
                let Some(author) = author else { return };
                let (back, since) = counts.entry(author.keys.tls).or_default();
                *if header.time <= restored { back } else { since } += 1;
            })?;
        }
        recovery.aside =
            store.asides()?.iter().filter(|aside| aside.reason != ACCEPTED).count() as u64;
        for member in members.members().values().filter(|member| !member.relay) {
            let key = member.keys.tls;
            let (back, written_since) = counts.remove(&key).unwrap_or_default();
            recovery.back += back;
            recovery.written_since += written_since;
            recovery.devices.push(Returned {
                number: member.number,
                name: member.name.clone(),
                revoked: member.revoked,
                back,
                written_since,
                seen: seen.get(&key).copied(),
            });
        }
        Ok(Some(recovery))
    }

    /// The devices that have not been here since, and may have what nobody else has.
    pub fn absent(&self) -> impl Iterator<Item = &Returned> {
        self.devices.iter().filter(|device| device.seen.is_none() && !device.revoked)
    }
}
