//! What waits to be written: a bounded queue for each stream, and whose turn it is.
//!
//! Control first, then by priority, streams of one priority in rotation. Contains no networking.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{CONTROL, QUEUED_MAX, SendError};

#[derive(Default)]
pub(super) struct Outbox {
    queues: BTreeMap<u64, Queue>,
    /// The streams that have something to write or to end, in the order of their turns.
    turns: BTreeSet<Turn>,
    /// Counts turns, so that the stream that waited longest comes first among equals.
    tick: u64,
    closed: bool,
}

/// A stream's place in the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<i32>,
    tick: u64,
    pub(super) stream: u64,
}

struct Queue {
    waiting: VecDeque<Bytes>,
    /// The bytes in `waiting`.
    len: usize,
    priority: i32,
    /// Its place in `turns`, if it is there.
    turn: Option<Turn>,
    /// The length of the longest message that found no room since the last one was told.
    refused: Option<usize>,
    finished: bool,
}

impl Turn {
    pub(super) fn priority(&self) -> i32 {
        self.priority.0
    }
}

impl Outbox {
    pub(super) fn push(
        &mut self,
        stream: u64,
        priority: i32,
        bytes: Bytes,
    ) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let priority = if stream == CONTROL { i32::MAX } else { priority };
        let queue = self.queues.entry(stream).or_insert_with(|| Queue::new(priority));
        if queue.finished {
            return Err(SendError::Finished);
        }
        if !queue.fits(bytes.len()) {
            queue.refused = queue.refused.max(Some(bytes.len()));
            return Err(SendError::Full(bytes));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        queue.len += bytes.len();
        queue.priority = priority;
        queue.waiting.push_back(bytes);
        self.take_turn(stream);
        Ok(())
    }

    /// Ends a stream once its queue is written.
    pub(super) fn finish(&mut self, stream: u64) {
        if let Some(queue) = self.queues.get_mut(&stream) {
            queue.finished = true;
            self.take_turn(stream);
        }
    }

    pub(super) fn room(&self, stream: u64) -> usize {
        match self.queues.get(&stream) {
            _ if self.closed => 0,
            None => QUEUED_MAX,
            Some(queue) => QUEUED_MAX.saturating_sub(queue.len),
        }
    }

    /// Nothing is taken any more, and what waits is lost.
    pub(super) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    fn take_turn(&mut self, stream: u64) {
        let Some(queue) = self.queues.get_mut(&stream) else {
            return;
        };
        let place = match queue.turn {
            Some(turn) if turn.priority() == queue.priority => return,
            Some(turn) => {
                self.turns.remove(&turn);
                turn.tick
            }
            None => {
                self.tick += 1;
                self.tick
            }
        };
        let turn = Turn { priority: Reverse(queue.priority), tick: place, stream };
        queue.turn = Some(turn);
        self.turns.insert(turn);
    }

    /// Whose turns are up, in order.
    pub(super) fn turns(&self) -> impl Iterator<Item = Turn> + '_ {
        self.turns.iter().copied()
    }

    /// The first turn after another one.
    pub(super) fn turn_after(&self, last: Option<Turn>) -> Option<Turn> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.turns.range((last.map_or(Unbounded, Excluded), Unbounded)).next().copied()
    }

    /// What waits in a stream, for writing from its front.
    pub(super) fn waiting(&mut self, stream: u64) -> &mut [Bytes] {
        self.queues.get_mut(&stream).map_or(&mut [], |queue| queue.waiting.make_contiguous())
    }

    /// Some of what waited was written: that many whole messages, that many bytes in all. Tells
    /// whether the stream is to be told writable.
    pub(super) fn wrote(&mut self, stream: u64, messages: usize, bytes: usize) -> bool {
        let Some(queue) = self.queues.get_mut(&stream) else {
            return false;
        };
        queue.waiting.drain(..messages);
        queue.len -= bytes;
        if queue.waiting.is_empty() {
            // An idle stream keeps no buffer.
            queue.waiting = VecDeque::new();
        }
        let told = queue.refused.is_some_and(|len| queue.len <= QUEUED_MAX / 2 && queue.fits(len));
        if told {
            queue.refused = None;
        }
        told
    }

    /// A stream's queue is empty: it leaves the turns, and for good if it was finished, which is
    /// told.
    pub(super) fn rest(&mut self, stream: u64) -> bool {
        let Some(queue) = self.queues.get_mut(&stream) else {
            return false;
        };
        if let Some(turn) = queue.turn.take() {
            self.turns.remove(&turn);
        }
        let finished = queue.finished;
        if finished {
            self.queues.remove(&stream);
        }
        finished
    }
}

impl Queue {
    fn new(priority: i32) -> Self {
        Self {
            waiting: VecDeque::new(),
            len: 0,
            priority,
            turn: None,
            refused: None,
            finished: false,
        }
    }

    /// A message that is larger than the queue goes into an empty one.
    fn fits(&self, len: usize) -> bool {
        self.len == 0 || self.len + len <= QUEUED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn order(outbox: &Outbox) -> Vec<u64> {
        outbox.turns().map(|turn| turn.stream).collect()
    }

    #[test]
    fn control_goes_first_then_priorities_then_who_waited_longest() {
        let mut outbox = Outbox::default();
        for (stream, priority) in [(1, 0), (2, 5), (3, 0), (CONTROL, -9), (4, 5)] {
            outbox.push(stream, priority, bytes(1)).expect("there is room");
        }
        assert_eq!(order(&outbox), [CONTROL, 2, 4, 1, 3]);
        outbox.wrote(2, 1, 1);
        assert!(!outbox.rest(2));
        outbox.push(2, 5, bytes(1)).expect("there is room");
        assert_eq!(order(&outbox), [CONTROL, 4, 2, 1, 3]);
        outbox.push(3, 9, bytes(1)).expect("there is room");
        assert_eq!(order(&outbox), [CONTROL, 3, 4, 2, 1]);
    }

    #[test]
    fn a_full_stream_gives_bytes_back_and_is_told_once_when_they_fit() {
        let mut outbox = Outbox::default();
        for _ in 0..4 {
            outbox.push(1, 0, bytes(QUEUED_MAX / 4)).expect("there is room");
        }
        assert!(matches!(outbox.push(1, 0, bytes(40_000)), Err(SendError::Full(_))));
        assert!(outbox.push(2, 0, bytes(1)).is_ok(), "another stream is not concerned");
        assert!(!outbox.wrote(1, 2, QUEUED_MAX / 2), "40,000 bytes do not fit yet");
        assert!(outbox.wrote(1, 1, QUEUED_MAX / 4));
        assert!(!outbox.wrote(1, 1, QUEUED_MAX / 4), "it was told");
    }

    #[test]
    fn a_message_larger_than_the_queue_waits_alone() {
        let mut outbox = Outbox::default();
        outbox.push(1, 0, bytes(QUEUED_MAX * 2)).expect("the queue was empty");
        assert!(matches!(outbox.push(1, 0, bytes(1)), Err(SendError::Full(_))));
        assert_eq!(outbox.room(1), 0);
    }

    #[test]
    fn a_finished_stream_takes_nothing_and_leaves_when_it_is_written() {
        let mut outbox = Outbox::default();
        outbox.push(1, 0, bytes(3)).expect("there is room");
        outbox.finish(1);
        assert_eq!(outbox.push(1, 0, bytes(1)), Err(SendError::Finished));
        outbox.wrote(1, 1, 3);
        assert!(outbox.rest(1));
        assert_eq!(order(&outbox), []);
    }
}
