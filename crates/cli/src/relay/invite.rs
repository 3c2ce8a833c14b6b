//! `relay invite`: an entry of the membership log, signed with the admin key, and the ticket that
//! takes it up. This command opens the key; the process that serves is handed the signed entry.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use fieldkeep_model::{Grant, KeyPair, MembershipLog, Ticket, TypeName};
use fieldkeep_relay::invite;
use fieldkeep_replica::ReplicaError;
use serde::Serialize;

use super::LISTEN;
use super::permission::{admin, growing};
use crate::access::Access;
use crate::execute::signed;
use crate::export::catalog;
use crate::output::Output;
use crate::request::{Entry, Request, Response};
use crate::time::now_ms;
use fieldkeep_console::rfc3339;
use fieldkeep_console::{Code, Failure, Trouble};

/// How often the log may grow between reading and appending.
const TRIES: usize = 5;

/// What is invited to.
pub(super) struct Wish {
    pub(super) name: Option<String>,
    pub(super) scopes: Vec<(TypeName, String)>,
    pub(super) ttl: Duration,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) admin_key: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shape {
    ticket: String,
    name: String,
    expires: String,
    addresses: Vec<String>,
}

pub(super) fn run(directory: &Path, wish: Wish, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let admin = admin(directory, wish.admin_key)?;
    check_scopes(&mut access, &wish.scopes)?;
    let expires = now_ms().saturating_add(i64::try_from(wish.ttl.as_millis()).unwrap_or(i64::MAX));
    for _ in 0..TRIES {
        let (log, listens) = members(&mut access)?;
        let addresses = addresses(&wish.addresses, listens.as_deref())?;
        let name = wish.name.clone().unwrap_or_else(|| numbered(&log));
        let one_time = KeyPair::from_secret(drawn()?);
        let (entry, mut ticket) =
            invite(&log, &admin, one_time, &name, grants(&wish.scopes), expires);
        ticket.addresses = addresses;
        let entry = Entry {
            bytes: HEXLOWER.encode(&entry.bytes),
            signature: HEXLOWER.encode(&entry.signature.0),
        };
        let answer = access.ask(Request::AppendMember { base: log.len(), entry })?;
        let Response::Appended(appended) = answer else { return Err(Failure::unexpected().into()) };
        if appended {
            return print(output, &ticket, name, expires);
        }
    }
    Err(growing().into())
}

fn print(output: &mut Output, ticket: &Ticket, name: String, expires: i64) -> Result<(), Trouble> {
    if output.is_json() {
        let addresses = ticket.addresses.iter().map(ToString::to_string).collect();
        let (ticket, expires) = (ticket.to_string(), rfc3339(expires));
        output.object("relay-invite", &Shape { ticket, name, expires, addresses })?;
    } else {
        output.line(&ticket.to_string())?;
    }
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

/// Everything, but for the types that are limited to scopes.
pub(super) fn grants(scopes: &[(TypeName, String)]) -> Vec<Grant> {
    let scoped =
        scopes.iter().map(|(ty, scope)| Grant { ty: Some(ty.clone()), scope: Some(scope.clone()) });
    std::iter::once(Grant::ALL).chain(scoped).collect()
}

pub(super) fn check_scopes(
    access: &mut Access,
    scopes: &[(TypeName, String)],
) -> Result<(), Trouble> {
    if scopes.is_empty() {
        return Ok(());
    }
    let catalog = catalog(access)?;
    for (ty, _) in scopes {
        let scoped = |ty: &TypeName| catalog.ty(ty).is_some_and(|object| object.scope.is_some());
        if !scoped(ty) {
            let known: Vec<_> =
                catalog.types().keys().filter(|ty| scoped(ty)).map(TypeName::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("the catalog has no type `{ty}` with a scope");
            return Err(
                Failure::new(Code::Usage, message, format!("types with one: {known}")).into()
            );
        }
    }
    Ok(())
}

fn numbered(log: &MembershipLog) -> String {
    let devices = log.members().values().filter(|member| !member.relay).count();
    format!("device-{}", devices + log.open_invitations() + 1)
}

/// The addresses for a ticket: those that were named, else where the relay listens.
fn addresses(named: &[SocketAddr], listens: Option<&str>) -> Result<Vec<SocketAddr>, Failure> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    if listens.is_none() {
        crate::note(&format!(
            "this relay has not served yet: the ticket says {LISTEN}; --address says another"
        ));
    }
    let malformed = || {
        let message = "where the relay listens is not known";
        Failure::new(Code::Usage, message, "give --address HOST:PORT as devices reach it")
    };
    let address = listens.map(str::parse).transpose().map_err(|_| malformed())?;
    let address: SocketAddr = address.unwrap_or(LISTEN);
    if address.ip().is_unspecified() {
        let message = format!("the relay listens on {address}, which is no address to call");
        let remedy = format!("give --address HOST:{} as devices reach it", address.port());
        return Err(Failure::new(Code::Usage, message, remedy));
    }
    Ok(vec![address])
}

fn drawn() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    let failed =
        |error| Failure::new(Code::Failure, format!("no randomness: {error}"), "try again");
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
