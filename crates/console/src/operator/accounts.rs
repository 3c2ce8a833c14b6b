//! Signing in: how often it may be tried, and that a name without an account costs as long as any other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_relay::{check_operator_name, decoy, is_password};
use fieldkeep_store::{OperatorRow, Operators as _};
use tokio::sync::Semaphore;

use super::App;
use crate::Failure;

/// For so long a try counts.
const SPAN: Duration = Duration::from_secs(5 * 60);
/// Tries for one name, and in all, within that.
const OF_ONE: usize = 5;
const IN_ALL: usize = 60;
/// Passwords that are hashed at once: each takes 19 MiB.
const AT_ONCE: usize = 2;

/// Who tries to sign in.
#[derive(Debug)]
pub(super) struct Accounts {
    tries: Mutex<Tries>,
    /// What operators tried that they may not: told on the trail, but not without end.
    denied: Mutex<Tries>,
    hashing: Semaphore,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { tries: Mutex::default(), denied: Mutex::default(), hashing: Semaphore::new(AT_ONCE) }
    }
}

/// Why somebody was not let in.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is no such account with that password: which of the two is not said.
    Wrong,
    /// It was tried too often; for so long it is not tried again. Whether that is told on the trail: once
    /// for each span.
    TooOften(Duration, bool),
    /// It could not be looked up.
    Failed(Failure),
}

/// The tries of the last minutes, by the name that was given.
#[derive(Debug, Default)]
struct Tries {
    by_name: BTreeMap<String, VecDeque<Instant>>,
    told: Option<Instant>,
}

impl Tries {
    /// Counts a try, unless there were too many: how long it takes until there are not.
    fn count(&mut self, name: &str, now: Instant) -> Result<(), (Duration, bool)> {
        self.by_name.retain(|_, tries| {
            tries.retain(|at| now.duration_since(*at) < SPAN);
            !tries.is_empty()
        });
        let of_one = self.by_name.get(name).filter(|tries| tries.len() >= OF_ONE);
        let in_all: usize = self.by_name.values().map(VecDeque::len).sum();
        let mut all = self.by_name.values().flatten();
        let oldest = match of_one {
            Some(tries) => tries.front(),
            None if in_all >= IN_ALL => all.by_ref().min(),
            None => None,
        };
        if let Some(oldest) = oldest {
            let wait = SPAN.saturating_sub(now.duration_since(*oldest));
            let fresh = self.told.is_none_or(|told| now.duration_since(told) >= SPAN);
            if fresh {
                self.told = Some(now);
            }
            return Err((wait, fresh));
        }
        self.by_name.entry(name.to_owned()).or_default().push_back(now);
        Ok(())
    }

    /// It went well: what was tried before does not count.
    fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
    }
}

impl App {
    /// The account of whoever gives this name and password.
    ///
    /// # Errors
    /// When there is none, it was tried too often, or the store cannot be read.
    pub(super) async fn signs_in(
        &self,
        name: &str,
        password: String,
    ) -> Result<OperatorRow, Refused> {
        let tries = || self.accounts().tries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = known_as(name);
        tries()
            .count(&key, Instant::now())
            .map_err(|(wait, told)| Refused::TooOften(wait, told))?;
        let _permit = self.accounts().hashing.acquire().await;
        let asked = key.clone();
        let found = self.on_disk(move |app| {
            let account = app.office().reader()?.operator(&asked)?;
            let phc = account.as_ref().map_or_else(decoy, |account| account.password.clone());
            let knows = is_password(&phc, &password);
            Ok::<_, Failure>(account.filter(|_| knows))
        });
        let account = found.await.map_err(Refused::Failed)?.ok_or(Refused::Wrong)?;
        tries().forget(&key);
        Ok(account)
    }
}

impl App {
    /// Whether it is noted that an operator tried what he may not, and what is noted besides; nothing where
    /// enough of it was.
    pub(super) fn is_noted(&self, name: &str) -> Option<&'static str> {
        let denied = &self.accounts().denied;
        let mut denied = denied.lock().unwrap_or_else(PoisonError::into_inner);
        match denied.count(name, Instant::now()) {
            Ok(()) => Some(""),
            Err((_, true)) => Some(", and more that is not told"),
            Err((_, false)) => None,
        }
    }
}

/// A name as it is counted, and stands on the trail: nonsense is nobody's.
pub(super) fn known_as(name: &str) -> String {
    if check_operator_name(name).is_ok() { name.to_owned() } else { "(no name)".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_is_slowed_down_and_others_go_on() {
        let (mut tries, began) = (Tries::default(), Instant::now());
        for _ in 0..OF_ONE {
            assert_eq!(tries.count("eve", began), Ok(()));
        }
        let later = began + Duration::from_secs(60);
        assert_eq!(tries.count("eve", later), Err((Duration::from_secs(240), true)));
        assert_eq!(tries.count("eve", later), Err((Duration::from_secs(240), false)), "told once");
        assert_eq!(tries.count("ben", later), Ok(()));
        assert_eq!(tries.count("eve", began + SPAN), Ok(()));
    }

    #[test]
    fn many_names_are_no_way_around_it_and_a_success_forgets_what_failed() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for at in 0..IN_ALL {
            assert_eq!(tries.count(&format!("n{at}"), now), Ok(()));
        }
        assert!(tries.count("one more", now).is_err());
        assert_eq!(tries.by_name.len(), IN_ALL, "and nothing is kept of it");
        tries.forget("n0");
        assert_eq!(tries.count("one more", now), Ok(()));
    }
}
