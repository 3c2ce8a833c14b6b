//! Who is signed in. A session is a secret in a cookie, of which only the hash is here; it ends when it is
//! not used for a while, after a day's work at the latest, and with any change of its account.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blake3::Hash;
use fieldkeep_store::OperatorRow;

use crate::Failure;
use crate::doors::secret;

/// How long a session lives that nobody uses.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long it lives at most.
const WHOLE: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions of one account, and in all: the oldest gives way.
const OF_ONE: usize = 8;
const IN_ALL: usize = 256;
/// What the token in forms is derived for.
const FORM: &str = "fieldkeep 1 console form";

/// The sessions that are open.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

#[derive(Clone, Debug)]
struct Session {
    hash: Hash,
    name: String,
    account: Hash,
    began: Instant,
    used: Instant,
}

/// Whose a session is, and what his account was when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) name: String,
    pub(super) account: Hash,
}

impl Sessions {
    /// Begins a session; the secret that opens it.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn begin(&self, operator: &OperatorRow, now: Instant) -> Result<String, Failure> {
        let secret = secret()?;
        let (hash, name) = (blake3::hash(secret.as_bytes()), operator.name.clone());
        let mut sessions = self.open(now);
        let of_one = sessions.iter().filter(|session| session.name == name).count();
        if of_one >= OF_ONE {
            let oldest = sessions.iter().position(|session| session.name == name);
            oldest.and_then(|oldest| sessions.remove(oldest));
        }
        sessions.push_back(Session { hash, name, account: stamp(operator), began: now, used: now });
        while sessions.len() > IN_ALL {
            sessions.pop_front();
        }
        Ok(secret)
    }

    /// Whose session that is, if it is one. One that a page looks at by itself is not used by that.
    pub(super) fn of(&self, secret: &str, uses: bool, now: Instant) -> Option<Signed> {
        let hash = blake3::hash(secret.as_bytes());
        let mut sessions = self.open(now);
        // Hashes are compared in a time that tells nothing.
        let session = sessions.iter_mut().find(|session| session.hash == hash)?;
        if uses {
            session.used = now;
        }
        Some(Signed { name: session.name.clone(), account: session.account })
    }

    /// Ends a session.
    pub(super) fn end(&self, secret: &str) {
        let hash = blake3::hash(secret.as_bytes());
        self.open(Instant::now()).retain(|session| session.hash != hash);
    }

    /// Those that live still.
    fn open(&self, now: Instant) -> MutexGuard<'_, VecDeque<Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| {
            now.duration_since(session.used) < IDLE && now.duration_since(session.began) < WHOLE
        });
        sessions
    }
}

/// What an account is, for telling whether it has changed.
pub(super) fn stamp(operator: &OperatorRow) -> Hash {
    blake3::hash(format!("{}\n{}", operator.role, operator.password).as_bytes())
}

/// What a form carries that belongs to whoever shows this secret in a cookie: no other site knows it.
pub(super) fn form_token(secret: &str) -> String {
    let token = blake3::derive_key(FORM, secret.as_bytes());
    data_encoding::BASE32_NOPAD.encode(&token).to_lowercase()
}

/// Whether a form carries that.
pub(super) fn is_form_token(secret: &str, shown: &str) -> bool {
    blake3::hash(form_token(secret).as_bytes()) == blake3::hash(shown.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eve() -> OperatorRow {
        let [name, role, password, who] =
            ["eve", "judge", "$argon2id$…", "root"].map(str::to_owned);
        OperatorRow { name, role, password, time: 0, who }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(count * 60)
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_after_a_day_in_any_case() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let secret = sessions.begin(&eve(), began).expect("randomness");
        let is_open = |uses, after| sessions.of(&secret, uses, began + minutes(after)).is_some();
        assert!(is_open(true, 29) && is_open(true, 58), "it is used");
        assert!(is_open(false, 87), "a page that is open looks");
        assert!(!is_open(true, 89), "nobody has used it for half an hour");
        let secret = sessions.begin(&eve(), began).expect("randomness");
        let is_open = |after| sessions.of(&secret, true, began + minutes(after)).is_some();
        assert!((0..720).step_by(20).all(is_open) && !is_open(720), "twelve hours");
    }

    #[test]
    fn a_secret_opens_its_own_session_until_that_ends() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let secret = sessions.begin(&eve(), now).expect("randomness");
        let signed = sessions.of(&secret, true, now).expect("it is open");
        assert_eq!(signed, Signed { name: "eve".into(), account: stamp(&eve()) });
        assert_ne!(signed.account, stamp(&OperatorRow { role: "view".into(), ..eve() }));
        assert_eq!(sessions.of("another", true, now), None);
        sessions.end(&secret);
        assert_eq!(sessions.of(&secret, true, now), None);
    }

    #[test]
    fn of_too_many_sessions_of_one_account_the_oldest_gives_way() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let ben = OperatorRow { name: "ben".into(), ..eve() };
        let bens = sessions.begin(&ben, now).expect("randomness");
        let all: Vec<_> =
            (0..=OF_ONE).map(|_| sessions.begin(&eve(), now).expect("randomness")).collect();
        assert_eq!(sessions.of(&all[0], true, now), None);
        assert!(all[1..].iter().chain([&bens]).all(|one| sessions.of(one, true, now).is_some()));
    }

    #[test]
    fn a_form_belongs_to_the_cookie_that_it_was_made_for() {
        assert!(is_form_token("one", &form_token("one")));
        assert!(!is_form_token("one", &form_token("other")) && !is_form_token("one", ""));
    }
}
