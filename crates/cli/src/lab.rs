//! The laboratory's commands.

mod world;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Trouble;
use crate::output::Output;

/// Commands of the laboratory.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Run whole fleets of devices and a relay from a seed, with faults, and watch every promise.
    World(world::Args),
}

pub(crate) fn run(command: Lab, output: &mut Output) -> Result<ExitCode, Trouble> {
    match command {
        Lab::World(args) => world::run(&args, output),
    }
}
