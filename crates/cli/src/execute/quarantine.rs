//! What is asked of a relay's quarantine. Pages are read beside the engine and hold up nobody.

use fieldkeep_console::shape::{Aside, Blamed, Held};
use fieldkeep_console::{Code, Failure};
use fieldkeep_model::RecordKey;
use fieldkeep_store::{Quarantine as _, Segments as _, Wanted};

use super::key;
use super::read::Reading;
use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::member::only;
use crate::request::{Name, Response, Sought};
use crate::time::now_ms;

pub(super) fn page(
    owner: &Owner,
    sought: Sought,
    after: Option<&str>,
    limit: u64,
) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    if after.is_none() {
        // What was received and not yet judged when the relay was stopped is judged first.
        relay.with_engine(|_| Ok(()))?;
    }
    let reading = Reading::open(owner)?;
    let device = sought.device.map(|who| only(&reading.members, &who));
    let wanted = Wanted {
        ty: sought.ty,
        scope: sought.scope,
        rule: sought.rule,
        device: device.transpose()?,
        until: sought.until,
        text: sought.text,
        dismissed: sought.dismissed,
        person: sought.person,
    };
    if let Some(ty) = &wanted.ty
        && reading.store.segments()?.iter().all(|row| row.address.ty != *ty)
    {
        reading.object(ty)?;
    }
    let place = after.map(|after| after.parse().map_err(|()| Failure::unexpected())).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (found, next) = reading.views().quarantine(&wanted, place.as_ref(), limit)?;
    let found: Vec<_> = found.into_iter().map(|held| Held::new(held, &reading.members)).collect();
    let asides = match after {
        None => Aside::sought(&reading.store, &reading.members, &wanted)?,
        Some(_) => Vec::new(),
    };
    if let Some(rule) = &wanted.rule
        && found.is_empty()
    {
        known(&reading, rule)?;
    }
    Ok(Response::Quarantine { found, next: next.map(|place| place.to_string()), asides })
}

/// Whether a rule, or a reason that is none, is one for which a record could be held.
fn known(reading: &Reading, rule: &str) -> Result<(), Failure> {
    let by_rule = reading.store.held_by_rule()?;
    let types = reading.catalog.iter().flat_map(|catalog| catalog.types().values());
    if types.flat_map(|ty| &ty.rules).any(|known| known.name == rule) || by_rule.contains_key(rule)
    {
        return Ok(());
    }
    let message = format!("nothing is held for `{rule}`, and the catalog has no rule of that name");
    let reasons: Vec<String> =
        by_rule.iter().map(|(rule, records)| format!("{rule} ({records})")).collect();
    let remedy = match &reasons[..] {
        [] => "nothing is held for any other reason either".to_owned(),
        reasons => format!("held are records for {}", reasons.join(", ")),
    };
    Err(Failure::new(Code::NotFound, message, remedy))
}

pub(super) fn record(owner: &Owner, name: Name) -> Result<Response, Failure> {
    let (relay, key) = (relay(owner)?, key(name));
    let asked = key.clone();
    let blame = relay.with_engine(move |engine| Ok(engine.replica_mut().blame(&asked)?))?;
    let reading = Reading::open(owner)?;
    let found = reading.views().in_quarantine(&key)?;
    let (held, referrers) = found.ok_or_else(|| Failure::unheld(&key))?;
    let held = Box::new(Held::new(held, &reading.members));
    let blame = blame.map(|blame| Blamed::new(blame, &reading.members));
    let referrers = referrers.iter().map(ToString::to_string).collect();
    Ok(Response::HeldRecord { held, referrers, blame })
}

pub(super) fn decisions(
    owner: &Owner,
    about: Option<Name>,
    limit: u64,
) -> Result<Response, Failure> {
    relay(owner)?;
    let store = Reading::open(owner)?.store;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let decisions = store.decisions(about.map(key).as_ref(), None, limit)?;
    Ok(Response::Decisions(decisions.into_iter().map(Into::into).collect()))
}

pub(super) fn rejudge(
    relay: &RelayOwner,
    names: Vec<Name>,
    who: String,
) -> Result<Response, Failure> {
    let keys: Vec<RecordKey> = names.into_iter().map(key).collect();
    relay.with_engine(move |engine| {
        let (records, still) = engine.rejudge_for(now_ms(), &who, &keys)?;
        match &keys[..] {
            [key] if records == 0 => Err(Failure::unheld(key)),
            _ => Ok(Response::Rejudged { records, still }),
        }
    })
}

pub(super) fn put_aside(
    relay: &RelayOwner,
    name: Name,
    note: Option<String>,
    who: String,
) -> Result<Response, Failure> {
    let key = key(name);
    relay.with_engine(move |engine| {
        let standing = engine.put_aside(now_ms(), &who, &key, note.as_deref())?;
        Failure::unless_decided(&key, standing).map(|()| Response::Taken(1))
    })
}

pub(super) fn assign(
    relay: &RelayOwner,
    name: Name,
    person: Option<String>,
    who: String,
) -> Result<Response, Failure> {
    let key = key(name);
    relay.with_engine(move |engine| {
        let standing = engine.assign(now_ms(), &who, &key, person.as_deref())?;
        Failure::unless_decided(&key, standing).map(|()| Response::Taken(1))
    })
}
