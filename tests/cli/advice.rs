//! Advice: each situation is brought about for real, the one command that is advised is run as it is
//! printed, and the advice is gone.

use crate::process::{Place, Running, signal};
use serde_json::Value;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.photos]
kind = "attachment"

[type.order]
[type.order.field.note]
[type.order.field.discount]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

/// An organisation with two devices that have synced.
fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    for name in ["ann", "ben"] {
        place.device(name, &[]);
        place.run(name, &["sync"]).ok();
    }
    (place, relay)
}

fn advice(place: &Place, device: &str) -> Vec<Value> {
    let said = place.run(device, &["advice", "--json"]).json();
    said["advice"].as_array().expect("a list").clone()
}

/// The advice for a situation, if it is that: it says since when.
#[track_caller]
fn found(place: &Place, device: &str, situation: &str) -> Option<Value> {
    let found =
        advice(place, device).into_iter().find(|advice| advice["situation"] == situation)?;
    assert!(found["since"].as_str().is_some_and(|since| since.starts_with("20")), "{found}");
    Some(found)
}

#[track_caller]
fn advised(place: &Place, device: &str, situation: &str) -> Value {
    let found = found(place, device, situation);
    found.unwrap_or_else(|| panic!("{situation} is not among {:?}", advice(place, device)))
}

/// Runs the command as it was advised, and looks that the situation is over.
#[track_caller]
fn follow(place: &Place, device: &str, advice: &Value) {
    let command = advice["command"].as_str().expect("a command");
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    place.run(device, &words).ok();
    let left = self::advice(place, device);
    let again = left.iter().any(|other| other["situation"] == advice["situation"]);
    assert!(!again, "`{command}` did not help: {left:?}");
}

/// Orders that ben writes and ann hears of, but does not get.
fn ann_lacks_orders(place: &Place, types: &[&str]) {
    for ty in types {
        place.run("ann", &["pause", ty]).ok();
        let field = if *ty == "order" { "note=two crates" } else { "name=Kiosk" };
        place.run("ben", &["put", ty, field]).ok();
    }
    place.run("ben", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["resume"]).ok();
}

#[test]
fn where_all_is_well_nothing_is_advised() {
    let (place, _relay) = organisation();
    assert_eq!(advice(&place, "ann"), Vec::<Value>::new());
    assert!(place.run("ann", &["advice"]).ok().starts_with("all is well"));
}

#[test]
fn a_type_with_fewer_records_than_the_relay_is_cleared_and_downloaded() {
    let (place, _relay) = organisation();
    ann_lacks_orders(&place, &["order"]);
    let advice = advised(&place, "ann", "out_of_sync");
    assert_eq!(advice["type"], "order");
    assert!(advice["text"].as_str().expect("words").contains("0 of 1 records are here"));
    assert_eq!(advice["command"], "fieldkeep clear order --yes");
    follow(&place, "ann", &advice);
}

#[test]
fn several_types_out_of_sync_are_cleared_together() {
    let (place, _relay) = organisation();
    ann_lacks_orders(&place, &["order", "customer"]);
    let advice = advised(&place, "ann", "many_out_of_sync");
    assert_eq!(advice["command"], "fieldkeep clear --yes");
    follow(&place, "ann", &advice);
}

#[test]
fn what_is_paused_is_resumed() {
    let (place, _relay) = organisation();
    place.run("ann", &["pause"]).ok();
    let advice = advised(&place, "ann", "all_paused");
    follow(&place, "ann", &advice);
    place.run("ann", &["pause", "order"]).ok();
    let advice = advised(&place, "ann", "type_paused");
    assert_eq!(advice["command"], "fieldkeep resume order");
    follow(&place, "ann", &advice);
}

#[test]
fn records_that_are_stale_because_a_row_is_wrong_are_downloaded_again() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    place.run("ann", &["sync"]).ok();
    let database = rusqlite::Connection::open(place.path("ann").join("fieldkeep.db"));
    let stale = r#"UPDATE record SET json = '{"name":"stale"}' WHERE id = 'c1'"#;
    assert_eq!(database.expect("it opens").execute(stale, []).expect("it writes"), 1);
    let noticed = place.run("ann", &["sync"]);
    assert_eq!(noticed.code, 7, "{}", noticed.err);
    let advice = advised(&place, "ann", "damaged");
    assert_eq!(advice["command"], "fieldkeep resync");
    follow(&place, "ann", &advice);
    assert!(place.run("ann", &["get", "customer/c1"]).ok().contains("Kiosk"));
}

#[test]
fn an_incomplete_type_has_its_sync_error_looked_at_first() {
    let (place, relay) = organisation();
    assert_eq!(relay.stop("TERM"), 0);
    let (relay, address) = place.serve_at("127.0.0.1:0");
    place.run("ann", &["sync", "--relay", &address]).ok();
    place.run("ann", &["put", "order/o1", "note=two crates"]).ok();
    assert_eq!(relay.stop("TERM"), 0);
    assert_eq!(place.run("ann", &["sync", "--timeout", "2s"]).code, 5);
    let advice = advised(&place, "ann", "sync_error");
    assert_eq!(advice["command"], "fieldkeep sync");
    assert!(advice["text"].as_str().expect("words").contains("everything is safe on this device"));
    let _relay = place.serve_at(&address);
    follow(&place, "ann", &advice);
    assert_eq!(self::advice(&place, "ann"), Vec::<Value>::new());
}

#[test]
fn what_is_unsaved_is_sent_and_what_is_held_is_listed() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "order/o1", "discount=45"]).ok();
    let advice = advised(&place, "ann", "unsaved");
    assert!(advice["text"].as_str().expect("words").starts_with("1 record is on this device"));
    follow(&place, "ann", &advice);
    let held = advised(&place, "ann", "held");
    assert_eq!(held["command"], "fieldkeep attention list");
    place.run("ann", &["put", "order/o1", "discount=20", "--await", "judged"]).ok();
    assert_eq!(self::advice(&place, "ann"), Vec::<Value>::new());
}

#[test]
fn a_device_that_never_asked_the_relay_is_told_to() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    let advice = advised(&place, "ann", "never_proven");
    follow(&place, "ann", &advice);
}

#[test]
fn a_device_without_a_catalog_is_told_where_that_comes_from() {
    let place = Place::new();
    place.run("relay", &["relay", "init", "--name", "acme"]).ok();
    let _relay = place.serve();
    place.device("ann", &[]);
    let advice = advised(&place, "ann", "never_proven");
    assert_eq!(advice["text"], "there is no catalog here yet: it comes from the relay");
    assert_eq!(advice["command"], "fieldkeep sync");
}

#[test]
fn a_download_that_is_under_way_can_be_stopped_by_a_pause() {
    let (place, relay) = organisation();
    let keeping = place.start("ann", &["sync", "--watch"]);
    keeping.line_beginning("synced");
    // It lasts as long as the relay says nothing.
    signal(relay.id(), "STOP");
    let ended = std::thread::scope(|scope| {
        let resync = scope.spawn(|| place.run("ann", &["resync"]));
        let advice = loop {
            if let Some(advice) = found(&place, "ann", "syncing") {
                break advice;
            }
            assert!(!resync.is_finished(), "it was never said to be under way");
        };
        assert_eq!(advice["command"], "fieldkeep pause");
        place.run("ann", &["pause"]).ok();
        resync.join().expect("it ends")
    });
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("syncing of customer is paused: nothing was changed"),
        "{}",
        ended.err
    );
    assert_eq!(found(&place, "ann", "syncing"), None);
    signal(relay.id(), "CONT");
}

#[test]
fn files_that_wait_are_sent_paused_ones_resumed_and_refused_ones_tried_again() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["attachments", "pause"]).ok();
    let photo = place.file("front.png", "pixels");
    let photo = photo.to_str().expect("a plain path");
    let hash = place.run("ann", &["attach", "customer/c1", "photos", photo]).ok();
    let kept = place.path("ann").join("blobs").join(hash.trim());
    place.run("ann", &["sync"]).ok();
    let advice = advised(&place, "ann", "files_paused");
    let text = "files are paused: 1 file is on this device and not on the relay";
    assert_eq!(advice["text"], text);
    follow(&place, "ann", &advice);

    // Bytes that are not those of its name are taken by nobody.
    std::fs::write(&kept, "rotted").expect("it is written");
    follow(&place, "ann", &advised(&place, "ann", "files_unsent"));
    let advice = advised(&place, "ann", "files_refused");
    assert_eq!(advice["command"], "fieldkeep attachments retry");
    std::fs::write(&kept, "pixels").expect("it is written");
    follow(&place, "ann", &advice);
    follow(&place, "ann", &advised(&place, "ann", "files_unsent"));
    assert_eq!(self::advice(&place, "ann"), Vec::<Value>::new());
}

#[test]
fn a_device_that_is_not_let_in_is_told_to_see_what_the_doctor_says() {
    let (place, _relay) = organisation();
    place.run("relay", &["relay", "revoke", "ann"]).ok();
    assert_eq!(place.run("ann", &["sync"]).code, 6);
    let advice = advised(&place, "ann", "refused");
    assert_eq!(advice["command"], "fieldkeep doctor");
    let doctor = place.run("ann", &["doctor"]);
    assert_eq!(doctor.code, 7, "{}", doctor.out);
    let wrong = doctor.out.lines().find(|line| line.starts_with("WRONG  membership"));
    assert!(wrong.is_some_and(|line| line.contains("revoked")), "{}", doctor.out);
}
