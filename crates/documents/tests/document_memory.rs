//! Memory of a freshly loaded segment: edits in ascending order must not copy its columns again and
//! again. A counting allocator tells.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use cap::Cap;
use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_lab::Dice;
use fieldkeep_lab::orders::orders;
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// Held by whoever measures: the allocator counts for all tests.
static ALONE: Mutex<()> = Mutex::new(());

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
    let _alone = ALONE.lock();
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

    let mut loaded = Document::load(&saved).unwrap();
    let before = ALLOCATOR.allocated();
    loaded.apply(chunks.iter().map(Vec::as_slice)).unwrap();
    let grown = ALLOCATOR.allocated().saturating_sub(before);
    println!("{EDITS} ascending edits on {RECORDS} records: {grown} bytes more");
    assert!(grown < 5 * 1024 * 1024, "the heap grew by {grown} bytes");
}

/// Changes of one kind, each a record's or a batch's.
fn changes(
    writers: usize,
    edits: impl IntoIterator<Item = Vec<(RecordId, RecordEdit)>>,
) -> Vec<Vec<u8>> {
    let mut writers = vec![Document::new(); writers];
    let count = writers.len();
    let written = edits.into_iter().enumerate().map(|(nth, edits)| {
        let by = author(u8::try_from(nth % count).unwrap());
        writers[nth % count].write_many(&by, &edits).unwrap().unwrap().made.chunk
    });
    written.collect()
}

/// What a document takes, and what it says that it takes.
fn weighed(make: impl FnOnce() -> Document) -> (Document, f64) {
    let empty = ALLOCATOR.allocated();
    let document = make();
    let heap = ALLOCATOR.allocated() - empty;
    let factor = document.weight() as f64 / heap as f64;
    (document, factor)
}

#[test]
fn what_a_document_takes_is_known_within_a_factor_of_two_and_never_much_too_low() {
    let _alone = ALONE.lock();
    let put = |name: &str, text: String| Edit::Put(name.into(), Scalar::Str(text));
    let id = |id: String| RecordId::new(id).unwrap();
    let one = |record: String, edits: Vec<Edit>| vec![(id(record), RecordEdit::from(edits))];
    let order = |(record, fields): (String, Value)| (id(record), edit(&fields));
    for count in [100, 1_500] {
        let visit = |nth| {
            one(
                format!("{nth}"),
                vec![put("note", "the shelf is empty".into()), put("at", "41".into())],
            )
        };
        let note = |nth| one(format!("{}", nth % 20), vec![put("note", format!("seen {nth}"))]);
        let level = |nth| one("tank".into(), vec![Edit::Put("level".into(), Scalar::Int(nth))]);
        let letter = |nth| one(format!("{nth}"), vec![put("note", "a long text ".repeat(100))]);
        let orders = || orders(11, count as usize).into_iter().map(order);
        let batches: Vec<_> = orders().collect();
        let shapes = [
            ("new records by two", changes(2, (0..count).map(visit))),
            ("orders", changes(1, orders().map(|order| vec![order]))),
            ("orders in batches", changes(1, batches.chunks(64).map(<[_]>::to_vec))),
            ("edits of twenty", changes(1, (0..count).map(note))),
            ("edits of one", changes(1, (0..count).map(level))),
            ("long texts", changes(1, (0..count / 4).map(letter))),
        ];
        for (shape, chunks) in shapes {
            let apply = |document: &mut Document, chunks: &[Vec<u8>]| {
                chunks.iter().for_each(|chunk| document.apply([chunk.as_slice()]).unwrap());
            };
            let (built, one_by_one) = weighed(|| {
                let mut document = Document::new();
                apply(&mut document, &chunks);
                document
            });
            let saved = built.save();
            let (_, loaded) = weighed(|| Document::load(&saved).unwrap());
            let (before, after) = chunks.split_at(chunks.len() / 2);
            let mut half = Document::new();
            apply(&mut half, before);
            let saved = half.save();
            let (_, grown) = weighed(|| {
                let mut document = Document::load(&saved).unwrap();
                apply(&mut document, after);
                document
            });
            println!(
                "{count} {shape}: {one_by_one:.2}, loaded {loaded:.2}, grown {grown:.2} times what it takes"
            );
            for factor in [one_by_one, loaded, grown] {
                assert!((0.9..2.1).contains(&factor), "{shape} of {count}: {factor}");
            }
        }
    }
}
