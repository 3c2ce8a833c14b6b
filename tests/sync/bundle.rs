//! Carrying by hand: devices and a relay that exchange by files alone.

use crate::support::carrying::*;
use crate::support::*;
use fieldkeep_device::{BundleError, Device, Enclosing, ReadError, Unfit};
use fieldkeep_model::status::TypeStatus;
use fieldkeep_model::{Grant, Seed, TypeName};
use fieldkeep_protocol::bundle::Survey;
use fieldkeep_protocol::frame::Frame;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Log as _;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
[type.customer.field.name]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.note]

[type.item]
[type.item.field.stock]
kind = "counter"
[[type.item.rule]]
name = "some_left"
cel = "!has(record.stock) || record.stock >= 0"
reason = "there cannot be fewer than none"
"#;

fn outgoing(device: &Device) -> u64 {
    let count = device.with_replica(|r| Ok::<_, ReplicaError>(r.store().outgoing_count()?));
    count.expect("it reads")
}

fn is_synced(device: &Device) -> bool {
    let status = device.status().expect("it reads");
    status.types.iter().all(|ty| ty.status == TypeStatus::FullySynced)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_and_a_relay_that_meet_only_by_files_end_equal() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    for device in [&ann, &ben] {
        taken(device, &from_relay(&site, device, None).await);
    }
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "item/i1", json!({"stock": -2}));
    put(&ben, "customer/c1", json!({"name": "Kiosk at the pier"}));
    put(&ben, "visit/v1", json!({"outlet": "41", "note": "closed"}));

    // Ann's work goes to the office by Ben, whom she meets on the way.
    let there = taken(&ben, &pack(&ann, &key(&ben), None));
    assert_eq!((there.changes, &*there.from), (2, "ann"));
    assert_eq!(outgoing(&ben), 4, "Ben carries Ann's besides his own");
    let office = for_relay(&ben, None);
    let brought = into_relay(&site, &office).await.expect("Ben may");
    assert_eq!((brought.changes, brought.refused), (4, 0));

    let back = from_relay(&site, &ben, Some(&office)).await;
    let saved = taken(&ben, &back);
    assert_eq!((saved.changes, saved.saved, saved.proven), (0, 4, 3));
    assert_eq!((outgoing(&ben), is_synced(&ben)), (0, true));
    assert_eq!(state(&ben, "item/i1"), "held");

    // The relay's word goes back to Ann by Ben.
    taken(&ann, &pack(&ben, &key(&ann), None));
    assert_eq!((outgoing(&ann), state(&ann, "item/i1")), (0, "held".to_owned()));
    taken(&ann, &from_relay(&site, &ann, None).await);
    assert!(is_synced(&ann));
    assert_eq!(logs(&ann).keys().collect::<Vec<_>>(), site.log().await.keys().collect::<Vec<_>>());
    for ty in ["customer", "visit", "item"] {
        let at_relay = site.content(ty).await;
        assert_eq!((content(&ann, ty), content(&ben, ty)), (at_relay.clone(), at_relay), "{ty}");
    }
    // A session finds nothing to do.
    let report = sync(&ann).await;
    assert_eq!((report.sent, report.received), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_bundle_again_changes_nothing() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "item/i1", json!({"stock": -1}));
    let (to_ben, to_relay) = (pack(&ann, &key(&ben), None), for_relay(&ann, None));
    assert_eq!(taken(&ben, &to_ben).changes, 1);
    assert_eq!(into_relay(&site, &to_relay).await.expect("Ann may").changes, 1);
    let back = from_relay(&site, &ann, None).await;
    taken(&ann, &back);
    let before = (logs(&ann), logs(&ben), site.log().await, content(&ann, "item"));
    assert_eq!(taken(&ben, &to_ben).changes, 0);
    assert_eq!(into_relay(&site, &to_relay).await.expect("Ann may").changes, 0);
    let again = taken(&ann, &back);
    assert_eq!((again.changes, again.saved), (0, 0));
    assert_eq!((logs(&ann), logs(&ben), site.log().await, content(&ann, "item")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_own_changes_in_a_bundle_that_are_known_to_him_is_no_copy() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    put(&ben, "customer/c1", json!({"name": "Kiosk"}));
    site.converges(&[&ben, &ann], &["customer"]).await;
    put(&ann, "customer/c1", json!({"name": "Pier"}));
    let before = actor(&ben);
    assert_eq!(taken(&ben, &pack(&ann, &key(&ben), None)).changes, 1);
    put(&ben, "customer/c2", json!({"name": "Quay"}));
    assert_eq!(actor(&ben), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_only_what_its_receiver_may_read() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let visits = Grant { ty: TypeName::new("visit").ok(), scope: Some("41".into()) };
    let ticket = site.invited("cat", vec![visits], i64::MAX).await;
    let cat = site.join(&ticket, "cat").await;
    sync(&ann).await;
    put(&ann, "visit/v1", json!({"outlet": "41", "note": "mine"}));
    put(&ann, "visit/v2", json!({"outlet": "42", "note": "secret"}));
    put(&ann, "customer/c1", json!({"name": "secret"}));
    sync(&ann).await;
    for file in [pack(&ann, &key(&cat), None), from_relay(&site, &cat, None).await] {
        let addresses = segments_in(&file);
        assert_eq!(addresses, ["visit/41"], "nothing else is named in it");
        taken(&cat, &file);
    }
    assert_eq!(logs(&cat).len(), 1);
    assert_eq!(fields(&cat, "visit/v1")["note"], "mine");
    assert_eq!(fields(&cat, "visit/v2"), Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_where_its_author_may_not_read_any_more_has_its_receipt_by_a_file_too() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let office = for_relay(&ann, None);
    into_relay(&site, &office).await.expect("Ann may");
    let visits = Grant { ty: TypeName::new("visit").ok(), scope: None };
    site.decide("ann", Some(vec![visits])).await;
    let back = from_relay(&site, &ann, Some(&office)).await;
    assert_eq!(segments_in_pushes(&back), Vec::<String>::new());
    assert_eq!((taken(&ann, &back).saved, outgoing(&ann)), (1, 0));
}

/// The segments of which a bundle has changes, as type and scope.
fn segments_in(file: &[u8]) -> Vec<String> {
    let (mut named, mut ids) = (Vec::new(), std::collections::BTreeSet::new());
    for frame in frames(file) {
        if let Frame::Meet(meet) = &frame {
            ids.extend(meet.segments.iter().map(|standpoint| standpoint.segment));
        }
        if let Frame::Verdicts(verdicts) = &frame {
            ids.insert(verdicts.segment);
        }
        let segment = if let Frame::Push(push) = frame {
            push.segment
        } else if let Frame::Delta(delta) = frame {
            delta.segment
        } else {
            continue;
        };
        ids.insert(segment.id);
        let address = segment.address.expect("whoever reads it may not know it");
        named.push(format!("{}/{}", address.ty, address.scope));
    }
    assert_eq!(ids.len(), named.len(), "what is named has changes in it");
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn since_an_earlier_bundle_only_what_that_does_not_show_is_packed() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let first = pack(&ann, &key(&ben), None);
    put(&ann, "customer/c1", json!({"name": "Kiosk at the pier"}));
    let second = pack(&ann, &key(&ben), Some(&first));
    assert!(second.len() < first.len(), "{} and {}", second.len(), first.len());
    let changes = |file: &[u8]| Survey::of(file).expect("a bundle").header.since.is_some();
    assert_eq!((changes(&first), changes(&second)), (false, true));

    // Without the first one the second does not fit, and says so.
    let early = take(&ben, &second).expect("the rest of it is taken");
    assert_eq!(early.not_taken[0].code, "missing-deps");
    assert_eq!((early.changes, logs(&ben).len()), (0, 0));
    assert_eq!((taken(&ben, &first).changes, taken(&ben, &second).changes), (1, 1));

    // What came back shows what its writer has.
    let back = pack(&ben, &key(&ann), None);
    put(&ann, "item/i1", json!({"stock": 3}));
    assert_eq!(segments_in_pushes(&pack(&ann, &key(&ben), Some(&back))), ["item"]);

    // The same between a device and the relay.
    let office = for_relay(&ann, None);
    into_relay(&site, &office).await.expect("Ann may");
    put(&ann, "item/i1", json!({"stock": 1}));
    assert_eq!(segments_in_pushes(&for_relay(&ann, Some(&office))), ["item"]);
    let whole = from_relay(&site, &ann, None).await;
    taken(&ann, &whole);
    put(&ben, "customer/c9", json!({"name": "Market"}));
    sync(&ben).await;
    let more = from_relay(&site, &ann, Some(&whole)).await;
    // Another device does not stand there.
    let dan = site.device("dan").await;
    let gap = from_relay(&site, &dan, None).await;
    put(&ben, "customer/c9", json!({"name": "Market hall"}));
    sync(&ben).await;
    let after = from_relay(&site, &dan, Some(&gap)).await;
    assert!(matches!(take(&dan, &after), Err(BundleError::Unfit(Unfit::Gap))));
    assert_eq!(logs(&dan).len(), 0);
    assert_eq!(taken(&ann, &more).changes, 1);
    let office = ann.relay_key().expect("there is one");
    let elsewhere =
        ann.export_bundle(&mut Vec::new(), &office, Some(&mut &back[..]), Enclosing::Files);
    assert!(matches!(elsewhere, Err(BundleError::Unfit(Unfit::BetweenOthers(_)))));
}

fn segments_in_pushes(file: &[u8]) -> Vec<String> {
    let mut types = Vec::new();
    for frame in frames(file) {
        if let Frame::Push(push) = frame {
            types.push(push.segment.address.expect("it is named").ty.to_string());
        }
    }
    types
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_from_a_member_for_this_device_and_whole_changes_nothing() {
    let (site, other) = (Site::founded(CATALOG), Site::founded(CATALOG));
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let eve = other.device("eve").await;
    for device in [&ann, &ben, &eve] {
        sync(device).await;
    }
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&eve, "customer/c2", json!({"name": "Trap"}));
    let good = pack(&ann, &key(&ben), None);
    let before = (logs(&ben), ben.members().len(), site.log().await);

    let foreign = for_relay(&eve, None);
    assert!(matches!(take(&ben, &foreign), Err(BundleError::Unfit(Unfit::Foreign))));
    assert_eq!(into_relay(&site, &foreign).await, Err(Unfit::Foreign));
    // A stranger who says that it is of the same organisation.
    let forged = rewritten(&good, &Seed([9; 32]), |frame| frame, |_, _| {});
    assert!(matches!(take(&ben, &forged), Err(BundleError::Unfit(Unfit::Stranger))));
    let forged = rewritten(&for_relay(&ann, None), &Seed([9; 32]), |frame| frame, |_, _| {});
    assert_eq!(into_relay(&site, &forged).await, Err(Unfit::Stranger));
    // Somebody else's.
    let anns = pack(&ben, &key(&ann), None);
    let refused = take(&ben, &anns).expect_err("it is for Ann").to_string();
    assert_eq!(refused, "the bundle was written for ann");
    assert_eq!(into_relay(&site, &anns).await, Err(Unfit::ForAnother("ann".into())));
    // Cut, and altered at every twentieth byte.
    for at in (0..good.len()).step_by(20) {
        assert!(matches!(take(&ben, &good[..at]), Err(BundleError::Read(_))), "cut at {at}");
        let mut altered = good.clone();
        altered[at] ^= 0x40;
        assert!(matches!(take(&ben, &altered), Err(BundleError::Read(_))), "altered at {at}");
    }
    let altered = [&good[..], b"more"].concat();
    assert!(matches!(take(&ben, &altered), Err(BundleError::Read(ReadError::Altered))));
    assert_eq!((logs(&ben), ben.members().len(), site.log().await), before);
    assert_eq!(taken(&ben, &good).changes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_refuses_is_refused_from_a_file_too_and_holds_up_nothing_else() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "item/i1", json!({"stock": 3}));
    let seed = seed_of(&site, "ann");
    let forge = |file: &[u8]| {
        // Nobody vouches for what it says of customers.
        let unvouched = |mut frame| {
            if let Frame::Push(push) = &mut frame {
                let address = push.segment.address.as_ref().expect("it is named");
                push.heads[0].signature.0[5] ^= u8::from(address.ty.as_str() == "customer");
            }
            frame
        };
        rewritten(file, &seed, unvouched, |_, _| {})
    };
    let taken = take(&ben, &forge(&pack(&ann, &key(&ben), None))).expect("it is Ann's");
    assert_eq!((taken.changes, taken.refused, &*taken.not_taken[0].code), (1, 1, "unvouched"));
    assert_eq!(logs(&ben).keys().collect::<Vec<_>>(), ["item"]);
    let taken = into_relay(&site, &forge(&for_relay(&ann, None))).await.expect("it is Ann's");
    assert_eq!((taken.changes, taken.refused, &*taken.not_taken[0].code), (1, 1, "unvouched"));
    assert_eq!(site.log().await.keys().collect::<Vec<_>>(), ["item"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_devices_bundle_is_refused_and_what_others_carry_of_it_is_kept_aside() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    let cat = site.device("cat").await;
    for device in [&ann, &ben, &cat] {
        sync(device).await;
    }
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    taken(&cat, &pack(&ann, &key(&cat), None));
    let (to_ben, to_relay) = (pack(&ann, &key(&ben), None), for_relay(&ann, None));
    let to_ann = pack(&ben, &key(&ann), None);
    site.revoke("ann").await;
    sync(&ben).await;
    let revoked = |taken| matches!(taken, Err(BundleError::Unfit(Unfit::Revoked(_))));
    assert!(revoked(take(&ben, &to_ben)));
    assert_eq!(into_relay(&site, &to_relay).await, Err(Unfit::Revoked("ann".into())));
    let none = ben.export_bundle(&mut Vec::new(), &key(&ann), None, Enclosing::Files);
    assert!(matches!(none, Err(BundleError::Unfit(Unfit::Revoked(_)))));
    let carried = into_relay(&site, &for_relay(&cat, None)).await.expect("Cat may");
    assert_eq!((carried.changes, carried.aside), (0, 1), "nothing of it is lost");
    assert_eq!((logs(&ben).len(), site.log().await.len()), (0, 0));
    taken(&ann, &to_ann);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_put_back_is_healed_by_files() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    sync(&ann).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    into_relay(&site, &for_relay(&ann, None)).await.expect("Ann may");
    taken(&ann, &from_relay(&site, &ann, None).await);
    assert_eq!((outgoing(&ann), is_synced(&ann)), (0, true));
    site.stop().await;
    site.copy("backup", "relay");
    disguise(&site.path("relay"), &site.path("backup"));
    site.start_again().await;

    // Ann has receipts for everything; her file shows the relay what it once stated.
    let shown = for_relay(&ann, None);
    assert_eq!(into_relay(&site, &shown).await.expect("Ann may").changes, 0);
    let back = from_relay(&site, &ann, Some(&shown)).await;
    taken(&ann, &back);
    assert_eq!(outgoing(&ann), 1, "the relay has lost it");
    assert_eq!(into_relay(&site, &for_relay(&ann, None)).await.expect("Ann may").changes, 1);
    taken(&ann, &from_relay(&site, &ann, None).await);
    assert_eq!((outgoing(&ann), is_synced(&ann)), (0, true));
    assert_eq!(content(&ann, "customer"), site.content("customer").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_types_are_neither_packed_nor_taken() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    for device in [&ann, &ben] {
        sync(device).await;
    }
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    put(&ann, "item/i1", json!({"stock": 3}));
    let whole = pack(&ann, &key(&ben), None);
    let customer = TypeName::new("customer").expect("a name");
    ann.pause(Some(&customer)).expect("it is saved");
    ben.pause(Some(&customer)).expect("it is saved");
    assert_eq!(segments_in_pushes(&pack(&ann, &key(&ben), None)), ["item"]);
    assert_eq!(segments_in_pushes(&for_relay(&ann, None)), ["item"]);
    let left = taken(&ben, &whole);
    assert_eq!((left.changes, left.left_out), (1, 1));
    assert_eq!(logs(&ben).keys().collect::<Vec<_>>(), ["item"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_bundle_comes_in_frames_that_any_session_would_take() {
    let site = Site::founded(CATALOG);
    let (ann, ben) = (site.device("ann").await, site.device("ben").await);
    sync(&ann).await;
    let note = |n: u32| blake3::hash(&n.to_be_bytes()).to_hex().repeat(100);
    for n in 0..300 {
        put(&ann, &format!("visit/v{n}"), json!({"outlet": "41", "note": note(n)}));
    }
    let file = pack(&ann, &key(&ben), None);
    let pushes = frames(&file).iter().filter(|frame| matches!(frame, Frame::Push(_))).count();
    assert!(pushes > 10, "{pushes} frames");
    assert_eq!(taken(&ben, &file).changes, 300);
    assert_eq!(content(&ben, "visit"), content(&ann, "visit"));
    assert_eq!(into_relay(&site, &for_relay(&ben, None)).await.expect("Ben may").changes, 300);
    taken(&ben, &from_relay(&site, &ben, None).await);
    assert!(is_synced(&ben));
}
