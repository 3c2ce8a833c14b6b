//! Stories: the world as tests tell it, in words of the field.

use std::collections::BTreeSet;

use fieldkeep_model::{Outcome, RecordKey, status::State};
use fieldkeep_replica::{RecordView, Replica};
use serde_json::{Map, Value};

use super::World;
use super::device::Wish;
use super::oracle::Violation;
use super::time::{MILLISECOND, MINUTE};
use super::workload::{CATALOG, Deed};

/// Somebody in a story: a person with a device, or the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A person with a device.
    Device(usize),
    /// The relay.
    Relay,
}

/// What is known of a record's validity, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The word for it.
    pub word: &'static str,
    /// The first reason, if there is one.
    pub reason: Option<String>,
}

/// Held, for that reason.
#[must_use]
pub fn held(reason: &str) -> Standing {
    Standing { word: State::Judged(Outcome::Held).word(), reason: Some(reason.to_owned()) }
}

/// Judged, and nothing to object to.
#[must_use]
pub fn valid() -> Standing {
    Standing { word: State::Judged(Outcome::Valid).word(), reason: None }
}

impl World {
    /// A world in which everybody may everything, with the catalog of a field day.
    ///
    /// # Panics
    /// When it cannot be founded: a fault of ours.
    #[must_use]
    pub fn seeded(seed: u64, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let world = Self::founded(seed, &names, 0, CATALOG, None);
        let mut world = world.expect("a world with a sound catalog can be founded");
        for at in 0..world.devices.len() {
            told(world.start_device(at));
        }
        world
    }

    /// A person writes a record.
    ///
    /// # Panics
    /// When a promise is broken, or the record is not well-formed.
    pub fn put(&mut self, peer: Peer, key: &str, fields: Value) {
        let Peer::Device(at) = peer else { panic!("people write on devices") };
        let Value::Object(fields) = fields else { panic!("a record is an object") };
        let key: RecordKey = key.parse().expect("a record's name");
        told(self.does(at, &Deed::Put(key, fields)));
    }

    /// Everybody has a signal until everything is exchanged, judged and proven.
    ///
    /// # Panics
    /// When a promise is broken on the way.
    pub fn settle(&mut self) {
        told(self.comes_to_rest());
        told(self.reckons());
        for at in 0..self.devices.len() {
            told(self.wish(at, Wish::Offline));
        }
        self.fine = false;
    }

    /// People have a bad signal from now on, for some minutes: packets are lost, and streams
    /// overtake each other.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn weather(&mut self, peers: &[Peer], minutes: u64) {
        self.lossy = true;
        for peer in peers {
            let Peer::Device(at) = *peer else { panic!("people have signals on devices") };
            told(self.wish(at, Wish::Always));
        }
        told(self.runs_until(self.now + minutes * MINUTE));
    }

    /// A person has a signal until everything written there has a receipt, and loses it at once.
    ///
    /// # Panics
    /// When a promise is broken, or no receipt comes.
    pub fn hand_over(&mut self, peer: Peer) {
        self.connected_until(peer, |world| world.unsaved(peer) == 0);
    }

    /// A person has a signal until the device knows the relay's epoch, and loses it at once.
    ///
    /// # Panics
    /// When a promise is broken, or the epoch does not come.
    pub fn learn_epoch(&mut self, peer: Peer) {
        let Peer::Device(at) = peer else { panic!("people learn on devices") };
        let epoch = |replica: Option<&Replica>| replica.map(Replica::epoch);
        self.connected_until(peer, |world| {
            epoch(world.devices[at].replica()) == epoch(world.relay.replica())
        });
    }

    fn connected_until(&mut self, peer: Peer, reached: impl Fn(&Self) -> bool) {
        let Peer::Device(at) = peer else { panic!("people have signals on devices") };
        self.fine = true;
        told(self.wish(at, Wish::Always));
        // The relay may still count connections that are gone, and tell the device to come again.
        let until = self.now + 10 * MINUTE;
        while !reached(self) {
            assert!(self.now < until, "waited in vain");
            told(self.runs_once(until));
        }
        self.stop_device(at);
        // What is on its way to the relay still arrives, or some of it.
        while !(self.network.is_quiet() && self.relay.is_idle()) && self.now < until {
            told(self.runs_once(until));
        }
        self.devices[at].wish = Wish::Offline;
        told(self.start_device(at));
        self.fine = false;
    }

    /// A person has a signal until everything is exchanged, judged and proven, and loses it at once.
    ///
    /// # Panics
    /// When a promise is broken, or it takes too long.
    pub fn sync(&mut self, peer: Peer) {
        let Peer::Device(at) = peer else { panic!("people sync on devices") };
        self.devices[at].complete = false;
        self.connected_until(peer, |world| world.devices[at].complete);
    }

    /// A person has a signal for so many milliseconds, and loses it wherever it is.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn glimpse(&mut self, peer: Peer, milliseconds: u64) {
        let begun = self.now;
        self.connected_until(peer, |world| world.now >= begun + milliseconds * MILLISECOND);
    }

    /// The writes of the world, by number, that somebody has.
    pub fn holds(&mut self, peer: Peer) -> BTreeSet<usize> {
        let all = self.ledger.entries.clone();
        let held = all.iter().enumerate().filter(|(_, saved)| match peer {
            Peer::Device(at) => self.device_holds(at, &saved.segment, &saved.hash),
            Peer::Relay => self.relay_holds(&saved.segment, &saved.hash),
        });
        held.map(|(number, _)| number).collect()
    }

    /// A copy of the relay's directory is put away.
    ///
    /// # Panics
    /// When the relay does not run.
    pub fn back_up_relay(&mut self) {
        let replica = self.relay.replica().expect("the relay runs");
        self.relay.backup = Some(replica.store().copy().expect("it copies"));
        self.relay.old_files = self.relay.files.clone();
    }

    /// The relay's directory is put back from the copy.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn put_relay_back(&mut self) {
        told(self.restore_relay());
    }

    /// A record as somebody sees it.
    #[must_use]
    pub fn record(&self, peer: Peer, key: &str) -> Option<RecordView> {
        let key: RecordKey = key.parse().expect("a record's name");
        let replica = match peer {
            Peer::Device(at) => self.devices[at].replica(),
            Peer::Relay => self.relay.replica(),
        };
        replica?.views().record(&key).expect("it reads")
    }

    /// What is known of a record's validity.
    #[must_use]
    pub fn verdict(&self, peer: Peer, key: &str) -> Option<Standing> {
        let record = self.record(peer, key)?;
        Some(Standing { word: record.state.word(), reason: record.reasons.first().cloned() })
    }

    /// A record at the newest state that passed.
    #[must_use]
    pub fn last_valid(&self, peer: Peer, key: &str) -> Option<Map<String, Value>> {
        self.record(peer, key)?.last_valid
    }

    /// Changes of a device that have no receipt.
    #[must_use]
    pub fn unsaved(&self, peer: Peer) -> u64 {
        use fieldkeep_store::Log as _;
        let Peer::Device(at) = peer else { return 0 };
        let disk = self.devices[at].disk();
        disk.map_or(0, |disk| disk.outgoing_count().expect("it reads"))
    }
}

fn told(checked: Result<(), Box<Violation>>) {
    if let Err(violation) = checked {
        panic!("{violation}");
    }
}
