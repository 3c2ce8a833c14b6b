//! Devices: who belongs to the organisation, what each may read and write, when it was here last, and what
//! it had not sent by what it said.

use askama::Template;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_relay::fleet::{self, Attendance};
use fieldkeep_replica::Reading;

use super::{Answer, Chrome, html};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::shape::fleet::{FleetDevice, Said};
use crate::{Failure, time, words};

#[derive(Template)]
#[template(path = "operator/devices.html")]
struct Devices {
    chrome: Chrome,
    rows: Vec<Row>,
    connected: usize,
    members: usize,
    revoked: usize,
}

/// A device as it is shown.
#[derive(Debug)]
struct Row {
    device: FleetDevice,
    state: words::Badge,
    /// Whether it has another catalog than the one in force.
    behind: bool,
    /// What it may read and write, in words.
    grants: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/devices", get(devices))
}

async fn devices(State(app): State<App>, Extension(who): Extension<Who>) -> Answer {
    let attendance = app.with_engine(|engine| Ok(engine.attendance(time::now()))).await?;
    let built = app.read(move |app, reading| {
        let chrome = Chrome::of(app, &who, &reading, "devices", "Devices", "/devices");
        let rows = fleet(&reading, &attendance, chrome.sample.catalog)?;
        let revoked = rows.iter().filter(|row| row.device.revoked).count();
        let connected = rows.iter().filter(|row| row.device.connected).count();
        Ok(Devices { connected, members: rows.len() - revoked, revoked, rows, chrome })
    });
    Ok(html(&built.await?))
}

impl Devices {
    /// How much a device holds, in words.
    fn held(&self, said: &Said) -> String {
        words::records(&said.holds.iter().map(|holds| holds.records).sum())
    }

    fn summary(&self) -> String {
        let revoked = match self.revoked {
            0 => String::new(),
            some => format!(", {some} revoked"),
        };
        let members = words::several(self.members, "member");
        format!("{} connected of {members}{revoked}", self.connected)
    }
}

/// Everything that this page tells of devices: by whether they are connected, then by name.
fn fleet(reading: &Reading, attendance: &Attendance, in_force: u64) -> Result<Vec<Row>, Failure> {
    let devices = fleet::devices(&reading.store, &reading.members, attendance)?;
    let mut rows: Vec<Row> =
        devices.into_iter().map(|device| Row::of(device.into(), in_force)).collect();
    rows.sort_by_key(|row| (rank(&row.device), row.device.name.to_lowercase(), row.device.number));
    Ok(rows)
}

fn rank(device: &FleetDevice) -> u8 {
    match (device.revoked, device.connected) {
        (true, _) => 2,
        (false, true) => 0,
        (false, false) => 1,
    }
}

impl Row {
    fn of(device: FleetDevice, in_force: u64) -> Self {
        let state = match rank(&device) {
            0 => words::badge("Connected", "check", "good"),
            1 => words::badge("Not connected", "offline", "calm"),
            _ => words::badge("Revoked", "cross", "bad"),
        };
        let behind = !device.revoked && device.catalog.is_some_and(|number| number != in_force);
        let grants = match &device.grants[..] {
            _ if device.revoked => "nothing any more".to_owned(),
            [] => "nothing".to_owned(),
            [one] if one == "*" => "everything".to_owned(),
            [one, rest @ ..] if one == "*" => format!("everything, but only {}", rest.join(", ")),
            all => all.join(", "),
        };
        Self { device, state, behind, grants }
    }
}
