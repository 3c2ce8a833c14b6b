//! Devices: who belongs to the organisation, what each may read and write, and who is connected.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_model::{DeviceNumber, Member};
use fieldkeep_relay::Present;
use fieldkeep_replica::Reading;

use super::{Answer, Chrome, html};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::words;

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
    number: DeviceNumber,
    name: String,
    state: words::Badge,
    /// What it runs, and the catalog that it has, while it is connected.
    software: String,
    catalog: String,
    /// Whether it has another catalog than the one in force.
    behind: bool,
    /// What it may read and write, in words.
    grants: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/devices", get(devices))
}

async fn devices(State(app): State<App>, Extension(who): Extension<Who>) -> Answer {
    let present = app.with_engine(|engine| Ok(engine.present())).await?;
    let built = app.read(move |app, reading| {
        let chrome = Chrome::of(app, &who, &reading, "devices", "Devices", "/devices");
        let rows = fleet(&reading, &present, chrome.sample.catalog);
        let devices = || reading.members.members().values().filter(|member| !member.relay);
        let revoked = devices().filter(|member| member.revoked).count();
        Ok(Devices {
            rows,
            connected: present.len(),
            members: devices().count() - revoked,
            revoked,
            chrome,
        })
    });
    Ok(html(&built.await?))
}

impl Devices {
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
fn fleet(reading: &Reading, present: &BTreeMap<DeviceNumber, Present>, in_force: u64) -> Vec<Row> {
    let devices = reading.members.members().values().filter(|member| !member.relay);
    let mut rows: Vec<Row> = devices
        .map(|member| {
            let present = present.get(&member.number);
            let catalog = present.map(|present| present.catalog).filter(|number| *number > 0);
            Row {
                number: member.number,
                name: member.name.clone(),
                state: state(member, present.is_some()),
                software: present.map(|present| present.software.clone()).unwrap_or_default(),
                behind: catalog.is_some_and(|number| number != in_force),
                catalog: catalog.map(|number| number.to_string()).unwrap_or_default(),
                grants: grants(member),
            }
        })
        .collect();
    rows.sort_by_key(|row| (rank(row.state.word), row.name.to_lowercase(), row.number));
    rows
}

fn state(member: &Member, connected: bool) -> words::Badge {
    match (member.revoked, connected) {
        (true, _) => words::badge("Revoked", "cross", "bad"),
        (false, true) => words::badge("Connected", "check", "good"),
        (false, false) => words::badge("Not connected", "offline", "calm"),
    }
}

fn rank(word: &str) -> usize {
    ["Connected", "Not connected", "Revoked"].iter().position(|known| *known == word).unwrap_or(3)
}

fn grants(member: &Member) -> String {
    if member.revoked {
        return "nothing any more".to_owned();
    }
    let grants = member.grants.iter().map(|grant| match (&grant.ty, &grant.scope) {
        (None, _) => "everything".to_owned(),
        (Some(ty), None) => format!("all of {ty}"),
        (Some(ty), Some(scope)) => format!("{ty} of {scope}"),
    });
    let grants: Vec<_> = grants.collect();
    match &grants[..] {
        [] => "nothing".to_owned(),
        [first, rest @ ..] if first == "everything" && !rest.is_empty() => {
            format!("everything, but {}", rest.join(", "))
        }
        all => all.join(", "),
    }
}
