//! What a change did to fields, where the values that stand do not tell who did it: an increment, a
//! field that was cleared, characters taken out of a text, an object that was made empty.

use std::collections::BTreeSet;

use fieldkeep_model::RecordId;

use super::Document;
use super::history::{Act, Locate, each_act};
use super::path::{Asked, FieldPath};

/// What a change did to a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// The record.
    pub record: RecordId,
    /// The field, as `customer` or `lines[7].quantity`; `lines` and `lines[7]` where a set or a
    /// child was made, empty where a record was.
    pub field: String,
    /// Whether what stood there before is gone: it was replaced or cleared, not added to.
    pub replaces: bool,
    /// Whether [`Document::writers`] names the change for as long as what it did stands.
    pub visible: bool,
}

impl Deed {
    /// Whether it was done to that field, or to something in it.
    #[must_use]
    pub fn lies_in(&self, field: &str) -> bool {
        // A name that somebody made up may read back as something else.
        self.field == field || Asked::of([field]).names(&FieldPath::parse(&self.field))
    }
}

impl Document {
    /// The places within those fields of a record to which a change did something, as
    /// [`Document::writers`] takes fields.
    #[must_use]
    pub fn deeds_in(
        chunk: &[u8],
        locate: &Locate<'_>,
        id: &RecordId,
        fields: &[String],
    ) -> BTreeSet<String> {
        let asked = Asked::of(fields.iter().map(String::as_str));
        let mut places = BTreeSet::new();
        each_act(chunk, locate, &mut Default::default(), &mut |record, path, _| {
            if record == id && !path.field.is_empty() && asked.names(path) {
                places.insert(path.to_string());
            }
        });
        places
    }

    /// What a change did, sorted, each once. Objects that the change made itself are known; the
    /// others are looked up. Empty if the chunk is no change.
    #[must_use]
    pub fn deeds(chunk: &[u8], locate: &Locate<'_>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        each_act(chunk, locate, &mut Default::default(), &mut |record, path, act| {
            let (replaces, visible) = match act {
                Act::Made | Act::Added(_) => (false, false),
                Act::Put(_) | Act::Text => (true, true),
                Act::Cleared => (true, false),
                Act::Spliced(text) => (false, !text.is_empty()),
            };
            let (record, field) = (record.clone(), path.to_string());
            deeds.push(Deed { record, field, replaces, visible });
        });
        deeds.sort_unstable();
        deeds.dedup();
        deeds
    }
}
