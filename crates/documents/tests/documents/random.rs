//! Random devices, random edits, random meetings: what is written passes the gate, what has met
//! reads alike, and a document is the same however it came about.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use fieldkeep_documents::Document;
use fieldkeep_documents::batch::{decode, encode};
use fieldkeep_documents::document::{Author, Record, WriteError};
use fieldkeep_documents::gate::History;
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};

/// A small generator of numbers, so that a seed repeats a run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }
}

/// A device: its document, its gate, and the log of what it holds.
struct Device {
    author: Author,
    document: Document,
    history: History,
    log: Vec<Vec<u8>>,
}

impl Device {
    fn new(number: u8) -> Self {
        let mut actor = [7; 20];
        actor[..8].copy_from_slice(&u64::from(number).to_be_bytes());
        let author = Author { actor: ActorId(actor), person: format!("p{number}"), time: 0 };
        Self { author, document: Document::new(), history: History::new(), log: Vec::new() }
    }

    /// Writes something; what cannot be written must leave no trace.
    fn write(&mut self, dice: &mut Dice) {
        let id = dice.pick(&ids());
        let edit = random_edit(dice);
        let before = (self.document.heads(), self.records());
        self.author.time += 1;
        match self.document.write(&self.author, &id, &edit) {
            Ok(None) => assert_eq!((self.document.heads(), self.records()), before),
            Ok(Some(written)) => {
                self.history.replay(&written.chunk).unwrap();
                assert_eq!(Some(&written.record), self.document.record(&id).as_ref());
                self.log.push(written.chunk);
            }
            Err(WriteError::Edit(_)) => {
                assert_eq!((self.document.heads(), self.records()), before);
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Takes over what the other holds, as one batch.
    fn receive(&mut self, other: &Self) {
        let mut lacking: Vec<&[u8]> = Vec::new();
        for chunk in &other.log {
            let hash = fieldkeep_model::ChangeHeader::parse(chunk).unwrap().hash;
            if !self.history.contains(&hash) {
                lacking.push(chunk);
                self.history.replay(chunk).unwrap();
            }
        }
        let chunks = decode(&encode(&lacking, 3), 1 << 24).unwrap();
        self.document.apply(chunks.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(self.document.heads(), self.history.heads());
        self.log.extend(chunks);
    }

    fn records(&self) -> Vec<Option<Record>> {
        ids().iter().map(|id| self.document.record(id)).collect()
    }
}

fn ids() -> Vec<RecordId> {
    ["a", "b", "c"].map(|id| RecordId::new(id).unwrap()).to_vec()
}

fn random_edit(dice: &mut Dice) -> RecordEdit {
    let edits = (0..dice.roll(4)).map(|_| random_field(dice, false)).collect();
    let deleted = [None, None, None, None, Some(true), Some(false)];
    RecordEdit { edits, deleted: dice.pick(&deleted) }
}

fn random_field(dice: &mut Dice, inside: bool) -> Edit {
    let number = dice.roll(3) as i64;
    let child = |dice: &mut Dice| dice.pick(&["x".to_owned(), "y".to_owned()]);
    match dice.roll(if inside { 6 } else { 9 }) {
        0 => Edit::Put("r".into(), Scalar::Int(number)),
        1 => Edit::Put("s".into(), Scalar::Str(number.to_string())),
        2 => Edit::Json("j".into(), format!("[{number}]")),
        3 => Edit::Add("n".into(), dice.pick(&[0, 1, -1, 1 << 32])),
        4 => {
            let words = (0..dice.roll(5)).map(|_| dice.pick(&["fox ", "über ", "🦊 "]));
            Edit::Text("t".into(), words.collect())
        }
        5 => Edit::Clear(dice.pick(&["r", "s", "j", "n", "t", "lines"]).into()),
        6 => Edit::RemoveChild("lines".into(), child(dice)),
        _ => {
            let edits = (0..dice.roll(3)).map(|_| random_field(dice, true)).collect();
            Edit::Child("lines".into(), child(dice), edits)
        }
    }
}

/// Runs three devices from a seed until all have met.
fn run(seed: u64) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed << 1);
    let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
    for _ in 0..60 {
        let nth = dice.roll(3) as usize;
        if dice.roll(5) > 0 {
            devices[nth].write(&mut dice);
        } else {
            meet(&mut devices, nth, (nth + 1) % 3);
        }
    }
    for (a, b) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
        meet(&mut devices, a, b);
    }
    let [ann, ben, cyn] = &devices;
    for other in [ben, cyn] {
        assert_eq!(other.document.heads(), ann.document.heads());
        assert_eq!(other.records(), ann.records());
    }
    let mut rebuilt = Device::new(4);
    rebuilt.receive(cyn);
    assert_eq!(rebuilt.records(), ann.records());
    rebuilt.document = Document::load(&ann.document.save()).unwrap();
    assert_eq!(rebuilt.records(), ann.records());
    reads_as_it_was(&rebuilt);
    settle(&mut rebuilt);
}

/// What a document says of its past is what a document of those changes alone says.
fn reads_as_it_was(device: &Device) {
    let mut touched: Vec<(u64, Vec<RecordId>)> = Vec::new();
    let mut history = History::new();
    for (chunk, position) in device.log.iter().zip(1..) {
        let admitted = history.replay(chunk).unwrap();
        let records = admitted.touched.iter().map(|touch| touch.record.clone()).collect();
        touched.push((position, records));
        if position % 7 > 0 {
            continue;
        }
        let head = admitted.header.hash;
        let past = device.log.iter().map(Vec::as_slice);
        let past = past.take(position as usize).filter(|chunk| {
            let hash = fieldkeep_model::ChangeHeader::parse(chunk).unwrap().hash;
            history.covers(&[head], &hash)
        });
        let mut alone = Document::new();
        alone.apply(past).unwrap();
        for id in ids() {
            let was = alone.record(&id);
            assert_eq!(device.document.record_at(&id, &[head]), was);
            let fields = ["r", "s", "j", "n", "t", "lines", "~deleted", "lines[x]", "lines[x].t"];
            let values = device.document.values_at(&id, &fields, &[head]);
            assert_eq!(
                values[..6],
                fields[..6]
                    .iter()
                    .map(|field| { was.as_ref().and_then(|was| was.fields.get(*field)).cloned() })
                    .collect::<Vec<_>>()
            );
            let deleted = was.as_ref().is_some_and(|was| was.deleted);
            assert_eq!(values[6] == Some(true.into()), deleted);
            let lines = was.as_ref().and_then(|was| was.fields.get("lines")?.as_array());
            let line = lines.and_then(|lines| lines.iter().find(|line| line["id"] == "x"));
            assert_eq!(values[7].is_some(), line.is_some());
            if let Some(line) = line {
                assert_eq!(values[8].as_ref(), line.get("t"));
            }
        }
    }
    let locate = |actor, counter| device.document.locate(actor, counter);
    let of_chunk = |(chunk, position): (&Vec<u8>, u64)| {
        let name = |field: &str| field.split(['.', '[']).next().unwrap_or_default().to_owned();
        let deeds = Document::deeds(chunk, &locate).into_iter();
        deeds.map(|deed| (position, deed.record, name(&deed.field))).collect::<Vec<_>>()
    };
    let deeds: Vec<_> = device.log.iter().zip(1..).flat_map(of_chunk).collect();
    for id in ids() {
        let wanted = touched.iter().rev().filter(|(_, records)| records.contains(&id));
        assert!(history.changes_of(&id, 1..=u64::MAX).eq(wanted.map(|(position, _)| *position)));
        let middle = history.len() / 2;
        let (early, late) = (1..=middle, middle + 1..=history.len());
        let halves = history.changes_of(&id, late).chain(history.changes_of(&id, early));
        assert!(halves.eq(history.changes_of(&id, 1..=u64::MAX)), "{id}: none twice, none missing");
        for field in ["r", "j", "n", "t", "lines"] {
            let found: Vec<u64> = history.changes_of_fields(&id, &[field], 1..=u64::MAX).collect();
            let did = deeds.iter().rev().filter(|(_, record, name)| *record == id && name == field);
            let mut did: Vec<u64> = did.map(|(position, ..)| *position).collect();
            did.dedup();
            assert_eq!(found, did, "{id} {field}");
        }
    }
    assert_eq!(device.document.record_at(&ids()[0], &[]), None);
}

fn meet(devices: &mut [Device; 3], a: usize, b: usize) {
    let [a, b] = devices.get_disjoint_mut([a, b]).unwrap();
    a.receive(b);
    b.receive(a);
}

/// Every conflict can be resolved by writing over it.
fn settle(device: &mut Device) {
    let fields = |record: &Record| {
        let edits = ["r", "s", "j", "n", "t"].map(|field| match field {
            "n" => Edit::Add("n".into(), 0),
            "t" => {
                let text = record.fields.get("t").and_then(|t| t.as_str()).unwrap_or_default();
                Edit::Text("t".into(), text.to_owned())
            }
            field => Edit::Put(field.into(), Scalar::Int(5)),
        });
        edits.to_vec()
    };
    for id in ids() {
        let record = device.document.record(&id).unwrap_or_default();
        let mut edits = fields(&record);
        for child in ["x", "y"] {
            let lines = record.fields.get("lines").and_then(|lines| lines.as_array());
            let line = lines.and_then(|lines| lines.iter().find(|line| line["id"] == child));
            let line = line.and_then(|line| line.as_object()).cloned().unwrap_or_default();
            let line = Record { fields: line, ..Record::default() };
            edits.push(Edit::Child("lines".into(), child.into(), fields(&line)));
        }
        let written = device.document.write(&device.author, &id, &edits.into()).unwrap();
        assert_eq!(written.unwrap().record.conflicts, Vec::<String>::new());
        assert_eq!(device.document.conflicts(&id), []);
    }
}

#[test]
fn devices_that_have_met_read_alike() {
    for seed in 1..=40 {
        println!("seed {seed}");
        run(seed);
    }
}
