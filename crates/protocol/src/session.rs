//! Sessions: which frame may come when, on either side of a connection.
//!
//! A session turns the bytes of a connection's streams into frames and refuses what is malformed,
//! too long or out of order. Every pair of phase and frame is defined by [`Phase::allows`].

use std::collections::BTreeMap;

use fieldkeep_model::Signed;

use crate::frame::{Code, DecodeError, Frame, FrameBuffer, Members};

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dials, offers, pushes.
    Device,
    /// Listens, answers, judges.
    Relay,
    /// A device that exchanges with another one: both sides introduce themselves, and say the same.
    Peer,
}

/// How far a session has come, as this side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The peer has not introduced itself.
    Opening,
    /// The peer is not a member: it may join and nothing else.
    Stranger,
    /// The peer is a member; everything may come.
    Open,
    /// Over.
    Closed,
}

impl Phase {
    /// Whether that side may receive that frame in this phase.
    #[must_use]
    pub fn allows(self, role: Role, frame: &Frame) -> bool {
        use Frame::{
            Ack, Answer, Ask, Call, Catalog, Credit, Delta, Dismiss, Error, GoAway, Hello, Join,
            Meet, Members, Mode, Nack, Offer, OfferReply, Outcome, Part, Proof, Push, Receipt,
            Rejudge, Report, Stats, Vector, Verdicts, Welcome, Witness,
        };
        match (role, frame) {
            (_, Error(_)) => self != Self::Closed,
            (Role::Relay | Role::Peer, Hello(_)) | (Role::Device, Welcome(_)) => {
                self == Self::Opening
            }
            // Who has brought more than he may is sent away before he is welcome, too.
            (Role::Device, GoAway(_)) => self != Self::Closed,
            (_, Part(_)) => matches!(self, Self::Stranger | Self::Open),
            // One that was forgotten may have been brought back by another meanwhile; who meets a
            // device that has not heard of it yet says so, and says again what it holds.
            (Role::Relay, Join(_))
            | (Role::Device, Members(_))
            | (Role::Peer, Members(_) | Meet(_) | Mode(_)) => {
                matches!(self, Self::Stranger | Self::Open)
            }
            (
                Role::Relay,
                Members(_) | Offer(_) | Push(_) | Credit(_) | Rejudge(_) | Dismiss(_) | Vector(_)
                | Witness(_) | Mode(_) | Call(_) | Ask(_) | Report(_),
            )
            | (
                Role::Device,
                Catalog(_) | OfferReply(_) | Delta(_) | Ack(_) | Nack(_) | Verdicts(_) | Proof(_)
                | Stats(_) | Receipt(_) | Outcome(_) | Answer(_),
            )
            | (
                Role::Peer,
                Catalog(_) | Push(_) | Credit(_) | Verdicts(_) | Receipt(_) | Proof(_) | GoAway(_),
            ) => self == Self::Open,
            (
                Role::Relay,
                Welcome(_) | Catalog(_) | OfferReply(_) | Delta(_) | Ack(_) | Nack(_) | Verdicts(_)
                | Proof(_) | Stats(_) | GoAway(_) | Meet(_) | Receipt(_) | Outcome(_) | Answer(_),
            )
            | (
                Role::Device,
                Hello(_) | Join(_) | Offer(_) | Push(_) | Credit(_) | Rejudge(_) | Dismiss(_)
                | Vector(_) | Witness(_) | Meet(_) | Mode(_) | Call(_) | Ask(_) | Report(_),
            )
            | (
                Role::Peer,
                Welcome(_) | Join(_) | Offer(_) | OfferReply(_) | Delta(_) | Ack(_) | Nack(_)
                | Stats(_) | Rejudge(_) | Dismiss(_) | Vector(_) | Witness(_) | Call(_)
                | Outcome(_) | Ask(_) | Answer(_) | Report(_),
            ) => false,
        }
    }
}

/// Why a session has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] DecodeError),
    /// A frame that may not come now.
    #[error("a {0} frame may not come now")]
    OutOfOrder(&'static str),
    /// A stream that ended within a frame.
    #[error("a stream ended within a frame")]
    CutShort,
    /// More streams at once than allowed.
    #[error("too many streams at once")]
    Streams,
    /// More data than may come before the peer has introduced itself.
    #[error("too much before an introduction")]
    Unintroduced,
}

impl Violation {
    /// The code under which the session is closed.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Frame(error) => error.code(),
            Self::OutOfOrder(_) => Code::OutOfOrder,
            Self::CutShort => Code::Malformed,
            Self::Streams | Self::Unintroduced => Code::Busy,
        }
    }
}

/// One side of a connection.
#[derive(Debug)]
pub struct Session {
    role: Role,
    phase: Phase,
    frame_max: u32,
    early: usize,
    /// Entries that the next frame of their kind begins with, and their bytes.
    parts: Vec<Signed>,
    parts_size: usize,
    streams: BTreeMap<u64, FrameBuffer>,
}

impl Session {
    /// Streams that a peer may have under way at once, the control stream among them.
    pub const STREAMS: usize = 65;
    /// Bytes that may come before the peer has introduced itself: streams overtake each other.
    const EARLY: usize = 2 * 1024 * 1024;
    /// Bytes of a membership log that may come at once: tens of thousands of entries.
    const MEMBERS: usize = 16 * 1024 * 1024;
    /// The same from a stranger.
    const STRANGER_MEMBERS: usize = 2 * 1024 * 1024;
    /// The frames of somebody who has not introduced himself are short.
    const EARLY_FRAME_MAX: u32 = 64 * 1024;

    /// A session whose connection has just been made.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            phase: Phase::Opening,
            frame_max: Self::EARLY_FRAME_MAX,
            early: 0,
            parts: Vec::new(),
            parts_size: 0,
            streams: BTreeMap::new(),
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Goes on to the next phase.
    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        // A device whom the relay has forgotten brings its part of the membership log.
        if matches!(phase, Phase::Stranger | Phase::Open) {
            self.frame_max = crate::FRAME_MAX;
        }
        if phase == Phase::Closed {
            self.streams.clear();
            self.parts = Vec::new();
        }
    }

    /// Takes in bytes of a stream. Frames come out of [`Session::next`], one at a time, because
    /// each may change the phase.
    ///
    /// # Errors
    /// [`Violation::Streams`] when too many streams are under way, [`Violation::Unintroduced`] when
    /// too much comes before the peer's first frame.
    pub fn receive(&mut self, stream: u64, bytes: &[u8]) -> Result<(), Violation> {
        if self.phase == Phase::Opening {
            self.early += bytes.len();
            if self.early > Self::EARLY {
                return Err(Violation::Unintroduced);
            }
        }
        if !self.streams.contains_key(&stream) && self.streams.len() >= Self::STREAMS {
            return Err(Violation::Streams);
        }
        self.streams.entry(stream).or_default().push(bytes);
        Ok(())
    }

    /// The streams with bytes that are not a frame yet, or that wait for the introduction.
    #[must_use]
    pub fn waiting(&self) -> Vec<u64> {
        self.streams.keys().copied().collect()
    }

    /// The next frame of a stream, if a whole one has arrived. Before the peer has introduced itself
    /// only the control stream is read: what overtook it waits.
    ///
    /// # Errors
    /// Any violation; the session is of no use after that.
    pub fn next(&mut self, stream: u64) -> Result<Option<Frame>, Violation> {
        loop {
            match self.next_part(stream)? {
                Some(Frame::Part(part)) => self.keep_part(part)?,
                Some(Frame::Members(members)) => {
                    return Ok(Some(Frame::Members(self.whole(members))));
                }
                Some(Frame::Join(members)) => return Ok(Some(Frame::Join(self.whole(members)))),
                other => return Ok(other),
            }
        }
    }

    /// Keeps entries until the frame comes that they belong to.
    fn keep_part(&mut self, part: Members) -> Result<(), Violation> {
        self.parts_size += part.size();
        // Who listens has many strangers at once.
        let stranger = self.role != Role::Device && self.phase == Phase::Stranger;
        if self.parts_size > if stranger { Self::STRANGER_MEMBERS } else { Self::MEMBERS } {
            return Err(DecodeError::TooLong(self.parts_size as u64).into());
        }
        self.parts.extend(part.entries);
        Ok(())
    }

    /// Puts the entries that were kept before those that came.
    fn whole(&mut self, members: Members) -> Members {
        self.parts_size = 0;
        let mut entries = std::mem::take(&mut self.parts);
        entries.extend(members.entries);
        Members { base: members.base, entries }
    }

    fn next_part(&mut self, stream: u64) -> Result<Option<Frame>, Violation> {
        if self.phase == Phase::Opening && stream != 0 {
            return Ok(None);
        }
        let Some(buffer) = self.streams.get_mut(&stream) else { return Ok(None) };
        let Some(frame) = buffer.next(self.frame_max)? else {
            if !buffer.is_partial() {
                self.streams.remove(&stream);
            }
            return Ok(None);
        };
        if self.phase.allows(self.role, &frame) {
            Ok(Some(frame))
        } else {
            Err(Violation::OutOfOrder(frame.name()))
        }
    }

    /// A stream has ended.
    ///
    /// # Errors
    /// [`Violation::CutShort`] when it ended within a frame.
    pub fn finished(&mut self, stream: u64) -> Result<(), Violation> {
        if self.phase == Phase::Opening {
            return Ok(());
        }
        match self.streams.remove(&stream) {
            Some(buffer) if buffer.is_partial() => Err(Violation::CutShort),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Credit, ErrorFrame, GoAway};
    use fieldkeep_model::SegmentId;

    fn credit() -> Frame {
        Frame::Credit(Credit { segment: SegmentId([1; 16]), pos: 9 })
    }

    fn log(entries: usize) -> Members {
        let entry = |n: usize| Signed {
            bytes: vec![n as u8; 200 + n % 100],
            signature: fieldkeep_model::Signature([n as u8; 64]),
        };
        Members { base: 7, entries: (0..entries).map(entry).collect() }
    }

    #[test]
    fn a_membership_log_that_is_too_long_for_a_frame_comes_whole() {
        for entries in [0, 1, 1_000, 1_600, 30_000] {
            for frame in [Frame::Members(log(entries)), Frame::Join(log(entries))] {
                let role = if frame.name() == "Join" { Role::Relay } else { Role::Peer };
                let mut session = Session::new(role);
                session.enter(Phase::Open);
                for part in frame.encode().chunks(100_000) {
                    session.receive(0, part).expect("one stream");
                }
                assert_eq!(session.next(0), Ok(Some(frame)));
                assert_eq!(session.next(0), Ok(None));
            }
        }
    }

    #[test]
    fn what_a_stranger_brings_in_parts_is_bounded() {
        let mut session = Session::new(Role::Relay);
        session.enter(Phase::Stranger);
        for part in Frame::Join(log(10_000)).encode().chunks(100_000) {
            session.receive(0, part).expect("one stream");
        }
        assert!(matches!(session.next(0), Err(Violation::Frame(DecodeError::TooLong(_)))));
    }

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        let bytes = [credit().encode(), credit().encode()].concat();
        for cut in 0..bytes.len() {
            let mut session = Session::new(Role::Relay);
            session.enter(Phase::Open);
            let mut frames = 0;
            for part in [&bytes[..cut], &bytes[cut..]] {
                session.receive(3, part).expect("one stream");
                while session.next(3).expect("sound frames").is_some() {
                    frames += 1;
                }
            }
            assert_eq!(frames, 2);
            assert_eq!(session.finished(3), Ok(()));
        }
    }

    #[test]
    fn a_stranger_may_join_and_nothing_else() {
        let mut session = Session::new(Role::Relay);
        session.enter(Phase::Stranger);
        session.receive(0, &credit().encode()).expect("one stream");
        assert_eq!(session.next(0), Err(Violation::OutOfOrder("Credit")));
    }

    #[test]
    fn unknown_even_frames_are_skipped_and_unknown_odd_ones_end_the_session() {
        let mut session = Session::new(Role::Relay);
        session.enter(Phase::Open);
        let skipped = [vec![100, 2, 1, 1], credit().encode()].concat();
        session.receive(0, &skipped).expect("one stream");
        assert_eq!(session.next(0), Ok(Some(credit())));
        session.receive(0, &[101, 0]).expect("one stream");
        assert_eq!(session.next(0).map_err(|v| v.code()), Err(Code::UnknownFrame));
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_read() {
        let mut session = Session::new(Role::Relay);
        session.receive(0, &[1, 0xff, 0xff, 0xff, 0x7f]).expect("one stream");
        assert_eq!(session.next(0).map_err(|v| v.code()), Err(Code::TooLong));
    }

    #[test]
    fn each_side_refuses_what_only_the_other_may_receive() {
        let goaway = Frame::GoAway(GoAway { retry_ms: 1 });
        for phase in [Phase::Opening, Phase::Stranger, Phase::Open] {
            assert!(phase.allows(Role::Device, &goaway));
        }
        assert!(!Phase::Open.allows(Role::Relay, &goaway));
        assert!(!Phase::Open.allows(Role::Device, &credit()));
        let error = Frame::Error(ErrorFrame { code: Code::Busy, text: String::new() });
        for phase in [Phase::Opening, Phase::Stranger, Phase::Open] {
            assert!(phase.allows(Role::Relay, &error) && phase.allows(Role::Device, &error));
        }
    }

    #[test]
    fn close_codes_survive_their_number() {
        for number in 0..=18 {
            assert_eq!(Code::from_number(number).map(Code::number), Some(number));
        }
        assert_eq!(Code::from_number(1000), None);
    }
}
