//! The thin path with the real binary: a relay is founded and serves, devices join, a record goes
//! from one to the other, is held with its culprits, repaired and released; and the commands around
//! it, as people and programs see them.

use crate::process::{Place, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
required = true
[type.customer.field.code]
[type.customer.field.visits]
kind = "counter"
[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.price]
schema = { type = "integer" }
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.quantity]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || !has(record.price) || record.discount * 10 <= record.price * 3"
reason = "the discount is above 30 percent"
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.notes]
"#;

fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    (place, relay)
}

fn state(place: &Place, dir: &str, record: &str) -> Value {
    place.run(dir, &["get", record, "--json"]).json()["state"].clone()
}

fn type_status(place: &Place, dir: &str, ty: &str) -> Value {
    let status = place.run(dir, &["status", "--json"]).json();
    let row = status["types"].as_array().expect("a list").iter().find(|row| row["type"] == ty);
    row.expect("the type")["status"].clone()
}

#[test]
fn a_record_goes_from_one_device_to_the_other_and_is_judged_on_the_way() {
    let (place, relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk", "code=007"]).ok();
    let order = place.run("ann", &["put", "order", "customer=c1", "price=100", "discount=10"]).ok();
    let order = format!("order/{}", order.trim());
    assert_eq!(order.len(), "order/".len() + 36, "a UUID alone is printed: {order}");
    assert_eq!(state(&place, "ann", &order), "likely_valid");
    assert_eq!(type_status(&place, "ann", "order"), "incomplete");

    let synced = place.run("ann", &["sync"]).ok();
    assert_eq!(synced, "sent 2, received 0, held 0, proven 2 segments\n");
    let synced = place.run("ben", &["sync"]).ok();
    assert_eq!(synced, "sent 0, received 2, held 0, proven 2 segments\n");
    assert_eq!(state(&place, "ann", &order), "valid");
    let got = place.run("ben", &["get", "customer/c1", "--json"]).json();
    assert_eq!(got["schema"], "fieldkeep/get/1");
    assert_eq!(got["fields"], json!({"name": "Kiosk", "code": "007"}));
    assert_eq!(got["verdict"]["outcome"], "valid");
    assert_eq!(type_status(&place, "ann", "order"), "fully_synced");

    // Two edits, each fine, that are wrong together.
    place.run("ann", &["put", &order, "discount=30"]).ok();
    place.run("ben", &["put", &order, "price=50"]).ok();
    assert_eq!(type_status(&place, "ann", "order"), "incomplete");
    let synced = place.run("ann", &["sync"]).ok();
    assert_eq!(synced, "sent 1, received 0, held 0, proven 2 segments\n");
    place.run("ben", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    for dir in ["ann", "ben", "relay"] {
        let got = place.run(dir, &["get", &order, "--json"]).json();
        let verdict = &got["verdict"];
        assert_eq!(verdict["outcome"], "held", "{dir}: {got}");
        assert_eq!(verdict["reasons"], json!(["the discount is above 30 percent"]));
        let culprits = verdict["culprits"].as_array().expect("a list");
        let people: Vec<_> = culprits.iter().map(|culprit| &culprit["person"]).collect();
        assert_eq!(people, ["ann", "ben"]);
        assert_eq!(got["reason_fields"], json!(["discount", "price"]), "{got}");
        assert_eq!(got["since"], culprits[1]["time"], "since the newest of them: {got}");
        assert!(culprits[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
        assert_eq!(verdict["last_valid"]["price"], json!(100));
        assert_eq!(verdict["last_valid"]["discount"], json!(30));
    }
    let text = place.run("ben", &["get", &order]).ok();
    assert!(text.contains("held: the discount is above 30 percent"), "{text}");
    assert!(text.contains("written by ann on ann, "), "{text}");
    assert!(text.contains("  about discount, price, since 20"), "{text}");
    let last = place.run("ben", &["get", &order, "--last-valid"]).ok();
    assert!(last.contains("price     100"), "{last}");
    let synced = place.run("ben", &["sync"]).ok();
    assert!(synced.contains("1 record needs attention: fieldkeep attention list"), "{synced}");

    let repaired = place.run("ben", &["put", &order, "discount=15"]);
    assert_eq!(repaired.err, "", "a repair is no reason to warn");
    place.run("ben", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    assert_eq!(state(&place, "ann", &order), "valid");
    let history = place.run("ann", &["get", &order, "--history", "--json"]).json();
    assert_eq!(history["history"].as_array().map(Vec::len), Some(4));
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn held_records_are_listed_dismissed_reopened_and_judged_again() {
    let (place, relay) = organisation();
    let put = place.run("ann", &["put", "order/o1", "price=10", "discount=9"]);
    assert_eq!((put.code, put.out.as_str()), (0, "o1\n"));
    assert!(put.err.contains("saved order/o1; warning: likely held: the discount"), "{}", put.err);
    place.run("ann", &["put", "order/o2", "customer=absent"]).ok();
    let likely = place.run("ann", &["attention", "list", "--json"]).json();
    let forecast = &likely["records"][0];
    assert_eq!(forecast["state"], "likely_held");
    assert_eq!(forecast["reason_fields"], json!(["discount", "price"]), "{forecast}");
    let history = place.run("ann", &["history", "order/o1", "--json"]).json();
    assert_eq!(forecast["since"], history["history"][0]["time"]);
    let list = place.run("ann", &["attention", "list"]).ok();
    assert!(list.contains("  about discount, price, since 20"), "{list}");
    place.run("ann", &["sync"]).ok();

    let list = place.run("ann", &["attention", "list"]).ok();
    assert!(list.contains("order/o1  held\n"), "{list}");
    assert!(list.contains("order/o2  waiting\n"), "{list}");
    assert!(list.contains("judged by catalog 1, the relay's as of 2"), "{list}");
    place.run("ann", &["attention", "dismiss", "order/o1", "--note", "a test"]).ok();
    let list = place.run("ann", &["attention", "list", "--json"]).json();
    assert_eq!(list["schema"], "fieldkeep/attention/1");
    assert_eq!(list["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["catalog"]["number"], 1);
    assert_eq!(list["dismissed"][0]["dismissed"]["note"], "a test");
    place.run("ann", &["sync"]).ok();
    let quarantine = place.run("relay", &["relay", "quarantine", "list", "--json"]).json();
    assert_eq!(quarantine["records"].as_array().map(Vec::len), Some(2));
    let mut records = quarantine["records"].as_array().into_iter().flatten();
    let order = records.find(|record| record["id"] == "o1").expect("it is held");
    assert_eq!(order["dismissed"]["who"], "ann");
    place.run("ann", &["attention", "reopen", "order/o1"]).ok();
    let list = place.run("ann", &["attention", "list", "--json"]).json();
    assert_eq!(list["records"].as_array().map(Vec::len), Some(2));
    place.run("ann", &["attention", "retry"]).ok();
    place.run("ann", &["sync"]).ok();
    let shown = place.run("ann", &["attention", "show", "order/o1"]).ok();
    assert!(shown.contains("held: the discount is above 30 percent"), "{shown}");

    let judged = place.run("relay", &["relay", "quarantine", "rejudge"]).ok();
    assert_eq!(judged, "judged 2 records again: 2 held or waiting\n");
    assert_eq!(relay.stop("TERM"), 0);
    // The same without a serving process.
    let judged = place.run("relay", &["relay", "quarantine", "rejudge", "order/o1"]).ok();
    assert_eq!(judged, "judged 1 record again: 1 held or waiting\n");
    let shown = place.run("relay", &["relay", "quarantine", "show", "order/o1"]).ok();
    assert!(shown.contains("written by ann on ann"), "{shown}");
}

#[test]
fn values_take_the_types_of_the_catalog() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk", "code=007", "visits+=2"]).ok();
    place.run("ann", &["put", "customer/c1", "visits+=3", "code="]).ok();
    let got = place.run("ann", &["get", "customer/c1", "--json"]).json();
    assert_eq!(got["fields"], json!({"name": "Kiosk", "visits": 5}));
    place.run("ann", &["put", "order/o1", "lines[a b].quantity=2", "lines[x].quantity=1"]).ok();
    place.run("ann", &["put", "order/o1", "lines[x]="]).ok();
    let got = place.run("ann", &["get", "order/o1", "--json"]).json();
    assert_eq!(got["fields"]["lines"], json!([{"id": "a b", "quantity": 2}]));
    let object = r#"{"id": "c 2 ", "name": "Café"}"#;
    let id = place.run_with_input("ann", &["put", "customer", "--from", "-"], object).ok();
    assert_eq!(id, "c 2 \n");
    let found = place.run("ann", &["list", "customer", "--where", "name=Café", "--json"]).json();
    assert_eq!(found["records"][0]["id"], "c 2 ");
    place.run("ann", &["delete", "customer/c1"]).ok();
    let listed = place.run("ann", &["list", "customer", "--json"]).json();
    assert_eq!(listed["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(place.run("ann", &["put", "customer/c1", "name=x"]).code, 4);
    place.run("ann", &["put", "customer/c1", "--undelete"]).ok();
    assert_eq!(place.run("ann", &["get", "customer/c1", "--json"]).json()["deleted"], false);
}

#[test]
fn a_ticket_is_read_from_standard_input_and_taken_up_once() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    let ticket = place.run("relay", &["relay", "invite"]).ok();
    place.run_with_input("ann", &["join", "-"], &ticket).ok();
    let again = place.run_with_input("ben", &["join", "-"], &ticket);
    assert_eq!(again.code, 6, "{}", again.err);
    assert!(!place.path("ben/fieldkeep.db").exists(), "nothing is left behind");
    let ticket = place.run("relay", &["relay", "invite"]).ok();
    assert_eq!(relay.stop("INT"), 0);
    let offline = place.run("ben", &["join", ticket.trim()]);
    assert_eq!(offline.code, 5, "{}", offline.err);
}

#[test]
fn a_device_with_a_scope_gets_its_part_and_says_so() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &["--scope", "visit=42"]);
    place.run("ann", &["put", "visit/v1", "outlet=42", "notes=here"]).ok();
    place.run("ann", &["put", "visit/v2", "outlet=43", "notes=there"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    let listed = place.run("ben", &["list", "visit", "--json"]).json();
    assert_eq!(listed["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(type_status(&place, "ben", "visit"), "subset_synced");
    assert_eq!(type_status(&place, "ben", "order"), "fully_synced");
    let status = place.run("ben", &["status", "--json"]).json();
    let row = &status["types"].as_array().expect("a list")[2];
    assert_eq!(
        (&row["local"], &row["server"], &row["server_all"]),
        (&json!(1), &json!(1), &json!(2))
    );
    let wrong = place.run("relay", &["relay", "invite", "--scope", "order=1"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

#[test]
fn exports_are_read_by_others() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "order/o1", "price=1", "lines[a].quantity=2"]).ok();
    place.run("ann", &["put", "visit/v1", "outlet=a/b"]).ok();
    let lines = place.run("ann", &["export", "order"]).ok();
    let line: Value = serde_json::from_str(&lines).expect("one object");
    assert_eq!(line, json!({"id": "o1", "lines": [{"id": "a", "quantity": 2}], "price": 1}));
    let table = place.run("ann", &["export", "order", "--format", "csv"]).ok();
    let row = "o1,,,\"[{\"\"id\"\":\"\"a\"\",\"\"quantity\"\":2}]\",1\n";
    assert_eq!(table, format!("id,customer,discount,lines,price\n{row}"));

    let out = place.path("docs");
    let out = out.to_str().expect("a plain path");
    place.run("ann", &["export", "order", "--format", "automerge", "--out", out]).ok();
    place.run("ann", &["export", "visit", "--format", "automerge", "--out", out]).ok();
    let bytes = std::fs::read(place.path("docs/order.automerge")).expect("it is there");
    let doc = automerge::AutoCommit::load(&bytes).expect("any Automerge opens it");
    use automerge::ReadDoc as _;
    assert!(doc.get(automerge::ROOT, "o1").expect("it reads").is_some());
    assert!(place.path("docs/visit-a%2Fb.automerge").exists());

    let file = place.path("orders.jsonl");
    let file = file.to_str().expect("a plain path");
    place.run("ann", &["export", "order", "--out", file]).ok();
    let again = place.run("ann", &["import", "order", file, "--json"]).json();
    assert_eq!((&again["written"], &again["unchanged"]), (&json!(0), &json!(1)));
}
