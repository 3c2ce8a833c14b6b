//! A connection as the engine knows it.

use std::collections::{BTreeMap, VecDeque};

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{ActorId, DeviceNumber, Pos, PublicKey, SegmentId, Seq};
use fieldkeep_protocol::{Role, Session};
use fieldkeep_store::Contact;

use super::traces::Traced;

/// A peer and what it follows.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) session: Session,
    /// The key that its connection proved.
    pub(crate) key: PublicKey,
    pub(crate) member: Option<DeviceNumber>,
    pub(crate) actor: Option<ActorId>,
    /// The number of the catalog that it holds.
    pub(crate) catalog: u64,
    /// What it runs, as it says.
    pub(crate) software: String,
    /// Whether it takes receipts as signed statements.
    pub(crate) receipts: bool,
    /// The newest epoch that it knows.
    pub(crate) epoch: fieldkeep_model::Epoch,
    /// How many entries of the membership log it holds.
    pub(crate) members: u64,
    pub(crate) following: BTreeMap<SegmentId, Following>,
    /// Bytes of log that were sent and not confirmed, over all segments.
    pub(crate) outstanding: u64,
    pub(crate) next_stream: u64,
    /// Whether its offer was answered: before that nothing is sent.
    pub(crate) offered: bool,
    /// The types of which it wants nothing but counts.
    pub(crate) left_out: LeftOut,
    /// The counts that it was told last.
    pub(crate) stats: Option<fieldkeep_protocol::frame::Stats>,
    /// Its questions that are under way.
    pub(crate) asks: usize,
    /// When it introduced itself, milliseconds UTC.
    pub(crate) came: i64,
    /// Its visit, as far as it is a member.
    pub(crate) contact: Option<Contact>,
    /// Since when, and why, it does not get all that it follows.
    pub(crate) lacking: Option<(i64, String)>,
    /// Its trace, if it was drawn.
    pub(super) trace: Option<Traced>,
}

/// Where a peer stands in a segment.
#[derive(Debug, Default)]
pub(crate) struct Following {
    pub(crate) sent: Pos,
    pub(crate) confirmed: Pos,
    /// What is on its way: the last position and the bytes of each frame.
    pub(crate) in_flight: VecDeque<(Pos, u64)>,
    /// Whether what is on its way went out on the live stream.
    pub(crate) live: bool,
    /// The stream that carries what the peer missed.
    pub(crate) stream: Option<u64>,
    pub(crate) verdict: u64,
    pub(crate) judged: Pos,
    /// Position and verdict number of the last proof.
    pub(crate) proved: Option<(Pos, u64)>,
    /// Whether the peer knows what the segment holds.
    pub(crate) introduced: bool,
    /// Waits for the peer's vector.
    pub(crate) paused: bool,
    /// Through which seq the peer is known to hold an actor's changes.
    pub(crate) known: BTreeMap<ActorId, Seq>,
}

impl Peer {
    pub(crate) fn new(key: PublicKey) -> Self {
        Self {
            session: Session::new(Role::Relay),
            key,
            member: None,
            actor: None,
            catalog: 0,
            software: String::new(),
            receipts: false,
            epoch: fieldkeep_model::Epoch::default(),
            members: 0,
            following: BTreeMap::new(),
            outstanding: 0,
            next_stream: 2,
            offered: false,
            left_out: LeftOut::default(),
            stats: None,
            asks: 0,
            came: 0,
            contact: None,
            lacking: None,
            trace: None,
        }
    }

    /// Takes back that it follows a segment, and what is on its way of it.
    pub(super) fn unfollow(&mut self, segment: &SegmentId) {
        if let Some(before) = self.following.remove(segment) {
            let bytes: u64 = before.in_flight.iter().map(|(_, bytes)| bytes).sum();
            self.outstanding = self.outstanding.saturating_sub(bytes);
        }
    }

    /// Notes that the peer holds an actor's changes through a seq.
    pub(crate) fn learn(&mut self, segment: &SegmentId, actor: ActorId, seq: Seq) {
        if let Some(following) = self.following.get_mut(segment) {
            let known = following.known.entry(actor).or_default();
            *known = seq.max(*known);
        }
    }

    /// Notes that the peer has durably applied a segment's log through a position.
    pub(crate) fn confirm(&mut self, segment: &SegmentId, pos: Pos) {
        let Some(following) = self.following.get_mut(segment) else { return };
        following.confirmed = following.confirmed.max(pos.min(following.sent));
        while let Some((last, bytes)) = following.in_flight.front().copied() {
            if last > pos {
                break;
            }
            following.in_flight.pop_front();
            following.live &= !following.in_flight.is_empty();
            self.outstanding = self.outstanding.saturating_sub(bytes);
        }
    }
}
