//! The log and what it folds to.
//!
//! Entries name the one before them, so a log is a tree with one root: where a relay was put back
//! from an old copy and went on, two branches follow one entry. Both are kept. An entry is judged by
//! the branch that it ends, and by nothing else, and so every replica that holds an entry takes it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Decode;

use super::member::Standing;
use super::{Act, CONTEXT, Entry, GATE_VERSION, Invitation, Member, MemberKeys};
use crate::id::{ActorId, DeviceNumber, OrgId};
use crate::key::{KeyPair, PublicKey, Signed};

/// Why an entry does not extend a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It does not decode.
    #[error("a membership entry is malformed")]
    Malformed,
    /// The entry that it follows is not there, or lets nothing follow.
    #[error("a membership entry does not follow one that is known")]
    Unchained,
    /// It is signed by the wrong key.
    #[error("a membership entry is not signed by whom it should be")]
    Unsigned,
    /// It founds twice, joins by an unknown or used invitation, or admits a key twice.
    #[error("a membership entry contradicts an earlier one")]
    Contradiction,
    /// Somebody joins, and no relay says that it was in time.
    #[error("a device joins, and no relay has admitted it")]
    Unadmitted,
    /// It needs a newer gate.
    #[error("the organisation uses a gate version that this software does not know: update it")]
    GateVersion,
    /// The log belongs to another organisation.
    #[error("the membership log belongs to another organisation")]
    ForeignOrganisation,
}

/// Where an entry stands in the tree, as an index in order of arrival.
type Place = usize;

#[derive(Clone, Debug)]
struct Node {
    hash: [u8; 32],
    /// How many entries come before it on its branch: its number.
    depth: u64,
    /// The run of entries without a fork that it lies in.
    run: usize,
    /// Whether somebody joins by it.
    join: bool,
    /// The entry that it follows.
    before: Place,
    /// The sum of the hashes of all entries that arrived through this one.
    sum: u128,
}

/// The log.
#[derive(Clone, Debug)]
pub struct MembershipLog {
    /// In the order in which they came here; what follows an entry comes after it.
    entries: Vec<Signed>,
    nodes: Vec<Node>,
    places: BTreeMap<[u8; 32], Place>,
    /// The entry that each run forks off; none for the first.
    runs: Vec<Option<Place>>,
    /// The newest entry of the standing branch.
    tip: Place,
    org: OrgId,
    name: String,
    admin: PublicKey,
    invitations: BTreeMap<Place, Invitation>,
    /// The joins that took an invitation up, by its place: one on each branch at most.
    taken: BTreeMap<Place, Vec<Place>>,
    relays: Vec<(Place, DeviceNumber, PublicKey)>,
    /// A join that no relay has admitted yet.
    pending: Option<(Place, Member)>,
    /// Where members were admitted, by their TLS keys.
    admitted: BTreeMap<PublicKey, Vec<Place>>,
    members: BTreeMap<(DeviceNumber, PublicKey), Member>,
    by_tls: BTreeMap<PublicKey, (DeviceNumber, PublicKey)>,
    standings: BTreeMap<PublicKey, Standing>,
}

impl MembershipLog {
    /// Founds an organisation.
    #[must_use]
    pub fn found(name: &str, admin: &KeyPair, salt: [u8; 16]) -> Self {
        let act =
            Act::Found { name: name.to_owned(), admin: admin.public(), gate: GATE_VERSION, salt };
        let first = Signed::new(CONTEXT, &Entry { previous: [0; 32], act }, admin);
        Self::open(vec![first]).expect("a log that we founded is sound")
    }

    /// Verifies a whole log.
    ///
    /// # Errors
    /// When it does not begin with a signed founding, or an entry does not extend it.
    pub fn open(entries: Vec<Signed>) -> Result<Self, MembershipError> {
        let mut entries = entries.into_iter();
        let first = entries.next().ok_or(MembershipError::Malformed)?;
        let mut log = Self::begin(first)?;
        entries.try_for_each(|entry| log.append(entry))?;
        log.pending.is_none().then_some(log).ok_or(MembershipError::Unadmitted)
    }

    fn begin(first: Signed) -> Result<Self, MembershipError> {
        let entry: Entry = first.read().ok_or(MembershipError::Malformed)?;
        let Act::Found { name, admin, gate, .. } = entry.act else {
            return Err(MembershipError::Malformed);
        };
        if gate > GATE_VERSION {
            return Err(MembershipError::GateVersion);
        }
        first.open::<Entry>(CONTEXT, &admin).ok_or(MembershipError::Unsigned)?;
        let hash = first.digest();
        let sum = digest(&hash);
        let node = Node { hash, depth: 0, run: 0, join: false, before: 0, sum };
        Ok(Self {
            org: OrgId(hash[..16].try_into().expect("sixteen bytes")),
            entries: vec![first],
            nodes: vec![node],
            places: BTreeMap::from([(hash, 0)]),
            runs: vec![None],
            tip: 0,
            name,
            admin,
            invitations: BTreeMap::new(),
            taken: BTreeMap::new(),
            relays: Vec::new(),
            pending: None,
            admitted: BTreeMap::new(),
            members: BTreeMap::new(),
            by_tls: BTreeMap::new(),
            standings: BTreeMap::new(),
        })
    }

    /// Takes over entries that somebody brings, all or none; those that are known are passed over.
    /// Returns those that are new, in order.
    ///
    /// # Errors
    /// When one of them does not extend the log, or somebody joins whom no relay admitted.
    pub fn merge(&mut self, entries: &[Signed]) -> Result<Vec<Signed>, MembershipError> {
        let new = |entry: &&Signed| !self.places.contains_key(&entry.digest());
        let new: Vec<Signed> = entries.iter().filter(new).cloned().collect();
        if new.is_empty() {
            return Ok(new);
        }
        let mut grown = self.clone();
        new.iter().cloned().try_for_each(|entry| grown.append(entry))?;
        if grown.pending.is_some() {
            return Err(MembershipError::Unadmitted);
        }
        *self = grown;
        Ok(new)
    }

    /// Appends an entry that somebody signed. A join admits nobody before a relay's entry follows.
    ///
    /// # Errors
    /// When it does not follow a known entry, is signed by the wrong key, or contradicts its branch;
    /// the log is unchanged then.
    pub fn append(&mut self, signed: Signed) -> Result<(), MembershipError> {
        let entry: Entry = signed.read().ok_or(MembershipError::Malformed)?;
        let before = *self.places.get(&entry.previous).ok_or(MembershipError::Unchained)?;
        // Right behind a join comes what admits it, and nothing else.
        let awaited = self.pending.as_ref().map(|(place, _)| *place);
        if awaited.is_some() && awaited != Some(before) {
            return Err(MembershipError::Unadmitted);
        }
        if matches!(entry.act, Act::Admit { .. }) != awaited.is_some() || self.is_taken(before) {
            return Err(MembershipError::Unchained);
        }
        let signer = self.signer(&entry.act, before)?;
        signed.open::<Entry>(CONTEXT, &signer).ok_or(MembershipError::Unsigned)?;
        let join = matches!(entry.act, Act::Join { .. });
        let node = self.node(&signed, before, join);
        self.act(entry.act, before, &node)?;
        self.insert(signed, node);
        Ok(())
    }

    /// Whether an entry is a join that was admitted: what follows it follows the admission.
    fn is_taken(&self, place: Place) -> bool {
        self.nodes[place].join && self.pending.is_none()
    }

    /// Who must have signed an act that follows that entry.
    fn signer(&self, act: &Act, before: Place) -> Result<PublicKey, MembershipError> {
        match act {
            Act::Found { .. } => Err(MembershipError::Contradiction),
            Act::Relay { .. } | Act::Invite { .. } | Act::Grant { .. } | Act::Revoke { .. } => {
                Ok(self.admin)
            }
            Act::Join { invite, .. } => {
                let invitation = self.invitation_at(*invite, before);
                Ok(invitation.ok_or(MembershipError::Contradiction)?.1.key)
            }
            Act::Admit { relay } => {
                let admits = |(place, number, _): &&(Place, DeviceNumber, PublicKey)| {
                    number == relay && self.precedes(*place, before)
                };
                let relay = self.relays.iter().find(admits);
                relay.map(|(.., key)| *key).ok_or(MembershipError::Unsigned)
            }
        }
    }

    /// The entry as it will stand.
    fn node(&self, signed: &Signed, before: Place, join: bool) -> Node {
        let hash = signed.digest();
        let parent = &self.nodes[before];
        let last = self.nodes.iter().rposition(|node| node.run == parent.run);
        let run = if last == Some(before) { parent.run } else { self.runs.len() };
        let sum = self.sum().wrapping_add(digest(&hash));
        Node { hash, depth: parent.depth + 1, run, join, before, sum }
    }

    fn insert(&mut self, signed: Signed, node: Node) {
        if node.run == self.runs.len() {
            self.runs.push(Some(node.before));
        }
        let place = self.nodes.len();
        self.places.insert(node.hash, place);
        let standing = &self.nodes[self.tip];
        let further = (std::cmp::Reverse(node.depth), node.hash)
            < (std::cmp::Reverse(standing.depth), standing.hash);
        // Nobody builds on a join that no relay admitted.
        if further && !node.join {
            self.tip = place;
        }
        self.nodes.push(node);
        self.entries.push(signed);
    }

    fn act(&mut self, act: Act, before: Place, node: &Node) -> Result<(), MembershipError> {
        let (number, place) = (node.depth, self.nodes.len());
        match act {
            Act::Found { .. } => unreachable!("nobody signs a second one"),
            Act::Relay { keys, name } => {
                self.refuse_known(&keys, before)?;
                self.relays.push((place, number, keys.signing));
                self.admit(Member::relay(number, name, keys), place);
            }
            Act::Invite { key, name, grants, expires_ms } => {
                let invitation = Invitation { number, key, name, grants, expires_ms };
                self.invitations.insert(place, invitation);
            }
            Act::Join { invite, keys } => {
                let found = self.invitation_at(invite, before);
                let (at, invitation) = found.expect("its key has verified the entry");
                let Invitation { name, grants, .. } = invitation.clone();
                if self.is_used(at, before) {
                    return Err(MembershipError::Contradiction);
                }
                self.refuse_known(&keys, before)?;
                self.taken.entry(at).or_default().push(place);
                self.pending = Some((place, Member::admitted(number, name, keys, grants)));
            }
            Act::Admit { .. } => {
                let (_, member) = self.pending.take().expect("an admission is awaited");
                self.admit(member, place);
            }
            Act::Grant { member, grants, cuts } => {
                let standing = self.standings.entry(member).or_default();
                standing.replace((number, node.hash), grants, &cuts);
                self.fold(&member);
            }
            Act::Revoke { member, cuts } => {
                self.standings.entry(member).or_default().revoke(&cuts);
                self.fold(&member);
            }
        }
        Ok(())
    }

    /// Whether an entry lies on the branch that ends with another.
    fn precedes(&self, place: Place, end: Place) -> bool {
        let run = self.nodes[place].run;
        let mut at = end;
        while self.nodes[at].run != run {
            let Some(fork) = self.runs[self.nodes[at].run] else { return false };
            at = fork;
        }
        place <= at
    }

    /// The invitation with that number on the branch that ends with an entry.
    fn invitation_at(&self, number: u64, end: Place) -> Option<(Place, &Invitation)> {
        let mut found = self.invitations.iter().filter(|(_, one)| one.number == number);
        found.find(|(place, _)| self.precedes(**place, end)).map(|(place, one)| (*place, one))
    }

    fn is_used(&self, invitation: Place, end: Place) -> bool {
        let taken = self.taken.get(&invitation).into_iter().flatten();
        taken.into_iter().any(|join| self.precedes(*join, end))
    }

    fn refuse_known(&self, keys: &MemberKeys, end: Place) -> Result<(), MembershipError> {
        let admitted = self.admitted.get(&keys.tls).into_iter().flatten();
        if admitted.into_iter().any(|place| self.precedes(*place, end)) {
            return Err(MembershipError::Contradiction);
        }
        Ok(())
    }

    fn admit(&mut self, member: Member, place: Place) {
        let id = (member.number, member.keys.signing);
        self.admitted.entry(member.keys.tls).or_default().push(place);
        // One key on two branches is one device; its older number is the one that it goes by.
        let known = self.by_tls.entry(member.keys.tls).or_insert(id);
        *known = id.min(*known);
        self.members.entry(id).or_insert(member);
        self.fold(&id.1);
    }

    /// Applies what was decided about a device since it joined.
    fn fold(&mut self, key: &PublicKey) {
        let Some(standing) = self.standings.get(key) else { return };
        let theirs = self.members.values_mut().filter(|m| m.keys.signing == *key && !m.relay);
        theirs.for_each(|member| standing.apply(member));
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

    /// The admin's public key.
    #[must_use]
    pub fn admin(&self) -> &PublicKey {
        &self.admin
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
    pub fn members(&self) -> &BTreeMap<(DeviceNumber, PublicKey), Member> {
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

    /// A member by the key that it signs with.
    #[must_use]
    pub fn by_signing(&self, key: &PublicKey) -> Option<&Member> {
        self.members.values().find(|member| member.keys.signing == *key)
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
        self.numbered(number).find(|member| actor.belongs_to(number, &member.keys.signing))
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
        relays.find_map(|relay| signed.open(context, &relay.keys.signing))
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

fn digest(hash: &[u8; 32]) -> u128 {
    u128::from_be_bytes(hash[..16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Head;
    use crate::id::{ChangeHash, SegmentAddress, SegmentId, TypeName};
    use crate::key::Seed;
    use crate::membership::{CutOff, Grant, admission};

    fn keys(n: u8) -> KeyPair {
        Seed([n; 32]).signing()
    }

    /// A log with a relay, which admits whoever joins.
    fn founded() -> MembershipLog {
        let mut log = MembershipLog::found("acme", &keys(1), [0; 16]);
        let relay = Act::Relay { keys: MemberKeys::of(&Seed([9; 32])), name: "relay".into() };
        log.append(log.sign(relay, &keys(1))).expect("the admin signed it");
        log
    }

    /// Invites somebody with the one-time key of that number.
    fn invite(log: &mut MembershipLog, one_time: u8) -> u64 {
        let act = Act::Invite {
            key: keys(one_time).public(),
            name: "ann".into(),
            grants: vec![Grant::ALL],
            expires_ms: 10,
        };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        log.next_number() - 1
    }

    /// The entries by which a device joins, admitted by whoever has that key.
    fn joining(
        log: &MembershipLog,
        (invite, one_time): (u64, u8),
        device: u8,
        admits: &KeyPair,
    ) -> Vec<Signed> {
        let keys_of = MemberKeys::of(&Seed([device; 32]));
        let join = log.sign(Act::Join { invite, keys: keys_of }, &keys(one_time));
        let admission = admission(&join, 1, admits);
        vec![join, admission]
    }

    fn joined() -> (MembershipLog, MemberKeys, ActorId) {
        let mut log = founded();
        let number = invite(&mut log, 2);
        let entries = joining(&log, (number, 2), 7, &keys(9));
        log.merge(&entries).expect("the invitation is open");
        let device = MemberKeys::of(&Seed([7; 32]));
        (log, device, ActorId::new(3, 0, &device.signing))
    }

    #[test]
    fn an_invitation_admits_one_device_once() {
        let (mut log, ..) = joined();
        assert_eq!(log.member(3).map(|m| m.name.as_str()), Some("ann"));
        let again = joining(&log, (2, 2), 8, &keys(9));
        assert_eq!(log.merge(&again), Err(MembershipError::Contradiction));
        let reopened = MembershipLog::open(log.since(0).to_vec()).expect("the log is sound");
        assert_eq!(reopened.members(), log.members());
    }

    #[test]
    fn nobody_is_a_member_whom_no_relay_admitted() {
        let mut log = founded();
        let number = invite(&mut log, 2);
        let before = log.sum();
        let entries = joining(&log, (number, 2), 7, &keys(9));
        assert_eq!(log.merge(&entries[..1]), Err(MembershipError::Unadmitted));
        let forged = joining(&log, (number, 2), 7, &keys(7));
        assert_eq!(log.merge(&forged), Err(MembershipError::Unsigned));
        assert_eq!(log.merge(&entries[1..]), Err(MembershipError::Unchained));
        assert_eq!(log.sum(), before, "all or none");
        assert_eq!(log.merge(&entries).map(|new| new.len()), Ok(2));
    }

    #[test]
    fn nobody_but_the_admin_invites() {
        let mut log = founded();
        let act = Act::Relay { keys: MemberKeys::of(&Seed([4; 32])), name: "mallory".into() };
        let forged = log.sign(act, &keys(9));
        assert_eq!(log.append(forged), Err(MembershipError::Unsigned));
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn an_entry_follows_one_that_is_known() {
        let (log, ..) = joined();
        let mut other = founded();
        let entries = log.since(3);
        assert_eq!(other.merge(entries), Err(MembershipError::Unchained));
        other.merge(log.since(0)).expect("those that are known are passed over");
        assert_eq!(other.sum(), log.sum());
    }

    #[test]
    fn branches_of_a_restored_relay_are_united_in_either_order() {
        let mut old = founded();
        let number = invite(&mut old, 2);
        let (mut one, mut other) = (old.clone(), old.clone());
        one.merge(&joining(&old, (number, 2), 7, &keys(9))).expect("it is open");
        let act = Act::Revoke { member: MemberKeys::of(&Seed([7; 32])).signing, cuts: vec![] };
        one.append(one.sign(act, &keys(1))).expect("the admin signed it");
        // The relay that was put back knows of none of it, and somebody else has the ticket.
        other.merge(&joining(&old, (number, 2), 8, &keys(9))).expect("it is open there");
        let next = invite(&mut other, 3);
        other.merge(&joining(&other.clone(), (next, 3), 10, &keys(9))).expect("it is open");

        let (mut left, mut right) = (one.clone(), other.clone());
        left.merge(other.since(0)).expect("both are sound");
        right.merge(one.since(0)).expect("both are sound");
        assert_eq!(left.members(), right.members());
        assert_eq!((left.tip(), left.sum(), left.org()), (right.tip(), right.sum(), one.org()));
        assert_eq!(left.tip(), other.tip(), "the longer branch stands");
        let same: Vec<_> = left.numbered(3).map(|member| member.revoked).collect();
        assert_eq!(same.len(), 2, "two joined as number 3, and both stay");
        assert!(same.contains(&true) && same.contains(&false));
        for device in [7, 8, 10] {
            let keys = MemberKeys::of(&Seed([device; 32]));
            let member = left.by_tls(&keys.tls).expect("a member");
            let actor = ActorId::new(member.number, 0, &keys.signing);
            assert_eq!(left.author(&actor).map(|m| m.keys), Some(keys));
        }
        let again = MembershipLog::open(left.since(0).to_vec()).expect("a union is a log");
        assert_eq!(again.members(), left.members());
        assert!(left.clone().merge(right.since(0)).expect("known").is_empty());
    }

    #[test]
    fn a_revoked_member_may_nothing_and_stays_the_author_of_what_the_relay_held() {
        let (mut log, device, actor) = joined();
        let ty = TypeName::new("order").expect("a name");
        let address =
            SegmentAddress { ty, scope: String::new(), buckets: 1, bucket: 0, generation: 0 };
        let (segment, other) = (address.id(&log.org()), SegmentId([9; 16]));
        let change = |seq, byte| Head { actor, seq, hash: ChangeHash([byte; 32]) };
        let cut = CutOff { segment, actor, seq: 4, hash: ChangeHash([4; 32]) };
        let act = Act::Revoke { member: device.signing, cuts: vec![cut] };
        let forged = log.sign(act.clone(), &Seed([7; 32]).signing());
        assert_eq!(log.append(forged), Err(MembershipError::Unsigned));
        log.append(log.sign(act.clone(), &keys(1))).expect("the admin signed it");
        let ann = log.author(&actor).expect("it stays the author");
        assert!(ann.revoked && !ann.may(&address.ty, ""));
        assert!(ann.may_have_written(&address, segment, &change(3, 3)));
        assert!(ann.may_have_written(&address, segment, &change(4, 4)));
        assert!(!ann.may_have_written(&address, segment, &change(4, 5)), "another branch");
        assert!(!ann.may_have_written(&address, segment, &change(5, 5)));
        assert!(!ann.may_have_written(&address, other, &change(1, 1)), "never written to");
        let all = Act::Grant { member: device.signing, grants: vec![Grant::ALL], cuts: vec![] };
        log.append(log.sign(all, &keys(1))).expect("the admin signed it");
        assert!(!log.author(&actor).expect("a member").may(&address.ty, ""), "for good");
    }

    #[test]
    fn grants_replace_what_was_granted() {
        let (mut log, device, actor) = joined();
        let ty = TypeName::new("order").expect("a name");
        let grants = vec![Grant { ty: Some(ty.clone()), scope: Some("42".into()) }];
        let act = Act::Grant { member: device.signing, grants, cuts: Vec::new() };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        let ann = log.author(&actor).expect("a member");
        assert!(ann.may(&ty, "42") && !ann.may(&ty, "43"));
    }

    #[test]
    fn nobody_takes_a_relays_permissions_away() {
        let (mut log, ..) = joined();
        let relay = MemberKeys::of(&Seed([9; 32]));
        let act = Act::Revoke { member: relay.signing, cuts: Vec::new() };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        assert!(log.by_tls(&relay.tls).is_some_and(|relay| !relay.revoked));
    }
}
