//! The sync strip and the row of each type. A type is called synced only if the last sync proved
//! it and nothing was written or learnt since.

use std::collections::BTreeSet;

use fieldkeep_device::{Device, PROVEN};
use fieldkeep_model::status::TypeStatus;
use fieldkeep_model::{ActorId, TypeName};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::Settings as _;

use super::read::Reading;
use crate::access::{DeviceOwner, Owner, RelayOwner};
use crate::failure::Failure;
use crate::request::Response;
use crate::shape::{Status, TypeRow, status_word};
use crate::time::{now_ms, rfc3339};

/// When a sync last ended well, milliseconds UTC as text.
const LAST: &str = "sync_time";
/// Why the last sync did not end well, empty if it did.
const ERROR: &str = "sync_error";

/// What a contact with the relay came to.
pub(crate) enum Contact<'f> {
    /// Something may be learnt from now on that is not applied and proven.
    Begun,
    /// Everything was exchanged and proven equal.
    Proven,
    /// It did not end well.
    Failed {
        /// Whether what was proven before still is: the relay was not reached.
        proven: bool,
        /// Why.
        why: &'f Failure,
    },
}

/// Keeps what a contact came to, for the status that later processes show.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn note_sync(device: &Device, contact: &Contact<'_>) -> Result<(), Failure> {
    let (proven, error) = match contact {
        Contact::Begun => (false, None),
        Contact::Proven => (true, None),
        Contact::Failed { proven, why } => (*proven, Some(why)),
    };
    device.with_replica(|replica: &mut Replica| {
        let store = replica.store_mut();
        store.set(PROVEN, if proven { b"1" } else { b"0" })?;
        if matches!(contact, Contact::Proven) {
            store.set(LAST, now_ms().to_string().as_bytes())?;
        }
        store.set(ERROR, error.map(|error| error.message.as_bytes()).unwrap_or_default())?;
        Ok::<_, ReplicaError>(())
    })?;
    Ok(())
}

/// Whether the last contact ended with everything proven equal.
///
/// # Errors
/// When the disk fails.
pub(crate) fn was_proven(device: &Device) -> Result<bool, Failure> {
    let proven = device.with_replica(|replica| {
        Ok::<_, ReplicaError>(replica.store().setting(PROVEN)?.as_deref() == Some(b"1"))
    })?;
    Ok(proven)
}

pub(super) fn status(owner: &Owner) -> Result<Response, Failure> {
    let reading = Reading::open(owner)?;
    let mut status = Status {
        role: String::new(),
        name: String::new(),
        organisation: reading.members.name().to_owned(),
        connection: String::new(),
        last_sync: None,
        error: None,
        unsaved: 0,
        carried: 0,
        forks: Vec::new(),
        held: 0,
        types: Vec::new(),
    };
    match owner {
        Owner::Device(owner) => device_status(owner, &reading, &mut status)?,
        Owner::Relay(owner) => relay_status(owner, &reading, &mut status)?,
    }
    status.unsaved = status.types.iter().map(|row| row.unsaved).sum();
    status.carried = status.types.iter().map(|row| row.carried).sum();
    status.held = status.types.iter().map(|row| row.held).sum();
    Ok(Response::Status(Box::new(status)))
}

fn relay_status(owner: &RelayOwner, reading: &Reading, status: &mut Status) -> Result<(), Failure> {
    status.role = "relay".into();
    let relay = reading.members.members().values().find(|member| member.relay);
    status.name = relay.map(|member| member.name.clone()).unwrap_or_default();
    status.connection = if owner.is_serving() { "serving" } else { "stopped" }.into();
    for ty in types(reading) {
        let counts = reading.views().counts(&ty)?;
        status.types.push(TypeRow {
            ty,
            status: None,
            local: counts.local,
            server: None,
            server_all: None,
            unsaved: 0,
            carried: 0,
            held: counts.held,
        });
    }
    Ok(())
}

fn device_status(
    owner: &DeviceOwner,
    reading: &Reading,
    status: &mut Status,
) -> Result<(), Failure> {
    let setting = |key| -> Result<Option<String>, Failure> {
        let value = reading.store.setting(key)?.filter(|value| !value.is_empty());
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let device = &owner.device;
    let line = Line::of(owner, setting(PROVEN)?.as_deref() == Some("1"))?;
    status.role = "device".into();
    status.name = device.name();
    let forks = device.with_replica(|replica| replica.undecided_forks())?;
    let forked: BTreeSet<String> = forks.iter().map(|fork| name_of(reading, &fork.actor)).collect();
    status.forks = forked.into_iter().collect();
    status.last_sync = setting(LAST)?.and_then(|ms| ms.parse().ok()).map(rfc3339);
    status.error = if line.online { None } else { setting(ERROR)? };
    status.connection = match (line.online, &status.error) {
        (true, _) => "online",
        (false, None) => "offline",
        (false, Some(_)) => "error",
    }
    .into();
    for ty in types(reading) {
        let counts = reading.views().counts(&ty)?;
        let row = line.of_type(device, &ty, counts.unsaved + counts.carried)?;
        status.types.push(TypeRow {
            status: Some(status_word(row).to_owned()),
            ty,
            local: counts.local,
            server: counts.server.map(|[in_scope, _, _]| in_scope),
            server_all: counts.server.map(|[_, all, _]| all),
            unsaved: counts.unsaved,
            carried: counts.carried,
            held: counts.held,
        });
    }
    Ok(())
}

/// The name of a device.
fn name_of(reading: &Reading, actor: &ActorId) -> String {
    let member = reading.members.author(actor);
    member.map_or_else(|| format!("device {}", actor.device()), |member| member.name.clone())
}

fn types(reading: &Reading) -> Vec<TypeName> {
    let catalog = reading.catalog.as_ref();
    catalog.map(|catalog| catalog.types().keys().cloned().collect()).unwrap_or_default()
}

/// What is known of the connection.
struct Line {
    online: bool,
    proven: bool,
    downloading: bool,
}

impl Line {
    fn of(owner: &DeviceOwner, last_proven: bool) -> Result<Self, Failure> {
        let online = owner.watching.is_some() && owner.device.is_online();
        if !online {
            return Ok(Self { online, proven: last_proven, downloading: false });
        }
        let progress = owner.device.progress()?;
        let downloading = !progress.offered || progress.open > 0;
        Ok(Self { online, proven: progress.complete(), downloading })
    }

    fn of_type(&self, device: &Device, ty: &TypeName, unsaved: u64) -> Result<TypeStatus, Failure> {
        if self.downloading {
            return Ok(TypeStatus::Syncing);
        }
        if !self.proven || unsaved > 0 {
            return Ok(TypeStatus::Incomplete);
        }
        let part =
            device.with_replica(|replica| Ok::<_, ReplicaError>(replica.holds_in_part(ty)))?;
        Ok(if part { TypeStatus::SubsetSynced } else { TypeStatus::FullySynced })
    }
}
