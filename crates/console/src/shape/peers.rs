//! Other devices.

use fieldkeep_device::{Device, PeerProgress};
use fieldkeep_replica::ReplicaError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The devices on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// Where this device listens, with its key, as `sync --peer` takes it; nothing if it does not.
    pub listening: Option<String>,
    /// The others.
    pub peers: Vec<Peer>,
}

/// A device on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its name; nothing if it is no member that is known here.
    pub name: Option<String>,
    /// Its member number likewise.
    pub number: Option<u64>,
    /// Where it was reached; nothing if it has called this one and was not seen besides.
    pub address: Option<String>,
    /// `connected`, `near`, `revoked` or `stranger`.
    pub state: String,
}

/// What an exchange with another device came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Met {
    /// The other device's name.
    pub name: String,
    /// Changes that it has now.
    pub sent: u64,
    /// Changes that came from it.
    pub received: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// Forks that no relay has decided: both branches are kept.
    pub forked: u64,
    /// Held records here.
    pub held: u64,
}

impl From<PeerProgress> for Peer {
    fn from(progress: PeerProgress) -> Self {
        let PeerProgress { name, number, .. } = progress;
        Self { name, number, address: None, state: "connected".to_owned() }
    }
}

impl Peers {
    /// Where a device listens, and who is connected to it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(device: &Device) -> Result<Self, ReplicaError> {
        let listening = device.listening().filter(|place| !place.addresses.is_empty());
        let met = device.meetings()?.into_iter().filter(|met| met.number.is_some());
        let peers = met.map(Peer::from).collect();
        Ok(Self { listening: listening.map(|place| place.to_string()), peers })
    }
}

impl From<PeerProgress> for Met {
    fn from(progress: PeerProgress) -> Self {
        let PeerProgress { name, sent, received, proven, forked, .. } = progress;
        Self { name: name.unwrap_or_default(), sent, received, proven, forked, held: 0 }
    }
}
