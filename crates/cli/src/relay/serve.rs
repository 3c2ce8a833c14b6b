//! `relay serve`: devices are served until the process is told to stop, and other commands work through it
//! meanwhile.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_relay::{Config, Directory as Opened, Relay as Server};
use fieldkeep_store::{Home, HomeError};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::LISTEN;
use crate::access::{Owner, RelayOwner, own};
use crate::args::relay::RelayServe;
use crate::notify::{Notice, notify};
use crate::output::Output;
use crate::socket;
use crate::sync::{Stop, runtime};
use fieldkeep_console::{Code, Failure, Health, OperatorConsole, Origin, Trouble};

/// How often the serving process looks whether its engine still runs.
const PULSE: Duration = Duration::from_secs(2);
/// How long stopping may take: with what else is to end, less than 20 s.
const DRAIN: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Listening {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<String>,
}

pub(super) fn run(directory: &Path, args: RelayServe, output: &mut Output) -> Result<(), Trouble> {
    let config = Config::read(directory).map_err(Failure::from)?;
    let places = Places::of(&args, &config)?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut stop = Stop::new()?;
        let refused = |error| Failure::new(Code::Failure, format!("no signals: {error}"), "");
        let hangup = signal(SignalKind::hangup()).map_err(refused)?;
        // Where another process serves the directory, that is why an address is not to be had.
        let taken = |failure| match Home::open(directory) {
            Err(owned @ HomeError::Owned { .. }) => Failure::from(owned),
            Ok(_) | Err(_) => failure,
        };
        let health = match places.health {
            Some(address) => Some(Health::bind(address).await.map_err(taken)?),
            None => None,
        };
        // Taken before the relay is opened: an address that is not to be had ends the process at once.
        let console = match places.console {
            Some(address) => {
                let bound = OperatorConsole::bind(address, places.behind_proxy.clone()).await;
                Some(bound.map_err(taken)?)
            }
            None => None,
        };
        let opened = tokio::select! {
            opened = opened(directory) => opened?,
            () = stop.asked() => return Ok(()),
        };
        let relay = Server::serve(opened, places.listen).map_err(Failure::from)?;
        if let Some(health) = &health {
            health.serves(relay.vitals());
        }
        let office = relay.office();
        let owner = RelayOwner::serving(directory, relay.handle(), office.comparing());
        // Without the socket devices are served all the same; only other commands have to wait.
        let socket = socket::serve(Arc::new(Owner::Relay(owner)));
        if let Err(error) = &socket {
            tracing::warn!(%error, "other commands cannot reach this process");
        }
        let origin = console.as_ref().map(OperatorConsole::origin);
        let _console = console.map(|console| Ends(tokio::spawn(console.serve(office))));
        tell(&relay, health.as_ref(), origin, output)?;
        notify(Notice::Ready(&relay.address().to_string()));
        let alive = tokio::select! {
            () = stop.asked() => true,
            () = pulse(&relay) => false,
            never = follow(&relay, &args, &places, hangup) => match never {},
        };
        tracing::info!("the relay stops");
        notify(Notice::Stopping);
        if let Some(health) = &health {
            health.stops();
        }
        drop(socket);
        if tokio::time::timeout(DRAIN, relay.stop()).await.is_err() {
            tracing::error!("the disk has not taken what was to be saved: it has no receipt");
        }
        let failed = || {
            let message = "the relay stopped by itself; what has a receipt is safe";
            Failure::new(Code::Failure, message, "its log on stderr says why; serve again")
        };
        if alive { Ok(()) } else { Err(failed().into()) }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Opens the directory, beside what answers meanwhile.
async fn opened(directory: &Path) -> Result<Opened, Failure> {
    let directory = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || own(&directory, Opened::open)).await;
    opened.unwrap_or_else(|error| Err(Failure::new(Code::Failure, error.to_string(), "")))
}

/// A task that ends with this.
struct Ends(tokio::task::JoinHandle<Result<(), Failure>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn tell(
    relay: &Server,
    health: Option<&Health>,
    console: Option<String>,
    output: &mut Output,
) -> Result<(), Trouble> {
    let address = relay.address().to_string();
    let health = health.map(|health| format!("http://{}", health.address()));
    if output.is_json() {
        output.object("relay-serve", &Listening { address, health, console })?;
    } else {
        output.line(&format!("listening {address}"))?;
        if let Some(health) = health {
            output.line(&format!("health {health}"))?;
        }
        if let Some(console) = console {
            output.line(&format!("console {console}"))?;
        }
    }
    Ok(output.flush()?)
}

/// Ends when the engine does not run any more.
async fn pulse(relay: &Server) {
    let handle = relay.handle();
    while handle.call(|_| ()).await.is_some() {
        tokio::time::sleep(PULSE).await;
    }
}

/// Where the process listens: said by a flag, by the environment, or by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    listen: SocketAddr,
    health: Option<SocketAddr>,
    console: Option<SocketAddr>,
    behind_proxy: Option<Origin>,
    /// Where traces go.
    collector: Option<String>,
}

impl Places {
    fn of(args: &RelayServe, config: &Config) -> Result<Self, Failure> {
        let unclear = |text| Failure::new(Code::Usage, format!("relay.toml: {text}"), "");
        let configured = config.behind_proxy.as_deref().map(str::parse).transpose();
        Ok(Self {
            listen: args.listen.or(config.listen).unwrap_or(LISTEN),
            health: args.health.or(config.health),
            console: args.console.or(config.console),
            collector: config.traces.as_ref().map(|traces| traces.endpoint.clone()),
            behind_proxy: args.behind_proxy.clone().or(configured.map_err(unclear)?),
        })
    }
}

/// Reads the configuration again whenever the process is told to by SIGHUP. One that is not to be understood
/// changes nothing.
async fn follow(
    relay: &Server,
    args: &RelayServe,
    places: &Places,
    mut hangup: Signal,
) -> Infallible {
    loop {
        hangup.recv().await;
        match relay.reload().await {
            Ok(config) if Places::of(args, &config).is_ok_and(|read| read == *places) => {
                tracing::info!("relay.toml was read again");
            }
            Ok(_) => tracing::warn!(
                "relay.toml was read again; it names other addresses, which hold from the next start"
            ),
            Err(error) => {
                tracing::error!(%error, "relay.toml was not taken over: what was read before holds");
            }
        }
    }
}
