//! Floors: what the same costs with nothing of ours in it. A bare QUIC connection that sends back what came,
//! and a page that is written and synced.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_link::{Endpoint, Limits};
use fieldkeep_model::KeyPair;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::board::Times;
use crate::place::Serving;

/// Bytes that go there and back: about one change.
const ECHO: usize = 256;
/// A page.
const PAGE: usize = 4 * 1024;
/// How often it is written.
const PAGES: usize = 200;
/// Connections before the first look at the memory.
const WARM: usize = 20;
/// Connections that are made at once.
const AT_ONCE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the floors came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Floors {
    /// A page written and synced, on the disk of the relay.
    pub sync: Times,
    /// There and back over a bare connection, with as many connections open and as many a second.
    pub echo: Times,
    /// What an idle bare connection costs who accepted it, in KiB.
    pub echo_idle_kib: f64,
}

fn keys(nth: usize) -> KeyPair {
    KeyPair::from_secret(*blake3::hash(format!("echo {nth}").as_bytes()).as_bytes())
}

const SERVER: usize = usize::MAX;

/// Sends back whatever comes, until the process ends. `listening` hears where.
pub fn serve_echo(listening: impl FnOnce(SocketAddr)) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async {
        let endpoint = Endpoint::bind(loopback(), &keys(SERVER), Limits::RELAY).expect("a socket");
        listening(endpoint.local_addr().expect("it is bound"));
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.handshake().await else { return };
                let quic = connection.into_quic();
                while let Ok((mut out, mut back)) = quic.accept_bi().await {
                    while let Ok(Some(chunk)) = back.read_chunk(ECHO, true).await {
                        if out.write_chunk(chunk.bytes).await.is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Writes and syncs pages in a folder.
pub(super) fn sync(folder: &Path) -> Times {
    let mut file = File::create(folder.join("page")).expect("a file");
    let page = vec![7; PAGE];
    let times = (0..PAGES).map(|_| {
        let begin = Instant::now();
        file.write_all(&page).and_then(|()| file.sync_data()).expect("the disk takes it");
        u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    });
    Times::of(times.collect())
}

/// What so many bare connections come to, with so many messages a second for so long.
pub(super) fn echo(program: &Path, count: usize, rate: u64, time: Duration) -> (Times, f64) {
    let mut command = Command::new(program);
    command.args(["lab", "load-echo"]);
    let serving = Serving::run(command);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let mut open = dial(&runtime, serving.address, 0..WARM.min(count / 2));
    let before = serving.memory();
    open.extend(dial(&runtime, serving.address, open.len()..count));
    let more = count - WARM.min(count / 2);
    let idle = serving.memory().saturating_sub(before) as f64 / 1_024.0 / more as f64;
    let times = Arc::new(Mutex::new(Vec::new()));
    let begin = Instant::now();
    runtime.block_on(async {
        let mut under_way = tokio::task::JoinSet::new();
        for nth in 0..(time.as_secs_f64() * rate as f64) as u64 {
            let due = begin + Duration::from_secs_f64(nth as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
            let connection = open[(nth as usize).wrapping_mul(7_919) % open.len()].1.clone();
            let times = Arc::clone(&times);
            under_way.spawn(async move {
                let begin = Instant::now();
                there_and_back(&connection).await;
                let took = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            });
        }
        under_way.join_all().await;
    });
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    (Times::of(times), idle)
}

async fn there_and_back(connection: &quinn::Connection) {
    let (mut out, mut back) = connection.open_bi().await.expect("it is open");
    out.write_all(&[7; ECHO]).await.expect("it is open");
    let mut rest = ECHO;
    while rest > 0 {
        let chunk = back.read_chunk(rest, true).await.expect("it is open");
        rest -= chunk.expect("all of it comes back").bytes.len();
    }
    let _ = out.finish();
}

fn dial(
    runtime: &Runtime,
    address: SocketAddr,
    which: std::ops::Range<usize>,
) -> Vec<(Endpoint, quinn::Connection)> {
    let which: Vec<usize> = which.collect();
    let mut open = Vec::new();
    runtime.block_on(async {
        for some in which.chunks(AT_ONCE) {
            let mut dialled = tokio::task::JoinSet::new();
            for nth in some.iter().copied() {
                dialled.spawn(async move {
                    let endpoint = Endpoint::bind(loopback(), &keys(nth), Limits::DEVICE);
                    let endpoint = endpoint.expect("a socket");
                    let connection = endpoint.connect(address, &keys(SERVER).public()).await;
                    let connection = connection.expect("it answers").into_quic();
                    there_and_back(&connection).await;
                    (endpoint, connection)
                });
            }
            let all = tokio::time::timeout(PATIENCE, dialled.join_all()).await;
            open.extend(all.expect("it answers"));
        }
    });
    open
}
