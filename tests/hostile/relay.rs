//! What a relay gets that proves the right key and lies: the device ends the session with a code
//! and stores nothing of it, and syncs with an honest relay afterwards.

use crate::support::lab::{Renamed, header, vouched};
use crate::support::wire::{Raw, Wire, hello};
use crate::support::{Logs, PATIENCE, Site, get, logs, put, soon, state, sync};
use fieldkeep_device::{Device, SyncError};
use fieldkeep_documents::batch;
use fieldkeep_lab::hostile::Stage;
use fieldkeep_link::{Endpoint, KeyFile, Limits, Role};
use fieldkeep_model::membership::{Act, CONTEXT, Entry, MemberKeys};
use fieldkeep_model::{
    Chain, ChangeHeader, Epoch, KeyPair, MembershipLog, RecordId, Seed, SegmentAddress, Signed,
    SignedHead, TypeName, Verdict, VerdictBlock, VersionVector, verdict,
};
use fieldkeep_protocol::frame::{
    CatalogFile, Delta, Frame, Hello, Members, OfferAnswer, OfferReply, Proof, Run, SegmentRef,
    Standing, Verdicts,
};
use fieldkeep_protocol::{Code, VERSION};
use fieldkeep_replica::{Integrity, ReplicaError};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.order]
[type.order.field.note]
"#;

fn orders() -> SegmentAddress {
    let ty = TypeName::new("order").expect("a name");
    SegmentAddress { ty, scope: String::new(), buckets: 1, bucket: 0, generation: 0 }
}

/// A device, a member whose key signs what the relay makes up, and the relay's own key in other
/// hands.
struct Captured {
    site: Site,
    ann: Device,
    mallory: Raw,
    mia: Raw,
    members: MembershipLog,
    epoch: Epoch,
    seed: Seed,
    endpoint: Endpoint,
}

/// An endpoint at an address that somebody is about to leave.
async fn bound(address: std::net::SocketAddr, seed: &Seed) -> Endpoint {
    let bound = async {
        loop {
            match Endpoint::bind(address, &seed.tls(), Limits::RELAY) {
                Ok(endpoint) => return endpoint,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    soon("the address is free", bound).await
}

/// Everything that a lie could have changed.
#[derive(Debug, PartialEq)]
struct Stored {
    logs: Logs,
    members: u64,
    catalog: Option<u64>,
    state: String,
    unsaved: usize,
}

impl Captured {
    async fn relay() -> Self {
        let mut site = Site::founded(CATALOG);
        let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
        let mia = Raw::joined(&site.ticket("mia").await, 102).await;
        let ann = site.device("ann").await;
        put(&ann, "customer/c1", json!({"name": "Kiosk"}));
        sync(&ann).await;
        put(&ann, "customer/c2", json!({"name": "Corner"}));
        let members = site.members().await;
        let epoch = site.ask(|engine| engine.replica().epoch()).await;
        let address = site.address();
        site.stop().await;
        let key = fieldkeep_store::home::key(&site.path("relay"));
        let seed = KeyFile::open(key).expect("the relay's key");
        let endpoint = bound(address, &seed).await;
        Self { site, ann, mallory, mia, members, epoch, seed, endpoint }
    }

    fn stored(&self) -> Stored {
        let unsaved = self.ann.progress().expect("it reads").waiting;
        Stored {
            logs: logs(&self.ann),
            members: self.ann.members().len(),
            catalog: self.catalog(),
            state: state(&self.ann, "customer/c1"),
            unsaved: unsaved as usize,
        }
    }

    fn catalog(&self) -> Option<u64> {
        let number = self.ann.with_replica(|replica| {
            Ok::<_, ReplicaError>(replica.published().map(|published| published.number))
        });
        number.expect("it reads")
    }

    fn welcome(&self) -> Hello {
        let members = self.members.len();
        let catalog = self.catalog().unwrap_or_default();
        let known = Hello {
            members,
            members_tip: self.members.tip(),
            members_sum: self.members.sum().to_be_bytes(),
            catalog,
            ..hello(self.members.org())
        };
        Hello { versions: vec![VERSION], epoch: self.epoch, ..known }
    }

    /// The device syncs; this is the other end, with the introductions made.
    async fn called(&self) -> (Wire, tokio::task::JoinHandle<Result<(), SyncError>>) {
        let ann = self.ann.clone();
        let syncing = tokio::spawn(async move { ann.sync(PATIENCE).await.map(drop) });
        let incoming = soon("a call", self.endpoint.accept()).await.expect("the endpoint lives");
        let connection = soon("a handshake", incoming.handshake()).await.expect("it is ann");
        let mut wire = Wire::over(connection, Role::Acceptor, None);
        wire.until(|frame| matches!(frame, Frame::Hello(_)).then_some(())).await;
        wire.say(&Frame::Welcome(Box::new(self.welcome()))).await;
        (wire, syncing)
    }

    /// Says frames to the device, which must end the session with that code and keep nothing.
    async fn refused(&self, name: &str, frames: &[Frame], code: Code) {
        let before = self.stored();
        let (mut wire, syncing) = self.called().await;
        for frame in frames {
            wire.say(frame).await;
        }
        assert_eq!(wire.closed().await, Some(code), "{name}");
        let synced = syncing.await.expect("the device does not panic");
        assert!(matches!(synced, Err(SyncError::Cut(_))), "{name}: {synced:?}");
        assert_eq!(self.stored(), before, "{name}");
    }

    /// The honest relay comes back, and everything goes on.
    async fn given_back(mut self) {
        self.endpoint.close(0, "");
        soon("the endpoint drains", self.endpoint.drained()).await;
        drop(self.endpoint);
        self.site.start_again().await;
        sync(&self.ann).await;
        assert_eq!(state(&self.ann, "customer/c2"), "valid");
        assert_eq!(logs(&self.ann), self.site.log().await);
    }

    fn stretch(
        &self,
        first: u64,
        before: Chain,
        chunks: &[&[u8]],
        heads: Vec<SignedHead>,
    ) -> Delta {
        let hash = |chunk: &&[u8]| ChangeHeader::parse(chunk).map(|header| header.hash).ok();
        let hashes = chunks.iter().filter_map(hash);
        Delta {
            segment: SegmentRef { id: orders().id(&self.members.org()), address: Some(orders()) },
            first,
            runs: vec![Run::Sent(chunks.len() as u64)],
            batch: batch::encode(chunks, 3),
            heads,
            chain: hashes.fold(before, |chain, hash| chain.extend(&hash)),
            epoch: self.epoch,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_passes_hostile_changes_on_is_left_and_nothing_of_it_stays() {
    let captured = Captured::relay().await;
    let authors = [&captured.mallory, &captured.mia];
    let stage = Stage::set();
    let mut renamed = Renamed::new(&authors);
    let beginning: Vec<_> = stage.beginning.iter().map(|chunk| renamed.chunk(chunk)).collect();
    let chunks: Vec<&[u8]> = beginning.iter().map(Vec::as_slice).collect();
    for row in stage.hostile() {
        let chunk = if row.stage == 0 { row.chunk } else { renamed.chunk(&row.chunk) };
        let with: Vec<&[u8]> = chunks.iter().copied().chain([&chunk[..]]).collect();
        let mut heads = vouched(&authors, &orders(), chunks[1]);
        heads.extend(vouched(&authors, &orders(), &chunk));
        let code = match row.code {
            // Two changes of one author that do not follow each other need no gate.
            "known" | "fork" | "seq" | "start-op" | "missing-deps" => None,
            _ => Some(Code::Refused),
        };
        let frame = Frame::Delta(captured.stretch(1, Chain::START, &with, heads));
        let before = captured.stored();
        let (mut wire, syncing) = captured.called().await;
        wire.say(&frame).await;
        let closed = wire.closed().await;
        match code {
            Some(code) => assert_eq!(closed, Some(code), "{}", row.name),
            None => assert!(
                matches!(closed, Some(Code::Refused | Code::Unvouched | Code::Unchained)),
                "{}: {closed:?}",
                row.name
            ),
        }
        let synced = syncing.await.expect("the device does not panic");
        assert!(matches!(synced, Err(SyncError::Cut(_))), "{}: {synced:?}", row.name);
        assert_eq!(captured.stored(), before, "{}", row.name);
    }
    captured.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_contradicts_its_own_log_is_left() {
    let captured = Captured::relay().await;
    let authors = [&captured.mallory, &captured.mia];
    let stage = Stage::set();
    let mut renamed = Renamed::new(&authors);
    let beginning: Vec<_> = stage.beginning.iter().map(|chunk| renamed.chunk(chunk)).collect();
    let chunks: Vec<&[u8]> = beginning.iter().map(Vec::as_slice).collect();
    let heads = vouched(&authors, &orders(), chunks[1]);
    let first = captured.stretch(1, Chain::START, &chunks, heads.clone());
    let chain = first.chain;
    let (mut wire, syncing) = captured.called().await;
    let id = first.segment.id;
    wire.say(&Frame::Delta(first)).await;
    wire.until(|frame| {
        let Frame::Credit(credit) = frame else { return None };
        (credit.segment == id && credit.pos == 2).then_some(())
    })
    .await;
    wire.sender.close(Code::GoingAway.number(), "for now");
    let _ = syncing.await.expect("the device does not panic");

    for row in stage.hostile().into_iter().filter(|row| row.stage == 2) {
        let chunk = renamed.chunk(&row.chunk);
        let heads = vouched(&authors, &orders(), &chunk);
        let before = captured.stored();
        let (mut wire, syncing) = captured.called().await;
        wire.say(&Frame::Delta(captured.stretch(3, chain, &[&chunk], heads))).await;
        let closed = wire.closed().await;
        assert!(
            matches!(closed, Some(Code::Refused | Code::Unchained)),
            "{}: {closed:?}",
            row.name
        );
        let _ = syncing.await.expect("the device does not panic");
        assert_eq!(captured.stored(), before, "{}", row.name);
    }
    let known = Delta {
        runs: vec![Run::Known(captured.mallory.actor(), 1, 1)],
        ..captured.stretch(3, chain, &[], Vec::new())
    };
    let known = Delta { chain: chain.extend(&header(chunks[0]).hash), ..known };
    captured.refused("an entry twice", &[Frame::Delta(known)], Code::Unchained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_log_nobody_vouches_for_or_does_not_continue_is_left() {
    let captured = Captured::relay().await;
    let authors = [&captured.mallory, &captured.mia];
    let stage = Stage::set();
    let mut renamed = Renamed::new(&authors);
    let chunk = renamed.chunk(&stage.beginning[0]);
    let honest = || {
        let heads = vouched(&authors, &orders(), &chunk);
        captured.stretch(1, Chain::START, &[&chunk], heads)
    };
    let elsewhere = SegmentAddress { scope: "42".into(), ..orders() };
    let other_id =
        SegmentRef { id: elsewhere.id(&captured.members.org()), address: Some(orders()) };
    let mut foreign = vouched(&authors, &orders(), &chunk);
    foreign[0].signature.0[3] ^= 1;
    for (name, delta, code) in [
        ("no head", Delta { heads: Vec::new(), ..honest() }, Code::Unvouched),
        ("an altered signature", Delta { heads: foreign, ..honest() }, Code::Unvouched),
        ("another chain", Delta { chain: Chain([9; 16]), ..honest() }, Code::Unchained),
        ("a gap", Delta { first: 2, ..honest() }, Code::Unchained),
        ("the end of positions", Delta { first: u64::MAX, ..honest() }, Code::Unchained),
        ("fewer entries than changes", Delta { runs: Vec::new(), ..honest() }, Code::Malformed),
        (
            "more entries than there are",
            Delta { runs: vec![Run::Sent(u64::MAX)], ..honest() },
            Code::Malformed,
        ),
        (
            "entries that nobody holds",
            Delta {
                runs: vec![Run::Known(captured.mallory.actor(), 1, 1 << 19), Run::Sent(1)],
                ..honest()
            },
            Code::Unchained,
        ),
        ("another segment's address", Delta { segment: other_id, ..honest() }, Code::Malformed),
        ("no batch", Delta { batch: vec![7; 30], ..honest() }, Code::Malformed),
    ] {
        captured.refused(name, &[Frame::Delta(delta)], code).await;
    }
    let nobody = Raw { seed: Seed([9; 32]), number: 77, ..captured.mallory.clone() };
    let mut renamed = Renamed::new(&[&nobody]);
    let chunk = renamed.chunk(&stage.beginning[0]);
    let heads = vouched(&[&nobody], &orders(), &chunk);
    let delta = Frame::Delta(captured.stretch(1, Chain::START, &[&chunk], heads));
    let many = vec![delta; 65];
    captured.refused("authors who never come", &many, Code::Unvouched).await;
    captured.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_relay_did_not_sign_are_not_believed() {
    let captured = Captured::relay().await;
    let org = captured.members.org();
    let customers = SegmentAddress { ty: TypeName::new("customer").expect("a name"), ..orders() };
    let segment = customers.id(&org);
    let relay = captured.members.by_tls(&captured.seed.tls().public()).expect("a relay").number;
    let block = |segment| VerdictBlock {
        org,
        segment,
        epoch: captured.epoch,
        number: 9,
        catalog: 1,
        pos: 1,
        heads: Vec::new(),
        verdicts: vec![Verdict {
            id: RecordId::new("c1").expect("an id"),
            outcome: fieldkeep_model::Outcome::Held,
            record: fieldkeep_model::RecordHash([0; 32]),
            reasons: Vec::new(),
            culprits: Vec::new(),
            last_valid: None,
        }],
    };
    let verdicts = |relay, of, keys: &KeyPair| {
        let blocks = vec![Signed::new(verdict::CONTEXT, &block(of), keys)];
        Frame::Verdicts(Verdicts { segment, relay, blocks, openings: Vec::new() })
    };
    let (own, other) = (captured.seed.signing(), captured.mallory.seed.signing());
    let elsewhere = orders().id(&org);
    for (name, frame) in [
        ("signed by a device", verdicts(captured.mallory.number, segment, &other)),
        ("signed by a device, said to be the relay's", verdicts(relay, segment, &other)),
        ("signed by nobody who is known", verdicts(99, segment, &own)),
        ("of another segment", verdicts(relay, elsewhere, &own)),
    ] {
        captured.refused(name, &[frame], Code::Unvouched).await;
    }
    let entry = |act, keys: &KeyPair| {
        let entry = Entry { previous: captured.members.tip(), act };
        let entries = vec![Signed::new(CONTEXT, &entry, keys)];
        Frame::Members(Members { base: captured.members.len(), entries })
    };
    let keys = MemberKeys::of(&Seed([5; 32]));
    let enrolled = entry(Act::Relay { keys, name: "relay".into() }, &own);
    captured.refused("a captured relay enrols nobody", &[enrolled], Code::Membership).await;
    let joined = entry(Act::Join { invite: 2, keys }, &own);
    captured.refused("nor joins by a used invitation", &[joined], Code::Membership).await;
    let notice = Signed::new("fieldkeep 1 catalog", &1u64, &own);
    let source = "catalog = 1\n[type.order]\n".to_owned();
    let catalog = Frame::Catalog(CatalogFile { notice, source });
    captured.refused("a catalog without a statement", &[catalog], Code::Unvouched).await;
    captured.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organisation_behind_the_right_key_is_left() {
    let captured = Captured::relay().await;
    let ann = captured.ann.clone();
    let syncing = tokio::spawn(async move { ann.sync(PATIENCE).await.map(drop) });
    let incoming = soon("a call", captured.endpoint.accept()).await.expect("the endpoint lives");
    let connection = soon("a handshake", incoming.handshake()).await.expect("it is ann");
    let mut wire = Wire::over(connection, Role::Acceptor, None);
    let mut welcome = captured.welcome();
    welcome.org.0[0] ^= 1;
    wire.until(|frame| matches!(frame, Frame::Hello(_)).then_some(())).await;
    wire.say(&Frame::Welcome(Box::new(welcome))).await;
    assert_eq!(wire.closed().await, Some(Code::ForeignOrganisation));
    drop(wire);
    let synced = syncing.await.expect("the device does not panic");
    assert!(matches!(synced, Err(SyncError::Denied(_))), "{synced:?}");
    captured.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_at_the_relays_address_is_not_spoken_to() {
    let mut captured = Captured::relay().await;
    captured.endpoint.close(0, "");
    soon("the endpoint drains", captured.endpoint.drained()).await;
    let address = captured.site.address();
    let local = "127.0.0.1:0".parse().expect("an address");
    let elsewhere = Endpoint::bind(local, &captured.seed.tls(), Limits::RELAY).expect("it binds");
    drop(std::mem::replace(&mut captured.endpoint, elsewhere));
    let impostor = bound(address, &Seed([8; 32])).await;
    let accepting = tokio::spawn(async move {
        if let Some(incoming) = impostor.accept().await {
            let _ = incoming.handshake().await;
        }
        impostor
    });
    let synced = captured.ann.sync(PATIENCE).await;
    assert!(matches!(synced, Err(SyncError::Another(at)) if at == address), "{synced:?}");
    let impostor = accepting.await.expect("it does not panic");
    impostor.close(0, "");
    soon("the endpoint drains", impostor.drained()).await;
    drop(impostor);
    captured.given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_says_it_lost_is_unsaved_until_it_has_a_receipt_again() {
    let captured = Captured::relay().await;
    let customers = SegmentAddress { ty: TypeName::new("customer").expect("a name"), ..orders() };
    let id = customers.id(&captured.members.org());
    let unsaved = || get(&captured.ann, "customer/c1").expect("it is there").unsaved;
    assert!(!unsaved(), "it had a receipt");
    let (mut wire, syncing) = captured.called().await;
    let lost = OfferAnswer {
        segment: SegmentRef { id, address: None },
        standing: Standing::Reset,
        tip: 0,
        own_seq: 0,
        vector: Some(VersionVector::default()),
        own_hash: None,
    };
    let epoch = Epoch { counter: captured.epoch.counter + 1, ..captured.epoch };
    let reply = OfferReply { epoch, root: [0; 16], segments: vec![lost], round: 1 };
    wire.say(&Frame::OfferReply(reply)).await;
    wire.until(|frame| matches!(frame, Frame::Vector(_)).then_some(())).await;
    assert!(unsaved(), "the relay does not have it");
    drop(wire);
    let _ = syncing.await.expect("the device does not panic");
    assert!(unsaved(), "nor has it now");
    let ann = captured.ann.clone();
    captured.given_back().await;
    assert!(!get(&ann, "customer/c1").expect("it is there").unsaved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_not_equal_is_told() {
    let captured = Captured::relay().await;
    let customers = SegmentAddress { ty: TypeName::new("customer").expect("a name"), ..orders() };
    let segment = customers.id(&captured.members.org());
    let (mut wire, syncing) = captured.called().await;
    let root = [0; 16];
    let reply = OfferReply { epoch: captured.epoch, root, segments: Vec::new(), round: 1 };
    wire.until(|frame| matches!(frame, Frame::Push(_)).then_some(())).await;
    wire.say(&Frame::Proof(Proof { segment, pos: 1, heads: [1; 32], records: 1, rows: [0; 16] }))
        .await;
    wire.say(&Frame::OfferReply(reply)).await;
    assert_eq!(wire.closed().await, Some(Code::Done));
    let synced = syncing.await.expect("the device does not panic");
    assert!(matches!(synced, Err(SyncError::Integrity(Integrity::Records(_)))), "{synced:?}");
    drop(wire);
    captured.given_back().await;
}
