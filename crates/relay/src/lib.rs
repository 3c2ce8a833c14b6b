//! The server side: ingest, fan-out, judging and quarantine.
//!
//! [`Engine`] is sans-IO: inputs go in with [`Engine::handle`], and everything that leaves (frames,
//! receipts, closes) comes out of [`Engine::commit`], after the disk has what it speaks of.
//! [`Relay`] is the shell around it: sockets, the clock, one thread that writes.

pub mod archive;
mod backup;
mod collector;
mod config;
mod directory;
mod doctor;
mod door;
mod engine;
mod files;
pub mod fleet;
mod host;
pub mod limits;
mod metrics;
mod office;
mod operators;
mod outlook;
mod recovery;
mod sample;
mod server;
mod trial;
mod turns;
mod vitals;
mod whereabouts;

pub use backup::{
    BackupError, BackupState, Backups, Flaw, LastBackup, Occupied, Progress, PutBack, RestoreError,
    Stage, Taken, Thorough, Which, restore_backup, take_backup,
};
pub use collector::Collector;
pub use config::{Config, ConfigError};
pub use directory::{Directory, DirectoryError, InitError, admin_key, invite};
pub use doctor::{Examined, examine};
pub use engine::{
    AccountChange, AccountError, ConnectionId, Doubt, Engine, Fetch, Found, HOST_CONTEXT, Input,
    NOTE, Output, PERSON, Packing, Present, Standing, TRACES, Unpacking, check_queries, said,
};
pub use files::sweep;
pub use office::Office;
pub use operators::{
    OperatorRole, Password, PasswordError, check_operator_name, decoy, is_password,
};
pub use outlook::{Cause, CauseName, Example, Outlook, Sight, Weight};

pub use fieldkeep_catalog::{Judge, Judges, Matter};
pub use fieldkeep_replica::{Accepted, Accepting, PART};

pub use fieldkeep_protocol::Frame;
pub use fieldkeep_protocol::bundle::{
    Content, Enclosed, Enclosing, Entry, NotTaken, Packed, ReadError, Reader, Subject, Survey,
    Unfit, Unpacked, Writer,
};
pub use fieldkeep_transfer::{ArriveError, Arriving, Brought, enclose};
pub use recovery::{Recovery, Returned};
pub use sample::{CommitTimes, Sample};
pub use server::{Handle, Relay, ServeError};
pub use trial::{Sequel, Trial, Tried, read_catalog, sequel, try_catalog};
pub use vitals::Vitals;
pub use whereabouts::Whereabouts;
