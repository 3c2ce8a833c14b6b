//! Three processes that find each other on a network without any relay: each in a network namespace of
//! its own where this machine has them, all on loopback elsewhere. Parted, killed, and back.

use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Place, Ran, Running, finish, start};
use fieldkeep_lab::proxy::Proxy;
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.visit]
[type.visit.field.note]
"#;

/// After so long without a word a connection is over.
const QUIET: Duration = Duration::from_secs(45);
const NAMES: [&str; 3] = ["ann", "ben", "cat"];

/// Where the processes run.
enum Network {
    /// Each behind a cable of its own; named after this process and test.
    Namespaces(String),
    Loopback,
}

impl Network {
    fn new() -> Self {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let letter = ["a", "b", "c"][NETWORKS.fetch_add(1, Ordering::Relaxed) as usize];
        let name = format!("fk{}{letter}", std::process::id());
        let network = Self::Namespaces(name.clone());
        if network.lay(&name) {
            return network;
        }
        // Loudly: on loopback nobody pulls a cable.
        let _ = writeln!(std::io::stderr(), "on loopback: this user makes no network namespaces");
        Self::Loopback
    }

    /// Lays a cable from each namespace to a bridge. Returns whether this user may.
    fn lay(&self, bridge: &str) -> bool {
        let made = ip(&["link", "add", bridge, "type", "bridge"]);
        if !made || !ip(&["link", "set", bridge, "up"]) {
            return false;
        }
        for (at, number) in (1..=NAMES.len()).enumerate() {
            let (inside, cable) = (self.namespace(at), self.cable(at));
            let address = format!("10.77.0.{number}/24");
            let steps: [&[&str]; 6] = [
                &["netns", "add", &inside],
                &["link", "add", &cable, "type", "veth", "peer", "name", "e", "netns", &inside],
                &["link", "set", &cable, "master", bridge, "up"],
                &["-n", &inside, "addr", "add", &address, "dev", "e"],
                &["-n", &inside, "link", "set", "e", "up"],
                &["-n", &inside, "link", "set", "lo", "up"],
            ];
            if !steps.into_iter().all(ip) {
                return false;
            }
        }
        true
    }

    fn namespace(&self, at: usize) -> String {
        match self {
            Self::Namespaces(name) => format!("{name}n{at}"),
            Self::Loopback => String::new(),
        }
    }

    fn cable(&self, at: usize) -> String {
        match self {
            Self::Namespaces(name) => format!("{name}v{at}"),
            Self::Loopback => String::new(),
        }
    }

    /// Where a device listens: on all addresses, or on loopback.
    fn listens(&self) -> &'static str {
        match self {
            Self::Namespaces(_) => "0.0.0.0:0",
            Self::Loopback => "127.0.0.1:0",
        }
    }

    /// Gives this side of the bridge an address, for a relay. Returns whether there is a bridge.
    fn joins(&self, address: &str) -> bool {
        match self {
            Self::Namespaces(name) => ip(&["addr", "add", address, "dev", name]),
            Self::Loopback => false,
        }
    }

    /// Takes a device off every network, or puts it there under another address.
    fn moves(&self, at: usize, address: Option<&str>) {
        let inside = self.namespace(at);
        assert!(ip(&["-n", &inside, "addr", "flush", "dev", "e"]));
        if let Some(address) = address {
            assert!(ip(&["-n", &inside, "addr", "add", address, "dev", "e"]));
        }
    }

    /// A command as it runs where a device is.
    fn command(&self, place: &Place, at: usize, args: &[&str]) -> Command {
        let command = place.command(NAMES[at], args);
        if let Self::Loopback = self {
            return command;
        }
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace(at)]).arg(command.get_program());
        inside.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        inside
    }

    /// Pulls a device's cable, or puts it back. Returns whether there is one.
    fn plug(&self, at: usize, state: &str) -> bool {
        match self {
            Self::Namespaces(_) => ip(&["link", "set", &self.cable(at), state]),
            Self::Loopback => false,
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Namespaces(name) = &*self {
            for at in 0..NAMES.len() {
                ip(&["netns", "del", &self.namespace(at)]);
            }
            ip(&["link", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

/// Three members who have never written anything, and no relay any more.
struct Town {
    place: Place,
    network: Network,
    /// Where the relay was.
    relay: String,
}

impl Town {
    fn new(network: Network) -> Self {
        let place = Place::new();
        place.relay(CATALOG).stop("TERM");
        let (relay, address) = place.serve_at("127.0.0.1:0");
        for name in NAMES {
            place.device(name, &[]);
            place.run(name, &["sync"]).ok();
        }
        relay.stop("TERM");
        Self { place, network, relay: address }
    }

    fn run(&self, at: usize, args: &[&str]) -> Ran {
        finish(self.network.command(&self.place, at, args), "")
    }

    /// Has a device look for others, and be found.
    fn watch(&self, at: usize) -> Running {
        let listen = ["sync", "--watch", "--nearby", "--listen", self.network.listens()];
        let watch = start(self.network.command(&self.place, at, &listen));
        watch.line_beginning("listening");
        watch
    }

    fn put(&self, at: usize, id: &str) {
        self.run(at, &["put", &format!("visit/{id}"), &format!("note={id}")]).ok();
    }

    /// A thousand records.
    fn import(&self, at: usize, prefix: &str) {
        // Of notes that cannot be packed into little.
        let note = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_pow(3);
        let note =
            |n: u64| (0..8).map(|part| format!("{:x}", note(8 * n + part))).collect::<String>();
        let rows: String = (1..=1_000).map(|n| format!("{prefix}{n},{}\n", note(n))).collect();
        let file = self.place.file(&format!("{prefix}.csv"), &format!("id,note\n{rows}"));
        let file = file.to_str().expect("a plain path");
        self.run(at, &["import", "visit", file, "--id", "id"]).ok();
    }

    /// Exchanges until two hold the same.
    fn equal(&self, at: usize, with: usize) {
        self.run(at, &["sync", "--peer", NAMES[with], "--timeout", "90s"]).ok();
    }

    fn is_connected(&self, at: usize, name: &str) -> bool {
        let peers = self.run(at, &["peers", "--wait", "1s", "--json"]).json();
        let peers = peers["peers"].as_array().expect("a list").iter();
        peers.filter(|peer| peer["name"] == name).any(|peer| peer["state"] == "connected")
    }

    fn records(&self, at: usize) -> Vec<Value> {
        let listed = self.run(at, &["list", "visit", "--json"]).json();
        let records = listed["records"].as_array().expect("a list").clone();
        records.into_iter().map(|record| record["id"].clone()).collect()
    }
}

#[test]
fn three_processes_find_each_other_and_lose_nothing_when_they_are_parted_and_killed() {
    let town = Town::new(Network::new());
    let (ann, ben, cat) = (0, 1, 2);
    let watches = [town.watch(ann), town.watch(ben), town.watch(cat)];
    // Each has met both others.
    for (at, watch) in watches.iter().enumerate() {
        let mut met: Vec<String> = (0..2).map(|_| watch.line_beginning("meets")).collect();
        met.sort();
        let others = NAMES.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<String> = others.map(|(_, name)| format!("meets {name}")).collect();
        assert_eq!(met, others);
    }
    let found = town.run(ann, &["peers", "--json"]).json();
    let mut names: Vec<&str> = found["peers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["ben", "cat"]);
    assert!(found["peers"].as_array().expect("a list").iter().all(|p| p["state"] == "connected"));

    // One of them is killed while a thousand records are on their way to it.
    let [first, second, third] = watches;
    town.import(ann, "a");
    second.stop("KILL");
    town.put(cat, "c");
    let second = town.watch(ben);
    town.equal(ben, ann);
    town.equal(cat, ben);
    assert_eq!(town.records(ben).len(), 1_001);

    // Another one is behind a cable that is pulled.
    let parted = town.network.plug(cat, "down");
    town.put(ann, "while-parted");
    town.put(cat, "alone");
    town.equal(ann, ben);
    let all = if parted { 1_002 } else { 1_003 };
    assert!(town.records(ben).len() <= all);
    if parted {
        assert_eq!(town.records(cat).len(), 1_002, "its own is here, the other one is not");
        let text = town.run(cat, &["sync", "--peer", "ben", "--timeout", "2s"]).err;
        assert!(text.contains("everything is safe on this device"), "{text}");
    }
    town.network.plug(cat, "up");
    town.equal(cat, ann);
    town.equal(ben, cat);
    let whole = town.records(ann);
    assert_eq!(whole.len(), 1_003);
    assert_eq!(town.records(ben), whole);
    assert_eq!(town.records(cat), whole);

    // Nobody has a receipt, and everybody knows whose is what.
    let status = town.run(cat, &["status", "--json"]).json();
    assert_eq!(status["types"][0]["unsaved"], 2);
    assert_eq!(status["types"][0]["carried"], 1_001);
    // Who stops says so: nobody has to find out.
    third.stop("TERM");
    let stopped = Instant::now();
    for at in [ann, ben] {
        while town.is_connected(at, "cat") {
            assert!(stopped.elapsed() < QUIET / 2, "{} was not told", NAMES[at]);
        }
    }
    for watch in [first, second] {
        watch.stop("TERM");
    }

    // The relay comes back, and one of them carries it all: 3 changes, and 1,000 records that were
    // imported 64 to a change.
    let _relay = town.place.serve_at(&town.relay);
    for name in ["cat", "ann"] {
        assert_eq!(town.place.run(name, &["sync", "--json"]).json()["sent"], 19, "receipts");
    }
    for at in [ann, cat] {
        let status = town.place.run(NAMES[at], &["status", "--json"]).json();
        assert_eq!(status["types"][0]["status"], "fully_synced");
        assert_eq!(
            (&status["types"][0]["unsaved"], &status["types"][0]["carried"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(town.records(at), whole);
    }
}

#[test]
fn a_device_on_another_network_calls_its_relay_at_once() {
    let network = Network::new();
    if !network.joins("10.77.0.254/24") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: on loopback there is one network");
        return;
    }
    let place = Place::new();
    place.relay(CATALOG).stop("TERM");
    let (relay, address) = place.serve_at("10.77.0.254:0");
    let (ann, town) = (0, Town { place, network, relay: address });
    town.place.device(NAMES[ann], &[]);
    town.run(ann, &["sync"]).ok();

    // Without any network nobody is called, and the next try is put off further each time.
    town.network.moves(ann, None);
    let watch = start(town.network.command(&town.place, ann, &["sync", "--watch", "--json"]));
    let (told, wait) = loop {
        let told: Value = serde_json::from_str(&watch.line()).expect("an object a line");
        let wait = Duration::from_secs(told["retry_s"].as_u64().unwrap_or(0));
        if wait > Duration::from_secs(5) {
            break (told, wait);
        }
    };
    let told_at = Instant::now();
    assert!(told["reason"].as_str().is_some_and(|text| text.contains("no network")), "{told}");
    town.put(ann, "offline");
    town.network.moves(ann, Some("10.77.0.9/24"));
    let unsaved = || town.run(ann, &["status", "--json"]).json()["types"][0]["unsaved"].clone();
    while unsaved() != 0 {
        assert!(told_at.elapsed() < wait - Duration::from_secs(1), "it waited all the same");
    }
    watch.stop("TERM");
    relay.stop("TERM");
}

#[test]
fn an_exchange_over_a_road_that_breaks_goes_on_where_it_was() {
    let town = Town::new(Network::Loopback);
    let (ann, ben) = (0, 1);
    let watch = town.watch(ben);
    let place = town.run(ben, &["peers", "--qr", "--json"]).json();
    let place = place["address"].as_str().expect("it listens").to_owned();
    let (address, key) = place.split_once('/').expect("an address and a key");
    town.import(ann, "a");

    let proxy = Proxy::start(address.parse().expect("an address")).expect("a road");
    proxy.break_after(30_000);
    let broken = format!("{}/{key}", proxy.address());
    let cut = town.run(ann, &["sync", "--peer", &broken, "--timeout", "3s"]);
    assert_ne!(cut.code, 0);
    assert!(cut.err.contains("nothing is lost"), "{}", cut.err);
    assert!(town.records(ben).len() < 1_000);

    // The listener is killed as well.
    watch.stop("KILL");
    let watch = town.watch(ben);
    let place = town.run(ben, &["peers", "--qr", "--json"]).json();
    let place = place["address"].as_str().expect("it listens");
    let met = town.run(ann, &["sync", "--peer", place, "--json"]).json();
    assert_eq!(town.records(ben).len(), 1_000);
    assert!(met["sent"].as_u64().expect("a number") <= 1_000, "{met}");
    assert_eq!(town.run(ann, &["sync", "--peer", place, "--json"]).json()["sent"], 0);

    // Who answers under another key than the one that was shown is not told anything.
    let other = town.watch(ann);
    let shown = town.run(ann, &["peers", "--qr", "--json"]).json();
    let (_, key) = shown["address"].as_str().expect("it listens").split_once('/').expect("a key");
    let address = place.split('/').next().expect("an address");
    let wrong = town.run(2, &["sync", "--peer", &format!("{address}/{key}")]);
    assert_eq!(wrong.code, 6, "{}", wrong.err);
    assert!(wrong.err.contains("another device answers"), "{}", wrong.err);
    other.stop("TERM");
    watch.stop("TERM");
}
