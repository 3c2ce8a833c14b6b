//! The log, read through rows and packs alike.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::batch;
use fieldkeep_model::{ActorId, Chain, ChangeHash, ChangeHeader, Pos, SegmentId, Seq, SignedHead};
use fieldkeep_store::{ChangeRow, Log, PackRow, StoreError};

use crate::replica::{Replica, ReplicaError};

/// The largest batch that a pack inflates to, in bytes.
pub(crate) const PACK_RAW_MAX: usize = 8 * 1024 * 1024;

/// How many bytes of rows are read in one go.
const READ: usize = 256 * 1024;

/// An entry of a segment's log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pos: Pos,
    pub(crate) header: ChangeHeader,
    pub(crate) tainted: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A stretch of a log as a peer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The position of the first entry.
    pub first: Pos,
    /// The position of the last entry.
    pub last: Pos,
    /// The entries in order.
    pub items: Vec<Item>,
    /// The chunks of those that are sent; of [`Replica::pack_from`] none, because `pack` has them.
    pub chunks: Vec<Vec<u8>>,
    /// Signed heads that vouch for them.
    pub heads: Vec<SignedHead>,
    /// The chain after the last entry.
    pub chain: Chain,
    /// A stored batch that holds exactly the chunks, if the stretch is one.
    pub pack: Option<Vec<u8>>,
}

/// An entry of a [`Stretch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next chunk.
    Sent,
    /// A change that the peer holds.
    Known(ActorId, Seq),
}

impl Replica {
    /// Calls `visit` with every entry from a position on, in order. Each is checked against the hash
    /// that was written with it.
    pub(crate) fn each_entry<E: From<ReplicaError>>(
        &self,
        sid: i64,
        from: Pos,
        visit: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        each_entry(&self.store, sid, from, visit)
    }

    /// One entry.
    pub(crate) fn entry(&self, sid: i64, pos: Pos) -> Result<Option<Entry>, ReplicaError> {
        entry(&self.store, sid, pos)
    }

    /// The entries at some positions, in order; a pack is unpacked once for all that are in it.
    pub(crate) fn entries(
        &self,
        sid: i64,
        positions: &BTreeSet<Pos>,
    ) -> Result<Vec<Entry>, ReplicaError> {
        let mut found = Vec::with_capacity(positions.len());
        let mut through = 0;
        for pos in positions {
            if *pos <= through {
                continue;
            }
            if let Some(pack) = self.store.pack(sid, *pos)? {
                through = pack.last;
                found.extend(unpacked(&pack, |pos| positions.contains(&pos))?);
            } else if let Some(row) = self.store.changes(sid, *pos, 1)?.into_iter().next() {
                found.push(row_entry(sid, row)?);
            }
        }
        found.retain(|entry| positions.contains(&entry.pos));
        Ok(found)
    }

    /// The positions of tainted entries up to one.
    pub(crate) fn tainted_before(&self, sid: i64, last: Pos) -> Result<Vec<Pos>, StoreError> {
        let mut tainted = Vec::new();
        let mut pos = 1;
        while let Some(pack) = self.store.pack(sid, pos)?.filter(|_| pos <= last) {
            tainted.extend(pack.tainted.iter().filter(|at| **at <= last));
            pos = pack.last + 1;
        }
        tainted.extend(self.store.tainted_rows(sid, pos, last)?);
        Ok(tainted)
    }

    /// The heads of the log's first `pos` entries, if the index is loaded.
    pub(crate) fn heads_through(
        &self,
        id: &SegmentId,
        pos: Pos,
    ) -> Result<Option<Vec<ChangeHash>>, ReplicaError> {
        Ok(self.cache.peek(id).map(|loaded| loaded.history.heads_through(pos)))
    }

    /// The chain at a position; `None` beyond the log's end.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn chain_at(&self, id: &SegmentId, pos: Pos) -> Result<Option<Chain>, ReplicaError> {
        let row = self.row(id);
        if pos >= row.tip {
            return Ok((pos == row.tip).then_some(row.chain));
        }
        let sid = row.sid;
        let (at, chain) = self.store.chain_before(sid, pos)?.unwrap_or((0, Chain::START));
        if let Some(loaded) = self.cache.peek(id) {
            let mut hashes = (at + 1..=pos).map(|pos| Some(loaded.history.change_at(pos)?.2));
            return Ok(hashes.try_fold(chain, |chain, hash| Some(chain.extend(&hash?))));
        }
        self.walk_chain(sid, (at, chain), pos)
    }

    /// The chain at a position, from one before it or from the pack between them.
    fn walk_chain(
        &self,
        sid: i64,
        (mut at, mut chain): (Pos, Chain),
        pos: Pos,
    ) -> Result<Option<Chain>, ReplicaError> {
        if let Some(pack) = self.store.pack(sid, pos)?.filter(|pack| pack.first > at) {
            (at, chain) = (pack.first - 1, pack.chain);
        }
        let walk = self.each_entry(sid, at + 1, |entry| {
            if at == pos {
                return Err(Walk::Done);
            }
            chain = chain.extend(&entry.header.hash);
            at = entry.pos;
            Ok(())
        });
        if let Err(Walk::Failed(error)) = walk {
            return Err(error);
        }
        Ok((at == pos).then_some(chain))
    }

    /// The stretch of a log from a position on, of about so many bytes, ending where signed heads
    /// vouch for all of it. `known` tells the entries that the peer holds.
    ///
    /// # Errors
    /// When the disk fails or an entry is damaged.
    pub fn stretch(
        &self,
        id: &SegmentId,
        first: Pos,
        bytes: usize,
        known: impl Fn(&ActorId, Seq) -> bool,
    ) -> Result<Option<Stretch>, ReplicaError> {
        let row = self.row(id);
        if first > row.tip {
            return Ok(None);
        }
        if let Some(pack) = self.store.pack(row.sid, first)? {
            return self.packed_stretch(id, first, &pack, known).map(Some);
        }
        let chain = self.chain_at(id, first - 1)?.unwrap_or(Chain::START);
        let mut gathering = Gathering::new(first, chain);
        let mut taken = 0;
        // The echo of what the peer wrote itself, often all there is, needs no row.
        if let Some(loaded) = self.cache.peek(id) {
            while taken < bytes
                && let Some(entry) = loaded.history.change_at(gathering.last + 1)
            {
                let (actor, seq, hash) = entry;
                if !known(&actor, seq) {
                    break;
                }
                gathering.pass_over(gathering.last + 1, actor, seq, &hash);
                taken += 1;
            }
        }
        if gathering.last == row.tip {
            return Ok(Some(gathering.stretch));
        }
        let heads = self.store.heads(row.sid, first, row.tip)?;
        let heads: BTreeSet<ChangeHash> = heads.iter().map(|(_, head)| head.head.hash).collect();
        // A stretch ends only where a head vouches for the newest change of each author in it.
        let mut unvouched: BTreeSet<ActorId> = BTreeSet::new();
        let sid = row.sid;
        'log: loop {
            let rows = self.store.changes(sid, gathering.last + 1, READ)?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                if taken >= bytes && unvouched.is_empty() {
                    break 'log;
                }
                if known(&row.actor, row.seq) {
                    gathering.pass_over(row.pos, row.actor, row.seq, &row.hash);
                    taken += 1;
                } else {
                    taken += row.bytes.len();
                    if heads.contains(&row.hash) {
                        unvouched.remove(&row.actor);
                    } else {
                        unvouched.insert(row.actor);
                    }
                    gathering.add(row_entry(sid, row)?);
                }
            }
        }
        gathering.finish(self, sid).map(Some)
    }

    /// A stretch of the log for a peer that holds of each author what was written up to some number: as
    /// [`Replica::pack_from`] where it holds nothing, else as [`Replica::stretch`].
    ///
    /// # Errors
    /// When the disk fails or a batch is damaged.
    pub fn stretch_beyond(
        &self,
        id: &SegmentId,
        first: Pos,
        bytes: usize,
        known: &BTreeMap<ActorId, Seq>,
    ) -> Result<Option<Stretch>, ReplicaError> {
        if known.is_empty()
            && let Some(stretch) = self.pack_from(id, first)?
        {
            return Ok(Some(stretch));
        }
        let holds = |actor: &ActorId, seq| known.get(actor).is_some_and(|known| seq <= *known);
        self.stretch(id, first, bytes, holds)
    }

    /// The stored batch that begins at a position, for a peer that holds nothing of it: nothing is unpacked,
    /// so that a device that begins costs hardly more than reading that. None where the log has rows.
    ///
    /// # Errors
    /// When the disk fails or the batch is damaged.
    pub fn pack_from(&self, id: &SegmentId, first: Pos) -> Result<Option<Stretch>, ReplicaError> {
        let sid = self.row(id).sid;
        let Some(pack) = self.store.pack(sid, first)?.filter(|pack| pack.first == first) else {
            return Ok(None);
        };
        let Some(chain) = self.chain_at(id, pack.last)? else { return Ok(None) };
        let heads: BTreeMap<_, _> =
            self.store.heads(sid, first, pack.last)?.into_iter().map(by_author).collect();
        Ok(Some(Stretch {
            first,
            last: pack.last,
            items: (first..=pack.last).map(|_| Item::Sent).collect(),
            chunks: Vec::new(),
            heads: heads.into_values().collect(),
            chain,
            pack: Some(pack.bytes),
        }))
    }

    fn packed_stretch(
        &self,
        id: &SegmentId,
        first: Pos,
        pack: &PackRow,
        known: impl Fn(&ActorId, Seq) -> bool,
    ) -> Result<Stretch, ReplicaError> {
        let chain = if first == pack.first {
            pack.chain
        } else {
            self.chain_at(id, first - 1)?.unwrap_or(Chain::START)
        };
        let mut gathering = Gathering::new(first, chain);
        for entry in unpack(pack)?.into_iter().filter(|entry| entry.pos >= first) {
            let ChangeHeader { actor, seq, hash, .. } = entry.header;
            if known(&actor, seq) {
                gathering.pass_over(entry.pos, actor, seq, &hash);
            } else {
                gathering.add(entry);
            }
        }
        let mut stretch = gathering.finish(self, self.row(id).sid)?;
        let whole = stretch.items.len() == stretch.chunks.len() && first == pack.first;
        stretch.pack = whole.then(|| pack.bytes.clone());
        Ok(stretch)
    }
}

/// Ends a walk over entries early.
pub(crate) enum Walk {
    Done,
    Failed(ReplicaError),
}

impl From<ReplicaError> for Walk {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error)
    }
}

/// A stretch in the making.
struct Gathering {
    stretch: Stretch,
    last: Pos,
}

impl Gathering {
    fn new(first: Pos, chain: Chain) -> Self {
        let stretch = Stretch {
            first,
            last: first - 1,
            items: Vec::new(),
            chunks: Vec::new(),
            heads: Vec::new(),
            chain,
            pack: None,
        };
        Self { stretch, last: first - 1 }
    }

    /// Adds an entry that the peer lacks.
    fn add(&mut self, entry: Entry) {
        self.advance(entry.pos, &entry.header.hash);
        self.stretch.items.push(Item::Sent);
        self.stretch.chunks.push(entry.bytes);
    }

    /// Adds an entry that the peer holds: it checks the hash by the chain.
    fn pass_over(&mut self, pos: Pos, actor: ActorId, seq: Seq, hash: &ChangeHash) {
        self.advance(pos, hash);
        self.stretch.items.push(Item::Known(actor, seq));
    }

    fn advance(&mut self, pos: Pos, hash: &ChangeHash) {
        (self.last, self.stretch.last) = (pos, pos);
        self.stretch.chain = self.stretch.chain.extend(hash);
    }

    /// Adds the newest head of each actor whose changes are sent.
    fn finish(mut self, replica: &Replica, sid: i64) -> Result<Stretch, ReplicaError> {
        let heads = replica.store.heads(sid, self.stretch.first, self.stretch.last)?;
        let newest: BTreeMap<_, _> = heads.into_iter().map(by_author).collect();
        if !self.stretch.chunks.is_empty() {
            self.stretch.heads = newest.into_values().collect();
        }
        Ok(self.stretch)
    }
}

/// The newest head of each author is what remains of heads in the log's order.
fn by_author((_, head): (Pos, SignedHead)) -> (ActorId, SignedHead) {
    (head.head.actor, head)
}

/// Calls `visit` with every entry of a stored log from a position on, in order. Each is checked against
/// the hash that was written with it.
pub(crate) fn each_entry<E: From<ReplicaError>>(
    store: &impl Log,
    sid: i64,
    from: Pos,
    mut visit: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut pos = from.max(1);
    let fail = |error: StoreError| E::from(ReplicaError::from(error));
    while let Some(pack) = store.pack(sid, pos).map_err(fail)? {
        for entry in unpack(&pack).map_err(E::from)? {
            if entry.pos >= pos {
                visit(entry)?;
            }
        }
        pos = pack.last + 1;
    }
    loop {
        let rows = store.changes(sid, pos, READ).map_err(fail)?;
        let Some(last) = rows.last().map(|row| row.pos) else { return Ok(()) };
        for row in rows {
            visit(row_entry(sid, row).map_err(E::from)?)?;
        }
        pos = last + 1;
    }
}

/// One entry of a stored log.
pub(crate) fn entry(store: &impl Log, sid: i64, pos: Pos) -> Result<Option<Entry>, ReplicaError> {
    if let Some(pack) = store.pack(sid, pos)? {
        return Ok(unpack(&pack)?.into_iter().find(|entry| entry.pos == pos));
    }
    let rows = store.changes(sid, pos, 1)?;
    let Some(row) = rows.into_iter().next().filter(|row| row.pos == pos) else {
        return Ok(None);
    };
    row_entry(sid, row).map(Some)
}

/// The entries of a pack.
pub(crate) fn unpack(pack: &PackRow) -> Result<Vec<Entry>, ReplicaError> {
    unpacked(pack, |_| true)
}

/// Those entries of a pack that are wanted.
fn unpacked(pack: &PackRow, wanted: impl Fn(Pos) -> bool) -> Result<Vec<Entry>, ReplicaError> {
    let damaged = || StoreError::Damaged(format!("the pack from position {}", pack.first));
    let chunks = batch::decode(&pack.bytes, PACK_RAW_MAX).map_err(|_| damaged())?;
    let chunks = chunks.into_iter().zip(pack.first..).filter(|(_, pos)| wanted(*pos));
    let entries = chunks.map(|(bytes, pos)| {
        let header = ChangeHeader::parse(&bytes).map_err(|_| damaged())?;
        Ok(Entry { pos, header, tainted: pack.tainted.contains(&pos), bytes })
    });
    entries.collect()
}

/// The entry of a row, if its bytes are what was written.
fn row_entry(sid: i64, row: ChangeRow) -> Result<Entry, ReplicaError> {
    let header = ChangeHeader::parse(&row.bytes).ok().filter(|header| header.hash == row.hash);
    let header = header.ok_or_else(|| damaged_entry(sid, row.pos))?;
    Ok(Entry { pos: row.pos, header, tainted: row.flags.tainted, bytes: row.bytes })
}

fn damaged_entry(sid: i64, pos: Pos) -> ReplicaError {
    StoreError::Damaged(format!("the change at position {pos} of segment {sid}")).into()
}
