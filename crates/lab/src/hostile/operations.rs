//! What stages 2 to 4 must stop: changes that claim a wrong place in history, that Automerge would
//! write differently, or whose operations refer to what is not there.

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ChangeHash, ExpandedChange, ObjType, ScalarValue};

use super::{Hostile, Stage, at, author, chunk, hash_of, id, make_record, object, on, preds, put};
use crate::anatomy::Anatomy;

fn row(stage: u8, name: &'static str, code: &'static str, chunk: Vec<u8>) -> Hostile {
    Hostile { name, stage, code, chunk }
}

pub(super) fn causality(stage: &Stage) -> Vec<Hostile> {
    let [first, second] = &stage.beginning[..] else { return Vec::new() };
    let new = |device, spoil: &dyn Fn(&mut ExpandedChange)| {
        let mut change = stage.follow(device, vec![make_record("order-3")]);
        spoil(&mut change);
        chunk(change)
    };
    let both = vec![hash_of(first), hash_of(second)];
    let fork = |change: &mut ExpandedChange| {
        (change.seq, change.deps) = (2, vec![hash_of(first)]);
        change.start_op = at::NOTE_AGAIN.try_into().expect("not zero");
    };
    let start = |counter: u64| {
        new(1, &move |change| change.start_op = counter.try_into().expect("not zero"))
    };
    let rootless = |change: &mut ExpandedChange| {
        change.deps.clear();
        change.start_op = 1.try_into().expect("not zero");
    };
    vec![
        row(2, "a change that is held", "known", second.clone()),
        row(
            2,
            "a dependency nobody has",
            "missing-deps",
            new(1, &|c| c.deps = vec![ChangeHash([7; 32])]),
        ),
        row(2, "another second change", "fork", new(1, &fork)),
        row(2, "seq 0", "seq", new(1, &|change| change.seq = 0)),
        row(2, "a gap", "seq", new(1, &|change| change.seq = 4)),
        row(2, "a used seq upon its own successor", "seq", new(1, &|change| change.seq = 2)),
        row(2, "a first change with seq 2", "seq", new(2, &|change| change.seq = 2)),
        row(2, "a first change with seq 2^40", "seq", new(2, &|change| change.seq = 1 << 40)),
        row(
            2,
            "a second author in its own past",
            "redundant-dep",
            new(2, &|c| c.deps = both.clone()),
        ),
        row(2, "without its predecessor", "seq", new(1, &rootless)),
        row(2, "operation ids used again", "start-op", start(at::NOTE)),
        row(2, "a counter of its dependency", "start-op", start(at::INCREMENT)),
        row(2, "a skipped counter", "start-op", start(at::NEXT + 1)),
    ]
}

pub(super) fn forms(stage: &Stage) -> Vec<Hostile> {
    let with = |operations: Vec<Op>, spoil: &dyn Fn(&mut Anatomy)| {
        let mut body = Anatomy::of(&chunk(stage.change(operations))).expect("well-formed");
        spoil(&mut body);
        body.chunk()
    };
    let record = || vec![make_record("order-3")];
    let deletion = || vec![on(at::RECORD, "note", OpType::Delete, &[at::NOTE_AGAIN])];
    let more = || vec![on(at::RECORD, "stock", OpType::Increment(1), &[at::STOCK])];
    let pair = || vec![make_record("order-3"), make_record("order-4")];
    vec![
        row(
            3,
            "an actor that is not listed",
            "malformed",
            with(deletion(), &|b| *b.column(1) = vec![0x7f, 3]),
        ),
        row(
            3,
            "an action nobody knows",
            "malformed",
            with(record(), &|b| *b.column(66) = vec![0x7f, 9]),
        ),
        row(
            3,
            "a key that is no text",
            "malformed",
            with(record(), &|b| *b.column(21) = vec![0x7f, 1, 0xff]),
        ),
        row(
            3,
            "no key",
            "malformed",
            with(record(), &|b| b.columns.retain(|(spec, _)| *spec != 21)),
        ),
        row(
            3,
            "a predecessor without counter",
            "malformed",
            with(deletion(), &|b| {
                b.columns.retain(|(spec, _)| *spec != 115);
            }),
        ),
        row(
            3,
            "a negative counter",
            "malformed",
            with(deletion(), &|b| *b.column(115) = vec![0x7f, 0x7e]),
        ),
        row(
            3,
            "an increment by a text",
            "malformed",
            with(more(), &|b| {
                *b.column(86) = vec![0x7f, 0x16];
            }),
        ),
        row(
            3,
            "an object without actor",
            "malformed",
            with(deletion(), &|b| {
                b.columns.retain(|(spec, _)| *spec != 1);
            }),
        ),
        row(
            3,
            "an actor that is listed for nothing",
            "not-canonical",
            with(record(), &|b| {
                b.others.push(vec![9; 20]);
            }),
        ),
        row(
            3,
            "a run of equal literals",
            "not-canonical",
            with(pair(), &|b| {
                *b.column(66) = vec![0x7e, 0, 0];
            }),
        ),
        row(
            3,
            "an overlong number",
            "not-canonical",
            with(record(), &|b| {
                *b.column(66) = vec![0x7f, 0x80, 0];
            }),
        ),
        row(
            3,
            "a deletion with a value",
            "not-canonical",
            with(deletion(), &|b| {
                *b.column(86) = vec![0x7f, 2];
            }),
        ),
        row(
            3,
            "an unsigned increment",
            "not-canonical",
            with(more(), &|b| *b.column(86) = vec![0x7f, 0x13]),
        ),
        row(
            3,
            "values behind the last operation",
            "not-canonical",
            with(record(), &|b| {
                *b.column(87) = b"ballast".to_vec();
            }),
        ),
        row(
            3,
            "an expand column and no mark",
            "not-canonical",
            with(record(), &|b| {
                *b.column(148) = vec![0, 1];
            }),
        ),
        row(3, "predecessors out of order", "not-canonical", unsorted(stage)),
    ]
}

/// A put with both of the note's operations as predecessors, the later one first.
fn unsorted(stage: &Stage) -> Vec<u8> {
    let both = [at::NOTE, at::NOTE_AGAIN];
    let change = chunk(stage.change(vec![on(at::RECORD, "note", put("three"), &both)]));
    let mut body = Anatomy::of(&change).expect("well-formed");
    let back = at::NOTE as i64 - at::NOTE_AGAIN as i64;
    *body.column(115) = vec![0x7e, at::NOTE_AGAIN as u8, (back & 0x7f) as u8];
    body.chunk()
}

fn element(counter: u64) -> Key {
    Key::Seq(ElementId::Id(id(counter)))
}

fn in_sequence(sequence: u64, key: Key, insert: bool, action: OpType, pred: &[u64]) -> Op {
    Op { action, obj: object(sequence), key, pred: preds(pred), insert }
}

pub(super) fn operations(stage: &Stage) -> Vec<Hostile> {
    let single = |name, code, op| row(4, name, code, chunk(stage.change(vec![op])));
    let mut rows = Vec::new();
    rows.extend(values().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.extend(places().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.extend(predecessors().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.extend(counters().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.extend(texts().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.extend(roots().into_iter().map(|(name, code, op)| single(name, code, op)));
    rows.push(deep(stage));
    rows.push(beyond(stage));
    rows
}

type Row = (&'static str, &'static str, Op);

fn values() -> Vec<Row> {
    let note = |value| on(at::RECORD, "note", put(value), &[at::NOTE_AGAIN]);
    let unknown = ScalarValue::Unknown { type_code: 13, bytes: vec![1, 2] };
    let mark = MarkData { name: "bold".into(), value: true.into(), expand: true };
    let mark = OpType::MarkBegin(mark);
    vec![
        ("not a number", "not-finite", note(ScalarValue::F64(f64::NAN))),
        ("infinity", "not-finite", note(ScalarValue::F64(f64::NEG_INFINITY))),
        ("a timestamp", "value-type", note(ScalarValue::Timestamp(1))),
        ("a value of an unknown type", "value-type", note(unknown)),
        ("a table", "table", on(at::RECORD, "rows", OpType::Make(ObjType::Table), &[])),
        ("a mark", "mark", in_sequence(at::STORY, element(at::LETTER), true, mark, &[])),
        (
            "the end of a mark",
            "mark",
            in_sequence(at::STORY, element(at::LETTER), true, OpType::MarkEnd(false), &[]),
        ),
    ]
}

fn places() -> Vec<Row> {
    let insert = |list, key| in_sequence(list, key, true, put("z"), &[]);
    let long = "k".repeat(257);
    vec![
        ("an object nobody made", "unknown-object", on(99, "note", put(1), &[])),
        ("itself as object", "unknown-object", on(at::NEXT, "note", put(1), &[])),
        ("a scalar as object", "not-an-object", on(at::NOTE, "note", put(1), &[])),
        ("a key in a list", "key-kind", on(at::TAGS, "note", put(1), &[])),
        (
            "an element of a map",
            "key-kind",
            in_sequence(at::RECORD, element(at::TAG), false, put(1), &[at::TAG]),
        ),
        (
            "an insertion by key",
            "key-kind",
            Op { insert: true, ..on(at::RECORD, "x", put(1), &[]) },
        ),
        (
            "an update of a list's head",
            "key-kind",
            in_sequence(at::TAGS, Key::head(), false, put(1), &[at::TAG]),
        ),
        ("an empty key", "key-length", on(at::RECORD, "", put(1), &[])),
        ("a key of 257 bytes", "key-length", on(at::RECORD, &long, put(1), &[])),
        ("after an element nobody inserted", "unknown-element", insert(at::TAGS, element(77))),
        (
            "after an element of another list",
            "not-an-element",
            insert(at::TAGS, element(at::LETTER)),
        ),
        ("after a deletion", "not-an-element", insert(at::TAGS, element(at::DELETION))),
    ]
}

fn predecessors() -> Vec<Row> {
    let note = |pred: &[u64]| on(at::RECORD, "note", put("three"), pred);
    let tag = |insert, action, pred: &[u64]| {
        in_sequence(at::TAGS, element(at::SECOND_TAG), insert, action, pred)
    };
    vec![
        ("an insertion with predecessor", "insert-with-pred", tag(true, put(1), &[at::SECOND_TAG])),
        ("an insertion that deletes", "empty-insert", tag(true, OpType::Delete, &[])),
        ("an insertion that increments", "empty-insert", tag(true, OpType::Increment(1), &[])),
        ("a deletion of nothing", "without-pred", on(at::RECORD, "note", OpType::Delete, &[])),
        (
            "an increment of nothing",
            "without-pred",
            on(at::RECORD, "stock", OpType::Increment(1), &[]),
        ),
        ("an update of nothing", "without-pred", tag(false, put(1), &[])),
        ("a predecessor nobody wrote", "unknown-pred", note(&[88])),
        ("itself as predecessor", "unknown-pred", note(&[at::NEXT])),
        ("a predecessor of another key", "pred-elsewhere", note(&[at::STOCK])),
        (
            "a predecessor of another object",
            "pred-elsewhere",
            on(at::OTHER, "note", put(1), &[at::NOTE_AGAIN]),
        ),
        ("a predecessor of another element", "pred-elsewhere", tag(false, put(1), &[at::TAG])),
        (
            "a deletion as predecessor",
            "pred-not-a-value",
            in_sequence(at::TAGS, element(at::TAG), false, put(1), &[at::DELETION]),
        ),
        (
            "an increment as predecessor",
            "pred-not-a-value",
            on(at::RECORD, "stock", put(1), &[at::INCREMENT]),
        ),
        ("a predecessor twice", "pred-repeated", note(&[at::NOTE_AGAIN, at::NOTE_AGAIN])),
    ]
}

fn counters() -> Vec<Row> {
    let stock = |action| on(at::RECORD, "stock", action, &[at::STOCK]);
    let note = on(at::RECORD, "note", OpType::Increment(1), &[at::NOTE_AGAIN]);
    vec![
        ("an increment of a text", "not-a-counter", note),
        ("an increment that overflows", "counter-range", stock(OpType::Increment(i64::MAX))),
        ("an increment by the least number", "counter-range", stock(OpType::Increment(i64::MIN))),
        ("a counter that overflows", "counter-range", stock(put(ScalarValue::counter(i64::MAX)))),
    ]
}

fn texts() -> Vec<Row> {
    let after = |action| in_sequence(at::STORY, element(at::LETTER), true, action, &[]);
    let update = in_sequence(at::STORY, element(at::LETTER), false, put("c"), &[at::LETTER]);
    vec![
        ("a number in a text", "text-operation", after(put(1))),
        ("an empty string in a text", "text-operation", after(put(""))),
        ("a page in one insertion", "text-operation", after(put("x".repeat(257)))),
        ("a map in a text", "text-operation", after(OpType::Make(ObjType::Map))),
        ("a letter overwritten", "text-operation", update),
    ]
}

fn roots() -> Vec<Row> {
    let root = |op: Op| Op { obj: ObjectId::Root, ..op };
    vec![
        ("a scalar at the root", "root-operation", root(on(0, "order-3", put(1), &[]))),
        (
            "a text at the root",
            "root-operation",
            root(on(0, "order-3", OpType::Make(ObjType::Text), &[])),
        ),
        (
            "a record overwritten",
            "root-operation",
            root(on(0, "order-1", OpType::Make(ObjType::Map), &[at::RECORD])),
        ),
        (
            "a record deleted",
            "root-operation",
            root(on(0, "order-1", OpType::Delete, &[at::RECORD])),
        ),
        ("an id with a slash", "record-id", make_record("order/3")),
        ("an id with a control character", "record-id", make_record("order\n3")),
        ("an id of 129 bytes", "record-id", make_record(&"r".repeat(129))),
    ]
}

/// Maps in maps, 10,000 deep: who walks them by recursion falls off the stack.
fn deep(stage: &Stage) -> Hostile {
    let mut operations = vec![make_record("order-3")];
    for depth in 0..10_000 {
        operations.push(on(at::NEXT + depth, "m", OpType::Make(ObjType::Map), &[]));
    }
    row(4, "maps 10,000 deep", "depth", chunk(stage.change(operations)))
}

/// Device 2, which has seen the first change only, overwrites what the second one wrote.
fn beyond(stage: &Stage) -> Hostile {
    let pred = SortedVec::from(vec![OpId::new(at::NOTE_AGAIN, &author(1))]);
    let op = Op { pred, ..on(at::RECORD, "note", put("three"), &[]) };
    let mut change = stage.follow(2, vec![op]);
    change.deps = vec![hash_of(&stage.beginning[0])];
    change.start_op = at::NOTE_AGAIN.try_into().expect("not zero");
    row(4, "a predecessor that it cannot have seen", "unknown-pred", chunk(change))
}
