//! The work that every engine does: records and edits from a seed, and what comes of them.
//!
//! Edits that are made concurrently write different fields, so that one content is right; it is
//! computed here by a plain map, which no engine has a part in.

use std::collections::BTreeMap;

use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar};
use serde_json::{Map, Value};

use super::engine::content_of;
use crate::Dice;
use crate::orders::order;

/// A record or an edit of one.
pub(crate) type Write = (RecordId, RecordEdit);

/// The fields that edits write: all are text.
const FIELDS: [&str; 4] = ["state", "freight", "note", "outlet"];

/// In which order edits go through the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// By ascending id, as an import or a rule that runs over everything does.
    Ascending,
    /// Any.
    Random,
}

/// Which fields edits write, so that those of two sides differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// All four.
    Both,
    /// The first two.
    Left,
    /// The other two.
    Right,
}

impl Side {
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Both => &FIELDS,
            Self::Left => &FIELDS[..2],
            Self::Right => &FIELDS[2..],
        }
    }
}

/// So many orders, ids ascending by time as version 7 UUIDs do.
pub(crate) fn records(seed: u64, count: usize) -> Vec<Write> {
    let mut dice = Dice::seeded(seed);
    (0..count as u64)
        .map(|nth| {
            let id = id(nth, &mut dice);
            let (_, fields) = order(&mut dice);
            let Value::Object(fields) = fields else { unreachable!("an order is an object") };
            (id, RecordEdit::from(edits_of(&fields)))
        })
        .collect()
}

fn id(nth: u64, dice: &mut Dice) -> RecordId {
    let time = 1_700_000_000_000 + nth * 977;
    let (high, low) = (time >> 16, time & 0xffff);
    let (random, rest) = (dice.roll() & 0xfff, dice.roll());
    let (variant, tail) = (0x8000 | (rest >> 50), rest & 0xffff_ffff_ffff);
    let text = format!("{high:08x}-{low:04x}-7{random:03x}-{variant:04x}-{tail:012x}");
    RecordId::new(text).expect("a UUID is a record id")
}

fn edits_of(fields: &Map<String, Value>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (name, value) in fields {
        if let Value::Array(children) = value {
            for (nth, child) in children.iter().enumerate() {
                let Value::Object(child) = child else { continue };
                let id = child["id"].as_str().unwrap_or_default();
                let mut child = child.clone();
                child.shift_remove("id");
                // Ids of lines are short, and may repeat within an order.
                edits.push(Edit::Child(name.clone(), format!("{nth}{id}"), edits_of(&child)));
            }
        } else {
            edits.push(Edit::Put(name.clone(), scalar(value)));
        }
    }
    edits
}

fn scalar(value: &Value) -> Scalar {
    match value {
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Scalar::Int(whole),
            None => Scalar::Float(number.as_f64().expect("orders have finite numbers")),
        },
        Value::String(text) => Scalar::Str(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            unreachable!("orders have no such value")
        }
    }
}

/// So many edits of one field each, of unlike records as long as there are any.
pub(crate) fn edits(
    seed: u64,
    records: &[Write],
    count: usize,
    order: Order,
    side: Side,
) -> Vec<Write> {
    let mut dice = Dice::seeded(seed ^ 0xed17);
    let mut chosen: Vec<usize> = (0..records.len()).collect();
    // The first of a shuffle, as many as are needed.
    let wanted = count.min(records.len());
    for nth in 0..wanted {
        chosen.swap(nth, nth + dice.below(records.len() - nth));
    }
    chosen.truncate(wanted);
    if order == Order::Ascending {
        chosen.sort_unstable();
    }
    let fields = side.fields();
    let edit = |nth: usize| {
        let (id, _) = &records[chosen[nth % wanted]];
        let field = fields[nth / wanted % fields.len()];
        let value = Scalar::Str(format!("{field} {seed} {nth}"));
        (id.clone(), vec![Edit::Put(field.to_owned(), value)].into())
    };
    (0..count).map(edit).collect()
}

/// What writes come to, one after the other, as engines have to read it.
pub(crate) fn content_after<'a>(writes: impl IntoIterator<Item = &'a Write>) -> String {
    let mut all: BTreeMap<&RecordId, Map<String, Value>> = BTreeMap::new();
    for (id, edit) in writes {
        take(all.entry(id).or_default(), &edit.edits);
    }
    content_of(all.into_iter().map(|(id, fields)| (id, Value::Object(fields))))
}

fn take(fields: &mut Map<String, Value>, edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Put(field, value) => {
                let value = serde_json::to_value(value).expect("a scalar is JSON");
                fields.insert(field.clone(), value);
            }
            Edit::Child(field, child, edits) => {
                let set =
                    fields.entry(field.as_str()).or_insert_with(|| Vec::<Value>::new().into());
                let mut object = Map::new();
                object.insert("id".to_owned(), child.as_str().into());
                take(&mut object, edits);
                let children = set.as_array_mut().expect("sets are arrays");
                children.push(object.into());
                children.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
            }
            Edit::Json(..)
            | Edit::Text(..)
            | Edit::Add(..)
            | Edit::Clear(_)
            | Edit::RemoveChild(..) => unreachable!("no workload writes {edit:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_work() {
        assert_eq!(records(7, 50), records(7, 50));
        assert_ne!(records(7, 50), records(8, 50));
        let ids = records(7, 50);
        assert!(ids.is_sorted_by(|a, b| a.0 < b.0), "ids ascend by time");
    }

    #[test]
    fn the_sides_of_a_divergence_never_write_the_same_field() {
        let records = records(1, 30);
        let left = edits(1, &records, 200, Order::Random, Side::Left);
        let right = edits(2, &records, 200, Order::Random, Side::Right);
        for (_, edit) in &left {
            let field = edit.edits[0].field();
            assert!(right.iter().all(|(_, other)| other.edits[0].field() != field), "{field}");
        }
    }

    #[test]
    fn edits_go_through_unlike_records_first() {
        let records = records(1, 30);
        let edits = edits(1, &records, 30, Order::Ascending, Side::Both);
        assert!(edits.is_sorted_by(|a, b| a.0 < b.0));
    }
}
