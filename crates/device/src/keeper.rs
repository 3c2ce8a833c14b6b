//! Keeping in touch: connected while there is a way, back when it returns.
//!
//! A pause between two tries grows and is drawn at random within it, so that many devices that lost
//! one relay do not return in one moment. It ends at once when somebody wants to sync, and when this
//! machine's own address towards the relay changes: that is a new network.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::device::{Device, now};
use crate::reach::{jittered, own_address};
use crate::status::Strip;
use crate::sync::{Parting, SyncError};

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The pause where trying again is of no use by itself: somebody may have done something about it.
const BACKOFF_REFUSED: Duration = Duration::from_secs(600);
/// How long a connection may take to end.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the download of a new generation may take.
const MOVING: Duration = Duration::from_secs(600);
/// How often the machine's own address is looked at while the relay is out of reach.
const ADDRESS: Duration = Duration::from_secs(1);

impl Device {
    /// Keeps this device in touch with its relay for as long as this is polled: changes go both ways
    /// as they happen, and a lost connection is made again. [`Device::sync`] still works meanwhile.
    /// Whatever happens on the way, a full disk too, is shown by [`Device::status`], and tried again.
    ///
    /// ```
    /// # use fieldkeep_device::Tier;
    /// # use fieldkeep_model::Edit;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let keeping = tokio::spawn({
    ///     let device = device.clone();
    ///     async move { device.keep_synced().await }
    /// });
    /// let edit = vec![Edit::Add("boxes".into(), 1)].into();
    /// let written = device.put(&"order/o1".parse()?, &edit)?;
    /// written.reached(Tier::Relay, Duration::from_secs(60)).await?;
    /// keeping.abort();
    /// # Ok(()) });
    /// ```
    pub async fn keep_synced(&self) -> Infallible {
        let _keeping = Keeping::new(self);
        let (mut backoff, mut unmet) = (BACKOFF_MIN, false);
        loop {
            let turn = self.turn().await;
            let mut met = false;
            let ended = match self.moved_on().await {
                Ok(()) => self.connected_until_asked(&mut met).await,
                Err(error) => Err(error),
            };
            drop(turn);
            if met {
                backoff = BACKOFF_MIN;
            }
            // A session that ends before the relay has answered may be chance once, and no more.
            let twice = std::mem::replace(&mut unmet, !met) && unmet;
            let error = match ended {
                Ok(Parting::Again) => continue,
                Ok(Parting::Done) if !twice => continue,
                Ok(Parting::Done) => SyncError::Cut("the relay has not answered".to_owned()),
                Ok(Parting::Away(time)) => {
                    // Nothing has gone wrong: it said that it stops, and when to come back.
                    let wait = jittered(time.clamp(BACKOFF_MIN, BACKOFF_MAX));
                    self.show(Strip::Away { retry_at: after(wait) });
                    self.rest(wait).await;
                    continue;
                }
                Ok(Parting::Lost(text)) => SyncError::Cut(text),
                Err(error) => error,
            };
            let wait = if error.is_permanent() { BACKOFF_REFUSED } else { jittered(backoff) };
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.failed(&error, Some(after(wait)));
            if self.rest(wait).await {
                backoff = BACKOFF_MIN;
            }
        }
    }

    /// Waits for so long, or until somebody wants to sync or this machine is on another network: whether
    /// it is.
    async fn rest(&self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => false,
            () = self.0.turn_wanted() => false,
            () = self.another_network() => true,
        }
    }

    /// Moves on to new generations where there are any.
    async fn moved_on(&self) -> Result<(), SyncError> {
        if self.is_to_move()? { self.move_on(MOVING).await } else { Ok(()) }
    }

    /// Ends when a type was started afresh, and this device can move on to its new generation.
    async fn new_generation(&self) {
        let mut commits = self.0.commits();
        while !self.is_to_move().unwrap_or(false) {
            if commits.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// One connection, until it ends or somebody else wants to make one. `met` tells whether the relay
    /// has answered.
    async fn connected_until_asked(&self, met: &mut bool) -> Result<Parting, SyncError> {
        self.show(Strip::Connecting);
        let mut session = pin!(self.session_until_cut(met));
        tokio::select! {
            ended = &mut session => ended,
            () = self.0.turn_wanted() => {
                if self.hang_up() {
                    let _ = timeout(GOODBYE, &mut session).await;
                }
                Ok(Parting::Again)
            }
            () = self.new_generation() => {
                if self.hang_up() {
                    let _ = timeout(GOODBYE, &mut session).await;
                }
                Ok(Parting::Again)
            }
        }
    }

    /// Ends when the address that this machine would call the relay from is another one.
    async fn another_network(&self) {
        let relay = self.remote().ok().and_then(|remote| remote.addresses.first().copied());
        let Some(relay) = relay else { return std::future::pending().await };
        let before = own_address(relay);
        let mut looks = interval(ADDRESS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while own_address(relay) == before {
            looks.tick().await;
        }
    }
}

/// The moment that so much later is, milliseconds UTC.
fn after(wait: Duration) -> i64 {
    now() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2)
}

/// Says for as long as it lives that somebody keeps a device in touch with its relay.
struct Keeping<'d>(&'d Device);

impl<'d> Keeping<'d> {
    fn new(device: &'d Device) -> Self {
        device.0.kept.fetch_add(1, Ordering::Relaxed);
        Self(device)
    }
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        self.0.0.kept.fetch_sub(1, Ordering::Relaxed);
        self.0.show(Strip::Offline);
    }
}
