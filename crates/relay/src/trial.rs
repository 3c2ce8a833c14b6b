//! Trying a catalog: whether it can be published, and what it would make of all the data. Nothing is
//! published by it, and the relay goes on meanwhile: all of it happens on a reader of its own.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Catalog, CatalogError, Judges};
use fieldkeep_model::DeviceNumber;
use fieldkeep_replica::{Reading, Rehearsal, ReplicaError, RollBackError, unpublishable};
use fieldkeep_store::{Catalogs as _, Reader, Segments as _};

use crate::engine::{Present, check_queries};
use crate::outlook::Outlook;

/// A catalog that is tried.
#[derive(Clone, Debug)]
pub enum Tried {
    /// Its source.
    Source(String),
    /// One that is kept, by its number.
    Number(u64),
}

/// Whether a catalog may follow what was published.
#[derive(Clone, Debug, Default)]
pub struct Sequel {
    /// The number of the catalog in force; 0 if there is none.
    pub number: u64,
    /// Whether it is that very one.
    pub same: bool,
    /// What stands in the way, in sentences.
    pub problems: Vec<String>,
}

/// What trying a catalog came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it would change.
    pub outlook: Outlook,
    /// The catalog.
    pub catalog: Catalog,
    /// What stands in the way of publishing it, in sentences.
    pub problems: Vec<String>,
}

/// Reads a catalog that could be published where nothing was yet, by a relay that has these rules in Rust.
///
/// # Errors
/// [`ReplicaError::Catalog`] with all that is wrong with it.
pub fn read_catalog(source: &str, judges: &Judges) -> Result<Catalog, ReplicaError> {
    let catalog = Catalog::parse(source).map_err(ReplicaError::Catalog)?;
    check_queries(&catalog)?;
    let unjudged = catalog.unjudged(judges);
    if unjudged.is_empty() { Ok(catalog) } else { Err(ReplicaError::Catalog(unjudged)) }
}

/// Whether a catalog may follow what was published.
///
/// # Errors
/// When the store cannot be read.
pub fn sequel(reading: &Reading, next: &Catalog) -> Result<Sequel, ReplicaError> {
    let stored = reading.store.newest_catalog()?;
    let (Some(before), Some(stored)) = (&reading.catalog, stored) else {
        return Ok(Sequel::default());
    };
    let same = before.hash() == next.hash();
    let problems = problems(&reading.store, before, next)?;
    Ok(Sequel { number: stored.number, same, problems })
}

/// Tries a catalog against all the data; `told` hears how many records were judged by it, of how many at
/// most.
///
/// # Errors
/// When it cannot be read, or is not kept; when the store cannot be read.
pub fn try_catalog(
    reading: Reading,
    tried: Tried,
    present: &BTreeMap<DeviceNumber, Present>,
    judges: Judges,
    told: &mut dyn FnMut(u64, u64),
) -> Result<Trial, RollBackError> {
    let Reading { store: reader, members, .. } = reading;
    let (catalog, goes_back) = match tried {
        Tried::Source(source) => (read_catalog(&source, &judges)?, false),
        Tried::Number(number) => {
            let kept = reader.catalog(number)?.ok_or(RollBackError::Unknown(number))?;
            (read_catalog(&kept.source, &judges)?, true)
        }
    };
    let all = reader.segments()?.iter().map(|row| row.records).sum();
    let mut rehearsal = Rehearsal::begin(reader, catalog, judges)?;
    let outlook = Outlook::watched(&mut rehearsal, &members, present, &mut |seen| told(seen, all))?;
    let problems = match rehearsal.in_force() {
        // Going back may leave out what was declared since.
        (Some(before), _) if !goes_back => problems(rehearsal.reader(), before, rehearsal.next())?,
        (Some(before), _) => said(&before.check_frozen(rehearsal.next())),
        (None, _) => Vec::new(),
    };
    Ok(Trial { outlook, catalog: rehearsal.next().clone(), problems })
}

/// What keeps a catalog from being published after what was.
fn problems(
    reader: &Reader,
    before: &Catalog,
    next: &Catalog,
) -> Result<Vec<String>, ReplicaError> {
    Ok(said(&unpublishable(reader, before, next)?))
}

fn said(errors: &[CatalogError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
