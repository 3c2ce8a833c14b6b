//! What a log says: who is a member and may do what, and what others lack of it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Decode;

use super::{Id, MembershipLog, Place};
use crate::id::{ActorId, DeviceNumber, OrgId};
use crate::key::{KeyPair, PublicKey, Signed};
use crate::membership::{Act, CONTEXT, Entry, Invitation, Member};

impl MembershipLog {
    /// Whose key signs an act that follows the standing branch; nobody's, where it cannot follow.
    #[must_use]
    pub fn who_signs(&self, act: &Act) -> Option<PublicKey> {
        self.signer(act, self.tip).ok()
    }

    /// Signs the entry that follows the standing branch.
    #[must_use]
    pub fn sign(&self, act: Act, keys: &KeyPair) -> Signed {
        Signed::new(CONTEXT, &Entry { previous: self.tip(), act }, keys)
    }

    /// The organisation's id.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// The organisation's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The admin's public key: whoever has the other half signs what follows the standing branch.
    #[must_use]
    pub fn admin(&self) -> PublicKey {
        self.admin_at(self.tip)
    }

    /// The key that can replace a lost admin key, if one was named.
    #[must_use]
    pub fn recovery(&self) -> Option<PublicKey> {
        self.recovery_at(self.tip)
    }

    /// Whether an entry was taken, but does nothing, because the key that signed it was replaced.
    #[must_use]
    pub fn is_void(&self, entry: &Signed) -> bool {
        self.places.get(&entry.digest()).is_some_and(|place| self.void.contains(place))
    }

    /// Whether an entry is here.
    #[must_use]
    pub fn holds(&self, entry: &Signed) -> bool {
        self.places.contains_key(&entry.digest())
    }

    /// The ends of the branches that stand besides the one that goes on: whoever replaces the admin key
    /// lets them stand by naming them.
    #[must_use]
    pub fn other_ends(&self) -> Vec<[u8; 32]> {
        let followed: BTreeSet<Place> = self.nodes.iter().skip(1).map(|node| node.before).collect();
        let ends = (0..self.nodes.len()).filter(|place| !followed.contains(place));
        let others = ends.filter(|place| *place != self.tip && self.stands(*place));
        others.map(|place| self.nodes[place].hash).collect()
    }

    /// How many entries there are, over all branches.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Never: a log has its founding entry at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// blake3 of the newest entry of the standing branch: the longest, and of several that with the
    /// lowest hash.
    #[must_use]
    pub fn tip(&self) -> [u8; 32] {
        self.nodes[self.tip].hash
    }

    /// The number of the entry that follows the standing branch.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.nodes[self.tip].depth + 1
    }

    /// The entries from an index on, in the order in which they came here.
    #[must_use]
    pub fn since(&self, index: u64) -> &[Signed] {
        usize::try_from(index).ok().and_then(|i| self.entries.get(i..)).unwrap_or_default()
    }

    /// The entries that are not among these, in order.
    #[must_use]
    pub fn beyond(&self, entries: &[Signed]) -> Vec<Signed> {
        let known: BTreeSet<_> = entries.iter().map(Signed::digest).collect();
        let beyond = self.entries.iter().filter(|entry| !known.contains(&entry.digest()));
        beyond.cloned().collect()
    }

    /// The sum of the first so many entries' hashes: where two replicas have the same, they hold
    /// the same entries. `None` if there are not so many.
    #[must_use]
    pub fn sum_at(&self, count: u64) -> Option<u128> {
        let Some(last) = usize::try_from(count).ok()?.checked_sub(1) else { return Some(0) };
        self.nodes.get(last).map(|node| node.sum)
    }

    /// The sum of all entries' hashes.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.nodes.last().map_or(0, |node| node.sum)
    }

    /// The members, by number. Two of one number joined on different branches.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Id, Member> {
        &self.members
    }

    /// The members with that number: one, but where branches were united.
    pub fn numbered(&self, number: DeviceNumber) -> impl Iterator<Item = &Member> {
        let all = (number, PublicKey([0; 32]))..=(number, PublicKey([0xff; 32]));
        self.members.range(all).map(|(_, member)| member)
    }

    /// The member with that number; where branches were united, one of them.
    #[must_use]
    pub fn member(&self, number: DeviceNumber) -> Option<&Member> {
        self.numbered(number).next()
    }

    /// A member by the key that proved its connection.
    #[must_use]
    pub fn by_tls(&self, key: &PublicKey) -> Option<&Member> {
        self.by_tls.get(key).and_then(|id| self.members.get(id))
    }

    /// A member by a key that it signs with, or did.
    #[must_use]
    pub fn by_signing(&self, key: &PublicKey) -> Option<&Member> {
        let current = self.members.values().find(|member| member.keys.signing == *key);
        current.or_else(|| self.members.values().find(|member| member.has_had(key)))
    }

    /// The device with that signing key.
    #[must_use]
    pub fn device(&self, key: &PublicKey) -> Option<&Member> {
        self.by_signing(key).filter(|member| !member.relay)
    }

    /// The member whose actor this is, if the actor id is one of its.
    #[must_use]
    pub fn author(&self, actor: &ActorId) -> Option<&Member> {
        let number = actor.device();
        self.numbered(number).find(|member| member.is(actor))
    }

    /// A statement, if the relay with that number signed it.
    #[must_use]
    pub fn stated_by<'s, T: Decode<'s, ()>>(
        &self,
        relay: DeviceNumber,
        context: &str,
        signed: &'s Signed,
    ) -> Option<T> {
        let mut relays = self.numbered(relay).filter(|member| member.relay);
        relays.find_map(|relay| relay.stated(context, signed))
    }

    /// The invitation with that number, if it can be taken up behind the standing branch.
    #[must_use]
    pub fn invitation(&self, number: u64) -> Option<&Invitation> {
        let (place, invitation) = self.invitation_at(number, self.tip)?;
        (!self.is_used(place, self.tip)).then_some(invitation)
    }

    /// How many invitations nobody has taken up.
    #[must_use]
    pub fn open_invitations(&self) -> usize {
        self.invitations.keys().filter(|place| !self.taken.contains_key(place)).count()
    }
}
