//! Stage 4: each operation against the index of those before it.
//!
//! An operation may refer only to what lies in the change's causal past or earlier in the change
//! itself: a replica that knows more must not decide otherwise. Whatever Automerge takes on trust
//! (that objects exist, that keys fit, that predecessors lie in the same slot) is looked up here,
//! because a change that breaks it panics in `apply`, or leaves a document that saves and never
//! loads again.

use std::collections::BTreeMap;

use fieldkeep_model::header::limit;
use fieldkeep_model::{ChangeHeader, RecordId};

use super::causality::{Causality, Causes};
use super::index::{Entry, Index, Kind, NONE, Object, Place, ROOT};
use super::operations::{Action, Key, OpRef, Operation, Operations};
use super::refusal::Code;
use super::runs::Value;
use super::touch::Touch;

/// The record's or child's own mark of soft deletion.
const DELETED: &str = "~deleted";
/// The longest string that one insertion may put into a text: a cluster of characters, not a page.
const TEXT: usize = 256;
/// Increments and counters stay within 2^32 either side of zero. There are fewer than 2^31
/// operation counters, so no sum of them overflows 64 bits on one line of history.
const COUNTER: i64 = 1 << 32;

/// What a checked change adds to the index.
#[derive(Debug, Default)]
pub(super) struct Additions {
    pub(super) entries: Vec<Entry>,
    pub(super) objects: Vec<Object>,
    pub(super) keys: Vec<Box<str>>,
}

/// The scrutiny of one change.
pub(super) struct Scrutiny<'a> {
    causality: &'a Causality,
    index: &'a Index,
    header: &'a ChangeHeader,
    causes: &'a Causes,
    /// The index of each of the change's actors in the history, if it is known there.
    actors: Vec<Option<u32>>,
    added: Additions,
    added_keys: BTreeMap<Box<str>, u32>,
    /// Where the operations belong, once each in the end.
    touched: Vec<Place>,
    /// The object that the last operation acted in: operations come in runs.
    last_object: Option<(OpRef, u32)>,
}

impl<'a> Scrutiny<'a> {
    pub(super) fn new(
        causality: &'a Causality,
        index: &'a Index,
        header: &'a ChangeHeader,
        causes: &'a Causes,
    ) -> Self {
        let all = std::iter::once(&header.actor).chain(&header.other_actors);
        Self {
            causality,
            index,
            header,
            causes,
            actors: all.map(|actor| causality.author(actor)).collect(),
            added: Additions::default(),
            added_keys: BTreeMap::new(),
            touched: Vec::new(),
            last_object: None,
        }
    }

    /// Checks all operations; what they add to the index, and what they touch.
    pub(super) fn run(
        mut self,
        operations: &Operations<'_>,
    ) -> Result<(Additions, Vec<Touch>), Code> {
        self.added.entries.reserve(operations.list.len());
        for operation in &operations.list {
            let preds = &operations.preds[operation.preds.clone()];
            let entry = self.operation(operation, preds)?;
            self.added.entries.push(entry);
        }
        let touched = self.touches();
        Ok((self.added, touched))
    }

    fn operation(&mut self, operation: &Operation<'_>, preds: &[OpRef]) -> Result<Entry, Code> {
        let kind = kind(operation)?;
        let position = self.object(operation.object)?;
        let object = self.object_at(position);
        if position == ROOT {
            at_root(operation, preds)?;
        }
        if object.kind == Kind::Text {
            in_text(operation)?;
        }
        let slot = self.slot(operation, position, &object)?;
        if position == ROOT && RecordId::new(self.text(slot)).is_err() {
            return Err(Code::RecordId);
        }
        self.preds(operation, preds, position, slot)?;
        let key = if object.kind == Kind::Map { slot } else { NONE };
        let place = object.place(key);
        if self.touched.last() != Some(&place) {
            self.touched.push(place);
        }
        if kind.is_object() {
            let made = object.made(self.next(), kind, key).ok_or(Code::Depth)?;
            self.added.objects.push(made);
        }
        Ok(Entry { object: position, slot, kind })
    }

    /// The position of the object that an operation names.
    fn object(&mut self, object: Option<OpRef>) -> Result<u32, Code> {
        let Some(reference) = object else {
            return Ok(ROOT);
        };
        if let Some((last, position)) = self.last_object
            && last == reference
        {
            return Ok(position);
        }
        let op = self.find(reference).ok_or(Code::UnknownObject)?;
        let position = self.object_of(op).ok_or(Code::NotAnObject)?;
        self.last_object = Some((reference, position));
        Ok(position)
    }

    /// The position of an operation: of this change, or of its causal past.
    fn find(&self, reference: OpRef) -> Option<u32> {
        let own = self.header.start_op;
        if reference.actor == 0 && reference.counter >= own {
            let before = (reference.counter - own) < self.added.entries.len() as u64;
            return before.then(|| self.base() + (reference.counter - own) as u32);
        }
        let author = self.actors[reference.actor as usize]?;
        let note = self.causality.holder(author, reference.counter)?;
        let offset = (reference.counter - u64::from(note.start_op)) as u32;
        self.causes.past.contains(note).then_some(note.first_op + offset)
    }

    fn base(&self) -> u32 {
        self.index.entries.len() as u32
    }

    fn entry(&self, op: u32) -> Entry {
        match op.checked_sub(self.base()) {
            None => self.index.entries[op as usize],
            Some(own) => self.added.entries[own as usize],
        }
    }

    fn object_of(&self, op: u32) -> Option<u32> {
        if op < self.base() {
            return self.index.object(op);
        }
        let own = self.added.objects.binary_search_by_key(&op, |object| object.op).ok()?;
        Some((self.index.objects.len() + own) as u32)
    }

    fn object_at(&self, position: u32) -> Object {
        match (position as usize).checked_sub(self.index.objects.len()) {
            None => self.index.objects[position as usize],
            Some(own) => self.added.objects[own],
        }
    }

    /// The slot that an operation acts on: a key, or an element.
    fn slot(&mut self, op: &Operation<'_>, position: u32, object: &Object) -> Result<u32, Code> {
        let of_map = object.kind == Kind::Map;
        match op.key {
            Key::Map(text) if of_map && !op.insert => self.key(text),
            Key::Head if !of_map && op.insert => Ok(self.next()),
            Key::Element(reference) if !of_map => {
                let element = self.element(reference, position)?;
                Ok(if op.insert { self.next() } else { element })
            }
            Key::Map(_) | Key::Head | Key::Element(_) => Err(Code::KeyKind),
        }
    }

    /// The position that the operation at hand will have.
    fn next(&self) -> u32 {
        self.base() + self.added.entries.len() as u32
    }

    fn element(&self, reference: OpRef, object: u32) -> Result<u32, Code> {
        let op = self.find(reference).ok_or(Code::UnknownElement)?;
        let entry = self.entry(op);
        // In a sequence, what lies in its own slot is an insertion.
        if entry.object == object && entry.slot == op { Ok(op) } else { Err(Code::NotAnElement) }
    }

    fn key(&mut self, text: &str) -> Result<u32, Code> {
        if text.is_empty() || text.len() > limit::KEY {
            return Err(Code::KeyLength);
        }
        let found = self.index.keys.number(text).or_else(|| self.added_keys.get(text).copied());
        if let Some(key) = found {
            return Ok(key);
        }
        let key = self.index.keys.len() + self.added.keys.len() as u32;
        self.added_keys.insert(text.into(), key);
        self.added.keys.push(text.into());
        Ok(key)
    }

    fn text(&self, key: u32) -> &str {
        match key.checked_sub(self.index.keys.len()) {
            None => self.index.keys.text(key),
            Some(own) => &self.added.keys[own as usize],
        }
    }

    fn preds(
        &self,
        operation: &Operation<'_>,
        preds: &[OpRef],
        object: u32,
        slot: u32,
    ) -> Result<(), Code> {
        let replaces = matches!(operation.action, Action::Delete | Action::Increment);
        if operation.insert {
            return match preds.is_empty() {
                _ if replaces => Err(Code::EmptyInsert),
                true => Ok(()),
                false => Err(Code::InsertWithPred),
            };
        }
        let updates = !matches!(operation.key, Key::Map(_));
        if preds.is_empty() && (replaces || updates) {
            return Err(Code::WithoutPred);
        }
        let mut counters = 0;
        for (at, pred) in preds.iter().enumerate() {
            // Stage 3 saw to it that they are in order.
            if at > 0 && preds[at - 1] == *pred {
                return Err(Code::PredRepeated);
            }
            let entry = self.entry(self.find(*pred).ok_or(Code::UnknownPred)?);
            if (entry.object, entry.slot) != (object, slot) {
                return Err(Code::PredElsewhere);
            }
            if !entry.kind.is_value() {
                return Err(Code::PredNotAValue);
            }
            counters += usize::from(entry.kind == Kind::Counter);
        }
        // Where a counter and another value stand side by side, Automerge increments the one and
        // overwrites the other.
        if operation.action == Action::Increment && counters == 0 {
            return Err(Code::NotACounter);
        }
        Ok(())
    }

    fn touches(&mut self) -> Vec<Touch> {
        self.touched.sort_unstable();
        self.touched.dedup();
        let mut touches: Vec<_> =
            self.touched.iter().filter_map(|touch| self.named(touch)).collect();
        touches.sort_unstable();
        touches.dedup();
        touches
    }

    fn named(&self, place: &Place) -> Option<Touch> {
        let name = |key| match key {
            NONE => "",
            key => Some(self.text(key)).filter(|text| *text != DELETED).unwrap_or_default(),
        };
        let (field, below) = (name(place.field), name(place.below));
        let dot = if field.is_empty() || below.is_empty() { "" } else { "." };
        let record = RecordId::new(self.text(place.record)).ok()?;
        Some(Touch { record, field: [field, dot, below].concat() })
    }
}

/// What an operation leaves in its slot, if its value may stand in a document at all.
fn kind(operation: &Operation<'_>) -> Result<Kind, Code> {
    match operation.action {
        Action::MakeMap => Ok(Kind::Map),
        Action::MakeList => Ok(Kind::List),
        Action::MakeText => Ok(Kind::Text),
        Action::MakeTable => Err(Code::Table),
        Action::Mark => Err(Code::Mark),
        Action::Delete => Ok(Kind::Delete),
        Action::Increment => amount(operation.value).map(|()| Kind::Increment),
        Action::Put => value(operation.value),
    }
}

fn value(value: Value<'_>) -> Result<Kind, Code> {
    match value {
        Value::Counter(_) => amount(value).map(|()| Kind::Counter),
        Value::Float(number) if !number.is_finite() => Err(Code::NotFinite),
        Value::Timestamp | Value::Unknown => Err(Code::ValueType),
        Value::Null
        | Value::Bool
        | Value::Uint
        | Value::Int(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bytes => Ok(Kind::Scalar),
    }
}

/// What a counter starts with or an increment adds.
fn amount(value: Value<'_>) -> Result<(), Code> {
    let fits = matches!(value, Value::Int(by) | Value::Counter(by) if in_range(by));
    if fits { Ok(()) } else { Err(Code::CounterRange) }
}

fn in_range(number: i64) -> bool {
    (-COUNTER..=COUNTER).contains(&number)
}

/// At the root, records are created and nothing else happens: what overwrote a record would hide
/// it whole.
fn at_root(operation: &Operation<'_>, preds: &[OpRef]) -> Result<(), Code> {
    let creates = operation.action == Action::MakeMap && !operation.insert && preds.is_empty();
    if creates { Ok(()) } else { Err(Code::RootOperation) }
}

fn in_text(operation: &Operation<'_>) -> Result<(), Code> {
    let fits = match (operation.action, operation.value) {
        (Action::Put, Value::Str(text)) => operation.insert && (1..=TEXT).contains(&text.len()),
        (action, _) => action == Action::Delete && !operation.insert,
    };
    if fits { Ok(()) } else { Err(Code::TextOperation) }
}
