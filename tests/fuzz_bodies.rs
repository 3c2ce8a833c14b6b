//! The bodies of the fuzz targets as property tests: every file of their corpora, and thousands of
//! mutants of them, with and without a fuzzer at hand.
//!
//! `FIELDKEEP_WRITE_CORPUS=1` writes the files of the corpora that are absent.

#![allow(clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;

use fieldkeep_documents::batch;
use fieldkeep_lab::{Dice, generate, hostile};
use fieldkeep_model::{BlobHash, Epoch, OrgId, Seed};
use fieldkeep_protocol::blob::Upload;
use fieldkeep_protocol::frame::Frame;
use fieldkeep_protocol::{Meet, bundle};

#[path = "../crates/catalog/fuzz/body.rs"]
mod catalog_body;
#[path = "../crates/documents/fuzz/body.rs"]
mod documents_body;
#[path = "../crates/protocol/fuzz/body.rs"]
mod protocol_body;

const SEED: u64 = 53;

fn corpus(room: &str, target: &str) -> PathBuf {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates");
    crates.join(room).join("fuzz/corpus").join(target)
}

/// The corpus, after the seeds of it were written if that was asked for.
fn inputs(room: &str, target: &str, seeds: impl Fn() -> Vec<(String, Vec<u8>)>) -> Vec<Vec<u8>> {
    let folder = corpus(room, target);
    if std::env::var_os("FIELDKEEP_WRITE_CORPUS").is_some() {
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, bytes) in seeds() {
            let path = folder.join(name);
            if !path.exists() {
                fs::write(path, bytes).expect("the folder is there");
            }
        }
    }
    let files = fs::read_dir(&folder).expect("the corpus is in the repository");
    let mut paths: Vec<_> = files.map(|file| file.expect("it reads").path()).collect();
    paths.sort();
    let inputs: Vec<_> = paths.iter().map(|path| fs::read(path).expect("it reads")).collect();
    assert!(inputs.len() > 1, "{} is nearly empty", folder.display());
    inputs
}

/// Runs a body on each input, and on so many mutants.
fn run(inputs: &[Vec<u8>], mutants: usize, body: fn(&[u8])) {
    println!("seed {SEED}");
    let mut dice = Dice::seeded(SEED);
    inputs.iter().for_each(|input| body(input));
    for _ in 0..mutants {
        let mut bytes = dice.pick::<Vec<u8>>(inputs).clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut dice, &mut bytes, inputs);
        }
        body(&bytes);
    }
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.push(dice.below(256) as u8);
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(7) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.below(256) as u8,
        2 => bytes.insert(at, dice.below(256) as u8),
        3 => drop(bytes.remove(at)),
        4 => bytes.truncate(at),
        5 => {
            let end = (at + 1 + dice.below(16)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let donor = dice.pick::<Vec<u8>>(inputs);
            let from = dice.below(donor.len().max(1)).min(donor.len());
            let end = (from + 1 + dice.below(32)).min(donor.len());
            let piece = donor[from..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The golden frames, each behind the byte that says where it is cut.
fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/protocol/tests/golden");
    let files = fs::read_dir(folder).expect("the golden frames").map(|file| {
        let path = file.expect("it reads").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("it reads");
        (name, [vec![128], unhex(&text)].concat())
    });
    files.collect()
}

#[test]
fn no_bytes_break_the_frame_decoder_or_a_session() {
    run(&inputs("protocol", "frames", golden), 30_000, protocol_body::frames);
}

#[test]
fn no_bytes_break_the_decoder_of_the_frames_of_files() {
    let of_files = || {
        let numbered = |name: &str| name[..2].parse().is_ok_and(|n: u8| (61..=81).contains(&n));
        golden().into_iter().filter(|(name, _)| numbered(name)).collect()
    };
    run(&inputs("protocol", "files", of_files), 30_000, protocol_body::files);
}

#[test]
fn no_bytes_break_the_reader_of_bundles() {
    let seeds = || {
        let keys = Seed([1; 32]).signing();
        let header = bundle::Header {
            org: OrgId([7; 16]),
            from: keys.public(),
            to: Seed([2; 32]).signing().public(),
            created: 1_700_000_000_000,
            epoch: Epoch::default(),
            catalog: 3,
            members: 4,
            members_sum: [6; 16],
            since: None,
        };
        let with_files = [0u64, 1, 2].map(|files| {
            let mut bytes = Vec::new();
            let mut writer = bundle::Writer::new(&mut bytes, &header).expect("memory");
            let meet = Meet { segments: Vec::new(), whole: false };
            writer.frames(&Frame::Meet(meet).encode()).expect("memory");
            for n in 0..files {
                let content = [n as u8; 100];
                let hash = BlobHash(*blake3::hash(&content).as_bytes());
                let record = "visit/v1".parse().expect("a record's name");
                let file = Upload { hash, record, size: 100, tree: Vec::new() };
                let file = bundle::Enclosure { file, waits: n == 0 };
                writer.file(&file, &mut &content[..]).expect("memory");
            }
            writer.finish(&keys).expect("memory");
            (format!("files-{files}"), bytes)
        });
        with_files.into()
    };
    run(&inputs("protocol", "bundles", seeds), 10_000, protocol_body::bundles);
}

#[test]
fn no_bytes_break_the_batch_codec() {
    let seeds = || {
        let session = generate::session(3, 3, 40);
        let batches = [1, 3, 20].map(|count| {
            let chunks: Vec<&[u8]> = session.iter().take(count).map(Vec::as_slice).collect();
            let whole: Vec<&[u8]> = vec![b"no change at all"; count];
            (count, batch::encode(&chunks, 3), batch::encode(&whole, 3))
        });
        let named = batches.into_iter().flat_map(|(count, honest, whole)| {
            [(format!("honest-{count}"), honest), (format!("whole-{count}"), whole)]
        });
        named.collect()
    };
    run(&inputs("documents", "batches", seeds), 10_000, documents_body::batches);
}

#[test]
fn no_bytes_break_the_header_parser() {
    let seeds = || {
        let session = generate::session(3, 3, 12).into_iter().enumerate();
        let honest = session.map(|(n, chunk)| (format!("honest-{n}"), chunk));
        let rows = hostile::Stage::set().hostile().into_iter();
        // Those that crash Automerge are not kept as files: stage 0 only, and small ones.
        let rows = rows.filter(|row| row.stage == 0 && row.chunk.len() < 400);
        let rows = rows.map(|row| (row.name.replace(' ', "-"), row.chunk));
        honest.chain(rows).collect()
    };
    let inputs = inputs("documents", "headers", seeds);
    // As chunks, and as bodies that get a frame and a checksum.
    let bodies = inputs.iter().map(|chunk| chunk.get(10..).unwrap_or_default().to_vec());
    let all: Vec<_> = inputs.iter().cloned().chain(bodies).collect();
    run(&all, 20_000, documents_body::headers);
}

#[test]
fn no_text_breaks_the_catalog_parser() {
    let seeds = || {
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
        let files = ["northwind", "squirrels"].map(|name| {
            let text = fs::read(examples.join(format!("{name}.toml"))).expect("an example");
            (name.to_owned(), text)
        });
        let small = "catalog = 1\n[type.order]\nscope = \"outlet\"\nbuckets = 16\n\
            [type.order.field.outlet]\n[type.order.field.lines]\nkind = \"set\"\n\
            [type.order.field.lines.field.quantity]\nschema = { type = \"integer\" }\n\
            [[type.order.rule]]\nname = \"positive\"\n\
            cel = \"record.lines.all(l, l.quantity > 0)\"\nreason = \"above 0\"\n";
        let rest = [("small".to_owned(), small.into()), ("empty".to_owned(), Vec::new())];
        files.into_iter().chain(rest).collect()
    };
    run(&inputs("catalog", "catalogs", seeds), 4_000, catalog_body::catalogs);
}
