//! The log and what it folds to.
//!
//! Entries name the one before them, so a log is a tree with one root: where a relay was put back
//! from an old copy and went on, two branches follow one entry. Both are kept. An entry is judged by
//! the branch that it ends, and by nothing else, and so every replica that holds an entry takes it.
//!
//! Who replaces the admin key says which other branches stand. What an admin key signs elsewhere is void
//! from then on: it is kept, and does nothing.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Decode;

use super::member::Standing;
use super::{Act, CONTEXT, CutOff, Entry, GATE_VERSION, Grant, Invitation, Member, MemberKeys};
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
    /// Somebody joins, or takes new keys, and no relay says that it was in time.
    #[error("a device joins or takes new keys, and no relay has admitted it")]
    Unadmitted,
    /// It is of a kind that this software does not know.
    #[error("a membership entry is of a kind that this software does not know: update it")]
    TooNew,
    /// It needs a newer gate.
    #[error("the organisation uses a gate version that this software does not know: update it")]
    GateVersion,
    /// The log belongs to another organisation.
    #[error("the membership log belongs to another organisation")]
    ForeignOrganisation,
}

/// The number of the last kind of entry that is known here.
const LAST_ACT: u64 = 12;

/// Where an entry stands in the tree, as an index in order of arrival.
type Place = usize;

#[derive(Clone, Debug)]
struct Node {
    hash: [u8; 32],
    /// How many entries come before it on its branch: its number.
    depth: u64,
    /// The run of entries without a fork that it lies in.
    run: usize,
    /// Whether a relay's admission has to follow it.
    awaits: bool,
    /// The entry that it follows.
    before: Place,
    /// The sum of the hashes of all entries that arrived through this one.
    sum: u128,
    /// The entries that it rests on: where one of them is void, it is.
    rests_on: Vec<Place>,
}

/// A member by the number and the signing key that it was admitted with.
type Id = (DeviceNumber, PublicKey);

/// What an admission will admit.
#[derive(Clone, Debug)]
enum Pending {
    Join(Member),
    Keys(Id, MemberKeys),
}

/// What an entry does to members.
#[derive(Clone, Debug)]
enum Deed {
    Admit(Member),
    Keys(Id, MemberKeys),
    Grant(PublicKey, Vec<Grant>, Vec<CutOff>),
    Revoke(PublicKey, Vec<CutOff>),
    Rename(PublicKey, String),
}

/// A replacement of the admin key.
#[derive(Clone, Debug)]
struct Supersession {
    place: Place,
    /// How many recoveries there are on its branch, itself among them: one outranks every rotation.
    recoveries: usize,
    /// The ends of other branches that stand.
    others: Vec<Place>,
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
    /// The admin keys, by the entry that brought each into force.
    admins: Vec<(Place, PublicKey)>,
    recovery_keys: Vec<(Place, PublicKey)>,
    supersessions: Vec<Supersession>,
    /// Entries that do nothing, because a replacement of the admin key does not let them stand.
    void: BTreeSet<Place>,
    invitations: BTreeMap<Place, Invitation>,
    /// The joins that took an invitation up, by its place: one on each branch at most.
    taken: BTreeMap<Place, Vec<Place>>,
    /// The signing keys of relays, by the entry that brought each into force.
    relays: Vec<(Place, DeviceNumber, PublicKey)>,
    /// Whose a signing key is, where it came into force.
    bearers: BTreeMap<PublicKey, Vec<(Place, Id)>>,
    /// The signing keys that members took later, where each came into force.
    rotations: BTreeMap<Id, Vec<(Place, PublicKey)>>,
    /// What no relay has admitted yet.
    pending: Option<(Place, Pending)>,
    /// Where members were admitted, by their TLS keys.
    admitted: BTreeMap<PublicKey, Vec<Place>>,
    /// What entries do to members: folded to what follows.
    deeds: BTreeMap<Place, Deed>,
    members: BTreeMap<Id, Member>,
    by_tls: BTreeMap<PublicKey, Id>,
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
        let node =
            Node { hash, depth: 0, run: 0, awaits: false, before: 0, sum, rests_on: Vec::new() };
        Ok(Self {
            org: OrgId(hash[..16].try_into().expect("sixteen bytes")),
            entries: vec![first],
            nodes: vec![node],
            places: BTreeMap::from([(hash, 0)]),
            runs: vec![None],
            tip: 0,
            name,
            admins: vec![(0, admin)],
            recovery_keys: Vec::new(),
            supersessions: Vec::new(),
            void: BTreeSet::new(),
            invitations: BTreeMap::new(),
            taken: BTreeMap::new(),
            relays: Vec::new(),
            bearers: BTreeMap::new(),
            rotations: BTreeMap::new(),
            pending: None,
            admitted: BTreeMap::new(),
            deeds: BTreeMap::new(),
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

    /// Appends an entry that somebody signed. A join admits nobody before a relay's entry follows, and a
    /// device has its new keys no earlier.
    ///
    /// # Errors
    /// When it does not follow a known entry, is signed by the wrong key, or contradicts its branch;
    /// the log is unchanged then.
    pub fn append(&mut self, signed: Signed) -> Result<(), MembershipError> {
        let entry = read(&signed)?;
        let before = *self.places.get(&entry.previous).ok_or(MembershipError::Unchained)?;
        // Right behind a join comes what admits it, and nothing else.
        let awaited = self.pending.as_ref().map(|(place, _)| *place);
        if awaited.is_some() && awaited != Some(before) {
            return Err(MembershipError::Unadmitted);
        }
        if matches!(entry.act, Act::Admit { .. }) != awaited.is_some() || self.is_admitted(before) {
            return Err(MembershipError::Unchained);
        }
        let signer = self.signer(&entry.act, before)?;
        signed.open::<Entry>(CONTEXT, &signer).ok_or(MembershipError::Unsigned)?;
        let mut node = self.node(&signed, before, entry.act.awaits_admission());
        self.act(entry.act, before, &mut node)?;
        self.insert(signed, node);
        Ok(())
    }

    /// Whether an entry was admitted: what follows it follows the admission.
    fn is_admitted(&self, place: Place) -> bool {
        self.nodes[place].awaits && self.pending.is_none()
    }

    /// Who must have signed an act that follows that entry.
    fn signer(&self, act: &Act, before: Place) -> Result<PublicKey, MembershipError> {
        match act {
            Act::Found { .. } => Err(MembershipError::Contradiction),
            Act::Relay { .. }
            | Act::Invite { .. }
            | Act::Grant { .. }
            | Act::Revoke { .. }
            | Act::Rename { .. }
            | Act::RotateAdmin { .. }
            | Act::RotateRelay { .. } => Ok(self.admin_at(before)),
            Act::NameRecovery { .. } => {
                Ok(self.recovery_at(before).unwrap_or_else(|| self.admin_at(before)))
            }
            Act::Recover { .. } => self.recovery_at(before).ok_or(MembershipError::Unsigned),
            Act::Join { invite, .. } => {
                let invitation = self.invitation_at(*invite, before);
                Ok(invitation.ok_or(MembershipError::Contradiction)?.1.key)
            }
            Act::RotateDevice { member, .. } => {
                self.holder(member, before).ok_or(MembershipError::Contradiction)?;
                Ok(*member)
            }
            Act::Admit { relay } => {
                self.relay_at(*relay, before).map(|(_, key)| key).ok_or(MembershipError::Unsigned)
            }
        }
    }

    /// The newest of what came into force by entries, on the branch that ends with an entry.
    fn newest<T: Copy>(&self, of: &[(Place, T)], end: Place) -> Option<T> {
        let on_branch = of.iter().filter(|(place, _)| self.precedes(*place, end));
        on_branch.max_by_key(|(place, _)| *place).map(|(_, value)| *value)
    }

    fn admin_at(&self, end: Place) -> PublicKey {
        self.newest(&self.admins, end).expect("the founding entry is on every branch")
    }

    fn recovery_at(&self, end: Place) -> Option<PublicKey> {
        self.newest(&self.recovery_keys, end)
    }

    /// The key of the relay with that number on a branch, and the entry that brought it into force.
    fn relay_at(&self, relay: DeviceNumber, end: Place) -> Option<(Place, PublicKey)> {
        let theirs = self
            .relays
            .iter()
            .filter(|(place, number, _)| *number == relay && self.precedes(*place, end));
        theirs.max_by_key(|(place, ..)| *place).map(|(place, _, key)| (*place, *key))
    }

    /// Whose a signing key is at the end of a branch: nobody's any more, where it was replaced.
    fn holder(&self, key: &PublicKey, end: Place) -> Option<Id> {
        let mut bearers = self.bearers.get(key)?.iter();
        let (_, id) = bearers.find(|(place, _)| self.precedes(*place, end))?;
        let later = self.rotations.get(id).and_then(|taken| self.newest(taken, end));
        (later.unwrap_or(id.1) == *key).then_some(*id)
    }

    /// The entry as it will stand.
    fn node(&self, signed: &Signed, before: Place, awaits: bool) -> Node {
        let hash = signed.digest();
        let parent = &self.nodes[before];
        let last = self.nodes.iter().rposition(|node| node.run == parent.run);
        let run = if last == Some(before) { parent.run } else { self.runs.len() };
        let sum = self.sum().wrapping_add(digest(&hash));
        Node { hash, depth: parent.depth + 1, run, awaits, before, sum, rests_on: Vec::new() }
    }

    fn insert(&mut self, signed: Signed, node: Node) {
        if node.run == self.runs.len() {
            self.runs.push(Some(node.before));
        }
        let place = self.nodes.len();
        self.places.insert(node.hash, place);
        self.nodes.push(node);
        self.entries.push(signed);
        if self.supersessions.last().is_some_and(|last| last.place == place) {
            return self.fold_again();
        }
        if !self.is_upheld(place) {
            self.void.insert(place);
        }
        self.follow(place);
        self.perform(place);
    }

    /// Goes on from an entry, if it ends the longest branch, or as long a one with the lowest hash, behind
    /// the replacement of the admin key that rules. Nobody builds on what no relay has admitted.
    fn follow(&mut self, place: Place) {
        let (node, tip) = (&self.nodes[place], &self.nodes[self.tip]);
        let further =
            (std::cmp::Reverse(node.depth), node.hash) < (std::cmp::Reverse(tip.depth), tip.hash);
        let follows = |ruler: &Supersession| self.precedes(ruler.place, place);
        if further && !node.awaits && self.ruler().is_none_or(follows) {
            self.tip = place;
        }
    }

    /// The replacement of the admin key that outranks all others: the one with the most recoveries on
    /// its branch, then the deepest, then that with the lowest hash.
    fn ruler(&self) -> Option<&Supersession> {
        self.supersessions.iter().max_by_key(|one| {
            let node = &self.nodes[one.place];
            (one.recoveries, node.depth, std::cmp::Reverse(node.hash))
        })
    }

    /// Whether an entry stands, whatever admin key signed it: on the branch of the replacement that rules,
    /// or on one that those on that branch let stand.
    fn stands(&self, place: Place) -> bool {
        let Some(ruler) = self.ruler() else { return true };
        if self.precedes(place, ruler.place) || self.precedes(ruler.place, place) {
            return true;
        }
        let mut ruling =
            self.supersessions.iter().filter(|one| self.precedes(one.place, ruler.place));
        ruling.any(|one| one.others.iter().any(|end| self.precedes(place, *end)))
    }

    /// Whether everything stands that an entry rests on.
    fn is_upheld(&self, place: Place) -> bool {
        self.nodes[place].rests_on.iter().all(|on| self.stands(*on))
    }

    /// Folds the members from the beginning: something that stood is void.
    fn fold_again(&mut self) {
        let all = 0..self.nodes.len();
        self.void = all.clone().filter(|place| !self.is_upheld(*place)).collect();
        self.tip = self.ruler().map_or(0, |ruler| ruler.place);
        all.clone().for_each(|place| self.follow(place));
        self.members.clear();
        self.by_tls.clear();
        self.standings.clear();
        all.for_each(|place| self.perform(place));
    }

    /// Notes what an entry brings, and what it will do.
    fn act(&mut self, act: Act, before: Place, node: &mut Node) -> Result<(), MembershipError> {
        let (number, place) = (node.depth, self.nodes.len());
        // But for those that somebody else signs, an entry rests on its admin key.
        node.rests_on = vec![place];
        match act {
            Act::Found { .. } => unreachable!("nobody signs a second one"),
            Act::Relay { keys, name } => {
                self.refuse_known(&keys, before)?;
                self.relays.push((place, number, keys.signing));
                self.bear((number, keys.signing), &keys, place);
                self.deeds.insert(place, Deed::Admit(Member::relay(number, name, keys)));
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
                node.rests_on = vec![at];
                let member = Member::admitted(number, name, keys, grants);
                self.pending = Some((place, Pending::Join(member)));
            }
            Act::RotateDevice { member, keys } => {
                let id = self.holder(&member, before).ok_or(MembershipError::Contradiction)?;
                self.refuse_known(&keys, before)?;
                node.rests_on.clear();
                self.pending = Some((place, Pending::Keys(id, keys)));
            }
            Act::Admit { relay } => {
                let (asked, pending) = self.pending.take().expect("an admission is awaited");
                node.rests_on.clone_from(&self.nodes[asked].rests_on);
                node.rests_on.extend(self.relay_at(relay, before).map(|(place, _)| place));
                let deed = match pending {
                    Pending::Join(member) => {
                        self.bear((member.number, member.keys.signing), &member.keys, place);
                        Deed::Admit(member)
                    }
                    Pending::Keys(id, keys) => self.rotate(id, keys, place),
                };
                self.deeds.insert(place, deed);
            }
            Act::RotateRelay { relay, keys } => {
                let relays = |id: &Id| self.relays.iter().any(|(_, number, _)| *number == id.0);
                let id = self.holder(&relay, before).filter(relays);
                let id = id.ok_or(MembershipError::Contradiction)?;
                self.refuse_known(&keys, before)?;
                self.relays.push((place, id.0, keys.signing));
                let deed = self.rotate(id, keys, place);
                self.deeds.insert(place, deed);
            }
            Act::Grant { member, grants, cuts } => {
                self.deeds.insert(place, Deed::Grant(member, grants, cuts));
            }
            Act::Revoke { member, cuts } => {
                self.deeds.insert(place, Deed::Revoke(member, cuts));
            }
            Act::Rename { member, name } => {
                self.deeds.insert(place, Deed::Rename(member, name));
            }
            Act::NameRecovery { key } => self.recovery_keys.push((place, key)),
            Act::RotateAdmin { admin, others } => self.supersede(admin, &others, before, 0)?,
            Act::Recover { admin, others } => self.supersede(admin, &others, before, 1)?,
        }
        Ok(())
    }

    /// Notes whose keys came into force with an entry.
    fn bear(&mut self, id: Id, keys: &MemberKeys, place: Place) {
        self.admitted.entry(keys.tls).or_default().push(place);
        self.bearers.entry(keys.signing).or_default().push((place, id));
    }

    /// Notes that a member has other keys from an entry on.
    fn rotate(&mut self, id: Id, keys: MemberKeys, place: Place) -> Deed {
        self.bear(id, &keys, place);
        self.rotations.entry(id).or_default().push((place, keys.signing));
        Deed::Keys(id, keys)
    }

    /// Notes that the admin key is another one from the next entry on.
    fn supersede(
        &mut self,
        admin: PublicKey,
        others: &[[u8; 32]],
        before: Place,
        recoveries: usize,
    ) -> Result<(), MembershipError> {
        let others = others.iter().map(|end| self.places.get(end).copied());
        let others: Option<Vec<Place>> = others.collect();
        let others = others.ok_or(MembershipError::Unchained)?;
        let earlier = self.supersessions.iter().filter(|one| self.precedes(one.place, before));
        let earlier = earlier.map(|one| one.recoveries).max().unwrap_or(0);
        let place = self.nodes.len();
        self.admins.push((place, admin));
        self.supersessions.push(Supersession { place, recoveries: earlier + recoveries, others });
        Ok(())
    }

    /// Does to members what an entry says, unless it is void.
    fn perform(&mut self, place: Place) {
        if self.void.contains(&place) {
            return;
        }
        let entry = (self.nodes[place].depth, self.nodes[place].hash);
        match self.deeds.get(&place).cloned() {
            None => {}
            Some(Deed::Admit(member)) => self.admit(member),
            Some(Deed::Keys(id, keys)) => self.give_keys(id, entry, keys),
            Some(Deed::Grant(member, grants, cuts)) => {
                self.standings.entry(member).or_default().replace(entry, grants, &cuts);
                self.fold(&member);
            }
            Some(Deed::Revoke(member, cuts)) => {
                self.standings.entry(member).or_default().revoke(&cuts);
                self.fold(&member);
            }
            Some(Deed::Rename(member, name)) => {
                self.standings.entry(member).or_default().rename(entry, name);
                self.fold(&member);
            }
        }
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

    fn admit(&mut self, member: Member) {
        let id = (member.number, member.keys.signing);
        // One key on two branches is one device; its older number is the one that it goes by.
        let known = self.by_tls.entry(member.keys.tls).or_insert(id);
        *known = id.min(*known);
        self.members.entry(id).or_insert(member);
        self.fold_member(&id);
    }

    /// Gives a member other keys; of those of several branches the deepest entry's are in force.
    fn give_keys(&mut self, id: Id, entry: (u64, [u8; 32]), keys: MemberKeys) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let before = member.keys.tls;
        member.take_keys(entry, keys);
        let now = member.keys.tls;
        if self.by_tls.get(&before) == Some(&id) {
            self.by_tls.remove(&before);
        }
        self.by_tls.insert(now, id);
        self.fold_member(&id);
    }

    /// Applies what was decided about whoever has or had a key.
    fn fold(&mut self, key: &PublicKey) {
        let theirs = self.members.iter().filter(|(_, member)| member.has_had(key));
        let ids: Vec<Id> = theirs.map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.fold_member(id));
    }

    /// Applies what was decided about a device since it joined, under whichever of its keys.
    fn fold_member(&mut self, id: &Id) {
        let Some(member) = self.members.get_mut(id).filter(|member| !member.relay) else { return };
        let mut standing = Standing::default();
        for key in member.signing_keys() {
            self.standings.get(&key).into_iter().for_each(|one| standing.absorb(one));
        }
        standing.apply(member);
    }

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

/// Reads an entry. What is of a later kind is told from what is broken: an act that is no number of ours.
fn read(signed: &Signed) -> Result<Entry, MembershipError> {
    if let Some(entry) = signed.read() {
        return Ok(entry);
    }
    let mut decoder = minicbor::Decoder::new(&signed.bytes);
    let kind = (decoder.array().ok())
        .and_then(|_| decoder.skip().ok())
        .and_then(|()| decoder.array().ok())
        .and_then(|_| decoder.u64().ok());
    let later = kind.is_some_and(|kind| kind > LAST_ACT);
    Err(if later { MembershipError::TooNew } else { MembershipError::Malformed })
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
    fn a_device_has_another_name_and_other_keys_and_stays_who_it_is() {
        let (mut log, device, actor) = joined();
        let act = Act::Rename { member: device.signing, name: "anna".into() };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        let new = MemberKeys::of(&Seed([8; 32]));
        let act = Act::RotateDevice { member: device.signing, keys: new };
        let forged = log.sign(act.clone(), &keys(1));
        assert_eq!(log.merge(&[forged]), Err(MembershipError::Unsigned), "not even the admin");
        let rotation = log.sign(act.clone(), &keys(7));
        assert_eq!(log.merge(&[rotation.clone()]), Err(MembershipError::Unadmitted));
        let admitted = admission(&rotation, 1, &keys(9));
        log.merge(&[rotation, admitted]).expect("a relay admits it");
        let ann = log.by_tls(&new.tls).expect("it is a member").clone();
        assert_eq!((ann.number, &*ann.name, ann.identity), (3, "anna", device.signing));
        assert!(log.by_tls(&device.tls).is_none(), "the old key opens nothing");
        for actor in [actor, ActorId::new(3, 1, &new.signing)] {
            assert_eq!(log.author(&actor).map(|by| by.number), Some(3));
        }
        let again = log.sign(act, &keys(7));
        assert_eq!(log.append(again), Err(MembershipError::Contradiction), "nor signs it anything");
        // What is decided under the new key is about the same device.
        let act = Act::Revoke { member: new.signing, cuts: vec![] };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        assert!(log.author(&actor).is_some_and(|by| by.revoked));
        let reopened = MembershipLog::open(log.since(0).to_vec()).expect("the log is sound");
        assert_eq!(reopened.members(), log.members());
    }

    #[test]
    fn a_relay_takes_other_keys_when_the_admin_says_so() {
        let (mut log, ..) = joined();
        let (old, new) = (MemberKeys::of(&Seed([9; 32])), MemberKeys::of(&Seed([19; 32])));
        let act = Act::RotateRelay { relay: old.signing, keys: new };
        assert_eq!(log.append(log.sign(act.clone(), &keys(9))), Err(MembershipError::Unsigned));
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        assert!(log.by_tls(&old.tls).is_none());
        assert!(log.by_tls(&new.tls).is_some_and(|relay| relay.relay && relay.number == 1));
        for signer in [&keys(9), &keys(19)] {
            let stated = Signed::new("a test", &7u64, signer);
            assert_eq!(log.stated_by::<u64>(1, "a test", &stated), Some(7), "before and after");
        }
        let number = invite(&mut log, 4);
        let late = joining(&log, (number, 4), 8, &keys(9));
        assert_eq!(log.merge(&late), Err(MembershipError::Unsigned), "the old key admits nobody");
        log.merge(&joining(&log.clone(), (number, 4), 8, &keys(19))).expect("the new one does");
    }

    #[test]
    fn a_recovery_key_replaces_a_lost_admin_key_and_what_that_signs_elsewhere_is_void() {
        let mut log = founded();
        let recover = |log: &MembershipLog, by: u8| {
            let act = Act::Recover { admin: keys(21).public(), others: log.other_ends() };
            log.sign(act, &keys(by))
        };
        assert_eq!(log.append(recover(&log, 5)), Err(MembershipError::Unsigned), "none is named");
        let act = Act::NameRecovery { key: keys(5).public() };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        // Who has the admin key names no other one.
        let act = Act::NameRecovery { key: keys(6).public() };
        assert_eq!(log.append(log.sign(act, &keys(1))), Err(MembershipError::Unsigned));
        // A branch that was lost, and is known when the key is replaced, stands; another does not.
        let (mut known, mut unknown) = (log.clone(), log.clone());
        let number = invite(&mut known, 2);
        known.merge(&joining(&known.clone(), (number, 2), 7, &keys(9))).expect("it is open");
        for one_time in [3, 30, 31, 32, 33] {
            let number = invite(&mut unknown, one_time);
            let entries = joining(&unknown, (number, one_time), one_time + 100, &keys(9));
            unknown.merge(&entries).expect("it is open");
        }
        let number = invite(&mut log, 4);
        log.merge(&joining(&log.clone(), (number, 4), 8, &keys(9))).expect("it is open");
        log.merge(known.since(0)).expect("both are sound");
        log.append(recover(&log, 5)).expect("the recovery key signed it");
        assert_eq!((log.admin(), log.recovery()), (keys(21).public(), Some(keys(5).public())));
        let act =
            Act::Invite { key: keys(2).public(), name: "x".into(), grants: vec![], expires_ms: 0 };
        assert_eq!(log.append(log.sign(act, &keys(1))), Err(MembershipError::Unsigned));
        let (mut left, mut right) = (log.clone(), unknown.clone());
        left.merge(unknown.since(0)).expect("it is kept");
        right.merge(log.since(0)).expect("both are sound");
        for union in [&left, &right, &MembershipLog::open(right.since(0).to_vec()).expect("sound")]
        {
            assert_eq!((union.tip(), union.sum()), (log.tip(), left.sum()));
            assert_eq!(union.members(), log.members(), "nobody came by the branch that is void");
            assert!(union.by_tls(&MemberKeys::of(&Seed([7; 32])).tls).is_some());
            assert!(union.is_void(unknown.since(0).last().expect("an entry")));
        }
    }

    #[test]
    fn an_admin_key_that_was_replaced_signs_nothing_any_more() {
        let mut log = founded();
        let act = Act::RotateAdmin { admin: keys(21).public(), others: vec![] };
        assert_eq!(log.append(log.sign(act.clone(), &keys(21))), Err(MembershipError::Unsigned));
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        let act = |key: u8| Act::NameRecovery { key: keys(key).public() };
        assert_eq!(log.append(log.sign(act(5), &keys(1))), Err(MembershipError::Unsigned));
        log.append(log.sign(act(5), &keys(21))).expect("the new one signed it");
    }

    #[test]
    fn an_entry_of_a_later_kind_asks_for_an_update() {
        let mut log = founded();
        let later = |kind: u8| {
            let mut bytes = vec![0x82, 0x58, 0x20];
            bytes.extend(log.tip());
            bytes.extend([0x82, 0x18, kind, 0x80]);
            Signed { signature: keys(1).sign(CONTEXT, &bytes), bytes }
        };
        let (later, broken) = (later(90), Signed { bytes: vec![1], ..later(90) });
        assert_eq!(log.append(later), Err(MembershipError::TooNew));
        assert_eq!(log.append(broken), Err(MembershipError::Malformed));
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
