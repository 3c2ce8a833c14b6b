//! Starting: from opening a device's directory to the first record.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use fieldkeep_device::Device;
use fieldkeep_lab::Dice;
use fieldkeep_model::Grant;

use crate::camp::{
    Camp, Sizes, as_records, buckets, catalog, fill, order_key, referents, some_orders, start_part,
    state_edit,
};
use crate::measure::{median, micros};
use crate::table::{Table, Target};

/// Acknowledged writes before the kill.
const WRITES: usize = 50;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let count = sizes.many;
    let camp = Camp::found(&catalog(buckets(count), false));
    let device = camp.device("ann", vec![Grant::ALL]);
    fill(&device, &referents());
    let orders = some_orders(1, count, None);
    fill(&device, &as_records(&orders));
    device.close().expect("its caches are saved");
    let path = device.directory().to_owned();
    drop(device);
    let mut dice = Dice::seeded(5);
    let mut open = |path: &Path| {
        let key = order_key(&dice.pick(&orders).0);
        let (time, record) = micros(|| {
            let device = Device::open(path).expect("it is a device");
            let record = device.get(&key).expect("it reads");
            (device, record)
        });
        assert!(record.1.is_some(), "the record was written");
        time / 1e3
    };
    let times = (0..sizes.runs * 2).map(|_| open(&path)).collect();
    let what = format!("start, {count} records");
    table.row(&what, median(times), Target::AtMost(20.0, "ms"), "after a clean end".to_owned());
    let times = (0..sizes.runs).map(|run| {
        kill_while_writing(&path, &orders[run].0);
        open(&path)
    });
    let how = format!("after a kill with writes under way, {WRITES} or more since the last start");
    let what = format!("start after a kill, {count} records");
    table.row(&what, median(times.collect()), Target::AtMost(20.0, "ms"), how);
    command(sizes, table, &path, &orders[0].0);
    all_of_it(sizes, table, &path);
    camp.stop();
}

/// Opening a store and asking for all that is shown of it; and the search for words.
fn all_of_it(sizes: &Sizes, table: &mut Table, path: &Path) {
    let count = sizes.many;
    let times = (0..sizes.runs * 2).map(|_| {
        let (time, _) = micros(|| {
            let device = Device::open(path).expect("it is a device");
            let status = device.status().expect("it reads");
            assert_eq!(
                status.unsaved(),
                status.types.iter().map(|ty| ty.counts.local).sum::<u64>()
            );
            device
        });
        time / 1e3
    });
    let what = format!("start and whole status, {count} records");
    let how = "every record unsaved".to_owned();
    table.row(&what, median(times.collect()), Target::AtMost(5.0, "ms"), how);
    let device = Device::open(path).expect("it is a device");
    let (first, _) = micros(|| device.search("nothing", None, 50).expect("it reads"));
    let words = ["confirmed", "gm-1", "c17", "draft 3", "delivered"];
    let times = (0..sizes.runs * 2).map(|run| {
        let word = words[run % words.len()];
        micros(|| device.search(word, None, 50).expect("it reads")).0 / 1e3
    });
    let how = format!("50 results; indexing everything once took {:.1} s", first / 1e6);
    let what = format!("search, {count} records");
    table.row(&what, median(times.collect()), Target::AtMost(30.0, "ms"), how);
}

/// Has another process write, and kills it while it does.
fn kill_while_writing(path: &Path, id: &str) {
    let mut writer = start_part("writer", &[&path.display().to_string(), id]);
    let output = BufReader::new(writer.stdout.take().expect("it is piped"));
    let written = output.lines().map_while(Result::ok).take(WRITES).count();
    assert_eq!(written, WRITES, "the writer writes until it is killed");
    writer.kill().expect("it runs");
    writer.wait().expect("it was killed");
}

/// The process that is killed.
pub(crate) fn writer(arguments: &[String]) {
    let device = Device::open(&PathBuf::from(&arguments[0])).expect("it is a device");
    let key = order_key(&arguments[1]);
    for nth in 0.. {
        let edit = state_edit(std::process::id() as usize * 100_000 + nth);
        device.put(&key, &edit).expect("it is saved");
        println!("{nth}");
    }
}

/// The whole command, as a user types it.
fn command(sizes: &Sizes, table: &mut Table, path: &Path, id: &str) {
    let get = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
        command.args(["get", &format!("order/{id}"), "--json", "--dir"]).arg(path);
        micros(|| command.output().expect("the binary is built"))
    };
    let (_, output) = get();
    if !output.status.success() || !String::from_utf8_lossy(&output.stdout).contains(id) {
        println!("the command `fieldkeep get` does not answer here: its row is left out");
        return;
    }
    let times = (0..sizes.runs * 2).map(|_| get().0 / 1e3).collect();
    let what = format!("`fieldkeep get`, {} records", sizes.many);
    table.row(&what, median(times), Target::None, "ms, the whole command".to_owned());
}
