//! The fleet as an operator types it: who is out there and what is known of each, a revoked device's bundle,
//! signatures that are made elsewhere, and keys that are replaced.

use std::path::Path;

use crate::process::{Place, Ran};
use crate::support::wire::Raw;
use crate::support::{Site, put, soon, sync};
use fieldkeep_model::TypeName;
use fieldkeep_protocol::frame::Frame;
use fieldkeep_protocol::report::TYPES_TOLD;
use fieldkeep_protocol::{Report, TypeHeld};
use fieldkeep_relay::fleet::{self, Purpose, Safety};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = {}
[type.order.field]
customer = { ref = "customer" }
discount = { schema = { type = "integer" } }
boxes = { kind = "counter" }
[type.visit]
scope = "outlet"
[type.visit.field]
outlet = {}
note = {}
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

/// Runs a line of words.
#[track_caller]
fn run(place: &Place, dir: &str, words: &str) -> Ran {
    place.run(dir, &words.split(' ').collect::<Vec<_>>())
}

/// Of a device what `relay devices` knows.
#[track_caller]
fn device(place: &Place, words: &str) -> Value {
    let shown = run(place, "relay", &format!("relay devices {words} --json"));
    let shown: Value = serde_json::from_str(&shown.out).expect("JSON");
    assert_eq!(shown["schema"], "fieldkeep/relay-devices/1");
    shown["devices"][0].clone()
}

/// The admin key, moved off the relay.
fn moved_admin_key(place: &Place) -> String {
    let key = place.path("admin.key");
    std::fs::rename(place.path("relay/admin.key"), &key).expect("it moves");
    key.to_str().expect("a plain path").to_owned()
}

/// A file of the place, as it is typed.
fn file(place: &Place, name: &str) -> String {
    place.path(name).to_str().expect("a plain path").to_owned()
}

fn unsaved(place: &Place, dir: &str, record: &str) -> Value {
    run(place, dir, &format!("get {record} --json")).json()["unsaved"].clone()
}

#[test]
fn a_device_is_shown_with_what_it_said_and_is_safe_on_evidence_only() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    let before = device(&place, "ann");
    assert_eq!((&before["name"], &before["grants"]), (&json!("ann"), &json!(["*"])));
    assert_eq!(before["said"], Value::Null, "it has said nothing yet");
    let unknown = run(&place, "relay", "relay devices ann --safe-to revoke");
    assert_eq!(unknown.code, 1, "{}", unknown.out);
    assert!(unknown.out.contains("never said what it has"), "{}", unknown.out);

    run(&place, "ann", "put customer/c1 name=Kiosk").ok();
    run(&place, "ann", "sync").ok();
    let synced = device(&place, "ann");
    assert_eq!((&synced["saved"], &synced["catalog"]), (&json!(1), &json!(1)));
    assert_eq!((&synced["connected"], &synced["said"]["waiting"]), (&json!(false), &json!(0)));
    assert!(synced["version"].as_str().is_some_and(|text| text.starts_with("fieldkeep/")));
    assert_eq!(synced["said"]["holds"], json!([{"type": "customer", "records": 1, "unsaved": 0}]));
    // It is away: nobody can tell what was captured since.
    let away = device(&place, "ann --safe-to upgrade");
    assert_eq!(away["assessment"]["safety"], "unknown");
    assert!(away["assessment"]["missing"].to_string().contains("since is not known"), "{away}");

    // A type that is paused is not sent, and the device says so.
    run(&place, "ann", "pause order").ok();
    run(&place, "ann", "put order/o1 discount=5").ok();
    let ann = place.start("ann", &["sync", "--watch"]);
    until("it says that something waits", || device(&place, "ann")["said"]["waiting"] == json!(1));
    let held_back = device(&place, "ann --safe-to revoke");
    assert_eq!(held_back["assessment"]["safety"], "unsafe");
    assert_eq!(held_back["said"]["leaves_out"], json!(true));
    run(&place, "ann", "resume order").ok();
    until("it is safe", || {
        device(&place, "ann --safe-to upgrade")["assessment"]["safety"] == json!("safe")
    });
    let told = run(&place, "relay", "relay devices").ok();
    assert!(told.contains("connected") && told.contains("nothing, at "), "{told}");
    ann.stop("INT");
    // It is kept: the relay knows as much after a restart.
    assert_eq!(relay.stop("INT"), 0);
    assert_eq!(device(&place, "ann")["said"]["waiting"], json!(0));
}

#[test]
fn what_a_device_said_last_is_known_however_short_its_session_was() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &["--scope", "visit=41"]);
    // The end of a session with changes, and one that finds all equal.
    for round in 0..5 {
        run(&place, "ann", &format!("put visit/o{round} outlet=41")).ok();
        run(&place, "ann", "sync").ok();
        let said = device(&place, "ann")["said"].clone();
        assert_eq!(
            (&said["waiting"], &said["holds"][0]["unsaved"]),
            (&json!(0), &json!(0)),
            "{said}"
        );
        run(&place, "ann", "sync").ok();
        assert_ne!(device(&place, "ann")["said"]["heard"], said["heard"], "in round {round}");
    }
    run(&place, "ben", "put visit/x outlet=42").ok();
    run(&place, "ben", "sync");
    assert_eq!(device(&place, "ben")["said"]["refused"], json!(1));
    assert_eq!(device(&place, "ben --safe-to revoke")["assessment"]["safety"], json!("unsafe"));
}

/// Waits until something holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 20, "{what}: waited in vain");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_claim_is_shown_as_a_claim_and_changes_nothing() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    let held = TypeHeld {
        ty: TypeName::new("order").expect("a name"),
        records: u64::MAX,
        unsaved: u64::MAX,
    };
    let report = Report {
        time: i64::MIN,
        catalog: u64::MAX,
        members: u64::MAX,
        waiting: u64::MAX,
        refused: u64::MAX,
        files: u64::MAX,
        leaves_out: true,
        types: vec![held; 10_000],
    };
    let wire = mallory.following().await;
    for _ in 0..100 {
        wire.say(&Frame::Report(report.clone())).await;
    }
    let known = async || {
        site.ask(|engine| {
            let attendance = engine.attendance(1);
            let replica = engine.replica();
            fleet::devices(replica.store(), replica.members(), &attendance).expect("it reads")
        })
        .await
    };
    let claimed = soon("it is heard", async {
        loop {
            let device = known().await.into_iter().find(|device| device.name == "mallory");
            if let Some(claim) = device.clone().and_then(|device| device.claim) {
                return (device.expect("just found"), claim);
            }
        }
    });
    let (device, claim) = claimed.await;
    assert_eq!((claim.report.types.len(), claim.report.time), (TYPES_TOLD, i64::MIN));
    assert_eq!((device.saved, device.catalog), (0, Some(u64::MAX)));
    assert_eq!(device.safe_to(Purpose::Revoke).safety, Safety::Unsafe);
    // Nobody else notices.
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    let ann = known().await.into_iter().find(|device| device.name == "ann").expect("a device");
    assert_eq!(ann.saved, 1);
}

#[test]
fn other_scopes_and_another_name_reach_a_device_that_stays_connected() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &["--scope", "visit=42"]);
    place.device("ben", &[]);
    run(&place, "ben", "put visit/v1 outlet=42").ok();
    run(&place, "ben", "put visit/v2 outlet=43").ok();
    run(&place, "ben", "sync").ok();
    let connected = place.start("ann", &["sync", "--watch"]);
    until("what she may have is there", || run(&place, "ann", "get visit/v1").code == 0);
    assert_eq!(run(&place, "ann", "get visit/v2").code, 3);
    run(&place, "relay", "relay grant ann --scope visit=43").ok();
    run(&place, "relay", "relay rename ann anna").ok();
    for name in ["", "6", "two\nlines"] {
        assert_eq!(place.run("relay", &["relay", "rename", "anna", name]).code, 2, "{name:?}");
    }
    until("the other scope is there", || run(&place, "ann", "get visit/v2").code == 0);
    assert_eq!(device(&place, "anna")["grants"], json!(["*", "visit=43"]));
    until("she is called otherwise", || {
        run(&place, "ann", "status --json").json()["name"] == json!("anna")
    });
    let namesake = "is called `ben` too: commands take the numbers of both from now on";
    for command in ["relay invite --name ben", "relay rename anna ben"] {
        let told = run(&place, "relay", command);
        assert!(told.code == 0 && told.err.contains(namesake), "{command}: {}", told.err);
    }
    connected.stop("INT");
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn what_lay_aside_before_a_device_was_revoked_is_accepted_too() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("kim", &["--scope", "visit=42"]);
    place.device("ben", &[]);
    run(&place, "kim", "put visit/k1 outlet=43").ok();
    assert_eq!(run(&place, "kim", "sync --json").json()["refused"], json!(1));
    let accept = |what: &str| {
        let words = format!("relay quarantine accept {what} --json");
        run(&place, "relay", &words)
    };
    let standing = accept("--device kim");
    assert_eq!(standing.code, 2, "a member is granted what is missing: {standing:?}");
    run(&place, "relay", "relay revoke kim").ok();
    let shown = run(&place, "relay", "relay quarantine show visit/k1");
    assert!(shown.err.contains("quarantine accept --device"), "{}", shown.err);
    // What is built on it comes in a bundle, and neither is half of a record.
    run(&place, "kim", "put visit/k1 note=more").ok();
    let bundle = file(&place, "kim.bundle");
    run(&place, "kim", &format!("bundle export {bundle} --for relay")).ok();
    assert_eq!(accept("--device kim --dry-run").json()["written"], json!(1));
    let accepted = accept(&bundle).json();
    assert_eq!((&accepted["aside"], &accepted["written"]), (&json!(2), &json!(2)), "{accepted}");
    let record = run(&place, "relay", "get visit/k1 --json").json();
    assert_eq!(record["state"], "valid", "{record}");
    assert_eq!(record["fields"], json!({ "outlet": "43", "note": "more" }));
    assert_eq!(accept("--device kim").json()["aside"], json!(0), "nothing is accepted twice");
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn what_a_revoked_device_had_captured_is_accepted_from_its_bundle_once() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    run(&place, "ann", "put order/o1 discount=5 boxes+=2").ok();
    run(&place, "ann", "sync").ok();
    run(&place, "relay", "relay revoke ann").ok();
    run(&place, "ann", "put customer/c1 name=Kiosk").ok();
    run(&place, "ann", "put order/o1 boxes+=3").ok();
    run(&place, "ann", "put order/o2 discount=45").ok();
    let (bundle, of_ben) = (file(&place, "ann.bundle"), file(&place, "ben.bundle"));
    run(&place, "ann", &format!("bundle export {bundle} --for relay")).ok();
    let refused = run(&place, "relay", &format!("bundle import {bundle}"));
    assert_eq!(refused.code, 6, "{}", refused.err);
    assert!(refused.err.contains("relay quarantine accept"), "{}", refused.err);

    let accept = |more: &str| {
        run(&place, "relay", &format!("relay quarantine accept {bundle}{more} --json")).json()
    };
    let state = |key: &str| run(&place, "relay", &format!("get {key} --json"));
    let tried = accept(" --dry-run");
    assert_eq!(
        (&tried["aside"], &tried["written"], &tried["from"]),
        (&json!(3), &json!(3), &json!("ann"))
    );
    let states: Vec<_> = tried["records"].as_array().expect("records").iter().collect();
    assert!(
        states.iter().any(|record| record["id"] == "o2" && record["state"] == "held"),
        "{tried}"
    );
    assert_eq!(state("customer/c1").code, 3, "nothing was changed");

    let kept = accept(" --aside");
    assert_eq!((&kept["aside"], &kept["written"]), (&json!(3), &json!(0)));
    let listed = run(&place, "relay", "relay quarantine list").ok();
    assert!(listed.contains("not permitted") && listed.contains("by ann"), "{listed}");
    // They are sought as records are, by a device that is revoked, too.
    for (sought, found) in [
        ("--device ann", 3),
        ("--rule not_permitted", 3),
        ("--type customer", 1),
        ("--text c1", 1),
        ("--rule fork", 0),
        ("--dismissed", 0),
    ] {
        let list = run(&place, "relay", &format!("relay quarantine list {sought} --json")).json();
        assert_eq!(list["aside"].as_array().map(Vec::len), Some(found), "{sought}: {list}");
    }
    assert_eq!(state("customer/c1").code, 3, "and not merged");

    assert_eq!(accept("")["written"], json!(3));
    assert_eq!(state("customer/c1").json()["state"], "valid");
    assert_eq!(state("order/o1").json()["fields"]["boxes"], json!(5), "two and three");
    assert_eq!(state("order/o2").json()["state"], "held", "it is judged like any other");
    let history = run(&place, "relay", "history customer/c1 --json").json();
    assert_eq!(
        (&history["history"][0]["person"], &history["history"][0]["device"]),
        (&json!("ann"), &json!("relay"))
    );
    let trail = run(&place, "relay", "relay quarantine trail").ok();
    assert!(trail.contains("accept customer/c1: of ann"), "{trail}");
    assert!(!run(&place, "relay", "relay quarantine list").ok().contains("not permitted"));

    let again = accept("");
    assert_eq!(
        (&again["aside"], &again["written"], &again["known"]),
        (&json!(0), &json!(0), &json!(3))
    );
    assert_eq!(state("order/o1").json()["fields"]["boxes"], json!(5), "nothing is accepted twice");
    // What builds on what was accepted is accepted, too.
    run(&place, "ann", "put order/o1 boxes+=4").ok();
    run(&place, "ann", &format!("bundle export {bundle} --for relay")).ok();
    assert_eq!(accept("")["written"], json!(1));
    assert_eq!(state("order/o1").json()["fields"]["boxes"], json!(9));
    // It reaches the others, and nobody else's bundle is taken this way.
    run(&place, "ben", "sync").ok();
    assert_eq!(run(&place, "ben", "get order/o1 --json").json()["fields"]["boxes"], json!(9));
    run(&place, "ben", &format!("bundle export {of_ben} --for relay")).ok();
    let other = run(&place, "relay", &format!("relay quarantine accept {of_ben}"));
    assert_eq!(other.code, 2, "{}", other.err);
    assert!(other.err.contains("bundle import"), "{}", other.err);
    // A bundle tells how things stand on its device, too.
    run(&place, "ben", "put customer/c9 name=waits").ok();
    run(&place, "ben", &format!("bundle export {of_ben} --for relay")).ok();
    run(&place, "relay", &format!("bundle import {of_ben}")).ok();
    assert_eq!(device(&place, "ben")["said"]["waiting"], json!(1));
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn what_an_admin_signs_is_asked_for_on_the_relay_and_signed_elsewhere() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    let key = moved_admin_key(&place);
    let (ask, signed) = (file(&place, "ask"), file(&place, "ask.signed"));
    let request = |words: &str| run(&place, "relay", &format!("{words} --request {ask}"));
    // Where the key is there is no relay.
    let sign =
        |more: &str| run(&place, "nowhere", &format!("relay sign {ask} --admin-key {key}{more}"));
    let apply = || run(&place, "relay", &format!("relay apply {signed}"));

    let shown =
        run(&place, "relay", &format!("relay invite --name eve --admin-key {key} --qr")).ok();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines.len() > 10 && lines[0].contains('█'), "a code: {shown}");
    assert!(lines[lines.len() - 1].starts_with("fieldkeep1"), "and the line: {shown}");
    request("relay invite --name ann").ok();
    let nobody = sign("");
    assert_eq!(nobody.code, 2, "it asks: {}", nobody.err);
    let made = sign(" --yes --json").json();
    let ticket = made["ticket"].as_str().expect("whoever signs makes the ticket").to_owned();
    assert!(made["signed"][0].as_str().is_some_and(|text| text.contains("invite ann")), "{made}");
    assert_ne!(run(&place, "ann", &format!("join {ticket}")).code, 0, "not before it is applied");
    assert!(apply().ok().contains("invite ann"));
    assert!(apply().ok().contains("applied before"));
    run(&place, "ann", &format!("join {ticket}")).ok();

    request("relay rename ann anna").ok();
    assert!(sign(" --yes").ok().contains("give ann (device 4"));
    apply().ok();
    assert_eq!(device(&place, "anna")["number"], json!(4));

    // The log moves between asking and applying: nothing branches.
    request("relay revoke anna").ok();
    sign(" --yes").ok();
    run(&place, "relay", &format!("relay invite --name ben --admin-key {key}")).ok();
    let late = apply();
    assert_eq!(late.code, 4, "{}", late.err);
    assert!(
        late.err.contains("grown by 1 entries") && late.err.contains("ask again"),
        "{}",
        late.err
    );
    // What came of her between asking and applying is not permitted, and is told.
    request("relay revoke anna").ok();
    sign(" --yes").ok();
    run(&place, "ann", "put customer/c1 name=late").ok();
    run(&place, "ann", "sync").ok();
    assert!(apply().ok().contains("in 1 segment more of it came"));
    until("it is held", || {
        run(&place, "relay", "get customer/c1 --json").json()["state"] == json!("held")
    });
    assert_eq!(run(&place, "ann", "sync").code, 6);

    // Another's key signs nothing, and a damaged file is none.
    let other = run(
        &place,
        "relay",
        &format!("relay sign {ask} --admin-key {} --yes", file(&place, "relay/key")),
    );
    assert_eq!(other.code, 6, "{}", other.err);
    let text = std::fs::read_to_string(&ask).expect("it is text");
    std::fs::write(&ask, &text[..text.len() - 9]).expect("it is written");
    assert_eq!(sign(" --yes").code, 4);
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn the_admin_key_is_replaced_by_itself_and_by_the_recovery_key() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    let (old, new) = (file(&place, "relay/admin.key"), file(&place, "second.key"));
    let (recovery, third) = (file(&place, "recovery.key"), file(&place, "third.key"));
    let invite =
        |key: &str| run(&place, "relay", &format!("relay invite --name x --admin-key {key}"));
    let none = run(&place, "relay", &format!("relay recover {third} --recovery-key {old}"));
    assert_eq!(none.code, 6, "{}", none.err);
    assert!(!Path::new(&third).exists(), "no file is made for nothing");
    run(&place, "relay", &format!("relay recovery-key {recovery}")).ok();
    run(&place, "relay", &format!("relay rotate-admin-key {new}")).ok();
    let refused = invite(&old);
    assert_eq!(refused.code, 6, "{}", refused.err);
    assert!(refused.err.contains("not the admin key that is in force"), "{}", refused.err);
    invite(&new).ok();
    // Whoever has the admin key names no other recovery key.
    let thief = run(
        &place,
        "relay",
        &format!("relay recovery-key {} --admin-key {new}", file(&place, "x.key")),
    );
    assert_eq!(thief.code, 6, "{}", thief.err);

    // It is lost: the recovery key, kept elsewhere, replaces it there.
    let (ask, signed) = (file(&place, "ask"), file(&place, "ask.signed"));
    run(&place, "relay", &format!("relay recover --request {ask}")).ok();
    let unnamed = run(&place, "relay", &format!("relay sign {ask} --admin-key {recovery} --yes"));
    assert_eq!(unnamed.code, 2, "{}", unnamed.err);
    run(
        &place,
        "nowhere",
        &format!("relay sign {ask} --admin-key {recovery} --new-key {third} --yes"),
    )
    .ok();
    run(&place, "relay", &format!("relay apply {signed}")).ok();
    assert_eq!(invite(&new).code, 6);
    let ticket = invite(&third).ok();
    run(&place, "ann", &format!("join {}", ticket.trim())).ok();
    assert_eq!(relay.stop("INT"), 0);
}

#[test]
fn the_relays_key_is_replaced_and_no_device_is_enrolled_again() {
    let place = Place::founded(CATALOG);
    let (relay, listens) = place.serve_at("127.0.0.1:0");
    for name in ["ann", "ben", "eva"] {
        place.device(name, &[]);
        run(&place, name, "sync").ok();
    }
    let late = run(&place, "relay", "relay invite --name cat").ok();
    let earlier = run(&place, "relay", "relay invite --name dora").ok();
    run(&place, "relay", "relay rotate-key").ok();
    let again = run(&place, "relay", "relay rotate-key");
    assert!(again.code != 0 && again.err.contains("start the relay again"), "{}", again.err);
    // Nothing is wrong with that, and a backup has both keys.
    run(&place, "relay", "relay doctor").ok();
    let backups = place.path("backups").display().to_string();
    run(&place, "relay", &format!("relay backup {backups}")).ok();
    run(&place, "restored", &format!("relay restore --from {backups}")).ok();
    // Ann hears of it while the old key serves, Ben comes only when the new one does.
    run(&place, "ann", "put customer/c1 name=before").ok();
    run(&place, "ann", "sync").ok();
    // Meanwhile somebody joins, and somebody takes other keys.
    run(&place, "dora", &format!("join {}", earlier.trim())).ok();
    run(&place, "dora", "sync").ok();
    run(&place, "dora", "rotate-key").ok();
    run(&place, "dora", "sync").ok();
    assert_eq!(relay.stop("INT"), 0);
    let old_key = std::fs::read(place.path("relay/key")).expect("it reads");
    let (relay, _) = place.serve_at(&listens);
    assert_ne!(std::fs::read(place.path("relay/key")).expect("it reads"), old_key);
    assert!(!place.path("relay/key.next").exists());
    run(&place, "ben", "put order/o1 discount=45").ok();
    for name in ["ben", "ann", "ben"] {
        run(&place, name, "sync").ok();
    }
    assert_eq!(unsaved(&place, "ben", "order/o1"), json!(false));
    let order = run(&place, "ann", "get order/o1 --json").json();
    assert_eq!(order["state"], "held", "verdicts of either key count");
    assert_eq!(run(&place, "ben", "get customer/c1 --json").json()["fields"]["name"], "before");
    // A ticket from before is good, too.
    run(&place, "cat", &format!("join {}", late.trim())).ok();
    run(&place, "cat", "sync").ok();
    assert_eq!(run(&place, "cat", "get customer/c1 --json").json()["state"], "valid");

    // Eva was away for one key, and comes while the next but one is named and not in force.
    run(&place, "relay", "relay rotate-key").ok();
    run(&place, "eva", "sync").ok();
    assert_eq!(run(&place, "eva", "get customer/c1 --json").json()["state"], "valid");

    // Whoever has the old key is nobody's relay any more.
    assert_eq!(relay.stop("INT"), 0);
    std::fs::remove_file(place.path("relay/key.next")).expect("it is there");
    std::fs::write(place.path("relay/key"), &old_key).expect("it is written");
    let thief = place.run("relay", &["relay", "serve", "--listen", &listens]);
    assert_ne!(thief.code, 0, "it does not even serve");
}

#[test]
fn a_device_takes_other_keys_and_what_it_has_not_sent_stays_good() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    for name in ["ann", "ben"] {
        place.device(name, &[]);
        run(&place, name, "sync").ok();
    }
    run(&place, "ann", "put customer/c1 name=sent").ok();
    run(&place, "ann", "sync").ok();
    run(&place, "ann", "put customer/c2 name=kept").ok();
    run(&place, "ann", "put customer/c3 name=kept").ok();
    let old_key = std::fs::read(place.path("ann/key")).expect("it reads");
    let before = device(&place, "ann");
    run(&place, "ann", "rotate-key").ok();
    let after = device(&place, "ann");
    assert_ne!(std::fs::read(place.path("ann/key")).expect("it reads"), old_key);
    assert_eq!((&after["number"], &after["name"]), (&before["number"], &before["name"]));
    assert_ne!(after["key"], before["key"]);
    assert_eq!(unsaved(&place, "ann", "customer/c3"), json!(true));
    run(&place, "ann", "put customer/c1 name=after").ok();
    run(&place, "ann", "sync").ok();
    for key in ["customer/c1", "customer/c2", "customer/c3"] {
        assert_eq!(unsaved(&place, "ann", key), json!(false), "{key}");
    }
    run(&place, "ben", "sync").ok();
    let history = run(&place, "ben", "history customer/c1 --json").json();
    for change in history["history"].as_array().expect("changes") {
        assert_eq!(change["device"], "ann", "whatever key it was written under");
    }
    assert_eq!(device(&place, "ann")["saved"], json!(4));
    // Entries are kept for ever: no device fills the log with keys.
    let again = run(&place, "ann", "rotate-key");
    assert_eq!(again.code, 6, "{}", again.err);
    run(&place, "ann", "sync").ok();
    // The old key opens nothing any more.
    std::fs::write(place.path("ann/key"), &old_key).expect("it is written");
    assert_ne!(run(&place, "ann", "sync").code, 0);
    assert_eq!(relay.stop("INT"), 0);
}
