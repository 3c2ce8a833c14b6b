//! `relay reshape` and `relay generations` as an operator types them, while the relay serves and while it
//! does not: what it would come to, starting a type afresh, and putting the old generation into a file.

use std::os::unix::fs::PermissionsExt as _;

use crate::process::{Place, Ran, Running};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
# What is sold.
[type.order]
[type.order.field.customer]
[type.order.field.stock]
"#;

fn relay(place: &Place, words: &[&str]) -> Ran {
    place.run("relay", &[&["relay"], words].concat())
}

/// A relay with a device that has sent it some orders.
fn place_with_orders() -> (Place, Running) {
    let place = Place::new();
    let served = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["sync"]).ok();
    for n in 0..10 {
        let order = format!("order/o{n}");
        place.run("ann", &["put", &order, "customer=Pier", "stock=3"]).ok();
    }
    place.run("ann", &["put", "order/o1", "stock=many"]).ok();
    place.run("ann", &["sync"]).ok();
    (place, served)
}

#[test]
fn a_type_is_started_afresh_while_the_relay_serves() {
    let (place, served) = place_with_orders();
    let would = relay(
        &place,
        &["reshape", "order", "--buckets", "4", "--kind", "stock=counter", "--dry-run"],
    );
    assert_eq!(would.code, 0, "{}", would.err);
    assert!(would.out.contains("from generation 0 to 1"), "{}", would.out);
    assert!(would.out.contains("10 records go from 1 segment to"), "{}", would.out);
    assert!(
        would.out.contains("order/o1") && would.out.contains("nothing was changed"),
        "{}",
        would.out
    );

    // Publishing does not do it.
    let next = CATALOG.replace("[type.order]\n", "[type.order]\nbuckets = 4\ngeneration = 1\n");
    let next = place.file("next.toml", &next);
    let published = relay(&place, &["publish", next.to_str().expect("a plain path")]);
    assert_eq!(published.code, 4);
    assert!(published.err.contains("relay reshape order"), "{}", published.err);

    let done = relay(&place, &["reshape", "order", "--buckets", "4", "--note", "it had grown"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("generation 1 of order is in force"), "{}", done.out);
    let shown = relay(&place, &["catalog", "show"]).out;
    assert!(shown.contains("# What is sold.") && shown.contains("generation = 1"), "{shown}");
    assert!(relay(&place, &["catalog", "list"]).out.contains("it had grown"));
    let back = relay(&place, &["catalog", "rollback", "1"]);
    assert_eq!(back.code, 4, "{}", back.err);
    for words in ["order has been started afresh since: 1 is in force", "relay catalog show > FILE"]
    {
        assert!(back.err.contains(words), "{words}: {}", back.err);
    }

    // Late, of the old one; and then on the new one.
    place.run("ann", &["put", "order/o2", "customer=late"]).ok();
    place.run("ann", &["sync"]).ok();
    assert!(place.run("relay", &["get", "order/o2"]).ok().contains("late"));
    assert!(place.run("ann", &["get", "order/o2"]).ok().contains("late"));
    assert!(place.run("ann", &["status"]).ok().contains("synced"));

    let listed = relay(&place, &["generations", "list", "--json"]).json();
    assert_eq!(listed["generations"][0]["records"], json!(10), "{listed}");
    assert_eq!(listed["generations"][0]["late"], json!(0), "{listed}");
    let read = relay(&place, &["generations", "read", "order", "0"]);
    assert_eq!(read.out.lines().count(), 10, "{}", read.out);
    drop(served);
}

#[test]
fn a_generation_that_is_over_goes_into_a_file() {
    let (place, served) = place_with_orders();
    relay(&place, &["reshape", "order", "--buckets", "2"]);
    let file = place.path("order-0.archive");
    let name = file.to_str().expect("a plain path");
    let refused = relay(&place, &["generations", "archive", "order", "0", name]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("ann"), "it has not moved on: {}", refused.err);
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    let archived = relay(&place, &["generations", "archive", "order", "0", name]);
    assert_eq!(archived.code, 0, "{}", archived.err);
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "every record is in it");
    assert!(relay(&place, &["generations", "list"]).out.contains("first generation"));
    let opened = relay(&place, &["generations", "open", name]);
    assert_eq!(opened.out.lines().count(), 10, "{}", opened.out);
    let checked = relay(&place, &["generations", "open", name, "--check", "--json"]).json();
    assert_eq!((&checked["segments"], &checked["changes"]), (&json!(1), &json!(11)));
    // It was there already; and a bad byte is found.
    let again = relay(&place, &["generations", "archive", "order", "0", name]);
    assert_ne!(again.code, 0);
    let mut bytes = std::fs::read(&file).expect("it reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("it writes");
    let damaged = relay(&place, &["generations", "open", name]);
    assert_eq!(damaged.code, 7, "{}", damaged.err);
    place.run("ann", &["put", "order/o3", "customer=on"]).ok();
    place.run("ann", &["sync"]).ok();
    let doctor = relay(&place, &["doctor"]);
    assert_eq!(doctor.code, 0, "{}", doctor.out);
    drop(served);
}

#[test]
fn it_is_done_at_once_where_the_relay_is_stopped() {
    let (place, served) = place_with_orders();
    drop(served);
    let done = relay(&place, &["reshape", "order", "--buckets", "2", "--json"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let wrong = relay(&place, &["reshape", "nothing"]);
    assert_eq!(wrong.code, 3, "{}", wrong.err);
    let wrong = relay(&place, &["reshape", "order", "--kind", "stock=number"]);
    assert_eq!(wrong.code, 2);
    let wrong = relay(&place, &["reshape", "order", "--give-up"]);
    assert!(
        wrong.code != 0 && wrong.err.contains("no new generation of order is being written"),
        "{}",
        wrong.err
    );
    assert_eq!(relay(&place, &["doctor"]).code, 0);
}

#[test]
fn what_lies_aside_of_a_generation_that_is_over_keeps_it_from_going_into_a_file() {
    let catalog = CATALOG.replace("[type.order]\n", "[type.order]\nscope = \"area\"\n");
    let place = Place::new();
    let served = place.relay(&format!("{catalog}[type.order.field.area]\n"));
    place.device("nora", &["--scope", "order=north"]);
    place.run("nora", &["put", "order/n1", "area=north", "stock=1"]).ok();
    place.run("nora", &["put", "order/s1", "area=south", "stock=2"]).ok();
    place.run("nora", &["sync"]);
    relay(&place, &["reshape", "order", "--buckets", "2"]).ok();
    place.run("nora", &["sync"]);
    place.run("nora", &["sync"]);
    let listed = relay(&place, &["generations", "list", "--json"]).json();
    assert_eq!(listed["generations"][0]["aside"], json!(1), "{listed}");
    let shown = relay(&place, &["quarantine", "show", "order/s1"]);
    assert_eq!(shown.code, 3, "{}", shown.err);
    let said = "not permitted, by nora: area = \"south\", stock = \"2\"";
    assert!(shown.err.contains(said), "{}", shown.err);
    let file = place.path("order-0.archive");
    let name = file.to_str().expect("a plain path");
    for anyway in [&[][..], &["--anyway"]] {
        let words = [&["generations", "archive", "order", "0", name], anyway].concat();
        let refused = relay(&place, &words);
        assert_eq!(refused.code, 4, "{}", refused.err);
        assert!(refused.err.contains("1 of its changes lie aside"), "{}", refused.err);
    }
    relay(&place, &["grant", "nora", "--all"]).ok();
    place.run("nora", &["sync"]).ok();
    assert!(place.run("relay", &["get", "order/s1"]).ok().contains("south"));
    relay(&place, &["generations", "archive", "order", "0", name]).ok();
    let status = place.run("nora", &["status"]).ok();
    assert!(status.contains("synced"), "{status}");
    drop(served);
}

#[test]
fn what_a_revoked_device_captured_in_a_generation_that_is_over_is_accepted_into_the_one_in_force() {
    let (place, served) = place_with_orders();
    place.run("ann", &["put", "order/o1", "customer=Quay"]).ok();
    place.run("ann", &["put", "order/new", "customer=Late"]).ok();
    let bundle = place.path("ann.bundle");
    let name = bundle.to_str().expect("a plain path");
    place.run("ann", &["bundle", "export", name, "--for", "relay"]).ok();
    relay(&place, &["revoke", "ann"]).ok();
    relay(&place, &["reshape", "order", "--buckets", "2"]).ok();
    for wish in [&["--dry-run"][..], &[]] {
        let words = [&["quarantine", "accept", name], wish].concat();
        let told = relay(&place, &words).ok();
        assert!(told.contains("order/o1  ") && told.contains("order/new  "), "{told}");
        let doctor = relay(&place, &["doctor"]);
        assert_eq!(doctor.code, 0, "{}", doctor.out);
    }
    assert!(place.run("relay", &["get", "order/new"]).ok().contains("Late"));
    let trail = relay(&place, &["quarantine", "trail", "order/new"]).ok();
    assert!(trail.contains("accept order/new"), "{trail}");
    let limits = relay(&place, &["limits"]).ok();
    assert!(!limits.contains("aside"), "what was accepted waits for nobody: {limits}");
    drop(served);
}

#[test]
fn who_is_to_blame_stays_named_in_the_next_generation_whatever_else_is_edited() {
    let rule = "[[type.order.rule]]\nname = \"stock\"\ncel = \"record.stock != 'many'\"\nreason = \"too many\"\n";
    let place = Place::new();
    let served = place.relay(&format!("{CATALOG}[type.order.field.note]\n{rule}"));
    for person in ["ann", "ben"] {
        place.device(person, &[]);
    }
    place.run("ann", &["put", "order/o1", "customer=Pier", "stock=many"]).ok();
    place.run("ann", &["sync"]).ok();
    relay(&place, &["reshape", "order", "--buckets", "2"]).ok();
    place.run("ben", &["sync"]).ok();
    place.run("ben", &["put", "order/o1", "note=by telephone"]).ok();
    place.run("ben", &["sync"]).ok();
    let named = |person: &str| {
        let words = ["quarantine", "list", "--device", person, "--json"];
        let list = relay(&place, &words).json();
        list["records"].as_array().map(Vec::len)
    };
    assert_eq!((named("ann"), named("ben")), (Some(1), Some(0)));
    drop(served);
}
