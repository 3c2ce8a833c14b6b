//! The command line as its users type it: the real binary, its output, and its exit codes.

mod advice;
mod authority;
mod bundle;
mod catalog;
mod conduct;
mod control;
mod demo;
mod files;
mod fleet;
mod import;
mod online;
mod path;
mod quarantine;
mod records;
mod reshape;
mod serve;

#[path = "../support/desk.rs"]
mod desk;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
