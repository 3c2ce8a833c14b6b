//! Attached files: sent after their records, verified as they come, gone on with after any cut, and given to
//! nobody who may not read what names them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::attached::{attach, content, file, key, limited, stored};
use crate::support::{self, Site, fields, put, soon, sync};
use fieldkeep_device::{
    AttachError, Device, Event, FetchError, FileState, FilesSynced, Strip, UnfitFile,
};
use fieldkeep_lab::proxy::Proxy;
use fieldkeep_model::{BlobHash, Edit, Scalar};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.note]
[type.visit.field.photos]
kind = "attachment"
media = ["image/*", "text/plain"]
max_size = "64 MiB"
max_count = 3
"#;

const PATIENCE: Duration = Duration::from_secs(60);

fn state(device: &Device, record: &str) -> FileState {
    device.files(Some(&key(record))).expect("it reads")[0].state.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_goes_to_the_relay_after_its_record_and_to_whoever_asks_for_it() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let bytes = content(300_000, 1);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &bytes));
    assert_eq!(hash.0, *blake3::hash(&bytes).as_bytes());
    assert_eq!(state(&ann, "visit/v1"), FileState::WaitingForRecord);
    assert_eq!(stored(&site, "ann", &hash).as_deref(), Some(&*bytes), "durable before it returns");
    let shown = fields(&ann, "visit/v1")["photos"][0].clone();
    let id = hash.to_string();
    let named = json!({"id": id, "media": "image/jpeg", "name": "front.jpg", "size": 300_000});
    assert_eq!(shown, named);

    let files = sync(&ann).await.files;
    assert_eq!(files, FilesSynced { sent: 1, ..FilesSynced::default() });
    assert_eq!(state(&ann, "visit/v1"), FileState::Here);
    assert_eq!(stored(&site, "relay", &hash).as_deref(), Some(&*bytes));
    assert_eq!(sync(&ben).await.files, FilesSynced::default());
    assert_eq!(state(&ben, "visit/v1"), FileState::Elsewhere);
    let path = ben.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("it is to be had");
    assert_eq!(std::fs::read(path).expect("it is here"), bytes);
    assert_eq!(state(&ben, "visit/v1"), FileState::Here);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_attach_to_one_record_offline_and_both_files_stay() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    sync(&ann).await;
    sync(&ben).await;
    attach(&ann, "visit/v1", &file(&site, "a.png", b"one"));
    attach(&ben, "visit/v1", &file(&site, "b.png", b"two"));
    sync(&ann).await;
    sync(&ben).await;
    sync(&ann).await;
    for device in [&ann, &ben] {
        let files = device.files(Some(&key("visit/v1"))).expect("it reads");
        let mut names: Vec<_> = files.iter().map(|view| view.file.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a.png", "b.png"]);
    }
    assert_eq!(support::state(&ann, "visit/v1"), "valid");
}

/// How much of a file has come to a directory.
fn come(site: &Site, to: &str, hash: &BlobHash) -> u64 {
    let begun = std::fs::read_dir(site.path(to).join("blobs")).into_iter().flatten().flatten();
    let begun = begun.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with(&hash.to_string()) && name.ends_with(".part")
    });
    begun.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Does something over a road that breaks, each time a little later than before, until it passes. What
/// came is not sent again.
async fn cut_again_and_again<T: std::fmt::Debug>(
    proxy: &Proxy,
    (size, come): (u64, impl Fn() -> u64),
    act: impl AsyncFn() -> T,
) -> T {
    let (mut cuts, mut room) = (0, 500);
    loop {
        let (rest, passed) = (size - come(), proxy.passed());
        proxy.mend();
        proxy.break_after(room);
        let broken = async {
            while !proxy.is_broken() {
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::select! {
            done = act() => Some(done),
            () = broken => None,
        };
        // Beside the rest there are the handshake, what packets add, and what is said of records.
        let most = rest + rest / 8 + 64 * 1024;
        let took = proxy.passed() - passed;
        assert!(took <= most, "{took} bytes for a rest of {rest}, after {cuts} cuts");
        if let Some(done) = done {
            assert!(cuts > 5, "{cuts} cuts");
            return done;
        }
        (cuts, room) = (cuts + 1, room + 9_000);
        assert!(cuts < 200, "it never ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_anywhere_goes_on_there() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let bytes = content(700_000, 2);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    sync(&ann).await;
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &bytes));
    let proxy = Proxy::start(site.address()).expect("a road");
    fieldkeep_lab::camp::dial(&ann, proxy.address());
    let brought = (700_000, || come(&site, "relay", &hash));
    let synced = cut_again_and_again(&proxy, brought, async || ann.sync(PATIENCE).await).await;
    synced.expect("nothing broke");
    assert_eq!(stored(&site, "relay", &hash).as_deref(), Some(&*bytes));
    assert_eq!(state(&ann, "visit/v1"), FileState::Here);

    sync(&ben).await;
    proxy.mend();
    fieldkeep_lab::camp::dial(&ben, proxy.address());
    let (first, fetched) = (key("visit/v1"), (700_000, || come(&site, "ben", &hash)));
    let fetch = async || ben.fetch(&first, &hash, PATIENCE).await;
    cut_again_and_again(&proxy, fetched, fetch).await.expect("nothing broke");
    assert_eq!(stored(&site, "ben", &hash).as_deref(), Some(&*bytes));
}

/// A device that brings a file, shows that it has another one, and fetches a third, over a road that
/// breaks after every second of the datagrams that this takes.
#[tokio::test(flavor = "multi_thread")]
async fn after_each_datagram_what_is_cut_is_done_by_the_next_connection() {
    const MOST: u8 = 120;
    let site = Site::founded(&CATALOG.replace("max_count = 3", "max_count = 250"));
    let (ann, dan) = (limited(&site, "ann", "41").await, limited(&site, "dan", "42").await);
    let eve = limited(&site, "eve", "42").await;
    let of = |kind: u8, n: u8| file(&site, "x.png", &[kind, n].repeat(1_000));
    for (device, record, outlet, kind) in [(&ann, "visit/a1", "41", 1), (&eve, "visit/e1", "42", 2)]
    {
        put(device, record, json!({ "outlet": outlet }));
        for n in 0..MOST {
            attach(device, record, &of(kind, n));
        }
        sync(device).await;
    }
    sync(&dan).await;
    let proxy = Proxy::start(site.address()).expect("a road");
    fieldkeep_lab::camp::dial(&dan, proxy.address());
    let wanted = key("visit/e1");
    for n in (0..).step_by(2) {
        assert!(n < MOST, "it never passes whole");
        let own = format!("visit/d{n}");
        put(&dan, &own, json!({"outlet": "42"}));
        let shown = attach(&dan, &own, &of(1, n));
        let brought = attach(&dan, &own, &of(3, n));
        let fetched = BlobHash(*blake3::hash(&[2, n].repeat(1_000)).as_bytes());
        proxy.break_after_datagrams(n.into());
        let broken = async {
            while !proxy.is_broken() {
                tokio::task::yield_now().await;
            }
        };
        let whole = tokio::select! {
            fetched = dan.fetch(&wanted, &fetched, PATIENCE) => fetched.is_ok(),
            () = broken => false,
        };
        proxy.mend();
        dan.fetch(&wanted, &fetched, PATIENCE).await.expect("it comes by the next one");
        if !whole {
            sync(&dan).await;
        }
        assert_eq!(stored(&site, "dan", &fetched), Some([2, n].repeat(1_000)), "{n} datagrams");
        assert_eq!(stored(&site, "relay", &brought), Some([3, n].repeat(1_000)), "{n} datagrams");
        let files = dan.files(Some(&key(&own))).expect("it reads");
        let done =
            |hash| files.iter().any(|view| view.file.hash == hash && view.state == FileState::Here);
        assert!(done(shown) && done(brought), "{n} datagrams: {files:?}");
        if whole {
            assert!(n > 10, "{n} datagrams are too few for that");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_name_of_a_file_alone_gets_nothing() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let (eve, dan) = (limited(&site, "eve", "42").await, limited(&site, "dan", "42").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let path = file(&site, "secret.txt", b"the price list");
    let hash = attach(&ann, "visit/v1", &path);
    sync(&ann).await;

    // A record of hers names it, as if she had it.
    let child = json!([{"id": hash.to_string(), "media": "text/plain", "name": "x", "size": 14}]);
    put(&eve, "visit/e1", json!({"outlet": "42", "photos": child}));
    sync(&eve).await;
    let asked = eve.fetch(&key("visit/e1"), &hash, PATIENCE).await;
    assert!(matches!(asked, Err(FetchError::Refused(_))), "{asked:?}");
    // What is not there at all is answered in the same words.
    let nothing = BlobHash([7; 32]);
    let child =
        json!([{"id": nothing.to_string(), "media": "text/plain", "name": "x", "size": 14}]);
    put(&eve, "visit/e2", json!({"outlet": "42", "photos": child}));
    sync(&eve).await;
    let absent = eve.fetch(&key("visit/e2"), &nothing, PATIENCE).await;
    let text = |asked: Result<PathBuf, FetchError>| asked.expect_err("refused").to_string();
    assert_eq!(text(asked), text(absent));

    // Who has it shows that, and opens it for those who read his record: nothing is sent again.
    put(&dan, "visit/d1", json!({"outlet": "42"}));
    attach(&dan, "visit/d1", &path);
    sync(&dan).await;
    assert_eq!(state(&dan, "visit/d1"), FileState::Here);
    sync(&eve).await;
    eve.retry_files().expect("it writes");
    eve.fetch(&key("visit/d1"), &hash, PATIENCE).await.expect("by now she may");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_larger_than_its_record_says_is_not_fetched() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &content(150_000, 9)));
    sync(&ann).await;
    let size = vec![Edit::Put("size".into(), Scalar::Int(1))];
    let edit = vec![Edit::Child("photos".into(), hash.to_string(), size)];
    ann.put(&key("visit/v1"), &edit.into()).expect("it is saved");
    sync(&ann).await;
    sync(&ben).await;
    let fetched = ben.fetch(&key("visit/v1"), &hash, PATIENCE).await;
    let Err(FetchError::Refused(why)) = fetched else { panic!("{fetched:?}") };
    assert!(why.contains("of that size"), "{why}");
    assert_eq!(stored(&site, "ben", &hash), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_refused_and_nothing_is_changed() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let try_attach = |record: &str, field: &str, path: &Path| {
        ann.attach(&key(record), field, path, None, None).expect_err("it does not fit")
    };
    let movie = file(&site, "walk.mp4", b"moving");
    let refused = try_attach("visit/v1", "photos", &movie);
    assert!(
        matches!(refused, AttachError::Unfit { why: UnfitFile::Media { .. }, .. }),
        "{refused}"
    );
    let large = site.path("large.png");
    std::fs::File::create(&large).and_then(|file| file.set_len(65 << 20)).expect("it is written");
    let refused = try_attach("visit/v1", "photos", &large);
    assert!(matches!(refused, AttachError::Unfit { why: UnfitFile::Size { .. }, .. }), "{refused}");
    let photo = file(&site, "a.png", b"one");
    let refused = try_attach("visit/v1", "note", &photo);
    assert!(refused.to_string().contains("photos does"), "{refused}");
    assert!(matches!(try_attach("visit/v9", "photos", &photo), AttachError::Put(_)));
    let refused = try_attach("visit/v1", "photos", &site.path("absent.png"));
    assert!(matches!(refused, AttachError::Read { .. }), "{refused}");
    for n in 0..3u8 {
        attach(&ann, "visit/v1", &file(&site, "b.png", &[n]));
    }
    let refused = try_attach("visit/v1", "photos", &photo);
    assert!(matches!(refused, AttachError::Full { most: 3, .. }), "{refused}");
    let kept = std::fs::read_dir(site.path("ann").join("blobs")).expect("a folder").count();
    assert_eq!(kept, 3, "what was refused is not kept");
    // Whoever writes round that is held by the same rules.
    let child = |n: u8| json!({"id": BlobHash([n; 32]).to_string(), "media": "video/mp4", "name": "x", "size": 1});
    put(&ann, "visit/v2", json!({"outlet": "41", "photos": [child(1)]}));
    assert_eq!(support::state(&ann, "visit/v2"), "likely_held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_rotted_on_the_device_is_not_taken_and_said_so() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mut bytes = content(200_000, 3);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &bytes));
    bytes[150_000] ^= 1;
    let kept = site.path("ann").join("blobs").join(hash.to_string());
    std::fs::write(&kept, &bytes).expect("it is written");
    put(&ann, "visit/v2", json!({"outlet": "41"}));
    let report = ann.sync(PATIENCE).await.expect("records go all the same");
    assert!(report.sent >= 2);
    assert_eq!((report.files.sent, report.files.waiting, report.files.failed), (0, 0, 1));
    assert_eq!(stored(&site, "relay", &hash), None);
    assert!(matches!(state(&ann, "visit/v1"), FileState::Failed(why) if why.contains("131072")));
    let advice = ann.advice().expect("it reads");
    assert_eq!(advice[0].command, "attachments retry");
    bytes[150_000] ^= 1;
    std::fs::write(&kept, &bytes).expect("it is written");
    ann.retry_files().expect("it writes");
    assert_eq!(ann.files(None).expect("it reads").len(), 1, "it waits again");
    assert_eq!(sync(&ann).await.files, FilesSynced { sent: 1, ..FilesSynced::default() });
    assert!(ann.advice().expect("it reads").is_empty());
    assert_eq!(stored(&site, "relay", &hash), Some(bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_by_themselves_where_the_settings_say_so() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let small = attach(&ann, "visit/v1", &file(&site, "small.png", &content(1_000, 4)));
    let large = attach(&ann, "visit/v1", &file(&site, "large.png", &content(90_000, 5)));
    sync(&ann).await;
    drop(ben);
    std::fs::write(
        site.path("ben").join("device.toml"),
        "[files]\ndownload = \"unmetered\"\nunder = 50000\n",
    )
    .expect("it is written");
    let ben = Device::open(&site.path("ben")).expect("it opens");
    ben.set_metered(true);
    sync(&ben).await;
    assert_eq!(stored(&site, "ben", &small), None, "it would be paid by the byte");
    ben.set_metered(false);
    sync(&ben).await;
    sync(&ben).await;
    assert!(stored(&site, "ben", &small).is_some());
    assert_eq!(stored(&site, "ben", &large), None, "it is too large for the rule");
    ben.fetch(&key("visit/v1"), &large, PATIENCE).await.expect("asked for it comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_files_wait_and_records_go_on() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", b"front"));
    ann.pause_files(true).expect("it writes");
    sync(&ann).await;
    assert_eq!(stored(&site, "relay", &hash), None);
    assert_eq!(state(&ann, "visit/v1"), FileState::WaitingForConnection);
    let status = ann.status().expect("it reads");
    assert_eq!((status.unsaved(), status.files, status.is_synced()), (0, 1, false));
    drop(ann);
    let ann = Device::open(&site.path("ann")).expect("it opens");
    assert!(ann.files_paused().expect("it reads"), "kept over a restart");
    ann.pause_files(false).expect("it writes");
    sync(&ann).await;
    assert!(stored(&site, "relay", &hash).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_put_back_gets_the_files_that_it_lost() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    sync(&ann).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    let path = file(&site, "front.jpg", &content(100_000, 6));
    let hash = attach(&ann, "visit/v1", &path);
    sync(&ann).await;
    sync(&ben).await;
    ben.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("it is to be had");
    site.stop().await;
    // Ann is gone for good; Ben merely looked at the photo.
    std::fs::remove_dir_all(site.path("relay")).expect("it was there");
    site.copy("backup", "relay");
    site.start_again().await;
    site.ask(fieldkeep_relay::Engine::restore).await.expect("it is put back");
    sync(&ben).await;
    sync(&ben).await;
    assert!(stored(&site, "relay", &hash).is_some());
}

/// A relay that was put back is brought the files again, by whoever has them. A record that names a file
/// which somebody else may have brought is not opened by that.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_opens_a_file_for_a_record_that_merely_names_it() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let eve = limited(&site, "eve", "42").await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &content(9_000, 7)));
    sync(&ann).await;
    let id = hash.to_string();
    let child = json!({"id": id, "media": "image/jpeg", "name": "x.jpg", "size": 9_000});
    put(&eve, "visit/e1", json!({"outlet": "42", "photos": [child]}));
    sync(&eve).await;
    sync(&ann).await;
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("nobody holds it");
    site.copy("backup", "relay");
    site.start_again().await;
    site.ask(fieldkeep_relay::Engine::restore).await.expect("it is put back");
    sync(&eve).await;
    sync(&ann).await;
    assert!(stored(&site, "relay", &hash).is_some(), "it has it again");
    let fetched = eve.fetch(&key("visit/e1"), &hash, PATIENCE).await;
    assert!(matches!(fetched, Err(FetchError::Refused(_))), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_loses_its_place_where_the_catalog_says_so() {
    let catalog = CATALOG.replace("max_count = 3", "max_count = 3\nlocation = \"strip\"");
    let site = Site::founded(&catalog);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let xmp = b"\xff\xe1\x00\x21http://ns.adobe.com/xap/1.0/\0YY";
    let picture = [&[0xff, 0xd8][..], xmp, b"\xff\xda\x00\x04xxpixels"].concat();
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &picture));
    let kept = stored(&site, "ann", &hash).expect("it is here");
    assert_eq!(kept, [&[0xff, 0xd8][..], b"\xff\xda\x00\x04xxpixels"].concat());
    let path = file(&site, "front.heic", b"\0\0\0\x18ftypheic");
    let refused = ann.attach(&key("visit/v1"), "photos", &path, None, None);
    assert!(matches!(refused, Err(AttachError::Place { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_relay_gets_a_photo_from_another_one_that_may_give_it() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let eve = limited(&site, "eve", "42").await;
    for device in [&ann, &ben, &eve] {
        sync(device).await;
    }
    site.stop().await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &content(150_000, 7)));
    let child =
        json!([{"id": hash.to_string(), "media": "image/png", "name": "x", "size": 150_000}]);
    put(&eve, "visit/e1", json!({"outlet": "42", "photos": child}));
    let listener = ann.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.address();
    let listening = tokio::spawn(async move { listener.serve().await });
    let meets = |device: &Device| {
        let device = device.clone();
        tokio::spawn(async move { device.stay_with(address).await })
    };
    for (device, record, may) in [(&ben, "visit/v1", true), (&eve, "visit/e1", false)] {
        let meeting = meets(device);
        let key = key(record);
        let met = device.reached(&key, fieldkeep_device::Tier::Device, PATIENCE);
        met.await.expect("it comes");
        while device.meetings().expect("it reads").is_empty() {
            tokio::task::yield_now().await;
        }
        let patience = if may { PATIENCE } else { Duration::from_secs(2) };
        let fetched = device.fetch(&key, &hash, patience).await;
        assert_eq!(fetched.is_ok(), may, "{record}: {fetched:?}");
        meeting.abort();
    }
    assert_eq!(stored(&site, "ben", &hash), Some(content(150_000, 7)));
    assert_eq!(stored(&site, "eve", &hash), None);
    listening.abort();

    // Ann never comes back: what she gave goes on to the relay all the same.
    assert_eq!(state(&ben, "visit/v1"), FileState::WaitingForRecord);
    site.start_again().await;
    assert_eq!(sync(&ben).await.files.sent, 1);
    assert_eq!(state(&ben, "visit/v1"), FileState::Here);
    assert_eq!(stored(&site, "relay", &hash), Some(content(150_000, 7)));
    let cyn = limited(&site, "cyn", "41").await;
    sync(&cyn).await;
    cyn.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("its readers have it");
}

/// A device with rules for which files it fetches.
fn ruled(site: &Site, device: Device, rules: &str) -> Device {
    let path = device.directory().to_owned();
    drop(device);
    std::fs::write(path.join("device.toml"), format!("[files]\n{rules}")).expect("it is written");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    Device::open(&site.path(&name)).expect("it opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_too_large_for_the_rule_hide_none_that_are_not() {
    let site = Site::founded(&CATALOG.replace("max_count = 3", "max_count = 100"));
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/old", json!({"outlet": "41"}));
    let small = attach(&ann, "visit/old", &file(&site, "small.png", b"small"));
    put(&ann, "visit/new", json!({"outlet": "41"}));
    // More than are looked at in one go.
    let large = |n: u8| file(&site, "large.png", &content(2_000, n));
    let larges: Vec<_> = (0..70).map(|n| attach(&ann, "visit/new", &large(n))).collect();
    assert_eq!(sync(&ann).await.files.sent, 71);
    sync(&ben).await;
    let ben = ruled(&site, ben, "download = \"all\"\nunder = 1000\n");
    assert_eq!(sync(&ben).await.files.received, 1);
    assert!(stored(&site, "ben", &small).is_some());
    assert!(larges.iter().all(|hash| stored(&site, "ben", hash).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_device_gives_what_it_has_though_it_lacks_the_newest() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let cyn = site.device("cyn").await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let has = attach(&ann, "visit/v1", &file(&site, "a.png", b"one"));
    sync(&ann).await;
    put(&cyn, "visit/v2", json!({"outlet": "41"}));
    let lacks = attach(&cyn, "visit/v2", &file(&site, "b.png", b"two"));
    for device in [&cyn, &ann, &ben] {
        sync(device).await;
    }
    site.stop().await;
    let ben = ruled(&site, ben, "download = \"all\"\n");
    let listener = ann.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.address();
    let listening = tokio::spawn(async move { listener.serve().await });
    // It ends once everything is exchanged that there is: records, and files by rule.
    let met = soon("they meet", ben.sync_with(address, PATIENCE)).await;
    assert!(met.expect("they are members").complete());
    assert_eq!(stored(&site, "ben", &has).as_deref(), Some(&b"one"[..]));
    assert_eq!(stored(&site, "ben", &lacks), None);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_what_is_paused_go_nowhere_and_whoever_asks_is_told_at_once() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "a.png", b"one"));
    sync(&ann).await;
    sync(&ben).await;
    let ben = ruled(&site, ben, "download = \"all\"\n");
    let ty = "visit".parse().expect("a name");
    ben.pause(Some(&ty)).expect("it is a type");
    sync(&ben).await;
    assert_eq!(stored(&site, "ben", &hash), None);
    let (first, long) = (key("visit/v1"), Duration::from_secs(3_600));
    let ask = || soon("an answer", ben.fetch(&first, &hash, long));
    assert!(matches!(ask().await, Err(FetchError::LeftOut(of)) if of == first));
    ben.resume(Some(&ty)).expect("it is a type");
    ben.pause_files(true).expect("it writes");
    assert!(matches!(ask().await, Err(FetchError::Paused)));

    // Who waits already is told as well.
    ben.pause_files(false).expect("it writes");
    site.stop().await;
    let mut events = ben.watch();
    let connected = support::Connected::new(&ben);
    soon("it tries to connect", async {
        while events.recv().await.expect("it lives") != Event::Strip(Strip::Connecting) {}
    })
    .await;
    let mut asked = std::pin::pin!(ben.fetch(&first, &hash, long));
    tokio::select! {
        biased;
        answer = &mut asked => panic!("nobody has it: {answer:?}"),
        () = tokio::task::yield_now() => {}
    }
    ben.pause_files(true).expect("it writes");
    let asked = soon("an answer", asked).await;
    assert!(matches!(asked, Err(FetchError::Paused)), "{asked:?}");
    drop(connected);

    // Nor is it given to anybody by who has paused it.
    ben.pause_files(false).expect("it writes");
    ann.pause(Some(&ty)).expect("it is a type");
    let listener = ann.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.address();
    let listening = tokio::spawn(async move { listener.serve().await });
    soon("they meet", ben.sync_with(address, PATIENCE)).await.expect("they are members");
    assert_eq!(stored(&site, "ben", &hash), None);
    ann.resume(Some(&ty)).expect("it is a type");
    soon("they meet", ben.sync_with(address, PATIENCE)).await.expect("they are members");
    assert!(stored(&site, "ben", &hash).is_some());
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_and_left_is_cleared_away_on_a_device_too() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let blobs = site.path("ann").join("blobs");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let begun = |name: &str, days: u64| {
        let path = blobs.join(name);
        let file = std::fs::File::create(&path).expect("it is written");
        let touched = std::time::SystemTime::now() - Duration::from_hours(24 * days);
        file.set_modified(touched).expect("it is set");
        path
    };
    let left = [begun(&format!("{}.part", "a".repeat(64)), 8), begun("00000000000000aa.new", 8)];
    let fresh = begun(&format!("{}.part", "b".repeat(64)), 6);
    sync(&ann).await;
    soon("they go", async {
        while left.iter().any(|path| path.exists()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(fresh.exists(), "that may be gone on with");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_file_that_rotted_and_it_comes_again() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let hash = attach(&ann, "visit/v1", &file(&site, "front.jpg", &content(90_000, 8)));
    sync(&ann).await;
    sync(&ben).await;
    let path = ben.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("it is to be had");
    let check = || {
        let checks = ben.doctor().expect("it looks");
        checks.into_iter().find(|check| check.name == "attachments").expect("it is looked at")
    };
    assert_eq!(check().text, "1 file is here, and sound");
    std::fs::write(&path, b"rotted").expect("it is written");
    assert_eq!(check().finding, fieldkeep_device::Finding::Wrong);
    ben.repair().expect("it repairs");
    assert_eq!(state(&ben, "visit/v1"), FileState::Elsewhere);
    ben.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("it comes again");
    assert_eq!(stored(&site, "ben", &hash), Some(content(90_000, 8)));
}
