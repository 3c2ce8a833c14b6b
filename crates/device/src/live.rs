//! Live queries: the records of a type that pass a filter, and what changes among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fieldkeep_model::{RecordId, TypeName};
use fieldkeep_replica::RecordView;
use fieldkeep_store::{Page, StoreError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::device::{Device, Event};

type Filter = Box<dyn Fn(&RecordView) -> bool + Send + Sync>;

/// The records of a type that pass a filter. It ends when this is dropped.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let mut customers = device.live(&"customer".parse()?, |_| true)?;
/// assert_eq!(customers.records().count(), 1);
/// device.delete(&"customer/c1".parse()?)?;
/// customers.changed().await?;
/// assert_eq!(customers.records().count(), 0);
/// # Ok(()) });
/// ```
pub struct Live {
    device: Device,
    events: broadcast::Receiver<Event>,
    ty: TypeName,
    filter: Filter,
    /// Those that passed, as they were told last.
    shown: BTreeMap<RecordId, RecordView>,
}

/// What has changed among the records of a live query.
///
/// ```
/// # use fieldkeep_device::Change;
/// # use serde_json::json;
/// # fieldkeep_lab::camp::example(async |device| {
/// let mut customers = device.live(&"customer".parse()?, |_| true)?;
/// device.save(&"customer/c1".parse()?, &json!({"name": "Pier Kiosk"}))?;
/// let [Change::Shown(customer)] = &customers.changed().await?[..] else { panic!("one change") };
/// assert_eq!(customer.fields["name"], "Pier Kiosk");
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A record passes, and did not, or has changed.
    Shown(Box<RecordView>),
    /// A record that passed does so no more.
    Gone(RecordId),
}

impl Device {
    /// The records of a type that pass a filter, deleted ones left out, and what changes among them
    /// from then on.
    ///
    /// ```
    /// # use fieldkeep_device::Change;
    /// # use fieldkeep_model::{Edit, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let mut held = device.live(&"order".parse()?, |order| order.state.word() == "held")?;
    /// assert_eq!(held.records().count(), 1);
    /// device.put(&"order/o1".parse()?, &vec![Edit::Put("discount".into(), Scalar::Int(9))].into())?;
    /// assert_eq!(held.changed().await?, [Change::Gone("o1".parse()?)]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn live(
        &self,
        ty: &TypeName,
        filter: impl Fn(&RecordView) -> bool + Send + Sync + 'static,
    ) -> Result<Live, StoreError> {
        // Before it is read, so that nothing is missed between.
        let events = self.watch();
        let mut records = self.list(ty, &Page::default())?;
        records.retain(&filter);
        let shown = records.into_iter().map(|view| (view.key.id.clone(), view)).collect();
        let filter = Box::new(filter);
        Ok(Live { device: self.clone(), events, ty: ty.clone(), filter, shown })
    }
}

impl Live {
    /// The records that pass, as they were told last, by id.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let customers = device.live(&"customer".parse()?, |_| true)?;
    /// let names: Vec<_> = customers.records().map(|customer| &customer.fields["name"]).collect();
    /// assert_eq!(names, ["Harbour Kiosk"]);
    /// # Ok(()) });
    /// ```
    pub fn records(&self) -> impl Iterator<Item = &RecordView> {
        self.shown.values()
    }

    /// Waits until something has changed, and tells what.
    ///
    /// ```
    /// # use fieldkeep_device::Change;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let mut customers = device.live(&"customer".parse()?, |_| true)?;
    /// device.delete(&"customer/c1".parse()?)?; // Nobody waits yet: it is told all the same.
    /// assert_eq!(customers.changed().await?, [Change::Gone("c1".parse()?)]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn changed(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            let ids: BTreeSet<RecordId> = match self.events.recv().await {
                Ok(Event::Changed(keys)) => {
                    keys.into_iter().filter(|key| key.ty == self.ty).map(|key| key.id).collect()
                }
                Ok(Event::Met(_) | Event::Left(_) | Event::Strip(_) | Event::Status) => continue,
                // Too much to be told one by one: all of them are looked at.
                Err(RecvError::Lagged(_)) => {
                    let page = Page { deleted: true, ..Page::default() };
                    let all = self.device.list(&self.ty, &page)?.into_iter();
                    all.map(|view| view.key.id).chain(self.shown.keys().cloned()).collect()
                }
                // The device itself holds the other end.
                Err(RecvError::Closed) => std::future::pending().await,
            };
            let mut changes = Vec::new();
            for id in ids {
                let key = fieldkeep_model::RecordKey::new(self.ty.clone(), id);
                let view = self.device.get(&key)?;
                match view.filter(|view| !view.deleted && (self.filter)(view)) {
                    Some(view) => {
                        let before = self.shown.insert(key.id, view.clone());
                        let another = before.as_ref() != Some(&view);
                        changes.extend(another.then(|| Change::Shown(Box::new(view))));
                    }
                    None => {
                        let gone = self.shown.remove(&key.id).is_some();
                        changes.extend(gone.then_some(Change::Gone(key.id)));
                    }
                }
            }
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("ty", &self.ty).field("shown", &self.shown.len()).finish()
    }
}
