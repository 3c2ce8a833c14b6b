//! Attachment fields: which files a record may have, and what is done to them before they are named.
//!
//! Attachments are a set whose children's ids are the files' hashes: two people attach to one record
//! offline, and both files stay. What a child holds is declared here, so that rules, references and
//! merging need nothing of their own for it.

use std::collections::BTreeMap;

use fieldkeep_model::{BlobHash, Edit, Scalar};
use serde_json::{Value, json};

use crate::error::Place;
use crate::object::{Field, Kind};
use crate::schema;

/// The largest file where a field does not say it, in bytes.
pub(crate) const SIZE_DEFAULT: u64 = 16 << 20;
/// The most files of a field where it does not say it.
pub(crate) const COUNT_DEFAULT: u64 = 16;
/// The most that a field can say.
pub(crate) const COUNT_MAX: u64 = 256;
/// The bytes of a file's name.
pub const NAME_MAX: usize = 255;

/// What happens to the place that a picture says it was taken at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// It stays.
    #[default]
    Keep,
    /// It is taken out before the file is named.
    Strip,
}

/// Which files a field may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachments {
    /// Media types, as `image/*` or `application/pdf`; any if there is none.
    pub media: Vec<String>,
    /// The largest file, in bytes.
    pub max_size: u64,
    /// The most files.
    pub max_count: u64,
    /// What happens to the place of a picture.
    pub location: Location,
}

/// A file that a record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedFile {
    /// The field.
    pub field: String,
    /// The file.
    pub hash: BlobHash,
    /// What it is called.
    pub name: String,
    /// Its media type, as whoever attached it said.
    pub media: String,
    /// Its length in bytes.
    pub size: u64,
}

impl AttachedFile {
    /// From a child of an attachment field.
    pub(crate) fn read(field: &str, child: &Value) -> Option<Self> {
        let text = |key: &str| child.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            field: field.to_owned(),
            hash: text("id")?.parse().ok()?,
            name: text("name").unwrap_or_default(),
            media: text("media").unwrap_or_default(),
            size: child.get("size").and_then(Value::as_u64)?,
        })
    }

    /// The edit that attaches it.
    #[must_use]
    pub fn edit(&self) -> Edit {
        let size = Scalar::Int(i64::try_from(self.size).unwrap_or(i64::MAX));
        let fields = vec![
            Edit::Put("media".into(), Scalar::Str(self.media.clone())),
            Edit::Put("name".into(), Scalar::Str(self.name.clone())),
            Edit::Put("size".into(), size),
        ];
        Edit::Child(self.field.clone(), self.hash.to_string(), fields)
    }
}

/// Why a file may not be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitFile {
    /// Its media type is none of those that the field takes.
    #[error("{media} is none of the kinds of file that it takes: {taken}")]
    Media {
        /// The file's.
        media: String,
        /// Those that it takes.
        taken: String,
    },
    /// It is too large.
    #[error("the file has {size} bytes, and {max} are the most")]
    Size {
        /// Its size in bytes.
        size: u64,
        /// The largest.
        max: u64,
    },
}

impl Attachments {
    /// Whether a file fits.
    ///
    /// # Errors
    /// See [`UnfitFile`].
    pub fn check(&self, media: &str, size: u64) -> Result<(), UnfitFile> {
        if size > self.max_size {
            return Err(UnfitFile::Size { size, max: self.max_size });
        }
        if self.media.is_empty() || self.media.iter().any(|taken| is_of(media, taken)) {
            return Ok(());
        }
        Err(UnfitFile::Media { media: media.to_owned(), taken: self.media.join(", ") })
    }

    /// The fields of a child: what is known of a file besides its hash.
    pub(crate) fn children(&self, place: Place) -> BTreeMap<String, Field> {
        let kinds: Vec<String> = self.media.iter().map(|media| pattern(media)).collect();
        let kind = if kinds.is_empty() { pattern("*/*") } else { kinds.join("|") };
        let fields = [
            ("media", json!({"type": "string", "pattern": format!("^({kind})$")})),
            ("name", json!({"type": "string", "minLength": 1, "maxLength": NAME_MAX})),
            ("size", json!({"type": "integer", "minimum": 0, "maximum": self.max_size})),
        ];
        fields.map(|(name, schema)| (name.to_owned(), child(schema, place))).into()
    }
}

fn child(schema: Value, place: Place) -> Field {
    let validator = schema::compile(&schema).expect("a schema of our own compiles");
    let (schema, validator) = (Some(schema), Some(validator));
    Field { required: true, schema, validator, place, ..Field::plain(Kind::Register) }
}

/// Whether a media type is of a kind, as `image/png` is of `image/*`.
fn is_of(media: &str, kind: &str) -> bool {
    match kind.strip_suffix("/*") {
        Some(family) => media.strip_prefix(family).is_some_and(|rest| rest.starts_with('/')),
        None => media == kind,
    }
}

/// A media type, or a family of them, as a linear regular expression.
fn pattern(media: &str) -> String {
    let part = "[a-z0-9][a-z0-9.+-]{0,62}";
    let escape = |text: &str| text.replace('.', "[.]").replace('+', "[+]");
    match media.strip_suffix("/*") {
        Some("*") => format!("{part}/{part}"),
        Some(family) => format!("{}/{part}", escape(family)),
        None => escape(media),
    }
}

/// Whether a text is a media type, or a family of them.
pub(crate) fn is_media(text: &str) -> bool {
    let part = |part: &str| {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".+-".contains(c);
        !part.is_empty() && part.len() <= 63 && part.chars().all(known)
    };
    text.split_once('/').is_some_and(|(family, kind)| part(family) && (kind == "*" || part(kind)))
}
