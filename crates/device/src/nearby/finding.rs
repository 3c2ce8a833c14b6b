//! Finding other devices on the local network.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fieldkeep_link::{Connection, Discovery, Endpoint, Sighting};
use fieldkeep_model::{DeviceNumber, PeerAddress, PublicKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{MeetError, PEERS};
use crate::device::Device;
use crate::engine::PeerProgress;

/// Announcements that are looked into, however many a liar makes.
const SEEN: usize = 1_024;

/// A device that was found nearby and has proved its key.
///
/// ```
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::meeting(async |ann, ben| {
/// # let loopback = "127.0.0.1:0".parse()?;
/// # let (near, listener) = (ann.listen(loopback)?, ben.listen(loopback)?);
/// # let company = listener.clone();
/// # tokio::spawn(async move { company.keep_company().await });
/// # tokio::spawn(async move { listener.serve().await });
/// # let found = loop {
/// let found = ann.neighbours(Duration::from_secs(1)).await?;
/// # if found.iter().any(|one| one.name.is_some()) {
/// #     break found;
/// # }
/// # };
/// let ben = found.into_iter().find(|one| one.name.as_deref() == Some("ben"));
/// let ben = ben.expect("he is near");
/// assert!(!ben.revoked && !ben.connected);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it was reached.
    pub address: SocketAddr,
    /// The key that it proved.
    pub key: PublicKey,
    /// Its name, if it is a member that is known here.
    pub name: Option<String>,
    /// Its member number likewise.
    pub number: Option<DeviceNumber>,
    /// Whether it is known here to be revoked.
    pub revoked: bool,
    /// Whether it is connected to this one.
    pub connected: bool,
}

/// A connection to a device that was found, with the socket that it needs.
struct Reached {
    endpoint: Endpoint,
    connection: Connection,
}

impl Device {
    /// Looks around on the local network for so long. Every device that is found proves its key, and
    /// is told nothing but this one's.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let loopback = "127.0.0.1:0".parse()?;
    /// # let (near, listener) = (ann.listen(loopback)?, ben.listen(loopback)?);
    /// # let company = listener.clone();
    /// # tokio::spawn(async move { company.keep_company().await });
    /// # tokio::spawn(async move { listener.serve().await });
    /// # let ben_key = ben.member()?.keys.tls;
    /// # let found = loop {
    /// let found = ann.neighbours(Duration::from_secs(1)).await?;
    /// # if found.iter().any(|one| one.name.is_some()) {
    /// #     break found;
    /// # }
    /// # };
    /// let ben = found.into_iter().find(|one| one.name.as_deref() == Some("ben"));
    /// assert_eq!(ben.expect("he is near").key, ben_key); // Which he has proved.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When there is no network to look at.
    pub async fn neighbours(&self, patience: Duration) -> Result<Vec<Neighbour>, MeetError> {
        let mut neighbours = Vec::new();
        let all = self.look_around(patience, |reached| {
            neighbours.push(self.neighbour(&reached.connection));
            None::<()>
        });
        all.await?;
        neighbours.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        Ok(neighbours)
    }

    /// Exchanges everything with a member that is found on the local network.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let loopback = "127.0.0.1:0".parse()?;
    /// # let (near, listener) = (ann.listen(loopback)?, ben.listen(loopback)?);
    /// # let company = listener.clone();
    /// # tokio::spawn(async move { company.keep_company().await });
    /// # tokio::spawn(async move { listener.serve().await });
    /// let members = ann.members();
    /// let ben = members.members().values().find(|member| member.name == "ben");
    /// let ben = ben.expect("he joined before her");
    /// let met = ann.sync_with_member(ben.number, Duration::from_secs(60)).await?;
    /// assert_eq!((met.name.as_deref(), met.sent), (Some("ben"), 2));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`MeetError`]; nothing is lost in any case.
    pub async fn sync_with_member(
        &self,
        number: DeviceNumber,
        patience: Duration,
    ) -> Result<PeerProgress, MeetError> {
        let until = Instant::now() + patience;
        let members = self.members();
        let keys = members.numbered(number).map(|member| member.keys.tls);
        let keys: BTreeSet<PublicKey> = keys.collect();
        let found = self.look_around(patience, |reached| {
            keys.contains(&reached.connection.peer()).then_some(reached)
        });
        let Some(Reached { endpoint: _endpoint, connection }) = found.await? else {
            return Err(MeetError::NotFound(patience));
        };
        self.meet(connection, until, patience).await
    }

    /// Where this device listens for others, as they reach it, with its key; nothing if it does not.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(device.listening(), None);
    /// let listener = device.listen("127.0.0.1:0".parse()?)?;
    /// let place = device.listening().expect("it listens");
    /// assert_eq!(place.key, Some(device.member()?.keys.tls));
    /// assert_eq!(place.to_string().parse(), Ok(place)); // As a line to type, or a code to scan.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn listening(&self) -> Option<PeerAddress> {
        let addresses = fieldkeep_link::discovery::reachable(self.0.listening()?);
        Some(PeerAddress { addresses, key: Some(self.0.seed.tls().public()) })
    }

    fn neighbour(&self, connection: &Connection) -> Neighbour {
        let key = connection.peer();
        let members = self.members();
        let member = members.by_tls(&key).filter(|member| !member.relay);
        Neighbour {
            address: connection.remote_address(),
            key,
            name: member.map(|member| member.name.clone()),
            number: member.map(|member| member.number),
            revoked: member.is_some_and(|member| member.revoked),
            connected: self.engine().is_meeting(&key),
        }
    }

    /// Connects to every device that is seen, until `pick` takes one.
    async fn look_around<T>(
        &self,
        patience: Duration,
        mut pick: impl FnMut(Reached) -> Option<T>,
    ) -> Result<Option<T>, MeetError> {
        let until = Instant::now() + patience;
        let on = self.0.listening().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        let mut discovery = Discovery::new(on)?;
        let mut met = BTreeSet::from([self.0.seed.tls().public()]);
        let mut seen = BTreeSet::new();
        let mut calls = JoinSet::new();
        loop {
            let room = calls.len() < PEERS && seen.len() < SEEN;
            tokio::select! {
                () = sleep_until(until) => return Ok(None),
                sighting = discovery.next(), if room => match sighting {
                    Some(Sighting::Found(service, addresses)) => {
                        if seen.insert((service, addresses.clone())) {
                            let device = self.clone();
                            let place = PeerAddress { addresses, key: None };
                            calls.spawn(async move { device.reach_peer(&place).await });
                        }
                    }
                    Some(Sighting::Lost(_)) => {}
                    None => discovery = Discovery::new(on)?,
                },
                Some(called) = calls.join_next() => {
                    // Who did not answer may be announced by somebody else.
                    let Ok(Ok((endpoint, connection))) = called else { continue };
                    if met.insert(connection.peer())
                        && let Some(picked) = pick(Reached { endpoint, connection })
                    {
                        return Ok(Some(picked));
                    }
                }
            }
        }
    }
}
