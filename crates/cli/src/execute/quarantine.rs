//! What is asked of a relay's quarantine. Pages are read beside the engine and hold up nobody.

use fieldkeep_console::Failure;
use fieldkeep_console::rfc3339;
use fieldkeep_console::shape::{Aside, Blamed, Held, device_name};
use fieldkeep_model::status::State;
use fieldkeep_model::{Outcome, RecordKey};
use fieldkeep_replica::HeldView;
use fieldkeep_store::{Log as _, Quarantine as _, Records as _, Segments as _, Wanted};

use super::key;
use super::read::Reading;
use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::member::find;
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
    let device = sought.device.map(|who| find(&reading.members, &who).map(|found| found.number));
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
    if let Some(ty) = &wanted.ty {
        reading.object(ty)?;
    }
    let place = after.map(|after| after.parse().map_err(|()| Failure::unexpected())).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (found, next) = reading.views().quarantine(&wanted, place.as_ref(), limit)?;
    let found = found.into_iter().map(|held| Held::new(held, &reading.members)).collect();
    let asides =
        if after.is_none() && wanted == Wanted::default() { asides(&reading)? } else { Vec::new() };
    Ok(Response::Quarantine { found, next: next.map(|place| place.to_string()), asides })
}

fn asides(reading: &Reading) -> Result<Vec<Aside>, Failure> {
    let segments = reading.store.segments()?;
    let ty_of =
        |sid| segments.iter().find(|row| row.sid == sid).map(|row| row.address.ty.to_string());
    let undecided = reading.store.asides()?.into_iter().filter(|aside| aside.reason != "accepted");
    let asides = undecided.map(|aside| Aside {
        ty: ty_of(aside.sid).unwrap_or_default(),
        records: aside.records,
        reason: aside.reason,
        device: device_name(&reading.members, aside.actor.device()),
        time: rfc3339(aside.time),
        change: aside.hash.to_string(),
    });
    Ok(asides.collect())
}

pub(super) fn record(owner: &Owner, name: Name) -> Result<Response, Failure> {
    let (relay, key) = (relay(owner)?, key(name));
    let asked = key.clone();
    let blame = relay.with_engine(move |engine| Ok(engine.replica_mut().blame(&asked)?))?;
    let reading = Reading::open(owner)?;
    let view = reading.views().record(&key)?.ok_or_else(|| Failure::absent(&key))?;
    let since = view.culprits.iter().map(|culprit| culprit.time).max();
    let held = HeldView { view, since, person: reading.store.assignee(&key)? };
    let segments = reading.store.segments()?;
    let named = |(sid, id)| {
        let segment = segments.iter().find(|row| row.sid == sid)?;
        Some(RecordKey::new(segment.address.ty.clone(), id).to_string())
    };
    let referrers = reading.store.referrers(&key.ty, &key.id)?.into_iter().filter_map(named);
    let held = Box::new(Held::new(held, &reading.members));
    let blame = blame.map(|blame| Blamed::new(blame, &reading.members));
    Ok(Response::HeldRecord { held, referrers: referrers.collect(), blame })
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
    let (records, still) = relay.with_engine(move |engine| {
        for key in &keys {
            let known = engine.replica().views().record(key)?;
            known.ok_or_else(|| Failure::absent(key))?;
        }
        engine.rejudge_for(now_ms(), &who, &keys)?;
        let mut still = 0;
        for key in &keys {
            let judged = engine.replica().views().record(key)?.map(|view| view.state);
            still += u64::from(judged != Some(State::Judged(Outcome::Valid)));
        }
        Ok((keys.len() as u64, still))
    })?;
    Ok(Response::Rejudged { records, still })
}

pub(super) fn put_aside(
    relay: &RelayOwner,
    name: Name,
    note: Option<String>,
    who: String,
) -> Result<Response, Failure> {
    let key = key(name);
    relay.with_engine(move |engine| {
        let known = engine.put_aside(now_ms(), &who, &key, note.as_deref())?;
        if known { Ok(Response::Taken(1)) } else { Err(Failure::absent(&key)) }
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
        let known = engine.assign(now_ms(), &who, &key, person.as_deref())?;
        if known { Ok(Response::Taken(1)) } else { Err(Failure::absent(&key)) }
    })
}
