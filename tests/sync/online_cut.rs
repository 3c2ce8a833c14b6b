//! A connection that is cut at any message of a call: after it is made again, the call was carried out
//! or it never will be, and both sides say the same of it.
//!
//! Two engines, and a road between them that passes message by message; no socket, no clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::{PATIENCE, Site, put, soon};
use fieldkeep_device::{self as device, CallState};
use fieldkeep_link::KeyFile;
use fieldkeep_model::status::State;
use fieldkeep_model::{
    CallOutcome, Edit, MembershipLog, PublicKey, RecordEdit, Refusal, Scalar, Seed, Wish,
};
use fieldkeep_relay::{self as relay, Directory};
use fieldkeep_replica::{Me, Replica, Role};
use fieldkeep_store::{Home, Records as _, Settings as _, Store, home};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1
[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field]
status = {}
note = {}
[type.expense.field]
cents = { schema = { type = "integer" } }
[action.file_expense]
who = "everyone"
input.cents = { required = true }
[[action.file_expense.effect]]
type = "expense"
fields = { cents = "int(input.cents)" }
[action.claim_expense]
who = "everyone"
call = { host = "office", path = "/claims" }
[[action.claim_expense.effect]]
type = "expense"
fields = { cents = "5" }
"#;

/// A replica as it lies on a disk.
struct Kept {
    store: Store,
    seed: Seed,
    role: Role,
}

impl Kept {
    fn of(path: &std::path::Path, role: Role) -> Self {
        let home = Home::open(path).expect("nobody owns it");
        let store = home.store().expect("it opens");
        let seed = KeyFile::open(home::key(home.directory())).expect("its key");
        Self { store, seed, role }
    }

    /// The replica over a copy of what is kept.
    fn open(&self) -> Replica {
        open(self.store.copy().expect("it is copied"), &self.seed, self.role)
    }
}

fn open(store: Store, seed: &Seed, role: Role) -> Replica {
    let members = MembershipLog::open(store.members().expect("it reads")).expect("a sound log");
    let member = members.by_tls(&seed.tls().public()).expect("a member").clone();
    let (number, name) = (member.number, member.name);
    let me = Me { role, number, keys: seed.signing(), incarnation: 0, name, former: Vec::new() };
    // As a shell would draw them: others each time.
    static DRAWN: AtomicU8 = AtomicU8::new(0);
    let entropy = [DRAWN.fetch_add(1, Ordering::Relaxed); 32];
    Replica::open(store, me, members, entropy).expect("it opens")
}

enum Message {
    ToRelay(relay::Input),
    ToDevice(device::Input),
    ToHost(relay::Fetch),
    FromHost(relay::Input),
}

impl Message {
    /// Whether it goes over the connection of the device.
    fn is_of_device(&self) -> bool {
        matches!(self, Self::ToRelay(_) | Self::ToDevice(_))
    }
}

/// A device, a relay and the road between them.
struct Pair {
    device: device::Engine,
    relay: relay::Engine,
    seed: Seed,
    road: VecDeque<Message>,
    line: u64,
    /// The calls that the host was asked for, by their keys.
    asked: Vec<String>,
}

impl Pair {
    fn new(device: &Kept, relay: &Kept) -> Self {
        Self {
            device: device::Engine::new(device.open()),
            relay: relay::Engine::new(relay.open()),
            seed: Seed(device.seed.0),
            road: VecDeque::new(),
            line: 0,
            asked: Vec::new(),
        }
    }

    fn key(&self) -> PublicKey {
        self.seed.tls().public()
    }

    fn connect(&mut self) {
        self.line += 1;
        let key = self.key();
        self.tell_relay(relay::Input::Connected(self.line, key));
        self.tell_device(device::Input::Connected);
    }

    fn tell_relay(&mut self, input: relay::Input) {
        self.relay.handle(1, input).expect("the store is there");
        self.relay_commits();
        while self.relay.work(1).expect("the store is there") {
            self.relay_commits();
        }
        self.relay_commits();
    }

    fn relay_commits(&mut self) {
        for output in self.relay.commit().expect("the disk takes it") {
            match output {
                relay::Output::Send { stream, bytes, .. } => {
                    self.road.push_back(Message::ToDevice(device::Input::Bytes(stream, bytes)));
                }
                relay::Output::Finish(_, stream) => {
                    self.road.push_back(Message::ToDevice(device::Input::Finished(stream)));
                }
                relay::Output::Close(_, code, text) => panic!("closed: {code:?} {text}"),
                relay::Output::Fetch(fetch) => self.road.push_back(Message::ToHost(*fetch)),
                relay::Output::Ask { .. } => {}
            }
        }
    }

    fn tell_device(&mut self, input: device::Input) {
        self.device.handle(1, input).expect("the store is there");
        self.device_commits();
        while self.device.has_work() {
            self.device.work(1).expect("the store is there");
            self.device_commits();
        }
    }

    fn device_commits(&mut self) {
        let line = self.line;
        for output in self.device.commit().expect("the disk takes it") {
            match output {
                device::Output::Send { stream, bytes, .. } => {
                    self.road.push_back(Message::ToRelay(relay::Input::Bytes(line, stream, bytes)));
                }
                device::Output::Close(code, text) => panic!("closed: {code:?} {text}"),
                device::Output::Changed(_) | device::Output::Met(_) | device::Output::Peer(..) => {}
            }
        }
    }

    /// Passes at most so many messages; how many there were.
    fn pass(&mut self, most: usize) -> usize {
        for passed in 0..most {
            match self.road.pop_front() {
                None => return passed,
                Some(Message::ToRelay(input)) => self.tell_relay(input),
                Some(Message::ToDevice(input)) => self.tell_device(input),
                Some(Message::ToHost(fetch)) => {
                    let relay::Fetch { device, number, key, .. } = fetch;
                    self.asked.push(key);
                    let answer = Ok("done".to_owned());
                    let answer = relay::Input::Fetched(device, number, answer);
                    self.road.push_back(Message::FromHost(answer));
                }
                Some(Message::FromHost(input)) => self.tell_relay(input),
            }
        }
        most
    }

    /// The connection is gone, with everything that is on it; the host has one of its own.
    fn cut(&mut self) {
        self.road.retain(|message| !message.is_of_device());
        self.tell_relay(relay::Input::Closed(self.line));
        self.tell_device(device::Input::Closed);
        self.road.retain(|message| !message.is_of_device());
    }

    /// Whatever is in memory goes, as when both processes end; the relay goes on with its calls.
    fn restart(self, role: (&Seed, &Seed)) -> Self {
        let device = open(self.device.into_replica().into_store(), role.0, Role::Device);
        let relay = open(self.relay.into_replica().into_store(), role.1, Role::Relay);
        let mut again = Self {
            device: device::Engine::new(device),
            relay: relay::Engine::new(relay),
            seed: self.seed,
            road: VecDeque::new(),
            line: self.line,
            asked: self.asked,
        };
        again.relay.resume_calls().expect("the store is there");
        again.relay_commits();
        again
    }

    /// What both sides hold of expenses and of the order's note; they have to hold the same.
    fn held(&self) -> (usize, bool) {
        let of = |replica: &Replica| {
            let ty = "expense".parse().expect("a name");
            let expenses = replica.views().list(&ty, &Default::default()).expect("it reads");
            let order = replica.views().record(&"order/o1".parse().expect("a key"));
            let order = order.expect("it reads").expect("it is there");
            assert!(matches!(order.state, State::Judged(_)), "{:?}", order.state);
            (expenses.len(), order.fields.get("note") == Some(&json!("x")))
        };
        let (here, there) = (of(self.device.replica()), of(self.relay.replica()));
        assert_eq!(here, there, "the two sides differ");
        here
    }
}

fn wishes(device: &Replica) -> [Wish; 3] {
    let record: fieldkeep_model::RecordKey = "order/o1".parse().expect("a key");
    let row = device.store().find(&record.ty, &record.id).expect("it reads").remove(0);
    let edit: RecordEdit = vec![Edit::Put("note".into(), Scalar::Str("x".into()))].into();
    [
        Wish::Action { name: "file_expense".into(), input: json!({ "cents": "5" }).to_string() },
        Wish::Edit { record, expected: row.hash, edit },
        Wish::Action { name: "claim_expense".into(), input: "{}".into() },
    ]
}

/// A device and a relay that have exchanged a confirmed order.
async fn kept() -> (Kept, Kept) {
    let mut site = Site::founded(CATALOG);
    let ann = site.device("ann").await;
    put(&ann, "order/o1", json!({ "status": "confirmed" }));
    soon("a sync", ann.sync(PATIENCE)).await.expect("the relay is there");
    let device = ann.directory().to_owned();
    drop(ann);
    site.stop().await;
    drop(Directory::open(&site.path("relay")).expect("nobody owns it"));
    (Kept::of(&device, Role::Device), Kept::of(&site.path("relay"), Role::Relay))
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_at_any_message_a_call_was_done_or_never_will_be_and_both_sides_agree() {
    let (device, relay) = kept().await;
    let (mut done, mut withdrawn, mut again) = (0, 0, 0);
    for which in 0..3 {
        for (waits, restarts) in [(true, false), (false, false), (true, true), (false, true)] {
            for messages in 0.. {
                let mut pair = Pair::new(&device, &relay);
                pair.connect();
                pair.pass(usize::MAX);
                let wish = wishes(pair.device.replica())[which].clone();
                let number = pair.device.call(wish, 1).expect("the disk takes it").expect("short");
                pair.device_commits();
                let whole = pair.pass(messages) < messages;
                pair.cut();
                if restarts {
                    pair = pair.restart((&device.seed, &relay.seed));
                }
                if !waits {
                    pair.device.withdraw_calls(Some(number)).expect("the disk takes it");
                    pair.device_commits();
                }
                pair.connect();
                pair.pass(usize::MAX);
                let place = format!("wish {which}, after {messages} messages, waits: {waits}");
                let state = pair.device.call_state(number).expect("it reads");
                let held = pair.held();
                match &state {
                    CallState::Settled(CallOutcome::Done { .. }) => {
                        assert_eq!(held, [(1, false), (0, true), (1, false)][which], "{place}");
                        done += 1;
                        // The host was asked, and under one key, however often.
                        let mut keys = pair.asked.clone();
                        keys.dedup();
                        assert_eq!(keys.len(), usize::from(which == 2), "{place}");
                        again += usize::from(pair.asked.len() > 1);
                    }
                    CallState::Settled(CallOutcome::Refused { refusal, .. }) => {
                        assert_eq!((held, *refusal), ((0, false), Refusal::Withdrawn), "{place}");
                        assert!(!waits && pair.asked.is_empty(), "{place}");
                        withdrawn += 1;
                    }
                    CallState::UnderWay | CallState::Renumbered | CallState::Settled(_) => {
                        panic!("{place}: {state:?}")
                    }
                }
                if whole {
                    break;
                }
            }
        }
    }
    assert!(done > 20 && withdrawn > 2, "{done} done, {withdrawn} withdrawn");
    assert!(again > 1, "{again} times the host was asked once more");
}

/// A host may have done what the relay may no longer write: then it says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_when_the_relay_goes_on_with_it_says_that_the_host_may_have_done_it()
{
    let (device, relay) = kept().await;
    let mut pair = Pair::new(&device, &relay);
    pair.connect();
    pair.pass(usize::MAX);
    let wish = wishes(pair.device.replica())[2].clone();
    let number = pair.device.call(wish, 1).expect("the disk takes it").expect("short");
    pair.device_commits();
    while pair.asked.is_empty() {
        assert_eq!(pair.pass(1), 1, "the host is asked");
    }
    let closed = CATALOG.replace(
        "call = { host = \"office\", path = \"/claims\" }",
        "call = { host = \"office\", path = \"/claims\" }\n[[action.claim_expense.require]]\n\
         cel = \"false\"\nreason = \"the month is closed\"\n",
    );
    pair.relay.publish(&closed).expect("a catalog");
    pair.relay_commits();
    pair.cut();
    let mut pair = pair.restart((&device.seed, &relay.seed));
    pair.connect();
    pair.pass(usize::MAX);
    let state = pair.device.call_state(number).expect("it reads");
    let CallState::Settled(CallOutcome::Refused { reason, .. }) = state else {
        panic!("{state:?}")
    };
    let words = ["the host may have done it", "nothing was written", "the month is closed"];
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    assert_eq!(pair.held(), (0, false));
}

/// A relay that was put back does not know what it did since. Another device, or this one, may bring back
/// what it wrote: what was under way is not done a second time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_the_relay_was_put_back_is_not_done_again() {
    let (device, relay) = kept().await;
    let mut lost = 0;
    for (which, waits) in [(0, true), (1, true), (0, false)] {
        for messages in 0.. {
            let mut pair = Pair::new(&device, &relay);
            pair.connect();
            pair.pass(usize::MAX);
            let old = pair.relay.replica().store().copy().expect("it is copied");
            let wish = wishes(pair.device.replica())[which].clone();
            let number = pair.device.call(wish, 1).expect("the disk takes it").expect("short");
            pair.device_commits();
            let whole = pair.pass(messages) < messages;
            pair.cut();
            if !waits {
                pair.device.withdraw_calls(Some(number)).expect("the disk takes it");
                pair.device_commits();
            }
            pair.relay = relay::Engine::new(open(old, &relay.seed, Role::Relay));
            pair.relay.restore().expect("the store is there");
            pair.relay_commits();
            for _ in 0..2 {
                pair.connect();
                pair.pass(usize::MAX);
                pair.cut();
            }
            let place = format!("wish {which}, after {messages} messages, waits: {waits}");
            let (expenses, noted) = pair.held();
            assert!(expenses <= 1, "{place}: {expenses}");
            let state = pair.device.call_state(number).expect("it reads");
            let CallState::Settled(outcome) = state else { panic!("{place}: {state:?}") };
            if outcome == CallOutcome::Lost {
                lost += 1;
            } else {
                assert!(matches!(outcome, CallOutcome::Done { .. }), "{place}: {outcome:?}");
                assert!(!whole || expenses == 1 || noted, "{place}: it was brought back");
            }
            if whole {
                break;
            }
        }
    }
    assert!(lost > 5, "{lost}");
}

/// A copy of a device does not know which numbers the other one has used: its call is run under one of
/// its own, and not taken for theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_put_back_calls_under_a_number_that_is_free() {
    let (device, relay) = kept().await;
    let mut pair = Pair::new(&device, &relay);
    for copy in 1..=3 {
        pair.connect();
        pair.pass(usize::MAX);
        let mut done = 0;
        for _ in 0..2 {
            let wish = wishes(pair.device.replica())[0].clone();
            let number = pair.device.call(wish, copy).expect("the disk takes it").expect("short");
            pair.device_commits();
            pair.pass(usize::MAX);
            let state = pair.device.call_state(number).expect("it reads");
            let settled = matches!(state, CallState::Settled(CallOutcome::Done { .. }));
            assert!(settled || state == CallState::Renumbered, "{state:?}");
            done += usize::from(settled);
            if done > 0 {
                break;
            }
        }
        assert_eq!(done, 1, "copy {copy}");
        assert_eq!(pair.held().0, copy as usize);
        pair.cut();
        pair.device = device::Engine::new(device.open());
    }
}
