//! Reaching somebody who may be at any of several addresses, now or after a while.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
    /// This machine has a way to none of them.
    NoNetwork,
    Bind(BindError),
    /// Nobody answered, or somebody else did.
    Dial(DialError),
}

/// Dials all addresses, one a little ahead of the next, and takes whichever answers first: under that
/// key, or under any. Gives the socket that the connection needs, too.
///
/// # Errors
/// When none answers, at once where this machine has no way to any of them. That somebody else did is
/// told only where that is all that there was.
pub(crate) async fn reach(
    addresses: &[SocketAddr],
    key: Option<&PublicKey>,
    identity: &KeyPair,
) -> Result<(Endpoint, Connection), ReachError> {
    if !addresses.is_empty() && addresses.iter().all(|to| own_address(*to).is_none()) {
        return Err(ReachError::NoNetwork);
    }
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

/// What is said of a machine that has no way to anybody.
pub(crate) const NO_NETWORK: &str = "this machine is on no network that leads there";

/// Any port of the family that reaches an address; loopback only where the address is loopback.
pub(crate) fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(to) if to.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(to) if to.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The address that this machine would call from: the routing table says so, and nothing is sent.
pub(crate) fn own_address(to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any_port(to)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Between half of a time and all of it, so that devices do not come back all at once, nor two call
/// each other for ever at the same moment.
///
/// ```
/// # use fieldkeep_device::jittered;
/// # use std::time::Duration;
/// let wait = jittered(Duration::from_secs(60));
/// assert!(wait >= Duration::from_secs(30) && wait <= Duration::from_secs(60));
/// ```
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
