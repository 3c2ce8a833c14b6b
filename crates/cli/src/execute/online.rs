//! What needs a connection, executed on a device.

use std::time::Duration;

use fieldkeep_device::OnlineError;
use fieldkeep_model::{RecordEdit, RecordKey};

use super::run;
use crate::access::DeviceOwner;
use crate::response::Response;
use fieldkeep_console::Failure;
use fieldkeep_console::shape::{Answer, CallRow, Called};

pub(super) fn call(
    owner: &DeviceOwner,
    action: &str,
    words: &[String],
    patience: Duration,
) -> Result<Response, Failure> {
    let device = &owner.device;
    let catalog = device.catalog().ok_or(OnlineError::NoCatalog)?;
    let known = || OnlineError::unknown("action", action, catalog.actions().keys());
    let input = catalog.action(action).ok_or_else(known)?.input.read_words(words)?;
    let called = run(owner, device.call(action, &input, patience))??;
    Ok(Response::Called(Called::from(called)))
}

pub(super) fn ask(
    owner: &DeviceOwner,
    query: &str,
    words: &[String],
    patience: Duration,
) -> Result<Response, Failure> {
    let device = &owner.device;
    let catalog = device.catalog().ok_or(OnlineError::NoCatalog)?;
    let known = || OnlineError::unknown("query", query, catalog.queries().keys());
    let params = catalog.query(query).ok_or_else(known)?.params.read_words(words)?;
    let answer = run(owner, device.ask(query, &params, patience))??;
    Ok(Response::Answered(Answer::from(answer)))
}

pub(super) fn calls(owner: &DeviceOwner) -> Result<Response, Failure> {
    let calls = owner.device.calls()?.into_iter().map(CallRow::from);
    Ok(Response::Calls(calls.collect()))
}

/// Writes a record by way of the relay.
pub(super) fn put(
    owner: &DeviceOwner,
    key: &RecordKey,
    edit: &RecordEdit,
    patience: Duration,
) -> Result<(), Failure> {
    run(owner, owner.device.put_online(key, edit, patience))??;
    Ok(())
}
