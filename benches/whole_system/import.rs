//! Importing: the command, from a file of new records until they are durable on the device.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fieldkeep_model::Grant;

use crate::camp::{Camp, Sizes, buckets};
use crate::measure::median;
use crate::table::{Table, Target};

/// Rows for each order of magnitude that `Sizes` knows.
const ROWS: usize = 2;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let count = sizes.records[1] * ROWS;
    let camp = Camp::found(&format!(
        "catalog = 1\n[type.shop.field]\nname = {{ required = true }}\n\
         [type.note]\nbuckets = {buckets}\n[type.note.field]\ntext = {{}}\n\
         [type.visit]\nbuckets = {buckets}\n[type.visit.field]\n\
         shop = {{ ref = \"shop\", required = true }}\nremark = {{}}\n\
         minutes = {{ schema = {{ type = \"integer\", minimum = 0 }} }}\n\
         [[type.visit.rule]]\nname = \"short\"\ncel = \"record.minutes <= 600\"\n\
         reason = \"nobody visits a shop for ten hours\"\n",
        buckets = buckets(count)
    ));
    let mut notes = "id,text\n".to_owned();
    let mut visits = "id,shop,minutes,remark\n".to_owned();
    for nth in 0..count {
        let _ = writeln!(notes, "n-{nth:06},a word about shelf {nth}");
        let _ = writeln!(visits, "v-{nth:06},s{},{},shelf {nth} is full", nth % 50, nth % 90);
    }
    let shops = (0..50).map(|nth| format!("s{nth},shop {nth}\n")).collect::<String>();
    let mut times = [Vec::new(), Vec::new()];
    for nth in 0..sizes.runs {
        let path = camp.join(&format!("subject-{nth}"), vec![Grant::ALL]);
        imported(&path, "shop", &format!("id,name\n{shops}"));
        for (times, (ty, rows)) in times.iter_mut().zip([("note", &notes), ("visit", &visits)]) {
            times.push(count as f64 / imported(&path, ty, rows));
        }
    }
    let kinds = ["one field", "a reference and a rule"];
    for (kind, times) in kinds.into_iter().zip(times) {
        let how = format!("{count} rows with ids, CSV, the whole command");
        let target = Target::AtLeast(10_000.0, "rows/s");
        table.row(&format!("import, {kind}"), median(times), target, how);
    }
    camp.stop();
}

/// Imports those rows by the command; how long it took, in seconds.
fn imported(path: &Path, ty: &str, rows: &str) -> f64 {
    let file = path.with_extension("csv");
    std::fs::write(&file, rows).expect("the disk takes it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
    command.args(["import", ty]).arg(&file).arg("--dir").arg(path);
    let begin = Instant::now();
    let ended = command.output().expect("the binary is built");
    let took = begin.elapsed().as_secs_f64();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    took
}
