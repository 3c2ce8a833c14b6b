//! What is asked of catalogs. What one would change is found out beside the engine, on a reader of its
//! own: the relay goes on meanwhile.

use std::collections::BTreeMap;
use std::sync::TryLockError;

use fieldkeep_catalog::{Catalog, Judges};
use fieldkeep_console::shape::catalog::{Diff, Kept, Standing};
use fieldkeep_console::shape::reshape::Afresh;
use fieldkeep_console::{Code, Failure};
use fieldkeep_relay::{read_catalog, sequel, try_catalog};
use fieldkeep_replica::{Note, Reading, RollBackError, earlier_catalog, kept_catalogs};
use fieldkeep_store::{Catalogs as _, Reader, home};

use super::relay::relay;
use crate::access::Owner;
use crate::request::Tried;
use crate::response::Response;
use crate::time::now_ms;

fn reader(owner: &Owner) -> Result<Reader, Failure> {
    Ok(Reader::open(&home::database(owner.directory()))?)
}

fn in_force(reader: &Reader) -> Result<Option<(u64, Catalog)>, Failure> {
    let stored = reader.newest_catalog()?;
    let parsed =
        stored.map(|stored| Ok((stored.number, read_catalog(&stored.source, &Judges::default())?)));
    parsed.transpose()
}

pub(super) fn publish(
    owner: &Owner,
    source: String,
    note: String,
    who: String,
) -> Result<Response, Failure> {
    relay(owner)?.with_engine(move |engine| {
        let (before, now) = (engine.replica().published().map(|of| of.number), now_ms());
        let number = engine.publish_noted(&source, Note { text: &note, time: now })?;
        let changed = before != Some(number);
        if changed {
            engine.note_deed(now, &who, "publish", &format!("catalog {number}"))?;
        }
        Ok(Response::Published { number, changed })
    })
}

pub(super) fn roll_back(
    owner: &Owner,
    to: Option<u64>,
    note: Option<String>,
    who: String,
) -> Result<Response, Failure> {
    let reader = reader(owner)?;
    let Some((_, catalog)) = in_force(&reader)? else { return Err(RollBackError::Nothing.into()) };
    // Found here, so that the note can name it.
    let earlier = earlier_catalog(&reader, &catalog, to)?;
    let text = note.unwrap_or_else(|| format!("back to catalog {}", earlier.number));
    relay(owner)?.with_engine(move |engine| {
        let (before, now) = (engine.replica().published().map(|of| of.number), now_ms());
        let number = engine.roll_back(Some(earlier.number), Note { text: &text, time: now })?;
        let changed = before != Some(number);
        if changed {
            let what = format!("catalog {}, as number {number}", earlier.number);
            engine.note_deed(now, &who, "roll_back", &what)?;
        }
        Ok(Response::Published { number, changed })
    })
}

pub(super) fn follows(owner: &Owner, source: &str) -> Result<Response, Failure> {
    let (reading, next) = (Reading::of(reader(owner)?)?, read_catalog(source, &Judges::default())?);
    Ok(Response::CatalogFollows(sequel(&reading, &next)?.into()))
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
    let tried = match tried {
        Tried::Source(source) => fieldkeep_relay::Tried::Source(source),
        Tried::Number(number) => fieldkeep_relay::Tried::Number(number),
    };
    let reading = Reading::of(reader(owner)?)?;
    let trial = try_catalog(reading, tried, &present, Judges::default(), &mut |_, _| ())?;
    Ok(Response::CatalogDiff(Box::new(Diff::of(trial))))
}

pub(super) fn list(owner: &Owner) -> Result<Response, Failure> {
    Ok(Response::Catalogs(Kept::all(kept_catalogs(&reader(owner)?)?)))
}

pub(super) fn source(owner: &Owner, number: Option<u64>) -> Result<Response, Failure> {
    relay(owner)?;
    let reader = reader(owner)?;
    let stored = match number {
        Some(number) => reader.catalog(number)?.ok_or(RollBackError::Unknown(number))?,
        None => reader.newest_catalog()?.ok_or(RollBackError::Nothing)?,
    };
    Ok(Response::CatalogSource(stored.number, stored.source))
}

pub(super) fn standing(owner: &Owner) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let serves = relay.is_serving();
    // What is left is asked first: where that is nothing, all of it is counted.
    let (left, present, afresh) = if serves {
        relay.with_engine(|engine| {
            let replica = engine.replica();
            Ok((replica.renewal_progress()?, engine.present(), Afresh::under_way(replica)))
        })?
    } else {
        // To look is not to go on: whoever works on the directory next judges what is left.
        (fieldkeep_replica::stored_renewal(&reader(owner)?)?, BTreeMap::new(), None)
    };
    let kept = kept_catalogs(&reader(owner)?)?;
    let standing = Standing::new(kept, left, &present, serves, afresh);
    Ok(Response::CatalogStanding(Box::new(standing)))
}
