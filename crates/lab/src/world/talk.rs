//! What is said: which frames came to which side in which phase of a session, and which never did.
//!
//! The table of what may come is written down a second time here, apart from the product's, and
//! frames are told by their headers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::network::LineId;
use super::plan::Settings;

/// How far a session has come, as one side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The peer has not introduced itself.
    Opening,
    /// The peer is not a member.
    Stranger,
    /// The peer is a member.
    Open,
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ear {
    /// A device.
    Device,
    /// The relay.
    Relay,
    /// A device that listens to another one.
    Peer,
}

/// A frame that a side may hear in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Saying {
    /// Who hears it.
    pub ear: Ear,
    /// In which stage.
    pub stage: Stage,
    /// The frame's number.
    pub frame: u64,
}

impl fmt::Display for Saying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FRAMES.iter().find(|(number, _)| *number == self.frame);
        let name = name.map_or("unknown", |(_, name)| name);
        write!(f, "{:?}/{:?} {name}", self.ear, self.stage)
    }
}

/// Every frame, by number.
pub const FRAMES: [(u64, &str); 29] = [
    (1, "Hello"),
    (3, "Welcome"),
    (5, "Join"),
    (7, "Members"),
    (9, "Catalog"),
    (11, "Offer"),
    (13, "OfferReply"),
    (15, "Push"),
    (17, "Delta"),
    (19, "Ack"),
    (21, "Nack"),
    (23, "Credit"),
    (25, "Verdicts"),
    (27, "Proof"),
    (29, "Stats"),
    (31, "Rejudge"),
    (33, "Dismiss"),
    (35, "GoAway"),
    (37, "Error"),
    (39, "Vector"),
    (41, "Witness"),
    (43, "Meet"),
    (45, "Receipt"),
    (49, "Mode"),
    (51, "Call"),
    (53, "Outcome"),
    (55, "Ask"),
    (57, "Answer"),
    (66, "Report"),
];

/// Said to who is to come back later.
const GO_AWAY: u64 = 35;
/// Said by who leaves something out.
const MODE: u64 = 49;

/// Said where people ask the relay for something.
const CALLS: [u64; 2] = [51, 53];

/// Said where a catalog has queries: those of this world have none.
const QUESTIONS: [u64; 2] = [55, 57];

/// What an open relay hears of a member, an open device of the relay, and one of another.
const TO_RELAY: [u64; 13] = [5, 7, 11, 15, 23, 31, 33, 39, 41, MODE, 51, 55, 66];
const TO_DEVICE: [u64; 13] = [7, 9, 13, 17, 19, 21, 25, 27, 29, 35, 45, 53, 57];
const TO_PEER: [u64; 10] = [7, 9, 15, 23, 25, 27, 35, 43, 45, MODE];

/// Whether a side may hear a frame in a stage.
#[must_use]
pub fn may_hear(saying: Saying) -> bool {
    const ERROR: u64 = 37;
    let Saying { ear, stage, frame } = saying;
    match (ear, stage) {
        _ if frame == ERROR => true,
        (Ear::Device, _) if frame == GO_AWAY => true,
        (Ear::Relay, Stage::Opening) => frame == 1,
        (Ear::Relay, Stage::Stranger) => frame == 5,
        (Ear::Relay, Stage::Open) => TO_RELAY.contains(&frame),
        (Ear::Device, Stage::Opening) => frame == 3,
        (Ear::Device, Stage::Stranger) => frame == 7,
        (Ear::Device, Stage::Open) => TO_DEVICE.contains(&frame),
        (Ear::Peer, Stage::Opening) => frame == 1,
        (Ear::Peer, Stage::Stranger) => [7, 43, MODE].contains(&frame),
        (Ear::Peer, Stage::Open) => TO_PEER.contains(&frame),
    }
}

/// Everything that a side may hear.
#[must_use]
pub fn sayings() -> Vec<Saying> {
    let mut sayings = Vec::new();
    for ear in [Ear::Device, Ear::Relay, Ear::Peer] {
        for stage in [Stage::Opening, Stage::Stranger, Stage::Open] {
            let all = FRAMES.iter().map(|(frame, _)| Saying { ear, stage, frame: *frame });
            sayings.extend(all.filter(|saying| may_hear(*saying)));
        }
    }
    sayings
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard(pub BTreeSet<Saying>);

impl Heard {
    /// What a side may hear, and none did, where it heard anything. No device takes its relay for a
    /// stranger, no relay of a world sends anybody away before he is welcome, and where nobody leaves
    /// anything out nobody says so.
    #[must_use]
    pub fn missing(&self, settings: &Settings) -> Vec<Saying> {
        let ears: BTreeSet<Ear> = self.0.iter().map(|saying| saying.ear).collect();
        let never = |saying: &Saying| {
            let stranger = (saying.ear, saying.stage) == (Ear::Device, Stage::Stranger);
            let away =
                (saying.ear, saying.stage, saying.frame) == (Ear::Device, Stage::Opening, GO_AWAY);
            let mode = saying.frame == MODE && settings.pauses + settings.subscriptions == 0;
            let call = CALLS.contains(&saying.frame) && settings.calls == 0;
            let unheard = stranger || away || mode || call || QUESTIONS.contains(&saying.frame);
            unheard || !ears.contains(&saying.ear)
        };
        let all = sayings().into_iter().filter(|saying| !never(saying));
        all.filter(|saying| !self.0.contains(saying)).collect()
    }
}

/// A connection, its side by number, and what that side is.
type Listener = (LineId, usize, Ear);

/// One side of one connection.
#[derive(Debug)]
struct Listening {
    stage: Stage,
    streams: BTreeMap<u64, Tap>,
    /// Frames that overtook the introduction.
    early: Vec<u64>,
}

/// A stream whose frames are told by their headers.
#[derive(Debug, Default)]
struct Tap {
    header: Vec<u8>,
    body: u64,
}

impl Tap {
    /// The frames that end within these bytes.
    fn frames(&mut self, mut bytes: &[u8]) -> Vec<u64> {
        let mut frames = Vec::new();
        loop {
            let skipped = self.body.min(bytes.len() as u64);
            bytes = &bytes[skipped as usize..];
            self.body -= skipped;
            if self.body == 0
                && let Some((frame, 0)) = header(&self.header)
            {
                frames.push(frame);
                self.header.clear();
            }
            let Some((first, rest)) = bytes.split_first() else { return frames };
            if self.body > 0 {
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let Some((frame, length)) = header(&self.header) {
                self.body = length;
                // What is left to be read is the body: the header keeps the number alone.
                self.header = vec![frame as u8, 0];
            }
        }
    }
}

/// Number and length of a frame whose header is whole.
fn header(bytes: &[u8]) -> Option<(u64, u64)> {
    let (frame, rest) = number(bytes)?;
    let (length, _) = number(rest)?;
    Some((frame, length))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Everything that is being said.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    lines: BTreeMap<Listener, Listening>,
    pub(crate) heard: Heard,
}

impl Talk {
    /// Bytes came to a side. `member` says whether it knows who is there.
    pub(crate) fn hears(
        &mut self,
        (line, side, ear): Listener,
        stream: u64,
        bytes: &[u8],
        member: bool,
    ) {
        let listening = self.lines.entry((line, side, ear)).or_insert_with(|| Listening {
            stage: Stage::Opening,
            streams: BTreeMap::new(),
            early: Vec::new(),
        });
        let frames = listening.streams.entry(stream).or_default().frames(bytes);
        for frame in frames {
            if listening.stage == Stage::Opening && stream != 0 {
                listening.early.push(frame);
                continue;
            }
            self.heard.0.insert(Saying { ear, stage: listening.stage, frame });
            listening.stage = match (listening.stage, frame) {
                (Stage::Opening, 1) if member => Stage::Open,
                (Stage::Opening, 1) => Stage::Stranger,
                (Stage::Opening, 3) | (Stage::Stranger, 5) => Stage::Open,
                (Stage::Stranger, 7) if ear == Ear::Peer => Stage::Open,
                (stage, _) => stage,
            };
            if listening.stage != Stage::Opening {
                let stage = listening.stage;
                let early = std::mem::take(&mut listening.early).into_iter();
                self.heard.0.extend(early.map(|frame| Saying { ear, stage, frame }));
            }
        }
    }

    pub(crate) fn ends(&mut self, listener: Listener) {
        self.lines.remove(&listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_model::SegmentId;
    use fieldkeep_protocol::frame::{Credit, Frame, GoAway};

    #[test]
    fn frames_are_told_by_their_headers_however_their_bytes_are_cut() {
        let credit = Frame::Credit(Credit { segment: SegmentId([1; 16]), pos: 300 });
        let bytes = [credit.encode(), Frame::GoAway(GoAway { retry_ms: 1 }).encode(), vec![2, 0]];
        let bytes = [bytes.concat(), credit.encode()].concat();
        for cut in 0..bytes.len() {
            let mut tap = Tap::default();
            let mut frames = tap.frames(&bytes[..cut]);
            frames.extend(tap.frames(&bytes[cut..]));
            assert_eq!(frames, [23, 35, 2, 23], "cut at {cut}");
        }
    }
}
