//! Keeping company: a connection to every device of the organisation that is found nearby, for as long
//! as it is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fieldkeep_link::{Discovery, ServiceId, Sighting};
use fieldkeep_model::{PeerAddress, PublicKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Listener, MeetError, PEERS};
use crate::device::Device;
use crate::reach::jittered;
use crate::sync::Opening;

/// Listeners on the network that are remembered, however many a liar announces.
const KNOWN: usize = 8 * PEERS;
/// Of two devices that see each other one calls at once, and the other when that took so long.
const COURTESY: Duration = Duration::from_secs(2);
/// How long it is waited before one is called again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether one that is connected still is.
const LOOK: Duration = Duration::from_secs(5);
/// The longest such wait, and the wait after a refusal.
const LATER: Duration = Duration::from_secs(60);
/// What ended sooner was no company.
const BRIEF: Duration = Duration::from_secs(10);

/// What is known of a listener on the network.
struct Known {
    addresses: Vec<SocketAddr>,
    /// The key that it proved when it was called.
    key: Option<PublicKey>,
    /// When it is called next.
    due: Instant,
    /// How long is waited before it is called again.
    backoff: Duration,
    calling: bool,
}

/// What became of a call.
enum Call {
    /// It was met, and that is over.
    Met,
    /// It is connected already, or is this device.
    Connected,
    /// Nobody answered, or what began ended at once.
    Failed,
    /// One of both does not trust the other.
    Refused,
}

impl Listener {
    /// Announces this listener on the local network, and stays connected to every device of the
    /// organisation that is found there, until this is dropped. Where the network is lost, or floods
    /// this device with announcements, it begins anew after a while, under another name.
    ///
    /// ```
    /// # use fieldkeep_device::Event;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// let mut events = ann.watch();
    /// for listener in [ann.listen("127.0.0.1:0".parse()?)?, ben.listen("127.0.0.1:0".parse()?)?] {
    ///     let company = listener.clone();
    ///     tokio::spawn(async move { company.keep_company().await });
    ///     tokio::spawn(async move { listener.serve().await });
    /// }
    /// while events.recv().await? != Event::Met("ben".into()) {} // With no address typed.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When there is no network to look at in the beginning.
    pub async fn keep_company(&self) -> Result<(), MeetError> {
        let mut discovery = Discovery::new(self.address().ip())?;
        loop {
            self.keep_company_by(discovery).await?;
            tracing::warn!("devices nearby are looked for anew");
            discovery = loop {
                tokio::time::sleep(jittered(LATER)).await;
                match Discovery::new(self.address().ip()) {
                    Ok(discovery) => break discovery,
                    Err(error) => tracing::warn!(%error, "it is tried again"),
                }
            };
        }
    }

    /// The same until the network says nothing any more.
    async fn keep_company_by(&self, mut discovery: Discovery) -> Result<(), MeetError> {
        let own = discovery.announce(self.address())?;
        let mut known: BTreeMap<ServiceId, Known> = BTreeMap::new();
        let mut calls = JoinSet::new();
        loop {
            let idle = known.values().filter(|one| !one.calling);
            let next = idle.map(|one| one.due).min().filter(|_| calls.len() < PEERS);
            tokio::select! {
                sighting = discovery.next() => match sighting {
                    Some(Sighting::Found(id, addresses)) => {
                        make_room(&mut known, &id);
                        let courtesy = if own < id { Duration::ZERO } else { COURTESY };
                        let one = known.entry(id).or_insert_with(|| Known::new(courtesy));
                        one.seen_at(addresses);
                    }
                    Some(Sighting::Lost(id)) => {
                        // Who is being called is forgotten when that is over.
                        known.entry(id).and_modify(|one| one.addresses.clear());
                        known.retain(|_, one| one.calling || !one.addresses.is_empty());
                    }
                    None => return Ok(()),
                },
                Some(Ok((id, key, call))) = calls.join_next(), if !calls.is_empty() => {
                    if let Some(one) = known.get_mut(&id) {
                        one.called(key, call);
                    }
                    known.retain(|_, one| one.calling || !one.addresses.is_empty());
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let room = PEERS - calls.len();
                    for (id, one) in known.iter_mut().filter(|(_, one)| one.is_due()).take(room) {
                        let (device, id, mut key) = (self.device().clone(), *id, one.key);
                        let place = PeerAddress { addresses: one.addresses.clone(), key: None };
                        one.calling = true;
                        calls.spawn(async move {
                            let call = device.keep_in_touch(&place, &mut key).await;
                            (id, key, call)
                        });
                    }
                }
            }
        }
    }
}

/// Forgets the listener that has failed for longest where one more would be too many.
fn make_room(known: &mut BTreeMap<ServiceId, Known>, id: &ServiceId) {
    if known.len() < KNOWN || known.contains_key(id) {
        return;
    }
    let idle = known.iter().filter(|(_, one)| !one.calling);
    let worst = idle.max_by_key(|(_, one)| (one.key.is_none(), one.backoff)).map(|(id, _)| *id);
    worst.map(|worst| known.remove(&worst));
}

impl Known {
    fn new(wait: Duration) -> Self {
        let due = Instant::now() + wait;
        Self { addresses: Vec::new(), key: None, due, backoff: AGAIN, calling: false }
    }

    fn is_due(&self) -> bool {
        !self.calling && self.due <= Instant::now()
    }

    /// It was seen: at once it is called where it is now, if it was somewhere else.
    fn seen_at(&mut self, addresses: Vec<SocketAddr>) {
        if self.addresses != addresses && !self.addresses.is_empty() {
            (self.due, self.backoff) = (Instant::now(), AGAIN);
        }
        self.addresses = addresses;
    }

    /// Says when it is called again.
    fn called(&mut self, key: Option<PublicKey>, call: Call) {
        self.calling = false;
        self.key = key;
        self.backoff = match call {
            Call::Met => AGAIN,
            Call::Connected => LOOK,
            Call::Failed => (2 * self.backoff).min(LATER),
            Call::Refused => LATER,
        };
        self.due = Instant::now() + jittered(self.backoff);
    }
}

impl Device {
    /// Stays connected to a listener, unless it is connected already. Notes the key that it proves.
    async fn keep_in_touch(&self, place: &PeerAddress, key: &mut Option<PublicKey>) -> Call {
        if key.as_ref().is_some_and(|key| self.is_company(key)) {
            return Call::Connected;
        }
        let Ok((_endpoint, connection)) = self.reach_peer(place).await else { return Call::Failed };
        let proven = *key.insert(connection.peer());
        if self.is_company(&proven) {
            return Call::Connected;
        }
        let began = Instant::now();
        match self.exchange(connection, Opening::Approaches).await {
            Err(MeetError::Refused { .. }) => Call::Refused,
            _ if began.elapsed() < BRIEF => Call::Failed,
            _ => Call::Met,
        }
    }

    fn is_company(&self, key: &PublicKey) -> bool {
        *key == self.0.seed.tls().public() || self.engine().is_meeting(key)
    }
}
