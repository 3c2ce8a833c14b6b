//! Fieldkeep in files: a relay's replica that takes what its members push.

use std::path::Path;

use fieldkeep_model::TypeName;
use fieldkeep_store::Page;
use serde_json::Value;

use super::super::cell::Cell;
use super::super::engine::content_of;
use super::super::workload;
use super::super::{bytes, work};
use super::{BASE, BATCH, DELIVERIES, Delivery, Keeper};
use crate::authors::{Authors, By, Office};
use crate::camp::{TYPE, catalog};

/// An organisation with its members and without records.
pub(super) const FOUNDED: &str = "founded";
/// Records of a page.
const PAGE: usize = 10_000;

/// A relay's replica.
pub(super) struct Kept(Office);

impl Kept {
    pub(super) fn open(folder: &Path, records: usize, devices: usize) -> Self {
        Self(Office::open(folder, &catalog(records, false), devices + 1))
    }
}

impl Keeper for Kept {
    fn receive(&mut self, delivery: &Delivery) {
        for message in &delivery.messages {
            self.0.receive(message);
        }
    }

    fn content(&self) -> String {
        let views = self.0.replica.views();
        let ty = TypeName::new(TYPE).expect("a name");
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = Page { after, limit: PAGE, deleted: false };
            let listed = views.list(&ty, &page).expect("it reads");
            after = listed.last().map(|record| record.key.id.to_string());
            let full = listed.len() >= PAGE;
            records.extend(listed.into_iter().map(|record| (record.key.id, record.fields)));
            if !full {
                break;
            }
        }
        records.sort_by(|a, b| a.0.cmp(&b.0));
        content_of(records.iter().map(|(id, fields)| (id, Value::Object(fields.clone()))))
    }
}

/// Makes an organisation, the deliveries of a workload, and the replica that they begin with.
pub(super) fn prepare(cell: &Cell) {
    let open = |folder: &Path| Kept::open(folder, cell.records, cell.devices);
    cell.keep_folder(FOUNDED, |founded| drop(open(founded)));
    let records = work::records(cell.seed, cell.records);
    let by =
        |(nth, (id, edit)): (usize, &work::Write)| (nth % cell.devices, id.clone(), edit.clone());
    let writes: Vec<By> = records.iter().enumerate().map(by).collect();
    let Kept(office) = open(&cell.path(FOUNDED));
    // The last member writes what comes later.
    let mut authors = Authors::of(&office, cell.devices + 1);
    let built = writes.chunks(BATCH).map(|writes| authors.delivery(&office, writes));
    let built: Vec<_> = built.collect();
    cell.keep_folder(BASE, |base| {
        super::copy(&cell.path(FOUNDED), base);
        let Kept(mut office) = open(base);
        for delivery in &built {
            office.receive(delivery);
        }
        office.replica.save_all().expect("the disk takes it");
    });
    let deliveries = match cell.workload.remote() {
        None => built,
        Some(remote) => {
            let edits = workload::remote_edits(remote, cell.seed, &records);
            let edits = edits.into_iter().map(|(id, edit)| (cell.devices, id, edit));
            let edits: Vec<By> = edits.collect();
            edits.chunks(1).map(|edit| authors.delivery(&office, edit)).collect()
        }
    };
    cell.keep(&format!("{}.{DELIVERIES}", cell.workload.name()), &bytes::joined(&deliveries));
}
