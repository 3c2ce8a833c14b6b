//! Executing requests on an owned directory: the one place where a command meets the libraries.
//!
//! Reading goes to the projection beside the writer, so that it holds up nobody; writing goes to
//! the device or the relay's engine, and is durable when it is answered.

mod read;
mod relay;
mod status;
mod write;

use std::time::Duration;

use fieldkeep_model::RecordKey;

use crate::access::{DeviceOwner, Owner, SyncCall};
use crate::failure::{Code, Failure, Trouble};
use crate::request::{Name, Request, Response};
use crate::shape::{Record, Synced};

pub(crate) use relay::signed;
pub(crate) use status::{Contact, note_sync, was_proven};
pub(crate) use write::{edits, record_id};

/// Where the records of an answer go.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Record) -> Result<(), Trouble>;

/// Executes a request.
///
/// # Errors
/// Those of what it asks for, and of the sink.
pub(crate) fn execute(
    owner: &Owner,
    request: Request,
    sink: Sink<'_>,
) -> Result<Response, Trouble> {
    match request {
        Request::Write(writes) => Ok(write::write(&device(owner)?.device, writes)?),
        Request::Missing(ty, ids) => Ok(read::missing(owner, &ty, ids)?),
        Request::Catalog => Ok(read::catalog(owner)?),
        Request::Get { record, history, conflicts } => {
            Ok(read::get(owner, key(record), history, conflicts)?)
        }
        Request::List { ty, filters, limit } => read::list(owner, &ty, &filters, limit, sink),
        Request::Documents(ty, into) => Ok(read::documents(owner, &ty, &into)?),
        Request::Status => Ok(status::status(owner)?),
        Request::Sync(seconds) => {
            let device = device(owner)?;
            Ok(Response::Synced(sync(device, Duration::from_secs(seconds))?))
        }
        Request::Relay(address, millis) => {
            let device = &device(owner)?.device;
            let learnt = crate::sync::until_interrupted(
                device.learn_relay(address, Duration::from_millis(millis)),
            )?;
            learnt.map_err(Failure::from)?;
            Ok(Response::Learnt)
        }
        Request::Meet(peer, millis) => {
            let device = &device(owner)?.device;
            let met = crate::sync::meet(device, &peer, Duration::from_millis(millis))?;
            Ok(Response::Met(met))
        }
        Request::Peers(millis) => {
            let device = &device(owner)?.device;
            Ok(Response::Peers(crate::peers::look(device, Duration::from_millis(millis))?))
        }
        Request::Attention => {
            device(owner)?;
            read::attention(owner, sink)
        }
        Request::Quarantine => relay::quarantine(owner, sink),
        Request::Retry(record) => Ok(write::retry(device(owner)?, record)?),
        Request::Dismiss(record, note) => Ok(write::dismiss(device(owner)?, record, note)?),
        Request::Rejudge(record) => Ok(relay::rejudge(relay::relay(owner)?, record)?),
        Request::Members => Ok(relay::members(owner)?),
        Request::AppendMember { base, entry } => Ok(relay::append(owner, base, &entry)?),
        Request::CutOffs { member, grants } => Ok(relay::cut_offs(owner, &member, grants)?),
        Request::Publish(source) => Ok(relay::publish(owner, source)?),
        Request::Restore => Ok(relay::restore(owner)?),
    }
}

fn key((ty, id): Name) -> RecordKey {
    RecordKey::new(ty, id)
}

fn device(owner: &Owner) -> Result<&DeviceOwner, Failure> {
    match owner {
        Owner::Device(owner) => Ok(owner),
        Owner::Relay(_) => {
            let message = format!("{} is a relay's directory", owner.directory().display());
            Err(Failure::new(Code::Usage, message, "this command works on a device's"))
        }
    }
}

/// Syncs: on the loop that keeps the device connected, if there is one.
fn sync(owner: &DeviceOwner, timeout: Duration) -> Result<Synced, Failure> {
    let Some(watching) = &owner.watching else {
        return crate::sync::once(&owner.device, timeout);
    };
    let (answer, answered) = tokio::sync::oneshot::channel();
    let ended = || Failure::new(Code::Offline, "the watching process ends", "sync again");
    watching.send(SyncCall { timeout, answer }).map_err(|_| ended())?;
    answered.blocking_recv().map_err(|_| ended())?
}
