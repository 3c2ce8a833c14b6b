//! What a change touches, in words of records and fields rather than of operations.

use fieldkeep_model::RecordId;

/// A field of a record that a change wrote, whatever it wrote there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Touch {
    /// The record.
    pub record: RecordId,
    /// The field: `customer`; `lines` where a child was added or removed; `lines.quantity` where a
    /// field of a child was written, at whatever depth below. Empty where the record was created,
    /// deleted or undeleted.
    pub field: String,
}

/// Where an operation acts, or an object lies, within its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The record.
    pub record: RecordId,
    /// The way down from it; empty for the record itself.
    pub steps: Vec<Step>,
}

impl Path {
    /// The way down as people write it: `lines[7].quantity`, empty for the record itself. What lies
    /// deeper than a child's field goes by the field's name.
    #[must_use]
    pub fn field(&self) -> String {
        let mut field = String::new();
        for (depth, step) in self.steps.iter().enumerate() {
            match (depth, step) {
                (0, Step::Key(key)) => field.push_str(key),
                (1, Step::Key(key)) => field.push_str(&format!("[{key}]")),
                (2, Step::Key(key)) => field.push_str(&format!(".{key}")),
                (_, Step::Key(_) | Step::Element) => break,
            }
        }
        field
    }
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a map: a field's name, or a child's id.
    Key(String),
    /// An element of a list or text, which has no name.
    Element,
}
