//! Cells of a table: each a text for a field, typed by the catalog; an empty cell is an absent
//! field. A counter's cell is the total of a record that is new, a set's a JSON list of its children.

use fieldkeep_model::{Edit, RecordEdit};

use super::{Place, ValueError};
use crate::object::{Kind, ObjectType};

impl ObjectType {
    /// The edit that a row says, as pairs of field and cell.
    ///
    /// # Errors
    /// The first cell whose field is unknown or cannot hold it.
    pub fn edit_from_cells(&self, cells: &[(&str, &str)]) -> Result<RecordEdit, ValueError> {
        Ok(read(Place::of(self), cells)?.into())
    }

    /// The edit of one child that a row says.
    ///
    /// # Errors
    /// As [`edit_from_cells`](Self::edit_from_cells), and when `set` is none or the id malformed.
    pub fn child_from_cells(
        &self,
        set: &str,
        id: &str,
        cells: &[(&str, &str)],
    ) -> Result<Edit, ValueError> {
        let (set, field) = Place::of(self).set(set)?;
        let id = Place::of(self).child_id(set, id)?;
        Ok(Edit::Child(set.to_owned(), id, read(Place::within(set, field), cells)?))
    }
}

fn read(place: Place<'_>, cells: &[(&str, &str)]) -> Result<Vec<Edit>, ValueError> {
    let mut edits = Vec::new();
    for (name, cell) in cells {
        let (name, field) = place.field(name)?;
        if cell.is_empty() {
            continue;
        }
        match field.kind {
            Kind::Counter => edits.push(place.count(name, field, cell.parse().ok())?),
            Kind::Register | Kind::Text | Kind::Json => {
                edits.push(place.word(name, field, cell)?);
            }
            Kind::Set | Kind::Attachment => edits.extend(place.json_list(name, field, cell)?),
        }
    }
    Ok(edits)
}
