//! `relay sign` and `relay apply`: where the admin key is kept apart from the relay, what is to be signed is
//! carried there and back by hand. Whoever signs sees in words what that is, from a log that is verified
//! from its founding, and not from what the relay says.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{PaperError, SignedEntry, SigningRequest, Wanted};
use serde_json::json;

use super::signing;
use super::{invite, words};
use crate::access::Access;
use crate::args::fleet::Sign;
use crate::confirm::confirm;
use crate::output::{Output, safe, several};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::{Code, Failure, Trouble};

/// The longest file that is read: a log of a hundred thousand entries.
const LONGEST: u64 = 64 * 1024 * 1024;

pub(super) fn sign(wish: &Sign, output: &mut Output) -> Result<(), Trouble> {
    let request: SigningRequest = read(&wish.file)?;
    let key = KeyFile::open(&wish.admin_key).map_err(|error| {
        Failure::new(Code::Denied, error.to_string(), "nothing was signed: name the key's file")
    })?;
    let log = &request.log;
    let mut lines = vec![format!(
        "organisation {} ({}), whose log has {} entries and {} members",
        safe(log.name()),
        log.org(),
        log.len(),
        log.members().len()
    )];
    lines.extend(words::of_wanted(&request.wanted, log));
    if !wish.yes {
        confirm("signing", &lines, "sign?", "give --yes")?;
    }
    let makes_key = match request.wanted {
        Wanted::RotateAdmin | Wanted::NameRecovery | Wanted::Recover => true,
        Wanted::Act(_) | Wanted::Invite { .. } => false,
    };
    // Nothing is made where the key would not do.
    let trial = fieldkeep_model::KeyPair::from_secret([1; 32]);
    signing::make(&request, &key.signing(), Some(&trial))?;
    let new_key = wish.new_key.as_deref().filter(|_| makes_key).map(new_key).transpose()?;
    let made = signing::make(&request, &key.signing(), new_key.as_ref())?;
    let out = wish.out.clone().unwrap_or_else(|| beside(&wish.file));
    let signed = SignedEntry { org: log.org(), entry: made.entry };
    let written = std::fs::write(&out, format!("{signed}\n"));
    written.map_err(|error| Failure::file(&out, &error))?;
    if output.is_json() {
        let ticket = made.ticket.as_ref().map(ToString::to_string);
        let file = out.display().to_string();
        let shape =
            json!({ "file": file, "signed": words::of_act(&made.act, log), "ticket": ticket });
        return Ok(output.object("relay-sign", &shape)?);
    }
    for line in lines.iter().skip(1) {
        output.line(line)?;
    }
    let out = out.display();
    output.line(&format!("signed: {out}; on the relay: fieldkeep relay apply {out}"))?;
    if let Some(ticket) = &made.ticket {
        output.line("the ticket, which is good once that is done:")?;
        invite::show(ticket, wish.qr, output)?;
    }
    Ok(())
}

/// Makes the file of a key that is to sign from now on.
///
/// # Errors
/// When there is a file already, or it cannot be written.
pub(super) fn new_key(file: &Path) -> Result<fieldkeep_model::KeyPair, Failure> {
    let made = KeyFile::create(file);
    let key = made.map_err(|error| {
        Failure::new(Code::Failure, error.to_string(), "nothing was signed: name another file")
    })?;
    Ok(key.signing())
}

/// `REQUEST.signed`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".signed");
    name.into()
}

pub(super) fn apply(directory: &Path, file: &Path, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let (log, _) = signing::members(&mut access)?;
    let SignedEntry { org, entry } = read(file)?;
    if org != log.org() {
        let message = "this was signed for another organisation";
        return Err(Failure::new(Code::Denied, message, "nothing was changed").into());
    }
    let act = signing::read(&entry)?;
    let Response::Applied { already, beyond } = access.ask(Request::Apply(signing::hex(&entry)))?
    else {
        return Err(Failure::unexpected().into());
    };
    let done = words::of_act(&act, &log);
    if output.is_json() {
        let shape = json!({ "done": done, "already": already, "beyond": beyond });
        return Ok(output.object("relay-apply", &shape)?);
    }
    if already {
        output.line("this was applied before; nothing was changed:")?;
    }
    done.iter().try_for_each(|line| output.line(line))?;
    if beyond > 0 {
        output.line(&format!(
            "in {} more of it came after this was asked for: that counts as not \
             permitted, and what it touches is held",
            several(beyond, "segment")
        ))?;
    }
    Ok(())
}

/// Reads a file that was carried here; `-` is standard input.
fn read<T: std::str::FromStr<Err = PaperError>>(file: &Path) -> Result<T, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(LONGEST).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file(file, &error))?;
    text.parse().map_err(|error: PaperError| {
        let message = format!("{}: {error}", file.display());
        Failure::new(Code::Held, message, "nothing was changed")
    })
}
