//! The whole system measured: prints a table with every figure that the project promises.
//!
//! Runs on a real disk with real QUIC and real files. Where there is a floor (the least that the
//! machine needs for the same bytes), it stands beside its subject and both alternate in one run;
//! every figure is a median of at least five runs. Subjects that need another process get one: this
//! program starts itself again with an argument. `FIELDKEEP_BENCH=quick` checks that all of it works
//! with small sizes; arguments name the rows to run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what this program makes is a table")]

mod authors;
mod camp;
mod catalog;
mod catching_up;
mod console;
mod files;
#[path = "../../tests/support/http.rs"]
mod http;
mod idle;
mod import;
mod ingest;
mod judging;
mod live;
mod measure;
mod quarantine;
mod reads;
mod start;
mod table;
mod writes;

use camp::Sizes;
use measure::Disk;
use mimalloc::MiMalloc;
use table::Table;

/// What the binary uses, too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures one row of the table, or several.
type Row = fn(&Sizes, &mut Table);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("--part") {
        let rest: Vec<String> = arguments.collect();
        return part(&rest[0], &rest[1..]);
    }
    let wanted: Vec<String> = first.into_iter().chain(arguments).collect();
    let wants = |row: &str| wanted.is_empty() || wanted.iter().any(|name| name == row);
    let sizes = Sizes::of_environment();
    let disk = Disk::examine(&camp::base());
    println!("{disk}, synchronous = FULL, write-ahead log\n");
    let mut table = Table::default();
    let rows: [(&str, Row); 14] = [
        ("put", writes::run),
        ("read", reads::run),
        ("import", import::run),
        ("ingest", ingest::run),
        ("judge", judging::run),
        ("quarantine", quarantine::run),
        ("catalog", catalog::run),
        ("cold", catching_up::cold),
        ("reconnect", catching_up::reconnect),
        ("live", live::run),
        ("start", start::run),
        ("console", console::run),
        ("files", files::run),
        ("idle", idle::run),
    ];
    for (name, row) in rows {
        if wants(name) {
            row(&sizes, &mut table);
        }
    }
    println!("\n{disk}\n\n{table}");
}

/// What a process does that this one started.
fn part(name: &str, arguments: &[String]) {
    match name {
        "ingest" => ingest::devices(arguments),
        "relay" => idle::relay(arguments),
        "idlers" => idle::devices(arguments),
        "writer" => start::writer(arguments),
        other => panic!("no such part: {other}"),
    }
}
