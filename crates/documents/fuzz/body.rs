//! Whatever bytes a peer sends as a batch or as a change: they are that, or an error, nothing panics,
//! and what is read comes back byte for byte.

use fieldkeep_documents::batch;
use fieldkeep_documents::gate::History;
use fieldkeep_model::ChangeHeader;
use fieldkeep_model::header::{self, limit};

/// The most that a batch may come to here.
const RAW_MAX: usize = 1 << 20;

pub(crate) fn batches(data: &[u8]) {
    decodes(data);
    // Past the version and the compression, where the streams are.
    decodes(&[&[1, 0], data].concat());
}

fn decodes(bytes: &[u8]) {
    let Ok(chunks) = batch::decode(bytes, RAW_MAX) else { return };
    assert!(chunks.iter().map(Vec::len).sum::<usize>() <= RAW_MAX);
    let borrowed: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let again = batch::encode(&borrowed, 3);
    assert_eq!(batch::decode(&again, RAW_MAX).as_ref(), Ok(&chunks));
}

pub(crate) fn headers(data: &[u8]) {
    parses(data);
    // With a frame and a checksum that fit, so that the body is reached.
    parses(&header::frame(data));
}

fn parses(chunk: &[u8]) {
    let parsed = ChangeHeader::parse_with_raw(chunk);
    let refusal = History::new().check(chunk);
    let Ok((header, raw)) = parsed else {
        assert_eq!(refusal.err().map(|refusal| refusal.stage), Some(0));
        return;
    };
    assert!(raw.len() <= limit::INFLATED + 64 && header.ops <= limit::OPS);
    assert!(header.deps.len() <= limit::DEPS && header.max_op() < limit::MAX_OP);
    let body = &raw[header.layout.body.clone()];
    assert_eq!(header::frame(body)[..], raw[..], "the frame is canonical");
}
