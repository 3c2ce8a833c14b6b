//! The laboratory as researchers run it, its worlds, and real data from end to end.

mod merge;
mod real_data;
mod sync;
mod world;

#[path = "../support/process.rs"]
mod process;
