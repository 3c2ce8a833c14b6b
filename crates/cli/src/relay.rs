//! `relay`: found an organisation, serve it, say who may what in it and by which catalog, and look
//! after what is held.

mod catalog;
mod collection;
mod invite;
mod operator;
mod permission;
mod quarantine;
mod serve;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::ExitCode;

use fieldkeep_relay::{Directory as Opened, admin_key};
use serde::Serialize;

use crate::access::Access;
use crate::args::{self, Directory, Relay};
use crate::output::{Output, safe};
use crate::request::{Request, Response};
use fieldkeep_console::{Failure, Trouble};
use permission::Change;

/// Where a relay listens unless it is told.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7440));

#[derive(Serialize)]
struct Founded<'f> {
    dir: &'f str,
    organisation: &'f str,
    id: &'f str,
    admin_key: &'f str,
    types: Vec<&'f str>,
}

#[derive(Serialize)]
struct Restored {
    epoch: u64,
    segments: u64,
}

pub(crate) fn run(
    command: Relay,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    // A file can be checked without a relay.
    if let Relay::Catalog { command: args::Catalog::Check { catalog } } = &command {
        return catalog::check(dir, catalog, output);
    }
    let directory = dir.path()?;
    match command {
        Relay::Init { catalog, name } => init(&directory, catalog.as_deref(), name, output)?,
        Relay::Serve(args) => serve::run(&directory, args, output)?,
        Relay::Invite { name, scope: scopes, ttl, address: addresses, admin_key } => {
            let wish = invite::Wish { name, scopes, ttl, addresses, admin_key };
            invite::run(&directory, wish, output)?;
        }
        Relay::Revoke { member, admin_key } => {
            permission::run(&directory, &member, &Change::Revoke, admin_key, output)?;
        }
        Relay::Grant { member, scope, all: _, admin_key } => {
            permission::run(&directory, &member, &Change::Grant(scope), admin_key, output)?;
        }
        Relay::Publish(wish) => catalog::publish(&directory, &wish, output)?,
        Relay::Catalog { command } => catalog::run(&directory, command, output)?,
        Relay::Restore => restore(&directory, output)?,
        Relay::Gc { dry_run } => collection::run(&directory, dry_run, output)?,
        Relay::Operator { command } => operator::run(&directory, command, output)?,
        Relay::Quarantine { command } => quarantine::run(&directory, command, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(
    directory: &Path,
    catalog: Option<&Path>,
    name: Option<String>,
    output: &mut Output,
) -> Result<(), Trouble> {
    let source = catalog
        .map(|path| std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error)));
    let source = source.transpose()?;
    let named = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.or(named).unwrap_or_else(|| "fieldkeep".into());
    let opened = Opened::init(directory, &name, source.as_deref());
    drop(opened.map_err(Failure::from)?);
    let catalog = source.map(|source| fieldkeep_catalog::Catalog::parse(&source));
    let catalog = catalog.and_then(Result::ok);
    let types = catalog.iter().flat_map(|catalog| catalog.types().keys());
    let types: Vec<_> = types.map(fieldkeep_model::TypeName::as_str).collect();
    let (shown, key) =
        (directory.display().to_string(), admin_key(directory).display().to_string());
    if output.is_json() {
        let id = organisation(directory)?;
        let (dir, organisation, id, admin_key) = (&*shown, &*name, &*id, &*key);
        output.object("relay-init", &Founded { dir, organisation, id, admin_key, types })?;
        return Ok(());
    }
    output.line(&format!("founded {} in {shown}", safe(&name)))?;
    if types.is_empty() {
        output.line("without a catalog: no object type is known yet, so nothing can be put")?;
    } else {
        output.line(&format!("the catalog has {}", types.join(", ")))?;
    }
    output.line(&format!(
        "the admin key is {key}: it signs invitations, and the serving process never opens it"
    ))?;
    output.line("move it elsewhere, and a captured relay cannot enrol anyone")?;
    output.line(&format!("serve it: fieldkeep relay serve --dir {shown}"))?;
    Ok(())
}

/// The organisation's id.
fn organisation(directory: &Path) -> Result<String, Trouble> {
    let (members, _) = invite::members(&mut Access::new(directory)?)?;
    Ok(members.org().to_string())
}

fn restore(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let Response::Restored { epoch, segments } = access.ask(Request::Restore)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-restore", &Restored { epoch, segments })?;
        return Ok(());
    }
    output.line(&format!("opened epoch {epoch}, with a new incarnation of this relay"))?;
    output.line(&format!("the verdicts of {segments} segments were stated again in it"))?;
    output.line(
        "every device compares everything when it comes next, and sends what this copy lacks:",
    )?;
    output
        .line("until then such records are unsaved there; nothing that a device holds is lost")?;
    Ok(())
}
