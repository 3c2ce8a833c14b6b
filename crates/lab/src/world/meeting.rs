//! Meetings: two devices come near each other for a while, with no relay between.
//!
//! Each side's shell does what the device library does: it hands the engine what arrives, and sends
//! what the engine lets out after its commit.

use fieldkeep_device::{Engine, Input, PeerInput, PeerOutput};
use fieldkeep_protocol::Code;

use super::network::{Arrival, LineId, Side, Weather};
use super::oracle::Checked;
use super::time::{MILLISECOND, MINUTE, Micros};
use super::{Event, World};
use crate::Dice;

/// How long after an arrival a device takes it up.
const TURN: Micros = 2 * MILLISECOND;
/// How long two devices are near each other at most.
const LONGEST: Micros = 20 * MINUTE;

impl World {
    /// A device comes near another one, by number: the next that is there.
    pub(crate) fn meets(&mut self, at: usize, other: usize, mut dice: Dice) {
        let lasts = MINUTE + dice.roll() % LONGEST;
        let count = self.devices.len();
        let runs = |at: &usize| self.devices[*at].engine.is_some();
        let met = (0..count).map(|n| (other + n) % count).find(|other| *other != at && runs(other));
        let Some(other) = met.filter(|_| runs(&at)) else { return };
        self.meet(at, other, lasts);
    }

    /// Two devices are near each other for so long.
    pub(crate) fn meet(&mut self, at: usize, other: usize, lasts: Micros) {
        let weather =
            if self.fine { Weather::FINE } else { Weather::drawn(&mut self.dice, self.lossy) };
        let lives = [self.devices[at].life, self.devices[other].life];
        let begins = self.now + 2 * weather.latency;
        let line = self.network.open_between(at, other, lives, weather, begins);
        self.figures.meetings += 1;
        self.devices[at].meetings.insert(line);
        self.devices[other].meetings.insert(line);
        self.events.plan(begins, Event::Connects(line));
        self.events.plan(begins + lasts, Event::Parts(line));
    }

    /// The device on that side of a connection between devices.
    pub(crate) fn near(&self, line: LineId, side: Side) -> Option<usize> {
        let line = self.network.line(line)?;
        let other = line.other?;
        Some(if side == Side::Device { line.device } else { other })
    }

    /// The handshake is done.
    pub(crate) fn meeting_begins(&mut self, line: LineId) -> Checked {
        for side in [Side::Device, Side::Relay] {
            let Some(at) = self.near(line, side) else { return Ok(()) };
            let Some(other) = self.near(line, side.other()) else { return Ok(()) };
            if !self.devices[at].meetings.contains(&line) || self.devices[at].engine.is_none() {
                self.network.die(&mut self.events, self.now, line, side);
                continue;
            }
            let key = self.devices[other].tls;
            let introduces = side == Side::Device;
            let connected = PeerInput::Connected { key, introduces };
            self.meeting_step(at, Input::Peer(line, connected))?;
        }
        Ok(())
    }

    fn meeting_step(&mut self, at: usize, input: Input) -> Checked {
        self.device_step(at, vec![input])?;
        self.part_where_over(at)
    }

    pub(crate) fn meeting_hears(&mut self, line: LineId, to: Side, arrival: Arrival) {
        let input = match arrival {
            Arrival::Bytes(stream, bytes) => PeerInput::Bytes(stream, bytes),
            Arrival::Finished(stream) => PeerInput::Finished(stream),
        };
        self.meeting_input(line, to, input);
    }

    /// A side is told that the other is gone.
    pub(crate) fn meeting_ends(&mut self, line: LineId, side: Side) {
        self.meeting_input(line, side, PeerInput::Closed);
        if let Some(at) = self.near(line, side) {
            self.devices[at].meetings.remove(&line);
        }
    }

    fn meeting_input(&mut self, line: LineId, side: Side, input: PeerInput) {
        let Some(at) = self.near(line, side) else { return };
        if self.devices[at].meetings.contains(&line) {
            self.devices[at].inbox.push(Input::Peer(line, input));
            self.plan_device_turn(at, TURN);
        }
    }

    /// They lose sight of each other.
    pub(crate) fn parts(&mut self, line: LineId) {
        self.network.cut(&mut self.events, self.now, line);
    }

    /// Hands what an engine lets out for a peer to the network.
    pub(crate) fn deliver_near(&mut self, at: usize, line: LineId, output: PeerOutput) {
        let Some(side) = self.side_of(line, at) else { return };
        match output {
            PeerOutput::Send(bytes) => self.send(line, side, Arrival::Bytes(0, bytes)),
            PeerOutput::Close(code, text) => {
                let reason = Some((code, text));
                self.network.close(&mut self.events, self.now, (line, side), reason);
            }
        }
    }

    fn side_of(&self, line: LineId, at: usize) -> Option<Side> {
        let sides = [Side::Device, Side::Relay];
        sides.into_iter().find(|side| self.near(line, *side) == Some(at))
    }

    /// Ends the connections whose sessions are over.
    pub(crate) fn part_where_over(&mut self, at: usize) -> Checked {
        let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(()) };
        let lines = self.devices[at].meetings.iter().copied();
        let over: Vec<LineId> = lines.filter(|line| has_begun(engine, *line)).collect();
        for line in over {
            if let Some(side) = self.side_of(line, at) {
                let reason = Some((Code::Done, "done".to_owned()));
                self.network.close(&mut self.events, self.now, (line, side), reason);
            }
            self.devices[at].meetings.remove(&line);
            self.device_step(at, vec![Input::Peer(line, PeerInput::Closed)])?;
        }
        Ok(())
    }

    /// The process on one side is no more.
    pub(crate) fn vanishes(&mut self, at: usize) {
        for line in std::mem::take(&mut self.devices[at].meetings) {
            if let Some(side) = self.side_of(line, at) {
                self.network.die(&mut self.events, self.now, line, side);
            }
        }
    }
}

/// Whether a session had begun and is over.
fn has_begun(engine: &Engine, line: LineId) -> bool {
    engine.peer_progress(line).is_ok_and(|progress| progress.is_some_and(|p| p.ended.is_some()))
}
