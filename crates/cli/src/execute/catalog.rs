//! What is asked of catalogs. What one would change is found out beside the engine, on a reader of its
//! own: the relay goes on meanwhile.

use std::collections::BTreeMap;
use std::sync::TryLockError;

use fieldkeep_catalog::{Catalog, Judges};
use fieldkeep_console::shape::catalog::{Diff, Follows, Kept, Standing};
use fieldkeep_console::{Code, Failure};
use fieldkeep_model::MembershipLog;
use fieldkeep_relay::{Outlook, check_queries};
use fieldkeep_replica::{
    Note, Rehearsal, ReplicaError, RollBackError, earlier_catalog, frozen, kept_catalogs,
};
use fieldkeep_store::{Catalogs as _, Reader, Settings as _, home};

use super::relay::relay;
use crate::access::Owner;
use crate::request::{Response, Tried};
use crate::time::now_ms;

fn reader(owner: &Owner) -> Result<Reader, Failure> {
    Ok(Reader::open(&home::database(owner.directory()))?)
}

fn in_force(reader: &Reader) -> Result<Option<(u64, Catalog)>, Failure> {
    let stored = reader.newest_catalog()?;
    let parsed = stored.map(|stored| Ok((stored.number, parse(&stored.source)?)));
    parsed.transpose()
}

fn parse(source: &str) -> Result<Catalog, Failure> {
    let catalog = Catalog::parse(source).map_err(ReplicaError::Catalog)?;
    check_queries(&catalog)?;
    let unjudged = catalog.unjudged(&Judges::default());
    if unjudged.is_empty() { Ok(catalog) } else { Err(ReplicaError::Catalog(unjudged).into()) }
}

pub(super) fn publish(owner: &Owner, source: String, note: String) -> Result<Response, Failure> {
    relay(owner)?.with_engine(move |engine| {
        let before = engine.replica().published().map(|published| published.number);
        let number = engine.publish_noted(&source, Note { text: &note, time: now_ms() })?;
        Ok(Response::Published { number, changed: before != Some(number) })
    })
}

pub(super) fn roll_back(
    owner: &Owner,
    to: Option<u64>,
    note: Option<String>,
) -> Result<Response, Failure> {
    let reader = reader(owner)?;
    let Some((_, catalog)) = in_force(&reader)? else { return Err(nothing_earlier()) };
    // Found here, so that the note can name it.
    let earlier = earlier_catalog(&reader, &catalog, to).map_err(no_way_back)?;
    let text = note.unwrap_or_else(|| format!("back to catalog {}", earlier.number));
    relay(owner)?.with_engine(move |engine| {
        let before = engine.replica().published().map(|published| published.number);
        let note = Note { text: &text, time: now_ms() };
        let number = engine.roll_back(Some(earlier.number), note).map_err(no_way_back)?;
        Ok(Response::Published { number, changed: before != Some(number) })
    })
}

fn no_way_back(error: RollBackError) -> Failure {
    match error {
        RollBackError::Unknown(number) => {
            let message = format!("no catalog {number} is kept here");
            let remedy = "nothing was published: `fieldkeep relay catalog list` shows which are";
            Failure::new(Code::NotFound, message, remedy)
        }
        RollBackError::Nothing => nothing_earlier(),
        RollBackError::Replica(error) => error.into(),
    }
}

fn nothing_earlier() -> Failure {
    let message = "there is no earlier catalog than the one in force";
    Failure::new(Code::NotFound, message, "nothing was published")
}

pub(super) fn follows(owner: &Owner, source: &str) -> Result<Response, Failure> {
    let (reader, next) = (reader(owner)?, parse(source)?);
    let Some((number, catalog)) = in_force(&reader)? else {
        return Ok(Response::CatalogFollows(Follows::default()));
    };
    let (same, problems) = (catalog.hash() == next.hash(), problems(&reader, &catalog, &next)?);
    Ok(Response::CatalogFollows(Follows { number, same, problems }))
}

/// What keeps a catalog from being published after what was.
fn problems(reader: &Reader, before: &Catalog, next: &Catalog) -> Result<Vec<String>, Failure> {
    let problems = frozen(reader, before, next)?;
    Ok(problems.iter().map(ToString::to_string).collect())
}

pub(super) fn diff(owner: &Owner, tried: Tried) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let _alone = match relay.comparing.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let message = "a catalog is being compared with all the data already";
            let remedy = "one is compared at a time: try again when that has ended";
            return Err(Failure::new(Code::Failure, message, remedy));
        }
        locked => locked,
    };
    // What was received and not yet merged when the relay was stopped is merged first.
    let present = relay.with_engine(|engine| Ok(engine.present()))?;
    let reader = reader(owner)?;
    let members = MembershipLog::open(reader.members()?).map_err(ReplicaError::from)?;
    let (next, goes_back) = match tried {
        Tried::Source(source) => (parse(&source)?, false),
        Tried::Number(number) => {
            let unknown = || no_way_back(RollBackError::Unknown(number));
            (parse(&reader.catalog(number)?.ok_or_else(unknown)?.source)?, true)
        }
    };
    let mut rehearsal = Rehearsal::begin(reader, next, Judges::default())?;
    let outlook = Outlook::of(&mut rehearsal, &members, &present)?;
    let problems = match rehearsal.in_force() {
        // Going back may leave out what was declared since.
        (Some(before), _) if !goes_back => problems(rehearsal.reader(), before, rehearsal.next())?,
        _ => Vec::new(),
    };
    Ok(Response::CatalogDiff(Box::new(Diff::new(outlook, rehearsal.next(), problems))))
}

pub(super) fn list(owner: &Owner) -> Result<Response, Failure> {
    Ok(Response::Catalogs(Kept::all(kept_catalogs(&reader(owner)?)?)))
}

pub(super) fn standing(owner: &Owner) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let serves = relay.is_serving();
    // What is left is asked first: where that is nothing, all of it is counted.
    let (left, present) = if serves {
        relay.with_engine(|engine| Ok((engine.replica().renewal_progress()?, engine.present())))?
    } else {
        // To look is not to go on: whoever works on the directory next judges what is left.
        (fieldkeep_replica::stored_renewal(&reader(owner)?)?, BTreeMap::new())
    };
    let kept = kept_catalogs(&reader(owner)?)?;
    Ok(Response::CatalogStanding(Standing::new(kept, left, &present, serves)))
}
