//! The bytes of every frame, as they were first written. They change with a protocol version, and
//! never without one.
//!
//! `FIELDKEEP_WRITE_GOLDEN=1` writes those that are absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{
    ActorId, BlobHash, CallEffect, CallOutcome, Chain, ChangeHash, Epoch, Head, Judged, OrgId,
    RecordHash, RecordId, RecordKey, Seed, SegmentAddress, SegmentId, Signed, SignedHead, Stamp,
    TypeName, VersionVector,
};
use fieldkeep_protocol::blob::{
    Download, Got, Possession, Prove, Ready, Removal, Removals, Removed, Tree, Unfit, Upload, Whole,
};
use fieldkeep_protocol::bundle::{Enclosed, Enclosure, Has, Told};
use fieldkeep_protocol::frame::{
    Ack, Answer, Ask, Call, CatalogFile, Credit, Delta, Dismiss, ErrorFrame, Frame, FrameBuffer,
    GoAway, Hello, Members, Nack, OfferAnswer, OfferReply, Outcome, Proof, Push, Run, Said,
    SegmentRef, Standing, Stats, TypeCount, Vector, Verdicts,
};
use fieldkeep_protocol::{
    Anchor, Code, FRAME_MAX, FileFrame, Framed, Meet, Offer, OfferEntry, Report, Standpoint,
    TypeHeld, VERSION,
};

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
        removals: None,
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
    let relay = Hello { actor: None, removals: Some(300), ..hello() };
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
        Frame::Dismiss(Dismiss {
            record: record(),
            dismissed: true,
            note: "known".into(),
            number: 7 << 32 | 2,
            content: RecordHash([0x3c; 32]),
        }),
        Frame::GoAway(GoAway { retry_ms: 1_000 }),
        Frame::Error(ErrorFrame { code: Code::Busy, text: "later".into() }),
        Frame::Vector(Vector { segment: known.id, vector: vector() }),
        Frame::Witness(signed()),
        Frame::Meet(meet()),
        Frame::Receipt(signed()),
        Frame::Part(members),
        Frame::Mode(LeftOut {
            all: false,
            types: [order()].into(),
            scopes: [(order(), ["42".to_owned()].into())].into(),
            generations: Default::default(),
        }),
        Frame::Call(Call { intent: signed(), withdrawn: true }),
        Frame::Outcome(Outcome {
            number: 7,
            outcome: CallOutcome::Done {
                effects: vec![CallEffect { record: record(), segment: segment(), pos: 304 }],
                answer: Some("done".into()),
            },
        }),
        Frame::Ask(Ask { number: 3, query: "leaderboard".into(), params: "{}".into() }),
        Frame::Answer(Answer {
            number: 3,
            said: Said::Rows { columns: vec!["n".into()], rows: "[[1]]".into(), whole: true },
        }),
        Frame::Report(Report {
            time: 1_795_910_400_000,
            catalog: 2,
            members: 5,
            waiting: 300,
            refused: 1,
            files: 2,
            leaves_out: true,
            types: vec![TypeHeld { ty: order(), records: 1_000, unsaved: 300 }],
        }),
    ]
}

fn file_frames() -> Vec<FileFrame> {
    let (hash, record) = (BlobHash([0xb1; 32]), record());
    let gone = Removal { hash, time: Some(1_795_910_400_000) };
    let unfit = Unfit { code: "limit".into(), text: "too large".into(), again: false };
    vec![
        FileFrame::Upload(Upload { hash, record: record.clone(), size: 70_000, tree: vec![7; 64] }),
        FileFrame::Download(Download { hash, record }),
        FileFrame::Ready(Ready { from: 65_536 }),
        FileFrame::Prove(Prove { salt: [5; 32] }),
        FileFrame::Possession(Possession { digest: [6; 32] }),
        FileFrame::Whole(Whole { hash }),
        FileFrame::Unfit(unfit),
        FileFrame::Tree(Tree { size: 70_000, tree: vec![7; 64], waits: None }),
        FileFrame::Got(Got { at: 65_536 }),
        FileFrame::Removals(Removals { since: 298 }),
        FileFrame::Removed(Removed {
            number: 300,
            files: vec![gone, Removal { time: None, ..gone }],
        }),
    ]
}

/// Those that stand in bundles only.
fn enclosed() -> Vec<Enclosed> {
    let hash = BlobHash([0xb1; 32]);
    let file = Upload { hash, record: record(), size: 70_000, tree: vec![7; 64] };
    vec![
        Enclosed::Has(Has { segment: segment(), files: vec![hash], both: true }),
        Enclosed::File(Enclosure { file, waits: true }),
        Enclosed::Told(Told { number: 7 << 32 | 2 }),
    ]
}

/// Each frame as number, name and bytes.
fn written() -> Vec<(u64, &'static str, Vec<u8>)> {
    let session = frames();
    let session = session.iter().map(|frame| (frame.number(), frame.name(), frame.encode()));
    let files = file_frames();
    let files = files.iter().map(|frame| (frame.number(), frame.name(), frame.encode()));
    let enclosed = enclosed();
    let enclosed = enclosed.iter().map(|frame| (frame.number(), frame.name(), frame.encode()));
    session.chain(files).chain(enclosed).collect()
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let line: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        line + "\n"
    });
    lines.collect()
}

fn file(number: u64, name: &str) -> PathBuf {
    let name = format!("{number:02}-{}.hex", name.to_lowercase());
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn every_frame_has_the_bytes_that_it_had_first() {
    for (number, name, bytes) in written() {
        let (path, bytes) = (file(number, name), hex(&bytes));
        if !path.exists() && std::env::var_os("FIELDKEEP_WRITE_GOLDEN").is_some() {
            fs::write(&path, &bytes).expect("the folder is there");
        }
        let golden = fs::read_to_string(&path);
        let golden = golden.unwrap_or_else(|_| panic!("{} is absent", path.display()));
        assert_eq!(bytes, golden, "{name}");
    }
}

#[test]
fn golden_bytes_are_read_as_the_frame_that_they_were() {
    fn reads<F: Framed + PartialEq + std::fmt::Debug>(frame: F, bytes: &[u8]) {
        let mut buffer = FrameBuffer::default();
        buffer.push(bytes);
        assert_eq!(buffer.next(FRAME_MAX), Ok(Some(frame)));
        assert!(!buffer.is_partial());
    }
    frames().into_iter().for_each(|frame| {
        let bytes = frame.encode();
        reads(frame, &bytes);
    });
    file_frames().into_iter().for_each(|frame| {
        let bytes = frame.encode();
        reads(frame, &bytes);
    });
    enclosed().into_iter().for_each(|frame| {
        let bytes = frame.encode();
        reads(frame, &bytes);
    });
}

/// What was added to a frame stands behind what it had, and only where it says something.
#[test]
fn a_file_that_waits_for_the_relay_is_told_behind_what_a_tree_had_first() {
    let tree = |waits| FileFrame::Tree(Tree { size: 70_000, tree: vec![7; 2], waits }).encode();
    assert_eq!(hex(&tree(None)), "4b09821a00011170420707\n");
    assert_eq!(hex(&tree(Some(true))), "4b0a831a00011170420707f5\n");
    let mut buffer = FrameBuffer::default();
    buffer.push(&tree(Some(true)));
    let read = buffer.next(FRAME_MAX).expect("a frame").expect("all of it");
    assert!(matches!(read, FileFrame::Tree(Tree { waits: Some(true), .. })));
}

#[test]
fn there_is_a_golden_file_for_every_number_up_to_the_last() {
    let numbers: BTreeSet<_> = written().iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=57).step_by(2).chain((61..=87).step_by(2)).chain([66]).collect());
}
