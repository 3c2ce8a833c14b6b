//! What is shown of a device: never synced where it is not, and why where it is not; and that it
//! comes back by itself.

use crate::support::*;
use fieldkeep_device::{Device, Event, Status, Strip, TypeView};
use fieldkeep_lab::Dice;
use fieldkeep_model::status::TypeStatus;
use fieldkeep_model::{Grant, TypeName};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Records as _, home};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.guests]
[[type.visit.rule]]
name = "guests"
cel = "!has(record.guests) || record.guests < 100"
reason = "no outlet has room for 100"
"#;

fn status(device: &Device) -> Status {
    device.status().expect("it reads")
}

fn view(device: &Device, name: &str) -> TypeView {
    let types = status(device).types.into_iter();
    types.into_iter().find(|view| view.ty.as_str() == name).expect("it is a type")
}

fn shown(device: &Device, name: &str) -> TypeStatus {
    view(device, name).status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_is_synced_only_while_all_of_it_is_proven_and_saved() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    assert_eq!(shown(&ann, "customer"), TypeStatus::Incomplete, "nobody has asked the relay");
    assert_eq!(view(&ann, "customer").proven_at, None);
    sync(&ann).await;
    assert_eq!(shown(&ann, "customer"), TypeStatus::FullySynced, "there is nothing");
    assert!(status(&ann).is_synced() && status(&ann).last_sync.is_some());

    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    assert_eq!(shown(&ann, "customer"), TypeStatus::Incomplete, "it is unsaved");
    assert_eq!(shown(&ann, "visit"), TypeStatus::FullySynced);
    assert_eq!((status(&ann).unsaved(), status(&ann).is_synced()), (1, false));
    sync(&ann).await;
    assert_eq!(shown(&ann, "customer"), TypeStatus::FullySynced);
    assert!(view(&ann, "customer").proven_at.is_some());
    ann.close().expect("it closes");
    drop(ann);
    let ann = Device::open(&site.path("ann")).expect("it opens");
    assert_eq!(shown(&ann, "customer"), TypeStatus::FullySynced, "a restart changes nothing");

    ann.pause(None).expect("it is kept");
    assert_eq!(shown(&ann, "customer"), TypeStatus::Paused);
    put(&ben, "customer/c2", json!({"name": "Harbour"}));
    sync(&ben).await;
    sync(&ann).await;
    let counts = view(&ann, "customer").counts;
    assert_eq!((counts.local, counts.server), (1, Some([2, 2, 0])), "1 of 2");
    assert!(!status(&ann).is_synced());
    ann.resume(None).expect("it is kept");
    assert_eq!(shown(&ann, "customer"), TypeStatus::Incomplete, "nobody has asked for it since");
    sync(&ann).await;
    assert_eq!(view(&ann, "customer").counts.local, 2);
    assert!(status(&ann).is_synced());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_some_scopes_is_shown_a_subset_and_how_much_there_is_of_all() {
    let site = Site::founded(CATALOG);
    let office = site.device("office").await;
    for (id, outlet) in [("v1", "north"), ("v2", "north"), ("v3", "south")] {
        put(&office, &format!("visit/{id}"), json!({"outlet": outlet, "guests": 3}));
    }
    sync(&office).await;
    let north = Grant { ty: TypeName::new("visit").ok(), scope: Some("north".into()) };
    let ticket = site.invited("ann", vec![north], i64::MAX).await;
    let ann = site.join(&ticket, "ann").await;
    sync(&ann).await;
    let visit = view(&ann, "visit");
    assert_eq!(visit.status, TypeStatus::SubsetSynced);
    assert_eq!((visit.counts.local, visit.counts.server), (2, Some([2, 3, 0])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_row_with_equal_counts_ends_fully_synced_at_the_next_check() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    assert_eq!(shown(&ann, "customer"), TypeStatus::FullySynced);
    let forged = r#"UPDATE record SET json = '{"name":"Kiosq"}' WHERE id = 'c1'"#;
    let database = rusqlite::Connection::open(home::database(&site.path("ann")));
    assert_eq!(database.expect("it opens").execute(forged, []).expect("it writes"), 1);
    ann.sync(PATIENCE).await.expect_err("it is noticed");
    assert_eq!(shown(&ann, "customer"), TypeStatus::Incomplete);
    let Strip::Error { reason, permanent: false, .. } = status(&ann).strip else {
        panic!("{:?}", status(&ann).strip);
    };
    assert!(reason.contains("derived again"), "{reason}");
    sync(&ann).await;
    assert_eq!(shown(&ann, "customer"), TypeStatus::FullySynced);
    assert_eq!(status(&ann).strip, Strip::Offline);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_kept_are_those_that_a_recount_finds() {
    let seed = 5_417;
    println!("seed {seed}");
    let mut dice = Dice::seeded(seed);
    let mut site = Site::founded(CATALOG);
    let devices = [site.device("ann").await, site.device("ben").await];
    for round in 0..6 {
        for device in &devices {
            for _ in 0..20 {
                let key = format!("visit/v{}", dice.below(12));
                match dice.below(6) {
                    0 => drop(device.delete(&key.parse().expect("a key"))),
                    1 => drop(try_put(device, &key, &json!({"guests": 200}))),
                    _ => drop(try_put(device, &key, &json!({"guests": dice.below(90)}))),
                }
            }
        }
        match round % 3 {
            0 => {
                for device in &devices {
                    sync(device).await;
                }
            }
            1 => {
                site.stop().await;
                let listener = devices[1].listen("127.0.0.1:0".parse().expect("an address"));
                let listener = listener.expect("a port");
                let address = listener.address();
                let serving = tokio::spawn(async move { listener.serve().await });
                devices[0].sync_with(address, PATIENCE).await.expect("they meet");
                serving.abort();
                site.start_again().await;
            }
            _ => {}
        }
        for device in &devices {
            let counted = device.with_replica(|replica| {
                let store = replica.store();
                assert_eq!(store.tallies()?, store.recount()?, "round {round}");
                Ok::<_, ReplicaError>(store.carried_records()?.values().sum::<u64>())
            });
            assert_eq!(status(device).carried(), counted.expect("it reads"));
        }
    }
    sync(&devices[0]).await;
    let here = view(&devices[0], "visit").counts;
    assert_eq!((here.unsaved, here.server.map(|[_, _, held]| held)), (0, Some(here.held)));
}

/// The next strip that is shown and passes.
async fn next(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    passes: impl Fn(&Strip) -> bool,
) -> Strip {
    let shown = async {
        loop {
            let event = events.recv().await.expect("the device is there");
            if let Event::Strip(strip) = event
                && passes(&strip)
            {
                return strip;
            }
        }
    };
    soon("the strip changes", shown).await
}

fn is_synced(strip: &Strip) -> bool {
    *strip == Strip::Online { syncing: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_kept_synced_comes_back_when_it_said_and_at_once_when_asked() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mut events = ann.watch();
    let _kept = Connected::new(&ann);
    next(&mut events, is_synced).await;
    site.stop().await;
    let said = next(&mut events, |strip| matches!(strip, Strip::Error { .. })).await;
    let Strip::Error { retry_at: Some(at), permanent: false, reason } = said else {
        panic!("{said:?}");
    };
    assert!(!reason.is_empty());
    assert!(at > now(), "a time that is yet to come");
    next(&mut events, |strip| *strip == Strip::Connecting).await;
    assert!((0..2_000).contains(&(now() - at)), "it tries when it said");
    // Who asks does not wait for that.
    next(&mut events, |strip| matches!(strip, Strip::Error { .. })).await;
    site.start_again().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    next(&mut events, is_synced).await;
    assert!(status(&ann).is_synced());
    // And the connection that lasts is made again.
    put(&ann, "customer/c2", json!({"name": "Harbour"}));
    reaches(&ann, "customer/c2", "valid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_in_the_middle_of_a_sync_leaves_nothing_of_it() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mut events = ann.watch();
    let kept = Connected::new(&ann);
    next(&mut events, is_synced).await;
    drop(kept);
    next(&mut events, |strip| *strip == Strip::Offline).await;
    assert!(!ann.is_online());
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    assert_eq!(sync(&ann).await.sent, 1);
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("before the year 292 million")
}
