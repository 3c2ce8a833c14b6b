//! Discovery on the local network, by multicast DNS (RFC 6762 and 6763).
//!
//! What is announced tells a stranger that some device is here: a random name, new at each start, and
//! where it listens. No person, no organisation, no name of the machine. Who is found has proved
//! nothing: that takes a connection, in which both show their keys, which stay the same. Only addresses
//! of an own network are told on, and after many sightings it is over: a network full of liars is not
//! remembered for ever.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use if_addrs::IfAddr;
use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};

/// The service type (RFC 6763, section 4.1.2).
const SERVICE: &str = "_fieldkeep._udp.local.";
/// Addresses of one service that are looked at.
const ADDRESSES: usize = 8;
/// Sightings after which it is over: what is remembered below of names that a liar makes up goes with
/// it.
const SIGHTINGS: u32 = 20_000;

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
    on_loopback: bool,
    left: u32,
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
        Ok(Self { daemon, events, own: None, on_loopback: on.is_loopback(), left: SIGHTINGS })
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

    /// The next sighting of somebody else; `None` when it is over, because the network says more than
    /// is listened to: whoever goes on looks anew.
    pub async fn next(&mut self) -> Option<Sighting> {
        loop {
            let event = self.events.recv_async().await.ok()?;
            self.left = self.left.checked_sub(1)?;
            let sighting = match event {
                ServiceEvent::ServiceResolved(service) => found(&service, self.on_loopback),
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
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let others = interfaces.iter().filter(|interface| !interface.is_loopback());
    // Two devices on one cable have only addresses of their own making; those of IPv6 would have to
    // name an interface of whoever calls.
    let mut ips: Vec<IpAddr> = others.map(|interface| interface.ip()).collect();
    ips.retain(|ip| match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => listener.is_ipv6() && !ip.is_unicast_link_local(),
    });
    ips.sort_unstable_by_key(|ip| (matches!(ip, IpAddr::V4(ip) if ip.is_link_local()), *ip));
    ips.dedup();
    ips.truncate(ADDRESSES);
    ips.into_iter().map(|ip| SocketAddr::new(ip, listener.port())).collect()
}

fn found(service: &ResolvedService, on_loopback: bool) -> Option<Sighting> {
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
    let here = if_addrs::get_if_addrs().unwrap_or_default();
    addresses.retain(|address| {
        let mut interfaces = here.iter().filter(|i| i.is_loopback() == on_loopback);
        port != 0 && interfaces.any(|interface| is_on_link(&interface.addr, address.ip()))
    });
    addresses.sort_unstable();
    addresses.truncate(ADDRESSES);
    (!addresses.is_empty()).then_some(Sighting::Found(id, addresses))
}

/// Whether an address belongs to the network of an interface. Whoever announces another one would have
/// this device call somebody who has nothing to do with it.
fn is_on_link(interface: &IfAddr, address: IpAddr) -> bool {
    let (own, bits) = match interface {
        IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
        IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
    };
    let bits = u32::from(bits);
    match (own, address) {
        (IpAddr::V4(own), IpAddr::V4(ip)) => {
            let differ = own.to_bits() ^ ip.to_bits();
            !ip.is_multicast() && differ.leading_zeros() >= bits
        }
        (IpAddr::V6(own), IpAddr::V6(ip)) => {
            let differ = own.to_bits() ^ ip.to_bits();
            !ip.is_multicast() && differ.leading_zeros() >= bits
        }
        _ => false,
    }
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
    fn only_addresses_of_an_own_network_are_on_link() {
        let v4 = |ip: [u8; 4], prefixlen| {
            let (netmask, broadcast) = ([0; 4].into(), None);
            IfAddr::V4(if_addrs::Ifv4Addr { ip: ip.into(), netmask, prefixlen, broadcast })
        };
        let interface = v4([192, 168, 1, 7], 24);
        for (address, is) in [
            ([192, 168, 1, 200], true),
            ([192, 168, 2, 7], false),
            ([8, 8, 8, 8], false),
            ([127, 0, 0, 1], false),
            ([0, 0, 0, 0], false),
        ] {
            assert_eq!(is_on_link(&interface, IpAddr::from(address)), is, "{address:?}");
        }
        assert!(!is_on_link(&v4([224, 0, 0, 7], 24), IpAddr::from([224, 0, 0, 251])));
        assert!(!is_on_link(&interface, IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn a_listener_on_one_address_is_reached_there() {
        let address: SocketAddr = "127.0.0.1:4711".parse().expect("an address");
        assert_eq!(reachable(address), [address]);
        let all = reachable("0.0.0.0:4711".parse().expect("an address"));
        assert!(all.iter().all(|a| a.is_ipv4() && !a.ip().is_loopback() && a.port() == 4711));
    }
}
