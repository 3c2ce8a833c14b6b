//! The doctor of a relay: what is stored against what it should be. It reads one moment of the store beside
//! whoever serves it, and writes nothing; what it says of a check is what a device's doctor says.

use std::collections::BTreeSet;
use std::path::Path;

use fieldkeep_catalog::Catalog;
use fieldkeep_model::{BlobHash, MembershipLog, Seed, SegmentId, TypeName};
use fieldkeep_replica::integrity::{is_projected, verify};
use fieldkeep_replica::{Check, Finding, Integrity, ReplicaError, doctor, stored_renewal};
use fieldkeep_store::{
    BlobFiles, Blobs as _, Catalogs as _, Log as _, Reader, Records as _, SegmentRow,
    Segments as _, Settings as _, Soundness as _, Space, StoreError, home, space,
};

use crate::backup::LastBackup;
use crate::config::Config;
use crate::directory::{admin_key, all_keys};
use crate::recovery::Recovery;

const REPAIR: &str = "relay doctor --repair";
const RESTORE: &str =
    "put the newest backup back, `relay restore --from FOLDER`: devices bring what it lacks";
/// How old the newest backup may be, in milliseconds: two days.
const OLD: i64 = 2 * 86_400_000;
/// How many devices are named.
const NAMED: usize = 5;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The checks.
    pub checks: Vec<Check>,
    /// Segments whose records can be derived again, and are not what they should be.
    pub mendable: Vec<SegmentId>,
}

/// Looks at everything in a relay's directory: the file, the keys and the membership, the clock, the catalog,
/// the sizes of segments, the changes, what was derived from them, the counts, the attached files, the disk,
/// the backups, and the configuration. Reads all of it.
///
/// # Errors
/// When the disk fails so that nothing can be said.
pub fn examine(directory: &Path, now: i64) -> Result<Examined, ReplicaError> {
    let store = Reader::open(&home::database(directory))?;
    if !store.is_up_to_date()? {
        let text = "another version of this software wrote the store last";
        let remedy = "serve the relay with this version, and look again";
        let check = Check::found("file", Finding::Notice, text, remedy);
        return Ok(Examined { checks: vec![check], mendable: Vec::new() });
    }
    store.stand_still()?;
    let rows = store.segments()?;
    let found = Found::of(&store, &rows);
    let members = MembershipLog::open(store.members()?);
    let mut checks = vec![
        doctor::check_file(&store, RESTORE),
        check_key(directory, &store, &members),
        check_admin(directory),
        doctor::check_clock(&store, rows.iter(), now),
        check_catalog(&store, &rows)?,
        doctor::check_sizes(rows.iter(), |ty| {
            format!("`fieldkeep relay reshape {ty} --buckets N` divides it into more")
        }),
        check_changes(&store, &rows, &found)?,
        check_records(&rows, &found),
        check_counts(&store, &rows)?,
        check_judging(&store, &rows)?,
        check_attached(directory, &store)?,
        check_disk(directory, &store)?,
        check_backup(&store, now)?,
        check_configuration(directory),
    ];
    checks.extend(check_return(&store));
    let mut mendable = found.derived;
    mendable.extend(miscounted(&store, &rows)?);
    Ok(Examined { checks, mendable: mendable.into_iter().collect() })
}

/// Segments that are not what they should be.
#[derive(Default)]
struct Found {
    /// Those whose changes are not what was written.
    changes: BTreeSet<SegmentId>,
    /// Those whose records are not what their changes come to.
    derived: BTreeSet<SegmentId>,
}

impl Found {
    fn of(store: &Reader, rows: &[SegmentRow]) -> Self {
        let mut found = Self::default();
        for row in rows {
            match verify(store, row) {
                Ok(Some(Integrity::Changes(_))) => found.changes.insert(row.id),
                Ok(None) if !row.damaged && is_projected(store, row).unwrap_or(false) => false,
                // A row that cannot be read is not what it should be.
                Ok(None | Some(Integrity::Records(_))) | Err(_) => found.derived.insert(row.id),
            };
        }
        found
    }
}

fn check_key(
    directory: &Path,
    store: &Reader,
    members: &Result<MembershipLog, fieldkeep_model::MembershipError>,
) -> Check {
    const NAME: &str = "keys";
    let back = "bring `key` back from a backup: members know the relay by no other";
    let keys = match all_keys(directory) {
        Ok(keys) => keys,
        Err(error) => return Check::found(NAME, Finding::Wrong, error.to_string(), back),
    };
    let members = match members {
        Ok(members) => members,
        Err(error) => {
            let text = format!("the membership log does not verify: {error}");
            return Check::found(NAME, Finding::Wrong, text, RESTORE);
        }
    };
    let number = store.setting("number").ok().flatten().and_then(|bytes| bytes.try_into().ok());
    let number = number.map(u64::from_be_bytes);
    let known = |seed: &Seed| members.by_tls(&seed.tls().public()).filter(|member| member.relay);
    match keys.iter().find_map(known) {
        Some(member) if number == Some(member.number) => {
            let (number, of) = (member.number, members.name());
            let text = format!("the key is that of member {number} of {of}, the relay");
            Check::fine(NAME, text)
        }
        Some(_) => Check::found(
            NAME,
            Finding::Wrong,
            "the store is another relay's than the key",
            "bring the key and the store back from one backup",
        ),
        None => {
            let text = "the key in the directory is not the one by which members know the relay";
            Check::found(NAME, Finding::Wrong, text, back)
        }
    }
}

fn check_admin(directory: &Path) -> Check {
    const NAME: &str = "admin key";
    let path = admin_key(directory);
    if !path.exists() {
        return Check::fine(NAME, "it does not lie here: a captured relay enrols nobody");
    }
    let text = "it lies here: whoever captures the relay can enrol members";
    let remedy = format!(
        "move {} elsewhere, to two places; `--admin-key FILE` names it where it is needed",
        path.display()
    );
    Check::found(NAME, Finding::Notice, text, remedy)
}

fn check_catalog(store: &Reader, rows: &[SegmentRow]) -> Result<Check, ReplicaError> {
    let Some(stored) = store.newest_catalog()? else {
        return Ok(doctor::check_catalog(None, [], "relay publish CATALOG.toml"));
    };
    let catalog = match Catalog::parse(&stored.source) {
        Ok(catalog) => catalog,
        Err(errors) => {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            let text = format!("number {} cannot be used: {first}", stored.number);
            return Ok(Check::found("catalog", Finding::Wrong, text, RESTORE));
        }
    };
    let held = rows.iter().filter(|row| row.tip > 0).map(|row| row.address.ty.clone());
    let types: BTreeSet<TypeName> = held.collect();
    let published = Some((stored.number, &catalog));
    Ok(doctor::check_catalog(published, types, "relay publish CATALOG.toml"))
}

fn check_changes(store: &Reader, rows: &[SegmentRow], found: &Found) -> Result<Check, StoreError> {
    let damaged = rows.iter().find(|row| found.changes.contains(&row.id));
    if let Some(row) = damaged {
        let text = match found.changes.len() {
            1 => format!("changes of {} are not what was written", row.address),
            many => format!("changes of {many} segments are not what was written: {}", row.address),
        };
        return Ok(Check::found("changes", Finding::Wrong, text, RESTORE));
    }
    let changes: u64 = rows.iter().map(|row| row.tip).sum();
    let aside = match store.asides()?.len() {
        0 => String::new(),
        aside => format!("; {aside} were kept aside: `relay quarantine list` shows them"),
    };
    let text = format!("{changes}, each what was written, in the order of its chain{aside}");
    Ok(Check::fine("changes", text))
}

fn check_records(rows: &[SegmentRow], found: &Found) -> Check {
    let differs = rows.iter().find(|row| found.derived.contains(&row.id));
    doctor::check_records(differs, rows.iter().map(|row| row.records).sum(), REPAIR)
}

/// Segments whose counts are not what a recount finds.
fn miscounted(store: &Reader, rows: &[SegmentRow]) -> Result<Vec<SegmentId>, StoreError> {
    let standing = store.count_standing()?;
    let differs = rows.iter().filter(|row| {
        let counted = standing.get(&row.sid).copied().unwrap_or_default();
        counted != [row.live, row.held, row.waiting]
    });
    Ok(differs.map(|row| row.id).collect())
}

fn check_counts(store: &Reader, rows: &[SegmentRow]) -> Result<Check, StoreError> {
    if miscounted(store, rows)?.is_empty() {
        return doctor::check_counts(store, REPAIR);
    }
    let text = "the counts that are kept of segments are not what a recount finds";
    Ok(Check::found("counts", Finding::Wrong, text, REPAIR))
}

fn check_judging(store: &Reader, rows: &[SegmentRow]) -> Result<Check, StoreError> {
    let waiting: u64 = rows.iter().map(|row| row.tip - row.done.min(row.tip)).sum();
    let anew = stored_renewal(store)?.left;
    let text = match (waiting, anew) {
        (0, 0) => "everything is merged and judged".to_owned(),
        (waiting, anew) => format!(
            "still to be judged, while the relay serves: changes {waiting}, records anew {anew}"
        ),
    };
    Ok(Check::fine("judging", text))
}

fn check_attached(directory: &Path, store: &Reader) -> Result<Check, StoreError> {
    let (files, mut count, mut damaged) = (BlobFiles::of(directory), 0, Vec::<BlobHash>::new());
    store.each_blob_here(|hash, size| {
        count += 1;
        if !files.is_sound(&hash, size) {
            damaged.push(hash);
        }
        Ok::<_, StoreError>(())
    })?;
    let remedy = match LastBackup::read(store)? {
        Some(last) => {
            format!("copy them from {}/blobs to blobs/, under the same names", last.folder)
        }
        None => "copy them from a backup to blobs/, under the same names".to_owned(),
    };
    Ok(doctor::check_attached(count, &damaged, 0, &remedy))
}

fn check_disk(directory: &Path, store: &Reader) -> Result<Check, StoreError> {
    const NAME: &str = "disk";
    let taken = store.bytes()? + store.blob_bytes()?;
    let Some(Space { free, total }) = space(directory) else {
        return Ok(Check::fine(NAME, "the system does not tell how much of it is free"));
    };
    let text =
        format!("{} of {} are free; the relay takes {}", size(free), size(total), size(taken));
    if free < total / 5 || free < 2 * store.bytes()? {
        let remedy =
            "make room, or move the directory to a larger disk: a full one stops the relay";
        return Ok(Check::found(NAME, Finding::Notice, text, remedy));
    }
    Ok(Check::fine(NAME, text))
}

fn check_backup(store: &Reader, now: i64) -> Result<Check, StoreError> {
    const NAME: &str = "backup";
    let Some(last) = LastBackup::read(store)? else {
        let text = "none is known: what is here alone is lost with this disk";
        return Ok(Check::found(NAME, Finding::Notice, text, "relay backup FOLDER"));
    };
    let age = now.saturating_sub(last.taken);
    let text = format!("the newest was taken {} ago, to {}", time(age), last.folder);
    let remedy = format!("relay backup {}", last.folder);
    if age > OLD {
        return Ok(Check::found(NAME, Finding::Notice, text, remedy));
    }
    if !Path::new(&last.folder).is_dir() {
        let text = format!("{text}, which is not there at present");
        let remedy = "see that its disk is there; a backup on the relay's own disk is lost with it";
        return Ok(Check::found(NAME, Finding::Notice, text, remedy));
    }
    Ok(Check::fine(NAME, text))
}

fn check_configuration(directory: &Path) -> Check {
    const NAME: &str = "settings";
    match Config::read(directory) {
        Ok(_) => Check::fine(NAME, "relay.toml is understood, or there is none"),
        Err(error) => {
            let remedy = "mend the file: the relay does not start with it";
            // A line each, without the picture of where it is.
            let text = error.to_string();
            let lines = text.lines().filter(|line| !line.contains('|'));
            Check::found(NAME, Finding::Wrong, lines.collect::<Vec<_>>().join(": "), remedy)
        }
    }
}

/// Whoever has not been here since the relay was put back, where it was.
fn check_return(store: &Reader) -> Option<Check> {
    const NAME: &str = "restore";
    let recovery = match Recovery::read(store) {
        Ok(recovery) => recovery?,
        // That changes are damaged was said.
        Err(_) => return None,
    };
    let back = format!("changes that came back since the relay was put back: {}", recovery.back);
    let absent: Vec<&str> = recovery.absent().map(|device| &*device.name).collect();
    if absent.is_empty() {
        return Some(Check::fine(NAME, format!("{back}; every device has been here")));
    }
    let named = absent[..absent.len().min(NAMED)].join(", ");
    let text = format!("{back}; devices that were not here yet: {}, {named}", absent.len());
    let remedy = "what they alone have comes with them: relay restore --report tells more";
    Some(Check::found(NAME, Finding::Notice, text, remedy))
}

fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let unit = UNITS.into_iter().find(|(_, of)| bytes >= *of);
    match unit {
        Some((name, of)) => format!("{}.{} {name}", bytes / of, bytes % of * 10 / of),
        None => format!("{bytes} bytes"),
    }
}

fn time(millis: i64) -> String {
    let minutes = millis.max(0) / 60_000;
    match minutes {
        0 => "less than a minute".to_owned(),
        1 => "a minute".to_owned(),
        2..120 => format!("{minutes} minutes"),
        120..2_880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}
