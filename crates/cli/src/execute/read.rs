//! Reading records: from the projection, and from the documents where history is asked for.

use std::path::{Path, PathBuf};

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_device::{Event, HistoryError};
use fieldkeep_model::{MembershipLog, RecordId, RecordKey, SegmentAddress, TypeName};
use fieldkeep_replica::{RecordView, Replica, Views};
use fieldkeep_store::{Catalogs as _, Page, Reader, Removals as _, home};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::Sink;
use crate::access::{DeviceOwner, Owner};
use crate::request::Paging;
use crate::response::Response;
use fieldkeep_console::shape::{Conflict, Gone, History, Record};
use fieldkeep_console::{Code, Failure, Trouble};

/// Records that are read at a time.
const PAGE: usize = 500;

/// A reader of an owned directory, with the words that it needs.
pub(super) struct Reading {
    pub(super) store: Reader,
    pub(super) catalog: Option<Catalog>,
    pub(super) members: MembershipLog,
}

impl Reading {
    pub(super) fn open(owner: &Owner) -> Result<Self, Failure> {
        let store = Reader::open(&home::database(owner.directory()))?;
        let fieldkeep_replica::Reading { store, catalog, members } =
            fieldkeep_replica::Reading::of(store)?;
        Ok(Self { store, catalog, members })
    }

    pub(super) fn views(&self) -> Views<'_, Reader> {
        Views { store: &self.store, catalog: self.catalog.as_ref(), members: &self.members }
    }

    pub(super) fn record(&self, view: RecordView) -> Record {
        Record::new(view, &self.members)
    }

    /// The declaration of a type.
    pub(super) fn object(&self, ty: &TypeName) -> Result<&ObjectType, Failure> {
        let no_catalog = || {
            let remedy = "it comes from the relay: `fieldkeep sync`";
            Failure::new(Code::Offline, "there is no catalog here yet", remedy)
        };
        let catalog = self.catalog.as_ref().ok_or_else(no_catalog)?;
        catalog.ty(ty).ok_or_else(|| {
            let known: Vec<_> = catalog.types().keys().map(TypeName::as_str).collect();
            let message = format!("the catalog has no object type `{ty}`");
            Failure::new(Code::Usage, message, format!("it has {}", known.join(", ")))
        })
    }
}

pub(super) fn catalog(owner: &Owner) -> Result<Response, Failure> {
    let store = Reader::open(&home::database(owner.directory()))?;
    Ok(Response::Catalog(store.newest_catalog()?.map(|stored| stored.source)))
}

pub(super) fn missing(
    owner: &Owner,
    ty: &TypeName,
    ids: Vec<RecordId>,
) -> Result<Response, Failure> {
    let reading = Reading::open(owner)?;
    let mut missing = Vec::new();
    for id in ids {
        let key = RecordKey::new(ty.clone(), id);
        if reading.views().record(&key)?.is_none_or(|record| record.deleted) {
            missing.push(key.id);
        }
    }
    Ok(Response::Missing(missing))
}

pub(super) fn get(
    owner: &Owner,
    key: RecordKey,
    history: Option<Paging>,
    conflicts: bool,
) -> Result<Response, Failure> {
    let reading = Reading::open(owner)?;
    let Some(view) = reading.views().record(&key)? else {
        if reading.catalog.is_some() {
            reading.object(&key.ty)?;
        }
        return Err(Failure::absent(&key));
    };
    let record = Box::new(reading.record(view));
    let history = history.map(|paging| changes(owner, &reading, &key, paging)).transpose()?;
    let conflicts = conflicts.then(|| concurrent(owner, &reading, &key)).transpose()?;
    Ok(Response::Got { record, history, conflicts })
}

fn changes(
    owner: &Owner,
    reading: &Reading,
    key: &RecordKey,
    Paging { limit, before }: Paging,
) -> Result<History, Failure> {
    let key = key.clone();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = with_replica(owner, move |replica| {
        Ok(HistoryError::apart(replica.history(&key, limit, before.as_deref()))?)
    })?;
    let history = History::new(page?, &reading.members);
    Ok(history.with_removed(|hash| reading.store.removal(hash))?)
}

fn concurrent(owner: &Owner, reading: &Reading, key: &RecordKey) -> Result<Vec<Conflict>, Failure> {
    let key = key.clone();
    let conflicts = with_replica(owner, move |replica| Ok(replica.conflicts(&key)?))?;
    Ok(conflicts.into_iter().map(|conflict| Conflict::new(conflict, &reading.members)).collect())
}

/// A record as it was.
pub(super) fn at(owner: &Owner, key: RecordKey, moment: String) -> Result<Response, Failure> {
    let reading = Reading::open(owner)?;
    if reading.views().record(&key)?.is_none() {
        return Err(Failure::absent(&key));
    }
    let wanted = fieldkeep_console::moment(&moment);
    let asked = key.clone();
    let was = with_replica(owner, move |replica| {
        Ok(HistoryError::apart(replica.record_at(&asked, &wanted))?)
    })?;
    let was = was?.ok_or_else(|| {
        let message = format!("{key} was not there at {moment}");
        let remedy = format!("`fieldkeep history {key}` lists its changes");
        Failure::new(Code::NotFound, message, remedy)
    })?;
    let object = reading.object(&key.ty).ok();
    let removed = Gone::of(object, &was, |hash| reading.store.removal(hash))?;
    Ok(Response::Was(was, removed))
}

pub(super) fn search(
    owner: &Owner,
    text: &str,
    ty: Option<&TypeName>,
    limit: usize,
    sink: Sink<'_>,
) -> Result<Response, Trouble> {
    let reading = Reading::open(owner)?;
    if let Some(ty) = ty {
        reading.object(ty)?;
    }
    let device = &super::device(owner)?.device;
    for view in device.search(text, ty, limit).map_err(Failure::from)? {
        sink(reading.record(view))?;
    }
    Ok(Response::Listed(Vec::new()))
}

/// Tells of records as they change, until whoever listens is gone.
pub(super) fn watch(
    owner: &Owner,
    device: &DeviceOwner,
    ty: Option<&TypeName>,
    sink: Sink<'_>,
) -> Result<Response, Trouble> {
    if let Some(ty) = ty {
        Reading::open(owner)?.object(ty)?;
    }
    let device = &device.device;
    let mut events = device.watch();
    loop {
        let keys = match events.blocking_recv() {
            Ok(Event::Changed(keys)) => keys,
            Ok(Event::Met(_) | Event::Left(_) | Event::Strip(_) | Event::Status) => continue,
            Err(RecvError::Lagged(missed)) => {
                let text = format!("{missed} changes were too fast to be told");
                let remedy = "watch again: `fieldkeep list` shows what is here";
                return Err(Failure::new(Code::Failure, text, remedy).into());
            }
            Err(RecvError::Closed) => return Ok(Response::Listed(Vec::new())),
        };
        for key in keys.into_iter().filter(|key| ty.is_none_or(|ty| *ty == key.ty)) {
            if let Some(view) = device.get(&key).map_err(Failure::from)? {
                sink(Record::new(view, &device.members()))?;
            }
        }
    }
}

fn with_replica<T: Send + 'static>(
    owner: &Owner,
    act: impl FnOnce(&mut Replica) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match owner {
        Owner::Device(owner) => owner.device.with_replica(act),
        Owner::Relay(owner) => owner.with_replica(act),
    }
}

pub(super) fn list(
    owner: &Owner,
    ty: &TypeName,
    filters: &[(String, String)],
    limit: Option<u64>,
    sink: Sink<'_>,
) -> Result<Response, Trouble> {
    let reading = Reading::open(owner)?;
    let object = reading.object(ty)?;
    for (field, _) in filters {
        if !object.fields.contains_key(field) && field != "id" {
            let known: Vec<_> = object.fields.keys().map(String::as_str).collect();
            let message = format!("the type `{ty}` has no field `{field}`");
            let remedy = format!("it has {}", known.join(", "));
            return Err(Failure::new(Code::Usage, message, remedy).into());
        }
    }
    let mut left = limit.unwrap_or(u64::MAX);
    each_record(&reading, ty, &mut |view| {
        if left > 0 && filters.iter().all(|filter| passes(&view, filter)) {
            left -= 1;
            sink(reading.record(view))?;
        }
        Ok(left > 0)
    })?;
    Ok(Response::Listed(Vec::new()))
}

fn passes(view: &RecordView, (field, wanted): &(String, String)) -> bool {
    let value = match view.fields.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None if field == "id" => view.key.id.as_str().to_owned(),
        None => String::new(),
    };
    value == *wanted
}

/// Reads a type's records page by page, until `act` has enough.
fn each_record(
    reading: &Reading,
    ty: &TypeName,
    act: &mut dyn FnMut(RecordView) -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    let mut page = Page { limit: PAGE, ..Page::default() };
    loop {
        let mut views = reading.views().list(ty, &page).map_err(Failure::from)?;
        let full = views.len() == page.limit;
        if full {
            // One id may occur in several scopes: the last one waits for the next page.
            let last = views.last().map(|view| view.key.id.clone());
            let kept = views.iter().position(|view| Some(&view.key.id) == last.as_ref());
            let kept = kept.filter(|kept| *kept > 0).unwrap_or(views.len());
            views.truncate(kept);
        }
        page.after = views.last().map(|view| view.key.id.as_str().to_owned());
        for view in views {
            if !act(view)? {
                return Ok(());
            }
        }
        if !full {
            return Ok(());
        }
    }
}

pub(super) fn attention(owner: &Owner, sink: Sink<'_>) -> Result<Response, Trouble> {
    let reading = Reading::open(owner)?;
    for view in reading.views().attention().map_err(Failure::from)? {
        sink(reading.record(view))?;
    }
    Ok(Response::Listed(Vec::new()))
}

/// Writes the documents of a type's segments into a directory.
pub(super) fn documents(owner: &Owner, ty: &TypeName, into: &Path) -> Result<Response, Failure> {
    Reading::open(owner)?.object(ty)?;
    std::fs::create_dir_all(into).map_err(|error| Failure::file(into, &error))?;
    let wanted = ty.clone();
    let segments = with_replica(owner, move |replica| {
        let rows = replica.segments().values().filter(|row| row.address.ty == wanted);
        Ok(rows.map(|row| (row.id, row.address.clone())).collect::<Vec<_>>())
    })?;
    let mut files = Vec::new();
    for (id, address) in segments {
        let bytes = with_replica(owner, move |replica| Ok(replica.export_segment(&id)?))?;
        let path = into.join(document_name(&address));
        write_whole(&path, &bytes)?;
        files.push(path);
    }
    files.sort();
    Ok(Response::Documents(files))
}

fn write_whole(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::file(path, &error);
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
    file.persist(path).map_err(|error| Failure::file(path, &error.error))?;
    Ok(())
}

/// `order.automerge`, `order-42.automerge` for a scope, `order-42-3.automerge` for a bucket of it.
fn document_name(address: &SegmentAddress) -> String {
    let mut name = address.ty.to_string();
    let scoped = !address.scope.is_empty();
    if scoped || address.buckets > 1 {
        name.push('-');
        name.extend(address.scope.bytes().map(spelled));
    }
    if address.buckets > 1 {
        name.push_str(if scoped { "-" } else { "" });
        name.push_str(&address.bucket.to_string());
    }
    name + ".automerge"
}

/// A byte of a scope as file names have it.
fn spelled(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || byte == b'_' {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_their_segments() {
        let name = |scope: &str, buckets, bucket| {
            let ty = TypeName::new("order").expect("a name");
            let scope = scope.to_owned();
            document_name(&SegmentAddress { ty, scope, buckets, bucket, generation: 0 })
        };
        assert_eq!(name("", 1, 0), "order.automerge");
        assert_eq!(name("42", 1, 0), "order-42.automerge");
        assert_eq!(name("", 4, 3), "order-3.automerge");
        assert_eq!(name("a/../b", 4, 3), "order-a%2F%2E%2E%2Fb-3.automerge");
    }
}
