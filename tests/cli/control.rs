//! Pausing, downloading again, clearing and pinning, as they are typed: alone, and through the process
//! that keeps the device synced.

use crate::process::{self, Place, Ran};

const CATALOG: &str = r#"
catalog = 1

[type.order]
[type.order.field.note]

[type.visit]
[type.visit.field.remark]
"#;

fn statuses(place: &Place, device: &str) -> Vec<(String, String)> {
    let status = place.run(device, &["status", "--json"]).json();
    let types = status["types"].as_array().expect("a list").iter();
    types.map(|row| (word(&row["type"]), word(&row["status"]))).collect()
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().expect("a word").to_owned()
}

#[test]
fn what_is_paused_is_said_and_stays_so_until_it_is_resumed() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "note=two crates"]).ok();
    let said = place.run("ann", &["pause", "order"]).ok();
    assert_eq!(
        said,
        "syncing is paused for order: what you capture is kept here; `fieldkeep resume` goes on\n"
    );
    let synced = place.run("ann", &["sync"]).ok();
    assert!(
        synced.contains("sent 0") && synced.contains("syncing is paused for order"),
        "{synced}"
    );
    assert_eq!(statuses(&place, "ann")[0], ("order".to_owned(), "paused".to_owned()));
    let refused = place.run("ann", &["pause", "ordre"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("order, visit"), "{}", refused.err);
    assert_eq!(place.run("ann", &["resume"]).ok(), "nothing is paused\n");
    assert!(place.run("ann", &["sync"]).ok().contains("sent 1"));
    assert_eq!(statuses(&place, "ann")[0].1, "fully_synced");
}

#[test]
fn clearing_tells_first_asks_and_spares_what_is_unsaved_or_in_use() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "note=two crates"]).ok();
    place.run("ann", &["put", "visit/v1", "remark=open"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["put", "order/o2", "note=not sent"]).ok();
    let absent = place.run("ann", &["pin", "visit/v9"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
    let pinned =
        place.run("ann", &["pin", "visit/v1", "--owner", "till", "--reason", "open visit"]);
    assert!(pinned.ok().starts_with("visit/v1  in use by till since "));

    let told = place.run("ann", &["clear", "--dry-run"]).ok();
    assert!(told.contains("order, visit: 3 records here"), "{told}");
    assert!(told.contains("1 record stays because it is unsaved"), "{told}");
    assert!(told.contains("1 record stays because it is in use"), "{told}");
    let plan = place.run("ann", &["clear", "--dry-run", "--json"]).json();
    assert_eq!((&plan["replaced"], &plan["unsaved"]), (&3.into(), &1.into()));
    let Ran { code, err, .. } = place.run("ann", &["clear"]);
    assert_eq!(code, 2, "nobody sits at the terminal: {err}");
    assert!(err.contains("--yes") && err.contains("--dry-run"), "{err}");

    let done = place.run("ann", &["clear", "--yes"]).ok();
    assert_eq!(done, "downloaded order, visit again: 3 records here, sent 1, proven 2 segments\n");
    let done = place.run("ann", &["resync", "order", "--json"]).json();
    assert_eq!((&done["records"], &done["sent"]), (&2.into(), &0.into()));
    assert_eq!(place.run("ann", &["unpin", "--owner", "till"]).ok(), "released 1 mark\n");
    assert_eq!(place.run("ann", &["pin"]).ok(), "nothing is in use\n");
    assert_eq!(place.run("ann", &["unpin"]).code, 2, "of what?");
}

#[test]
fn the_process_that_keeps_a_device_synced_takes_the_same_commands() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "note=two crates"]).ok();
    let watch = place.start("ann", &["sync", "--watch"]);
    watch.line_beginning("synced");
    place.run("ann", &["pause"]).ok();
    assert_eq!(statuses(&place, "ann")[0].1, "paused");
    let paused = place.run("ann", &["resync", "order"]);
    assert!(paused.code == 1 && paused.err.contains("fieldkeep resume order"), "{}", paused.err);
    place.run("ann", &["resume"]).ok();
    let done = place.run("ann", &["resync"]).ok();
    assert!(done.starts_with("downloaded order, visit again: 1 record here"), "{done}");
    let done = place.run("ann", &["clear", "order", "--yes"]).ok();
    assert!(done.starts_with("downloaded order again: 1 record here"), "{done}");
    assert_eq!(watch.stop("INT"), 130);
}

const SCOPED: &str = r#"
catalog = 1

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.guests]
schema = { type = "integer" }
[[type.visit.rule]]
name = "guests"
cel = "!has(record.guests) || record.guests >= 0"
reason = "nobody has fewer than no guests"
"#;

#[test]
fn a_scope_is_subscribed_to_and_left_out_and_the_file_says_so() {
    let place = Place::new();
    let _relay = place.relay(SCOPED);
    place.device("ann", &[]);
    place.run("ann", &["sync"]).ok();
    assert_eq!(
        place.run("ann", &["subscribe", "visit=42"]).ok(),
        "visit: only 42 is exchanged; what else is here stays until `fieldkeep clear visit`\n"
    );
    let file = place.path("ann").join("device.toml");
    let written = std::fs::read_to_string(&file).expect("it is there");
    assert_eq!(written, "[type.visit]\nscopes = [\"42\"]\n");
    let refused = place.run("ann", &["put", "visit/v1", "outlet=41"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("fieldkeep subscribe visit=41"), "{}", refused.err);
    let json = place.run("ann", &["subscribe", "visit=41", "--json"]).json();
    assert_eq!(json["scopes"], serde_json::json!(["41", "42"]));
    place.run("ann", &["unsubscribe", "visit=42"]).ok();
    assert!(place.run("ann", &["unsubscribe", "visit=41"]).ok().contains("nothing is exchanged"));
    assert!(place.run("ann", &["subscribe", "visit=*"]).ok().contains("everything"));
    let unknown = place.run("ann", &["subscribe", "vist=41"]);
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    place.device("ben", &["--scope", "visit=42"]);
    place.run("ben", &["sync"]).ok();
    let denied = place.run("ben", &["subscribe", "visit=41"]);
    assert_eq!(denied.code, 6, "{}", denied.err);
    std::fs::write(&file, "[type.visit]\nreed = \"last_valid\"\n").expect("it is written");
    let unclear = place.run("ann", &["status"]);
    assert_eq!(unclear.code, 2, "{}", unclear.err);
    assert!(
        unclear.err.contains("device.toml") && unclear.err.contains("`read`"),
        "{}",
        unclear.err
    );
}

#[test]
fn what_is_read_of_a_held_record_is_said_by_flag_environment_and_file_in_this_order() {
    let place = Place::new();
    let _relay = place.relay(SCOPED);
    place.device("ann", &[]);
    place.run("ann", &["put", "visit/v1", "outlet=42", "guests=3"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["put", "visit/v1", "guests=-1"]).ok();
    let shown = |args: &[&str], environment: Option<&str>| {
        let mut command = place.command("ann", &[&["get", "visit/v1", "--json"], args].concat());
        if let Some(read) = environment {
            command.env("FIELDKEEP_READ", read);
        }
        process::finish(command, "").json()["fields"]["guests"].as_i64().expect("a number")
    };
    assert_eq!(shown(&[], None), -1, "as merged unless somebody says otherwise");
    let file = place.path("ann").join("device.toml");
    std::fs::write(&file, "[type.visit]\nread = \"last_valid\"\n").expect("it is written");
    assert_eq!(shown(&[], None), 3, "the file");
    assert_eq!(shown(&[], Some("as_merged")), -1, "the environment before the file");
    assert_eq!(shown(&["--read", "last_valid"], Some("as_merged")), 3, "the flag before both");
}

#[test]
fn where_others_are_met_is_said_by_flag_environment_and_file_in_this_order() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    let file = place.path("ann").join("device.toml");
    std::fs::write(&file, "listen = \"127.0.0.2:0\"\n").expect("it is written");
    for keeper in [&["sync", "--watch"][..], &["serve", "--console", "127.0.0.1:0", "--no-nearby"]]
    {
        let listens = |args: &[&str], environment: Option<&str>, host: &str| {
            let mut command = place.command("ann", &[keeper, args].concat());
            environment.map(|address| command.env("FIELDKEEP_LISTEN", address));
            let started = process::start(command);
            started.line_beginning(&format!("listening {host}:"));
            assert_eq!(started.stop("INT"), 130);
        };
        listens(&[], None, "127.0.0.2");
        listens(&[], Some("127.0.0.3:0"), "127.0.0.3");
        listens(&["--listen", "127.0.0.4:0"], Some("127.0.0.3:0"), "127.0.0.4");
    }
    let aimless = place.run("ann", &["sync", "--listen", "127.0.0.4:0"]);
    assert_eq!(aimless.code, 2, "nobody stays to listen: {}", aimless.err);
    // What a command does not use, it does not mind.
    let mut command = place.command("ann", &["sync"]);
    command.env("FIELDKEEP_LISTEN", "127.0.0.3:0").env("FIELDKEEP_NEARBY", "no");
    process::finish(command, "").ok();
}
