//! What is wrong with a device, or with one record, and what to do about it.

use fieldkeep_console::Failure;
use fieldkeep_console::shape::{Advice, CatalogState, Check, Explanation, NotTaken};
use fieldkeep_device::Device;
use fieldkeep_model::RecordKey;

use crate::response::Response;

pub(super) fn advice(device: &Device) -> Result<Response, Failure> {
    Ok(Response::Advice(device.advice()?.into_iter().map(Advice::from).collect()))
}

pub(super) fn catalog_state(device: &Device) -> Result<Response, Failure> {
    Ok(Response::CatalogState(CatalogState::of(device)?))
}

pub(super) fn not_taken(device: &Device) -> Result<Response, Failure> {
    let left = device.not_taken()?.into_iter().map(NotTaken::from);
    Ok(Response::NotTaken(left.collect()))
}

pub(super) fn explain(device: &Device, key: &RecordKey) -> Result<Response, Failure> {
    let explained = Explanation::new(device.explain(key)?, &device.members());
    Ok(Response::Explained(Box::new(explained)))
}

pub(super) fn doctor(device: &Device, repair: bool) -> Result<Response, Failure> {
    let repaired = repair.then(|| device.repair()).transpose()?;
    let checks = device.doctor()?.into_iter().map(Check::from);
    Ok(Response::Checked(checks.collect(), repaired))
}
