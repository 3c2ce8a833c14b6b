//! What is allowed: object types, field kinds, schemas, rules, and the Judge.
//!
//! Parses a catalog, reads what people type into edits, and judges merged records. Everything is a
//! function of its arguments: no clock, no dice, no files, no network. What a rule or a schema may
//! cost is bounded when the catalog is parsed, so that no verdict depends on the machine; what
//! cannot be bounded is refused there.

mod action;
mod afresh;
mod attachment;
mod catalog;
mod difference;
mod error;
mod explain;
mod judge;
mod judges;
pub mod limit;
mod object;
mod read;
mod refit;
mod rule;
mod schema;
mod share;
mod values;

pub use action::{Action, Call, CallError, HostCall, Inputs, Party, Query, Who};
pub use afresh::Afresh;
pub use attachment::{AttachedFile, Attachments, Location, NAME_MAX, UnfitFile};
pub use catalog::Catalog;
pub use difference::{Difference, Part, Turn};
pub use error::CatalogError;
pub use judge::{Holder, Judgement, PrivateArg, Referent, Subject, Surroundings};
pub use judges::{Judge, Judges, Matter};
pub use object::{Field, Kind, ObjectType, Reference};
pub use rule::{Dead, Rule, RuleError};
pub use schema::SchemaError;
pub use share::{Referred, Sheet, TITLES, TemplateError, title};
pub use values::{ValueError, child_of, value_of};
