//! Attached files from the command line.

use crate::http::Client;
use crate::process::Place;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.visit.field.note]
[type.visit.field.photos]
kind = "attachment"
media = ["image/*"]
max_size = "1 MB"
"#;

#[test]
fn a_photo_is_attached_sent_listed_and_had_on_another_device() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    let photo = place.file("front.png", "pixels");
    let photo = photo.to_str().expect("a plain path");
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let hash = place.run("ann", &["attach", "visit/v1", "photos", photo]).ok();
    let hash = hash.trim();
    assert_eq!(hash, blake3::hash(b"pixels").to_hex().as_str());
    let listed = place.run("ann", &["attachments", "list"]).ok();
    assert!(listed.contains("front.png") && listed.contains("waiting for its record"), "{listed}");
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("ann", &["attachments", "list"]).ok(), "no files\n");
    let listed = place.run("ann", &["attachments", "list", "visit/v1", "--json"]).json();
    assert_eq!(listed["records"][0]["state"], "here");

    place.run("ben", &["sync", "--metered"]).ok();
    let listed = place.run("ben", &["attachments", "list", "visit/v1"]).ok();
    assert!(listed.contains("not on this device"), "{listed}");
    let out = place.path("copy.png");
    let out = out.to_str().expect("a plain path");
    for wanted in ["front.png", hash, &hash[..10]] {
        place.run("ben", &["attachments", "get", "visit/v1", wanted, "--out", out]).ok();
        assert_eq!(std::fs::read_to_string(out).expect("it is there"), "pixels");
        std::fs::remove_file(out).expect("it goes");
    }

    let beside = place.path("sent");
    let shared = ["share", "visit/v1", "--with-attachments", beside.to_str().expect("plain")];
    assert!(place.run("ben", &shared).ok().contains("open"));
    let sent = std::fs::read_to_string(beside.join("front.png")).expect("it lies beside");
    assert_eq!(sent, "pixels");

    // Removing it is an ordinary edit.
    place.run("ben", &["put", "visit/v1", &format!("photos[{hash}]=")]).ok();
    assert_eq!(
        place.run("ben", &["get", "visit/v1", "--json"]).json()["fields"]["photos"],
        json!([])
    );
}

#[test]
fn what_cannot_be_attached_is_told_and_changes_nothing() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let text = place.file("notes.txt", "words");
    let large = place.file("large.png", &"x".repeat(1_000_001));
    let photo = place.file("front.png", "pixels");
    let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    for (record, field, file, code, word) in [
        ("visit/v1", "photos", path(&text), 4, "text/plain is none"),
        ("visit/v1", "photos", path(&large), 4, "1000001 bytes"),
        ("visit/v1", "note", path(&photo), 2, "photos does"),
        ("visit/v9", "photos", path(&photo), 3, "visit/v9"),
        ("visit/v1", "photos", path(&place.path("none.png")), 3, "none.png"),
    ] {
        let ran = place.run("ann", &["attach", record, field, &file]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains(word), "{}", ran.err);
    }
    assert_eq!(place.run("ann", &["attachments", "list", "visit/v1"]).ok(), "no files\n");
    let ran = place.run("ann", &["attachments", "get", "visit/v1", "front.png"]);
    assert_eq!(ran.code, 3, "{}", ran.err);

    // With no signal it waits, and says so.
    place.run("ann", &["attach", "visit/v1", "photos", &path(&photo)]).ok();
    place.run("ann", &["attachments", "pause"]).ok();
    place.run("ann", &["sync"]).ok();
    let listed = place.run("ann", &["attachments", "list"]).ok();
    assert!(listed.contains("waiting for a connection") && listed.contains("paused"), "{listed}");
    relay.stop("TERM");
    place.run("ann", &["attachments", "resume"]).ok();
    assert_eq!(place.run("ann", &["sync", "--timeout", "2s"]).code, 5);
    assert_eq!(place.run("ann", &["attachments", "retry"]).ok(), "0 files will be tried again\n");
}

#[test]
fn nothing_says_synced_while_a_file_is_on_this_device_alone() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["attachments", "pause"]).ok();
    let photo = place.file("front.png", "pixels");
    place.run("ann", &["attach", "visit/v1", "photos", photo.to_str().expect("plain")]).ok();
    let serving = place.start("ann", &["serve", "--console", "127.0.0.1:0", "--no-nearby"]);
    let url = serving.line();
    let url = url.strip_prefix("console ").expect("it says where");
    loop {
        let line = serving.line();
        assert!(!line.starts_with("synced"), "{line}");
        if line == "online  0 unsaved, 0 held, 1 file to be sent" {
            break;
        }
    }
    let advice = place.run("ann", &["advice"]).ok();
    assert!(advice.starts_with("files are paused: 1 file is on this device"), "{advice}");
    let browser = Client::stranger(url).entered(url);
    let page = browser.get("/").body;
    assert!(page.contains("1 to be sent") && !page.contains("Everything that was"), "{page}");

    place.run("ann", &["attachments", "resume"]).ok();
    serving.line_beginning("synced  0 unsaved, 0 held");
    assert!(place.run("ann", &["advice"]).ok().starts_with("all is well"));
    assert!(browser.get("/").body.contains("Everything that was captured here is on the relay"));
}

#[test]
fn a_file_that_failed_is_told_and_goes_by_a_retry() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    let photo = place.file("front.png", "pixels");
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let attach = ["attach", "visit/v1", "photos", photo.to_str().expect("a plain path")];
    let hash = place.run("ann", &attach).ok();
    let kept = place.path(&format!("ann/blobs/{}", hash.trim()));
    std::fs::write(&kept, "rotten").expect("it is written");
    let told = place.run("ann", &["sync"]).ok();
    let words = ["files: sent 0, received 0, waiting 0, failed 1", "attachments retry"];
    assert!(words.iter().all(|word| told.contains(word)), "{told}");
    assert!(place.run("ann", &["attachments", "list"]).ok().contains("failed: "));
    std::fs::write(&kept, "pixels").expect("it is written");
    assert_eq!(place.run("ann", &["attachments", "retry"]).ok(), "1 file will be tried again\n");
    let told = place.run("ann", &["sync", "--json"]).json();
    let files = json!({ "sent": 1, "received": 0, "waiting": 0, "failed": 0 });
    assert_eq!(told["files"], files);
    assert!(place.path(&format!("relay/blobs/{}", hash.trim())).exists());
}

#[test]
fn files_come_by_the_rules_of_a_device_and_from_another_one_without_the_relay() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    for name in ["ann", "ben", "cyn"] {
        place.device(name, &[]);
        place.file(&format!("{name}/device.toml"), "[files]\ndownload = \"unmetered\"\n");
    }
    let photo = place.file("front.png", "pixels");
    let photo = photo.to_str().expect("a plain path");
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let hash = place.run("ann", &["attach", "visit/v1", "photos", photo]).ok();
    let has = |dir: &str| place.path(&format!("{dir}/blobs/{}", hash.trim())).exists();
    place.run("ann", &["sync"]).ok();
    let serve = [
        "serve",
        "--console",
        "127.0.0.1:0",
        "--no-nearby",
        "--listen",
        "127.0.0.1:0",
        "--metered",
    ];
    let serving = place.start("ben", &serve);
    serving.line_beginning("console");
    // What is said of one sync holds for that one: whoever serves goes on as he was told.
    place.run("ben", &["sync", "--metered"]).ok();
    place.run("ben", &["sync"]).ok();
    assert!(!has("ben"), "it would be paid by the byte");
    assert_eq!(serving.stop("INT"), 130);
    let serving = place.start(
        "ben",
        &["serve", "--console", "127.0.0.1:0", "--no-nearby", "--listen", "127.0.0.1:0"],
    );
    serving.line_beginning("console");
    let address = serving.line_beginning("listening");
    let address = address.split_whitespace().nth(1).expect("an address").to_owned();
    place.run("ben", &["sync", "--metered"]).ok();
    let told = place.run("ben", &["sync"]).ok();
    assert!(has("ben"), "{told}");

    // Cyn never meets the relay again.
    place.run("cyn", &["sync", "--metered"]).ok();
    relay.stop("TERM");
    assert!(!has("cyn"));
    place.run("cyn", &["sync", "--peer", &address]).ok();
    assert!(has("cyn"), "another device has it");
    // Who knows the name alone gets nothing, and is told what there is.
    let asked = place.run("cyn", &["attachments", "get", "visit/v9", hash.trim()]);
    assert_eq!(asked.code, 3, "{}", asked.err);
}

#[test]
fn a_picture_is_kept_without_its_place_where_the_catalog_says_so() {
    let place = Place::new();
    let catalog = CATALOG.replace("max_size", "location = \"strip\"\nmax_size");
    let _relay = place.relay(&catalog);
    place.device("ann", &[]);
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let head = [&[0xff, 0xd8][..], b"\xff\xe1\x00\x21http://ns.adobe.com/xap/1.0/\0YY"].concat();
    let pixels = b"\xff\xda\x00\x04xxpixels\xff\xd9";
    let path = place.path("front.jpg");
    std::fs::write(&path, [&head[..], pixels, b"a film"].concat()).expect("it is written");
    let attach = ["attach", "visit/v1", "photos", path.to_str().expect("a plain path")];
    let hash = place.run("ann", &attach).ok();
    let kept = std::fs::read(place.path(&format!("ann/blobs/{}", hash.trim())));
    assert_eq!(kept.expect("it is there"), [&[0xff, 0xd8][..], pixels].concat());
    let heic = place.file("front.heic", "ftypheic");
    let refused =
        place.run("ann", &["attach", "visit/v1", "photos", heic.to_str().expect("plain")]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("nothing was attached"), "{}", refused.err);
}

#[test]
fn what_nothing_refers_to_is_told_and_goes_where_that_is_turned_on() {
    let place = Place::new();
    drop(place.relay(CATALOG));
    let (relay, address) = place.serve_at("127.0.0.1:0");
    for name in ["ann", "ben"] {
        place.device(name, &[]);
    }
    place.run("ann", &["put", "visit/v1", "note=open"]).ok();
    let photo = place.file("front.png", "pixels");
    let photo = photo.to_str().expect("a plain path");
    let hash = place.run("ann", &["attach", "visit/v1", "photos", photo]).ok();
    let hash = hash.trim();
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    let gc = |more: &[&str]| place.run("relay", &[&["relay", "gc"], more].concat());
    assert!(gc(&["--dry-run"]).ok().contains("something refers to every file"));
    place.run("ann", &["put", "visit/v1", &format!("photos[{hash}]=")]).ok();
    place.run("ann", &["sync"]).ok();

    // It is off, and only told.
    let told = gc(&["--dry-run"]).ok();
    assert!(told.contains("collection is not turned on: nothing goes"), "{told}");
    assert!(told.contains("nothing refers to 1 file, 6 bytes") && told.contains(hash), "{told}");
    let refused = gc(&[]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("nothing was removed"), "{}", refused.err);
    assert!(refused.err.contains("[collection]"), "{}", refused.err);

    // It is turned on, and the grace time goes by.
    relay.stop("TERM");
    place.file("relay/relay.toml", "[colection]\nafter = \"30d\"\n");
    let unclear = gc(&["--dry-run"]);
    assert_eq!(unclear.code, 2, "{}", unclear.err);
    let words = ["line 1", "`colection`", "`collection`", "`host`", "mend the file"];
    assert!(words.iter().all(|word| unclear.err.contains(word)), "{}", unclear.err);
    place.file("relay/relay.toml", "[collection]\nafter = \"30d\"\n");
    let early = gc(&["--json"]).json();
    assert_eq!((&early["now"]["files"], &early["later"]["files"]), (&json!(0), &json!(1)));
    assert_eq!(early["after_seconds"], 30 * 24 * 60 * 60);
    let database = rusqlite::Connection::open(place.path("relay/fieldkeep.db")).expect("it opens");
    let days = 31_i64 * 24 * 60 * 60 * 1_000;
    let moved = database.execute("UPDATE loose SET since = since - ?", [days]);
    assert_eq!(moved.expect("it writes"), 1);
    drop(database);
    let kept = place.path(&format!("relay/blobs/{hash}"));
    let told = gc(&["--dry-run", "--json"]).json();
    assert_eq!(told["now"], json!({ "files": 1, "bytes": 6 }));
    assert!(kept.exists(), "it was only told");
    let went = gc(&["--json"]).json();
    assert_eq!((&went["now"], &went["files"]), (&told["now"], &told["files"]));
    assert!(!kept.exists());

    // Older states say so, and whoever asks is told.
    let _relay = place.serve_at(&address);
    place.run("ben", &["sync"]).ok();
    let history = place.run("ben", &["history", "visit/v1", "--json"]).json();
    let attached = history["history"].as_array().expect("changes").iter().find(|change| {
        change["writes"].as_array().expect("writes").iter().any(|write| {
            write["field"] == json!(format!("photos[{hash}].name")) && write["after"] == "front.png"
        })
    });
    let attached = attached.expect("it was attached");
    let change = attached["change"].as_str().expect("a hash");
    let day = attached["writes"][0]["removed"].as_str().expect("it was removed").to_owned();
    assert_eq!(day.len(), "2026-11-29".len());
    let words = format!("attachment removed on {day}");
    assert!(place.run("ben", &["history", "visit/v1"]).ok().contains(&words));
    let was = place.run("ben", &["at", "visit/v1", change]).ok();
    assert!(was.contains(&format!("photos  front.png: {words}")), "{was}");
    let was = place.run("ben", &["at", "visit/v1", change, "--json"]).json();
    assert_eq!(was["removed"][0]["removed"], json!(day));
    let serving = place.start("ben", &["serve", "--console", "127.0.0.1:0", "--no-nearby"]);
    let url = serving.line();
    let url = url.strip_prefix("console ").expect("it says where");
    let browser = Client::stranger(url).entered(url);
    for page in ["", &format!("/at/{change}")] {
        let page = browser.get(&format!("/records/visit/v1{page}")).body;
        assert!(page.contains("front.png") && page.contains(&words), "{page}");
    }
    assert_eq!(serving.stop("INT"), 130);
    let asked = place.run("ben", &["attachments", "get", "visit/v1", hash]);
    assert_eq!(asked.code, 3, "{}", asked.err);
    assert!(asked.err.contains(&words), "{}", asked.err);
    place.run("ben", &["revert", "visit/v1", "--to", change]).ok();
    assert!(place.run("ben", &["attachments", "list", "visit/v1"]).ok().contains(&words));
    place.run("ben", &["sync"]).ok();

    // Ann has it still.
    place.run("ann", &["sync"]).ok();
    assert!(kept.exists());
    place.run("ben", &["sync"]).ok();
    place.run("ben", &["attachments", "get", "visit/v1", "front.png"]).ok();
}
