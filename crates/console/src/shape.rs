//! The shapes of what is shown, as JSON has them.

pub mod catalog;
pub mod export;
mod files;
pub mod fleet;
mod held;
mod history;
pub mod limits;
mod online;
mod peers;
mod record;
mod removed;
pub mod reshape;
mod status;

pub use files::{Attachment, Files};
pub use held::{Aside, Blamed, Decision, Deed, Held, Operator, REASONS};
pub use history::{Change, FieldWrite, History, Shared};
pub use online::{Answer, CallRow, Called};
pub use peers::{Met, Peer, Peers};
pub use record::{
    Conflict, ConflictValue, Culprit, Dismissed, Explanation, Forecast, Got, NotTaken, Past, Pin,
    Record, Verdict, Writer, device_name,
};
pub use removed::Gone;
pub(crate) use removed::gone;
pub(crate) use status::strip_word;
pub use status::{
    Advice, CatalogState, Check, ClearPlan, Paused, Resynced, Status, Synced, TypeRow, status_word,
};
