//! The merge benchmark: engines side by side on the same records, in memory and durable.
//!
//! A [`Plan`] names engines, workloads and sizes and is checked before any work is done;
//! [`Plan::run`] measures each combination in a process of its own and writes the results after
//! each, so that an interrupted benchmark keeps what it has. A result counts only when the engine
//! arrived at the content that the workload has, which is computed without any engine. Contention
//! and text, where engines may differ, are reported apart.

pub(crate) mod bytes;
mod cell;
mod durable;
mod engine;
mod measure;
mod plan;
mod report;
pub mod results;
mod verdict;
pub(crate) mod work;
mod workload;

use serde::{Deserialize, Serialize};

pub(crate) use durable::copy;

pub use cell::{Cell, Limits, Program, Step, run_task};
pub use engine::EngineName;
pub use measure::{Metrics, count_heap};
pub use plan::{Plan, PlanError};
pub use workload::WorkloadName;

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Merging in memory.
    Memory,
    /// Merging into files, durable before it is done, with a row for each record that can be read
    /// without the engine.
    Durable,
}

impl Comparison {
    /// The name as it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        }
    }
}
