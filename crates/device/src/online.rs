//! What needs a connection: actions that the relay runs, questions that it answers, and edits that it
//! writes. Without one they fail at once, and nothing is changed.
//!
//! A connection that ends in between leaves one of two: it was done, or it never will be. Both sides
//! say the same of it as soon as they meet again. Only a relay that was put back from an old copy in
//! between cannot tell which; it says so, and does not do it a second time.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fieldkeep_catalog::CallError as Misfit;
use fieldkeep_model::intent::call_id;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{CallEffect, CallOutcome, Intent, RecordEdit, RecordKey, Refusal, Wish};
use fieldkeep_protocol::frame::Said;
use fieldkeep_replica::{PutError, RecordView, ReplicaError};
use fieldkeep_store::{CallRow, Calls as _, Records as _, StoreError};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::device::{Device, now};
use crate::engine::{CallState, Engine};
use crate::status::Strip;
use crate::sync::SyncError;

/// How long the relay may take to say who it is, before it counts as out of reach: a radio link is there
/// within that, and nobody waits longer for a no.
const REACH: Duration = Duration::from_secs(3);
/// The pause before a lost connection is made again for a call.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection may take to end.
const GOODBYE: Duration = Duration::from_secs(2);
/// Calls that are listed.
const LISTED: usize = 100;

/// What a call has done.
///
/// ```
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let input = serde_json::json!({ "order": "o2" });
/// let input = input.as_object().expect("an object");
/// device.save(&"order/o2".parse()?, &serde_json::json!({ "customer": "c1" }))?;
/// let called = device.call("confirm", input, Duration::from_secs(60)).await?;
///
/// assert_eq!((called.records[0].to_string(), called.answer), ("order/o2".into(), None));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// The text that names the call: the id of what it created, unless the catalog gives another.
    pub id: String,
    /// The records that it wrote; those that this device holds are here as they are then.
    pub records: Vec<RecordKey>,
    /// What the host has answered, where the action calls one.
    pub answer: Option<String>,
}

/// What a question is answered.
///
/// ```
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let answer = device.ask("orders", &serde_json::Map::new(), Duration::from_secs(60)).await?;
/// let row = answer.columns.iter().zip(&answer.rows[0]);
/// assert!(row.eq([(&"orders".to_owned(), &1.into()), (&"held".to_owned(), &1.into())]));
/// assert!(answer.whole); // There are no more rows than these.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether these are all.
    pub whole: bool,
}

/// A call of this device, for a list.
///
/// ```
/// # use std::time::Duration;
/// # use fieldkeep_model::{CallOutcome, Wish};
/// # fieldkeep_lab::camp::example(async |device| {
/// let input = serde_json::json!({ "order": "o2" });
/// let input = input.as_object().expect("an object");
/// device.save(&"order/o2".parse()?, &serde_json::json!({ "customer": "c1" }))?;
/// let called = device.call("confirm", input, Duration::from_secs(60)).await?;
///
/// let calls = device.calls()?;
/// assert!(matches!(&calls[0].wish, Wish::Action { name, .. } if name == "confirm"));
/// assert!(matches!(calls[0].outcome, Some(CallOutcome::Done { .. })));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CallView {
    /// The device's number for it.
    pub number: u64,
    /// When it was made, milliseconds UTC.
    pub time: i64,
    /// What was asked for.
    pub wish: Wish,
    /// Whether nobody waits for it.
    pub withdrawn: bool,
    /// What came of it, once the relay has said so.
    pub outcome: Option<CallOutcome>,
}

/// Why nothing was done, or is not known to have been done.
///
/// ```
/// # use fieldkeep_device::OnlineError;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let refused = device.call("confrim", &serde_json::Map::new(), Duration::from_secs(60)).await;
/// let Err(OnlineError::Unknown { known, .. }) = refused else { panic!("a typo") };
/// assert_eq!(known, ["confirm"]);
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// There is no connection: nothing was changed.
    #[error("this needs a connection ({0}); nothing was changed")]
    NeedsConnection(String),
    /// There is no catalog yet: it comes from the relay.
    #[error("there is no catalog here yet: sync with the relay once")]
    NoCatalog,
    /// The catalog has nothing of that name.
    #[error("the catalog has no {what} `{name}`")]
    Unknown {
        /// An action or a query.
        what: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// What was given is not what is asked for.
    #[error("{0}")]
    Misfit(#[from] Misfit),
    /// It is longer than 64 KiB.
    #[error("it is longer than 64 KiB: say it in parts")]
    TooLong,
    /// The relay refused: nothing was changed.
    #[error("{reason}")]
    Refused {
        /// Which kind of no.
        refusal: Refusal,
        /// Why.
        reason: String,
    },
    /// The connection was lost before the relay had answered, and was not there again in time.
    #[error(
        "the connection was lost before the relay had answered: it was done, or it never will be; \
         the next sync tells which"
    )]
    Unsettled,
    /// The relay did not answer in time.
    #[error(
        "the relay did not answer within {0} s: it was done, or it never will be; the next sync tells which"
    )]
    Timeout(u64),
    /// What came of it is not known any more.
    #[error("what came of it is not known any more: the relay forgets that after a day")]
    Forgotten,
    /// The relay was put back from an old copy while it was under way.
    #[error(
        "the relay was put back from an old copy while this was under way: it may have been done \
         before, and is not done now"
    )]
    Lost,
    /// The relay has no session with this device.
    #[error(transparent)]
    Sync(SyncError),
    /// The record cannot be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl OnlineError {
    /// That the catalog has no action or query of a name.
    ///
    /// ```
    /// use fieldkeep_device::OnlineError;
    /// let unknown = OnlineError::unknown("query", "order", ["orders".to_owned()].iter());
    /// assert_eq!(unknown.to_string(), "the catalog has no query `order`");
    /// ```
    pub fn unknown<'n>(
        what: &'static str,
        name: &str,
        known: impl Iterator<Item = &'n String>,
    ) -> Self {
        Self::Unknown { what, name: name.to_owned(), known: known.cloned().collect() }
    }
}

impl From<ReplicaError> for OnlineError {
    fn from(error: ReplicaError) -> Self {
        Self::Put(error.into())
    }
}

impl From<StoreError> for OnlineError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

impl From<SyncError> for OnlineError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Replica(error) => error.into(),
            SyncError::Another(_)
            | SyncError::Denied(_)
            | SyncError::Revoked(_)
            | SyncError::Integrity(_) => Self::Sync(error),
            SyncError::Offline(why) | SyncError::Cut(why) => Self::NeedsConnection(why),
            SyncError::NoAddress | SyncError::Timeout(..) | SyncError::Bind(_) => {
                Self::NeedsConnection(error.to_string())
            }
        }
    }
}

impl Device {
    /// Has the relay run an action of the catalog. When this returns, it was run, and what it wrote is
    /// on this device, as far as this device holds such records; where the connection is lost behind the
    /// answer and does not come back in time, the next sync brings them.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order: RecordKey = "order/o2".parse()?;
    /// device.put(&order, &vec![Edit::Put("customer".into(), Scalar::Str("c1".into()))].into())?;
    /// let input = serde_json::json!({ "order": "o2" });
    /// let input = input.as_object().expect("an object");
    /// let called = device.call("confirm", input, Duration::from_secs(60)).await?;
    /// assert_eq!(called.records, [order.clone()]);
    /// assert_eq!(device.get(&order)?.expect("it is here").fields["status"], "confirmed");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`OnlineError`].
    pub async fn call(
        &self,
        action: &str,
        input: &Map<String, Value>,
        patience: Duration,
    ) -> Result<Called, OnlineError> {
        let catalog = self.catalog().ok_or(OnlineError::NoCatalog)?;
        let known = || OnlineError::unknown("action", action, catalog.actions().keys());
        catalog.action(action).ok_or_else(known)?.input.check(input)?;
        let wish =
            Wish::Action { name: action.to_owned(), input: Value::from(input.clone()).to_string() };
        let ready = |engine: &Engine| Ok(is_settled(engine)?.then(|| wish.clone()));
        self.online(patience, self.carry_out(&ready, patience)).await
    }

    /// Whether a record, as it is here, is edited only by way of the relay: [`Device::put_online`].
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order: RecordKey = "order/o2".parse()?;
    /// device.put(&order, &vec![Edit::Put("status".into(), Scalar::Str("confirmed".into()))].into())?;
    /// assert!(device.needs_connection(&order)?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn needs_connection(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.engine().replica().needs_connection(key)
    }

    /// Writes a record by way of the relay, which has to find it as it is here. When this returns, it
    /// was written, and is here.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fieldkeep_device::PutError;
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order: RecordKey = "order/o2".parse()?;
    /// device.put(&order, &vec![Edit::Put("status".into(), Scalar::Str("confirmed".into()))].into())?;
    /// let boxes = vec![Edit::Add("boxes".into(), 3)].into();
    /// assert!(matches!(device.put(&order, &boxes), Err(PutError::NeedsConnection(_))));
    /// let order = device.put_online(&order, &boxes, Duration::from_secs(60)).await?;
    /// assert_eq!(order.fields["boxes"], 3);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`OnlineError`].
    pub async fn put_online(
        &self,
        key: &RecordKey,
        edit: &RecordEdit,
        patience: Duration,
    ) -> Result<RecordView, OnlineError> {
        let ready = |engine: &Engine| {
            let row = engine.replica().store().find(&key.ty, &key.id)?.into_iter().next();
            let row = row.ok_or_else(|| PutError::Absent(key.clone()))?;
            let current = row.unsaved == 0 && is_settled(engine)?;
            let (record, expected) = (key.clone(), row.hash);
            Ok(current.then(|| Wish::Edit { record, expected, edit: edit.clone() }))
        };
        self.online(patience, self.carry_out(&ready, patience)).await?;
        Ok(self.as_merged(key)?.ok_or_else(|| PutError::Absent(key.clone()))?)
    }

    /// Asks the relay a query of the catalog.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let answer = device.ask("orders", &serde_json::Map::new(), Duration::from_secs(60)).await?;
    /// assert_eq!(answer.columns, ["orders", "held"]);
    /// assert_eq!(answer.rows, [[1, 1]]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`OnlineError`].
    pub async fn ask(
        &self,
        query: &str,
        params: &Map<String, Value>,
        patience: Duration,
    ) -> Result<Answer, OnlineError> {
        let catalog = self.catalog().ok_or(OnlineError::NoCatalog)?;
        let known = || OnlineError::unknown("query", query, catalog.queries().keys());
        catalog.query(query).ok_or_else(known)?.params.check(params)?;
        let params = Value::from(params.clone()).to_string();
        let until = Instant::now() + patience;
        let asking = async {
            loop {
                let number = self
                    .when(until, |engine| {
                        Ok(engine.is_answered().then(|| engine.ask(query, &params)).flatten())
                    })
                    .await?
                    .ok_or(OnlineError::Timeout(patience.as_secs()))?;
                let deliver = || {
                    let mut engine = self.engine();
                    let outputs = engine.commit()?;
                    self.0.deliver(&engine, outputs);
                    Ok::<_, ReplicaError>(())
                };
                deliver()?;
                let answered = self.when(until, |engine| {
                    Ok(match engine.take_answer(number) {
                        Some(None) => None,
                        Some(Some(said)) => Some(Some(said)),
                        None => Some(None),
                    })
                });
                match answered.await?.ok_or(OnlineError::Timeout(patience.as_secs()))? {
                    Some(Said::Rows { columns, rows, whole }) => {
                        let rows = serde_json::from_str(&rows);
                        let damaged = |_| StoreError::Damaged("the relay's answer".into());
                        return Ok(Answer { columns, rows: rows.map_err(damaged)?, whole });
                    }
                    Some(Said::Refused { refusal, reason }) => {
                        return Err(OnlineError::Refused { refusal, reason });
                    }
                    // The connection was lost: asking again does no harm.
                    None => {}
                }
            }
        };
        self.online(patience, asking).await
    }

    /// This device's calls of the last days and what came of them, newest first.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(device.calls()?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn calls(&self) -> Result<Vec<CallView>, StoreError> {
        let engine = self.engine();
        let rows = engine.replica().store().calls_of(engine.replica().me().number, LISTED)?;
        let views = rows.into_iter().map(|row| {
            let CallRow { number, time, withdrawn, intent, outcome, .. } = row;
            let damaged = || StoreError::Damaged("a call".into());
            let wish = intent.read::<Intent>().ok_or_else(damaged)?.wish;
            let outcome = outcome.map(|outcome| minicbor::decode(&outcome)).transpose();
            let outcome = outcome.map_err(|_| damaged())?;
            Ok(CallView { number, time, wish, withdrawn, outcome })
        });
        views.collect()
    }

    /// Makes a call as soon as it is ready, and waits for what comes of it.
    async fn carry_out(
        &self,
        ready: &(dyn Fn(&Engine) -> Result<Option<Wish>, OnlineError> + Sync),
        patience: Duration,
    ) -> Result<Called, OnlineError> {
        let until = Instant::now() + patience;
        loop {
            let mut waiting = Waiting { device: self, number: None };
            let begun = self.when(until, |engine| {
                let Some(wish) = ready(engine)? else { return Ok(None) };
                let number = engine.call(wish, now())?.ok_or(OnlineError::TooLong)?;
                waiting.number = Some(number);
                let outputs = engine.commit()?;
                self.0.deliver(engine, outputs);
                Ok(Some(number))
            });
            let number = begun.await?.ok_or(OnlineError::NeedsConnection(
                "not everything that it depends on was exchanged in time".to_owned(),
            ))?;
            let settled = self.when(until, |engine| match engine.call_state(number)? {
                CallState::UnderWay => Ok(None),
                state @ (CallState::Settled(_) | CallState::Renumbered) => Ok(Some(state)),
            });
            let state = settled.await?;
            let Some(state) = state else {
                let online = self.engine().is_online();
                drop(waiting);
                let late = OnlineError::Timeout(patience.as_secs());
                return Err(if online { late } else { OnlineError::Unsettled });
            };
            waiting.number = None;
            let CallState::Settled(outcome) = state else { continue };
            return match outcome {
                CallOutcome::Refused { refusal, reason } => {
                    Err(OnlineError::Refused { refusal, reason })
                }
                CallOutcome::Stale(_) => Err(OnlineError::Forgotten),
                CallOutcome::Lost => Err(OnlineError::Lost),
                CallOutcome::Done { effects, answer } => {
                    let id = self.engine().replica().store().call(self.member()?.number, number)?;
                    let id = id.map(|row| call_id(&row.intent)).unwrap_or_default();
                    // It was done; that it is not here in time is no failure of it.
                    self.when(until, |engine| Ok(has_all(engine, &effects)?.then_some(()))).await?;
                    let records = effects.into_iter().map(|effect| effect.record).collect();
                    Ok(Called { id, records, answer })
                }
            };
        }
    }

    /// Looks at the engine after every commit until there is something, or the time is over.
    async fn when<T>(
        &self,
        until: Instant,
        mut look: impl FnMut(&mut Engine) -> Result<Option<T>, OnlineError>,
    ) -> Result<Option<T>, OnlineError> {
        let mut commits = self.0.commits();
        loop {
            commits.mark_unchanged();
            if let Some(found) = look(&mut self.engine())? {
                return Ok(Some(found));
            }
            if timeout_at(until, commits.changed()).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Does something while there is a session with the relay: that of whoever keeps this device in
    /// touch, or one for this alone.
    async fn online<T>(
        &self,
        patience: Duration,
        act: impl Future<Output = Result<T, OnlineError>>,
    ) -> Result<T, OnlineError> {
        let until = Instant::now() + patience;
        if self.0.kept.load(Ordering::Relaxed) > 0 {
            self.be_in_touch(until).await?;
            return act.await;
        }
        let wanting = self.0.want_turn();
        let _turn = self.turn().await;
        drop(wanting);
        self.show(Strip::Connecting);
        let mut act = pin!(act);
        let mut met = false;
        let mut reach = pin!(sleep(REACH));
        loop {
            let mut answered = false;
            let mut session = pin!(self.session_until_cut(&mut answered));
            let ended = loop {
                tokio::select! {
                    biased;
                    done = &mut act => {
                        if self.hang_up() {
                            let _ = timeout(GOODBYE, &mut session).await;
                        }
                        return done;
                    }
                    ended = &mut session => break ended,
                    () = &mut reach, if !met => {
                        met = self.engine().is_online();
                        if !met {
                            break Err(SyncError::Offline("the relay does not answer".to_owned()));
                        }
                    }
                }
            };
            met = met || !matches!(&ended, Err(error) if is_out_of_reach(error));
            match ended {
                Err(error) if !met || error.is_permanent() => {
                    self.failed(&error, None);
                    return Err(error.into());
                }
                Ok(_) | Err(_) => {}
            }
            // What is under way may end while nobody is connected: its time runs on.
            tokio::select! {
                biased;
                done = &mut act => return done,
                () = sleep(PAUSE) => {}
            }
            if Instant::now() >= until {
                return act.await;
            }
        }
    }

    /// Waits for whoever keeps this device in touch, as long as he is about to be.
    async fn be_in_touch(&self, until: Instant) -> Result<(), OnlineError> {
        let mut events = self.watch();
        loop {
            if self.engine().is_online() {
                return Ok(());
            }
            match self.0.strip() {
                Strip::Offline => {
                    return Err(OnlineError::NeedsConnection("this device is offline".to_owned()));
                }
                Strip::Away { .. } => {
                    let text = "the relay has stopped for a while";
                    return Err(OnlineError::NeedsConnection(text.to_owned()));
                }
                Strip::Error { reason, .. } => return Err(OnlineError::NeedsConnection(reason)),
                Strip::Connecting | Strip::Online { .. } => {}
            }
            if timeout_at(until, events.recv()).await.is_err() {
                return Err(OnlineError::NeedsConnection("the relay does not answer".to_owned()));
            }
        }
    }
}

/// Whoever waits for a call. Where he goes, the call is withdrawn.
struct Waiting<'d> {
    device: &'d Device,
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut engine = self.device.engine();
        let withdrawn = engine.withdraw_calls(Some(number)).and_then(|()| engine.commit());
        match withdrawn {
            Ok(outputs) => self.device.0.deliver(&engine, outputs),
            Err(error) => tracing::warn!(%error, "a call was not withdrawn: the next start does"),
        }
    }
}

/// Whether there was no connection at all.
fn is_out_of_reach(error: &SyncError) -> bool {
    matches!(
        error,
        SyncError::Offline(_) | SyncError::Another(_) | SyncError::NoAddress | SyncError::Bind(_)
    )
}

/// Whether the relay has answered, and has everything that is to be sent.
fn is_settled(engine: &Engine) -> Result<bool, OnlineError> {
    if !engine.is_online() || !engine.is_answered() {
        return Ok(false);
    }
    Ok(engine.progress()?.waiting == 0 && !engine.replica().is_behind())
}

/// Whether what a call wrote is here, as far as this device holds it.
fn has_all(engine: &Engine, effects: &[CallEffect]) -> Result<bool, OnlineError> {
    let left_out: LeftOut = engine.stored_pauses()?;
    Ok(effects.iter().filter(|effect| effect.pos > 0).all(|effect| {
        let row = engine.replica().segment(&effect.segment);
        row.is_some_and(|row| {
            left_out.covers(&row.address) || (row.cursor.pos >= effect.pos && row.done == row.tip)
        })
    }))
}
