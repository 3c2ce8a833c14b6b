//! `sync --watch` and `serve`: connected while there is a signal, back when it returns, and the owner of
//! the directory meanwhile: other commands reach the device through this process.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_device::{Device, Event, Strip};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::{Stop, print_met, runtime};
use crate::access::{DeviceOwner, Owner, own};
use crate::output::{Output, safe, several};
use crate::socket;
use crate::time::now_ms;
use fieldkeep_console::shape::Met;
use fieldkeep_console::{Code, Failure, Trouble};
use fieldkeep_console::{Console, Porter};

/// How long connections may take to end.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is done besides keeping in touch with the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Besides {
    /// Where to listen for other devices.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether that is announced on the local network, and others are looked for there.
    pub(crate) nearby: bool,
    /// Whether the connection is paid by the byte.
    pub(crate) metered: bool,
    /// Where the console listens.
    pub(crate) console: Option<SocketAddr>,
}

pub(crate) fn run(
    directory: &Path,
    besides: Besides,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let device = own(directory, Device::open)?;
    device.set_metered(besides.metered);
    let runtime = runtime()?;
    // Before anything is told: whoever has read where this listens may have it stop.
    let stop = runtime.block_on(async { Stop::new() })?;
    let console = besides.console.map(|address| Console::bind(device.clone(), address));
    let console = console.map(|bound| runtime.block_on(bound)).transpose()?;
    let porter = console.as_ref().map(Console::porter);
    let owner = DeviceOwner {
        device: device.clone(),
        runtime: Some(runtime.handle().clone()),
        porter: porter.clone(),
    };
    // Without the socket the device still syncs; only other commands have to wait.
    let server = socket::serve(Arc::new(Owner::Device(owner)));
    if let Err(error) = &server {
        tracing::warn!(%error, "other commands cannot reach this process");
    }
    let events = device.watch();
    let mut watch = Watch { device, output, events, stop, shown: None };
    if let Some(porter) = porter {
        watch.tell_console(&porter)?;
    }
    if let Some(console) = console {
        runtime.spawn(async move {
            if let Err(failure) = console.serve().await {
                tracing::error!(%failure, "the device is still kept synced");
            }
        });
    }
    let result = runtime.block_on(watch.run_with(besides));
    drop(server);
    if let Err(error) = watch.device.close() {
        tracing::warn!(%error, "the caches were not saved; nothing is lost");
    }
    runtime.shutdown_timeout(GOODBYE);
    result.map(|()| ExitCode::from(Code::Interrupted.number()))
}

struct Watch<'o> {
    device: Device,
    output: &'o mut Output,
    events: broadcast::Receiver<Event>,
    stop: Stop,
    shown: Option<View>,
}

/// What is told when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct View {
    state: &'static str,
    unsaved: u64,
    held: u64,
    files: u64,
    reason: Option<String>,
    retry_s: Option<u64>,
}

impl Watch<'_> {
    /// Stays in touch with the relay, and with the devices that call or are found.
    async fn run_with(&mut self, besides: Besides) -> Result<(), Trouble> {
        let Some(address) = besides.listen else { return self.run().await };
        let listener = self.device.listen(address).map_err(Failure::from)?;
        self.tell_listening()?;
        // Apart from this task, which waits for documents now and then.
        let mut near = JoinSet::new();
        if besides.nearby {
            let listener = listener.clone();
            near.spawn(async move {
                let kept = listener.keep_company().await;
                kept.unwrap_or_else(|error| tracing::warn!(%error, "this device still listens"));
            });
        }
        near.spawn(async move { listener.serve().await });
        let ended = self.run().await;
        self.device.part(GOODBYE).await;
        ended
    }

    fn tell_console(&mut self, porter: &Porter) -> Result<(), Trouble> {
        let url = porter.one_time_url()?;
        if self.output.is_json() {
            self.output.object("console", &json!({ "url": url, "address": porter.origin() }))?;
        } else {
            self.output.line(&format!("console {url}"))?;
        }
        Ok(self.output.flush()?)
    }

    fn tell_listening(&mut self) -> Result<(), Trouble> {
        let addresses = self.device.listening().map(|place| place.addresses).unwrap_or_default();
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        if self.output.is_json() {
            self.output.object("listening", &json!({ "addresses": addresses }))?;
        } else {
            self.output.line(&format!("listening {}", addresses.join(" ")))?;
        }
        Ok(self.output.flush()?)
    }

    /// Tells whom this device meets, and what that came to.
    fn tell(&mut self, event: Event) -> Result<(), Trouble> {
        match event {
            Event::Changed(_) | Event::Strip(_) | Event::Status => return self.show(),
            Event::Met(name) if self.output.is_json() => {
                self.output.object("meets", &json!({ "name": name }))?;
            }
            Event::Met(name) => self.output.line(&format!("meets {}", safe(&name)))?,
            Event::Left(met) => {
                let met = Met {
                    held: self.device.status().map_err(Failure::from)?.held(),
                    ..Met::from(met)
                };
                print_met(self.output, &met)?;
            }
        }
        Ok(self.output.flush()?)
    }

    async fn run(&mut self) -> Result<(), Trouble> {
        let device = self.device.clone();
        let mut kept = pin!(device.keep_synced());
        loop {
            tokio::select! {
                never = &mut kept => match never {},
                () = self.stop.asked() => return Ok(()),
                event = self.events.recv() => match event {
                    Ok(event) => self.tell(event)?,
                    Err(RecvError::Lagged(_)) => self.show()?,
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    /// Tells how the device stands, where that has changed.
    fn show(&mut self) -> Result<(), Trouble> {
        let status = self.device.status().map_err(Failure::from)?;
        let (unsaved, held) = (status.unsaved() + status.carried(), status.held());
        let (files, synced) = (status.files, status.is_synced());
        let (state, reason, retry_s) = match status.strip {
            Strip::Offline | Strip::Connecting => return Ok(()),
            Strip::Online { syncing: true } => ("syncing", None, None),
            Strip::Online { syncing: false } if synced => ("synced", None, None),
            Strip::Online { syncing: false } => ("online", None, None),
            Strip::Away { retry_at } => {
                let reason = "the relay has stopped for a while".to_owned();
                ("away", Some(reason), Some(seconds_until(retry_at)))
            }
            Strip::Error { reason, retry_at, .. } => {
                ("offline", Some(reason), retry_at.map(seconds_until))
            }
        };
        let view = View { state, unsaved, held, files, reason, retry_s };
        if self.shown.as_ref() == Some(&view) {
            return Ok(());
        }
        if self.output.is_json() {
            self.output.object("watch", &view)?;
        } else {
            let View { state, unsaved, held, files, reason, retry_s } = &view;
            let mut line = format!("{state}  {unsaved} unsaved, {held} held");
            if *files > 0 {
                line = format!("{line}, {} to be sent", several(*files, "file"));
            }
            if let (Some(reason), Some(retry)) = (reason, retry_s) {
                line = format!("{line}; {}; next try in {retry} s", safe(reason));
            }
            self.output.line(&line)?;
        }
        self.output.flush()?;
        self.shown = Some(view);
        Ok(())
    }
}

/// The seconds until a moment in milliseconds UTC, at least one.
fn seconds_until(moment: i64) -> u64 {
    u64::try_from(moment - now_ms()).unwrap_or(0).div_ceil(1_000).max(1)
}
