//! What is to blame for a held record: as few changes as it takes.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use crate::support::{Organisation, address, key, put};
use fieldkeep_catalog::Catalog;
use fieldkeep_model::status::State;
use fieldkeep_model::{Edit, Grant, Outcome, RecordKey, Scalar, SegmentId};
use fieldkeep_replica::Blame;

const CATALOG: &str = r#"
catalog = 1
[type.order.field]
price = {}
discount = {}
note = {}
code = { unique = true }
count = { schema = { type = "integer", minimum = 1 } }
[[type.order.rule]]
name = "discount"
cel = "record.discount * 10 <= record.price * 3"
reason = "the discount is above 30 percent of the price"
"#;

const ANN: usize = 0;
const BEN: usize = 1;

/// Ann and Ben have an order of 100 with a discount of 10, which the relay passed.
struct Orders {
    org: Organisation,
    order: RecordKey,
    id: SegmentId,
    /// How much of each one's log the relay has.
    pushed: [u64; 2],
}

impl Orders {
    fn new() -> Self {
        let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL], vec![Grant::ALL]]);
        let (order, id) = (key("order", "1"), address("order").id(&org.relay.replica.org()));
        org.devices[ANN].put(&order, vec![int("price", 100), int("discount", 10)]);
        let batch = org.devices[ANN].batch(&id, 0);
        let number = org.devices[ANN].number;
        org.devices[BEN].replica.receive(number, &batch, 0).unwrap();
        org.devices[BEN].settle();
        let mut orders = Self { org, order, id, pushed: [0, 1] };
        orders.push(ANN);
        assert_eq!(orders.state(), Outcome::Valid);
        orders
    }

    fn write(&mut self, device: usize, edit: Edit) {
        self.org.devices[device].put(&self.order, vec![edit]);
    }

    /// What a device wrote reaches the relay, which judges it.
    fn push(&mut self, device: usize) {
        self.org.push(device, self.pushed[device], &self.id);
        self.pushed[device] = self.org.devices[device].replica.segment(&self.id).unwrap().tip;
        self.org.relay.settle();
    }

    fn state(&self) -> Outcome {
        match self.org.relay.state(&self.order).0 {
            State::Judged(outcome) => outcome,
            other => panic!("the relay has judged it: {other:?}"),
        }
    }

    fn by(&self, device: usize, field: &str) -> (String, Vec<String>) {
        (self.org.devices[device].replica.me().name.clone(), vec![field.to_owned()])
    }

    /// Who is named in the verdict.
    fn named(&self) -> Vec<String> {
        let views = self.org.relay.replica.views();
        let culprits = views.record(&self.order).unwrap().unwrap().culprits;
        culprits.into_iter().map(|culprit| culprit.person).collect()
    }

    /// Whose changes are to blame, and which fields they wrote.
    fn blamed(&mut self) -> Vec<(String, Vec<String>)> {
        let Some(Blame::Changes(changes)) = self.org.relay.replica.blame(&self.order).unwrap()
        else {
            panic!("changes are to blame");
        };
        let told = changes.into_iter().map(|change| {
            (change.person, change.writes.into_iter().map(|write| write.field).collect())
        });
        told.collect()
    }
}

fn int(field: &str, value: i64) -> Edit {
    Edit::Put(field.into(), Scalar::Int(value))
}

#[test]
fn two_edits_that_are_wrong_together_are_both_to_blame_and_what_else_was_written_is_not() {
    let mut orders = Orders::new();
    orders.write(ANN, put("note", "by phone"));
    orders.write(ANN, int("price", 50));
    orders.write(BEN, int("discount", 25));
    orders.write(BEN, put("note", "in a hurry"));
    orders.push(ANN);
    assert_eq!(orders.state(), Outcome::Valid);
    assert_eq!(orders.org.relay.replica.blame(&orders.order).unwrap(), None, "it is not held");
    orders.push(BEN);
    assert_eq!(orders.state(), Outcome::Held);
    // Ann's passed with the last valid state: what came since is Ben's alone.
    let expected = [orders.by(BEN, "discount")];
    assert_eq!(orders.blamed(), expected);
}

#[test]
fn of_what_came_together_each_change_that_it_takes_is_named() {
    let mut orders = Orders::new();
    orders.write(ANN, put("note", "by phone"));
    orders.write(ANN, int("price", 50));
    orders.write(BEN, put("note", "in a hurry"));
    orders.write(BEN, int("discount", 25));
    orders.write(BEN, put("note", "in a great hurry"));
    for device in [ANN, BEN] {
        orders.org.push(device, orders.pushed[device], &orders.id);
    }
    orders.org.relay.settle();
    assert_eq!(orders.state(), Outcome::Held);
    let expected = [orders.by(ANN, "price"), orders.by(BEN, "discount")];
    assert_eq!(orders.blamed(), expected);
}

#[test]
fn where_it_began_is_to_blame_and_not_what_went_on_from_there() {
    let mut orders = Orders::new();
    orders.write(ANN, put("note", "by phone"));
    orders.write(ANN, int("discount", 80));
    orders.write(ANN, int("discount", 90));
    orders.write(ANN, put("note", "by letter"));
    orders.push(ANN);
    assert_eq!(orders.state(), Outcome::Held);
    assert_eq!(orders.blamed().len(), 1);
    let Some(Blame::Changes(changes)) = orders.org.relay.replica.blame(&orders.order).unwrap()
    else {
        panic!("a change is to blame");
    };
    assert_eq!(changes[0].writes[0].after, Some(80.into()));
}

#[test]
fn what_was_wrong_and_was_mended_is_not_to_blame_for_what_is_wrong_now() {
    let mut orders = Orders::new();
    orders.write(ANN, int("discount", 80));
    orders.write(ANN, int("discount", 5));
    orders.write(BEN, int("discount", 70));
    orders.write(BEN, int("discount", 6));
    orders.write(ANN, int("count", 0));
    for device in [BEN, ANN] {
        orders.org.push(device, orders.pushed[device], &orders.id);
    }
    orders.org.relay.settle();
    assert_eq!(orders.state(), Outcome::Held);
    let expected = [orders.by(ANN, "count")];
    assert_eq!(orders.blamed(), expected);
}

#[test]
fn one_of_many_changes_is_found() {
    let mut orders = Orders::new();
    for nth in 0..200 {
        orders.write(ANN, put("note", &format!("note {nth}")));
        if nth == 70 {
            orders.write(ANN, int("discount", 80));
        }
    }
    orders.push(ANN);
    let expected = [orders.by(ANN, "discount")];
    assert_eq!(orders.blamed(), expected);
    for nth in 200..256 {
        orders.write(ANN, put("note", &format!("note {nth}")));
    }
    orders.push(ANN);
    let blame = orders.org.relay.replica.blame(&orders.order).unwrap();
    assert_eq!(blame, Some(Blame::TooMany(257)));
}

#[test]
fn what_another_record_does_hides_no_change_of_this_one() {
    let mut orders = Orders::new();
    orders.write(ANN, put("code", "a"));
    orders.push(ANN);
    orders.write(ANN, int("discount", 80));
    orders.org.devices[ANN].put(&key("order", "2"), vec![put("code", "a")]);
    orders.push(ANN);
    assert_eq!(orders.state(), Outcome::Held);
    assert_eq!(orders.org.relay.state(&orders.order).1.len(), 2, "for two reasons");
    let expected = [orders.by(ANN, "discount")];
    assert_eq!(orders.blamed(), expected);
}

#[test]
fn where_the_catalog_has_changed_no_change_of_the_record_is_to_blame() {
    let mut orders = Orders::new();
    let stricter = CATALOG.replace("record.price * 3", "record.price / 2");
    let relay = &mut orders.org.relay.replica;
    relay.publish(Catalog::parse(&stricter).unwrap()).unwrap();
    while relay.is_renewing() {
        relay.renew(100).unwrap();
    }
    relay.commit().unwrap();
    assert_eq!(orders.state(), Outcome::Held);
    let blame = orders.org.relay.replica.blame(&orders.order).unwrap();
    assert_eq!(blame, Some(Blame::Surroundings));
    orders.write(ANN, int("discount", 90));
    orders.push(ANN);
    let blame = orders.org.relay.replica.blame(&orders.order).unwrap();
    assert_eq!(blame, Some(Blame::Surroundings), "as it last was valid it would be held, too");
}

#[test]
fn who_makes_a_name_up_is_named_however_it_is_spelt() {
    for name in ["a.b", "a[b", "lines[1].c"] {
        let mut orders = Orders::new();
        orders.write(ANN, put(name, "made up"));
        orders.push(ANN);
        assert_eq!(orders.state(), Outcome::Held);
        orders.write(BEN, put("note", "in a hurry"));
        orders.push(BEN);
        assert_eq!(orders.named(), [orders.by(ANN, name).0], "{name}");
    }
}

/// Four thousand names that no catalog knows, in one change of some kilobytes.
#[test]
fn a_verdict_fits_a_frame_however_much_is_wrong() {
    let mut orders = Orders::new();
    let long = "x".repeat(240);
    let edits: Vec<_> = (0..4_000).map(|n| put(&format!("{long}{n:04}"), "")).collect();
    orders.org.devices[ANN].put(&orders.order, edits);
    orders.push(ANN);
    assert_eq!(orders.state(), Outcome::Held);
    let relay = &orders.org.relay.replica;
    let page = relay.verdict_page(&orders.id, (relay.epoch(), 0), 1, |_| true).unwrap();
    let bytes: usize = page.blocks.iter().map(|block| block.bytes.len()).sum();
    assert!(bytes < 256 * 1024, "{bytes} bytes");
    let (_, reasons) = orders.org.relay.state(&orders.order);
    assert!(reasons.len() > 10, "{}", reasons.len());
    let last = reasons.last().unwrap();
    assert!(last.ends_with("more reasons, which are not listed"), "{last}");
}
