//! The server side: ingest, fan-out, judging and quarantine.
//!
//! [`Engine`] is sans-IO: inputs go in with [`Engine::handle`], and everything that leaves (frames,
//! receipts, closes) comes out of [`Engine::commit`], after the disk has what it speaks of.
//! [`Relay`] is the shell around it: sockets, the clock, one thread that writes.

mod config;
mod directory;
mod door;
mod engine;
mod files;
mod host;
pub mod limits;
mod metrics;
mod outlook;
mod server;
mod turns;
mod vitals;

pub use config::{Config, ConfigError};
pub use directory::{Directory, DirectoryError, InitError, admin_key, invite};
pub use engine::{
    ConnectionId, Doubt, Engine, Fetch, Found, HOST_CONTEXT, Input, Output, Packing, Present,
    Unpacking, check_queries, said,
};
pub use files::sweep;
pub use outlook::{Cause, CauseName, Example, Outlook, Sight, Weight};

pub use fieldkeep_protocol::bundle::{
    Content, Enclosed, Enclosing, Entry, NotTaken, Packed, ReadError, Reader, Subject, Survey,
    Unfit, Unpacked, Writer,
};
pub use fieldkeep_transfer::{ArriveError, Arriving, Brought, enclose};
pub use server::{Handle, Relay, ServeError};
pub use vitals::Vitals;
