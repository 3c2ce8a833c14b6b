//! Records as an application's own types, through serde. The catalog says which fields there are and of
//! what kind; a type may leave some of them out.

use fieldkeep_catalog::ValueError;
use fieldkeep_model::RecordKey;
use fieldkeep_replica::{PutError, declared};
use fieldkeep_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::device::Device;
use crate::tier::Written;

/// Why a value was not saved as a record; nothing was written.
///
/// ```
/// # use fieldkeep_device::SaveError;
/// # use serde_json::json;
/// # fieldkeep_lab::camp::example(async |device| {
/// let typo = device.save(&"customer/c2".parse()?, &json!({"nmae": "Pier"}));
/// assert!(matches!(typo, Err(SaveError::Value(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It is not written as an object with fields.
    #[error("a record is an object with fields: {0}")]
    Shape(String),
    /// A field is unknown, or cannot hold its value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// It cannot be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Why a record was not read as a value.
///
/// ```
/// # use fieldkeep_device::LoadError;
/// # fieldkeep_lab::camp::example(async |device| {
/// #[derive(serde::Deserialize)]
/// struct Customer {
///     telephone: String,
/// }
/// let loaded = device.load::<Customer>(&"customer/c1".parse()?);
/// assert!(matches!(loaded, Err(LoadError::Shape { .. }))); // It has a name only.
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The record is not of that shape.
    #[error("{key} does not read as that type: {error}")]
    Shape {
        /// The record.
        key: RecordKey,
        /// What serde says.
        error: serde_json::Error,
    },
    /// The disk fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Device {
    /// Saves a value as a record: fields that it does not have stay as they are, null clears.
    ///
    /// ```
    /// # use fieldkeep_model::RecordKey;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    /// struct Customer {
    ///     name: String,
    /// }
    /// let key: RecordKey = "customer/c2".parse()?;
    /// device.save(&key, &Customer { name: "Pier".into() })?;
    /// assert_eq!(device.load(&key)?, Some(Customer { name: "Pier".into() }));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`SaveError`].
    pub fn save<T: Serialize>(&self, key: &RecordKey, value: &T) -> Result<Written, SaveError> {
        let value = serde_json::to_value(value).map_err(|e| SaveError::Shape(e.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(SaveError::Shape("this is none".to_owned()));
        };
        let catalog = self.catalog().ok_or(PutError::NoCatalog)?;
        let object = declared(&catalog, &key.ty)?;
        Ok(self.put(key, &object.edit_from_json(&fields)?)?)
    }

    /// A record as a value, as [`Device::get`] returns it; nothing if it is not there, or deleted.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     customer: String,
    ///     boxes: i64,
    /// }
    /// let order: Order = device.load(&"order/o1".parse()?)?.expect("it is here");
    /// assert_eq!((order.customer.as_str(), order.boxes), ("c1", 2));
    /// assert!(device.load::<Order>(&"order/o9".parse()?)?.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<T>, LoadError> {
        let Some(view) = self.get(key)?.filter(|view| !view.deleted) else { return Ok(None) };
        let value = serde_json::from_value(Value::Object(view.fields));
        value.map(Some).map_err(|error| LoadError::Shape { key: key.clone(), error })
    }
}
