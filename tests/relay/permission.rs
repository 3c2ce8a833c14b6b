//! Permissions that change while devices are out: a revoked device, a scope that was withdrawn and
//! given back. Nobody loses what was captured, and all replicas come to the same.

use std::time::Duration;

use crate::support::lab::header;
use crate::support::wire::{Answer, Heard, Raw, hello};
use crate::support::{
    Connected, PATIENCE, Site, content, fields, get, length, logs, put, reaches, soon, state, sync,
};
use fieldkeep_device::{Device, Event, Strip, SyncError};
use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_model::{
    ActorId, Edit, Grant, RecordEdit, RecordId, Scalar, SegmentAddress, TypeName,
};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{Frame, Members};
use fieldkeep_store::Log as _;
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.town]
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.remark]
"#;

fn visits_of(scope: &str) -> Vec<Grant> {
    let ty = Some(TypeName::new("visit").expect("a name"));
    vec![Grant::ALL, Grant { ty, scope: Some(scope.into()) }]
}

fn customers() -> SegmentAddress {
    let ty = TypeName::new("customer").expect("a name");
    SegmentAddress { ty, scope: String::new(), buckets: 1, bucket: 0, generation: 0 }
}

/// A member's own document of the customers.
struct Writer {
    document: Document,
    actor: ActorId,
}

impl Writer {
    fn new(member: &Raw) -> Self {
        Self::with(member, &[])
    }

    /// With changes that it has merged.
    fn with(member: &Raw, chunks: &[&[u8]]) -> Self {
        let mut document = Document::new();
        document.apply(chunks.iter().copied()).expect("they merge");
        Self { document, actor: member.actor() }
    }

    /// A change that sets one field.
    fn write(&mut self, id: &str, field: &str, value: &str) -> Vec<u8> {
        let author = Author { actor: self.actor, person: "somebody".into(), time: 1 };
        let edit = RecordEdit::from(vec![Edit::Put(field.into(), Scalar::Str(value.into()))]);
        let id = RecordId::new(id).expect("an id");
        let written = self.document.write(&author, &id, &edit).expect("it can be written");
        written.expect("it changes something").chunk
    }
}

/// The changes that lie aside on a device, as their authors' numbers and the reasons.
fn aside(device: &Device) -> Vec<(u64, String)> {
    let asides = device.with_replica(|replica| {
        Ok::<_, fieldkeep_replica::ReplicaError>(replica.store().asides()?)
    });
    let asides = asides.expect("it reads").into_iter();
    asides.map(|aside| (aside.actor.device(), aside.reason)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_left_at_once_and_keeps_what_it_captured() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    let session = tokio::spawn({
        let ann = ann.clone();
        async move { ann.keep_synced().await }
    });
    reaches(&ann, "customer/c1", "valid").await;
    let mut events = ann.watch();
    let mut error = async || loop {
        let event = events.recv().await.expect("the device is there");
        if let Event::Strip(Strip::Error { reason, permanent, .. }) = event {
            return (reason, permanent);
        }
    };
    site.revoke("ann").await;
    let left = tokio::time::timeout(Duration::from_secs(1), error()).await;
    let (mut reason, mut permanent) = left.expect("within a second");
    while !permanent {
        // Its last words may have been lost with the connection: the next try hears them.
        (reason, permanent) = soon("she is told that it is of no use to try again", error()).await;
    }
    assert!(reason.contains("revoked"), "{reason}");
    session.abort();

    put(&ann, "customer/c2", json!({"name": "captured after"}));
    let again = ann.sync(PATIENCE).await;
    let Err(SyncError::Revoked(why)) = again else { panic!("{again:?}") };
    assert!(why.contains("revoked") && why.contains("nothing on it is lost"), "{why}");
    assert!(get(&ann, "customer/c2").expect("it is there").unsaved);
    assert_eq!(site.content("customer").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_member_hears_of_nobody_who_came_after() {
    let site = Site::founded(CATALOG);
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    site.revoke("mallory").await;
    let revoked = site.members().await.len();
    let _ben = site.device("ben").await;
    let mut wire = mallory.dial().await;
    wire.say(&Frame::Hello(Box::new(hello(mallory.org)))).await;
    let code = loop {
        match wire.next().await {
            Heard::Frame(Frame::Members(Members { base, entries })) => {
                assert_eq!(base + entries.len() as u64, revoked);
            }
            Heard::Frame(frame) => assert!(matches!(frame, Frame::Welcome(_) | Frame::Error(_))),
            Heard::Closed(reason) => break reason.code.and_then(Code::from_number),
        }
    };
    assert_eq!(code, Some(Code::Revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_carry_of_a_revoked_member_is_kept_aside_and_tainted_where_others_build_on_it()
{
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
    let mia = Raw::joined(&site.ticket("mia").await, 102).await;
    let segment = customers();
    let mut doc = Writer::new(&mallory);
    let held = doc.write("c1", "name", "before");
    let beyond = doc.write("c1", "name", "after");
    let further = doc.write("c1", "town", "after");
    let mut wire = mallory.following().await;
    assert_eq!(wire.answer(mallory.own_push(&segment, &[&held])).await, Answer::Taken);
    site.revoke("mallory").await;

    let mut carrier = mia.following().await;
    let heads = vec![mallory.vouch(&segment.id(&mia.org), &header(&further))];
    let push = mia.push(&segment, &[&held, &beyond, &further], heads);
    assert_eq!(carrier.answer(push).await, Answer::refused(1, "not-permitted"));
    let second = carrier.until(|frame| {
        let Frame::Nack(nack) = frame else { return None };
        (nack.hash == header(&further).hash).then(|| nack.code.clone())
    });
    assert_eq!(second.await, "not-permitted");
    sync(&ben).await;
    assert_eq!(length(&site.log().await, "customer"), 1, "what came later is not merged");
    assert_eq!(fields(&ben, "customer/c1")["name"], "before");

    // Mia had merged the first of them before she heard of it, and wrote on.
    let mut doc = Writer::with(&mia, &[&held, &beyond]);
    let next = doc.write("c1", "town", "mia's");
    assert_eq!(carrier.answer(mia.own_push(&segment, &[&next])).await, Answer::Taken);
    sync(&ben).await;
    assert_eq!(state(&ben, "customer/c1"), "held");
    let reasons = get(&ben, "customer/c1").expect("it is there").reasons;
    assert_eq!(reasons, ["a change to it was not permitted"]);
    assert_eq!(logs(&ben), site.log().await, "with all that vouches for it");
    put(&ben, "customer/c1", json!({"name": "by ben", "town": "Ulm"}));
    sync(&ben).await;
    assert_eq!(state(&ben, "customer/c1"), "valid");
}

/// A relay that was put back, and has lost changes of ann's that ben holds; ann is revoked then.
async fn lost_and_revoked() -> (Site, Device, Device) {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let ben = site.device("ben").await;
    let cat = site.device("cat").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    site.converges(&[&ann, &ben, &cat], &["customer"]).await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    put(&ann, "customer/c1", json!({"name": "what the relay will lose"}));
    put(&ann, "customer/c2", json!({"name": "this too"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    site.stop().await;
    site.copy("backup", "relay");
    site.start_again().await;
    site.revoke("ann").await;
    (site, ben, cat)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_had_merged_what_lies_beyond_the_cut_take_it_out_again() {
    let (site, ben, cat) = lost_and_revoked().await;
    sync(&ben).await;
    site.converges(&[&cat, &ben], &["customer"]).await;
    assert_eq!(content(&ben, "customer").len(), 1);
    assert_eq!(fields(&ben, "customer/c1")["name"], "Kiosk");
    assert_eq!(logs(&ben), site.log().await);
    assert_eq!(aside(&ben).len(), 2, "kept byte for byte");
    let at_relay = site.ask(|engine| engine.replica().store().asides().map(|a| a.len())).await;
    assert_eq!(at_relay.expect("it reads"), 2, "there too");
    put(&ben, "customer/c1", json!({"town": "Ulm"}));
    site.converges(&[&ben, &cat], &["customer"]).await;
    assert_eq!(state(&cat, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_had_built_on_what_lies_beyond_the_cut_bring_it_tainted() {
    let (site, ben, cat) = lost_and_revoked().await;
    put(&ben, "customer/c3", json!({"name": "ben's own"}));
    sync(&ben).await;
    site.converges(&[&cat, &ben], &["customer"]).await;
    assert_eq!(content(&cat, "customer").len(), 3);
    assert_eq!(state(&cat, "customer/c3"), "valid");
    for device in [&ben, &cat] {
        assert_eq!(state(device, "customer/c1"), "held");
        assert_eq!(state(device, "customer/c2"), "held");
    }
    assert_eq!(logs(&ben), site.log().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgot_a_revocation_taints_what_it_took_meanwhile() {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let ben = site.device("ben").await;
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    site.converges(&[&ann, &ben], &["customer"]).await;
    site.forgets_to_have_revoked("ann", &ben).await;
    // The restored relay does not know better.
    put(&ann, "customer/c1", json!({"name": "beyond the cut"}));
    sync(&ann).await;
    sync(&ben).await;
    sync(&ben).await;
    assert_eq!(state(&ben, "customer/c1"), "held");
    let reasons = get(&ben, "customer/c1").expect("it is there").reasons;
    assert_eq!(reasons, ["a change to it was not permitted"]);
    assert!(matches!(ann.sync(PATIENCE).await, Err(SyncError::Revoked(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_scope_is_sent_no_more_and_what_was_captured_there_is_kept() {
    let site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let eve = site.join(&site.invited("eve", visits_of("42"), i64::MAX).await, "eve").await;
    put(&ben, "visit/v1", json!({"outlet": "42", "remark": "fine"}));
    sync(&ben).await;
    sync(&eve).await;
    assert_eq!(state(&eve, "visit/v1"), "valid");
    let connected = Connected::new(&eve);
    put(&ben, "visit/v2", json!({"outlet": "42", "remark": "fine"}));
    sync(&ben).await;
    reaches(&eve, "visit/v2", "valid").await;
    site.decide("eve", Some(visits_of("43"))).await;
    soon("the session ends", async {
        while eve.is_online() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(connected);

    put(&eve, "visit/v1", json!({"remark": "captured before she knew"}));
    put(&ben, "visit/v3", json!({"outlet": "42", "remark": "not for her"}));
    put(&ben, "visit/v4", json!({"outlet": "43", "remark": "for her"}));
    sync(&ben).await;
    let report = sync(&eve).await;
    assert_eq!(report.refused, 1, "it went up, and was kept aside");
    assert_eq!(state(&eve, "visit/v3"), "absent");
    assert_eq!(state(&eve, "visit/v4"), "valid");
    assert!(get(&eve, "visit/v1").expect("it is there").unsaved);
    let own = fields(&eve, "visit/v1")["remark"].clone();
    assert_eq!(own, "captured before she knew", "and it stays on the device");
    sync(&ben).await;
    assert_eq!(fields(&ben, "visit/v1")["remark"], "fine");

    // Given back, it is merged as if nothing had been.
    site.decide("eve", Some(vec![Grant::ALL])).await;
    sync(&ben).await;
    assert_eq!(fields(&ben, "visit/v1")["remark"], "captured before she knew");
    assert_eq!(state(&ben, "visit/v1"), "valid");
    site.converges(&[&eve, &ben], &["visit"]).await;
    assert_eq!(content(&eve, "visit").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_a_scope_was_withdrawn_stays_authorised_when_a_relay_lost_it() {
    let mut site = Site::founded(CATALOG);
    let ben = site.device("ben").await;
    let eve = site.join(&site.invited("eve", visits_of("42"), i64::MAX).await, "eve").await;
    site.stop().await;
    site.copy("relay", "backup");
    site.start_again().await;
    put(&eve, "visit/v1", json!({"outlet": "42", "remark": "fine"}));
    sync(&eve).await;
    sync(&ben).await;
    site.decide("eve", Some(visits_of("43"))).await;
    sync(&ben).await;
    site.stop().await;
    site.copy("backup", "relay");
    site.start_again().await;
    sync(&ben).await;
    assert_eq!(state(&ben, "visit/v1"), "valid");
    assert_eq!(site.content("visit").await.len(), 1);
}
