//! `relay invite`: an entry of the membership log, and the ticket that takes it up. Whoever signs draws the
//! one-time key of the ticket: the process that serves is handed the signed entry, and never has it.

use std::net::SocketAddr;
use std::path::Path;

use fieldkeep_model::membership::Wanted;
use fieldkeep_model::{Grant, MembershipLog, Ticket, TypeName};
use serde::Serialize;

use super::LISTEN;
use super::signing::{self, Made};
use crate::access::Access;
use crate::args::fleet::Invite;
use crate::export::catalog;
use crate::member;
use crate::output::{Output, code};
use crate::request::Request;
use crate::response::Response;
use crate::time::now_ms;
use fieldkeep_console::rfc3339;
use fieldkeep_console::{Code, Failure, Trouble};

#[derive(Serialize)]
struct Shape {
    ticket: String,
    name: String,
    expires: String,
    addresses: Vec<String>,
}

pub(super) fn run(directory: &Path, wish: Invite, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let Invite { name, scope: scopes, ttl, address, qr, signing } = wish;
    let means = signing.means(directory)?;
    check_scopes(&mut access, &scopes)?;
    let expires_ms = now_ms().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    let mut invited = String::new();
    let made = signing::decide(&mut access, &means, None, output, &mut |access, log| {
        let listens = listens(access)?;
        let addresses = addresses(&address, listens.as_deref())?;
        let addresses = addresses.iter().map(ToString::to_string).collect();
        invited = name.clone().unwrap_or_else(|| numbered(log));
        member::note_namesake(log, &invited);
        let (name, grants) = (invited.clone(), grants(&scopes));
        Ok(Wanted::Invite { name, grants, expires_ms, addresses })
    })?;
    let Some((_, Made { ticket: Some(ticket), .. })) = made else { return Ok(()) };
    if output.is_json() {
        let addresses = ticket.addresses.iter().map(ToString::to_string).collect();
        let (ticket, expires) = (ticket.to_string(), rfc3339(expires_ms));
        output.object("relay-invite", &Shape { ticket, name: invited, expires, addresses })?;
        return Ok(());
    }
    show(&ticket, qr, output)
}

/// Prints a ticket, as a code before that if it is asked for.
pub(super) fn show(ticket: &Ticket, qr: bool, output: &mut Output) -> Result<(), Trouble> {
    let line = ticket.to_string();
    if qr {
        // Capital letters make a smaller code, and a ticket is read whatever the case.
        output.line(&code(&line.to_uppercase())?)?;
    }
    Ok(output.line(&line)?)
}

fn listens(access: &mut Access) -> Result<Option<String>, Trouble> {
    let Response::Members { address, .. } = access.ask(Request::Members)? else {
        return Err(Failure::unexpected().into());
    };
    Ok(address)
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
