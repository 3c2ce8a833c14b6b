//! A catalog's text with a type declared otherwise, as it is to be when that is started afresh: what
//! people wrote besides, remarks included, stays as it is.

use fieldkeep_model::TypeName;
use toml_edit::{DocumentMut, Item, value};

use crate::error::{CatalogError, Place};
use crate::object::Kind;

/// What of a type is to be declared otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Afresh {
    /// Into how many segments each scope is divided.
    pub buckets: Option<u32>,
    /// The scope field; none within.
    pub scope: Option<Option<String>>,
    /// The kinds of fields: `note`, or `lines.note` for one of a set's children.
    pub kinds: Vec<(String, Kind)>,
}

impl Afresh {
    /// The text of a catalog with that, and that generation.
    ///
    /// # Errors
    /// When the text is no TOML, or declares no such type or field.
    pub fn applied(
        &self,
        source: &str,
        ty: &TypeName,
        generation: u32,
    ) -> Result<String, Vec<CatalogError>> {
        let refused = |key: String, problem: String, remedy: &str| {
            vec![Place { line: 1, column: 1 }.error(key, problem, remedy)]
        };
        let mut text: DocumentMut = source.parse().map_err(|error: toml_edit::TomlError| {
            refused(String::new(), error.message().to_owned(), "mend the file")
        })?;
        let key = format!("type.{ty}");
        let undeclared = || refused(key.clone(), format!("the type `{ty}` is not declared"), "");
        let types = text.get_mut("type").and_then(Item::as_table_like_mut);
        let declared = types.and_then(|types| types.get_mut(ty.as_str()));
        let declared = declared.and_then(Item::as_table_like_mut).ok_or_else(undeclared)?;
        for (field, kind) in &self.kinds {
            let mut table: &mut dyn toml_edit::TableLike = declared;
            for part in field.split('.') {
                let fields = table.get_mut("field").and_then(Item::as_table_like_mut);
                let found = fields.and_then(|fields| fields.get_mut(part));
                table = found.and_then(Item::as_table_like_mut).ok_or_else(|| {
                    let key = format!("{key}.field.{field}");
                    refused(key, format!("the field `{field}` is not declared"), "")
                })?;
            }
            table.insert("kind", value(kind.word()));
        }
        if let Some(buckets) = self.buckets {
            declared.insert("buckets", value(i64::from(buckets)));
        }
        match &self.scope {
            Some(Some(field)) => drop(declared.insert("scope", value(field.as_str()))),
            Some(None) => drop(declared.remove("scope")),
            None => {}
        }
        declared.insert("generation", value(i64::from(generation)));
        Ok(text.to_string())
    }
}
