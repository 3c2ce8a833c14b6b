//! Control over what is exchanged with the relay: pausing and resuming, downloading again, clearing,
//! and what survives that.

use crate::support::*;
use fieldkeep_device::{ControlError, Device, ResyncError, SyncError};
use fieldkeep_model::{Edit, Grant, RecordEdit, RecordKey, Scalar, TypeName};
use fieldkeep_store::home;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]

[type.order]
[type.order.field.note]
[type.order.field.crates]
[[type.order.rule]]
name = "crates"
cel = "!has(record.crates) || record.crates < 100"
reason = "no van holds 100"

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
"#;

fn ty(name: &str) -> TypeName {
    TypeName::new(name).expect("a name")
}

/// What the relay told of a type: how many records there are in scope.
fn told(device: &Device, name: &str) -> Option<u64> {
    device.counts(&ty(name)).expect("it reads").server.map(|[in_scope, ..]| in_scope)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_paused_type_is_exchanged_but_its_counts_and_it_stays_paused() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    ann.pause(Some(&ty("order"))).expect("it is a type");
    drop(ann);
    let ann = Device::open(&site.path("ann")).expect("it opens");
    assert!(ann.paused().expect("it reads").pauses(&ty("order")));

    // Local work goes on.
    put(&ann, "order/mine", json!({"note": "two crates"}));
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ben, "order/his", json!({"note": "one crate"}));
    put(&ben, "customer/c2", json!({"name": "Harbour"}));
    sync(&ben).await;
    let report = sync(&ann).await;
    assert_eq!((report.sent, report.received), (1, 1), "the customers");
    assert!(get(&ann, "order/mine").expect("it is here").unsaved);
    assert!(get(&ann, "order/his").is_none());
    assert!(site.record("order/mine").await.is_none());
    assert_eq!((told(&ann, "order"), told(&ann, "customer")), (Some(1), Some(2)));

    ann.resume(Some(&ty("order"))).expect("it is a type");
    let report = sync(&ann).await;
    assert_eq!((report.sent, report.received), (1, 1), "the orders");
    site.converges(&[&ann, &ben], &["customer", "order"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_paused_everything_still_learns_how_much_there_is_while_connected() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    ann.pause(None).expect("it is kept");
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let _connected = Connected::new(&ann);
    put(&ben, "order/his", json!({"note": "one crate"}));
    sync(&ben).await;
    soon("the count comes", async {
        while told(&ann, "order") != Some(1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(get(&ann, "order/his").is_none());
    assert!(get(&ann, "customer/c1").expect("it is here").unsaved);
    // One that is resumed leaves the others paused.
    ann.resume(Some(&ty("order"))).expect("it is a type");
    assert!(ann.paused().expect("it reads").pauses(&ty("customer")));
    drop(_connected);
    sync(&ann).await;
    assert!(get(&ann, "order/his").is_some());
    assert!(site.record("customer/c1").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_takes_hold_of_a_connection_that_is_open() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let _connected = Connected::new(&ann);
    put(&ben, "order/first", json!({"note": "one crate"}));
    sync(&ben).await;
    reaches(&ann, "order/first", "valid").await;
    ann.pause(Some(&ty("order"))).expect("it is a type");
    put(&ben, "order/second", json!({"note": "one crate"}));
    put(&ben, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ben).await;
    reaches(&ann, "customer/c1", "valid").await;
    assert!(get(&ann, "order/second").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_not_there_cannot_be_paused() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let error = ann.pause(Some(&ty("ordre"))).expect_err("there is none");
    assert!(matches!(&error, ControlError::UnknownType { known, .. } if known.len() == 3));
    assert!(ann.paused().expect("it reads").is_empty());
}

/// Does something to a device's database behind its owner's back.
fn tamper(site: &Site, name: &str, statement: &str) {
    let database = home::database(&site.path(name));
    let connection = rusqlite::Connection::open(database).expect("it opens");
    assert_eq!(connection.execute(statement, []).expect("it writes"), 1, "{statement}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_heals_what_an_ordinary_sync_cannot_and_loses_nothing() {
    let newest = "(SELECT max(key) FROM change WHERE key >> 40 = \
                   (SELECT sid FROM segment WHERE ty = 'customer'))";
    for statement in [
        format!("UPDATE change SET bytes = CAST(bytes || x'00' AS BLOB) WHERE key = {newest}"),
        format!("DELETE FROM change WHERE key = {newest}"),
        r#"UPDATE record SET json = '{"name":"forged"}' WHERE id = 'c2'"#.to_owned(),
        "DELETE FROM record WHERE id = 'c2'".to_owned(),
        "DELETE FROM verdict_block".to_owned(),
    ] {
        let site = Site::founded(CATALOG);
        let (ann, ben) = (site.device("ann").await, site.device("ben").await);
        for n in 1..=3 {
            put(&ann, &format!("customer/c{n}"), json!({"name": format!("Kiosk {n}")}));
        }
        put(&ann, "order/big", json!({"note": "held", "crates": 500}));
        sync(&ann).await;
        put(&ben, "customer/c4", json!({"name": "Harbour"}));
        sync(&ben).await;
        put(&ann, "order/o1", json!({"note": "not sent yet"}));
        ann.close().expect("it closes");
        drop(ann);
        tamper(&site, "ann", &statement);
        let ann = Device::open(&site.path("ann")).expect("it opens");
        let done = ann.resync(None, PATIENCE).await.expect("the relay is there");
        assert_eq!((done.types.len(), done.records, done.exchanged.removed), (3, 6, 0));
        assert_eq!(done.report.sent, 1, "{statement}: what was unsaved");
        assert_eq!(fields(&ann, "customer/c2")["name"], "Kiosk 2");
        assert!(ann.status().expect("it reads").is_synced(), "{statement}");
        site.converges(&[&ann], &["customer", "order"]).await;
        assert!(!site.path("ann").join("resync").exists());
        assert_eq!(sync(&ann).await.received, 0, "all of it is here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_vanishes_while_it_is_downloaded_again_and_work_goes_on() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 0..400 {
        put(&ann, &format!("customer/c{n}"), json!({"name": format!("Kiosk {n}")}));
    }
    sync(&ann).await;
    let clearing = tokio::spawn({
        let ann = ann.clone();
        async move { ann.clear_and_resync(Some(&ty("customer")), PATIENCE).await }
    });
    let (mut looks, mut wrote) = (0, 0);
    while !clearing.is_finished() {
        assert!(get(&ann, &format!("customer/c{}", looks % 400)).is_some(), "it can be read");
        if looks % 50 == 0 && wrote < 30 {
            put(&ann, &format!("customer/new{wrote}"), json!({"name": "meanwhile"}));
            wrote += 1;
        }
        looks += 1;
        tokio::task::yield_now().await;
    }
    clearing.await.expect("it ends").expect("the relay is there");
    sync(&ann).await;
    assert_eq!(content(&ann, "customer").len(), 400 + wrote);
    assert!(ann.status().expect("it reads").is_synced());
    site.converges(&[&ann], &["customer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_removes_what_the_relay_does_not_offer_and_spares_what_is_in_use() {
    let site = Site::founded(CATALOG);
    let office = site.device("office").await;
    let ticket = site.invited("ann", vec![Grant::ALL], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    for (id, outlet) in [("n1", "north"), ("n2", "north"), ("s1", "south"), ("e1", "east")] {
        put(&office, &format!("visit/{id}"), json!({"outlet": outlet}));
    }
    sync(&office).await;
    sync(&ann).await;
    let north = Grant { ty: TypeName::new("visit").ok(), scope: Some("north".into()) };
    site.decide("ann", Some(vec![north])).await;
    sync(&ann).await;
    // What was granted once is still here.
    assert_eq!(content(&ann, "visit").len(), 4);
    ann.pin(&"visit/s1".parse().expect("a key"), "till", "the open visit").expect("kept").keep();

    let plan = ann.clear_plan(None).expect("it reads");
    assert_eq!((plan.replaced, plan.withdrawn, plan.in_use, plan.unsaved), (4, 1, 1, 0));
    assert_eq!(content(&ann, "visit").len(), 4, "a plan changes nothing");
    let done = ann.clear_and_resync(None, PATIENCE).await.expect("the relay is there");
    assert_eq!(done.exchanged.removed, 1);
    let left = content(&ann, "visit");
    assert_eq!(left.len(), 3, "north, and what is in use: {left:?}");
    assert!(get(&ann, "visit/e1").is_none());

    ann.unpin(None, Some("till")).expect("it is kept");
    ann.clear_and_resync(None, PATIENCE).await.expect("the relay is there");
    assert_eq!(content(&ann, "visit").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_brings_a_relay_that_was_put_back_what_only_the_device_still_has() {
    for relay_has_more in [false, true] {
        clears_beside_a_relay_that_was_put_back(relay_has_more).await;
    }
}

async fn clears_beside_a_relay_that_was_put_back(relay_has_more: bool) {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    site.stop().await;
    site.copy("relay", "old");
    site.start_again().await;
    // So many that its own log is packed when it closes.
    let key = |n: usize| -> RecordKey { format!("customer/c{n}").parse().expect("a key") };
    let name = |n: usize| RecordEdit {
        edits: vec![Edit::Put("name".into(), Scalar::Str(format!("Kiosk {n}")))],
        deleted: None,
    };
    let edits: Vec<_> = (0..1_200).map(|n| (key(n), name(n))).collect();
    ann.put_all(&edits).expect("they are saved");
    sync(&ann).await;
    ann.close().expect("it closes");
    drop(ann);
    let database = rusqlite::Connection::open(home::database(&site.path("ann"))).expect("it opens");
    let packs = database.query_row("SELECT count(*) FROM pack", [], |row| row.get::<_, i64>(0));
    assert!(packs.expect("it reads") > 0);
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("nobody holds it");
    site.copy("old", "relay");
    site.start_again().await;
    let ann = Device::open(&site.path("ann")).expect("it opens");
    put(&ann, "customer/new", json!({"name": "after that"}));
    if relay_has_more {
        let other = site.device("other").await;
        put(&other, "customer/other", json!({"name": "another"}));
        sync(&other).await;
    }
    let all = 1_201 + usize::from(relay_has_more);
    ann.clear_and_resync(None, PATIENCE).await.expect("the relay is there");
    assert_eq!(content(&ann, "customer").len(), all);
    sync(&ann).await;
    assert_eq!(site.content("customer").await.len(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_reach_the_relay_keeps_what_is_here() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    put(&ann, "customer/c2", json!({"name": "Harbour"}));
    site.stop().await;
    let before = content(&ann, "customer");
    let failed = ann.clear_and_resync(None, PATIENCE).await.expect_err("nobody answers");
    assert!(matches!(failed, ResyncError::Sync(SyncError::Offline(_))), "{failed}");
    assert_eq!(content(&ann, "customer"), before);
    assert_eq!(ann.status().expect("it reads").unsaved(), 1);
    site.start_again().await;
    ann.pause(Some(&ty("order"))).expect("it is a type");
    let paused = ann.resync(Some(&ty("order")), PATIENCE).await;
    assert!(matches!(paused, Err(ResyncError::Paused(_))));
    ann.resync(None, PATIENCE).await.expect("the relay is there");
    assert_eq!(site.content("customer").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_released_with_its_guard_and_kept_ones_outlive_the_process() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let key: RecordKey = "customer/c1".parse().expect("a key");
    let pin = ann.pin(&key, "screen", "it is open").expect("it is kept");
    ann.pin(&key, "shift", "the current one").expect("it is kept").keep();
    assert_eq!(ann.pins().expect("they read").len(), 2);
    drop(pin);
    drop(ann);
    let ann = Device::open(&site.path("ann")).expect("it opens");
    let owners: Vec<_> = ann.pins().expect("they read").into_iter().map(|pin| pin.owner).collect();
    assert_eq!(owners, ["shift"]);
    assert_eq!(ann.unpin(None, Some("shift")).expect("it is kept"), 1);
    assert_eq!(ann.pins().expect("they read"), []);
}
