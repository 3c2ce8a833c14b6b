//! `sync`: once, until everything is exchanged and proven; or for as long as the process lives.

mod watch;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use fieldkeep_device::{Device, Settings};
use fieldkeep_model::PeerAddress;
use fieldkeep_replica::ReplicaError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access::Access;
use crate::args::{Company, Directory, Serve, Sync};
use crate::attention::records;
use crate::member::find;
use crate::output::{Output, safe};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::{Files, Met, Synced};
use fieldkeep_console::{Code, Failure, Trouble};
use watch::Besides;

pub(crate) fn run(args: &Sync, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let directory = dir.path()?;
    if args.watch {
        let settings = Settings::read(&directory).map_err(Failure::from)?;
        let said = Said::try_parse_from(["sync"]).map_err(|error| {
            Failure::new(Code::Usage, error.to_string().trim_end(), "mend the environment")
        })?;
        let listen = args.listen.or(said.company.listen);
        let nearby = args.nearby.then_some(true).or(said.company.nearby);
        let said = Company { listen, nearby, no_nearby: false };
        let (listen, nearby) = company(said, &settings, false);
        let besides = Besides { listen, nearby, metered: args.metered, console: None };
        return watch::run(&directory, besides, output);
    }
    let mut access = Access::new(&directory)?;
    if let Some(peer) = args.peer.clone() {
        let asked = access.ask(Request::Meet(peer, millis(args.timeout)))?;
        let Response::Met(met) = asked else { return Err(Failure::unexpected().into()) };
        print_met(output, &met)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(address) = args.relay {
        let Response::Learnt = access.ask(Request::Relay(address, millis(args.timeout)))? else {
            return Err(Failure::unexpected().into());
        };
    }
    let sync = Request::Sync { seconds: args.timeout.as_secs(), metered: args.metered };
    let Response::Synced(synced) = access.ask_at_length(sync)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("sync", &synced)?;
    } else {
        print(output, &synced)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the console is unless somebody says otherwise: on this machine alone.
const CONSOLE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7442));

/// Runs `serve`.
pub(crate) fn serve(
    args: &Serve,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let directory = dir.path()?;
    let settings = Settings::read(&directory).map_err(Failure::from)?;
    let (listen, nearby) = company(args.company, &settings, true);
    let console = args.console.or(settings.console).unwrap_or(CONSOLE);
    watch::run(
        &directory,
        Besides { listen, nearby, metered: args.metered, console: Some(console) },
        output,
    )
}

/// What the environment says: a command that does not stay connected has no use for it, and no complaint.
#[derive(Debug, clap::Parser)]
struct Said {
    #[command(flatten)]
    company: Company,
}

/// Where to listen for other devices, and whether they are looked for on the local network: as the flags,
/// the environment or the file say, in this order.
fn company(args: Company, settings: &Settings, unsaid: bool) -> (Option<SocketAddr>, bool) {
    let said = if args.no_nearby { Some(false) } else { args.nearby };
    let nearby = said.or(settings.nearby).unwrap_or(unsaid);
    let anywhere = nearby.then_some((Ipv4Addr::UNSPECIFIED, 0).into());
    (args.listen.or(settings.listen).or(anywhere), nearby)
}

/// Prints an address that opens the console of whoever serves the directory.
pub(crate) fn console(dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Console(opened) = access.ask(Request::Console(output.is_json()))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("console", &opened)?;
    } else {
        output.line(&opened.url)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn print(output: &mut Output, synced: &Synced) -> Result<(), Trouble> {
    let Synced { sent, received, refused, held, proven, files, paused } = synced;
    let segments = if *proven == 1 { "segment" } else { "segments" };
    output.line(&format!(
        "sent {sent}, received {received}, held {held}, proven {proven} {segments}"
    ))?;
    if paused.all || !paused.types.is_empty() {
        output.line(&crate::control::words(paused))?;
    }
    if *refused > 0 {
        let text = if *refused == 1 { "1 change was" } else { &format!("{refused} changes were") };
        output.line(&format!(
            "{text} not taken by the relay; the data stays on this device, unsaved"
        ))?;
    }
    print_files(output, *files)?;
    if *held > 0 {
        let need = if *held == 1 { "needs" } else { "need" };
        output.line(&format!("{} {need} attention: fieldkeep attention list", records(*held)))?;
    }
    Ok(())
}

/// Says what became of attached files, where there were any.
fn print_files(output: &mut Output, files: Files) -> Result<(), Trouble> {
    let Files { sent, received, waiting, failed } = files;
    if files != Files::default() {
        output.line(&format!(
            "files: sent {sent}, received {received}, waiting {waiting}, failed {failed}"
        ))?;
    }
    if failed > 0 {
        output.line(
            "files that failed are safe where they are: `fieldkeep attachments list` says why, \
             `fieldkeep attachments retry` tries again",
        )?;
    } else if waiting > 0 {
        output.line("files that wait are on this device: fieldkeep attachments list")?;
    }
    Ok(())
}

fn print_met(output: &mut Output, met: &Met) -> Result<(), Trouble> {
    if output.is_json() {
        return Ok(output.object("met", met)?);
    }
    let Met { name, sent, received, held, proven, forked } = met;
    let segments = if *proven == 1 { "segment" } else { "segments" };
    output.line(&format!(
        "met {}: sent {sent}, received {received}, held {held}, proven {proven} {segments}",
        safe(name)
    ))?;
    if *forked > 0 {
        let text = "a device was copied or restored: both branches are kept until a relay decides";
        output.line(text)?;
    }
    Ok(())
}

/// Exchanges with another device once, here. It is named by its address or as a member.
///
/// # Errors
/// When both do not hold the same in the end; nothing is lost.
pub(crate) fn meet(device: &Device, peer: &str, timeout: Duration) -> Result<Met, Failure> {
    let met = match peer.parse::<PeerAddress>() {
        Ok(place) => until_interrupted(device.sync_with(place, timeout))??,
        Err(error) if peer.contains([':', '/']) => {
            let message = format!("`{}`: {error}", safe(peer));
            return Err(Failure::new(Code::Usage, message, "its `fieldkeep peers --qr` prints it"));
        }
        Err(_) => {
            let number = find(&device.members(), peer)?.number;
            until_interrupted(device.sync_with_member(number, timeout))??
        }
    };
    let held = device.attention().map_err(ReplicaError::from)?;
    let held = held.iter().filter(|record| record.state.word() == "held").count() as u64;
    Ok(Met { held, ..Met::from(met) })
}

/// Runs a future to its end, or until the process is told to stop.
///
/// # Errors
/// When it was told, or the runtime cannot be made.
pub(crate) fn until_interrupted<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut stop = Stop::new()?;
        tokio::select! {
            result = future => Ok(result),
            () = stop.asked() => Err(interrupted()),
        }
    });
    // A write that is under way ends by itself; the disk is not waited for long.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// The runtime of commands that use the network.
///
/// # Errors
/// When the system gives no threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime
        .map_err(|error| Failure::new(Code::Failure, format!("no threads: {error}"), "try again"))
}

/// SIGINT and SIGTERM.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            let refused = |error| Failure::new(Code::Failure, format!("no signals: {error}"), "");
            signal(kind).map_err(refused)
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Ends when the process is told to stop.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn interrupted() -> Failure {
    let remedy = "what was saved before is safe: run it again";
    Failure::new(Code::Interrupted, "interrupted", remedy)
}
