//! The bytes of every frame, as they were first written. They change with a protocol version, and
//! never without one.
//!
//! `FIELDKEEP_WRITE_GOLDEN=1` writes those that are absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{
    ActorId, Chain, ChangeHash, Epoch, Head, Judged, OrgId, RecordId, RecordKey, Seed,
    SegmentAddress, SegmentId, Signed, SignedHead, Stamp, TypeName, VersionVector,
};
use fieldkeep_protocol::frame::{
    Ack, CatalogFile, Credit, Delta, Dismiss, ErrorFrame, Frame, FrameBuffer, GoAway, Hello,
    Members, Nack, OfferAnswer, OfferReply, Proof, Push, Run, SegmentRef, Standing, Stats,
    TypeCount, Vector, Verdicts,
};
use fieldkeep_protocol::{Anchor, Code, FRAME_MAX, Meet, Offer, OfferEntry, Standpoint, VERSION};

const ORG: OrgId = OrgId([0x0a; 16]);
const EPOCH: Epoch = Epoch { counter: 3, salt: [0xe0; 8] };

fn order() -> TypeName {
    TypeName::new("order").expect("a name")
}

fn address() -> SegmentAddress {
    SegmentAddress { ty: order(), scope: "42".into(), buckets: 4, bucket: 1, generation: 0 }
}

fn segment() -> SegmentId {
    address().id(&ORG)
}

fn record() -> RecordKey {
    RecordKey::new(order(), RecordId::new("ö 7").expect("an id"))
}

fn actor() -> ActorId {
    ActorId::new(300, 0x0001_0203, &Seed([7; 32]).signing().public())
}

fn vector() -> VersionVector {
    let stamp = Stamp::new(1_000, &ChangeHash([0xc4; 32]));
    VersionVector { stamps: BTreeMap::from([(actor(), stamp)]) }
}

fn signed() -> Signed {
    Signed::new("a test", &7u64, &Seed([7; 32]).signing())
}

fn head() -> SignedHead {
    let head = Head { actor: actor(), seq: 1_000, hash: ChangeHash([0xc4; 32]) };
    SignedHead::new(&ORG, &segment(), head, &Seed([7; 32]).signing())
}

fn hello() -> Hello {
    Hello {
        versions: vec![VERSION],
        software: "fieldkeep/0.1.0".into(),
        org: ORG,
        capabilities: 0,
        members: 5,
        members_tip: [0x11; 32],
        epoch: EPOCH,
        catalog: 2,
        frame_max: 1024 * 1024,
        root: [0x22; 16],
        actor: Some(actor()),
        members_sum: [0x99; 16],
    }
}

fn meet() -> Meet {
    let standpoint = Standpoint {
        segment: segment(),
        anchor: Some(Anchor { pos: 300, chain: Chain([0xca; 16]) }),
        held: vector(),
        aside: VersionVector::default(),
        judged: Some(Judged { epoch: EPOCH, number: 7, pos: 299 }),
    };
    Meet { segments: vec![standpoint], whole: true }
}

fn offer() -> Offer {
    let entry = OfferEntry {
        segment: [1; 8],
        chain: [2; 8],
        pos: 300,
        own_seq: 1_000,
        verdict: 9,
        judged: 290,
    };
    Offer::new(EPOCH, 1, [0x33; 16], &[entry])
}

/// One of each, with every optional part present.
fn frames() -> Vec<Frame> {
    let known = SegmentRef { id: segment(), address: None };
    let named = SegmentRef { id: segment(), address: Some(address()) };
    let members = Members { base: 4, entries: vec![signed()] };
    let relay = Hello { actor: None, ..hello() };
    let opening = Opening { salt: [0x44; 16], value: "x".into(), segment: segment() };
    vec![
        Frame::Hello(Box::new(hello())),
        Frame::Welcome(Box::new(relay)),
        Frame::Join(members.clone()),
        Frame::Members(members.clone()),
        Frame::Catalog(CatalogFile { notice: signed(), source: "catalog = 1\n".into() }),
        Frame::Offer(offer()),
        Frame::OfferReply(OfferReply {
            epoch: EPOCH,
            root: [0x55; 16],
            segments: vec![OfferAnswer {
                segment: named.clone(),
                standing: Standing::Reset,
                tip: 301,
                own_seq: 999,
                vector: Some(vector()),
                own_hash: Some(ChangeHash([0x66; 32])),
            }],
            round: 1,
        }),
        Frame::Push(Push { segment: named.clone(), batch: vec![1, 0, 9], heads: vec![head()] }),
        Frame::Delta(Delta {
            segment: named,
            first: 301,
            runs: vec![Run::Sent(2), Run::Known(actor(), 999, 2)],
            batch: vec![1, 0, 9],
            heads: vec![head()],
            chain: Chain([0x66; 16]),
            epoch: EPOCH,
        }),
        Frame::Ack(Ack {
            segment: segment(),
            actor: actor(),
            seq: 1_000,
            hash: ChangeHash([0xc4; 32]),
            pos: 304,
        }),
        Frame::Nack(Nack {
            segment: segment(),
            hash: ChangeHash([0xc5; 32]),
            stage: 2,
            code: "missing-deps".into(),
            text: "it waits".into(),
            vector: Some(vector()),
        }),
        Frame::Credit(Credit { segment: segment(), pos: 304 }),
        Frame::Verdicts(Verdicts {
            segment: segment(),
            relay: 1,
            blocks: vec![signed()],
            openings: vec![opening],
        }),
        Frame::Proof(Proof {
            segment: segment(),
            pos: 304,
            heads: [0x77; 32],
            records: 12,
            rows: [0x88; 16],
        }),
        Frame::Stats(Stats {
            types: vec![TypeCount { ty: order(), in_scope: 12, all: 40, held: 1 }],
        }),
        Frame::Rejudge(record()),
        Frame::Dismiss(Dismiss { record: record(), dismissed: true, note: "known".into() }),
        Frame::GoAway(GoAway { retry_ms: 1_000 }),
        Frame::Error(ErrorFrame { code: Code::Busy, text: "later".into() }),
        Frame::Vector(Vector { segment: known.id, vector: vector() }),
        Frame::Witness(signed()),
        Frame::Meet(meet()),
        Frame::Receipt(signed()),
        Frame::Part(members),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let line: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        line + "\n"
    });
    lines.collect()
}

fn file(frame: &Frame) -> PathBuf {
    let name = format!("{:02}-{}.hex", frame.number(), frame.name().to_lowercase());
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn every_frame_has_the_bytes_that_it_had_first() {
    for frame in frames() {
        let (path, bytes) = (file(&frame), hex(&frame.encode()));
        if !path.exists() && std::env::var_os("FIELDKEEP_WRITE_GOLDEN").is_some() {
            fs::write(&path, &bytes).expect("the folder is there");
        }
        let golden = fs::read_to_string(&path);
        let golden = golden.unwrap_or_else(|_| panic!("{} is absent", path.display()));
        assert_eq!(bytes, golden, "{}", frame.name());
    }
}

#[test]
fn golden_bytes_are_read_as_the_frame_that_they_were() {
    for frame in frames() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&frame.encode());
        assert_eq!(buffer.next(FRAME_MAX), Ok(Some(frame)));
        assert!(!buffer.is_partial());
    }
}

#[test]
fn there_is_a_golden_file_for_every_number_up_to_the_last() {
    let numbers: BTreeSet<_> = frames().iter().map(Frame::number).collect();
    assert_eq!(numbers, (1..=47).step_by(2).collect());
}
