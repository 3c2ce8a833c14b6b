//! The arguments of what an operator does to devices and keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use fieldkeep_model::TypeName;

use super::{named, scope};
use crate::time;

/// `relay devices`.
#[derive(Debug, clap::Args)]
pub(crate) struct Devices {
    /// Only this one, with all that is known of it: by its name or number.
    #[arg(value_name = "NAME|NUMBER")]
    pub(crate) device: Option<String>,
    /// Say whether this may be done without losing what only the device has; exit code 1 unless it is
    /// known to be safe for every device that is shown.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) safe_to: Option<Purpose>,
}

/// What is to be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Put another version on it.
    Upgrade,
    /// Revoke it.
    Revoke,
}

/// Where the signature comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct Signing {
    /// The admin key, if it is not in the relay's directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_key: Option<PathBuf>,
    /// Sign nothing here: write there what is to be signed, for `fieldkeep relay sign` where the key is.
    #[arg(long, value_name = "FILE", conflicts_with = "admin_key")]
    pub(crate) request: Option<PathBuf>,
}

/// `relay invite`.
#[derive(Debug, clap::Args)]
pub(crate) struct Invite {
    /// The person's name.
    #[arg(long, value_parser = named)]
    pub(crate) name: Option<String>,
    /// Limit a type to one scope; may be given several times.
    #[arg(long, value_name = "TYPE=VALUE", value_parser = scope)]
    pub(crate) scope: Vec<(TypeName, String)>,
    /// How long the ticket may be used: 90s, 15m, 1h, 7d.
    #[arg(long, default_value = "24h", value_parser = time::duration)]
    pub(crate) ttl: Duration,
    /// Where devices reach this relay, if not where it listens; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Vec<SocketAddr>,
    /// Show the ticket as a code as well, for a camera.
    #[arg(long, conflicts_with = "request")]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) signing: Signing,
}

/// `relay rotate-admin-key` and `relay recovery-key`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true).multiple(true).args(["new_key", "request"]))]
pub(crate) struct NewKey {
    /// Where the file of the key is made: keep it off the relay.
    #[arg(value_name = "NEW-KEY", conflicts_with = "request")]
    pub(crate) new_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signing: Signing,
}

/// `relay recover`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("with").required(true).args(["recovery_key", "request"]))]
pub(crate) struct Recover {
    /// Where the file of the next admin key is made: keep it off the relay.
    #[arg(value_name = "NEW-KEY", conflicts_with = "request", requires = "recovery_key")]
    pub(crate) new_key: Option<PathBuf>,
    /// The recovery key.
    #[arg(long, value_name = "FILE", requires = "new_key")]
    pub(crate) recovery_key: Option<PathBuf>,
    /// Sign nothing here: write there what is to be signed, for `fieldkeep relay sign` where the key is.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
}

/// `relay sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The request.
    pub(crate) file: PathBuf,
    /// The key that signs it: the admin key, or the recovery key where that is asked for.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_key: PathBuf,
    /// Where the file of a key is made that the request asks for.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key: Option<PathBuf>,
    /// Where the signed entry is written; beside the request, with `.signed` behind its name, if absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show a ticket as a code as well, for a camera.
    #[arg(long)]
    pub(crate) qr: bool,
}
