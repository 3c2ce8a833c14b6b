//! `relay`: found an organisation, serve it, say who may what in it and by which catalog, and look
//! after what is held.

mod backup;
mod catalog;
mod collection;
mod devices;
mod doctor;
mod generations;
mod invite;
mod keys;
mod limits;
mod operator;
mod permission;
mod quarantine;
mod reshape;
mod serve;
mod sign;
mod signing;
mod words;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::ExitCode;

use fieldkeep_relay::{Directory as Opened, admin_key};
use serde::Serialize;

use crate::access::Access;
use crate::args::generations::Generations;
use crate::args::relay::Relay;
use crate::args::{self, Directory};
use crate::output::{Output, safe};
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

pub(crate) fn run(
    command: Relay,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    // A file can be checked without a relay.
    if let Relay::Catalog { command: args::catalog::Catalog::Check { catalog } } = &command {
        return catalog::check(dir, catalog, output);
    }
    if let Relay::Catalog { command: args::catalog::Catalog::Module { module, name } } = command {
        return catalog::module(&module, name, output);
    }
    // An archive is read without one.
    if let Relay::Generations { command: Generations::Open { file, check } } = &command {
        generations::open(file, *check, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    // So is something signed.
    if let Relay::Sign(wish) = &command {
        sign::sign(wish, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let directory = dir.path()?;
    match command {
        Relay::Init { catalog, name } => init(&directory, catalog.as_deref(), name, output)?,
        Relay::Serve(args) => serve::run(&directory, args, output)?,
        Relay::Invite(wish) => invite::run(&directory, wish, output)?,
        Relay::Revoke { member, signing } => {
            permission::run(&directory, &member, &Change::Revoke, signing, output)?;
        }
        Relay::Grant { member, scope, all: _, signing } => {
            permission::run(&directory, &member, &Change::Grant(scope), signing, output)?;
        }
        Relay::Rename { member, name, signing } => {
            permission::run(&directory, &member, &Change::Rename(name), signing, output)?;
        }
        Relay::Sign(wish) => sign::sign(&wish, output)?,
        Relay::Apply { file } => sign::apply(&directory, &file, output)?,
        Relay::RecoveryKey(wish) => keys::name_recovery(&directory, wish, output)?,
        Relay::RotateAdminKey(wish) => keys::rotate_admin(&directory, wish, output)?,
        Relay::Recover(wish) => keys::recover(&directory, wish, output)?,
        Relay::RotateKey(signing) => keys::rotate_relay(&directory, signing, output)?,
        Relay::Devices(wish) => return devices::run(&directory, wish, output),
        Relay::Publish(wish) => catalog::publish(&directory, &wish, output)?,
        Relay::Catalog { command } => return catalog::run(&directory, command, output),
        Relay::Reshape(wish) => reshape::run(&directory, wish, output)?,
        Relay::Generations { command } => generations::run(&directory, command, output)?,
        Relay::Backup { folder, verify } => {
            return backup::take(&directory, &folder, verify, output);
        }
        Relay::Restore(wish) => return backup::restore(&directory, &wish, output),
        Relay::Doctor { repair } => return doctor::run(&directory, repair, output),
        Relay::Gc { dry_run } => collection::run(&directory, dry_run, output)?,
        Relay::Operator { command } => operator::run(&directory, command, output)?,
        Relay::Limits => limits::run(&directory, output)?,
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
    output.line(
        "move it elsewhere, and a captured relay cannot enrol anyone: it signs there what is asked for here:",
    )?;
    output.line(
        "  fieldkeep relay invite --name ann --request FILE; there: fieldkeep relay sign FILE \
         --admin-key KEY; here: fieldkeep relay apply FILE.signed",
    )?;
    output
        .line("should it be lost, a recovery key replaces it: fieldkeep relay recovery-key FILE")?;
    output.line(&format!("serve it: fieldkeep relay serve --dir {shown}"))?;
    Ok(())
}

/// The organisation's id.
fn organisation(directory: &Path) -> Result<String, Trouble> {
    let (members, _) = signing::members(&mut Access::new(directory)?)?;
    Ok(members.org().to_string())
}
