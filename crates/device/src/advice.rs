//! Advice: what is wrong, since when, and the one command that mends it, computed from the live state.

use fieldkeep_model::TypeName;
use fieldkeep_model::status::TypeStatus;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Blobs as _, Log as _, StoreError, Verdicts as _};

use crate::device::Device;
use crate::engine::PAUSED_SINCE;
use crate::status::{Status, Strip, TypeView, moment};

/// What is going on.
///
/// ```
/// # use fieldkeep_device::Situation;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.pause(None)?;
/// let situations: Vec<_> = device.advice()?.iter().map(|advice| advice.situation).collect();
/// assert_eq!(situations, [Situation::AllPaused, Situation::Held]); // The most pressing first.
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Situation {
    /// The relay does not let this device in, and trying again is of no use.
    Refused,
    /// What is stored is not what was written.
    Damaged,
    /// The last contact did not end well.
    SyncError,
    /// All syncing is paused.
    AllPaused,
    /// Syncing of a type is paused.
    TypePaused,
    /// Files are paused: records go on without them.
    FilesPaused,
    /// Several types have fewer records than the relay.
    ManyOutOfSync,
    /// A type has fewer records than the relay, and nothing is under way.
    OutOfSync,
    /// What was captured here is not on the relay.
    Unsaved,
    /// What was captured here is not on the relay, which has refused all of it.
    NotTaken,
    /// Files that were attached here are not on the relay.
    FilesUnsent,
    /// It is not known whether all is here.
    NeverProven,
    /// A download is under way, and may be stopped for a while.
    Syncing,
    /// The relay did not take some files.
    FilesRefused,
    /// Records are held.
    Held,
}

/// One piece of advice.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// device.pause(Some(&"visit".parse()?))?;
/// let advice = &device.advice()?[0];
/// assert_eq!(advice.text, "syncing of visit is paused");
/// assert_eq!(advice.command, "resume visit");
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What is going on.
    pub situation: Situation,
    /// The type that it is about, where it is one.
    pub ty: Option<TypeName>,
    /// What is going on, in plain words.
    pub text: String,
    /// Since when, milliseconds UTC, as far as that is known.
    pub since: Option<i64>,
    /// The one command to run, without the directory.
    pub command: String,
}

impl Situation {
    /// The word for it, in output and documents.
    ///
    /// ```
    /// # use fieldkeep_device::Situation;
    /// assert_eq!(Situation::ManyOutOfSync.word(), "many_out_of_sync");
    /// ```
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::SyncError => "sync_error",
            Self::AllPaused => "all_paused",
            Self::TypePaused => "type_paused",
            Self::FilesPaused => "files_paused",
            Self::ManyOutOfSync => "many_out_of_sync",
            Self::OutOfSync => "out_of_sync",
            Self::Unsaved => "unsaved",
            Self::NotTaken => "not_taken",
            Self::FilesUnsent => "files_unsent",
            Self::NeverProven => "never_proven",
            Self::Syncing => "syncing",
            Self::FilesRefused => "files_refused",
            Self::Held => "held",
        }
    }
}

impl Device {
    /// What is to be done, the most pressing first; nothing if all is well.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let advice = device.advice()?;
    /// assert_eq!(advice[0].command, "attention list");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn advice(&self) -> Result<Vec<Advice>, ReplicaError> {
        let status = self.status()?;
        let (failure, files_paused) = (self.failure()?, self.files_paused()?);
        let Times { paused, files_paused: files_since, joined, held: held_since, unsent, refused } =
            self.times()?;
        let mut advice = Vec::new();
        let mut say = |situation, ty: Option<&TypeName>, since, text: String, command: String| {
            advice.push(Advice { situation, ty: ty.cloned(), text, since, command });
        };
        let since = failure.as_ref().map(|failure| failure.time);
        let damaged = failure.as_ref().is_some_and(|failure| failure.damaged);
        if let Strip::Error { reason, permanent, .. } = &status.strip {
            let (situation, command) = match (permanent, damaged) {
                (_, true) => (Situation::Damaged, "resync"),
                (true, _) => (Situation::Refused, "doctor"),
                (false, _) => (Situation::SyncError, "sync"),
            };
            say(situation, None, since, reason.clone(), command.into());
        }
        if status.all_paused {
            let text = "all syncing is paused: what is captured stays on this device alone";
            say(Situation::AllPaused, None, paused, text.into(), "resume".into());
        }
        for view in status.types.iter().filter(|view| view.status == TypeStatus::Paused) {
            if !status.all_paused {
                let text = format!("syncing of {} is paused", view.ty);
                let command = format!("resume {}", view.ty);
                say(Situation::TypePaused, Some(&view.ty), paused, text, command);
            }
        }
        let unsent_files = status.files - status.refused_files;
        if files_paused {
            let text = match unsent_files {
                0 => "files are paused".to_owned(),
                files => format!("files are paused: {}", on_this_device(files, "file")),
            };
            let command = "attachments resume".to_owned();
            say(Situation::FilesPaused, None, files_since.or(unsent), text, command);
        }
        let fine = !matches!(status.strip, Strip::Error { .. });
        let behind: Vec<&TypeView> = status.types.iter().filter(|view| is_behind(view)).collect();
        match (&behind[..], fine) {
            ([], _) | (_, false) => {}
            ([one], true) => {
                let text = format!("{}: {}", one.ty, shortage(one));
                let command = format!("clear {} --yes", one.ty);
                say(Situation::OutOfSync, Some(&one.ty), one.proven_at.or(joined), text, command);
            }
            (many, true) => {
                let each = many.iter().map(|view| format!("{}: {}", view.ty, shortage(view)));
                let text = each.collect::<Vec<_>>().join("; ");
                let since = many.iter().filter_map(|view| view.proven_at).min().or(joined);
                say(Situation::ManyOutOfSync, None, since, text, "clear --yes".into());
            }
        }
        let unsaved = waiting(&status);
        let is_behind = !behind.is_empty();
        if fine && unsaved > 0 {
            let text = on_this_device(unsaved, "record");
            let since = self.oldest_unsaved()?;
            if self.sends_nothing_more()? {
                let text = format!("{text}: the relay did not take what was changed");
                say(Situation::NotTaken, None, since, text, "attention list".into());
            } else {
                say(Situation::Unsaved, None, since, text, "sync".into());
            }
        } else if fine && !is_behind && status.types.iter().any(is_unproven) {
            let text = "it is not known whether everything is here";
            let since = status.types.iter().filter_map(|view| view.proven_at).min().or(joined);
            say(Situation::NeverProven, None, since, text.into(), "sync".into());
        } else if status.types.is_empty() {
            let text = "there is no catalog here yet: it comes from the relay";
            say(Situation::NeverProven, None, joined, text.into(), "sync".into());
        }
        if fine && !files_paused && unsent_files > 0 {
            let text = on_this_device(unsent_files, "file");
            say(Situation::FilesUnsent, None, unsent, text, "sync".into());
        }
        if status.types.iter().any(|view| view.status == TypeStatus::Syncing) {
            let text = "a download is under way; it can be stopped for a while";
            let since = Some(self.0.strip_since());
            say(Situation::Syncing, None, since, text.into(), "pause".into());
        }
        if status.refused_files > 0 {
            let files = status.refused_files;
            let what = if files == 1 { "1 file was" } else { &format!("{files} files were") };
            let text = format!("{what} not taken by the relay: `attachments list` says why");
            say(Situation::FilesRefused, None, refused, text, "attachments retry".into());
        }
        if status.held() > 0 {
            let held = status.held();
            let what = if held == 1 { "1 record needs" } else { &format!("{held} records need") };
            let text = format!("{what} attention");
            say(Situation::Held, None, held_since, text, "attention list".into());
        }
        advice.sort_by_key(|advice| advice.situation);
        Ok(advice)
    }

    /// Whether everything that has no receipt was refused.
    fn sends_nothing_more(&self) -> Result<bool, StoreError> {
        let outgoing = self.engine().replica().store().outgoing_by_segment()?;
        Ok(outgoing.values().all(|(waiting, _)| *waiting == 0))
    }

    fn times(&self) -> Result<Times, StoreError> {
        let engine = self.engine();
        let (replica, store) = (engine.replica(), engine.replica().store());
        let uploads = store.uploads()?;
        let oldest = |failed: bool| {
            let of_kind = uploads.iter().filter(|upload| upload.failed.is_some() == failed);
            of_kind.map(|upload| upload.time).min()
        };
        Ok(Times {
            paused: moment(replica, PAUSED_SINCE)?,
            files_paused: moment(replica, crate::files::PAUSED_SINCE)?,
            joined: moment(replica, crate::join::JOINED)?,
            held: store.held_since()?,
            unsent: oldest(false),
            refused: oldest(true),
        })
    }
}

/// Since when something may be so, milliseconds UTC, as far as that is known.
struct Times {
    /// What is paused was changed last.
    paused: Option<i64>,
    /// Files were paused.
    files_paused: Option<i64>,
    /// This device joined.
    joined: Option<i64>,
    /// What the oldest of the held records is held for was written.
    held: Option<i64>,
    /// The oldest file that waits was attached.
    unsent: Option<i64>,
    /// The oldest file that was refused was attached.
    refused: Option<i64>,
}

/// So many of something are here alone.
fn on_this_device(count: u64, what: &str) -> String {
    let many = if count == 1 { format!("1 {what} is") } else { format!("{count} {what}s are") };
    format!("{many} on this device and not on the relay")
}

/// Whether a type has fewer records than the relay, and nothing is under way.
fn is_behind(view: &TypeView) -> bool {
    let server = view.counts.server.map_or(0, |[in_scope, ..]| in_scope);
    view.status == TypeStatus::Incomplete && view.counts.local < server
}

fn is_unproven(view: &TypeView) -> bool {
    view.status == TypeStatus::Incomplete && view.counts.unsaved + view.counts.carried == 0
}

fn shortage(view: &TypeView) -> String {
    let server = view.counts.server.map_or(0, |[in_scope, ..]| in_scope);
    format!("{} of {server} records are here, and nothing is under way", view.counts.local)
}

/// Records that could be sent, and are not.
fn waiting(status: &Status) -> u64 {
    let sent = status.types.iter().filter(|view| view.status != TypeStatus::Paused);
    sent.map(|view| view.counts.unsaved + view.counts.carried).sum()
}
