//! The relay as its operator needs it: rules that change, permissions, limits, backups, and what it tells of itself.

mod backup;
mod catalog_change;
mod limits;
mod operating;
mod permission;
mod publish;
mod reshape;
mod restored;
mod traces;

#[path = "../support/http.rs"]
mod http;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
