//! The sync session against models of it: who may say what when, every pair of side, phase and event;
//! and what a sync does, where a replica is a plain set of changes.

use std::collections::BTreeSet;
use std::path::Path;

use fieldkeep_lab::world::talk::{Ear, FRAMES, Saying, Stage, may_hear};
use fieldkeep_lab::world::{Peer, World};
use fieldkeep_protocol::{Code, Phase, Role, Session, Violation};
use proptest::prelude::*;
use serde_json::json;

/// What can come on a stream besides a frame that is known.
#[derive(Clone, Copy, Debug)]
enum Strange {
    /// A frame of a type that nobody knows, and that may be passed over.
    UnknownEven,
    /// One that may not.
    UnknownOdd,
    /// A frame whose body is none.
    Malformed,
    /// A frame that is longer than any may be.
    TooLong,
    /// The end of a stream between two frames.
    End,
    /// The end of a stream within a frame.
    EndWithin,
    /// A stream too many.
    Streams,
}

const STRANGE: [Strange; 7] = [
    Strange::UnknownEven,
    Strange::UnknownOdd,
    Strange::Malformed,
    Strange::TooLong,
    Strange::End,
    Strange::EndWithin,
    Strange::Streams,
];
const SIDES: [(Ear, Role); 3] =
    [(Ear::Device, Role::Device), (Ear::Relay, Role::Relay), (Ear::Peer, Role::Peer)];
const STAGES: [(Stage, Phase); 3] = [
    (Stage::Opening, Phase::Opening),
    (Stage::Stranger, Phase::Stranger),
    (Stage::Open, Phase::Open),
];

/// The bytes of a frame, as they were first written down.
fn golden(number: u64, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/protocol/tests/golden");
    let path = folder.join(format!("{number:02}-{}.hex", name.to_lowercase()));
    let text = std::fs::read_to_string(&path).expect("every frame has golden bytes");
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect()
}

fn session(role: Role, phase: Phase) -> Session {
    let mut session = Session::new(role);
    session.enter(phase);
    session
}

fn hears(session: &mut Session, stream: u64, bytes: &[u8]) -> Result<bool, Violation> {
    session.receive(stream, bytes)?;
    Ok(session.next(stream)?.is_some())
}

#[test]
fn every_frame_is_defined_for_every_side_and_phase() {
    let mut visited = 0;
    for (ear, role) in SIDES {
        for (stage, phase) in STAGES {
            for (frame, name) in FRAMES {
                let saying = Saying { ear, stage, frame };
                let heard = hears(&mut session(role, phase), 0, &golden(frame, name));
                let expected =
                    if may_hear(saying) { Ok(true) } else { Err(Violation::OutOfOrder(name)) };
                assert_eq!(heard, expected, "{saying}");
                visited += 1;
            }
        }
        for (frame, name) in FRAMES {
            let heard = hears(&mut session(role, Phase::Closed), 0, &golden(frame, name));
            assert_eq!(heard, Err(Violation::OutOfOrder(name)), "nothing comes after the end");
        }
    }
    println!("{visited} pairs of phase and frame visited, none left out");
    assert_eq!(visited, SIDES.len() * STAGES.len() * FRAMES.len());
}

/// What a strange event comes to: nothing, or the code that the session ends with.
fn outcome(strange: Strange, session: &mut Session) -> Result<(), Code> {
    let (name, credit) = ("Credit", 23);
    let whole = golden(credit, name);
    let result = match strange {
        Strange::UnknownEven => hears(session, 0, &[100, 2, 1, 1]).map(|_| ()),
        Strange::UnknownOdd => hears(session, 0, &[101, 0]).map(|_| ()),
        Strange::Malformed => hears(session, 0, &[23, 3, 0xff, 0xff, 0xff]).map(|_| ()),
        Strange::TooLong => hears(session, 0, &[23, 0xff, 0xff, 0xff, 0x7f]).map(|_| ()),
        Strange::End => session.finished(5),
        Strange::EndWithin => {
            let begun = session.receive(5, &whole[..3]);
            begun.and_then(|()| session.finished(5))
        }
        Strange::Streams => {
            (1..=Session::STREAMS as u64 + 1).try_for_each(|stream| session.receive(stream, &[23]))
        }
    };
    result.map_err(|violation| violation.code())
}

#[test]
fn every_strange_event_is_defined_for_every_side_and_phase() {
    let mut visited = 0;
    for (_, role) in SIDES {
        for (stage, phase) in STAGES {
            for strange in STRANGE {
                let expected = match (strange, stage) {
                    // Before an introduction a stream's end is not looked at: it may have overtaken
                    // what opens the session.
                    (Strange::UnknownEven | Strange::End, _)
                    | (Strange::EndWithin, Stage::Opening) => Ok(()),
                    (Strange::UnknownOdd, _) => Err(Code::UnknownFrame),
                    (Strange::Malformed | Strange::EndWithin, _) => Err(Code::Malformed),
                    (Strange::TooLong, _) => Err(Code::TooLong),
                    (Strange::Streams, _) => Err(Code::Busy),
                };
                let came = outcome(strange, &mut session(role, phase));
                assert_eq!(came, expected, "{role:?} {phase:?} {strange:?}");
                visited += 1;
            }
        }
    }
    println!("{visited} pairs of phase and strange event visited, none left out");
}

/// What happens between two devices and a relay.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A device writes a record.
    Write(usize),
    /// A device syncs to the end.
    Sync(usize),
    /// A device has a signal for so many milliseconds.
    Glimpse(usize, u64),
    /// A copy of the relay is put away.
    BackUp,
    /// The relay is put back from it.
    PutBack,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..2usize).prop_map(Op::Write),
        4 => (0..2usize).prop_map(Op::Sync),
        3 => (0..2usize, 1..400u64).prop_map(|(at, ms)| Op::Glimpse(at, ms)),
        1 => Just(Op::BackUp),
        1 => Just(Op::PutBack),
    ]
}

/// Replicas as plain sets of changes.
#[derive(Debug, Default)]
struct Model {
    devices: [BTreeSet<usize>; 2],
    relay: BTreeSet<usize>,
    backup: Option<BTreeSet<usize>>,
    written: usize,
}

impl Model {
    /// A connection that ends anywhere brings each side some of what the other has, and takes
    /// nothing away.
    fn glimpse(&mut self, at: usize, device: BTreeSet<usize>, relay: BTreeSet<usize>) {
        let all: BTreeSet<usize> = self.devices[at].union(&self.relay).copied().collect();
        assert!(device.is_superset(&self.devices[at]) && device.is_subset(&all));
        assert!(relay.is_superset(&self.relay) && relay.is_subset(&all));
        (self.devices[at], self.relay) = (device, relay);
    }

    /// A sync that ends well leaves both with the union.
    fn sync(&mut self, at: usize) {
        let all: BTreeSet<usize> = self.devices[at].union(&self.relay).copied().collect();
        (self.devices[at], self.relay) = (all.clone(), all);
    }
}

proptest! {
    // What fails becomes a test with a name and its story: no file keeps seeds.
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_session_does_what_it_does_to_plain_sets(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let mut world = World::seeded(seed, &["ann", "ben"]);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Write(at) => {
                    let key = format!("outlet/o{}", model.written);
                    world.put(Peer::Device(at), &key, json!({"territory": "t0", "name": "n"}));
                    model.devices[at].insert(model.written);
                    model.written += 1;
                }
                Op::Sync(at) => {
                    world.sync(Peer::Device(at));
                    model.sync(at);
                }
                Op::Glimpse(at, ms) => {
                    world.glimpse(Peer::Device(at), ms);
                    let (device, relay) =
                        (world.holds(Peer::Device(at)), world.holds(Peer::Relay));
                    model.glimpse(at, device, relay);
                }
                Op::BackUp => {
                    world.back_up_relay();
                    model.backup = Some(model.relay.clone());
                }
                Op::PutBack => {
                    if let Some(backup) = model.backup.take() {
                        world.put_relay_back();
                        model.relay = backup;
                    }
                }
            }
            prop_assert_eq!(world.holds(Peer::Relay), model.relay.clone());
            for at in 0..2 {
                prop_assert_eq!(world.holds(Peer::Device(at)), model.devices[at].clone());
            }
        }
    }
}
