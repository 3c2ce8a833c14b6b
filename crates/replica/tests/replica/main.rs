//! One replica: what its log, its documents and its verdicts promise, whatever is merged.

mod blame;
mod heads;
mod memory;
mod packs;
mod steps;
mod support;
mod taint;
