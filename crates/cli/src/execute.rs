//! Executing requests on an owned directory: the one place where a command meets the libraries.
//!
//! Reading goes to the projection beside the writer, so that it holds up nobody; writing goes to
//! the device or the relay's engine, and is durable when it is answered.

mod backup;
mod bundle;
mod catalog;
mod collection;
mod control;
mod files;
mod fleet;
mod generations;
mod health;
mod online;
mod operator;
mod quarantine;
mod read;
mod relay;
mod reshape;
mod status;
mod write;

use std::future::Future;
use std::time::Duration;

use fieldkeep_model::RecordKey;
use fieldkeep_relay::{Enclosing, LastBackup};
use fieldkeep_store::SoughtDecisions;

use crate::access::{DeviceOwner, Owner};
use crate::request::{Name, Request};
use crate::response::{Opened, Response};
use fieldkeep_console::shape::{Record, Synced};
use fieldkeep_console::{Code, Failure, Trouble};

pub(crate) use relay::{key_of, signed};
pub(crate) use write::{edits, record_id};

/// Where the records of an answer go.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Record) -> Result<(), Trouble>;

/// Executes a request.
///
/// # Errors
/// Those of what it asks for, and of the sink.
pub(crate) fn execute(
    owner: &Owner,
    request: Request,
    sink: Sink<'_>,
) -> Result<Response, Trouble> {
    match request {
        Request::Write(writes) => Ok(write::write(device(owner)?, writes)?),
        Request::Call(action, words, millis) => {
            let patience = Duration::from_millis(millis);
            Ok(online::call(device(owner)?, &action, &words, patience)?)
        }
        Request::Ask(query, words, millis) => {
            let patience = Duration::from_millis(millis);
            Ok(online::ask(device(owner)?, &query, &words, patience)?)
        }
        Request::Calls => Ok(online::calls(device(owner)?)?),
        Request::Strict(write) => Ok(write::strict(device(owner)?, write)?),
        Request::Import { file, from, total, writes } => {
            Ok(write::import(&device(owner)?.device, file, (from, total), writes)?)
        }
        Request::Imported(file) => Ok(write::imported(&device(owner)?.device, &file)?),
        Request::Rehearse(writes) => Ok(write::rehearse(&device(owner)?.device, writes)?),
        Request::WhatIf(write) => Ok(write::what_if(owner, write)?),
        Request::Await(record, tier, millis) => {
            let patience = Duration::from_millis(millis);
            Ok(write::reached(device(owner)?, &key(record), tier, patience)?)
        }
        Request::Resolve(record, field, choice) => {
            Ok(write::resolve(device(owner)?, &key(record), &field, &choice)?)
        }
        Request::At(record, moment) => Ok(read::at(owner, key(record), moment)?),
        Request::Revert(record, field, to) => {
            Ok(write::revert(device(owner)?, &key(record), field.as_deref(), &to)?)
        }
        Request::Share(record) => {
            let text = device(owner)?.device.share(&key(record)).map_err(Failure::from)?;
            Ok(Response::Shared(text))
        }
        Request::Search(text, ty, limit) => {
            device(owner)?;
            read::search(owner, &text, ty.as_ref(), limit, sink)
        }
        Request::Watch(ty) => read::watch(owner, device(owner)?, ty.as_ref(), sink),
        Request::Advice => Ok(health::advice(&device(owner)?.device)?),
        Request::Explain(record) => Ok(health::explain(&device(owner)?.device, &key(record))?),
        Request::Doctor(repair) => Ok(health::doctor(&device(owner)?.device, repair)?),
        Request::Missing(ty, ids) => Ok(read::missing(owner, &ty, ids)?),
        Request::Catalog => Ok(read::catalog(owner)?),
        Request::Get { record, history, conflicts } => {
            Ok(read::get(owner, key(record), history, conflicts)?)
        }
        Request::List { ty, filters, limit } => read::list(owner, &ty, &filters, limit, sink),
        Request::Documents(ty, into) => Ok(read::documents(owner, &ty, &into)?),
        Request::Status => Ok(status::status(owner)?),
        Request::Sync { seconds, metered } => {
            let device = device(owner)?;
            Ok(Response::Synced(sync(device, Duration::from_secs(seconds), metered)?))
        }
        Request::Relay(address, millis) => {
            let device = &device(owner)?.device;
            let learnt = crate::sync::until_interrupted(
                device.learn_relay(address, Duration::from_millis(millis)),
            )?;
            learnt.map_err(Failure::from)?;
            Ok(Response::Learnt)
        }
        Request::Meet(peer, millis) => {
            let device = &device(owner)?.device;
            let met = crate::sync::meet(device, &peer, Duration::from_millis(millis))?;
            Ok(Response::Met(met))
        }
        Request::Peers(millis) => {
            let device = &device(owner)?.device;
            Ok(Response::Peers(crate::peers::look(device, Duration::from_millis(millis))?))
        }
        Request::Pause(ty) => Ok(control::pause(device(owner)?, ty.as_ref())?),
        Request::Resume(ty) => Ok(control::resume(device(owner)?, ty.as_ref())?),
        Request::Subscribe(ty, scope) => {
            Ok(control::subscribe(device(owner)?, ty, scope.as_deref())?)
        }
        Request::Unsubscribe(ty, scope) => Ok(control::unsubscribe(device(owner)?, ty, &scope)?),
        Request::RotateKey(millis) => {
            Ok(control::rotate_key(device(owner)?, Duration::from_millis(millis))?)
        }
        Request::Resync { ty, clears, millis } => {
            let timeout = Duration::from_millis(millis);
            Ok(control::resync(device(owner)?, ty.as_ref(), clears, timeout)?)
        }
        Request::ClearPlan(ty) => Ok(control::clear_plan(device(owner)?, ty.as_ref())?),
        Request::Pin(record, by, reason) => {
            Ok(control::pin(device(owner)?, &key(record), &by, &reason)?)
        }
        Request::Unpin(record, by) => {
            Ok(control::unpin(device(owner)?, record.map(key).as_ref(), by.as_deref())?)
        }
        Request::Pins => Ok(control::pins(device(owner)?)?),
        Request::Attach { record, field, path, name, media } => {
            let (device, called) = (device(owner)?, (name.as_deref(), media.as_deref()));
            Ok(files::attach(device, &key(record), &field, &path, called)?)
        }
        Request::Attachments(record) => {
            Ok(files::list(&device(owner)?.device, record.map(key).as_ref())?)
        }
        Request::Fetch(record, wanted, millis) => {
            let patience = Duration::from_millis(millis);
            Ok(files::fetch(device(owner)?, &key(record), &wanted, patience)?)
        }
        Request::RetryFiles => {
            let retried = device(owner)?.device.retry_files().map_err(Failure::from)?;
            Ok(Response::Taken(retried))
        }
        Request::PauseFiles(paused) => {
            device(owner)?.device.pause_files(paused).map_err(Failure::from)?;
            Ok(files::list(&device(owner)?.device, None)?)
        }
        Request::Attention => {
            device(owner)?;
            read::attention(owner, sink)
        }
        Request::CatalogState => Ok(health::catalog_state(&device(owner)?.device)?),
        Request::NotTaken => Ok(health::not_taken(&device(owner)?.device)?),
        Request::Quarantine { sought, after, limit } => {
            Ok(quarantine::page(owner, sought, after.as_deref(), limit)?)
        }
        Request::HeldRecord(record) => Ok(quarantine::record(owner, record)?),
        Request::Decisions { about, act, by, limit } => {
            let about = about.map(key);
            let sought = SoughtDecisions { about, act, who: by, before: None };
            Ok(quarantine::decisions(owner, &sought, limit)?)
        }
        Request::PutAside(record, note, who) => {
            Ok(quarantine::put_aside(relay::relay(owner)?, record, note, who)?)
        }
        Request::Assign(record, person, who) => {
            Ok(quarantine::assign(relay::relay(owner)?, record, person, who)?)
        }
        Request::Retry(record) => Ok(write::retry(device(owner)?, record)?),
        Request::Dismiss(record, note) => Ok(write::dismiss(device(owner)?, record, note)?),
        Request::Rejudge(records, who) => {
            Ok(quarantine::rejudge(relay::relay(owner)?, records, who)?)
        }
        Request::Members => Ok(relay::members(owner)?),
        Request::AppendMember { base, entry } => Ok(relay::append(owner, base, &entry)?),
        Request::Apply(entry) => Ok(relay::apply(owner, &entry)?),
        Request::Me => Ok(relay::me(owner)?),
        Request::NextKeys => Ok(relay::next_keys(owner)?),
        Request::Devices { device, to_revoke } => {
            Ok(fleet::devices(owner, device.as_deref(), to_revoke)?)
        }
        Request::CutOffs { member, grants, at_once } => {
            Ok(relay::cut_offs(owner, &member, grants, at_once)?)
        }
        Request::Console(program) => Ok(console(device(owner)?, program)?),
        Request::ExportBundle { file, to, since, without_attachments } => {
            let enclosing = if without_attachments { Enclosing::NoFiles } else { Enclosing::Files };
            Ok(bundle::export(owner, &file, &to, since.as_deref(), enclosing)?)
        }
        Request::ImportBundle(file) => Ok(bundle::import(owner, &file)?),
        Request::Accept { captured, who, how } => Ok(bundle::accept(owner, captured, who, how)?),
        Request::Publish(source, note, who) => Ok(catalog::publish(owner, source, note, who)?),
        Request::RollBack(to, note, who) => Ok(catalog::roll_back(owner, to, note, who)?),
        Request::CatalogFollows(source) => Ok(catalog::follows(owner, &source)?),
        Request::CatalogDiff(tried) => Ok(catalog::diff(owner, tried)?),
        Request::Catalogs => Ok(catalog::list(owner)?),
        Request::CatalogSource(number) => Ok(catalog::source(owner, number)?),
        Request::Reshape(wish) => Ok(reshape::begin(owner, wish)?),
        Request::Reshaping(ty) => Ok(reshape::far(owner, &ty)?),
        Request::GiveUpReshape(ty) => Ok(reshape::give_up(owner, &ty)?),
        Request::PastGenerations => Ok(generations::list(owner)?),
        Request::ReadPast(ty, generation, after) => {
            Ok(generations::read(owner, &ty, generation, after)?)
        }
        Request::Archive { ty, generation, file, anyway } => {
            Ok(generations::archive(owner, (&ty, generation), &file, anyway)?)
        }
        Request::CatalogStanding => Ok(catalog::standing(owner)?),
        Request::Restore => Ok(relay::restore(owner)?),
        Request::Operators => Ok(operator::list(owner)?),
        Request::ChangeAccount(name, wish, by) => Ok(operator::change(owner, name, wish, by)?),
        Request::Deeds(limit) => Ok(operator::deeds(owner, limit)?),
        Request::Limits => Ok(relay::limits(owner)?),
        Request::NoteBackup(taken, folder, number) => {
            Ok(backup::note(owner, LastBackup { taken, folder, number })?)
        }
        Request::Mend(segments) => Ok(backup::mend(owner, &segments)?),
        Request::Collect(dry_run) => Ok(collection::collect(owner, dry_run)?),
    }
}

fn key((ty, id): Name) -> RecordKey {
    RecordKey::new(ty, id)
}

fn device(owner: &Owner) -> Result<&DeviceOwner, Failure> {
    match owner {
        Owner::Device(owner) => Ok(owner),
        Owner::Relay(_) => {
            let message = format!("{} is a relay's directory", owner.directory().display());
            Err(Failure::new(Code::Usage, message, "this command works on a device's"))
        }
    }
}

/// Opens the console of the process that serves it.
fn console(owner: &DeviceOwner, program: bool) -> Result<Response, Failure> {
    let Some(porter) = &owner.porter else {
        let remedy = "`fieldkeep serve` serves one";
        return Err(Failure::new(Code::Failure, "no console is served here", remedy));
    };
    let (url, address) = (porter.one_time_url()?, porter.origin());
    let token = program.then(|| porter.token()).transpose()?;
    Ok(Response::Console(Opened { url, address, token }))
}

/// Runs a future to its end: on the runtime that keeps the device connected, if there is one.
fn run<T>(owner: &DeviceOwner, future: impl Future<Output = T>) -> Result<T, Failure> {
    match &owner.runtime {
        Some(runtime) => Ok(runtime.block_on(future)),
        None => crate::sync::until_interrupted(future),
    }
}

fn sync(owner: &DeviceOwner, timeout: Duration, metered: bool) -> Result<Synced, Failure> {
    // Whoever serves the directory goes on as he was told.
    let before = metered.then(|| owner.device.set_metered(true));
    let report = run(owner, owner.device.sync(timeout));
    if let Some(before) = before {
        owner.device.set_metered(before);
    }
    let report = report?;
    Ok(Synced::new(report?, owner.device.paused()?))
}
