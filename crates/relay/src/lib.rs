//! The server side: ingest, fan-out, judging and quarantine.
//!
//! [`Engine`] is sans-IO: inputs go in with [`Engine::handle`], and everything that leaves (frames,
//! receipts, closes) comes out of [`Engine::commit`], after the disk has what it speaks of.
//! [`Relay`] is the shell around it: sockets, the clock, one thread that writes.

mod config;
mod directory;
mod engine;
mod files;
mod host;
mod metrics;
mod office;
mod operators;
mod outlook;
mod sample;
mod server;
mod trial;
mod vitals;
mod whereabouts;

pub use config::{Config, ConfigError};
pub use directory::{Directory, DirectoryError, InitError, admin_key, invite};
pub use engine::{
    AccountChange, AccountError, ConnectionId, Doubt, Engine, Fetch, Found, HOST_CONTEXT, Input,
    Output, Packing, Present, Unpacking, check_queries, said,
};
pub use files::sweep;
pub use office::Office;
pub use operators::{
    OperatorRole, Password, PasswordError, check_operator_name, decoy, is_password,
};
pub use outlook::{Cause, CauseName, Example, Outlook, Sight, Weight};

pub use fieldkeep_protocol::bundle::{
    Content, Enclosed, Enclosing, Entry, NotTaken, Packed, ReadError, Reader, Subject, Survey,
    Unfit, Unpacked, Writer,
};
pub use fieldkeep_transfer::{ArriveError, Arriving, Brought, enclose};
pub use sample::{CommitTimes, Sample};
pub use server::{Handle, Relay, ServeError};
pub use trial::{Sequel, Trial, Tried, read_catalog, sequel, try_catalog};
pub use vitals::Vitals;
pub use whereabouts::Whereabouts;
