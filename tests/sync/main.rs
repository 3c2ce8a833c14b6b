//! Devices and a relay over real sockets and real files: what each captures comes to whoever may read it, and nothing else does.

mod bundle;
mod bundle_files;
mod collection;
mod control;
mod damaged;
mod end_to_end;
mod files;
mod history;
mod library;
mod near_processes;
mod nearby;
mod online;
mod online_cut;
mod scope;
mod session_model;
mod status;
mod subscriptions;

#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
