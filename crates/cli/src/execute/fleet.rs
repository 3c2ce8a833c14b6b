//! What is asked of a relay's devices: read beside the engine, which only tells who is connected.

use fieldkeep_console::Failure;
use fieldkeep_console::shape::fleet::FleetDevice;
use fieldkeep_model::Member;
use fieldkeep_relay::fleet::{self, Purpose};
use fieldkeep_store::{Catalogs as _, Reader, Settings as _, home};

use super::relay::relay;
use crate::access::Owner;
use crate::member::named;
use crate::response::Response;
use crate::time::now_ms;

pub(super) fn devices(
    owner: &Owner,
    device: Option<&str>,
    to_revoke: Option<bool>,
) -> Result<Response, Failure> {
    let attendance = relay(owner)?.with_engine(|engine| Ok(engine.attendance(now_ms())))?;
    let store = Reader::open(&home::database(owner.directory()))?;
    let entries = store.members()?;
    let members = fieldkeep_model::MembershipLog::open(entries)
        .map_err(fieldkeep_replica::ReplicaError::from)?;
    let wanted: Option<Vec<&Member>> = device.map(|who| named(&members, who)).transpose()?;
    let is_wanted = |device: &fleet::Device| {
        wanted.as_ref().is_none_or(|some| some.iter().any(|one| one.keys.signing == device.key))
    };
    let purpose = to_revoke.map(|revoke| if revoke { Purpose::Revoke } else { Purpose::Upgrade });
    let found = fleet::devices(&store, &members, &attendance)?.into_iter().filter(is_wanted);
    // Who was revoked is neither upgraded nor revoked again, unless it is asked for by name.
    let found = found.filter(|found| purpose.is_none() || device.is_some() || !found.revoked);
    let devices = found.map(|found| {
        let assessment = purpose.map(|purpose| found.safe_to(purpose).into());
        FleetDevice { assessment, ..found.into() }
    });
    let catalog = store.newest_catalog()?.map(|stored| stored.number);
    Ok(Response::Devices { devices: devices.collect(), catalog })
}
