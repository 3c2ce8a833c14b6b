//! Meeting another device: both prove who they are, bring each other what they lack of the
//! membership log, and say what they hold.

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{PublicKey, SegmentAddress, SegmentId};
use fieldkeep_protocol::frame::{self, Frame, Hello};
use fieldkeep_protocol::{Anchor, Code, Meet, Phase, Standpoint};
use fieldkeep_replica::ReplicaError;

use super::Engine;
use super::bundle::FILE;
use super::peer::{Peer, PeerId, PeerInput, PeerOutput};

/// Segments that go into one frame, unless they have many actors.
const SEGMENTS: usize = 512;
/// How often in a segment a device says anew what it holds, because what came did not fit.
const AGAIN: u32 = 16;
/// Actors of one segment that a peer may name: each device has one, and one more for each time that
/// it was copied or put back.
const STAMPS: usize = 16 * 1_024;
/// Segments that a peer may say to have and this device has not.
const EXPECTED: usize = 64 * 1_024;
/// What a device is told that was revoked.
const REVOKED: &str =
    "this device was revoked: nothing on it is lost, but it exchanges nothing any more";

impl Engine {
    /// Takes in what happens on a connection to another device.
    pub(super) fn peer(&mut self, id: PeerId, input: PeerInput) -> Result<(), ReplicaError> {
        match input {
            PeerInput::Connected { key, introduces } => self.peer_connected(id, key, introduces),
            PeerInput::Bytes(stream, bytes) => self.peer_bytes(id, stream, &bytes),
            PeerInput::Finished(stream) => {
                let peer = self.peers.get_mut(&id);
                if let Some(Err(violation)) = peer.map(|peer| peer.session.finished(stream)) {
                    self.close_peer(id, violation.code(), &violation.to_string());
                }
                Ok(())
            }
            PeerInput::Closed => {
                self.forget_peer(id);
                Ok(())
            }
        }
    }

    /// The connection to a peer is gone. Nothing is lost with it: what was not confirmed is sent to
    /// whomever lacks it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// ann.forget_peer(1);
    /// assert_eq!(ann.peer_progress(1)?, None);
    /// # Ok(()) });
    /// ```
    pub fn forget_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    fn peer_connected(
        &mut self,
        id: PeerId,
        key: PublicKey,
        introduces: bool,
    ) -> Result<(), ReplicaError> {
        let known = self.is_known(&key);
        self.paused = self.stored_pauses()?;
        self.peers.insert(id, Peer::new(key, known || introduces));
        if known || introduces {
            self.introduce(id);
        } else {
            let nothing = PeerOutput::Send(fieldkeep_protocol::NOTHING.to_vec());
            self.outputs.push(super::Output::Peer(id, nothing));
        }
        if known { self.tell_all_held(id) } else { Ok(()) }
    }

    /// Says to a peer who this device is, once.
    fn introduce(&mut self, id: PeerId) {
        let introduced = self.peers.get_mut(&id).map(|peer| &mut peer.introduced);
        if introduced.is_some_and(|introduced| !std::mem::replace(introduced, true)) {
            let hello = self.introduction();
            self.tell_peer(id, &Frame::Hello(Box::new(hello)));
        }
    }

    /// Whether a device is connected that proved that key, and was not turned away.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let key = wire.key(&ben);
    /// assert!(!ann.is_meeting(&key));
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert!(ann.is_meeting(&key));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_meeting(&self, key: &PublicKey) -> bool {
        self.peers.values().any(|peer| peer.key == *key && peer.ended.is_none())
    }

    /// How far the session with a peer has come.
    ///
    /// ```
    /// # use fieldkeep_protocol::Phase;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert_eq!(ann.phase_with(1), None);
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert_eq!(ann.phase_with(1), Some(Phase::Open)); // It has shown that it is a member.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn phase_with(&self, id: PeerId) -> Option<Phase> {
        self.peers.get(&id).map(|peer| peer.session.phase())
    }

    /// Whether that key is a device's that is a member.
    fn is_known(&self, key: &PublicKey) -> bool {
        let member = self.replica.members().by_tls(key);
        member.is_some_and(|member| !member.relay && !member.revoked)
    }

    fn peer_bytes(&mut self, id: PeerId, stream: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.bytes_received += bytes.len() as u64;
        peer.unheard = false;
        if stream != 0 {
            self.close_peer(id, Code::OutOfOrder, "devices talk on one stream");
            return Ok(());
        }
        if let Err(violation) = peer.session.receive(stream, bytes) {
            self.close_peer(id, violation.code(), &violation.to_string());
            return Ok(());
        }
        while let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.ended.is_none()) {
            match peer.session.next(stream) {
                Ok(Some(frame)) => self.peer_frame(id, frame)?,
                Ok(None) => break,
                Err(violation) => {
                    let stranger = peer.session.phase() == Phase::Stranger;
                    let code = if stranger { Code::NotAMember } else { violation.code() };
                    self.close_peer(id, code, &violation.to_string());
                }
            }
        }
        Ok(())
    }

    fn peer_frame(&mut self, id: PeerId, frame: Frame) -> Result<(), ReplicaError> {
        tracing::trace!(peer = id, frame = frame.name(), "received");
        match frame {
            Frame::Hello(hello) => self.peer_hello(id, &hello),
            Frame::Members(members) => self.peer_members(id, &members),
            Frame::Catalog(catalog) => self.peer_catalog(id, catalog),
            Frame::Mode(paused) => self.peer_mode(id, paused),
            Frame::Meet(meet) => self.meet(id, meet),
            Frame::Push(push) => self.peer_push(id, push),
            Frame::Credit(credit) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.confirm(&credit.segment, credit.pos);
                }
                Ok(())
            }
            Frame::Verdicts(verdicts) => self.peer_verdicts(id, verdicts),
            Frame::Receipt(receipt) => self.peer_receipt(id, &receipt),
            Frame::Proof(proof) => self.peer_proof(id, proof),
            Frame::GoAway(_) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.parted = true;
                    self.part_from(id);
                }
                Ok(())
            }
            Frame::Error(error) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.ended = Some((error.code, error.text));
                }
                Ok(())
            }
            Frame::Welcome(_)
            | Frame::Join(_)
            | Frame::Offer(_)
            | Frame::OfferReply(_)
            | Frame::Delta(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Stats(_)
            | Frame::Rejudge(_)
            | Frame::Dismiss(_)
            | Frame::Vector(_)
            | Frame::Witness(_)
            | Frame::Call(_)
            | Frame::Outcome(_)
            | Frame::Ask(_)
            | Frame::Answer(_)
            | Frame::Report(_)
            | Frame::Part(_) => unreachable!("the session lets no such frame in"),
        }
    }

    fn peer_hello(&mut self, id: PeerId, hello: &Hello) -> Result<(), ReplicaError> {
        if !hello.versions.contains(&fieldkeep_protocol::VERSION) {
            self.close_peer(id, Code::Version, "no common protocol version: update the software");
            return Ok(());
        }
        if hello.org != self.replica.org() {
            self.close_peer(
                id,
                Code::ForeignOrganisation,
                "this device belongs to another organisation",
            );
            return Ok(());
        }
        self.introduce(id);
        let members = self.replica.members();
        let continues = members.sum_at(hello.members) == Some(hello.members_sum());
        let length = members.len();
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.catalog = (hello.epoch, hello.catalog);
        peer.session.enter(Phase::Stranger);
        // One that holds more brings it; of two logs that have branched each gets all of the other.
        let brings = !continues && hello.members > length;
        peer.members = if continues { hello.members } else { 0 };
        let lacks = !brings && peer.members < length;
        // A stranger who has called is to show by its own entries that it belongs here, before it is
        // told who else does: it is sent none, which asks for them.
        let told = lacks && (peer.trusted || self.replica.members().by_tls(&peer.key).is_some());
        peer.united = !brings && (told || !lacks);
        if told {
            self.tell_members(id);
        } else if brings {
            peer.members = length;
        } else if lacks {
            let asks = frame::Members { base: 0, entries: Vec::new() };
            self.tell_peer(id, &Frame::Members(asks));
        }
        self.admit_peer(id, !continues)?;
        // Who had not heard of this device passed over what it said before.
        let open = self.peers.get(&id).is_some_and(|peer| peer.is_open() && peer.told);
        if told && open { self.tell_all_held(id) } else { Ok(()) }
    }

    /// Lets a peer in whose key is a member's. `may_prove` says whether it may still bring entries
    /// that make it one.
    fn admit_peer(&mut self, id: PeerId, may_prove: bool) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.ended.is_none()) else {
            return Ok(());
        };
        let Some(member) = self.replica.members().by_tls(&peer.key) else {
            if !may_prove {
                self.close_peer(id, Code::NotAMember, "who calls is no member of the organisation");
            }
            return Ok(());
        };
        if member.revoked {
            self.close_peer(id, Code::Revoked, REVOKED);
            return Ok(());
        }
        if member.relay {
            self.close_peer(id, Code::Denied, "a relay is not met as a device is");
            return Ok(());
        }
        peer.session.enter(Phase::Open);
        if peer.told { Ok(()) } else { self.tell_all_held(id) }
    }

    fn peer_members(&mut self, id: PeerId, members: &frame::Members) -> Result<(), ReplicaError> {
        let before = self.replica.members().len();
        match self.replica.append_members(&members.entries) {
            Ok(_) => {}
            Err(ReplicaError::Membership(error)) => {
                self.close_peer(id, Code::Membership, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let belongs = peer.trusted || self.replica.members().by_tls(&peer.key).is_some();
        let united = std::mem::replace(&mut peer.united, true);
        if members.base == 0 && !united && belongs {
            let entries = self.replica.members().beyond(&members.entries);
            let base = members.entries.len() as u64;
            if !entries.is_empty() {
                self.tell_peer(id, &Frame::Members(frame::Members { base, entries }));
                // Who had not heard of this device passed over what it said before.
                if self.peers.get(&id).is_some_and(|peer| peer.told) {
                    self.tell_all_held(id)?;
                }
            }
        }
        let length = self.replica.members().len();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.members = length;
        }
        self.permissions_changed(before)?;
        match self.peers.get(&id).map(|peer| peer.session.phase()) {
            // Who sends none asks for those that are here first.
            Some(Phase::Stranger) => self.admit_peer(id, members.entries.is_empty()),
            // It may have brought the entry that revokes it.
            _ => {
                self.turn_away_revoked(id);
                Ok(())
            }
        }
    }

    /// Tells a peer the entries of the membership log that it lacks.
    pub(super) fn tell_members(&mut self, id: PeerId) {
        let Some(base) = self.peers.get(&id).map(|peer| peer.members) else { return };
        let entries = self.replica.members().since(base).to_vec();
        let length = self.replica.members().len();
        if !entries.is_empty() {
            self.tell_peer(id, &Frame::Members(frame::Members { base, entries }));
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.members = length;
        }
    }

    /// Tells a peer that everything was said. It answers when what came before is on its disk.
    ///
    /// ```
    /// # use fieldkeep_device::{Output, PeerOutput};
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// ann.part_from(1);
    /// assert!(matches!(ann.commit()?[..], [Output::Peer(1, PeerOutput::Send(_))]));
    /// ann.part_from(1); // Once is enough.
    /// assert!(ann.commit()?.is_empty());
    /// # Ok(()) });
    /// ```
    pub fn part_from(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !std::mem::replace(&mut peer.parting, true) {
            self.tell_peer(id, &Frame::GoAway(frame::GoAway { retry_ms: 0 }));
        }
    }

    /// Ends the session with a peer that was revoked: it has been told.
    pub(super) fn turn_away_revoked(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if self.replica.members().by_tls(&peer.key).is_some_and(|member| member.revoked) {
            self.close_peer(id, Code::Revoked, REVOKED);
        }
    }

    /// The segments that both this device and a peer may hold, and neither has paused.
    pub(super) fn shareable(&self, id: PeerId) -> Vec<SegmentId> {
        let members = self.replica.members();
        let Some(Peer { key, paused: theirs, .. }) = self.peers.get(&id) else { return Vec::new() };
        let (Some(peer), Some(me)) =
            (members.by_tls(key), members.author(&self.replica.me().actor()))
        else {
            return Vec::new();
        };
        let (rows, nothing) = (self.replica.segments().values(), LeftOut::default());
        let both = rows.filter(|row| {
            let SegmentAddress { ty, scope, .. } = &row.address;
            // Who says nothing leaves nothing out, and is in the first generations.
            let theirs = theirs.as_ref().unwrap_or(&nothing).covers(&row.address);
            let paused = self.paused.covers(&row.address) || theirs;
            !paused && peer.may(ty, scope) && me.may(ty, scope)
        });
        both.map(|row| row.id).collect()
    }

    /// Says what is held of every segment that both may hold.
    fn tell_all_held(&mut self, id: PeerId) -> Result<(), ReplicaError> {
        if !self.paused.is_empty() {
            self.tell_peer(id, &Frame::Mode(self.paused.clone()));
        }
        self.tell_standpoints(id)
    }

    fn tell_standpoints(&mut self, id: PeerId) -> Result<(), ReplicaError> {
        let (mut meet, mut stamps) = (Meet::default(), 0);
        for segment in self.shareable(id) {
            if self.replica.segments()[&segment].tip == 0 {
                continue;
            }
            if meet.segments.len() >= SEGMENTS || stamps >= STAMPS {
                self.tell_peer(id, &Frame::Meet(std::mem::take(&mut meet)));
                stamps = 0;
            }
            let standpoint = self.standpoint(id, &segment, false)?;
            stamps += standpoint.held.stamps.len() + standpoint.aside.stamps.len();
            meet.segments.push(standpoint);
        }
        meet.whole = true;
        self.tell_peer(id, &Frame::Meet(meet));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.told = true;
        }
        Ok(())
    }

    /// What is held of a segment: from a place in the relay's log on, or all of it as a vector.
    fn standpoint(
        &mut self,
        id: PeerId,
        segment: &SegmentId,
        whole: bool,
    ) -> Result<Standpoint, ReplicaError> {
        let (anchor, held) = if whole {
            let shared = self.peers.get(&id).and_then(|peer| peer.shared.get(segment));
            let branches = shared.map(|shared| shared.branches.clone()).unwrap_or_default();
            (None, self.replica.held_within(segment, &branches)?)
        } else {
            self.replica.held_beyond(segment)?
        };
        let anchor = anchor.map(|(pos, chain)| Anchor { pos, chain });
        let aside = self.replica.held_aside(segment)?;
        let judged = self.replica.judged(segment)?;
        if let Some(peer) = self.peers.get_mut(&id) {
            let shared = peer.shared.entry(*segment).or_default();
            shared.told_vector = anchor.is_none();
            // What it sends is measured by what it was told first: the rest may cross on the way.
            if !std::mem::replace(&mut shared.told, true) {
                shared.judged_told = judged;
            }
        }
        Ok(Standpoint { segment: *segment, anchor, held, aside, judged })
    }

    /// Says anew, in full, what is held of a segment, because what came does not fit what is here.
    /// Returns whether that may still help.
    pub(super) fn tell_again(
        &mut self,
        id: PeerId,
        segment: &SegmentId,
    ) -> Result<bool, ReplicaError> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(false) };
        let shared = peer.shared.entry(*segment).or_default();
        shared.told_again += 1;
        // Who brings a file cannot be told.
        if id == FILE || shared.told_again > AGAIN || self.replica.segment(segment).is_none() {
            return Ok(false);
        }
        let standpoint = self.standpoint(id, segment, true)?;
        self.tell_peer(id, &Frame::Meet(Meet { segments: vec![standpoint], whole: false }));
        Ok(true)
    }

    /// A peer has paused types: what is held of them is not exchanged, and what was said of it before
    /// is void.
    fn peer_mode(&mut self, id: PeerId, paused: LeftOut) -> Result<(), ReplicaError> {
        let before = self.shareable(id);
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        // Each change of it has everything told anew.
        if peer.paused.as_ref().is_some_and(|before| *before != paused) {
            self.close_peer(
                id,
                Code::OutOfOrder,
                "what is paused does not change within a session",
            );
            return Ok(());
        }
        peer.paused = Some(paused);
        peer.expected.clear();
        peer.met = false;
        if peer.told && self.shareable(id) != before {
            self.tell_peer(id, &Frame::Mode(self.paused.clone()));
            self.tell_standpoints(id)?;
        }
        Ok(())
    }

    fn meet(&mut self, id: PeerId, meet: Meet) -> Result<(), ReplicaError> {
        let open = self.peers.get(&id).is_some_and(Peer::is_open);
        if !open {
            // It does not know that it is not known here; it says this again.
            return Ok(());
        }
        let shareable = self.shareable(id);
        for standpoint in meet.segments {
            let segment = standpoint.segment;
            let stamps = standpoint.held.stamps.len() + standpoint.aside.stamps.len();
            let expected = self.peers.get(&id).map_or(0, |peer| peer.expected.len());
            if stamps > STAMPS || expected > EXPECTED {
                let text = "more segments, or more actors in one, than any organisation has";
                self.close_peer(id, Code::TooLong, text);
                return Ok(());
            }
            if self.replica.segment(&segment).is_none() {
                let peer = self.peers.get_mut(&id).expect("it is open");
                let holds = standpoint.anchor.is_some() || !standpoint.held.stamps.is_empty();
                if holds {
                    peer.expected.insert(segment);
                }
                continue;
            }
            if !shareable.contains(&segment) {
                if !self.peer_may(id, &segment) {
                    let text = "a device offers what it was not granted";
                    self.close_peer(id, Code::Denied, text);
                    return Ok(());
                }
                continue;
            }
            self.compare(id, standpoint)?;
        }
        if meet.whole {
            let peer = self.peers.get_mut(&id).expect("it is open");
            if !std::mem::replace(&mut peer.met, true) {
                let member = self.replica.members().by_tls(&peer.key);
                let name = member.map(|member| member.name.clone()).unwrap_or_default();
                self.outputs.push(super::Output::Met(name));
            }
            let peer = self.peers.get_mut(&id).expect("it is open");
            for segment in shareable {
                let shared = peer.shared.entry(segment).or_default();
                // Told of with another place in the relay's log: its vector comes.
                if shared.known.is_none() && !shared.waits_for_vector {
                    shared.known = Some(Default::default());
                }
            }
        }
        Ok(())
    }

    /// Whether a peer's grants reach a segment that is here.
    pub(super) fn peer_may(&self, id: PeerId, segment: &SegmentId) -> bool {
        let row = self.replica.segment(segment);
        let member = self.peers.get(&id).and_then(|p| self.replica.members().by_tls(&p.key));
        row.zip(member).is_some_and(|(row, m)| m.may(&row.address.ty, &row.address.scope))
    }

    /// Compares what a peer holds of a segment with what is here.
    fn compare(&mut self, id: PeerId, theirs: Standpoint) -> Result<(), ReplicaError> {
        let Standpoint { segment, anchor, held, aside, judged } = theirs;
        let me = self.replica.me().actor();
        if held.seq(&me) > 0 && held.seq(&me) > self.replica.vector(&segment)?.seq(&me) {
            tracing::warn!(%segment, "another device knows later changes of this one: it was restored");
            self.replica.renew_incarnation()?;
        }
        let place = anchor.map(|anchor| (anchor.pos, anchor.chain));
        let known = self.replica.known_by(&segment, place, &held, &aside)?;
        let branched = self.replica.branched(&segment)?;
        let row = &self.replica.segments()[&segment];
        let (tip, nothing_beyond) = (row.tip, row.tip == row.cursor.pos);
        let epoch = row.cursor.epoch;
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let shared = peer.shared.entry(segment).or_default();
        shared.judged = judged.max(shared.judged);
        shared.seen = None;
        // It cannot tell what is meant by a place in a log that it does not know.
        let asks = known.is_none() || anchor.is_none();
        if asks && !shared.told_vector {
            let standpoint = self.standpoint(id, &segment, true)?;
            self.tell_peer(id, &Frame::Meet(Meet { segments: vec![standpoint], whole: false }));
        }
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let shared = peer.shared.entry(segment).or_default();
        let Some(known) = known else {
            shared.waits_for_vector = true;
            return Ok(());
        };
        if shared.known.is_some() && anchor.is_some() {
            // It said so before this device knew it.
            return Ok(());
        }
        let equal = anchor.is_some() && held.stamps.is_empty() && nothing_beyond;
        let nothing_aside = branched.is_empty() && aside.stamps.is_empty();
        shared.agreed = (equal && nothing_aside).then_some(tip);
        if equal {
            shared.sent = tip;
            shared.proved = Some(tip);
        } else {
            shared.sent = 0;
        }
        shared.forked.extend(known.forked.keys());
        shared.forked.extend(branched);
        let named = shared.branches.clone();
        shared.branches.extend(known.forked);
        let another = shared.branches != named;
        shared.place = anchor.map(|anchor| (epoch, anchor.pos));
        shared.known = Some(known.newest);
        shared.waits_for_vector = false;
        if another {
            self.tell_again(id, &segment)?;
        }
        Ok(())
    }

    /// Sends a peer a frame.
    pub(super) fn tell_peer(&mut self, id: PeerId, frame: &Frame) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.ended.is_none()) else {
            return;
        };
        tracing::trace!(peer = id, frame = frame.name(), "sent");
        peer.tells(frame);
        let bytes = frame.encode();
        peer.bytes_sent += bytes.len() as u64;
        self.outputs.push(super::Output::Peer(id, PeerOutput::Send(bytes)));
    }

    /// Ends the sessions with all peers: nothing could be saved.
    pub(super) fn close_peers(&mut self, text: &str) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.close_peer(id, Code::Storage, text);
        }
    }

    pub(super) fn close_peer(&mut self, id: PeerId, code: Code, text: &str) {
        // On a network with other organisations strangers pass by all the time.
        if self.phase_with(id) == Some(Phase::Open) && code != Code::Done {
            tracing::warn!(peer = id, ?code, text, "the session with a device ends");
        } else {
            tracing::debug!(peer = id, ?code, text, "a stranger is turned away");
        }
        let error = frame::ErrorFrame { code, text: text.to_owned() };
        self.tell_peer(id, &Frame::Error(error));
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.ended.is_none()) else {
            return;
        };
        peer.ended = Some((code, text.to_owned()));
        peer.session.enter(Phase::Closed);
        self.outputs.push(super::Output::Peer(id, PeerOutput::Close(code, text.to_owned())));
    }
}
