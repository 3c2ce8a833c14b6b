//! Backup: when the last one was made and where it lies, and making one now. Putting one back is done on the
//! relay's machine.

use std::path::{Path, PathBuf};

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldkeep_relay::{BackupState, LastBackup};

use super::{Answer, Chrome, html};
use crate::operator::App;
use crate::operator::desk::Unmade;
use crate::operator::gate::{Posted, Who};
use crate::pages::back;
use crate::words;
use crate::{Code, Failure};

/// From what age on a backup is said to be old, in milliseconds.
const OLD: i64 = 86_400_000;

#[derive(Template)]
#[template(path = "operator/backup.html")]
struct BackupPage {
    chrome: Chrome,
    last: Option<LastBackup>,
    /// Where one is being made.
    under_way: Option<String>,
    unmade: Option<Unmade>,
    /// What is in the field for a folder.
    folder: String,
    /// Why what was asked for was not begun.
    problem: Option<Failure>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/backup", get(shown)).route("/backup", post(make))
}

async fn shown(State(app): State<App>, Extension(who): Extension<Who>) -> Answer {
    Ok(html(&built(&app, who, String::new(), None).await?))
}

async fn built(
    app: &App,
    who: Who,
    typed: String,
    problem: Option<Failure>,
) -> Result<BackupPage, Failure> {
    app.read(move |app, reading| {
        let chrome = Chrome::of(app, &who, &reading, "backup", "Backup", "/backup");
        let last = LastBackup::read(&reading.store)?;
        let under_way = match app.office().backups().state() {
            BackupState::UnderWay { folder, .. } => Some(folder.display().to_string()),
            BackupState::Idle | BackupState::Taken(_) | BackupState::Failed { .. } => None,
        };
        let unmade = chrome.book.unmade.clone();
        let folder = if typed.is_empty() {
            let unmade = unmade.as_ref().map(|unmade: &Unmade| unmade.folder.clone());
            let used = under_way.clone().or(unmade);
            used.or_else(|| last.as_ref().map(|last| last.folder.clone())).unwrap_or_default()
        } else {
            typed
        };
        Ok(BackupPage { chrome, last, under_way, unmade, folder, problem })
    })
    .await
}

/// Begins to make one.
async fn make(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let folder = posted.text("folder");
    let begun = asked(&posted).and_then(|folder| app.begin_backup(&who.name, folder));
    match begun {
        Ok(()) => {
            app.note(&who.name, "back_up", folder).await;
            Ok(back("/backup"))
        }
        Err(failure) => {
            let page = built(&app, who, folder.to_owned(), Some(failure)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, html(&page)).into_response())
        }
    }
}

/// Where a backup is to be made, if that was said and confirmed.
fn asked(posted: &Posted) -> Result<PathBuf, Failure> {
    let folder = Path::new(posted.text("folder"));
    if !folder.is_absolute() {
        let remedy = "name a folder of the relay's machine with its whole path, as /backups";
        return Err(Failure::new(Code::Usage, "that is no whole path", remedy));
    }
    if posted.text("confirmed").is_empty() {
        let text = "it was not confirmed that a backup is to be made there";
        return Err(Failure::new(Code::Held, text, "nothing was begun: confirm it"));
    }
    Ok(folder.to_owned())
}

impl BackupPage {
    /// How old the last one is, in milliseconds.
    fn age(&self) -> Option<i64> {
        self.last.as_ref().map(|last| self.chrome.now - last.taken)
    }

    /// Whether the last one is old.
    fn is_old(&self) -> bool {
        self.age().is_some_and(|age| age > OLD)
    }

    fn old(&self) -> String {
        self.age().map(words::duration).unwrap_or_default()
    }
}
