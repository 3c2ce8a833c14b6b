//! Honest sessions: several actors edit records, merge now and then, and every change they make is
//! kept as a chunk, in causal order.
//!
//! The layout is the segment's: `ROOT[record id]` holds a map of fields; a set is a map of children.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use serde_json::Value;

use crate::{Dice, orders};

/// The actor id of the lab's device with that number, as `fieldkeep_model::ActorId` lays it out.
#[must_use]
pub fn actor(device: u64) -> [u8; 20] {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&device.to_be_bytes());
    id[11] = 1;
    id[12..].copy_from_slice(&Dice::seeded(device).roll().to_be_bytes());
    id
}

/// An empty document that writes as that device.
#[must_use]
pub fn replica(device: u64) -> AutoCommit {
    AutoCommit::new().with_actor(automerge::ActorId::from(&actor(device)[..]))
}

/// Commits what is pending and returns the change's raw chunk, if there was anything.
pub fn commit(doc: &mut AutoCommit, time: i64) -> Option<Vec<u8>> {
    let options = CommitOptions::default().with_time(time).with_message("person-1");
    doc.commit_with(options)?;
    doc.get_last_local_change().map(|change| change.raw_bytes().to_vec())
}

/// Several replicas of one segment.
pub struct Session {
    /// The replicas.
    pub docs: Vec<AutoCommit>,
    /// All changes so far, raw, each after those that it builds upon.
    pub chunks: Vec<Vec<u8>>,
    dice: Dice,
    time: i64,
}

impl Session {
    /// A session of so many actors.
    #[must_use]
    pub fn seeded(seed: u64, actors: u64) -> Self {
        let docs = (1..=actors).map(replica).collect();
        Self { docs, chunks: Vec::new(), dice: Dice::seeded(seed), time: 1_700_000_000_000 }
    }

    /// One actor merges another's work, or edits.
    pub fn step(&mut self) {
        let at = self.dice.below(self.docs.len());
        if self.docs.len() > 1 && self.dice.one_in(3) {
            let mut from = self.docs[self.dice.below(self.docs.len())].clone();
            self.docs[at].merge(&mut from).expect("honest changes merge");
            return;
        }
        for _ in 0..=self.dice.below(3) {
            edit(&mut self.docs[at], &mut self.dice).expect("an honest edit succeeds");
        }
        self.time += self.dice.below(60_000) as i64;
        let chunk = match commit(&mut self.docs[at], self.time) {
            None if self.dice.one_in(4) => Some(self.empty(at)),
            chunk => chunk,
        };
        self.chunks.extend(chunk);
    }

    /// A change that only merges heads.
    fn empty(&mut self, at: usize) -> Vec<u8> {
        self.docs[at].empty_change(CommitOptions::default().with_time(self.time));
        let change = self.docs[at].get_last_local_change();
        change.expect("an empty change is a change").raw_bytes().to_vec()
    }
}

/// A segment of so many orders by one device, and an edit of each by another: a change each.
#[must_use]
pub fn segment(records: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut doc = replica(1);
    let orders = orders::orders(1, records);
    let created = orders.iter().map(|(id, order)| {
        create(&mut doc, id, order);
        commit(&mut doc, 1).expect("an order is a change")
    });
    let created = created.collect();
    let mut doc = doc.fork().with_actor(replica(2).get_actor().clone());
    let edited = orders.iter().map(|(id, _)| {
        let (_, record) = doc.get(ROOT, id).expect("it reads").expect("it was created");
        doc.put(&record, "state", "paid").expect("it is a map");
        commit(&mut doc, 2).expect("an edit is a change")
    });
    (created, edited.collect())
}

/// The changes of an honest session of so many steps, in causal order.
#[must_use]
pub fn session(seed: u64, actors: u64, steps: usize) -> Vec<Vec<u8>> {
    let mut session = Session::seeded(seed, actors);
    (0..steps).for_each(|_| session.step());
    session.chunks
}

/// The changes of one actor that writes these orders, a change each.
#[must_use]
pub fn import(device: u64, orders: &[(String, Value)]) -> Vec<Vec<u8>> {
    let mut doc = replica(device);
    let mut chunks = Vec::with_capacity(orders.len());
    for (id, order) in orders {
        create(&mut doc, id, order);
        chunks.extend(commit(&mut doc, 1_700_000_000_000));
    }
    chunks
}

/// Writes a record with all its fields.
pub fn create(doc: &mut AutoCommit, id: &str, fields: &Value) {
    let record = doc.put_object(ROOT, id, ObjType::Map).expect("the root takes a map");
    for (name, value) in fields.as_object().into_iter().flatten() {
        let Some(children) = value.as_array() else {
            put(doc, &record, name, value);
            continue;
        };
        let set = doc.put_object(&record, name, ObjType::Map).expect("a record takes a map");
        for child in children {
            let id = child["id"].as_str().expect("a child has an id");
            let map = doc.put_object(&set, id, ObjType::Map).expect("a set takes a map");
            for (name, value) in child.as_object().into_iter().flatten() {
                if name != "id" {
                    put(doc, &map, name, value);
                }
            }
        }
    }
}

fn put(doc: &mut AutoCommit, map: &ObjId, name: &str, value: &Value) {
    let scalar = match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(flag) => ScalarValue::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => ScalarValue::Int(whole),
            None => ScalarValue::F64(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => ScalarValue::Str(text.into()),
        Value::Array(_) | Value::Object(_) => ScalarValue::Bytes(value.to_string().into()),
    };
    doc.put(map, name, scalar).expect("a map takes a scalar");
}

/// One random edit of one record.
///
/// # Errors
/// When a field holds what no honest actor writes there.
pub fn edit(doc: &mut AutoCommit, dice: &mut Dice) -> Result<(), AutomergeError> {
    // Few ids, so that two actors create the same record.
    let id = format!("order-{}", dice.below(6));
    let found = doc.get_all(ROOT, &id)?;
    let Some((_, record)) = found.get(dice.below(found.len())).cloned() else {
        let mut order = orders::order(dice).1;
        order["lines"].as_array_mut().expect("an order has lines").truncate(dice.below(4));
        create(doc, &id, &order);
        return Ok(());
    };
    let field = *dice.pick(&["customer", "state", "note", "freight"]);
    match dice.below(9) {
        0 => doc.put(&record, "~deleted", dice.one_in(2)),
        1 => doc.delete(&record, field),
        2 => count(doc, &record, dice),
        3 => text(doc, &record, dice),
        4 => line(doc, &record, dice),
        5 => list(doc, &record, dice),
        6 => doc.put(&record, "discount", dice.below(30) as i64),
        _ => doc.put(&record, field, format!("{field} {}", dice.below(100))),
    }
}

fn count(doc: &mut AutoCommit, record: &ObjId, dice: &mut Dice) -> Result<(), AutomergeError> {
    match doc.get(record, "stock")? {
        Some(_) if dice.one_in(8) => doc.delete(record, "stock"),
        Some(_) => doc.increment(record, "stock", dice.below(9) as i64 - 4),
        None => doc.put(record, "stock", ScalarValue::counter(10)),
    }
}

/// The object in a field, created where there is none.
fn object(
    doc: &mut AutoCommit,
    map: &ObjId,
    name: &str,
    kind: ObjType,
) -> Result<ObjId, AutomergeError> {
    match doc.get(map, name)? {
        Some((value, found)) if value.is_object() => Ok(found),
        _ => doc.put_object(map, name, kind),
    }
}

fn text(doc: &mut AutoCommit, record: &ObjId, dice: &mut Dice) -> Result<(), AutomergeError> {
    let text = object(doc, record, "story", ObjType::Text)?;
    let length = doc.length(&text);
    let at = dice.below(length + 1);
    let cut = dice.below((length - at).min(3) + 1);
    let word: &str = ["", "ä", "no ", "yes, "][dice.below(4)];
    doc.splice_text(&text, at, cut as isize, word)
}

fn line(doc: &mut AutoCommit, record: &ObjId, dice: &mut Dice) -> Result<(), AutomergeError> {
    let lines = object(doc, record, "lines", ObjType::Map)?;
    let line = object(doc, &lines, &format!("l{}", dice.below(4)), ObjType::Map)?;
    match dice.below(4) {
        0 => doc.put(&line, "~deleted", true),
        1 => doc.put(&line, "product", format!("product-{}", dice.below(77))),
        _ => doc.put(&line, "quantity", dice.below(40) as i64),
    }
}

/// No field kind is a list yet; the gate knows their rules all the same.
fn list(doc: &mut AutoCommit, record: &ObjId, dice: &mut Dice) -> Result<(), AutomergeError> {
    let list = object(doc, record, "tags", ObjType::List)?;
    let length = doc.length(&list);
    match dice.below(4) {
        0 if length > 0 => doc.delete(&list, dice.below(length)),
        1 if length > 0 => doc.put(&list, dice.below(length), dice.below(9) as i64),
        2 => doc.insert_object(&list, dice.below(length + 1), ObjType::Map).map(drop),
        _ => doc.insert(&list, dice.below(length + 1), format!("tag {}", dice.below(9))),
    }
}
