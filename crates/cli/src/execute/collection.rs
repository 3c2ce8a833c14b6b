//! Collecting the attached files of a relay that nothing refers to.

use fieldkeep_console::{Code, Failure, rfc3339};
use fieldkeep_relay::{Config, Doubt, sweep};
use fieldkeep_store::LooseBlob;

use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::response::{Collected, Pile, Response, Unreferenced};
use crate::time::now_ms;

/// Files that are told one by one.
const TOLD: usize = 1_000;

pub(super) fn collect(owner: &Owner, dry_run: bool) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    if !relay.is_serving() {
        // One that serves has read it when it began.
        let after = Config::read(owner.directory())?.collect_after;
        relay.with_engine(move |engine| {
            engine.collect_after(after);
            engine.resume_removals();
            Ok(())
        })?;
    }
    let grace = relay.with_engine(|engine| Ok(engine.grace_ms()))?;
    if grace.is_none() && !dry_run {
        let remedy = "write `[collection]` with `after = \"30d\"` into relay.toml, and serve the relay \
                      again; `relay gc --dry-run` tells what would go";
        let message = "collection is not turned on: nothing was removed";
        return Err(Failure::new(Code::Failure, message, remedy));
    }
    let mut after = None;
    loop {
        let next = relay.with_engine(move |engine| Ok(engine.look_for_loose(now_ms(), after)?))?;
        if next.is_none() {
            break;
        }
        after = next;
    }
    let (loose, doubt) = relay.with_engine(|engine| Ok((engine.loose()?, engine.doubt()?)))?;
    let now = now_ms();
    let goes = |blob: &LooseBlob| grace.map(|grace| blob.since.saturating_add(grace));
    let due = |blob: &LooseBlob| doubt.is_none() && goes(blob).is_some_and(|goes| goes <= now);
    let (mut due, later): (Vec<_>, Vec<_>) = loose.into_iter().partition(due);
    if !dry_run {
        due = remove(relay, owner, now)?;
    }
    let files = due.iter().chain(&later).take(TOLD).map(|blob| Unreferenced {
        hash: blob.hash.to_string(),
        size: blob.size,
        since: rfc3339(blob.since),
        goes: goes(blob).map(rfc3339),
    });
    let first = due.iter().chain(&later).map(|blob| blob.since).min();
    Ok(Response::Collected(Box::new(Collected {
        dry_run,
        after_seconds: grace.map(|grace| grace.unsigned_abs() / 1_000),
        waits: doubt.map(|doubt| told(doubt).to_owned()),
        since: first.map(rfc3339),
        now: pile(&due),
        later: pile(&later),
        next: later.first().and_then(goes).map(rfc3339),
        files: files.collect(),
    })))
}

/// Removes what is due, a bit at a time: each bit is durable before its files are taken off the disk.
fn remove(relay: &RelayOwner, owner: &Owner, now: i64) -> Result<Vec<LooseBlob>, Failure> {
    let mut removed = Vec::new();
    loop {
        let directory = owner.directory().to_owned();
        relay.with_engine(move |engine| Ok(sweep(engine, &directory)?))?;
        let some = relay.with_engine(move |engine| Ok(engine.remove_loose(now)?))?;
        if some.is_empty() {
            return Ok(removed);
        }
        removed.extend(some);
    }
}

fn pile(blobs: &[LooseBlob]) -> Pile {
    Pile { files: blobs.len() as u64, bytes: blobs.iter().map(|blob| blob.size).sum() }
}

fn told(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Behind => "changes wait to be judged, and may refer to a file",
        Doubt::Damaged => "a segment is damaged, and may refer to a file",
        Doubt::Aside => "more was kept aside than is looked through, and may refer to a file",
    }
}
