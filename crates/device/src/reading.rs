//! What can be asked of records besides their present content: where a word occurs, and what was
//! written at the same time.

use std::convert::Infallible;
use std::str::FromStr;

use fieldkeep_catalog::{ValueError, value_of};
use fieldkeep_documents::document::Conflict;
use fieldkeep_model::{ActorId, RecordEdit, RecordKey, TypeName};
use fieldkeep_replica::{PutError, RecordView, ReplicaError, declared};
use fieldkeep_store::{Search as _, StoreError};
use serde_json::Value;

use crate::device::Device;
use crate::tier::Written;

/// Records that are indexed in one go, so that a writer waits for no more.
const INDEXED: usize = 1_000;

/// Which value a field is to have that has several, or that is held.
///
/// ```
/// # use fieldkeep_device::Choice;
/// assert_eq!("2".parse(), Ok(Choice::Concurrent(1))); // People count from 1.
/// assert_eq!("ben".parse(), Ok(Choice::Of("ben".into())));
/// assert_eq!("last_valid".parse(), Ok(Choice::LastValid));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// One of the concurrent values, as [`Device::conflicts`] numbers them: 0 is the one that is shown.
    Concurrent(usize),
    /// The one that a device wrote, by its name.
    Of(String),
    /// The one with which the record last passed the rules.
    LastValid,
}

impl FromStr for Choice {
    type Err = Infallible;

    /// Reads a number from 1, `last_valid`, or the name of a device.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.parse::<usize>()) {
            ("last_valid", _) => Self::LastValid,
            (_, Ok(number)) if number > 0 => Self::Concurrent(number - 1),
            (name, _) => Self::Of(name.to_owned()),
        })
    }
}

/// Why a choice was not made; nothing was written.
///
/// ```
/// # use fieldkeep_device::{Choice, ResolveError};
/// # fieldkeep_lab::camp::example(async |device| {
/// // Nobody has written another discount at the same time.
/// let resolved = device.resolve(&"order/o1".parse()?, "discount", &Choice::Of("ben".into()));
/// assert!(matches!(resolved, Err(ResolveError::NoSuchValue { .. })));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such record.
    #[error("there is no record {0}")]
    Absent(RecordKey),
    /// The field has no such value.
    #[error("{field} of {key} has no such value: {choice}")]
    NoSuchValue {
        /// The record.
        key: RecordKey,
        /// The field.
        field: String,
        /// What was chosen, in words.
        choice: String,
    },
    /// The field cannot be chosen for, or cannot hold the value by the catalog as it is.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The value could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

impl From<ReplicaError> for ResolveError {
    fn from(error: ReplicaError) -> Self {
        Self::Put(error.into())
    }
}

impl Device {
    /// The records that have all words of a text, the last of them as a beginning, best first; at most
    /// so many, of one type or of all. Deleted ones are left out.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let found = device.search("harb", None, 10)?;
    /// assert_eq!(found[0].key.to_string(), "customer/c1");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn search(
        &self,
        text: &str,
        ty: Option<&TypeName>,
        limit: usize,
    ) -> Result<Vec<RecordView>, StoreError> {
        self.index()?;
        self.0.read(|views| {
            let found = views.store.search(text, ty, limit)?;
            let found = found.iter().map(|key| views.record(key));
            found.filter_map(Result::transpose).collect()
        })
    }

    /// Brings the index of words up to date, a part at a time.
    pub(crate) fn index(&self) -> Result<(), StoreError> {
        loop {
            let mut engine = self.engine();
            let store = engine.replica_mut().store_mut();
            let more = store.index_words(INDEXED)?;
            store.commit()?;
            if !more {
                return Ok(());
            }
        }
    }

    /// The concurrent values of a record's fields, the one that is shown first.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(device.conflicts(&"order/o1".parse()?)?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails, or a document cannot be built.
    pub fn conflicts(&self, key: &RecordKey) -> Result<Vec<Conflict>, ReplicaError> {
        self.with_replica(|replica| replica.conflicts(key))
    }

    /// Writes one of a field's values as the one that counts, by an ordinary edit: `customer`, or
    /// `lines[7].quantity` for a field of a child.
    ///
    /// ```
    /// # use fieldkeep_device::Choice;
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o2".parse()?;
    /// device.put(&key, &vec![Edit::Add("boxes".into(), 1)].into())?;
    /// device.sync(Duration::from_secs(60)).await?;
    /// device.put(&key, &vec![Edit::Put("discount".into(), Scalar::Int(90))].into())?;
    /// device.sync(Duration::from_secs(60)).await?; // Held.
    /// device.resolve(&key, "discount", &Choice::LastValid)?;
    /// assert!(!device.get(&key)?.expect("it is here").fields.contains_key("discount"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resolve(
        &self,
        key: &RecordKey,
        field: &str,
        choice: &Choice,
    ) -> Result<Written, ResolveError> {
        Ok(self.put(key, &self.resolving(key, field, choice)?)?)
    }

    /// What [`Device::resolve`] would write to a record as it is here.
    ///
    /// ```
    /// # use fieldkeep_device::{Choice, ResolveError};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order = "order/o1".parse()?;
    /// let chosen = device.resolving(&order, "boxes", &Choice::Concurrent(0));
    /// assert!(matches!(chosen, Err(ResolveError::NoSuchValue { .. }))); // There is one value.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resolving(
        &self,
        key: &RecordKey,
        field: &str,
        choice: &Choice,
    ) -> Result<RecordEdit, ResolveError> {
        let view = self.as_merged(key)?.ok_or_else(|| ResolveError::Absent(key.clone()))?;
        let absent = || ResolveError::NoSuchValue {
            key: key.clone(),
            field: field.to_owned(),
            choice: match choice {
                Choice::Concurrent(number) => (number + 1).to_string(),
                Choice::Of(name) => name.clone(),
                Choice::LastValid => "last_valid".to_owned(),
            },
        };
        let wanted = match choice {
            // Without the field it passed as well: then that is what is chosen.
            Choice::LastValid => {
                let last = view.last_valid.as_ref().ok_or_else(absent)?;
                let there = value_of(last, field).or_else(|| value_of(&view.fields, field));
                there.ok_or_else(absent)?;
                value_of(last, field).cloned()
            }
            Choice::Concurrent(_) | Choice::Of(_) => {
                Some(self.concurrent(key, field, choice)?.ok_or_else(absent)?)
            }
        };
        let catalog = self.catalog().ok_or(PutError::NoCatalog)?;
        let ty = declared(&catalog, &key.ty)?;
        let whole = self.with_replica(|replica| replica.with_removed(key))?;
        let edits = ty.edits_towards(field, &whole, wanted.as_ref())?;
        Ok(RecordEdit { edits, deleted: None })
    }

    /// The one of a field's concurrent values that is chosen.
    fn concurrent(
        &self,
        key: &RecordKey,
        field: &str,
        choice: &Choice,
    ) -> Result<Option<Value>, ReplicaError> {
        let conflicts = self.conflicts(key)?;
        let values = conflicts.into_iter().find(|conflict| conflict.field == field);
        let values = values.map(|conflict| conflict.values).unwrap_or_default();
        let members = self.members();
        let is_chosen = |(at, (_, actor, _)): &(usize, (Value, ActorId, _))| match choice {
            Choice::Concurrent(wanted) => at == wanted,
            Choice::Of(name) => members.author(actor).is_some_and(|member| member.name == *name),
            Choice::LastValid => false,
        };
        Ok(values.into_iter().enumerate().find(is_chosen).map(|(_, (value, ..))| value))
    }
}
