//! Who wrote what stands: concurrent values, the writers of the current ones, and where an object
//! lies. For the conflict view, for culprits, and for reading changes; not for the hot path.

use automerge::{Automerge, ObjId, ReadDoc};
use fieldkeep_model::{ActorId, ChangeHash, RecordId};
use serde_json::Value;

use super::Document;
use super::node::{Candidate, DELETED, Node};
use super::path::{Asked, FieldPath};
use super::record::Reader;

/// A field with concurrent values that differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The field, as `customer` or `lines[7].quantity`.
    pub field: String,
    /// The values, the one that wins first, each with the actor and the operation counter that
    /// wrote it.
    pub values: Vec<(Value, ActorId, u64)>,
}

impl Document {
    /// The concurrent values of a record's fields, removed children left out.
    #[must_use]
    pub fn conflicts(&self, id: &RecordId) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut reader = Reader::new(&self.doc);
        walk_record(&self.doc, id, &mut |path, removed, candidates| {
            if !removed && reader.differ(candidates) {
                let values = candidates.iter().filter_map(|candidate| {
                    let (actor, counter) = operation(&candidate.id)?;
                    Some((reader.candidate(candidate), actor, counter))
                });
                conflicts.push(Conflict { field: path.to_string(), values: values.collect() });
            }
        });
        conflicts
    }

    /// Who wrote the values that stand in these fields, the concurrent ones included: the field,
    /// the actor, and the counter of the operation.
    ///
    /// `lines` means every field of every child, `lines.quantity` that field of every child, and an
    /// empty name all of the record. Of a removed child only its removal counts. A text has an entry for
    /// each run of characters that one change wrote. Of a counter only who created it is known here, not
    /// who added.
    #[must_use]
    pub fn writers(&self, id: &RecordId, fields: &[String]) -> Vec<(String, ActorId, u64)> {
        let asked = Asked::of(fields.iter().map(String::as_str));
        let mut writers = Vec::new();
        walk_record(&self.doc, id, &mut |path, removed, candidates| {
            let removal = path.inner.as_deref() == Some(DELETED);
            if !asked.names(path) || (removed && !removal) {
                return;
            }
            for candidate in candidates.iter().filter(|candidate| !candidate.is_map()) {
                let mut wrote: Vec<_> = operation(&candidate.id).into_iter().collect();
                if candidate.is_text() {
                    wrote.extend(self.runs(&candidate.id));
                }
                writers.extend(wrote.into_iter().map(|(a, c)| (path.to_string(), a, c)));
            }
        });
        writers
    }

    /// Where the object lies that this operation made: its record, and its path within it, empty
    /// for the record itself.
    #[must_use]
    pub fn locate(&self, actor: ActorId, counter: u64) -> Option<(RecordId, String)> {
        let object = ObjId::Id(counter, automerge::ActorId::from(actor.0), 0);
        let mut keys = Vec::new();
        for parent in self.doc.parents(&object).ok()? {
            match parent.prop {
                automerge::Prop::Map(key) => keys.push(key),
                automerge::Prop::Seq(_) => return None,
            }
        }
        let record = RecordId::new(keys.pop()?).ok()?;
        let path = keys.iter().rev().try_fold(FieldPath::default(), |path, key| path.down(key))?;
        Some((record, path.to_string()))
    }

    /// The first operation of each run of characters that one change wrote. Who goes on where he ended
    /// numbers his operations on, too: a run of one actor may be several changes.
    fn runs(&self, text: &ObjId) -> Vec<(ActorId, u64)> {
        let mut runs = Vec::new();
        let mut last = None;
        for item in self.doc.list_range(text, ..) {
            let Some((actor, counter)) = operation(&item.id()) else { continue };
            match runs.last_mut() {
                Some((_, _, end)) if last == Some((actor, counter - 1)) => *end = counter,
                _ => runs.push((actor, counter, counter)),
            }
            last = Some((actor, counter));
        }
        let starts = runs.into_iter().flat_map(|(actor, start, end)| {
            let mut next = Some(start);
            std::iter::from_fn(move || {
                let start = next?;
                next = self.next_change(actor, start, end);
                Some((actor, start))
            })
        });
        starts.collect()
    }

    /// The first operation of an actor after `from`, and no later than `end`, that is of another change.
    fn next_change(&self, actor: ActorId, from: u64, end: u64) -> Option<u64> {
        let change = self.change_of(actor, from);
        if from == end || self.change_of(actor, end) == change {
            return None;
        }
        let (mut same, mut other) = (from, end);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if self.change_of(actor, middle) == change { same = middle } else { other = middle }
        }
        Some(other)
    }

    /// The change that an operation belongs to.
    #[must_use]
    pub fn change_of(&self, actor: ActorId, counter: u64) -> Option<ChangeHash> {
        let operation = ObjId::Id(counter, automerge::ActorId::from(actor.0), 0);
        self.doc.hash_for_opid(&operation).map(|hash| ChangeHash(hash.0))
    }
}

/// Takes a place, whether it lies in a removed child, and the values there.
type Visit<'v> = dyn FnMut(&FieldPath, bool, &[Candidate]) + 'v;

fn walk_record(doc: &Automerge, id: &RecordId, visit: &mut Visit<'_>) {
    if let Some(node) = Node::record(doc, id.as_str()) {
        walk(doc, &node, &FieldPath::default(), false, visit);
    }
}

/// Visits every place below a node at which something stands; sets and children are walked into.
fn walk(doc: &Automerge, node: &Node, at: &FieldPath, removed: bool, visit: &mut Visit<'_>) {
    for (key, candidates) in node.entries(doc) {
        let Some(path) = at.down(&key) else { continue };
        visit(&path, removed, &candidates);
        if let Some(below) = Node::below(&candidates) {
            let removed = path.child.is_some() && below.is_deleted(doc);
            walk(doc, &below, &path, removed, visit);
        }
    }
}

/// The actor and the counter of an operation.
pub(super) fn operation(id: &ObjId) -> Option<(ActorId, u64)> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some((ActorId::from_slice(actor.to_bytes())?, *counter)),
    }
}
