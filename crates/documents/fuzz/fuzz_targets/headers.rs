//! Feeds bytes to the header parser, as a chunk and as a chunk's body.
#![no_main]

#[path = "../body.rs"]
#[allow(dead_code)]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::headers(data));
