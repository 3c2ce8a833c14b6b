//! Who this replica is: its role, its member number, its keys and its incarnation.

use fieldkeep_model::{ActorId, DeviceNumber, KeyPair, PublicKey};

/// Which side of the product a replica serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes in the field and forecasts.
    Device,
    /// Keeps everything and issues verdicts.
    Relay,
}

/// This replica as a member.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its role.
    pub role: Role,
    /// Its number in the membership log.
    pub number: DeviceNumber,
    /// The key that signs its heads and, on a relay, its verdicts.
    pub keys: KeyPair,
    /// Which life it is in.
    pub incarnation: u32,
    /// Its name: the person's, on a device.
    pub name: String,
    /// The keys that it signed with before: what it wrote then is its own.
    pub former: Vec<PublicKey>,
}

impl Me {
    /// The actor that it writes as.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        ActorId::new(self.number, self.incarnation, &self.keys.public())
    }

    /// Whether an actor is this replica in one of its lives. Its number alone does not say so: members
    /// who joined on two branches of a relay may share one.
    pub(crate) fn is(&self, actor: &ActorId) -> bool {
        let former = || self.former.iter().any(|key| actor.belongs_to(self.number, key));
        self.signs_for(actor) || former()
    }

    /// Whether an actor is this replica under the key that it has at present: it can vouch for it.
    pub(crate) fn signs_for(&self, actor: &ActorId) -> bool {
        actor.belongs_to(self.number, &self.keys.public())
    }

    /// The incarnation after this one: the upper half counts, so that ids sort by age; the lower is
    /// drawn, so that two copies of one device that are both restored differ.
    pub(crate) fn next_incarnation(&self, drawn: u16) -> u32 {
        ((self.incarnation >> 16) + 1) << 16 | u32::from(drawn)
    }
}
