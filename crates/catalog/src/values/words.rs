//! Words of a command line: `field=value`, `field=` clears, `stock+=3` and `stock-=3` count,
//! `lines[ID].quantity=2` edits a child, `lines[ID].quantity=` clears a field of it, `lines[ID]=`
//! removes it. An empty text cannot be said in words; JSON can.

use std::collections::BTreeMap;

use fieldkeep_model::{Edit, RecordEdit, Scalar};
use serde_json::{Map, Value};

use super::{Place, ValueError};
use crate::object::{Field, ObjectType};

impl ObjectType {
    /// The edit that words of a command line say.
    ///
    /// # Errors
    /// The first word that is no edit, names an unknown field, or says what its field cannot hold.
    pub fn edit_from_words(&self, words: &[String]) -> Result<RecordEdit, ValueError> {
        let mut edits = Vec::new();
        for word in words {
            let edit = read(Place::of(self), word)?;
            merge(&mut edits, edit);
        }
        Ok(edits.into())
    }
}

/// The values that words say of names that are asked for; what is left empty is absent.
///
/// # Errors
/// The first word that gives no value, names nothing that is asked for, or says what it cannot hold.
pub(crate) fn input_from_words(
    fields: &BTreeMap<String, Field>,
    words: &[String],
) -> Result<Map<String, Value>, ValueError> {
    let mut input = Map::new();
    for word in words {
        match read(Place { fields, set: "" }, word)? {
            Edit::Put(name, scalar) => input.insert(name, json_of(scalar)),
            Edit::Text(name, text) => input.insert(name, Value::String(text)),
            Edit::Json(name, text) => {
                let value = serde_json::from_str(&text);
                input.insert(name, value.map_err(|_| ValueError::Word(word.clone()))?)
            }
            Edit::Clear(name) => input.remove(&name),
            Edit::Add(..) | Edit::Child(..) | Edit::RemoveChild(..) => {
                return Err(ValueError::Word(word.clone()));
            }
        };
    }
    Ok(input)
}

fn json_of(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(flag) => flag.into(),
        Scalar::Int(int) => int.into(),
        Scalar::Float(float) => float.into(),
        Scalar::Str(text) => text.into(),
    }
}

/// How a word acts on what it names.
#[derive(Clone, Copy)]
enum Act {
    Set,
    Add,
    Subtract,
}

fn read(place: Place<'_>, word: &str) -> Result<Edit, ValueError> {
    let nonsense = || ValueError::Word(word.to_owned());
    let name_end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let (name, rest) = word.split_at(name_end.ok_or_else(nonsense)?);
    if name.is_empty() {
        return Err(nonsense());
    }
    let Some(rest) = rest.strip_prefix('[') else {
        let (act, value) = act(rest).ok_or_else(nonsense)?;
        return apply(place, name, act, value);
    };
    let (set, field) = place.set(name)?;
    let end = rest.find("].").into_iter().chain(rest.find("]=")).min().ok_or_else(nonsense)?;
    let (id, rest) = (place.child_id(set, &rest[..end])?, &rest[end + 1..]);
    match rest.strip_prefix('.') {
        Some(inner) => {
            let edit = read_inner(Place::within(set, field), inner).ok_or_else(nonsense)??;
            Ok(Edit::Child(set.to_owned(), id, vec![edit]))
        }
        None if rest == "=" => Ok(Edit::RemoveChild(set.to_owned(), id)),
        None => Err(place.refused(set, format!("write {set}[{id}].field=value"))),
    }
}

/// Reads `quantity=2` within a child; nothing where that is no edit.
fn read_inner(place: Place<'_>, word: &str) -> Option<Result<Edit, ValueError>> {
    let end = word.find(['=', '+', '-'])?;
    let (act, value) = act(&word[end..])?;
    Some(apply(place, &word[..end], act, value))
}

fn act(rest: &str) -> Option<(Act, &str)> {
    let acts = [("=", Act::Set), ("+=", Act::Add), ("-=", Act::Subtract)];
    acts.into_iter().find_map(|(sign, act)| Some((act, rest.strip_prefix(sign)?)))
}

fn apply(place: Place<'_>, name: &str, act: Act, value: &str) -> Result<Edit, ValueError> {
    let (name, field) = place.field(name)?;
    match act {
        Act::Set if value.is_empty() => Ok(Edit::Clear(name.to_owned())),
        Act::Set => place.word(name, field, value),
        Act::Add => place.count(name, field, value.parse().ok()),
        Act::Subtract => {
            place.count(name, field, value.parse().ok().and_then(|by: i64| by.checked_neg()))
        }
    }
}

/// Adds an edit; successive edits of one child become one.
fn merge(edits: &mut Vec<Edit>, edit: Edit) {
    match (edits.last_mut(), edit) {
        (Some(Edit::Child(set, id, inner)), Edit::Child(same_set, same_id, mut more))
            if *set == same_set && *id == same_id =>
        {
            inner.append(&mut more);
        }
        (_, edit) => edits.push(edit),
    }
}
