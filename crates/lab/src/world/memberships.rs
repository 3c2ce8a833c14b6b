//! Membership logs that were opened before: every device opens the same one, entry by entry and
//! signature by signature, whenever its process begins. What the same bytes come to is remembered.

use std::collections::HashMap;

use fieldkeep_model::membership::MembershipError;
use fieldkeep_model::{MembershipLog, Signed};

/// Logs that are remembered at a time.
const REMEMBERED: usize = 16;

/// Logs by the digest of all their bytes.
#[derive(Debug, Default)]
pub(crate) struct Memberships(HashMap<[u8; 32], MembershipLog>);

impl Memberships {
    /// Opens a log as the product does, or as it was opened before from the same bytes.
    pub(crate) fn open(&mut self, entries: Vec<Signed>) -> Result<MembershipLog, MembershipError> {
        let mut digest = blake3::Hasher::new();
        for entry in &entries {
            digest.update(&(entry.bytes.len() as u64).to_be_bytes()).update(&entry.bytes);
            digest.update(&entry.signature.0);
        }
        let digest = *digest.finalize().as_bytes();
        if let Some(log) = self.0.get(&digest) {
            return Ok(log.clone());
        }
        let log = MembershipLog::open(entries)?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(digest, log.clone());
        Ok(log)
    }
}
