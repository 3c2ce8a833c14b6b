//! A process that dies at every statement and file operation, one after the other. Of a clearing it
//! leaves the old state or the new one, and what is unsaved is in both; of a collection whole files, and
//! removed ones that are known to be; and whoever takes a bundle in again gets all of it. A backup leaves
//! the one before or itself, and a restore nothing or all of it.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use fieldkeep_device::Device;
use fieldkeep_model::{BlobHash, Edit, Grant, TypeName};
use fieldkeep_relay::{Occupied, Which, restore_backup};
use fieldkeep_store::backup::{BackupFolder, Slot, hashed};
use fieldkeep_store::{BlobFiles, Blobs as _, Removals as _, Settings as _, Store, home};
use serde_json::json;
use support::*;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]
[type.customer.field.city]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.photos]
kind = "attachment"
"#;

/// Runs a command in a process that dies at a point; whether it went on to the end.
fn run(command: &[&str], directory: &Path, dies_at: u64) -> bool {
    let arguments = command;
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
    command.args(arguments).args(["--json", "--dir"]).arg(directory);
    command.env("FIELDKEEP_DIES_AT", dies_at.to_string()).env("RUST_BACKTRACE", "0");
    let ran = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    ran.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_dies_anywhere_leaves_the_old_state_or_the_new_one() {
    let site = Site::founded(CATALOG);
    let office = site.device("office").await;
    let ticket = site.invited("ann", vec![Grant::ALL], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    put(&office, "customer/c1", json!({"name": "Kiosk"}));
    put(&office, "customer/c2", json!({"name": "Harbour"}));
    put(&office, "visit/n1", json!({"outlet": "north"}));
    put(&office, "visit/e1", json!({"outlet": "east"}));
    put(&office, "visit/w1", json!({"outlet": "west"}));
    sync(&office).await;
    sync(&ann).await;
    let north = Grant { ty: TypeName::new("visit").ok(), scope: Some("north".into()) };
    let customers = Grant { ty: TypeName::new("customer").ok(), scope: None };
    site.decide("ann", Some(vec![north, customers])).await;
    sync(&ann).await;
    // Not sent: an edit, and a record of her own.
    put(&ann, "customer/c2", json!({"city": "Riga"}));
    put(&ann, "customer/mine", json!({"name": "captured offline"}));
    // In use, though she may not read it any more.
    let west = "visit/w1".parse().expect("a record's name");
    ann.pin(&west, "till", "the open outlet").expect("it is marked").keep();
    ann.close().expect("it closes");
    drop(ann);
    put(&office, "customer/c3", json!({"name": "what the copy brings"}));
    sync(&office).await;

    let (mut old, mut new, mut points) = (0, 0, 0);
    for dies_at in 1.. {
        let copy = format!("ann-{dies_at}");
        site.copy("ann", &copy);
        disguise(&site.path(&copy), &site.path("ann"));
        let ended = run(&["clear", "--yes"], &site.path(&copy), dies_at);
        let device = Device::open(&site.path(&copy)).expect("it opens after a crash");
        assert_eq!(fields(&device, "customer/c2")["city"], "Riga", "point {dies_at}");
        assert_eq!(fields(&device, "customer/mine")["name"], "captured offline");
        assert_eq!(fields(&device, "visit/w1")["outlet"], "west", "point {dies_at}");
        assert_eq!(device.pins().expect("it reads").len(), 1, "point {dies_at}");
        let customers = content(&device, "customer").len();
        let visits = content(&device, "visit").len();
        match (customers, visits) {
            (3, 3) => old += 1,
            (4, 2) => new += 1,
            other => panic!("point {dies_at}: neither the old state nor the new: {other:?}"),
        }
        if ended || dies_at % 25 == 0 {
            sync(&device).await;
            assert_eq!(content(&device, "customer"), site.content("customer").await);
        }
        drop(device);
        std::fs::remove_dir_all(site.path(&copy)).expect("nobody owns it");
        if ended {
            points = dies_at - 1;
            break;
        }
    }
    println!("{points} points: {old} times the old state, {new} times the new one");
    assert!(points > 100 && old > 0 && new > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_dies_anywhere_leaves_whole_files_and_removed_ones() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "north"}));
    let attach = |seed: u8| {
        let bytes = attached::content(1_000, seed);
        attached::attach(&ann, "visit/v1", &attached::file(&site, &format!("{seed}.png"), &bytes))
    };
    let hashes: Vec<BlobHash> = (1..=4).map(attach).collect();
    sync(&ann).await;
    let (kept, loose) = hashes.split_first().expect("there are four");
    let gone = loose.iter().map(|hash| Edit::RemoveChild("photos".into(), hash.to_string()));
    let gone: Vec<_> = gone.collect();
    ann.put(&attached::key("visit/v1"), &gone.into()).expect("it is saved");
    sync(&ann).await;
    site.stop().await;
    let configuration = site.path("relay").join("relay.toml");
    std::fs::write(configuration, "[collection]\nafter = \"1h\"\n").expect("it is written");
    assert!(run(&["relay", "gc"], &site.path("relay"), 0), "they are seen");
    let database = home::database(&site.path("relay"));
    let connection = rusqlite::Connection::open(&database).expect("it opens");
    let seen = connection.execute("UPDATE loose SET since = 0", []).expect("it writes");
    assert_eq!(seen, loose.len());
    drop(connection);

    let (mut whole, mut half, mut points) = (0, 0, 0);
    for dies_at in 1.. {
        let copy = format!("relay-{dies_at}");
        site.copy("relay", &copy);
        let directory = site.path(&copy);
        disguise(&directory, &site.path("relay"));
        let ended = run(&["relay", "gc"], &directory, dies_at);
        let files = BlobFiles::of(&directory);
        let stands = |hash: &BlobHash| {
            let store = Store::open(&home::database(&directory)).expect("it opens after a crash");
            let removed = store.removal(hash).expect("it reads").is_some();
            (store.has_blob(hash).expect("it reads"), removed, files.is_sound(hash, 1_000))
        };
        assert_eq!(stands(kept), (true, false, true), "point {dies_at}");
        for hash in loose {
            match stands(hash) {
                (true, false, true) => whole += 1,
                (false, true, true) => half += 1,
                (false, true, false) => {}
                other => panic!("point {dies_at}: {other:?}"),
            }
        }
        // Whoever comes next ends what was begun.
        assert!(run(&["relay", "gc"], &directory, 0), "point {dies_at}");
        for hash in loose {
            assert_eq!(stands(hash), (false, true, false), "point {dies_at}");
        }
        std::fs::remove_dir_all(&directory).expect("nobody owns it");
        if ended {
            points = dies_at - 1;
            break;
        }
    }
    println!("{points} points: {whole} times a file was whole, {half} times it lay there removed");
    assert!(points > 50 && whole > 0 && half > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_whose_import_dies_anywhere_is_taken_whole_the_next_time() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    sync(&ben).await;
    let photo = site.path("photo.png");
    std::fs::write(&photo, vec![7; 100_000]).expect("it is written");
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "visit/v1", json!({"outlet": "north"}));
    let visit = "visit/v1".parse().expect("a record's name");
    let hash = ann.attach(&visit, "photos", &photo, None, None).expect("it is attached").hash;
    let bundle = carrying::pack(&ann, &carrying::key(&ben), None);
    let path = site.path("bundle");
    std::fs::write(&path, &bundle).expect("it is written");
    let path = path.to_str().expect("a plain path").to_owned();
    ben.close().expect("it closes");
    drop(ben);

    let (mut with, mut without) = (0, 0);
    for dies_at in 1.. {
        let copy = format!("ben-{dies_at}");
        site.copy("ben", &copy);
        disguise(&site.path(&copy), &site.path("ben"));
        let ended = run(&["bundle", "import", &path], &site.path(&copy), dies_at);
        let device = Device::open(&site.path(&copy)).expect("it opens after a crash");
        let here = || std::fs::read(device.file_path(&hash)).ok();
        assert!(here().is_none_or(|bytes| bytes == [7; 100_000]), "point {dies_at}: half a file");
        *if here().is_some() { &mut with } else { &mut without } += 1;
        let again = carrying::taken(&device, &bundle);
        assert!(!ended || (again.changes, again.files) == (0, 0), "all of it was taken");
        assert_eq!(fields(&device, "customer/c1")["name"], "Kiosk", "point {dies_at}");
        assert_eq!(here().as_deref(), Some(&[7; 100_000][..]), "point {dies_at}");
        let files = device.files(Some(&visit)).expect("it reads");
        assert_eq!(files[0].state, fieldkeep_device::FileState::WaitingForRecord);
        drop(device);
        std::fs::remove_dir_all(site.path(&copy)).expect("nobody owns it");
        if ended {
            println!(
                "{} points: {with} times with the photo, {without} times without",
                dies_at - 1
            );
            break;
        }
    }
    assert!(with > 1 && without > 50, "{with} and {without}");
}

/// A relay that nobody serves, with a backup, and work that was done since.
async fn with_backup() -> Site {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "north"}));
    let attached = |name: &str, seed: u8| {
        attached::attach(
            &ann,
            "visit/v1",
            &attached::file(&site, name, &attached::content(1_000, seed)),
        )
    };
    let first = attached("1.png", 1);
    sync(&ann).await;
    arrives(&site, &ann, first).await;
    site.stop().await;
    let folder = site.path("backups").display().to_string();
    assert!(run(&["relay", "backup", &folder], &site.path("relay"), 0));
    site.start_again().await;
    let attached = |name: &str, seed: u8| {
        attached::attach(
            &ann,
            "visit/v1",
            &attached::file(&site, name, &attached::content(1_000, seed)),
        )
    };
    let second = attached("2.png", 2);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    arrives(&site, &ann, second).await;
    site.stop().await;
    site
}

async fn arrives(site: &Site, device: &Device, hash: BlobHash) {
    let whole = async {
        while !site
            .ask(move |engine| engine.replica().store().has_blob(&hash))
            .await
            .expect("it reads")
        {
            sync(device).await;
        }
    };
    soon("the file arrives", whole).await;
}

/// The number of the newest backup in a folder, whose every part is what its manifest says.
fn newest(folder: &Path) -> u64 {
    let folder = BackupFolder::open(folder).expect("it is one");
    let (slot, manifest): (Slot, _) = folder.backups().into_iter().next().expect("one is whole");
    let database = home::database(&folder.directory(slot));
    assert_eq!(hashed(&database, &mut |_| {}).expect("it reads"), manifest.database);
    let copy = folder.reader(slot).expect("it opens");
    for (hash, size) in copy.blobs_here().expect("it reads") {
        assert!(folder.files().is_sound(&hash, size), "{hash}");
    }
    manifest.number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_dies_anywhere_leaves_the_one_before_or_itself() {
    let site = with_backup().await;
    let (mut before, mut after, mut points) = (0, 0, 0);
    for dies_at in 1.. {
        let copy = format!("backups-{dies_at}");
        site.copy("backups", &copy);
        let folder = site.path(&copy);
        let shown = folder.display().to_string();
        let ended = run(&["relay", "backup", &shown], &site.path("relay"), dies_at);
        match newest(&folder) {
            1 => before += 1,
            2 => after += 1,
            other => panic!("point {dies_at}: number {other}"),
        }
        if ended || dies_at % 25 == 0 {
            let relay = site.path(&format!("relay-{dies_at}"));
            let put =
                restore_backup(&folder, &relay, Which::Newest, Occupied::Refused, &mut |_| {});
            assert_eq!(put.expect("it is whole").lacking, 0, "point {dies_at}");
            assert!(run(&["relay", "backup", &shown], &site.path("relay"), 0), "point {dies_at}");
            assert!(newest(&folder) >= 2, "point {dies_at}");
        }
        std::fs::remove_dir_all(&folder).expect("nobody is in it");
        if ended {
            points = dies_at - 1;
            break;
        }
    }
    println!("{points} points: {before} times the backup before, {after} times the new one");
    assert!(points > 50 && before > 0 && after > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_dies_anywhere_leaves_nothing_or_all_of_it() {
    let site = with_backup().await;
    let from = site.path("backups").display().to_string();
    let (mut nothing, mut whole, mut points) = (0, 0, 0);
    for dies_at in 1.. {
        let relay = site.path(&format!("relay-{dies_at}"));
        let ended = run(&["relay", "restore", "--from", &from], &relay, dies_at);
        if relay.exists() {
            whole += 1;
        } else {
            nothing += 1;
            assert!(run(&["relay", "restore", "--from", &from], &relay, 0), "point {dies_at}");
        }
        // Whoever opens it first has opened an epoch, and nobody opens a second one.
        assert!(run(&["relay", "quarantine", "rejudge"], &relay, 0), "point {dies_at}");
        let store = Store::open(&home::database(&relay)).expect("it opens after a crash");
        let epoch = store.setting("epoch").expect("it reads").expect("it has one");
        assert_eq!(epoch[..2], [0x82, 2], "point {dies_at}: the counter");
        let blobs = store.blobs_here().expect("it reads");
        assert_eq!(blobs.len(), 1, "point {dies_at}");
        drop(store);
        std::fs::remove_dir_all(&relay).expect("nobody owns it");
        if ended {
            points = dies_at - 1;
            break;
        }
    }
    println!("{points} points: {nothing} times nothing, {whole} times all of it");
    assert!(points > 50 && nothing > 0 && whole > 0);
}
