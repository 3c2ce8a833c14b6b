//! What a document tells of its history: who wrote, what a change wrote, and how content is written
//! again where a change is lacking.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use fieldkeep_documents::Document;
use fieldkeep_documents::document::{Author, FieldWrite, Written};
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};
use serde_json::{Value, json};

fn author(number: u8) -> Author {
    Author { actor: ActorId([number; 20]), person: format!("person-{number}"), time: 1 }
}

fn rid(id: &str) -> RecordId {
    RecordId::new(id).unwrap()
}

fn write(doc: &mut Document, by: u8, edit: impl Into<RecordEdit>) -> Written {
    doc.write(&author(by), &rid("7"), &edit.into()).unwrap().unwrap()
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

fn line(id: &str, edits: Vec<Edit>) -> Edit {
    Edit::Child("lines".into(), id.into(), edits)
}

fn fields(doc: &Document) -> Value {
    Value::Object(doc.record(&rid("7")).unwrap().fields)
}

fn named(writes: &[FieldWrite]) -> Vec<(&str, Option<&Value>, bool)> {
    writes.iter().map(|w| (w.field.as_str(), w.value.as_ref(), w.added)).collect()
}

#[test]
fn the_writers_of_standing_values_are_known() {
    let mut doc = Document::new();
    write(&mut doc, 1, vec![int("a", 1), text("note", "abc"), line("x", vec![int("n", 1)])]);
    let second = write(&mut doc, 2, vec![int("a", 2), text("note", "abcd")]);
    let third = write(&mut doc, 3, vec![line("x", vec![int("n", 2), int("m", 1)])]);
    let who = |asked: &str| {
        let writers = doc.writers(&rid("7"), &[asked.to_owned()]);
        writers.into_iter().map(|(f, actor, c)| (f, actor.0[0], c)).collect::<Vec<_>>()
    };
    let actors = |asked| who(asked).into_iter().map(|(_, by, _)| by).collect::<Vec<_>>();
    assert_eq!(actors("a"), [2]);
    assert_eq!(actors("note"), [1, 1, 2]);
    assert_eq!(actors("lines.n"), [3]);
    assert_eq!(actors("lines[x]"), [3, 3]);
    assert_eq!(actors("lines"), [3, 3]);
    assert_eq!(actors("other"), [0; 0]);
    let (field, _, counter) = who("a").remove(0);
    assert_eq!(field, "a");
    assert_eq!(doc.change_of(author(2).actor, counter), Some(second.hash));

    write(&mut doc, 4, vec![Edit::RemoveChild("lines".into(), "x".into())]);
    let writers = doc.writers(&rid("7"), &["lines".to_owned()]);
    assert_eq!(writers.len(), 1);
    assert_eq!((writers[0].0.as_str(), writers[0].1), ("lines[x].~deleted", author(4).actor));
    assert_ne!(doc.change_of(writers[0].1, writers[0].2), Some(third.hash));
}

#[test]
fn who_goes_on_where_he_ended_is_known_for_each_of_his_changes() {
    let mut doc = Document::new();
    let mut changes = vec![write(&mut doc, 1, vec![text("note", "first")]).hash];
    for content in ["first, then", "first, then more", "first, then more, and more"] {
        changes.push(write(&mut doc, 1, vec![text("note", content)]).hash);
    }
    let writers = doc.writers(&rid("7"), &["note".to_owned()]).into_iter();
    let mut known: Vec<_> =
        writers.map(|(_, actor, counter)| doc.change_of(actor, counter).unwrap()).collect();
    known.dedup();
    assert_eq!(known, changes);
}

#[test]
fn a_change_tells_which_fields_it_wrote() {
    let mut doc = Document::new();
    let created = write(
        &mut doc,
        1,
        vec![int("a", 1), add("n", 2), text("note", "ab"), line("x", vec![int("q", 5)])],
    );
    let nowhere = |_, _| None;
    let writes = Document::field_writes(&created.chunk, &nowhere);
    let mut writes = named(&writes);
    writes.sort_unstable_by_key(|(field, ..)| *field);
    let (one, two, ab, five) = (json!(1), json!(2), json!("ab"), json!(5));
    let expected = [
        ("a", Some(&one), false),
        ("lines[x].q", Some(&five), false),
        ("n", Some(&two), false),
        ("note", Some(&ab), false),
    ];
    assert_eq!(writes, expected);

    let edits = vec![
        Edit::Clear("a".into()),
        add("n", -1),
        text("note", "aXb"),
        line("x", vec![int("q", 6)]),
    ];
    let edited = write(&mut doc, 1, edits);
    assert_eq!(Document::field_writes(&edited.chunk, &nowhere), []);
    let writes =
        Document::field_writes(&edited.chunk, &|actor, counter| doc.locate(actor, counter));
    let (less, x, six) = (json!(-1), json!("X"), json!(6));
    let expected = [
        ("a", None, false),
        ("n", Some(&less), true),
        ("note", Some(&x), true),
        ("lines[x].q", Some(&six), false),
    ];
    assert_eq!(named(&writes), expected);
    assert_eq!(Document::field_writes(b"nonsense", &nowhere), []);
}

#[test]
fn content_is_written_again_where_its_changes_are_lacking() {
    let mut old = Document::new();
    let first = write(
        &mut old,
        1,
        vec![
            int("a", 1),
            add("n", 10),
            text("note", "ab"),
            line("x", vec![int("q", 1)]),
            line("y", vec![]),
        ],
    );
    let mut new = Document::new();
    new.apply([first.chunk.as_slice()]).unwrap();
    let lost = [
        write(&mut old, 1, vec![int("a", 2), add("n", 3), add("m", 1), text("note", "abc")]),
        write(
            &mut old,
            1,
            vec![int("a", 3), add("n", 4), add("m", 1), line("z", vec![int("q", 9)])],
        ),
        write(
            &mut old,
            1,
            vec![
                line("x", vec![int("q", 7)]),
                Edit::RemoveChild("lines".into(), "y".into()),
                Edit::Json("j".into(), "[1]".into()),
            ],
        ),
        write(&mut old, 1, RecordEdit::delete()),
    ];
    let chunks: Vec<_> = lost.iter().map(|w| w.chunk.as_slice()).collect();
    let edits = old.rewritten(&chunks, &|actor, counter| old.locate(actor, counter));
    new.write_many(&author(2), &edits).unwrap().unwrap();
    assert_eq!(new.record(&rid("7")), old.record(&rid("7")));
    assert_eq!(fields(&new)["n"], json!(17));
    assert!(new.record(&rid("7")).unwrap().deleted);
}

#[test]
fn a_record_that_only_lost_changes_hold_is_made_again() {
    let mut old = Document::new();
    let lost = write(&mut old, 1, vec![int("a", 1), line("x", vec![text("t", "u")])]);
    let edits = old.rewritten(&[lost.chunk.as_slice()], &|_, _| None);
    let mut new = Document::new();
    new.write_many(&author(2), &edits).unwrap().unwrap();
    assert_eq!(fields(&new), fields(&old));
}
