//! Scopes over real sessions: what was not granted is not read, what is written there is kept aside
//! until somebody may, and what depends on it arrives without it.

use crate::support::lab::{committed, document, header};
use crate::support::town::{Town, address};
use crate::support::wire::{Answer, Raw};
use crate::support::{fields, get, length, logs, put, reaches, state, sync};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc};
use fieldkeep_model::{Grant, TypeName};
use fieldkeep_protocol::frame::Frame;
use fieldkeep_store::Log as _;
use serde_json::json;

fn record(doc: &AutoCommit, id: &str) -> ObjId {
    doc.get(ROOT, id).expect("it reads").expect("the record is there").1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_permission_is_kept_aside_then_merged_tainted_and_released_by_a_repair() {
    let town = Town::peopled().await;
    let visit = Some(TypeName::new("visit").expect("a name"));
    let grant = Grant { ty: visit, scope: Some("42".into()) };
    let eve = Raw::joined(&town.site.invited("eve", vec![grant], i64::MAX).await, 103).await;
    let segment = address("visit", "43");

    let mut doc = document(&town.mia, &[]);
    let made = doc.put_object(ROOT, "v1", ObjType::Map).expect("it writes");
    doc.put(&made, "outlet", "43").expect("it writes");
    doc.put(&made, "remark", "fine").expect("it writes");
    let first = committed(&mut doc);
    let mut mia = town.mia.following().await;
    assert_eq!(mia.answer(town.mia.own_push(&segment, &[&first])).await, Answer::Taken);
    reaches(&town.ben, "visit/v1", "valid").await;

    // Eve was not granted the scope.
    let mut doc = document(&eve, std::slice::from_ref(&first));
    let made = record(&doc, "v1");
    doc.put(&made, "remark", "eve was here").expect("it writes");
    let trespass = committed(&mut doc);
    let mut wire = eve.following().await;
    let answer = wire.answer(eve.own_push(&segment, &[&trespass])).await;
    assert_eq!(answer, Answer::refused(1, "not-permitted"));
    let (id, hash) = (segment.id(&eve.org), header(&trespass).hash);
    let aside = town.site.ask(move |engine| {
        let sid = engine.replica().segment(&id).expect("the segment is there").sid;
        engine.replica().store().aside(sid, &hash).expect("it reads")
    });
    let aside = aside.await.expect("the relay keeps it");
    assert_eq!((aside.reason.as_str(), aside.records), ("not_permitted", vec!["v1".to_owned()]));
    assert_eq!(aside.bytes, trespass);
    town.goes_on("ann").await;
    assert_eq!(length(&logs(&town.ben), "visit:43"), 1, "it was not forwarded");
    assert_eq!(fields(&town.ben, "visit/v1")["remark"], "fine");

    // Mia has merged it and goes on writing.
    let mut doc = document(&town.mia, &[first, trespass]);
    let made = record(&doc, "v1");
    doc.put(&made, "guests", 7).expect("it writes");
    let next = committed(&mut doc);
    assert_eq!(mia.answer(town.mia.own_push(&segment, &[&next])).await, Answer::Taken);
    reaches(&town.ben, "visit/v1", "held").await;
    let held = get(&town.ben, "visit/v1").expect("it is there");
    assert_eq!(held.reasons, ["a change to it was not permitted"]);
    assert_eq!(held.fields["remark"], "eve was here");
    let at_relay = town.site.record("visit/v1").await.expect("it is there");
    assert_eq!((at_relay.state.word(), at_relay.reasons), ("held", held.reasons));
    assert_eq!(length(&logs(&town.ben), "visit:43"), 3);

    // Who may write there writes it again.
    put(&town.ben, "visit/v1", json!({"remark": "fine again"}));
    reaches(&town.ben, "visit/v1", "valid").await;
    let at_relay = town.site.record("visit/v1").await.expect("it is there");
    assert_eq!((at_relay.state.word(), &at_relay.fields["guests"]), ("valid", &json!(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_a_scope_that_was_not_granted() {
    let town = Town::peopled().await;
    let visit = Some(TypeName::new("visit").expect("a name"));
    let grant = Grant { ty: visit, scope: Some("42".into()) };
    let ticket = town.site.invited("eve", vec![grant], i64::MAX).await;
    let eve = town.site.join(&ticket, "eve").await;
    for outlet in ["42", "43"] {
        let key = format!("visit/v{outlet}");
        put(&town.ben, &key, json!({"outlet": outlet, "remark": "fine"}));
        reaches(&town.ben, &key, "valid").await;
    }
    sync(&eve).await;
    assert_eq!(logs(&eve).keys().collect::<Vec<_>>(), ["visit:42"]);
    assert_eq!(state(&eve, "visit/v43"), "absent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_arrives_where_nothing_is_judged() {
    let town = Town::peopled().await;
    let mut wire = town.mallory.following().await;
    let visits = address("visit", "42").id(&town.mallory.org);
    put(&town.ben, "visit/v1", json!({"outlet": "42", "guests": 100}));
    reaches(&town.ben, "visit/v1", "held").await;
    // They come on different streams, in either order.
    let (mut delta, mut verdicts) = (None, None);
    let both = wire.until(|frame| {
        if let Frame::Delta(came) = frame
            && came.segment.id == visits
        {
            delta = Some(came.clone());
        }
        if let Frame::Verdicts(came) = frame
            && came.segment == visits
            && !came.blocks.is_empty()
        {
            verdicts = Some(came.clone());
        }
        (delta.is_some() && verdicts.is_some()).then_some(())
    });
    both.await;
    let (delta, verdicts) = (delta.expect("it came"), verdicts.expect("they came"));

    // A replica with the membership log and no catalog: it can judge nothing.
    let store = fieldkeep_store::Store::open(&town.site.path("plain.db")).expect("it opens");
    let me = fieldkeep_replica::Me {
        role: fieldkeep_replica::Role::Device,
        number: town.mallory.number,
        keys: town.mallory.seed.signing(),
        incarnation: 0,
        name: "mallory".into(),
        former: Vec::new(),
    };
    let members = town.site.members().await;
    let mut replica =
        fieldkeep_replica::Replica::open(store, me, members, [1; 32]).expect("it opens");
    let chunks = fieldkeep_documents::batch::decode(&delta.batch, 1 << 20).expect("it decodes");
    let follow = fieldkeep_replica::Follow {
        segment: delta.segment.address.expect("a new segment is introduced"),
        epoch: delta.epoch,
        first: delta.first,
        items: vec![fieldkeep_replica::Item::Sent; chunks.len()],
        chunks,
        heads: delta.heads,
        chain: delta.chain,
    };
    replica.follow(&follow).expect("the relay's log is sound");
    replica.materialise(&delta.segment.id, usize::MAX).expect("it merges");
    for block in &verdicts.blocks {
        let taken = replica.take_verdicts(&delta.segment.id, verdicts.relay, block, &[]);
        taken.expect("the relay signed it");
    }
    let key = "visit/v1".parse().expect("a record's name");
    let view = replica.views().record(&key).expect("it reads").expect("it is there");
    assert_eq!(view.state.word(), "held");
    assert_eq!(replica.published().map(|published| published.number), None);
}
