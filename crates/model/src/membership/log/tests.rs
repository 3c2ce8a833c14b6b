//! Logs as relays and devices extend them, in order and not.

use super::*;
use crate::head::Head;
use crate::id::ActorId;
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
    let address = SegmentAddress { ty, scope: String::new(), buckets: 1, bucket: 0, generation: 0 };
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
    assert_eq!(log.merge(std::slice::from_ref(&rotation)), Err(MembershipError::Unadmitted));
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
    for union in [&left, &right, &MembershipLog::open(right.since(0).to_vec()).expect("sound")] {
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
