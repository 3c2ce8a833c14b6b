//! A relay's directory: how it is founded, opened, and asked for invitations.

use std::path::{Path, PathBuf};

use fieldkeep_catalog::{Catalog, CatalogError, Judges};
use fieldkeep_link::{CreateKeyError, KeyFile, OpenKeyError};
use fieldkeep_model::membership::{Act, MemberKeys};
use fieldkeep_model::{Epoch, Grant, KeyPair, MembershipLog, Seed, Signed, Ticket};
use fieldkeep_replica::{Me, Note, Replica, ReplicaError, Role};
use fieldkeep_store::{Home, HomeError, Settings as _, Store, StoreError, home};

use crate::backup::LastBackup;
use crate::recovery::Mark;

/// What stands for the identity of a database that was put back from a backup: no file has it, so that
/// whoever opens it knows.
pub(crate) const PUT_BACK: &[u8] = b"put back";

/// An opened relay directory: nobody else owns it as long as this lives.
#[derive(Debug)]
pub struct Directory {
    home: Home,
    seed: Seed,
    store: Store,
    members: MembershipLog,
    judges: Judges,
}

/// Why an organisation could not be founded.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key cannot be written.
    #[error(transparent)]
    Key(#[from] CreateKeyError),
    /// The catalog does not parse.
    #[error("the catalog cannot be used:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Catalog(Vec<CatalogError>),
    /// The store cannot be written.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for InitError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// Why a relay's directory could not be opened, or an invitation not made.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] OpenKeyError),
    /// The directory is a device's.
    #[error("{} is a device's directory, not a relay's", .0.display())]
    NotARelay(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Entropy,
}

impl From<StoreError> for DirectoryError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// The admin's key file in a relay's directory, until it is moved elsewhere.
#[must_use]
pub fn admin_key(directory: &Path) -> PathBuf {
    directory.join("admin.key")
}

impl Directory {
    /// Founds an organisation: its admin key, its membership log, and this relay as its first
    /// member, with a catalog if there is one.
    ///
    /// # Errors
    /// When the directory is not empty, or the catalog does not parse: nothing is made then.
    pub fn init(path: &Path, name: &str, catalog: Option<&str>) -> Result<Self, InitError> {
        let catalog = catalog.map(Catalog::parse).transpose().map_err(InitError::Catalog)?;
        match catalog.as_ref().map_or(Ok(()), crate::engine::check_queries) {
            Err(ReplicaError::Catalog(errors)) => return Err(InitError::Catalog(errors)),
            other => other?,
        }
        let home = Home::create(path)?;
        let admin = KeyFile::create(admin_key(home.directory()))?.signing();
        let seed = KeyFile::create(home::key(home.directory()))?;
        let mut members = MembershipLog::found(name, &admin, drawn()?);
        let relay = Act::Relay { keys: MemberKeys::of(&seed), name: "relay".into() };
        let entry = members.sign(relay, &admin);
        members.append(entry).map_err(ReplicaError::from)?;
        let mut store = home.store()?;
        for (number, entry) in (0..).zip(members.since(0)) {
            store.append_member(number, entry)?;
        }
        store.set("role", b"relay")?;
        store.set("number", &1u64.to_be_bytes())?;
        let epoch = Epoch { counter: 1, salt: drawn()? };
        store.set("epoch", &minicbor::to_vec(epoch).expect("encoding into memory cannot fail"))?;
        home.renew_identity(&mut store, drawn()?)?;
        store.commit()?;
        let judges = Judges::default();
        let directory = Self { home, seed, store, members, judges };
        if let Some(catalog) = catalog {
            let (mut replica, home, seed) = directory.into_replica()?;
            replica.publish(catalog)?;
            replica.note_catalog(Note { text: "", time: crate::server::now() })?;
            replica.commit()?;
            drop((replica, seed));
            let path = home.directory().to_owned();
            drop(home);
            return Self::open(&path).map_err(|error| match error {
                DirectoryError::Replica(error) => InitError::Replica(error),
                DirectoryError::Home(error) => InitError::Home(error),
                DirectoryError::Key(_) | DirectoryError::NotARelay(_) | DirectoryError::Entropy => {
                    InitError::Replica(StoreError::ReadOnly.into())
                }
            });
        }
        Ok(directory)
    }

    /// Opens a relay's directory.
    ///
    /// # Errors
    /// When it is none, another process owns it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let home = Home::open(path)?;
        let store = home.store()?;
        if store.setting("role")?.as_deref() != Some(b"relay") {
            return Err(DirectoryError::NotARelay(path.to_owned()));
        }
        let members = MembershipLog::open(store.members()?).map_err(ReplicaError::from)?;
        let seed = in_force(home.directory(), &members)?;
        Ok(Self { home, seed, store, members, judges: Judges::default() })
    }

    /// The same, with the rules in Rust that its catalog names, or is to name.
    ///
    /// A record that such a rule decides is held by a relay that does not have it: whatever opens the
    /// directory has to bring them.
    #[must_use]
    pub fn with_judges(self, judges: Judges) -> Self {
        Self { judges, ..self }
    }

    /// Notes that a backup was made, where nobody serves the relay.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn note_backup(&mut self, backup: &LastBackup) -> Result<(), StoreError> {
        backup.note(&mut self.store)?;
        self.store.commit()
    }

    /// The engine's replica, with what the shell keeps: the lock and the secret seed. A directory
    /// that is a copy gets a new incarnation, in a new epoch.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn into_replica(self) -> Result<(Replica, Home, Seed), ReplicaError> {
        let Self { home, seed, store, members, judges } = self;
        let me = relay_member(&store, &seed, &members)?;
        let copy = home.is_copy(&store)?;
        let put_back = store.setting("identity")?.as_deref() == Some(PUT_BACK);
        let mut replica = Replica::open(store, me, members, drawn()?)?;
        replica.set_judges(judges);
        if copy {
            if put_back {
                tracing::info!("this directory was put back from a backup: a new epoch is opened");
            } else {
                tracing::warn!("this directory is a copy: a new epoch is opened");
            }
            // Devices may know what was stated here after the copy was made: under the same epoch
            // the same numbers would stand for other verdicts.
            replica.open_epoch_above(replica.epoch())?;
            replica.restate_verdicts()?;
            if !put_back {
                let mark = Mark::now(replica.store(), crate::server::now(), None)?;
                mark.note(replica.store_mut())?;
            }
        }
        home.renew_identity(replica.store_mut(), drawn()?)?;
        replica.commit()?;
        Ok((replica, home, seed))
    }
}

/// The keys of a directory's relay: those that it was to have, once the membership log says that it has
/// them. The file of those that it had is gone then.
fn in_force(directory: &Path, members: &MembershipLog) -> Result<Seed, OpenKeyError> {
    let next = home::next_key(directory);
    if next.exists() {
        let seed = KeyFile::open(&next)?;
        if members.by_tls(&seed.tls().public()).is_some_and(|member| member.relay) {
            KeyFile::replace(home::key(directory), &next)?;
            tracing::info!("this relay's keys were replaced");
            return Ok(seed);
        }
    }
    KeyFile::open(home::key(directory))
}

/// All keys of a directory's relay: those that it has, and those of its next start, where some were drawn.
/// Members know it by one of them.
pub(crate) fn all_keys(directory: &Path) -> Result<Vec<Seed>, OpenKeyError> {
    let (present, next) = (home::key(directory), home::next_key(directory));
    let mut keys = vec![KeyFile::open(present)?];
    if next.exists() {
        keys.push(KeyFile::open(next)?);
    }
    Ok(keys)
}

/// The keys that a directory's relay has from its next start on, where some were drawn.
pub(crate) fn next_keys(directory: &Path) -> Option<KeyPair> {
    KeyFile::open(home::next_key(directory)).ok().map(|seed| seed.signing())
}

fn relay_member(store: &Store, seed: &Seed, members: &MembershipLog) -> Result<Me, ReplicaError> {
    let damaged = || StoreError::Damaged("the relay's member number".into());
    let number = store.setting("number")?.and_then(|bytes| bytes.try_into().ok());
    let number = u64::from_be_bytes(number.ok_or_else(damaged)?);
    let incarnation = store.setting("incarnation")?.and_then(|bytes| bytes.try_into().ok());
    let member = members.by_tls(&seed.tls().public()).ok_or_else(damaged)?;
    let name = member.name.clone();
    Ok(Me {
        role: Role::Relay,
        number,
        keys: seed.signing(),
        incarnation: u32::from_be_bytes(incarnation.unwrap_or_default()),
        name,
        former: Vec::new(),
    })
}

/// Signs an invitation with the admin key, as the entry that follows a membership log's tip. The
/// ticket's addresses are to be set by the caller.
#[must_use]
pub fn invite(
    members: &MembershipLog,
    admin: &KeyPair,
    one_time: KeyPair,
    name: &str,
    grants: Vec<Grant>,
    expires_ms: i64,
) -> (Signed, Ticket) {
    let act = Act::Invite { key: one_time.public(), name: name.to_owned(), grants, expires_ms };
    let relay = members.members().values().find(|member| member.relay);
    let ticket = Ticket {
        org: members.org(),
        relay: relay.expect("an organisation is founded with a relay").keys.tls,
        addresses: Vec::new(),
        invite: members.next_number(),
        key: one_time,
    };
    (members.sign(act, admin), ticket)
}

/// Random bytes of the system.
pub(crate) fn drawn<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Disk(error.to_string()))?;
    Ok(bytes)
}
