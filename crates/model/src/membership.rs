//! The membership log: who belongs to an organisation, and what each may do.
//!
//! Append-only, hash-chained; every entry is signed by the admin key, but for a join, which the
//! invitation's one-time key signs. Every replica holds it and folds it to the same members.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::head::Head;
use crate::id::{
    ActorId, ChangeHash, DeviceNumber, OrgId, SegmentAddress, SegmentId, Seq, TypeName,
};
use crate::key::{KeyPair, PublicKey, Signed};

/// The context under which entries are signed.
pub const CONTEXT: &str = "fieldkeep 1 membership";
/// The gate version that this software speaks.
pub const GATE_VERSION: u32 = 1;

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    /// Founds the organisation; always the first entry.
    #[n(0)]
    Found {
        /// The organisation's name.
        #[n(0)]
        name: String,
        /// The key that signs all but joins.
        #[n(1)]
        admin: PublicKey,
        /// The gate version of the whole organisation.
        #[n(2)]
        gate: u32,
        /// Makes two organisations of one name and key differ.
        #[cbor(n(3), with = "minicbor::bytes")]
        salt: [u8; 16],
    },
    /// Makes a relay a member.
    #[n(1)]
    Relay {
        /// Its keys.
        #[n(0)]
        keys: MemberKeys,
        /// Its name.
        #[n(1)]
        name: String,
    },
    /// Invites one device.
    #[n(2)]
    Invite {
        /// The public half of the one-time key in the ticket.
        #[n(0)]
        key: PublicKey,
        /// The name that the member will have.
        #[n(1)]
        name: String,
        /// What the member will be granted.
        #[n(2)]
        grants: Vec<Grant>,
        /// When the invitation ends, milliseconds UTC by the relay's clock.
        #[n(3)]
        expires_ms: i64,
    },
    /// Takes up an invitation; signed with its one-time key.
    #[n(3)]
    Join {
        /// The index of the invitation's entry.
        #[n(0)]
        invite: u64,
        /// The device's keys, made on the device.
        #[n(1)]
        keys: MemberKeys,
    },
    /// Replaces what a member is granted.
    #[n(4)]
    Grant {
        /// The member's signing key.
        #[n(0)]
        member: PublicKey,
        /// What it may from now on.
        #[n(1)]
        grants: Vec<Grant>,
        /// What the relay holds of it where the new grants do not reach.
        #[n(2)]
        cuts: Vec<CutOff>,
    },
    /// Takes a member's permissions away for good.
    #[n(5)]
    Revoke {
        /// The member's signing key.
        #[n(0)]
        member: PublicKey,
        /// What the relay holds of it.
        #[n(1)]
        cuts: Vec<CutOff>,
    },
}

/// How far an actor's changes in a segment stay authorised after its member lost the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CutOff {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// One of the member's actors.
    #[n(1)]
    pub actor: ActorId,
    /// The newest of its changes that the relay's log held.
    #[n(2)]
    pub seq: Seq,
    /// That change's hash.
    #[n(3)]
    pub hash: ChangeHash,
}

/// A member's public keys, both derived from one seed that never leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberKeys {
    /// Signs statements.
    #[n(0)]
    pub signing: PublicKey,
    /// Proves the connection.
    #[n(1)]
    pub tls: PublicKey,
}

impl MemberKeys {
    /// The public keys of a seed.
    #[must_use]
    pub fn of(seed: &crate::Seed) -> Self {
        Self { signing: seed.signing().public(), tls: seed.tls().public() }
    }
}

/// A permission to read and write a type, all of it or one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Grant {
    /// The type, or all types that no other grant of the member names.
    #[n(0)]
    pub ty: Option<TypeName>,
    /// The scope, or all.
    #[n(1)]
    pub scope: Option<String>,
}

impl Grant {
    /// Everything.
    pub const ALL: Self = Self { ty: None, scope: None };
}

/// An entry as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// blake3 of the entry before, zero for the first.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// What it does.
    #[n(1)]
    pub act: Act,
}

/// Someone who belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The index of the entry that admitted it.
    pub number: DeviceNumber,
    /// Its name: the person's, for a device.
    pub name: String,
    /// Its keys.
    pub keys: MemberKeys,
    /// What it may read and write; a relay may all.
    pub grants: Vec<Grant>,
    /// Whether it is a relay.
    pub relay: bool,
    /// Whether everything was taken from it: it is the author of what it wrote, and no more.
    pub revoked: bool,
    /// How far its changes are authorised where it lost the permission.
    cuts: BTreeMap<(SegmentId, ActorId), (Seq, ChangeHash)>,
}

impl Member {
    fn admitted(number: DeviceNumber, name: String, keys: MemberKeys, grants: Vec<Grant>) -> Self {
        let (relay, revoked, cuts) = (false, false, BTreeMap::new());
        Self { number, name, keys, grants, relay, revoked, cuts }
    }

    /// The member with other grants.
    #[must_use]
    pub fn with_grants(&self, grants: &[Grant]) -> Self {
        Self { grants: grants.to_vec(), ..self.clone() }
    }

    /// Whether a change of this member is authorised: by its grants, or because a relay held it
    /// before they were taken away.
    #[must_use]
    pub fn may_have_written(
        &self,
        address: &SegmentAddress,
        segment: SegmentId,
        change: &Head,
    ) -> bool {
        self.may(&address.ty, &address.scope) || self.is_before_cut(segment, change)
    }

    /// Whether a change lies before the member's cut-off in that segment.
    fn is_before_cut(&self, segment: SegmentId, change: &Head) -> bool {
        let cut = self.cuts.get(&(segment, change.actor));
        cut.is_some_and(|(seq, hash)| {
            change.seq < *seq || (change.seq == *seq && change.hash == *hash)
        })
    }

    fn cut(&mut self, cuts: &[CutOff]) {
        for cut in
            cuts.iter().filter(|cut| cut.actor.belongs_to(cut.actor.device(), &self.keys.signing))
        {
            let kept = self.cuts.entry((cut.segment, cut.actor)).or_insert((cut.seq, cut.hash));
            if kept.0 < cut.seq {
                *kept = (cut.seq, cut.hash);
            }
        }
    }

    /// Whether the member may read and write that scope of that type: a type that grants name is
    /// limited to the scopes that they name, any other needs a grant of all types.
    #[must_use]
    pub fn may(&self, ty: &TypeName, scope: &str) -> bool {
        if self.revoked {
            return false;
        }
        let named: Vec<_> = self.grants.iter().filter(|g| g.ty.as_ref() == Some(ty)).collect();
        if named.is_empty() {
            return self.grants.contains(&Grant::ALL);
        }
        named.iter().any(|g| g.scope.as_deref().is_none_or(|granted| granted == scope))
    }
}

/// An invitation that nobody has taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The one-time key.
    pub key: PublicKey,
    /// The member's name.
    pub name: String,
    /// The member's grants.
    pub grants: Vec<Grant>,
    /// When it ends, milliseconds UTC.
    pub expires_ms: i64,
}

/// Why an entry does not extend a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It does not decode.
    #[error("a membership entry is malformed")]
    Malformed,
    /// It follows another entry.
    #[error("a membership entry does not follow the one before")]
    Unchained,
    /// It is signed by the wrong key.
    #[error("a membership entry is not signed by whom it should be")]
    Unsigned,
    /// It founds twice, joins by an unknown or used invitation, admits a key twice, or changes what
    /// somebody may who is no device of the organisation.
    #[error("a membership entry contradicts an earlier one")]
    Contradiction,
    /// It needs a newer gate.
    #[error("the organisation uses a gate version that this software does not know: update it")]
    GateVersion,
    /// The log belongs to another organisation.
    #[error("the membership log belongs to another organisation")]
    ForeignOrganisation,
}

/// The log and what it folds to.
#[derive(Clone, Debug)]
pub struct MembershipLog {
    entries: Vec<Signed>,
    tip: [u8; 32],
    org: OrgId,
    name: String,
    admin: PublicKey,
    members: BTreeMap<DeviceNumber, Member>,
    invitations: BTreeMap<u64, Invitation>,
    by_tls: BTreeMap<PublicKey, DeviceNumber>,
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
        let entry: Entry = first.read().ok_or(MembershipError::Malformed)?;
        let Act::Found { name, admin, gate, .. } = entry.act else {
            return Err(MembershipError::Malformed);
        };
        if gate > GATE_VERSION {
            return Err(MembershipError::GateVersion);
        }
        first.open::<Entry>(CONTEXT, &admin).ok_or(MembershipError::Unsigned)?;
        let tip = *blake3::hash(&first.bytes).as_bytes();
        let mut log = Self {
            org: OrgId(tip[..16].try_into().expect("sixteen bytes")),
            entries: vec![first],
            tip,
            name,
            admin,
            members: BTreeMap::new(),
            invitations: BTreeMap::new(),
            by_tls: BTreeMap::new(),
        };
        entries.try_for_each(|entry| log.append(entry))?;
        Ok(log)
    }

    /// Appends an entry that somebody signed.
    ///
    /// # Errors
    /// When it does not follow the tip, is signed by the wrong key, or contradicts the log; the log
    /// is unchanged then.
    pub fn append(&mut self, signed: Signed) -> Result<(), MembershipError> {
        let entry: Entry = signed.read().ok_or(MembershipError::Malformed)?;
        if entry.previous != self.tip {
            return Err(MembershipError::Unchained);
        }
        let signer = match &entry.act {
            Act::Join { invite, .. } => {
                self.invitations.get(invite).ok_or(MembershipError::Contradiction)?.key
            }
            Act::Found { .. } => return Err(MembershipError::Contradiction),
            Act::Relay { .. } | Act::Invite { .. } | Act::Grant { .. } | Act::Revoke { .. } => {
                self.admin
            }
        };
        signed.open::<Entry>(CONTEXT, &signer).ok_or(MembershipError::Unsigned)?;
        let number = self.entries.len() as u64;
        match entry.act {
            Act::Found { .. } => unreachable!("refused above"),
            Act::Relay { keys, name } => {
                let member = Member::admitted(number, name, keys, vec![Grant::ALL]);
                self.admit(Member { relay: true, ..member })?;
            }
            Act::Invite { key, name, grants, expires_ms } => {
                self.invitations.insert(number, Invitation { key, name, grants, expires_ms });
            }
            Act::Join { invite, keys } => {
                let Invitation { name, grants, .. } = self.invitations[&invite].clone();
                self.admit(Member::admitted(number, name, keys, grants))?;
                self.invitations.remove(&invite);
            }
            Act::Grant { member, grants, cuts } => {
                let member = self.device_mut(&member)?;
                member.cut(&cuts);
                member.grants = grants;
            }
            Act::Revoke { member, cuts } => {
                let member = self.device_mut(&member)?;
                member.cut(&cuts);
                member.revoked = true;
                member.grants.clear();
            }
        }
        self.tip = *blake3::hash(&signed.bytes).as_bytes();
        self.entries.push(signed);
        Ok(())
    }

    fn admit(&mut self, member: Member) -> Result<(), MembershipError> {
        if self.by_tls.contains_key(&member.keys.tls) {
            return Err(MembershipError::Contradiction);
        }
        self.by_tls.insert(member.keys.tls, member.number);
        self.members.insert(member.number, member);
        Ok(())
    }

    /// The member whose permissions change: a device that has any.
    fn device_mut(&mut self, key: &PublicKey) -> Result<&mut Member, MembershipError> {
        let device = |member: &&mut Member| member.keys.signing == *key && !member.relay;
        let member = self.members.values_mut().find(device);
        member.filter(|member| !member.revoked).ok_or(MembershipError::Contradiction)
    }

    /// Signs the next entry.
    #[must_use]
    pub fn sign(&self, act: Act, keys: &KeyPair) -> Signed {
        Signed::new(CONTEXT, &Entry { previous: self.tip, act }, keys)
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

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Never: a log has its founding entry at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// blake3 of the newest entry.
    #[must_use]
    pub fn tip(&self) -> [u8; 32] {
        self.tip
    }

    /// The entries from an index on.
    #[must_use]
    pub fn since(&self, index: u64) -> &[Signed] {
        usize::try_from(index).ok().and_then(|i| self.entries.get(i..)).unwrap_or_default()
    }

    /// The digest of the entry before an index: what the next one names as its predecessor.
    #[must_use]
    pub fn tip_at(&self, len: u64) -> Option<[u8; 32]> {
        let before = usize::try_from(len).ok()?.checked_sub(1)?;
        self.entries.get(before).map(|entry| *blake3::hash(&entry.bytes).as_bytes())
    }

    /// The members by number.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<DeviceNumber, Member> {
        &self.members
    }

    /// A member by number.
    #[must_use]
    pub fn member(&self, number: DeviceNumber) -> Option<&Member> {
        self.members.get(&number)
    }

    /// A member by the key that proved its connection.
    #[must_use]
    pub fn by_tls(&self, key: &PublicKey) -> Option<&Member> {
        self.by_tls.get(key).and_then(|number| self.members.get(number))
    }

    /// The member whose actor this is, if the actor id is one of its.
    #[must_use]
    pub fn author(&self, actor: &ActorId) -> Option<&Member> {
        self.member(actor.device())
            .filter(|member| actor.belongs_to(member.number, &member.keys.signing))
    }

    /// The open invitations by the index of their entry.
    #[must_use]
    pub fn invitations(&self) -> &BTreeMap<u64, Invitation> {
        &self.invitations
    }

    /// An open invitation by its one-time key.
    #[must_use]
    pub fn invitation(&self, key: &PublicKey) -> Option<(u64, &Invitation)> {
        self.invitations.iter().find(|(_, i)| i.key == *key).map(|(index, i)| (*index, i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seed;

    fn keys(n: u8) -> KeyPair {
        Seed([n; 32]).signing()
    }

    fn invited() -> (MembershipLog, u64) {
        let mut log = MembershipLog::found("acme", &keys(1), [0; 16]);
        let act = Act::Invite {
            key: keys(2).public(),
            name: "ann".into(),
            grants: vec![Grant::ALL],
            expires_ms: 10,
        };
        log.append(log.sign(act, &keys(1))).expect("the admin signed it");
        let invite = log.len() - 1;
        (log, invite)
    }

    #[test]
    fn an_invitation_admits_one_device_once() {
        let (mut log, invite) = invited();
        let join = |log: &MembershipLog, n| {
            log.sign(Act::Join { invite, keys: MemberKeys::of(&Seed([n; 32])) }, &keys(2))
        };
        log.append(join(&log, 7)).expect("the invitation is open");
        assert_eq!(log.member(2).map(|m| m.name.as_str()), Some("ann"));
        assert_eq!(log.append(join(&log, 8)), Err(MembershipError::Contradiction));
        let reopened = MembershipLog::open(log.since(0).to_vec()).expect("the log is sound");
        assert_eq!(reopened.members(), log.members());
    }

    #[test]
    fn nobody_but_the_admin_invites() {
        let (mut log, _) = invited();
        let act = Act::Relay { keys: MemberKeys::of(&Seed([9; 32])), name: "mallory".into() };
        let forged = log.sign(act, &keys(9));
        assert_eq!(log.append(forged), Err(MembershipError::Unsigned));
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn an_entry_follows_the_tip() {
        let (mut log, _) = invited();
        let act = |n| Act::Relay { keys: MemberKeys::of(&Seed([n; 32])), name: "relay".into() };
        let (one, other) = (log.sign(act(3), &keys(1)), log.sign(act(4), &keys(1)));
        log.append(one).expect("it follows the tip");
        assert_eq!(log.append(other), Err(MembershipError::Unchained));
    }

    fn joined() -> (MembershipLog, MemberKeys, ActorId) {
        let (mut log, invite) = invited();
        let device = MemberKeys::of(&Seed([7; 32]));
        log.append(log.sign(Act::Join { invite, keys: device }, &keys(2))).expect("it is open");
        (log, device, ActorId::new(2, 0, &device.signing))
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
        assert_eq!(log.append(log.sign(act, &keys(1))), Err(MembershipError::Contradiction));
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
        let keys_of_relay = MemberKeys::of(&Seed([9; 32]));
        let relay = Act::Relay { keys: keys_of_relay, name: "relay".into() };
        log.append(log.sign(relay, &keys(1))).expect("the admin signed it");
        let act = Act::Revoke { member: keys_of_relay.signing, cuts: Vec::new() };
        assert_eq!(log.append(log.sign(act, &keys(1))), Err(MembershipError::Contradiction));
    }

    #[test]
    fn a_grant_of_a_scope_limits_its_type_and_no_other() {
        let ty = |name| TypeName::new(name).expect("a name");
        let grants = vec![Grant::ALL, Grant { ty: Some(ty("order")), scope: Some("42".into()) }];
        let keys = MemberKeys::of(&Seed([1; 32]));
        let member = Member::admitted(1, "ann".into(), keys, grants);
        assert!(member.may(&ty("order"), "42"));
        assert!(!member.may(&ty("order"), "43"));
        assert!(member.may(&ty("customer"), ""));
    }
}
