//! `relay operator`: accounts on the relay's console. The password is hashed here, and its hash alone goes
//! to the owner of the directory.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::Path;

use console::Term;
use fieldkeep_console::shape::{Deed, Operator as Shown};
use fieldkeep_console::{Code, Failure, Trouble};
use fieldkeep_relay::{Password, check_operator_name};
use serde::Serialize;

use super::quarantine::operator;
use crate::access::Access;
use crate::args::operator::Operator;
use crate::output::{Align, Output, Stream, Table, safe};
use crate::request::{AccountWish, Request};
use crate::response::Response;

#[derive(Serialize)]
struct Changed<'n> {
    name: &'n str,
    action: &'n str,
}

pub(super) fn run(directory: &Path, command: Operator, output: &mut Output) -> Result<(), Trouble> {
    let access = &mut Access::new(directory)?;
    match command {
        Operator::Add { name, role } => {
            check_operator_name(&name).map_err(|text| Failure::new(Code::Usage, text, ""))?;
            let wish = AccountWish::Add(role.word().to_owned(), password()?);
            let said = format!("{name} may sign in: {role}");
            change(access, &name, wish, "add", &said, output)
        }
        Operator::Password { name } => {
            let said =
                format!("{} has another password; sessions with the old one end", safe(&name));
            change(access, &name, AccountWish::Password(password()?), "password", &said, output)
        }
        Operator::Role { name, role } => {
            let said = format!("{}: {role}; sessions of before end", safe(&name));
            change(access, &name, AccountWish::Role(role.word().to_owned()), "role", &said, output)
        }
        Operator::Remove { name } => {
            let said =
                format!("{} has no account any more; what he did stays on the trail", safe(&name));
            change(access, &name, AccountWish::Remove, "remove", &said, output)
        }
        Operator::List => list(access, output),
        Operator::Trail { limit } => trail(access, limit, output),
    }
}

fn change(
    access: &mut Access,
    name: &str,
    wish: AccountWish,
    action: &str,
    said: &str,
    output: &mut Output,
) -> Result<(), Trouble> {
    let request = Request::ChangeAccount(name.to_owned(), wish, operator());
    let Response::Taken(_) = access.ask(request)? else { return Err(Failure::unexpected().into()) };
    if output.is_json() {
        return Ok(output.object("relay-operator", &Changed { name, action })?);
    }
    Ok(output.line(said)?)
}

/// The hash of a password that is typed twice on a terminal, which does not show it, or is the first line
/// of the standard input.
fn password() -> Result<String, Failure> {
    let unread =
        |error: io::Error| Failure::new(Code::Failure, format!("no password: {error}"), "");
    let text = if io::stdin().is_terminal() {
        let ask = |what: &str| {
            let term = Term::stderr();
            term.write_str(what).and_then(|()| term.read_secure_line()).map_err(unread)
        };
        let typed = ask("Password: ")?;
        if typed != ask("The same again: ")? {
            let remedy = "nothing was changed: try again";
            return Err(Failure::new(Code::Usage, "the two are not the same", remedy));
        }
        typed
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(unread)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    let hashed = Password::hash(&text);
    let weak = |error: fieldkeep_relay::PasswordError| {
        Failure::new(Code::Usage, error.to_string(), "nothing was changed: a few words make one")
    };
    Ok(hashed.map_err(weak)?.into_phc())
}

fn list(access: &mut Access, output: &mut Output) -> Result<(), Trouble> {
    let Response::Operators(operators) = access.ask(Request::Operators)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        let mut stream = Stream::new(output, "relay-operators", &[]);
        operators.iter().try_for_each(|operator| stream.push(operator))?;
        return Ok(stream.end(&[])?);
    }
    if operators.is_empty() {
        output
            .line("nobody has an account: fieldkeep relay operator add NAME --role administer")?;
        return Ok(());
    }
    let columns = ["NAME", "ROLE", "SINCE", "BY"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for Shown { name, role, since, by } in operators {
        table.row(vec![name, role, since, safe(&by)]);
    }
    Ok(table.print(output.writer())?)
}

fn trail(access: &mut Access, limit: u64, output: &mut Output) -> Result<(), Trouble> {
    let Response::Deeds(deeds) = access.ask(Request::Deeds(limit))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        let mut stream = Stream::new(output, "relay-operator-trail", &[]);
        deeds.iter().try_for_each(|deed| stream.push(deed))?;
        return Ok(stream.end(&[])?);
    }
    if deeds.is_empty() {
        output.line("nobody did anything there yet")?;
    }
    for Deed { time, who, act, note, .. } in &deeds {
        let note = if note.is_empty() { String::new() } else { format!(": {}", safe(note)) };
        output.line(&format!("{time}  {}  {}{note}", safe(who), act.replace('_', " ")))?;
    }
    Ok(())
}
