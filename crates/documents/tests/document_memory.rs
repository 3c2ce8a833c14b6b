//! Memory of a freshly loaded segment: edits in ascending order must not copy its columns again and
//! again. A counting allocator tells.

#![allow(clippy::unwrap_used)]

use cap::Cap;
use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_lab::Dice;
use fieldkeep_lab::orders::orders;
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const RECORDS: usize = 4_000;
const EDITS: usize = 1_000;

fn author(device: u8) -> Author {
    let mut actor = [0; 20];
    actor[7] = device;
    Author { actor: ActorId(actor), person: format!("person {device}"), time: i64::from(device) }
}

fn edit(fields: &Value) -> RecordEdit {
    let fields = fields.as_object().unwrap().iter();
    RecordEdit::from(fields.filter_map(|(name, value)| field(name, value)).collect::<Vec<_>>())
}

fn field(name: &str, value: &Value) -> Option<Edit> {
    let name = name.to_owned();
    match value {
        Value::String(text) => Some(Edit::Put(name, Scalar::Str(text.clone()))),
        Value::Number(number) => Some(Edit::Put(name, Scalar::Int(number.as_i64()?))),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[test]
fn a_thousand_ascending_edits_of_a_loaded_segment_cost_less_than_five_megabytes() {
    let mut document = Document::new();
    let mut dice = Dice::seeded(11);
    let mut ids: Vec<RecordId> = Vec::new();
    let records: Vec<_> = orders(11, RECORDS)
        .into_iter()
        .map(|(id, fields)| (RecordId::new(id).unwrap(), edit(&fields)))
        .collect();
    for batch in records.chunks(200) {
        document.write_many(&author(1), batch).unwrap();
        ids.extend(batch.iter().map(|(id, _)| id.clone()));
    }
    let mut other = document.clone();
    ids.sort();
    let chunks: Vec<Vec<u8>> = ids
        .iter()
        .step_by(RECORDS / EDITS)
        .map(|id| {
            let note = Scalar::Str(format!("seen {}", dice.below(1_000_000)));
            let edit = RecordEdit::from(vec![Edit::Put("note".into(), note)]);
            other.write(&author(2), id, &edit).unwrap().unwrap().chunk
        })
        .collect();
    let saved = document.save();
    drop((document, other));

    let empty = ALLOCATOR.allocated();
    let mut loaded = Document::load(&saved).unwrap();
    let before = ALLOCATOR.allocated();
    let (heap, weight) = (before - empty, loaded.weight());
    println!("{RECORDS} records take {heap} bytes, {weight} by estimate");
    assert!(weight < heap * 3 && heap < weight * 3, "{weight} is no estimate of {heap}");
    loaded.apply(chunks.iter().map(Vec::as_slice)).unwrap();
    let grown = ALLOCATOR.allocated().saturating_sub(before);
    println!("{EDITS} ascending edits on {RECORDS} records: {grown} bytes more");
    assert!(grown < 5 * 1024 * 1024, "the heap grew by {grown} bytes");
}
