//! Idle connections: what each costs a relay that runs in a process of its own.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::time::Duration;

use fieldkeep_link::{Endpoint, Event, Limits, Receiver, Sender};
use fieldkeep_model::{MembershipLog, PublicKey};
use fieldkeep_protocol::frame::{Frame, Hello};
use fieldkeep_protocol::{FrameBuffer, Offer, priority};
use fieldkeep_relay::{Directory, Relay};
use fieldkeep_store::{Reader, Settings as _, home};

use crate::authors::{enrol, seed};
use crate::camp::{Sizes, catalog, directory, runtime, start_part};
use crate::table::{Table, Target};

/// Connections before the first look, so that only their number grows after it.
const WARM: usize = 20;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let root = directory();
    let path = root.path().join("relay");
    let count = sizes.connections;
    let relay = Directory::init(&path, "bench", Some(&catalog(1, false))).expect("founded");
    let (mut replica, home, _) = relay.into_replica().expect("it opens");
    enrol(&mut replica, &path, count + WARM);
    drop((replica, home));
    let relay = Part::start("relay", &[&path.display().to_string()]);
    let (relay, address) = relay.line();
    let warm =
        Part::start("idlers", &[&path.display().to_string(), &address, "0", &WARM.to_string()]);
    let (warm, _) = warm.line();
    let before = resident_kib(relay.child.id());
    let (from, to) = (WARM.to_string(), (WARM + count).to_string());
    let idlers = Part::start("idlers", &[&path.display().to_string(), &address, &from, &to]);
    let (idlers, _) = idlers.line();
    let during = resident_kib(relay.child.id());
    // Not a wait for something: the time is what is measured.
    std::thread::sleep(Duration::from_secs(sizes.idle));
    let after = resident_kib(relay.child.id());
    let each = (after - before) / count as f64;
    let how = format!(
        "{before:.0} KiB before, {during:.0} when all {count} were there, {after:.0} after {} s",
        sizes.idle
    );
    table.row("idle connection", each, Target::AtMost(60.0, "KiB"), how);
    for part in [idlers, warm, relay] {
        part.end();
    }
}

/// A process of this measurement.
struct Part {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = start_part(name, arguments);
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// Waits for the process to say something.
    fn line(mut self) -> (Self, String) {
        let line = self.lines.next().expect("it says something").expect("it is text");
        (self, line)
    }

    /// Closes its input, which ends it.
    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it ends");
    }
}

/// What a process has in memory.
pub(crate) fn resident_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Until the measurement closes this process's input.
fn until_told() {
    std::io::stdin().read_line(&mut String::new()).expect("a pipe");
}

/// The process of the relay.
pub(crate) fn relay(arguments: &[String]) {
    let runtime = runtime();
    let directory = Directory::open(Path::new(&arguments[0])).expect("a relay's directory");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let relay = runtime.block_on(async { Relay::serve(directory, listen) }).expect("it serves");
    println!("{}", relay.address());
    until_told();
    runtime.block_on(relay.stop());
}

/// The process of the devices: each introduces itself, offers, hears the answer, and is silent.
pub(crate) fn devices(arguments: &[String]) {
    let numbers: Vec<usize> = arguments[2..].iter().map(|n| n.parse().expect("a number")).collect();
    let address: SocketAddr = arguments[1].parse().expect("an address");
    let key = fieldkeep_link::KeyFile::open(home::key(Path::new(&arguments[0])));
    let relay = key.expect("the relay's key").tls().public();
    let hello = introduction(Path::new(&arguments[0]));
    let runtime = runtime();
    let mut held = Vec::new();
    for nth in numbers[0]..numbers[1] {
        held.push(runtime.block_on(device(nth, address, relay, hello.clone())));
    }
    println!("connected");
    until_told();
    // At once: nobody waits for a thousand farewells.
    std::process::exit(0);
}

/// The introduction of a device that knows all members and the catalog.
fn introduction(relay: &Path) -> Hello {
    let store = Reader::open(&home::database(relay)).expect("the relay's store");
    let members = MembershipLog::open(store.members().expect("it reads")).expect("it verifies");
    Hello {
        versions: vec![fieldkeep_protocol::VERSION],
        software: "bench".to_owned(),
        org: members.org(),
        capabilities: 0,
        members: members.len(),
        members_tip: members.tip(),
        members_sum: members.sum().to_be_bytes(),
        epoch: Default::default(),
        catalog: 1,
        frame_max: fieldkeep_protocol::FRAME_MAX,
        root: [0; 16],
        actor: None,
        removals: None,
    }
}

async fn device(
    nth: usize,
    address: SocketAddr,
    relay: PublicKey,
    hello: Hello,
) -> (Endpoint, Sender, Receiver) {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let endpoint = Endpoint::bind(listen, &seed(nth).tls(), Limits::DEVICE).expect("a socket");
    let connection = endpoint.connect(address, &relay).await.expect("the relay answers");
    let (sender, mut receiver) = connection.carry(fieldkeep_link::Role::Dialer);
    let mut frames = FrameBuffer::default();
    let offer = Offer::new(Default::default(), 1, [0; 16], &[]);
    for frame in [Frame::Hello(Box::new(hello)), Frame::Offer(offer)] {
        let sent = sender.try_send(0, priority::CONTROL, frame.encode().into());
        sent.expect("there is room");
    }
    loop {
        match receiver.recv().await {
            Event::Bytes { bytes, .. } => frames.push(&bytes),
            Event::Closed { reason } => panic!("the relay closed: {}", reason.text),
            Event::Finished { .. } | Event::Writable { .. } => {}
        }
        while let Some(frame) = frames.next(fieldkeep_protocol::FRAME_MAX).expect("frames") {
            if matches!(frame, Frame::OfferReply(_)) {
                return (endpoint, sender, receiver);
            }
        }
    }
}
