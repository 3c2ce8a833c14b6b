//! What a device's user has set: which scopes it exchanges of those that it was granted, and what it
//! reads of a record that is held.

use crate::support::*;
use fieldkeep_device::{Device, OpenError, PutError, Read, SubscribeError};
use fieldkeep_model::status::TypeStatus;
use fieldkeep_model::{Grant, TypeName};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Page;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.guests]
schema = { type = "integer" }
[[type.visit.rule]]
name = "guests"
cel = "!has(record.guests) || record.guests >= 0"
reason = "nobody has fewer than no guests"
"#;

fn visit() -> TypeName {
    TypeName::new("visit").expect("a name")
}

/// Records of the type that are here, by id.
fn here(device: &Device) -> Vec<String> {
    let records = device.list(&visit(), &Page::default()).expect("it reads");
    records.iter().map(|record| record.key.id.to_string()).collect()
}

fn status(device: &Device) -> (TypeStatus, u64, Option<[u64; 3]>) {
    let status = device.status().expect("it reads");
    let view = status.types.iter().find(|view| view.ty == visit()).expect("the type");
    (view.status, view.counts.local, view.counts.server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_exchanges_the_scopes_that_it_subscribed_to_and_nothing_else() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    for (id, outlet) in [("v1", "41"), ("v2", "42"), ("v3", "43")] {
        put(&ben, &format!("visit/{id}"), json!({"outlet": outlet}));
    }
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(status(&ann).0, TypeStatus::FullySynced);
    // It had everything; by now it wants one scope.
    ann.subscribe(&visit(), Some("42")).expect("it was granted");
    assert_eq!(here(&ann), ["v1", "v2", "v3"], "what is here stays");
    put(&ben, "visit/v1", json!({"guests": 1}));
    put(&ben, "visit/v2", json!({"guests": 2}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(fields(&ann, "visit/v2")["guests"], 2);
    assert!(!fields(&ann, "visit/v1").contains_key("guests"), "it is not exchanged");
    let (state, local, server) = status(&ann);
    assert_eq!((state, local), (TypeStatus::SubsetSynced, 3));
    assert_eq!(server.expect("the relay told")[..2], [1, 3], "in scope, and of all");
    // Where nobody can send it, nothing is written.
    let refused = try_put(&ann, "visit/v1", &json!({"guests": 5}));
    assert!(matches!(refused, Err(PutError::NotSubscribed { .. })), "{refused:?}");
    let refused = try_put(&ann, "visit/v9", &json!({"outlet": "43"}));
    assert!(refused.expect_err("left out").to_string().contains("fieldkeep subscribe visit=43"));

    // It holds over a restart, and clearing takes what is not wanted.
    drop(ann);
    let ann = Device::open(&site.path("ann")).expect("it opens");
    let plan = ann.clear_plan(Some(&visit())).expect("it plans");
    assert_eq!((plan.replaced, plan.withdrawn), (3, 2));
    let patience = std::time::Duration::from_secs(60);
    ann.clear_and_resync(Some(&visit()), patience).await.expect("the relay is there");
    assert_eq!(here(&ann), ["v2"]);
    assert_eq!(status(&ann).0, TypeStatus::SubsetSynced);

    // Another scope comes with the next sync, and then everything.
    ann.subscribe(&visit(), Some("41")).expect("it was granted");
    assert_eq!(status(&ann).0, TypeStatus::Incomplete, "nobody was asked for it yet");
    sync(&ann).await;
    assert_eq!(here(&ann), ["v1", "v2"]);
    ann.unsubscribe(&visit(), "42").expect("nothing waits");
    put(&ben, "visit/v2", json!({"guests": 7}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(fields(&ann, "visit/v2")["guests"], 2);
    ann.subscribe(&visit(), None).expect("everything");
    sync(&ann).await;
    assert_eq!(here(&ann), ["v1", "v2", "v3"]);
    assert_eq!(fields(&ann, "visit/v2")["guests"], 7);
    assert_eq!(status(&ann).0, TypeStatus::FullySynced);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_subscribed_to_does_not_come_live_or_from_another_device() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    ann.sync(std::time::Duration::from_secs(60)).await.expect("the relay is there");
    ann.subscribe(&visit(), Some("42")).expect("it was granted");
    let keeping = tokio::spawn({
        let ann = ann.clone();
        async move { ann.keep_synced().await }
    });
    put(&ben, "visit/v1", json!({"outlet": "41"}));
    put(&ben, "visit/v2", json!({"outlet": "42"}));
    sync(&ben).await;
    reaches(&ann, "visit/v2", "valid").await;
    assert_eq!(here(&ann), ["v2"]);
    keeping.abort();
    site.stop().await;
    put(&ben, "visit/v3", json!({"outlet": "41"}));
    put(&ben, "visit/v4", json!({"outlet": "42"}));
    let listener = ben.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let serving = tokio::spawn({
        let listener = listener.clone();
        async move { listener.serve().await }
    });
    let patience = std::time::Duration::from_secs(60);
    ann.sync_with(listener.address(), patience).await.expect("ben is there");
    assert_eq!(here(&ann), ["v2", "v4"]);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_cannot_be_is_refused_and_changes_nothing() {
    let site = Site::founded(CATALOG);
    let granted = |scope: &str| Grant { ty: Some(visit()), scope: Some(scope.into()) };
    let ticket = site.invited("ann", vec![granted("41"), granted("42")], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    sync(&ann).await;
    let refused = ann.subscribe(&visit(), Some("43"));
    assert!(matches!(refused, Err(SubscribeError::NotGranted { .. })), "{refused:?}");
    let customer = TypeName::new("customer").expect("a name");
    let refused = ann.subscribe(&customer, Some("1"));
    assert!(matches!(refused, Err(SubscribeError::Unscoped(_))), "{refused:?}");
    let absent = TypeName::new("vist").expect("a name");
    let refused = ann.unsubscribe(&absent, "1");
    assert!(matches!(refused, Err(SubscribeError::Control(_))), "{refused:?}");
    // What is on this device alone would never leave it.
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    let refused = ann.unsubscribe(&visit(), "41");
    assert!(matches!(refused, Err(SubscribeError::Unsaved { changes: 1, .. })), "{refused:?}");
    let refused = ann.subscribe(&visit(), Some("42"));
    assert!(matches!(refused, Err(SubscribeError::Unsaved { changes: 1, .. })), "{refused:?}");
    assert_eq!(ann.settings(), Default::default());
    // Nor when somebody takes it out of the file by hand.
    drop(ann);
    let file = site.path("ann").join("device.toml");
    std::fs::write(&file, "[type.visit]\nscopes = [\"42\"]\n").expect("it is written");
    let ann = Device::open(&site.path("ann")).expect("it opens");
    assert_eq!(sync(&ann).await.sent, 1);
    drop(ann);
    std::fs::remove_file(&file).expect("it is there");
    let ann = Device::open(&site.path("ann")).expect("it opens");
    sync(&ann).await;
    ann.unsubscribe(&visit(), "41").expect("nothing waits");
    let left = ann.paused().expect("it reads").scopes.remove(&visit()).expect("a list");
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["42"], "of those that were granted");
    let ben = site.device("ben").await;
    sync(&ben).await;
    let refused = ben.unsubscribe(&visit(), "41");
    assert!(matches!(refused, Err(SubscribeError::Whole(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_may_choose_to_read_what_last_passed() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "visit/v1", json!({"outlet": "41", "guests": 3}));
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"guests": -1}));
    put(&ann, "visit/v2", json!({"outlet": "41", "guests": -2}));
    sync(&ann).await;
    assert_eq!(fields(&ann, "visit/v1")["guests"], -1);
    assert_eq!(here(&ann), ["v1", "v2"]);
    drop(ann);
    let file = site.path("ann").join("device.toml");
    std::fs::write(&file, "[type.visit]\nread = \"last_valid\"\n").expect("it is written");
    let ann = Device::open(&site.path("ann")).expect("it opens");
    assert_eq!(ann.settings().reads(&visit()), Read::LastValid);
    assert_eq!(fields(&ann, "visit/v1")["guests"], 3);
    assert_eq!(state(&ann, "visit/v1"), "held", "its state is told all the same");
    assert_eq!(here(&ann), ["v1"], "the other one never passed");
    let key = "visit/v2".parse().expect("a key");
    assert!(get(&ann, "visit/v2").is_none());
    assert!(ann.as_merged(&key).expect("it reads").is_some(), "and nothing of it is lost");
    assert_eq!(ann.attention().expect("it reads").len(), 2);
    drop(ann);
    std::fs::write(&file, "[type.visit]\nreed = \"last_valid\"\n").expect("it is written");
    let unclear = Device::open(&site.path("ann"));
    assert!(matches!(unclear, Err(OpenError::Settings(_))), "{unclear:?}");
    assert!(unclear.expect_err("a typo").to_string().contains("`read`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_what_was_left_out_brings_it_to_a_relay_that_was_put_back() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    site.stop().await;
    site.copy("relay", "old");
    site.start_again().await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    put(&ann, "visit/v2", json!({"outlet": "42"}));
    sync(&ann).await;
    ann.subscribe(&visit(), Some("42")).expect("it was granted");
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("nobody holds it");
    site.copy("old", "relay");
    site.start_again().await;
    let patience = std::time::Duration::from_secs(60);
    ann.clear_and_resync(None, patience).await.expect("the relay is there");
    assert_eq!(here(&ann), ["v2"]);
    assert_eq!(site.content("visit").await.len(), 2, "what went is where it can come from");
    assert!(ann.paused().expect("it reads").unsubscribes(&visit(), "41"));
}

/// A receipt came, the scope was left out before the log had brought the change back, and the relay was
/// put back behind it: nobody else has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_lost_of_a_scope_that_is_left_out_goes_to_it_by_itself() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    site.stop().await;
    site.copy("relay", "old");
    site.start_again().await;
    put(&ann, "visit/v1", json!({"outlet": "41"}));
    sync(&ann).await;
    // As if its own change had not come back.
    let id = site.ask(|engine| *engine.replica().segments().keys().next().expect("one")).await;
    ann.with_replica(|replica| {
        replica.reset_cursor(&id);
        Ok::<_, ReplicaError>(())
    })
    .expect("the disk takes it");
    ann.subscribe(&visit(), Some("42")).expect("it was granted");
    site.stop().await;
    std::fs::remove_dir_all(site.path("relay")).expect("nobody holds it");
    site.copy("old", "relay");
    site.start_again().await;
    site.ask(fieldkeep_relay::Engine::restore).await.expect("it is put back");
    sync(&ann).await;
    assert_eq!(site.content("visit").await.len(), 1, "it has it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_kept_in_one_piece_is_not_left_out_for_a_scope() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    drop(ann);
    let file = site.path("ann").join("device.toml");
    std::fs::write(&file, "[type.customer]\nscopes = [\"42\"]\n").expect("it is written");
    let ann = Device::open(&site.path("ann")).expect("it opens");
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    assert_eq!(sync(&ann).await.sent, 1);
    let customer = TypeName::new("customer").expect("a name");
    ann.subscribe(&customer, None).expect("it takes it out of the file");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "");
}
