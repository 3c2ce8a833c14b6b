//! What a load device keeps on its disk: its log in a store like a device's, and where it stands in the
//! relay's.
//!
//! It makes real changes, one document for what it wrote itself, and takes the relay's log over entry by
//! entry, its chain checked; it merges and judges nothing.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fieldkeep_documents::document::Author;
use fieldkeep_documents::{Document, batch};
use fieldkeep_model::{
    ActorId, ChangeHash, ChangeHeader, Edit, OrgId, RecordEdit, Scalar, SegmentAddress, SegmentId,
    Seq,
};
use fieldkeep_protocol::OfferEntry;
use fieldkeep_protocol::frame::{Delta, Run};
use fieldkeep_protocol::offer::short;
use fieldkeep_store::{ChangeRow, Flags, SegmentRow, Store};

/// The longest changes of one batch together, in bytes.
const BATCH: usize = 4 << 20;

/// A load device's store.
pub(super) struct Book {
    store: Store,
    row: SegmentRow,
    id: SegmentId,
    author: Author,
    document: Document,
    /// Hashes of its own changes by seq, from 1.
    own: Vec<ChangeHash>,
    /// Changes that have no receipt, oldest first.
    unsent: VecDeque<(Seq, Vec<u8>)>,
    /// The newest seq of which the relay is known to have its changes.
    acked: Seq,
    verdicts: (u64, u64),
}

impl Book {
    /// Opens a store that is a copy of an empty one.
    pub(super) fn open(
        template: &Path,
        path: &Path,
        (org, segment): (&OrgId, &SegmentAddress),
        actor: ActorId,
    ) -> Self {
        std::fs::copy(template, path).expect("there is room");
        let mut store = Store::open(path).expect("a copy of a store");
        let id = segment.id(org);
        let row = store.create_segment(id, segment.clone()).expect("the disk takes it");
        store.commit().expect("the disk takes it");
        let author = Author { actor, person: format!("device {}", actor.device()), time: now() };
        Self {
            store,
            row,
            id,
            author,
            document: Document::default(),
            own: Vec::new(),
            unsent: VecDeque::new(),
            acked: 0,
            verdicts: (0, 0),
        }
    }

    /// Writes a new visit; durable when this returns. The change and its hash.
    pub(super) fn put(&mut self) -> (Vec<u8>, ChangeHash) {
        self.author.time = now();
        let record = format!("{}-{}", self.author.actor.device(), self.own.len());
        let record = record.parse().expect("an id");
        let scope = self.row.address.scope.clone();
        let edit: RecordEdit = vec![
            Edit::Put("outlet".to_owned(), Scalar::Str(scope)),
            Edit::Put("note".to_owned(), Scalar::Str("the shelf by the door is empty".to_owned())),
            Edit::Put("facings".to_owned(), Scalar::Int(12)),
        ]
        .into();
        let written = self.document.write(&self.author, &record, &edit).expect("an honest edit");
        let written = written.expect("a new record changes something");
        self.append(self.author.actor, written.seq, written.hash, &written.chunk);
        self.save();
        self.own.push(written.hash);
        self.unsent.push_back((written.seq, written.chunk.clone()));
        (written.chunk, written.hash)
    }

    /// Takes over a stretch of the relay's log; durable when this returns. The changes that were not here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn follow(&mut self, delta: &Delta) -> Result<Vec<ChangeHash>, String> {
        if delta.first > self.row.cursor.pos + 1 {
            return Err(format!("{} follows {}", delta.first, self.row.cursor.pos));
        }
        let chunks = batch::decode(&delta.batch, BATCH).map_err(|error| error.to_string())?;
        let mut chunks = chunks.iter();
        let (mut pos, mut chain) = (delta.first - 1, self.row.cursor.chain());
        let mut news = Vec::new();
        for run in &delta.runs {
            let (count, known) = match run {
                Run::Sent(count) => (*count, None),
                Run::Known(_, first, count) => (*count, Some(*first)),
            };
            for nth in 0..count {
                let hash = if let Some(first) = known {
                    let at = usize::try_from(first + nth - 1).map_err(|error| error.to_string())?;
                    *self.own.get(at).ok_or("it says that an unknown change is here")?
                } else {
                    let chunk = chunks.next().ok_or("a batch that is too short")?;
                    let header = ChangeHeader::parse(chunk).map_err(|error| error.to_string())?;
                    // What was on its way when a connection was cut comes back as the relay's.
                    if pos >= self.row.cursor.pos && header.actor != self.author.actor {
                        let (actor, seq) = (header.actor, header.seq);
                        self.append(actor, seq, header.hash, chunk);
                        news.push(header.hash);
                    }
                    header.hash
                };
                if pos >= self.row.cursor.pos {
                    chain = chain.extend(&hash);
                }
                pos += 1;
            }
        }
        if pos > self.row.cursor.pos {
            if chain != delta.chain {
                return Err("its chain is another".to_owned());
            }
            (self.row.cursor.pos, self.row.cursor.chain) = (pos, chain.0);
            self.row.cursor.epoch = delta.epoch;
            self.save();
        }
        Ok(news)
    }

    /// Through which position of the relay's log it holds everything.
    pub(super) fn pos(&self) -> u64 {
        self.row.cursor.pos
    }

    /// Notes a receipt.
    pub(super) fn acknowledged(&mut self, seq: Seq) {
        self.acked = self.acked.max(seq);
        while self.unsent.front().is_some_and(|(first, _)| *first <= seq) {
            self.unsent.pop_front();
        }
    }

    /// Notes how far verdicts were told.
    pub(super) fn judged(&mut self, number: u64, pos: u64) {
        self.verdicts = (number, pos);
    }

    /// Where it stands, as it is offered.
    pub(super) fn offer(&self) -> Vec<OfferEntry> {
        if self.row.cursor.pos == 0 {
            return Vec::new();
        }
        vec![OfferEntry {
            segment: short(&self.id.0),
            chain: short(&self.row.cursor.chain),
            pos: self.row.cursor.pos,
            own_seq: self.acked,
            verdict: self.verdicts.0,
            judged: self.verdicts.1.min(self.row.cursor.pos),
        }]
    }

    /// Changes that have no receipt.
    pub(super) fn unsent(&self) -> Vec<Vec<u8>> {
        self.unsent.iter().map(|(_, chunk)| chunk.clone()).collect()
    }

    fn append(&mut self, actor: ActorId, seq: Seq, hash: ChangeHash, chunk: &[u8]) {
        self.row.tip += 1;
        self.row.chain = self.row.chain.extend(&hash);
        let (pos, flags) = (self.row.tip, Flags::default());
        let change = ChangeRow { pos, actor, seq, hash, flags, bytes: chunk.to_vec() };
        self.store.append_change(self.row.sid, &change).expect("the disk takes it");
    }

    fn save(&mut self) {
        self.store.save_segment(&self.row).expect("the disk takes it");
        self.store.commit().expect("the disk takes it");
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
