//! Control over what is exchanged, and over what survives when it is downloaded again.

use std::time::Duration;

use fieldkeep_model::{RecordKey, TypeName};

use super::run;
use crate::access::DeviceOwner;
use crate::response::Response;
use fieldkeep_console::shape::Pin;
use fieldkeep_console::{Code, Failure};

pub(super) fn pause(owner: &DeviceOwner, ty: Option<&TypeName>) -> Result<Response, Failure> {
    owner.device.pause(ty)?;
    Ok(Response::Paused(owner.device.paused()?.into()))
}

pub(super) fn resume(owner: &DeviceOwner, ty: Option<&TypeName>) -> Result<Response, Failure> {
    owner.device.resume(ty)?;
    Ok(Response::Paused(owner.device.paused()?.into()))
}

pub(super) fn subscribe(
    owner: &DeviceOwner,
    ty: TypeName,
    scope: Option<&str>,
) -> Result<Response, Failure> {
    owner.device.subscribe(&ty, scope)?;
    subscribed(owner, ty)
}

pub(super) fn unsubscribe(
    owner: &DeviceOwner,
    ty: TypeName,
    scope: &str,
) -> Result<Response, Failure> {
    owner.device.unsubscribe(&ty, scope)?;
    subscribed(owner, ty)
}

fn subscribed(owner: &DeviceOwner, ty: TypeName) -> Result<Response, Failure> {
    let scopes = owner.device.paused()?.scopes.remove(&ty);
    Ok(Response::Subscribed(ty, scopes.map(|scopes| scopes.into_iter().collect())))
}

pub(super) fn rotate_key(owner: &DeviceOwner, timeout: Duration) -> Result<Response, Failure> {
    if owner.runtime.is_some() {
        let message = "a process serves this directory under the key that it has";
        return Err(Failure::new(Code::Failure, message, "stop it first, and start it again then"));
    }
    let device = &owner.device;
    let before = device.member()?.identity;
    run(owner, device.rotate_key(timeout))??;
    let key = device.members().device(&before).map(|member| member.keys.signing.to_string());
    Ok(Response::Me(key.unwrap_or_default()))
}

pub(super) fn resync(
    owner: &DeviceOwner,
    ty: Option<&TypeName>,
    clears: bool,
    timeout: Duration,
) -> Result<Response, Failure> {
    let device = &owner.device;
    let done = if clears {
        run(owner, device.clear_and_resync(ty, timeout))?
    } else {
        run(owner, device.resync(ty, timeout))?
    }?;
    Ok(Response::Resynced(done.into()))
}

pub(super) fn clear_plan(owner: &DeviceOwner, ty: Option<&TypeName>) -> Result<Response, Failure> {
    Ok(Response::ClearPlan(owner.device.clear_plan(ty)?.into()))
}

pub(super) fn pin(
    owner: &DeviceOwner,
    key: &RecordKey,
    by: &str,
    reason: &str,
) -> Result<Response, Failure> {
    if owner.device.as_merged(key)?.is_none() {
        return Err(Failure::absent(key));
    }
    owner.device.pin(key, by, reason)?.keep();
    pins(owner)
}

pub(super) fn unpin(
    owner: &DeviceOwner,
    key: Option<&RecordKey>,
    by: Option<&str>,
) -> Result<Response, Failure> {
    Ok(Response::Taken(owner.device.unpin(key, by)?))
}

pub(super) fn pins(owner: &DeviceOwner) -> Result<Response, Failure> {
    Ok(Response::Pins(owner.device.pins()?.into_iter().map(Pin::from).collect()))
}
