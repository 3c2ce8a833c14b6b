//! Mutants of honest changes: whatever the gate admits, a real document takes, saves and loads.
//!
//! `FIELDKEEP_MUTATIONS` sets how many are tried, `FIELDKEEP_SEED` where to begin. The counts by
//! stage and reason are printed (`--nocapture`). Most of the time goes into making honest changes:
//! `FIELDKEEP_MUTANTS_A_WORLD=1000` tries ten times as many on each, for the longest runs.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use automerge::{AutoCommit, Change, ROOT, ReadDoc, hydrate};
use fieldkeep_documents::gate::{Code, History};
use fieldkeep_lab::Dice;
use fieldkeep_lab::generate::{commit, create, edit, replica, session};
use fieldkeep_lab::mutate::mutant;
use fieldkeep_lab::orders::order;
use fieldkeep_lab::quiet::quietly;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[derive(Default)]
struct Counts {
    tried: u64,
    admitted: u64,
    refused: BTreeMap<(u8, &'static str), u64>,
}

/// A segment, its gate, and a document that takes what the gate admits.
struct World {
    history: History,
    doc: AutoCommit,
    log: Vec<Vec<u8>>,
}

impl World {
    fn begin(chunks: &[Vec<u8>]) -> Self {
        let mut world = Self { history: History::new(), doc: replica(90), log: Vec::new() };
        for chunk in chunks {
            world.take(chunk).expect("honest changes pass");
        }
        world
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), fieldkeep_documents::gate::Refusal> {
        let admitted = self.history.check(chunk)?;
        self.history.admit(&admitted);
        self.log.push(chunk.to_vec());
        let change = Change::try_from(chunk).expect("an admitted change parses");
        let hash = change.hash();
        assert_eq!(Change::from(change.decode()).hash(), hash, "an admitted change is canonical");
        self.doc.apply_changes([change]).expect("an admitted change applies");
        assert!(self.doc.get_change_by_hash(&hash).is_some(), "an admitted change is applied");
        Ok(())
    }

    /// An honest next change by one of a few devices, and some that are held.
    fn next(&mut self, dice: &mut Dice) -> Option<Vec<Vec<u8>>> {
        let device = replica(1 + dice.below(5) as u64);
        let mut doc = self.doc.fork().with_actor(device.get_actor().clone());
        edit(&mut doc, dice).ok()?;
        let next = commit(&mut doc, 1)?;
        Some([next].into_iter().chain((0..3).map(|_| dice.pick(&self.log).clone())).collect())
    }

    /// Saves, loads, writes, and decides all of it again in another order.
    fn verify(&mut self) {
        let heads: Vec<_> = self.doc.get_heads().iter().map(|hash| hash.0).collect();
        let known: Vec<_> = self.history.heads().iter().map(|hash| hash.0).collect();
        assert_eq!(heads, known, "the gate and the document have the same heads");
        let loaded = AutoCommit::load(&self.doc.save()).expect("the document loads again");
        assert_eq!(records(&loaded), records(&self.doc), "loading changes nothing");
        create(&mut self.doc, "local", &order(&mut Dice::seeded(1)).1);
        let chunk = commit(&mut self.doc, 1).expect("an honest write succeeds");
        let local = self.history.check(&chunk).expect("an honest write passes");
        self.history.admit(&local);
        self.log.push(chunk);
        self.converge();
    }

    /// A replica that gets the changes in another order decides alike and has the same records.
    fn converge(&self) {
        let mut other = History::new();
        let mut doc = AutoCommit::new();
        let mut waiting: Vec<&Vec<u8>> = self.log.iter().rev().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|chunk| match other.replay(chunk) {
                Ok(_) => {
                    doc.apply_changes([Change::try_from(&chunk[..]).unwrap()]).unwrap();
                    false
                }
                Err(refusal) => !refusal.waits().expect("every replica admits it").is_empty(),
            });
            assert!(waiting.len() < before, "nothing waits for ever");
        }
        assert_eq!(other.heads(), self.history.heads());
        assert_eq!(other.vector(), self.history.vector());
        let decoded = History::decode(&self.history.encode()).unwrap();
        assert_eq!(decoded.vector(), self.history.vector());
        assert_eq!(records(&doc), records(&self.doc), "records are the same");
        let mut batch = AutoCommit::new();
        batch
            .apply_changes(self.log.iter().map(|chunk| Change::try_from(&chunk[..]).unwrap()))
            .unwrap();
        assert_eq!(records(&batch), records(&self.doc), "in one batch too");
    }
}

fn records(doc: &AutoCommit) -> hydrate::Value {
    doc.hydrate(ROOT, None).expect("a document can be read")
}

/// Prints how to repeat a seed that panics.
struct Announced(u64);

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("FIELDKEEP_SEED={} FIELDKEEP_MUTATIONS=1 repeats this", self.0);
        }
    }
}

/// How many mutants meet one world, unless `FIELDKEEP_MUTANTS_A_WORLD` says otherwise.
const MUTANTS: u64 = 100;

fn run(seed: u64, mutants: u64, counts: &mut Counts) {
    let mut dice = Dice::seeded(seed);
    let chunks = session(dice.roll(), 1 + dice.below(4) as u64, 10 + dice.below(40));
    if chunks.is_empty() {
        return;
    }
    let known = 1 + dice.below(chunks.len());
    let mut world = World::begin(&chunks[..known]);
    let mut next = None;
    for _ in 0..mutants {
        let chunk = if dice.one_in(2) {
            let at = (known + dice.below(6)).saturating_sub(2).min(chunks.len() - 1);
            mutant(&mut dice, &chunks, at)
        } else {
            // Honest next changes are dear to make: each serves for several mutants, the more the
            // more there are to be.
            if next.is_none() || dice.one_in(8 * (mutants / MUTANTS).min(4) as usize) {
                next = world.next(&mut dice);
            }
            next.as_ref().map_or_else(Vec::new, |next| mutant(&mut dice, next, 0))
        };
        counts.tried += 1;
        match world.take(&chunk) {
            Ok(()) => counts.admitted += 1,
            Err(refusal) => {
                let key = (refusal.stage, refusal.code.as_str());
                *counts.refused.entry(key).or_default() += 1;
            }
        }
    }
    world.verify();
}

#[test]
fn what_the_gate_admits_a_document_takes_saves_and_loads() {
    let first = number("FIELDKEEP_SEED", 1);
    let total = number("FIELDKEEP_MUTATIONS", 20_000);
    let mutants = number("FIELDKEEP_MUTANTS_A_WORLD", MUTANTS).max(MUTANTS);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let counts = std::thread::scope(|scope| {
        let runs = |thread| {
            let mut counts = Counts::default();
            for seed in (first + thread..).step_by(threads as usize) {
                if counts.tried * threads >= total {
                    break;
                }
                let at = Announced(seed);
                run(at.0, mutants, &mut counts);
                drop(at);
            }
            counts
        };
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(move || runs(t))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it found nothing")).fold(
            Counts::default(),
            |mut all, counts| {
                all.tried += counts.tried;
                all.admitted += counts.admitted;
                for (key, count) in counts.refused {
                    *all.refused.entry(key).or_default() += count;
                }
                all
            },
        )
    });
    println!("from seed {first}: {} mutants, {} admitted", counts.tried, counts.admitted);
    for ((stage, code), count) in &counts.refused {
        println!("  stage {stage} {code}: {count}");
    }
    assert!(counts.admitted * 100 >= counts.tried, "too few mutants pass to test anything");
}

#[test]
fn the_strict_reader_agrees_with_decoding_and_encoding_again() {
    let total = number("FIELDKEEP_MUTATIONS", 20_000);
    let mut dice = Dice::seeded(number("FIELDKEEP_SEED", 1));
    let mut agreed = 0;
    for _ in 0..total / 500 + 1 {
        let chunks = session(dice.roll(), 3, 30);
        if chunks.len() < 2 {
            continue;
        }
        let known = dice.below(chunks.len());
        let world = World::begin(&chunks[..known]);
        for _ in 0..500 {
            let chunk = mutant(&mut dice, &chunks, known);
            let code = match world.history.check(&chunk) {
                // Marks are refused whatever form they have.
                Err(refusal) if refusal.stage < 3 || refusal.code == Code::Mark => continue,
                Err(refusal) if refusal.stage == 3 => Some(refusal.code),
                _ => None,
            };
            let canonical = quietly(|| canonical(&chunk)).unwrap_or(false);
            assert_eq!(code.is_none(), canonical, "{code:?} {:?}", Change::try_from(&chunk[..]));
            agreed += 1;
        }
    }
    println!("compared {agreed}");
    assert!(agreed > total / 10);
}

fn canonical(chunk: &[u8]) -> bool {
    let Ok(change) = Change::try_from(chunk) else { return false };
    Change::from(change.decode()).hash() == change.hash()
}

#[test]
fn honest_sessions_pass_whole() {
    for seed in 0..40 {
        let mut world = World::begin(&session(seed, 1 + seed % 6, 120));
        world.verify();
    }
}

#[test]
fn a_change_that_was_admitted_is_known_and_nothing_more() {
    let chunks = session(5, 2, 30);
    let world = World::begin(&chunks);
    for chunk in &chunks {
        assert_eq!(world.history.check(chunk).unwrap_err().code, Code::Known);
    }
}
