//! Joining: a key that is not a member's becomes one, and how that is slowed down for those who
//! guess.

use fieldkeep_model::membership::{self, Act, Entry};
use fieldkeep_model::{KeyPair, Signed};
use fieldkeep_protocol::{Code, Phase, frame};
use fieldkeep_replica::ReplicaError;

use super::{ConnectionId, Engine};

/// Joins that may fail within a minute before strangers are told to wait.
const FAILED_JOINS: usize = 20;
/// How long a device has the keys that it took before others are admitted, in milliseconds.
const KEYS_MS: i64 = 3_600_000;

impl Engine {
    pub(super) fn join(
        &mut self,
        id: ConnectionId,
        join: &frame::Members,
    ) -> Result<(), ReplicaError> {
        while self.failed_joins.front().is_some_and(|at| *at < self.now - 60_000) {
            self.failed_joins.pop_front();
        }
        if self.failed_joins.len() >= FAILED_JOINS {
            self.close(id, Code::Busy, "too many joins have failed: try again in a minute");
            return Ok(());
        }
        if let Err((code, text)) = self.try_join(id, join)? {
            self.failed_joins.push_back(self.now);
            self.close(id, code, text);
            return Ok(());
        }
        let key = self.peers[&id].key;
        let member = self.replica.members().by_tls(&key).expect("it has just joined");
        tracing::info!(number = member.number, name = member.name, "a device joined");
        let number = member.number;
        // Whoever brings the entry that revokes it is turned away by that.
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.member = Some(number);
        peer.session.enter(Phase::Open);
        self.tally.came(key);
        self.note_contact(id, 0);
        self.trace_session(id);
        self.introduce(id, 0);
        Ok(self.note_returned(key)?)
    }

    /// The admission of other keys that a device takes, if an entry is that, of this very device, and follows
    /// the log as it is.
    /// Each device gets them once an hour: entries are kept for ever, by everybody.
    pub(super) fn admission_of_keys(
        &mut self,
        id: ConnectionId,
        signed: &Signed,
    ) -> Option<Signed> {
        let entry: Entry = signed.read()?;
        let Act::RotateDevice { member, .. } = entry.act else { return None };
        let members = self.replica.members();
        let device = members.by_tls(&self.peers.get(&id)?.key)?;
        let (identity, since) = (device.identity, self.now - KEYS_MS);
        let own = device.keys.signing == member && !device.revoked && !device.relay;
        self.rotated.retain(|_, at| *at > since);
        if !own || entry.previous != members.tip() || self.rotated.contains_key(&identity) {
            return None;
        }
        self.rotated.insert(identity, self.now);
        Some(self.admit(signed))
    }

    /// The admission of whoever joins, or takes new keys, under the keys that the membership log says this
    /// relay has: those of its next start, once they are there.
    fn admit(&self, signed: &Signed) -> Signed {
        let (me, members) = (self.replica.me(), self.replica.members());
        let next = self.next_keys.as_ref().filter(|next| {
            members.member(me.number).is_some_and(|member| member.keys.signing == next.public())
        });
        membership::admission(signed, me.number, next.unwrap_or(&me.keys))
    }

    /// Notes the keys that this relay has from its next start on, so that it can admit members once the
    /// membership log names them.
    pub fn expect_keys(&mut self, next: Option<KeyPair>) {
        self.next_keys = next;
    }

    /// Takes a device in that joins: by an invitation that is good now, or by entries that say that a
    /// relay had admitted it before, when this one has forgotten that.
    fn try_join(
        &mut self,
        id: ConnectionId,
        join: &frame::Members,
    ) -> Result<Result<(), (Code, &'static str)>, ReplicaError> {
        let unknown =
            (Code::InvitationUnknown, "the invitation is unknown or was used: ask for a new one");
        let key = self.peers[&id].key;
        let read = |signed: &Signed| Some((signed.clone(), signed.read::<Entry>()?));
        let entries: Vec<(Signed, Entry)> = join.entries.iter().filter_map(read).collect();
        let own = entries.iter().find_map(|(signed, entry)| {
            let Act::Join { invite, keys } = entry.act else { return None };
            (keys.tls == key).then_some((signed, entry, invite))
        });
        let Some((signed, entry, invite)) = own else { return Ok(Err(unknown)) };
        let hash = signed.digest();
        let brought = if entries.iter().any(|(_, entry)| entry.previous == hash) {
            join.entries.clone()
        } else {
            let Some(invitation) = self.replica.members().invitation(invite) else {
                return Ok(Err(unknown));
            };
            if invitation.expires_ms < self.now {
                let text = "the invitation has expired: ask for a new one";
                return Ok(Err((Code::InvitationExpired, text)));
            }
            if entry.previous != self.replica.members().tip() {
                let text = "somebody else joined at the same moment: try again";
                return Ok(Err((Code::Membership, text)));
            }
            vec![signed.clone(), self.admit(signed)]
        };
        match self.append_members(&brought) {
            Ok(_) if self.replica.members().by_tls(&key).is_some() => Ok(Ok(())),
            Ok(_) | Err(ReplicaError::Membership(_)) => Ok(Err(unknown)),
            Err(error) => Err(error),
        }
    }
}
