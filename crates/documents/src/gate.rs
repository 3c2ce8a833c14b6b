//! The gate: what a change must be before it is kept.
//!
//! `apply` is not safe on what strangers send: one crafted change panics, or leaves a document that
//! saves and never loads again. So every change passes here first, one's own included, and a
//! segment's log holds admitted changes only. The stages: 0 the header (`fieldkeep_model::header`),
//! 2 causality, 3 the canonical form, 4 each operation against an index of those before it. Stage 1,
//! identity, needs the membership log, and stage 5, applying, needs the document; both are
//! elsewhere.
//!
//! A structural refusal depends on the change's bytes, its causal past and the gate's version alone,
//! so every honest replica decides alike, and no honest change ever builds upon a refused one. No
//! Automerge code runs here: nothing can panic on input, and every check is linear in the bytes.
//! Knows no documents, values, members or quotas.

mod blob;
mod causality;
mod index;
mod operations;
mod refusal;
mod runs;
mod scrutiny;
mod touch;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use fieldkeep_model::{ActorId, ChangeHash, ChangeHeader, RecordId, Seq, VersionVector};

pub use blob::DecodeError;
pub use refusal::{Code, Refusal};
pub use touch::{Path, Step, Touch};

use causality::Causality;
use index::Index;
use operations::Operations;
use runs::Form;
use scrutiny::{Additions, Scrutiny};

/// The gate's version: an organisation-wide number, as two versions may decide differently.
pub const VERSION: u32 = 1;

/// Memory that an index takes with little in it: 2 KB after its first change.
const EMPTY: usize = 1_024;

/// What the gate knows of a segment: which changes were admitted, how they build upon each other,
/// and where each operation acts.
#[derive(Debug, Default)]
pub struct History {
    causality: Causality,
    index: Index,
}

/// A change that passed, to be handed to [`History::admit`].
#[derive(Debug)]
pub struct Admitted {
    /// Its header.
    pub header: ChangeHeader,
    /// The fields that it writes, sorted, each once.
    pub touched: Vec<Touch>,
    deps: Box<[u32]>,
    additions: Additions,
    /// How many changes were held when it was checked.
    held: usize,
}

impl History {
    /// The history of an empty segment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a change through stages 0, 2, 3 and 4 without noting it. Takes raw or deflated chunks.
    ///
    /// # Errors
    /// The stage and the reason. [`Refusal::is_final`] tells what can never be admitted from what
    /// waits, is known, or forks.
    pub fn check(&self, chunk: &[u8]) -> Result<Admitted, Refusal> {
        self.examine(chunk, None)
    }

    /// As [`History::check`], of a change whose header was read already: `raw` is its raw form.
    ///
    /// # Errors
    /// As [`History::check`].
    pub fn check_parsed(&self, header: &ChangeHeader, raw: &[u8]) -> Result<Admitted, Refusal> {
        self.examine_parsed(header.clone(), raw, None)
    }

    /// As [`History::check`], leaving out stage 2, 3 or 4: so that a test can show what each is for.
    ///
    /// # Errors
    /// As [`History::check`].
    #[doc(hidden)]
    pub fn check_without(&self, stage: u8, chunk: &[u8]) -> Result<Admitted, Refusal> {
        self.examine(chunk, Some(stage))
    }

    fn examine(&self, chunk: &[u8], without: Option<u8>) -> Result<Admitted, Refusal> {
        let parsed = ChangeHeader::parse_with_raw(chunk);
        let (header, raw) = parsed.map_err(Code::Header).map_err(Refusal::at(0))?;
        self.examine_parsed(header, &raw, without)
    }

    fn examine_parsed(
        &self,
        header: ChangeHeader,
        raw: &[u8],
        without: Option<u8>,
    ) -> Result<Admitted, Refusal> {
        let causes = if without == Some(2) {
            self.causality.suppose(&header)
        } else {
            self.causality.check(&header).map_err(Refusal::at(2))?
        };
        let form = if without == Some(3) { Form::Any } else { Form::Canonical };
        let operations = Operations::decode(&header, raw, form).map_err(Refusal::at(3))?;
        let (additions, touched) = if without == Some(4) {
            Default::default()
        } else {
            let scrutiny = Scrutiny::new(&self.causality, &self.index, &header, &causes);
            scrutiny.run(&operations).map_err(Refusal::at(4))?
        };
        if without != Some(2) {
            self.causality.fork(&header).map_err(Refusal::at(2))?;
        }
        let held = self.causality.notes.len();
        Ok(Admitted { header, touched, deps: causes.deps, additions, held })
    }

    /// Notes a change that was checked.
    ///
    /// # Panics
    /// When another change was noted since the check: check it again then.
    pub fn admit(&mut self, admitted: &Admitted) {
        assert_eq!(admitted.held, self.causality.notes.len(), "checked against another history");
        let first = self.index.entries.len() as u32;
        self.causality.push(&admitted.header, admitted.deps.clone(), first);
        self.index.entries.extend_from_slice(&admitted.additions.entries);
        self.index.objects.extend_from_slice(&admitted.additions.objects);
        for key in &admitted.additions.keys {
            self.index.keys.push(key);
        }
    }

    /// Checks and notes a change of our own log. No stage is left out: a flipped bit is found, and
    /// the whole gate costs less than parsing the change for the document.
    ///
    /// # Errors
    /// As [`History::check`].
    pub fn replay(&mut self, chunk: &[u8]) -> Result<Admitted, Refusal> {
        let admitted = self.check(chunk)?;
        self.admit(&admitted);
        Ok(admitted)
    }

    /// The changes that no other one builds upon, ascending.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.causality.heads().to_vec()
    }

    /// The newest change of each actor.
    #[must_use]
    pub fn vector(&self) -> VersionVector {
        let clock: Vec<u32> =
            self.causality.authors.iter().map(|author| author.changes.len() as u32).collect();
        self.stamped(&clock)
    }

    /// What those changes are and build upon; `None` if one of them is not held.
    #[must_use]
    pub fn vector_at(&self, heads: &[ChangeHash]) -> Option<VersionVector> {
        let heads: Vec<u32> =
            heads.iter().map(|hash| self.causality.find(hash)).collect::<Option<_>>()?;
        Some(self.stamped(&self.causality.clock(&heads)))
    }

    fn stamped(&self, clock: &[u32]) -> VersionVector {
        let mut vector = VersionVector::default();
        for (author, &seq) in self.causality.authors.iter().zip(clock) {
            if let Some(&change) = seq.checked_sub(1).and_then(|i| author.changes.get(i as usize)) {
                vector.note(author.id, Seq::from(seq), &self.causality.note(change).hash);
            }
        }
        vector
    }

    /// Whether a change is one of `heads` or lies in their past; false where one is not held.
    #[must_use]
    pub fn covers(&self, heads: &[ChangeHash], change: &ChangeHash) -> bool {
        let Some((actor, seq)) = self.locate(change) else {
            return false;
        };
        heads.contains(change) || self.vector_at(heads).is_some_and(|past| past.seq(&actor) >= seq)
    }

    /// Tells of a change whether all of `heads` are it or build upon it; of none where one of them is not
    /// held. Costs a look at each of `heads` once, and no more for each change that is asked for.
    pub fn known_to_all(&self, heads: &[ChangeHash]) -> impl Fn(&ChangeHash) -> bool {
        let mut known = vec![u32::MAX; self.causality.authors.len()];
        for head in heads {
            let clock = self.causality.find(head).map(|head| self.causality.clock(&[head]));
            let clock = clock.unwrap_or_else(|| vec![0; known.len()]);
            known.iter_mut().zip(clock).for_each(|(least, seq)| *least = seq.min(*least));
        }
        move |change| {
            let known = self.locate(change).and_then(|(actor, seq)| {
                let author = self.causality.author(&actor)?;
                Some(Seq::from(*known.get(author as usize)?) >= seq)
            });
            known.unwrap_or(false)
        }
    }

    /// How many changes are held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.causality.notes.len() as u64
    }

    /// About how much memory it takes, in bytes: what each change and each operation costs by the
    /// layout of the index.
    #[must_use]
    pub fn weight(&self) -> usize {
        let (notes, authors) = (self.causality.notes.len(), self.causality.authors.len());
        // A note with its hash in two places, and a clock for about every sixteenth.
        let changes = notes * (256 + authors / 4);
        let keys = self.index.keys.len() as usize * 128;
        EMPTY + changes + self.index.entries.len() * 12 + self.index.objects.len() * 24 + keys
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.causality.notes.is_empty()
    }

    /// Whether a change is held.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.causality.find(hash).is_some()
    }

    /// The newest seq held of an actor, 0 if none.
    #[must_use]
    pub fn seq(&self, actor: &ActorId) -> Seq {
        let author = self.causality.author(actor);
        author.map_or(0, |author| self.causality.authors[author as usize].changes.len() as Seq)
    }

    /// The hash of an actor's change.
    #[must_use]
    pub fn hash_of(&self, actor: &ActorId, seq: Seq) -> Option<ChangeHash> {
        self.causality.change(actor, seq).map(|note| note.hash)
    }

    /// A change's author and seq.
    #[must_use]
    pub fn locate(&self, hash: &ChangeHash) -> Option<(ActorId, Seq)> {
        let note = self.causality.note(self.causality.find(hash)?);
        Some((self.causality.authors[note.actor as usize].id, Seq::from(note.seq)))
    }

    /// The position of a change in the order of admission, from 1.
    #[must_use]
    pub fn position(&self, hash: &ChangeHash) -> Option<u64> {
        self.causality.find(hash).map(|index| u64::from(index) + 1)
    }

    /// The change at a position in the order of admission, from 1: its author, seq and hash.
    #[must_use]
    pub fn change_at(&self, position: u64) -> Option<(ActorId, Seq, ChangeHash)> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        let note = self.causality.notes.get(index)?;
        let author = &self.causality.authors[note.actor as usize];
        Some((author.id, Seq::from(note.seq), note.hash))
    }

    /// The changes that a change names, ascending; none if it is not held.
    #[must_use]
    pub fn deps_of(&self, hash: &ChangeHash) -> Vec<ChangeHash> {
        let Some(index) = self.causality.find(hash) else { return Vec::new() };
        let deps = self.causality.note(index).deps.iter();
        let mut deps: Vec<_> = deps.map(|dep| self.causality.note(*dep).hash).collect();
        deps.sort_unstable();
        deps
    }

    /// The heads as they were when so many changes had been admitted, ascending.
    #[must_use]
    pub fn heads_through(&self, changes: u64) -> Vec<ChangeHash> {
        if changes >= self.len() {
            return self.heads();
        }
        let notes = &self.causality.notes[..changes as usize];
        let mut built_upon = vec![false; notes.len()];
        for dep in notes.iter().flat_map(|note| note.deps.iter()) {
            built_upon[*dep as usize] = true;
        }
        let heads = notes.iter().zip(built_upon).filter(|(_, built_upon)| !built_upon);
        let mut heads: Vec<_> = heads.map(|(note, _)| note.hash).collect();
        heads.sort_unstable();
        heads
    }

    /// The positions among those of the changes that did something in a record, newest first. Reads the
    /// index alone.
    pub fn changes_of(
        &self,
        record: &RecordId,
        among: RangeInclusive<u64>,
    ) -> impl Iterator<Item = u64> {
        self.changes_of_fields(record, &[], among)
    }

    /// Those of them that did something in one of those fields of the record; all if none is named.
    pub fn changes_of_fields(
        &self,
        record: &RecordId,
        fields: &[&str],
        among: RangeInclusive<u64>,
    ) -> impl Iterator<Item = u64> {
        let key = self.index.keys.number(record.as_str());
        let whole = fields.is_empty();
        let fields: BTreeSet<u32> =
            fields.iter().filter_map(|field| self.index.keys.number(field)).collect();
        let first = among.start().saturating_sub(1).min(self.len());
        let last = (*among.end()).clamp(first, self.len());
        let notes = self.causality.notes[first as usize..last as usize].iter();
        let notes = notes.enumerate().rev();
        let touched = notes.filter(move |(_, note)| {
            let mut places = self.index.places(note.first_op, note.ops);
            places
                .any(|place| key == Some(place.record) && (whole || fields.contains(&place.field)))
        });
        touched.map(move |(index, _)| first + index as u64 + 1)
    }

    /// The change that holds an operation.
    #[must_use]
    pub fn author_of_op(&self, actor: &ActorId, counter: u64) -> Option<(ChangeHash, Seq)> {
        let note = self.causality.holder(self.causality.author(actor)?, counter)?;
        Some((note.hash, Seq::from(note.seq)))
    }

    /// The highest operation counter, 0 if there is none.
    #[must_use]
    pub fn max_op(&self) -> u64 {
        self.causality.max_op
    }

    /// Where an operation acts; of one that made an object, where that object lies.
    #[must_use]
    pub fn path(&self, actor: &ActorId, counter: u64) -> Option<Path> {
        let note = self.causality.holder(self.causality.author(actor)?, counter)?;
        self.index.path(note.first_op + (counter - u64::from(note.start_op)) as u32)
    }
}
