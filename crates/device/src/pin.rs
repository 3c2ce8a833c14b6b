//! Records in use: what an application works with is spared when data are cleared.

use fieldkeep_model::RecordKey;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Pin, Pins as _, StoreError};

use crate::device::{Device, now};

/// A record that is in use. It is released when this is dropped, unless it is kept.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let open = device.pin(&"customer/c1".parse()?, "till", "the open outlet")?;
/// assert_eq!(device.clear_plan(None)?.in_use, 1);
/// drop(open);
/// assert_eq!(device.clear_plan(None)?.in_use, 0);
/// # Ok(()) });
/// ```
#[derive(Debug)]
#[must_use = "a pin that is dropped is released at once"]
pub struct Pinned {
    device: Device,
    key: RecordKey,
    owner: String,
    kept: bool,
}

impl Device {
    /// Marks a record as in use by an owner: the open outlet, the current shift. It survives whatever
    /// is cleared, and stays marked over restarts until it is released.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let outlet = "customer/c1".parse()?;
    /// let open = device.pin(&outlet, "till", "the open outlet")?;
    /// assert_eq!(device.pins()?.len(), 1);
    /// drop(open); // Or `open.keep()`, until somebody unpins it.
    /// assert_eq!(device.pins()?.len(), 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pin(&self, key: &RecordKey, owner: &str, reason: &str) -> Result<Pinned, ReplicaError> {
        let (owner, reason) = (owner.to_owned(), reason.to_owned());
        let pin = Pin { key: key.clone(), owner: owner.clone(), reason, time: now() };
        self.with_replica(|replica| Ok::<_, ReplicaError>(replica.store_mut().put_pin(&pin)?))?;
        self.0.tell_status();
        Ok(Pinned { device: self.clone(), key: key.clone(), owner, kept: false })
    }

    /// Releases pins: of a record, of an owner, or of both. Returns how many there were.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.pin(&"customer/c1".parse()?, "till", "the open outlet")?.keep();
    /// device.pin(&"order/o1".parse()?, "till", "the present order")?.keep();
    /// assert_eq!(device.unpin(None, Some("till"))?, 2);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn unpin(&self, key: Option<&RecordKey>, owner: Option<&str>) -> Result<u64, ReplicaError> {
        let released = self.with_replica(|replica| {
            Ok::<_, ReplicaError>(replica.store_mut().take_pins(key, owner)?)
        })?;
        self.0.tell_status();
        Ok(released)
    }

    /// The records that are in use.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let open = device.pin(&"customer/c1".parse()?, "till", "the open outlet")?;
    /// let pins = device.pins()?;
    /// assert_eq!((pins[0].owner.as_str(), pins[0].reason.as_str()), ("till", "the open outlet"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.engine().replica().store().pins()
    }
}

impl Pinned {
    /// Leaves the record marked after this is gone, until somebody releases it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.pin(&"customer/c1".parse()?, "till", "the open outlet")?.keep();
    /// assert_eq!(device.pins()?.len(), 1);
    /// device.unpin(Some(&"customer/c1".parse()?), None)?;
    /// assert_eq!(device.pins()?.len(), 0);
    /// # Ok(()) });
    /// ```
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.device.unpin(Some(&self.key), Some(&self.owner)) {
            tracing::warn!(record = %self.key, %error, "a record stays in use: nothing is lost by that");
        }
    }
}
