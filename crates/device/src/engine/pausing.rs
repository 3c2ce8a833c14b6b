//! What is left out of every exchange: types that are paused for the time being, and scopes that this
//! device did not subscribe to. Local work goes on.

use fieldkeep_model::TypeName;
use fieldkeep_model::status::{LeftOut, Subscriptions};
use fieldkeep_protocol::Code;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Log as _, Settings as _, StoreError};

use super::Engine;

const PAUSED: &str = "paused";
/// The setting that says when that was changed last, milliseconds UTC.
pub(crate) const PAUSED_SINCE: &str = "paused_since";

impl Engine {
    /// What is left out.
    ///
    /// ```
    /// # use fieldkeep_device::Engine;
    /// # use fieldkeep_model::status::LeftOut;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// ann.pause(LeftOut { all: true, ..LeftOut::default() }, 0)?;
    /// ann.commit()?;
    /// let ann = Engine::new(ann.into_replica()); // As after a restart.
    /// assert!(ann.stored_pauses()?.all);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn stored_pauses(&self) -> Result<LeftOut, StoreError> {
        let bytes = self.replica.store().setting(PAUSED)?;
        let damaged = |_| StoreError::Damaged("what is paused".into());
        let kept: Option<LeftOut> =
            bytes.map(|bytes| minicbor::decode(&bytes).map_err(damaged)).transpose()?;
        // Of every type one generation is exchanged: that of the catalog in force here.
        let generations = self.replica.generations().clone();
        Ok(LeftOut { generations, ..kept.unwrap_or_default() })
    }

    /// What would be left out and is on this device alone: types and scopes, with how many changes.
    /// What the relay has refused does not count: as things stand nobody would take it, and it is kept.
    ///
    /// ```
    /// # use fieldkeep_model::status::LeftOut;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let scopes = [("order".parse()?, Default::default())].into();
    /// let left_out = LeftOut { scopes, ..LeftOut::default() };
    /// assert_eq!(ann.alone(&left_out)?.len(), 1);
    /// wire.relay(&mut ann)?;
    /// assert!(ann.alone(&left_out)?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn alone(&self, left_out: &LeftOut) -> Result<Vec<(TypeName, String, u64)>, StoreError> {
        let mut alone = Vec::new();
        for row in self.replica.segments().values() {
            let (ty, scope) = (&row.address.ty, &row.address.scope);
            if !left_out.unsubscribes(ty, scope) {
                continue;
            }
            let (changes, _) = self.replica.store().outgoing_in(row.sid)?;
            if changes > 0 {
                alone.push((ty.clone(), scope.clone(), changes));
            }
        }
        Ok(alone)
    }

    /// What is left out where those scopes are subscribed to, beside what is paused. A scope that
    /// somebody has taken out by hand is exchanged until what is on this device alone is on the relay;
    /// and a type that is kept in one piece is not left out for a scope.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let wanted = [("visit".parse()?, ["42".to_owned()].into())].into();
    /// let left_out = ann.subscribing(wanted)?;
    /// assert!(left_out.unsubscribes(&"visit".parse()?, "41"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn subscribing(&self, mut scopes: Subscriptions) -> Result<LeftOut, StoreError> {
        let published = self.replica.published();
        scopes.retain(|ty, _| {
            let object = published.and_then(|published| published.catalog.ty(ty));
            let unscoped = object.is_some_and(|object| object.scope.is_none());
            if unscoped {
                tracing::warn!(%ty, "it has no scopes, and is exchanged as a whole");
            }
            !unscoped
        });
        let mut left_out = LeftOut { scopes, ..self.stored_pauses()? };
        for (ty, scope, changes) in self.alone(&left_out)? {
            tracing::warn!(%ty, scope, changes, "left out only when this is on the relay");
            left_out.scopes.entry(ty).or_default().insert(scope);
        }
        Ok(left_out)
    }

    /// A scope that is left out, and of which the relay has lost something that is here, is exchanged
    /// until it has it: the session begins anew with that.
    pub(super) fn take_up_what_waits(&mut self) -> Result<(), ReplicaError> {
        let left_out = self.subscribing(self.paused.scopes.clone())?;
        self.pause(left_out, self.now)
    }

    /// After a failure: what is left out is what the disk says. A scope that it leaves out is not
    /// written to, though somebody has tried to take it again.
    pub(super) fn recall_pauses(&mut self) -> Result<(), StoreError> {
        self.paused = self.stored_pauses()?;
        self.replica.set_subscriptions(self.paused.scopes.clone());
        Ok(())
    }

    /// Leaves that out and nothing else, from that time on in milliseconds UTC; kept until it is changed.
    /// Connections begin anew: on each it is said once.
    ///
    /// ```
    /// # use fieldkeep_model::status::LeftOut;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// ann.pause(LeftOut { all: true, ..LeftOut::default() }, 0)?;
    /// wire.relay(&mut ann)?;
    /// assert_eq!(ann.progress()?.sent, 0); // The order stays on this device.
    /// ann.pause(LeftOut::default(), 0)?;
    /// wire.relay(&mut ann)?;
    /// assert_eq!(ann.progress()?.sent, 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pause(&mut self, paused: LeftOut, now: i64) -> Result<(), ReplicaError> {
        let before = self.stored_pauses()?;
        let paused = LeftOut { generations: before.generations.clone(), ..paused };
        let bytes = minicbor::to_vec(&paused).expect("encoding into memory cannot fail");
        if before != paused {
            self.replica.store_mut().set(PAUSED, &bytes)?;
        }
        if (before.all, &before.types) != (paused.all, &paused.types) {
            self.replica.store_mut().set(PAUSED_SINCE, now.to_string().as_bytes())?;
        }
        self.replica.set_subscriptions(paused.scopes.clone());
        self.paused = paused;
        if before != self.paused {
            self.begin_anew();
        }
        Ok(())
    }

    /// Exchanges the generations that are in force here from now on. Returns whether they are others
    /// than before.
    pub(super) fn take_generations(&mut self) -> bool {
        let before = std::mem::take(&mut self.paused.generations);
        self.paused.generations.clone_from(self.replica.generations());
        before != self.paused.generations
    }

    /// Ends every session: what is exchanged is said once in each.
    pub(super) fn begin_anew(&mut self) {
        const WHY: &str = "what is exchanged has changed: the session begins anew";
        if self.session.is_some() {
            self.close(Code::Done, WHY);
        }
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.close_peer(id, Code::Done, WHY);
        }
    }
}
