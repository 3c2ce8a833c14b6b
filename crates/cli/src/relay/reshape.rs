//! `relay reshape`: a type is started afresh, in a new generation.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use fieldkeep_console::shape::reshape::Afresh;
use fieldkeep_console::{Failure, Trouble};
use fieldkeep_model::TypeName;

use crate::access::Access;
use crate::args::reshape::Reshape;
use crate::attention::records;
use crate::output::{Output, safe, several};
use crate::progress::{Bar, Far};
use crate::request::{Request, ReshapeWish};
use crate::response::Response;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn run(directory: &Path, wish: Reshape, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    if wish.give_up {
        let Response::Afresh(was) = access.ask(Request::GiveUpReshape(wish.ty))? else {
            return Err(Failure::unexpected().into());
        };
        if output.is_json() {
            return Ok(output.object("relay-reshape", &was)?);
        }
        let (ty, generation) = (&was.ty, was.generation);
        output
            .line(&format!("given up: generation {generation} of {ty} is in force, as before"))?;
        return Ok(());
    }
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))
    };
    let file = wish.catalog.as_ref().map(read).transpose()?;
    let ty = wish.ty.clone();
    let scope = if wish.unscoped { Some(None) } else { wish.scope.map(Some) };
    let kinds = wish.kinds.into_iter().map(|(field, kind)| (field, kind.word().to_owned()));
    let wanted = ReshapeWish {
        ty: wish.ty,
        file,
        buckets: wish.buckets,
        scope,
        kinds: kinds.collect(),
        cut: wish.cut,
        note: wish.note,
        dry_run: wish.dry_run,
    };
    let Response::Afresh(begun) = access.ask(Request::Reshape(wanted))? else {
        return Err(Failure::unexpected().into());
    };
    if wish.dry_run {
        return told(&begun, output);
    }
    if !output.is_json() {
        tell(&begun, output)?;
    }
    let done = follow(&mut access, &ty)?;
    if output.is_json() {
        return Ok(output.object("relay-reshape", &done)?);
    }
    let (ty, next) = (&begun.ty, begun.next);
    output
        .line(&format!("generation {next} of {ty} is in force: connected devices move on to it"))?;
    output.line("records are judged by it in the background: fieldkeep relay catalog status")?;
    output.line("the catalog in force: fieldkeep relay catalog show > CATALOG.toml")?;
    Ok(())
}

/// Waits until it is in force.
fn follow(access: &mut Access, ty: &TypeName) -> Result<Afresh, Trouble> {
    let bar = Bar::new();
    loop {
        let Response::Afresh(far) = access.ask(Request::Reshaping(ty.clone()))? else {
            return Err(Failure::unexpected().into());
        };
        if !far.under_way {
            return Ok(*far);
        }
        let all = far.records + far.changes;
        let done = all.saturating_sub(far.records_left + far.changes_left);
        bar.show(&Far::counted(done, all, "records and changes carried over"));
        sleep(LOOK);
    }
}

fn told(would: &Afresh, output: &mut Output) -> Result<(), Trouble> {
    if output.is_json() {
        return Ok(output.object("relay-reshape", would)?);
    }
    tell(would, output)?;
    output.line("nothing was changed")?;
    Ok(())
}

fn tell(would: &Afresh, output: &mut Output) -> Result<(), Trouble> {
    let Afresh { ty, generation, next, .. } = would;
    output.line(&format!("{ty}: from generation {generation} to {next}"))?;
    let segments = |count| several(count, "segment");
    output.line(&format!(
        "  {} {} from {} to {}, of at most {}",
        records(would.records),
        if would.records == 1 { "goes" } else { "go" },
        segments(would.segments),
        segments(would.new_segments),
        records(would.largest),
    ))?;
    output.line(&format!(
        "  history: changes kept as what they came to: {}; repeated one by one: {}",
        would.shed, would.changes
    ))?;
    if would.unfit > 0 {
        output.line(&format!(
            "  {} values cannot be brought into the kind that their field has then: their records \
             are held, and nothing of them is lost",
            would.unfit
        ))?;
        for record in &would.unfit_records {
            output.line(&format!("    {}", safe(record)))?;
        }
    }
    if !would.scoped.is_empty() {
        let names: Vec<String> = would.scoped.iter().map(|name| safe(name)).collect();
        output.line(&format!(
            "  the scope field is another one: grant {} anew (fieldkeep relay grant)",
            names.join(", ")
        ))?;
    }
    Ok(())
}
