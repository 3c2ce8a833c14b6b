//! What stays in memory: documents in bounded number and of bounded size, whatever their segments
//! hold.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use fieldkeep_model::Grant;
use support::{Organisation, key, put};

const CATALOG: &str = r#"
catalog = 1
[type.note]
scope = "place"
[type.note.field]
place = {}
text = {}
"#;

/// How many documents are in memory after as many segments were written to, with those limits.
fn loaded(segments: usize, documents: usize, bytes: usize) -> usize {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL]]);
    let ann = &mut org.devices[0];
    ann.replica.limit_documents(documents);
    ann.replica.limit_memory(bytes);
    for round in ["a", "b"] {
        for nth in 0..segments {
            let edits = vec![put("place", &nth.to_string()), put("text", &round.repeat(1_000))];
            ann.put(&key("note", &nth.to_string()), edits);
        }
    }
    ann.replica.loaded_documents()
}

#[test]
fn documents_are_bounded_in_number_and_in_bytes() {
    assert_eq!(loaded(6, 64, usize::MAX), 6);
    assert_eq!(loaded(6, 4, usize::MAX), 4);
    // Each takes over twenty thousand bytes by estimate: more is dropped before one more is loaded.
    assert!((2..6).contains(&loaded(6, 64, 2 * 60_000)));
    assert_eq!(loaded(6, 64, 1), 1, "the one in use stays, whatever it takes");
}
