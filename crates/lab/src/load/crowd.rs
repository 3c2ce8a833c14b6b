//! Honest devices: each with its own key, socket and store, all of them in this process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_model::{ChangeHash, Signed, VerdictBlock};
use fieldkeep_protocol::frame::{Credit, Frame};
use fieldkeep_protocol::priority;
use fieldkeep_store::Store;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::board::Board;
use super::book::Book;
use super::caller::{Caller, Heard, Line, PUSH};
use super::site::Facts;

/// How long a device waits before it calls again.
const PAUSE: Duration = Duration::from_millis(250);

/// The devices of a load test.
pub(super) struct Crowd {
    runtime: Runtime,
    devices: Vec<Arc<Device>>,
    writes: Vec<mpsc::UnboundedSender<()>>,
    sessions: Vec<JoinHandle<()>>,
    /// How many devices, the first ones, are to be connected.
    wanted: watch::Sender<usize>,
    shared: Arc<Shared>,
}

/// What all devices share.
struct Shared {
    facts: Facts,
    board: Arc<Board>,
    address: watch::Receiver<std::net::SocketAddr>,
    /// Told whenever a device comes or goes.
    moved: Notify,
}

struct Device {
    caller: Caller,
    book: Mutex<Book>,
    online: AtomicBool,
}

impl Device {
    fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }
}

impl Crowd {
    /// So many devices, with stores in a folder, none of them connected.
    pub(super) fn gather(
        folder: &Path,
        facts: &Facts,
        count: usize,
        address: watch::Receiver<std::net::SocketAddr>,
        board: &Arc<Board>,
    ) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // Commits wait for the disk, on threads of their own.
        let runtime = runtime.worker_threads(2).max_blocking_threads(64).enable_all();
        let runtime = runtime.build().expect("threads");
        std::fs::create_dir_all(folder).expect("a folder");
        let template = folder.join("empty.db");
        drop(Store::open(&template).expect("a store"));
        let at = *address.borrow();
        let device = |nth: usize| {
            let caller = Caller::new(facts, nth, at);
            let path = folder.join(format!("device-{nth}.db"));
            let place = (&facts.org(), &caller.segment);
            let book = Book::open(&template, &path, place, caller.actor);
            Arc::new(Device { caller, book: Mutex::new(book), online: AtomicBool::new(false) })
        };
        let devices: Vec<_> = (0..count).map(device).collect();
        let (wanted, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            facts: facts.clone(),
            board: Arc::clone(board),
            address,
            moved: Notify::new(),
        });
        let (mut writes, mut sessions) = (Vec::new(), Vec::new());
        for device in &devices {
            let (write, asked) = mpsc::unbounded_channel();
            writes.push(write);
            let (device, shared) = (Arc::clone(device), Arc::clone(&shared));
            sessions.push(runtime.spawn(live(device, shared, asked, wanted.subscribe())));
        }
        Self { runtime, devices, writes, sessions, wanted, shared }
    }

    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Has so many devices connected, the first ones, and no other; how long that took, or nothing if it took
    /// longer than that.
    pub(super) fn connect(&self, wanted: usize, patience: Duration) -> Option<Duration> {
        let begin = Instant::now();
        self.wanted.send_replace(wanted);
        self.runtime.block_on(async {
            let all = async {
                loop {
                    let moved = self.shared.moved.notified();
                    let mut states = self.devices.iter().enumerate();
                    if states.all(|(nth, device)| device.is_online() == (nth < wanted)) {
                        return;
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(20), moved).await;
                }
            };
            tokio::time::timeout(patience, all).await.ok().map(|()| begin.elapsed())
        })
    }

    /// Has devices write, one after the other, so many changes a second for so long; or until `stop`.
    pub(super) fn write(&self, rate: u64, time: Duration, stop: &AtomicBool) {
        let begin = Instant::now();
        let total = (time.as_secs_f64() * rate as f64).round() as u64;
        for nth in 0..total {
            let due = begin + Duration::from_secs_f64(nth as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // A stride that meets every device before it meets one again, and neighbours far apart.
            let at = (nth as usize).wrapping_mul(7_919) % self.writes.len();
            // Whoever listens lives as long as this.
            let _ = self.writes[at].send(());
        }
        std::thread::sleep((begin + time).saturating_duration_since(Instant::now()));
    }

    /// Waits until everything has arrived everywhere; whether it has.
    pub(super) fn settle(&self, patience: Duration) -> bool {
        let begin = Instant::now();
        while self.shared.board.missing() > 0 {
            if begin.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.sessions.iter().for_each(JoinHandle::abort);
    }
}

/// A device's life: it is connected while that is wanted.
async fn live(
    device: Arc<Device>,
    shared: Arc<Shared>,
    mut asked: mpsc::UnboundedReceiver<()>,
    mut wanted: watch::Receiver<usize>,
) {
    let nth = device.caller.nth;
    loop {
        if wanted.wait_for(|wanted| nth < *wanted).await.is_err() {
            return;
        }
        if let Err(why) = session(&device, &shared, &mut asked, &mut wanted).await {
            if device.online.swap(false, Ordering::AcqRel) {
                shared.board.was_cut(why);
            }
            shared.moved.notify_waiters();
            tokio::time::sleep(PAUSE).await;
        }
        device.online.store(false, Ordering::Release);
        shared.moved.notify_waiters();
    }
}

/// One connection, until it is not wanted any more.
///
/// # Errors
/// Why it ended otherwise.
async fn session(
    device: &Arc<Device>,
    shared: &Shared,
    asked: &mut mpsc::UnboundedReceiver<()>,
    wanted: &mut watch::Receiver<usize>,
) -> Result<(), String> {
    let facts = &shared.facts;
    let (entries, unsent) = {
        let book = device.book.lock().unwrap_or_else(PoisonError::into_inner);
        (book.offer(), book.unsent())
    };
    let address = *shared.address.borrow();
    let caller = Caller { address, ..Caller::new(facts, device.caller.nth, address) };
    let mut line = caller.call(facts, &entries).await?;
    if !unsent.is_empty() {
        let chunks: Vec<_> = unsent.iter().map(Vec::as_slice).collect();
        line.say(PUSH, priority::PUSH, &caller.push(facts, &chunks));
    }
    loop {
        tokio::select! {
            biased;
            () = unwanted(caller.nth, wanted) => {
                line.close();
                return Ok(());
            }
            heard = line.hear() => match heard {
                Heard::Frame(frame) => hear(device, shared, &mut line, frame).await?,
                Heard::Room => {}
                Heard::Closed(code, text) => return Err(format!("{code:?}: {text}")),
            },
            order = asked.recv(), if device.is_online() => {
                if order.is_none() {
                    return Ok(());
                }
                let (chunk, hash) = off(device, Book::put).await;
                let hearers = facts.hearers(caller.nth);
                shared.board.wrote(hash, Instant::now(), hearers);
                line.say(PUSH, priority::PUSH, &caller.push(facts, &[&chunk]));
            }
        }
    }
}

/// Ends when that device is to be connected no more.
async fn unwanted(nth: usize, wanted: &mut watch::Receiver<usize>) {
    // Whoever says so lives as long as the devices.
    let _ = wanted.wait_for(|wanted| nth >= *wanted).await;
}

async fn hear(
    device: &Arc<Device>,
    shared: &Shared,
    line: &mut Line,
    frame: Frame,
) -> Result<(), String> {
    if let Frame::OfferReply(_) = frame {
        device.online.store(true, Ordering::Release);
        shared.moved.notify_waiters();
    } else if let Frame::Delta(delta) = frame {
        let segment = delta.segment.id;
        let (news, pos) = off(device, move |book| {
            let news: Result<Vec<ChangeHash>, String> = book.follow(&delta);
            news.map(|news| (news, book.pos()))
        })
        .await?;
        shared.board.arrived(&news, Instant::now());
        line.say(0, priority::CONTROL, &Frame::Credit(Credit { segment, pos }));
    } else if let Frame::Ack(ack) = frame {
        book(device).acknowledged(ack.seq);
    } else if let Frame::Nack(nack) = frame {
        return Err(format!("an honest change was refused: {} {}", nack.code, nack.text));
    } else if let Frame::Verdicts(verdicts) = frame {
        if let Some(last) = verdicts.blocks.last().and_then(Signed::read::<VerdictBlock>) {
            book(device).judged(last.number, last.pos);
        }
    } else if let Frame::GoAway(_) = frame {
        return Err("the relay sent it away".to_owned());
    }
    Ok(())
}

fn book(device: &Device) -> std::sync::MutexGuard<'_, Book> {
    device.book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with a device's disk, off the async threads.
async fn off<T: Send + 'static>(
    device: &Arc<Device>,
    act: impl FnOnce(&mut Book) -> T + Send + 'static,
) -> T {
    let device = Arc::clone(device);
    let done = tokio::task::spawn_blocking(move || act(&mut book(&device))).await;
    done.expect("a load device's disk does what it is told")
}
