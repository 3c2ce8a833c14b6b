//! What operators asked for that takes a while, and what it came to: for each what he asked for, and for
//! all the catalog that was tried last. In memory only, and bounded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_model::RecordKey;
use fieldkeep_relay::{
    BackupError, BackupState, Progress, Stage, Taken, Thorough, Tried, read_catalog, try_catalog,
};
use fieldkeep_store::Wanted;
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::App;
use crate::desk::Notice;
use crate::shape::catalog::{Checked, Diff};
use crate::words::{count, records, several};
use crate::{Code, Failure, time};

/// What may be under way at once.
const AT_ONCE: usize = 4;
/// Operators whose last notice is kept.
const NOTICES: usize = 64;
/// Records that are judged again in one go: few, because whatever devices send waits for it; and as long
/// again is left to them.
const REJUDGED: usize = 16;
/// Between two looks at how far a backup is.
const LOOK: Duration = Duration::from_millis(500);

/// What is under way and what has become of it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    book: Mutex<Book>,
    turned: watch::Sender<u64>,
    sampled: watch::Sender<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) running: Vec<Job>,
    notices: BTreeMap<String, Notice>,
    /// The catalog that was tried last.
    pub(super) tried: Option<Arc<Compared>>,
    /// The backup that was asked for last, where it came to nothing.
    pub(super) unmade: Option<Unmade>,
    next: u64,
}

/// Something that takes a while.
#[derive(Clone, Debug)]
pub(super) struct Job {
    number: u64,
    pub(super) work: Work,
    pub(super) by: String,
    /// How many records are done, and of how many where that is known; of a backup's stage, whatever it
    /// counts.
    pub(super) done: u64,
    pub(super) of: Option<u64>,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Judging again what is sought.
    Rejudge,
    /// Comparing a catalog with all the data.
    Compare,
    /// Making a backup, which is that far.
    BackUp(Stage),
}

/// A backup that was not made.
#[derive(Clone, Debug)]
pub(super) struct Unmade {
    pub(super) by: String,
    /// When that was known, milliseconds UTC.
    pub(super) time: i64,
    pub(super) folder: String,
    pub(super) why: Failure,
}

/// A catalog that was tried, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) by: String,
    /// When it was found out, milliseconds UTC.
    pub(super) time: i64,
    /// Its source; or the number of an earlier one.
    pub(super) tried: Tried,
    pub(super) checked: Checked,
    pub(super) diff: Diff,
}

impl Job {
    pub(super) fn words(&self) -> String {
        let what = match self.work {
            Work::Rejudge => "Judging again",
            Work::Compare => "Comparing a catalog with all the data",
            Work::BackUp(stage) => return format!("Making a backup: {}", stage.words()),
        };
        match self.of {
            Some(of) => format!("{what}: {} of {}", count(&self.done), records(&of)),
            None => format!("{what}: {} by now", records(&self.done)),
        }
    }
}

impl Book {
    /// What an operator is to be told, until it is old or seen.
    pub(super) fn notice(&self, name: &str) -> Option<&Notice> {
        self.notices.get(name).filter(|notice| !notice.is_old(time::now()))
    }

    /// Whether a catalog is being compared.
    pub(super) fn compares(&self) -> bool {
        self.running.iter().any(|job| job.work == Work::Compare)
    }
}

impl Desk {
    pub(super) fn book(&self) -> Book {
        self.open().clone()
    }

    /// Counts whatever happens to records, or here.
    pub(super) fn turned(&self) -> watch::Receiver<u64> {
        self.turned.subscribe()
    }

    /// Counts the samples that were taken.
    pub(super) fn sampled(&self) -> watch::Receiver<u64> {
        self.sampled.subscribe()
    }

    /// Something has happened to records.
    pub(super) fn turn(&self) {
        self.turned.send_modify(|turn| *turn += 1);
    }

    /// A sample was taken.
    pub(super) fn sample(&self) {
        self.sampled.send_modify(|turn| *turn += 1);
    }

    /// An operator has seen what he was told.
    pub(super) fn seen(&self, name: &str) {
        self.write(|book| drop(book.notices.remove(name)));
    }

    /// Tells an operator something.
    pub(super) fn tell(
        &self,
        name: &str,
        good: bool,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let notice = Notice::new(good, text, remedy);
        self.write(|book| {
            book.notices.retain(|_, notice| !notice.is_old(time::now()));
            while book.notices.len() >= NOTICES {
                book.notices.pop_first();
            }
            book.notices.insert(name.to_owned(), notice);
        });
    }

    fn write(&self, write: impl FnOnce(&mut Book)) {
        write(&mut self.open());
        self.turn();
        // The overview shows what is under way as well.
        self.sample();
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, work: Work, by: &str, of: Option<u64>) -> Result<u64, Failure> {
        let mut begun = Err(Failure::new(
            Code::Failure,
            "too much is under way at once",
            "nothing was begun: try again when some of it has ended",
        ));
        self.write(|book| {
            if book.running.len() < AT_ONCE {
                book.next += 1;
                let (number, by) = (book.next, by.to_owned());
                book.running.push(Job { number, work, by, done: 0, of });
                begun = Ok(number);
            }
        });
        begun
    }

    fn moved(&self, number: u64, done: u64, of: Option<u64>) {
        self.write(|book| {
            if let Some(job) = book.running.iter_mut().find(|job| job.number == number) {
                (job.done, job.of) = (done, of.or(job.of));
            }
        });
    }

    /// How far a backup is.
    fn staged(&self, number: u64, now: Progress) {
        let Progress { stage, done, total } = now;
        let work = Work::BackUp(stage);
        let known = |job: &Job| job.number == number && (&job.work, job.done) == (&work, done);
        // What has not moved is no news to pages.
        if self.open().running.iter().any(known) {
            return;
        }
        self.write(|book| {
            if let Some(job) = book.running.iter_mut().find(|job| job.number == number) {
                (job.work, job.done, job.of) = (work, done, (total > 0).then_some(total));
            }
        });
    }

    fn end(&self, number: u64) {
        self.write(|book| book.running.retain(|job| job.number != number));
    }
}

impl App {
    /// Judges again what is sought, for an operator, who is told when that has ended.
    ///
    /// # Errors
    /// When too much is under way.
    pub(super) fn begin_rejudging(&self, by: &str, wanted: Wanted) -> Result<(), Failure> {
        let sample = self.office().vitals().sample();
        let of = (wanted == Wanted::default()).then_some(sample.held + sample.waiting);
        let number = self.desk().begin(Work::Rejudge, by, of)?;
        let (app, by) = (self.clone(), by.to_owned());
        tokio::spawn(async move {
            let done = app.rejudge(number, &by, wanted).await;
            app.desk().end(number);
            match done {
                Ok((judged, still)) => {
                    let text = format!(
                        "{} judged again: {} valid by now",
                        records(&judged),
                        count(&(judged - still))
                    );
                    app.desk().tell(&by, true, text, "");
                }
                Err(Failure { message, remedy, .. }) => {
                    app.desk().tell(&by, false, message, remedy)
                }
            }
        });
        Ok(())
    }

    async fn rejudge(&self, number: u64, by: &str, wanted: Wanted) -> Result<(u64, u64), Failure> {
        let (mut after, mut judged, mut still) = (None, 0, 0);
        loop {
            let (sought, from) = (wanted.clone(), after.take());
            let page = self.read(move |_, reading| {
                Ok(reading.views().quarantine(&sought, from.as_ref(), REJUDGED)?)
            });
            let (found, next) = page.await?;
            let keys: Vec<RecordKey> = found.into_iter().map(|held| held.view.key).collect();
            let (who, began) = (by.to_owned(), Instant::now());
            let done = self
                .with_engine(move |engine| engine.rejudge_for(time::now(), &who, &keys))
                .await?;
            (judged, still) = (judged + done.0, still + done.1);
            self.desk().moved(number, judged, None);
            after = next;
            if after.is_none() {
                return Ok((judged, still));
            }
            sleep(began.elapsed()).await;
        }
    }

    /// Tries a catalog against all the data, for an operator; what comes of it is on the desk then.
    ///
    /// # Errors
    /// When it cannot be read, or another one is being compared.
    pub(super) async fn begin_comparing(&self, by: &str, tried: Tried) -> Result<(), Failure> {
        if self.desk().book().compares() {
            return Err(is_comparing());
        }
        if let Tried::Source(source) = &tried {
            let source = source.clone();
            let judges = self.with_engine(|engine| Ok(engine.replica().judges().clone())).await?;
            self.on_disk(move |_| read_catalog(&source, &judges)).await?;
        }
        let number = self.desk().begin(Work::Compare, by, None)?;
        let (app, by) = (self.clone(), by.to_owned());
        tokio::spawn(async move {
            let done = app.compare(number, &by, tried).await;
            app.desk().end(number);
            match done {
                Ok(compared) => {
                    let text = format!(
                        "The catalog was compared with {}",
                        records(&compared.diff.records)
                    );
                    app.desk().write(|book| book.tried = Some(Arc::new(compared)));
                    app.desk().tell(&by, true, text, "");
                }
                Err(Failure { message, remedy, .. }) => {
                    app.desk().tell(&by, false, message, remedy)
                }
            }
        });
        Ok(())
    }

    async fn compare(&self, number: u64, by: &str, tried: Tried) -> Result<Compared, Failure> {
        let asked =
            self.with_engine(|engine| Ok((engine.present(), engine.replica().judges().clone())));
        let (present, judges) = asked.await?;
        let by = by.to_owned();
        self.read(move |app, reading| {
            let comparing = app.office().comparing();
            let Ok(_alone) = comparing.try_lock() else { return Err(is_comparing()) };
            let mut told = |done, of| app.desk().moved(number, done, Some(of));
            let trial = try_catalog(reading, tried.clone(), &present, judges, &mut told)?;
            let checked = Checked::of(&trial.catalog);
            Ok(Compared { by, time: time::now(), tried, checked, diff: Diff::of(trial) })
        })
        .await
    }

    /// Makes a backup in a folder, for an operator; what comes of it is on the desk then.
    ///
    /// # Errors
    /// When one is being made, or too much is under way.
    pub(super) fn begin_backup(&self, by: &str, folder: PathBuf) -> Result<(), Failure> {
        if matches!(self.office().backups().state(), BackupState::UnderWay { .. }) {
            return Err(BackupError::UnderWay.into());
        }
        let number = self.desk().begin(Work::BackUp(Stage::Moment), by, None)?;
        let (app, by) = (self.clone(), by.to_owned());
        tokio::spawn(async move {
            let made = app.back_up(number, folder.clone()).await;
            let unmade = made.as_ref().err().map(|why| Unmade {
                by: by.clone(),
                time: time::now(),
                folder: folder.display().to_string(),
                why: why.clone(),
            });
            app.desk().write(|book| book.unmade = unmade);
            app.desk().end(number);
            match made {
                Ok(taken) => app.tell_taken(&by, &taken),
                Err(_) => {
                    app.note(&by, "back_up_failed", folder.display().to_string()).await;
                    app.desk().tell(&by, false, "No backup was made", "Backup says why.");
                }
            }
        });
        Ok(())
    }

    async fn back_up(&self, number: u64, folder: PathBuf) -> Result<Taken, Failure> {
        let making =
            self.on_disk(move |app| app.office().backups().make(&folder, Thorough::Lengths));
        let (mut making, mut looks) = (std::pin::pin!(making), interval(LOOK));
        loop {
            tokio::select! {
                made = &mut making => return made,
                _ = looks.tick() => {
                    if let BackupState::UnderWay { progress, .. } = self.office().backups().state() {
                        self.desk().staged(number, progress);
                    }
                }
            }
        }
    }

    fn tell_taken(&self, by: &str, Taken { manifest, folder, .. }: &Taken) {
        let text = format!(
            "Backup {} is made in {}, and read back: {}",
            manifest.number,
            folder.display(),
            records(&manifest.records)
        );
        match manifest.attached.lacking.len() as u64 {
            0 => self.desk().tell(by, true, text, ""),
            lacking => {
                let remedy = format!(
                    "{} damaged or gone on the relay, and not in it: `fieldkeep relay doctor` \
                     says what to do",
                    several(lacking, "attached file")
                );
                self.desk().tell(by, false, text, remedy);
            }
        }
    }

    /// The catalog that was tried is no matter any more: it is published, or it was put away.
    pub(super) fn clear_trial(&self) {
        self.desk().write(|book| book.tried = None);
    }
}

fn is_comparing() -> Failure {
    let message = "a catalog is being compared with all the data already";
    Failure::new(Code::Failure, message, "one is compared at a time: try again when that has ended")
}
