//! The command line: device, relay, laboratory and demo commands.
//!
//! A command becomes a request; whoever owns the directory executes it (this process,
//! if the directory is free, else the long-running owner behind its socket), and the answer is
//! printed here. Output goes to stdout, logs and warnings to stderr; the exit code tells the kind of
//! a failure. Contains no decision about records: what is saved, judged or sent is the libraries'.

mod access;
mod args;
mod attention;
mod bundle;
mod confirm;
mod control;
mod demo;
mod execute;
mod export;
mod files;
mod find;
mod health;
mod import;
mod join;
mod lab;
mod member;
mod notify;
mod online;
mod output;
mod peers;
mod progress;
mod put;
mod read;
mod relay;
mod request;
mod response;
mod shell;
mod socket;
mod stages;
mod status;
mod sync;
mod time;
mod traces;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Args, Command, LogForm};
use crate::output::Output;
use crate::traces::Traces;
use fieldkeep_console::{Code, Failure, Trouble};

/// Runs the command that the process was called with, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    // The laboratory provokes on purpose what an operator should hear of.
    let level = if matches!(args.command, Command::Lab(_)) { "off" } else { "warn" };
    let traces = Traces::asked(&args);
    start_logs(level, args.log, traces.as_ref());
    let json = args.json;
    let mut output = Output::new(json);
    let result = run(args, &mut output).and_then(|code| Ok(output.flush().map(|()| code)?));
    if let Some(traces) = traces {
        traces.end();
    }
    match result {
        Ok(code) => code,
        // Whoever read has read enough.
        Err(Trouble::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Trouble::Output(error)) => {
            let text = format!("the output cannot be written: {error}");
            fail(&mut output, &Failure::new(Code::Failure, text, "nothing that was saved is lost"))
        }
        Err(Trouble::Failed(failure)) => fail(&mut output, &failure),
    }
}

/// Tells the laboratory how this process counts its allocations: those that are live, and the most
/// that ever were, in bytes.
#[cfg(feature = "engines")]
pub fn count_heap(counts: fn() -> (u64, u64)) {
    fieldkeep_lab::merge::count_heap(counts);
}

fn run(args: Args, output: &mut Output) -> Result<ExitCode, Trouble> {
    let dir = args::Directory::new(args.dir);
    match args.command {
        Command::Relay(command) => relay::run(command, &dir, output),
        Command::Join(join) => join::run(&join, &dir, output),
        Command::Put(put) => put::put(&put, &dir, output),
        Command::Call(call) => online::call(call, &dir, output),
        Command::Calls => online::calls(&dir, output),
        Command::Ask(ask) => online::ask(ask, &dir, output),
        Command::Delete { record } => put::delete(record, &dir, output),
        Command::Get(get) => read::get(get, &dir, output),
        Command::History(history) => read::history(history, &dir, output),
        Command::Revert(revert) => put::revert(revert, &dir, output),
        Command::Share { record, with_attachments } => {
            read::share(record, with_attachments.as_deref(), &dir, output)
        }
        Command::Conflicts { record } => read::conflicts(record, &dir, output),
        Command::At { record, moment } => read::at(record, moment, &dir, output),
        Command::Resolve { record, choice } => put::resolve(record, choice, &dir, output),
        Command::Search { text, ty, limit } => find::search(&text, ty, limit, &dir, output),
        Command::Watch { ty } => find::watch(ty, &dir, output),
        Command::Advice => health::advice(&dir, output),
        Command::Explain { record } => health::explain(record, &dir, output),
        Command::Doctor { repair } => health::doctor(repair, &dir, output),
        Command::RotateKey { timeout } => control::rotate_key(timeout, &dir, output),
        Command::Completions { shell } => shell::completions(shell, output),
        Command::Man { command } => shell::man(command.as_deref(), output),
        Command::List(list) => read::list(list, &dir, output),
        Command::Import(import) => import::run(&import, &dir, output),
        Command::Bundle(command) => bundle::run(command, &dir, output),
        Command::Export(export) => export::run(export, &dir, output),
        Command::Sync(sync) => sync::run(&sync, &dir, output),
        Command::Serve(serve) => sync::serve(&serve, &dir, output),
        Command::Console => sync::console(&dir, output),
        Command::Peers(peers) => peers::run(&peers, &dir, output),
        Command::Status => status::run(&dir, output),
        Command::Pause { ty } => control::pause(ty, &dir, output),
        Command::Resume { ty } => control::resume(ty, &dir, output),
        Command::Subscribe { what } => control::subscribe(what, &dir, output),
        Command::Unsubscribe { what } => control::unsubscribe(what, &dir, output),
        Command::Resync { ty, timeout } => control::resync(ty, timeout, &dir, output),
        Command::Clear(clear) => control::clear(clear, &dir, output),
        Command::Pin { record: Some(record), reason, owner } => {
            control::pin(record, reason, owner, &dir, output)
        }
        Command::Pin { record: None, .. } => control::pins(&dir, output),
        Command::Unpin { record, owner } => control::unpin(record, owner, &dir, output),
        Command::Attach(attach) => files::attach(attach, &dir, output),
        Command::Attachments { command } => files::run(command, &dir, output),
        Command::Attention { command } => attention::run(command, &dir, output),
        Command::Lab(command) => lab::run(command, output),
        Command::Demo => {
            let code = demo::run(dir.given(), output.is_json());
            Ok(code.map_err(|error| Failure::new(Code::Failure, format!("{error:#}"), ""))?)
        }
    }
}

/// Usage errors, help and version: clap writes them, but for errors that a program is to read.
fn misused(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    if !error.use_stderr() || !wants_json {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { Code::Usage.number() } else { 0 });
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let failure = Failure::new(Code::Usage, message, "see `fieldkeep help`");
    fail(&mut Output::new(true), &failure)
}

fn fail(output: &mut Output, failure: &Failure) -> ExitCode {
    let _ = output.failure(failure);
    let _ = output.flush();
    ExitCode::from(failure.code.number())
}

/// Logs on stderr, at the level of FIELDKEEP_LOG, or a level of the command's if there is none; and traces, if
/// somebody wants them. Spans of those are in no log.
fn start_logs(level: &str, form: LogForm, traces: Option<&Traces>) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FIELDKEEP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let unlogged = format!("{}=off", fieldkeep_relay::TRACES);
    let filter = filter.add_directive(unlogged.parse().expect("a target and a level"));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match form {
        LogForm::Text => logs.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogForm::Json => logs.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(logs.with_filter(filter));
    let _ = registry.with(traces.map(Traces::layer)).try_init();
}

/// A line on stderr for whoever sits at the terminal; failing to say it stops nothing.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
