//! What is asked of generations that are over.

use std::collections::BTreeMap;
use std::path::Path;

use fieldkeep_catalog::Catalog;
use fieldkeep_console::shape::reshape::{PastGeneration, PastRecord};
use fieldkeep_console::{Code, Failure};
use fieldkeep_model::{SegmentId, TypeName};
use fieldkeep_relay::Engine;
use fieldkeep_relay::archive::{ArchiveError, ArchiveHeader, ArchiveWriter, read_archive};
use fieldkeep_replica::PastSegment;
use fieldkeep_store::{Catalogs as _, Contacts as _, StoreError};

use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::response::Response;

pub(super) fn list(owner: &Owner) -> Result<Response, Failure> {
    let past = relay(owner)?.with_engine(|engine| Ok(engine.replica().past()?))?;
    let mut listed: BTreeMap<(String, u32), PastGeneration> = BTreeMap::new();
    for segment in past {
        let (ty, generation) = (segment.address.ty.to_string(), segment.address.generation);
        let one = listed.entry((ty.clone(), generation)).or_default();
        (one.ty, one.generation) = (ty, generation);
        one.segments += 1;
        one.records += segment.records;
        one.changes += segment.tip;
        one.late += segment.late;
        one.aside += segment.aside;
    }
    Ok(Response::PastGenerations(listed.into_values().collect()))
}

fn of(relay: &RelayOwner, ty: &TypeName, generation: u32) -> Result<Vec<PastSegment>, Failure> {
    let (name, wanted) = (ty.clone(), generation);
    let past = relay.with_engine(move |engine| {
        let mut past = engine.replica().past()?;
        past.retain(|past| past.address.ty == name && past.address.generation == wanted);
        Ok(past)
    })?;
    if past.is_empty() {
        let message = format!("generation {generation} of {ty} is none that is over");
        let remedy = "`fieldkeep relay generations list` shows which are";
        return Err(Failure::new(Code::NotFound, message, remedy));
    }
    Ok(past)
}

/// A segment at a time: devices are served in between.
pub(super) fn read(
    owner: &Owner,
    ty: &TypeName,
    generation: u32,
    after: Option<String>,
) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let past = of(relay, ty, generation)?;
    let after: Option<SegmentId> = after.and_then(|after| after.parse().ok());
    let mut left = past.into_iter().filter(|past| after.is_none_or(|after| past.id > after));
    let Some(PastSegment { id, .. }) = left.next() else {
        return Ok(Response::PastRecords(Vec::new(), None));
    };
    let next = left.next().map(|_| id.to_string());
    let records = relay.with_engine(move |engine| Ok(engine.replica_mut().read_past(&id)?))?;
    let records = records.into_iter().map(|(id, record)| PastRecord {
        id: id.to_string(),
        deleted: record.deleted,
        fields: record.fields,
    });
    Ok(Response::PastRecords(records.collect(), next))
}

pub(super) fn archive(
    owner: &Owner,
    (ty, generation): (&TypeName, u32),
    file: &Path,
    anyway: bool,
) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let past = of(relay, ty, generation)?;
    if past.iter().any(|past| past.late > 0) {
        let message = "something of it is not carried over yet";
        return Err(Failure::new(Code::Failure, message, "nothing was changed: try again"));
    }
    let aside: u64 = past.iter().map(|past| past.aside).sum();
    if aside > 0 {
        let message =
            format!("{aside} of its changes lie aside, and an archive would not have them");
        let remedy = "nothing was changed: `fieldkeep relay quarantine list` shows them; grant what is \
                      missing, and they are carried over";
        return Err(Failure::new(Code::Held, message, remedy));
    }
    if !anyway {
        everybody_moved(relay, ty, generation)?;
    }
    let wanted = (ty.clone(), generation);
    let header = relay.with_engine(move |engine| header(engine, wanted))?;
    let written = write(relay, &past, file, &header);
    if let Err(error) = written {
        // Nothing relies on it; one that was there before is not touched.
        if !matches!(&error, Unwritten::Begun(ArchiveError::Io(_))) {
            let _ = std::fs::remove_file(file);
        }
        return Err(error.failure(file));
    }
    let (read, segments) = read_archive(file, &mut |_, _| ()).map_err(Failure::from)?;
    let same = past.iter().all(|past| {
        let segment = segments.get(&past.id);
        segment.is_some_and(|segment| (segment.tip, segment.chain) == (past.tip, past.chain))
    });
    if read != header || !same {
        let message = "the archive that was written does not read as the relay does";
        return Err(Failure::new(Code::Integrity, message, "nothing was taken out"));
    }
    let archived: Vec<_> = past.iter().map(|past| (past.id, past.tip, past.chain)).collect();
    let forgotten = relay.with_engine(move |engine| Ok(engine.forget_past(&archived)?))?;
    match forgotten {
        Some(segments) => Ok(Response::Archived(segments)),
        None => {
            let _ = std::fs::remove_file(file);
            let message = "a device has brought something of it meanwhile";
            Err(Failure::new(Code::Failure, message, "nothing was taken out: try again"))
        }
    }
}

/// Refuses where a device may still bring something of a generation.
fn everybody_moved(relay: &RelayOwner, ty: &TypeName, generation: u32) -> Result<(), Failure> {
    let ty = ty.clone();
    let behind = relay.with_engine(move |engine| {
        let (replica, store) = (engine.replica(), engine.replica().store());
        let mut since = 0;
        store.each_catalog(|stored| {
            let catalog = Catalog::parse(&stored.source).ok();
            let declared = catalog.as_ref().and_then(|catalog| catalog.ty(&ty));
            if declared.is_some_and(|declared| declared.generation == generation) {
                since = stored.number;
            }
            Ok::<_, StoreError>(true)
        })?;
        let contacts = store.contacts()?;
        let members = replica.members().members().values();
        let behind = members.filter(|member| {
            let contact = contacts.get(&member.identity);
            !member.relay && !member.revoked && contact.is_none_or(|c| c.catalog <= since)
        });
        Ok(behind.map(|member| member.name.clone()).collect::<Vec<_>>())
    })?;
    if behind.is_empty() {
        return Ok(());
    }
    let message =
        format!("not every device has moved on, as far as is known: {}", behind.join(", "));
    let remedy = "nothing was changed: wait until they have been here, or --anyway: what they bring \
                  of it then stays on them";
    Err(Failure::new(Code::Held, message, remedy))
}

fn header(engine: &Engine, (ty, generation): (TypeName, u32)) -> Result<ArchiveHeader, Failure> {
    let mut catalog = String::new();
    engine.replica().store().each_catalog(|stored| {
        let parsed = Catalog::parse(&stored.source).ok();
        let declared = parsed.as_ref().and_then(|parsed| parsed.ty(&ty));
        if declared.is_some_and(|declared| declared.generation == generation) {
            catalog.clone_from(&stored.source);
        }
        Ok::<_, StoreError>(true)
    })?;
    Ok(ArchiveHeader { org: engine.replica().org(), ty, generation, catalog })
}

/// Why an archive was not written.
enum Unwritten {
    /// Its file could not be begun.
    Begun(ArchiveError),
    Written(ArchiveError),
    Relay(Failure),
}

impl Unwritten {
    fn failure(self, file: &Path) -> Failure {
        match self {
            Self::Begun(ArchiveError::Io(error)) | Self::Written(ArchiveError::Io(error)) => {
                Failure::file(file, &error)
            }
            Self::Begun(error) | Self::Written(error) => error.into(),
            Self::Relay(failure) => failure,
        }
    }
}

fn write(
    relay: &RelayOwner,
    past: &[PastSegment],
    file: &Path,
    header: &ArchiveHeader,
) -> Result<(), Unwritten> {
    let mut writer = ArchiveWriter::begin(file, header).map_err(Unwritten::Begun)?;
    for PastSegment { id, tip, .. } in past {
        let (id, mut first) = (*id, 1);
        while first <= *tip {
            let stretch = relay.with_engine(move |engine| Ok(engine.archive_stretch(&id, first)?));
            let Some((stretch, last)) = stretch.map_err(Unwritten::Relay)? else { break };
            writer.add(&stretch).map_err(Unwritten::Written)?;
            first = last + 1;
        }
    }
    writer.end().map_err(Unwritten::Written)
}
