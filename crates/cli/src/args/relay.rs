//! The arguments of a relay's own directory: to found it, serve it, keep and mend it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use fieldkeep_console::Origin;
use fieldkeep_model::TypeName;

use super::catalog::{Catalog, Publish};
use super::{fleet, generations, named, operator, quarantine, reshape, scope};

/// Commands of the relay.
#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Found an organisation, with this directory as its relay.
    Init {
        /// The catalog: object types, fields and rules.
        #[arg(long, value_name = "FILE")]
        catalog: Option<PathBuf>,
        /// The organisation's name; the directory's if absent.
        #[arg(long, value_parser = named)]
        name: Option<String>,
    },
    /// Serve devices until interrupted. SIGHUP has `relay.toml` read again.
    Serve(RelayServe),
    /// Print a ticket that makes one device a member.
    Invite(fleet::Invite),
    /// Take everything from a device: its session ends, and it never comes back.
    Revoke {
        /// The device's name, or its number.
        #[arg(value_name = "NAME|NUMBER")]
        member: String,
        #[command(flatten)]
        signing: fleet::Signing,
    },
    /// Replace what a device may read and write.
    #[command(group = clap::ArgGroup::new("what").required(true).args(["scope", "all"]))]
    Grant {
        /// The device's name, or its number.
        #[arg(value_name = "NAME|NUMBER")]
        member: String,
        /// Limit a type to one scope; may be given several times.
        #[arg(long, value_name = "TYPE=VALUE", value_parser = scope)]
        scope: Vec<(TypeName, String)>,
        /// Everything, without a limit.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        signing: fleet::Signing,
    },
    /// Give a device another name; who wrote what under the old one stays as it is.
    Rename {
        /// The device's name, or its number.
        #[arg(value_name = "NAME|NUMBER")]
        member: String,
        /// The name that it will have.
        #[arg(value_parser = named)]
        name: String,
        #[command(flatten)]
        signing: fleet::Signing,
    },
    /// Sign what `--request` wrote on a relay, with a key that is not there: shows in words what that is,
    /// and asks. Needs no directory, and no network.
    Sign(fleet::Sign),
    /// Take in an entry that `relay sign` has signed.
    Apply {
        /// The file.
        file: PathBuf,
    },
    /// Make a recovery key: kept apart, it can replace the admin key where that is lost or stolen.
    RecoveryKey(fleet::NewKey),
    /// Replace the admin key; the one that is replaced signs nothing any more.
    RotateAdminKey(fleet::NewKey),
    /// Replace the admin key by way of the recovery key.
    Recover(fleet::Recover),
    /// Replace this relay's own keys: they are in force from its next start.
    RotateKey(fleet::Signing),
    /// Every device: when it was here last, what it runs, what it may, and what it has not sent, as far as
    /// it has said so.
    Devices(fleet::Devices),
    /// Publish a catalog in place of the one in force; what it changes is judged again. The same as
    /// `relay catalog publish`.
    Publish(Publish),
    /// The catalog: check a file, see what it would change, publish it, go back to an earlier one.
    Catalog {
        #[command(subcommand)]
        command: Catalog,
    },
    /// Start a type afresh, while the relay serves or not: with other buckets, another scope field or
    /// other kinds, and with no more of its history than is wanted. Devices move on to it by themselves;
    /// what they bring late is carried over.
    Reshape(reshape::Reshape),
    /// The generations of types that are over: read one, or put it into a file and take it out.
    Generations {
        #[command(subcommand)]
        command: generations::Generations,
    },
    /// Take a backup into a folder, while the relay serves or not: what it has already is not written
    /// again, and all of it is read back. The folder keeps the one before as well.
    Backup {
        /// The folder of backups; made if it is not there. Not within the relay's directory.
        folder: PathBuf,
        /// Verify attached files that the folder has already by their hashes: else by their lengths.
        #[arg(long)]
        verify: bool,
    },
    /// Put a backup in place with --from. Without it: run this after a copy of the directory was put back
    /// by hand. Devices then compare everything, and bring what the copy lacks.
    Restore(Restore),
    /// Check everything that is stored, while the relay serves or not; exit code 7 if something is not as
    /// it should be.
    Doctor {
        /// Derive again what is not what its changes come to; changes are never touched.
        #[arg(long)]
        repair: bool,
    },
    /// Remove the attached files that nothing refers to any more, once their grace time is over: where
    /// `relay.toml` turns that on.
    Gc {
        /// Only tell which they are, and when they go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Accounts on the relay's console: who may see, decide about held records, and publish catalogs.
    Operator {
        #[command(subcommand)]
        command: operator::Operator,
    },
    /// What devices may bring and have stored, what they use of that, and who was slowed down or refused.
    Limits,
    /// The records that are held or wait, and the changes that were kept aside.
    Quarantine {
        #[command(subcommand)]
        command: quarantine::Quarantine,
    },
}

/// `relay restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// A folder of backups: the newest one is verified, and put in place as the directory.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: Option<PathBuf>,
    /// Take the backup before the newest.
    #[arg(long, requires = "from")]
    pub(crate) earlier: bool,
    /// Where the directory is not empty, give it another name, and keep it.
    #[arg(long, requires = "from")]
    pub(crate) move_aside: bool,
    /// Only tell what came back since the relay was put back, and who has not been here.
    #[arg(long, conflicts_with = "from")]
    pub(crate) report: bool,
}

/// `relay serve`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RelayServe {
    /// Where to listen, 127.0.0.1:7440 unless this or `relay.toml` says otherwise; port 0 takes any free
    /// one.
    #[arg(long, env = "FIELDKEEP_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Answer /healthz, /readyz and /metrics there, over HTTP and to everybody; nowhere unless this or
    /// `relay.toml` says so.
    #[arg(long, env = "FIELDKEEP_HEALTH", value_name = "ADDRESS")]
    pub(crate) health: Option<SocketAddr>,
    /// Serve the console there, to whoever has an account; nowhere unless this or `relay.toml` says so.
    /// Another address than loopback needs --behind-proxy.
    #[arg(long, env = "FIELDKEEP_CONSOLE", value_name = "ADDRESS")]
    pub(crate) console: Option<SocketAddr>,
    /// The address by which browsers reach the console through a proxy that speaks TLS to them, as
    /// https://relay.example; requests that are not for it are refused.
    #[arg(long, env = "FIELDKEEP_BEHIND_PROXY", value_name = "ORIGIN")]
    pub(crate) behind_proxy: Option<Origin>,
}
