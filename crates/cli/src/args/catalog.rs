//! The arguments of what an operator does to catalogs.

use std::path::PathBuf;

use clap::Subcommand;

/// `relay publish` and `relay catalog publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// The catalog.
    #[arg(value_name = "CATALOG.toml")]
    pub(crate) catalog: PathBuf,
    /// Why: `relay catalog list` shows it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
}

/// Commands of catalogs.
#[derive(Debug, Subcommand)]
pub(crate) enum Catalog {
    /// Whether a file can be published: its types, what each rule may cost, rules that decide nothing;
    /// and whether it fits what was published, where a directory is named. Exit code 4 if it cannot.
    Check {
        /// The catalog.
        #[arg(value_name = "CATALOG.toml")]
        catalog: PathBuf,
    },
    /// Print a module of WebAssembly as it is to stand in a catalog, for rules that name it.
    Module {
        /// The module.
        #[arg(value_name = "MODULE.wasm")]
        module: PathBuf,
        /// The name by which rules know it, if not the file's.
        #[arg(long)]
        name: Option<String>,
    },
    /// What a catalog would hold and release if it were published now, judged on all that is here.
    /// Exit code 4 where it cannot be published.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["catalog", "number"]))]
    Diff {
        /// The catalog.
        #[arg(value_name = "CATALOG.toml")]
        catalog: Option<PathBuf>,
        /// An earlier catalog, by its number in `relay catalog list`.
        #[arg(long, value_name = "NUMBER")]
        number: Option<u64>,
    },
    /// Publish a catalog in place of the one in force; what it changes is judged again.
    Publish(Publish),
    /// Publish an earlier catalog again, under a new number. Records of what it does not declare are
    /// held, and nothing of them is lost.
    Rollback {
        /// Its number in `relay catalog list`; the one before that in force if absent.
        number: Option<u64>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Every catalog that was published, the newest first, and what became of records by each.
    List,
    /// The catalog in force, how many records are still to be judged by it, and who has it.
    Status,
    /// Print a catalog as it was published.
    Show {
        /// Its number in `relay catalog list`; the one in force if absent.
        number: Option<u64>,
    },
}
