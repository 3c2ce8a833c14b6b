//! What is merged: the only room that knows Automerge.
//!
//! The gate that every change passes before it is kept, the record mapping over a segment's
//! document, and the batch codec. Pure: no clock, no randomness, no disk; actors, times and bytes
//! are arguments.

pub mod batch;
pub mod document;
pub mod gate;
mod packing;

pub use document::{Document, Record};
pub use gate::{Admitted, Code, History, Refusal};
