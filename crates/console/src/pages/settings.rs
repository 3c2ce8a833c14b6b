//! Settings: who this device is, which relay it has, what it stores, and whether all of it is sound.

use std::path::Path;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::{Chrome, page, segment, words};
use crate::Failure;
use crate::server::App;
use crate::shape::{CatalogState, Pin};

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    chrome: Chrome,
    directory: String,
    number: u64,
    key: String,
    relay: String,
    addresses: Vec<String>,
    catalog: Option<CatalogState>,
    /// What is granted, in words; everything if none.
    grants: Vec<String>,
    pins: Vec<Pin>,
    /// Files of the directory and their sizes.
    files: Vec<(String, String)>,
    version: &'static str,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/settings", get(settings))
}

async fn settings(State(app): State<App>) -> Response {
    page(&app, |app| {
        let chrome = Chrome::of(app, "settings", "Settings", "/settings")?;
        let device = app.device();
        let remote = device.remote()?;
        let me = device.member()?;
        let grants = me.grants.iter().map(|grant| match (&grant.ty, &grant.scope) {
            (None, _) => "every type".to_owned(),
            (Some(ty), None) => format!("all of {ty}"),
            (Some(ty), Some(scope)) => format!("{ty} of {scope}"),
        });
        Ok::<_, Failure>(Settings {
            chrome,
            directory: device.directory().display().to_string(),
            number: me.number,
            key: me.keys.tls.to_string(),
            relay: remote.key.to_string(),
            addresses: remote.addresses.iter().map(ToString::to_string).collect(),
            catalog: CatalogState::of(app.device())?,
            grants: grants.collect(),
            pins: device.pins()?.into_iter().map(Pin::from).collect(),
            files: files(device.directory()),
            version: env!("CARGO_PKG_VERSION"),
        })
    })
    .await
}

/// What the directory holds, and how much of it.
fn files(directory: &Path) -> Vec<(String, String)> {
    let size = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
    let records = size("fieldkeep.db");
    let journal = size("fieldkeep.db-wal") + size("fieldkeep.db-shm");
    let files = [
        ("Records, changes and verdicts", records),
        ("Not yet folded in", journal),
        ("Attached files", size_of(&directory.join("blobs"))),
        ("A download that is under way or broke off", size_of(&directory.join("resync"))),
    ];
    // What comes first is there always, the rest now and then.
    let shown = files.into_iter().enumerate().filter(|(at, (_, size))| *at < 2 || *size > 0);
    shown.map(|(_, (name, size))| (name.to_owned(), bytes(size))).collect()
}

/// The bytes of a folder's files, those in its folders too.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        // It went meanwhile.
        Err(_) => 0,
    });
    sizes.sum()
}

fn bytes(size: u64) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

impl Settings {
    /// Where the page of a record is that is in use.
    fn pinned(&self, pin: &Pin) -> String {
        let (ty, id) = pin.record.split_once('/').unwrap_or_default();
        format!("/records/{}/{}", segment(ty), segment(id))
    }
}
