//! Merging heads: empty changes that build upon many heads, so that later changes need name one.
//!
//! A commit of Automerge's names every head there is, and a change may name 1,024. So these changes
//! are put together here, each upon a part of the heads and the one before it, and applied as if
//! they had come from a peer: any number of heads is brought down to one.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use automerge::{Automerge, AutomergeError, Change, ChangeHash, ExpandedChange};

use super::{Author, Made, WriteError, actor_of, made, time_of};

/// Heads that one change merges besides its author's last change: half of what it may name, 16 KiB
/// of references.
pub const HEADS_AT_ONCE: usize = 512;

/// Merges all heads into one.
pub(super) fn merge_heads(doc: &mut Automerge, author: &Author) -> Result<Vec<Made>, WriteError> {
    doc.set_actor(actor_of(author));
    let mut merges = Vec::new();
    let mut last = doc.get_last_local_change().map(|change| (change.hash(), change.seq()));
    loop {
        let heads = doc.get_heads();
        if heads.len() < 2 {
            return Ok(merges);
        }
        let others = heads.into_iter().filter(|head| last.is_none_or(|(own, _)| own != *head));
        let part = others.take(HEADS_AT_ONCE).collect();
        let change = empty_change(doc, author, last, part)?;
        let hash = change.hash();
        last = Some((hash, change.seq()));
        doc.apply_changes([change]).map_err(refused)?;
        merges.push(made(doc, hash)?);
    }
}

/// A change without operations upon those heads and its author's last change.
fn empty_change(
    doc: &Automerge,
    author: &Author,
    last: Option<(ChangeHash, u64)>,
    mut deps: BTreeSet<ChangeHash>,
) -> Result<Change, WriteError> {
    deps.extend(last.map(|(hash, _)| hash));
    let mut max_op = 0;
    for dep in &deps {
        let meta = doc.get_change_meta_by_hash(dep);
        let missing = || refused(AutomergeError::InvalidHash(*dep));
        max_op = meta.ok_or_else(missing)?.max_op.max(max_op);
    }
    Ok(Change::from(ExpandedChange {
        operations: Vec::new(),
        actor_id: actor_of(author),
        hash: None,
        seq: last.map_or(0, |(_, seq)| seq) + 1,
        start_op: NonZeroU64::MIN.saturating_add(max_op),
        time: time_of(author),
        message: Some(author.person.clone()),
        deps: deps.into_iter().collect(),
        extra_bytes: Vec::new(),
        author: None,
    }))
}

fn refused(error: AutomergeError) -> WriteError {
    WriteError::Refused(error.to_string())
}
