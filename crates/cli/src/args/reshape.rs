//! The arguments of `relay reshape`.

use std::path::PathBuf;

use fieldkeep_catalog::Kind;
use fieldkeep_model::TypeName;

use crate::time;

/// `relay reshape`.
#[derive(Debug, clap::Args)]
pub(crate) struct Reshape {
    /// The type.
    #[arg(value_name = "TYPE")]
    pub(crate) ty: TypeName,
    /// What the catalog is to say of it from then on, whole; else the one in force with what else is
    /// named here.
    #[arg(long, value_name = "CATALOG.toml")]
    pub(crate) catalog: Option<PathBuf>,
    /// Into how many segments each scope is divided.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) buckets: Option<u32>,
    /// The register whose value says in which scope a record lies.
    #[arg(long, value_name = "FIELD", conflicts_with = "unscoped")]
    pub(crate) scope: Option<String>,
    /// No scopes: who may read the type reads all of it.
    #[arg(long)]
    pub(crate) unscoped: bool,
    /// Another kind of a field, as `note=text`, or `lines.note=text` within a set.
    #[arg(long = "kind", value_name = "FIELD=KIND", value_parser = kind)]
    pub(crate) kinds: Vec<(String, Kind)>,
    /// Keep the history from that day on, as 2026-01-31, UTC, or from a moment: changes before it are
    /// kept as what they came to. Without it no history is kept.
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    pub(crate) cut: Option<i64>,
    /// Why: `relay catalog list` shows it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// Only tell what it would come to.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Give up what is being written; the generation in force goes on.
    #[arg(long, conflicts_with_all = [
        "catalog", "buckets", "scope", "unscoped", "kinds", "cut", "note", "dry_run",
    ])]
    pub(crate) give_up: bool,
}

fn kind(text: &str) -> Result<(String, Kind), String> {
    let known = || Kind::ALL.map(Kind::word).join(", ");
    let (field, word) = text.split_once('=').ok_or("write FIELD=KIND, as note=text")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    let kind = kind.ok_or_else(|| format!("`{word}` is no kind: {}", known()))?;
    Ok((field.to_owned(), kind))
}
