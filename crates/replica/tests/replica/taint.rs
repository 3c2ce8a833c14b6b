//! What was merged without permission is held for as long as anything of it stands, also where no
//! value shows who wrote it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use crate::support::{Organisation, address, key, put};
use fieldkeep_model::status::State;
use fieldkeep_model::{Edit, Grant, Outcome, RecordEdit, RecordKey, SegmentId, TypeName};
use fieldkeep_store::Log as _;

const CATALOG: &str = r#"
catalog = 1
[type.other.field]
text = {}
[type.note.field]
text = {}
title = {}
stock = { kind = "counter" }
body = { kind = "text" }
[type.note.field.lines]
kind = "set"
[type.note.field.lines.field]
quantity = {}
[[type.note.rule]]
name = "titled"
cel = "!has(record.title) || record.title != 'wrong'"
reason = "the title is wrong"
"#;

const ANN: usize = 0;
const BEN: usize = 1;
const CAT: usize = 2;

/// Ann and Cat may write notes and Ben may not; each has the note that Ann wrote, and the relay
/// passed it.
struct Notes {
    org: Organisation,
    note: RecordKey,
    id: SegmentId,
    /// How much of each device's log the other has.
    met: [u64; 3],
}

impl Notes {
    fn new() -> Self {
        let other = Grant { ty: Some(TypeName::new("other").unwrap()), scope: None };
        let mut org =
            Organisation::found(CATALOG, &[vec![Grant::ALL], vec![other], vec![Grant::ALL]]);
        let (note, id) = (key("note", "1"), address("note").id(&org.relay.replica.org()));
        let line = Edit::Child("lines".into(), "7".into(), vec![put("quantity", "1")]);
        let edits = vec![put("text", "a"), add(5), body("hello"), line];
        org.devices[ANN].put(&note, edits);
        org.push(ANN, 0, &id);
        org.relay.settle();
        assert_eq!(org.relay.state(&note).0, State::Judged(Outcome::Valid));
        let mut notes = Self { org, note, id, met: [0; 3] };
        notes.meet(ANN, BEN);
        notes.met[ANN] = 0;
        notes.meet(ANN, CAT);
        notes
    }

    /// One device takes over what the other wrote.
    fn meet(&mut self, from: usize, to: usize) {
        let batch = self.org.devices[from].batch(&self.id, self.met[from]);
        self.met[from] = self.org.devices[from].replica.segment(&self.id).unwrap().tip;
        let number = self.org.devices[from].number;
        self.org.devices[to].replica.receive(number, &batch, 0).unwrap();
        self.org.devices[to].settle();
    }

    /// A device writes, and what it wrote reaches the relay.
    fn write(&mut self, device: usize, edit: impl Into<RecordEdit>) {
        let after = self.org.devices[device].replica.segment(&self.id).unwrap().tip;
        let wrote = self.org.devices[device].put(&self.note, edit);
        assert!(wrote.change.is_some(), "it changes something");
        self.org.push(device, after, &self.id);
        self.org.relay.settle();
    }

    /// Ben writes, and Ann something else upon it: what Ben wrote is merged, without permission.
    fn slip_in(&mut self, edit: impl Into<RecordEdit>) {
        self.write(BEN, edit);
        assert_eq!(self.org.relay.replica.store().asides().unwrap().len(), 1);
        self.meet(BEN, ANN);
        self.write(ANN, vec![put("title", "by Ann")]);
        assert_eq!(self.org.relay.replica.store().asides().unwrap().len(), 0);
    }

    /// Who is named in the verdict, and for which fields.
    fn named(&self) -> Vec<(u64, Vec<String>)> {
        let views = self.org.relay.replica.views();
        let culprits = views.record(&self.note).unwrap().unwrap().culprits;
        culprits.into_iter().map(|culprit| (culprit.device, culprit.fields)).collect()
    }

    fn by(&self, device: usize, field: &str) -> (u64, Vec<String>) {
        (self.org.devices[device].number, vec![field.to_owned()])
    }

    fn is_held(&self) -> bool {
        let (state, reasons) = self.org.relay.state(&self.note);
        let held = state == State::Judged(Outcome::Held);
        assert_eq!(reasons, ["a change to it was not permitted"][..usize::from(held)]);
        held
    }
}

fn add(by: i64) -> Edit {
    Edit::Add("stock".into(), by)
}

fn body(text: &str) -> Edit {
    Edit::Text("body".into(), text.into())
}

fn clear(field: &str) -> Edit {
    Edit::Clear(field.into())
}

/// What Ben does is held, also after Ann did what does not undo it, until she does what does.
fn held_until(slipped: Edit, in_vain: Vec<Edit>, remedy: Vec<Edit>) {
    let mut notes = Notes::new();
    notes.slip_in(vec![slipped.clone()]);
    assert!(notes.is_held(), "{slipped:?}");
    let views = notes.org.relay.replica.views().record(&notes.note).unwrap().unwrap();
    let ben = notes.org.devices[BEN].number;
    assert!(views.culprits.iter().any(|culprit| culprit.device == ben), "{slipped:?}");
    for edit in in_vain {
        notes.write(ANN, vec![edit.clone()]);
        assert!(notes.is_held(), "{slipped:?}, then {edit:?}");
    }
    notes.write(ANN, remedy);
    assert!(!notes.is_held(), "{slipped:?}");
}

#[test]
fn a_value_is_held_until_it_is_overwritten() {
    held_until(put("text", "b"), vec![put("title", "x"), add(1)], vec![put("text", "c")]);
}

#[test]
fn an_increment_is_held_until_the_counter_begins_afresh() {
    held_until(add(3), vec![add(-3), put("text", "c")], vec![clear("stock"), add(5)]);
}

#[test]
fn a_cleared_field_is_held_until_it_is_written_or_cleared_again() {
    held_until(clear("text"), vec![put("title", "x")], vec![put("text", "a")]);
    let mut notes = Notes::new();
    notes.slip_in(vec![clear("text")]);
    notes.write(ANN, vec![put("text", "a")]);
    notes.write(ANN, vec![clear("text")]);
    assert!(!notes.is_held());
}

#[test]
fn characters_taken_out_of_a_text_are_held_until_it_is_written_afresh() {
    let remedy = vec![clear("body"), body("hello")];
    held_until(body("hell"), vec![body("hello")], remedy);
}

#[test]
fn a_child_made_empty_is_held_until_it_is_removed() {
    let child = Edit::Child("lines".into(), "8".into(), Vec::new());
    let remedy = Edit::RemoveChild("lines".into(), "8".into());
    held_until(child, vec![put("text", "c")], vec![remedy]);
}

#[test]
fn a_relay_that_starts_again_holds_what_it_held() {
    let mut notes = Notes::new();
    notes.slip_in(vec![add(3)]);
    notes.org.relay = notes.org.relay.reopen();
    notes.write(ANN, vec![put("text", "c")]);
    assert!(notes.is_held());
    notes.write(ANN, vec![clear("stock")]);
    assert!(!notes.is_held());
    notes.org.relay = notes.org.relay.reopen();
    let record = notes.note.clone();
    notes.org.relay.replica.rejudge(&[record]).unwrap();
    assert!(!notes.is_held());
}

#[test]
fn a_write_that_did_not_know_of_it_releases_nothing() {
    let mut notes = Notes::new();
    notes.slip_in(vec![add(3)]);
    let after = notes.org.devices[CAT].replica.segment(&notes.id).unwrap().tip;
    notes.write(CAT, vec![clear("stock"), add(1)]);
    assert!(notes.is_held());
    notes.met[CAT] = after;
    notes.meet(CAT, ANN);
    notes.write(ANN, vec![clear("stock"), add(1)]);
    assert!(!notes.is_held());
}

#[test]
fn who_wrote_without_permission_is_named_beside_who_broke_a_rule_and_nobody_else_is() {
    for slipped in [put("text", "b"), clear("text")] {
        let mut notes = Notes::new();
        notes.slip_in(vec![slipped]);
        assert_eq!(notes.named(), [notes.by(BEN, "text")], "what Ann wrote upon it is permitted");
        notes.write(ANN, vec![put("title", "wrong")]);
        assert_eq!(notes.named(), [notes.by(BEN, "text"), notes.by(ANN, "title")]);
        notes.write(ANN, vec![put("text", "c")]);
        assert_eq!(notes.named(), [notes.by(ANN, "title")]);
    }
}
