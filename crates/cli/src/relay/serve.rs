//! `relay serve`: devices are served until the process is told to stop, and other commands work through it
//! meanwhile.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_relay::{Config, Directory as Opened, Relay as Server};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::LISTEN;
use crate::access::{Owner, RelayOwner, own};
use crate::args::RelayServe;
use crate::notify::{Notice, notify};
use crate::output::Output;
use crate::socket;
use crate::sync::{Stop, runtime};
use fieldkeep_console::{Code, Failure, Health, Trouble};

/// How often the serving process looks whether its engine still runs.
const PULSE: Duration = Duration::from_secs(2);
/// How long stopping may take: with what else is to end, less than 20 s.
const DRAIN: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Listening {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
}

pub(super) fn run(directory: &Path, args: RelayServe, output: &mut Output) -> Result<(), Trouble> {
    let config = Config::read(directory).map_err(Failure::from)?;
    let places = Places::of(args, &config);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut stop = Stop::new()?;
        let refused = |error| Failure::new(Code::Failure, format!("no signals: {error}"), "");
        let hangup = signal(SignalKind::hangup()).map_err(refused)?;
        let health = match places.health {
            Some(address) => Some(Health::bind(address).await?),
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
        let owner = RelayOwner::serving(directory, relay.handle());
        // Without the socket devices are served all the same; only other commands have to wait.
        let socket = socket::serve(Arc::new(Owner::Relay(owner)));
        if let Err(error) = &socket {
            tracing::warn!(%error, "other commands cannot reach this process");
        }
        tell(&relay, health.as_ref(), output)?;
        notify(Notice::Ready(&relay.address().to_string()));
        let alive = tokio::select! {
            () = stop.asked() => true,
            () = pulse(&relay) => false,
            never = follow(&relay, args, places, hangup) => match never {},
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

fn tell(relay: &Server, health: Option<&Health>, output: &mut Output) -> Result<(), Trouble> {
    let address = relay.address().to_string();
    let health = health.map(|health| format!("http://{}", health.address()));
    if output.is_json() {
        output.object("relay-serve", &Listening { address, health })?;
    } else {
        output.line(&format!("listening {address}"))?;
        if let Some(health) = health {
            output.line(&format!("health {health}"))?;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    listen: SocketAddr,
    health: Option<SocketAddr>,
}

impl Places {
    fn of(args: RelayServe, config: &Config) -> Self {
        Self {
            listen: args.listen.or(config.listen).unwrap_or(LISTEN),
            health: args.health.or(config.health),
        }
    }
}

/// Reads the configuration again whenever the process is told to by SIGHUP. One that is not to be understood
/// changes nothing.
async fn follow(
    relay: &Server,
    args: RelayServe,
    places: Places,
    mut hangup: Signal,
) -> Infallible {
    loop {
        hangup.recv().await;
        match relay.reload().await {
            Ok(config) if Places::of(args, &config) == places => {
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
