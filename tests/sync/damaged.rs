//! Disks that fail: rows that are not what was written are found and told, and a full disk loses
//! nothing.

use crate::support::lab::document;
use crate::support::town::address;
use crate::support::wire::{Answer, Raw};
use crate::support::{self, PATIENCE, Site, content, fields, get, put, soon, state, sync, try_put};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ObjType, ROOT};
use fieldkeep_catalog::Afresh;
use fieldkeep_device::{Device, Finding, SyncError};
use fieldkeep_model::TypeName;
use fieldkeep_replica::{Integrity, Note, PutError, ReplicaError};
use fieldkeep_store::{StoreError, home};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.note]
"#;

/// Does something to a directory's database behind its owner's back.
fn tamper(site: &Site, name: &str, statement: &str) {
    let database = home::database(&site.path(name));
    let connection = rusqlite::Connection::open(database).expect("it opens");
    assert_eq!(connection.execute(statement, []).expect("it writes"), 1);
}

/// Makes the change that came last one that is not what was written.
const SPOILS_THE_LAST: &str = "UPDATE change SET bytes = CAST(bytes || x'00' AS BLOB) \
                               WHERE key = (SELECT max(key) FROM change)";

async fn synced() -> (Site, Device) {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    for n in 1..=3 {
        put(&ann, &format!("customer/c{n}"), json!({"name": format!("Kiosk {n}")}));
    }
    sync(&ann).await;
    (site, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_record_makes_the_next_sync_fail_and_is_derived_again() {
    for statement in [
        r#"UPDATE record SET json = '{"name":"forged"}' WHERE id = 'c2'"#,
        "DELETE FROM record WHERE id = 'c2'",
    ] {
        let (site, ann) = synced().await;
        tamper(&site, "ann", statement);
        let synced = ann.sync(PATIENCE).await;
        let told = matches!(synced, Err(SyncError::Integrity(Integrity::Records(_))));
        assert!(told, "{statement}: {synced:?}");
        assert_eq!(fields(&ann, "customer/c2")["name"], "Kiosk 2", "{statement}");
        sync(&ann).await;
        assert_eq!(content(&ann, "customer"), site.content("customer").await, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_change_makes_every_sync_fail() {
    let last = "(SELECT max(key) FROM change)";
    for statement in [
        format!("UPDATE change SET bytes = CAST(bytes || x'00' AS BLOB) WHERE key = {last}"),
        format!("UPDATE change SET bytes = (SELECT bytes FROM change LIMIT 1) WHERE key = {last}"),
        format!("DELETE FROM change WHERE key = {last}"),
    ] {
        let (site, ann) = synced().await;
        tamper(&site, "ann", &statement);
        for _ in 0..2 {
            let synced = ann.sync(PATIENCE).await;
            let told = matches!(synced, Err(SyncError::Integrity(Integrity::Changes(_))));
            assert!(told, "{statement}: {synced:?}");
        }
        assert_eq!(state(&ann, "customer/c3"), "valid", "reads go on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_behind_what_others_write_is_noticed() {
    let (site, ann) = synced().await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    let mut doc = document(&mallory, &[]);
    doc.put_object(ROOT, "c9", ObjType::Map).expect("it writes");
    let in_2100 = CommitOptions::default().with_time(4_102_444_800_000).with_message("mallory");
    doc.commit_with(in_2100);
    let change = doc.get_last_local_change().expect("it was written").raw_bytes().to_vec();
    let mut wire = mallory.following().await;
    let answer = wire.answer(mallory.own_push(&address("customer", ""), &[&change])).await;
    assert_eq!(answer, Answer::Taken);
    sync(&ann).await;
    let checks = ann.doctor().expect("it looks");
    let clock = checks.iter().find(|check| check.name == "clock").expect("it is looked at");
    assert_eq!(clock.finding, Finding::Notice, "{clock:?}");
    assert!(clock.text.contains("days after what this clock says"), "{clock:?}");
}

fn bound(device: &Device, pages: Option<u32>) {
    let bounded = device.with_replica(|replica| {
        replica.store_mut().bound_growth(pages).map_err(ReplicaError::from)
    });
    bounded.expect("it reads");
}

fn note(n: usize) -> serde_json::Value {
    json!({"name": format!("Kiosk {n}"), "note": "x".repeat(2_000)})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_disk_is_full_says_so_loses_nothing_and_goes_on_when_there_is_room() {
    let (site, ann) = synced().await;
    let ben = site.device("ben").await;
    bound(&ann, Some(16));
    let mut written = 0;
    let error = loop {
        match try_put(&ann, &format!("customer/n{written}"), &note(written)) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the bound holds");
    };
    assert!(matches!(error, PutError::Replica(ReplicaError::Store(StoreError::Full))), "{error:?}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(written > 0);
    assert_eq!(content(&ann, "customer").len(), 3 + written, "what was saved, and nothing else");
    assert_eq!(state(&ann, &format!("customer/n{written}")), "absent");
    assert_eq!(fields(&ann, "customer/n0")["name"], "Kiosk 0");

    bound(&ann, None);
    put(&ann, &format!("customer/n{written}"), note(written));
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 4 + written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_disk_is_full_takes_over_nothing_in_part() {
    let (site, ann) = synced().await;
    let ben = site.device("ben").await;
    for n in 0..60 {
        put(&ben, &format!("customer/n{n}"), note(n));
    }
    sync(&ben).await;
    bound(&ann, Some(8));
    let synced = ann.sync(PATIENCE).await;
    let told = matches!(synced, Err(SyncError::Replica(ReplicaError::Store(StoreError::Full))));
    assert!(told, "{synced:?}");
    assert_eq!(state(&ann, "customer/c1"), "valid", "reads go on");
    bound(&ann, None);
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(content(&ann, "customer").len(), 63);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_disk_is_full_while_it_downloads_again_keeps_what_it_has() {
    let (site, ann) = synced().await;
    let ben = site.device("ben").await;
    for n in 0..60 {
        put(&ben, &format!("customer/n{n}"), note(n));
    }
    sync(&ben).await;
    put(&ann, "customer/mine", json!({"name": "not sent"}));
    let before = content(&ann, "customer");
    for clears in [false, true] {
        bound(&ann, Some(8));
        let failed = match clears {
            true => ann.clear_and_resync(None, PATIENCE).await,
            false => ann.resync(None, PATIENCE).await,
        };
        let text = failed.expect_err("there is no room").to_string();
        assert!(text.contains("the disk is full"), "{text}");
        assert_eq!(content(&ann, "customer"), before, "nothing vanished, and nothing came in part");
        assert!(get(&ann, "customer/mine").expect("it is here").unsaved);
    }
    bound(&ann, None);
    ann.clear_and_resync(None, PATIENCE).await.expect("there is room");
    assert_eq!(content(&ann, "customer").len(), before.len() + 60);
    site.converges(&[&ann, &ben], &["customer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_disk_is_full_gives_no_receipt_lives_and_goes_on_when_there_is_room() {
    let (site, ann) = synced().await;
    let ben = site.device("ben").await;
    for pages in [2, 12, 40, 60] {
        let limit = move |engine: &mut fieldkeep_relay::Engine| {
            engine.replica_mut().store_mut().bound_growth(Some(pages)).expect("it reads");
        };
        site.ask(limit).await;
        for n in 0..60 {
            put(&ann, &format!("customer/{pages}-{n}"), note(n));
        }
        let synced = ann.sync(PATIENCE).await;
        let SyncError::Cut(text) = synced.expect_err("there is no room") else { panic!("a cut") };
        assert!(text.contains("the disk is full"), "{text}");
        // What has a receipt is there, the rest is unsaved.
        let waiting = ann.progress().expect("it reads").waiting;
        let length = support::length(&site.log().await, "customer");
        let own = support::length(&support::logs(&ann), "customer");
        assert!(length + waiting >= own, "{length} there, {waiting} waiting, {own} in all");

        let lift = |engine: &mut fieldkeep_relay::Engine| {
            engine.replica_mut().store_mut().bound_growth(None).expect("it reads");
        };
        site.ask(lift).await;
        site.converges(&[&ann, &ben], &["customer"]).await;
    }
    assert_eq!(content(&ben, "customer").len(), 3 + 4 * 60);
}

const RULED: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[[type.customer.rule]]
name = "named"
cel = "record.name != ''"
reason = "a customer has a name"
[type.visit.field.remark]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_about_a_record_that_cannot_be_read_stops_no_relay() {
    let mut site = Site::founded(RULED);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": ""}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "held");
    site.stop().await;
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    ann.retry(&"customer/c1".parse().expect("a record")).expect("it is wished for");
    put(&ann, "visit/v1", json!({"remark": "closed"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "visit/v1"), "valid", "the relay judges what it can read");
    assert_eq!(state(&ann, "customer/c1"), "held", "and leaves what stands");
}

const LOOKING: &str = r#"
catalog = 1
[type.customer.field.name]
[[type.customer.rule]]
name = "named"
cel = "record.name != ''"
reason = "a customer has a name"
[type.visit.field]
remark = {}
customer = { ref = "customer" }
[[type.visit.rule]]
name = "open"
cel = "refs.customer.name != 'Gone'"
reason = "nobody visits who is gone"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_others_are_judged_by_is_judged_where_those_cannot_be_read() {
    let mut site = Site::founded(LOOKING);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"remark": "closed", "customer": "c1"}));
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(state(&ann, "visit/v1"), "valid");
    site.stop().await;
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    // The first has the visit judged again, which cannot be read any more; the other breaks a rule.
    put(&ann, "customer/c1", json!({"name": "Gone"}));
    put(&ann, "customer/c2", json!({"name": ""}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
    assert_eq!(state(&ann, "customer/c2"), "held");
    put(&ann, "customer/c2", json!({"name": "Corner"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c2"), "valid", "it goes on");
    assert_eq!(state(&ann, "visit/v1"), "valid", "and what cannot be read stands as it was");
    sync(&ben).await;
    assert_eq!(content(&ben, "customer"), content(&ann, "customer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_catalog_judges_what_can_be_read() {
    let mut site = Site::founded(LOOKING);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"remark": "closed", "customer": "c1"}));
    sync(&ann).await;
    site.stop().await;
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    let stricter = LOOKING.replace("!= ''", "!= 'Kiosk'").replace("!= 'Gone'", "== 'Shop'");
    site.publish(&stricter).await.expect("it is sound");
    soon("the catalog is applied", async {
        while site.ask(|engine| engine.replica().is_renewing()).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "held");
    assert_eq!(state(&ann, "visit/v1"), "valid", "what cannot be read stands as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_what_the_relay_cannot_read_gets_and_gives_everything_else() {
    let mut site = Site::founded(LOOKING);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    for n in 0..20 {
        put(&ann, &format!("customer/c{n}"), json!({"name": "Kiosk"}));
    }
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"remark": "closed"}));
    sync(&ann).await;
    site.stop().await;
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    // One lacks the change that cannot be read, the other builds on it.
    put(&ben, "customer/mine", json!({"name": "Corner"}));
    put(&ann, "visit/v1", json!({"remark": "open"}));
    put(&ann, "customer/hers", json!({"name": "Shop"}));
    let (of_ann, of_ben) = tokio::join!(ann.sync(PATIENCE), ben.sync(PATIENCE));
    for synced in [of_ann, of_ben] {
        let Err(SyncError::Cut(text)) = synced else { panic!("the relay says what: {synced:?}") };
        assert!(text.contains("is not what was written"), "{text}");
    }
    assert_eq!(content(&ben, "customer").len(), 22);
    for device in [&ann, &ben] {
        assert_eq!(site.content("customer").await, content(device, "customer"));
    }
    assert_eq!(state(&ben, "customer/mine"), "valid");
    assert_eq!(state(&ann, "customer/hers"), "valid");
    assert_eq!(state(&ben, "visit/v1"), "absent");
    assert!(get(&ann, "visit/v1").expect("it is here").unsaved, "and nothing of it is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_not_started_afresh_for_ever() {
    let mut site = Site::founded(LOOKING);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"remark": "closed"}));
    sync(&ann).await;
    site.stop().await;
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    let begun = site.ask(|engine| {
        let (visit, note) = (TypeName::new("visit").expect("a name"), Note { text: "", time: 0 });
        let afresh = Afresh { buckets: Some(4), ..Afresh::default() };
        engine.begin_reshape(&visit, None, &afresh, (note, None)).map(drop)
    });
    begun.await.expect("nobody has read it yet");
    soon("it is found out", async {
        let damaged = |engine: &mut fieldkeep_relay::Engine| {
            engine.replica().segments().values().any(|row| row.damaged)
        };
        while !site.ask(damaged).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_put_back_serves_what_it_can_read() {
    let mut site = Site::founded(LOOKING);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": ""}));
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"remark": "closed"}));
    sync(&ann).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    site.stop().await;
    site.copy("backup", "relay");
    tamper(&site, "relay", SPOILS_THE_LAST);
    site.start_again().await;
    assert_eq!(site.ask(|engine| engine.replica().epoch().counter).await, 2);
    put(&ann, "customer/c2", json!({"name": "Kiosk"}));
    let _ = ann.sync(PATIENCE).await;
    assert_eq!(state(&ann, "customer/c2"), "valid");
    assert_eq!(state(&ann, "customer/c1"), "held", "it was stated again");
}
