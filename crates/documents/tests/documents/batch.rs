//! What the batch codec promises: byte for byte, small, bounded, and no panic on any input.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use fieldkeep_documents::Document;
use fieldkeep_documents::batch::{BatchError, decode, encode};
use fieldkeep_documents::document::Author;
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};
use proptest::prelude::*;

const ANY_SIZE: usize = 1 << 30;

/// A small generator of numbers, so that every run sees the same orders.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len() as u64) as usize]
    }
}

const NAMES: [&str; 12] = [
    "Alfreds Futterkiste",
    "Berglunds snabbköp",
    "Bólido Comidas",
    "Die Wandernde Kuh",
    "Ernst Handel",
    "Frankenversand",
    "Godos Cocina Típica",
    "Hungry Owl",
    "Island Trading",
    "Königlich Essen",
    "La maison d'Asie",
    "Magazzini Alimentari",
];
const PRODUCTS: [&str; 8] =
    ["chai", "chang", "ikura", "tofu", "konbu", "pavlova", "geitost", "filo"];

fn put(field: &str, value: impl Into<String>) -> Edit {
    Edit::Put(field.into(), Scalar::Str(value.into()))
}

fn int(field: &str, value: u64) -> Edit {
    Edit::Put(field.into(), Scalar::Int(value as i64))
}

fn uuid(time: u64, dice: &mut Dice) -> String {
    let (a, b, c) = (dice.roll(1 << 12), dice.roll(1 << 14), dice.roll(1 << 48));
    format!("{:08x}-{:04x}-7{a:03x}-{:04x}-{c:012x}", time >> 16, time & 0xffff, 0x8000 | b)
}

fn order(time: u64, dice: &mut Dice) -> RecordEdit {
    let line = |n: u64, dice: &mut Dice| {
        let edits = vec![
            put("product", dice.pick(&PRODUCTS)),
            int("quantity", 1 + dice.roll(40)),
            put("price", format!("{}.{:02}", dice.roll(90), dice.roll(100))),
        ];
        Edit::Child("lines".into(), n.to_string(), edits)
    };
    let mut edits = vec![
        put("customer", dice.pick(&NAMES)),
        put("city", dice.pick(&["Berlin", "Luleå", "Madrid", "Graz", "Nantes"])),
        put("outlet_id", format!("outlet-{}", dice.roll(20))),
        put("state", dice.pick(&["draft", "placed", "packed"])),
        put("freight", format!("{}.{:02}", dice.roll(300), dice.roll(100))),
        int("ordered_at", time),
        int("required_at", time + 86_400_000 * dice.roll(30)),
        Edit::Put("paid".into(), Scalar::Bool(dice.roll(2) == 0)),
        put("remark", dice.pick(&["", "call before", "back door", "fragile"])),
    ];
    edits.extend((1..=3).map(|n| line(n, dice)));
    edits.into()
}

fn edit(dice: &mut Dice) -> RecordEdit {
    let edit = match dice.roll(4) {
        0 => put("state", dice.pick(&["placed", "packed", "shipped", "done"])),
        1 => put("freight", format!("{}.{:02}", dice.roll(300), dice.roll(100))),
        2 => put("remark", dice.pick(&["ring twice", "at the gate", "cold", "late"])),
        _ => {
            let line = vec![int("quantity", 1 + dice.roll(40))];
            Edit::Child("lines".into(), (1 + dice.roll(3)).to_string(), line)
        }
    };
    vec![edit].into()
}

/// Changes of ten devices that meet after every ten changes each: half create an order, half edit a
/// field of one.
fn orders(changes: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice(7);
    let mut devices = vec![Document::new(); 10];
    let (mut made, mut ids, mut time) = (Vec::new(), Vec::<RecordId>::new(), 1_760_000_000_000);
    while made.len() < changes {
        let known = made.len();
        for (device, document) in devices.iter_mut().enumerate() {
            for _ in 0..10 {
                time += dice.roll(60_000);
                let mut actor = [0x5a; 20];
                actor[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, device as u8, 0, 0, 0, 1]);
                actor[19] = device as u8 * 17;
                let author = Author {
                    actor: ActorId(actor),
                    person: format!("person-{device}"),
                    time: time as i64,
                };
                let new = ids.is_empty() || dice.roll(2) == 0;
                let (id, edit) = if new {
                    (RecordId::new(uuid(time, &mut dice)).unwrap(), order(time, &mut dice))
                } else {
                    (ids[dice.roll(ids.len() as u64) as usize].clone(), edit(&mut dice))
                };
                made.extend(document.write(&author, &id, &edit).unwrap().map(|w| w.chunk));
            }
        }
        for document in &mut devices {
            document.apply(made[known..].iter().map(Vec::as_slice)).unwrap();
        }
        ids = devices[0].ids();
    }
    made.truncate(changes);
    made
}

fn slices(chunks: &[Vec<u8>]) -> Vec<&[u8]> {
    chunks.iter().map(Vec::as_slice).collect()
}

#[test]
fn changes_come_back_byte_for_byte_and_small() {
    let changes = orders(1_000);
    let raw: usize = changes.iter().map(Vec::len).sum();
    let batch = encode(&slices(&changes), 3);
    assert_eq!(decode(&batch, raw).unwrap(), changes);
    assert!(batch.len() * 100 < raw * 21, "{} of {raw} bytes", batch.len());
}

#[test]
fn a_pack_is_smaller_still_and_parts_of_a_history_come_back_too() {
    let changes = orders(600);
    let raw: usize = changes.iter().map(Vec::len).sum();
    let pack = encode(&slices(&changes), 19);
    assert_eq!(decode(&pack, raw).unwrap(), changes);
    assert!(pack.len() * 100 < raw * 17, "{} of {raw} bytes", pack.len());
    // Out of order, twice, and with gaps: what it cannot refer to it carries.
    let odd: Vec<&[u8]> =
        changes.iter().rev().step_by(3).chain(&changes[5..9]).map(|c| &c[..]).collect();
    assert_eq!(decode(&encode(&odd, 3), ANY_SIZE).unwrap(), odd);
}

#[test]
fn a_single_change_costs_next_to_nothing_more() {
    for change in orders(100) {
        let batch = encode(&[&change], 3);
        assert!(batch.len() <= change.len() + 24, "{} for {}", batch.len(), change.len());
    }
}

#[test]
fn a_deflated_change_is_carried_whole() {
    let mut doc = Document::new();
    let author = Author { actor: ActorId([1; 20]), person: "ann".into(), time: 5 };
    let id = RecordId::new("7").unwrap();
    let long = doc.write(&author, &id, &vec![put("a", "long ".repeat(40_000))].into()).unwrap();
    let short = doc.write(&author, &id, &vec![put("a", "short")].into()).unwrap();
    let chunks = [long.unwrap().chunk, short.unwrap().chunk];
    assert_eq!(decode(&encode(&slices(&chunks), 3), ANY_SIZE).unwrap(), chunks);
}

#[test]
fn a_batch_does_not_come_to_more_than_its_limit() {
    let changes = orders(100);
    let raw: usize = changes.iter().map(Vec::len).sum();
    let batch = encode(&slices(&changes), 3);
    assert!(decode(&batch, raw).is_ok());
    assert_eq!(decode(&batch, raw - 1), Err(BatchError::TooLarge));
    let zeros = vec![0; 8 << 20];
    let bomb = encode(&[&zeros], 3);
    assert!(bomb.len() < 2_000);
    assert_eq!(decode(&bomb, 1 << 20), Err(BatchError::TooLarge));
}

#[test]
fn a_batch_ends_where_it_ends() {
    for chunks in [slices(&orders(20)), vec![], vec![b"".as_slice()], vec![b"x".as_slice()]] {
        let mut batch = encode(&chunks, 3);
        assert_eq!(decode(&batch, ANY_SIZE).unwrap(), chunks);
        batch.push(0);
        assert_eq!(decode(&batch, ANY_SIZE), Err(BatchError::Malformed));
        batch[0] = 9;
        assert_eq!(decode(&batch, ANY_SIZE), Err(BatchError::Version(9)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(chunks: Vec<Vec<u8>>, level in 1..5) {
        prop_assert_eq!(decode(&encode(&slices(&chunks), level), ANY_SIZE).unwrap(), chunks);
    }

    #[test]
    fn any_input_is_decoded_or_refused(bytes: Vec<u8>, packing in 0..2u8) {
        let mut batch = vec![1, packing];
        batch.extend(bytes);
        let _ = decode(&batch, 1 << 16);
    }
}

/// Real batches whose payload is damaged: what comes out is other changes or an error.
#[test]
fn damaged_batches_are_decoded_or_refused() {
    let changes = orders(40);
    let raw: usize = changes.iter().map(Vec::len).sum();
    let batch = encode(&slices(&changes), 3);
    let payload = zstd::bulk::decompress(&batch[2..], 1 << 20).unwrap();
    let mut dice = Dice(11);
    for _ in 0..3_000 {
        let mut damaged = vec![1, 0];
        damaged.extend(&payload);
        for _ in 0..=dice.roll(3) {
            let at = 2 + dice.roll(payload.len() as u64) as usize;
            damaged[at] = dice.roll(256) as u8;
        }
        if let Ok(chunks) = decode(&damaged, 2 * raw) {
            assert!(chunks.iter().map(Vec::len).sum::<usize>() <= 2 * raw);
        }
    }
}
