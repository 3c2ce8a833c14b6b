//! What arrived and was not given out yet: bounded in bytes and in chunks, control apart.
//!
//! Chunks are counted too: each may keep a whole datagram alive, however few bytes of it are used.
//! Contains no networking.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;

use super::{CONTROL, ClosedReason, Event};

const CONTROL_BYTES_MAX: usize = 16 * 1024;
const DATA_BYTES_MAX: usize = 64 * 1024;
const CHUNKS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Inbox {
    control: Lane,
    data: Lane,
    writable: BTreeSet<u64>,
    closed: Option<ClosedReason>,
    /// The receiver is gone.
    abandoned: bool,
    receiver: Option<Waker>,
}

#[derive(Default)]
struct Lane {
    events: VecDeque<Event>,
    bytes: usize,
    /// The driver stopped reading for want of room.
    starved: bool,
}

impl Inbox {
    /// Whether another chunk of that stream may be read; if not, the driver will be woken.
    pub(super) fn has_room(&mut self, stream: u64) -> bool {
        let bytes_max = if stream == CONTROL { CONTROL_BYTES_MAX } else { DATA_BYTES_MAX };
        let lane = self.lane(stream);
        lane.starved = lane.bytes >= bytes_max || lane.events.len() >= CHUNKS_MAX;
        !lane.starved
    }

    pub(super) fn push(&mut self, stream: u64, event: Event) {
        let lane = self.lane(stream);
        lane.bytes += event.len();
        lane.events.push_back(event);
    }

    pub(super) fn push_writable(&mut self, stream: u64) {
        self.writable.insert(stream);
    }

    pub(super) fn close(&mut self, reason: ClosedReason) {
        self.closed.get_or_insert(reason);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.control
            .pop()
            .or_else(|| self.writable.pop_first().map(|stream| Event::Writable { stream }))
            .or_else(|| self.data.pop())
            .or_else(|| self.closed.clone().map(|reason| Event::Closed { reason }))
    }

    /// The same without what is to be read.
    pub(super) fn pop_unread(&mut self) -> Option<Event> {
        let read = self.control.events.is_empty() && self.data.events.is_empty();
        let over = || self.closed.clone().filter(|_| read).map(|reason| Event::Closed { reason });
        let writable = self.writable.pop_first().map(|stream| Event::Writable { stream });
        writable.or_else(over)
    }

    /// Whether the driver waits for room and there is enough of it again. Told once.
    pub(super) fn drained(&mut self) -> bool {
        self.control.drained(CONTROL_BYTES_MAX) | self.data.drained(DATA_BYTES_MAX)
    }

    pub(super) fn wait(&mut self, receiver: &Waker) {
        match &mut self.receiver {
            Some(known) => known.clone_from(receiver),
            None => self.receiver = Some(receiver.clone()),
        }
    }

    /// The receiver to wake, if it waits and there is something for it.
    pub(super) fn ready(&mut self) -> Option<Waker> {
        let empty = self.control.events.is_empty()
            && self.data.events.is_empty()
            && self.writable.is_empty()
            && self.closed.is_none();
        if empty { None } else { self.receiver.take() }
    }

    pub(super) fn abandon(&mut self) {
        *self = Self { abandoned: true, ..Self::default() };
    }

    pub(super) fn abandoned(&self) -> bool {
        self.abandoned
    }

    fn lane(&mut self, stream: u64) -> &mut Lane {
        if stream == CONTROL { &mut self.control } else { &mut self.data }
    }
}

impl Lane {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len();
        if self.events.is_empty() {
            // An idle connection keeps no buffer.
            self.events = VecDeque::new();
        }
        Some(event)
    }

    fn drained(&mut self, bytes_max: usize) -> bool {
        let drained =
            self.starved && self.bytes <= bytes_max / 2 && self.events.len() <= CHUNKS_MAX / 2;
        self.starved &= !drained;
        drained
    }
}

impl Event {
    /// The bytes that it carries.
    fn len(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => bytes.len(),
            Self::Finished { .. } | Self::Writable { .. } | Self::Closed { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(stream: u64, len: usize) -> Event {
        Event::Bytes { stream, bytes: Bytes::from(vec![0; len]) }
    }

    fn fill(inbox: &mut Inbox, stream: u64, len: usize) -> usize {
        let mut bytes = 0;
        while inbox.has_room(stream) {
            inbox.push(stream, chunk(stream, len));
            bytes += len;
        }
        bytes
    }

    #[test]
    fn bytes_and_chunks_are_bounded_and_control_has_room_of_its_own() {
        for len in [1, 1200, 16_384] {
            let mut inbox = Inbox::default();
            assert!(fill(&mut inbox, 7, len) <= DATA_BYTES_MAX + len);
            assert!(inbox.data.events.len() <= CHUNKS_MAX);
            assert!(fill(&mut inbox, CONTROL, len) >= len);
        }
    }

    #[test]
    fn control_is_given_out_before_data_and_the_end_comes_last() {
        let mut inbox = Inbox::default();
        inbox.close(ClosedReason { code: None, text: "gone".into(), by_peer: true });
        inbox.push(7, chunk(7, 1));
        inbox.push_writable(3);
        inbox.push(CONTROL, chunk(CONTROL, 1));
        let order: Vec<_> = std::iter::from_fn(|| inbox.pop()).take(5).collect();
        assert_eq!(order[0], chunk(CONTROL, 1));
        assert_eq!(order[1], Event::Writable { stream: 3 });
        assert_eq!(order[2], chunk(7, 1));
        assert!(matches!(order[3], Event::Closed { .. }));
        assert_eq!(order[3], order[4]);
    }

    #[test]
    fn who_does_not_read_hears_of_room_and_of_the_end_once_nothing_is_left() {
        let mut inbox = Inbox::default();
        inbox.close(ClosedReason { code: None, text: "gone".into(), by_peer: true });
        inbox.push(7, chunk(7, 1));
        inbox.push_writable(3);
        assert_eq!(inbox.pop_unread(), Some(Event::Writable { stream: 3 }));
        assert_eq!(inbox.pop_unread(), None);
        assert_eq!(inbox.pop(), Some(chunk(7, 1)));
        assert!(matches!(inbox.pop_unread(), Some(Event::Closed { .. })));
    }

    #[test]
    fn a_starved_driver_is_woken_once_when_half_is_given_out() {
        let mut inbox = Inbox::default();
        fill(&mut inbox, 7, 1200);
        let mut given = 0;
        while !inbox.drained() {
            inbox.pop().expect("there is more than half left");
            given += 1;
        }
        assert!(given > 20, "woken after {given}");
        assert!(!inbox.drained());
    }
}
