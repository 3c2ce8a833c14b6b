//! Power loss: real files, whose bytes behind the last sync are torn sector by sector, and what the
//! store makes of them when it is opened again.
//!
//! What was synced when follows from how the store waits for the disk, which it says itself. The
//! same cuts with the rules of `NORMAL`, and with those of a disk that lies, must lose something:
//! else this test tests nothing.

use std::fs;
use std::path::{Path, PathBuf};

use fieldkeep_lab::Dice;
use fieldkeep_store::{Settings as _, Store};
use tempfile::TempDir;

/// A sector is written whole or not at all.
const SECTOR: usize = 512;
/// Commits of a run: enough for the log to be carried over into the file a few times.
const COMMITS: u32 = 90;
/// Bytes of a value, so that a commit touches many pages.
const VALUE: usize = 60_000;

/// When what was written is on the platter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// With every commit.
    Full,
    /// When the log has been carried over into the file.
    Normal,
    /// Never.
    Lying,
}

/// The bytes of the file and of its log.
#[derive(Clone, Default)]
struct Image {
    file: Vec<u8>,
    log: Vec<u8>,
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

impl Image {
    fn of(path: &Path) -> Self {
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        Self { file: read(path), log: read(&log_of(path)) }
    }

    fn put(&self, path: &Path) {
        fs::write(path, &self.file).expect("it writes");
        fs::write(log_of(path), &self.log).expect("it writes");
    }
}

/// What is on the platter when the power goes while `after` is on its way: each sector that differs
/// is old, new, or neither. The file is written only when the log is safe.
fn torn(synced: &Image, after: &Image, dice: &mut Dice) -> Image {
    let carried = synced.file != after.file;
    Image {
        file: if carried { mixed(&synced.file, &after.file, dice) } else { synced.file.clone() },
        log: if carried { after.log.clone() } else { mixed(&synced.log, &after.log, dice) },
    }
}

fn mixed(old: &[u8], new: &[u8], dice: &mut Dice) -> Vec<u8> {
    let sectors = new.len().max(old.len()).div_ceil(SECTOR);
    // What was appended may be missing from anywhere on.
    let end = if dice.one_in(2) { sectors } else { dice.below(sectors + 1) };
    let mut bytes = Vec::with_capacity(sectors * SECTOR);
    for sector in 0..sectors {
        let part = |bytes: &[u8]| -> Vec<u8> {
            let from = (sector * SECTOR).min(bytes.len());
            bytes[from..((sector + 1) * SECTOR).min(bytes.len())].to_vec()
        };
        let (was, is) = (part(old), part(new));
        if was == is {
            bytes.extend(is);
        } else if sector < end || !was.is_empty() {
            match dice.below(4) {
                0 if !was.is_empty() => bytes.extend(was),
                1 => bytes.extend(garbled(&was, &is, dice)),
                _ => bytes.extend(is),
            }
        } else {
            break;
        }
    }
    bytes
}

/// A sector that was being written: what the write did not touch stays, as SQLite takes for granted
/// of every disk (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`); the rest is anything.
fn garbled(was: &[u8], is: &[u8], dice: &mut Dice) -> Vec<u8> {
    let touched = |at: usize| was.get(at) != is.get(at);
    let byte = |at: usize, dice: &mut Dice| if touched(at) { dice.roll() as u8 } else { is[at] };
    (0..is.len()).map(|at| byte(at, dice)).collect()
}

/// How many of the first commits a directory still has.
fn found(path: &Path) -> u32 {
    let Ok(store) = Store::open(path) else { return 0 };
    let there = |n: &u32| store.setting(&format!("n{n}")).is_ok_and(|value| value.is_some());
    (1..=COMMITS).take_while(there).count() as u32
}

struct Losses {
    cuts: u32,
    lost: u32,
}

/// Writes, and cuts the power once within every commit.
fn cut_power(disk: Option<Disk>, seed: u64) -> Losses {
    let directory = TempDir::new().expect("a directory");
    let (path, after_cut) = (directory.path().join("a.db"), directory.path().join("b.db"));
    let mut dice = Dice::seeded(seed);
    let mut store = Store::open(&path).expect("it opens");
    let disk = disk.unwrap_or(match store.sync_level().expect("it reads") {
        2 | 3 => Disk::Full,
        1 => Disk::Normal,
        _ => Disk::Lying,
    });
    let mut synced = Image::of(&path);
    let mut losses = Losses { cuts: 0, lost: 0 };
    for commit in 1..=COMMITS {
        let value: Vec<u8> = (0..VALUE).map(|_| dice.roll() as u8).collect();
        store.set(&format!("n{commit}"), &value).expect("it writes");
        store.commit().expect("it commits");
        let after = Image::of(&path);
        torn(&synced, &after, &mut dice).put(&after_cut);
        losses.cuts += 1;
        // All that was reported committed before this one.
        losses.lost += u32::from(found(&after_cut) < commit - 1);
        for left in [after_cut.clone(), log_of(&after_cut)] {
            let _ = fs::remove_file(left);
        }
        let carried = after.file != synced.file;
        if disk == Disk::Full || (disk == Disk::Normal && carried) {
            synced = after;
        }
    }
    losses
}

#[test]
fn a_power_cut_loses_nothing_that_was_committed() {
    for seed in 1..=3 {
        let losses = cut_power(None, seed);
        println!("seed {seed}: {} power cuts, {} lost something", losses.cuts, losses.lost);
        assert_eq!(losses.lost, 0, "seed {seed}");
    }
}

#[test]
fn power_cuts_of_a_store_that_does_not_wait_or_whose_disk_lies_are_found() {
    for disk in [Disk::Normal, Disk::Lying] {
        let losses = cut_power(Some(disk), 1);
        println!("{disk:?}: {} power cuts, {} lost something", losses.cuts, losses.lost);
        assert!(losses.lost > 0, "{disk:?} loses nothing: the cuts cut nothing");
    }
}
