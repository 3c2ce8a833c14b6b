//! What a relay has not taken of a device: it stays there, in the generation that it was written in.

use std::collections::BTreeMap;

use fieldkeep_model::{RecordId, RecordKey};
use fieldkeep_store::{Log as _, Records as _, StoreError};
use serde_json::{Map, Value};

use crate::judging::fields_of;
use crate::replica::{Replica, ReplicaError};

/// A record with a change that the relay has not taken.
#[derive(Clone, Debug, PartialEq)]
pub struct NotTaken {
    /// The record.
    pub key: RecordKey,
    /// The generation of its type where it is so, if that is over: there it was not carried over from, and
    /// is no longer among the records.
    pub generation: Option<u32>,
    /// Why, as the relay says.
    pub why: String,
    /// Its fields there; none where nothing else made the record.
    pub fields: Map<String, Value>,
}

impl Replica {
    /// The records with a change that the relay has not taken, by type and id.
    ///
    /// # Errors
    /// When the disk fails, or a segment of a generation that is over cannot be merged.
    pub fn not_taken(&mut self) -> Result<Vec<NotTaken>, ReplicaError> {
        let mut found = Vec::new();
        for id in self.segments.keys().copied().collect::<Vec<_>>() {
            let (sid, address) = (self.row(&id).sid, self.row(&id).address.clone());
            let apart = self.is_apart(&address);
            for (record, why) in self.refusals_in(sid)? {
                let fields = match apart {
                    true => self.document(&id)?.record(&record).map(|record| record.fields),
                    false => self.store.record(sid, &record)?.map(|row| fields_of(&row.json)),
                };
                found.push(NotTaken {
                    key: RecordKey::new(address.ty.clone(), record),
                    generation: apart.then_some(address.generation),
                    why,
                    fields: fields.unwrap_or_default(),
                });
            }
        }
        found.sort_by(|a, b| (&a.key, a.generation).cmp(&(&b.key, b.generation)));
        Ok(found)
    }

    /// The records of a segment with a change that was refused, or is this device's own and lies aside.
    fn refusals_in(&self, sid: i64) -> Result<BTreeMap<RecordId, String>, StoreError> {
        let mut refusals = BTreeMap::new();
        self.store.each_outgoing(sid, |change| {
            if let Some(why) = change.refused {
                refusals.extend(change.records.into_iter().map(|record| (record, why.clone())));
            }
            true
        })?;
        let me = self.me.actor().device();
        let asides = self.store.asides_in(sid)?;
        for aside in asides.into_iter().filter(|aside| aside.actor.device() == me) {
            let records = aside.records.iter().filter_map(|record| record.parse().ok());
            records.for_each(|record| {
                refusals.entry(record).or_insert_with(|| aside.reason.clone());
            });
        }
        Ok(refusals)
    }
}
