//! `sync --watch`: connected while there is a signal, back when it returns, and the owner of the
//! directory meanwhile: other commands reach the device through this process.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_device::{Device, Event, SyncError, jittered};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Records as _;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{Stop, print_met, runtime};
use crate::access::{DeviceOwner, Owner, SyncCall, own};
use crate::execute::{Contact, note_sync, was_proven};
use crate::failure::{Code, Failure, Trouble};
use crate::output::{Output, safe};
use crate::shape::{Met, Synced};
use crate::socket;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a connection may take to end.
const GOODBYE: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Whether other devices are listened for and looked for meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearness {
    /// Where to listen.
    pub(super) listen: Option<SocketAddr>,
    /// Whether that is announced on the local network, and others are looked for there.
    pub(super) nearby: bool,
}

pub(super) fn run(
    directory: &Path,
    nearness: Nearness,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let device = own(directory, Device::open)?;
    let runtime = runtime()?;
    let (calls, inbox) = mpsc::unbounded_channel();
    let owner = DeviceOwner { device: device.clone(), watching: Some(calls) };
    // Without the socket the device still syncs; only other commands have to wait.
    let server = socket::serve(Arc::new(Owner::Device(owner)));
    if let Err(error) = &server {
        tracing::warn!(%error, "other commands cannot reach this process");
    }
    let events = device.watch();
    let mut watch = Watch { device, output, inbox, events, shown: None, contact: None };
    let result = runtime.block_on(watch.run_with(nearness));
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
    inbox: mpsc::UnboundedReceiver<SyncCall>,
    events: broadcast::Receiver<Event>,
    shown: Option<View>,
    /// What was last noted of the present connection.
    contact: Option<bool>,
}

/// What is told when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct View {
    state: &'static str,
    unsaved: u64,
    held: u64,
    reason: Option<String>,
    retry_s: Option<u64>,
}

/// Why a connection is no longer waited on.
enum Turn {
    Ended(Result<String, SyncError>),
    Called(SyncCall),
    Stopped,
}

impl Watch<'_> {
    /// Stays in touch with the relay, and with the devices that call or are found.
    async fn run_with(&mut self, nearness: Nearness) -> Result<(), Trouble> {
        let Some(address) = nearness.listen else { return self.run().await };
        let listener = self.device.listen(address).map_err(Failure::from)?;
        self.tell_listening()?;
        // Apart from this task, which waits for documents now and then.
        let mut near = JoinSet::new();
        if nearness.nearby {
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
            Event::Changed(_) => return Ok(()),
            Event::Met(name) if self.output.is_json() => {
                self.output.object("meets", &json!({ "name": name }))?;
            }
            Event::Met(name) => self.output.line(&format!("meets {}", safe(&name)))?,
            Event::Left(met) => {
                let met = Met { held: self.held()?, ..Met::from(met) };
                print_met(self.output, &met)?;
            }
        }
        Ok(self.output.flush()?)
    }

    async fn run(&mut self) -> Result<(), Trouble> {
        let mut stop = Stop::new()?;
        let mut backoff = BACKOFF_MIN;
        loop {
            let turn = self.connected(&mut stop).await?;
            let reason = match turn {
                Turn::Stopped => return Ok(()),
                Turn::Called(call) => {
                    self.called(call).await;
                    continue;
                }
                Turn::Ended(Ok(text)) => text,
                Turn::Ended(Err(error)) => Failure::from(error).message,
            };
            if self.contact.is_some() {
                backoff = BACKOFF_MIN;
            }
            let wait = jittered(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.offline(&reason, wait)?;
            let wake = Instant::now() + wait;
            loop {
                tokio::select! {
                    () = sleep_until(wake) => break,
                    () = stop.asked() => return Ok(()),
                    Some(call) = self.inbox.recv() => {
                        self.called(call).await;
                        break;
                    }
                    Ok(event) = self.events.recv() => self.tell(event)?,
                }
            }
        }
    }

    /// Stays connected until that ends, somebody wants to sync at once, or the process is to stop.
    async fn connected(&mut self, stop: &mut Stop) -> Result<Turn, Trouble> {
        self.contact = None;
        let device = self.device.clone();
        let mut session = pin!(device.stay_connected());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let turn = loop {
            tokio::select! {
                ended = &mut session => {
                    self.look()?;
                    return Ok(Turn::Ended(ended));
                }
                () = stop.asked() => break Turn::Stopped,
                Some(call) = self.inbox.recv() => break Turn::Called(call),
                Ok(event) = self.events.recv() => self.tell(event)?,
                _ = looks.tick() => self.look()?,
            }
        };
        if device.hang_up() {
            let _ = timeout(GOODBYE, &mut session).await;
        }
        Ok(turn)
    }

    /// Syncs for another command, and tells it what that came to.
    async fn called(&mut self, call: SyncCall) {
        let before = was_proven(&self.device).unwrap_or(false);
        let result = self.device.sync(call.timeout).await;
        let reached = result.as_ref().err().is_none_or(super::was_reached);
        let result = result.map_err(Failure::from);
        let noted = match &result {
            Ok(_) => note_sync(&self.device, &Contact::Proven),
            Err(why) => {
                note_sync(&self.device, &Contact::Failed { proven: before && !reached, why })
            }
        };
        let told = noted.and(result).map(|report| Synced {
            sent: report.sent,
            received: report.received,
            refused: report.refused,
            held: report.held,
            proven: report.proven,
        });
        // Whoever asked may have gone.
        let _ = call.answer.send(told);
    }

    /// Looks at the connection, keeps what is proven, and tells what has changed.
    fn look(&mut self) -> Result<(), Trouble> {
        if !self.device.is_online() && self.contact.is_none() {
            return Ok(());
        }
        let progress = self.device.progress().map_err(Failure::from)?;
        let complete = progress.complete();
        if self.contact != Some(complete) {
            let contact = if complete { Contact::Proven } else { Contact::Begun };
            note_sync(&self.device, &contact)?;
            self.contact = Some(complete);
        }
        let state = if complete { "synced" } else { "syncing" };
        let unsaved = progress.waiting + progress.refused;
        self.show(View { state, unsaved, held: self.held()?, reason: None, retry_s: None })
    }

    fn offline(&mut self, reason: &str, wait: Duration) -> Result<(), Trouble> {
        let unsaved = self.device.progress().map_err(Failure::from)?;
        let unsaved = unsaved.waiting + unsaved.refused;
        let (reason, retry_s) = (Some(reason.to_owned()), Some(wait.as_secs().max(1)));
        self.show(View { state: "offline", unsaved, held: self.held()?, reason, retry_s })
    }

    fn held(&self) -> Result<u64, Failure> {
        let counts = self
            .device
            .with_replica(|replica| Ok::<_, ReplicaError>(replica.store().attention_counts()?))?;
        Ok(counts.0)
    }

    fn show(&mut self, view: View) -> Result<(), Trouble> {
        if self.shown.as_ref() == Some(&view) {
            return Ok(());
        }
        if self.output.is_json() {
            self.output.object("watch", &view)?;
        } else {
            let View { state, unsaved, held, reason, retry_s } = &view;
            let mut line = format!("{state}  {unsaved} unsaved, {held} held");
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
