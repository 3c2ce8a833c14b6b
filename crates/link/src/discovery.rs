//! Discovery on the local network, by multicast DNS (RFC 6762 and 6763).
//!
//! What is announced tells a stranger that some device is here: a random name, new at each start, and
//! where it listens. No person, no organisation, no name of the machine. Who is found has proved
//! nothing: that takes a connection. What is remembered of a network full of liars is bounded.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};

/// The service type (RFC 6763, section 4.1.2).
const SERVICE: &str = "_fieldkeep._udp.local.";
/// Addresses of one service that are looked at.
const ADDRESSES: usize = 8;

/// The random name of a listener, by which it is told from others on the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId([u8; 8]);

/// What was seen on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A listener is there, or is somewhere else now.
    Found(ServiceId, Vec<SocketAddr>),
    /// A listener has gone, or was not heard for too long.
    Lost(ServiceId),
}

/// Why there is no discovery.
#[derive(Debug, thiserror::Error)]
#[error(
    "devices nearby cannot be looked for ({0}); a device whose address is known can still be met"
)]
pub struct DiscoveryError(String);

/// Looks for listeners, and may announce one. Dropped, what it announced is taken back.
pub struct Discovery {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    own: Option<ServiceId>,
}

impl Discovery {
    /// Looks for listeners from now on: on all interfaces where the address is unspecified, on that
    /// address's interface otherwise.
    ///
    /// # Errors
    /// When the system gives no socket for it.
    pub fn new(on: IpAddr) -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        if !on.is_unspecified() {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::Addr(on))?;
        }
        let events = daemon.browse(SERVICE)?;
        Ok(Self { daemon, events, own: None })
    }

    /// Announces a listener, under a name that is drawn now.
    ///
    /// # Errors
    /// When the system gives no randomness, or the network none.
    pub fn announce(&mut self, listener: SocketAddr) -> Result<ServiceId, DiscoveryError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| DiscoveryError(error.to_string()))?;
        let id = ServiceId(id);
        let (name, host) = (id.to_string(), format!("{id}.local."));
        let (ip, port) = (listener.ip(), listener.port());
        let none: &[(&str, &str)] = &[];
        let info = if ip.is_unspecified() {
            let info = ServiceInfo::new(SERVICE, &name, &host, "", port, none)?;
            let mut info = info.enable_addr_auto();
            info.set_interfaces(vec![if ip.is_ipv4() { IfKind::IPv4 } else { IfKind::All }]);
            info
        } else {
            ServiceInfo::new(SERVICE, &name, &host, ip, port, none)?
        };
        self.daemon.register(info)?;
        self.own = Some(id);
        Ok(id)
    }

    /// The next sighting of somebody else; `None` once there will be none any more.
    pub async fn next(&self) -> Option<Sighting> {
        loop {
            let sighting = match self.events.recv_async().await.ok()? {
                ServiceEvent::ServiceResolved(service) => found(&service),
                ServiceEvent::ServiceRemoved(_, name) => service_id(&name).map(Sighting::Lost),
                // What it does besides, and what later versions may tell.
                ServiceEvent::SearchStarted(_)
                | ServiceEvent::ServiceFound(..)
                | ServiceEvent::SearchStopped(_)
                | _ => None,
            };
            match sighting {
                Some(Sighting::Found(id, _) | Sighting::Lost(id)) if Some(id) == self.own => {}
                Some(sighting) => return Some(sighting),
                None => {}
            }
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // It says goodbye on its own thread; where it cannot, what it announced expires.
        let _ = self.daemon.shutdown();
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Discovery({:?})", self.own)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceId({self})")
    }
}

impl FromStr for ServiceId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ())?;
        bytes.try_into().map(Self).map_err(|_| ())
    }
}

impl From<mdns_sd::Error> for DiscoveryError {
    fn from(error: mdns_sd::Error) -> Self {
        Self(error.to_string())
    }
}

/// The addresses at which others reach a listener: its own, or those of this machine where it listens
/// on all of them.
#[must_use]
pub fn reachable(listener: SocketAddr) -> Vec<SocketAddr> {
    if !listener.ip().is_unspecified() {
        return vec![listener];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
    let others = interfaces.filter(|i| !i.is_loopback() && !i.is_link_local());
    let ips = others.map(|interface| interface.ip());
    let same = ips.filter(|ip| ip.is_ipv4() || listener.is_ipv6());
    let mut addresses: Vec<_> = same.map(|ip| SocketAddr::new(ip, listener.port())).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn found(service: &ResolvedService) -> Option<Sighting> {
    let id = service_id(service.get_fullname())?;
    let port = service.get_port();
    let mut addresses: Vec<SocketAddr> = service
        .get_addresses()
        .iter()
        .filter_map(|address| match address {
            ScopedIp::V4(v4) => Some(SocketAddr::new((*v4.addr()).into(), port)),
            ScopedIp::V6(v6) => Some(scoped(*v6.addr(), port, v6.scope_id().index)),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.truncate(ADDRESSES);
    Some(Sighting::Found(id, addresses))
}

/// A link-local address is nothing without the interface that it is local to.
fn scoped(ip: Ipv6Addr, port: u16, interface: u32) -> SocketAddr {
    let scope = if ip.is_unicast_link_local() { interface } else { 0 };
    SocketAddrV6::new(ip, port, 0, scope).into()
}

/// The name in `0123456789abcdef._fieldkeep._udp.local.`; of what else is there nothing is known.
fn service_id(fullname: &str) -> Option<ServiceId> {
    fullname.strip_suffix(SERVICE)?.strip_suffix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_making_are_looked_at() {
        let id = ServiceId([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(id.to_string(), "00010203040506ff");
        assert_eq!(service_id("00010203040506ff._fieldkeep._udp.local."), Some(id));
        for name in [
            "00010203040506f._fieldkeep._udp.local.",
            "00010203040506FF._fieldkeep._udp.local.",
            "Ann's phone._fieldkeep._udp.local.",
            "00010203040506ff._printer._udp.local.",
            "00010203040506ff",
        ] {
            assert_eq!(service_id(name), None, "{name}");
        }
    }

    #[test]
    fn a_listener_on_one_address_is_reached_there() {
        let address: SocketAddr = "127.0.0.1:4711".parse().expect("an address");
        assert_eq!(reachable(address), [address]);
        let all = reachable("0.0.0.0:4711".parse().expect("an address"));
        assert!(all.iter().all(|a| a.is_ipv4() && !a.ip().is_loopback() && a.port() == 4711));
    }
}
