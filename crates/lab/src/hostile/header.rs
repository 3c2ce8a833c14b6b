//! What stage 0 must stop: malformed chunks, and those that claim more than they pay for.

use std::io::Write;

use fieldkeep_model::header::{frame, write_sleb, write_uleb};

use super::{Hostile, Stage, chunk, make_record};
use crate::anatomy::Anatomy;

pub(super) fn rows(stage: &Stage) -> Vec<Hostile> {
    let mut rows = framing(stage);
    rows.extend(deflation(stage));
    rows.extend(fields(stage));
    rows.extend(columns(stage));
    rows
}

fn row(name: &'static str, code: &'static str, chunk: Vec<u8>) -> Hostile {
    Hostile { name, stage: 0, code, chunk }
}

fn framing(stage: &Stage) -> Vec<Hostile> {
    let honest = stage.anatomy().chunk();
    let long = with(stage, |body| body.extra = vec![0; 64 * 1024]);
    let trailing = [&honest[..], &[0]].concat();
    let mut checksum = honest.clone();
    checksum[4] ^= 1;
    let document = stage.doc.clone().save();
    vec![
        row("longer than 64 KiB", "too-long", long),
        row("no chunk", "not-a-chunk", b"hello".to_vec()),
        row("a document", "not-a-change", document),
        row("nothing behind the frame", "length", honest[..honest.len() - 1].to_vec()),
        row("a byte behind the chunk", "length", trailing),
        row("a wrong checksum", "checksum", checksum),
    ]
}

/// A deflated chunk of that body.
fn deflated(body: &[u8], trailing: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).expect("writing to memory cannot fail");
    let mut stream = encoder.finish().expect("writing to memory cannot fail");
    stream.extend_from_slice(trailing);
    let mut chunk = frame(body)[..8].to_vec();
    chunk.push(2);
    write_uleb(&mut chunk, stream.len() as u64);
    chunk.extend_from_slice(&stream);
    chunk
}

fn deflation(stage: &Stage) -> Vec<Hostile> {
    let honest = stage.anatomy().body();
    let long = with(stage, |body| body.extra = vec![0; 70_000]);
    let long = Anatomy::of(&long).expect("only its length is hostile").body();
    vec![
        row("inflates to 2 MiB", "bomb", deflated(&vec![0; 2 << 20], &[])),
        row("deflated without need", "deflate", deflated(&honest, &[])),
        row("bytes behind the deflate stream", "deflate", deflated(&long, b"ballast")),
    ]
}

/// An honest next change but for what `spoil` does to its parts.
fn with(stage: &Stage, spoil: impl FnOnce(&mut Anatomy)) -> Vec<u8> {
    let mut body = stage.anatomy();
    spoil(&mut body);
    body.chunk()
}

fn fields(stage: &Stage) -> Vec<Hostile> {
    let many = (0..1025u64).map(|i| std::array::from_fn(|at| (i >> (8 * (31 - at).min(7))) as u8));
    let many: Vec<[u8; 32]> = many.collect();
    let footer = |body: &mut Anatomy| body.extra = vec![1, 2, b'm', b'e'];
    vec![
        row("1,025 dependencies", "too-many-deps", with(stage, |body| body.deps = many)),
        row(
            "a dependency twice",
            "deps-unsorted",
            with(stage, |body| body.deps.push(body.deps[0])),
        ),
        row("an actor of three bytes", "actor", with(stage, |body| body.actor = vec![1, 2, 3])),
        row(
            "itself as other actor",
            "actor",
            with(stage, |body| body.others = vec![body.actor.clone()]),
        ),
        row(
            "a message of 201 bytes",
            "message",
            with(stage, |body| body.message = vec![b'x'; 201]),
        ),
        row("a message that is no text", "message", with(stage, |body| body.message = vec![0xff])),
        row("the end of time", "number", with(stage, |body| body.time = i64::MAX)),
        row("an overlong time", "number", overlong_time(stage)),
        row("no counter", "counter-too-high", with(stage, |body| body.start_op = 0)),
        row(
            "a counter near 2^32",
            "counter-too-high",
            with(stage, |b| b.start_op = u32::MAX.into()),
        ),
        row("an author footer", "extra-bytes", with(stage, footer)),
        row(
            "an author footer and seq 7",
            "extra-bytes",
            with(stage, |body| {
                footer(body);
                body.seq = 7;
            }),
        ),
    ]
}

/// The time as `0x83 0x00`, which means 3 as `0x03` does.
fn overlong_time(stage: &Stage) -> Vec<u8> {
    let body = stage.anatomy();
    let before = 1 + body.deps.len() * 32 + 1 + body.actor.len() + 1 + 1;
    let mut bytes = body.body();
    bytes.splice(before..=before, [0x83, 0x00]);
    frame(&bytes)
}

fn columns(stage: &Stage) -> Vec<Hostile> {
    let bomb = |body: &mut Anatomy| body.columns = claim(200_000);
    let preds = |body: &mut Anatomy| *body.column(112) = vec![0x7f, 0x80, 0x80, 0x80, 0x04];
    let negative = |body: &mut Anatomy| body.columns = vec![(66, least())];
    vec![
        row("200,000 operations in a few bytes", "too-many-ops", with(stage, bomb)),
        row("eight million predecessors", "too-many-ops", with(stage, preds)),
        row("a run of -2^63", "too-many-ops", with(stage, negative)),
        row("a column nobody knows", "column", with(stage, |body| *body.column(201) = vec![1, 1])),
        row("a deflated column", "column", with(stage, |body| *body.column(66 | 8) = vec![1, 1])),
        row("an empty column", "column", with(stage, |body| body.column(165).clear())),
        row(
            "a column twice",
            "column",
            with(stage, |body| body.columns.push((112, vec![0x7f, 0]))),
        ),
        row("more operations than a change may have", "too-many-ops", too_many(stage)),
    ]
}

/// So many creations of the record `o`, in a few bytes. Automerge takes memory and seconds for them.
fn claim(operations: i64) -> Vec<(u64, Vec<u8>)> {
    let run = |item: &[u8]| {
        let mut run = Vec::new();
        write_sleb(&mut run, operations);
        run.extend_from_slice(item);
        run
    };
    let mut insert = Vec::new();
    write_uleb(&mut insert, operations.unsigned_abs());
    vec![(21, run(&[1, b'o'])), (52, insert), (66, run(&[0])), (86, run(&[0])), (112, run(&[0]))]
}

fn least() -> Vec<u8> {
    let mut run = Vec::new();
    write_sleb(&mut run, i64::MIN);
    run
}

/// 16,385 operations, all of them there.
fn too_many(stage: &Stage) -> Vec<u8> {
    chunk(stage.change(vec![make_record("order-3"); 16_385]))
}
