//! Witnesses: statements of a relay that show that it once knew more than it does.
//!
//! A relay that was put back from an old copy numbers its verdicts and catalogs as before, and devices
//! that know higher numbers would not believe them. It moves above them, into a new epoch, when
//! somebody shows it what it signed itself. What anybody merely claims proves nothing.

use std::cmp::Ordering;

use fieldkeep_model::{Epoch, Signed, VerdictBlock, verdict};
use fieldkeep_store::StoreError;

use crate::publishing::{CATALOG_CONTEXT, CatalogNotice};
use crate::replica::{Replica, ReplicaError};

/// Why a statement was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// No relay of the organisation signed it, or not for what it is brought for.
    #[error("no relay of this organisation signed that")]
    Unsigned,
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for StatementError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl Replica {
    /// The epoch that this relay has to move above, if the statement shows that it has lost
    /// something.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn lost(&mut self, statement: &Signed) -> Result<Option<Epoch>, ReplicaError> {
        if let Some((_, block)) = self.stated::<VerdictBlock>(verdict::CONTEXT, statement) {
            let ours = block.org == self.org() && self.has_block(&block)?;
            return Ok((block.org == self.org() && !ours).then_some(block.epoch));
        }
        if let Some((_, notice)) = self.stated::<CatalogNotice>(CATALOG_CONTEXT, statement) {
            let number = self.published.as_ref().map_or(0, |published| published.number);
            let ours = match self.compare(notice.epoch) {
                Ordering::Less => true,
                Ordering::Equal => notice.number <= number,
                Ordering::Greater => false,
            };
            return Ok((notice.org == self.org() && !ours).then_some(notice.epoch));
        }
        Ok(None)
    }

    /// A statement that a relay of the organisation signed, and that relay's member number.
    pub(crate) fn stated<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        context: &str,
        statement: &Signed,
    ) -> Option<(u64, T)> {
        let mut relays = self.members.members().values().filter(|member| member.relay);
        relays.find_map(|relay| {
            let stated = relay.stated(context, statement)?;
            Some((relay.number, stated))
        })
    }

    /// The member number of the relay that signed a verdict block.
    #[must_use]
    pub fn issuer(&self, block: &Signed) -> Option<u64> {
        self.stated::<VerdictBlock>(verdict::CONTEXT, block).map(|(relay, _)| relay)
    }

    /// An epoch that is over is less than this one; one that this relay was not in is greater.
    fn compare(&self, epoch: Epoch) -> Ordering {
        let foreign = epoch != self.epoch && epoch.counter == self.epoch.counter;
        if foreign { Ordering::Greater } else { epoch.counter.cmp(&self.epoch.counter) }
    }

    /// Whether a block is over, or one that this relay has.
    fn has_block(&mut self, block: &VerdictBlock) -> Result<bool, ReplicaError> {
        match self.compare(block.epoch) {
            Ordering::Less => return Ok(true),
            Ordering::Greater => return Ok(false),
            Ordering::Equal => {}
        }
        let Some(row) = self.segments.get(&block.segment) else { return Ok(block.pos == 0) };
        if block.number > row.verdict || block.pos > row.tip {
            return Ok(false);
        }
        Ok(self.load(&block.segment)?.history.heads_through(block.pos) == block.heads)
    }

    /// A statement of the latest epoch that this device holds anything of.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn latest_witness(&self) -> Result<Option<Signed>, ReplicaError> {
        let catalog = self.published.as_ref().map(|p| (p.epoch, p.notice.clone()));
        let mut latest = catalog;
        for row in self.segments.values() {
            let Some((block, signed)) = self.newest_block(row.sid)? else { continue };
            if latest.as_ref().is_none_or(|(newest, _)| *newest < block.epoch) {
                latest = Some((block.epoch, signed));
            }
        }
        Ok(latest.map(|(_, statement)| statement))
    }
}
