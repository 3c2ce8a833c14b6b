//! The arguments of `relay quarantine`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use fieldkeep_model::{RecordKey, TypeName};

use crate::time;

/// Commands of the quarantine view.
#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// The records that are held or wait, those with the newest changes first, and the changes that were
    /// kept aside.
    List {
        #[command(flatten)]
        sought: Sought,
        /// At most so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// One: as merged beside last valid, who wrote what, what refers to it, and what was decided.
    Show {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Run the rules again: over one record, those that are sought, or all.
    Rejudge {
        /// The record.
        #[arg(value_name = "TYPE/ID", conflicts_with = "Sought")]
        record: Option<RecordKey>,
        #[command(flatten)]
        sought: Sought,
    },
    /// Put a record aside: kept, and reversible.
    Dismiss {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// Why.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take a record up again that was put aside.
    Reopen {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Have somebody look after a record; nobody, if none is named.
    Assign {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// Who.
        person: Option<String>,
    },
    /// Take what a revoked device had captured, from a bundle that it wrote for this relay, and what of it
    /// lies aside here: its changes are verified, kept aside, and written again by the relay under its name,
    /// to be judged like any other.
    #[command(group = clap::ArgGroup::new("what").required(true).args(["file", "device"]))]
    Accept {
        /// The bundle.
        file: Option<PathBuf>,
        /// Only what of this device lies aside here: nobody has a bundle of it.
        #[arg(long, value_name = "NAME|NUMBER")]
        device: Option<String>,
        /// Only tell what would be written, and what would become of it.
        #[arg(long, conflicts_with = "aside")]
        dry_run: bool,
        /// Only keep the changes aside, where `relay quarantine list` shows them.
        #[arg(long)]
        aside: bool,
    },
    /// What was decided, newest first: by whom, when and why.
    Trail {
        /// About this record only.
        #[arg(value_name = "TYPE/ID")]
        record: Option<RecordKey>,
        /// Only what was decided so.
        #[arg(long, value_name = "WHAT", value_parser = ["dismiss", "reopen", "assign", "rejudge", "accept"])]
        act: Option<String>,
        /// Only what this one decided.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value = "100")]
        limit: u64,
    },
    /// Print what is sought as lines of JSON, or as a table.
    Export {
        #[command(flatten)]
        sought: Sought,
        /// As what.
        #[arg(long, value_enum, default_value_t = Form::Jsonl)]
        format: Form,
    },
}

/// Which records are sought: all conditions hold.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Sought {
    /// Of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) ty: Option<TypeName>,
    /// In this scope.
    #[arg(long, value_name = "VALUE")]
    pub(crate) scope: Option<String>,
    /// Which break this rule; `schema`, `required`, `unique`, `reference_absent`, `not_permitted` and
    /// `unknown_schema` are reasons that no rule has a name for.
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Option<String>,
    /// With a change of this device, by name or number, that the rules object to.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Whose newest such change is older than this: 90s, 15m, 1h, 7d. What no change is to blame for, but
    /// another record or the catalog, has no age.
    #[arg(long, value_name = "AGE", value_parser = time::duration)]
    pub(crate) older: Option<Duration>,
    /// With this text in their names or in what they hold.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Only those that were put aside.
    #[arg(long, conflicts_with = "open")]
    pub(crate) dismissed: bool,
    /// Only those that were not put aside.
    #[arg(long)]
    pub(crate) open: bool,
    /// Which this person looks after.
    #[arg(long, value_name = "NAME")]
    pub(crate) assigned: Option<String>,
}

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines of JSON.
    Jsonl,
    /// A table.
    Csv,
}
