//! What a document promises of its records: kinds, twins, soft deletion, conflicts, one change a
//! write.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use fieldkeep_documents::document::{Author, LoadError, Record, WriteError, Written};
use fieldkeep_documents::{Document, History};
use fieldkeep_model::header::limit;
use fieldkeep_model::{ActorId, ChangeHeader, Edit, RecordEdit, RecordId, Scalar};
use serde_json::{Value, json};

/// A device with its document, and the changes that it has made.
struct Device {
    doc: Document,
    author: Author,
    made: Vec<Vec<u8>>,
}

impl Device {
    fn new(number: u8) -> Self {
        let mut actor = [0; 20];
        actor[7] = number;
        let author = Author { actor: ActorId(actor), person: format!("person-{number}"), time: 1 };
        Self { doc: Document::new(), author, made: Vec::new() }
    }

    fn edit(&mut self, id: &str, edit: impl Into<RecordEdit>) -> Option<Written> {
        let written = self.doc.write(&self.author, &rid(id), &edit.into()).unwrap();
        self.made.extend(written.as_ref().map(|w| w.chunk.clone()));
        written
    }

    fn receive(&mut self, other: &Self) {
        self.doc.apply(other.made.iter().map(Vec::as_slice)).unwrap();
    }

    fn record(&self, id: &str) -> Record {
        self.doc.record(&rid(id)).unwrap()
    }

    fn fields(&self, id: &str) -> Value {
        Value::Object(self.record(id).fields)
    }
}

/// Each of the two receives what the other has made; both must read alike.
fn exchange(a: &mut Device, b: &mut Device, id: &str) {
    a.receive(b);
    b.receive(a);
    assert_eq!(a.doc.heads(), b.doc.heads());
    assert_eq!(a.record(id), b.record(id));
}

fn rid(id: &str) -> RecordId {
    RecordId::new(id).unwrap()
}

fn put(field: &str, value: &str) -> Edit {
    Edit::Put(field.into(), Scalar::Str(value.into()))
}

fn int(field: &str, value: i64) -> Edit {
    Edit::Put(field.into(), Scalar::Int(value))
}

fn add(field: &str, by: i64) -> Edit {
    Edit::Add(field.into(), by)
}

fn text(field: &str, content: &str) -> Edit {
    Edit::Text(field.into(), content.into())
}

fn child(id: &str, edits: Vec<Edit>) -> Edit {
    Edit::Child("lines".into(), id.into(), edits)
}

fn remove(id: &str) -> Edit {
    Edit::RemoveChild("lines".into(), id.into())
}

fn undelete() -> RecordEdit {
    RecordEdit { edits: Vec::new(), deleted: Some(false) }
}

#[test]
fn every_kind_of_field_reads_back_when_made_at_once_and_one_by_one() {
    let edits = vec![
        put("customer", "Ærø"),
        int("discount", 5),
        Edit::Put("weight".into(), Scalar::Float(1.5)),
        Edit::Put("paid".into(), Scalar::Bool(false)),
        Edit::Json("address".into(), r#"{"b": 1.50, "a": [null]}"#.into()),
        add("stock", 7),
        text("note", "fragile"),
        child("b", vec![int("quantity", 2), add("picked", 1)]),
        child("a", vec![text("remark", "x")]),
    ];
    let mut at_once = Device::new(1);
    at_once.edit("7", edits.clone());
    let mut one_by_one = Device::new(2);
    for edit in edits {
        one_by_one.edit("7", vec![edit]);
    }
    let canonical = concat!(
        r#"{"address":{"a":[null],"b":1.50},"customer":"Ærø","discount":5,"#,
        r#""lines":[{"id":"a","remark":"x"},{"id":"b","picked":1,"quantity":2}],"#,
        r#""note":"fragile","paid":false,"stock":7,"weight":1.5}"#
    );
    assert_eq!(at_once.record("7").canonical(), canonical);
    assert_eq!(one_by_one.record("7").canonical(), canonical);
    assert_eq!(at_once.record("7").hash(), one_by_one.record("7").hash());
}

#[test]
fn a_write_is_exactly_one_change_that_says_who_and_when() {
    let mut ann = Device::new(1);
    ann.edit("7", vec![put("a", "1"), child("x", vec![int("n", 1)])]);
    let edits = vec![put("a", "2"), add("n", 1), child("x", vec![int("n", 2)]), remove("x")];
    let written = ann.edit("7", edits).unwrap();
    let header = ChangeHeader::parse(&written.chunk).unwrap();
    assert_eq!((header.hash, header.seq, header.actor), (written.hash, 2, ann.author.actor));
    assert_eq!((header.message.as_str(), header.time), ("person-1", 1));
    assert_eq!(ann.doc.heads(), [written.hash]);
    assert_eq!(written.record, ann.record("7"));
}

#[test]
fn what_changes_nothing_makes_no_change() {
    let mut ann = Device::new(1);
    assert_eq!(ann.edit("7", RecordEdit::delete()), None);
    assert_eq!(ann.doc.heads(), []);
    ann.edit("7", vec![put("a", "1"), text("note", "x"), child("x", vec![]), add("n", 1)]);
    let same = vec![
        put("a", "1"),
        text("note", "x"),
        child("x", vec![]),
        add("n", 0),
        remove("absent"),
        Edit::Clear("absent".into()),
    ];
    assert_eq!(ann.edit("7", same), None);
    assert_eq!(ann.edit("7", undelete()), None);
    assert_eq!(ann.made.len(), 1);
}

#[test]
fn an_empty_edit_creates_a_record() {
    let mut ann = Device::new(1);
    assert!(ann.edit("7", vec![]).is_some());
    assert_eq!(ann.fields("7"), json!({}));
    assert_eq!(ann.doc.ids(), [rid("7")]);
}

#[test]
fn two_devices_that_import_the_same_customer_have_one_record() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    let common = || vec![put("name", "Alfreds"), child("1", vec![put("city", "Berlin")])];
    ann.edit("c", common());
    ann.edit("c", vec![put("phone", "030"), child("2", vec![put("city", "Bonn")])]);
    ben.edit("c", common());
    ben.edit("c", vec![put("fax", "031"), child("1", vec![put("zip", "10115")])]);
    exchange(&mut ann, &mut ben, "c");
    let lines = json!([
        {"id": "1", "city": "Berlin", "zip": "10115"},
        {"id": "2", "city": "Bonn"}
    ]);
    let whole = json!({"fax": "031", "lines": lines, "name": "Alfreds", "phone": "030"});
    assert_eq!(ann.fields("c"), whole);
    assert_eq!(ann.record("c").conflicts, Vec::<String>::new());
}

#[test]
fn a_write_wins_over_both_twins_and_settles_what_differed() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("c", vec![put("name", "Ann's"), put("phone", "1")]);
    ann.edit("c", vec![put("phone", "11")]);
    ben.edit("c", vec![put("name", "Ben's"), put("phone", "2")]);
    exchange(&mut ann, &mut ben, "c");
    assert_eq!(ann.record("c").conflicts, ["name", "phone"]);
    // The object that wins is Ben's, the newest phone is in Ann's.
    assert_eq!(ann.fields("c"), json!({"name": "Ben's", "phone": "11"}));
    ben.edit("c", vec![put("name", "Ben's"), put("phone", "3")]);
    exchange(&mut ann, &mut ben, "c");
    assert_eq!(ann.fields("c"), json!({"name": "Ben's", "phone": "3"}));
    assert_eq!(ann.record("c").conflicts, Vec::<String>::new());
    ann.edit("c", vec![Edit::Clear("phone".into())]);
    assert_eq!(ann.fields("c"), json!({"name": "Ben's"}));
}

#[test]
fn sets_and_children_that_two_devices_begin_are_united() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![]);
    ben.receive(&ann);
    ann.edit("7", vec![child("x", vec![int("n", 1)]), child("y", vec![])]);
    ben.edit("7", vec![child("x", vec![int("m", 2)]), child("z", vec![])]);
    exchange(&mut ann, &mut ben, "7");
    let lines = json!([{"id": "x", "m": 2, "n": 1}, {"id": "y"}, {"id": "z"}]);
    assert_eq!(ann.fields("7"), json!({ "lines": lines }));
    ann.edit("7", vec![child("x", vec![int("n", 3), int("m", 4)]), remove("z")]);
    exchange(&mut ann, &mut ben, "7");
    let lines = json!([{"id": "x", "m": 4, "n": 3}, {"id": "y"}]);
    assert_eq!(ben.fields("7"), json!({ "lines": lines }));
}

#[test]
fn a_deleted_record_stays_deleted_under_a_concurrent_edit_which_is_kept() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![put("a", "1")]);
    ben.receive(&ann);
    ann.edit("7", RecordEdit::delete());
    ben.edit("7", vec![put("a", "2")]);
    exchange(&mut ann, &mut ben, "7");
    assert!(ben.record("7").deleted);
    assert_eq!(ben.record("7").canonical(), r#"{"a":"2","~deleted":true}"#);
    ben.edit("7", undelete());
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.record("7").canonical(), r#"{"a":"2"}"#);
}

#[test]
fn a_removed_child_stays_removed_until_it_is_written_into() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![child("x", vec![int("n", 1)])]);
    ben.receive(&ann);
    ann.edit("7", vec![remove("x")]);
    ben.edit("7", vec![child("x", vec![int("n", 2)])]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.fields("7"), json!({"lines": []}));
    ben.edit("7", vec![child("x", vec![])]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.fields("7"), json!({"lines": [{"id": "x", "n": 2}]}));
    ann.edit("7", vec![Edit::Clear("lines".into())]);
    assert_eq!(ann.fields("7"), json!({"lines": []}));
}

#[test]
fn concurrent_values_are_a_conflict_until_one_is_written() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![put("a", "0"), child("x", vec![int("n", 0)])]);
    ben.receive(&ann);
    ann.edit("7", vec![put("a", "ann"), child("x", vec![int("n", 1)])]);
    ben.edit("7", vec![put("a", "ben"), child("x", vec![int("n", 2)])]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.record("7").conflicts, ["a", "lines[x].n"]);
    let conflicts = ann.doc.conflicts(&rid("7"));
    let values: Vec<_> = conflicts[0].values.iter().map(|(v, actor, _)| (v, *actor)).collect();
    let (by_ann, by_ben) = (ann.author.actor, ben.author.actor);
    assert_eq!(values, [(&json!("ben"), by_ben), (&json!("ann"), by_ann)]);
    assert_eq!(conflicts[1].field, "lines[x].n");

    let resolved = ann.edit("7", vec![put("a", "ben"), child("x", vec![int("n", 2)])]);
    assert_eq!(resolved.unwrap().record.conflicts, Vec::<String>::new());
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ben.fields("7"), json!({"a": "ben", "lines": [{"id": "x", "n": 2}]}));
    assert_eq!(ben.doc.conflicts(&rid("7")), []);
}

#[test]
fn equal_concurrent_values_are_no_conflict() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![put("a", "0")]);
    ben.receive(&ann);
    ann.edit("7", vec![put("a", "same")]);
    ben.edit("7", vec![put("a", "same")]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.record("7").conflicts, Vec::<String>::new());
    assert!(ann.edit("7", vec![put("a", "same")]).is_some());
}

#[test]
fn counters_add_up_and_concurrent_beginnings_are_shown() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![add("stock", 10)]);
    ben.receive(&ann);
    ann.edit("7", vec![add("stock", 3), add("sold", 1)]);
    ben.edit("7", vec![add("stock", -4), add("sold", 1)]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.fields("7"), json!({"sold": 1, "stock": 9}));
    assert_eq!(ann.record("7").conflicts, ["sold"]);
    ann.edit("7", vec![add("sold", 0)]);
    ann.edit("7", vec![add("sold", 1)]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ben.fields("7"), json!({"sold": 2, "stock": 9}));
    assert_eq!(ben.record("7").conflicts, Vec::<String>::new());
}

#[test]
fn texts_merge_and_a_small_edit_is_a_small_change() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    let long = "the quick brown fox jumps over the lazy dog ".repeat(20);
    ann.edit("7", vec![text("note", &long)]);
    ben.receive(&ann);
    let written = ann.edit("7", vec![text("note", &format!("{long}the end"))]).unwrap();
    assert!(written.chunk.len() < 250, "{} bytes", written.chunk.len());
    ben.edit("7", vec![text("note", &format!("🦊 {long}"))]);
    exchange(&mut ann, &mut ben, "7");
    assert_eq!(ann.fields("7"), json!({"note": format!("🦊 {long}the end")}));
}

#[test]
fn a_text_that_is_wholly_other_is_replaced() {
    let mut ann = Device::new(1);
    let (old, new) = ("ab".repeat(2500), "cd".repeat(2000));
    ann.edit("7", vec![text("note", &format!("<{old}>"))]);
    ann.edit("7", vec![text("note", &format!("<{new}>"))]);
    assert_eq!(ann.fields("7"), json!({"note": format!("<{new}>")}));
}

#[test]
fn a_long_value_is_deflated_and_one_too_long_is_refused_and_undone() {
    let mut ann = Device::new(1);
    ann.edit("7", vec![put("a", "1")]);
    let written = ann.edit("7", vec![put("a", &"long ".repeat(40_000))]).unwrap();
    assert!(written.chunk.len() < limit::CHUNK);
    assert_eq!(ChangeHeader::parse(&written.chunk).unwrap().hash, written.hash);
    let before = (ann.doc.heads(), ann.record("7"));

    let noise: String = (0..60_000u64).map(|n| format!("{:02x}", n * n * 7919 % 251)).collect();
    let refused = |edit: Edit, ann: &mut Device| {
        ann.doc.write(&ann.author.clone(), &rid("7"), &vec![edit].into()).unwrap_err()
    };
    assert_eq!(refused(put("a", &"x".repeat(limit::INFLATED + 1)), &mut ann), WriteError::TooLarge);
    assert_eq!(refused(text("t", &"x".repeat(17_000)), &mut ann), WriteError::TooLarge);
    let incompressible = blake3_hex(&noise, 2_400);
    assert_eq!(refused(put("b", &incompressible), &mut ann), WriteError::TooLarge);
    assert_eq!((ann.doc.heads(), ann.record("7")), before);
    assert!(ann.edit("7", vec![put("a", "2")]).is_some());
}

/// Hexadecimal digits that do not repeat, 64 times `blocks` of them.
fn blake3_hex(seed: &str, blocks: usize) -> String {
    (0..blocks)
        .map(|n| fieldkeep_model::RecordHash::of(&format!("{seed}{n}")).to_string())
        .collect()
}

#[test]
fn what_cannot_be_written_is_refused_and_nothing_of_it_is_done() {
    let mut ann = Device::new(1);
    ann.edit("7", vec![add("n", 1 << 32)]);
    let before = ann.doc.heads();
    let wrong = [
        Edit::Put("f".into(), Scalar::Float(f64::NAN)),
        Edit::Json("j".into(), "{".into()),
        put("", "x"),
        put("~deleted", "x"),
        put(&"k".repeat(257), "x"),
        add("n", (1 << 32) + 1),
        child("x", vec![put("id", "y")]),
        child("x", vec![child("y", vec![])]),
    ];
    for edit in wrong {
        let edits: RecordEdit = vec![put("first", "x"), edit].into();
        let refused = ann.doc.write(&ann.author, &rid("7"), &edits);
        assert!(matches!(refused, Err(WriteError::Edit(_))), "{refused:?}");
    }
    let long = Author { person: "p".repeat(201), ..ann.author.clone() };
    let refused = ann.doc.write(&long, &rid("7"), &vec![put("a", "1")].into());
    assert_eq!(refused, Err(WriteError::Person));
    assert_eq!(ann.doc.heads(), before);
    assert_eq!(ann.fields("7"), json!({"n": 1i64 << 32}));
}

#[test]
fn many_records_are_written_in_one_change_or_not_at_all() {
    let mut ann = Device::new(1);
    let edits: Vec<_> = (0..50)
        .map(|n| (rid(&format!("{n:02}")), vec![int("n", n)].into()))
        .collect::<Vec<(RecordId, RecordEdit)>>();
    let written = ann.doc.write_many(&ann.author, &edits).unwrap().unwrap();
    assert_eq!(written.records.len(), 50);
    assert_eq!(ann.doc.heads(), [written.made.hash]);
    let mut wrong = edits.clone();
    wrong.push((rid("x"), vec![put("", "")].into()));
    wrong[0].1 = vec![int("n", 99)].into();
    assert!(ann.doc.write_many(&ann.author, &wrong).is_err());
    assert_eq!(ann.doc.heads(), [written.made.hash]);
}

#[test]
fn heads_are_merged_by_an_empty_change() {
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit("7", vec![put("a", "1")]);
    assert_eq!(ann.doc.merge_heads(&ann.author).unwrap(), []);
    ben.edit("8", vec![put("a", "1")]);
    ann.receive(&ben);
    assert_eq!(ann.doc.heads().len(), 2);
    let made = ann.doc.merge_heads(&ann.author).unwrap();
    let [made] = made.as_slice() else { panic!("two heads take one change") };
    assert_eq!(ann.doc.heads(), [made.hash]);
    assert_eq!(ChangeHeader::parse(&made.chunk).unwrap().deps.len(), 2);
}

/// The documents of `devices` that never met, received by one: so many heads.
fn strangers(devices: u16) -> Vec<Vec<u8>> {
    let writes = (0..devices).map(|number| {
        let mut device = Device::new(0);
        device.author.actor.0[5..7].copy_from_slice(&(number + 1).to_be_bytes());
        device.edit(&format!("{number}"), vec![int("n", 1), int("m", 2)]).unwrap().chunk
    });
    writes.collect()
}

#[test]
fn any_number_of_heads_is_merged_by_changes_that_pass_the_gate() {
    for (devices, merges) in [(512, 1), (1_023, 2), (2_000, 4)] {
        let (mut ann, mut gate) = (Device::new(1), History::new());
        let own = ann.edit("own", vec![int("n", 7)]).unwrap().chunk;
        let others = strangers(devices);
        for chunk in [&own].into_iter().chain(&others) {
            gate.replay(chunk).unwrap();
        }
        ann.doc.apply(others.iter().map(Vec::as_slice)).unwrap();
        let made = ann.doc.merge_heads(&ann.author).unwrap();
        assert_eq!(made.len(), merges, "{devices}");
        for change in &made {
            gate.replay(&change.chunk).unwrap();
        }
        assert_eq!(ann.doc.heads(), [made.last().unwrap().hash]);
        assert_eq!(gate.heads(), ann.doc.heads());
        let written = ann.edit("own", vec![int("n", 8)]).unwrap();
        gate.replay(&written.chunk).unwrap();
        let mut ben = Document::load(&ann.doc.save()).unwrap();
        assert_eq!(ben.heads(), [written.hash]);
        assert!(ben.merge_heads(&ann.author).unwrap().is_empty());
    }
}

#[test]
fn a_write_upon_more_heads_than_a_change_may_name_is_possible_once_they_are_merged() {
    let mut ann = Device::new(1);
    let others = strangers(1_024);
    ann.doc.apply(others.iter().map(Vec::as_slice)).unwrap();
    let refused = ann.doc.write(&ann.author, &rid("own"), &vec![int("n", 1)].into());
    assert_eq!(refused, Err(WriteError::TooManyHeads));
    ann.doc.merge_heads(&ann.author).unwrap();
    assert!(ann.edit("own", vec![int("n", 1)]).is_some());
}

#[test]
fn a_snapshot_loads_whole_or_not_at_all() {
    let mut ann = Device::new(1);
    for n in 0..40 {
        ann.edit(&format!("{n}"), vec![int("n", n), child("x", vec![int("m", n)])]);
    }
    let snapshot = ann.doc.save();
    let mut loaded = Document::load(&snapshot).unwrap();
    assert_eq!(loaded.heads(), ann.doc.heads());
    assert_eq!(loaded.record(&rid("39")), ann.doc.record(&rid("39")));
    let written = loaded.write(&ann.author, &rid("3"), &vec![int("n", -1)].into()).unwrap();
    ann.doc.apply([written.unwrap().chunk.as_slice()]).unwrap();
    assert_eq!(ann.fields("3")["n"], json!(-1));
    let reloaded = Document::load(&loaded.save()).unwrap();
    assert_eq!(reloaded.heads(), ann.doc.heads());

    for at in (0..snapshot.len()).step_by(7) {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 1;
        assert_eq!(Document::load(&damaged).unwrap_err(), LoadError::Damaged);
        assert_eq!(Document::load(&snapshot[..at]).unwrap_err(), LoadError::Damaged);
    }
}

#[test]
fn nonsense_poisons_the_document_and_it_says_so() {
    let mut ann = Device::new(1);
    ann.edit("7", vec![put("a", "1")]);
    assert!(ann.doc.apply([b"nonsense".as_slice()]).is_err());
    assert!(ann.doc.is_poisoned());
    let refused = ann.doc.write(&ann.author, &rid("7"), &vec![put("a", "2")].into());
    assert_eq!(refused, Err(WriteError::Poisoned));
    assert!(Document::load(&ann.doc.save()).is_err());
}

#[test]
fn a_counter_grows_beyond_what_is_added_at_once() {
    let much = 1 << 32;
    let (mut ann, mut ben) = (Device::new(1), Device::new(2));
    ann.edit(
        "7",
        vec![add("n", much), add("n", much), child("x", vec![add("m", much), add("m", 1)])],
    );
    let line = json!({"id": "x", "m": much + 1});
    assert_eq!(ann.fields("7"), json!({"lines": [line], "n": 2 * much}));
    ben.edit("7", vec![add("n", much), add("n", 5)]);
    exchange(&mut ann, &mut ben, "7");
    let n = ann.fields("7")["n"].clone();
    ann.edit("7", vec![add("n", 0)]);
    assert_eq!((&ann.fields("7")["n"], ann.record("7").conflicts.len()), (&n, 0));
}
