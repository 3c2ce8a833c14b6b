//! How far something has come that takes long: a bar on stderr while it goes on, and gone when it ends.
//! Where stderr is no terminal nobody would see it, and nothing is looked up.

use std::io::{IsTerminal as _, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fieldkeep_console::shape::{Attachment, Status};
use indicatif::{HumanBytes, ProgressBar};

use crate::request::Request;
use crate::response::Response;
use crate::stages::styled;

/// How long something goes on before it is shown how far it has come.
const QUIET: Duration = Duration::from_millis(700);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Files whose bytes are counted one by one; of more only their number is told.
const FEW: u64 = 50;

/// Whoever answers how far it is.
pub(crate) type Look = Box<dyn Fn(Request) -> Option<Response> + Send>;

/// Something that takes long; how far it has come is shown until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    ends: Option<Sender<()>>,
    shows: Option<JoinHandle<()>>,
}

impl Watched {
    /// Has somebody look, if there is a terminal.
    pub(crate) fn begin(look: impl FnOnce() -> Look) -> Self {
        if !stderr().is_terminal() {
            return Self { ends: None, shows: None };
        }
        let (ends, ended) = channel();
        let look = look();
        let shows = std::thread::Builder::new().name("progress".into());
        let shows = shows.spawn(move || show(&look, &ended)).ok();
        Self { ends: Some(ends), shows }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.ends.take());
        // It has a handle of the directory, and the line that is written next is not to meet the bar.
        let _ = self.shows.take().map(JoinHandle::join);
    }
}

fn show(look: &Look, ended: &Receiver<()>) {
    let (mut wait, mut course, mut bar) = (QUIET, Course::default(), None);
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = LOOK;
        if let Some(far) = course.look(look) {
            bar.get_or_insert_with(Bar::new).show(&far);
        }
    }
}

/// A bar on stderr; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// An empty one. Where stderr is no terminal it is never drawn.
    pub(crate) fn new() -> Self {
        Self(styled("{bar:30} {msg}"))
    }

    /// Draws how far it is.
    pub(crate) fn show(&self, far: &Far) {
        self.0.set_length(far.of);
        self.0.set_position(far.done);
        self.0.set_message(far.text.clone());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Far {
    /// What is done of it.
    pub(crate) done: u64,
    /// All of it.
    pub(crate) of: u64,
    /// The same in words.
    pub(crate) text: String,
}

impl Far {
    /// So many of so many, and what was done with them.
    pub(crate) fn counted(done: u64, of: u64, what: &str) -> Self {
        Self { done, of, text: format!("{done} of {of} {what}") }
    }
}

/// The most that was seen to be left at once: what is done is told by what is left of that.
#[derive(Debug, Default)]
struct Course {
    records: u64,
    files: u64,
    bytes: u64,
}

impl Course {
    fn look(&mut self, look: &Look) -> Option<Far> {
        let Response::Status(status) = look(Request::Status)? else { return None };
        if let Some(far) = self.of_records(&status) {
            return Some(far);
        }
        self.files = self.files.max(status.files);
        if !(1..=FEW).contains(&status.files) {
            let done = self.files - status.files;
            return (self.files > 0).then(|| Far::counted(done, self.files, "files sent"));
        }
        let Response::Attachments(files, _) = look(Request::Attachments(None))? else {
            return None;
        };
        Some(self.of_bytes(&files))
    }

    /// Records that are downloaded again, or exchanged; nothing once all of them are.
    fn of_records(&mut self, status: &Status) -> Option<Far> {
        let fetched = status.types.iter().filter_map(|row| Some((row.fetched?, row.server)));
        let fetched: Vec<_> = fetched.collect();
        if !fetched.is_empty() {
            let done = fetched.iter().map(|(done, _)| done).sum();
            let of = fetched.iter().map(|(done, of)| of.unwrap_or(0).max(*done)).sum();
            return Some(Far::counted(done, of, "records downloaded"));
        }
        let exchanged = status.types.iter().filter(|row| row.status.as_deref() != Some("paused"));
        let lacking = exchanged.map(|row| {
            row.unsaved + row.carried + row.server.unwrap_or(0).saturating_sub(row.local)
        });
        let left: u64 = lacking.sum();
        self.records = self.records.max(left);
        let done = self.records - left;
        (left > 0).then(|| Far::counted(done, self.records, "records exchanged"))
    }

    fn of_bytes(&mut self, files: &[Attachment]) -> Far {
        let sent = files.iter().filter(|file| file.state != "failed");
        let left = sent.map(|file| file.size.saturating_sub(file.done.unwrap_or(0))).sum();
        self.bytes = self.bytes.max(left);
        let done = self.bytes - left;
        let text = format!("{} of {} of files sent", HumanBytes(done), HumanBytes(self.bytes));
        Far { done, of: self.bytes, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_console::shape::TypeRow;
    use fieldkeep_model::TypeName;

    fn row(local: u64, server: u64) -> TypeRow {
        let order = TypeName::new("order").expect("a name");
        TypeRow { local, server: Some(server), ..TypeRow::of(order) }
    }

    fn status(row: TypeRow) -> Status {
        Status { types: vec![row], ..Status::default() }
    }

    #[test]
    fn what_is_left_tells_how_much_is_done() {
        let mut course = Course::default();
        let mut at = |row| course.of_records(&status(row)).map(|far| far.text);
        let shown = |text: &str| Some(text.to_owned());
        assert_eq!(
            at(TypeRow { unsaved: 10, ..row(30, 120) }),
            shown("0 of 100 records exchanged")
        );
        assert_eq!(
            at(TypeRow { unsaved: 5, ..row(70, 120) }),
            shown("45 of 100 records exchanged")
        );
        assert_eq!(at(TypeRow { status: Some("paused".into()), ..row(0, 120) }), None);
        assert_eq!(at(row(120, 120)), None);
        assert_eq!(
            at(TypeRow { fetched: Some(7), ..row(120, 120) }),
            shown("7 of 120 records downloaded")
        );
    }
}
