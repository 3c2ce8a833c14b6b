//! samod (automerge-repo in Rust) over its own TCP transport: a hub with a document for each
//! segment, and a peer that asks for all of them.
//!
//! The road between them delays TCP as the proxy delays datagrams, and counts its bytes. Hub and
//! peer share this process: samod's processor time is not told apart. All in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use samod::tokio_io::TcpDialer;
use samod::{BackoffConfig, DocHandle, Repo, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::automerge::documents;
use super::results::{Property, Row, Subject};
use super::{Ideal, Plan, Sample};

/// What takes longer counts as not finished.
const PATIENCE: Duration = Duration::from_secs(300);

/// A hub with its documents, and the road to it.
struct Hub {
    repo: Repo,
    handles: Vec<DocHandle>,
    road: SocketAddr,
    delay_micros: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
}

pub(super) fn measure(plan: &Plan, property: Property) -> Row {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let row = runtime.block_on(cold(plan, property));
    runtime.shutdown_background();
    row
}

async fn cold(plan: &Plan, property: Property) -> Row {
    let documents = documents(plan, plan.records, plan.records, None);
    let mut least = Ideal::default();
    for document in &documents {
        let changes = document.get_changes(&[]);
        least.raw += changes.iter().map(|change| change.raw_bytes().len() as u64).sum::<u64>();
    }
    let count = documents.len();
    let hub = Hub::start(documents).await;
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        hub.delay_micros.store(delay * 500, Ordering::Relaxed);
        let taken = tokio::time::timeout(PATIENCE, hub.fetch()).await;
        all.push(taken.expect("samod finishes within five minutes"));
    }
    hub.repo.stop().await;
    let place = (property, Subject::Samod);
    let mut row = Row::of(place, &samples, &Default::default(), Some(least));
    row.ideal_packed = None;
    row.relay_ms = None;
    row.note = format!("{count} documents over TCP; the handshakes of TCP and samod included");
    row
}

impl Hub {
    async fn start(documents: Vec<automerge::Automerge>) -> Self {
        let repo = Repo::build_tokio().load().await;
        let mut handles = Vec::new();
        for document in documents {
            handles.push(repo.create(document).await.expect("the repository runs"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let hub = listener.local_addr().expect("it is bound");
        let url = format!("tcp://{hub}").parse().expect("an address");
        let acceptor = repo.make_acceptor(url).expect("the repository runs");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if acceptor.accept(Transport::from_tokio_io(stream)).is_err() {
                    return;
                }
            }
        });
        let road = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = road.local_addr().expect("it is bound");
        let (delay_micros, passed) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        tokio::spawn(lay(road, hub, Arc::clone(&delay_micros), Arc::clone(&passed)));
        Self { repo, handles, road: address, delay_micros, passed }
    }

    /// A peer that has nothing asks for every document.
    async fn fetch(&self) -> Sample {
        let before = self.passed.load(Ordering::Relaxed);
        let begin = Instant::now();
        let peer = Repo::build_tokio().load().await;
        let dialer = TcpDialer::new_host_port(self.road.ip().to_string(), self.road.port());
        let dialled = peer.dial(BackoffConfig::default(), Arc::new(dialer));
        let dialled = dialled.expect("the repository runs");
        dialled.established().await.unwrap_or_else(|_| panic!("the hub answers"));
        let mut waiting = tokio::task::JoinSet::new();
        for handle in &self.handles {
            let found = peer.find(handle.document_id().clone());
            let heads = handle.with_document(|document| document.get_heads());
            waiting.spawn(async move {
                let found = found.await.expect("the repository runs").expect("the hub has it");
                assert_eq!(found.with_document(|document| document.get_heads()), heads);
            });
        }
        while let Some(found) = waiting.join_next().await {
            found.expect("it is found whole");
        }
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        let bytes = self.passed.load(Ordering::Relaxed) - before;
        peer.stop().await;
        Sample { ms, bytes, relay_ms: 0.0 }
    }
}

/// A road for TCP: what goes in comes out later, in order.
async fn lay(road: TcpListener, to: SocketAddr, delay: Arc<AtomicU64>, passed: Arc<AtomicU64>) {
    while let Ok((near, _)) = road.accept().await {
        let Ok(far) = TcpStream::connect(to).await else { return };
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::spawn(carry(near_in, far_out, Arc::clone(&delay), Arc::clone(&passed)));
        tokio::spawn(carry(far_in, near_out, Arc::clone(&delay), Arc::clone(&passed)));
    }
}

async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
    delay: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
) {
    let (queue, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Whoever reads learns of the end; one that is gone needs not.
        let _ = to.shutdown().await;
    });
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        passed.fetch_add(length as u64, Ordering::Relaxed);
        let at = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
        if queue.send((at, bytes[..length].to_vec())).is_err() {
            return;
        }
    }
}
