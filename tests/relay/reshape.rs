//! A type is started afresh while everything runs: with other buckets, another scope field, other
//! kinds, without its history. Every record and every change is in the new generation once, also what
//! arrives late; devices move on by themselves, and nothing that they wrote is missing meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::lab::document;
use crate::support::town::address;
use crate::support::wire::{Answer, Raw};
use crate::support::{self, Connected, Site, content, fields, get, put, soon, state, sync};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ObjType, ROOT};
use fieldkeep_catalog::{Afresh, Kind};
use fieldkeep_device::{Device, Tier};
use fieldkeep_lab::Dice;
use fieldkeep_model::{Edit, Grant, RecordEdit, RecordKey, Scalar, TypeName};
use fieldkeep_replica::{NotTaken, Note, ReshapeError};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
unique = true
[type.order]
scope = "outlet"
[type.order.field.outlet]
[type.order.field.customer]
ref = "customer"
[type.order.field.note]
kind = "text"
[type.order.field.code]
[type.order.field.boxes]
kind = "counter"
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.quantity]
schema = { type = "integer" }
[[type.order.rule]]
name = "few"
cel = "!has(record.boxes) || record.boxes <= 100"
reason = "more than a hundred boxes"
"#;

fn ty(name: &str) -> TypeName {
    TypeName::new(name).expect("a name")
}

fn buckets(buckets: u32) -> Afresh {
    Afresh { buckets: Some(buckets), ..Afresh::default() }
}

impl Site {
    async fn begin(
        &self,
        name: &'static str,
        changes: Afresh,
        cut: Option<i64>,
    ) -> Result<(), ReshapeError> {
        let note = Note { text: "it had grown", time: 7 };
        self.ask(move |engine| {
            engine.begin_reshape(&ty(name), None, &changes, (note, cut)).map(drop)
        })
        .await
    }

    async fn is_in_force(&self, name: &'static str, generation: u32) {
        let done = async {
            while self
                .ask(move |engine| {
                    engine.replica().generations().get(&ty(name)).copied().unwrap_or_default()
                })
                .await
                != generation
            {}
        };
        soon("the new generation is in force", done).await;
        let settled = async { while !self.ask(|engine| engine.is_idle()).await {} };
        soon("everything is judged", settled).await;
    }

    async fn reshape(&self, name: &'static str, changes: Afresh) {
        let before = self.ask(move |engine| engine.replica().generations().get(&ty(name)).copied());
        let before = before.await.unwrap_or_default();
        self.begin(name, changes, None).await.expect("it can be");
        self.is_in_force(name, before + 1).await;
    }

    /// The segments of a type that are in force: how many records each has, by its name.
    async fn segments(&self, name: &'static str) -> BTreeMap<String, u64> {
        self.ask(move |engine| {
            let replica = engine.replica();
            let rows = replica.segments().values().filter(|row| row.address.ty == ty(name));
            let rows = rows.filter(|row| row.tip > 0 && !replica.is_apart(&row.address));
            rows.map(|row| (row.address.to_string(), row.records)).collect()
        })
        .await
    }
}

fn generation(device: &Device, name: &str) -> u32 {
    device
        .catalog()
        .and_then(|catalog| Some(catalog.ty(&ty(name))?.generation))
        .expect("it has one")
}

fn order(outlet: &str, boxes: i64) -> Value {
    json!({"outlet": outlet, "boxes": boxes, "note": "a b c", "lines": [{"id": "1", "quantity": 1}]})
}

#[tokio::test]
async fn a_type_gets_other_buckets_and_every_device_moves_on() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"name": "Pier"}));
    for n in 0..40 {
        put(&ann, &format!("order/o{n}"), order(if n % 2 == 0 { "42" } else { "43" }, n));
    }
    sync(&ann).await;
    put(&ann, "order/o1", json!({"boxes": 100})); // 101 of them: held.
    ann.delete(&"order/o2".parse().expect("a name")).expect("it is there");
    site.converges(&[&ann, &ben], &["customer", "order"]).await;
    let before = site.content("order").await;
    assert_eq!(site.segments("order").await.len(), 2);
    site.reshape("order", buckets(4)).await;
    let segments = site.segments("order").await;
    assert_eq!((segments.len(), segments.values().sum::<u64>()), (8, 40));
    assert_eq!(site.content("order").await, before, "on the relay");

    assert_eq!(generation(&ann, "order"), 0, "it has not heard of it");
    site.converges(&[&ann, &ben], &["customer", "order"]).await;
    for device in [&ann, &ben] {
        assert_eq!(generation(device, "order"), 1);
        assert_eq!(content(device, "order"), before, "{}", device.name());
        assert_eq!(state(device, "order/o1"), "held");
        let held = get(device, "order/o1").expect("it is there");
        assert_eq!(held.culprits[0].person, "ann", "not the relay that repeated it");
        assert!(held.last_valid.is_some(), "what was valid once still shows");
    }
    // Everything goes on in the new one.
    put(&ben, "order/o3", json!({"boxes": 1}));
    put(&ben, "order/new", order("44", 1));
    site.converges(&[&ann, &ben], &["customer", "order"]).await;
    assert_eq!(fields(&ann, "order/o3")["boxes"], 4);
    assert_eq!(fields(&ann, "order/new")["outlet"], "44");
}

#[tokio::test]
async fn what_arrives_late_is_carried_over_once() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    for n in 0..5 {
        put(&ann, &format!("order/o{n}"), order("42", n));
    }
    site.converges(&[&ann, &ben], &["order"]).await;
    // Ben is out of reach, and writes.
    put(&ben, "order/o1", json!({"boxes": 7, "note": "a b c d", "code": "ben"}));
    put(&ben, "order/o1", json!({"lines": [{"id": "2", "quantity": 2}]}));
    put(&ben, "order/o5", order("42", 9));
    ben.delete(&"order/o4".parse().expect("a name")).expect("it is there");

    site.reshape("order", buckets(2)).await;
    // Ann moves on, and goes on.
    sync(&ann).await;
    assert_eq!(generation(&ann, "order"), 1);
    put(&ann, "order/o1", json!({"boxes": 10, "note": "z a b c", "lines": [{"id": "3"}]}));
    sync(&ann).await;

    sync(&ben).await;
    assert_eq!(generation(&ben, "order"), 1);
    site.converges(&[&ann, &ben], &["order"]).await;
    let merged = fields(&ann, "order/o1");
    assert_eq!(merged["boxes"], 18, "1 + 7 + 10: each once");
    assert_eq!(merged["note"], "z a b c d", "what both did to the text");
    assert_eq!(merged["code"], "ben");
    assert_eq!(merged["lines"].as_array().expect("a set").len(), 3);
    assert_eq!(fields(&ann, "order/o5")["boxes"], 9);
    assert!(get(&ann, "order/o4").is_none_or(|record| record.deleted));
    // Who wrote it is told, and which change it repeats.
    let history = ann.history(&"order/o1".parse().expect("a name"), 50, None).expect("it reads");
    let carried: Vec<_> = history.entries.iter().filter(|entry| entry.repeats.is_some()).collect();
    assert_eq!(carried.len(), 2);
    assert!(carried.iter().all(|entry| entry.person == "ben"));
    assert!(history.entries.iter().any(|entry| entry.begins));
}

#[tokio::test]
async fn every_change_that_is_repeated_keeps_who_wrote_it() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    let write = async |device: &Device, code: &str| {
        sync(device).await;
        put(device, "order/o1", json!({"outlet": "42", "code": code}));
        sync(device).await;
    };
    // A value that comes back is a change like any other, and so is one that knew nothing of the last.
    for (device, code) in [(&ann, "a"), (&ben, "b"), (&ann, "a")] {
        write(device, code).await;
    }
    sync(&ben).await;
    put(&ann, "order/o1", json!({"code": "ann's"}));
    put(&ben, "order/o1", json!({"code": "ben's"}));
    site.converges(&[&ann, &ben], &["order"]).await;
    let key: RecordKey = "order/o1".parse().expect("a name");
    let said = |entry: &fieldkeep_replica::HistoryEntry| {
        let writes = entry.writes.iter().filter(|write| write.field == "code");
        let code = writes.filter_map(|write| Some(write.value.as_ref()?.to_string())).next_back();
        (entry.repeats.unwrap_or(entry.hash), entry.person.clone(), entry.time, code)
    };
    let told = |device: &Device| {
        let history = device.history(&key, 50, None).expect("it reads");
        history.entries.iter().map(said).collect::<BTreeSet<_>>()
    };
    let (before, wins) = (told(&ann), fields(&ann, "order/o1")["code"].clone());
    site.begin("order", buckets(4), Some(i64::MIN)).await.expect("it can be");
    site.is_in_force("order", 1).await;
    site.converges(&[&ann, &ben], &["order"]).await;
    assert_eq!(before.len(), 5);
    assert!(told(&ann).is_superset(&before), "{:#?}\n{before:#?}", told(&ann));
    assert_eq!(fields(&ann, "order/o1")["code"], wins);
}

#[tokio::test]
async fn a_record_without_a_single_field_goes_on_once_a_field_comes() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mal = Raw::joined(&site.ticket("mal").await, 101).await;
    let mut doc = document(&mal, &[]);
    doc.put_object(ROOT, "c1", ObjType::Map).expect("it writes");
    doc.commit_with(CommitOptions::default().with_time(1).with_message("mal"));
    let change = doc.get_last_local_change().expect("it was written").raw_bytes().to_vec();
    let mut wire = mal.following().await;
    let push = mal.own_push(&address("customer", ""), &[&change]);
    assert_eq!(wire.answer(push).await, Answer::Taken);
    sync(&ann).await;
    let before = site.content("customer").await;
    site.reshape("customer", buckets(2)).await;
    sync(&ann).await;
    let sound = site.ask(|engine| {
        let ids: Vec<_> = engine.replica().segments().keys().copied().collect();
        let replica = engine.replica_mut();
        ids.iter().all(|id| replica.is_projected(id).expect("it reads"))
    });
    assert!(sound.await, "no row is of a record that is in no document");
    assert_eq!((before.len(), site.content("customer").await), (1, before));
    put(&ann, "customer/c1", json!({"name": "Mole"}));
    site.converges(&[&ann], &["customer"]).await;
    site.reshape("customer", buckets(4)).await;
    site.converges(&[&ann], &["customer"]).await;
    assert_eq!(fields(&ann, "customer/c1")["name"], "Mole");
}

#[tokio::test]
async fn whoever_writes_while_it_moves_on_sees_what_he_wrote_all_along() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    for n in 0..30 {
        put(&ann, &format!("order/o{n}"), order("42", 0));
    }
    sync(&ann).await;
    let keeping = Connected::new(&ann);
    site.begin("order", buckets(4), None).await.expect("it can be");
    let key = "order/o7".parse().expect("a name");
    let mut written = 0;
    let mut watch = ann.watch();
    let moved = async {
        while generation(&ann, "order") == 0 {
            assert_eq!(fields(&ann, "order/o7")["boxes"], written);
            // He does not type for ever: in the first pause it moves on.
            if written < 100 {
                let edit = ann.edit(&key, vec![Edit::Add("boxes".into(), 1)]).expect("it is saved");
                written += 1;
                edit.reached(Tier::Relay, support::PATIENCE).await.expect("it is there");
            } else {
                watch.recv().await.expect("the device lives");
            }
        }
    };
    soon("it moves on", moved).await;
    assert_eq!(fields(&ann, "order/o7")["boxes"], written);
    put(&ann, "order/o7", json!({"boxes": 1}));
    drop(keeping);
    site.converges(&[&ann], &["order"]).await;
    assert_eq!(fields(&ann, "order/o7")["boxes"], written + 1, "nothing twice, nothing lost");
}

#[tokio::test]
async fn another_scope_field_and_other_kinds() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    put(&ann, "order/o1", json!({"outlet": "42", "code": "7", "boxes": 3, "note": "hm"}));
    put(&ann, "order/o2", json!({"outlet": "42", "code": "x", "boxes": 4}));
    put(&ann, "order/o3", json!({"outlet": "43", "code": "7"}));
    sync(&ann).await;
    let changes = Afresh {
        scope: Some(Some("code".into())),
        kinds: vec![
            ("boxes".into(), Kind::Register),
            ("note".into(), Kind::Register),
            ("lines.quantity".into(), Kind::Counter),
        ],
        ..Afresh::default()
    };
    site.reshape("order", changes).await;
    let segments = site.segments("order").await;
    assert_eq!(segments.keys().collect::<Vec<_>>(), ["order:7", "order:x"]);
    // Late, as a counter and a text were.
    put(
        &ann,
        "order/o1",
        json!({"boxes": 2, "note": "hm, well", "lines": [{"id": "1", "quantity": 5}]}),
    );
    site.converges(&[&ann], &["order"]).await;
    let late = fields(&ann, "order/o1");
    assert_eq!((&late["boxes"], &late["note"]), (&json!(5), &json!("hm, well")));
    assert_eq!(late["lines"][0]["quantity"], 5);
    put(&ann, "order/o1", json!({"boxes": 1, "lines": [{"id": "1", "quantity": 5}]}));
    site.converges(&[&ann], &["order"]).await;
    let now = fields(&ann, "order/o1");
    assert_eq!((&now["boxes"], &now["lines"][0]["quantity"]), (&json!(1), &json!(10)));
    // What cannot be.
    let refused = site.begin(
        "order",
        Afresh { kinds: vec![("lines".into(), Kind::Text)], ..Afresh::default() },
        None,
    );
    assert!(matches!(refused.await, Err(ReshapeError::Catalog(_))));
    assert!(matches!(
        site.begin("nothing", buckets(2), None).await,
        Err(ReshapeError::UnknownType(_))
    ));
}

#[tokio::test]
async fn a_history_is_cut_at_a_time() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    for boxes in 1..=5 {
        put(&ann, "order/o1", json!({"outlet": "42", "boxes": boxes}));
    }
    sync(&ann).await;
    let key = "order/o1".parse().expect("a name");
    let history = ann.history(&key, 50, None).expect("it reads");
    let third = history.entries[2].time;
    let kept = history.entries.iter().filter(|entry| entry.time >= third).count();
    site.begin("order", Afresh::default(), Some(third)).await.expect("it can be");
    site.is_in_force("order", 1).await;
    site.converges(&[&ann], &["order"]).await;
    assert_eq!(fields(&ann, "order/o1")["boxes"], 15);
    let history = ann.history(&key, 50, None).expect("it reads");
    let repeated = history.entries.iter().filter(|entry| entry.repeats.is_some()).count();
    assert_eq!(repeated, kept, "from that change on, each by itself");
}

#[tokio::test]
async fn it_goes_on_after_a_restart_and_can_be_given_up() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    for n in 0..300 {
        put(&ann, &format!("order/o{n}"), order("42", n));
    }
    sync(&ann).await;
    let before = site.content("order").await;
    site.begin("order", buckets(8), None).await.expect("it can be");
    assert!(matches!(
        site.begin("customer", buckets(2), None).await,
        Err(ReshapeError::UnderWay(_))
    ));
    assert!(site.publish(&CATALOG.replace("100", "90")).await.is_err(), "it would be undone");
    let given_up = site.ask(|engine| engine.give_up_reshape());
    if given_up.await.is_ok() {
        assert_eq!(site.content("order").await, before);
        site.begin("order", buckets(8), None).await.expect("it can be");
    }
    site.stop().await;
    site.start_again().await;
    site.is_in_force("order", 1).await;
    assert_eq!(site.content("order").await, before);
    site.converges(&[&ann], &["order"]).await;
    let verified = site.ask(|engine| {
        let ids: Vec<_> = engine.replica().segments().keys().copied().collect();
        ids.into_iter().all(|id| {
            engine.replica().verify(&id).expect("it reads").is_none()
                && engine.replica_mut().is_projected(&id).expect("it reads")
        })
    });
    assert!(verified.await, "of both generations");
}

#[tokio::test]
async fn a_device_of_a_scope_gets_its_own_and_new_devices_the_new_generation() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let only = Grant { ty: Some(ty("order")), scope: Some("42".into()) };
    let ticket = site.invited("ben", vec![only], i64::MAX).await;
    let ben = site.join(&ticket, "ben").await;
    sync(&ann).await;
    put(&ann, "order/o1", order("42", 1));
    put(&ann, "order/o2", order("43", 1));
    sync(&ann).await;
    sync(&ben).await;
    assert_eq!(content(&ben, "order").len(), 1);
    site.reshape("order", buckets(2)).await;
    sync(&ben).await;
    assert_eq!((generation(&ben, "order"), content(&ben, "order").len()), (1, 1));
    let eve = site.device("eve").await;
    sync(&eve).await;
    assert_eq!((generation(&eve, "order"), content(&eve, "order").len()), (1, 2));
    let held = eve.with_replica(|replica| {
        let rows = replica.segments().values().filter(|row| row.tip > 0);
        Ok::<_, fieldkeep_replica::ReplicaError>(rows.map(|row| row.address.generation).max())
    });
    assert_eq!(held.expect("it reads"), Some(1), "and nothing of the old one");
    // A second time, and with a device that has missed the first.
    site.reshape("order", buckets(4)).await;
    put(&ann, "order/o1", json!({"boxes": 1}));
    sync(&ben).await;
    site.converges(&[&ann, &eve], &["order"]).await;
    sync(&ben).await;
    assert_eq!(fields(&ben, "order/o1")["boxes"], 2);
    assert_eq!([&ann, &ben, &eve].map(|device| generation(device, "order")), [2, 2, 2]);
}

#[tokio::test]
async fn what_the_relay_refused_in_a_generation_that_is_over_is_in_nobodys_way() {
    let site = Site::founded(CATALOG);
    let order_42 = Grant { ty: Some(ty("order")), scope: Some("42".into()) };
    let customers = Grant { ty: Some(ty("customer")), scope: None };
    let ticket = site.invited("ann", vec![order_42, customers], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    sync(&ann).await;
    put(&ann, "customer/c0", json!({"name": "Pier"}));
    put(&ann, "order/o1", order("42", 1));
    put(&ann, "order/o2", order("43", 1)); // Nobody let her write there.
    assert_eq!(sync(&ann).await.refused, 1);
    site.reshape("order", buckets(4)).await;
    sync(&ann).await;
    assert_eq!((generation(&ann, "order"), state(&ann, "order/o1")), (1, "valid".to_owned()));
    put(&ann, "customer/c1", json!({"name": "Mole"}));
    let done =
        ann.resync(Some(&ty("customer")), support::PATIENCE).await.expect("it is put in place");
    assert_eq!(done.exchanged.kept, 1, "what is not sent yet");
    // It is not among the records, and it is not out of sight.
    let key: RecordKey = "order/o2".parse().expect("a name");
    assert_eq!(ann.get(&key).expect("it is read"), None);
    let not_taken = ann.not_taken().expect("it is read");
    let [NotTaken { key: of, generation: Some(0), why, fields: left }] = &not_taken[..] else {
        panic!("{not_taken:?}");
    };
    assert_eq!((of, &left["outlet"]), (&key, &json!("43")));
    assert!(why.starts_with("not-permitted: the device was not granted this scope"), "{why}");
    let sentences = ann.explain(&key).expect("it is read").sentences().join("\n");
    assert!(sentences.contains("in generation 0 of order, which is over"), "{sentences}");
    assert_eq!(ann.counts(&ty("order")).expect("they are read").unsaved, 1);
    // Once she may write there it is carried over, and counts once.
    site.decide("ann", Some(vec![Grant::ALL])).await;
    sync(&ann).await;
    sync(&ann).await;
    assert_eq!(ann.not_taken().expect("it is read"), []);
    assert_eq!(state(&ann, "order/o2"), "valid");
    site.converges(&[&ann], &["order"]).await;
    assert_eq!(fields(&ann, "order/o2")["boxes"], 1);
    assert_eq!(ann.counts(&ty("order")).expect("they are read").unsaved, 0);
}

#[tokio::test]
async fn a_relay_that_was_put_back_from_before_takes_a_generation_from_devices() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "order/o1", order("42", 1));
    put(&ann, "order/o2", order("42", 2));
    sync(&ann).await;
    sync(&ben).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    // What the backup lacks: of the old generation, what was carried over, and of the new one.
    put(&ann, "order/o1", json!({"boxes": 10}));
    put(&ann, "order/o3", order("42", 3));
    sync(&ann).await;
    put(&ben, "order/o2", json!({"boxes": 20}));
    site.reshape("order", buckets(2)).await;
    sync(&ben).await;
    sync(&ann).await;
    put(&ann, "order/o1", json!({"boxes": 100, "code": "x"}));
    site.converges(&[&ann, &ben], &["order"]).await;
    let before = site.content("order").await;
    site.stop().await;
    site.copy("backup", "relay");
    site.start_again().await;
    for _ in 0..3 {
        sync(&ann).await;
        sync(&ben).await;
    }
    site.converges(&[&ann, &ben], &["order"]).await;
    assert_eq!(generation(&ann, "order"), 0, "the one that this relay knows");
    let content = |content: support::Content| {
        content.into_iter().map(|(id, (fields, _))| (id, fields)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(content(site.content("order").await), content(before), "all of it is back");
    // And again, under a number that was never there.
    site.begin("order", buckets(4), None).await.expect("it can be");
    site.is_in_force("order", 2).await;
    site.converges(&[&ann, &ben], &["order"]).await;
    assert_eq!(fields(&ann, "order/o1")["boxes"], 111);
}

#[tokio::test]
async fn what_was_held_for_how_it_was_written_stays_held() {
    let paid = CATALOG.replace(
        "scope = \"outlet\"",
        "scope = \"outlet\"\nonline_only = \"before.code == 'paid'\"",
    );
    let site = Site::founded(&paid);
    let ann = site.device("ann").await;
    sync(&ann).await;
    for key in ["order/o1", "order/o2"] {
        put(&ann, key, json!({"outlet": "42", "code": "paid", "boxes": 1}));
    }
    sync(&ann).await;
    // As a program that does not ask what needs a connection would.
    let anyhow = |key: &'static str| {
        let (key, edit) = (
            key.parse().expect("a name"),
            vec![Edit::Put("customer".into(), Scalar::Str("x".into()))],
        );
        let written = ann.with_replica(|replica| {
            let edit: RecordEdit = edit.into();
            replica.put_anyhow(&key, &edit, 1).map(|_| ())
        });
        written.expect("it is saved");
    };
    anyhow("order/o1");
    sync(&ann).await;
    let state = |record: Option<fieldkeep_replica::RecordView>| {
        record.map(|record| record.state.word().to_owned())
    };
    assert_eq!(state(site.record("order/o1").await).as_deref(), Some("held"));
    anyhow("order/o2"); // Late.
    site.reshape("order", buckets(2)).await;
    assert_eq!(state(site.record("order/o1").await).as_deref(), Some("held"));
    assert_eq!(state(site.record("order/o2").await).as_deref(), Some("valid"));
    sync(&ann).await;
    site.converges(&[&ann], &["order"]).await;
    assert_eq!(state(site.record("order/o2").await).as_deref(), Some("held"), "late as it is");
}

#[tokio::test]
async fn what_was_not_permitted_is_held_for_that_in_every_generation() {
    let mut site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    site.forgets_to_have_revoked("ann", &ben).await;
    // The restored relay does not know better, until ben tells it.
    put(&ann, "customer/c1", json!({"name": "beyond the cut"}));
    sync(&ann).await;
    sync(&ben).await;
    // Repeated one by one, then written as what that came to.
    for (generation, cut) in [(0, None), (1, Some(i64::MIN)), (2, None)] {
        if generation > 0 {
            site.begin("customer", buckets(1 << generation), cut).await.expect("it can be");
            site.is_in_force("customer", generation).await;
        }
        sync(&ben).await;
        sync(&ben).await;
        let customer = get(&ben, "customer/c1").expect("it is there");
        assert_eq!(customer.state.word(), "held", "in generation {generation}");
        assert_eq!(customer.reasons, ["a change to it was not permitted"]);
    }
}

#[tokio::test]
async fn nobody_but_a_relay_says_what_a_generation_begins_with() {
    let site = Site::founded(CATALOG);
    let ticket = site.ticket("mal\nthe beginning of a generation").await;
    let mal = site.join(&ticket, "mal").await;
    sync(&mal).await;
    put(&mal, "order/o1", order("42", 1));
    sync(&mal).await;
    site.reshape("order", buckets(2)).await;
    put(&mal, "order/o1", json!({"code": "late"}));
    sync(&mal).await;
    let record = site.record("order/o1").await.expect("it is there");
    assert_eq!(record.fields["code"], "late", "it is carried over like anybody's");
    let history = mal.history(&"order/o1".parse().expect("a name"), 50, None).expect("it reads");
    let begins = history.entries.iter().filter(|entry| entry.begins).collect::<Vec<_>>();
    assert!(begins.len() == 1 && begins[0].person.is_empty(), "{begins:?}");
}

#[tokio::test]
async fn whatever_is_written_when_everything_is_there_once() {
    let seed = std::env::var("FIELDKEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("FIELDKEEP_SEED={seed}");
    let mut dice = Dice::seeded(seed);
    let site = Site::founded(CATALOG);
    let mut devices = Vec::new();
    for name in ["ann", "ben", "cid"] {
        devices.push(site.device(name).await);
        sync(devices.last().expect("just joined")).await;
    }
    let (mut boxes, mut children) =
        (BTreeMap::<String, i64>::new(), BTreeMap::<String, u64>::new());
    let mut generations = 0;
    for n in 0..6 {
        put(&devices[0], &format!("order/o{n}"), order(&format!("{}", 40 + n % 2), 0));
    }
    for device in &devices {
        sync(device).await;
    }
    for step in 0..120 {
        let at = dice.below(3);
        let key = format!("order/o{}", dice.below(6));
        match dice.below(12) {
            0..=2 => {
                sync(&devices[at]).await;
            }
            3 if generations < 3 => {
                if site.begin("order", buckets(1 << dice.below(4)), None).await.is_ok() {
                    generations += 1;
                }
            }
            _ => {
                let child = json!([{"id": format!("l{step}"), "quantity": 1}]);
                put(&devices[at], &key, json!({"boxes": 1, "lines": child}));
                *boxes.entry(key.clone()).or_default() += 1;
                *children.entry(key).or_default() += 1;
            }
        }
    }
    let all: Vec<&Device> = devices.iter().collect();
    for _ in 0..3 {
        for device in &all {
            sync(device).await;
        }
    }
    site.converges(&all, &["order"]).await;
    for (key, boxes) in boxes {
        let read = fields(all[0], &key);
        assert_eq!(read["boxes"], boxes, "{key}: each once");
        assert_eq!(
            read["lines"].as_array().map(|lines| lines.len() as u64),
            Some(children[&key] + 1),
            "{key}"
        );
    }
}
