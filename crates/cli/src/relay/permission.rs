//! `relay grant`, `relay revoke` and `relay rename`: entries of the membership log about a device, signed
//! with the admin key. Those that change what it may commit to what the relay holds of it.

use std::path::Path;

use data_encoding::HEXLOWER;
use fieldkeep_model::membership::{Act, CutOff, Wanted};
use fieldkeep_model::{Grant, Member, TypeName};
use serde::Serialize;

use super::invite;
use super::signing::{self, Made, Means};
use crate::access::Access;
use crate::args::fleet::Signing;
use crate::bundle::count;
use crate::member::{find, note_namesake};
use crate::output::{Output, safe};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::{Failure, Trouble};

/// What becomes of a member.
pub(super) enum Change {
    /// It may nothing any more.
    Revoke,
    /// It may everything, but of these types only these scopes.
    Grant(Vec<(TypeName, String)>),
    /// It is called otherwise.
    Rename(String),
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
    signing: Signing,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let means = signing.means(directory)?;
    if let Change::Grant(scopes) = change {
        invite::check_scopes(&mut access, scopes)?;
    }
    // What is signed elsewhere is signed later: nobody is kept away for that.
    let at_once = matches!(means, Means::Key(_));
    let made = signing::decide(&mut access, &means, None, output, &mut |access, log| {
        let found = find(log, who)?;
        let member = found.keys.signing;
        let act = match change {
            Change::Rename(name) => {
                if *name != found.name {
                    note_namesake(log, name);
                }
                Act::Rename { member, name: name.clone() }
            }
            Change::Revoke => {
                let cuts = cut_offs(access, found, &[], at_once)?;
                Act::Revoke { member, cuts }
            }
            Change::Grant(scopes) => {
                let grants = invite::grants(scopes);
                let cuts = cut_offs(access, found, &grants, at_once)?;
                Act::Grant { member, grants, cuts }
            }
        };
        Ok(Wanted::Act(act))
    })?;
    let Some((log, Made { act, .. })) = made else { return Ok(()) };
    let cuts = act.permissions().map_or(0, |(.., cuts)| cuts.len());
    tell(output, change, find(&log, who)?, cuts)
}

fn cut_offs(
    access: &mut Access,
    member: &Member,
    grants: &[Grant],
    at_once: bool,
) -> Result<Vec<CutOff>, Trouble> {
    let member = HEXLOWER.encode(member.keys.signing.as_bytes());
    let grants = grants.iter().map(|grant| (grant.ty.clone(), grant.scope.clone())).collect();
    let Response::CutOffs(hex) = access.ask(Request::CutOffs { member, grants, at_once })? else {
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
        let (schema, name) = match change {
            Change::Revoke => ("relay-revoke", name),
            Change::Grant(_) => ("relay-grant", name),
            Change::Rename(name) => ("relay-rename", &**name),
        };
        output.object(schema, &Shape { number, name, segments })?;
        return Ok(());
    }
    let name = safe(name);
    match change {
        Change::Revoke => {
            output.line(&format!("revoked {name} (device {number})"))?;
            output.line(&format!(
                "what the relay holds of it stays, in {}; what comes later is kept aside",
                count(segments as u64, "segment")
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
        Change::Rename(to) => {
            output.line(&format!("{name} (device {number}) is called {} from now on", safe(to)))?;
        }
    }
    Ok(())
}
