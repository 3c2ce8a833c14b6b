//! Tickets: an invitation as one line of text, `fieldkeep1` and base32.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use minicbor::{Decode, Encode};

use crate::id::OrgId;
use crate::key::{KeyPair, PublicKey};

const PREFIX: &str = "fieldkeep1";

/// What a joining device needs: whom to call, how to know them, and the one-time key.
#[derive(Clone)]
pub struct Ticket {
    /// The organisation: the digest of its membership log's first entry.
    pub org: OrgId,
    /// The relay's public key, as its connection will prove it.
    pub relay: PublicKey,
    /// Where the relay listens.
    pub addresses: Vec<SocketAddr>,
    /// The index of the invitation's entry in the membership log.
    pub invite: u64,
    /// The secret half of the invitation's one-time key.
    pub key: KeyPair,
}

#[derive(Encode, Decode)]
struct Wire {
    #[n(0)]
    org: OrgId,
    #[n(1)]
    relay: PublicKey,
    #[n(2)]
    addresses: Vec<String>,
    #[n(3)]
    invite: u64,
    #[cbor(n(4), with = "minicbor::bytes")]
    key: [u8; 32],
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not begin as tickets do.
    #[error(
        "a ticket begins with `fieldkeep1`: copy the whole line that `fieldkeep relay invite` printed"
    )]
    Prefix,
    /// Cut short or mistyped.
    #[error(
        "the ticket is cut short or mistyped: copy the whole line that `fieldkeep relay invite` printed"
    )]
    Garbled,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = Wire {
            org: self.org,
            relay: self.relay,
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            invite: self.invite,
            key: self.key.secret(),
        };
        let mut bytes = minicbor::to_vec(&wire).map_err(|_| fmt::Error)?;
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..4]);
        let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?}, {:?})", self.org, self.addresses)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim().to_lowercase();
        let text = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let bytes = data_encoding::BASE32_NOPAD
            .decode(text.to_uppercase().as_bytes())
            .map_err(|_| TicketError::Garbled)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(TicketError::Garbled)?;
        if blake3::hash(body).as_bytes()[..4] != check[..] {
            return Err(TicketError::Garbled);
        }
        let wire: Wire = minicbor::decode(body).map_err(|_| TicketError::Garbled)?;
        let addresses = wire.addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>();
        Ok(Self {
            org: wire.org,
            relay: wire.relay,
            addresses: addresses.map_err(|_| TicketError::Garbled)?,
            invite: wire.invite,
            key: KeyPair::from_secret(wire.key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seed;

    #[test]
    fn a_ticket_survives_being_written_down_and_a_typing_error_is_told() {
        let ticket = Ticket {
            org: OrgId([3; 16]),
            relay: Seed([1; 32]).tls().public(),
            addresses: vec!["127.0.0.1:7440".parse().expect("an address")],
            invite: 2,
            key: Seed([2; 32]).signing(),
        };
        let text = ticket.to_string();
        let read: Ticket = text.to_uppercase().parse().expect("it is whole");
        assert_eq!(read.key.secret(), ticket.key.secret());
        assert_eq!(read.addresses, ticket.addresses);
        let swapped = text.replacen("aeb", "bea", 1);
        assert!(swapped == text || swapped.parse::<Ticket>().is_err());
        assert_eq!(text[..40].parse::<Ticket>().err(), Some(TicketError::Garbled));
        assert_eq!("hello".parse::<Ticket>().err(), Some(TicketError::Prefix));
    }
}
