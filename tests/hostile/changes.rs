//! What bad input gets, over real sessions: a refusal with its stage and code, or a closed
//! connection with its code; nothing of it is forwarded, the relay lives, and honest devices go on.

use std::io::Write as _;

use crate::support::lab::{Renamed, committed, document, header, vouched};
use crate::support::town::{CATALOG, Town, address};
use crate::support::wire::{Answer, Raw, hello};
use crate::support::{Site, length, logs, put, reaches, soon, state, sync};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use fieldkeep_lab::Dice;
use fieldkeep_lab::hostile::Stage;
use fieldkeep_model::header::write_uleb;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{ActorId, Epoch, Grant, Seed, TypeName};
use fieldkeep_protocol::frame::{Credit, Frame, Nack, Push};
use fieldkeep_protocol::{BATCH, Code, Offer, OfferEntry, WINDOW};
use serde_json::json;

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
    // Ben's connection may take a moment to end; mallory's must not.
    soon("only one connection is left", async {
        while site.ask(|engine| engine.connections()).await > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
async fn of_three_connections_of_one_member_the_oldest_gives_way() {
    let town = Town::peopled().await;
    let mut first = town.mallory.following().await;
    let mut second = town.mallory.following().await;
    let mut third = town.mallory.following().await;
    assert_eq!(first.closed().await, Some(Code::Busy));
    // The others are served, and no flood of connections takes more than two.
    let mut fourth = town.mallory.following().await;
    assert_eq!(second.closed().await, Some(Code::Busy));
    put(&town.ben, "order/o1", json!({"note": "served"}));
    for wire in [&mut third, &mut fourth] {
        wire.until(|frame| matches!(frame, Frame::Delta(_)).then_some(())).await;
    }
    town.goes_on("ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_is_said_before_the_offer_or_not_at_all() {
    let town = Town::peopled().await;
    let mut wire = town.mallory.following().await;
    wire.say(&Frame::Mode(LeftOut { all: true, ..LeftOut::default() })).await;
    assert_eq!(wire.closed().await, Some(Code::OutOfOrder));
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
