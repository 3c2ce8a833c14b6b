//! What an idle connection costs the side that accepted it: measured with 500 of them, in a
//! process that does nothing else, with the devices in another one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use fieldkeep_link::{CONTROL, Endpoint, Event, Limits, Receiver, Role, Sender};
use fieldkeep_model::KeyPair;

const CONNECTIONS: usize = 500;
/// Connections before the first measurement, so that only their number grows after it.
const WARM: usize = 20;
const KIB_MAX: f64 = 60.0;
/// Where the devices' process finds the relay.
const RELAY: &str = "FIELDKEEP_LINK_IDLE_RELAY";
const WELCOMED: &str = "every device heard the welcome";

fn keys(n: u8) -> KeyPair {
    KeyPair::from_secret([n; 32])
}

fn endpoint(n: u8, limits: Limits) -> Endpoint {
    Endpoint::bind(([127, 0, 0, 1], 0).into(), &keys(n), limits).expect("loopback is free")
}

/// The resident memory of this process in KiB, where it can be read.
fn resident_kib() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

async fn hold(relay: &Endpoint, count: usize, held: &mut Vec<(Sender, Receiver)>) {
    for _ in 0..count {
        let incoming = relay.accept().await.expect("the endpoint is open");
        let connection = incoming.handshake().await.expect("a device");
        let (sender, mut receiver) = connection.carry(Role::Acceptor);
        assert!(matches!(receiver.recv().await, Event::Bytes { stream: CONTROL, .. }));
        sender.try_send(CONTROL, 0, "welcome".into()).expect("there is room");
        held.push((sender, receiver));
    }
}

#[tokio::test]
async fn an_idle_connection_costs_little() {
    if resident_kib().is_none() {
        writeln!(std::io::stderr(), "SKIPPED: resident memory cannot be read here")
            .expect("stderr");
        return;
    }
    let relay = endpoint(2, Limits::RELAY);
    let mut devices = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_devices_of_the_measurement", "--nocapture"])
        .env(RELAY, relay.local_addr().expect("it is bound").to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test runs");
    let out = BufReader::new(devices.stdout.take().expect("it is piped"));
    let welcomed = tokio::task::spawn_blocking(move || {
        out.lines().map_while(Result::ok).any(|line| line.contains(WELCOMED))
    });
    let mut held = Vec::with_capacity(CONNECTIONS + WARM);
    hold(&relay, WARM, &mut held).await;
    let before = resident_kib().expect("it was read above");
    hold(&relay, CONNECTIONS, &mut held).await;
    assert!(welcomed.await.expect("no panic"), "nothing is under way any more");
    let after = resident_kib().expect("it was read above");
    let each = f64::from(after - before) / CONNECTIONS as f64;
    println!("an idle connection costs {each:.1} KiB ({before} KiB before, {after} KiB after)");
    drop(devices.stdin.take());
    devices.wait().expect("it ends");
    assert!(each < KIB_MAX, "{each:.1} KiB each");
}

#[tokio::test]
async fn the_devices_of_the_measurement() {
    let Ok(address) = std::env::var(RELAY) else {
        return;
    };
    let address = address.parse().expect("an address");
    let device = endpoint(1, Limits::DEVICE);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS + WARM {
        let connection =
            device.connect(address, &keys(2).public()).await.expect("the relay answers");
        let (sender, mut receiver) = connection.carry(Role::Dialer);
        sender.try_send(CONTROL, 0, "hello".into()).expect("there is room");
        assert!(matches!(receiver.recv().await, Event::Bytes { stream: CONTROL, .. }));
        held.push((sender, receiver));
    }
    println!("{WELCOMED}");
    // Until the relay has measured.
    std::io::stdin().read_line(&mut String::new()).expect("a pipe");
    // At once: the harness would report to an output that nobody reads any more.
    std::process::exit(0);
}
