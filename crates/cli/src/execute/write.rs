//! Writing records on a device, and what its user decides about held ones.

use std::time::Duration;

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_device::{Choice, Device, PutError, StrictError, Wrote, declared, fresh_id};
use fieldkeep_model::{Edit, RecordEdit, RecordId, RecordKey};
use serde_json::{Map, Value};

use super::key;
use crate::access::{DeviceOwner, Owner};
use crate::request::{Content, Name, Tier, Write};
use crate::response::{Response, Written};
use fieldkeep_console::shape::Record;
use fieldkeep_console::{Code, Failure};

/// How long the relay may take to write a record that needs a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Writes records; one alone, where that is what its state asks for, by way of the relay.
pub(super) fn write(owner: &DeviceOwner, writes: Vec<Write>) -> Result<Response, Failure> {
    let device = &owner.device;
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let tell_why = writes.len() == 1;
    let edits = writes.into_iter().map(|write| read(device, &catalog, write));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    let wrote = match (device.put_all(&edits), edits.as_slice()) {
        (Err(PutError::NeedsConnection(_)), [(key, edit)]) => return online(owner, key, edit),
        (wrote, _) => wrote?,
    };
    let written = wrote.into_iter().map(|wrote| written(device, wrote, tell_why));
    Ok(Response::Written(written.collect::<Result<_, _>>()?))
}

/// Writes a record by way of the relay, which writes only what passes.
fn online(owner: &DeviceOwner, key: &RecordKey, edit: &RecordEdit) -> Result<Response, Failure> {
    super::online::put(owner, key, edit, PATIENCE)?;
    written_online(owner, key, true)
}

/// What the relay has made of a record.
fn written_online(
    owner: &DeviceOwner,
    key: &RecordKey,
    changed: bool,
) -> Result<Response, Failure> {
    let view = owner.device.as_merged(key)?.ok_or_else(|| Failure::absent(key))?;
    let (id, state) = (key.id.clone(), view.state.word().to_owned());
    Ok(Response::Written(vec![Written { id, changed, state, reasons: view.reasons }]))
}

/// Writes what is made of a record as it is here; by way of the relay, where its state asks for that.
fn write_made(
    owner: &DeviceOwner,
    key: &RecordKey,
    make: impl Fn() -> Result<RecordEdit, Failure>,
) -> Result<Response, Failure> {
    let device = &owner.device;
    match device.put(key, &make()?) {
        Err(PutError::NeedsConnection(_)) => {
            let wrote = super::run(owner, device.put_online_with(key, make, PATIENCE))??;
            written_online(owner, key, wrote)
        }
        wrote => Ok(Response::Written(vec![written(device, wrote?.into_wrote(), true)?])),
    }
}

/// Writes a batch of an import.
pub(super) fn import(
    device: &Device,
    file: String,
    (from, total): (u64, u64),
    writes: Vec<Write>,
) -> Result<Response, Failure> {
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let edits = writes.into_iter().map(|write| read(device, &catalog, write));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    let wrote = device.import_batch(&file, from, total, &edits)?;
    let written = wrote.into_iter().map(|wrote| written(device, wrote, false));
    Ok(Response::Written(written.collect::<Result<_, _>>()?))
}

/// How far an import has come.
pub(super) fn imported(device: &Device, file: &str) -> Result<Response, Failure> {
    let progress = device.imported(file)?;
    Ok(Response::Imported(progress.map(|progress| (progress.done, progress.total))))
}

/// The writes that would not be taken.
pub(super) fn rehearse(device: &Device, writes: Vec<Write>) -> Result<Response, Failure> {
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let mut refused = Vec::new();
    let (mut places, mut edits) = (Vec::new(), Vec::new());
    for (at, write) in writes.into_iter().enumerate() {
        match read(device, &catalog, write) {
            Ok(edit) => {
                places.push(at);
                edits.push(edit);
            }
            Err(failure) => refused.push((at, failure)),
        }
    }
    for (at, error) in device.rehearse(&edits)? {
        refused.push((places[at], error.into()));
    }
    Ok(Response::Rehearsed(refused))
}

fn written(device: &Device, wrote: Wrote, tell_why: bool) -> Result<Written, Failure> {
    let view = if tell_why { device.as_merged(&wrote.key)? } else { None };
    Ok(Written {
        id: wrote.key.id,
        changed: wrote.change.is_some(),
        state: wrote.row.state.word().to_owned(),
        reasons: view.map(|view| view.reasons).unwrap_or_default(),
    })
}

/// Writes a record unless it is likely to be held.
pub(super) fn strict(owner: &DeviceOwner, write: Write) -> Result<Response, Failure> {
    let device = &owner.device;
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let (key, edit) = read(device, &catalog, write)?;
    let wrote = match device.put_strictly(&key, &edit) {
        Err(StrictError::Put(PutError::NeedsConnection(_))) => return online(owner, &key, &edit),
        wrote => wrote?,
    };
    Ok(Response::Written(vec![written(device, wrote.into_wrote(), true)?]))
}

/// What a write would come to.
pub(super) fn what_if(owner: &Owner, write: Write) -> Result<Response, Failure> {
    let device = &super::device(owner)?.device;
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let (key, edit) = read(device, &catalog, write)?;
    let online = device.needs_connection(&key)?;
    let view = device.what_if(&key, &edit)?;
    let record = Box::new(Record::new(view, &device.members()));
    Ok(Response::Foreseen { record, online })
}

/// Waits until a record has come so far; syncs meanwhile, if nobody else does.
pub(super) fn reached(
    owner: &DeviceOwner,
    key: &RecordKey,
    tier: Tier,
    patience: Duration,
) -> Result<Response, Failure> {
    let device = &owner.device;
    let tier = match tier {
        Tier::Relay => fieldkeep_device::Tier::Relay,
        Tier::Judged => fieldkeep_device::Tier::Judged,
    };
    let reached = async {
        if owner.runtime.is_none() {
            device.sync(patience).await?;
        }
        Ok::<_, Failure>(device.reached(key, tier, patience).await?)
    };
    let view = super::run(owner, reached)??;
    let record = Box::new(Record::new(view, &device.members()));
    Ok(Response::Got { record, history: None, conflicts: None })
}

/// Writes one of a field's values as the one that counts.
pub(super) fn resolve(
    owner: &DeviceOwner,
    key: &RecordKey,
    field: &str,
    choice: &str,
) -> Result<Response, Failure> {
    let Ok(choice) = choice.parse::<Choice>();
    let device = &owner.device;
    let seen = device.conflicts(key)?;
    write_made(owner, key, || {
        if device.conflicts(key)? != seen {
            return Err(Failure::others_by_now(field));
        }
        Ok(device.resolving(key, field, &choice)?)
    })
}

/// Writes a record, or one field of it, as it was then.
pub(super) fn revert(
    owner: &DeviceOwner,
    key: &RecordKey,
    field: Option<&str>,
    to: &str,
) -> Result<Response, Failure> {
    let moment = fieldkeep_console::moment(to);
    write_made(owner, key, || Ok(owner.device.reverting(key, field, &moment)?))
}

/// Reads a write by the catalog.
fn read(
    device: &Device,
    catalog: &Catalog,
    write: Write,
) -> Result<(RecordKey, RecordEdit), Failure> {
    let object = declared(catalog, &write.ty)?;
    let key = RecordKey::new(write.ty, write.id.unwrap_or_else(fresh_id));
    let mut edit = RecordEdit { edits: Vec::new(), deleted: write.deleted };
    for content in write.contents {
        edit.edits.extend(edits(object, content)?);
    }
    if write.totals {
        let present = device.as_merged(&key)?.map(|view| view.fields).unwrap_or_default();
        edit.edits = edit.edits.into_iter().filter_map(|edit| difference(edit, &present)).collect();
    }
    Ok((key, edit))
}

/// Reads a part of a write.
pub(crate) fn edits(object: &ObjectType, content: Content) -> Result<Vec<Edit>, Failure> {
    fn borrowed(cells: &[(String, String)]) -> Vec<(&str, &str)> {
        cells.iter().map(|(field, cell)| (field.as_str(), cell.as_str())).collect()
    }
    match content {
        Content::Words(words) => Ok(object.edit_from_words(&words)?.edits),
        Content::Object(text) => {
            let parsed: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
                let message = format!("not a JSON object: {error}");
                Failure::new(Code::Held, message, "nothing was saved")
            })?;
            Ok(object.edit_from_json(&parsed)?.edits)
        }
        Content::Cells(cells) => Ok(object.edit_from_cells(&borrowed(&cells))?.edits),
        Content::Child { set, id, cells } => {
            Ok(vec![object.child_from_cells(&set, &id, &borrowed(&cells))?])
        }
    }
}

/// What is to be added to a counter for it to have a total; nothing if it has it. Other edits stay
/// as they are. So a file can be imported again, and changes nothing.
fn difference(edit: Edit, present: &Map<String, Value>) -> Option<Edit> {
    match edit {
        Edit::Add(field, total) => {
            let has = present.get(&field).and_then(Value::as_i64);
            let lacks = total.saturating_sub(has.unwrap_or(0));
            (has.is_none() || lacks != 0).then_some(Edit::Add(field, lacks))
        }
        Edit::Child(set, id, inner) => {
            let children = present.get(&set).and_then(Value::as_array).into_iter().flatten();
            let mut children = children.filter_map(Value::as_object);
            let child =
                children.find(|child| child.get("id").and_then(Value::as_str) == Some(&*id));
            let empty = Map::new();
            let child = child.unwrap_or(&empty);
            let inner = inner.into_iter().filter_map(|edit| difference(edit, child)).collect();
            Some(Edit::Child(set, id, inner))
        }
        Edit::Put(..)
        | Edit::Json(..)
        | Edit::Text(..)
        | Edit::Clear(_)
        | Edit::RemoveChild(..) => Some(edit),
    }
}

pub(super) fn retry(owner: &DeviceOwner, record: Option<Name>) -> Result<Response, Failure> {
    let device = &owner.device;
    let keys = match record.map(key) {
        Some(key) => {
            device.as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
            vec![key]
        }
        None => device.attention()?.into_iter().map(|view| view.key).collect(),
    };
    for key in &keys {
        device.retry(key)?;
    }
    Ok(Response::Taken(keys.len() as u64))
}

pub(super) fn dismiss(
    owner: &DeviceOwner,
    record: Name,
    note: Option<String>,
) -> Result<Response, Failure> {
    let key = key(record);
    if owner.device.dismiss(&key, note.as_deref())? {
        Ok(Response::Taken(1))
    } else {
        Err(Failure::absent(&key))
    }
}

/// Whether an id may name a record, told in the words of a failure.
///
/// # Errors
/// When it may not.
pub(crate) fn record_id(text: &str) -> Result<RecordId, Failure> {
    RecordId::new(text)
        .map_err(|error| Failure::new(Code::Held, error.to_string(), "nothing was saved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_becomes_what_is_to_be_added() {
        let present: Map<_, _> = [("stock".to_owned(), Value::from(5))].into_iter().collect();
        let add = |by| Edit::Add("stock".into(), by);
        assert_eq!(difference(add(7), &present), Some(add(2)));
        assert_eq!(difference(add(5), &present), None);
        assert_eq!(difference(add(0), &Map::new()), Some(add(0)));
    }
}
