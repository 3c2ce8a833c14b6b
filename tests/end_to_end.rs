//! The main job over the real wire: captured on one device, judged by the relay, read on another.

use std::path::Path;
use std::time::Duration;

use fieldkeep_catalog::Catalog;
use fieldkeep_device::{Device, join};
use fieldkeep_model::{Grant, KeyPair, RecordKey, Ticket};
use fieldkeep_relay::{Directory, Relay, admin_key, invite};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
required = true
[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.price]
schema = { type = "integer" }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || !has(record.price) || record.discount * 10 <= record.price * 3"
reason = "the discount is above 30 percent"
"#;

fn open_relay(path: &Path) -> Relay {
    let directory = Directory::open(path).expect("the relay's directory opens");
    Relay::serve(directory, "127.0.0.1:0".parse().expect("an address")).expect("the relay serves")
}

async fn ticket(relay: &Relay, path: &Path, name: &'static str) -> Ticket {
    let admin = fieldkeep_link::KeyFile::open(admin_key(path)).expect("the admin key").signing();
    let address = relay.address();
    let handle = relay.handle();
    let invited = handle.call(move |engine| {
        let one_time = KeyPair::from_secret(*blake3_of(name).as_bytes());
        let (entry, mut ticket) =
            invite(engine.replica().members(), &admin, one_time, name, vec![Grant::ALL], i64::MAX);
        engine.replica_mut().append_members(&[entry]).expect("it is signed");
        ticket.addresses = vec![address];
        ticket
    });
    invited.await.expect("the relay answers")
}

fn blake3_of(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

async fn device(relay: &Relay, root: &Path, name: &'static str) -> Device {
    let ticket = ticket(relay, &root.join("relay"), name).await;
    let path = root.join(name);
    join(&ticket, &path).await.expect("the ticket is good");
    Device::open(&path).expect("it was just made")
}

fn put(device: &Device, key: &str, fields: Value) {
    let key: RecordKey = key.parse().expect("a record's name");
    let catalog = device.catalog().expect("the relay sent one");
    let object = catalog.ty(&key.ty).expect("a type");
    let edit = object.edit_from_json(fields.as_object().expect("an object")).expect("fields");
    device.put(&key, &edit).expect("it is saved");
}

fn state(device: &Device, key: &str) -> String {
    let key = key.parse().expect("a record's name");
    let record = device.get(&key).expect("it reads");
    record.map_or("absent".into(), |record| record.state.word().to_owned())
}

async fn sync(device: &Device) {
    device.sync(Duration::from_secs(20)).await.expect("the relay is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edits_that_are_wrong_together_are_held_and_released_by_a_repair() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("relay");
    drop(Directory::init(&path, "acme", Some(CATALOG)).expect("founded"));
    let relay = open_relay(&path);
    let ann = device(&relay, root.path(), "ann").await;
    let ben = device(&relay, root.path(), "ben").await;

    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "order/o1", json!({"customer": "c1", "price": 100, "discount": 10}));
    assert_eq!(state(&ann, "order/o1"), "likely_valid");
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
    sync(&ben).await;
    assert_eq!(state(&ben, "order/o1"), "valid");

    put(&ann, "order/o1", json!({"discount": 30}));
    put(&ben, "order/o1", json!({"price": 50}));
    sync(&ann).await;
    sync(&ben).await;
    sync(&ann).await;
    for device in [&ann, &ben] {
        assert_eq!(state(device, "order/o1"), "held");
        let record = device.get(&"order/o1".parse().expect("a name")).expect("reads");
        let record = record.expect("it is there");
        assert_eq!(record.reasons, ["the discount is above 30 percent"]);
        let people: Vec<_> = record.culprits.iter().map(|c| c.person.as_str()).collect();
        assert_eq!(people, ["ann", "ben"]);
        let valid = record.last_valid.expect("it was valid once");
        assert_eq!((&valid["price"], &valid["discount"]), (&json!(100), &json!(30)));
    }

    put(&ben, "order/o1", json!({"discount": 15}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
    assert_eq!(state(&ben, "order/o1"), "valid");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_waits_for_the_one_that_it_refers_to() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("relay");
    drop(Directory::init(&path, "acme", Some(CATALOG)).expect("founded"));
    let relay = open_relay(&path);
    let ann = device(&relay, root.path(), "ann").await;
    let ben = device(&relay, root.path(), "ben").await;
    put(&ann, "order/o1", json!({"customer": "c1", "price": 100}));
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "waiting");
    put(&ben, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ben).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "order/o1"), "valid");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_a_connected_device_by_itself() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("relay");
    drop(Directory::init(&path, "acme", Some(CATALOG)).expect("founded"));
    let relay = open_relay(&path);
    let ann = device(&relay, root.path(), "ann").await;
    let ben = device(&relay, root.path(), "ben").await;
    let connected = tokio::spawn({
        let ben = ben.clone();
        async move { ben.stay_connected().await }
    });
    let mut watch = ben.watch();
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    let reached = async {
        while state(&ben, "customer/c1") != "valid" {
            watch.recv().await.expect("the device lives");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it arrives");
    connected.abort();
    relay.stop().await;
}

#[test]
fn the_catalog_of_these_tests_parses() {
    Catalog::parse(CATALOG).expect("it is sound");
}
