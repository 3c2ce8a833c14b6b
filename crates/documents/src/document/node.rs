//! The union of twins: all map objects that stand at one place of the record tree.
//!
//! Two devices that create the same record, set or child make two objects at one key, of which
//! Automerge would show one and hide the other whole. Here they are one: each key is resolved over
//! all of them by the highest (operation counter, actor). An operation made later has seen all of
//! them and counts higher, so it wins whichever object it is written into.

use automerge::iter::MapRangeItem;
use automerge::{ObjId, ObjType, ROOT, ScalarValue, Value};

use super::view::View;

/// The key of a soft deletion, in a record's map or a child's.
pub(super) const DELETED: &str = "~deleted";

/// The map objects at one place, the winner first; never empty.
#[derive(Clone, Debug)]
pub(super) struct Node(Vec<ObjId>);

/// One of the values that stand at a key.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// What was written.
    pub(super) value: Value<'static>,
    /// The operation that wrote it, which names the object if it is one.
    pub(super) id: ObjId,
    /// The map object that holds it.
    pub(super) holder: ObjId,
}

impl Candidate {
    /// Whether it is a map: a set, or a set's child.
    pub(super) fn is_map(&self) -> bool {
        self.value.as_objtype() == Some(ObjType::Map)
    }

    /// Whether it is a text.
    pub(super) fn is_text(&self) -> bool {
        self.value.as_objtype() == Some(ObjType::Text)
    }

    /// The scalar, if it is one.
    pub(super) fn scalar(&self) -> Option<&ScalarValue> {
        self.value.as_scalar()
    }
}

impl Node {
    /// The record with that id: all maps under the root's key.
    pub(super) fn record(doc: &impl View, id: &str) -> Option<Self> {
        let objects = doc.get_all(&ROOT, id).into_iter().rev();
        let maps = objects.filter(|(value, _)| value.as_objtype() == Some(ObjType::Map));
        Self::of(maps.map(|(_, id)| id).collect())
    }

    /// A place where one object stands.
    pub(super) fn single(object: ObjId) -> Self {
        Self(vec![object])
    }

    /// The maps among the values of a key, if a map is what wins there.
    pub(super) fn below(candidates: &[Candidate]) -> Option<Self> {
        candidates.first().filter(|winner| winner.is_map())?;
        Self::of(candidates.iter().filter(|c| c.is_map()).map(|c| c.id.clone()).collect())
    }

    fn of(objects: Vec<ObjId>) -> Option<Self> {
        if objects.is_empty() { None } else { Some(Self(objects)) }
    }

    /// The object that writes go to.
    pub(super) fn winner(&self) -> &ObjId {
        &self.0[0]
    }

    /// All the objects, the winner first.
    pub(super) fn objects(&self) -> &[ObjId] {
        &self.0
    }

    /// The values that stand at a key in any of the objects, the winner first.
    pub(super) fn candidates(&self, doc: &impl View, key: &str) -> Vec<Candidate> {
        let mut all = Vec::new();
        for holder in &self.0 {
            for (value, id) in doc.get_all(holder, key) {
                all.push(Candidate { value: value.into_owned(), id, holder: holder.clone() });
            }
        }
        all.sort_by(|a, b| b.id.cmp(&a.id));
        all
    }

    /// The keys of all the objects, ascending.
    pub(super) fn keys(&self, doc: &impl View) -> Vec<String> {
        let mut keys: Vec<String> = self.0.iter().flat_map(|object| doc.keys(object)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Every key with its values, ascending. One object is walked once, and a key looked up only
    /// where there are concurrent values: a walk costs less than a single lookup.
    pub(super) fn entries(&self, doc: &impl View) -> Vec<(String, Vec<Candidate>)> {
        if let [holder] = self.objects() {
            let entry = |item: MapRangeItem<'_>| {
                let candidates = if item.conflict {
                    self.candidates(doc, &item.key)
                } else {
                    let (id, holder) = (item.id(), holder.clone());
                    vec![Candidate { value: item.value.into(), id, holder }]
                };
                (item.key.into_owned(), candidates)
            };
            return doc.map_range(holder).map(entry).collect();
        }
        let keys = self.keys(doc).into_iter();
        keys.map(|key| {
            let candidates = self.candidates(doc, &key);
            (key, candidates)
        })
        .collect()
    }

    /// Whether the soft deletion stands.
    pub(super) fn is_deleted(&self, doc: &impl View) -> bool {
        let candidates = self.candidates(doc, DELETED);
        candidates.first().is_some_and(|c| c.scalar() == Some(&ScalarValue::Boolean(true)))
    }
}
