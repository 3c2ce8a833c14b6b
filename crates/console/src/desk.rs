//! What the user asked for that takes a while: what is under way, what it came to, and whom this
//! device has met meanwhile. In memory only, and bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldkeep_device::{Event, Neighbour, PeerProgress};
use fieldkeep_model::{PeerAddress, TypeName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::pages::words::{records, several};
use crate::server::App;
use crate::shape::Check;
use crate::{Code, Failure, time};

/// How long a sync is tried, and an exchange with another device.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a download is tried.
const DOWNLOAD: Duration = Duration::from_secs(600);
/// How long the network is looked at for other devices.
const LOOK: Duration = Duration::from_secs(3);
/// How long something is told that went well, in milliseconds.
const GOOD_NEWS_MS: i64 = 20_000;
/// What may be under way at once.
const AT_ONCE: usize = 8;
/// Exchanges with other devices that are remembered.
const MET: usize = 20;

/// What is under way and what has become of it.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    book: Mutex<Book>,
    turned: watch::Sender<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// What is under way.
    pub(crate) running: Vec<Work>,
    /// What the last of it came to, until the user has seen it.
    pub(crate) notice: Option<Notice>,
    /// Exchanges with other devices, the newest first.
    pub(crate) met: VecDeque<(i64, PeerProgress)>,
    /// The devices that were found nearby, and when.
    pub(crate) near: Option<(i64, Vec<Neighbour>)>,
    /// What the doctor found, and when.
    pub(crate) checks: Option<(i64, Vec<Check>)>,
}

/// Something that takes a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Exchange everything with the relay.
    Sync,
    /// Download a type again, or all; clearing what may not be read any more or not.
    Download(Option<TypeName>, bool),
    /// Exchange with another device: an address with its key, or a member's number.
    Meet(String),
    /// Look around on the local network.
    Look,
    /// Check everything, after deriving again what can be if that is asked.
    Check(bool),
}

/// What something came to.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    time: i64,
    /// Whether it went well.
    pub(crate) good: bool,
    /// What happened.
    pub(crate) text: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Notice {
    pub(crate) fn new(good: bool, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { time: time::now(), good, text: text.into(), remedy: remedy.into() }
    }

    /// Whether it is to be told no longer: good news are none for long.
    pub(crate) fn is_old(&self, now: i64) -> bool {
        self.good && now - self.time > GOOD_NEWS_MS
    }
}

impl Work {
    /// What is being done.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Sync => "Syncing".to_owned(),
            Self::Download(ty, clears) => {
                let what = ty.as_ref().map_or("everything", TypeName::as_str);
                let how = if *clears { "Clearing and downloading" } else { "Downloading" };
                format!("{how} {what} again")
            }
            Self::Meet(peer) => format!("Exchanging with {peer}"),
            Self::Look => "Looking around on this network".to_owned(),
            Self::Check(false) => "Checking everything".to_owned(),
            Self::Check(true) => "Deriving everything again".to_owned(),
        }
    }
}

impl Desk {
    /// What there is to be told.
    pub(crate) fn book(&self) -> Book {
        let mut book = self.open().clone();
        book.notice.take_if(|notice| notice.is_old(time::now()));
        book
    }

    /// Counts whatever happens: to the device, or here.
    pub(crate) fn turned(&self) -> watch::Receiver<u64> {
        self.turned.subscribe()
    }

    /// What is told has been seen.
    pub(crate) fn seen(&self) {
        self.write(|book| book.notice = None);
    }

    /// Tells something.
    pub(crate) fn tell(&self, good: bool, text: impl Into<String>, remedy: impl Into<String>) {
        let notice = Notice::new(good, text, remedy);
        self.write(|book| book.notice = Some(notice));
    }

    fn write(&self, write: impl FnOnce(&mut Book)) {
        write(&mut self.open());
        self.turned.send_modify(|page| *page += 1);
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Begins something, unless it is under way, or too much is. What it comes to is told when it ends.
    pub(crate) fn begin(&self, work: Work) {
        let (mut begins, mut room) = (false, true);
        self.desk().write(|book| {
            room = book.running.len() < AT_ONCE;
            begins = room && !book.running.contains(&work);
            book.running.extend(begins.then(|| work.clone()));
        });
        if !room {
            let remedy = "try again when some of it has ended";
            self.desk().tell(false, "too much is under way at once", remedy);
        }
        if !begins {
            return;
        }
        let app = self.clone();
        tokio::spawn(async move {
            let done = app.work(&work).await;
            app.desk().write(|book| book.running.retain(|other| *other != work));
            match done {
                Ok(text) if text.is_empty() => {}
                Ok(text) => app.desk().tell(true, text, ""),
                Err(Failure { message, remedy, .. }) => app.desk().tell(false, message, remedy),
            }
        });
    }

    async fn work(&self, work: &Work) -> Result<String, Failure> {
        let device = self.device();
        match work {
            Work::Sync => {
                let report = device.sync(PATIENCE).await?;
                Ok(format!("Synced: {} sent, {} received", report.sent, report.received))
            }
            Work::Download(ty, clears) => {
                let done = match clears {
                    true => device.clear_and_resync(ty.as_ref(), DOWNLOAD).await?,
                    false => device.resync(ty.as_ref(), DOWNLOAD).await?,
                };
                let what = ty.as_ref().map_or("Everything", TypeName::as_str);
                Ok(format!("{what} was downloaded again and proven: {}", records(&done.records)))
            }
            Work::Meet(peer) => {
                let met = match (peer.parse(), peer.parse::<PeerAddress>()) {
                    (Ok(number), _) => device.sync_with_member(number, PATIENCE).await?,
                    (Err(_), Ok(place)) => device.sync_with(place, PATIENCE).await?,
                    (Err(_), Err(error)) => {
                        let remedy = "the other device's Peers page shows it";
                        return Err(Failure::new(
                            Code::Usage,
                            format!("`{peer}`: {error}"),
                            remedy,
                        ));
                    }
                };
                let name = met.name.unwrap_or_default();
                Ok(format!("Met {name}: {} sent, {} received", met.sent, met.received))
            }
            Work::Look => {
                let near = device.neighbours(LOOK).await?;
                self.desk().write(|book| book.near = Some((time::now(), near)));
                Ok(String::new())
            }
            Work::Check(repair) => {
                let (device, repair) = (device.clone(), *repair);
                let checked = tokio::task::spawn_blocking(move || {
                    let repaired = repair.then(|| device.repair()).transpose()?;
                    Ok::<_, Failure>((device.doctor()?, repaired))
                });
                let stopped = |_| Failure::new(Code::Failure, "the check broke off", "try again");
                let (checks, repaired) = checked.await.map_err(stopped)??;
                let checks = checks.into_iter().map(Check::from).collect();
                self.desk().write(|book| book.checks = Some((time::now(), checks)));
                Ok(repaired.map_or_else(String::new, |count| {
                    format!("{} derived again", several(count, "segment"))
                }))
            }
        }
    }

    /// Notes what happens to the device, and whom it meets.
    pub(crate) async fn keep_desk(self) {
        let mut events = self.device().watch();
        loop {
            match events.recv().await {
                Ok(Event::Left(progress)) => self.desk().write(|book| {
                    book.met.push_front((time::now(), progress));
                    book.met.truncate(MET);
                }),
                Ok(Event::Changed(_) | Event::Strip(_) | Event::Met(_) | Event::Status)
                | Err(RecvError::Lagged(_)) => self.desk().write(|_| ()),
                Err(RecvError::Closed) => return,
            }
        }
    }
}
