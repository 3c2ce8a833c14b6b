//! What bad input gets, over real sessions: a refusal with its stage and code, or a closed
//! connection with its code; nothing of it is forwarded, the relay lives, and honest devices go on.

mod support;

use std::io::Write as _;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc};
use fieldkeep_lab::Dice;
use fieldkeep_lab::hostile::Stage;
use fieldkeep_model::header::write_uleb;
use fieldkeep_model::membership::{Act, CONTEXT, Entry, MemberKeys, admission};
use fieldkeep_model::{
    ActorId, Epoch, Grant, KeyPair, Seed, SegmentAddress, Signed, TypeName, VerdictBlock, verdict,
};
use fieldkeep_protocol::frame::{Credit, Frame, Members, Nack, Push, Standing};
use fieldkeep_protocol::{BATCH, Code, Offer, OfferEntry, WINDOW};
use fieldkeep_store::Log as _;
use serde_json::json;
use support::lab::{Renamed, header, vouched};
use support::wire::{Answer, Raw, application, hello};
use support::{Connected, Site, fields, get, length, logs, put, reaches, state, sync};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.order]
[type.order.field.note]
[type.order.field.price]
schema = { type = "integer" }
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.remark]
[type.visit.field.guests]
schema = { type = "integer" }
[[type.visit.rule]]
name = "guests"
cel = "!has(record.guests) || record.guests < 100"
reason = "no outlet has room for 100"
"#;

fn address(ty: &str, scope: &str) -> SegmentAddress {
    let ty = TypeName::new(ty).expect("a name");
    SegmentAddress { ty, scope: scope.into(), buckets: 1, bucket: 0, generation: 0 }
}

/// A site with an honest device that stays connected, and two members that will misbehave.
struct Town {
    site: Site,
    ben: fieldkeep_device::Device,
    _connected: Connected,
    mallory: Raw,
    mia: Raw,
}

impl Town {
    async fn peopled() -> Self {
        let site = Site::founded(CATALOG);
        let ben = site.device("ben").await;
        let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
        let mia = Raw::joined(&site.ticket("mia").await, 102).await;
        put(&ben, "customer/first", json!({"name": "Kiosk"}));
        let connected = Connected::new(&ben);
        reaches(&ben, "customer/first", "valid").await;
        Self { site, ben, _connected: connected, mallory, mia }
    }

    /// Another device captures and syncs, and the one that was connected all along receives it.
    async fn goes_on(&self, name: &str) {
        let device = self.site.device(name).await;
        let key = format!("customer/{name}");
        put(&device, &key, json!({"name": name}));
        sync(&device).await;
        assert_eq!(state(&device, &key), "valid");
        reaches(&self.ben, &key, "valid").await;
        assert_eq!(logs(&self.ben), self.site.log().await, "the logs are the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hostile_change_is_refused_at_its_stage_and_nothing_of_it_is_forwarded() {
    let town = Town::peopled().await;
    let segment = address("order", "");
    let stage = Stage::set();
    let members = [&town.mallory, &town.mia];
    let mut renamed = Renamed::new(&members);
    let beginning: Vec<_> = stage.beginning.iter().map(|chunk| renamed.chunk(chunk)).collect();
    let mut wire = town.mallory.following().await;
    let chunks: Vec<&[u8]> = beginning.iter().map(Vec::as_slice).collect();
    let answer = wire.answer(town.mallory.own_push(&segment, &chunks)).await;
    assert_eq!(answer, Answer::Taken, "the beginning is honest");

    let mut wrong = Vec::new();
    for row in stage.hostile() {
        let chunk = if row.stage == 0 { row.chunk } else { renamed.chunk(&row.chunk) };
        let heads = vouched(&members, &segment, &chunk);
        let answer = wire.answer(town.mallory.push(&segment, &[&chunk], heads)).await;
        // What the relay holds already gets its receipt again.
        let known = row.code == "known" && answer == Answer::Taken;
        if !known && answer != Answer::refused(row.stage, row.code) {
            wrong.push(format!("{}: {answer:?}, not {} {}", row.name, row.stage, row.code));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(length(&town.site.log().await, "order"), 2);
    town.goes_on("ann").await;
    assert_eq!(length(&logs(&town.ben), "order"), 2, "only the honest beginning was forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_changes_for_a_scope_that_was_not_granted_harm_nobody() {
    let site = Site::founded(CATALOG);
    let grant =
        Grant { ty: Some(TypeName::new("visit").expect("a name")), scope: Some("42".into()) };
    let mallory = Raw::joined(&site.invited("mallory", vec![grant], i64::MAX).await, 101).await;
    let ben = site.device("ben").await;
    let segment = address("order", "");
    let stage = Stage::set();
    let members = [&mallory];
    let mut renamed = Renamed::new(&members);
    let mut wire = mallory.following().await;
    for chunk in stage.beginning.iter().map(|chunk| renamed.chunk(chunk)).collect::<Vec<_>>() {
        let push = mallory.own_push(&segment, &[&chunk]);
        assert_eq!(wire.answer(push).await, Answer::refused(1, "not-permitted"));
    }
    for row in stage.hostile().into_iter().filter(|row| row.stage > 0) {
        let chunk = renamed.chunk(&row.chunk);
        let heads = vouched(&members, &segment, &chunk);
        let answer = wire.answer(mallory.push(&segment, &[&chunk], heads)).await;
        assert_ne!(answer, Answer::Taken, "{}", row.name);
    }
    put(&ben, "order/o1", json!({"note": "honest"}));
    sync(&ben).await;
    assert_eq!(state(&ben, "order/o1"), "valid");
    assert_eq!(length(&logs(&ben), "order"), 1);
    site.ask(|engine| assert_eq!(engine.connections(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_a_member_and_a_signature_of_its_author() {
    let town = Town::peopled().await;
    let segment = address("order", "");
    let id = segment.id(&town.mallory.org);
    let make = |actor: ActorId, note: &str| {
        let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from(actor.0));
        let record = doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
        doc.put(&record, "note", note).expect("it writes");
        committed(&mut doc)
    };
    let nobody = Raw { seed: Seed([9; 32]), number: 77, ..town.mallory.clone() };
    let (mallory, mia) = (&town.mallory, &town.mia);
    let own = make(mallory.actor(), "mine");
    let other = make(mia.actor(), "hers, says mallory");
    let unknown = make(nobody.actor(), "nobody's");
    // Mia's number, mallory's key.
    let stolen = ActorId::new(mia.number, 0, &mallory.seed.signing().public());
    let stolen = make(stolen, "hers, signed by mallory");
    let vouch = |raw: &Raw, chunk: &[u8]| raw.vouch(&id, &header(chunk));
    let elsewhere = mallory.vouch(&address("customer", "").id(&mallory.org), &header(&own));
    let mut later = vouch(mallory, &own);
    later.head.seq = 2;
    let foreign = Raw { org: fieldkeep_model::OrgId([7; 16]), ..mallory.clone() };
    let mut wire = mallory.following().await;
    for (name, chunk, heads, code) in [
        ("an actor that no member has", &unknown, vec![vouch(&nobody, &unknown)], "unknown-author"),
        (
            "a member's number with another key",
            &stolen,
            vec![vouch(mallory, &stolen)],
            "unknown-author",
        ),
        ("no head", &own, vec![], "unvouched"),
        (
            "another member's change, signed by the carrier",
            &other,
            vec![vouch(mallory, &other)],
            "unvouched",
        ),
        ("the head of another change", &own, vec![vouch(mallory, &other)], "unvouched"),
        ("a head for another segment", &own, vec![elsewhere], "unvouched"),
        ("a head for another organisation", &own, vec![vouch(&foreign, &own)], "unvouched"),
        ("a head whose seq was altered", &own, vec![later], "unvouched"),
    ] {
        let answer = wire.answer(mallory.push(&segment, &[chunk], heads)).await;
        assert_eq!(answer, Answer::refused(1, code), "{name}");
    }
    let twice = make(mallory.actor(), "mine again");
    let heads = vec![vouch(mallory, &twice)];
    let answer = wire.answer(mallory.push(&segment, &[&own, &twice], heads)).await;
    assert_eq!(answer, Answer::refused(1, "unchained"), "two first changes of one actor");
    assert_eq!(length(&town.site.log().await, "order"), 0);
    // Carried by another member but vouched for by its author: that is how changes travel.
    let answer = wire.answer(mallory.push(&segment, &[&other], vec![vouch(mia, &other)])).await;
    assert_eq!(answer, Answer::Taken);
    town.goes_on("ann").await;
}

/// What was written since the last time, as a change.
fn committed(doc: &mut AutoCommit) -> Vec<u8> {
    doc.commit_with(CommitOptions::default().with_time(1).with_message("mallory"));
    doc.get_last_local_change().expect("something was written").raw_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frames_end_their_own_session_with_a_code() {
    let town = Town::peopled().await;
    let credit =
        Frame::Credit(Credit { segment: address("order", "").id(&town.mallory.org), pos: 1 });
    let cut = credit.encode();
    let overlong = vec![0x80; 6];
    let huge = [vec![15], vec![0xff, 0xff, 0xff, 0x7f], vec![0; 100]].concat();
    let garbled = [&[23, 3][..], b"abc"].concat();
    let trailing = [&[31u8, 4][..], &[0xf6, 0, 0, 0]].concat();
    let welcome = Frame::Welcome(Box::new(hello(town.mallory.org))).encode();
    for (name, bytes, finish, code) in [
        ("a frame cut short", cut[..cut.len() - 1].to_vec(), true, Code::Malformed),
        ("a number without end", overlong, false, Code::Malformed),
        ("a frame of 256 MiB", huge, false, Code::TooLong),
        ("a body that is none", garbled, false, Code::Malformed),
        ("bytes behind a body", trailing, false, Code::Malformed),
        ("a frame nobody knows", vec![101, 0], false, Code::UnknownFrame),
        ("what only a device may hear", welcome, false, Code::OutOfOrder),
        (
            "a second introduction",
            Frame::Hello(Box::new(hello(town.mallory.org))).encode(),
            false,
            Code::OutOfOrder,
        ),
    ] {
        let mut wire = town.mallory.following().await;
        wire.bytes(7, bytes).await;
        if finish {
            wire.sender.finish(7);
        }
        assert_eq!(wire.closed().await, Some(code), "{name}");
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_frames_end_nothing_but_their_own_session() {
    const SEED: u64 = 41;
    println!("seed {SEED}");
    let town = Town::peopled().await;
    let mut dice = Dice::seeded(SEED);
    for round in 0..40u8 {
        let mut wire = match round % 2 {
            0 => town.mallory.following().await,
            _ => town.mallory.dial().await,
        };
        let mut bytes = Vec::new();
        let number = (round / 2 * 2) as u64 + u64::from(dice.below(8) != 0);
        let length = dice.below(300);
        write_uleb(&mut bytes, number);
        write_uleb(&mut bytes, length as u64);
        bytes.extend((0..length).map(|_| dice.below(256) as u8));
        bytes.push(101);
        bytes.push(0);
        wire.bytes(0, bytes).await;
        let code = wire.closed().await.expect("a code is given");
        assert!(
            [Code::Malformed, Code::UnknownFrame, Code::OutOfOrder].contains(&code),
            "frame {number}: {code:?}"
        );
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutilated_frames_end_nothing_but_their_own_session() {
    const SEED: u64 = 43;
    println!("seed {SEED}");
    let town = Town::peopled().await;
    let mut dice = Dice::seeded(SEED);
    let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from(town.mallory.actor().0));
    doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
    let chunk = committed(&mut doc);
    let push = Frame::Push(town.mallory.own_push(&address("order", ""), &[&chunk])).encode();
    let entry =
        OfferEntry { segment: [1; 8], chain: [2; 8], pos: 9, own_seq: 3, verdict: 1, judged: 9 };
    let offer = Frame::Offer(Offer::new(Epoch::default(), 2, [0; 16], &[entry])).encode();
    for round in 0..60 {
        let mut bytes = if round % 2 == 0 { push.clone() } else { offer.clone() };
        for _ in 0..=dice.below(3) {
            let at = 2 + dice.below(bytes.len() - 2);
            bytes[at] ^= 1 << dice.below(8);
        }
        let mut wire = town.mallory.following().await;
        wire.bytes(0, [&bytes[..], &[101, 0]].concat()).await;
        assert!(wire.closed().await.is_some(), "round {round}");
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_inflates_beyond_its_limit_ends_the_session() {
    let town = Town::peopled().await;
    let zeroes = vec![0u8; 256 << 20];
    let mut encoder = zstd_of(&zeroes);
    let mut batch = vec![1, 1];
    batch.append(&mut encoder);
    assert!(batch.len() < 64 * 1024, "a bomb is small");
    let Push { segment, heads, .. } = town.mallory.push(&address("order", ""), &[], Vec::new());
    let mut wire = town.mallory.following().await;
    wire.say_on(1, &Frame::Push(Push { segment, batch, heads })).await;
    assert_eq!(wire.closed().await, Some(Code::Malformed));
    town.goes_on("ann").await;
}

/// A zstd frame of so many equal bytes, put together by hand: blocks of one repeated byte.
fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88];
    let blocks = bytes.chunks(128 * 1024);
    let last = blocks.len() - 1;
    for (n, block) in blocks.enumerate() {
        let header = (block.len() as u32) << 3 | 1 << 1 | u32::from(n == last);
        frame.write_all(&header.to_le_bytes()[..3]).expect("memory takes it");
        frame.push(block[0]);
    }
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deflate_bomb_is_refused_and_the_session_goes_on() {
    let town = Town::peopled().await;
    let bomb = Stage::set().hostile().into_iter().find(|row| row.code == "bomb");
    let bomb = bomb.expect("the table has one").chunk;
    let mut wire = town.mallory.following().await;
    for _ in 0..20 {
        let push = town.mallory.push(&address("order", ""), &[&bomb, &bomb, &bomb], Vec::new());
        assert_eq!(wire.answer(push).await, Answer::refused(0, "bomb"));
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_member_may_join_and_nothing_else() {
    let town = Town::peopled().await;
    let stranger = Raw { seed: Seed([55; 32]), ..town.mallory.clone() };
    let offer = Frame::Offer(Offer::new(Epoch::default(), 1, [0; 16], &[]));
    let push = Frame::Push(stranger.push(&address("order", ""), &[], Vec::new()));
    let members = Frame::Members(Members { base: 0, entries: Vec::new() });
    for frame in [offer, push, members] {
        let (mut wire, _) = stranger.introduced().await;
        wire.say(&frame).await;
        assert_eq!(wire.closed().await, Some(Code::NotAMember), "{}", frame.name());
    }
    let mut wire = stranger.dial().await;
    wire.say(&Frame::Offer(Offer::new(Epoch::default(), 1, [0; 16], &[]))).await;
    assert_eq!(wire.closed().await, Some(Code::OutOfOrder), "before an introduction");
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organisation_and_another_version_are_turned_away() {
    let town = Town::peopled().await;
    let mut foreign = hello(town.mallory.org);
    foreign.org.0[0] ^= 1;
    let mut old = hello(town.mallory.org);
    old.versions = vec![0, 99];
    for (hello, code) in [(foreign, Code::ForeignOrganisation), (old, Code::Version)] {
        let mut wire = town.mallory.dial().await;
        wire.say(&Frame::Hello(Box::new(hello))).await;
        assert_eq!(wire.closed().await, Some(code));
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_admits_nobody_once_it_is_used_or_has_expired_or_was_guessed() {
    let site = Site::founded(CATALOG);
    let good = site.ticket("ann").await;
    let expired = site.invited("eve", vec![Grant::ALL], 1_000).await;
    let mut guessed = good.clone();
    guessed.key = KeyPair::from_secret([3; 32]);
    let mut absent = good.clone();
    absent.invite = 99;
    let mut founding = good.clone();
    founding.invite = 0;
    let ann = site.join(&good, "ann").await;
    let before = site.members().await.len();
    for (name, ticket, code) in [
        ("used", &good, Code::InvitationUnknown),
        ("expired", &expired, Code::InvitationExpired),
        ("with another key", &guessed, Code::InvitationUnknown),
        ("that nobody made", &absent, Code::InvitationUnknown),
        ("that is the founding", &founding, Code::InvitationUnknown),
    ] {
        let raw = Raw::stranger(ticket, 60);
        let (mut wire, welcome) = raw.introduced().await;
        wire.say(&Frame::Join(application(ticket, &raw.seed, &welcome))).await;
        assert_eq!(wire.closed().await, Some(code), "an invitation {name}");
    }
    // What the relay knows already does not hide that an invitation has expired.
    let raw = Raw::stranger(&expired, 61);
    let (mut wire, welcome) = raw.introduced().await;
    let mut join = application(&expired, &raw.seed, &welcome);
    join.entries.insert(0, site.members().await.since(welcome.members - 1)[0].clone());
    join.base -= 1;
    wire.say(&Frame::Join(join)).await;
    assert_eq!(wire.closed().await, Some(Code::InvitationExpired));
    // A key that another connection proves cannot be joined.
    let fresh = site.ticket("cat").await;
    let raw = Raw::stranger(&fresh, 62);
    let (mut wire, welcome) = raw.introduced().await;
    wire.say(&Frame::Join(application(&fresh, &Seed([63; 32]), &welcome))).await;
    assert_eq!(wire.closed().await, Some(Code::InvitationUnknown));
    assert_eq!(site.members().await.len(), before + 1, "only an invitation was added");
    // None of it burnt the invitation.
    let cat = site.join(&fresh, "cat").await;
    put(&cat, "customer/c1", json!({"name": "Kiosk"}));
    sync(&cat).await;
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_invitations_is_slowed_down_and_members_go_on() {
    let site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    let mut ticket = site.ticket("eve").await;
    ticket.key = KeyPair::from_secret([3; 32]);
    let mut codes = Vec::new();
    for _ in 0..21 {
        let raw = Raw::stranger(&ticket, 60);
        let (mut wire, welcome) = raw.introduced().await;
        wire.say(&Frame::Join(application(&ticket, &raw.seed, &welcome))).await;
        codes.extend(wire.closed().await);
    }
    let (last, first) = codes.split_last().expect("each was closed with a code");
    assert!(first.iter().all(|code| *code == Code::InvitationUnknown), "{first:?}");
    assert_eq!(*last, Code::Busy);
    put(&ann, "customer/c1", json!({"name": "Kiosk"}));
    sync(&ann).await;
    assert_eq!(state(&ann, "customer/c1"), "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_entries_of_the_membership_log_are_turned_away() {
    let town = Town::peopled().await;
    let log = town.site.members().await;
    let forged = |act: Act, keys: &KeyPair| {
        let entry = Entry { previous: log.tip(), act };
        vec![Signed::new(CONTEXT, &entry, keys)]
    };
    let own = town.mallory.seed.signing();
    let relay = Act::Relay { keys: MemberKeys::of(&Seed([4; 32])), name: "relay".into() };
    let key = own.public();
    let invite =
        Act::Invite { key, name: "eve".into(), grants: vec![Grant::ALL], expires_ms: i64::MAX };
    for act in [relay, invite] {
        let (mut wire, welcome) = town.mallory.introduced().await;
        let entries = forged(act, &own);
        wire.say(&Frame::Members(Members { base: welcome.members, entries })).await;
        assert_eq!(wire.closed().await, Some(Code::Membership));
    }
    assert_eq!(town.site.members().await.tip(), log.tip());
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_through_another_members_log() {
    let town = Town::peopled().await;
    let expired = town.site.invited("eve", vec![Grant::ALL], 1_000).await;
    let good = town.site.ticket("eve").await;
    let log = town.site.members().await;
    let eve = Seed([61; 32]);
    for ticket in [&expired, &good] {
        let act = Act::Join { invite: ticket.invite, keys: MemberKeys::of(&eve) };
        let join = log.sign(act, &ticket.key);
        // Without an admission, with one that mallory signs, and with one in the relay's name.
        let relay = log.by_tls(&town.mallory.relay).expect("a relay").number;
        let own = town.mallory.seed.signing();
        let alone = vec![join.clone()];
        let by_mallory = vec![join.clone(), admission(&join, town.mallory.number, &own)];
        let forged = vec![join.clone(), admission(&join, relay, &own)];
        for entries in [alone, by_mallory, forged] {
            let (mut wire, _) = town.mallory.introduced().await;
            wire.say(&Frame::Members(Members { base: log.len(), entries: entries.clone() })).await;
            assert_eq!(wire.closed().await, Some(Code::Membership));
            // Nor through her own: what says that she was admitted is not true.
            let raw = Raw { seed: Seed(eve.0), ..town.mallory.clone() };
            if entries.len() > 1 {
                let (mut wire, _) = raw.introduced().await;
                wire.say(&Frame::Join(Members { base: log.len(), entries })).await;
                assert_eq!(wire.closed().await, Some(Code::InvitationUnknown));
            }
        }
    }
    assert_eq!(town.site.members().await.sum(), log.sum());
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_epochs_and_positions_opens_no_epoch() {
    let town = Town::peopled().await;
    let before = town.site.ask(|engine| engine.replica().epoch()).await;
    let customers = address("customer", "").id(&town.mallory.org);
    let entry = OfferEntry {
        segment: fieldkeep_protocol::offer::short(&customers.0),
        chain: [3; 8],
        pos: u64::MAX >> 2,
        own_seq: u64::MAX >> 2,
        verdict: u64::MAX >> 2,
        judged: 0,
    };
    let mut wire = town.mallory.following().await;
    let later = [u64::MAX, i64::MAX as u64, 1 << 40, before.counter + 1];
    let later = later.map(|counter| Epoch { counter, salt: [9; 8] });
    for (round, epoch) in (2..).zip(later.into_iter().chain([before])) {
        wire.say(&Frame::Offer(Offer::new(epoch, round, [0; 16], &[entry]))).await;
        let answer = wire.until(|frame| {
            let Frame::OfferReply(reply) = frame else { return None };
            (reply.round == round).then(|| reply.clone())
        });
        let answer = answer.await;
        assert_eq!(answer.epoch, before);
        assert_eq!(answer.segments[0].standing, Standing::Reset);
    }
    let mut introduced = hello(town.mallory.org);
    introduced.epoch = Epoch { counter: 1 << 40, salt: [9; 8] };
    let mut other = town.mallory.dial().await;
    other.say(&Frame::Hello(Box::new(introduced))).await;
    other.until(|frame| matches!(frame, Frame::Welcome(_)).then_some(())).await;
    drop(other);
    assert_eq!(town.site.ask(|engine| engine.replica().epoch()).await, before);
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_no_relay_signed_or_that_shows_nothing_lost_opens_no_epoch() {
    let town = Town::peopled().await;
    let before = town.site.ask(|engine| engine.replica().epoch()).await;
    let segment = address("customer", "").id(&town.mallory.org);
    let genuine = town.site.ask(move |engine| engine.replica().judged_block(&segment)).await;
    let genuine = genuine.expect("it reads").expect("it was judged");
    let honest: VerdictBlock = genuine.read().expect("a block");
    let later = VerdictBlock { number: honest.number + 9, pos: 99, ..honest.clone() };
    let next = Epoch { counter: before.counter + 1, salt: [9; 8] };
    let own = town.mallory.seed.signing();
    let forged = [later, VerdictBlock { epoch: next, ..honest }]
        .map(|block| Signed::new(verdict::CONTEXT, &block, &own));
    let notice = town.site.ask(|engine| engine.replica().published().map(|p| p.notice.clone()));
    let nonsense = Signed::new("fieldkeep 1 catalog", &7u64, &own);
    let replayed = [genuine, notice.await.expect("there is a catalog"), nonsense];
    let mut wire = town.mallory.following().await;
    for statement in forged.into_iter().chain(replayed.clone()) {
        wire.say(&Frame::Witness(statement)).await;
    }
    // The answer to what comes after them says that they were read.
    wire.say(&Frame::Offer(Offer::new(before, 2, [0; 16], &[]))).await;
    wire.until(|frame| matches!(frame, Frame::OfferReply(reply) if reply.round == 2).then_some(()))
        .await;
    assert_eq!(town.site.ask(|engine| engine.replica().epoch()).await, before);

    // What was true before an honest restore is over afterwards.
    town.site.ask(|engine| engine.restore().expect("the disk takes it")).await;
    let after = town.site.ask(|engine| engine.replica().epoch()).await;
    assert_eq!(after.counter, before.counter + 1);
    for statement in replayed {
        wire.say(&Frame::Witness(statement)).await;
    }
    wire.say(&Frame::Offer(Offer::new(after, 3, [0; 16], &[]))).await;
    wire.until(|frame| matches!(frame, Frame::OfferReply(reply) if reply.round == 3).then_some(()))
        .await;
    assert_eq!(town.site.ask(|engine| engine.replica().epoch()).await, after);
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_connection_of_one_member_is_turned_away() {
    let town = Town::peopled().await;
    let first = town.mallory.following().await;
    let _second = town.mallory.following().await;
    let mut third = town.mallory.dial().await;
    third.say(&Frame::Hello(Box::new(hello(town.mallory.org)))).await;
    assert_eq!(third.closed().await, Some(Code::Busy));
    first.sender.close(Code::Done.number(), "done");
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_confirms_nothing_is_sent_a_window_and_no_more() {
    const SEED: u64 = 47;
    println!("seed {SEED}");
    let mut town = Town::peopled().await;
    let mut silent = town.mallory.following().await;
    let ann = town.site.device("ann").await;
    let mut dice = Dice::seeded(SEED);
    for n in 0..160 {
        let note: String = (0..16_000).map(|_| (b' ' + dice.below(90) as u8) as char).collect();
        put(&ann, &format!("order/o{n}"), json!({"note": note}));
    }
    sync(&ann).await;
    reaches(&town.ben, "order/o159", "valid").await;
    silent.until(|frame| matches!(frame, Frame::Delta(_)).then_some(())).await;
    town.goes_on("cat").await;
    let log: u64 = town.site.log().await.values().map(|(length, _)| length).sum();
    assert!(log * 12_000 > WINDOW + 2 * BATCH as u64, "there is more than a window to send");
    town.site.stop().await;
    assert_eq!(silent.closed().await, Some(Code::GoingAway));
    assert!(silent.heard <= WINDOW + 2 * BATCH as u64, "{} bytes", silent.heard);
}

/// A document of the segment as a member has it.
fn document(member: &Raw, chunks: &[Vec<u8>]) -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from(member.actor().0));
    for chunk in chunks {
        let change = automerge::Change::try_from(&chunk[..]).expect("an honest change");
        doc.apply_changes([change]).expect("it applies");
    }
    doc
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_what_is_missing() {
    let town = Town::peopled().await;
    let segment = address("order", "");
    let mut doc = document(&town.mallory, &[]);
    doc.put_object(ROOT, "o1", ObjType::Map).expect("it writes");
    let first = committed(&mut doc);
    doc.put_object(ROOT, "o2", ObjType::Map).expect("it writes");
    let second = committed(&mut doc);
    let mut wire = town.mallory.following().await;
    wire.say_on(1, &Frame::Push(town.mallory.own_push(&segment, &[&second]))).await;
    let nack = wire.until(|frame| {
        let Frame::Nack(nack) = frame else { return None };
        Some(nack.clone())
    });
    let Nack { code, hash, vector, .. } = nack.await;
    assert_eq!((code.as_str(), hash), ("missing-deps", header(&second).hash));
    assert_eq!(vector.expect("what the relay holds").seq(&town.mallory.actor()), 0);
    let both = town.mallory.own_push(&segment, &[&first, &second]);
    assert_eq!(wire.answer(both).await, Answer::Taken);
}
