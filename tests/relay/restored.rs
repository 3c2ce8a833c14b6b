//! Directories that were copied, and directories that were put back from an old copy: whatever was
//! captured on a disk that is still there, or has a receipt, is readable on every replica in the
//! end.

use crate::support::{
    self, Connected, PATIENCE, Site, actor, content, disguise, fields, get, put, reaches, soon,
    state, sync,
};
use fieldkeep_device::Device;
use fieldkeep_model::Grant;
use fieldkeep_replica::Note;
use fieldkeep_store::{Catalogs as _, home};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.town]
[type.customer.field.discount]
schema = { type = "integer" }
[type.customer.field.visits]
kind = "counter"
[[type.customer.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

fn open(site: &Site, name: &str) -> Device {
    Device::open(&site.path(name)).expect("the directory is whole")
}

/// Lets the directory go, as a process that ends does.
fn close(device: Device) {
    device.close().expect("its caches are saved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_device_takes_another_incarnation_and_both_go_on() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    put(&ann, "customer/c2", json!({"name": "unsaved when it was copied"}));
    close(ann);
    site.copy("ann", "copy");
    let (ann, copy) = (open(&site, "ann"), open(&site, "copy"));
    assert_ne!(actor(&ann), actor(&copy));
    put(&ann, "customer/c1", json!({"town": "Ulm"}));
    put(&copy, "customer/c1", json!({"name": "Kiosk 2"}));
    put(&ann, "customer/c3", json!({"name": "by the original"}));
    put(&copy, "customer/c4", json!({"name": "by the copy"}));
    sync(&copy).await;
    site.converges(&[&ann, &copy, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 4);
    let both = json!({"name": "Kiosk 2", "town": "Ulm"});
    assert_eq!(serde_json::Value::from(fields(&ben, "customer/c1")), both);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_that_cannot_be_told_apart_lose_nothing() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk", "visits": 1}));
    sync(&ann).await;
    close(ann);
    site.copy("ann", "twin");
    disguise(&site.path("twin"), &site.path("ann"));
    let (ann, twin) = (open(&site, "ann"), open(&site, "twin"));
    assert_eq!(actor(&ann), actor(&twin), "nobody can tell");
    put(&ann, "customer/c1", json!({"town": "Ulm"}));
    put(&ann, "customer/c2", json!({"name": "ann's"}));
    put(&twin, "customer/c1", json!({"discount": 5}));
    put(&twin, "customer/c3", json!({"name": "the twin's"}));
    put(&twin, "customer/c3", json!({"town": "Bonn"}));
    sync(&ann).await;
    sync(&ben).await;
    sync(&twin).await;
    assert_ne!(actor(&ann), actor(&twin), "one of them gave way");
    put(&ann, "customer/c4", json!({"name": "ann's again"}));
    put(&twin, "customer/c5", json!({"name": "the twin's again"}));
    site.converges(&[&ann, &twin, &ben], &["customer"]).await;
    let both = json!({"discount": 5, "name": "Kiosk", "town": "Ulm", "visits": 1});
    assert_eq!(serde_json::Value::from(fields(&ben, "customer/c1")), both);
    let written = json!({"name": "the twin's", "town": "Bonn"});
    assert_eq!(serde_json::Value::from(fields(&ann, "customer/c3")), written);
    assert_eq!(content(&ben, "customer").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_that_wrote_the_same_field_leave_one_value_and_go_on() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    close(ann);
    site.copy("ann", "twin");
    disguise(&site.path("twin"), &site.path("ann"));
    let (ann, twin) = (open(&site, "ann"), open(&site, "twin"));
    put(&ann, "customer/c1", json!({"name": "by ann"}));
    put(&twin, "customer/c1", json!({"name": "by the twin"}));
    put(&ann, "customer/new", json!({"name": "by ann"}));
    put(&twin, "customer/new", json!({"name": "by the twin"}));
    sync(&ann).await;
    sync(&twin).await;
    site.converges(&[&ann, &twin, &ben], &["customer"]).await;
    for key in ["customer/c1", "customer/new"] {
        let name = fields(&ben, key)["name"].clone();
        assert!(name == "by ann" || name == "by the twin", "{key}: {name}");
        let key = key.parse().expect("a record's name");
        let history = ben.history(&key, 100, None);
        let writes = format!("{:?}", history.expect("it reads").entries);
        assert!(writes.contains("by ann") && writes.contains("by the twin"), "{writes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_put_back_from_an_old_copy_gets_its_own_changes_back() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    close(ann);
    site.copy("ann", "backup");
    let ann = open(&site, "ann");
    put(&ann, "customer/c2", json!({"name": "after the backup"}));
    sync(&ann).await;
    close(ann);
    site.copy("backup", "ann");
    disguise(&site.path("ann"), &site.path("ann"));
    let ann = open(&site, "ann");
    let before = actor(&ann);
    assert_eq!(state(&ann, "customer/c2"), "absent");
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c2"), "valid");
    assert_ne!(actor(&ann), before, "a new incarnation before the next write");
    put(&ann, "customer/c3", json!({"name": "after all"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_put_back_that_writes_before_it_syncs_loses_neither_branch() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    close(ann);
    site.copy("ann", "backup");
    let ann = open(&site, "ann");
    put(&ann, "customer/c1", json!({"town": "Ulm"}));
    put(&ann, "customer/c2", json!({"name": "after the backup"}));
    sync(&ann).await;
    close(ann);
    for writes in [1, 2, 3] {
        site.copy("backup", "ann");
        disguise(&site.path("ann"), &site.path("ann"));
        let ann = open(&site, "ann");
        for write in 0..writes {
            let key = format!("customer/{writes}-{write}");
            put(&ann, &key, json!({"name": "before it knew"}));
        }
        sync(&ann).await;
        site.converges(&[&ann, &ben], &["customer"]).await;
        close(ann);
    }
    assert_eq!(content(&ben, "customer").len(), 2 + 6);
    assert_eq!(fields(&ben, "customer/c1")["town"], "Ulm");
}

/// Two devices, one of which is not there when the relay is put back; and what all of them wrote
/// after the backup.
async fn with_backup() -> (Site, Device, Device) {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let ben = site.device("ben").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk", "discount": 5}));
    put(&ben, "customer/c2", json!({"name": "Corner"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    (site, ann, ben)
}

async fn put_back(site: &mut Site) {
    site.stop().await;
    site.copy("backup", "relay");
    site.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_heal_a_relay_that_was_put_back_and_each_lost_change_is_sent_once() {
    let (mut site, ann, ben) = with_backup().await;
    put(&ann, "customer/c3", json!({"name": "ann's"}));
    put(&ben, "customer/c4", json!({"name": "ben's"}));
    put(&ann, "customer/c1", json!({"discount": 40}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(state(&ben, "customer/c1"), "held");
    let epoch = site.ask(|engine| engine.replica().epoch()).await;
    put_back(&mut site).await;
    assert_eq!(site.content("customer").await.len(), 2);

    assert_eq!(sync(&ann).await.sent, 3, "what was lost, whoever wrote it");
    assert_eq!(sync(&ben).await.sent, 0, "the relay has it again");
    assert!(site.ask(|engine| engine.replica().epoch()).await > epoch);
    site.converges(&[&ann, &ben], &["customer"]).await;
    let log = site.log().await;
    assert_eq!(support::length(&log, "customer"), 5, "and it has it once");
    for device in [&ann, &ben] {
        assert_eq!(state(device, "customer/c1"), "held");
        let record = get(device, "customer/c1").expect("it is there");
        assert_eq!(record.reasons, ["the discount is above 30 percent"]);
    }
    put(&ben, "customer/c1", json!({"discount": 10}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_a_restored_relay_never_gave_does_not_stand() {
    let (mut site, ann, ben) = with_backup().await;
    put(&ann, "customer/c1", json!({"discount": 40}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    put_back(&mut site).await;
    // The one who held the record repairs it before the relay has heard of it.
    put(&ben, "customer/c1", json!({"discount": 20}));
    sync(&ben).await;
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_wrote_on_after_the_relay_was_put_back_converge() {
    let (mut site, ann, ben) = with_backup().await;
    put(&ann, "customer/c3", json!({"name": "ann's"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    put_back(&mut site).await;
    put(&ann, "customer/c3", json!({"town": "Ulm"}));
    put(&ben, "customer/c3", json!({"discount": 3}));
    put(&ben, "customer/c5", json!({"name": "ben's"}));
    // Ben knows of both what the relay lost and what it never had.
    sync(&ben).await;
    site.converges(&[&ann, &ben], &["customer"]).await;
    let all = json!({"discount": 3, "name": "ann's", "town": "Ulm"});
    assert_eq!(serde_json::Value::from(fields(&ann, "customer/c3")), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_put_back_twice_is_healed_twice() {
    let (mut site, ann, ben) = with_backup().await;
    for round in 0..3 {
        put(&ann, &format!("customer/a{round}"), json!({"name": "ann's"}));
        sync(&ann).await;
        put(&ben, &format!("customer/b{round}"), json!({"name": "ben's"}));
        sync(&ben).await;
        put_back(&mut site).await;
        site.converges(&[&ben, &ann], &["customer"]).await;
    }
    assert_eq!(site.content("customer").await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_put_back_takes_over_the_members_that_it_forgot() {
    let (mut site, ann, ben) = with_backup().await;
    let cat = site.device("cat").await;
    put(&cat, "customer/c6", json!({"name": "cat's"}));
    site.converges(&[&cat, &ann, &ben], &["customer"]).await;
    put_back(&mut site).await;
    put(&cat, "customer/c7", json!({"name": "cat's, offline"}));
    sync(&ann).await;
    site.converges(&[&cat, &ann, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgot_a_catalog_goes_back_to_the_one_before_and_everybody_with_it() {
    let (mut site, ann, ben) = with_backup().await;
    let stricter = CATALOG.replace("<= 30", "<= 3");
    site.publish(&stricter).await.expect("it is sound");
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(state(&ann, "customer/c1"), "held");
    put_back(&mut site).await;
    site.converges(&[&ann, &ben], &["customer"]).await;
    for device in [&ann, &ben] {
        let catalog = device.catalog().map(|catalog| catalog.source().to_owned());
        assert_eq!(catalog.as_deref(), Some(CATALOG));
        assert_eq!(state(device, "customer/c1"), "valid");
    }
    site.publish(&stricter).await.expect("it is sound");
    site.converges(&[&ann, &ben], &["customer"]).await;
    assert_eq!(state(&ben, "customer/c1"), "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_put_back_knows_when_and_why_its_catalog_was_published() {
    let mut site = Site::founded(CATALOG);
    let stricter = CATALOG.replace("<= 30", "<= 3");
    let note = Note { text: "less is enough", time: 5 };
    site.ask(move |engine| engine.publish_noted(&stricter, note)).await.expect("it is sound");
    for number in [3, 4] {
        site.stop().await;
        site.copy("relay", "backup");
        site.start_again().await;
        put_back(&mut site).await;
        let published = site.ask(|engine| {
            let published = engine.replica().published().expect("there is one");
            let (epoch, number) = (published.epoch, published.number);
            (number, engine.replica().store().publication(epoch, number).expect("it reads"))
        });
        let (numbered, published) = published.await;
        let published = published.expect("it is noted");
        assert_eq!((numbered, published.time), (number, Some(5)));
        assert_eq!(published.note, "less is enough");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_relay_forgot_brings_its_own_enrolment() {
    let (mut site, ann, ben) = with_backup().await;
    let cat = site.device("cat").await;
    put(&cat, "customer/c6", json!({"name": "cat's"}));
    sync(&cat).await;
    put_back(&mut site).await;
    put(&cat, "customer/c7", json!({"name": "cat's, offline"}));
    sync(&cat).await;
    site.converges(&[&cat, &ann, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_relay_forgot_comes_back_when_its_invitation_has_expired() {
    let (mut site, ann, ben) = with_backup().await;
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_millis() as i64
    };
    let expires = now() + 3_000;
    let ticket = site.invited("cat", vec![Grant::ALL], expires).await;
    let cat = site.join(&ticket, "cat").await;
    put(&cat, "customer/c6", json!({"name": "cat's"}));
    sync(&cat).await;
    put_back(&mut site).await;
    soon("the invitation expires", async {
        while now() <= expires {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sync(&cat).await;
    site.converges(&[&cat, &ann, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_went_on_after_it_was_put_back_unites_its_members_with_those_that_it_forgot() {
    let (mut site, ann, ben) = with_backup().await;
    let cat = site.device("cat").await;
    let dan = site.device("dan").await;
    put(&cat, "customer/cat", json!({"name": "cat's"}));
    put(&dan, "customer/dan", json!({"name": "dan's"}));
    site.converges(&[&cat, &dan, &ann], &["customer"]).await;
    put_back(&mut site).await;
    // Somebody joins before anybody brings the longer log.
    let eve = site.device("eve").await;
    assert_eq!(actor(&eve).device(), actor(&cat).device(), "the number is given twice");
    assert_ne!(actor(&eve), actor(&cat));
    put(&eve, "customer/eve", json!({"name": "eve's"}));
    sync(&eve).await;
    put(&cat, "customer/cat", json!({"town": "Ulm"}));
    for device in [&cat, &ann, &ben, &eve, &dan] {
        sync(device).await;
    }
    site.converges(&[&ann, &ben, &cat, &dan, &eve], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 5);
    let members = site.members().await;
    let names = |log: &fieldkeep_model::MembershipLog| {
        log.members().values().map(|member| member.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&members).len(), 6, "{:?}", names(&members));
    for device in [&ann, &ben, &cat, &dan, &eve] {
        assert_eq!(device.members().sum(), members.sum(), "{}", device.name());
        assert_eq!(names(&device.members()), names(&members), "{}", device.name());
    }
    // And goes on: the next one joins behind both.
    let fay = site.device("fay").await;
    put(&fay, "customer/fay", json!({"name": "fay's"}));
    site.converges(&[&fay, &eve, &cat, &ben], &["customer"]).await;
    site.revoke("cat").await;
    assert!(cat.sync(PATIENCE).await.is_err());
    sync(&eve).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_the_relay_put_back_together_get_everything_from_another_device() {
    let (mut site, ann, ben) = with_backup().await;
    close(ann);
    site.copy("ann", "old ann");
    let ann = open(&site, "ann");
    put(&ann, "customer/c3", json!({"name": "ann's"}));
    put(&ann, "customer/c4", json!({"name": "ann's"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    close(ann);
    site.copy("old ann", "ann");
    disguise(&site.path("ann"), &site.path("ann"));
    put_back(&mut site).await;
    let ann = open(&site, "ann");
    sync(&ben).await;
    put(&ann, "customer/c5", json!({"name": "another second change of ann's"}));
    sync(&ann).await;
    site.converges(&[&ben, &ann], &["customer"]).await;
    let names: Vec<_> = content(&ben, "customer").into_keys().collect();
    assert_eq!(names, ["c1", "c2", "c3", "c4", "c5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_whose_author_and_relay_forgot_it_is_kept_aside_by_whoever_has_it() {
    let (mut site, ann, ben) = with_backup().await;
    let forgotten = actor(&ann);
    close(ann);
    site.copy("ann", "old ann");
    let ann = open(&site, "ann");
    put(&ann, "customer/c3", json!({"name": "ann's"}));
    put(&ann, "customer/c4", json!({"name": "ann's"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    close(ann);
    site.copy("old ann", "ann");
    disguise(&site.path("ann"), &site.path("ann"));
    put_back(&mut site).await;
    let ann = open(&site, "ann");
    put(&ann, "customer/c5", json!({"name": "another second change of ann's"}));
    sync(&ann).await;
    put(&ben, "customer/c6", json!({"name": "ben's, who knows of the other branch"}));
    site.converges(&[&ben, &ann], &["customer"]).await;
    let names: Vec<_> = content(&ben, "customer").into_keys().collect();
    assert_eq!(names, ["c1", "c2", "c5", "c6"]);
    let database = rusqlite::Connection::open(home::database(&site.path("ben"))).expect("it opens");
    let count = "SELECT count(*) FROM aside WHERE reason = 'fork' AND actor = ?";
    let aside: i64 = database.query_row(count, [forgotten.0], |row| row.get(0)).expect("it reads");
    assert_eq!(aside, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_relay_opens_no_epoch_and_connected_devices_go_on() {
    let (mut site, ann, ben) = with_backup().await;
    put(&ann, "customer/c3", json!({"name": "ann's"}));
    sync(&ann).await;
    let epoch = site.ask(|engine| engine.replica().epoch()).await;
    site.stop().await;
    site.start_again().await;
    let connected = Connected::new(&ben);
    put(&ann, "customer/c4", json!({"name": "ann's"}));
    sync(&ann).await;
    reaches(&ben, "customer/c4", "valid").await;
    drop(connected);
    assert_eq!(site.ask(|engine| engine.replica().epoch()).await, epoch);
}
