//! A relay's backups: taken while devices write, read back, put in place after a disaster; what any device
//! still has is there again, and the report says what. And the doctor, who finds what is wrong with a relay.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::http::Client;
use crate::process::{Place, Ran, Running, finish};
use crate::support::attached::{attach, content, file, stored};
use crate::support::{Connected, Site, fields, put, soon, sync};
use fieldkeep_device::Device;
use fieldkeep_model::BlobHash;
use fieldkeep_relay::{BackupState, Occupied, Recovery, Taken, Thorough, Which, restore_backup};
use fieldkeep_store::backup::BackupFolder;
use fieldkeep_store::{Blobs as _, Reader, home};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard};

const CATALOG: &str = r#"
catalog = 1
[type.order]
[type.order.field.text]
[type.order.field.discount]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[type.visit]
[type.visit.field.note]
[type.visit.field.photos]
kind = "attachment"
"#;

/// Orders that one device writes at most while a backup is taken: so few that no log is packed, and the
/// changes of a copy can be counted by whoever reads its table.
const MOST: usize = 150;

/// A process that is being started has for a moment what this one has open, the lock of a directory among it:
/// whoever has a relay in this process waits until nobody starts any, and the others until it is done.
static STARTING: RwLock<()> = RwLock::const_new(());

/// What was written, kept outside: who wrote it, and what it says. One change each.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<Entry>>>);

/// Who wrote it, the record, and what it says.
type Entry = (&'static str, String, String);

impl Ledger {
    fn write(&self, who: &'static str, device: &Device, key: &str, text: &str) {
        put(device, key, json!({"text": text}));
        self.note(who, key, text);
    }

    fn note(&self, who: &'static str, key: &str, text: &str) {
        self.0.lock().expect("nobody panicked").push((who, key.to_owned(), text.to_owned()));
    }

    fn entries(&self) -> Vec<Entry> {
        self.0.lock().expect("nobody panicked").clone()
    }

    /// How many changes each wrote.
    fn changes(&self) -> BTreeMap<&'static str, u64> {
        let mut changes = BTreeMap::new();
        self.entries().iter().for_each(|(who, ..)| *changes.entry(*who).or_default() += 1);
        changes
    }
}

/// Whoever writes on without end, until it is told to stop.
fn writes(
    who: &'static str,
    device: &Device,
    ledger: &Ledger,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let (device, ledger, stop) = (device.clone(), ledger.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        for n in 0..MOST {
            ledger.write(who, &device, &format!("order/{who}-{n}"), &format!("{who} wrote {n}"));
            if stop.load(Ordering::Relaxed) && n >= 20 {
                return;
            }
        }
    })
}

/// The relay's own way to take one, as its console does.
async fn backed_up(site: &Site, folder: &Path) -> Taken {
    let backups = site.relay().backups();
    backups.start(folder, Thorough::Lengths).expect("none is being made");
    let ended = async {
        loop {
            match backups.state() {
                BackupState::UnderWay { .. } | BackupState::Idle => tokio::task::yield_now().await,
                BackupState::Taken(taken) => return *taken,
                BackupState::Failed { why, .. } => panic!("{why}"),
            }
        }
    };
    let taken = soon("the backup", ended).await;
    let last = backups.last().expect("it reads").expect("it is noted");
    assert_eq!((last.taken, last.number), (taken.manifest.taken, taken.manifest.number));
    taken
}

/// How many changes of each member a database has, by its number; read from the table itself.
fn changes_in(database: &Path) -> BTreeMap<u64, u64> {
    let address = format!("file:{}?immutable=1", database.display());
    let connection = rusqlite::Connection::open(address).expect("it opens");
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    assert_eq!(count("SELECT count(*) FROM pack").expect("it reads"), 0);
    let mut query = connection.prepare("SELECT actor FROM change").expect("it reads");
    let actors = query.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("it reads");
    let mut changes = BTreeMap::new();
    for actor in actors {
        let actor = actor.expect("it reads");
        let number = u64::from_be_bytes(actor[..8].try_into().expect("eight bytes"));
        *changes.entry(number).or_default() += 1;
    }
    changes
}

fn number(device: &Device) -> u64 {
    let actor = device
        .with_replica(|replica| Ok::<_, fieldkeep_replica::ReplicaError>(replica.me().actor()));
    actor.expect("it reads").device()
}

fn recovery(site: &Site) -> Recovery {
    let store = Reader::open(&home::database(&site.path("relay"))).expect("it opens");
    Recovery::read(&store).expect("it reads").expect("it was put back")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_disaster_everything_is_there_again_that_any_device_still_has() {
    let _alone = STARTING.write().await;
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let (cat, dan) = (site.device("cat").await, site.device("dan").await);
    let numbers = [("ann", &ann), ("ben", &ben), ("cat", &cat), ("dan", &dan)];
    let numbers: BTreeMap<_, _> = numbers.map(|(name, device)| (name, number(device))).into();
    let ledger = Ledger::default();
    for (name, device) in [("ann", &ann), ("ben", &ben), ("cat", &cat), ("dan", &dan)] {
        ledger.write(name, device, &format!("order/{name}"), "before the backup");
        sync(device).await;
    }
    let photo = content(200_000, 1);
    let first = attach_to(&site, &ann, &ledger, "visit/v1", "first.png", &photo).await;

    // The backup is taken while all of them write and are connected.
    let connected = [&ann, &ben, &cat, &dan].map(Connected::new);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [("ann", &ann), ("ben", &ben), ("cat", &cat)];
    let writers = writers.map(|(name, device)| writes(name, device, &ledger, &stop));
    let folder = site.path("backups");
    let taken = backed_up(&site, &folder).await;
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().expect("it wrote"));

    // More work: all of it has a receipt, and is on every device.
    ledger.write("dan", &dan, "order/dan-2", "only others will have it");
    let second =
        attach_to(&site, &ann, &ledger, "visit/v2", "second.png", &content(90_000, 2)).await;
    for _ in 0..2 {
        for device in [&ann, &ben, &cat, &dan] {
            sync(device).await;
        }
    }
    drop(connected);
    // And some that has not.
    ledger.write("ben", &ben, "order/ben-unsent", "written in the cellar");
    ledger.write("cat", &cat, "order/cat-unsent", "written in the cellar");

    // The relay's disk is lost, and Dan's device.
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("it goes");
    drop(dan);
    std::fs::remove_dir_all(site.path("dan")).expect("it goes");
    let in_copy = changes_in(&home::database(&folder.join(taken.slot.to_string())));
    let all = ledger.changes();
    assert!(in_copy.values().sum::<u64>() < all.values().sum::<u64>(), "there was more work");
    assert_eq!(
        in_copy.values().sum::<u64>(),
        taken.manifest.changes,
        "and the manifest says how much"
    );

    let relay = site.path("relay");
    let put_back = restore_backup(&folder, &relay, Which::Newest, Occupied::Refused, &mut |_| {});
    let put_back = put_back.expect("it is whole");
    assert_eq!((put_back.epoch, put_back.lacking), (2, 0));
    assert_eq!(put_back.manifest, taken.manifest);
    site.start_again().await;
    assert_eq!(site.ask(|engine| engine.replica().epoch().counter).await, 2, "one epoch, once");
    assert_eq!(stored(&site, "relay", &first).as_ref(), Some(&photo));

    // Two come back, and bring what they hold of everybody's.
    for device in [&ann, &ben, &ann] {
        sync(device).await;
    }
    for (_, key, text) in ledger.entries() {
        let there = site.record(&key).await;
        match there {
            None => assert_eq!(key, "order/cat-unsent", "{key} is lost"),
            Some(record) if key.starts_with("order") => {
                assert_eq!(record.fields["text"], json!(text), "{key}");
            }
            Some(_) => {}
        }
    }
    let came_back = |unsent: &str| -> BTreeMap<&str, u64> {
        let came = all.iter().map(|(name, all)| {
            let kept = in_copy.get(&numbers[name]).copied().unwrap_or(0);
            (*name, all - kept - u64::from(*name == unsent))
        });
        came.collect()
    };
    let report = recovery(&site);
    let told: BTreeMap<&str, u64> =
        report.devices.iter().map(|device| (&*device.name, device.back)).collect();
    assert_eq!(told, came_back("cat"), "the report is the ledger's");
    assert_eq!(report.taken, Some(taken.manifest.taken));
    assert_eq!(report.written_since, 0);
    let absent: Vec<_> = report.absent().map(|device| &*device.name).collect();
    assert_eq!(absent, ["cat", "dan"]);

    // The last one comes, and life goes on.
    put(&cat, "order/after", json!({"text": "written since"}));
    site.converges(&[&ann, &ben, &cat], &["order", "visit"]).await;
    let report = recovery(&site);
    assert_eq!(report.back, came_back("").values().sum::<u64>());
    assert_eq!(report.written_since, 1);
    let absent: Vec<_> = report.absent().map(|device| &*device.name).collect();
    assert_eq!(absent, ["dan"]);
    assert_eq!(fields(&cat, "order/dan-2")["text"], "only others will have it");
    let has_second = async {
        while !site
            .ask(move |engine| engine.replica().store().has_blob(&second))
            .await
            .expect("it reads")
        {
            sync(&ann).await;
        }
    };
    soon("the second photo comes back", has_second).await;
    assert_eq!(stored(&site, "relay", &second), Some(content(90_000, 2)));
}

/// A visit with a photo: two changes, with a receipt for all of it.
async fn attach_to(
    site: &Site,
    device: &Device,
    ledger: &Ledger,
    key: &str,
    name: &str,
    bytes: &[u8],
) -> BlobHash {
    put(device, key, json!({"note": name}));
    let hash = attach(device, key, &file(site, name, bytes));
    for _ in 0..2 {
        ledger.note("ann", key, name);
    }
    let arrives = async {
        while !site
            .ask(move |engine| engine.replica().store().has_blob(&hash))
            .await
            .expect("it reads")
        {
            sync(device).await;
        }
    };
    soon("the photo arrives", arrives).await;
    hash
}

/// A relay that is served, with a device and what it wrote.
fn organisation() -> (Place, Running, Client, RwLockReadGuard<'static, ()>) {
    let starting = STARTING.blocking_read();
    let place = Place::founded(CATALOG);
    let serve = ["relay", "serve", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"];
    let relay = place.start("relay", &serve);
    let client = Client::stranger(relay.line_beginning("health ").trim_start_matches("health "));
    place.device("ann", &[]);
    place.run("ann", &["put", "order/o1", "text=Kiosk", "discount=10"]).ok();
    place.run("ann", &["put", "order/o2", "text=Harbour"]).ok();
    place.run("ann", &["put", "visit/v1", "note=fine"]).ok();
    let photo = place.file("photo.png", &"not a photo ".repeat(10_000));
    let photo = photo.to_str().expect("a plain path");
    place.run("ann", &["attach", "visit/v1", "photos", photo]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["sync"]).ok();
    (place, relay, client, starting)
}

fn backup(place: &Place, more: &[&str]) -> Ran {
    let folder = place.path("backups").display().to_string();
    place.run("relay", &[&["relay", "backup", &folder, "--json"][..], more].concat())
}

fn restore(place: &Place, to: &str, more: &[&str]) -> Ran {
    let folder = place.path("backups").display().to_string();
    place.run(to, &[&["relay", "restore", "--from", &folder, "--json"][..], more].concat())
}

fn metric(client: &Client, name: &str) -> f64 {
    let page = client.get("/metrics").body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("it is served").parse().expect("a number")
}

#[test]
fn what_a_folder_has_is_not_written_again_and_two_backups_stay() {
    let (place, relay, client, _starting) = organisation();
    let age = "fieldkeep_backup_timestamp_seconds";
    assert_eq!(metric(&client, age), 0.0);
    // So many that one change does not touch every piece that is compared.
    let rows: String = (0..4_000).map(|n| format!("m{n},Kiosk at the pier {n}\n")).collect();
    let rows = place.file("many.csv", &format!("id,text\n{rows}"));
    place.run("ann", &["import", "order", rows.to_str().expect("a plain path")]).ok();
    place.run("ann", &["sync"]).ok();
    let first = backup(&place, &[]).json();
    assert_eq!((&first["number"], &first["place"]), (&json!(1), &json!("a")));
    assert_eq!(first["contents"]["records"], 4_003);
    let changes = first["contents"]["changes"].as_u64().expect("a number");
    assert_eq!(changes as f64, metric(&client, "fieldkeep_log_changes"));
    assert_eq!((&first["contents"]["files"], &first["files_copied"]), (&json!(1), &json!(1)));
    assert_eq!(first["database_written"], first["contents"]["database_bytes"]);
    assert!(metric(&client, age) > 1e9, "its age can be watched");

    place.run("ann", &["put", "order/o1", "discount=45"]).ok();
    place.run("ann", &["sync"]).ok();
    backup(&place, &[]).ok();
    let third = backup(&place, &["--verify"]).json();
    assert_eq!((&third["number"], &third["place"]), (&json!(3), &json!("a")));
    assert_eq!((&third["contents"]["files"], &third["files_copied"]), (&json!(1), &json!(0)));
    let (written, all) = (&third["database_written"], &third["contents"]["database_bytes"]);
    let (written, all) = (written.as_u64().expect("a number"), all.as_u64().expect("a number"));
    assert!(written > 0 && written < all, "{written} of {all}");
    let folder = BackupFolder::open(&place.path("backups")).expect("it is one");
    let numbers: Vec<u64> = folder.backups().iter().map(|(_, manifest)| manifest.number).collect();
    assert_eq!(numbers, [3, 2]);
    drop(folder);

    // Whoever may read it is its owner alone, and the admin key is not in it.
    for (name, mode) in
        [("a", 0o700), ("a/key", 0o600), ("a/fieldkeep.db", 0o600), ("a/manifest", 0o600)]
    {
        let path = place.path("backups").join(name);
        let found = std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    assert!(!place.path("backups/a/admin.key").exists());

    // With nobody serving as well.
    assert_eq!(relay.stop("TERM"), 0);
    assert_eq!(backup(&place, &[]).json()["number"], 4);
    let checks = doctor(&place, &[]).json();
    let said = check(&checks, "backup");
    assert_eq!(said["finding"], "fine", "{said}");
}

#[test]
fn a_lost_relay_is_put_back_on_the_command_line_and_devices_heal_it() {
    let (place, relay, _, _starting) = organisation();
    place.file("relay/relay.toml", "listen = \"127.0.0.1:0\"\n");
    let told =
        place.run("relay", &["relay", "backup", place.path("backups").to_str().expect("plain")]);
    let told = told.ok();
    assert!(told.contains("not in it: admin.key"), "{told}");
    place.run("ann", &["put", "order/o3", "text=after the backup"]).ok();
    place.run("ann", &["sync"]).ok();
    let in_use = restore(&place, "relay", &["--move-aside"]);
    assert_eq!(in_use.code, 8, "nobody takes a directory from who serves it: {}", in_use.out);
    assert_eq!(relay.stop("TERM"), 0);
    let refused = restore(&place, "relay", &[]);
    assert_eq!(refused.code, 2, "{}", refused.out);
    assert!(refused.out.contains("is not empty"), "{}", refused.out);

    let put = restore(&place, "relay", &["--move-aside"]).json();
    assert_eq!((&put["epoch"], &put["contents"]["records"]), (&json!(2), &json!(3)));
    let aside = PathBuf::from(put["moved_aside"].as_str().expect("it was in the way"));
    assert!(aside.join("admin.key").is_file(), "what was there is kept");
    let config = std::fs::read_to_string(place.path("relay/relay.toml")).expect("it is there");
    assert_eq!(config, "listen = \"127.0.0.1:0\"\n");

    let (_relay, listens) = place.serve_at("127.0.0.1:0");
    place.run("ann", &["sync", "--relay", &listens]).ok();
    place.run("ann", &["sync"]).ok();
    let shown = place.run("relay", &["get", "order/o3", "--json"]).json();
    assert_eq!(shown["fields"]["text"], "after the backup");
    let report = place.run("relay", &["relay", "restore", "--report", "--json"]).json();
    assert_eq!((&report["came_back"], &report["not_seen"]), (&json!(1), &json!(0)));
    assert_eq!(report["devices"][0]["name"], "ann");
    assert!(report["devices"][0]["seen"].is_string(), "{report}");
    assert_eq!(doctor(&place, &[]).code, 0);
}

/// Flips a bit in the middle of a file.
fn rots(path: &Path) {
    let mut bytes = std::fs::read(path).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("it is written");
}

#[test]
fn a_backup_that_rotted_is_not_put_in_place_and_the_one_before_is() {
    let (place, _relay, _, _starting) = organisation();
    backup(&place, &[]).ok();
    place.run("ann", &["put", "order/o3", "text=later"]).ok();
    place.run("ann", &["sync"]).ok();
    backup(&place, &[]).ok();
    for part in ["b/fieldkeep.db", "b/key"] {
        let path = place.path("backups").join(part);
        let sound = std::fs::read(&path).expect("it is there");
        rots(&path);
        let refused = restore(&place, "other", &[]);
        assert_eq!(refused.code, 7, "{part}: {}", refused.out);
        assert!(refused.out.contains("--earlier"), "{part}: {}", refused.out);
        assert!(!place.path("other").exists(), "{part}: nothing was put in place");
        std::fs::write(&path, sound).expect("it is written");
    }
    let earlier = restore(&place, "earlier", &["--earlier"]).json();
    assert_eq!((&earlier["number"], &earlier["contents"]["records"]), (&json!(1), &json!(3)));
    // A manifest that is not what was written is none: the other one is the newest.
    rots(&place.path("backups/b/manifest"));
    assert_eq!(restore(&place, "first", &[]).json()["number"], 1);
    // An attached file is lacking alone, and a thorough backup brings it again.
    let files = std::fs::read_dir(place.path("backups/blobs")).expect("there are some");
    let photo = files.map(|file| file.expect("it reads").path()).next().expect("a photo");
    rots(&photo);
    assert_eq!(restore(&place, "without", &[]).json()["files_lacking"], 1);
    assert_eq!(backup(&place, &[]).json()["files_copied"], 0, "it is as long as it was");
    assert_eq!(backup(&place, &["--verify"]).json()["files_copied"], 1);
    assert_eq!(restore(&place, "with", &[]).json()["files_lacking"], 0);
}

#[test]
fn a_store_of_another_version_is_backed_up_by_that_version() {
    let (place, relay, _, _starting) = organisation();
    assert_eq!(relay.stop("TERM"), 0);
    let store = rusqlite::Connection::open(place.path("relay/fieldkeep.db")).expect("it opens");
    let version: u32 =
        store.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it reads");
    let is_of = |version| {
        store.execute_batch(&format!("PRAGMA user_version = {version}")).expect("it writes");
    };
    is_of(version - 1);
    let refused = backup(&place, &[]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.out.contains("another version"), "{}", refused.out);
    let looked = doctor(&place, &[]).json();
    assert_eq!(check(&looked, "file")["finding"], "notice", "{looked}");
    is_of(version);
    backup(&place, &[]).ok();
}

#[test]
fn a_disk_that_is_full_leaves_the_backup_before_whole() {
    let (place, _relay, _, _starting) = organisation();
    backup(&place, &[]).ok();
    for n in 0..40 {
        let text = format!("text={}", format!("{n} ").repeat(500));
        place.run("ann", &["put", &format!("order/more-{n}"), &text]).ok();
    }
    place.run("ann", &["sync"]).ok();
    // No file may grow beyond 64 KiB: what the system says then is as good as a full disk.
    let mut command = Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" relay backup \"$1\" --json";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_fieldkeep")]).arg(place.path("backups"));
    command.env("FIELDKEEP_DIR", place.path("relay")).env("XDG_STATE_HOME", place.path("state"));
    let refused = finish(command, "");
    assert_eq!(refused.code, 1, "{} {}", refused.out, refused.err);
    assert!(refused.out.contains("the backup before is as good as it was"), "{}", refused.out);
    assert_eq!(restore(&place, "other", &[]).json()["number"], 1);
    assert_eq!(backup(&place, &[]).json()["contents"]["records"], 43);
}

#[test]
fn a_damaged_store_does_not_take_the_place_of_a_good_backup() {
    let (place, relay, _, _starting) = organisation();
    backup(&place, &[]).ok();
    assert_eq!(relay.stop("TERM"), 0);
    let store = rusqlite::Connection::open(place.path("relay/fieldkeep.db")).expect("it opens");
    let damage = "UPDATE change SET bytes = zeroblob(length(bytes)) WHERE key = (SELECT min(key) FROM change)";
    assert_eq!(store.execute(damage, []).expect("it writes"), 1);
    drop(store);
    let refused = backup(&place, &[]);
    assert_eq!(refused.code, 7, "{}", refused.out);
    assert!(refused.out.contains("the relay's own store is damaged"), "{}", refused.out);
    assert_eq!(restore(&place, "other", &[]).json()["number"], 1);
    let checks = doctor(&place, &[]);
    assert_eq!(checks.code, 7, "{}", checks.out);
    let checks: Value = serde_json::from_str(&checks.out).expect("JSON");
    let said = check(&checks, "changes");
    assert!(said["remedy"].as_str().is_some_and(|remedy| remedy.contains("relay restore --from")));
}

#[test]
fn a_backup_goes_nowhere_where_it_would_be_lost_or_something_else_lies() {
    let (place, _relay, _, _starting) = organisation();
    let to = |folder: PathBuf| {
        let folder = folder.display().to_string();
        place.run("relay", &["relay", "backup", &folder])
    };
    let within = to(place.path("relay").join("backups"));
    assert_eq!((within.code, within.err.contains("lost with it")), (2, true), "{}", within.err);
    place.file("something", "else");
    let foreign = to(place.path(""));
    assert_eq!(
        (foreign.code, foreign.err.contains("no folder of backups")),
        (2, true),
        "{}",
        foreign.err
    );
    to(place.path("backups")).ok();
    place.run("other", &["relay", "init", "--name", "other"]).ok();
    let folder = place.path("backups").display().to_string();
    let another = place.run("other", &["relay", "backup", &folder]);
    assert_eq!(
        (another.code, another.err.contains("another organisation")),
        (2, true),
        "{}",
        another.err
    );
    let device = place.run("ann", &["relay", "backup", &folder]);
    assert_eq!(device.code, 2, "{}", device.err);
    let nothing = place
        .run("new", &["relay", "restore", "--from", place.path("ann").to_str().expect("plain")]);
    assert_eq!(nothing.code, 3, "{}", nothing.err);
    let never = place.run("relay", &["relay", "restore", "--report"]);
    assert_eq!(never.code, 3, "{}", never.err);
}

fn doctor(place: &Place, more: &[&str]) -> Ran {
    place.run("relay", &[&["relay", "doctor", "--json"][..], more].concat())
}

fn check<'c>(checks: &'c Value, name: &str) -> &'c Value {
    let all = checks["checks"].as_array().expect("a list");
    all.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {checks}"))
}

#[test]
fn the_relays_doctor_finds_what_is_wrong_and_derives_it_again_while_devices_are_served() {
    let (place, relay, _, _starting) = organisation();
    place.run("ann", &["put", "order/o1", "discount=45"]).ok();
    place.run("ann", &["sync"]).ok();
    let shown = place.run("relay", &["relay", "quarantine", "show", "order/o1", "--json"]).json();
    let fine = doctor(&place, &[]).json();
    for (name, finding) in [
        ("file", "fine"),
        ("keys", "fine"),
        ("admin key", "notice"),
        ("changes", "fine"),
        ("records", "fine"),
        ("counts", "fine"),
        ("attachments", "fine"),
        ("judging", "fine"),
        ("backup", "notice"),
        ("settings", "fine"),
    ] {
        assert_eq!(check(&fine, name)["finding"], finding, "{name}: {fine}");
    }
    assert_eq!(check(&fine, "backup")["remedy"], "relay backup FOLDER");
    assert_eq!(relay.stop("TERM"), 0);

    // What was derived rots: a record that is held, a count, and a file.
    let store = rusqlite::Connection::open(place.path("relay/fieldkeep.db")).expect("it opens");
    let rot =
        "UPDATE record SET json = replace(json, 'Kiosk', 'Kjosk'), valid = NULL WHERE id = 'o1'";
    assert_eq!(store.execute(rot, []).expect("it writes"), 1);
    assert!(store.execute("UPDATE segment SET live = live + 1", []).expect("it writes") > 0);
    drop(store);
    let files = std::fs::read_dir(place.path("relay/blobs")).expect("there are some");
    rots(&files.map(|file| file.expect("it reads").path()).next().expect("a photo"));
    place.file("relay/relay.toml", "lisen = \"127.0.0.1:0\"\n");
    let key = place.path("relay/key");
    std::fs::rename(&key, place.path("key")).expect("it is moved");
    let wrong = doctor(&place, &[]);
    std::fs::rename(place.path("key"), &key).expect("it is moved");
    assert_eq!(wrong.code, 7, "{}", wrong.out);
    let wrong: Value = serde_json::from_str(&wrong.out).expect("JSON");
    for name in ["keys", "records", "counts", "attachments", "settings"] {
        assert_eq!(check(&wrong, name)["finding"], "wrong", "{name}: {wrong}");
    }
    assert_eq!(check(&wrong, "records")["remedy"], "relay doctor --repair");

    std::fs::remove_file(place.path("relay/relay.toml")).expect("it goes");
    let _relay = place.serve();
    let repaired = doctor(&place, &["--repair"]);
    assert_eq!(repaired.code, 7, "the photo is in no backup: {}", repaired.out);
    let repaired: Value = serde_json::from_str(&repaired.out).expect("JSON");
    assert_eq!(check(&repaired, "records")["finding"], "fine", "{repaired}");
    assert_eq!(check(&repaired, "counts")["finding"], "fine", "{repaired}");
    let again = place.run("relay", &["relay", "quarantine", "show", "order/o1", "--json"]).json();
    assert_eq!(again["verdict"], shown["verdict"], "what was stated stands, last valid as well");
    assert_eq!(again["fields"], shown["fields"]);
}
