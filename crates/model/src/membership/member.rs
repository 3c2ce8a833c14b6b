//! Members: what each may, and how far that reaches back.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::{CutOff, MemberKeys};
use crate::head::{Head, SignedHead};
use crate::id::{
    ActorId, ChangeHash, DeviceNumber, OrgId, SegmentAddress, SegmentId, Seq, TypeName,
};
use crate::key::{PublicKey, Signed};

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
/// Someone who belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The index of the entry by which it joined, on its branch.
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
    /// The signing key that it was admitted with: what it is known by, whatever keys it takes later.
    pub identity: PublicKey,
    /// All keys that it has or had, the ones in force last, by the entries that brought them.
    had: BTreeMap<(u64, [u8; 32]), MemberKeys>,
    /// How far its changes are authorised where it lost the permission.
    cuts: BTreeMap<(SegmentId, ActorId), (Seq, ChangeHash)>,
}

impl Member {
    pub(super) fn admitted(
        number: DeviceNumber,
        name: String,
        keys: MemberKeys,
        grants: Vec<Grant>,
    ) -> Self {
        let (relay, revoked, cuts) = (false, false, BTreeMap::new());
        let had = BTreeMap::from([((0, [0; 32]), keys)]);
        Self { number, name, identity: keys.signing, keys, had, grants, relay, revoked, cuts }
    }

    pub(super) fn relay(number: DeviceNumber, name: String, keys: MemberKeys) -> Self {
        Self { relay: true, ..Self::admitted(number, name, keys, vec![Grant::ALL]) }
    }

    /// Takes keys that an entry brings; the newest entry's are in force.
    pub(super) fn take_keys(&mut self, entry: (u64, [u8; 32]), keys: MemberKeys) {
        self.had.insert(entry, keys);
        self.keys = *self.had.values().next_back().expect("just inserted");
    }

    /// The keys that it signs with or did, the one in force last.
    pub fn signing_keys(&self) -> impl DoubleEndedIterator<Item = PublicKey> + use<> {
        self.had.values().map(|keys| keys.signing).collect::<Vec<_>>().into_iter()
    }

    /// Whether it signs with that key, or did.
    #[must_use]
    pub fn has_had(&self, key: &PublicKey) -> bool {
        self.had.values().any(|keys| keys.signing == *key)
    }

    /// Whether it proves its connections with that key, or did.
    #[must_use]
    pub fn has_shown(&self, tls: &PublicKey) -> bool {
        self.had.values().any(|keys| keys.tls == *tls)
    }

    /// Whether an actor is this member's, under whichever of its keys it wrote.
    #[must_use]
    pub fn is(&self, actor: &ActorId) -> bool {
        self.had.values().any(|keys| actor.belongs_to(self.number, &keys.signing))
    }

    /// Whether it vouches for a head, with the key under which the head's actor wrote.
    #[must_use]
    pub fn vouches(&self, head: &SignedHead, org: &OrgId, segment: &SegmentId) -> bool {
        self.had.values().any(|keys| head.verifies(org, segment, &keys.signing))
    }

    /// A statement, if one of its keys signed it.
    #[must_use]
    pub fn stated<'s, T: Decode<'s, ()>>(&self, context: &str, signed: &'s Signed) -> Option<T> {
        self.signing_keys().rev().find_map(|key| signed.open(context, &key))
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
        let had: Vec<PublicKey> = self.signing_keys().collect();
        let theirs =
            |cut: &&CutOff| had.iter().any(|key| cut.actor.belongs_to(cut.actor.device(), key));
        for cut in cuts.iter().filter(theirs) {
            let kept = self.cuts.entry((cut.segment, cut.actor)).or_insert((cut.seq, cut.hash));
            if kept.0 < cut.seq {
                *kept = (cut.seq, cut.hash);
            }
        }
    }

    /// Whether the member may read and write all scopes of a type.
    #[must_use]
    pub fn may_all(&self, ty: &TypeName) -> bool {
        let named: Vec<_> = self.grants.iter().filter(|g| g.ty.as_ref() == Some(ty)).collect();
        let all = if named.is_empty() {
            self.grants.contains(&Grant::ALL)
        } else {
            named.iter().any(|grant| grant.scope.is_none())
        };
        all && !self.revoked
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
/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The index of its entry on its branch.
    pub number: u64,
    /// The one-time key.
    pub key: PublicKey,
    /// The member's name.
    pub name: String,
    /// The member's grants.
    pub grants: Vec<Grant>,
    /// When it ends, milliseconds UTC.
    pub expires_ms: i64,
}

/// An entry by its index on its branch and its hash: of several the highest stands.
type EntryId = (u64, [u8; 32]);

/// What was decided about a device since it joined.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The grants that replace its own, and the entry that says so.
    replaced: Option<(EntryId, Vec<Grant>)>,
    /// The name that replaces its own, likewise.
    renamed: Option<(EntryId, String)>,
    revoked: bool,
    cuts: Vec<CutOff>,
}

impl Standing {
    /// Notes other grants.
    pub(super) fn replace(&mut self, entry: EntryId, grants: Vec<Grant>, cuts: &[CutOff]) {
        self.cuts.extend(cuts);
        later(&mut self.replaced, (entry, grants));
    }

    /// Notes another name.
    pub(super) fn rename(&mut self, entry: EntryId, name: String) {
        later(&mut self.renamed, (entry, name));
    }

    /// Notes a revocation: nothing undoes it.
    pub(super) fn revoke(&mut self, cuts: &[CutOff]) {
        self.cuts.extend(cuts);
        self.revoked = true;
    }

    /// Takes over what was decided under another of its keys.
    pub(super) fn absorb(&mut self, other: &Self) {
        other.replaced.iter().cloned().for_each(|one| later(&mut self.replaced, one));
        other.renamed.iter().cloned().for_each(|one| later(&mut self.renamed, one));
        self.revoked |= other.revoked;
        self.cuts.extend(&other.cuts);
    }

    /// Makes a member what was decided.
    pub(super) fn apply(&self, member: &mut Member) {
        member.cut(&self.cuts);
        if let Some((_, grants)) = &self.replaced {
            member.grants.clone_from(grants);
        }
        if let Some((_, name)) = &self.renamed {
            member.name.clone_from(name);
        }
        if self.revoked {
            member.revoked = true;
            member.grants.clear();
        }
    }
}

/// Keeps what the later of two entries says.
fn later<T>(kept: &mut Option<(EntryId, T)>, other: (EntryId, T)) {
    if kept.as_ref().is_none_or(|(entry, _)| *entry < other.0) {
        *kept = Some(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seed;

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
