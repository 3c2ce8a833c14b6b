//! `relay generations`: those that are over, read, archived, and taken out.

use std::collections::BTreeMap;
use std::path::Path;

use fieldkeep_console::shape::reshape::{PastGeneration, PastRecord};
use fieldkeep_console::{Failure, Trouble};
use fieldkeep_documents::Document;
use fieldkeep_model::{SegmentId, TypeName};
use fieldkeep_relay::archive::{ArchiveError, read_archive};
use serde::Serialize;

use crate::access::Access;
use crate::args::generations::Generations;
use crate::output::{Align, Output, Table, safe, several};
use crate::request::Request;
use crate::response::Response;

#[derive(Serialize)]
struct Listed<'g> {
    generations: &'g [PastGeneration],
}

#[derive(Serialize)]
struct Opened<'o> {
    #[serde(rename = "type")]
    ty: &'o str,
    generation: u32,
    segments: u64,
    changes: u64,
}

#[derive(Serialize)]
struct Archived<'a> {
    #[serde(rename = "type")]
    ty: &'a str,
    generation: u32,
    segments: u64,
    file: &'a str,
}

pub(super) fn run(
    directory: &Path,
    command: Generations,
    output: &mut Output,
) -> Result<(), Trouble> {
    match command {
        Generations::List => list(directory, output),
        Generations::Read { ty, generation } => read(directory, ty, generation, output),
        Generations::Archive { ty, generation, file, anyway } => {
            archive(directory, (ty, generation), &file, anyway, output)
        }
        Generations::Open { .. } => unreachable!("it needs no directory, and was taken care of"),
    }
}

fn list(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let request = Request::PastGenerations;
    let Response::PastGenerations(past) = Access::new(directory)?.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("relay-generations", &Listed { generations: &past })?);
    }
    if past.is_empty() {
        output.line("every type is in its first generation, or what was before is archived")?;
        return Ok(());
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[
        ("TYPE", left),
        ("GENERATION", right),
        ("SEGMENTS", right),
        ("RECORDS", right),
        ("CHANGES", right),
        ("NOT CARRIED OVER", right),
        ("ASIDE", right),
    ]);
    for one in &past {
        let generation = u64::from(one.generation);
        let numbers = [generation, one.segments, one.records, one.changes, one.late, one.aside];
        let numbers = numbers.iter().map(ToString::to_string);
        table.row([one.ty.clone()].into_iter().chain(numbers).collect());
    }
    table.print(output.writer())?;
    Ok(())
}

fn read(
    directory: &Path,
    ty: TypeName,
    generation: u32,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let mut after = None;
    loop {
        let request = Request::ReadPast(ty.clone(), generation, after);
        let Response::PastRecords(records, next) = access.ask(request)? else {
            return Err(Failure::unexpected().into());
        };
        for record in &records {
            print(record, output)?;
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn print(record: &PastRecord, output: &mut Output) -> Result<(), Trouble> {
    output.line(&serde_json::to_string(record).map_err(|_| Failure::unexpected())?)?;
    Ok(())
}

fn archive(
    directory: &Path,
    (ty, generation): (TypeName, u32),
    file: &Path,
    anyway: bool,
    output: &mut Output,
) -> Result<(), Trouble> {
    let file = std::path::absolute(file).map_err(|error| Failure::file(file, &error))?;
    let request = Request::Archive { ty: ty.clone(), generation, file: file.clone(), anyway };
    let Response::Archived(segments) = Access::new(directory)?.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    let shown = file.display().to_string();
    if output.is_json() {
        let archived = Archived { ty: ty.as_str(), generation, segments, file: &shown };
        return Ok(output.object("relay-generations-archive", &archived)?);
    }
    output.line(&format!(
        "generation {generation} of {ty} is in {}, verified, and not in the relay any more",
        safe(&shown)
    ))?;
    output.line("its records: fieldkeep relay generations open FILE")?;
    Ok(())
}

/// Verifies an archive, and prints its records.
pub(super) fn open(file: &Path, check: bool, output: &mut Output) -> Result<(), Trouble> {
    let damaged = |error: ArchiveError| match error {
        ArchiveError::Io(error) => Failure::file(file, &error),
        error @ ArchiveError::Damaged(_) => Failure::from(error),
    };
    let mut documents: BTreeMap<SegmentId, Document> = BTreeMap::new();
    let mut unmerged = false;
    let (header, segments) = read_archive(file, &mut |id, chunks| {
        if !check {
            let document = documents.entry(*id).or_default();
            unmerged |= document.apply(chunks.iter().map(Vec::as_slice)).is_err();
        }
    })
    .map_err(damaged)?;
    if unmerged {
        return Err(damaged(ArchiveError::Damaged("changes do not merge")).into());
    }
    for document in documents.values() {
        for id in document.ids() {
            let Some(record) = document.record(&id) else { continue };
            let (id, deleted, fields) = (id.to_string(), record.deleted, record.fields);
            print(&PastRecord { id, deleted, fields }, output)?;
        }
    }
    if check {
        let changes = segments.values().map(|segment| segment.tip).sum();
        let (ty, generation) = (header.ty.as_str(), header.generation);
        let opened = Opened { ty, generation, segments: segments.len() as u64, changes };
        if output.is_json() {
            return Ok(output.object("relay-generations-open", &opened)?);
        }
        output.line(&format!(
            "sound: generation {generation} of {ty}, {}, {}",
            several(opened.segments, "segment"),
            several(changes, "change")
        ))?;
    }
    Ok(())
}
