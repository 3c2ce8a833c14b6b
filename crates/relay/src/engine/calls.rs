//! Calls: what a device asks to be done at once. Each is carried out once; what came of it is durable
//! before it is told, is kept for a day, and is told again to whoever lost it. The highest number of a
//! device is kept for ever: an older call is never run. Nor is one of an epoch that is over: before this
//! relay was put back it may have been.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Action, Call, CallError};
use fieldkeep_model::intent::{self, CONTEXT, INTENT};
use fieldkeep_model::{
    CallEffect, CallOutcome, DeviceNumber, Intent, Member, RecordEdit, RecordHash, RecordKey,
    Refusal, Signed, Wish,
};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{self, Frame};
use fieldkeep_replica::{PutError, ReplicaError, WriteForError, WrittenFor};
use fieldkeep_store::{CallRow, Calls as _, StoreError};
use serde_json::{Map, Value, json};

use super::{ConnectionId, Engine, Output};

/// How long what came of a call is kept, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;
/// Calls of a device that are kept at once.
const KEPT: u64 = 5_000;
/// Calls of a device that may be under way at once.
const UNDER_WAY: u64 = 16;
/// The context under which a relay signs what it sends a host.
pub const HOST_CONTEXT: &str = "fieldkeep 1 host call";

/// What is to be sent to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Who called.
    pub device: DeviceNumber,
    /// Its number for the call.
    pub number: u64,
    /// The host, as the catalog names it.
    pub host: String,
    /// The path.
    pub path: String,
    /// The call's id: whoever gets it twice does it once.
    pub key: String,
    /// The body: JSON.
    pub body: String,
    /// The relay's signing key, in hexadecimal.
    pub signer: String,
    /// Its signature over the body, under [`HOST_CONTEXT`], in hexadecimal.
    pub signature: String,
}

type Settled = Result<Option<CallOutcome>, ReplicaError>;

impl Engine {
    pub(super) fn call(&mut self, id: ConnectionId, call: frame::Call) -> Result<(), ReplicaError> {
        let member = self.member(id);
        if call.intent.bytes.len() > INTENT {
            self.close(id, Code::TooLong, "a call is longer than allowed");
            return Ok(());
        }
        let intent: Option<Intent> = member.stated(CONTEXT, &call.intent);
        let own = |intent: &Intent| {
            let number = i64::try_from(intent.number).is_ok_and(|number| number > 0);
            intent.org == self.replica.org() && intent.device == member.number && number
        };
        let Some(intent) = intent.filter(own) else {
            self.close(id, Code::Unvouched, "a call that the device has not signed");
            return Ok(());
        };
        if let Some(outcome) = self.settle(&member, &intent, call)? {
            self.tell_outcome(id, intent.number, outcome);
        }
        Ok(())
    }

    /// What comes of a call; nothing yet where a host is asked.
    fn settle(&mut self, member: &Member, intent: &Intent, call: frame::Call) -> Settled {
        let (device, number) = (member.number, intent.number);
        let known = self.replica.store().call(device, number)?;
        if let Some(known) = known.filter(|known| known.intent.bytes == call.intent.bytes) {
            return decoded(known.outcome.as_deref());
        }
        let highest = self.replica.store().call_number(device)?;
        if number <= highest {
            return Ok(Some(CallOutcome::Stale(highest)));
        }
        self.replica.store_mut().forget_calls(self.now - KEPT_MS)?;
        let (kept, under_way) = self.replica.store().call_counts(device)?;
        let outcome = if intent.epoch != self.replica.epoch() {
            Some(CallOutcome::Lost)
        } else if call.withdrawn {
            let reason = "nobody waited for it any more: it was not carried out, and never will be";
            refused(Refusal::Withdrawn, reason)
        } else if kept >= KEPT || under_way >= UNDER_WAY {
            refused(Refusal::Busy, "this device has called too often: try again later")
        } else {
            self.carry_out(member, intent, &call.intent)?
        };
        let encoded = outcome.as_ref().map(encoded);
        let (intent, time) = (call.intent, self.now);
        let row = CallRow { device, number, intent, time, withdrawn: false, outcome: encoded };
        self.replica.store_mut().put_call(&row)?;
        Ok(outcome)
    }

    fn carry_out(&mut self, member: &Member, intent: &Intent, signed: &Signed) -> Settled {
        match &intent.wish {
            Wish::Action { name, input } => {
                let Ok(input) = serde_json::from_str::<Map<String, Value>>(input) else {
                    return Ok(refused(Refusal::Input, "the input is no JSON object"));
                };
                let id = intent::call_id(signed);
                let call = Call { id: &id, caller: &member.name, time: self.now, input: &input };
                self.run(member, name, &call, intent.number, None)
            }
            Wish::Edit { record, expected, edit } => self.edit_for(member, record, expected, edit),
        }
    }

    /// Runs an action; `answer` is what its host has said, where it has one and was asked.
    fn run(
        &mut self,
        member: &Member,
        name: &str,
        call: &Call<'_>,
        number: u64,
        answer: Option<String>,
    ) -> Settled {
        let Some(published) = self.replica.published() else {
            return Ok(refused(Refusal::Unknown, "the relay has no catalog"));
        };
        let catalog = published.catalog.clone();
        let Some(action) = catalog.action(name) else {
            let reason = format!("the relay's catalog has no action `{name}`");
            return Ok(refused(Refusal::Unknown, reason));
        };
        if !action.who.includes(member) {
            return Ok(refused(Refusal::Denied, format!("{} may not call `{name}`", member.name)));
        }
        let planned = match self.records_of(member, action, call)? {
            Ok(records) => catalog.plan(action, call, &records),
            Err(error) => Err(error),
        };
        let writes = match planned {
            Ok(writes) => writes,
            Err(error) => return Ok(Some(call_refused(&error))),
        };
        if let Some(host) = action.host.as_ref().filter(|_| answer.is_none()) {
            let body = json!({
                "action": name, "call": call.id, "caller": call.caller, "time": call.time,
                "input": call.input,
            });
            let body = body.to_string();
            let keys = &self.replica.me().keys;
            let signature = keys.sign(HOST_CONTEXT, body.as_bytes());
            let fetch = Fetch {
                device: member.number,
                number,
                host: host.host.clone(),
                path: host.path.clone(),
                key: call.id.to_owned(),
                body,
                signer: keys.public().to_string(),
                signature: data_encoding::HEXLOWER.encode(&signature.0),
            };
            self.outputs.push(Output::Fetch(Box::new(fetch)));
            return Ok(None);
        }
        let written = self.replica.write_for(&member.name, &writes, None, self.now);
        Ok(Some(self.written(written, answer)?))
    }

    /// The records that an action is about, as the caller may see them.
    #[expect(clippy::type_complexity)]
    fn records_of<'a>(
        &mut self,
        member: &Member,
        action: &'a Action,
        call: &Call<'_>,
    ) -> Result<Result<BTreeMap<&'a str, Option<Map<String, Value>>>, CallError>, ReplicaError>
    {
        if let Err(error) = action.input.check(call.input) {
            return Ok(Err(error));
        }
        let named = match action.records(call) {
            Ok(named) => named,
            Err(error) => return Ok(Err(error)),
        };
        let mut records = BTreeMap::new();
        for (name, (key, optional)) in named {
            let mut fields = None;
            if let Some(key) = &key {
                let moved = self.replica.catch_up_type(&key.ty)?;
                self.moved.extend(moved);
                let standing = self.replica.standing(key)?.filter(|standing| {
                    let address = &standing.address;
                    !standing.deleted && member.may(&address.ty, &address.scope)
                });
                fields = standing.map(|standing| standing.fields);
            }
            match (key, fields) {
                (Some(key), None) if !optional => return Ok(Err(CallError::Absent(key))),
                (_, fields) => drop(records.insert(name, fields)),
            }
        }
        Ok(Ok(records))
    }

    fn edit_for(
        &mut self,
        member: &Member,
        record: &RecordKey,
        expected: &RecordHash,
        edit: &RecordEdit,
    ) -> Settled {
        let moved = self.replica.catch_up_type(&record.ty)?;
        self.moved.extend(moved);
        let standing = self.replica.standing(record)?;
        let readable = standing
            .is_some_and(|standing| member.may(&standing.address.ty, &standing.address.scope));
        if !readable {
            return Ok(refused(Refusal::Absent, format!("there is no record {record}")));
        }
        let writes = [(record.clone(), edit.clone())];
        let written = self.replica.write_for(&member.name, &writes, Some(expected), self.now);
        Ok(Some(self.written(written, None)?))
    }

    /// Has what was written judged on and told to everybody, or says why nothing was.
    fn written(
        &mut self,
        written: Result<WrittenFor, WriteForError>,
        answer: Option<String>,
    ) -> Result<CallOutcome, ReplicaError> {
        let (refusal, reason) = match written {
            Ok(WrittenFor { effects, moved }) => {
                for segment in moved {
                    self.has_grown(&segment)?;
                }
                return Ok(CallOutcome::Done { effects, answer });
            }
            Err(WriteForError::Put(PutError::Replica(error))) => return Err(error),
            Err(error @ WriteForError::Changed(_)) => (Refusal::Changed, error.to_string()),
            Err(WriteForError::Held { reasons, .. }) => (Refusal::Unmet, reasons.join("; ")),
            Err(WriteForError::Put(PutError::Absent(key))) => {
                (Refusal::Absent, format!("there is no record {key}"))
            }
            Err(WriteForError::Put(error)) => (Refusal::Unmet, error.to_string()),
        };
        Ok(CallOutcome::Refused { refusal, reason })
    }

    /// A host has answered a call, or it was not reached.
    pub(super) fn fetched(
        &mut self,
        device: DeviceNumber,
        number: u64,
        answer: Result<String, String>,
    ) -> Result<(), ReplicaError> {
        let row = self.replica.store().call(device, number)?;
        let Some(row) = row.filter(|row| row.outcome.is_none()) else { return Ok(()) };
        let outcome = match answer {
            Err(reason) => refused(Refusal::Host, reason),
            Ok(answer) => match self.resume(&row, Some(answer))? {
                Some(CallOutcome::Refused { refusal, reason }) => refused(
                    refusal,
                    format!("the host has done it, but nothing was written: {reason}"),
                ),
                outcome => outcome,
            },
        };
        let Some(outcome) = outcome else { return Ok(()) };
        self.replica.store_mut().settle_call(device, number, &encoded(&outcome))?;
        let key = self.caller(&row).map(|member| member.keys.tls);
        for id in key.map(|key| self.sessions_of(&key)).unwrap_or_default() {
            self.tell_outcome(id, number, outcome.clone());
        }
        Ok(())
    }

    /// Who made a call that is kept.
    fn caller(&self, row: &CallRow) -> Option<&Member> {
        let signed = |member: &&Member| member.stated::<Intent>(CONTEXT, &row.intent).is_some();
        self.replica.members().numbered(row.device).find(signed)
    }

    /// Goes on with a call that was taken in before.
    fn resume(&mut self, row: &CallRow, answer: Option<String>) -> Settled {
        let intent: Option<Intent> = row.intent.read();
        let member = self.caller(row).cloned();
        let (Some(Intent { wish: Wish::Action { name, input }, .. }), Some(member)) =
            (intent, member)
        else {
            return Ok(refused(Refusal::Unknown, "the call cannot be read any more"));
        };
        let input: Map<String, Value> = serde_json::from_str(&input).unwrap_or_default();
        let id = intent::call_id(&row.intent);
        let call = Call { id: &id, caller: &member.name, time: row.time, input: &input };
        self.run(&member, &name, &call, row.number, answer)
    }

    /// Asks the hosts again whose answers were not there when this relay stopped: they know the call by
    /// its key. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn resume_calls(&mut self) -> Result<(), ReplicaError> {
        for row in self.replica.store().open_calls()? {
            if let Some(outcome) = self.resume(&row, None)? {
                let (device, number) = (row.device, row.number);
                self.replica.store_mut().settle_call(device, number, &encoded(&outcome))?;
            }
        }
        Ok(())
    }

    /// Tells a device what came of a call. Where it does not follow a segment, there is nothing that it
    /// could wait for.
    fn tell_outcome(&mut self, id: ConnectionId, number: u64, mut outcome: CallOutcome) {
        let Some(peer) = self.peers.get(&id) else { return };
        if let CallOutcome::Done { effects, .. } = &mut outcome {
            for CallEffect { segment, pos, .. } in effects {
                *pos = if peer.following.contains_key(segment) { *pos } else { 0 };
            }
        }
        self.control(id, &Frame::Outcome(frame::Outcome { number, outcome }));
    }
}

#[expect(clippy::unnecessary_wraps)]
fn refused(refusal: Refusal, reason: impl Into<String>) -> Option<CallOutcome> {
    Some(CallOutcome::Refused { refusal, reason: reason.into() })
}

fn call_refused(error: &CallError) -> CallOutcome {
    let refusal = match error {
        CallError::Input(_) => Refusal::Input,
        CallError::Absent(_) => Refusal::Absent,
        CallError::Unmet(_) | CallError::Failed { .. } => Refusal::Unmet,
    };
    CallOutcome::Refused { refusal, reason: error.to_string() }
}

fn encoded(outcome: &CallOutcome) -> Vec<u8> {
    minicbor::to_vec(outcome).expect("encoding into memory cannot fail")
}

fn decoded(outcome: Option<&[u8]>) -> Settled {
    let damaged = |_| StoreError::Damaged("what came of a call".into());
    Ok(outcome.map(minicbor::decode).transpose().map_err(damaged)?)
}
