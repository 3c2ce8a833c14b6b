//! Keys that are replaced: the admin key, by itself or by the recovery key, and the relay's own.

use std::path::Path;

use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, MemberKeys, Wanted};
use serde_json::json;

use super::sign::new_key;
use super::signing::{self, Means};
use crate::access::Access;
use crate::args::fleet::{NewKey, Recover, Signing};
use crate::output::Output;
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::{Code, Failure, Trouble};

/// `relay rotate-admin-key`.
pub(super) fn rotate_admin(
    directory: &Path,
    wish: NewKey,
    output: &mut Output,
) -> Result<(), Trouble> {
    let said = "the admin key was replaced: the one so far signs nothing any more";
    by_admin(directory, wish, &Wanted::RotateAdmin, said, output)
}

/// `relay recovery-key`.
pub(super) fn name_recovery(
    directory: &Path,
    wish: NewKey,
    output: &mut Output,
) -> Result<(), Trouble> {
    let said = "this key can replace the admin key: `fieldkeep relay recover`; keep it elsewhere";
    by_admin(directory, wish, &Wanted::NameRecovery, said, output)
}

fn by_admin(
    directory: &Path,
    wish: NewKey,
    wanted: &Wanted,
    said: &str,
    output: &mut Output,
) -> Result<(), Trouble> {
    let means = wish.signing.means(directory)?;
    with_new_key(directory, &means, wish.new_key.as_deref(), wanted, said, output)
}

/// `relay recover`.
pub(super) fn recover(directory: &Path, wish: Recover, output: &mut Output) -> Result<(), Trouble> {
    let means = match (wish.request, wish.recovery_key) {
        (Some(file), _) => Means::Request(file),
        (None, Some(file)) => {
            let key = KeyFile::open(file).map_err(|error| {
                Failure::new(Code::Denied, error.to_string(), "the recovery key signs this")
            })?;
            Means::Key(key.signing())
        }
        (None, None) => return Err(Failure::unexpected().into()),
    };
    let said = "the admin key was replaced: the one so far signs nothing any more, wherever it is";
    with_new_key(directory, &means, wish.new_key.as_deref(), &Wanted::Recover, said, output)
}

/// Has an entry signed that brings a key, whose file is made for it.
fn with_new_key(
    directory: &Path,
    means: &Means,
    file: Option<&Path>,
    wanted: &Wanted,
    said: &str,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let new = match (means, file) {
        (Means::Key(key), Some(file)) => {
            // No file is made where the key at hand would not do.
            let (log, _) = signing::members(&mut access)?;
            let trial = fieldkeep_model::membership::SigningRequest { log, wanted: wanted.clone() };
            signing::make(&trial, key, Some(key))?;
            Some(new_key(file)?)
        }
        (Means::Key(_) | Means::Request(_), _) => None,
    };
    let made =
        signing::decide(&mut access, means, new.as_ref(), output, &mut |_, _| Ok(wanted.clone()))?;
    let (Some(_), Some(file), Some(new)) = (made, file, new) else { return Ok(()) };
    let file = file.display().to_string();
    if output.is_json() {
        let shape = json!({ "file": file, "key": new.public().to_string() });
        return Ok(output.object("relay-key", &shape)?);
    }
    output.line(&format!("{file} is the new key"))?;
    Ok(output.line(said)?)
}

/// `relay rotate-key`.
pub(super) fn rotate_relay(
    directory: &Path,
    signing: Signing,
    output: &mut Output,
) -> Result<(), Trouble> {
    let means = signing.means(directory)?;
    let mut access = Access::new(directory)?;
    // Drawn where the relay's directory is owned: whoever serves it has to be able to read them.
    let Response::NextKeys { signing, tls } = access.ask(Request::NextKeys)? else {
        return Err(Failure::unexpected().into());
    };
    let key_of = crate::execute::key_of;
    let keys = MemberKeys { signing: key_of(&signing)?, tls: key_of(&tls)? };
    let made = signing::decide(&mut access, &means, None, output, &mut |access, log| {
        if log.by_tls(&keys.tls).is_some() {
            let message = "the membership log names this relay's next key already";
            let remedy = "nothing was changed: start the relay again, then that key is in force";
            return Err(Failure::new(Code::Held, message, remedy).into());
        }
        let Response::Me(relay) = access.ask(Request::Me)? else {
            return Err(Failure::unexpected().into());
        };
        let relay = key_of(&relay)?;
        Ok(Wanted::Act(Act::RotateRelay { relay, keys }))
    })?;
    if made.is_none() {
        return Ok(());
    }
    if output.is_json() {
        let shape = json!({ "signing": keys.signing.to_string(), "tls": keys.tls.to_string() });
        return Ok(output.object("relay-rotate-key", &shape)?);
    }
    output
        .line("every device that comes learns this relay's next key, while the old one serves")?;
    output.line(
        "it is in force from the relay's next start; devices that come later learn it then",
    )?;
    Ok(())
}
