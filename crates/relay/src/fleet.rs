//! The fleet: every device of the organisation, as far as the relay knows it, and how old that knowledge
//! is.
//!
//! What the relay holds itself is fact. What a device said of itself is a [`Claim`]: shown as one, and
//! with when it was heard; whatever happened on the device since is not known, and nothing here pretends
//! that it were.

mod safety;

use std::collections::BTreeMap;

use fieldkeep_model::{DeviceNumber, Grant, Member, MembershipLog, PublicKey};
use fieldkeep_protocol::Report;
use fieldkeep_store::{Contact, Contacts, Log, StoreError};

pub use crate::engine::Attendance;
pub use safety::{Assessment, Purpose, Safety};

/// A device of the organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its number in the membership log.
    pub number: DeviceNumber,
    /// The key that it signs with at present.
    pub key: PublicKey,
    /// The name of whoever uses it.
    pub name: String,
    /// What it may read and write.
    pub grants: Vec<Grant>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Since when it is connected, milliseconds UTC; it is not, if none.
    pub connected: Option<i64>,
    /// When it was here last, by the relay's clock, milliseconds UTC; never, as far as is known, if none.
    pub seen: Option<i64>,
    /// What it runs, as it said.
    pub software: Option<String>,
    /// The number of the catalog that it has, as it said.
    pub catalog: Option<u64>,
    /// How many entries of the membership log it holds, as it said.
    pub members: Option<u64>,
    /// How many of its changes are in the relay's log.
    pub saved: u64,
    /// How many of its changes the relay keeps aside, because it may not write there.
    pub aside: u64,
    /// What it said of itself last.
    pub claim: Option<Claim>,
}

/// What a device said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When the relay heard it, by its clock, milliseconds UTC.
    pub heard: i64,
    /// What it said.
    pub report: Report,
}

/// Every device, by number. Read beside the engine: `attendance` is what it knows besides.
///
/// # Errors
/// When the disk fails.
pub fn devices<S: Contacts + Log>(
    store: &S,
    members: &MembershipLog,
    attendance: &Attendance,
) -> Result<Vec<Device>, StoreError> {
    let mut contacts = store.contacts()?;
    for (key, fresh) in &attendance.fresh {
        let known = contacts.entry(*key).or_default();
        let report = fresh.report.clone().or_else(|| known.report.take());
        *known = Contact { report, ..fresh.clone() };
    }
    let (mut saved, mut aside) = (BTreeMap::new(), BTreeMap::new());
    for (actor, changes) in store.changes_by_actor()? {
        if let Some(author) = members.author(&actor) {
            *saved.entry(author.identity).or_default() += changes;
        }
    }
    for (actor, changes) in store.not_permitted_by_actor()? {
        if let Some(author) = members.author(&actor) {
            *aside.entry(author.identity).or_default() += changes;
        }
    }
    let devices = members.members().values().filter(|member| !member.relay);
    let devices =
        devices.map(|Member { number, name, identity, keys, grants, revoked, .. }| {
            let contact = contacts.remove(identity);
            let connected = attendance.connected.get(identity).copied();
            let seen = contact.as_ref().map(|contact| contact.seen);
            Device {
                number: *number,
                key: keys.signing,
                name: name.clone(),
                grants: grants.clone(),
                revoked: *revoked,
                connected,
                seen: connected.map(|_| attendance.now).or(seen),
                software: contact
                    .as_ref()
                    .map(|c| c.software.clone())
                    .filter(|text| !text.is_empty()),
                catalog: contact.as_ref().map(|contact| contact.catalog),
                members: contact.as_ref().map(|contact| contact.members),
                saved: saved.remove(identity).unwrap_or(0),
                aside: aside.remove(identity).unwrap_or(0),
                claim: contact.and_then(|contact| claim(contact.report)),
            }
        });
    Ok(devices.collect())
}

fn claim(told: Option<(i64, Vec<u8>)>) -> Option<Claim> {
    let (heard, bytes) = told?;
    Some(Claim { heard, report: minicbor::decode(&bytes).ok()? })
}
