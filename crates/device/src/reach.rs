//! Reaching somebody who may be at any of several addresses, now or after a while.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fieldkeep_link::{BindError, Connection, DialError, Endpoint, Limits};
use fieldkeep_model::{KeyPair, PublicKey};
use tokio::task::JoinSet;

use crate::device::drawn;

/// What one address is ahead of the next: as in RFC 8305, section 5, so that one that is dead holds
/// nobody up.
const AHEAD: Duration = Duration::from_millis(250);

/// Why nobody was reached.
#[derive(Debug)]
pub(crate) enum ReachError {
    /// There is no address to try.
    NoAddress,
    Bind(BindError),
    /// Nobody answered, or somebody else did.
    Dial(DialError),
}

/// Dials all addresses, one a little ahead of the next, and takes whichever answers first: under that
/// key, or under any. Gives the socket that the connection needs, too.
///
/// # Errors
/// When none answers. That somebody else did is told only where that is all that there was.
pub(crate) async fn reach(
    addresses: &[SocketAddr],
    key: Option<&PublicKey>,
    identity: &KeyPair,
) -> Result<(Endpoint, Connection), ReachError> {
    let mut calls = JoinSet::new();
    for (place, address) in (0..).zip(addresses.iter().copied()) {
        let (key, identity) = (key.copied(), identity.clone());
        calls.spawn(async move {
            tokio::time::sleep(AHEAD * place).await;
            let endpoint = Endpoint::bind(any_port(address), &identity, Limits::DEVICE)
                .map_err(ReachError::Bind)?;
            let called = match &key {
                Some(key) => endpoint.connect(address, key).await,
                None => endpoint.connect_any(address).await,
            };
            Ok((endpoint, called.map_err(ReachError::Dial)?))
        });
    }
    let mut failed = ReachError::NoAddress;
    while let Some(called) = calls.join_next().await {
        match called {
            Ok(Ok(reached)) => return Ok(reached),
            // At an address of old there may be somebody else: that says nothing of the others.
            Ok(Err(ReachError::Dial(DialError::WrongKey { .. })))
                if !matches!(failed, ReachError::NoAddress) => {}
            Ok(Err(error)) => failed = error,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    Err(failed)
}

/// Any port of the family that reaches an address; loopback only where the address is loopback.
fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(to) if to.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(to) if to.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Between half of a time and all of it, so that devices do not come back all at once, nor two call
/// each other for ever at the same moment.
#[must_use]
pub fn jittered(time: Duration) -> Duration {
    // Without randomness the whole time is as good.
    let share = drawn::<1>().map_or(255, |[byte]| u32::from(byte));
    time / 2 + time * share / 510
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_between_half_and_all() {
        let all = Duration::from_secs(60);
        for _ in 0..100 {
            let wait = jittered(all);
            assert!(wait >= all / 2 && wait <= all, "{wait:?}");
        }
    }
}
