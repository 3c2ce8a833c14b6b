//! Golden bytes of the formats in `docs/format.md`: what is on disks and wires cannot be changed.
//!
//! A difference here is a format that changed. `FIELDKEEP_WRITE_GOLDEN=1` writes the file anew, for
//! a format that was added.

use std::fmt::Write as _;
use std::path::Path;

use fieldkeep_documents::batch;
use fieldkeep_documents::{Document, document::Author};
use fieldkeep_model::membership::{
    Act, CutOff, MemberKeys, SignedEntry, SigningRequest, Wanted, admission,
};
use fieldkeep_model::verdict::{self, Arg, ArgValue, LastValid, Opening};
use fieldkeep_model::{
    ActorId, CallEffect, CallOutcome, CatalogHash, Chain, ChangeHash, Culprit, Edit, Epoch, Grant,
    Head, Intent, KeyPair, MembershipLog, OrgId, Outcome, Reason, RecordEdit, RecordHash, RecordId,
    RecordKey, Refusal, Scalar, Seed, SegmentAddress, SegmentId, Signed, SignedHead, Ticket,
    TypeName, Verdict, VerdictBlock, Wish, intent,
};
use fieldkeep_protocol::{Frame, Meet, Offer, OfferEntry, bundle, root};
use fieldkeep_relay::LastBackup;
use fieldkeep_store::backup::{Attached, Manifest, Part};

/// The formats by name, in hexadecimal.
struct Golden(String);

impl Golden {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.0, "{name} {hex}").expect("writing into memory cannot fail");
    }
}

fn keys() -> KeyPair {
    Seed([1; 32]).signing()
}

fn actor() -> ActorId {
    ActorId::new(3, 0x0001_0002, &keys().public())
}

fn address() -> SegmentAddress {
    let ty = TypeName::new("order").expect("a name");
    SegmentAddress { ty, scope: "north".into(), buckets: 4, bucket: 2, generation: 0 }
}

fn epoch() -> Epoch {
    Epoch { counter: 2, salt: [9; 8] }
}

/// The bytes of a statement, as it is signed.
macro_rules! cbor {
    ($statement:expr) => {
        Signed::new("golden", &$statement, &keys()).bytes
    };
}

/// Ids and digests.
fn ids(golden: &mut Golden) {
    let org = OrgId([7; 16]);
    golden.add("actor", actor().as_bytes());
    golden.add("segment", address().id(&org).as_bytes());
    golden.add("chain", Chain::START.extend(&ChangeHash([5; 32])).as_bytes());
    golden.add("catalog", CatalogHash::of("catalog = 1\n").as_bytes());
    golden.add("record", RecordHash::of(r#"{"name":"Kiosk"}"#).as_bytes());
    let bucket = RecordId::new("o1").expect("an id").bucket(256);
    golden.add("bucket", &bucket.to_be_bytes());
    golden.add("epoch", &cbor!(epoch()));
    golden.add("tls-key", Seed([1; 32]).tls().public().as_bytes());
    golden.add("signing-key", keys().public().as_bytes());
}

/// Statements and their signatures.
fn statements(golden: &mut Golden) {
    let org = OrgId([7; 16]);
    let segment = address().id(&org);
    let head = Head { actor: actor(), seq: 4, hash: ChangeHash([5; 32]) };
    let signed = SignedHead::new(&org, &segment, head, &keys());
    golden.add("signed-head", &cbor!(signed));
    let log = membership();
    for (number, entry) in log.since(0).iter().enumerate() {
        golden.add(&format!("membership-{number}"), &cbor!(entry));
    }
    golden.add("organisation", log.org().as_bytes());
    let block = block(org, segment);
    golden.add("verdicts", &cbor!(Signed::new(verdict::CONTEXT, &block, &keys())));
    golden.add("opening", &cbor!(opening(segment)));
    golden.add("seal", &opening(segment).seal());
    let ticket = Ticket {
        org,
        relay: Seed([2; 32]).tls().public(),
        addresses: vec!["127.0.0.1:7440".parse().expect("an address")],
        invite: 2,
        key: keys(),
    };
    golden.add("ticket", ticket.to_string().as_bytes());
}

fn membership() -> MembershipLog {
    let admin = keys();
    let mut log = MembershipLog::found("acme", &admin, [3; 16]);
    let relay = Act::Relay { keys: MemberKeys::of(&Seed([2; 32])), name: "relay".into() };
    log.append(log.sign(relay, &admin)).expect("the admin signed it");
    let one_time = Seed([4; 32]).signing();
    let scoped = Grant { ty: TypeName::new("order").ok(), scope: Some("north".into()) };
    let act = Act::Invite {
        key: one_time.public(),
        name: "ann".into(),
        grants: vec![Grant::ALL, scoped],
        expires_ms: 1_700_000_000_000,
    };
    log.append(log.sign(act, &admin)).expect("the admin signed it");
    let join = Act::Join { invite: 2, keys: MemberKeys::of(&Seed([5; 32])) };
    let join = log.sign(join, &one_time);
    let admitted = admission(&join, 1, &Seed([2; 32]).signing());
    log.merge(&[join, admitted]).expect("the invitation is open");
    let member = MemberKeys::of(&Seed([5; 32])).signing;
    let actor = ActorId::new(3, 0, &member);
    let cut = CutOff { segment: SegmentId([6; 16]), actor, seq: 1_000, hash: ChangeHash([7; 32]) };
    let grant = Act::Grant { member, grants: vec![Grant::ALL], cuts: vec![cut] };
    log.append(log.sign(grant, &admin)).expect("the admin signed it");
    let revoke = Act::Revoke { member, cuts: vec![cut] };
    log.append(log.sign(revoke, &admin)).expect("the admin signed it");
    let (second, recovery) = (Seed([21; 32]).signing(), Seed([22; 32]).signing());
    let relay = MemberKeys::of(&Seed([2; 32])).signing;
    for act in [
        Act::Rename { member, name: "anna".into() },
        Act::RotateRelay { relay, keys: MemberKeys::of(&Seed([23; 32])) },
        Act::NameRecovery { key: recovery.public() },
        Act::RotateAdmin { admin: second.public(), others: log.other_ends() },
    ] {
        log.append(log.sign(act, &admin)).expect("the admin signed it");
    }
    let rotation = Act::RotateDevice { member, keys: MemberKeys::of(&Seed([24; 32])) };
    let rotation = log.sign(rotation, &Seed([5; 32]).signing());
    let admitted = admission(&rotation, 1, &Seed([23; 32]).signing());
    log.merge(&[rotation, admitted]).expect("the relay admits it");
    let recover = Act::Recover { admin: Seed([25; 32]).signing().public(), others: vec![[7; 32]] };
    let other_end = log.sign(recover.clone(), &recovery);
    assert!(log.append(other_end).is_err(), "it names an end that is not there");
    let others = vec![log.tip()];
    log.append(log.sign(Act::Recover { admin: second.public(), others }, &recovery))
        .expect("the recovery key signed it");
    log
}

/// What is carried to where the admin key is, and back.
fn papers(golden: &mut Golden) {
    let (admin, one_time) = (keys(), Seed([4; 32]).signing().public());
    let log = MembershipLog::found("acme", &admin, [3; 16]);
    let invite = Wanted::Invite {
        name: "ann".into(),
        grants: vec![Grant::ALL],
        expires_ms: 1_700_000_000_000,
        addresses: vec!["127.0.0.1:7440".into()],
    };
    let rename = Wanted::Act(Act::Rename { member: one_time, name: "ben".into() });
    let wishes = [invite, rename, Wanted::RotateAdmin, Wanted::NameRecovery, Wanted::Recover];
    for (number, wanted) in wishes.into_iter().enumerate() {
        let request = SigningRequest { log: log.clone(), wanted };
        golden.add(&format!("request-{number}"), request.to_string().as_bytes());
    }
    let entry = log.sign(Act::Rename { member: one_time, name: "ben".into() }, &admin);
    golden.add("entry", SignedEntry { org: log.org(), entry }.to_string().as_bytes());
}

fn opening(segment: SegmentId) -> Opening {
    Opening { salt: [8; 16], value: "order/o2".into(), segment }
}

fn block(org: OrgId, segment: SegmentId) -> VerdictBlock {
    let open = Arg { name: "field".into(), value: ArgValue::Open("number".into()) };
    let sealed = Arg { name: "record".into(), value: ArgValue::Sealed(opening(segment).seal()) };
    let reason = Reason {
        id: "unique".into(),
        rule: None,
        fields: vec!["number".into()],
        args: vec![open, sealed],
    };
    let culprit = Culprit {
        hash: ChangeHash([5; 32]),
        actor: actor(),
        seq: 4,
        person: "ann".into(),
        time: 1_700_000_000_000,
        fields: vec!["number".into()],
    };
    let verdict = Verdict {
        id: RecordId::new("o1").expect("an id"),
        outcome: Outcome::Held,
        record: RecordHash([6; 32]),
        reasons: vec![reason],
        culprits: vec![culprit],
        last_valid: Some(LastValid { heads: vec![ChangeHash([4; 32])], json: "{}".into() }),
    };
    let (epoch, heads) = (epoch(), vec![ChangeHash([5; 32])]);
    let (number, catalog, pos) = (9, 3, 12);
    VerdictBlock { org, segment, epoch, number, catalog, pos, heads, verdicts: vec![verdict] }
}

/// Changes, the record that they make, and a batch of them.
fn documents(golden: &mut Golden) {
    let mut document = Document::default();
    let id = RecordId::new("o1").expect("an id");
    let edits = [
        vec![
            Edit::Put("customer".into(), Scalar::Str("c1".into())),
            Edit::Put("price".into(), Scalar::Int(100)),
            Edit::Put("share".into(), Scalar::Float(0.25)),
            Edit::Put("paid".into(), Scalar::Bool(true)),
            Edit::Add("stock".into(), 3),
            Edit::Text("note".into(), "as agreed".into()),
            Edit::Json("shape".into(), r#"{"b":[1,2]}"#.into()),
            Edit::Child(
                "lines".into(),
                "p1".into(),
                vec![Edit::Put("quantity".into(), Scalar::Int(2))],
            ),
        ],
        vec![Edit::Put("price".into(), Scalar::Int(90)), Edit::Add("stock".into(), -1)],
    ];
    let mut chunks = Vec::new();
    for (time, edits) in (1_700_000_000_000..).zip(edits) {
        let author = Author { actor: actor(), person: "ann".into(), time };
        let written = document.write(&author, &id, &RecordEdit::from(edits));
        chunks.push(written.expect("it can be written").expect("it changes something"));
    }
    for (number, written) in chunks.iter().enumerate() {
        golden.add(&format!("change-{number}"), &written.chunk);
        golden.add(&format!("canonical-{number}"), written.record.canonical().as_bytes());
    }
    let bytes: Vec<&[u8]> = chunks.iter().map(|written| written.chunk.as_slice()).collect();
    let batch = batch::encode(&bytes, 3);
    assert_eq!(batch::decode(&batch, 1 << 20).expect("it decodes"), bytes);
    golden.add("batch", &batch);
}

/// What offers are made of; the frames have golden files of their own.
fn offers(golden: &mut Golden) {
    let entry = OfferEntry {
        segment: [1; 8],
        chain: [2; 8],
        pos: 300,
        own_seq: 5,
        verdict: 7,
        judged: 298,
    };
    golden.add("offer-entry", &Offer::new(epoch(), 1, [0; 16], &[entry]).entries);
    let cursor = (SegmentId([1; 16]), 300, Chain([2; 16]), 7, 298);
    golden.add("root", &root(epoch(), 3, [cursor]));
}

/// A bundle: its header, a frame, and what ends it.
fn bundles(golden: &mut Golden) {
    let header = bundle::Header {
        org: OrgId([7; 16]),
        from: keys().public(),
        to: Seed([2; 32]).signing().public(),
        created: 1_700_000_000_000,
        epoch: epoch(),
        catalog: 3,
        members: 4,
        members_sum: [6; 16],
        since: Some(bundle::Digest([8; 32])),
    };
    let mut bytes = Vec::new();
    let mut writer = bundle::Writer::new(&mut bytes, &header).expect("memory");
    let meet = Meet { segments: Vec::new(), whole: false };
    writer.frames(&Frame::Meet(meet).encode()).expect("memory");
    writer.finish(&keys()).expect("memory");
    golden.add("bundle", &bytes);
    assert_eq!(bundle::Survey::of(&bytes[..]).expect("it is sound").header, header);
}

fn batch_of(hex: &str) -> Vec<Vec<u8>> {
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16);
    let bytes: Vec<u8> = digits.map(|pair| byte(pair).expect("hexadecimal")).collect();
    batch::decode(&bytes, 1 << 20).expect("it decodes")
}

/// What is asked of a relay, and what comes of it.
fn calls(golden: &mut Golden) {
    let record: RecordKey = "order/7".parse().expect("a key");
    let within = vec![Edit::Add("boxes".into(), -3), Edit::Clear("note".into())];
    let edits = vec![
        Edit::Put("paid".into(), Scalar::Bool(true)),
        Edit::Put("total".into(), Scalar::Int(-5)),
        Edit::Put("weight".into(), Scalar::Float(0.5)),
        Edit::Put("name".into(), Scalar::Str("tea".into())),
        Edit::Json("tags".into(), "[1]".into()),
        Edit::Text("note".into(), "two\nlines".into()),
        Edit::Child("lines".into(), "1".into(), within),
        Edit::RemoveChild("lines".into(), "2".into()),
    ];
    let edit = RecordEdit { edits, deleted: Some(false) };
    let expected = RecordHash([6; 32]);
    let edit = Wish::Edit { record: record.clone(), expected, edit };
    let action = Wish::Action { name: "confirm".into(), input: "{\"order\":\"7\"}".into() };
    for (name, wish) in [("intent_edit", edit), ("intent_action", action)] {
        let (org, epoch, nonce) = (OrgId([7; 16]), Epoch { counter: 2, salt: [9; 8] }, [8; 16]);
        let intent = Intent { org, device: 3, number: 9, wish, nonce, epoch };
        let signed = Signed::new(intent::CONTEXT, &intent, &keys());
        golden.add(name, &signed.bytes);
        golden.add(&format!("{name}_id"), intent::call_id(&signed).as_bytes());
    }
    let segment = address().id(&OrgId([7; 16]));
    let effects = vec![CallEffect { record, segment, pos: 12 }];
    golden.add("outcome_done", &cbor!(CallOutcome::Done { effects, answer: None }));
    let (refusal, reason) = (Refusal::Unmet, "no".to_owned());
    golden.add("outcome_refused", &cbor!(CallOutcome::Refused { refusal, reason }));
    golden.add("outcome_stale", &cbor!(CallOutcome::Stale(9)));
    golden.add("outcome_lost", &cbor!(CallOutcome::Lost));
}

/// The manifest of a backup, and what a relay notes of one.
fn backups(golden: &mut Golden) {
    let part = |name: &str, bytes| {
        let blake3 = blake3::hash(name.as_bytes()).to_hex().to_string();
        Part { name: name.to_owned(), bytes, blake3 }
    };
    let mut manifest = Manifest::of(7, 1_772_323_200_000, part("fieldkeep.db", 4_096));
    manifest.version = "1.2.3".to_owned();
    manifest.organisation = OrgId([7; 16]).to_string();
    manifest.name = "acme".to_owned();
    (manifest.epoch, manifest.catalog, manifest.members) = (2, 3, 4);
    (manifest.segments, manifest.changes, manifest.records) = (5, 6, 7);
    manifest.logs = blake3::hash(b"logs").to_hex().to_string();
    manifest.files = vec![part("key", 68)];
    let lacking = vec![blake3::hash(b"a photo").to_hex().to_string()];
    let blake3 = blake3::hash(b"files").to_hex().to_string();
    manifest.attached = Attached { files: 1, bytes: 9, blake3, lacking };
    golden.add("backup-manifest", &manifest.to_bytes());
    assert_eq!(Manifest::read(&manifest.to_bytes()), Some(manifest));
    let noted = LastBackup { taken: 1_772_323_200_000, folder: "/backups".to_owned(), number: 7 };
    golden.add("backup-noted", &cbor!(noted));
}

#[test]
fn what_is_on_disks_and_wires_does_not_change() {
    let mut golden = Golden(String::new());
    ids(&mut golden);
    statements(&mut golden);
    documents(&mut golden);
    offers(&mut golden);
    calls(&mut golden);
    bundles(&mut golden);
    papers(&mut golden);
    backups(&mut golden);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats.txt");
    if std::env::var_os("FIELDKEEP_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, &golden.0).expect("the file is written");
    }
    let kept = std::fs::read_to_string(&path).expect("the golden bytes");
    for (now, kept) in golden.0.lines().zip(kept.lines()) {
        if let (Some(now), Some(kept)) = (now.strip_prefix("batch "), kept.strip_prefix("batch ")) {
            // Another zstd may write other bytes; what was written must be read.
            assert_eq!(batch_of(kept), batch_of(now), "a batch is not read as it was written");
            continue;
        }
        assert_eq!(now, kept, "a format changed: what others have written cannot be read any more");
    }
    assert_eq!(golden.0.lines().count(), kept.lines().count(), "a format was added or taken away");
}
