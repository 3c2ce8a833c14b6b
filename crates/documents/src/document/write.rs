//! Edits as operations: what one write does inside one transaction.
//!
//! A record or child that is not there is created whole, in one batch. Where concurrent values
//! stand at a key, writing takes all of them away, in every twin, and leaves one: so a conflict is
//! resolved by writing, also by writing the value that wins already. Removing is soft for records
//! and children, so that a concurrent edit inside them is kept. Nothing is committed here.

use std::ops::RangeInclusive;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ROOT, ReadDoc, ScalarValue, TextEncoding, hydrate};
use fieldkeep_model::header::limit;
use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar};

use super::node::{Candidate, DELETED, Node};
use super::record::CHILD_ID;

/// How texts are counted, everywhere: in code points.
pub(super) const ENCODING: TextEncoding = TextEncoding::UnicodeCodePoint;

/// Beyond this product of the lengths that differ, a text is replaced in one piece: finding the
/// smallest difference costs their product.
pub(super) const DIFF_COST: usize = 4_000_000;

/// What a counter may start with, and what may be added to it at once: the gate's limit.
pub(super) const ADDED: RangeInclusive<i64> = -(1 << 32)..=1 << 32;

/// In how many steps a counter is brought to its value when concurrent ones are resolved.
const STEPS: i64 = 64;

/// Why an edit cannot be written, whatever the document holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A field or child name is empty, longer than 256 bytes, or begins with `~`.
    #[error("`{0}` cannot name a field or a child")]
    Name(String),
    /// A child's `id` field is the child's id and cannot be written.
    #[error("`id` of a child is its id and cannot be written")]
    ChildId,
    /// Not a number, or infinite.
    #[error("`{0}` would not be a finite number")]
    NotFinite(String),
    /// The text of a json field is not JSON.
    #[error("`{0}` is not JSON")]
    NotJson(String),
    /// More than 2^32 is added to a counter at once, or it would leave the range of 64 bits.
    #[error("too much is added to the counter `{0}`")]
    Overflow(String),
    /// Children hold no sets.
    #[error("`{0}`: a child holds no set")]
    NestedSet(String),
}

/// Checks what can be told from the edit alone.
pub(super) fn check(edits: &[Edit], inside_child: bool) -> Result<(), EditError> {
    for edit in edits {
        let field = edit.field();
        check_name(field)?;
        if inside_child && field == CHILD_ID {
            return Err(EditError::ChildId);
        }
        match edit {
            Edit::Put(_, Scalar::Float(number)) if !number.is_finite() => {
                return Err(EditError::NotFinite(field.to_owned()));
            }
            Edit::Json(_, text) if serde_json::from_str::<serde_json::Value>(text).is_err() => {
                return Err(EditError::NotJson(field.to_owned()));
            }
            Edit::Add(_, by) if !ADDED.contains(by) => {
                return Err(EditError::Overflow(field.to_owned()));
            }
            Edit::Child(..) | Edit::RemoveChild(..) if inside_child => {
                return Err(EditError::NestedSet(field.to_owned()));
            }
            Edit::Child(_, child, edits) => {
                check_name(child)?;
                check(edits, true)?;
            }
            Edit::RemoveChild(_, child) => check_name(child)?,
            Edit::Put(..) | Edit::Json(..) | Edit::Text(..) | Edit::Add(..) | Edit::Clear(_) => {}
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), EditError> {
    let fits = !name.is_empty() && name.len() <= limit::KEY && !name.starts_with('~');
    if fits { Ok(()) } else { Err(EditError::Name(name.to_owned())) }
}

/// How many bytes of values an edit carries. Texts count by their operations, a code point each.
pub(super) fn value_bytes(edits: &[Edit]) -> usize {
    let size = |edit: &Edit| match edit {
        Edit::Put(_, Scalar::Str(text)) | Edit::Json(_, text) => text.len(),
        Edit::Child(_, child, edits) => child.len() + value_bytes(edits),
        Edit::RemoveChild(_, child) => child.len(),
        Edit::Put(..) | Edit::Text(..) | Edit::Add(..) | Edit::Clear(_) => 0,
    };
    edits.iter().map(|edit| edit.field().len() + size(edit)).sum()
}

/// How many operations edits of a record that is not there come to, about: an object is one, and so is
/// each code point of a text.
pub(super) fn operations(edits: &[Edit]) -> usize {
    let of = |edit: &Edit| match edit {
        Edit::Text(_, text) => 1 + text.chars().count(),
        Edit::Child(_, _, edits) => 1 + operations(edits),
        Edit::Put(..) | Edit::Json(..) | Edit::Add(..) | Edit::Clear(_) | Edit::RemoveChild(..) => {
            1
        }
    };
    1 + edits.iter().map(of).sum::<usize>()
}

/// What stops an edit half-way; the caller rolls back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
}

/// Writes edits into an open transaction.
pub(super) struct Writer<'t, 'd> {
    tx: &'t mut Transaction<'d>,
}

impl<'t, 'd> Writer<'t, 'd> {
    /// A writer for a transaction.
    pub(super) fn new(tx: &'t mut Transaction<'d>) -> Self {
        Self { tx }
    }

    /// Does one record's edit. Deleting or undeleting a record that is not there does nothing.
    pub(super) fn record(&mut self, id: &RecordId, edit: &RecordEdit) -> Result<(), Stop> {
        let node = match Node::record(&*self.tx, id.as_str()) {
            Some(node) => node,
            None if edit.edits.is_empty() && edit.deleted.is_some() => return Ok(()),
            None => {
                let node = self.create(&ROOT, id.as_str(), &edit.edits)?;
                return self.deletion(&node, edit.deleted);
            }
        };
        self.edits(&node, &edit.edits)?;
        self.deletion(&node, edit.deleted)
    }

    fn deletion(&mut self, node: &Node, deleted: Option<bool>) -> Result<(), Stop> {
        match deleted {
            Some(true) => self.put(node, DELETED, &ScalarValue::Boolean(true)),
            Some(false) => self.clear(node, DELETED),
            None => Ok(()),
        }
    }

    /// Makes a record or a child with its fields, in one batch. Where more is added to a counter
    /// than it may start with, it is made empty and edited.
    fn create(&mut self, at: &ObjId, key: &str, edits: &[Edit]) -> Result<Node, Stop> {
        let (map, rest) = match built(edits) {
            Ok(map) => (map, [].as_slice()),
            Err(_) => (hydrate::Map::default(), edits),
        };
        let node = Node::single(self.tx.batch_create_object(at, key, &map.into(), false)?);
        self.edits(&node, rest)?;
        Ok(node)
    }

    fn edits(&mut self, node: &Node, edits: &[Edit]) -> Result<(), Stop> {
        edits.iter().try_for_each(|edit| self.edit(node, edit))
    }

    fn make(&mut self, at: &ObjId, key: &str, value: hydrate::Value) -> Result<(), Stop> {
        self.tx.batch_create_object(at, key, &value, false)?;
        Ok(())
    }

    fn edit(&mut self, node: &Node, edit: &Edit) -> Result<(), Stop> {
        match edit {
            Edit::Put(field, value) => self.put(node, field, &scalar(value)),
            Edit::Json(field, text) => self.put(node, field, &json(text)),
            Edit::Text(field, text) => self.text(node, field, text),
            Edit::Add(field, by) => self.add(node, field, *by),
            Edit::Clear(field) => self.clear(node, field),
            Edit::Child(field, child, edits) => self.child(node, field, child, edits),
            Edit::RemoveChild(field, child) => self.remove_child(node, field, child),
        }
    }

    fn put(&mut self, node: &Node, key: &str, value: &ScalarValue) -> Result<(), Stop> {
        let candidates = node.candidates(&*self.tx, key);
        match candidates.as_slice() {
            [] => {}
            [one] if one.scalar() == Some(value) => return Ok(()),
            [one] if one.holder == *node.winner() => {}
            // Automerge would take writing the winning value for a mere deletion of the others,
            // and knows nothing of twins: so all go, and the value is written afresh.
            several => self.delete_all(several, key)?,
        }
        self.tx.put(node.winner(), key, value.clone())?;
        Ok(())
    }

    fn delete_all(&mut self, candidates: &[Candidate], key: &str) -> Result<(), Stop> {
        let mut holders: Vec<_> = candidates.iter().map(|c| &c.holder).collect();
        holders.sort_unstable();
        holders.dedup();
        for holder in holders {
            self.tx.delete(holder, key)?;
        }
        Ok(())
    }

    /// A set is cleared by removing its children, softly; anything else by deleting its values.
    fn clear(&mut self, node: &Node, key: &str) -> Result<(), Stop> {
        let candidates = node.candidates(&*self.tx, key);
        let Some(set) = Node::below(&candidates) else {
            return self.delete_all(&candidates, key);
        };
        for child in set.keys(&*self.tx) {
            self.remove_child(node, key, &child)?;
        }
        Ok(())
    }

    /// Edits the text that wins; a text equal to it is written afresh where concurrent values
    /// stand, and else changes nothing.
    fn text(&mut self, node: &Node, key: &str, text: &str) -> Result<(), Stop> {
        let candidates = node.candidates(&*self.tx, key);
        if let Some(winner) = candidates.first().filter(|winner| winner.is_text()) {
            let current = self.tx.text(&winner.id)?;
            if current != text {
                return self.splice(&winner.id, &current, text);
            }
            if candidates.len() == 1 {
                return Ok(());
            }
        }
        self.delete_all(&candidates, key)?;
        self.make(node.winner(), key, hydrate::Value::text(ENCODING, text))
    }

    fn splice(&mut self, object: &ObjId, old: &str, text: &str) -> Result<(), Stop> {
        let (old, text): (Vec<char>, Vec<char>) = (old.chars().collect(), text.chars().collect());
        let start = old.iter().zip(&text).take_while(|(a, b)| a == b).count();
        let ends = old[start..].iter().rev().zip(text[start..].iter().rev());
        let end = ends.take_while(|(a, b)| a == b).count();
        let removed = old.len() - start - end;
        let inserted: String = text[start..text.len() - end].iter().collect();
        if removed * (text.len() - start - end) <= DIFF_COST {
            self.tx.update_text(object, text.iter().collect::<String>())?;
        } else {
            self.tx.splice_text(object, start, removed as isize, &inserted)?;
        }
        Ok(())
    }

    /// Adds to the counter that wins. Automerge adds to all that stand at its key in the same
    /// object, so later adding does not change which one wins. Adding nothing to concurrent
    /// counters writes the winner's value afresh: that resolves them.
    fn add(&mut self, node: &Node, key: &str, by: i64) -> Result<(), Stop> {
        let candidates = node.candidates(&*self.tx, key);
        let current = candidates.first().and_then(counter);
        let Some(current) = current else {
            self.delete_all(&candidates, key)?;
            self.tx.put(node.winner(), key, ScalarValue::counter(by))?;
            return Ok(());
        };
        let too_much = || Stop::from(EditError::Overflow(key.to_owned()));
        let mut counters = candidates.iter().filter_map(counter);
        if counters.any(|counter| counter.checked_add(by).is_none()) {
            return Err(too_much());
        }
        match (by, candidates.len()) {
            (0, 1) => Ok(()),
            (0, _) => {
                self.delete_all(&candidates, key)?;
                self.count_to(node.winner(), key, current).ok_or_else(too_much)?
            }
            (_, _) => Ok(self.tx.increment(&candidates[0].holder, key, by)?),
        }
    }

    /// Puts a counter and brings it to a value in steps that the gate allows; `None` if that takes
    /// too many.
    fn count_to(&mut self, at: &ObjId, key: &str, value: i64) -> Option<Result<(), Stop>> {
        let step = |left: i64| left.clamp(*ADDED.start(), *ADDED.end());
        let start = step(value);
        let mut left = value - start;
        if left / ADDED.end() > STEPS || left / ADDED.start() > STEPS {
            return None;
        }
        let mut count = || {
            self.tx.put(at, key, ScalarValue::counter(start))?;
            while left != 0 {
                self.tx.increment(at, key, step(left))?;
                left -= step(left);
            }
            Ok(())
        };
        Some(count())
    }

    fn child(&mut self, node: &Node, key: &str, id: &str, edits: &[Edit]) -> Result<(), Stop> {
        let candidates = node.candidates(&*self.tx, key);
        let set = match Node::below(&candidates) {
            Some(set) => set,
            None => {
                self.delete_all(&candidates, key)?;
                self.create(node.winner(), key, &[])?
            }
        };
        let candidates = set.candidates(&*self.tx, id);
        let Some(child) = Node::below(&candidates) else {
            self.delete_all(&candidates, id)?;
            return self.create(set.winner(), id, edits).map(drop);
        };
        self.edits(&child, edits)?;
        self.clear(&child, DELETED)
    }

    fn remove_child(&mut self, node: &Node, key: &str, id: &str) -> Result<(), Stop> {
        let set = Node::below(&node.candidates(&*self.tx, key));
        let child = set.and_then(|set| Node::below(&set.candidates(&*self.tx, id)));
        match child {
            Some(child) => self.put(&child, DELETED, &ScalarValue::Boolean(true)),
            None => Ok(()),
        }
    }
}

/// What edits in order come to, on top of what is in the map: an object that is not there yet.
fn build(map: &mut hydrate::Map, edits: &[Edit]) -> Result<(), EditError> {
    for edit in edits {
        let field = edit.field();
        let value = match edit {
            Edit::Put(_, value) => hydrate::Value::Scalar(scalar(value)),
            Edit::Json(_, text) => hydrate::Value::Scalar(json(text)),
            Edit::Text(_, text) => hydrate::Value::text(ENCODING, text),
            Edit::Add(_, by) => {
                let before = match map.get(field) {
                    Some(hydrate::Value::Scalar(ScalarValue::Counter(counter))) => counter.into(),
                    Some(_) | None => 0i64,
                };
                let sum = before.checked_add(*by).filter(|sum| ADDED.contains(sum));
                let sum = sum.ok_or_else(|| EditError::Overflow(field.to_owned()))?;
                hydrate::Value::Scalar(ScalarValue::counter(sum))
            }
            Edit::Clear(_) => {
                map.remove(field);
                continue;
            }
            Edit::Child(_, child, edits) => {
                build(map_at(map_at(map, field), child), edits)?;
                continue;
            }
            Edit::RemoveChild(_, child) => {
                if let Some(hydrate::Value::Map(set)) = map.get_mut(field) {
                    set.remove(child);
                }
                continue;
            }
        };
        set(map, field, value);
    }
    Ok(())
}

fn built(edits: &[Edit]) -> Result<hydrate::Map, EditError> {
    let mut map = hydrate::Map::default();
    build(&mut map, edits)?;
    Ok(map)
}

fn set(map: &mut hydrate::Map, key: &str, value: hydrate::Value) {
    map.insert(key.to_owned(), hydrate::MapValue { value, conflict: false });
}

/// The map at a key, put there if something else or nothing is.
fn map_at<'m>(map: &'m mut hydrate::Map, key: &str) -> &'m mut hydrate::Map {
    if !matches!(map.get(key), Some(hydrate::Value::Map(_))) {
        set(map, key, hydrate::Value::map());
    }
    map.get_mut(key).and_then(hydrate::Value::as_map).expect("a map was just put there")
}

fn counter(candidate: &Candidate) -> Option<i64> {
    match candidate.scalar() {
        Some(ScalarValue::Counter(counter)) => Some(counter.into()),
        Some(_) | None => None,
    }
}

fn scalar(value: &Scalar) -> ScalarValue {
    match value {
        Scalar::Bool(value) => ScalarValue::Boolean(*value),
        Scalar::Int(number) => ScalarValue::Int(*number),
        Scalar::Float(number) => ScalarValue::F64(*number),
        Scalar::Str(text) => ScalarValue::Str(text.into()),
    }
}

fn json(text: &str) -> ScalarValue {
    ScalarValue::Bytes(text.as_bytes().to_vec())
}
