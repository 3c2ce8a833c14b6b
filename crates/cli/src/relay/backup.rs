//! `relay backup` and `relay restore`: what is in a backup, how it was verified, what was put in place, and
//! what came back since.

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_console::{Code, Failure, Trouble, rfc3339};
use fieldkeep_relay::{
    LastBackup, Occupied, PutBack, Recovery, Taken, Thorough, Which, restore_backup, take_backup,
};
use fieldkeep_store::backup::Manifest;
use fieldkeep_store::{Reader, home};
use serde::Serialize;

use crate::access::{Access, Kind, kind};
use crate::args::absolute;
use crate::args::relay::Restore;
use crate::note;
use crate::output::{Align, Output, Table, safe, several};
use crate::request::Request;
use crate::response::Response;
use crate::stages::Stages;

/// What a backup does not have.
const NOT_IN_IT: [&str; 2] = ["admin.key", "certificates that relay.toml names"];
/// What a backup cannot know, whoever comes back.
const LOST: [&str; 3] = [
    "catalogs that were published after it: publish them again",
    "what was decided on the relay after it: dismissals, assignments, notes",
    "what calls did after it, unless a device has read it: hosts may have been asked",
];

#[derive(Serialize)]
struct Backup<'b> {
    number: u64,
    taken: String,
    folder: String,
    place: String,
    contents: Contents<'b>,
    database_written: u64,
    files_copied: u64,
    file_bytes_copied: u64,
    files_verified_by: &'static str,
    not_in_it: [&'static str; 2],
    notices: &'b [String],
    seconds: f64,
}

#[derive(Serialize)]
struct PutInPlace<'b> {
    number: u64,
    taken: String,
    epoch: u64,
    contents: Contents<'b>,
    files_lacking: u64,
    moved_aside: Option<String>,
    lost: [&'static str; 3],
    notices: &'b [String],
}

/// What a backup is of.
#[derive(Serialize)]
struct Contents<'b> {
    organisation: &'b str,
    epoch: u64,
    catalog: u64,
    members: u64,
    segments: u64,
    changes: u64,
    records: u64,
    database_bytes: u64,
    files: u64,
    file_bytes: u64,
    lacking: &'b [String],
}

impl<'b> From<&'b Manifest> for Contents<'b> {
    fn from(manifest: &'b Manifest) -> Self {
        Self {
            organisation: &manifest.name,
            epoch: manifest.epoch,
            catalog: manifest.catalog,
            members: manifest.members,
            segments: manifest.segments,
            changes: manifest.changes,
            records: manifest.records,
            database_bytes: manifest.database.bytes,
            files: manifest.attached.files,
            file_bytes: manifest.attached.bytes,
            lacking: &manifest.attached.lacking,
        }
    }
}

pub(super) fn take(
    directory: &Path,
    folder: &Path,
    verify: bool,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    if kind(directory)? == Kind::Device {
        let message = format!("{} is a device's directory", directory.display());
        let remedy =
            "what it has sent is on the relay, and `fieldkeep bundle export` carries the rest";
        return Err(Failure::new(Code::Usage, message, remedy).into());
    }
    let thorough = if verify { Thorough::Hashes } else { Thorough::Lengths };
    let mut stages = Stages::new();
    let taken = take_backup(directory, &absolute(folder)?, thorough, &mut |at| stages.show(at));
    drop(stages);
    let taken = taken.map_err(Failure::from)?;
    let LastBackup { taken: at, folder, number } = LastBackup::of(&taken);
    let noted = Access::new(directory)?.ask(Request::NoteBackup(at, folder, number));
    match noted {
        Ok(Response::Noted) => {}
        Ok(_) => note(
            "fieldkeep: the backup is good, and the relay, of another version, did not note it",
        ),
        Err(trouble) => {
            note(&format!("fieldkeep: the backup is good, and was not noted: {trouble}"))
        }
    }
    tell_taken(&taken, verify, output)?;
    let lacking = !taken.manifest.attached.lacking.is_empty();
    Ok(if lacking { ExitCode::from(Code::Integrity.number()) } else { ExitCode::SUCCESS })
}

fn tell_taken(taken: &Taken, verify: bool, output: &mut Output) -> Result<(), Trouble> {
    let Taken { folder, slot, manifest, written, copied, notices, took, .. } = taken;
    let contents = Contents::from(manifest);
    let at = rfc3339(manifest.taken);
    if output.is_json() {
        let shape = Backup {
            number: manifest.number,
            taken: at,
            folder: folder.display().to_string(),
            place: slot.to_string(),
            contents,
            database_written: *written,
            files_copied: copied.0,
            file_bytes_copied: copied.1,
            files_verified_by: if verify { "hash" } else { "length" },
            not_in_it: NOT_IN_IT,
            notices,
            seconds: took.as_secs_f64(),
        };
        return Ok(output.object("relay-backup", &shape)?);
    }
    let (name, number) = (safe(contents.organisation), manifest.number);
    output.line(&format!("backup {number} of {name}, as it stood at {at}"))?;
    output.line(&format!(
        "  database    {} bytes, {written} of which were not there",
        contents.database_bytes
    ))?;
    output.line(&format!(
        "  files       {}, {} bytes; {} were not there",
        contents.files, contents.file_bytes, copied.0
    ))?;
    output.line(&format!(
        "  read back   {} of {}, each hash and chain; {}; entries of members: {}",
        several(contents.changes, "change"),
        several(contents.segments, "segment"),
        several(contents.records, "record"),
        contents.members
    ))?;
    let by = if verify { "hash" } else { "length, those that were copied by their hashes" };
    output.line(&format!("              database and keys by hash; attached files by {by}"))?;
    output.line(&format!("  lies in     {}/{slot}", folder.display()))?;
    output.line(&format!("not in it: {}", NOT_IN_IT.join("; ")))?;
    output.line(
        "whoever has it can read everything, and pose as this relay: keep it as you keep the relay",
    )?;
    tell_notices(notices, output)?;
    if let Some(first) = contents.lacking.first() {
        let many = contents.lacking.len();
        output.line(&format!(
            "{many} attached files are damaged or gone on the relay, and not in it: {first}"
        ))?;
        output.line("  what to do: fieldkeep relay doctor")?;
    }
    Ok(())
}

pub(super) fn restore(
    directory: &Path,
    wish: &Restore,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    match &wish.from {
        Some(from) => put_back(directory, from, wish, output)?,
        None if wish.report => report(directory, output)?,
        None => open_epoch(directory, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn put_back(
    directory: &Path,
    from: &Path,
    wish: &Restore,
    output: &mut Output,
) -> Result<(), Trouble> {
    let which = if wish.earlier { Which::Earlier } else { Which::Newest };
    let occupied = if wish.move_aside { Occupied::MovedAside } else { Occupied::Refused };
    let mut stages = Stages::new();
    let put = restore_backup(from, directory, which, occupied, &mut |at| stages.show(at));
    drop(stages);
    let PutBack { manifest, moved, lacking, epoch, notices } = put.map_err(Failure::from)?;
    let (at, contents) = (rfc3339(manifest.taken), Contents::from(&manifest));
    let moved = moved.map(|moved| moved.display().to_string());
    if output.is_json() {
        let shape = PutInPlace {
            number: manifest.number,
            taken: at,
            epoch,
            contents,
            files_lacking: lacking,
            moved_aside: moved,
            lost: LOST,
            notices: &notices,
        };
        return Ok(output.object("relay-restore-from", &shape)?);
    }
    let (name, shown) = (safe(contents.organisation), directory.display());
    output.line(&format!(
        "put {name} back in {shown}, as it stood at {at}: backup {}",
        manifest.number
    ))?;
    output.line(&format!(
        "  {}, {}, {}; entries of members: {}; catalog {}",
        several(contents.records, "record"),
        several(contents.changes, "change"),
        several(contents.files, "attached file"),
        contents.members,
        contents.catalog
    ))?;
    if lacking > 0 {
        output.line(&format!(
            "  {lacking} attached files are not in it: devices that have them bring them"
        ))?;
    }
    if let Some(moved) = moved {
        output.line(&format!(
            "what lay there lies in {moved}; admin.key and certificates are still in that"
        ))?;
    }
    tell_notices(&notices, output)?;
    tell_opened(epoch, output)?;
    output.line("what it does not have, and nobody brings:")?;
    LOST.iter().try_for_each(|lost| output.line(&format!("  {lost}")))?;
    output.line(&format!("serve it: fieldkeep relay serve --dir {shown}"))?;
    output.line("what came back, and who has not been here: fieldkeep relay restore --report")?;
    Ok(())
}

#[derive(Serialize)]
struct Opened {
    epoch: u64,
    segments: u64,
}

/// Of a directory that was put back by hand.
fn open_epoch(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let Response::Restored { epoch, segments } = access.ask(Request::Restore)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("relay-restore", &Opened { epoch, segments })?);
    }
    tell_opened(epoch, output)?;
    output.line(&format!(
        "verdicts were stated again in it: those of {}",
        several(segments, "segment")
    ))?;
    Ok(())
}

fn tell_opened(epoch: u64, output: &mut Output) -> Result<(), Trouble> {
    output.line(&format!("opened epoch {epoch}, with a new incarnation of this relay"))?;
    output.line(
        "every device compares everything when it comes next, and sends what this copy lacks:",
    )?;
    output
        .line("until then such records are unsaved there; nothing that a device holds is lost")?;
    Ok(())
}

fn tell_notices(notices: &[String], output: &mut Output) -> Result<(), Trouble> {
    for notice in notices {
        output
            .line(&format!("{}: nothing is lost; fieldkeep relay doctor --repair", safe(notice)))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    restored: String,
    taken: Option<String>,
    came_back: u64,
    written_since: u64,
    aside: u64,
    devices: Vec<Device>,
    not_seen: u64,
}

#[derive(Serialize)]
struct Device {
    number: u64,
    name: String,
    revoked: bool,
    came_back: u64,
    written_since: u64,
    seen: Option<String>,
}

fn report(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let of_relay = kind(directory)? == Kind::Relay;
    let store = Reader::open(&home::database(directory)).map_err(Failure::from)?;
    let recovery = Recovery::read(&store).map_err(Failure::from)?.filter(|_| of_relay);
    let never = || Failure::new(Code::NotFound, "this relay was never put back from a copy", "");
    let recovery = recovery.ok_or_else(never)?;
    let not_seen = recovery.absent().count() as u64;
    let Recovery { restored, taken, back, written_since, aside, devices } = recovery;
    let devices = devices.into_iter().map(|device| Device {
        number: device.number,
        name: device.name,
        revoked: device.revoked,
        came_back: device.back,
        written_since: device.written_since,
        seen: device.seen.map(rfc3339),
    });
    let (restored, taken) = (rfc3339(restored), taken.map(rfc3339));
    let (came_back, devices) = (back, devices.collect());
    let report = Report { restored, taken, came_back, written_since, aside, devices, not_seen };
    if output.is_json() {
        return Ok(output.object("relay-restore-report", &report)?);
    }
    let of = report.taken.as_ref().map(|taken| format!(", as it stood at {taken}"));
    output.line(&format!("put back at {}{}", report.restored, of.unwrap_or_default()))?;
    output.line(&format!("came back, written before and not in the copy: {came_back}"))?;
    output.line(&format!("written since: {written_since}; kept aside: {aside}"))?;
    let right = Align::Right;
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("CAME BACK", right),
        ("WRITTEN SINCE", right),
        ("HERE SINCE", Align::Left),
    ]);
    for device in &report.devices {
        let seen = match &device.seen {
            Some(seen) => seen.clone(),
            None if device.revoked => "revoked".to_owned(),
            None => "not yet".to_owned(),
        };
        let (back, since) = (device.came_back.to_string(), device.written_since.to_string());
        table.row(vec![safe(&device.name), back, since, seen]);
    }
    table.print(output.writer())?;
    output.line("before and since are told by the clocks of those who wrote")?;
    if not_seen > 0 {
        output
            .line(&format!("not here yet: {not_seen}; what nobody but them has comes with them"))?;
    }
    Ok(())
}
