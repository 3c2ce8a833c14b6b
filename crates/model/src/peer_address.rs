//! Where another device is met: what it shows as a code, or as a line to be typed.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

use crate::key::PublicKey;

/// Addresses of one device that may be named.
const ADDRESSES: usize = 16;

/// Where a device listens, and the key that it proves there.
///
/// As text `192.168.1.5:4711`, or `192.168.1.5:4711+10.0.0.5:4711/KEY` with the key in base32: only
/// characters of which a QR code holds most (but for the brackets of IPv6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Where it listens; whichever answers is used.
    pub addresses: Vec<SocketAddr>,
    /// The key that it has to prove; whoever answers is met if there is none.
    pub key: Option<PublicKey>,
}

/// The text names no place where a device listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is an IP address with a port, like 192.168.1.5:4711; `/` and a key may follow")]
pub struct PeerAddressError;

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { addresses: vec![address], key: None }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        f.write_str(&addresses.join("+"))?;
        match &self.key {
            Some(key) => write!(f, "/{}", BASE32_NOPAD.encode(key.as_bytes())),
            None => Ok(()),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let (addresses, key) = match text.trim().split_once('/') {
            Some((addresses, key)) => (addresses, Some(key)),
            None => (text.trim(), None),
        };
        let addresses = addresses.split('+').take(ADDRESSES + 1).map(str::parse);
        let addresses: Vec<SocketAddr> =
            addresses.collect::<Result<_, _>>().map_err(|_| PeerAddressError)?;
        let key = key.map(|key| {
            let bytes = BASE32_NOPAD.decode(key.to_ascii_uppercase().as_bytes()).ok()?;
            bytes.try_into().ok().map(PublicKey)
        });
        match (addresses.len() <= ADDRESSES, key) {
            (true, None) => Ok(Self { addresses, key: None }),
            (true, Some(Some(key))) => Ok(Self { addresses, key: Some(key) }),
            (true, Some(None)) | (false, _) => Err(PeerAddressError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_read() {
        let addresses = vec![([192, 168, 1, 5], 4711).into(), "[fe80::1]:4711".parse().unwrap()];
        for key in [None, Some(PublicKey([7; 32]))] {
            let address = PeerAddress { addresses: addresses.clone(), key };
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        let typed: PeerAddress = " 10.0.0.1:1 ".parse().expect("spaces do no harm");
        assert_eq!(typed.to_string(), "10.0.0.1:1");
    }

    #[test]
    fn what_names_no_place_is_refused() {
        let many = vec!["10.0.0.1:1"; ADDRESSES + 1].join("+");
        for text in ["", "ben", "10.0.0.1", "10.0.0.1:1/", "10.0.0.1:1/ABC", "/AAAA", "+", &many] {
            assert_eq!(text.parse::<PeerAddress>(), Err(PeerAddressError), "{text}");
        }
    }
}
