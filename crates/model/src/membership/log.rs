//! The log and what it folds to.
//!
//! Entries name the one before them, so a log is a tree with one root: where a relay was put back
//! from an old copy and went on, two branches follow one entry. Both are kept. An entry is judged by
//! the branch that it ends, and by nothing else, and so every replica that holds an entry takes it.
//!
//! Who replaces the admin key says which other branches stand. What an admin key signs elsewhere is void
//! from then on: it is kept, and does nothing.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::member::Standing;
use super::{Act, CONTEXT, CutOff, Entry, GATE_VERSION, Grant, Invitation, Member, MemberKeys};
use crate::id::{DeviceNumber, OrgId};
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
    waits: bool,
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
            Node { hash, depth: 0, run: 0, waits: false, before: 0, sum, rests_on: Vec::new() };
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
        let mut node = self.node(&signed, before, entry.act.waits_for_admission());
        self.act(entry.act, before, &mut node)?;
        self.insert(signed, node);
        Ok(())
    }

    /// Whether an entry was admitted: what follows it follows the admission.
    fn is_admitted(&self, place: Place) -> bool {
        self.nodes[place].waits && self.pending.is_none()
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
    fn node(&self, signed: &Signed, before: Place, waits: bool) -> Node {
        let hash = signed.digest();
        let parent = &self.nodes[before];
        let last = self.nodes.iter().rposition(|node| node.run == parent.run);
        let run = if last == Some(before) { parent.run } else { self.runs.len() };
        let sum = self.sum().wrapping_add(digest(&hash));
        Node { hash, depth: parent.depth + 1, run, waits, before, sum, rests_on: Vec::new() }
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
        if further && !node.waits && self.ruler().is_none_or(follows) {
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
