//! Writing in batches, each durable at once, with progress for whoever waits.

use std::time::{Duration, Instant};

use super::Job;
use crate::access::Access;
use crate::progress::{Bar, Far};
use crate::request::{Content, Request, Write};
use crate::response::Response;
use fieldkeep_console::{Failure, Trouble};

/// Records in a batch.
const BATCH: usize = 1_000;
/// Text in a batch, in bytes, but for its last record.
const TEXT: usize = 4 * 1024 * 1024;
/// How long an import goes on before it shows how far it has come.
const QUIET: Duration = Duration::from_secs(2);

/// What an import came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) written: u64,
    pub(super) unchanged: u64,
    pub(super) likely_held: u64,
    /// Records that an earlier run saved.
    pub(super) saved_before: u64,
}

/// Writes everything but what an earlier run saved, which is where its order begins.
///
/// # Errors
/// When a batch is not saved; those before it are.
pub(super) fn write(
    access: &mut Access,
    writes: Vec<Write>,
    job: &Job,
    saved: u64,
) -> Result<Tally, Trouble> {
    let mut progress = Progress::new(writes.len() as u64);
    let mut tally = Tally { records: saved, saved_before: saved, ..Tally::default() };
    let mut batch = Vec::new();
    let mut text = 0;
    let saved = usize::try_from(saved).unwrap_or(usize::MAX);
    let mut writes = writes.into_iter().skip(saved).peekable();
    while let Some(write) = writes.next() {
        text += size(&write);
        batch.push(write);
        if batch.len() < BATCH && text < TEXT && writes.peek().is_some() {
            continue;
        }
        text = 0;
        let writes = std::mem::take(&mut batch);
        let (file, total) = (job.file.clone(), job.total);
        let request = Request::Import { file, from: tally.records, total, writes };
        let response =
            access.ask(request).map_err(|trouble| interrupted(trouble, tally.records))?;
        let Response::Written(written) = response else {
            return Err(Failure::unexpected().into());
        };
        for one in written {
            tally.records += 1;
            tally.written += u64::from(one.changed);
            tally.unchanged += u64::from(!one.changed);
            tally.likely_held += u64::from(one.state == "likely_held");
        }
        progress.show(tally.records);
    }
    Ok(tally)
}

fn interrupted(trouble: Trouble, saved: u64) -> Trouble {
    match trouble {
        Trouble::Failed(mut failure) => {
            failure.remedy = match saved {
                0 => "nothing was written".to_owned(),
                saved => format!(
                    "the first {saved} records are saved: run it again with --continue, which \
                     passes over them"
                ),
            };
            failure.into()
        }
        Trouble::Output(error) => error.into(),
    }
}

fn size(write: &Write) -> usize {
    let cells = |cells: &[(String, String)]| cells.iter().map(|(f, c)| f.len() + c.len()).sum();
    let contents = write.contents.iter().map(|content| match content {
        Content::Words(words) => words.iter().map(String::len).sum(),
        Content::Object(text) => text.len(),
        Content::Cells(row) => cells(row),
        Content::Child { cells: row, .. } => cells(row),
    });
    contents.sum::<usize>() + 64
}

/// Shows how far an import has come, on a terminal, once it takes long.
struct Progress {
    started: Instant,
    total: u64,
    bar: Option<Bar>,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { started: Instant::now(), total, bar: None }
    }

    fn show(&mut self, done: u64) {
        if self.started.elapsed() > QUIET {
            let far = Far::counted(done, self.total, "records saved");
            self.bar.get_or_insert_with(Bar::new).show(&far);
        }
    }
}
