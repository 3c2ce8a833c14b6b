//! The arguments of `relay generations`.

use std::path::PathBuf;

use clap::Subcommand;
use fieldkeep_model::TypeName;

/// Commands of generations that are over.
#[derive(Debug, Subcommand)]
pub(crate) enum Generations {
    /// The generations that are over, and what of them is not carried over.
    List,
    /// The records of one as they stand in it, a line of JSON each.
    Read {
        /// The type.
        #[arg(value_name = "TYPE")]
        ty: TypeName,
        /// The generation.
        generation: u32,
    },
    /// Put one into a file, read that back, and take it out of the relay. What a device still brings of
    /// it afterwards is not taken any more: without --anyway, that is done only once every device has
    /// moved on.
    Archive {
        /// The type.
        #[arg(value_name = "TYPE")]
        ty: TypeName,
        /// The generation.
        generation: u32,
        /// The file; there is none of that name.
        file: PathBuf,
        /// Also where devices have not moved on, or have not been here since.
        #[arg(long)]
        anyway: bool,
    },
    /// Verify an archive, and print its records, a line of JSON each. Needs no directory.
    Open {
        /// The file.
        file: PathBuf,
        /// Only verify it.
        #[arg(long)]
        check: bool,
    },
}
