//! The network between devices and the relay, and between devices: connections of ordered streams,
//! as QUIC shows them.
//!
//! A lost packet delays its own stream and no other, so streams overtake each other. A connection
//! that is cut delivers a prefix, cut at any byte, and each side notices at a time of its own.
//! Contains no frames: bytes go in, and come out in pieces.

use std::collections::BTreeMap;

use fieldkeep_protocol::Code;

use super::time::{Events, MILLISECOND, Micros, SECOND};
use super::{Event, Tally};
use crate::Dice;
use crate::world::fault::Fault;

/// How long a connection lives without hearing from its peer, as the link limits it.
pub(crate) const IDLE: Micros = 45 * SECOND;
/// What may wait to be sent to one peer before the relay counts it as lost, in bytes.
pub(crate) const BACKLOG: usize = 8 * 1024 * 1024;
/// A datagram's payload: what is lost at once.
const PACKET: usize = 1_200;

/// A connection's number.
pub(crate) type LineId = u64;

/// An end of a connection. Between devices the one that was called is where the relay would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Device,
    Relay,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Device => Self::Relay,
            Self::Relay => Self::Device,
        }
    }
}

/// What arrives.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Bytes(u64, Vec<u8>),
    Finished(u64),
}

/// Why a connection is over, as one side hears it.
pub(crate) type Reason = Option<(Code, String)>;

/// How good the way to one device is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way.
    pub(crate) latency: Micros,
    /// Bytes a second.
    pub(crate) bandwidth: u64,
    /// Packets lost of a thousand.
    pub(crate) loss: u64,
}

impl Weather {
    pub(crate) const FINE: Self = Self { latency: 20 * MILLISECOND, bandwidth: 2_000_000, loss: 0 };

    /// Somewhere between a good office and the edge of the last cell.
    pub(crate) fn drawn(dice: &mut Dice, lossy: bool) -> Self {
        let latency = *dice.pick(&[5, 20, 40, 80, 200, 450]) * MILLISECOND;
        let bandwidth = *dice.pick(&[8_000, 60_000, 500_000, 4_000_000]);
        let loss = if lossy { *dice.pick(&[0, 5, 20, 80]) } else { 0 };
        Self { latency, bandwidth, loss }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    /// When everything that was handed over is on its way.
    free_at: Micros,
    /// When the newest piece of each stream arrives.
    streams: BTreeMap<u64, Micros>,
    /// What is on its way, by number, with the time of arrival.
    pieces: BTreeMap<u64, (Micros, Arrival)>,
    count: u64,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) device: usize,
    /// The device on the other end, if that is not the relay.
    pub(crate) other: Option<usize>,
    /// The lives of both ends at the time of the dialling.
    pub(crate) lives: [u64; 2],
    weather: Weather,
    /// By the side that a piece arrives at.
    ways: [Way; 2],
    /// Which sides have been told of the end, or made it.
    pub(crate) ended: [bool; 2],
    cut: bool,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    lines: BTreeMap<LineId, Line>,
    count: LineId,
    dice: Dice,
    /// Until when nothing reaches a device or leaves it.
    partitions: BTreeMap<usize, Micros>,
}

impl Network {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { lines: BTreeMap::new(), count: 0, dice, partitions: BTreeMap::new() }
    }

    pub(crate) fn open(
        &mut self,
        device: usize,
        lives: [u64; 2],
        weather: Weather,
        now: Micros,
    ) -> LineId {
        self.count += 1;
        let mut line = Line {
            device,
            other: None,
            lives,
            weather,
            ways: Default::default(),
            ended: [false; 2],
            cut: false,
        };
        line.ways[Side::Relay as usize].free_at = now;
        line.ways[Side::Device as usize].free_at = now;
        self.lines.insert(self.count, line);
        self.count
    }

    pub(crate) fn open_between(
        &mut self,
        device: usize,
        other: usize,
        lives: [u64; 2],
        weather: Weather,
        now: Micros,
    ) -> LineId {
        let id = self.open(device, lives, weather, now);
        self.lines.get_mut(&id).expect("just opened").other = Some(other);
        id
    }

    pub(crate) fn line(&self, id: LineId) -> Option<&Line> {
        self.lines.get(&id)
    }

    /// Whether anything is on its way anywhere.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lines.values().flat_map(|line| &line.ways).all(|way| way.pieces.is_empty())
    }

    /// The bytes that wait to be sent from one side, for want of bandwidth.
    pub(crate) fn backlog(&self, id: LineId, from: Side, now: Micros) -> usize {
        let Some(line) = self.lines.get(&id) else { return 0 };
        let way = &line.ways[from.other() as usize];
        let waits = way.free_at.saturating_sub(now);
        (waits.saturating_mul(line.weather.bandwidth) / SECOND) as usize
    }

    /// Nothing reaches a device, or leaves it, until then.
    pub(crate) fn part(&mut self, device: usize, until: Micros) {
        self.partitions.insert(device, until);
    }

    pub(crate) fn parted(&self, device: usize, now: Micros) -> Option<Micros> {
        self.partitions.get(&device).copied().filter(|until| *until > now)
    }

    /// Sends on a stream; the end of the stream where there are no bytes.
    pub(crate) fn send(
        &mut self,
        events: &mut Events<Event>,
        tally: &mut Tally,
        now: Micros,
        (id, from): (LineId, Side),
        what: Arrival,
    ) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.cut || line.ended[from as usize] {
            return;
        }
        let (stream, parts) = match what {
            Arrival::Finished(stream) => (stream, vec![Arrival::Finished(stream)]),
            Arrival::Bytes(stream, bytes) => (stream, parts(&mut self.dice, stream, bytes)),
        };
        let to = from.other();
        for part in parts {
            let size = match &part {
                Arrival::Bytes(_, bytes) => bytes.len(),
                Arrival::Finished(_) => 0,
            };
            let Weather { latency, bandwidth, loss } = line.weather;
            let way = &mut line.ways[to as usize];
            way.free_at = way.free_at.max(now) + size as u64 * SECOND / bandwidth;
            let mut at = way.free_at + latency;
            let packets = size.div_ceil(PACKET) as u64;
            if self.dice.roll() % 1_000 < (loss * packets).min(900) {
                // Noticed after a round trip, sent once more.
                at += 2 * latency + self.dice.roll() % (latency + 1);
                tally.struck(Fault::Loss);
            }
            let newest = way.streams.entry(stream).or_default();
            at = at.max(*newest);
            *newest = at;
            way.count += 1;
            let number = way.count;
            way.pieces.insert(number, (at, part));
            events.plan(at, Event::Arrives(id, to, number));
        }
    }

    /// Takes a piece out that arrives. Nothing if it was lost with its connection; a later time if
    /// the device is cut off until then.
    pub(crate) fn arrive(
        &mut self,
        id: LineId,
        to: Side,
        number: u64,
        now: Micros,
    ) -> Result<Option<Arrival>, Micros> {
        let Some(line) = self.lines.get_mut(&id) else { return Ok(None) };
        let ends = [Some(line.device), line.other].into_iter().flatten();
        let parted = ends.filter_map(|end| self.partitions.get(&end)).max();
        if let Some(until) = parted.filter(|until| **until > now) {
            return Err(*until);
        }
        let piece = line.ways[to as usize].pieces.remove(&number);
        Ok(piece.map(|(_, arrival)| arrival).filter(|_| !line.ended[to as usize]))
    }

    /// One side ends a connection: the other hears why, and what is on its way may be lost.
    pub(crate) fn close(
        &mut self,
        events: &mut Events<Event>,
        now: Micros,
        (id, by): (LineId, Side),
        reason: Reason,
    ) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if std::mem::replace(&mut line.ended[by as usize], true) {
            return;
        }
        line.ways[by as usize].pieces.clear();
        let to = by.other();
        if line.ended[to as usize] {
            self.lines.remove(&id);
            return;
        }
        let cutting = std::mem::replace(&mut line.cut, true);
        if cutting {
            return;
        }
        let heard = self.dice.one_in(2).then(|| line.weather.latency + now);
        let last = lose(&mut self.dice, &mut line.ways[to as usize], heard);
        let at = last.max(now + line.weather.latency);
        events.plan(at, Event::Closed(id, to, reason));
    }

    /// Cuts a connection: of what is on its way each side gets a prefix, and notices within the
    /// idle time that there is no more.
    pub(crate) fn cut(&mut self, events: &mut Events<Event>, now: Micros, id: LineId) -> bool {
        let Some(line) = self.lines.get_mut(&id) else { return false };
        if std::mem::replace(&mut line.cut, true) {
            return false;
        }
        for side in [Side::Device, Side::Relay] {
            if line.ended[side as usize] {
                continue;
            }
            let last = lose(&mut self.dice, &mut line.ways[side as usize], None);
            let at = last.max(now) + self.dice.roll() % IDLE;
            events.plan(at, Event::Closed(id, side, None));
        }
        true
    }

    /// One end is no more; the other notices in time.
    pub(crate) fn die(&mut self, events: &mut Events<Event>, now: Micros, id: LineId, side: Side) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.ended[side as usize] = true;
        line.ways[side as usize].pieces.clear();
        if line.ended[side.other() as usize] {
            self.lines.remove(&id);
        } else {
            self.cut(events, now, id);
        }
    }

    /// A side was told of the end.
    pub(crate) fn told(&mut self, id: LineId, side: Side) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.ended[side as usize] = true;
        line.ways[side as usize].pieces.clear();
        if line.ended == [true, true] {
            self.lines.remove(&id);
        }
    }

    /// The connections to the relay that an end has.
    pub(crate) fn lines_of(&self, side: Side, device: Option<usize>) -> Vec<LineId> {
        let of =
            |line: &Line| line.other.is_none() && device.is_none_or(|device| line.device == device);
        let known = self.lines.iter().filter(|(_, line)| !line.ended[side as usize] && of(line));
        known.map(|(id, _)| *id).collect()
    }

    /// Whether anything is on its way on a connection.
    pub(crate) fn is_busy(&self, id: LineId) -> bool {
        let line = self.lines.get(&id).filter(|line| !line.cut);
        line.is_some_and(|line| line.ways.iter().any(|way| !way.pieces.is_empty()))
    }
}

/// Bytes as they arrive: mostly whole, at times in two parts.
fn parts(dice: &mut Dice, stream: u64, mut bytes: Vec<u8>) -> Vec<Arrival> {
    if bytes.len() < 2 || !dice.one_in(8) {
        return vec![Arrival::Bytes(stream, bytes)];
    }
    let rest = bytes.split_off(1 + dice.below(bytes.len() - 1));
    vec![Arrival::Bytes(stream, bytes), Arrival::Bytes(stream, rest)]
}

/// Loses what is on its way: everything that arrives after `until`, or after a piece that is drawn,
/// of which a part arrives. Returns when the last of the rest arrives.
fn lose(dice: &mut Dice, way: &mut Way, until: Option<Micros>) -> Micros {
    let mut order: Vec<(Micros, u64)> = way.pieces.iter().map(|(n, (at, _))| (*at, *n)).collect();
    order.sort_unstable();
    let kept = match until {
        Some(until) => order.iter().take_while(|(at, _)| *at <= until).count(),
        None => dice.below(order.len() + 1),
    };
    let mut last = order[..kept].last().map_or(0, |(at, _)| *at);
    // Streams are independent, but within one nothing arrives behind what is lost.
    let mut torn: Vec<u64> = Vec::new();
    for (index, (at, number)) in order.iter().enumerate().skip(kept) {
        let Some((_, arrival)) = way.pieces.get_mut(number) else { continue };
        let partial = match arrival {
            Arrival::Bytes(stream, bytes) if index == kept && !torn.contains(stream) => {
                torn.push(*stream);
                bytes.truncate(dice.below(bytes.len() + 1));
                !bytes.is_empty()
            }
            Arrival::Bytes(..) | Arrival::Finished(_) => false,
        };
        if partial {
            last = last.max(*at);
        } else {
            way.pieces.remove(number);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(network: &mut Network, events: &mut Events<Event>, id: LineId, bytes: &[u8]) {
        let what = Arrival::Bytes(3, bytes.to_vec());
        network.send(events, &mut Tally::default(), 0, (id, Side::Device), what);
    }

    fn arrived(network: &mut Network, events: &mut Events<Event>) -> (Vec<u8>, usize) {
        let (mut bytes, mut ends) = (Vec::new(), 0);
        while let Some((at, event)) = events.next(Micros::MAX) {
            ends += usize::from(matches!(event, Event::Closed(..)));
            let Event::Arrives(id, to, number) = event else { continue };
            match network.arrive(id, to, number, at) {
                Ok(Some(Arrival::Bytes(_, part))) => bytes.extend(part),
                Ok(_) => {}
                Err(until) => events.plan(until, Event::Arrives(id, to, number)),
            }
        }
        (bytes, ends)
    }

    #[test]
    fn a_stream_keeps_its_order_whatever_is_lost() {
        let mut network = Network::new(Dice::seeded(3));
        let mut events = Events::default();
        let weather = Weather { latency: 9, bandwidth: 1_000, loss: 500 };
        let id = network.open(0, [1, 1], weather, 0);
        let text: Vec<u8> = (0..200).collect();
        text.chunks(7).for_each(|part| sent(&mut network, &mut events, id, part));
        network.part(0, 50_000);
        assert_eq!(arrived(&mut network, &mut events), (text, 0));
        assert!(network.is_quiet());
    }

    #[test]
    fn a_cut_delivers_a_prefix_and_both_sides_notice() {
        let text: Vec<u8> = (0..200).collect();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut network = Network::new(Dice::seeded(seed));
            let mut events = Events::default();
            let id = network.open(0, [1, 1], Weather::FINE, 0);
            text.chunks(20).for_each(|part| sent(&mut network, &mut events, id, part));
            assert!(network.cut(&mut events, 1, id));
            let (bytes, ends) = arrived(&mut network, &mut events);
            assert!(text.starts_with(&bytes), "seed {seed}: not a prefix");
            assert_eq!(ends, 2);
            lengths.insert(bytes.len());
        }
        assert!(lengths.iter().any(|length| length % 20 != 0), "cuts fall within pieces too");
    }
}
