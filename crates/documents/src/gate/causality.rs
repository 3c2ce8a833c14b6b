//! Stage 2: what a change builds upon.
//!
//! Knows every admitted change by hash and by (actor, seq), and answers which changes lie in the
//! past of others. Decisions depend on a change and its causal past only, never on what else this
//! replica happens to hold; what waits and what forks says so by its code.
//!
//! A clock says how many changes of each actor lie in the past. Keeping one for each change would
//! cost actors x changes: it is kept where more than [`STEP`] changes would have to be walked to
//! find it again, whatever path an adversary weaves.

use std::collections::BTreeMap;

use fieldkeep_model::{ActorId, ChangeHash, ChangeHeader, Seq};

use super::refusal::Code;

const STEP: u32 = 16;

/// An admitted change.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) hash: ChangeHash,
    /// Index of the author.
    pub(super) actor: u32,
    pub(super) seq: u32,
    pub(super) start_op: u32,
    pub(super) ops: u32,
    /// How many operations were admitted before this change's first.
    pub(super) first_op: u32,
    /// Indices of the changes that it names.
    pub(super) deps: Box<[u32]>,
    kept: Kept,
}

/// How to find a change's clock: it is kept, or so many changes must be walked.
#[derive(Debug)]
enum Kept {
    Clock(Box<[u32]>),
    Walk(u32),
}

impl Note {
    /// A note of a change that is about to be inserted.
    pub(super) fn new(hash: ChangeHash, deps: Box<[u32]>, actor: u32, seq: u32) -> Self {
        let kept = Kept::Walk(0);
        Self { hash, actor, seq, start_op: 0, ops: 0, first_op: 0, deps, kept }
    }

    pub(super) fn with_ops(self, first_op: u32, start_op: u32, ops: u32) -> Self {
        Self { first_op, start_op, ops, ..self }
    }

    fn max_op(&self) -> u64 {
        u64::from(self.start_op) + u64::from(self.ops) - 1
    }
}

/// An actor and its changes, by seq.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) id: ActorId,
    pub(super) changes: Vec<u32>,
}

/// The past of a change.
#[derive(Debug)]
pub(super) enum Past {
    /// All that is held.
    Everything,
    /// So many changes of each actor, by the actor's index.
    Clock(Vec<u32>),
}

impl Past {
    pub(super) fn contains(&self, note: &Note) -> bool {
        match self {
            Self::Everything => true,
            Self::Clock(clock) => count(clock, note.actor) >= note.seq,
        }
    }
}

/// What stage 2 found of a change.
#[derive(Debug)]
pub(super) struct Causes {
    pub(super) deps: Box<[u32]>,
    pub(super) past: Past,
}

/// All admitted changes and how they build upon each other.
#[derive(Debug, Default)]
pub(super) struct Causality {
    pub(super) notes: Vec<Note>,
    pub(super) authors: Vec<Author>,
    by_hash: BTreeMap<ChangeHash, u32>,
    by_actor: BTreeMap<ActorId, u32>,
    heads: Vec<ChangeHash>,
    pub(super) max_op: u64,
}

impl Causality {
    pub(super) fn find(&self, hash: &ChangeHash) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    pub(super) fn author(&self, actor: &ActorId) -> Option<u32> {
        self.by_actor.get(actor).copied()
    }

    pub(super) fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    pub(super) fn note(&self, index: u32) -> &Note {
        &self.notes[index as usize]
    }

    /// The actor's change with that seq.
    pub(super) fn change(&self, actor: &ActorId, seq: Seq) -> Option<&Note> {
        let author = &self.authors[self.author(actor)? as usize];
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        author.changes.get(index).map(|index| self.note(*index))
    }

    /// The actor's change that holds the operation with that counter.
    pub(super) fn holder(&self, author: u32, counter: u64) -> Option<&Note> {
        let changes = &self.authors[author as usize].changes;
        let after = changes.partition_point(|i| u64::from(self.note(*i).start_op) <= counter);
        // A change without operations shares its start with the next one, and comes before it.
        let note = self.note(*changes.get(after.checked_sub(1)?)?);
        (counter <= note.max_op()).then_some(note)
    }

    /// Stage 2 but for forks, which are told last, of changes that are otherwise in order.
    pub(super) fn check(&self, header: &ChangeHeader) -> Result<Causes, Code> {
        if self.by_hash.contains_key(&header.hash) {
            return Err(Code::Known);
        }
        let deps = self.deps(header)?;
        let past = self.past(header, &deps)?;
        let own = self.author(&header.actor).map_or(0, |author| match &past {
            Past::Everything => self.authors[author as usize].changes.len() as u64,
            Past::Clock(clock) => u64::from(count(clock, author)),
        });
        if header.seq != own + 1 || u32::try_from(header.seq).is_err() {
            return Err(Code::Seq);
        }
        let previous = self.change(&header.actor, own).map(|note| note.hash);
        if previous.is_some_and(|hash| header.deps.binary_search(&hash).is_err()) {
            return Err(Code::Predecessor);
        }
        let highest = deps.iter().map(|dep| self.note(*dep).max_op()).max().unwrap_or(0);
        if header.start_op != highest + 1 {
            return Err(Code::StartOp);
        }
        Ok(Causes { deps, past })
    }

    /// Causes as they would be if stage 2 asked no questions.
    pub(super) fn suppose(&self, header: &ChangeHeader) -> Causes {
        let deps = header.deps.iter().filter_map(|dep| self.find(dep)).collect();
        Causes { deps, past: Past::Everything }
    }

    pub(super) fn fork(&self, header: &ChangeHeader) -> Result<(), Code> {
        self.change(&header.actor, header.seq).map_or(Ok(()), |n| Err(Code::Fork { held: n.hash }))
    }

    fn deps(&self, header: &ChangeHeader) -> Result<Box<[u32]>, Code> {
        let found: Box<[u32]> = header.deps.iter().filter_map(|dep| self.find(dep)).collect();
        if found.len() == header.deps.len() {
            return Ok(found);
        }
        let missing = header.deps.iter().filter(|dep| self.find(dep).is_none());
        Err(Code::MissingDeps(missing.copied().collect()))
    }

    /// The past of a change with these deps. No dep may be an ancestor of another, as Automerge
    /// names the heads that it saw; the author's previous change is named in any case.
    fn past(&self, header: &ChangeHeader, deps: &[u32]) -> Result<Past, Code> {
        let own = self.author(&header.actor).map(u64::from);
        let may_repeat = |note: &Note| {
            own == Some(u64::from(note.actor)) && u64::from(note.seq) + 1 == header.seq
        };
        if self.heads.iter().all(|head| header.deps.binary_search(head).is_ok()) {
            let mut extra = header.deps.iter().zip(deps);
            let fine = extra.all(|(hash, dep)| {
                self.heads.binary_search(hash).is_ok() || may_repeat(self.note(*dep))
            });
            return if fine { Ok(Past::Everything) } else { Err(Code::RedundantDep) };
        }
        let mut clock = vec![0; self.authors.len()];
        for dep in deps {
            self.merge_past(*dep, &mut clock);
        }
        for dep in deps.iter().map(|dep| self.note(*dep)) {
            if count(&clock, dep.actor) >= dep.seq && !may_repeat(dep) {
                return Err(Code::RedundantDep);
            }
        }
        for dep in deps.iter().map(|dep| self.note(*dep)) {
            raise(&mut clock, dep.actor, dep.seq);
        }
        Ok(Past::Clock(clock))
    }

    /// The clock of changes: what they are and what lies in their past.
    pub(super) fn clock(&self, changes: &[u32]) -> Vec<u32> {
        let mut clock = vec![0; self.authors.len()];
        for change in changes {
            self.merge(*change, &mut clock);
        }
        clock
    }

    fn merge(&self, change: u32, clock: &mut [u32]) {
        self.merge_past(change, clock);
        let note = self.note(change);
        raise(clock, note.actor, note.seq);
    }

    /// Recurses through changes without a clock: less than [`STEP`] of them.
    fn merge_past(&self, change: u32, clock: &mut [u32]) {
        let note = self.note(change);
        let Kept::Clock(kept) = &note.kept else {
            return note.deps.iter().for_each(|dep| self.merge(*dep, clock));
        };
        for (actor, seq) in (0..).zip(kept.iter()) {
            let itself = u32::from(actor == note.actor);
            raise(clock, actor, seq - itself);
        }
    }

    /// Notes a change that was checked.
    pub(super) fn push(&mut self, header: &ChangeHeader, deps: Box<[u32]>, first_op: u32) {
        let actor = self.enrol(&header.actor);
        let note = Note::new(header.hash, deps, actor, header.seq as u32);
        self.insert(note.with_ops(first_op, header.start_op as u32, header.ops as u32));
    }

    pub(super) fn enrol(&mut self, actor: &ActorId) -> u32 {
        let next = self.authors.len() as u32;
        let index = *self.by_actor.entry(*actor).or_insert(next);
        if index == next {
            self.authors.push(Author { id: *actor, changes: Vec::new() });
        }
        index
    }

    /// How a change's clock is to be found.
    fn keep(&self, note: &Note) -> Kept {
        let walks = note.deps.iter().map(|dep| match self.note(*dep).kept {
            Kept::Clock(_) => 0,
            Kept::Walk(work) => work,
        });
        let work = 1 + walks.sum::<u32>();
        if work < STEP {
            return Kept::Walk(work);
        }
        let mut clock = self.clock(&note.deps);
        raise(&mut clock, note.actor, note.seq);
        Kept::Clock(clock.into())
    }

    pub(super) fn insert(&mut self, mut note: Note) {
        let index = self.notes.len() as u32;
        note.kept = self.keep(&note);
        for dep in &note.deps {
            if let Ok(head) = self.heads.binary_search(&self.notes[*dep as usize].hash) {
                self.heads.remove(head);
            }
        }
        let at = self.heads.partition_point(|head| *head < note.hash);
        self.heads.insert(at, note.hash);
        self.max_op = self.max_op.max(note.max_op());
        self.by_hash.insert(note.hash, index);
        self.authors[note.actor as usize].changes.push(index);
        self.notes.push(note);
    }
}

fn count(clock: &[u32], actor: u32) -> u32 {
    clock.get(actor as usize).copied().unwrap_or(0)
}

fn raise(clock: &mut [u32], actor: u32, seq: u32) {
    let entry = &mut clock[actor as usize];
    *entry = seq.max(*entry);
}
