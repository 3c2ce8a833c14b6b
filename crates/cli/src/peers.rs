//! `peers`: the devices on the local network, and this one's address as a code.

use std::process::ExitCode;
use std::time::Duration;

use fieldkeep_device::Device;
use serde_json::json;

use crate::access::Access;
use crate::args::{self, Directory};
use crate::output::{Align, Output, Table, code, safe};
use crate::request::Request;
use crate::response::Response;
use crate::sync::until_interrupted;
use fieldkeep_console::shape::{Peer, Peers};
use fieldkeep_console::{Code, Failure, Trouble};

pub(crate) fn run(
    args: &args::Peers,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let wait = if args.qr { Duration::ZERO } else { args.wait };
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let Response::Peers(found) = access.ask(Request::Peers(millis))? else {
        return Err(Failure::unexpected().into());
    };
    if args.qr {
        show(output, found.listening)?;
    } else if output.is_json() {
        output.object("peers", &found)?;
    } else {
        print(output, &found, args.wait)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks around, here. Without a wait it only tells where this device listens, and who is connected.
///
/// # Errors
/// When there is no network to look at.
pub(crate) fn look(device: &Device, wait: Duration) -> Result<Peers, Failure> {
    let Peers { listening, peers: connected } = Peers::of(device)?;
    let near =
        if wait.is_zero() { Vec::new() } else { until_interrupted(device.neighbours(wait))?? };
    let state = |near: &fieldkeep_device::Neighbour| match (near.connected, &near.name) {
        _ if near.revoked => "revoked",
        (true, _) => "connected",
        (false, Some(_)) => "near",
        (false, None) => "stranger",
    };
    let mut peers: Vec<Peer> = Vec::new();
    for near in near {
        let (state, address) = (state(&near).to_owned(), Some(near.address.to_string()));
        peers.push(Peer { name: near.name, number: near.number, address, state });
    }
    for met in connected {
        if !peers.iter().any(|peer| peer.number == met.number) {
            peers.push(met);
        }
    }
    Ok(Peers { listening, peers })
}

fn print(output: &mut Output, found: &Peers, wait: Duration) -> Result<(), Trouble> {
    match &found.listening {
        Some(place) => {
            let addresses = place.split('/').next().unwrap_or_default();
            output.line(&format!("this device listens at {}", addresses.replace('+', " ")))?;
        }
        None => output.line(
            "this device does not listen, and others do not see it: fieldkeep sync --watch --nearby",
        )?,
    }
    if found.peers.is_empty() {
        output.line(&format!(
            "nobody was found on this network within {} s; where the address of a device is known: \
             fieldkeep sync --peer ADDRESS",
            wait.as_secs_f32()
        ))?;
        return Ok(());
    }
    let left = Align::Left;
    let columns = [("NAME", left), ("NUMBER", Align::Right), ("ADDRESS", left), ("STATE", left)];
    let mut table = Table::new(&columns);
    for peer in &found.peers {
        let state = match &*peer.state {
            "stranger" => "no member that is known here",
            other => other,
        };
        table.row(vec![
            peer.name.as_deref().map_or_else(|| "-".to_owned(), safe),
            peer.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            peer.address.clone().unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
        ]);
    }
    table.print(output.writer())?;
    Ok(())
}

/// Shows this device's address and key.
fn show(output: &mut Output, place: Option<String>) -> Result<(), Trouble> {
    let Some(place) = place else {
        let remedy = "`fieldkeep sync --watch --nearby` listens, or `--watch --listen ADDRESS`";
        let message = "this device does not listen, or this machine has no network";
        return Err(Failure::new(Code::Offline, message, remedy).into());
    };
    if output.is_json() {
        return Ok(output.object("peer-address", &json!({ "address": place }))?);
    }
    output.line(&code(&place)?)?;
    output.line(&format!("fieldkeep sync --peer {place}"))?;
    Ok(())
}
