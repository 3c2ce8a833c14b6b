//! The index of operations: for each one the object it acts in, the slot, and what it left there.
//!
//! Twelve bytes an operation, in the order of admission, append-only. Holds no values: what a field
//! contains is the document's business. Positions in the index are local to a replica and never
//! leave it.

use std::collections::BTreeMap;

use fieldkeep_model::RecordId;
use fieldkeep_model::header::limit;

use super::touch::{Path, Step};

/// What an operation left in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Map,
    List,
    Text,
    Scalar,
    Counter,
    Increment,
    Delete,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Map,
        Self::List,
        Self::Text,
        Self::Scalar,
        Self::Counter,
        Self::Increment,
        Self::Delete,
    ];

    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Map | Self::List | Self::Text)
    }

    /// Whether it left a value that can be overwritten.
    pub(super) fn is_value(self) -> bool {
        !matches!(self, Self::Increment | Self::Delete)
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The object that it acts in.
    pub(super) object: u32,
    /// In a map the key; in a sequence the operation that inserted the element.
    pub(super) slot: u32,
    pub(super) kind: Kind,
}

/// No operation, or no key.
pub(super) const NONE: u32 = u32::MAX;
/// The root, which no operation made.
pub(super) const ROOT: u32 = 0;

/// What an operation or an object belongs to, as keys: a record, a field of it, a field of the
/// field's children. [`NONE`] where it belongs to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) record: u32,
    pub(super) field: u32,
    pub(super) below: u32,
}

/// A map, list or text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// The operation that made it.
    pub(super) op: u32,
    pub(super) kind: Kind,
    /// The root has 0, a record 1, a set 2, its child 3.
    pub(super) depth: u8,
    pub(super) place: Place,
}

impl Object {
    const ROOT: Self = Self {
        op: NONE,
        kind: Kind::Map,
        depth: 0,
        place: Place { record: NONE, field: NONE, below: NONE },
    };

    /// Where an operation in this object belongs; `key` is [`NONE`] in a sequence. What lies deeper
    /// than a child's fields belongs to the field that leads there: a name for every level would
    /// let a change of 64 KiB spell out megabytes.
    pub(super) fn place(&self, key: u32) -> Place {
        match self.depth {
            0 => Place { record: key, ..self.place },
            1 => Place { field: key, ..self.place },
            3 => Place { below: key, ..self.place },
            _ => self.place,
        }
    }

    /// The object that an operation in this one makes.
    pub(super) fn made(&self, op: u32, kind: Kind, key: u32) -> Option<Self> {
        let depth = self.depth.checked_add(1).filter(|depth| *depth <= limit::DEPTH)?;
        Some(Self { op, kind, depth, place: self.place(key) })
    }
}

/// The operations, objects and keys of all admitted changes.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    /// In the order of the operations that made them; the root is the first.
    pub(super) objects: Vec<Object>,
    pub(super) keys: Keys,
}

impl Default for Index {
    fn default() -> Self {
        Self { entries: Vec::new(), objects: vec![Object::ROOT], keys: Keys::default() }
    }
}

impl Index {
    /// The position of the object that an operation made.
    pub(super) fn object(&self, op: u32) -> Option<u32> {
        let at = self.objects[1..].binary_search_by_key(&op, |object| object.op).ok()?;
        Some(at as u32 + 1)
    }

    /// What some operations belong to, one after the other.
    pub(super) fn places(&self, first: u32, count: u32) -> impl Iterator<Item = Place> {
        let entries = &self.entries[first as usize..(first + count) as usize];
        entries.iter().map(|entry| self.objects[entry.object as usize].place(entry.slot))
    }

    /// Where an operation acts, from its record down.
    pub(super) fn path(&self, op: u32) -> Option<Path> {
        let mut steps = Vec::new();
        let mut entry = self.entries.get(op as usize)?;
        while entry.object != ROOT {
            let object = &self.objects[entry.object as usize];
            steps.push(if object.kind == Kind::Map {
                Step::Key(self.keys.text(entry.slot).to_owned())
            } else {
                Step::Element
            });
            entry = &self.entries[object.op as usize];
        }
        steps.reverse();
        let record = RecordId::new(self.keys.text(entry.slot)).ok()?;
        Some(Path { record, steps })
    }
}

/// Interned keys of maps: each text is kept once.
#[derive(Debug, Default)]
pub(super) struct Keys {
    texts: Vec<Box<str>>,
    numbers: BTreeMap<Box<str>, u32>,
}

impl Keys {
    pub(super) fn len(&self) -> u32 {
        self.texts.len() as u32
    }

    pub(super) fn text(&self, key: u32) -> &str {
        &self.texts[key as usize]
    }

    pub(super) fn number(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|text| &**text)
    }

    /// Adds a text; false if it is there already.
    pub(super) fn push(&mut self, text: &str) -> bool {
        if self.numbers.contains_key(text) {
            return false;
        }
        self.numbers.insert(text.into(), self.len());
        self.texts.push(text.into());
        true
    }
}
