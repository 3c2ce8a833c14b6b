//! What bad input gets, from whom ever it comes: refused with a code, nothing of it kept or forwarded, and honest devices go on.

mod changes;
mod claims;
mod files;
mod peer;
mod relay;

#[path = "../support/mod.rs"]
mod support;
