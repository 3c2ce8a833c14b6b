//! The world in a box: generators and mutators that tests and benches share.
//!
//! Everything is made from a seed and repeats. Generators draw on Automerge directly rather than on
//! our own rooms, so that a fault there does not hide itself; the world drives the engines as they
//! are.

pub mod anatomy;
pub mod authors;
pub mod benchmark;
pub mod camp;
mod chart;
pub mod dice;
pub mod generate;
pub mod hostile;
pub mod load;
pub mod machine;
pub mod merge;
pub mod mutate;
pub mod orders;
mod place;
pub mod proxy;
pub mod quiet;
pub mod sync;
pub mod world;

pub use dice::Dice;
