//! Whoever claims to be what he is not: strangers, guessed and used invitations, forged entries of the
//! membership log, lies about epochs. The session ends with a code, nothing of it is believed, and
//! honest devices go on.

use crate::support::town::{CATALOG, Town, address};
use crate::support::wire::{Raw, application, hello};
use crate::support::{Site, put, state, sync};
use fieldkeep_model::membership::{Act, CONTEXT, Entry, MemberKeys, admission};
use fieldkeep_model::{Epoch, Grant, KeyPair, Seed, Signed, VerdictBlock, verdict};
use fieldkeep_protocol::frame::{Frame, Members, Standing};
use fieldkeep_protocol::{Code, Offer, OfferEntry};
use serde_json::json;

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
