//! Calls and questions: what the relay is asked to do or to tell at once.
//!
//! A call is on the disk before it leaves, and stays there until its outcome is. What is under way when
//! a connection ends is told again with the next one; what nobody waits for any more is told as such,
//! so that it is not carried out behind anybody's back.

use fieldkeep_model::intent::{CONTEXT, INTENT};
use fieldkeep_model::{CallOutcome, Intent, Signed, Wish};
use fieldkeep_protocol::frame::{self, Frame, Said};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{CallRow, Calls as _, StoreError};

use super::Engine;

/// How long what came of a call is kept here, in milliseconds.
const KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// How a call stands.
///
/// ```
/// # use fieldkeep_device::CallState;
/// # use fieldkeep_model::Wish;
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// let input = r#"{"order":"o1"}"#.to_owned();
/// let wish = Wish::Action { name: "confirm".into(), input };
/// let number = ann.call(wish, 0)?.expect("it is short");
/// ann.commit()?;
/// assert_eq!(ann.call_state(number)?, CallState::UnderWay); // It is on the disk, and there is no session.
/// wire.relay(&mut ann)?;
/// assert!(matches!(ann.call_state(number)?, CallState::Settled(_)));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState {
    /// The relay has not said what came of it.
    UnderWay,
    /// What came of it.
    Settled(CallOutcome),
    /// Its number was used before, and it was not carried out: it may be called anew.
    Renumbered,
}

impl Engine {
    /// Asks the relay for something, now if there is a session, and with the next one otherwise, unless
    /// the relay was put back by then; a commit must follow. Its number; nothing where it is too long.
    ///
    /// [`CallState`] has the example.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn call(&mut self, wish: Wish, now: i64) -> Result<Option<u64>, ReplicaError> {
        let device = self.replica.me().number;
        let number = self.replica.store().call_number(device)? + 1;
        let (nonce, epoch) = (self.replica.draw(), self.replica.epoch());
        let intent = Intent { org: self.replica.org(), device, number, wish, nonce, epoch };
        let intent = Signed::new(CONTEXT, &intent, &self.replica.me().keys);
        if intent.bytes.len() > INTENT {
            return Ok(None);
        }
        let call = CallRow { device, number, intent, time: now, withdrawn: false, outcome: None };
        // Not when an outcome comes: by a clock that leaps it would be gone before anybody has seen it.
        self.replica.store_mut().forget_calls(now - KEPT_MS)?;
        self.replica.store_mut().put_call(&call)?;
        if self.is_online() {
            self.fresh_calls.insert(number);
            self.tell_call(&call);
        }
        Ok(Some(number))
    }

    /// Nobody waits for a call any more, or for any that was made before this process; a commit must
    /// follow.
    ///
    /// ```
    /// # use fieldkeep_device::CallState;
    /// # use fieldkeep_model::{CallOutcome, Refusal, Wish};
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let input = r#"{"order":"o1"}"#.to_owned();
    /// let number = ann.call(Wish::Action { name: "confirm".into(), input }, 0)?.expect("it is short");
    /// ann.withdraw_calls(Some(number))?; // Before the relay has heard of it.
    /// ann.commit()?;
    /// wire.relay(&mut ann)?;
    /// let CallState::Settled(CallOutcome::Refused { refusal, .. }) = ann.call_state(number)? else {
    ///     panic!("the relay says what came of it");
    /// };
    /// assert_eq!(refusal, Refusal::Withdrawn); // It never runs.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn withdraw_calls(&mut self, number: Option<u64>) -> Result<(), ReplicaError> {
        self.replica.store_mut().withdraw_calls(number)?;
        if self.is_online() {
            self.tell_calls()?;
        }
        Ok(())
    }

    /// How a call stands.
    ///
    /// [`CallState`] has the example.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn call_state(&self, number: u64) -> Result<CallState, ReplicaError> {
        let row = self.replica.store().call(self.replica.me().number, number)?;
        let damaged = |_| StoreError::Damaged("what came of a call".into());
        Ok(match row {
            None => CallState::Renumbered,
            Some(CallRow { outcome: None, .. }) => CallState::UnderWay,
            Some(CallRow { outcome: Some(outcome), .. }) => {
                CallState::Settled(minicbor::decode(&outcome).map_err(damaged)?)
            }
        })
    }

    /// Tells the relay every call whose outcome is not known here.
    pub(super) fn tell_calls(&mut self) -> Result<(), ReplicaError> {
        self.fresh_calls.clear();
        for call in self.replica.store().open_calls()? {
            self.tell_call(&call);
        }
        Ok(())
    }

    fn tell_call(&mut self, call: &CallRow) {
        let (intent, withdrawn) = (call.intent.clone(), call.withdrawn);
        self.control(&Frame::Call(frame::Call { intent, withdrawn }));
    }

    pub(super) fn outcome(&mut self, told: &frame::Outcome) -> Result<(), ReplicaError> {
        let (device, number) = (self.replica.me().number, told.number);
        let row = self.replica.store().call(device, number)?;
        if row.is_none_or(|row| row.outcome.is_some()) {
            return Ok(());
        }
        let store = self.replica.store_mut();
        if let CallOutcome::Stale(highest) = told.outcome {
            store.raise_call_number(device, highest)?;
            // It was told once: so it is another call that has used the number.
            if self.fresh_calls.remove(&number) {
                return Ok(store.forget_call(device, number)?);
            }
        }
        let outcome = minicbor::to_vec(&told.outcome).expect("encoding into memory cannot fail");
        Ok(store.settle_call(device, number, &outcome)?)
    }

    /// Asks the relay a question; its number, or nothing where there is no session.
    ///
    /// ```
    /// # use fieldkeep_device::Input;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert_eq!(ann.ask("orders", "{}"), None); // There is no session.
    /// wire.relay(&mut ann)?;
    /// let number = ann.ask("orders", "{}").expect("there is one by now");
    /// assert_eq!(ann.take_answer(number), Some(None)); // The relay has not said it yet.
    /// ann.handle(0, Input::Closed)?;
    /// assert_eq!(ann.take_answer(number), None); // Nor will it: it may be asked again.
    /// # Ok(()) });
    /// ```
    pub fn ask(&mut self, query: &str, params: &str) -> Option<u64> {
        if !self.is_online() {
            return None;
        }
        self.asked += 1;
        let number = self.asked;
        self.asking.insert(number, None);
        let (query, params) = (query.to_owned(), params.to_owned());
        self.control(&Frame::Ask(frame::Ask { number, query, params }));
        Some(number)
    }

    /// What a question was answered, once: nothing yet, or nothing any more where the session has ended.
    ///
    /// [`Engine::ask`] has the example.
    pub fn take_answer(&mut self, number: u64) -> Option<Option<Said>> {
        let said = self.asking.get(&number)?.clone();
        if said.is_some() {
            self.asking.remove(&number);
        }
        Some(said)
    }

    pub(super) fn answered(&mut self, answer: frame::Answer) {
        if let Some(asking) = self.asking.get_mut(&answer.number) {
            *asking = Some(answer.said);
        }
    }
}
