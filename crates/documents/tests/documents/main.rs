//! Documents and the gate before them.

mod batch;
mod document;
mod gate_cost;
mod gate_history;
mod gate_hostile;
mod history;
mod random;
