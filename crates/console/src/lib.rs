//! What is seen of a device: the web console, the HTTP API beside it, and the shapes in which the
//! command line prints the same. Besides, how a relay is doing, on a port of its own.
//!
//! Nothing is decided here: pages and answers show what the device says, and forms ask it for what its
//! library can do. What listens does so on loopback unless it is told otherwise.

mod api;
mod assets;
mod desk;
mod doors;
pub mod failure;
mod health;
mod live;
mod pages;
mod refusal;
mod server;
pub mod shape;
mod time;

pub use failure::{Code, Failure, Trouble};
pub use health::Health;
pub use server::{Console, Porter};
pub use time::{moment, rfc3339};
