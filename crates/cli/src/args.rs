//! What can be typed: the commands and their flags, as clap reads them. Values of records are read
//! by the catalog, not here.

pub(crate) mod catalog;
pub(crate) mod fleet;
pub(crate) mod generations;
pub(crate) mod operator;
pub(crate) mod quarantine;
pub(crate) mod relay;
pub(crate) mod reshape;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use fieldkeep_model::{RecordId, RecordKey, TypeName};

use crate::time;
use fieldkeep_console::{Code, Failure};

/// Changes of a history that are told unless it is asked for more or fewer.
pub(crate) const CHANGES: u64 = 50;

const EXIT_CODES: &str = "\
Exit codes:
  0  done (records that are held are told, and are no failure)
  1  failure
  2  usage: an unknown command, type, field or column
  3  not found: the record, or the directory
  4  held or invalid: a value that its field cannot hold, a file that does not fit, no last valid state
  5  needs a connection
  6  denied
  7  integrity: what is stored is not what was written
  8  locked: another process owns the directory and does not answer
  130  interrupted

FIELDKEEP_LOG sets the level of the logs on stderr (warn, info, debug, trace), FIELDKEEP_LOG_FORMAT
their form (text, json).";

/// Records captured without a signal, synced and judged when there is one.
#[derive(Debug, Parser)]
#[command(name = "fieldkeep", version, after_help = EXIT_CODES, disable_help_subcommand = false)]
pub(crate) struct Args {
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The directory of the device or relay [env: FIELDKEEP_DIR].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The form of the logs on stderr: lines for people, or a JSON object a line.
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_LOG_FORMAT",
        hide_env = true,
        value_enum,
        value_name = "FORM",
        default_value = "text",
        hide_default_value = true
    )]
    pub(crate) log: LogForm,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The server side: found, serve, invite, revoke, publish, quarantine.
    #[command(subcommand)]
    Relay(relay::Relay),
    /// Make this directory a device, with the ticket that `relay invite` printed.
    Join(Join),
    /// Write a record; prints its id.
    Put(Put),
    /// Show a record: as merged, with what is known of its validity.
    Get(Get),
    /// List the records of a type.
    List(List),
    /// The changes that made a record, newest first: who wrote what, when, and what was there before.
    History(History),
    /// A record as it was.
    At {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// A change, as `history` prints it, or a time such as 2026-03-01T12:00:00Z.
        #[arg(value_name = "CHANGE|TIME")]
        moment: String,
    },
    /// Write a record, or one field of it, as it was: an ordinary change, by which nothing is lost.
    Revert(Revert),
    /// A record as a text to be sent to somebody, by the catalog's template.
    Share {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// Write its files into this folder, too.
        #[arg(long, value_name = "DIR")]
        with_attachments: Option<PathBuf>,
    },
    /// The values that were written at the same time, numbered as `resolve` takes them.
    Conflicts {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Write one of a field's values as the one that counts.
    Resolve {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// A field and which value: its number in `conflicts`, the name of the device that wrote it, or
        /// `last_valid`.
        #[arg(value_name = "FIELD=CHOICE", value_parser = pair)]
        choice: (String, String),
    },
    /// Find records by the words in them; the last word may be a beginning.
    Search {
        /// The words.
        #[arg(value_name = "TEXT", required = true)]
        text: Vec<String>,
        /// Only records of this type.
        #[arg(long = "type", value_name = "TYPE")]
        ty: Option<TypeName>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Be told of records as they change, until interrupted; syncs meanwhile if nobody else does.
    Watch {
        /// Only records of this type.
        #[arg(value_name = "TYPE")]
        ty: Option<TypeName>,
    },
    /// Delete a record, softly: `put --undelete` brings it back.
    Delete {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Have the relay run an action of the catalog; exit code 5 where it is out of reach.
    Call(Call),
    /// This device's calls of the last days, and what came of them.
    Calls,
    /// Ask the relay a query of the catalog; exit code 5 where it is out of reach.
    Ask(Ask),
    /// Write the rows of a CSV or JSON lines file; nothing is written unless the whole file parses.
    Import(Import),
    /// Write all records of a type out.
    Export(Export),
    /// Carry changes, verdicts and receipts by hand, in a file, where there is no network at all.
    #[command(subcommand)]
    Bundle(Bundle),
    /// Exchange everything with the relay, and prove that both have the same.
    Sync(Sync),
    /// Keep this device synced, with the relay and with devices nearby, and serve its console, until
    /// interrupted; other commands work through this process meanwhile.
    Serve(Serve),
    /// Print an address that opens the console once, within ten minutes; with --json a session for a
    /// program besides.
    Console,
    /// The devices on the local network, and those that are connected to this one.
    Peers(Peers),
    /// Show the connection, and what is here of each type.
    Status,
    /// Exchange nothing of a type, or of all, until it is resumed; local work goes on.
    Pause {
        /// The type; all if absent.
        #[arg(value_name = "TYPE")]
        ty: Option<TypeName>,
    },
    /// Exchange a paused type again, or all.
    Resume {
        /// The type; all if absent.
        #[arg(value_name = "TYPE")]
        ty: Option<TypeName>,
    },
    /// Exchange a scope of a type, and of that type nothing but what is subscribed to; all that was granted
    /// with `TYPE=*`.
    Subscribe {
        /// The type and the scope.
        #[arg(value_name = "TYPE=SCOPE", value_parser = scope)]
        what: (TypeName, String),
    },
    /// Exchange nothing of a scope any more; what is here of it stays, until it is cleared.
    Unsubscribe {
        /// The type and the scope.
        #[arg(value_name = "TYPE=SCOPE", value_parser = scope)]
        what: (TypeName, String),
    },
    /// Download a type once more, or all: what is here stays until that is proven, and what is unsaved
    /// goes on top.
    Resync {
        /// The type; all that are not paused if absent.
        #[arg(value_name = "TYPE")]
        ty: Option<TypeName>,
        /// How long to try.
        #[arg(long, default_value = "10m", value_parser = time::duration)]
        timeout: Duration,
    },
    /// Download once more, and remove what this device may not read any more: what is unsaved or in use
    /// stays.
    Clear(Clear),
    /// Mark a record as in use, so that clearing spares it.
    Pin {
        /// The record; all that are in use are listed if absent.
        #[arg(value_name = "TYPE/ID")]
        record: Option<RecordKey>,
        /// What for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Who has it in use: a name that `unpin --owner` releases.
        #[arg(long, value_name = "NAME", default_value = "user")]
        owner: String,
    },
    /// Release a record, or all that an owner has in use.
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["record", "owner"]))]
    Unpin {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: Option<RecordKey>,
        /// Only this owner's marks; of all records if none is named.
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
    },
    /// Attach a file to a record: it is kept here at once, and sent after the record. Prints its hash.
    Attach(Attach),
    /// The files of records: which there are, where they stand, and having one here.
    Attachments {
        #[command(subcommand)]
        command: Attachments,
    },
    /// The records that are held, wait, or are likely to be held.
    Attention {
        #[command(subcommand)]
        command: Attention,
    },
    /// What is wrong, since when, and the one command that mends it.
    Advice,
    /// Where a record is, and why it looks as it does.
    Explain {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Check everything that is stored; exit code 7 if something is not as it should be.
    Doctor {
        /// Derive everything again that can be; changes are never touched.
        #[arg(long)]
        repair: bool,
    },
    /// Take new keys for this device: it stays who it is, and what it has not sent stays good. Needs a
    /// connection, and that nothing serves the directory.
    RotateKey {
        /// How long to try.
        #[arg(long, default_value = "60s", value_parser = time::duration)]
        timeout: Duration,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of one command or of all.
    Man {
        /// The command.
        command: Option<String>,
    },
    /// See it work: a relay and devices in one process.
    Demo,
    /// The laboratory: fleets in one thread, and engines measured side by side.
    #[command(subcommand)]
    Lab(crate::lab::Lab),
}

/// `join`.
#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// The ticket; `-` reads it from standard input.
    pub(crate) ticket: String,
}

/// `put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The type, and the record's id unless a fresh one is to be made.
    #[arg(value_name = "TYPE[/ID]", value_parser = target)]
    pub(crate) record: (TypeName, Option<RecordId>),
    /// `field=value`, `field=` clears, `count+=3`, `set[ID].field=value`, `set[ID]=` removes.
    #[arg(value_name = "FIELD=VALUE")]
    pub(crate) edits: Vec<String>,
    /// Take a JSON object from a file, or from standard input with `-`.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Bring a deleted record back.
    #[arg(long)]
    pub(crate) undelete: bool,
    /// Write nothing, and show what it would come to: the record, and whether it is likely to be held.
    #[arg(long, conflicts_with_all = ["strict", "tier"])]
    pub(crate) what_if: bool,
    /// Do not write what is likely to be held: exit code 4.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Wait until it is durable on the relay, or judged; syncs meanwhile if nobody else does.
    #[arg(long = "await", value_enum, value_name = "TIER")]
    pub(crate) tier: Option<Tier>,
    /// How long to wait for that.
    #[arg(long, default_value = "60s", value_parser = time::duration)]
    pub(crate) timeout: Duration,
}

/// How far a write is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Durable on this device: that is so when the command ends anyway.
    Device,
    /// Durable on the relay.
    Relay,
    /// Judged by it.
    Judged,
}

/// `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The record.
    #[arg(value_name = "TYPE/ID")]
    pub(crate) record: RecordKey,
    /// The fields as they last passed the rules; exit code 4 if they never did.
    #[arg(long, conflicts_with_all = ["conflicts", "history"])]
    pub(crate) last_valid: bool,
    /// What to show of a record that is held: as_merged or last_valid; `device.toml` says what else.
    #[arg(long, env = "FIELDKEEP_READ", value_name = "VIEW", conflicts_with = "last_valid")]
    pub(crate) read: Option<fieldkeep_device::Read>,
    /// The concurrent values of its fields.
    #[arg(long)]
    pub(crate) conflicts: bool,
    /// The changes that made it, newest first.
    #[arg(long)]
    pub(crate) history: bool,
}

/// `history`.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// The record.
    #[arg(value_name = "TYPE/ID")]
    pub(crate) record: RecordKey,
    /// At most so many changes.
    #[arg(long, default_value_t = CHANGES, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) limit: u64,
    /// Changes before this one, as a history prints it.
    #[arg(long, value_name = "CHANGE")]
    pub(crate) before: Option<String>,
}

/// `revert`.
#[derive(Debug, clap::Args)]
pub(crate) struct Revert {
    /// The record.
    #[arg(value_name = "TYPE/ID")]
    pub(crate) record: RecordKey,
    /// Only this field, as `customer` or `lines[7].quantity`.
    #[arg(value_name = "FIELD")]
    pub(crate) field: Option<String>,
    /// A change, as `history` prints it, or a time such as 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "CHANGE|TIME")]
    pub(crate) to: String,
}

/// `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// The type.
    #[arg(value_name = "TYPE")]
    pub(crate) ty: TypeName,
    /// Only records whose field has that value; may be given several times.
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = pair)]
    pub(crate) filters: Vec<(String, String)>,
    /// At most so many.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

/// `call`.
#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// The action.
    #[arg(value_name = "ACTION")]
    pub(crate) action: String,
    /// What it is told, as the catalog declares it.
    #[arg(value_name = "FIELD=VALUE")]
    pub(crate) input: Vec<String>,
    /// How long to wait for the relay.
    #[arg(long, default_value = "60s", value_parser = time::duration)]
    pub(crate) timeout: Duration,
}

/// `ask`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// The query.
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// Its parameters, as the catalog declares them.
    #[arg(value_name = "PARAM=VALUE")]
    pub(crate) params: Vec<String>,
    /// How long to wait for the relay.
    #[arg(long, default_value = "60s", value_parser = time::duration)]
    pub(crate) timeout: Duration,
}

/// `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The type, or TYPE.SET for children from a second file.
    #[arg(value_name = "TYPE[.SET]")]
    pub(crate) target: String,
    /// A .csv or .jsonl file.
    pub(crate) file: PathBuf,
    /// The column whose value is the record's (or child's) id, verbatim; `id` if absent and there is
    /// one, else fresh ids.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) id: Option<String>,
    /// The column that names the record to which a child belongs.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) parent: Option<String>,
    /// Which field a column fills, where the names do not match; may be given several times.
    #[arg(long, value_name = "COLUMN=FIELD", value_parser = pair)]
    pub(crate) map: Vec<(String, String)>,
    /// Write nothing, and tell every row that cannot be imported, with its line and why.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on with an import of this very file that was interrupted: what it saved is passed over.
    #[arg(long = "continue", conflicts_with = "dry_run")]
    pub(crate) goes_on: bool,
}

/// Commands of bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Write a bundle for one member: for the relay what it has not confirmed, for a device what both
    /// may read, attached files with it. It is signed, and not encrypted.
    Export {
        /// The file.
        file: PathBuf,
        /// For whom: `relay`, or a device by its name or number.
        #[arg(long = "for", value_name = "DEVICE|relay")]
        to: String,
        /// An earlier bundle between the two, either way: leave out what it shows the other to have.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// Leave attached files out.
        #[arg(long)]
        without_attachments: bool,
    },
    /// Take in a bundle that was written for this directory. Taking it again changes nothing.
    Import {
        /// The file.
        file: PathBuf,
    },
}

/// `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// The type.
    #[arg(value_name = "TYPE")]
    pub(crate) ty: TypeName,
    /// JSON lines, CSV, or Automerge documents (a directory of them).
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: Format,
    /// The file, or the directory for automerge; standard output if absent.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
}

/// How records are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A header and a row for each record; sets and JSON values as JSON.
    Csv,
    /// A document for each segment.
    Automerge,
}

/// `sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {
    /// Stay connected until interrupted, and come back when the connection is lost.
    #[arg(long)]
    pub(crate) watch: bool,
    /// How long to try.
    #[arg(long, default_value = "60s", value_parser = time::duration)]
    pub(crate) timeout: Duration,
    /// Where the relay is now; remembered once it has proved its key there.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["watch", "peer"])]
    pub(crate) relay: Option<SocketAddr>,
    /// Exchange with another device instead, with no relay between: where it listens, the line that
    /// its `peers --qr` prints, or the name of one that is on this network.
    #[arg(long, value_name = "ADDRESS|NAME", conflicts_with = "watch")]
    pub(crate) peer: Option<String>,
    /// This connection is paid by the byte: files are fetched by rule only where that does not matter.
    #[arg(long)]
    pub(crate) metered: bool,
    /// Listen for other devices meanwhile; port 0 takes any free one. FIELDKEEP_LISTEN and `device.toml` are
    /// asked otherwise.
    #[arg(long, value_name = "ADDRESS", requires = "watch")]
    pub(crate) listen: Option<SocketAddr>,
    /// Listen, tell the local network that some device is here, and stay connected to every device of
    /// the organisation that is found there. FIELDKEEP_NEARBY and `device.toml` are asked otherwise.
    #[arg(long, requires = "watch")]
    pub(crate) nearby: bool,
}

/// Where a device that stays connected meets others; a flag goes before the environment, and that before
/// `device.toml`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Company {
    /// Listen for other devices there; port 0 takes any free one.
    #[arg(long, env = "FIELDKEEP_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Tell the local network that some device is here, and stay connected to every device of the
    /// organisation that is found there, as it is unless something says otherwise.
    #[arg(
        long,
        env = "FIELDKEEP_NEARBY",
        value_name = "BOOL",
        value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) nearby: Option<bool>,
    /// Do not look for devices on the local network, and do not announce this one there.
    #[arg(long)]
    pub(crate) no_nearby: bool,
}

/// `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where the console listens, 127.0.0.1:7442 unless this or `device.toml` says otherwise; port 0 takes
    /// any free one.
    #[arg(long, env = "FIELDKEEP_CONSOLE", value_name = "ADDRESS")]
    pub(crate) console: Option<SocketAddr>,
    /// This connection is paid by the byte: files are fetched by rule only where that does not matter.
    #[arg(long)]
    pub(crate) metered: bool,
    /// Where other devices are met.
    #[command(flatten)]
    pub(crate) company: Company,
}

/// `attach`.
#[derive(Debug, clap::Args)]
pub(crate) struct Attach {
    /// The record.
    #[arg(value_name = "TYPE/ID")]
    pub(crate) record: RecordKey,
    /// The field that holds the files.
    pub(crate) field: String,
    /// The file; it is copied.
    pub(crate) file: PathBuf,
    /// What it is to be called, if not as it is.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its media type, if its name does not say it.
    #[arg(long, value_name = "TYPE/SUBTYPE")]
    pub(crate) media: Option<String>,
}

/// Commands over files.
#[derive(Debug, Subcommand)]
pub(crate) enum Attachments {
    /// The files of a record, or all that wait to be sent or failed.
    List {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: Option<RecordKey>,
    },
    /// Have a file here, from the relay if it is not, and print where it lies.
    Get {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// Its name, or its hash.
        #[arg(value_name = "NAME|HASH")]
        file: String,
        /// Copy it there.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How long to try.
        #[arg(long, default_value = "10m", value_parser = time::duration)]
        timeout: Duration,
    },
    /// Try again what failed.
    Retry,
    /// Exchange no files until they are resumed; records go on.
    Pause,
    /// Exchange files again.
    Resume,
}

/// `clear`.
#[derive(Debug, clap::Args)]
pub(crate) struct Clear {
    /// The type; all that are not paused if absent.
    #[arg(value_name = "TYPE")]
    pub(crate) ty: Option<TypeName>,
    /// Only tell what would be removed and what stays.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// How long to try.
    #[arg(long, default_value = "10m", value_parser = time::duration)]
    pub(crate) timeout: Duration,
}

/// `peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Peers {
    /// How long to look.
    #[arg(long, default_value = "3s", value_parser = time::duration)]
    pub(crate) wait: Duration,
    /// Show this device's address and key instead, as a code and as the line that `sync --peer` takes.
    #[arg(long)]
    pub(crate) qr: bool,
}

/// Commands of the list of records that need attention.
#[derive(Debug, Subcommand)]
pub(crate) enum Attention {
    /// All of them, with reasons; dismissed ones apart.
    List,
    /// One, with who wrote what, and the last valid state.
    Show {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
    /// Ask the relay to judge again, with the next sync where there is no connection.
    Retry {
        /// The record; all held and waiting ones if absent.
        #[arg(value_name = "TYPE/ID")]
        record: Option<RecordKey>,
    },
    /// Stop trying: kept, put aside, told to the relay.
    Dismiss {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
        /// Why.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take a dismissed record up again.
    Reopen {
        /// The record.
        #[arg(value_name = "TYPE/ID")]
        record: RecordKey,
    },
}

/// The directory that a command works on: the flag, else the environment.
#[derive(Debug)]
pub(crate) struct Directory(Option<PathBuf>);

impl Directory {
    pub(crate) fn new(flag: Option<PathBuf>) -> Self {
        Self(flag)
    }

    /// The flag alone, for commands that make a directory of their own if there is none.
    pub(crate) fn given(&self) -> Option<PathBuf> {
        self.0.clone()
    }

    /// The directory.
    ///
    /// # Errors
    /// When neither names one.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        let named = || std::env::var_os("FIELDKEEP_DIR").filter(|dir| !dir.is_empty());
        let path = self.0.clone().or_else(|| named().map(PathBuf::from));
        path.ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "no directory is named",
                "give --dir DIR, or set FIELDKEEP_DIR",
            )
        })
    }
}

/// A path that means the same in another process.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::file(path, &error))
}

/// Bytes of a name of somebody or something, at most.
const NAME: usize = 64;

/// A name that can be told from a number, and read on one line.
fn named(text: &str) -> Result<String, String> {
    let name = text.trim();
    let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || name.len() > NAME || number || name.chars().any(char::is_control) {
        let what = "a name is one line of at most 64 bytes, and no number";
        return Err(format!("`{}` is no name: {what}", text.escape_debug()));
    }
    Ok(name.to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (left, right) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((left.to_owned(), right.to_owned()))
}

fn scope(text: &str) -> Result<(TypeName, String), String> {
    let (ty, value) = pair(text)?;
    Ok((TypeName::new(ty).map_err(|error| error.to_string())?, value))
}

fn target(text: &str) -> Result<(TypeName, Option<RecordId>), String> {
    let word = |error: fieldkeep_model::id::InvalidId| error.to_string();
    match text.split_once('/') {
        None => Ok((TypeName::new(text).map_err(word)?, None)),
        Some((ty, id)) => {
            Ok((TypeName::new(ty).map_err(word)?, Some(RecordId::new(id).map_err(word)?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
