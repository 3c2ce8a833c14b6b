//! Operators: people with an account on the relay's console, and what each may do there.
//!
//! An account lies in the relay's store, with the hash of a password and never the password. Whether
//! somebody may come in is for the console to say; what he may do is said here, once.

mod password;

use std::fmt;
use std::str::FromStr;

pub use password::{Password, PasswordError, decoy, is_password};

/// The longest name of an operator, in bytes.
const NAME: usize = 64;

/// What an operator may do; whoever may more may all that others may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorRole {
    /// See everything.
    View,
    /// Decide about held records, too.
    Judge,
    /// Publish catalogs, and see who has an account, too.
    Administer,
}

impl OperatorRole {
    /// All of them, from the one that may least.
    pub const ALL: [Self; 3] = [Self::View, Self::Judge, Self::Administer];

    /// The role in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Judge => "judge",
            Self::Administer => "administer",
        }
    }
}

impl fmt::Display for OperatorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for OperatorRole {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| format!("`{word}` is no role: there are view, judge and administer"))
    }
}

/// Whether a text can name an operator: it stands on the trails, beside the names of people.
///
/// # Errors
/// What a name may be made of.
pub fn check_operator_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if !name.is_empty() && name.len() <= NAME && name.bytes().all(plain) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no name for an operator: letters, digits and . _ - @, at most {NAME}",
        name.escape_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_more_may_all_that_others_may() {
        assert!(OperatorRole::View < OperatorRole::Judge);
        assert!(OperatorRole::Judge < OperatorRole::Administer);
        for role in OperatorRole::ALL {
            assert_eq!(role.word().parse(), Ok(role));
        }
        assert!("admin".parse::<OperatorRole>().is_err());
    }

    #[test]
    fn a_name_is_plain() {
        for name in ["eve", "eve.b@acme", "a-1_2"] {
            assert_eq!(check_operator_name(name), Ok(()));
        }
        for name in ["", "eve b", "<eve>", "eve\n", &"e".repeat(65)] {
            assert!(check_operator_name(name).is_err(), "{name}");
        }
    }
}
