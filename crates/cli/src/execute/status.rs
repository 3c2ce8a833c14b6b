//! The sync strip and the row of each type, of devices and relays.

use fieldkeep_console::Failure;
use fieldkeep_console::shape::{Status, TypeRow};
use fieldkeep_model::TypeName;
use fieldkeep_replica::TypeCounts;

use super::read::Reading;
use crate::access::{Owner, RelayOwner};
use crate::response::Response;

pub(super) fn status(owner: &Owner) -> Result<Response, Failure> {
    let status = match owner {
        Owner::Device(owner) => Status::of(&owner.device)?,
        Owner::Relay(relay) => relay_status(relay, &Reading::open(owner)?)?,
    };
    Ok(Response::Status(Box::new(status)))
}

fn relay_status(owner: &RelayOwner, reading: &Reading) -> Result<Status, Failure> {
    let relay = reading.members.members().values().find(|member| member.relay);
    let mut status = Status {
        role: "relay".into(),
        name: relay.map(|member| member.name.clone()).unwrap_or_default(),
        organisation: reading.members.name().to_owned(),
        connection: if owner.is_serving() { "serving" } else { "stopped" }.into(),
        ..Status::default()
    };
    let mut counts = reading.views().counts_by_type()?;
    for ty in types(reading) {
        let TypeCounts { local, held, .. } = counts.remove(&ty).unwrap_or_default();
        status.types.push(TypeRow { local, held, ..TypeRow::of(ty) });
    }
    status.held = status.types.iter().map(|row| row.held).sum();
    Ok(status)
}

fn types(reading: &Reading) -> Vec<TypeName> {
    let catalog = reading.catalog.as_ref();
    catalog.map(|catalog| catalog.types().keys().cloned().collect()).unwrap_or_default()
}
