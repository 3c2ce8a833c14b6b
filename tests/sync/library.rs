//! The device library as an application uses it: its own types, queries that go on, writes that are
//! awaited.

use std::time::Duration;

use crate::support::*;
use fieldkeep_device::{AwaitError, Change, Choice, Device, LoadError, SaveError, Strip, Tier};
use fieldkeep_model::status::State;
use fieldkeep_model::{Outcome, RecordKey, TypeName};
use serde::{Deserialize, Serialize};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.order]
[type.order.field.customer]
[type.order.field.price]
schema = { type = "integer" }
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.product]
[type.order.field.lines.field.quantity]
schema = { type = "integer" }
[type.order.field.lines.field.packs]
kind = "counter"
[type.order.field.boxes]
kind = "counter"
[[type.order.rule]]
name = "price"
cel = "!has(record.price) || record.price > 0"
reason = "the price has to be above 0"
"#;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    price: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    id: String,
    product: String,
    quantity: i64,
}

fn key(text: &str) -> RecordKey {
    text.parse().expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_types_are_saved_and_loaded() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let line = Line { id: "1".into(), product: "tea".into(), quantity: 3 };
    let order = Order { customer: "c1".into(), price: 12, lines: vec![line] };
    ann.save(&key("order/o1"), &order).expect("the catalog has these fields");
    assert_eq!(ann.load(&key("order/o1")).expect("it reads"), Some(order));
    assert_eq!(ann.load::<Order>(&key("order/o2")).expect("it reads"), None);
    let unknown = ann.save(&key("order/o1"), &json!({"colour": "red"}));
    assert!(matches!(unknown, Err(SaveError::Value(_))), "{unknown:?}");
    let none = ann.save(&key("order/o1"), &7);
    assert!(matches!(none, Err(SaveError::Shape(_))), "{none:?}");
    ann.save(&key("order/o3"), &json!({"customer": "c1"})).expect("a part of it");
    let part = ann.load::<Order>(&key("order/o3"));
    assert!(matches!(part, Err(LoadError::Shape { .. })), "{part:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_query_tells_what_comes_changes_and_goes() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "order/small", json!({"price": 1}));
    put(&ann, "order/large", json!({"price": 100}));
    let ty = TypeName::new("order").expect("a name");
    let large = |view: &fieldkeep_device::RecordView| view.fields["price"].as_i64() >= Some(50);
    let mut live = ann.live(&ty, large).expect("it reads");
    assert_eq!(live.records().map(|view| view.key.id.as_str()).collect::<Vec<_>>(), ["large"]);
    let mut told = async || live.changed().await.expect("it reads").remove(0);
    put(&ann, "order/small", json!({"price": 2}));
    put(&ann, "order/small", json!({"price": 60}));
    let Change::Shown(view) = soon("it is told", told()).await else { panic!("it came") };
    assert_eq!((view.key.id.as_str(), &view.fields["price"]), ("small", &json!(60)));
    put(&ann, "order/large", json!({"price": 3}));
    assert_eq!(soon("it is told", told()).await, Change::Gone(key("order/large").id));
    ann.delete(&key("order/small")).expect("it is there");
    assert_eq!(soon("it is told", told()).await, Change::Gone(key("order/small").id));
    // What others write comes the same way.
    let _kept = Connected::new(&ann);
    put(&ben, "order/his", json!({"price": 70}));
    sync(&ben).await;
    let Change::Shown(view) = soon("it is told", told()).await else { panic!("it came") };
    assert_eq!(view.key.id.as_str(), "his");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_awaited_to_the_relay_and_to_its_verdict() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let order = |price| Order { customer: "c1".into(), price, lines: Vec::new() };
    site.stop().await;
    let written = ann.save(&key("order/o1"), &order(5)).expect("it is saved");
    written.reached(Tier::Device, Duration::ZERO).await.expect("it is durable here");
    let late = written.reached(Tier::Relay, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(AwaitError::Timeout { .. })), "{late:?}");
    site.start_again().await;
    let _kept = Connected::new(&ann);
    let view = written.reached(Tier::Relay, PATIENCE).await.expect("it goes on by itself");
    assert!(!view.unsaved);
    let held = ann.save(&key("order/o2"), &order(-5)).expect("a forecast forbids nothing");
    let view = held.reached(Tier::Judged, PATIENCE).await.expect("the relay judges");
    assert_eq!(view.state, State::Judged(Outcome::Held));
    assert!(matches!(ann.status().expect("it reads").strip, Strip::Online { .. }));
}

/// A field of a record as it is shown.
fn field(device: &Device, key: &RecordKey, field: &str) -> serde_json::Value {
    let view = device.get(key).expect("it reads").expect("it is there");
    view.fields.get(field).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_for_a_counter_makes_it_that_number_and_settles_it() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let order = key("order/o1");
    put(&ann, "order/o1", json!({"customer": "c1"}));
    sync(&ann).await;
    sync(&ben).await;
    // Both count something that nobody had counted yet: the counters stand side by side.
    put(&ann, "order/o1", json!({"boxes": 5}));
    put(&ben, "order/o1", json!({"boxes": 7}));
    for device in [&ann, &ben, &ann] {
        sync(device).await;
    }
    let shown = field(&ann, &order, "boxes").as_i64().expect("a number");
    for (choice, chosen) in [(1, 12 - shown), (0, 12 - shown)] {
        let counted = ann.conflicts(&order).expect("it reads").len();
        let resolved = ann.resolve(&order, "boxes", &Choice::Concurrent(choice));
        if counted == 0 {
            assert!(resolved.is_err(), "there is nothing to choose from any more");
        }
        assert_eq!(field(&ann, &order, "boxes"), json!(chosen));
        assert_eq!(ann.conflicts(&order).expect("it reads"), []);
    }
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(field(&ben, &order, "boxes"), json!(12 - shown));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_valid_value_can_be_chosen_for_fields_of_every_kind() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let order = key("order/o1");
    let line = |id: &str, quantity: i64| json!({"id": id, "product": "tea", "quantity": quantity, "packs": 1});
    put(&ann, "order/o1", json!({"lines": [line("1", 3), line("2", 4)], "boxes": 5}));
    sync(&ann).await;
    let first = json!({"id": "1", "product": "tea", "quantity": 9, "packs": 4});
    let changed = json!({"lines": [first, line("3", 1)], "boxes": 2, "price": -1});
    put(&ann, "order/o1", changed);
    put(&ann, "order/o1", json!({"lines": [{"id": "2", "deleted": true}]}));
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "held");
    assert_eq!(field(&ann, &order, "boxes"), json!(7));
    for name in ["lines", "boxes", "price"] {
        ann.resolve(&order, name, &Choice::LastValid).expect(name);
    }
    assert_eq!(field(&ann, &order, "lines"), json!([line("1", 3), line("2", 4)]));
    assert_eq!(field(&ann, &order, "boxes"), json!(5));
    assert_eq!(field(&ann, &order, "price"), json!(null), "it was valid without one");
    let unknown = ann.resolve(&order, "customer", &Choice::LastValid).expect_err("never there");
    assert!(unknown.to_string().contains("no such value"), "{unknown}");
    site.stop().await;
}
