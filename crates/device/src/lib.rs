//! The field side: the library that an application embeds.
//!
//! [`Device`] is durable before it returns, reads without loading a document, and syncs when it is
//! told to. [`Engine`] beneath it is sans-IO: frames go in, and what leaves comes out of
//! [`Engine::commit`], after the disk has what it speaks of.

mod acquaint;
mod advice;
mod bundle;
mod control;
mod device;
mod doctor;
mod engine;
mod explain;
mod files;
mod import;
mod inner;
mod join;
mod keeper;
mod live;
mod nearby;
mod online;
mod past;
mod pin;
mod reach;
mod reading;
mod resync;
mod rotate;
mod settings;
mod share;
mod status;
mod sync;
mod tier;
mod typed;

pub use advice::{Advice, Situation};
pub use bundle::{BundleError, Bundled};
pub use control::ControlError;
pub use device::{Device, Event, OpenError, Remote, fresh_id};
pub use engine::{
    CallState, Engine, Exchanged, Input, Output, Packing, PeerId, PeerInput, PeerOutput,
    PeerProgress, Progress, Unpacking,
};
pub use explain::Explanation;
pub use files::{
    AttachError, FetchError, FileState, FileView, FilesSynced, LocationError, removed_on,
};
pub use import::{ImportError, Imported};
pub use join::{JoinError, application, introduction, join};
pub use live::{Change, Live};
pub use nearby::finding::Neighbour;
pub use nearby::{Listener, MeetError};
pub use online::{Answer, CallView, Called, OnlineError};
pub use past::RevertError;
pub use pin::Pinned;
pub use reach::jittered;
pub use reading::{Choice, ResolveError};
pub use resync::{ClearPlan, ResyncError, Resynced};
pub use rotate::RotateError;
pub use settings::{
    Download, FileSettings, Read, Settings, SettingsError, SubscribeError, TypeSettings,
};
pub use share::ShareError;
pub use status::{Status, Strip, TypeView};
pub use sync::{SyncError, SyncReport};
pub use tier::{AwaitError, StrictError, Tier, Written};
pub use typed::{LoadError, SaveError};

/// What [`Device::conflicts`] tells of a field.
///
/// ```
/// # use serde_json::json;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::meeting(async |ann, ben| {
/// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
/// # let address = listener.address();
/// # tokio::spawn(async move { listener.serve().await });
/// let (order, patience) = ("order/o1".parse()?, Duration::from_secs(60));
/// ann.sync_with(address, patience).await?; // Both hold it.
/// ann.save(&order, &json!({"discount": 10}))?;
/// ben.save(&order, &json!({"discount": 20}))?; // Neither knows of the other's.
/// ann.sync_with(address, patience).await?;
/// let conflicts = ann.conflicts(&order)?;
/// assert_eq!((conflicts[0].field.as_str(), conflicts[0].values.len()), ("discount", 2));
/// assert_eq!(conflicts, ben.conflicts(&order)?); // And both show the same one first.
/// # Ok(()) });
/// ```
pub use fieldkeep_documents::document::Conflict;

/// A check of [`Device::doctor`], and what it found.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let checks = device.doctor()?;
/// let catalog = checks.iter().find(|check| check.name == "catalog").expect("it is looked at");
/// assert_eq!((catalog.text.as_str(), &catalog.remedy), ("number 1 is in force", &None));
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::Check;

/// What a check of [`Device::doctor`] found.
///
/// ```
/// # use fieldkeep_device::Finding;
/// # fieldkeep_lab::camp::example(async |device| {
/// let worst = device.doctor()?.iter().map(|check| check.finding).max();
/// assert_eq!(worst, Some(Finding::Fine));
/// assert!(Finding::Fine < Finding::Notice && Finding::Notice < Finding::Wrong);
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::Finding;

/// What [`Device::history`] tells of a field.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let history = device.history(&"order/o1".parse()?, 10, None)?;
/// let mut writes = history.entries[0].writes.iter();
/// let boxes = writes.find(|write| write.field == "boxes").expect("it wrote them");
/// assert_eq!((boxes.before.clone(), boxes.after.clone()), (None, Some(2.into())));
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::FieldChange;

/// What [`Device::history`] tells of a change.
///
/// ```
/// # use fieldkeep_model::Edit;
/// # fieldkeep_lab::camp::example(async |device| {
/// let order = "order/o1".parse()?;
/// device.edit(&order, vec![Edit::Add("boxes".into(), 1)])?;
/// let history = device.history(&order, 1, None)?;
/// let newest = &history.entries[0];
/// assert_eq!((newest.person.as_str(), newest.writes[0].field.as_str()), ("ann", "boxes"));
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::HistoryEntry;

/// What [`Device::history`] tells at once.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let page = device.history(&"order/o1".parse()?, 10, None)?;
/// assert_eq!((page.entries.len(), page.changes, page.next), (1, 1, None)); // There is no more of it.
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::HistoryPage;

/// Why [`Device::history`] tells nothing.
///
/// ```
/// # use fieldkeep_device::HistoryError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let lost = device.history(&"order/o1".parse()?, 10, Some("0000000000"));
/// assert!(matches!(lost, Err(HistoryError::NoSuchChange { .. })));
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::HistoryError;

/// What [`Device::at`] is asked for.
///
/// ```
/// # use fieldkeep_device::Moment;
/// # fieldkeep_lab::camp::example(async |device| {
/// let order = "order/o1".parse()?;
/// assert!(device.at(&order, &Moment::Time(0))?.is_none()); // Nobody had written it in 1970.
/// let last = device.at(&order, &Moment::Time(i64::MAX))?.expect("it is here");
/// assert_eq!(last["discount"], 45);
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::Moment;

/// Why [`Device::put`] wrote nothing.
///
/// ```
/// # use fieldkeep_device::PutError;
/// # use fieldkeep_model::Edit;
/// # fieldkeep_lab::camp::example(async |device| {
/// let refused = device.put(&"ordr/o1".parse()?, &vec![Edit::Add("boxes".into(), 1)].into());
/// let Err(PutError::UnknownType { known, .. }) = refused else { panic!("a typo") };
/// assert_eq!(known.len(), 3); // Customers, orders and visits.
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::PutError;

/// What [`Device::get`] and its like return.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let order = device.get(&"order/o1".parse()?)?.expect("it is here");
/// assert_eq!(order.state.word(), "held");
/// assert_eq!(order.reason_fields, ["discount"]);
/// assert_eq!(order.culprits[0].person, "ann");
/// assert!(order.last_valid.is_none()); // It never passed.
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::RecordView;

/// What [`Device::put_all`] says of each write.
///
/// ```
/// # use fieldkeep_model::RecordEdit;
/// # fieldkeep_lab::camp::example(async |device| {
/// let wrote = device.put_all(&[("customer/c1".parse()?, RecordEdit::delete())])?;
/// assert_eq!(wrote[0].key.to_string(), "customer/c1");
/// assert!(wrote[0].row.deleted && wrote[0].change.is_some());
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::Wrote;

/// What [`Device::attach`] and [`Device::files`] tell of a file: see their examples.
pub use fieldkeep_catalog::AttachedFile;

/// Why a field does not take a file: [`AttachError::Unfit`].
pub use fieldkeep_catalog::UnfitFile;

/// Asks the catalog for a type as [`Device::put`] does.
///
/// ```
/// # use fieldkeep_device::declared;
/// # fieldkeep_lab::camp::example(async |device| {
/// let catalog = device.catalog().expect("the relay has sent it");
/// let order = declared(&catalog, &"order".parse()?)?;
/// assert!(order.fields.contains_key("boxes"));
/// assert!(declared(&catalog, &"ordr".parse()?).is_err());
/// # Ok(()) });
/// ```
pub use fieldkeep_replica::declared;

/// Whether a bundle has attached files in it: see [`Device::export_bundle`].
pub use fieldkeep_protocol::bundle::Enclosing;

/// What is in a bundle that was written: see [`Bundled`].
pub use fieldkeep_protocol::bundle::Packed;

/// What [`Device::import_bundle`] took, and what it did not.
///
/// ```
/// # use fieldkeep_device::Enclosing;
/// # use std::io::Cursor;
/// # fieldkeep_lab::camp::meeting(async |ann, ben| {
/// let to = ben.member()?.keys.signing;
/// let mut file = Vec::new();
/// ann.export_bundle(&mut file, &to, None, Enclosing::Files)?;
/// let unpacked = ben.import_bundle(&mut Cursor::new(file))?;
/// assert_eq!((unpacked.from.as_str(), unpacked.changes), ("ann", 2)); // A customer and an order.
/// assert!(unpacked.not_taken.is_empty());
/// # Ok(()) });
/// ```
pub use fieldkeep_protocol::bundle::Unpacked;

/// What of a bundle was not taken, and why: [`Unpacked::not_taken`].
pub use fieldkeep_protocol::bundle::{NotTaken, Subject};

/// Why a bundle is not read, or not taken: [`BundleError`].
pub use fieldkeep_protocol::bundle::{ReadError, Unfit};
