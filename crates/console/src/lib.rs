//! What is seen of a device: the web console, the HTTP API beside it, and the shapes in which the
//! command line prints the same. What is seen of a relay: a console for its operators, and how it is doing,
//! each on a port of its own.
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
mod operator;
mod origin;
mod pages;
mod refusal;
mod server;
pub mod shape;
mod sides;
mod time;
mod words;

pub use failure::{Code, Failure, Trouble};
pub use health::Health;
pub use operator::OperatorConsole;
pub use origin::Origin;
pub use server::{Console, Porter};
pub use time::{moment, rfc3339};
