//! Control over what is exchanged: pausing and resuming, one type or all. Local work goes on, and
//! nothing is lost.

use std::collections::BTreeSet;

use fieldkeep_model::TypeName;
use fieldkeep_model::status::LeftOut;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::StoreError;

use crate::device::{Device, now};
use crate::engine::Engine;

/// Why control over a type was not taken; nothing was changed.
///
/// ```
/// # use fieldkeep_device::ControlError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let refused = device.pause(Some(&"ordr".parse()?));
/// let Err(ControlError::UnknownType { known, .. }) = refused else { panic!("a typo") };
/// assert_eq!(known.len(), 3); // Customers, orders and visits.
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Neither the catalog nor a record here is of that type.
    #[error("the catalog has no object type `{ty}`, and no record here is of it")]
    UnknownType {
        /// The type.
        ty: TypeName,
        /// Those that there are.
        known: BTreeSet<TypeName>,
    },
    /// The disk refuses.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl Device {
    /// What is left out of every exchange: types that are paused, scopes that were not subscribed to.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let (order, visit) = ("order".parse()?, "visit".parse()?);
    /// device.pause(Some(&order))?;
    /// device.subscribe(&visit, Some("42"))?;
    /// let left_out = device.paused()?;
    /// assert!(left_out.pauses(&order) && !left_out.pauses(&visit));
    /// assert!(left_out.unsubscribes(&visit, "41"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn paused(&self) -> Result<LeftOut, StoreError> {
        self.engine().stored_pauses()
    }

    /// Exchanges nothing of a type, or of all, with anybody until it is resumed: nothing is sent and
    /// nothing is fetched but the relay's counts. Kept over restarts; local work goes on, and what is
    /// unsaved stays so. A connection that is open begins anew.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order = "order".parse()?;
    /// device.pause(Some(&order))?;
    /// assert!(device.paused()?.pauses(&order));
    /// device.resume(None)?;
    /// assert!(device.paused()?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`ControlError::UnknownType`] for a type that is not there; when the disk refuses.
    pub fn pause(&self, ty: Option<&TypeName>) -> Result<(), ControlError> {
        self.change_paused(ty, |mut paused, _| {
            match ty {
                None => paused.all = true,
                Some(ty) => drop(paused.types.insert(ty.clone())),
            }
            paused
        })
    }

    /// Exchanges a type again, or all.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let (order, visit) = ("order".parse()?, "visit".parse()?);
    /// device.pause(None)?; // Every type.
    /// device.resume(Some(&order))?; // That one; the others stay paused.
    /// let left_out = device.paused()?;
    /// assert!(!left_out.pauses(&order) && left_out.pauses(&visit));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`ControlError::UnknownType`] for a type that is not there; when the disk refuses.
    pub fn resume(&self, ty: Option<&TypeName>) -> Result<(), ControlError> {
        self.change_paused(ty, |mut paused, types| {
            let Some(ty) = ty else {
                return LeftOut { scopes: paused.scopes, ..LeftOut::default() };
            };
            if std::mem::take(&mut paused.all) {
                paused.types = types;
            }
            paused.types.remove(ty);
            paused
        })
    }

    fn change_paused(
        &self,
        ty: Option<&TypeName>,
        change: impl FnOnce(LeftOut, BTreeSet<TypeName>) -> LeftOut,
    ) -> Result<(), ControlError> {
        let types = self.known_type(ty)?;
        let mut engine = self.engine();
        let paused = change(engine.stored_pauses()?, types);
        self.leave_out(&mut engine, paused)?;
        Ok(())
    }

    /// Leaves that out and nothing else.
    pub(crate) fn leave_out(
        &self,
        engine: &mut Engine,
        left_out: LeftOut,
    ) -> Result<(), ReplicaError> {
        engine.pause(left_out, now())?;
        let outputs = engine.commit()?;
        self.0.deliver(engine, outputs);
        self.0.tell_status();
        Ok(())
    }

    /// Pauses those types and no others.
    pub(crate) fn change_pauses(&self, paused: LeftOut) -> Result<(), ReplicaError> {
        self.leave_out(&mut self.engine(), paused)
    }

    /// All types, if one is among them or none is asked for.
    pub(crate) fn known_type(
        &self,
        ty: Option<&TypeName>,
    ) -> Result<BTreeSet<TypeName>, ControlError> {
        let known = self.engine().replica().types();
        match ty.filter(|ty| !known.contains(ty)) {
            Some(ty) => Err(ControlError::UnknownType { ty: ty.clone(), known }),
            None => Ok(known),
        }
    }
}
