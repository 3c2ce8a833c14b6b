//! The arguments of `relay operator`.

use clap::Subcommand;
use fieldkeep_relay::OperatorRole;

/// Commands of the console's accounts. A password is asked for on the terminal, or read as the first line
/// of the standard input; it is never an argument.
#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Give somebody an account on the relay's console.
    Add {
        /// The account's name: letters, digits and . _ - @.
        name: String,
        /// What he may do: see, decide about held records, or publish catalogs, too.
        #[arg(long, value_name = "view|judge|administer")]
        role: OperatorRole,
    },
    /// Who has an account.
    List,
    /// Give an account another password; whoever is signed in with it has to sign in again.
    Password {
        /// The account's name.
        name: String,
    },
    /// Give an account another role; whoever is signed in with it has to sign in again.
    Role {
        /// The account's name.
        name: String,
        /// What he may do from now on.
        #[arg(value_name = "view|judge|administer")]
        role: OperatorRole,
    },
    /// Take an account away; its sessions end.
    Remove {
        /// The account's name.
        name: String,
    },
    /// What operators did on the console, newest first: who came in, who was refused, who published.
    Trail {
        /// At most so many.
        #[arg(long, value_name = "N", default_value = "100")]
        limit: u64,
    },
}
