//! Sharing: a record as plain text, with plain marks of what is to be known about it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fieldkeep_catalog::{ObjectType, Referred, Sheet, TemplateError};
use fieldkeep_model::status::{Forecast, State};
use fieldkeep_model::{Outcome, RecordKey, TypeName};
use fieldkeep_replica::{PutError, RecordView, declared};
use fieldkeep_store::StoreError;

use crate::device::Device;

/// Why a record was not made a text; nothing was changed.
///
/// ```
/// # use fieldkeep_device::ShareError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let refused = device.share(&"order/none".parse()?);
/// assert!(matches!(refused, Err(ShareError::Absent(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is no such record.
    #[error("there is no record {0}")]
    Absent(RecordKey),
    /// The catalog, or the type in it, is not known here.
    #[error(transparent)]
    Undeclared(PutError),
    /// The type's template does not come to a text.
    #[error("{ty} cannot be shared as the catalog says: {error}")]
    Template {
        /// The type.
        ty: TypeName,
        /// Why.
        error: TemplateError,
    },
    /// The disk fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Device {
    /// A record as plain text, by the catalog's template or plainly: as merged, with a link to a map
    /// where it has coordinates, and a mark where it is held, waits, is unsaved or deleted, or has
    /// concurrent values.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let text = device.share(&"order/o1".parse()?)?;
    /// assert!(text.contains("boxes: 2"));
    /// assert!(text.ends_with("[held: the discount is above 30 percent]"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ShareError`].
    pub fn share(&self, key: &RecordKey) -> Result<String, ShareError> {
        let view = self.as_merged(key)?.ok_or_else(|| ShareError::Absent(key.clone()))?;
        let catalog = self.catalog().ok_or(ShareError::Undeclared(PutError::NoCatalog))?;
        let ty = declared(&catalog, &key.ty).map_err(ShareError::Undeclared)?;
        let sheet = Sheet { key, fields: &view.fields, referred: self.referred(ty, &view)? };
        let text = ty.shared_text(&sheet);
        let text = text.map_err(|error| ShareError::Template { ty: key.ty.clone(), error })?;
        let marks = marks(&view);
        if marks.is_empty() {
            return Ok(text);
        }
        Ok(format!("{text}\n\n{}", marks.join("\n")))
    }

    /// The fields of the records that a record refers to, as far as they are here.
    fn referred(&self, ty: &ObjectType, view: &RecordView) -> Result<Vec<Referred>, StoreError> {
        let mut known: BTreeMap<RecordKey, Option<RecordView>> = BTreeMap::new();
        let mut referred = Vec::new();
        for by in ty.references(&view.fields) {
            let key = RecordKey::new(by.ty.clone(), by.id.clone());
            let other = match known.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let other = self.as_merged(new.key())?;
                    new.insert(other)
                }
            };
            if let Some(other) = other {
                referred.push(Referred { by, fields: other.fields.clone() });
            }
        }
        Ok(referred)
    }
}

/// What whoever reads the text should know.
fn marks(view: &RecordView) -> Vec<String> {
    let mut marks = Vec::new();
    let word = match view.state {
        State::Judged(Outcome::Held) => Some("held"),
        State::Judged(Outcome::Waiting) => Some("waiting"),
        State::Forecast(Forecast::LikelyHeld) => Some("likely to be held"),
        State::Judged(Outcome::Valid)
        | State::Forecast(Forecast::LikelyValid | Forecast::NeedsRelay) => None,
    };
    match word {
        Some(word) if view.reasons.is_empty() => marks.push(format!("[{word}]")),
        Some(word) => marks.push(format!("[{word}: {}]", view.reasons.join("; "))),
        None => {}
    }
    if view.unsaved {
        marks.push("[unsaved: it is not on the relay yet]".to_owned());
    }
    if !view.conflicts.is_empty() {
        let fields = view.conflicts.join(", ");
        marks.push(format!("[written by several at the same time: {fields}]"));
    }
    if view.deleted {
        marks.push("[deleted]".to_owned());
    }
    marks
}
