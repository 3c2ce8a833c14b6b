//! Joining: a ticket becomes a device. The device's key is made here and never leaves it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{BindError, CreateKeyError, DialError, Event, KeyFile};
use fieldkeep_model::membership::{Act, Entry, MemberKeys};
use fieldkeep_model::{MembershipLog, Seed, Signed, Ticket, membership};
use fieldkeep_protocol::frame::{CatalogFile, Frame, Hello, Members};
use fieldkeep_protocol::{Code, Phase, Role, Session};
use fieldkeep_replica::{Me, Replica, ReplicaError};
use fieldkeep_store::{Home, HomeError, StoreError, home};

use crate::device::{drawn, now};
use crate::reach::{NO_NETWORK, ReachError, reach};

/// Why a device could not join.
///
/// ```
/// # use fieldkeep_device::{JoinError, join};
/// # use fieldkeep_model::Ticket;
/// # fieldkeep_lab::camp::invitation(async |ticket, directory| {
/// let nowhere = Ticket { addresses: Vec::new(), ..ticket };
/// let joined = join(&nowhere, &directory).await;
/// assert!(matches!(joined, Err(JoinError::Offline(_)))); // Joining needs a connection.
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The key cannot be written.
    #[error(transparent)]
    Key(#[from] CreateKeyError),
    /// The relay was not reached.
    #[error("the relay was not reached ({0}): joining needs a connection")]
    Offline(String),
    /// The relay refused.
    #[error("{0}")]
    Denied(String),
    /// The relay is not the one that the ticket names, or shows another organisation's log.
    #[error("whoever answered is not the relay that the ticket names")]
    Impostor,
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// This end cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl From<StoreError> for JoinError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// The setting that says when this device joined, milliseconds UTC.
pub(crate) const JOINED: &str = "joined";
/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes up an invitation: makes the device's directory with its key, its membership log and the
/// catalog. Returns the device's name.
///
/// ```
/// # use fieldkeep_device::{Device, join};
/// # fieldkeep_lab::camp::invitation(async |ticket, directory| {
/// assert_eq!(join(&ticket, &directory).await?, "ann");
/// let device = Device::open(&directory)?;
/// assert!(device.catalog().is_some()); // Records can be written at once, without a signal.
/// # Ok(()) });
/// ```
///
/// # Errors
/// See [`JoinError`]; nothing is left in the directory then.
pub async fn join(ticket: &Ticket, directory: &Path) -> Result<String, JoinError> {
    let fresh = Home::create(directory)?;
    let joined = enrol(ticket).await;
    let result = joined.and_then(|joined| settle(ticket, &fresh, joined));
    if result.is_err() {
        let _ = std::fs::remove_file(home::key(directory));
        let _ = std::fs::remove_file(home::database(directory));
        let _ = std::fs::remove_file(directory.join("lock"));
    }
    result
}

/// What a join brings.
struct Joined {
    seed: Seed,
    members: MembershipLog,
    catalog: Option<CatalogFile>,
}

async fn enrol(ticket: &Ticket) -> Result<Joined, JoinError> {
    let seed = Seed(drawn()?);
    let mut reached = reach(&ticket.addresses, Some(&ticket.relay), &seed.tls()).await;
    if let Err(ReachError::Dial(DialError::WrongKey { address, presented, .. })) = &reached {
        // The relay may have taken another key since: the membership log says so then.
        reached = reach(&[*address], Some(&presented.clone()), &seed.tls()).await;
    }
    let (_endpoint, connection) = reached.map_err(|error| match error {
        ReachError::NoAddress => JoinError::Offline("the ticket names no address".into()),
        ReachError::NoNetwork => JoinError::Offline(NO_NETWORK.to_owned()),
        ReachError::Bind(error) => error.into(),
        ReachError::Dial(DialError::WrongKey { .. }) => JoinError::Impostor,
        ReachError::Dial(error) => JoinError::Offline(error.to_string()),
    })?;
    let talk = tokio::time::timeout(PATIENCE, converse(ticket, seed, connection)).await;
    talk.unwrap_or_else(|_| Err(JoinError::Offline("no answer".into())))
}

async fn converse(
    ticket: &Ticket,
    seed: Seed,
    connection: fieldkeep_link::Connection,
) -> Result<Joined, JoinError> {
    let peer = connection.peer();
    let (sender, mut receiver) = connection.carry(fieldkeep_link::Role::Dialer);
    let say = |frame: &Frame| {
        let _ =
            sender.try_send(0, fieldkeep_protocol::priority::CONTROL, Bytes::from(frame.encode()));
    };
    let mut session = Session::new(Role::Device);
    say(&Frame::Hello(Box::new(introduction(ticket))));
    let mut members: Option<MembershipLog> = None;
    let mut expects_catalog = false;
    loop {
        let (stream, bytes) = match receiver.recv().await {
            Event::Bytes { stream, bytes } => (stream, bytes),
            Event::Finished { .. } | Event::Writable { .. } => continue,
            Event::Closed { reason } => {
                let code = reason.code.and_then(Code::from_number);
                return Err(match code {
                    Some(_) => JoinError::Denied(reason.text),
                    None => JoinError::Offline(reason.text),
                });
            }
        };
        let broken =
            |violation: fieldkeep_protocol::Violation| JoinError::Denied(violation.to_string());
        session.receive(stream, &bytes).map_err(broken)?;
        while let Some(frame) = session.next(stream).map_err(broken)? {
            match frame {
                Frame::Welcome(welcome) => {
                    session.enter(Phase::Open);
                    expects_catalog = welcome.catalog > 0;
                    say(&Frame::Join(application(ticket, &seed, &welcome)));
                }
                Frame::Members(Members { base: 0, entries }) => {
                    let log = MembershipLog::open(entries).map_err(|_| JoinError::Impostor)?;
                    // The ticket may name an earlier key of it; or it goes on with that for a while, and the
                    // next is named already.
                    let mut relays = log.members().values().filter(|member| member.relay);
                    let relay = relays.any(|by| {
                        by.has_shown(&ticket.relay) && (by.keys.tls == peer || peer == ticket.relay)
                    });
                    let me = log.by_tls(&seed.tls().public()).is_some();
                    if log.org() != ticket.org || !relay || !me {
                        return Err(JoinError::Impostor);
                    }
                    members = Some(log);
                }
                Frame::Catalog(catalog) => {
                    if let Some(members) = members {
                        sender.close(Code::Done.number(), "joined");
                        return Ok(Joined { seed, members, catalog: Some(catalog) });
                    }
                }
                Frame::Error(error) => return Err(JoinError::Denied(error.text)),
                Frame::Members(_)
                | Frame::OfferReply(_)
                | Frame::Delta(_)
                | Frame::Ack(_)
                | Frame::Nack(_)
                | Frame::Verdicts(_)
                | Frame::Proof(_)
                | Frame::Stats(_)
                | Frame::Outcome(_)
                | Frame::Answer(_)
                | Frame::GoAway(_) => {}
                Frame::Hello(_)
                | Frame::Join(_)
                | Frame::Offer(_)
                | Frame::Vector(_)
                | Frame::Witness(_)
                | Frame::Meet(_)
                | Frame::Mode(_)
                | Frame::Receipt(_)
                | Frame::Part(_)
                | Frame::Push(_)
                | Frame::Credit(_)
                | Frame::Rejudge(_)
                | Frame::Dismiss(_)
                | Frame::Call(_)
                | Frame::Ask(_)
                | Frame::Report(_) => unreachable!("the session lets no such frame in"),
            }
            if let Some(log) = members.take_if(|_| !expects_catalog) {
                sender.close(Code::Done.number(), "joined");
                return Ok(Joined { seed, members: log, catalog: None });
            }
        }
    }
}

/// What a stranger with a ticket says first.
///
/// ```
/// # use fieldkeep_device::introduction;
/// # use fieldkeep_model::{KeyPair, OrgId, Ticket};
/// # let (key, relay) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]).public());
/// # let ticket = Ticket { org: OrgId([3; 16]), relay, addresses: Vec::new(), invite: 2, key };
/// let hello = introduction(&ticket);
/// assert_eq!((hello.org, hello.actor), (ticket.org, None)); // It is nobody yet.
/// ```
#[must_use]
pub fn introduction(ticket: &Ticket) -> Hello {
    Hello {
        versions: vec![fieldkeep_protocol::VERSION],
        software: concat!("fieldkeep/", env!("CARGO_PKG_VERSION")).to_owned(),
        org: ticket.org,
        capabilities: 0,
        members: 0,
        members_tip: [0; 32],
        members_sum: [0; 16],
        epoch: Default::default(),
        catalog: 0,
        frame_max: fieldkeep_protocol::FRAME_MAX,
        root: [0; 16],
        actor: None,
        removals: None,
    }
}

/// The entry that takes the invitation up, behind the tip that the relay named.
///
/// ```
/// # use fieldkeep_device::{application, introduction};
/// # use fieldkeep_model::{KeyPair, OrgId, Seed, Ticket};
/// # use fieldkeep_protocol::frame::Hello;
/// # let (key, relay) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]).public());
/// # let ticket = Ticket { org: OrgId([3; 16]), relay, addresses: Vec::new(), invite: 2, key };
/// let seed = Seed([7; 32]); // Drawn at random, in earnest.
/// let welcome = Hello { members: 3, members_tip: [9; 32], ..introduction(&ticket) };
/// let application = application(&ticket, &seed, &welcome);
/// assert_eq!((application.base, application.entries.len()), (3, 1));
/// ```
#[must_use]
pub fn application(ticket: &Ticket, seed: &Seed, welcome: &Hello) -> Members {
    let act = Act::Join { invite: ticket.invite, keys: MemberKeys::of(seed) };
    let entry = Entry { previous: welcome.members_tip, act };
    let entry = Signed::new(membership::CONTEXT, &entry, &ticket.key);
    Members { base: welcome.members, entries: vec![entry] }
}

/// Writes the device's directory.
fn settle(ticket: &Ticket, home: &Home, joined: Joined) -> Result<String, JoinError> {
    let Joined { seed, members, catalog } = joined;
    let me = members.by_tls(&seed.tls().public()).expect("checked when it came").clone();
    KeyFile::write(home::key(home.directory()), &seed)?;
    let mut store = home.store()?;
    for (number, entry) in (0..).zip(members.since(0)) {
        store.append_member(number, entry)?;
    }
    store.set("role", b"device")?;
    store.set(JOINED, now().to_string().as_bytes())?;
    store.set("number", &me.number.to_be_bytes())?;
    let addresses: Vec<_> = ticket.addresses.iter().map(ToString::to_string).collect();
    store.set("relays", addresses.join("\n").as_bytes())?;
    home.renew_identity(&mut store, drawn()?)?;
    let as_member = Me {
        role: fieldkeep_replica::Role::Device,
        number: me.number,
        keys: seed.signing(),
        incarnation: 0,
        name: me.name.clone(),
        former: Vec::new(),
    };
    let mut replica = Replica::open(store, as_member, members, drawn()?)?;
    if let Some(catalog) = catalog {
        replica.adopt_catalog(catalog.notice, catalog.source)?;
    }
    replica.commit()?;
    Ok(me.name)
}
