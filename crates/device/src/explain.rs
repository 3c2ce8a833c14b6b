//! Where one record is, and why it looks as it does.

use std::collections::BTreeMap;

use fieldkeep_model::{RecordKey, SegmentAddress};
use fieldkeep_replica::{NotTaken, RecordView, ReplicaError};
use fieldkeep_store::{Log as _, Pin, Pins as _, Records as _};

use crate::device::Device;

/// Where one record is, and why it looks as it does.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let explained = device.explain(&"order/o1".parse()?)?;
/// let (who, changes, _) = &explained.writers[0];
/// assert_eq!((who.as_str(), *changes, explained.unsent), ("ann", 1, 0));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The record.
    pub key: RecordKey,
    /// The record as it is read; nothing if it is not here.
    pub view: Option<RecordView>,
    /// Where it lies: type, scope and bucket.
    pub address: Option<SegmentAddress>,
    /// Whether this device may read it, as far as that is known.
    pub granted: bool,
    /// Whether its type is paused.
    pub paused: bool,
    /// Whether its scope is one that this device exchanges.
    pub subscribed: bool,
    /// Whether the catalog has its type.
    pub declared: bool,
    /// Whether its segment is proven equal to the relay's.
    pub proven: bool,
    /// Changes of it that have no receipt.
    pub unsent: u64,
    /// Why the relay did not take one of them.
    pub refused: Option<String>,
    /// Changes that may concern it and lie aside, with the reason.
    pub aside: BTreeMap<String, u64>,
    /// What the relay has not taken in generations of its type that are over.
    pub not_taken: Vec<NotTaken>,
    /// Who wrote it: the device's name, how many changes, and when the last of them, milliseconds UTC
    /// by its clock.
    pub writers: Vec<(String, u64, i64)>,
    /// Who has it in use.
    pub pins: Vec<Pin>,
    /// The newest changes that touched it, each the head of what its device wrote.
    pub heads: Vec<String>,
}

impl Device {
    /// Where a record is, and why it looks as it does.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let explained = device.explain(&"order/o1".parse()?)?;
    /// assert!(explained.proven);
    /// assert_eq!(explained.sentences()[0], "order/o1 is here: held");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails, or a document cannot be built.
    pub fn explain(&self, key: &RecordKey) -> Result<Explanation, ReplicaError> {
        let view = self.as_merged(key)?;
        let left_out = self.paused()?;
        let writers = self.with_replica(|replica| replica.writers(key))?;
        let mut not_taken = self.not_taken()?;
        not_taken.retain(|one| one.key == *key && one.generation.is_some());
        let members = self.members();
        let engine = self.engine();
        let replica = engine.replica();
        let store = replica.store();
        let row = store.find(&key.ty, &key.id)?.into_iter().next();
        let segment = row
            .as_ref()
            .and_then(|row| replica.segments().values().find(|segment| segment.sid == row.sid));
        let me = replica.members().author(&replica.me().actor());
        let granted = me.is_some_and(|me| match segment {
            Some(segment) => me.may(&segment.address.ty, &segment.address.scope),
            None => me.grants.iter().any(|grant| grant.ty.as_ref().is_none_or(|ty| *ty == key.ty)),
        });
        let mut explanation = Explanation {
            key: key.clone(),
            granted,
            paused: left_out.pauses(&key.ty),
            subscribed: segment
                .is_none_or(|segment| !left_out.unsubscribes(&key.ty, &segment.address.scope)),
            declared: replica.published().is_some_and(|p| p.catalog.ty(&key.ty).is_some()),
            proven: segment.is_some_and(|segment| replica.is_proven(&segment.id)),
            address: segment.map(|segment| segment.address.clone()),
            unsent: 0,
            refused: None,
            aside: BTreeMap::new(),
            not_taken,
            writers: Vec::new(),
            pins: store.pins()?.into_iter().filter(|pin| pin.key == *key).collect(),
            heads: Vec::new(),
            view,
        };
        if let Some(segment) = segment {
            for change in store.outgoing(segment.sid)? {
                if change.records.contains(&key.id) {
                    explanation.unsent += 1;
                    explanation.refused = explanation.refused.or(change.refused);
                }
            }
            for aside in store.asides_in(segment.sid)? {
                let here = aside.records.is_empty()
                    || aside.records.iter().any(|record| record == key.id.as_str());
                if here {
                    *explanation.aside.entry(aside.reason).or_default() += 1;
                }
            }
        }
        for writer in writers {
            let name = members.member(writer.device).map(|member| member.name.clone());
            let name = name.unwrap_or_else(|| format!("device {}", writer.device));
            explanation.writers.push((name, writer.changes, writer.time));
            explanation.heads.push(writer.newest.to_string());
        }
        Ok(explanation)
    }

    /// When the oldest of what has no receipt was written, by its author's clock.
    pub(crate) fn oldest_unsaved(&self) -> Result<Option<i64>, ReplicaError> {
        let engine = self.engine();
        let replica = engine.replica();
        let mut oldest: Option<i64> = None;
        for row in replica.segments().values() {
            let mut first = None;
            replica.store().each_outgoing(row.sid, |change| {
                first = Some(change.pos);
                false
            })?;
            let Some(pos) = first else { continue };
            let time = replica.time_of(row.sid, pos)?;
            oldest = Some(oldest.map_or(time, |oldest| oldest.min(time)));
        }
        Ok(oldest)
    }
}

impl Explanation {
    /// The same in sentences, the most telling first.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let sentences = device.explain(&"invoice/i1".parse()?)?.sentences();
    /// assert_eq!(sentences, ["the catalog has no object type `invoice`"]);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let name = &self.key;
        match &self.view {
            None if !self.declared => {
                said.push(format!("the catalog has no object type `{}`", name.ty));
            }
            None if !self.granted => {
                said.push(format!("this device was not granted any record of {}", name.ty));
            }
            None if self.paused => {
                said.push(format!("{name} is not here, and syncing of {} is paused", name.ty));
            }
            None => said.push(format!(
                "{name} is not here: nobody whom this device has heard of has written it in a scope \
                 that it was granted, or it has not come yet"
            )),
            Some(view) => {
                let deleted = if view.deleted { ", deleted" } else { "" };
                said.push(format!("{name} is here{deleted}: {}", view.state.word().replace('_', " ")));
                said.extend(view.reasons.iter().cloned());
            }
        }
        match (self.unsent, &self.refused) {
            (0, _) if self.view.is_some() && self.proven => {
                said.push("every change of it is on the relay, and proven equal".to_owned());
            }
            (0, _) if self.view.is_some() => {
                said.push("every change of it that is here has a receipt of the relay".to_owned());
            }
            (0, _) => {}
            (count, None) => {
                let changes =
                    if count == 1 { "1 change has" } else { &format!("{count} changes have") };
                said.push(format!(
                    "{changes} no receipt of the relay yet: it goes with the next sync"
                ));
            }
            (_, Some(why)) => said.push(format!("the relay did not take a change of it: {why}")),
        }
        if self.view.is_some() && !self.granted {
            said.push(
                "this device may not read its scope any more: nothing new of it comes".to_owned(),
            );
        }
        if self.view.is_some() && !self.subscribed {
            said.push(
                "this device does not subscribe to its scope: nothing new of it comes".to_owned(),
            );
        }
        if self.view.is_some() && self.paused {
            said.push(format!("syncing of {} is paused", name.ty));
        }
        for (reason, count) in &self.aside {
            said.push(format!("{count} changes lie aside: {}", reason.replace('_', " ")));
        }
        for NotTaken { generation, why, .. } in &self.not_taken {
            said.push(format!(
                "the relay did not take a change of it in generation {} of {}, which is over: {why}",
                generation.unwrap_or_default(),
                name.ty
            ));
        }
        for pin in &self.pins {
            said.push(format!("it is in use by {}: {}", pin.owner, pin.reason));
        }
        said
    }
}
