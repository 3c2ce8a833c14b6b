//! What the operator changes while devices are connected: who may what, the catalog, the epoch.
//!
//! Every entry of the membership log takes effect here, whoever brought it: sessions of those who
//! lost something end, everybody else is told.

use fieldkeep_catalog::Catalog;
use fieldkeep_model::membership::{Act, CutOff, Entry};
use fieldkeep_model::{Epoch, Grant, PublicKey, Signed};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{self, Frame, GoAway, OfferReply};
use fieldkeep_replica::{Note, ReplicaError, RollBackError};

use super::peer::Peer;
use super::{ConnectionId, Engine};

/// How long a member is kept away while the admin signs what becomes of it, in milliseconds.
const SUSPENSION_MS: i64 = 10_000;
/// What a revoked device is told.
const REVOKED: &str = "this device was revoked: nothing on it is lost, but it exchanges nothing any more; \
     whoever administers the organisation can say why, and invite it again";
/// What somebody is told whose key was replaced.
const OTHER_KEYS: &str = "this key is no member's any more";
/// What a device is told whose grants were replaced.
const REPLACED: &str = "what this device may read and write has changed: it comes again";

impl Engine {
    /// Appends entries of the membership log, and does what they say. A commit must follow. Returns
    /// how many were appended.
    ///
    /// # Errors
    /// When an entry does not follow, or somebody joins whom no relay admitted: none of them is
    /// appended then. Failures of the store.
    pub fn append_members(&mut self, entries: &[Signed]) -> Result<u64, ReplicaError> {
        let before = self.replica.members().len();
        let appended = self.replica.append_members(entries)?;
        let new: Vec<Signed> = self.replica.members().since(before).to_vec();
        for entry in new.iter().filter_map(Signed::read::<Entry>) {
            self.take_effect(&entry.act)?;
        }
        if !new.is_empty() {
            self.announce_members();
            self.part_from_the_gone();
        }
        Ok(appended)
    }

    /// Ends the sessions of those whose keys are nobody's any more: they took others, or what made them
    /// members is void.
    fn part_from_the_gone(&mut self) {
        let members = self.replica.members();
        let gone = |(_, peer): &(&ConnectionId, &Peer)| {
            peer.member.is_some() && members.by_tls(&peer.key).is_none()
        };
        let gone: Vec<ConnectionId> = self.peers.iter().filter(gone).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.send_away(id, OTHER_KEYS));
    }

    /// What a relay's log holds of a member where it may not write once it has those grants. The
    /// member is kept away for a moment, so that this still holds when the entry that says it is
    /// signed. `None` if there is no such device.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cut_offs(
        &mut self,
        now: i64,
        key: &PublicKey,
        grants: &[Grant],
    ) -> Result<Option<Vec<CutOff>>, ReplicaError> {
        let Some(member) = self.replica.members().device(key).cloned() else { return Ok(None) };
        self.suspended.retain(|_, until| *until > now);
        self.suspended.insert(member.keys.tls, now + SUSPENSION_MS);
        for id in self.sessions_of(&member.keys.tls) {
            self.send_away(id, REPLACED);
        }
        Ok(Some(self.replica.cut_offs(&member, grants)?))
    }

    /// Publishes a catalog: connected devices get it at once, and what it changes is judged in the
    /// background. A commit must follow. Returns its number.
    ///
    /// # Errors
    /// When it does not parse, or changes what is frozen; failures of the store.
    pub fn publish(&mut self, source: &str) -> Result<u64, ReplicaError> {
        let catalog = Catalog::parse(source).map_err(ReplicaError::Catalog)?;
        super::check_queries(&catalog)?;
        let unjudged = catalog.unjudged(self.replica.judges());
        if !unjudged.is_empty() {
            return Err(ReplicaError::Catalog(unjudged));
        }
        let number = self.replica.publish(catalog)?;
        self.announce_catalog();
        Ok(number)
    }

    /// The same, with when and why; of a catalog that is in force already nothing is noted.
    ///
    /// # Errors
    /// Those of [`Engine::publish`].
    pub fn publish_noted(&mut self, source: &str, note: Note<'_>) -> Result<u64, ReplicaError> {
        let before = self.replica.published().map(|published| published.number);
        let number = self.publish(source)?;
        if before != Some(number) {
            self.replica.note_catalog(note)?;
        }
        Ok(number)
    }

    /// Publishes an earlier catalog again, as [`Replica::roll_back`] finds it: connected devices get it
    /// at once. A commit must follow. Returns its new number.
    ///
    /// # Errors
    /// When there is no such catalog; failures of the store.
    ///
    /// [`Replica::roll_back`]: fieldkeep_replica::Replica::roll_back
    pub fn roll_back(&mut self, to: Option<u64>, note: Note<'_>) -> Result<u64, RollBackError> {
        let before = self.replica.published().map(|published| published.number);
        let number = self.replica.roll_back(to)?;
        if before != Some(number) {
            self.replica.note_catalog(note)?;
            self.announce_catalog();
        }
        Ok(number)
    }

    /// Opens a new epoch with a new incarnation: this directory was put back from an old copy, and
    /// its log is not the one that devices know. Connected devices compare all again, and it is noted
    /// from now on what comes back: see [`Recovery`](crate::Recovery). A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn restore(&mut self) -> Result<(), ReplicaError> {
        self.open_epoch(self.replica.epoch())
    }

    /// The same, where no input has told for long what time it is.
    ///
    /// # Errors
    /// When the store fails.
    pub fn restore_at(&mut self, now: i64) -> Result<(), ReplicaError> {
        self.now = now;
        self.restore()
    }

    /// Somebody shows what this relay once stated: if it does not know that any more, it was put
    /// back from an old copy. Whoever shows it hears what came of it.
    pub(super) fn witness(
        &mut self,
        id: ConnectionId,
        statement: &Signed,
    ) -> Result<(), ReplicaError> {
        match self.replica.lost(statement)? {
            Some(epoch) => self.open_epoch(epoch)?,
            None => self.tell_epoch(id),
        }
        Ok(())
    }

    fn tell_epoch(&mut self, id: ConnectionId) {
        let (epoch, root) = (self.replica.epoch(), self.root_for(id));
        let reply = OfferReply { epoch, root, segments: Vec::new(), round: 0 };
        self.control(id, &Frame::OfferReply(reply));
    }

    /// Opens an epoch above another, and tells every device that is connected.
    pub(super) fn open_epoch(&mut self, above: Epoch) -> Result<(), ReplicaError> {
        tracing::warn!(%above, "this relay was put back from an old copy: it opens an epoch");
        self.replica.open_epoch_above(above)?;
        self.note_restored()?;
        self.moved.extend(self.replica.restate_verdicts()?);
        self.announce_catalog();
        let members = self.peers.iter_mut().filter(|(_, peer)| peer.member.is_some());
        let mut told = Vec::new();
        for (id, peer) in members {
            // What it knows of verdicts ended with the epoch, and with them what was proven.
            for following in peer.following.values_mut() {
                (following.verdict, following.judged) = (0, 0);
                following.proved = None;
            }
            told.push(*id);
        }
        told.into_iter().for_each(|id| self.tell_epoch(id));
        Ok(())
    }

    fn take_effect(&mut self, act: &Act) -> Result<(), ReplicaError> {
        let Some((member, ..)) = act.permissions() else { return Ok(()) };
        let revoked = matches!(act, Act::Revoke { .. });
        let Some(keys) = self.replica.members().device(member).map(|member| member.keys) else {
            return Ok(());
        };
        self.suspended.remove(&keys.tls);
        for id in self.sessions_of(&keys.tls) {
            if revoked {
                self.turn_away(id);
            } else {
                let known = self.peers[&id].members;
                self.tell_members(id, known);
                self.send_away(id, REPLACED);
            }
        }
        let (grown, tainted) = self.replica.apply_permissions(member)?;
        self.replica.renew_segments(&tainted)?;
        for segment in grown {
            self.has_grown(&segment)?;
        }
        Ok(())
    }

    /// Ends the session of a revoked member: it gets the membership log through the entry that
    /// revoked it, and nothing after.
    pub(super) fn turn_away(&mut self, id: ConnectionId) {
        let key = self.peers[&id].key;
        let signing = self.replica.members().by_tls(&key).map(|member| member.keys.signing);
        let known = self.peers[&id].members;
        let mut entries = self.replica.members().since(known).to_vec();
        let last = entries.iter().position(|entry| match entry.read::<Entry>() {
            Some(Entry { act: Act::Revoke { member, .. }, .. }) => Some(member) == signing,
            Some(_) | None => false,
        });
        entries.truncate(last.map_or(0, |last| last + 1));
        if !entries.is_empty() {
            self.control(id, &Frame::Members(frame::Members { base: known, entries }));
        }
        self.close(id, Code::Revoked, REVOKED);
    }

    /// Ends a session whose device is to come again at once.
    fn send_away(&mut self, id: ConnectionId, text: &str) {
        self.control(id, &Frame::GoAway(GoAway { retry_ms: 0 }));
        self.close(id, Code::GoingAway, text);
    }

    pub(super) fn sessions_of(&self, key: &PublicKey) -> Vec<ConnectionId> {
        self.peers.iter().filter(|(_, peer)| peer.key == *key).map(|(id, _)| *id).collect()
    }

    /// Whether the admin is about to sign what becomes of a member.
    pub(super) fn is_suspended(&self, key: &PublicKey) -> bool {
        self.suspended.get(key).is_some_and(|until| self.now < *until)
    }

    /// Tells every member the catalog in force.
    pub(super) fn announce_catalog(&mut self) {
        let members = self.peers.iter().filter(|(_, peer)| peer.member.is_some());
        for id in members.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tell_catalog(id);
        }
    }

    pub(super) fn tell_catalog(&mut self, id: ConnectionId) {
        let Some(published) = self.replica.published() else { return };
        let (number, notice) = (published.number, published.notice.clone());
        let source = published.catalog.source().to_owned();
        self.control(id, &Frame::Catalog(frame::CatalogFile { notice, source }));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.catalog = number;
        }
    }
}
