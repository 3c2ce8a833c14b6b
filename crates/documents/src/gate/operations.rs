//! Stage 3: a change's operations, decoded from its columns, and the proof that the columns are
//! canonical.
//!
//! A saved document does not keep the bytes of a change: it writes them again from the operations.
//! Bytes in any other form than Automerge's own therefore come back with another hash, and the
//! document can never be loaded again. Automerge could answer this by decoding and encoding the
//! change; a strict reader gives the same answer (a test compares the two) in a tenth of the time,
//! needs no `catch_unwind`, and hands the operations to stage 4 without copying a text.

use std::ops::Range;

use fieldkeep_model::{ActorId, ChangeHeader};

use super::refusal::Code;
use super::runs::{Deltas, Flags, Form, Input, Runs, Value, Values};

/// An operation's id: an index into the change's actors, of which the author is the first, and a
/// counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpRef {
    pub(super) actor: u32,
    pub(super) counter: u64,
}

/// Where in its object an operation acts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Key<'a> {
    Map(&'a str),
    Head,
    Element(OpRef),
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    MakeMap,
    Put,
    MakeList,
    Delete,
    MakeText,
    Increment,
    MakeTable,
    Mark,
}

/// One operation; its predecessors are a range of [`Operations::preds`].
#[derive(Clone, Debug)]
pub(super) struct Operation<'a> {
    pub(super) object: Option<OpRef>,
    pub(super) key: Key<'a>,
    pub(super) insert: bool,
    pub(super) action: Action,
    pub(super) value: Value<'a>,
    pub(super) preds: Range<usize>,
}

/// All operations of a change.
pub(super) struct Operations<'a> {
    pub(super) list: Vec<Operation<'a>>,
    pub(super) preds: Vec<OpRef>,
}

impl<'a> Operations<'a> {
    /// Decodes the operations of the raw chunk whose header passed stage 0.
    pub(super) fn decode(header: &ChangeHeader, raw: &'a [u8], form: Form) -> Result<Self, Code> {
        let mut reader = Reader::new(header, raw, form)?;
        let count = usize::try_from(header.ops).map_err(|_| Code::Malformed)?;
        let mut list = Vec::with_capacity(count);
        let mut marks = false;
        for _ in 0..count {
            let operation = reader.operation()?;
            marks |= operation.action == Action::Mark;
            list.push(operation);
        }
        let preds = reader.end(marks)?;
        Ok(Self { list, preds })
    }
}

/// The columns side by side.
struct Reader<'a, 'h> {
    header: &'h ChangeHeader,
    form: Form,
    /// Which actors were referred to; the author counts as such.
    used: Vec<bool>,
    preds: Vec<OpRef>,
    object_actor: Runs<'a, u64>,
    object_counter: Runs<'a, u64>,
    key_actor: Runs<'a, u64>,
    key_counter: Deltas<'a>,
    key_text: Runs<'a, &'a str>,
    insert: Flags<'a>,
    action: Runs<'a, u64>,
    values: Values<'a>,
    pred_count: Runs<'a, u64>,
    pred_actor: Runs<'a, u64>,
    pred_counter: Deltas<'a>,
    mark_columns: bool,
}

impl<'a, 'h> Reader<'a, 'h> {
    fn new(header: &'h ChangeHeader, raw: &'a [u8], form: Form) -> Result<Self, Code> {
        let columns = Columns::parse(header, raw)?;
        let mut used = vec![false; header.other_actors.len() + 1];
        used[0] = true;
        Ok(Self {
            header,
            form,
            used,
            preds: Vec::new(),
            object_actor: Runs::new(columns.get(1), form),
            object_counter: Runs::new(columns.get(2), form),
            key_actor: Runs::new(columns.get(17), form),
            key_counter: Deltas::new(columns.get(19), form),
            key_text: Runs::new(columns.get(21), form),
            insert: Flags::new(columns.get(52), form),
            action: Runs::new(columns.get(66), form),
            values: Values::new(columns.get(86), columns.get(87), form),
            pred_count: Runs::new(columns.get(112), form),
            pred_actor: Runs::new(columns.get(113), form),
            pred_counter: Deltas::new(columns.get(115), form),
            mark_columns: !columns.get(148).is_empty() || !columns.get(165).is_empty(),
        })
    }

    fn operation(&mut self) -> Result<Operation<'a>, Code> {
        let object = self.object()?;
        let key = self.key()?;
        let insert = self.insert.next()?;
        let action = action(self.action.some()?)?;
        let value = self.values.next()?;
        self.fits(action, &value)?;
        Ok(Operation { object, key, insert, action, value, preds: self.preds()? })
    }

    fn object(&mut self) -> Result<Option<OpRef>, Code> {
        match (self.object_actor.next()?, self.object_counter.next()?) {
            (None, None) => Ok(None),
            // Automerge takes a zero for the root, and writes the root as null.
            (_, Some(0)) => self.form.demand(false).map(|()| None),
            (Some(actor), Some(counter)) => self.reference(actor, counter).map(Some),
            (Some(_), None) | (None, Some(_)) => Err(Code::Malformed),
        }
    }

    fn key(&mut self) -> Result<Key<'a>, Code> {
        match (self.key_actor.next()?, self.key_counter.next()?, self.key_text.next()?) {
            (None, None, Some(text)) => Ok(Key::Map(text)),
            (None, Some(0), None) => Ok(Key::Head),
            (Some(0), Some(0), None) => self.form.demand(false).map(|()| Key::Head),
            (Some(actor), Some(counter), None) => self.reference(actor, counter).map(Key::Element),
            _ => Err(Code::Malformed),
        }
    }

    fn preds(&mut self) -> Result<Range<usize>, Code> {
        let start = self.preds.len();
        // Stage 0 bounded the sum of these counts.
        for _ in 0..self.pred_count.some()? {
            let (actor, counter) = (self.pred_actor.some()?, self.pred_counter.some()?);
            let pred = self.reference(actor, counter)?;
            if let Some(last) = self.preds[start..].last() {
                self.form.demand(self.order(last) <= self.order(&pred))?;
            }
            self.preds.push(pred);
        }
        Ok(start..self.preds.len())
    }

    /// The order of operation ids, by which predecessors are written.
    fn order(&self, op: &OpRef) -> (u64, &'h ActorId) {
        let actor = match op.actor.checked_sub(1) {
            None => &self.header.actor,
            Some(other) => &self.header.other_actors[other as usize],
        };
        (op.counter, actor)
    }

    /// An operation id. Automerge panics on one whose counter has more than 32 bits.
    fn reference(&mut self, actor: u64, counter: u64) -> Result<OpRef, Code> {
        if u32::try_from(counter).is_err() {
            return Err(Code::Malformed);
        }
        let index = usize::try_from(actor).map_err(|_| Code::Malformed)?;
        *self.used.get_mut(index).ok_or(Code::Malformed)? = true;
        Ok(OpRef { actor: actor as u32, counter })
    }

    /// Only puts carry a value of their own, and increments a signed integer: Automerge drops or
    /// rewrites anything else.
    fn fits(&self, action: Action, value: &Value<'_>) -> Result<(), Code> {
        match (action, value) {
            (Action::Put | Action::Mark, _) | (Action::Increment, Value::Int(_)) => Ok(()),
            (Action::Increment, Value::Uint) => self.form.demand(false),
            (Action::Increment, _) => Err(Code::Malformed),
            (_, value) => self.form.demand(*value == Value::Null),
        }
    }

    /// Demands that all columns end together and every actor that is listed was referred to.
    fn end(self, marks: bool) -> Result<Vec<OpRef>, Code> {
        self.object_actor.end()?;
        self.object_counter.end()?;
        self.key_actor.end()?;
        self.key_counter.end()?;
        self.key_text.end()?;
        self.insert.end()?;
        self.action.end()?;
        self.values.end()?;
        self.pred_count.end()?;
        self.pred_actor.end()?;
        self.pred_counter.end()?;
        self.form.demand(marks || !self.mark_columns)?;
        self.form.demand(self.used.iter().all(|used| *used))?;
        Ok(self.preds)
    }
}

fn action(number: u64) -> Result<Action, Code> {
    Ok(match number {
        0 => Action::MakeMap,
        1 => Action::Put,
        2 => Action::MakeList,
        3 => Action::Delete,
        4 => Action::MakeText,
        5 => Action::Increment,
        6 => Action::MakeTable,
        7 => Action::Mark,
        _ => return Err(Code::Malformed),
    })
}

/// The column table of a raw chunk.
struct Columns<'a> {
    list: Vec<(u64, &'a [u8])>,
}

impl<'a> Columns<'a> {
    fn parse(header: &ChangeHeader, raw: &'a [u8]) -> Result<Self, Code> {
        let tail = raw.get(header.layout.tail.clone()).ok_or(Code::Malformed)?;
        let mut input = Input::new(tail, Form::Canonical);
        for _ in 0..input.uleb()? {
            let length = input.uleb()?;
            input.take(length)?;
        }
        let count = input.uleb()?;
        let table: Vec<(u64, u64)> =
            (0..count).map(|_| Ok((input.uleb()?, input.uleb()?))).collect::<Result<_, Code>>()?;
        let list = table.into_iter().map(|(spec, length)| Ok((spec, input.take(length)?)));
        Ok(Self { list: list.collect::<Result<_, Code>>()? })
    }

    fn get(&self, spec: u64) -> &'a [u8] {
        self.list.iter().find(|(other, _)| *other == spec).map_or(&[], |(_, bytes)| bytes)
    }
}
