//! What bad input gets from another device, over real sessions: the connection ends with a code,
//! nothing of it is stored or handed on, and honest devices go on.

use crate::support::lab::{Renamed, header, vouched};
use crate::support::town::address;
use crate::support::wire::{Raw, Wire, hello};
use crate::support::{Logs, Site, logs, put, reaches, state, sync};
use fieldkeep_device::{Device, Listener};
use fieldkeep_lab::hostile::Stage;
use fieldkeep_model::receipt::{self, Receipt};
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{
    ActorId, Epoch, Grant, Head, PublicKey, Seed, SegmentAddress, SegmentId, Signed, SignedHead,
    Stamp, TypeName, VerdictBlock, VersionVector, verdict,
};
use fieldkeep_protocol::frame::{Frame, GoAway, Hello, Members, Verdicts};
use fieldkeep_protocol::{Anchor, Code, Meet, PEER_WINDOW, Standpoint};
use serde_json::json;
use tokio::task::JoinHandle;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.order]
[type.order.field.note]
[type.order.field.price]
schema = { type = "integer" }
[[type.order.rule]]
name = "price"
cel = "!has(record.price) || record.price >= 0"
reason = "a price is not below nothing"
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.remark]
"#;

/// Devices that have no signal: Ben listens, Cat is connected to him, Mallory may read one scope.
struct Camp {
    site: Site,
    ben: Device,
    cat: Device,
    mallory: Raw,
    listener: Listener,
    running: Vec<JoinHandle<()>>,
    /// What Ben and Cat hold, before anybody misbehaves.
    before: Logs,
}

impl Camp {
    async fn pitched() -> Self {
        let mut site = Site::founded(CATALOG);
        let (ben, cat) = (site.device("ben").await, site.device("cat").await);
        let customers = Grant { ty: Some(TypeName::new("customer").expect("a name")), scope: None };
        let orders = Grant { ty: Some(TypeName::new("order").expect("a name")), scope: None };
        let grants = vec![customers, orders];
        let mallory = Raw::joined(&site.invited("mallory", grants, i64::MAX).await, 101).await;
        put(&ben, "customer/first", json!({"name": "Kiosk"}));
        put(&ben, "order/o1", json!({"note": "tea", "price": -1}));
        put(&ben, "visit/v1", json!({"outlet": "42", "remark": "closed"}));
        for device in [&ben, &cat, &ben] {
            sync(device).await;
        }
        assert_eq!(state(&cat, "order/o1"), "held");
        site.stop().await;
        let listener = ben.listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let serving = tokio::spawn({
            let listener = listener.clone();
            async move { listener.serve().await }
        });
        let staying = tokio::spawn({
            let (cat, address) = (cat.clone(), listener.address());
            async move {
                let _ = cat.stay_with(address).await;
            }
        });
        let mut camp = Self {
            site,
            cat,
            mallory,
            listener,
            running: vec![serving, staying],
            before: logs(&ben),
            ben,
        };
        camp.goes_on("beginning").await;
        camp
    }

    /// What Ben writes reaches Cat, and nothing else has.
    async fn goes_on(&mut self, name: &str) {
        let (ben, cat) = (logs(&self.ben), logs(&self.cat));
        for (segment, log) in &self.before {
            assert_eq!(ben.get(segment), Some(log), "{name}: Ben's log of {segment}");
        }
        assert_eq!(ben.len(), self.before.len(), "{name}: Ben has segments that nobody wrote");
        let lengths =
            |logs: &Logs| logs.iter().map(|(s, (l, _))| (s.clone(), *l)).collect::<Vec<_>>();
        assert_eq!(lengths(&ben), lengths(&cat), "{name}: Cat has what Ben has");
        let key = format!("customer/{}", name.replace(' ', "-"));
        put(&self.ben, &key, json!({"name": name}));
        reaches(&self.cat, &key, "likely_valid").await;
        self.before = logs(&self.ben);
    }

    fn bens_key(&self) -> PublicKey {
        let members = self.ben.members();
        let ben = members.members().values().find(|member| member.name == "ben");
        ben.expect("he joined").keys.tls
    }

    /// Calls Ben with that seed's key.
    async fn dial(&self, seed: &Seed) -> Wire {
        Wire::dial(seed, &self.bens_key(), self.listener.address()).await
    }

    /// A connection to Ben on which a member has introduced itself.
    async fn introduced(&self, raw: &Raw) -> Wire {
        let wire = self.dial(&raw.seed).await;
        wire.say(&Frame::Hello(Box::new(hello(raw.org)))).await;
        wire
    }

    /// A connection on which Mallory has said that she holds nothing, and Ben what he does.
    async fn met(&self) -> Wire {
        let mut wire = self.introduced(&self.mallory).await;
        wire.until(|frame| matches!(frame, Frame::Meet(meet) if meet.whole).then_some(())).await;
        wire
    }

    fn id(&self, address: &SegmentAddress) -> SegmentId {
        address.id(&self.mallory.org)
    }
}

impl Drop for Camp {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hostile_change_ends_the_session_and_nothing_of_it_is_kept_or_handed_on() {
    let mut camp = Camp::pitched().await;
    let segment = address("order", "");
    let stage = Stage::set();
    let members = [&camp.mallory];
    let mut renamed = Renamed::new(&members);
    for chunk in &stage.beginning {
        renamed.chunk(chunk);
    }
    for row in stage.hostile().into_iter().filter(|row| row.code != "known") {
        let chunk = if row.stage == 0 { row.chunk } else { renamed.chunk(&row.chunk) };
        let heads = vouched(&members, &segment, &chunk);
        let push = Frame::Push(camp.mallory.push(&segment, &[&chunk], heads));
        let mut wire = camp.met().await;
        // For what a change waits for a device asks anew, a few times.
        for _ in 0..20 {
            wire.say(&push).await;
        }
        let code = wire.closed().await;
        assert!(
            matches!(code, Some(Code::Refused | Code::Unvouched | Code::Malformed)),
            "{}: {code:?}",
            row.name
        );
    }
    camp.goes_on("hostile changes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carried_change_needs_a_signature_of_its_author_over_its_own_chain() {
    let mut camp = Camp::pitched().await;
    let segment = address("order", "");
    let stage = Stage::set();
    let mut renamed = Renamed::new(&[&camp.mallory]);
    let own = renamed.chunk(&stage.beginning[0]);
    let newest = header(&own);
    let id = camp.id(&segment);
    let other = Raw { seed: Seed([9; 32]), ..camp.mallory.clone() };
    let head = Head { actor: newest.actor, seq: newest.seq, hash: newest.hash };
    let rows: [(&str, Vec<SignedHead>); 4] = [
        ("no signature", Vec::new()),
        ("another key", vec![other.vouch(&id, &newest)]),
        ("another segment", vec![camp.mallory.vouch(&camp.id(&address("customer", "")), &newest)]),
        ("another chain", {
            let hash = fieldkeep_model::ChangeHash([7; 32]);
            let keys = camp.mallory.seed.signing();
            vec![SignedHead::new(&camp.mallory.org, &id, Head { hash, ..head }, &keys)]
        }),
    ];
    for (name, heads) in rows {
        let mut wire = camp.met().await;
        wire.say(&Frame::Push(camp.mallory.push(&segment, &[&own], heads))).await;
        assert_eq!(wire.closed().await, Some(Code::Unvouched), "{name}");
    }
    // Each of many heads would have to be verified.
    let heads = vec![camp.mallory.vouch(&id, &newest); 2];
    let mut wire = camp.met().await;
    wire.say(&Frame::Push(camp.mallory.push(&segment, &[&own], heads))).await;
    assert_eq!(wire.closed().await, Some(Code::Malformed), "two heads of one author");
    camp.goes_on("signatures").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_relay_may_state_is_taken_from_nobody_else() {
    let mut camp = Camp::pitched().await;
    let order = camp.id(&address("order", ""));
    let block = camp
        .ben
        .with_replica(|replica| replica.judged_block(&order))
        .expect("it reads")
        .expect("the relay judged it");
    let relay =
        camp.ben.with_replica(|r| Ok::<_, fieldkeep_replica::ReplicaError>(r.issuer(&block)));
    let relay = relay.expect("it reads").expect("a relay signed it");
    let said = |blocks: Vec<Signed>| {
        Frame::Verdicts(Verdicts { segment: order, relay, blocks, openings: Vec::new() })
    };
    let keys = camp.mallory.seed.signing();
    let mut newer: VerdictBlock = block.read().expect("a block");
    (newer.number, newer.pos, newer.verdicts) = (newer.number + 1, newer.pos + 1, Vec::new());
    let forged = Signed::new(verdict::CONTEXT, &newer, &keys);
    let mut altered = block.clone();
    altered.bytes = forged.bytes.clone();
    let receipt = Receipt {
        org: camp.mallory.org,
        epoch: Epoch { counter: 9, salt: [1; 8] },
        segment: order,
        actor: ActorId([3; 20]),
        seq: 1,
        hash: fieldkeep_model::ChangeHash([4; 32]),
        pos: 9,
    };
    let receipt = Signed::new(receipt::CONTEXT, &receipt, &keys);
    // A verdict's signature is none of a receipt.
    let borrowed = Signed { bytes: receipt.bytes.clone(), signature: block.signature };
    for (name, frame, code) in [
        ("a verdict of a device", said(vec![forged]), Code::Unvouched),
        ("an altered verdict", said(vec![altered]), Code::Unvouched),
        ("an old verdict as news", said(vec![block.clone()]), Code::Refused),
        ("a receipt of a device", Frame::Receipt(receipt), Code::Unvouched),
        ("a borrowed signature", Frame::Receipt(borrowed), Code::Unvouched),
    ] {
        let mut wire = camp.met().await;
        wire.say(&frame).await;
        assert_eq!(wire.closed().await, Some(code), "{name}");
    }
    assert_eq!(state(&camp.ben, "order/o1"), "held");
    assert_eq!(state(&camp.cat, "order/o1"), "held");
    camp.goes_on("statements").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_is_said_once() {
    let mut camp = Camp::pitched().await;
    let mut wire = camp.met().await;
    let paused = |all: bool| Frame::Mode(LeftOut { all, ..LeftOut::default() });
    // It has Ben tell anew what he holds: without a bound, a few bytes would cost him that each.
    wire.say(&paused(true)).await;
    wire.until(|frame| matches!(frame, Frame::Meet(meet) if meet.whole).then_some(())).await;
    wire.say(&paused(true)).await;
    wire.say(&paused(false)).await;
    assert_eq!(wire.closed().await, Some(Code::OutOfOrder));
    camp.goes_on("pausing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_was_not_granted_is_neither_told_nor_taken() {
    let mut camp = Camp::pitched().await;
    let visit = address("visit", "42");
    let id = camp.id(&visit);
    // Ben says nothing of it.
    let mut wire = camp.introduced(&camp.mallory).await;
    let told = wire.until(|frame| {
        let Frame::Meet(meet) = frame else { return None };
        Some(meet.segments.iter().map(|s| s.segment).collect::<Vec<SegmentId>>())
    });
    let told = told.await;
    assert!(told.contains(&camp.id(&address("order", ""))) && !told.contains(&id));
    let anchor = Some(Anchor { pos: 9, chain: fieldkeep_model::Chain([1; 16]) });
    let (held, aside) = (VersionVector::default(), VersionVector::default());
    let standpoint = Standpoint { segment: id, anchor, held, aside, judged: None };
    wire.say(&Frame::Meet(Meet { segments: vec![standpoint], whole: true })).await;
    assert_eq!(wire.closed().await, Some(Code::Denied), "offered");

    let mut renamed = Renamed::new(&[&camp.mallory]);
    let own = renamed.chunk(&Stage::set().beginning[0]);
    let mut wire = camp.met().await;
    wire.say(&Frame::Push(camp.mallory.own_push(&visit, &[&own]))).await;
    assert_eq!(wire.closed().await, Some(Code::Denied), "handed over");
    camp.goes_on("grants").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_the_revoked_hear_nothing() {
    let mut camp = Camp::pitched().await;
    let stranger = Raw { seed: Seed([77; 32]), ..camp.mallory.clone() };
    let mut wire = camp.introduced(&stranger).await;
    assert_eq!(wire.closed().await, Some(Code::NotAMember), "a stranger");

    // One who says that its log has branched is told no entry before it has brought its own.
    let mut wire = camp.dial(&stranger.seed).await;
    let branched = Hello { members: 2, members_sum: [7; 16], ..hello(camp.mallory.org) };
    wire.say(&Frame::Hello(Box::new(branched))).await;
    let told = wire.until(|frame| {
        let Frame::Members(members) = frame else { return None };
        Some(members.entries.len())
    });
    assert_eq!(told.await, 0);
    assert_eq!(wire.closed().await, Some(Code::NotAMember), "in time");

    let mut wire = camp.dial(&camp.mallory.seed).await;
    let foreign = fieldkeep_model::OrgId([7; 16]);
    wire.say(&Frame::Hello(Box::new(hello(foreign)))).await;
    assert_eq!(wire.closed().await, Some(Code::ForeignOrganisation));

    camp.site.start_again().await;
    camp.site.revoke("mallory").await;
    let members = camp.site.members().await;
    camp.site.stop().await;
    // Ben has not heard of it. She brings it herself, and goes on as if nothing had happened.
    let known = camp.ben.members().len();
    let mut wire = camp.met().await;
    let entries = members.since(known).to_vec();
    wire.say(&Frame::Members(Members { base: known, entries })).await;
    let mut renamed = Renamed::new(&[&camp.mallory]);
    let own = renamed.chunk(&Stage::set().beginning[0]);
    wire.say(&Frame::Push(camp.mallory.own_push(&address("order", ""), &[&own]))).await;
    assert_eq!(wire.closed().await, Some(Code::Revoked), "by her own word");
    let mut wire = camp.introduced(&camp.mallory).await;
    assert_eq!(wire.closed().await, Some(Code::Revoked));
    camp.goes_on("revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_or_may_not_come_ends_the_session() {
    let mut camp = Camp::pitched().await;
    let golden = |frame: &Frame| frame.encode();
    let rows = [
        ("garbage", vec![0xff; 64], Code::Malformed),
        ("an unknown odd frame", vec![101, 0], Code::UnknownFrame),
        ("a frame without end", vec![15, 0xff, 0xff, 0xff, 0x7f], Code::TooLong),
        (
            "a frame for a relay",
            golden(&Frame::Rejudge("order/o1".parse().expect("a name"))),
            Code::OutOfOrder,
        ),
        (
            "a second introduction",
            golden(&Frame::Hello(Box::new(hello(camp.mallory.org)))),
            Code::OutOfOrder,
        ),
    ];
    for (name, bytes, code) in rows {
        let mut wire = camp.met().await;
        wire.bytes(0, bytes).await;
        assert_eq!(wire.closed().await, Some(code), "{name}");
    }
    let mut wire = camp.met().await;
    wire.bytes(1, vec![15, 1]).await;
    assert_eq!(wire.closed().await, Some(Code::OutOfOrder), "another stream");
    let mut wire = camp.dial(&camp.mallory.seed).await;
    assert_eq!(wire.closed().await, Some(Code::OutOfOrder), "not a word");
    let held = (0..20_000u32).map(|n| {
        let mut actor = [0; 20];
        actor[..4].copy_from_slice(&n.to_be_bytes());
        (ActorId(actor), Stamp { seq: 1, hash: [0; 8] })
    });
    let held = VersionVector { stamps: held.collect() };
    let (segment, aside) = (camp.id(&address("order", "")), VersionVector::default());
    let standpoint = Standpoint { segment, anchor: None, held, aside, judged: None };
    let mut wire = camp.met().await;
    wire.say(&Frame::Meet(Meet { segments: vec![standpoint], whole: true })).await;
    assert_eq!(wire.closed().await, Some(Code::TooLong), "more actors than there are");
    camp.goes_on("garbage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_holds_up_nobody() {
    let mut camp = Camp::pitched().await;
    // She reads what Ben says first, and confirms nothing after that.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let wire = camp.met().await;
        wire.say(&Frame::Meet(Meet { segments: Vec::new(), whole: true })).await;
        slow.push(wire);
    }
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut bytes = [0; 2_000];
    let mut written = 0;
    for n in 0..200 {
        noise.fill(&mut bytes);
        let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        written += bytes.len() as u64;
        put(&camp.ben, &format!("customer/big{n}"), json!({"name": name}));
    }
    reaches(&camp.cat, "customer/big199", "likely_valid").await;
    for mut wire in slow {
        // What comes before the answer is all that Ben had on its way to her.
        wire.say(&Frame::GoAway(GoAway { retry_ms: 0 })).await;
        wire.until(|frame| matches!(frame, Frame::GoAway(_)).then_some(())).await;
        assert!(wire.heard < 2 * PEER_WINDOW && written > 4 * PEER_WINDOW, "{} bytes", wire.heard);
    }
    camp.before = logs(&camp.ben);
    camp.goes_on("slow readers").await;
}
