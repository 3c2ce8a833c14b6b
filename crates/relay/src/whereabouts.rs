//! Where one record is on a relay, and why it looks as it does: what a console tells of it.

use std::collections::BTreeMap;

use fieldkeep_model::{DeviceNumber, Outcome, RecordKey, SegmentAddress, status::State};
use fieldkeep_replica::{HeldView, Reading, Referrers};
use fieldkeep_store::{Log as _, Records as _, SegmentRow, Segments as _, StoreError};

/// Where a record is, and why it looks as it does.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// The record.
    pub key: RecordKey,
    /// The record with its verdict, and who looks after it; nothing if the relay has none of that name.
    pub held: Option<HeldView>,
    /// The records that refer to it.
    pub referrers: Referrers,
    /// Whether the catalog in force has its type.
    pub declared: bool,
    /// Where it lies: type, scope and bucket.
    pub address: Option<SegmentAddress>,
    /// How many changes the log of its segment has, and through which all is merged and judged.
    pub log: (u64, u64),
    /// The catalog that its segment was judged by.
    pub judged_by: u64,
    /// Changes that may concern it and lie aside, with the reason.
    pub aside: BTreeMap<String, u64>,
    /// The devices that may read it, by their numbers.
    pub readers: Vec<DeviceNumber>,
}

impl Whereabouts {
    /// Where a record is, as a reader sees it. Who wrote it is in its document, and not told here.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(reading: &Reading, key: &RecordKey) -> Result<Self, StoreError> {
        let (held, referrers) = reading.views().in_quarantine(key)?.unzip();
        let row = reading.store.find(&key.ty, &key.id)?.into_iter().next();
        let segments = reading.store.segments()?;
        // Where it is not, it may lie aside in any segment of its type.
        let may_lie_in: Vec<i64> = match &row {
            Some(row) => vec![row.sid],
            None => segments.iter().filter(|of| of.address.ty == key.ty).map(|of| of.sid).collect(),
        };
        let segment = row.and_then(|row| segments.into_iter().find(|of| of.sid == row.sid));
        let mut whereabouts = Self {
            key: key.clone(),
            held,
            referrers: referrers.unwrap_or_default(),
            declared: reading.catalog.as_ref().is_some_and(|catalog| catalog.ty(&key.ty).is_some()),
            address: None,
            log: (0, 0),
            judged_by: 0,
            aside: BTreeMap::new(),
            readers: Vec::new(),
        };
        for sid in may_lie_in {
            for aside in reading.store.asides_in(sid)? {
                let unknown = aside.records.is_empty() && segment.is_some();
                if unknown || aside.records.iter().any(|record| record == key.id.as_str()) {
                    *whereabouts.aside.entry(aside.reason).or_default() += 1;
                }
            }
        }
        let Some(SegmentRow { address, tip, done, judged_catalog, .. }) = segment else {
            return Ok(whereabouts);
        };
        let members = reading.members.members().values();
        let may_read =
            members.filter(|m| !m.relay && !m.revoked && m.may(&address.ty, &address.scope));
        whereabouts.readers = may_read.map(|member| member.number).collect();
        whereabouts.log = (tip, done);
        whereabouts.judged_by = judged_catalog;
        whereabouts.address = Some(address);
        Ok(whereabouts)
    }

    /// The same in sentences, the most telling first.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let name = &self.key;
        match &self.held {
            None if !self.declared => {
                said.push(format!("the catalog has no object type {}", name.ty));
            }
            None if self.aside.is_empty() => {
                said.push(format!("{name} is not here: no device has sent a change of it"));
            }
            None => said.push(format!("{name} is not among the records: it lies aside")),
            Some(HeldView { view, .. }) => {
                let deleted = if view.deleted { ", deleted" } else { "" };
                let state = view.state.word().replace('_', " ");
                said.push(format!("{name} is here{deleted}: {state}"));
                if !self.declared {
                    said.push(format!("the catalog in force has no object type {}", name.ty));
                }
                if view.state == State::Judged(Outcome::Waiting) {
                    said.push(
                        "it is judged again by itself when what it waits for comes".to_owned(),
                    );
                }
            }
        }
        let (tip, done) = self.log;
        match tip - done {
            _ if self.address.is_none() => {}
            0 => said.push(format!("all {tip} changes of its segment are merged and judged")),
            left => said.push(format!("{left} of {tip} changes of its segment are to be judged")),
        }
        for (reason, count) in &self.aside {
            let changes =
                if *count == 1 { "1 change lies" } else { &format!("{count} changes lie") };
            said.push(format!("{changes} aside: {}", reason.replace('_', " ")));
        }
        said
    }
}
