//! Collection of attached files: off until it is turned on; then what nothing refers to goes after a
//! grace time, is told as removed on that day, and comes back when somebody who has it needs it again.

use std::time::Duration;

use crate::support::attached::{attach, content, file, key, limited, stored, visits_of};
use crate::support::{self, PATIENCE, Site, get, put, soon, state, sync};
use fieldkeep_device::{Device, FetchError, FileState, Moment, removed_on};
use fieldkeep_model::{BlobHash, Edit, KeyPair, Scalar, Signed};
use fieldkeep_relay::{Doubt, sweep};
use fieldkeep_store::{Blobs as _, CallRow, LooseBlob, Removals as _};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.price]
schema = { type = "integer" }
[type.visit.field.photos]
kind = "attachment"
[[type.visit.rule]]
name = "positive"
cel = "!has(record.price) || record.price > 0"
reason = "a price is above 0"
"#;

const DAY: i64 = 24 * 60 * 60 * 1_000;
/// The first moment of 2026-11-29.
const NOW: i64 = 1_795_910_400_000;
const GRACE: i64 = 30 * DAY;

/// A record with a file that is on the relay.
async fn attached(site: &Site, device: &Device, record: &str, seed: u8) -> BlobHash {
    put(device, record, json!({"outlet": "41"}));
    let name = format!("{seed}.png");
    let hash = attach(device, record, &file(site, &name, &content(1_000, seed)));
    sync(device).await;
    assert!(stored(site, "relay", &hash).is_some());
    hash
}

async fn detach(device: &Device, record: &str, hash: &BlobHash) {
    let edit = vec![Edit::RemoveChild("photos".into(), hash.to_string())];
    device.put(&key(record), &edit.into()).expect("it is saved");
    sync(device).await;
}

/// What a look at that time sees that nothing refers to.
async fn look(site: &Site, now: i64) -> Vec<LooseBlob> {
    soon("it is judged", async {
        while site.ask(|engine| engine.doubt()).await.expect("it reads") == Some(Doubt::Behind) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let looked = site.ask(move |engine| {
        let mut after = None;
        while let Some(next) = engine.look_for_loose(now, after)? {
            after = Some(next);
        }
        engine.loose()
    });
    looked.await.expect("it looks")
}

/// What goes at that time, where the grace time is 30 days.
async fn collect(site: &Site, now: i64) -> Vec<BlobHash> {
    look(site, now).await;
    let removed = site.ask(move |engine| {
        engine.collect_after(Some(Duration::from_millis(GRACE.unsigned_abs())));
        let removed = engine.remove_loose(now);
        // It does not go on by itself: these tests say what time it is.
        engine.collect_after(None);
        removed
    });
    let removed = removed.await.expect("it removes").into_iter().map(|blob| blob.hash).collect();
    let directory = site.path("relay");
    site.ask(move |engine| sweep(engine, &directory)).await.expect("it sweeps");
    removed
}

fn files(device: &Device, record: &str) -> Vec<FileState> {
    let files = device.files(Some(&key(record))).expect("it reads");
    files.into_iter().map(|view| view.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_while_collection_is_off() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    detach(&ann, "visit/v1", &hash).await;
    let loose = LooseBlob { hash, size: 1_000, since: NOW };
    assert_eq!(look(&site, NOW).await, std::slice::from_ref(&loose));
    let removed = site.ask(|engine| engine.remove_loose(NOW + 1_000 * DAY)).await;
    assert_eq!(removed.expect("it answers"), []);
    assert_eq!(look(&site, NOW + 1_000 * DAY).await, [loose], "it is told, and stays");
    assert!(stored(&site, "relay", &hash).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_reference_keeps_its_file() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let eve = limited(&site, "eve", "42").await;

    let loose = attached(&site, &ann, "visit/loose", 1).await;
    detach(&ann, "visit/loose", &loose).await;

    let merged = attached(&site, &ann, "visit/merged", 2).await;

    let deleted = attached(&site, &ann, "visit/deleted", 3).await;
    ann.delete(&key("visit/deleted")).expect("it is deleted");

    let held = attached(&site, &ann, "visit/held", 4).await;
    put(&ann, "visit/held", json!({"price": 0}));

    // What breaks the rule takes the photo out as well.
    let last_valid = attached(&site, &ann, "visit/valid", 5).await;
    let out = Edit::RemoveChild("photos".into(), last_valid.to_string());
    let broken = vec![out, Edit::Put("price".into(), Scalar::Int(0))];
    ann.put(&key("visit/valid"), &broken.into()).expect("it is saved");

    // Eve has the same photo, and may not write there any more when her record comes.
    let aside = attached(&site, &ann, "visit/shared", 6).await;
    // And she puts one back that was taken out: by its place in the record, not by its name.
    put(&ann, "visit/back", json!({"outlet": "42"}));
    let back = attach(&ann, "visit/back", &file(&site, "8.png", &content(1_000, 8)));
    sync(&ann).await;
    sync(&eve).await;
    let with_photo = eve.history(&key("visit/back"), 1, None).expect("it reads").entries[0].hash;
    detach(&ann, "visit/back", &back).await;
    sync(&eve).await;
    let moment = Moment::Change(with_photo.to_string());
    put(&eve, "visit/e1", json!({"outlet": "42"}));
    sync(&eve).await;
    eve.revert(&key("visit/back"), None, &moment).expect("it is written");
    attach(&eve, "visit/e1", &site.path("6.png"));
    site.decide("eve", Some(visits_of("43"))).await;
    assert!(sync(&eve).await.refused > 0, "it is kept aside");
    detach(&ann, "visit/shared", &aside).await;

    let call = attached(&site, &ann, "visit/call", 7).await;
    detach(&ann, "visit/call", &call).await;
    let intent = Signed::new("a test", &call.to_string(), &KeyPair::from_secret([1; 32]));
    let row = CallRow { device: 9, number: 1, intent, time: 0, withdrawn: false, outcome: None };
    let kept = site.ask(move |engine| engine.replica_mut().store_mut().put_call(&row));
    kept.await.expect("it is kept");

    sync(&ann).await;
    let of = |record: &str| get(&ann, record).expect("it is there");
    assert_eq!(state(&ann, "visit/held"), "held");
    assert_eq!(state(&ann, "visit/valid"), "held");
    assert_eq!(of("visit/valid").fields["photos"], json!([]));
    assert!(of("visit/deleted").deleted);
    assert_eq!(collect(&site, NOW).await, []);
    assert_eq!(collect(&site, NOW + 100 * DAY).await, [loose]);
    for (kept, why) in [
        (merged, "merged"),
        (deleted, "deleted"),
        (held, "held"),
        (last_valid, "last valid"),
        (aside, "kept aside"),
        (back, "may come back by what was kept aside"),
        (call, "a call is under way"),
    ] {
        assert!(stored(&site, "relay", &kept).is_some(), "{why}");
    }
    assert_eq!(stored(&site, "relay", &loose), None);

    // Once it is done and its outcome forgotten, the call refers to nothing.
    let settled = site.ask(|engine| engine.replica_mut().store_mut().settle_call(9, 1, b""));
    settled.await.expect("it is settled");
    assert_eq!(collect(&site, NOW + 100 * DAY).await, []);
    assert_eq!(collect(&site, NOW + 131 * DAY).await, [call]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_what_goes_and_not_before_its_time() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let first = attached(&site, &ann, "visit/v1", 1).await;
    let second = attached(&site, &ann, "visit/v2", 2).await;
    detach(&ann, "visit/v1", &first).await;
    assert_eq!(collect(&site, NOW).await, []);
    detach(&ann, "visit/v2", &second).await;
    let told = look(&site, NOW + DAY).await;
    let told: Vec<_> = told.into_iter().map(|blob| (blob.hash, blob.since)).collect();
    assert_eq!(told, [(first, NOW), (second, NOW + DAY)]);
    assert_eq!(collect(&site, NOW + GRACE - 1).await, []);
    assert_eq!(collect(&site, NOW + GRACE).await, [first]);
    assert_eq!(collect(&site, NOW + GRACE + DAY - 1).await, []);
    assert_eq!(collect(&site, NOW + GRACE + DAY).await, [second]);
    assert_eq!(look(&site, NOW + 2 * GRACE).await, []);
    assert_eq!(stored(&site, "relay", &first), None);
    assert_eq!(stored(&site, "relay", &second), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_comes_and_goes_begins_the_grace_time_anew() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    detach(&ann, "visit/v1", &hash).await;
    assert_eq!(collect(&site, NOW).await, []);
    // Nobody looks in between.
    attached(&site, &ann, "visit/v2", 1).await;
    detach(&ann, "visit/v2", &hash).await;
    assert_eq!(collect(&site, NOW + GRACE).await, []);
    assert_eq!(collect(&site, NOW + 2 * GRACE - 1).await, []);
    assert_eq!(collect(&site, NOW + 2 * GRACE).await, [hash]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_record_never_names_it_has_its_grace_time() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    // It came whole for a record that names another one by then.
    let tree = attached(&site, &ann, "visit/v1", 1).await;
    let tree = site.ask(move |engine| engine.replica().store().blob(&tree)).await;
    let tree = tree.expect("it reads").expect("it is there").tree;
    detach(&ann, "visit/v1", &tree.hash()).await;
    assert_eq!(collect(&site, NOW).await, []);
    let (hash, member) = (tree.hash(), site.members().await);
    let member = member.members().values().find(|member| member.name == "ann").cloned();
    let tls = member.expect("she is one").keys.tls;
    let shown = site.ask(move |engine| engine.file_shown(&tls, &key("visit/v1"), &tree)).await;
    assert!(!shown.expect("it answers"), "nothing names it");
    assert_eq!(collect(&site, NOW + GRACE).await, []);
    assert_eq!(collect(&site, NOW + 2 * GRACE).await, [hash]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_shows_when_its_file_was_removed_and_asking_for_it_changes_nothing() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    sync(&ben).await;
    let with_photo = ben.history(&key("visit/v1"), 1, None).expect("it reads").entries[0].hash;
    let moment = Moment::Change(with_photo.to_string());
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW + 5).await, [hash]);
    assert_eq!(ben.removed(&hash).expect("it reads"), None, "he has not heard of it");

    sync(&ben).await;
    let was = ben.at(&key("visit/v1"), &moment).expect("it reads").expect("it was there");
    assert_eq!(was["photos"][0]["id"], hash.to_string());
    assert_eq!(ben.removed(&hash).expect("it reads"), Some(NOW + 5));
    assert_eq!(removed_on(NOW + 5), "attachment removed on 2026-11-29");
    assert_eq!(ann.removed(&hash).expect("it reads"), None, "she has it");

    // The state comes back, and the file does not: nobody is there who has it.
    ben.revert(&key("visit/v1"), None, &moment).expect("it is written");
    assert_eq!(files(&ben, "visit/v1"), [FileState::Removed(NOW + 5)]);
    let log = site.log().await;
    for _ in 0..2 {
        let fetched = ben.fetch(&key("visit/v1"), &hash, PATIENCE).await;
        let Err(error @ FetchError::Removed(time)) = fetched else { panic!("{fetched:?}") };
        assert_eq!(
            (time, error.to_string().as_str()),
            (NOW + 5, "attachment removed on 2026-11-29")
        );
    }
    assert_eq!(stored(&site, "ben", &hash), None);
    let after = site.log().await;
    assert_eq!(after.keys().collect::<Vec<_>>(), log.keys().collect::<Vec<_>>());
    assert!(ben.advice().expect("it reads").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_heard_of_nothing_is_told_when_it_asks() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    sync(&ben).await;
    let _online = support::Connected::new(&ben);
    soon("he is online", async {
        while !ben.is_online() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    detach(&ann, "visit/v1", &hash).await;
    support::reaches(&ben, "visit/v1", "valid").await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash]);
    // His record names it before anybody else hears of that.
    let child = json!([{"id": hash.to_string(), "media": "image/png", "name": "x", "size": 1_000}]);
    put(&ben, "visit/v2", json!({"outlet": "41", "photos": child}));
    support::reaches(&ben, "visit/v2", "valid").await;
    let fetched = ben.fetch(&key("visit/v2"), &hash, PATIENCE).await;
    assert!(matches!(fetched, Err(FetchError::Removed(NOW))), "{fetched:?}");
    assert_eq!(files(&ben, "visit/v2"), [FileState::Removed(NOW)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_read_it_hears_nothing_of_a_removal() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let eve = limited(&site, "eve", "42").await;
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash]);
    let name = |hash: &BlobHash| json!([{"id": hash.to_string(), "media": "image/png", "name": "x", "size": 1_000}]);
    let nothing = BlobHash([7; 32]);
    put(&eve, "visit/e1", json!({"outlet": "42", "photos": name(&hash)}));
    put(&eve, "visit/e2", json!({"outlet": "42", "photos": name(&nothing)}));
    sync(&eve).await;
    assert_eq!(eve.removed(&hash).expect("it reads"), None);
    let asked = eve.fetch(&key("visit/e1"), &hash, PATIENCE).await;
    let absent = eve.fetch(&key("visit/e2"), &nothing, PATIENCE).await;
    let text = |fetched: Result<_, FetchError>| match fetched {
        Err(error @ FetchError::Refused(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(asked), text(absent), "in the same words");
    // Once she may read there, she hears it.
    site.decide("eve", Some(visits_of("41"))).await;
    sync(&eve).await;
    assert_eq!(eve.removed(&hash).expect("it reads"), Some(NOW));
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_again_a_file_comes_back_for_everybody() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash]);
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(ben.removed(&hash).expect("it reads"), Some(NOW));
    attached(&site, &ann, "visit/v2", 1).await;
    assert_eq!(look(&site, NOW + DAY).await, []);
    let known = site.ask(move |engine| engine.replica().store().removal(&hash)).await;
    assert_eq!(known.expect("it reads"), None);
    sync(&ben).await;
    assert_eq!(files(&ben, "visit/v2"), [FileState::Elsewhere]);
    let path = ben.fetch(&key("visit/v2"), &hash, PATIENCE).await.expect("it is to be had");
    assert_eq!(std::fs::read(path).expect("it is here"), content(1_000, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_goes_back_gets_its_file_from_whoever_has_it() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    sync(&ben).await;
    let with_photo = ben.history(&key("visit/v1"), 1, None).expect("it reads").entries[0].hash;
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash]);
    sync(&ben).await;
    // Ben brings the state back, and does not have the file; Ann has.
    ben.revert(&key("visit/v1"), None, &Moment::Change(with_photo.to_string())).expect("written");
    sync(&ben).await;
    assert_eq!(stored(&site, "relay", &hash), None);
    sync(&ann).await;
    assert_eq!(files(&ann, "visit/v1"), [FileState::Here]);
    assert_eq!(stored(&site, "relay", &hash), Some(content(1_000, 1)));
    sync(&ben).await;
    ben.fetch(&key("visit/v1"), &hash, PATIENCE).await.expect("it is to be had again");
    let waits = ann.status().expect("it reads").files;
    assert_eq!(waits, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_captured_before_he_heard_of_the_removal_brings_its_file() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    sync(&ben).await;
    put(&ben, "visit/offline", json!({"outlet": "41"}));
    attach(&ben, "visit/offline", &site.path("1.png"));
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash], "the relay cannot know of his record");
    sync(&ben).await;
    assert_eq!(stored(&site, "relay", &hash), Some(content(1_000, 1)));
    assert_eq!(files(&ben, "visit/offline"), [FileState::Here]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_put_back_from_before_a_removal_is_believed() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    detach(&ann, "visit/v1", &hash).await;
    collect(&site, NOW - GRACE).await;
    assert_eq!(collect(&site, NOW).await, [hash]);
    sync(&ben).await;
    assert_eq!(ben.removed(&hash).expect("it reads"), Some(NOW));
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("it was there");
    site.copy("backup", "relay");
    site.start_again().await;
    site.ask(fieldkeep_relay::Engine::restore).await.expect("it is put back");
    sync(&ben).await;
    assert_eq!(ben.removed(&hash).expect("it reads"), None, "that relay has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_while_a_segment_is_damaged() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let hash = attached(&site, &ann, "visit/v1", 1).await;
    detach(&ann, "visit/v1", &hash).await;
    assert_eq!(collect(&site, NOW - GRACE).await, []);
    let doubts = site.ask(|engine| engine.doubt()).await;
    assert_eq!(doubts.expect("it reads"), None);
    let mut site = site;
    site.stop().await;
    let database = fieldkeep_store::home::database(&site.path("relay"));
    let connection = rusqlite::Connection::open(&database).expect("it opens");
    connection.execute("UPDATE segment SET damaged = 1", []).expect("it writes");
    drop(connection);
    site.start_again().await;
    let doubts = site.ask(|engine| engine.doubt()).await;
    assert_eq!(doubts.expect("it reads"), Some(Doubt::Damaged));
    assert_eq!(collect(&site, NOW).await, []);
    assert!(stored(&site, "relay", &hash).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_serves_collects_by_itself() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mut hashes = Vec::new();
    for seed in 1..=20 {
        let record = format!("visit/v{seed}");
        hashes.push(attached(&site, &ann, &record, seed).await);
        detach(&ann, &record, hashes.last().expect("just pushed")).await;
    }
    let kept = attached(&site, &ann, "visit/kept", 30).await;
    site.stop().await;
    let configuration = site.path("relay").join("relay.toml");
    std::fs::write(configuration, "[collection]\nafter = \"2h\"\n").expect("it is written");
    site.start_again().await;
    soon("it looks", async {
        while site.ask(|engine| engine.loose()).await.expect("it reads").len() < hashes.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(hashes.iter().all(|hash| stored(&site, "relay", hash).is_some()), "they have time");
    site.stop().await;
    let database = fieldkeep_store::home::database(&site.path("relay"));
    let connection = rusqlite::Connection::open(&database).expect("it opens");
    let three_hours = 3 * 60 * 60 * 1_000;
    let earlier = connection.execute("UPDATE loose SET since = since - ?", [three_hours]);
    assert_eq!(earlier.expect("it writes"), hashes.len());
    drop(connection);
    site.start_again().await;
    soon("they go", async {
        while hashes.iter().any(|hash| stored(&site, "relay", hash).is_some()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(stored(&site, "relay", &kept).is_some());
    let lying = site.ask(|engine| engine.replica().store().lying_blobs()).await;
    assert_eq!(lying.expect("it reads"), []);
}
