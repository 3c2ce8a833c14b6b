//! Mutators: an honest change, broken in one or a few places.
//!
//! They understand the structure, so that most mutants get past the first parser: bytes and numbers
//! change inside the parts, runs are doubled and dropped, columns swapped with those of other
//! changes, operations altered and encoded canonically again. Lengths and checksum are repaired,
//! mostly.

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{Change, ExpandedChange, ObjType, ScalarValue};
use fieldkeep_model::header::write_sleb;

use crate::Dice;
use crate::anatomy::Anatomy;
use crate::quiet::quietly;

/// A mutant of `chunks[at]`; the others lend their parts.
pub fn mutant(dice: &mut Dice, chunks: &[Vec<u8>], at: usize) -> Vec<u8> {
    let chunk = &chunks[at];
    match dice.below(10) {
        0 => flipped(dice, chunk),
        1..4 => anatomical(dice, chunks, at).unwrap_or_else(|| chunk.clone()),
        _ => operational(dice, chunks, at).unwrap_or_else(|| flipped(dice, chunk)),
    }
}

/// Bits flipped anywhere, nothing repaired.
fn flipped(dice: &mut Dice, chunk: &[u8]) -> Vec<u8> {
    let mut chunk = chunk.to_vec();
    for _ in 0..=dice.below(2) {
        let at = dice.below(chunk.len());
        chunk[at] ^= 1 << dice.below(8);
    }
    chunk
}

/// Parts changed, and the chunk put together again.
fn anatomical(dice: &mut Dice, chunks: &[Vec<u8>], at: usize) -> Option<Vec<u8>> {
    let mut body = Anatomy::of(&chunks[at])?;
    let donor = Anatomy::of(dice.pick::<Vec<u8>>(chunks))?;
    for _ in 0..=dice.below(2) {
        match dice.below(12) {
            0 => body.seq = number(dice, body.seq),
            1 => body.start_op = number(dice, body.start_op),
            2 => body.time = number(dice, body.time as u64) as i64,
            3 => body.message = donor.message.clone(),
            4 => body.deps = deps(dice, &body.deps, chunks),
            5 => body.actor = donor.actor.clone(),
            6 => body.others = actors(dice, &body.others, &donor),
            7 => body.columns = donor.columns.clone(),
            8 => transplant(dice, &mut body, &donor),
            _ => column(dice, &mut body),
        }
    }
    Some(body.chunk())
}

fn number(dice: &mut Dice, number: u64) -> u64 {
    match dice.below(5) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => 1 << dice.below(64),
        3 => u64::MAX >> dice.below(64),
        _ => dice.below(20) as u64,
    }
}

fn deps(dice: &mut Dice, deps: &[[u8; 32]], chunks: &[Vec<u8>]) -> Vec<[u8; 32]> {
    let mut deps = deps.to_vec();
    match dice.below(4) {
        0 if !deps.is_empty() => drop(deps.remove(dice.below(deps.len()))),
        1 if !deps.is_empty() => deps.push(*dice.pick(&deps)),
        _ => deps.extend(crate::anatomy::hash(dice.pick::<Vec<u8>>(chunks))),
    }
    if !dice.one_in(5) {
        deps.sort_unstable();
    }
    deps
}

fn actors(dice: &mut Dice, actors: &[Vec<u8>], donor: &Anatomy) -> Vec<Vec<u8>> {
    let mut actors = actors.to_vec();
    match dice.below(3) {
        0 if !actors.is_empty() => drop(actors.remove(dice.below(actors.len()))),
        1 if !actors.is_empty() => {
            let at = dice.below(actors.len());
            actors[at] = donor.actor.clone();
        }
        _ => actors.push(donor.actor.clone()),
    }
    if !dice.one_in(5) {
        actors.sort_unstable();
    }
    actors
}

/// A column of another change takes the place of this one's.
fn transplant(dice: &mut Dice, body: &mut Anatomy, donor: &Anatomy) {
    if !donor.columns.is_empty() {
        let (spec, bytes) = dice.pick(&donor.columns);
        *body.column(*spec) = bytes.clone();
    }
}

/// A column is damaged: bytes, runs, or all of it.
fn column(dice: &mut Dice, body: &mut Anatomy) {
    if body.columns.is_empty() {
        return;
    }
    let at = dice.below(body.columns.len());
    let bytes = &mut body.columns[at].1;
    if bytes.is_empty() {
        return;
    }
    let place = dice.below(bytes.len());
    match dice.below(7) {
        0 => drop(body.columns.remove(at)),
        1 => bytes[place] ^= 1 << dice.below(8),
        2 => bytes[place] = dice.below(4) as u8,
        3 => drop(bytes.remove(place)),
        4 => bytes.insert(place, dice.roll() as u8),
        // A run doubled, or one that claims more than it should.
        5 => bytes.extend_from_within(place..),
        _ => {
            let mut run = Vec::new();
            write_sleb(&mut run, 1 << dice.below(40));
            run.push(dice.below(3) as u8);
            bytes.splice(place..place, run);
        }
    }
}

/// Operations altered and encoded again: only stage 4 tells these from honest ones.
fn operational(dice: &mut Dice, chunks: &[Vec<u8>], at: usize) -> Option<Vec<u8>> {
    let decode = |chunk: &[u8]| Change::try_from(chunk).ok().map(|change| change.decode());
    let mut change = decode(&chunks[at])?;
    let donor = decode(dice.pick::<Vec<u8>>(chunks))?;
    let ids = ids(&change, &donor);
    for _ in 0..=dice.below(2) {
        alter(dice, &mut change.operations, &donor.operations, &ids);
    }
    encode(change)
}

/// Encodes a change canonically, if Automerge can.
#[must_use]
pub fn encode(change: ExpandedChange) -> Option<Vec<u8>> {
    quietly(|| Change::from(change).raw_bytes().to_vec())
}

/// Operation ids to confuse: the change's own, those it names, those of another change.
fn ids(change: &ExpandedChange, donor: &ExpandedChange) -> Vec<OpId> {
    let mut ids = vec![OpId::new(change.start_op.get(), &change.actor_id)];
    for op in change.operations.iter().chain(&donor.operations) {
        if let ObjectId::Id(id) = &op.obj {
            ids.push(id.clone());
        }
        ids.extend(op.pred.iter().cloned());
        ids.extend(op.key.to_opid());
    }
    let last = change.operations.len() as u64;
    ids.push(OpId::new(change.start_op.get() + last / 2, &change.actor_id));
    ids.push(OpId::new(donor.start_op.get(), &donor.actor_id));
    ids
}

fn alter(dice: &mut Dice, ops: &mut Vec<Op>, donors: &[Op], ids: &[OpId]) {
    if ops.is_empty() {
        return ops.extend(donors.first().cloned());
    }
    let at = dice.below(ops.len());
    let mut id = dice.pick(ids).clone();
    if dice.one_in(4) {
        id.0 = number(dice, id.0);
    }
    let op = &mut ops[at];
    match dice.below(12) {
        0 => op.obj = if dice.one_in(4) { ObjectId::Root } else { ObjectId::Id(id) },
        1 => op.key = Key::Seq(if dice.one_in(4) { ElementId::Head } else { ElementId::Id(id) }),
        2 => {
            op.key =
                Key::Map((*dice.pick(&["note", "stock", "story", "", "a/b", "order-1"])).into())
        }
        3 => op.pred = op.pred.iter().cloned().chain([id]).collect(),
        4 => op.pred = op.pred.iter().skip(1).cloned().collect(),
        5 => op.pred = SortedVec::from(vec![id]),
        6 => op.insert = !op.insert,
        7..10 => op.action = action(dice),
        10 => drop(ops.remove(at)),
        _ => {
            let copy = if donors.is_empty() { ops[at].clone() } else { dice.pick(donors).clone() };
            ops.insert(dice.below(ops.len() + 1), copy);
        }
    }
}

fn action(dice: &mut Dice) -> OpType {
    let by = [1, -3, 1 << 32, (1 << 32) + 1, i64::MAX, i64::MIN][dice.below(6)];
    match dice.below(16) {
        0 => OpType::Make(ObjType::Map),
        1 => OpType::Make(ObjType::List),
        2 => OpType::Make(ObjType::Text),
        3 => OpType::Make(ObjType::Table),
        4 => OpType::Delete,
        5 => OpType::Increment(by),
        6 => OpType::MarkEnd(dice.one_in(2)),
        7 => OpType::Put(ScalarValue::counter(by)),
        8 => OpType::Put(ScalarValue::F64([1.5, f64::NAN, f64::INFINITY, -0.0][dice.below(4)])),
        9 => OpType::Put(ScalarValue::Timestamp(by)),
        10 => OpType::Put(ScalarValue::Uint(by as u64)),
        11 => OpType::Put(ScalarValue::Int(by)),
        12 => OpType::Put(ScalarValue::Null),
        13 => OpType::Put(ScalarValue::Bytes(vec![0; dice.below(9)])),
        14 => OpType::Put(ScalarValue::Unknown { type_code: 12, bytes: vec![1] }),
        _ => OpType::Put(ScalarValue::Str("x".repeat(dice.below(3)).into())),
    }
}
