//! The relay and the devices: four directories, each with its own lock, key, store and endpoint.
//! What one knows of another came over QUIC.

use std::path::Path;
use std::time::{Duration, Instant};

use fieldkeep_device::{Device, PeerProgress, SyncReport, join};
use fieldkeep_link::KeyFile;
use fieldkeep_model::status::State;
use fieldkeep_model::{Grant, KeyPair, RecordEdit, RecordKey, Ticket};
use fieldkeep_relay::{Directory, Engine, Relay, admin_key, invite};
use fieldkeep_replica::{RecordView, ReplicaError};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::proof::{self, Holding};
use crate::time::now_ms;
use fieldkeep_console::{Code, Failure};

/// How long a sync or an arrival may take before the day is called off.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long invitations last.
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Everyone who takes part.
pub(super) struct Field {
    relay: Relay,
    pub(super) ann: Device,
    pub(super) ben: Device,
    pub(super) cara: Device,
}

/// A record as the demonstration's data have it.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(rename = "type")]
    ty: String,
    id: String,
    /// What is written.
    pub(super) fields: Map<String, Value>,
}

impl Line {
    /// Reads lines of JSON.
    pub(super) fn read(source: &str) -> Vec<Self> {
        let read = |line| serde_json::from_str(line).expect("the data were written for this");
        source.lines().map(read).collect()
    }

    /// The record's name.
    pub(super) fn key(&self) -> RecordKey {
        key(&format!("{}/{}", self.ty, self.id))
    }
}

/// A record's name, written out.
pub(super) fn key(name: &str) -> RecordKey {
    name.parse().expect("names in the demonstration are well-formed")
}

/// A device's owner, as sentences have them.
pub(super) fn person(device: &Device) -> String {
    capitalised(&device.name())
}

/// A name at its best.
pub(super) fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl Field {
    /// Founds the organisation in a directory of its own, serves it on loopback, and has three
    /// people join.
    pub(super) async fn set_up(root: &Path, catalog: &str) -> Result<Self, Failure> {
        let directory = Directory::init(&root.join("relay"), "Riverside Drinks", Some(catalog))?;
        let listen = ([127, 0, 0, 1], 0).into();
        let relay = Relay::serve(directory, listen)?;
        let ann = enrol(&relay, root, "ann").await?;
        let ben = enrol(&relay, root, "ben").await?;
        let cara = enrol(&relay, root, "cara").await?;
        Ok(Self { relay, ann, ben, cara })
    }

    /// Where the relay listens.
    pub(super) fn address(&self) -> String {
        self.relay.address().to_string()
    }

    /// The three devices.
    pub(super) fn devices(&self) -> [&Device; 3] {
        [&self.ann, &self.ben, &self.cara]
    }

    /// Asks the relay's engine, on its own thread.
    async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, Failure> {
        ask(&self.relay, act).await
    }

    /// What the relay holds of a record.
    pub(super) async fn on_relay(&self, key: &RecordKey) -> Result<Option<RecordView>, Failure> {
        let key = key.clone();
        self.ask(move |engine| Ok(engine.replica().views().record(&key)?)).await
    }

    /// All that the relay holds.
    pub(super) async fn relay_holding(&self) -> Result<Holding, Failure> {
        self.ask(|engine| proof::holding(engine.replica_mut())).await
    }

    /// Ends the day: everyone closes what they opened.
    pub(super) async fn close(self) -> Result<(), Failure> {
        for device in self.devices() {
            device.close()?;
        }
        let Self { relay, .. } = self;
        relay.stop().await;
        Ok(())
    }
}

async fn ask<T: Send + 'static>(
    relay: &Relay,
    act: impl FnOnce(&mut Engine) -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, Failure> {
    let answer = relay.handle().call(act).await;
    let answer = answer.ok_or_else(|| Failure::new(Code::Failure, "the relay stopped", ""))?;
    Ok(answer?)
}

/// Invites a person, who joins with a fresh device.
async fn enrol(relay: &Relay, root: &Path, name: &'static str) -> Result<Device, Failure> {
    let ticket = ticket(relay, &root.join("relay"), name).await?;
    let directory = root.join(name);
    join(&ticket, &directory).await?;
    Ok(Device::open(&directory)?)
}

/// An invitation: signed with the admin key, appended to the membership log by the relay.
async fn ticket(relay: &Relay, directory: &Path, name: &'static str) -> Result<Ticket, Failure> {
    let admin = KeyFile::open(admin_key(directory))?.signing();
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::new(Code::Failure, format!("no random bytes: {error}"), ""))?;
    let address = relay.address();
    ask(relay, move |engine| {
        let members = engine.replica().members();
        let one_time = KeyPair::from_secret(secret);
        let expires = now_ms() + HOUR_MS;
        let (entry, mut ticket) =
            invite(members, &admin, one_time, name, vec![Grant::ALL], expires);
        engine.replica_mut().append_members(&[entry])?;
        ticket.addresses = vec![address];
        Ok(ticket)
    })
    .await
}

/// Writes a record on a device; it is on the disk when this returns. Gives what the device shows
/// of it then.
pub(super) fn put(
    device: &Device,
    key: &RecordKey,
    fields: &Map<String, Value>,
) -> Result<RecordView, Failure> {
    let edit = edit(device, key, fields)?;
    device.put(key, &edit)?;
    look(device, key)
}

fn edit(
    device: &Device,
    key: &RecordKey,
    fields: &Map<String, Value>,
) -> Result<RecordEdit, Failure> {
    let unknown = || {
        let message = format!("the catalog has no object type `{}`", key.ty);
        Failure::new(Code::Usage, message, "the demonstration needs the types of its own catalog")
    };
    let catalog = device.catalog().ok_or_else(unknown)?;
    let object = catalog.ty(&key.ty).ok_or_else(unknown)?;
    Ok(object.edit_from_json(fields)?)
}

/// What a device shows of a record.
pub(super) fn look(device: &Device, key: &RecordKey) -> Result<RecordView, Failure> {
    device.get(key)?.ok_or_else(|| Failure::absent(key))
}

/// Syncs once, until everything is exchanged, judged and proven equal.
pub(super) async fn sync(device: &Device) -> Result<(SyncReport, Duration), Failure> {
    let started = Instant::now();
    let report = device.sync(PATIENCE).await?;
    let took = started.elapsed();
    Ok((report, took))
}

/// One device calls another, with no relay between, until both hold the same.
pub(super) async fn meet(
    caller: &Device,
    called: &Device,
) -> Result<(PeerProgress, Duration), Failure> {
    let listener = called.listen(([127, 0, 0, 1], 0).into())?;
    let address = listener.address();
    let serving = tokio::spawn(async move { listener.serve().await });
    let started = Instant::now();
    let met = caller.sync_with(address, PATIENCE).await;
    let took = started.elapsed();
    serving.abort();
    Ok((met?, took))
}

/// Stays connected while `meanwhile` happens elsewhere.
pub(super) async fn connected<T>(
    device: &Device,
    meanwhile: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let session = tokio::spawn({
        let device = device.clone();
        async move { device.keep_synced().await }
    });
    let result = tokio::time::timeout(PATIENCE, meanwhile).await;
    session.abort();
    let _ = session.await;
    result.map_err(|_| late("what was sent did not arrive"))?
}

/// Waits until the relay's word on all of these records is on a device.
pub(super) async fn arrived(device: &Device, keys: &[RecordKey]) -> Result<(), Failure> {
    let mut changes = device.watch();
    loop {
        let mut missing = false;
        for key in keys {
            let view = device.get(key)?;
            missing |= !view.is_some_and(|view| matches!(view.state, State::Judged(_)));
        }
        if !missing {
            return Ok(());
        }
        // One that fell behind looks again, like one that was told.
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = changes.recv().await {
            return Err(late("the device was closed"));
        }
    }
}

fn late(what: &str) -> Failure {
    Failure::new(Code::Failure, format!("the demonstration was called off: {what}"), "run it again")
}
