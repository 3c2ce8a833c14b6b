//! What is asked of a relay's directory: the membership log, the catalog, the epoch.

use data_encoding::HEXLOWER;
use fieldkeep_model::membership::{self, Act};
use fieldkeep_model::{Grant, PublicKey, Signature, Signed, TypeName};
use fieldkeep_replica::Replica;
use fieldkeep_store::Settings as _;

use super::read::Reading;
use crate::access::{Owner, RelayOwner};
use crate::request::{Entry, Response};
use crate::time::now_ms;
use fieldkeep_console::{Code, Failure};

pub(super) fn relay(owner: &Owner) -> Result<&RelayOwner, Failure> {
    match owner {
        Owner::Relay(relay) => Ok(relay),
        Owner::Device(_) => {
            let message = format!("{} is a device's directory", owner.directory().display());
            Err(Failure::new(Code::Usage, message, "this command works on a relay's"))
        }
    }
}

pub(super) fn members(owner: &Owner) -> Result<Response, Failure> {
    relay(owner)?;
    let reading = Reading::open(owner)?;
    let entries = reading.members.since(0).iter().map(|entry| Entry {
        bytes: HEXLOWER.encode(&entry.bytes),
        signature: HEXLOWER.encode(&entry.signature.0),
    });
    let entries = entries.collect();
    let address = reading.store.setting("address")?;
    let address = address.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Response::Members { entries, address })
}

pub(super) fn append(owner: &Owner, base: u64, entry: &Entry) -> Result<Response, Failure> {
    let entry = signed(entry)?;
    let appended = relay(owner)?.with_engine(move |engine| {
        if engine.replica().members().len() != base || !holds(engine.replica(), &entry)? {
            return Ok(false);
        }
        engine.append_members(&[entry])?;
        Ok(true)
    })?;
    Ok(Response::Appended(appended))
}

/// Whether the relay holds of a member what an entry says that it holds.
fn holds(replica: &Replica, entry: &Signed) -> Result<bool, Failure> {
    let act = entry.read::<membership::Entry>().map(|entry| entry.act);
    let (key, grants, cuts) = match act {
        Some(Act::Grant { member, grants, cuts }) => (member, grants, cuts),
        Some(Act::Revoke { member, cuts }) => (member, Vec::new(), cuts),
        Some(
            Act::Found { .. }
            | Act::Relay { .. }
            | Act::Invite { .. }
            | Act::Join { .. }
            | Act::Admit { .. },
        )
        | None => return Ok(true),
    };
    Ok(match replica.members().device(&key) {
        Some(member) => replica.cut_offs(member, &grants)? == cuts,
        None => false,
    })
}

pub(super) fn cut_offs(
    owner: &Owner,
    member: &str,
    grants: Vec<(Option<TypeName>, Option<String>)>,
) -> Result<Response, Failure> {
    let key = HEXLOWER.decode(member.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let key = PublicKey(key.ok_or_else(Failure::unexpected)?);
    let grants: Vec<_> = grants.into_iter().map(|(ty, scope)| Grant { ty, scope }).collect();
    let cuts = relay(owner)?
        .with_engine(move |engine| Ok(engine.cut_offs(now_ms(), &key, &grants)?))?
        .ok_or_else(|| Failure::new(Code::NotFound, "there is no such device", ""))?;
    let bytes = minicbor::to_vec(cuts).expect("encoding into memory cannot fail");
    Ok(Response::CutOffs(HEXLOWER.encode(&bytes)))
}

pub(super) fn restore(owner: &Owner) -> Result<Response, Failure> {
    relay(owner)?.with_engine(|engine| {
        engine.restore(now_ms())?;
        let epoch = engine.replica().epoch().counter;
        let segments = engine.replica().segments().len() as u64;
        Ok(Response::Restored { epoch, segments })
    })
}

pub(super) fn limits(owner: &Owner) -> Result<Response, Failure> {
    Ok(Response::Limits(Box::new(relay(owner)?.limits()?)))
}

/// Reads an entry.
///
/// # Errors
/// When it is no hexadecimal.
pub(crate) fn signed(entry: &Entry) -> Result<Signed, Failure> {
    let malformed = || Failure::new(Code::Failure, "a membership entry is malformed", "");
    let bytes = HEXLOWER.decode(entry.bytes.as_bytes()).map_err(|_| malformed())?;
    let signature = HEXLOWER.decode(entry.signature.as_bytes()).ok();
    let signature = signature.and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
    Ok(Signed { bytes, signature: Signature(signature) })
}
