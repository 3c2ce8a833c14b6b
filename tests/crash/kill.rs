//! `kill -9` of devices and relay at random moments while writes are in flight: nothing that was
//! reported saved is lost, nothing that has a receipt is missing on the relay, and in the end all
//! replicas are equal. The ledger of what was reported is kept here, outside the victims.
//!
//! The number of kills is `FIELDKEEP_KILLS` (200 unless set), the seed `FIELDKEEP_SEED`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fieldkeep_device::{Device, join};
use fieldkeep_lab::Dice;
use fieldkeep_model::{Edit, Grant, KeyPair, RecordEdit, RecordKey, Scalar};
use fieldkeep_relay::{Directory, Relay, admin_key, invite};
use fieldkeep_store::Log as _;

const CATALOG: &str = r#"
catalog = 1
[type.visit]
buckets = 2
[type.visit.field.n]
schema = { type = "integer" }
"#;

const ROLE: &str = "FIELDKEEP_CHILD_ROLE";
const DIRECTORY: &str = "FIELDKEEP_CHILD_DIRECTORY";

/// The other end of this test: a victim, when the environment says so.
#[test]
fn victim() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("the parent names it"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match role.as_str() {
        "relay" => runtime.block_on(serve(&directory)),
        _ => runtime.block_on(capture(&directory, &role)),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

async fn serve(directory: &Path) {
    let port: u16 = std::env::var("FIELDKEEP_CHILD_PORT").expect("set").parse().expect("a port");
    let directory = Directory::open(directory).expect("a relay's directory opens after a kill");
    let listen = ([127, 0, 0, 1], port).into();
    let _relay = Relay::serve(directory, listen).expect("it serves");
    say("ready");
    std::future::pending::<()>().await;
}

/// Writes without end, telling before and after each write, and syncs all the while.
async fn capture(directory: &Path, name: &str) {
    let device = Device::open(directory).expect("a device's directory opens after a kill");
    let syncing = device.clone();
    tokio::spawn(async move {
        loop {
            let _ = syncing.keep_synced().await;
            tokio::task::yield_now().await;
        }
    });
    let mut life = 0u64;
    for record in
        device.list(&"visit".parse().expect("a type"), &Default::default()).expect("reads")
    {
        life = life.max(record.fields.get("n").and_then(|n| n.as_u64()).unwrap_or(0));
    }
    say("ready");
    let writer = device.clone();
    let name = name.to_owned();
    let write = tokio::task::spawn_blocking(move || {
        // The devices write different numbers, so that no write finds its value there already.
        let parity = u64::from(name.as_bytes()[0] % 2);
        for n in (life + 1..).filter(|n| n % 2 == parity) {
            // Ten records of each device's own, and one that both edit.
            let id = if n % 7 == 0 { "shared".to_owned() } else { format!("{name}-{}", n % 10) };
            let key: RecordKey = format!("visit/{id}").parse().expect("a name");
            say(&format!("start {id} {n}"));
            let edit = RecordEdit::from(vec![Edit::Put("n".into(), Scalar::Int(n as i64))]);
            let wrote = writer.put(&key, &edit).expect("it is saved");
            let (seq, hash) = wrote.change.expect("each write changes something");
            say(&format!("done {id} {n} {seq} {hash}"));
            let receipts = receipts(&writer);
            say(&format!("receipts {receipts}"));
        }
    });
    write.await.expect("it writes until it is killed");
}

/// `segment:actor:seq` of every receipt, parted by commas.
fn receipts(device: &Device) -> String {
    let receipts = device.with_replica(|replica| {
        let actor = replica.me().actor();
        let mut receipts = Vec::new();
        for row in replica.segments().values() {
            let seq = replica.store().acknowledged(row.sid, &actor)?;
            receipts.push(format!("{}:{actor}:{seq}", row.id));
        }
        Ok::<_, fieldkeep_replica::ReplicaError>(receipts)
    });
    receipts.expect("it reads").join(",")
}

/// A process that will be killed.
struct Victim {
    child: Child,
    lines: Receiver<String>,
}

impl Victim {
    fn start(role: &str, directory: &Path, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::victim", "--nocapture", "--test-threads", "1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .env("FIELDKEEP_CHILD_PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let victim = Self { child, lines };
        while !victim.line().ends_with("ready") {}
        victim
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("the victim goes on")
    }
}

/// What the victims reported.
#[derive(Default)]
struct Ledger {
    /// By device and record: the highest number whose write was reported saved.
    saved: BTreeMap<(String, String), u64>,
    /// By segment and actor: the highest seq with a receipt.
    receipts: BTreeMap<(String, String), u64>,
    /// By device: whether a write was begun and not reported yet.
    begun: BTreeMap<String, bool>,
    writes: u64,
    in_flight: u64,
}

impl Ledger {
    fn note(&mut self, device: &str, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", ..] => {
                self.begun.insert(device.to_owned(), true);
            }
            ["done", id, n, ..] => {
                self.begun.insert(device.to_owned(), false);
                self.writes += 1;
                let n: u64 = n.parse().expect("a number");
                let saved = self.saved.entry((device.to_owned(), id.to_owned())).or_default();
                *saved = n.max(*saved);
            }
            ["receipts", receipts] => {
                for receipt in receipts.split(',').filter(|receipt| !receipt.is_empty()) {
                    let parts: Vec<&str> = receipt.split(':').collect();
                    let key = (parts[0].to_owned(), parts[1].to_owned());
                    let seq: u64 = parts[2].parse().expect("a number");
                    let known = self.receipts.entry(key).or_default();
                    *known = seq.max(*known);
                }
            }
            _ => {}
        }
    }

    /// Kills a victim and notes what it had said before.
    fn kill(&mut self, device: &str, victim: &mut Victim) {
        victim.child.kill().expect("it was alive");
        victim.child.wait().expect("it is gone");
        while let Ok(line) = victim.lines.recv_timeout(Duration::from_secs(10)) {
            self.note(device, &line);
        }
        self.in_flight += u64::from(self.begun.insert(device.to_owned(), false).unwrap_or(false));
    }
}

async fn enrol(relay: &Relay, root: &Path, name: &'static str) {
    let admin = fieldkeep_link::KeyFile::open(admin_key(&root.join("relay"))).expect("it is there");
    let (admin, address) = (admin.signing(), relay.address());
    let handle = relay.handle();
    let ticket = handle.call(move |engine| {
        let one_time = KeyPair::from_secret(*blake3::hash(name.as_bytes()).as_bytes());
        let members = engine.replica().members();
        let grants = vec![Grant::ALL];
        let (entry, mut ticket) = invite(members, &admin, one_time, name, grants, i64::MAX);
        engine.replica_mut().append_members(&[entry]).expect("it is signed");
        ticket.addresses = vec![address];
        ticket
    });
    join(&ticket.await.expect("it answers"), &root.join(name)).await.expect("the ticket is good");
}

/// Every receipt in the ledger is in the relay's log, before any device could send it again.
fn relay_holds_its_receipts(root: &Path, ledger: &Ledger) {
    let directory = Directory::open(&root.join("relay")).expect("it opens");
    let (mut replica, _home, _seed) = directory.into_replica().expect("it reads");
    for ((segment, actor), seq) in &ledger.receipts {
        let segment = segment.parse().expect("a segment's id");
        let vector = replica.vector(&segment).expect("it reads");
        let held = vector.seq(&actor.parse().expect("an actor's id"));
        assert!(held >= *seq, "{actor}: a receipt for {seq}, but the relay holds {held}");
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_processes_are_killed() {
    let kills: u32 =
        std::env::var("FIELDKEEP_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let seed = std::env::var("FIELDKEEP_SEED").ok().and_then(|n| n.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}: repeat with FIELDKEEP_SEED={seed} cargo test --test crash kill");
    let mut dice = Dice::seeded(seed);
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let port = runtime.block_on(async {
        drop(Directory::init(&root.join("relay"), "acme", Some(CATALOG)).expect("founded"));
        let directory = Directory::open(&root.join("relay")).expect("it opens");
        let relay = Relay::serve(directory, ([127, 0, 0, 1], 0).into()).expect("it serves");
        enrol(&relay, root, "ann").await;
        enrol(&relay, root, "ben").await;
        let port = relay.address().port();
        relay.stop().await;
        port
    });

    let mut ledger = Ledger::default();
    let mut relay = Victim::start("relay", &root.join("relay"), port);
    let names = ["ann", "ben"];
    let mut devices = names.map(|name| Victim::start(name, &root.join(name), port));
    for round in 0..kills {
        // Let a random number of writes pass, then strike in the middle of the next.
        for (name, device) in names.iter().zip(&devices) {
            for _ in 0..dice.below(20) {
                let line = device.line();
                ledger.note(name, &line);
            }
        }
        match round % 3 {
            0 => {
                ledger.kill("relay", &mut relay);
                relay_holds_its_receipts(root, &ledger);
                relay = Victim::start("relay", &root.join("relay"), port);
            }
            victim => {
                let nth = victim as usize - 1;
                ledger.kill(names[nth], &mut devices[nth]);
                devices[nth] = Victim::start(names[nth], &root.join(names[nth]), port);
            }
        }
    }
    for (name, device) in names.iter().zip(&mut devices) {
        ledger.kill(name, device);
    }
    ledger.kill("relay", &mut relay);
    relay_holds_its_receipts(root, &ledger);
    let writes = ledger.writes;
    println!(
        "{kills} kills, {writes} writes, {} of them in flight when a kill came",
        ledger.in_flight
    );
    runtime.block_on(all_agree(root, port, &ledger));
}

/// Both devices and the relay end with the same records, and every saved number is among them or
/// was overwritten by a later one of the same record.
async fn all_agree(root: &Path, port: u16, ledger: &Ledger) {
    let directory = Directory::open(&root.join("relay")).expect("it opens");
    let relay = Relay::serve(directory, ([127, 0, 0, 1], port).into()).expect("it serves");
    let open = |name| Device::open(&root.join(name)).expect("it opens");
    let devices = ["ann", "ben"].map(open);
    for device in [&devices[0], &devices[1], &devices[0]] {
        device.sync(Duration::from_secs(60)).await.expect("everything is exchanged and proven");
    }
    for ((device, id), n) in &ledger.saved {
        let key: RecordKey = format!("visit/{id}").parse().expect("a name");
        for replica in &devices {
            let record = replica.get(&key).expect("it reads").expect("a saved record is there");
            let found = record.fields["n"].as_u64().expect("a number");
            assert!(id == "shared" || found >= *n, "{device} saved {n} in {id}, found {found}");
            assert!(!record.unsaved, "{id} has a receipt");
        }
    }
    let rows = |device: &Device| {
        device.with_replica(|replica| {
            let rows = replica.segments().values().map(|row| (row.id, row.records, row.rows));
            Ok::<_, fieldkeep_replica::ReplicaError>(rows.collect::<Vec<_>>())
        })
    };
    let handle = relay.handle();
    let of_relay = handle.call(|engine| {
        let rows = engine.replica().segments().values();
        rows.map(|row| (row.id, row.records, row.rows)).collect::<Vec<_>>()
    });
    let of_relay = of_relay.await.expect("it answers");
    for device in &devices {
        assert_eq!(rows(device).expect("it reads"), of_relay);
    }
    relay.stop().await;
}
