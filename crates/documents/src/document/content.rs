//! A record's content as an edit: what writes it again, as it stands, in a document that lacks it.

use std::collections::BTreeMap;

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, Automerge, ObjType, ROOT, ScalarValue};
use fieldkeep_model::{ChangeHash, Edit, RecordEdit, RecordId};
use serde_json::{Map, Value};

use super::Document;
use super::history::{Last, edits_of, last_of};
use super::node::{Candidate, DELETED, Node};
use super::record::CHILD_ID;
use super::view::{Past, View};
use super::write::{DIFF_COST, ENCODING};

impl Document {
    /// The record as it was when these were the heads, as an edit that writes it where it is not:
    /// what wins of each field, with the children that are removed. None if it was not there.
    #[must_use]
    pub fn content_at(&self, id: &RecordId, heads: &[ChangeHash]) -> Option<RecordEdit> {
        let past = Past::new(&self.doc, heads);
        let record = Node::record(&past, id.as_str())?;
        let (mut edits, deleted) = content(&past, &record);
        for (field, candidates) in record.entries(&past) {
            let Some(set) = Node::below(&candidates) else { continue };
            for (child, candidates) in set.entries(&past) {
                let Some(node) = Node::below(&candidates) else { continue };
                let (inner, removed) = content(&past, &node);
                edits.push(Edit::Child(field.clone(), child.clone(), inner));
                if removed {
                    edits.push(Edit::RemoveChild(field.clone(), child));
                }
            }
        }
        Some(RecordEdit { edits, deleted: deleted.then_some(true) })
    }

    /// The ids of the records that were there when these were the heads, ascending.
    #[must_use]
    pub fn ids_at(&self, heads: &[ChangeHash]) -> Vec<RecordId> {
        let past = Past::new(&self.doc, heads);
        past.keys(&ROOT).filter_map(|key| RecordId::new(key).ok()).collect()
    }
}

/// The fields of a record or child that are no sets, and whether it is deleted.
fn content(past: &Past<'_>, node: &Node) -> (Vec<Edit>, bool) {
    let (mut fields, mut texts) = (BTreeMap::new(), Map::new());
    let mut deleted = false;
    for (field, candidates) in node.entries(past) {
        let Some(winner) = candidates.into_iter().next() else { continue };
        if field == DELETED {
            deleted = winner.scalar() == Some(&ScalarValue::Boolean(true));
        } else if winner.is_text() {
            texts.insert(field.clone(), Value::String(past.text(&winner.id)));
            fields.insert(field, Last::Text);
        } else if field != CHILD_ID
            && let Some(last) = Candidate::scalar(&winner).cloned().and_then(last_of)
        {
            fields.insert(field, last);
        }
    }
    (edits_of(fields, &texts), deleted)
}

/// A text that went from `before` to `after` in one place, and from `before` to `other` in another,
/// as both together make it.
#[must_use]
pub fn merged_text(before: &str, after: &str, other: &str) -> String {
    let longest = after.len().max(other.len());
    if before == other || before.len().saturating_mul(longest) > DIFF_COST {
        return after.to_owned();
    }
    let merged = || {
        let mut doc = Automerge::new_with_encoding(ENCODING);
        doc.set_actor(ActorId::from([1]));
        let mut tx = doc.transaction();
        let text = tx.put_object(ROOT, "t", ObjType::Text).ok()?;
        tx.update_text(&text, before).ok()?;
        tx.commit_with(CommitOptions::default());
        let mut fork = doc.fork();
        fork.set_actor(ActorId::from([2]));
        for (doc, text_there) in [(&mut doc, after), (&mut fork, other)] {
            let mut tx = doc.transaction();
            tx.update_text(&text, text_there).ok()?;
            tx.commit_with(CommitOptions::default());
        }
        doc.merge(&mut fork).ok()?;
        automerge::ReadDoc::text(&doc, &text).ok()
    };
    merged().unwrap_or_else(|| after.to_owned())
}
