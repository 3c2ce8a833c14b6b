//! How far a write has come: durable on this device, durable on the relay, judged by it.

use std::ops::Deref;
use std::time::Duration;

use fieldkeep_model::status::{Forecast, State};
use fieldkeep_replica::{PutError, RecordView, Wrote};
use fieldkeep_store::StoreError;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::device::{Device, Event};

/// How far a write has come.
///
/// ```
/// # use fieldkeep_device::Tier;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// assert!(Tier::Device < Tier::Relay && Tier::Relay < Tier::Judged);
/// let order = device.reached(&"order/o1".parse()?, Tier::Judged, Duration::ZERO).await?;
/// assert_eq!(order.state.word(), "held"); // A verdict, if not the one that was hoped for.
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Durable here: that is so when a write returns.
    Device,
    /// Durable on the relay: every change of the record has its receipt.
    Relay,
    /// The relay has judged the record as it is here.
    Judged,
}

/// What a write did, and the way to wait for what becomes of it.
///
/// ```
/// # use serde_json::json;
/// # fieldkeep_lab::camp::example(async |device| {
/// let written = device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
/// assert!(written.change.is_some()); // It is a `Wrote`, too.
/// let again = device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
/// assert!(again.change.is_none()); // Nothing was to be changed.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Written {
    device: Device,
    wrote: Wrote,
}

/// Why a write was not seen to come as far as that. It is saved here, and goes on by itself.
///
/// ```
/// # use fieldkeep_device::{AwaitError, Tier};
/// # use serde_json::json;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let written = device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
/// let reached = written.reached(Tier::Relay, Duration::ZERO).await; // Nobody syncs.
/// assert!(matches!(reached, Err(AwaitError::Timeout { .. })));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum AwaitError {
    /// It took too long.
    #[error("{key} did not come that far within {} s: it is saved on this device, and goes on with the next sync", waited.as_secs_f32())]
    Timeout {
        /// The record.
        key: fieldkeep_model::RecordKey,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The disk fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a record was not written strictly; nothing was saved.
///
/// ```
/// # use fieldkeep_device::StrictError;
/// # use fieldkeep_model::{Edit, Scalar};
/// # fieldkeep_lab::camp::example(async |device| {
/// let much = vec![Edit::Put("discount".into(), Scalar::Int(90))].into();
/// let refused = device.put_strictly(&"order/o2".parse()?, &much);
/// let Err(StrictError::Held { reasons, .. }) = refused else { panic!("it breaks a rule") };
/// assert_eq!(reasons, ["the discount is above 30 percent"]);
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum StrictError {
    /// It would be held.
    #[error("{key} would be held: {}", reasons.join("; "))]
    Held {
        /// The record.
        key: fieldkeep_model::RecordKey,
        /// Why, in sentences.
        reasons: Vec<String>,
    },
    /// It cannot be written at all.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Written {
    pub(crate) fn new(device: &Device, wrote: Wrote) -> Self {
        Self { device: device.clone(), wrote }
    }

    /// The write alone.
    ///
    /// ```
    /// # use serde_json::json;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key = "customer/c2".parse()?;
    /// let wrote = device.save(&key, &json!({"name": "Pier"}))?.into_wrote();
    /// assert_eq!(wrote.key, key);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn into_wrote(self) -> Wrote {
        self.wrote
    }

    /// Waits until the write has come as far as that, and shows the record as it is then. Somebody has
    /// to sync meanwhile: [`Device::keep_synced`], [`Device::sync`].
    ///
    /// ```
    /// # use fieldkeep_device::Tier;
    /// # use fieldkeep_model::{Edit, Scalar};
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let edit = vec![Edit::Put("name".into(), Scalar::Str("Pier".into()))].into();
    /// let written = device.put(&"customer/c2".parse()?, &edit)?;
    /// device.sync(Duration::from_secs(60)).await?; // Or `keep_synced` does, beside this.
    /// let judged = written.reached(Tier::Judged, Duration::from_secs(60)).await?;
    /// assert_eq!(judged.state.word(), "valid");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`AwaitError`].
    pub async fn reached(&self, tier: Tier, timeout: Duration) -> Result<RecordView, AwaitError> {
        self.device.reached(&self.wrote.key, tier, timeout).await
    }
}

impl Deref for Written {
    type Target = Wrote;

    fn deref(&self) -> &Wrote {
        &self.wrote
    }
}

impl Device {
    /// Waits until a record, as it is here, has come as far as that.
    ///
    /// ```
    /// # use fieldkeep_device::Tier;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key = "customer/c2".parse()?;
    /// device.save(&key, &json!({"name": "Pier"}))?;
    /// device.sync(Duration::from_secs(60)).await?;
    /// let saved = device.reached(&key, Tier::Relay, Duration::from_secs(60)).await?;
    /// assert!(!saved.unsaved);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`AwaitError`].
    pub async fn reached(
        &self,
        key: &fieldkeep_model::RecordKey,
        tier: Tier,
        timeout: Duration,
    ) -> Result<RecordView, AwaitError> {
        let until = Instant::now() + timeout;
        let mut events = self.watch();
        loop {
            if let Some(view) = self.as_merged(key)?.filter(|view| has_reached(view, tier)) {
                return Ok(view);
            }
            let changed = async {
                loop {
                    match events.recv().await {
                        Ok(Event::Changed(keys)) if !keys.contains(key) => {}
                        Ok(Event::Changed(_)) | Err(RecvError::Lagged(_)) => return,
                        Ok(Event::Met(_) | Event::Left(_) | Event::Strip(_) | Event::Status) => {}
                        // The device itself holds the other end.
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            if timeout_at(until, changed).await.is_err() {
                return Err(AwaitError::Timeout { key: key.clone(), waited: timeout });
            }
        }
    }

    /// Writes a record, unless a rule would be broken here: then nothing is written, and the reasons are
    /// told.
    ///
    /// ```
    /// # use fieldkeep_device::StrictError;
    /// # use fieldkeep_model::{Edit, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let much = vec![Edit::Put("discount".into(), Scalar::Int(90))].into();
    /// let refused = device.put_strictly(&"order/o2".parse()?, &much);
    /// assert!(matches!(refused, Err(StrictError::Held { .. })));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`StrictError`].
    pub fn put_strictly(
        &self,
        key: &fieldkeep_model::RecordKey,
        edit: &fieldkeep_model::RecordEdit,
    ) -> Result<Written, StrictError> {
        let foreseen = self.what_if(key, edit)?;
        if foreseen.state == State::Forecast(Forecast::LikelyHeld) {
            return Err(StrictError::Held { key: key.clone(), reasons: foreseen.reasons });
        }
        Ok(self.put(key, edit)?)
    }

    /// What a write would come to: the record as it would be, with its forecast. Nothing is written. Of a
    /// record that is edited by way of the relay too, which may then refuse it.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let much = vec![Edit::Put("discount".into(), Scalar::Int(90))].into();
    /// let view = device.what_if(&"order/o2".parse()?, &much)?;
    /// assert_eq!(view.state.word(), "likely_held");
    /// assert!(device.get(&"order/o2".parse()?)?.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn what_if(
        &self,
        key: &fieldkeep_model::RecordKey,
        edit: &fieldkeep_model::RecordEdit,
    ) -> Result<RecordView, PutError> {
        let mut engine = self.engine();
        let replica = engine.replica_mut();
        // What waits to be saved would be undone with it.
        replica.commit()?;
        let put = replica.put_anyhow(key, edit, crate::device::now());
        let view = put.and_then(|_| Ok(replica.views().record(key)?));
        replica.forget()?;
        self.0.identify_again(&mut engine)?;
        view.map(|view| view.expect("it was just written"))
    }
}

fn has_reached(view: &RecordView, tier: Tier) -> bool {
    match tier {
        Tier::Device => true,
        Tier::Relay => !view.unsaved,
        Tier::Judged => !view.unsaved && matches!(view.state, State::Judged(_)),
    }
}
