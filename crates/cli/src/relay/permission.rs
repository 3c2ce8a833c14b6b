//! `relay grant` and `relay revoke`: entries of the membership log that change what a member may,
//! signed with the admin key. They commit to what the relay holds of the member.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, CutOff};
use fieldkeep_model::{Grant, KeyPair, Member, MembershipLog, TypeName};
use fieldkeep_relay::admin_key;
use serde::Serialize;

use super::invite;
use crate::access::Access;
use crate::member::find;
use crate::output::{Output, safe};
use crate::request::{Entry, Request, Response};
use fieldkeep_console::{Code, Failure, Trouble};

/// How often the log may grow, or the member's changes arrive, between asking and appending.
const TRIES: usize = 5;

/// What becomes of a member.
pub(super) enum Change {
    /// It may nothing any more.
    Revoke,
    /// It may everything, but of these types only these scopes.
    Grant(Vec<(TypeName, String)>),
}

#[derive(Serialize)]
struct Shape<'m> {
    number: u64,
    name: &'m str,
    segments: usize,
}

pub(super) fn run(
    directory: &Path,
    who: &str,
    change: &Change,
    key: Option<PathBuf>,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let admin = admin(directory, key)?;
    if let Change::Grant(scopes) = change {
        invite::check_scopes(&mut access, scopes)?;
    }
    for _ in 0..TRIES {
        let (log, _) = invite::members(&mut access)?;
        let member = find(&log, who)?;
        let grants = match change {
            Change::Revoke => Vec::new(),
            Change::Grant(scopes) => invite::grants(scopes),
        };
        let cuts = cut_offs(&mut access, member, &grants)?;
        let segments = cuts.len();
        let signing = member.keys.signing;
        let act = match change {
            Change::Revoke => Act::Revoke { member: signing, cuts },
            Change::Grant(_) => Act::Grant { member: signing, grants, cuts },
        };
        if append(&mut access, &log, act, &admin)? {
            return tell(output, change, member, segments);
        }
    }
    Err(growing().into())
}

/// The admin key, where it was named or where `relay init` put it.
///
/// # Errors
/// When it is not there: nothing can be signed then.
pub(super) fn admin(directory: &Path, named: Option<PathBuf>) -> Result<KeyPair, Failure> {
    let path = named.unwrap_or_else(|| admin_key(directory));
    let key = KeyFile::open(path).map_err(|error| {
        let remedy = "the admin key signs this: bring it back, or name it with --admin-key FILE";
        Failure::new(Code::Denied, error.to_string(), remedy)
    })?;
    Ok(key.signing())
}

/// Signs an entry and has it appended; not if the log has grown meanwhile, or what the relay holds
/// is not what the entry says.
///
/// # Errors
/// When the entry contradicts the log, or the directory cannot be reached.
pub(super) fn append(
    access: &mut Access,
    log: &MembershipLog,
    act: Act,
    admin: &KeyPair,
) -> Result<bool, Trouble> {
    let entry = log.sign(act, admin);
    let entry = Entry {
        bytes: HEXLOWER.encode(&entry.bytes),
        signature: HEXLOWER.encode(&entry.signature.0),
    };
    let answer = access.ask(Request::AppendMember { base: log.len(), entry })?;
    let Response::Appended(appended) = answer else { return Err(Failure::unexpected().into()) };
    Ok(appended)
}

pub(super) fn growing() -> Failure {
    let message = "the membership log keeps growing under this command";
    Failure::new(Code::Failure, message, "try again")
}

fn cut_offs(
    access: &mut Access,
    member: &Member,
    grants: &[Grant],
) -> Result<Vec<CutOff>, Trouble> {
    let member = HEXLOWER.encode(member.keys.signing.as_bytes());
    let grants = grants.iter().map(|grant| (grant.ty.clone(), grant.scope.clone())).collect();
    let Response::CutOffs(hex) = access.ask(Request::CutOffs { member, grants })? else {
        return Err(Failure::unexpected().into());
    };
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok();
    let cuts = bytes.and_then(|bytes| minicbor::decode(&bytes).ok());
    Ok(cuts.ok_or_else(Failure::unexpected)?)
}

fn tell(
    output: &mut Output,
    change: &Change,
    member: &Member,
    segments: usize,
) -> Result<(), Trouble> {
    let (number, name) = (member.number, &*member.name);
    if output.is_json() {
        let schema = match change {
            Change::Revoke => "relay-revoke",
            Change::Grant(_) => "relay-grant",
        };
        output.object(schema, &Shape { number, name, segments })?;
        return Ok(());
    }
    let name = safe(name);
    match change {
        Change::Revoke => {
            output.line(&format!("revoked {name} (device {number})"))?;
            output.line(&format!(
                "what the relay holds of it stays, in {segments} segments; what comes later is kept aside"
            ))?;
        }
        Change::Grant(scopes) if scopes.is_empty() => {
            output.line(&format!("{name} (device {number}) may read and write everything"))?;
        }
        Change::Grant(scopes) => {
            let scopes: Vec<_> = scopes.iter().map(|(ty, of)| format!("{ty}={of}")).collect();
            let scopes = safe(&scopes.join(", "));
            output.line(&format!(
                "{name} (device {number}) may read and write everything, but of these types only {scopes}"
            ))?;
        }
    }
    Ok(())
}
