//! Processes that are killed, and power that is lost: what was reported saved is there.

mod kill;
mod power_loss;
