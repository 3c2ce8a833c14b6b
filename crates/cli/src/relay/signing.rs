//! Entries of the membership log that an admin signs: here, where the key is at hand, or elsewhere, where
//! it is kept apart from the relay. Whichever way, the relay is handed the signed entry and nothing else.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, SigningRequest, Wanted};
use fieldkeep_model::{KeyPair, MembershipLog, Signed, Ticket};
use fieldkeep_relay::{admin_key, invite};
use fieldkeep_replica::ReplicaError;
use serde_json::json;

use super::words;
use crate::access::Access;
use crate::args::fleet::Signing;
use crate::execute::signed;
use crate::output::Output;
use crate::request::{Entry, Request};
use crate::response::Response;
use fieldkeep_console::{Code, Failure, Trouble};

/// How often the log may grow, or the member's changes arrive, between asking and appending.
const TRIES: usize = 5;

/// Where a signature comes from.
#[derive(Debug)]
pub(super) enum Means {
    /// From this key.
    Key(KeyPair),
    /// From elsewhere: what is to be signed is written into this file.
    Request(PathBuf),
}

/// An entry that was signed.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) entry: Signed,
    /// What it does.
    pub(super) act: Act,
    /// What takes it up, of an invitation.
    pub(super) ticket: Option<Ticket>,
}

impl Signing {
    /// The key that was named, else the one that `relay init` put into the directory, unless it is to be
    /// signed elsewhere.
    ///
    /// # Errors
    /// When the key is not there: nothing can be signed here then.
    pub(super) fn means(self, directory: &Path) -> Result<Means, Failure> {
        if let Some(file) = self.request {
            return Ok(Means::Request(file));
        }
        let path = self.admin_key.unwrap_or_else(|| admin_key(directory));
        let key = KeyFile::open(path).map_err(|error| {
            let remedy =
                "the admin key signs this: bring it back, or name it with --admin-key FILE";
            Failure::new(Code::Denied, error.to_string(), remedy)
        })?;
        Ok(Means::Key(key.signing()))
    }
}

/// Has something signed and taken by the relay, or written down to be signed elsewhere: nothing is
/// returned then, and what is to be done was told. `wanted` is asked anew where the log has grown
/// meanwhile; `new_key` is the key that it asks for.
///
/// # Errors
/// When the key is not the one that signs that, or the directory cannot be reached.
pub(super) fn decide(
    access: &mut Access,
    means: &Means,
    new_key: Option<&KeyPair>,
    output: &mut Output,
    wanted: &mut dyn FnMut(&mut Access, &MembershipLog) -> Result<Wanted, Trouble>,
) -> Result<Option<(MembershipLog, Made)>, Trouble> {
    for _ in 0..TRIES {
        let (log, _) = members(access)?;
        let wanted = wanted(access, &log)?;
        let request = SigningRequest { log, wanted };
        let key = match means {
            Means::Key(key) => key,
            Means::Request(file) => {
                write(&request, file, output)?;
                return Ok(None);
            }
        };
        let made = make(&request, key, new_key)?;
        let (base, entry) = (request.log.len(), hex(&made.entry));
        let answer = access.ask(Request::AppendMember { base, entry })?;
        let Response::Appended(appended) = answer else { return Err(Failure::unexpected().into()) };
        if appended {
            return Ok(Some((request.log, made)));
        }
    }
    let message = "the membership log keeps growing under this command";
    Err(Failure::new(Code::Failure, message, "try again").into())
}

/// Signs what is wanted.
///
/// # Errors
/// When the key is not the one that signs that.
pub(super) fn make(
    request: &SigningRequest,
    key: &KeyPair,
    new_key: Option<&KeyPair>,
) -> Result<Made, Failure> {
    let SigningRequest { log, wanted } = request;
    let new = || {
        let public = new_key.map(KeyPair::public);
        let message = "this makes a key, and where its file is to be is not named";
        public.ok_or_else(|| Failure::new(Code::Usage, message, "name it with --new-key FILE"))
    };
    let act = match wanted {
        Wanted::Act(act) => act.clone(),
        Wanted::RotateAdmin => Act::RotateAdmin { admin: new()?, others: log.other_ends() },
        Wanted::NameRecovery => Act::NameRecovery { key: new()? },
        Wanted::Recover => Act::Recover { admin: new()?, others: log.other_ends() },
        Wanted::Invite { name, grants, expires_ms, addresses } => {
            let one_time = KeyPair::from_secret(drawn()?);
            let (entry, mut ticket) = invite(log, key, one_time, name, grants.clone(), *expires_ms);
            let parsed = addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>();
            ticket.addresses = parsed.map_err(|_| Failure::unexpected())?;
            let act = read(&entry)?;
            check(log, &act, key)?;
            return Ok(Made { entry, act, ticket: Some(ticket) });
        }
    };
    check(log, &act, key)?;
    Ok(Made { entry: log.sign(act.clone(), key), act, ticket: None })
}

/// Whether a key is the one that signs an act.
fn check(log: &MembershipLog, act: &Act, key: &KeyPair) -> Result<(), Failure> {
    if log.who_signs(act) == Some(key.public()) {
        return Ok(());
    }
    let (message, remedy) = match (act, log.recovery()) {
        (Act::Recover { .. }, None) => (
            "no recovery key was ever named in this organisation",
            "nothing was signed: `fieldkeep relay recovery-key` names one, with the admin key",
        ),
        (Act::Recover { .. } | Act::NameRecovery { .. }, Some(_)) => (
            "this is not the organisation's recovery key",
            "nothing was signed: that key signs this",
        ),
        _ => (
            "this is not the admin key that is in force in this organisation",
            "nothing was signed: name the right one, the newest where it was replaced",
        ),
    };
    Err(Failure::new(Code::Denied, message, remedy))
}

/// What a signed entry does.
///
/// # Errors
/// When it is none that is known.
pub(super) fn read(entry: &Signed) -> Result<Act, Failure> {
    let entry = entry.read::<fieldkeep_model::membership::Entry>();
    Ok(entry.ok_or_else(Failure::unexpected)?.act)
}

/// Writes a request down, and says what is to be done with it.
fn write(request: &SigningRequest, file: &Path, output: &mut Output) -> Result<(), Trouble> {
    let written = std::fs::write(file, format!("{request}\n"));
    written.map_err(|error| Failure::file(file, &error))?;
    let (words, file) = (words::of_wanted(&request.wanted, &request.log), file.display());
    if output.is_json() {
        let shape = json!({ "file": file.to_string(), "to_be_signed": words });
        return Ok(output.object("relay-request", &shape)?);
    }
    output.line(&format!("{file} asks to {}", words.join("; ")))?;
    output.line(&format!("where the key is: fieldkeep relay sign {file} --admin-key FILE"))?;
    output.line(&format!("then here: fieldkeep relay apply {file}.signed"))?;
    Ok(())
}

/// The membership log, and where the relay listens.
///
/// # Errors
/// When the directory is no relay's, or the log does not verify.
pub(super) fn members(access: &mut Access) -> Result<(MembershipLog, Option<String>), Trouble> {
    let Response::Members { entries, address } = access.ask(Request::Members)? else {
        return Err(Failure::unexpected().into());
    };
    let entries = entries.iter().map(signed).collect::<Result<Vec<_>, _>>()?;
    let log = MembershipLog::open(entries).map_err(ReplicaError::from).map_err(Failure::from)?;
    Ok((log, address))
}

/// An entry, as it is asked to be appended.
pub(super) fn hex(entry: &Signed) -> Entry {
    let bytes = HEXLOWER.encode(&entry.bytes);
    Entry { bytes, signature: HEXLOWER.encode(&entry.signature.0) }
}

fn drawn() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    let failed =
        |error| Failure::new(Code::Failure, format!("no randomness: {error}"), "try again");
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
