//! What is asked of a relay's quarantine. Pages are read beside the engine and hold up nobody.

use std::time::Instant;

use fieldkeep_console::shape::{Aside, Blamed, Held, REASONS};
use fieldkeep_console::{Code, Failure};
use fieldkeep_documents::Document;
use fieldkeep_model::RecordKey;
use fieldkeep_relay::{NOTE, PERSON};
use fieldkeep_replica::Referrers;
use fieldkeep_store::{Log as _, Quarantine as _, Segments as _, SoughtDecisions, Wanted};

use super::key;
use super::read::Reading;
use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::member::only;
use crate::request::{Name, Sought};
use crate::response::Response;
use crate::time::now_ms;

/// Records that are judged again in one go: few, because whatever devices send waits for it; and as long
/// again is left to them.
const SLICE: usize = 16;

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
    let types = reading.catalog.iter().flat_map(|catalog| catalog.types().values());
    let declared = types.flat_map(|ty| &ty.rules).any(|known| known.name == rule);
    if declared || REASONS.contains(&rule) {
        return Ok(());
    }
    let by_rule = reading.store.held_by_rule()?;
    if by_rule.contains_key(rule) {
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
    let Some((held, referrers)) = found else {
        return Err(lying_aside(&reading, &key)?.unwrap_or_else(|| Failure::unheld(&key)));
    };
    let held = Box::new(Held::new(held, &reading.members));
    let blame = blame.map(|blame| Blamed::new(blame, &reading.members));
    let Referrers { first, more } = referrers;
    let referrers = first.iter().map(ToString::to_string).collect();
    Ok(Response::HeldRecord { held, referrers, more_referrers: more, blame })
}

/// What is to be told of a record of which everything lies aside: why, by whom, and what it would say.
fn lying_aside(reading: &Reading, key: &RecordKey) -> Result<Option<Failure>, Failure> {
    let segments = reading.store.segments()?;
    let of_type = |sid| segments.iter().any(|row| row.sid == sid && row.address.ty == key.ty);
    let (mut said, mut revoked) = (Vec::new(), None);
    for aside in reading.store.asides()?.into_iter().filter(|aside| of_type(aside.sid)) {
        let writes = Document::field_writes(&aside.bytes, &|_, _| None);
        let writes = writes.into_iter().filter(|write| write.record == key.id);
        let wrote: Vec<String> = writes
            .map(|write| format!("{} = {}", write.field, write.value.unwrap_or_default()))
            .collect();
        if !wrote.is_empty() {
            let author = reading.members.author(&aside.actor);
            revoked = revoked.or(author.filter(|author| author.revoked));
            let author = author.map_or("somebody", |member| &member.name);
            let why = aside.reason.replace('_', " ");
            said.push(format!("{why}, by {author}: {}", wrote.join(", ")));
        }
    }
    let message =
        format!("{key} is not among the records, because it lies aside ({})", said.join("; "));
    let remedy = match revoked {
        Some(author) => format!(
            "its device is revoked: `fieldkeep relay quarantine accept --device {}` takes it in, \
             with --dry-run only to see",
            author.number
        ),
        None => "grant what is missing, or raise the limit, and it is taken in: \
                 `fieldkeep relay quarantine list` shows what else lies aside"
            .to_owned(),
    };
    Ok((!said.is_empty()).then(|| Failure::new(Code::NotFound, message, remedy)))
}

pub(super) fn decisions(
    owner: &Owner,
    sought: &SoughtDecisions,
    limit: u64,
) -> Result<Response, Failure> {
    relay(owner)?;
    let store = Reading::open(owner)?.store;
    let decisions = store.decisions(sought, usize::try_from(limit).unwrap_or(usize::MAX))?;
    Ok(Response::Decisions(decisions.into_iter().map(Into::into).collect()))
}

pub(super) fn rejudge(
    relay: &RelayOwner,
    names: Vec<Name>,
    who: String,
) -> Result<Response, Failure> {
    let keys: Vec<RecordKey> = names.into_iter().map(key).collect();
    let (mut judged, mut not_valid) = (0, 0);
    for slice in keys.chunks(SLICE) {
        let (slice, who, began) = (slice.to_vec(), who.clone(), Instant::now());
        let (records, still) =
            relay.with_engine(move |engine| Ok(engine.rejudge_for(now_ms(), &who, &slice)?))?;
        (judged, not_valid) = (judged + records, not_valid + still);
        if relay.is_serving() && keys.len() > SLICE {
            std::thread::sleep(began.elapsed());
        }
    }
    match &keys[..] {
        [key] if judged == 0 => Err(Failure::unheld(key)),
        _ => Ok(Response::Rejudged { records: judged, still: not_valid }),
    }
}

pub(super) fn put_aside(
    relay: &RelayOwner,
    name: Name,
    note: Option<String>,
    who: String,
) -> Result<Response, Failure> {
    Failure::unless_short("the note", note.as_deref().unwrap_or_default(), NOTE)?;
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
    let person = person.filter(|person| !person.trim().is_empty());
    Failure::unless_short("the name", person.as_deref().unwrap_or_default(), PERSON)?;
    let key = key(name);
    relay.with_engine(move |engine| {
        let standing = engine.assign(now_ms(), &who, &key, person.as_deref())?;
        Failure::unless_decided(&key, standing).map(|()| Response::Taken(1))
    })
}
