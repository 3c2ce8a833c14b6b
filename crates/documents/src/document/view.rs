//! What is read of a document: as it is, inside an open transaction, or as it was.
//!
//! A past state is named by the heads that it had, and read in place: no second document is built for
//! it. Heads that the document does not hold stand for nothing.

use automerge::iter::{Keys, MapRange};
use automerge::{Automerge, ChangeHash, ObjId, ReadDoc, Value};

/// A state of a document.
pub(super) trait View {
    /// All values that stand at a key.
    fn get_all(&self, object: &ObjId, key: &str) -> Vec<(Value<'_>, ObjId)>;
    /// The keys and values of a map.
    fn map_range(&self, object: &ObjId) -> MapRange<'_>;
    /// The keys of a map.
    fn keys(&self, object: &ObjId) -> Keys<'_>;
    /// The content of a text.
    fn text(&self, object: &ObjId) -> String;
}

impl<T: ReadDoc> View for T {
    fn get_all(&self, object: &ObjId, key: &str) -> Vec<(Value<'_>, ObjId)> {
        ReadDoc::get_all(self, object, key).unwrap_or_default()
    }

    fn map_range(&self, object: &ObjId) -> MapRange<'_> {
        ReadDoc::map_range(self, object, ..)
    }

    fn keys(&self, object: &ObjId) -> Keys<'_> {
        ReadDoc::keys(self, object)
    }

    fn text(&self, object: &ObjId) -> String {
        ReadDoc::text(self, object).unwrap_or_default()
    }
}

/// A document as it was.
#[derive(Debug)]
pub(super) struct Past<'d> {
    doc: &'d Automerge,
    heads: Vec<ChangeHash>,
}

impl<'d> Past<'d> {
    /// The state with these heads. Without any it is empty.
    pub(super) fn new(doc: &'d Automerge, heads: &[fieldkeep_model::ChangeHash]) -> Self {
        Self { doc, heads: heads.iter().map(|hash| ChangeHash(hash.0)).collect() }
    }
}

impl View for Past<'_> {
    fn get_all(&self, object: &ObjId, key: &str) -> Vec<(Value<'_>, ObjId)> {
        self.doc.get_all_at(object, key, &self.heads).unwrap_or_default()
    }

    fn map_range(&self, object: &ObjId) -> MapRange<'_> {
        self.doc.map_range_at(object, .., &self.heads)
    }

    fn keys(&self, object: &ObjId) -> Keys<'_> {
        self.doc.keys_at(object, &self.heads)
    }

    fn text(&self, object: &ObjId) -> String {
        self.doc.text_at(object, &self.heads).unwrap_or_default()
    }
}
