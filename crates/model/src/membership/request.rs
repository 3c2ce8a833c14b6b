//! What goes by hand to where the admin key is, and what comes back: a request with the membership log that
//! it is about, and the entry that was signed. Both are one line of text.
//!
//! Nothing in a request has to be believed: the log in it is verified from its founding, and who holds
//! the key sees from that what he would sign.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use minicbor::{Decode, Encode};

use super::{Act, Grant, MembershipError, MembershipLog};
use crate::id::OrgId;
use crate::key::Signed;

const REQUEST: &str = "fieldkeep-request-1 ";
const ENTRY: &str = "fieldkeep-entry-1 ";

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Wanted {
    /// An act as it is.
    #[n(0)]
    Act(#[n(0)] Act),
    /// An invitation. Whoever signs draws the one-time key, so that the relay never has it.
    #[n(1)]
    Invite {
        /// The name that the member will have.
        #[n(0)]
        name: String,
        /// What it will be granted.
        #[n(1)]
        grants: Vec<Grant>,
        /// When it ends, milliseconds UTC.
        #[n(2)]
        expires_ms: i64,
        /// Where the relay is reached, for the ticket.
        #[n(3)]
        addresses: Vec<String>,
    },
    /// Another admin key, which whoever signs draws.
    #[n(2)]
    RotateAdmin,
    /// A recovery key, which whoever signs draws.
    #[n(3)]
    NameRecovery,
    /// Another admin key, by the recovery key.
    #[n(4)]
    Recover,
}

/// A request.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    /// The membership log that the entry is to follow.
    pub log: MembershipLog,
    /// What is to be signed.
    pub wanted: Wanted,
}

/// An entry that was signed, on its way to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEntry {
    /// The organisation.
    pub org: OrgId,
    /// The entry.
    pub entry: Signed,
}

/// Why a text is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PaperError {
    /// It does not begin as it should.
    #[error("this is not what was expected: it begins with `{0}`")]
    Prefix(&'static str),
    /// Cut short or altered.
    #[error("it is cut short or altered: copy the file again")]
    Garbled,
    /// The membership log in it does not verify.
    #[error(transparent)]
    Log(#[from] MembershipError),
}

#[derive(Encode, Decode)]
struct RequestWire {
    #[n(0)]
    entries: Vec<Signed>,
    #[n(1)]
    wanted: Wanted,
}

#[derive(Encode, Decode)]
struct EntryWire {
    #[n(0)]
    org: OrgId,
    #[n(1)]
    entry: Signed,
}

impl fmt::Display for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, wanted) = (self.log.since(0).to_vec(), self.wanted.clone());
        write(f, REQUEST, &RequestWire { entries, wanted })
    }
}

impl FromStr for SigningRequest {
    type Err = PaperError;

    fn from_str(text: &str) -> Result<Self, PaperError> {
        let RequestWire { entries, wanted } = read(text, REQUEST)?;
        Ok(Self { log: MembershipLog::open(entries)?, wanted })
    }
}

impl fmt::Display for SignedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, ENTRY, &EntryWire { org: self.org, entry: self.entry.clone() })
    }
}

impl FromStr for SignedEntry {
    type Err = PaperError;

    fn from_str(text: &str) -> Result<Self, PaperError> {
        let EntryWire { org, entry } = read(text, ENTRY)?;
        Ok(Self { org, entry })
    }
}

/// The prefix, and base32 of the CBOR and the first bytes of its hash.
fn write<T: Encode<()>>(f: &mut fmt::Formatter<'_>, prefix: &str, wire: &T) -> fmt::Result {
    let mut bytes = minicbor::to_vec(wire).map_err(|_| fmt::Error)?;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..4]);
    write!(f, "{prefix}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
}

fn read<T: for<'b> Decode<'b, ()>>(text: &str, prefix: &'static str) -> Result<T, PaperError> {
    let text = text.trim().strip_prefix(prefix).ok_or(PaperError::Prefix(prefix))?;
    let bytes = BASE32_NOPAD.decode(text.to_uppercase().as_bytes());
    let bytes = bytes.map_err(|_| PaperError::Garbled)?;
    let (body, check) = bytes.split_last_chunk::<4>().ok_or(PaperError::Garbled)?;
    if blake3::hash(body).as_bytes()[..4] != check[..] {
        return Err(PaperError::Garbled);
    }
    minicbor::decode(body).map_err(|_| PaperError::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seed;

    #[test]
    fn a_request_and_its_answer_survive_their_way() {
        let admin = Seed([1; 32]).signing();
        let log = MembershipLog::found("acme", &admin, [0; 16]);
        let act = Act::Rename { member: Seed([2; 32]).signing().public(), name: "ann".into() };
        let entry = SignedEntry { org: log.org(), entry: log.sign(act.clone(), &admin) };
        let request = SigningRequest { log, wanted: Wanted::Act(act) };
        let text = request.to_string();
        let read: SigningRequest = text.parse().expect("it is whole");
        assert_eq!((read.log.sum(), &read.wanted), (request.log.sum(), &request.wanted));
        assert_eq!(entry.to_string().parse(), Ok(entry.clone()));
        assert!(matches!(text.parse::<SignedEntry>(), Err(PaperError::Prefix(_))));
        let cut = &text[..text.len() - 8];
        assert!(matches!(cut.parse::<SigningRequest>(), Err(PaperError::Garbled)));
    }
}
