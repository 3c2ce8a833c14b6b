//! Whose input the engine takes next: that of whoever has cost it least of late.
//!
//! What an input costs is known only once it was taken: a frame of some hundred bytes may hold a thousand
//! changes. So everybody has a clock of what it has cost, the one furthest behind comes next, and whoever
//! comes after a while begins where the others are. Contains no clock: costs are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fieldkeep_model::PublicKey;

/// From so many clocks on those that are behind are forgotten.
const CLOCKS: usize = 4_096;

/// What waits for the engine, by who brought it.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    waiting: BTreeMap<PublicKey, VecDeque<T>>,
    /// Whoever waits, by clock.
    order: BTreeSet<(Duration, PublicKey)>,
    clocks: BTreeMap<PublicKey, Duration>,
    /// The clock of whoever had the last turn.
    present: Duration,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        let (waiting, order, clocks) = Default::default();
        Self { waiting, order, clocks, present: Duration::ZERO, len: 0 }
    }
}

impl<T> Turns<T> {
    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Somebody brings something.
    pub(crate) fn push(&mut self, key: PublicKey, item: T) {
        let queue = self.waiting.entry(key).or_default();
        if queue.is_empty() {
            let clock = self.clocks.entry(key).or_default();
            *clock = (*clock).max(self.present);
            self.order.insert((*clock, key));
        }
        queue.push_back(item);
        self.len += 1;
    }

    /// Whose turn it is, and what they brought first. [`Turns::charge`] follows.
    pub(crate) fn pop(&mut self) -> Option<(PublicKey, T)> {
        let (clock, key) = self.order.pop_first()?;
        self.present = clock;
        let item = self.waiting.get_mut(&key)?.pop_front()?;
        self.len -= 1;
        Some((key, item))
    }

    /// What somebody's turn has cost.
    pub(crate) fn charge(&mut self, key: PublicKey, cost: Duration) {
        let clock = self.clocks.entry(key).or_insert(self.present);
        *clock += cost;
        if self.waiting.get(&key).is_some_and(|queue| !queue.is_empty()) {
            self.order.insert((*clock, key));
        } else {
            self.waiting.remove(&key);
        }
        if self.clocks.len() > CLOCKS {
            let (present, waiting) = (self.present, &self.waiting);
            self.clocks.retain(|key, clock| *clock > present || waiting.contains_key(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: PublicKey = PublicKey([1; 32]);
    const BEN: PublicKey = PublicKey([2; 32]);

    fn turn(turns: &mut Turns<u32>, cost_ms: u64) -> Option<(PublicKey, u32)> {
        let turn = turns.pop();
        if let Some((key, _)) = turn {
            turns.charge(key, Duration::from_millis(cost_ms));
        }
        turn
    }

    #[test]
    fn who_has_cost_less_comes_first_and_everybody_in_order() {
        let mut turns = Turns::default();
        (0..4).for_each(|n| turns.push(ANN, n));
        assert_eq!(turn(&mut turns, 50), Some((ANN, 0)));
        turns.push(BEN, 10);
        turns.push(BEN, 11);
        assert_eq!(turn(&mut turns, 1), Some((BEN, 10)));
        assert_eq!(turn(&mut turns, 1), Some((BEN, 11)));
        assert_eq!(turns.len(), 3);
        assert_eq!(turn(&mut turns, 50), Some((ANN, 1)));
        assert_eq!(turn(&mut turns, 50), Some((ANN, 2)));
    }

    #[test]
    fn who_was_away_has_saved_nothing() {
        let mut turns = Turns::default();
        (0..20).for_each(|n| turns.push(ANN, n));
        for _ in 0..10 {
            turn(&mut turns, 10);
        }
        (0..20).for_each(|n| turns.push(BEN, n));
        let ben =
            (0..10).filter(|_| turn(&mut turns, 10).is_some_and(|(key, _)| key == BEN)).count();
        assert!((4..=6).contains(&ben), "both by turns, not {ben} of ten");
    }

    #[test]
    fn two_who_bring_as_much_get_as_much() {
        let mut turns = Turns::default();
        (0..100).for_each(|n| turns.push(ANN, n));
        (0..100).for_each(|n| turns.push(BEN, n));
        let mut spent = [0, 0];
        for _ in 0..60 {
            let key = turns.pop().expect("both wait").0;
            // Ann's cost five times as much.
            let cost = if key == ANN { 5 } else { 1 };
            spent[usize::from(key == BEN)] += cost;
            turns.charge(key, Duration::from_millis(cost));
        }
        assert!(spent[0].abs_diff(spent[1]) <= 5, "{spent:?}");
    }
}
