//! Attached files that were removed because nothing referred to them any more, as the states of a
//! record show them that name one.

use fieldkeep_catalog::ObjectType;
use fieldkeep_device::Device;
use fieldkeep_model::{BlobHash, TypeName};
use fieldkeep_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{FieldWrite, History};
use crate::time::day;

/// A file that a state of a record names and that was removed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Gone {
    /// The field.
    pub field: String,
    /// The file: blake3 of its bytes.
    pub hash: String,
    /// What it was called.
    pub name: String,
    /// The day on which it was removed, as 2026-11-29, by UTC.
    pub removed: String,
}

impl Gone {
    /// Those that a state of a record names; `removed` knows when a file was removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(
        object: Option<&ObjectType>,
        fields: &Map<String, Value>,
        removed: impl Fn(&BlobHash) -> Result<Option<i64>, StoreError>,
    ) -> Result<Vec<Self>, StoreError> {
        let mut gone = Vec::new();
        for file in object.map(|object| object.files(fields)).unwrap_or_default() {
            if let Some(time) = removed(&file.hash)? {
                let (field, hash, name) = (file.field, file.hash.to_string(), file.name);
                gone.push(Self { field, hash, name, removed: day(time) });
            }
        }
        Ok(gone)
    }

    /// That it was, in words.
    #[must_use]
    pub fn sentence(&self) -> String {
        removed_on(&self.removed)
    }
}

/// The files of a state of a record that were removed, as far as a device has heard of it.
///
/// # Errors
/// When the disk fails.
pub(crate) fn gone(
    device: &Device,
    ty: &TypeName,
    fields: &Map<String, Value>,
) -> Result<Vec<Gone>, StoreError> {
    let catalog = device.catalog();
    let object = catalog.as_ref().and_then(|catalog| catalog.ty(ty));
    Gone::of(object, fields, |hash| device.removed(hash))
}

impl History {
    /// Notes of what was written about files that were removed that they were.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn with_removed(
        mut self,
        removed: impl Fn(&BlobHash) -> Result<Option<i64>, StoreError>,
    ) -> Result<Self, StoreError> {
        for write in self.history.iter_mut().flat_map(|change| &mut change.writes) {
            if let Some(hash) = write.file() {
                write.removed = removed(&hash)?.map(day);
            }
        }
        Ok(self)
    }
}

impl FieldWrite {
    /// The file that it speaks of, if it is an entry of a set with a file's name.
    fn file(&self) -> Option<BlobHash> {
        let (_, entry) = self.field.split_once('[')?;
        entry.split_once(']')?.0.parse().ok()
    }
}

/// How a removed file is told.
pub(super) fn removed_on(day: &str) -> String {
    format!("attachment removed on {day}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Change;

    #[test]
    fn what_was_written_of_a_removed_file_says_when_it_was_removed() {
        let (gone, here) = (BlobHash([1; 32]), BlobHash([2; 32]));
        let write = |field: String| FieldWrite {
            field,
            value: Some("front.png".into()),
            added: false,
            before: None,
            after: Some("front.png".into()),
            removed: None,
        };
        let names = [format!("photos[{gone}].name"), format!("photos[{here}].name"), "note".into()];
        let change = Change {
            repeats: None,
            begins: false,
            person: "ann".into(),
            device: "ann".into(),
            time: String::new(),
            change: String::new(),
            writes: names.map(write).into(),
        };
        let history = History { history: vec![change], changes: 1, next: None };
        let removed = |hash: &BlobHash| Ok((*hash == gone).then_some(1_795_910_400_000));
        let history = history.with_removed(removed).expect("nothing fails");
        let told = history.history[0].writes.iter().map(|write| write.sentence(Value::to_string));
        let told: Vec<_> = told.collect();
        assert!(told[0].ends_with("(attachment removed on 2026-11-29)"), "{}", told[0]);
        assert!(told[1..].iter().all(|told| !told.contains("removed")), "{told:?}");
    }
}
