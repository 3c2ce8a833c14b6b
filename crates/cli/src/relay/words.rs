//! What an act of the membership log does, in words: for whoever is about to sign it, and for whoever has.

use fieldkeep_console::rfc3339;
use fieldkeep_console::shape::fleet::granted;
use fieldkeep_model::membership::{Act, Wanted};
use fieldkeep_model::{Grant, MembershipLog, PublicKey};

use crate::output::{safe, several};

/// What would be signed, in words.
pub(super) fn of_wanted(wanted: &Wanted, log: &MembershipLog) -> Vec<String> {
    match wanted {
        Wanted::Act(act) => of_act(act, log),
        Wanted::Invite { name, grants, expires_ms, addresses } => {
            let mut lines = invitation(name, grants, *expires_ms);
            let addresses = addresses.iter().map(|address| safe(address)).collect::<Vec<_>>();
            lines.push(format!("the ticket says that the relay is at {}", addresses.join(" ")));
            lines
        }
        Wanted::RotateAdmin => vec![
            "replace the admin key by one that is made now".to_owned(),
            "the one that signs this signs nothing any more then".to_owned(),
        ],
        Wanted::NameRecovery => vec![
            "name a recovery key, which is made now: it can replace the admin key".to_owned(),
            "once it is named, only it can name another".to_owned(),
        ],
        Wanted::Recover => vec![
            "replace the admin key by one that is made now, by the recovery key".to_owned(),
            "the admin key so far signs nothing any more then".to_owned(),
        ],
    }
}

/// What an act does, in words.
pub(super) fn of_act(act: &Act, log: &MembershipLog) -> Vec<String> {
    let who = |key: &PublicKey| named(log, key);
    let segments = |count: usize| several(count as u64, "segment");
    match act {
        Act::Found { name, .. } => vec![format!("found {}", safe(name))],
        Act::Relay { name, .. } => vec![format!("make {} a relay", safe(name))],
        Act::Invite { name, grants, expires_ms, .. } => invitation(name, grants, *expires_ms),
        Act::Join { .. } => vec!["let a device join".to_owned()],
        Act::Admit { .. } => vec!["admit a device".to_owned()],
        Act::Grant { member, grants, cuts } => vec![
            format!("let {} read and write {}, and nothing else", who(member), list(grants)),
            format!("what the relay holds of it elsewhere stays: in {}", segments(cuts.len())),
        ],
        Act::Revoke { member, cuts } => vec![
            format!("revoke {}: it exchanges nothing any more, for good", who(member)),
            format!("what the relay holds of it stays: in {}", segments(cuts.len())),
        ],
        Act::Rename { member, name } => {
            vec![format!("give {} the name {}", who(member), safe(name))]
        }
        Act::RotateAdmin { admin, .. } => {
            vec![format!("replace the admin key by {admin}; the one so far signs nothing any more")]
        }
        Act::NameRecovery { key } => {
            vec![format!("name {key} as the recovery key, which can replace the admin key")]
        }
        Act::Recover { admin, .. } => vec![format!(
            "replace the admin key by {admin}, by the recovery key; the one so far signs nothing any \
             more"
        )],
        Act::RotateRelay { relay, keys } => vec![
            format!("replace the keys of {}", who(relay)),
            format!("it signs with {}, and is called under {}", keys.signing, keys.tls),
        ],
        Act::RotateDevice { member, .. } => vec![format!("replace the keys of {}", who(member))],
    }
}

fn invitation(name: &str, grants: &[Grant], expires_ms: i64) -> Vec<String> {
    vec![
        format!("invite {}, who may read and write {}", safe(name), list(grants)),
        format!("the ticket makes one device a member, until {}", rfc3339(expires_ms)),
    ]
}

fn list(grants: &[Grant]) -> String {
    let all: Vec<_> = grants.iter().map(|grant| safe(&granted(grant))).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(" ") }
}

fn named(log: &MembershipLog, key: &PublicKey) -> String {
    log.by_signing(key).map_or_else(
        || format!("nobody who is known (key {key})"),
        |member| {
            let kind = if member.relay { "relay" } else { "device" };
            format!("{} ({kind} {}, key {key})", safe(&member.name), member.number)
        },
    )
}
