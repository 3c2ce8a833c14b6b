//! A record's past: the changes that made it, what it was, and the way back, which is an ordinary
//! write like any other.

use fieldkeep_catalog::{ValueError, value_of};
use fieldkeep_model::{RecordEdit, RecordKey};
use fieldkeep_replica::{HistoryError, HistoryPage, Moment, PutError, ReplicaError, declared};
use fieldkeep_store::StoreError;
use serde_json::{Map, Value};

use crate::device::Device;
use crate::tier::Written;

/// Why a record was not brought back to what it was; nothing was written.
///
/// ```
/// # use fieldkeep_device::{Moment, RevertError};
/// # fieldkeep_lab::camp::example(async |device| {
/// let order = "order/o1".parse()?;
/// let refused = device.revert(&order, None, &Moment::Time(0)); // 1970.
/// assert!(matches!(refused, Err(RevertError::NotThere(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// There is no such record.
    #[error("there is no record {0}")]
    Absent(RecordKey),
    /// The record was not there at that moment.
    #[error("{0} was not there then")]
    NotThere(RecordKey),
    /// The field belongs to an entry of a set that is not there, or was not: the set can be brought
    /// back as a whole.
    #[error("{key} has no entry for {field}, now or then")]
    NoEntry {
        /// The record.
        key: RecordKey,
        /// The field.
        field: String,
    },
    /// The moment is none of the record's.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A field is unknown, or cannot hold what it held, by the catalog as it is.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// It could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl From<StoreError> for RevertError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

impl From<ReplicaError> for RevertError {
    fn from(error: ReplicaError) -> Self {
        Self::Put(error.into())
    }
}

impl Device {
    /// At most so many of the changes that made a record, newest first, with what each found and left;
    /// those before one, if its hash or the first digits of it are given.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o1".parse()?;
    /// device.edit(&key, vec![Edit::Add("boxes".into(), 3)])?;
    /// let page = device.history(&key, 1, None)?;
    /// assert_eq!((page.entries[0].person.as_str(), page.changes), ("ann", 2));
    /// let boxes = &page.entries[0].writes[0];
    /// assert_eq!((boxes.before.clone(), boxes.after.clone()), (Some(2.into()), Some(5.into())));
    /// let next = page.next.expect("there is one before").to_string();
    /// assert_eq!(device.history(&key, 1, Some(&next))?.next, None);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn history(
        &self,
        key: &RecordKey,
        limit: usize,
        before: Option<&str>,
    ) -> Result<HistoryPage, HistoryError> {
        self.with_replica(|replica| HistoryError::apart(replica.history(key, limit, before)))?
    }

    /// A record's fields as they were: right after a change and all that it knew of, or with all that
    /// was written until some time. `None` if it was not there.
    ///
    /// ```
    /// # use fieldkeep_device::Moment;
    /// # use fieldkeep_model::RecordKey;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o1".parse()?;
    /// let first = device.history(&key, 1, None)?.entries[0].hash.to_string();
    /// let was = device.at(&key, &Moment::Change(first))?.expect("it was there");
    /// assert_eq!(was["boxes"], 2);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn at(
        &self,
        key: &RecordKey,
        moment: &Moment,
    ) -> Result<Option<Map<String, Value>>, HistoryError> {
        self.with_replica(|replica| HistoryError::apart(replica.record_at(key, moment)))?
    }

    /// Writes a record, or one field of it, as it was at a moment: an ordinary change, so that nothing
    /// of what came since is lost. Counters are counted back, entries of sets added and removed, texts
    /// edited; a record that was deleted then is deleted. The scope field stays as it is.
    ///
    /// ```
    /// # use fieldkeep_device::Moment;
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o1".parse()?;
    /// let first = device.history(&key, 1, None)?.entries[0].hash.to_string();
    /// let edits = vec![Edit::Add("boxes".into(), 3), Edit::Put("discount".into(), Scalar::Int(5))];
    /// device.edit(&key, edits)?;
    /// device.revert(&key, Some("boxes"), &Moment::Change(first))?;
    /// let order = device.get(&key)?.expect("it is here");
    /// assert_eq!((&order.fields["boxes"], &order.fields["discount"]), (&2.into(), &5.into()));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`RevertError`]; nothing was written then.
    pub fn revert(
        &self,
        key: &RecordKey,
        field: Option<&str>,
        moment: &Moment,
    ) -> Result<Written, RevertError> {
        Ok(self.put(key, &self.reverting(key, field, moment)?)?)
    }

    /// What [`Device::revert`] would write to a record as it is here.
    ///
    /// ```
    /// # use fieldkeep_device::Moment;
    /// # use fieldkeep_model::{Edit, RecordKey};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o1".parse()?;
    /// let first = device.history(&key, 1, None)?.entries[0].hash.to_string();
    /// device.edit(&key, vec![Edit::Add("boxes".into(), 3)])?;
    /// let back = device.reverting(&key, Some("boxes"), &Moment::Change(first))?;
    /// assert!(back.edits.contains(&Edit::Add("boxes".into(), -3)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`RevertError`].
    pub fn reverting(
        &self,
        key: &RecordKey,
        field: Option<&str>,
        moment: &Moment,
    ) -> Result<RecordEdit, RevertError> {
        let view = self.as_merged(key)?.ok_or_else(|| RevertError::Absent(key.clone()))?;
        let catalog = self.catalog().ok_or(PutError::NoCatalog)?;
        let ty = declared(&catalog, &key.ty)?;
        let was =
            self.with_replica(|replica| HistoryError::apart(replica.state_at(key, moment)))??;
        let was = was.ok_or_else(|| RevertError::NotThere(key.clone()))?;
        let whole = self.with_replica(|replica| replica.with_removed(key))?;
        let Some(field) = field else {
            let edits = ty.edits_back(&view.fields, &whole, &was.fields, &view.conflicts)?;
            let deleted = (view.deleted || was.deleted).then_some(was.deleted);
            return Ok(RecordEdit { edits, deleted });
        };
        let entry = field.rsplit_once("].").map(|(entry, _)| format!("{entry}].id"));
        let is_lost = |entry: &String| {
            [&view.fields, &was.fields].iter().any(|fields| value_of(fields, entry).is_none())
        };
        if entry.as_ref().is_some_and(is_lost) {
            let (key, field) = (key.clone(), field.to_owned());
            return Err(RevertError::NoEntry { key, field });
        }
        let edits = ty.edits_towards(field, &whole, value_of(&was.fields, field))?;
        Ok(edits.into())
    }
}
