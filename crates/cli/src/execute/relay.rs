//! What is asked of a relay's directory: the membership log, the catalog, the epoch.

use data_encoding::HEXLOWER;
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{self, Act, MemberKeys};
use fieldkeep_model::{Grant, MembershipLog, PublicKey, Signature, Signed, TypeName};
use fieldkeep_replica::Replica;
use fieldkeep_store::{Settings as _, home};

use super::read::Reading;
use crate::access::{Owner, RelayOwner};
use crate::request::Entry;
use crate::response::Response;
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

/// The keys that this relay will have: drawn once, and kept beside the present ones until they are in
/// force.
pub(super) fn next_keys(owner: &Owner) -> Result<Response, Failure> {
    relay(owner)?;
    let file = home::next_key(owner.directory());
    let failed = |error: String| Failure::new(Code::Failure, error, "nothing was changed");
    let seed = if file.exists() {
        KeyFile::open(&file).map_err(|error| failed(error.to_string()))?
    } else {
        KeyFile::create(&file).map_err(|error| failed(error.to_string()))?
    };
    let MemberKeys { signing, tls } = MemberKeys::of(&seed);
    Ok(Response::NextKeys { signing: signing.to_string(), tls: tls.to_string() })
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

/// Appends an entry that was signed elsewhere, if it follows the log as it is.
pub(super) fn apply(owner: &Owner, entry: &Entry) -> Result<Response, Failure> {
    let entry = signed(entry)?;
    relay(owner)?.with_engine(move |engine| {
        let log = engine.replica().members();
        if log.holds(&entry) {
            return Ok(Response::Applied { already: true, beyond: 0 });
        }
        let stated: Option<membership::Entry> = entry.read();
        let previous = stated.as_ref().map(|stated| stated.previous);
        if previous != Some(log.tip()) {
            return Err(overtaken(log, previous));
        }
        let beyond = stated.map_or(Ok(0), |stated| beyond(engine.replica(), &stated.act))?;
        engine.append_members(&[entry])?;
        Ok(Response::Applied { already: false, beyond })
    })
}

fn overtaken(log: &MembershipLog, previous: Option<[u8; 32]>) -> Failure {
    let entries = log.since(0);
    let known = entries.iter().position(|entry| Some(entry.digest()) == previous);
    let message = match known {
        Some(at) => format!(
            "the membership log has grown by {} entries since this was asked for",
            entries.len() - at - 1
        ),
        None => "this follows an entry that is not in the relay's membership log".to_owned(),
    };
    let remedy = "nothing was changed: ask again with --request, and have that signed";
    Failure::new(Code::Held, message, remedy)
}

/// In how many segments the relay holds more of a member than an entry commits to.
fn beyond(replica: &Replica, act: &Act) -> Result<u64, Failure> {
    let Some((member, grants, cuts)) = act.permissions() else { return Ok(0) };
    let Some(member) = replica.members().device(member) else { return Ok(0) };
    let held = replica.cut_offs(member, grants)?;
    Ok(held.iter().filter(|held| !cuts.contains(held)).count() as u64)
}

pub(super) fn me(owner: &Owner) -> Result<Response, Failure> {
    let key = relay(owner)?.with_engine(|engine| Ok(engine.replica().me().keys.public()))?;
    Ok(Response::Me(key.to_string()))
}

/// Reads a key.
///
/// # Errors
/// When it is none in hexadecimal.
pub(crate) fn key_of(text: &str) -> Result<PublicKey, Failure> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(PublicKey).ok_or_else(Failure::unexpected)
}

/// Whether the relay holds of a member what an entry says that it holds.
fn holds(replica: &Replica, entry: &Signed) -> Result<bool, Failure> {
    let entry: Option<membership::Entry> = entry.read();
    let permissions = entry.as_ref().and_then(|entry| entry.act.permissions());
    let Some((key, grants, cuts)) = permissions else { return Ok(true) };
    Ok(match replica.members().device(key) {
        Some(member) => replica.cut_offs(member, grants)? == cuts,
        None => false,
    })
}

pub(super) fn cut_offs(
    owner: &Owner,
    member: &str,
    grants: Vec<(Option<TypeName>, Option<String>)>,
    at_once: bool,
) -> Result<Response, Failure> {
    let key = key_of(member)?;
    let grants: Vec<_> = grants.into_iter().map(|(ty, scope)| Grant { ty, scope }).collect();
    let cuts = relay(owner)?
        .with_engine(move |engine| {
            if at_once {
                return Ok(engine.cut_offs(now_ms(), &key, &grants)?);
            }
            let replica = engine.replica();
            let member = replica.members().device(&key);
            Ok(member.map(|member| replica.cut_offs(member, &grants)).transpose()?)
        })?
        .ok_or_else(|| Failure::new(Code::NotFound, "there is no such device", ""))?;
    let bytes = minicbor::to_vec(cuts).expect("encoding into memory cannot fail");
    Ok(Response::CutOffs(HEXLOWER.encode(&bytes)))
}

pub(super) fn restore(owner: &Owner) -> Result<Response, Failure> {
    relay(owner)?.with_engine(|engine| {
        engine.restore_at(now_ms())?;
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
