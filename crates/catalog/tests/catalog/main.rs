//! Catalogs: what their authors are told, and what a record comes to by them.

mod actions;
mod afresh;
mod data;
mod errors;
mod hostile;
mod judging;
mod modules;
mod sharing;
mod values;
