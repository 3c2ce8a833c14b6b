//! Limits: who brings too much is read more slowly, then sent away, and nobody else notices; what is stored
//! beyond a limit is kept aside or refused with a reason, and nothing is lost.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Place, finish, signal};
use crate::support::attached::{attach, content, file, key};
use crate::support::lab::{committed, document};
use crate::support::town::address;
use crate::support::wire::{Heard, Raw, Wire, hello};
use crate::support::{Connected, PATIENCE, Site, get, length, put, reaches, soon, state, sync};
use automerge::transaction::Transactable as _;
use automerge::{ObjType, ROOT};
use fieldkeep_device::{Device, FileState};
use fieldkeep_model::{BlobHash, Seed};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::blob::Upload;
use fieldkeep_protocol::frame::{Frame, GoAway};
use fieldkeep_relay::limits::{DeviceUse, Limits, Report};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Blobs as _;
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer.field]
name = {}
photos = { kind = "attachment" }
[type.order.field]
note = {}
state = {}
[[type.order.rule]]
name = "found"
cel = "!has(record.state) || record.state != 'lost'"
reason = "the order is lost"
"#;

/// Has these limits hold from now on.
async fn limit(site: &Site, limits: &str) {
    std::fs::write(site.path("relay").join("relay.toml"), limits).expect("it is written");
    site.relay().reload().await.expect("it is clear");
}

async fn report(site: &Site) -> Report {
    soon("the report", site.relay().handle().limits()).await.expect("it serves").expect("it reads")
}

async fn used(site: &Site, name: &str) -> DeviceUse {
    let report = report(site).await;
    report.devices.into_iter().find(|device| device.name == name).expect("it is a member")
}

/// An order with a note of so many letters.
fn order(device: &Device, id: usize, letters: usize) {
    // Letters that do not repeat, so that they take as much room.
    let note: String =
        content(letters, 7).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    put(device, &format!("order/{}-{id}", device.name()), json!({ "note": note }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_brings_too_much_is_slowed_down_alone_and_loses_nothing() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    limit(&site, "[limits.device]\nchanges_a_minute = 600\n").await;
    for id in 0..620 {
        order(&ann, id, 4);
    }
    let begin = Instant::now();
    let (brought, others) = tokio::join!(sync(&ann), async {
        order(&ben, 0, 4);
        sync(&ben).await;
        begin.elapsed()
    });
    let took = begin.elapsed();
    assert_eq!(brought.sent, 620);
    assert!(took >= Duration::from_millis(1_500), "twenty too many at ten a second, not {took:?}");
    assert!(others < took, "Ben waits for nobody: {others:?}, {took:?}");
    let (ann, ben) = (used(&site, "ann").await.used, used(&site, "ben").await.used);
    assert!(ann.slowed.times > 0 && ann.slowed.millis >= 1_500, "{ann:?}");
    assert!(ann.slowed.last_ms.is_some() && ann.changes > 500, "{ann:?}");
    assert_eq!((ann.refused.sessions, ben.slowed.times), (0, 0));
    assert_eq!(length(&site.log().await, "order"), 621);
}

/// A push of a member's first change; it may be sent again and again.
fn first_push(raw: &Raw) -> Frame {
    let mut doc = document(raw, &[]);
    doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
    Frame::Push(raw.own_push(&address("order", ""), &[&committed(&mut doc)]))
}

/// Sends the same until the relay says that it is enough, and when to come back.
async fn floods(wire: &mut Wire, push: &Frame) -> u64 {
    let (sender, bytes) = (wire.sender.clone(), push.encode());
    let flooding =
        tokio::spawn(async move { while sender.send(1, 0, bytes.clone().into()).await.is_ok() {} });
    let back = wire.until(|frame| {
        let Frame::GoAway(GoAway { retry_ms }) = frame else { return None };
        Some(*retry_ms)
    });
    let back = back.await;
    flooding.abort();
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_beyond_the_grace_is_told_when_to_come_back_and_what_has_a_receipt_stays() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let _connected = [Connected::new(&ann), Connected::new(&ben)];
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    limit(&site, "[limits]\ngrace = \"1s\"\n[limits.device]\nbytes_a_minute = \"256KiB\"\n").await;
    let mut wire = mallory.following().await;
    let push = first_push(&mallory);
    let back = soon("it is enough", floods(&mut wire, &push)).await;
    assert!((30_000..=3_700_000).contains(&back), "{back}");
    put(&ann, "order/calm", json!({"note": "meanwhile"}));
    reaches(&ben, "order/calm", "valid").await;
    // She does not go by herself.
    assert_eq!(wire.closed().await, Some(Code::Busy));
    let used = used(&site, "mallory").await.used;
    assert_eq!(used.refused.sessions, 1, "{used:?}");
    assert!(used.refused.last_ms.is_some() && used.slowed.times > 0, "{used:?}");
    assert_eq!(length(&site.log().await, "order"), 2, "her change, and Ann's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_sent_away_before_it_is_welcome_says_for_how_long() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let limits = "[limits]\ngrace = \"1s\"\n[limits.device]\nchanges_a_minute = 20\n";
    limit(&site, limits).await;
    for id in 0..200 {
        order(&ann, id, 4);
    }
    // They may all have been taken before it is held back.
    let _ = ann.sync(PATIENCE).await;
    order(&ann, 200, 4);
    let error = ann.sync(PATIENCE).await.expect_err("she owes minutes").to_string();
    assert!(error.contains("the relay sends this device away, for "), "{error}");
    // Other limits hold at once, and forgive what was too much under these.
    limit(&site, "").await;
    sync(&ann).await;
    assert_eq!(length(&site.log().await, "order"), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_too_often_waits_and_then_is_refused_and_others_are_not() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    limit(&site, "[limits.device]\nconnections_a_minute = 3\n").await;
    let mut served = 0;
    loop {
        let mut wire = mallory.dial().await;
        wire.say(&Frame::Hello(Box::new(hello(mallory.org)))).await;
        match wire.next().await {
            Heard::Frame(Frame::Welcome(_)) => served += 1,
            Heard::Frame(_) => {}
            Heard::Closed(reason) => {
                assert_eq!(reason.code, Some(Code::Busy.number()), "{reason}");
                assert!(reason.text.contains("come back in"), "{reason}");
                break;
            }
        }
        assert!(served < 9, "nobody refuses her");
    }
    put(&ann, "order/calm", json!({"note": "meanwhile"}));
    sync(&ann).await;
    assert_eq!(used(&site, "mallory").await.used.refused.sessions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_make_room_for_each_other_and_nobody_waits_for_them() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    limit(&site, "[limits]\nstrangers = 3\n").await;
    let ticket = site.ticket("ben").await;
    let mut lines = Vec::new();
    for nth in 0..8 {
        let stranger = Raw { seed: Seed([200 + nth; 32]), ..Raw::stranger(&ticket, 1) };
        lines.push(stranger.introduced().await.0);
    }
    for mut line in lines.drain(..5) {
        assert_eq!(line.closed().await, Some(Code::Busy), "the oldest goes");
    }
    let strangers = report(&site).await.strangers;
    assert_eq!((strangers.connected, strangers.displaced), (3, 5));
    put(&ann, "order/calm", json!({"note": "meanwhile"}));
    sync(&ann).await;
    let ben = site.join(&ticket, "ben").await;
    sync(&ben).await;
    assert_eq!(state(&ben, "order/calm"), "valid");
    drop(lines);
    soon("strangers leave", async {
        while report(&site).await.strangers.connected > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_beyond_the_quota_lies_aside_until_there_is_room() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    limit(&site, "[limits.device]\nlog_bytes = \"2KiB\"\n").await;
    order(&ann, 0, 6_000);
    sync(&ann).await;
    let before = used(&site, "ann").await.used.stored.log_bytes;
    assert!((2_048..8_000).contains(&before), "{before}");
    order(&ann, 1, 300);
    order(&ann, 2, 300);
    let report = sync(&ann).await;
    assert!(report.refused > 0, "{report:?}");
    assert_eq!(length(&site.log().await, "order"), 1);
    let stored = used(&site, "ann").await.used.stored;
    assert!(stored.log_bytes == before && stored.aside_bytes > 300, "{stored:?}");
    assert!(get(&ann, "order/ann-1").is_some_and(|record| record.unsaved), "it has no receipt");
    // Others are not concerned, and a restart changes nothing.
    order(&ben, 0, 300);
    site.stop().await;
    site.start_again().await;
    sync(&ben).await;
    assert_eq!(length(&site.log().await, "order"), 2);
    assert_eq!(used(&site, "ann").await.used.stored, stored);

    limit(&site, "[limits.device]\nlog_bytes = \"1MiB\"\n").await;
    assert_eq!(length(&site.log().await, "order"), 4, "what lay aside is in the log");
    assert_eq!(used(&site, "ann").await.used.stored.aside_bytes, 0);
    site.converges(&[&ann, &ben], &["order"]).await;
    assert_eq!(state(&ben, "order/ann-2"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stated_because_of_a_change_counts_for_its_author() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    order(&ann, 0, 6_000);
    sync(&ann).await;
    sync(&ben).await;
    let of_ann = used(&site, "ann").await.used.stored.log_bytes;
    for (now, judged) in [("lost", "held"), ("found", "valid"), ("lost", "held")] {
        put(&ben, "order/ann-0", json!({ "state": now }));
        sync(&ben).await;
        assert_eq!(state(&ben, "order/ann-0"), judged);
    }
    // Each time that it is held, its last valid content is told to everybody.
    let of_ben = used(&site, "ben").await.used.stored.log_bytes;
    assert!((12_000..18_000).contains(&of_ben), "{of_ben}");
    assert_eq!(used(&site, "ann").await.used.stored.log_bytes, of_ann);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_beyond_the_quota_of_all_lies_aside_whoever_wrote_it() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    limit(&site, "[limits.organisation]\nlog_bytes = \"2KiB\"\n").await;
    order(&ann, 0, 6_000);
    sync(&ann).await;
    order(&ben, 0, 300);
    assert_eq!(sync(&ben).await.refused, 1);
    assert_eq!(length(&site.log().await, "order"), 1);
    limit(&site, "[limits.organisation]\nlog_bytes = \"1MiB\"\n").await;
    assert_eq!(length(&site.log().await, "order"), 2, "what lay aside is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_builds_on_a_change_beyond_the_quota_is_taken_with_it() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    order(&ann, 0, 6_000);
    sync(&ann).await;
    sync(&ben).await;
    limit(&site, "[limits.device]\nlog_bytes = \"2KiB\"\n").await;
    put(&ann, "order/shared", json!({"note": "hers"}));
    let listener = ben.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let (at, serving) = (listener.address(), listener.clone());
    let serving = tokio::spawn(async move { serving.serve().await });
    soon("they meet", ann.sync_with(at, PATIENCE)).await.expect("they exchange");
    serving.abort();
    put(&ben, "order/shared", json!({"note": "his, upon hers"}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(length(&site.log().await, "order"), 3, "both are in the log");
    assert_eq!(state(&ann, "order/shared"), state(&ben, "order/shared"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_which_there_is_no_room_says_so_and_goes_up_when_there_is() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    limit(&site, "[limits.device]\nfile_bytes = \"64KiB\"\n").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let here = |name: &str| {
        let files = ann.files(Some(&key("customer/c1"))).expect("it reads");
        let found = files.into_iter().find(|view| view.file.name == name);
        found.expect("it is attached").state
    };
    attach(&ann, "customer/c1", &file(&site, "small.bin", &content(50_000, 1)));
    sync(&ann).await;
    assert_eq!(here("small.bin"), FileState::Here);
    attach(&ann, "customer/c1", &file(&site, "large.bin", &content(20_000, 2)));
    sync(&ann).await;
    let FileState::Failed(why) = here("large.bin") else { panic!("{:?}", here("large.bin")) };
    assert!(why.contains("no room") && why.contains("50000 are used"), "{why}");
    let used_now = used(&site, "ann").await.used;
    assert_eq!((used_now.stored.file_bytes, used_now.refused.files), (50_000, 1));
    assert_eq!(here("small.bin"), FileState::Here, "what was taken stays");

    limit(&site, "[limits.device]\nfile_bytes = \"128KiB\"\n").await;
    assert_eq!(ann.retry_files().expect("it writes"), 1);
    sync(&ann).await;
    assert_eq!(here("large.bin"), FileState::Here);
    assert_eq!(used(&site, "ann").await.used.stored.file_bytes, 70_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_of_a_file_and_left_counts_too() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    limit(&site, "[limits.device]\nfile_bytes = \"64KiB\"\n").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    ann.pause_files(true).expect("it writes");
    let hashes = [("one.bin", 3), ("two.bin", 4)].map(|(name, seed)| {
        attach(&ann, "customer/c1", &file(&site, name, &content(50_000, seed)))
    });
    sync(&ann).await;
    let tls = site.members().await.members().values().find(|m| m.name == "ann").cloned();
    let tls = tls.expect("she joined").keys.tls;
    let brings = async |site: &Site, hash: BlobHash| {
        let row = ann.with_replica(|replica| Ok::<_, ReplicaError>(replica.store().blob(&hash)?));
        let tree = row.expect("it reads").expect("it is attached").tree.to_bytes();
        let upload = Upload { hash, size: 50_000, tree, record: key("customer/c1") };
        let brought = site.ask(move |engine| engine.file_brought(&tls, &upload)).await;
        format!("{:?}", brought.expect("it reads"))
    };
    let first = brings(&site, hashes[0]).await;
    assert!(first.starts_with("Take"), "{first}");
    assert_eq!(used(&site, "ann").await.used.stored.begun_bytes, 50_000);
    site.stop().await;
    site.start_again().await;
    let second = brings(&site, hashes[1]).await;
    assert!(second.contains("no room"), "{second}");
    let again = brings(&site, hashes[0]).await;
    assert!(again.starts_with("Take"), "who goes on with it has its room: {again}");
}

/// It once looked for files to send whenever it had just looked.
#[test]
fn a_sync_that_is_held_back_with_a_file_uses_next_to_no_processor_time() {
    let place = Place::founded(CATALOG);
    place.file("relay/relay.toml", "[limits.device]\nbytes_a_minute = \"64KiB\"\n");
    let _relay = place.serve();
    place.device("ann", &[]);
    let photo = place.file("photo.bin", &"x".repeat(1 << 20));
    let photo = photo.to_str().expect("a plain path");
    place.run("ann", &["put", "customer/c1", "name=Kiosk"]).ok();
    place.run("ann", &["attach", "customer/c1", "photos", photo]).ok();
    let mut shell = Command::new("bash");
    shell.args(["-c", "TIMEFORMAT='%U %S'; time \"$BINARY\" sync --timeout 3s --dir \"$DEVICE\""]);
    shell.env("BINARY", env!("CARGO_BIN_EXE_fieldkeep")).env("DEVICE", place.path("ann"));
    let ran = shell.output().expect("bash is there");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(said.contains("not everything was exchanged within 3 s"), "{said}");
    let times = said.lines().next_back().expect("what it used").split(' ');
    let used: f64 = times.map(|time| time.parse::<f64>().expect("seconds")).sum();
    assert!(used < 0.7, "{used} s of processor time: {said}");
}

#[test]
fn the_command_tells_limits_and_use_and_a_hangup_has_other_limits_hold_at_once() {
    let place = Place::founded(CATALOG);
    let limits = || place.run("relay", &["relay", "limits", "--json"]).json();
    let told = limits();
    assert_eq!(told["schema"], "fieldkeep/relay-limits/1");
    assert_eq!(told["limits"]["device"]["changes_a_minute"], 300_000);
    assert_eq!((&told["since"], &told["devices"]), (&Value::Null, &json!([])));

    place.file("relay/relay.toml", "[limits.device]\nlog_bytes = \"1GiB\"\n");
    let (relay, _) = place.serve_at("127.0.0.1:0");
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "note=tea"]).ok();
    place.run("ann", &["sync"]).ok();
    let told = limits();
    assert_eq!(told["limits"]["device"]["log_bytes"], 1 << 30);
    let ann = &told["devices"][0];
    assert_eq!((&ann["name"], &ann["revoked"]), (&json!("ann"), &json!(false)));
    assert!(ann["used"]["stored"]["log_bytes"].as_u64().is_some_and(|bytes| bytes > 50), "{told}");
    assert!(ann["used"]["connections"].as_u64().is_some_and(|made| made > 0), "{told}");
    assert!(told["since"].is_string(), "{told}");
    let shown = place.run("relay", &["relay", "limits"]).ok();
    for part in ["300000", "1 GiB", "no limit", "ann", "nobody was slowed down or refused"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    place.file("relay/relay.toml", "[limits.device]\nlog_bytes = \"none\"\n");
    signal(relay.id(), "HUP");
    let begin = Instant::now();
    while limits()["limits"]["device"]["log_bytes"] != Value::Null {
        assert!(begin.elapsed() < PATIENCE, "it is read again in vain");
    }
    assert_eq!(relay.stop("TERM"), 0);
    let told = limits();
    assert!(told["devices"][0]["used"]["stored"]["log_bytes"].as_u64() > Some(50), "{told}");
}

#[test]
fn every_limit_is_documented_with_its_default() {
    let limits = serde_json::to_value(Limits::default()).expect("JSON");
    let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let guide = std::fs::read_to_string(guide).expect("it is there");
    let mut documented = BTreeSet::new();
    for row in guide.lines().filter(|line| line.starts_with("| `[limits")) {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let (table, name) = cells[1].split_once(' ').expect("a table and a key");
        documented.insert((table.to_owned(), name.to_owned(), cells[2].clone()));
    }
    let written = |name: &str, value: &Value| match value.as_u64() {
        None => "\"none\"".to_owned(),
        Some(bytes) if name.contains("bytes") => {
            let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
            let (unit, shift) =
                units.into_iter().find(|(_, shift)| bytes >> shift > 0).expect("one");
            format!("\"{}{unit}\"", bytes >> shift)
        }
        Some(count) => count.to_string(),
    };
    let mut expected = BTreeSet::new();
    for (key, value) in limits.as_object().expect("an object") {
        if let Some(share) = value.as_object() {
            for (name, value) in share {
                let row = (format!("[limits.{key}]"), name.clone(), written(name, value));
                expected.insert(row);
            }
        } else if let Some(name) = key.strip_suffix("_seconds") {
            expected.insert((
                "[limits]".to_owned(),
                name.to_owned(),
                format!("\"{}m\"", value.as_u64().expect("a number") / 60),
            ));
        } else {
            expected.insert(("[limits]".to_owned(), key.clone(), written(key, value)));
        }
    }
    assert_eq!(documented, expected);
}

#[test]
fn honest_devices_do_not_notice_who_misbehaves_among_them() {
    let place = Place::new();
    let folder = place.path("load");
    let args = [
        "lab",
        "load",
        "--devices",
        "50",
        "--rate",
        "40",
        "--seconds",
        "2",
        "--bad",
        "strangers,floods,slow,garbage,hostile",
        "--memory",
        "16",
        "--no-floors",
        "--json",
        "--dir",
    ];
    let mut command = place.command("relay", &args);
    command.arg(&folder);
    let ran = finish(command, "");
    let results: Value =
        serde_json::from_str(ran.out.trim()).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(ran.code, 0, "{results:#}");
    assert_eq!((&results["missing"], &results["cuts"]), (&json!(0), &json!(0)), "{results:#}");
    assert!(results["reconnect_ms"].as_f64().is_some_and(|ms| ms < 10_000.0), "{results:#}");
    assert!(results["idle_kib"].as_f64().is_some_and(|kib| kib < 200.0), "{results:#}");
    let times = &results["live"];
    assert!(times["count"].as_u64() >= Some(70) && times["p50_ms"].as_f64() > Some(0.0), "{times}");
    for ordeal in results["ordeals"].as_array().expect("both") {
        let (calm, harried) = (&ordeal["calm"], &ordeal["harried"]);
        let median = |times: &Value| times["p50_ms"].as_f64().expect("a number");
        // On a machine that others use as well only the median is steady, and that only somewhat.
        assert!(median(harried) < 4.0 * median(calm) + 100.0, "{ordeal:#}");
        assert_eq!(ordeal["arrived"], true, "{ordeal:#}");
        assert!(ordeal["growth_bytes"].as_u64() < Some(64 << 20), "{ordeal:#}");
        // The others run at a low priority, and may not come to anything in two seconds.
        let come = ["strangers", "floods"].iter().any(|bad| ordeal["bad"] == *bad);
        assert!(!come || ordeal["deeds"]["handshakes"].as_u64() > Some(0), "{ordeal:#}");
    }
    assert!(!folder.exists(), "it leaves nothing behind");
}
