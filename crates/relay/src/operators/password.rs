//! Passwords: hashed with Argon2id, kept as a PHC string, compared in a time that tells nothing.

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64_NOPAD;

use crate::directory::drawn;

/// 19 MiB, two passes, one lane: the least that the OWASP Password Storage Cheat Sheet recommends for
/// Argon2id. Memory in KiB.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The length of a salt and of a hash, in bytes.
const SALT: usize = 16;
const HASH: usize = 32;
/// The shortest and the longest password, in characters: there is no second factor, so it is a phrase.
const LENGTH: (usize, usize) = (12, 200);
/// The most memory that a stored hash may ask for, in KiB, and the most passes: the file is not trusted
/// with more than that.
const BOUNDS: (u32, u32) = (1024 * 1024, 16);

/// Why a password was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is too short, or too long.
    #[error("a password has {} to {} characters", LENGTH.0, LENGTH.1)]
    Length,
    /// The system has no randomness for its salt.
    #[error("no randomness: {0}")]
    Entropy(String),
}

/// The hash of a password, as a PHC string: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Hashes a password under a fresh salt. Takes some 20 ms and 19 MiB, on purpose.
    ///
    /// # Errors
    /// When it is too short or too long, or the system has no randomness.
    pub fn hash(text: &str) -> Result<Self, PasswordError> {
        if !(LENGTH.0..=LENGTH.1).contains(&text.chars().count()) {
            return Err(PasswordError::Length);
        }
        let salt: [u8; SALT] =
            drawn().map_err(|error| PasswordError::Entropy(error.to_string()))?;
        let hash = hashed(text, &salt, (MEMORY_KIB, PASSES, LANES));
        let hash = hash.expect("the parameters are constants that Argon2 takes");
        Ok(Self(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}",
            BASE64_NOPAD.encode(&salt),
            BASE64_NOPAD.encode(&hash)
        )))
    }

    /// A hash that was made before; nothing if the text is none.
    #[must_use]
    pub fn from_phc(phc: String) -> Option<Self> {
        parsed(&phc).is_some().then_some(Self(phc))
    }

    /// The PHC string.
    #[must_use]
    pub fn into_phc(self) -> String {
        self.0
    }
}

/// Whether a text is the password of which this is the hash. One that is no hash is nobody's.
#[must_use]
pub fn is_password(phc: &str, text: &str) -> bool {
    let Some((cost, salt, hash)) = parsed(phc) else { return false };
    if text.chars().count() > LENGTH.1 {
        return false;
    }
    let Some(found) = hashed(text, &salt, cost) else { return false };
    let differences = found.iter().zip(&hash).fold(0, |all, (a, b)| all | (a ^ b));
    hash.len() == HASH && differences == 0
}

/// A hash of no password: whoever gives a name that has no account is made to wait as long as others.
#[must_use]
pub fn decoy() -> String {
    let (salt, hash) = (BASE64_NOPAD.encode(&[0; SALT]), BASE64_NOPAD.encode(&[0; HASH]));
    format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}")
}

/// Memory in KiB, passes, lanes.
type Cost = (u32, u32, u32);

fn hashed(text: &str, salt: &[u8], (memory, passes, lanes): Cost) -> Option<[u8; HASH]> {
    let params = Params::new(memory, passes, lanes, Some(HASH)).ok()?;
    let mut hash = [0; HASH];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(text.as_bytes(), salt, &mut hash).ok()?;
    Some(hash)
}

fn parsed(phc: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let mut parts = phc.strip_prefix("$argon2id$v=19$")?.split('$');
    let mut cost = parts.next()?.split(',');
    let mut number = |name: &str| cost.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let decoded = |text: &str| BASE64_NOPAD.decode(text.as_bytes()).ok();
    let (salt, hash) = (decoded(parts.next()?)?, decoded(parts.next()?)?);
    let bounded = memory <= BOUNDS.0 && passes <= BOUNDS.1 && lanes == LANES;
    (bounded && parts.next().is_none()).then_some(((memory, passes, lanes), salt, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let phc = Password::hash("correct horse battery").expect("it is long enough").into_phc();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(is_password(&phc, "correct horse battery"));
        assert!(!is_password(&phc, "correct horse batterz") && !is_password(&phc, ""));
        let again = Password::hash("correct horse battery").expect("it is long enough").into_phc();
        assert_ne!(phc, again, "each has its own salt");
        assert!(!is_password(&decoy(), ""), "nobody has that");
    }

    /// The hash is the reference implementation's, of `argon2 -id -v 13 -t 2 -k 19456 -p 1 -l 32` with the
    /// bytes 0 to 15 as salt.
    #[test]
    fn a_hash_of_the_reference_implementation_is_read() {
        const GOLDEN: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw\
                              $quyusfeeuAGbpiw09i+j4VKJ+I/5h3mugd4HghmS/x8";
        assert!(is_password(GOLDEN, "correct horse battery"));
        assert!(!is_password(GOLDEN, "correct horse batters"));
    }

    #[test]
    fn a_short_password_and_a_damaged_hash_are_refused() {
        assert!(matches!(Password::hash("eleven char"), Err(PasswordError::Length)));
        assert!(matches!(Password::hash(&"x".repeat(201)), Err(PasswordError::Length)));
        let huge = decoy().replace("m=19456", "m=4294967295");
        for damaged in ["", "$argon2id$v=19$", "$2b$12$abc", &huge, &format!("{}$", decoy())] {
            assert!(!is_password(damaged, "whatever it is"), "{damaged}");
        }
    }
}
