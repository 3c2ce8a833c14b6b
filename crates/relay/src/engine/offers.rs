//! Offers: how a device's cursors stand to the relay's logs.

use std::collections::BTreeMap;

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{Epoch, Member, SegmentId};
use fieldkeep_protocol::frame::{
    Credit, Frame, OfferAnswer, OfferReply, SegmentRef, Standing, Vector,
};
use fieldkeep_protocol::offer::short;
use fieldkeep_protocol::{Code, Offer, OfferEntry};
use fieldkeep_replica::ReplicaError;

use super::peer::Following;
use super::{ConnectionId, Engine};

impl Engine {
    /// A device wants nothing of some types but their counts; it says so before it offers.
    pub(super) fn mode(&mut self, id: ConnectionId, left_out: LeftOut) {
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        if peer.offered {
            return self.close(id, Code::OutOfOrder, "what is left out is said before the offer");
        }
        // One that has no catalog is in no generation: it follows the one in force.
        let generations = std::mem::take(&mut peer.left_out.generations);
        peer.left_out = left_out;
        if peer.catalog == 0 {
            peer.left_out.generations = generations;
        }
    }

    pub(super) fn offer(&mut self, id: ConnectionId, offer: &Offer) -> Result<(), ReplicaError> {
        let Some(entries) = offer.entries() else {
            self.close(id, Code::Malformed, "an offer that does not decode");
            return Ok(());
        };
        let member = self.member(id);
        let mut offered: BTreeMap<[u8; 8], OfferEntry> =
            entries.into_iter().map(|entry| (entry.segment, entry)).collect();
        let mut answers = Vec::new();
        let ids: Vec<SegmentId> = self.replica.segments().keys().copied().collect();
        for segment in ids {
            let row = &self.replica.segments()[&segment];
            let may = member.may(&row.address.ty, &row.address.scope);
            // Where something was only kept aside nothing is in the log: what is offered of it was lost.
            if may && row.tip == 0 {
                continue;
            }
            let entry = offered.remove(&short(&segment.0));
            if !may {
                answers.extend(entry.map(|_| denied(segment)));
            } else if !self.peers[&id].left_out.covers(&row.address) {
                match self.answer(id, segment, entry, offer.epoch) {
                    Err(error) if error.is_damage() => {
                        answers.push(self.unread(segment, entry));
                        self.lacks(id, &segment, &error);
                    }
                    answer => answers.extend(answer?),
                }
            }
        }
        // What the relay has never heard of, or has lost.
        for entry in offered.into_values().filter(|entry| entry.pos > 0) {
            if let Some(archived) = self.replica.archived_beginning(&entry.segment) {
                answers.push(denied(archived));
                continue;
            }
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&entry.segment);
            answers.push(OfferAnswer {
                segment: SegmentRef { id: SegmentId(bytes), address: None },
                standing: Standing::Reset,
                tip: 0,
                own_seq: 0,
                vector: Some(Default::default()),
                own_hash: None,
            });
        }
        // With the answer a session may be over: whoever ends it then knows how much there is.
        self.tell_stats(id)?;
        let root = self.root_for(id);
        let epoch = self.replica.epoch();
        let reply = OfferReply { epoch, root, segments: answers, round: offer.round };
        self.control(id, &Frame::OfferReply(reply));
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        peer.offered = true;
        let following: Vec<_> = peer.following.keys().copied().collect();
        for segment in following {
            self.pump(id, &segment)?;
        }
        Ok(())
    }

    /// The answer where a segment cannot be read: none would say that both hold the same.
    fn unread(&self, segment: SegmentId, entry: Option<OfferEntry>) -> OfferAnswer {
        let row = &self.replica.segments()[&segment];
        let address = entry.is_none().then(|| row.address.clone());
        OfferAnswer {
            segment: SegmentRef { id: segment, address },
            standing: Standing::Behind,
            tip: row.tip,
            own_seq: entry.map_or(0, |entry| entry.own_seq),
            vector: None,
            own_hash: None,
        }
    }

    fn answer(
        &mut self,
        id: ConnectionId,
        segment: SegmentId,
        entry: Option<OfferEntry>,
        epoch: Epoch,
    ) -> Result<Option<OfferAnswer>, ReplicaError> {
        let row = &self.replica.segments()[&segment];
        let (sid, tip, address) = (row.sid, row.tip, row.address.clone());
        let (verdict, judged) = (row.verdict, row.judged);
        let same_epoch = epoch == self.replica.epoch();
        let mut following = Following { introduced: entry.is_some(), ..Following::default() };
        let mut standing = Standing::Behind;
        let own_seq = match self.peers[&id].actor {
            Some(actor) => self.newest_of(sid, &actor)?,
            None => 0,
        };
        let mut vector = None;
        if let Some(entry) = entry {
            let chain = self.replica.chain_at(&segment, entry.pos)?;
            if chain.is_some_and(|chain| short(&chain.0) == entry.chain) {
                (following.sent, following.confirmed) = (entry.pos, entry.pos);
                if same_epoch {
                    (following.verdict, following.judged) = (entry.verdict, entry.judged);
                }
                if entry.pos == tip {
                    standing = Standing::Same;
                }
            } else {
                standing = Standing::Reset;
                following.paused = true;
                vector = Some(self.replica.vector(&segment)?);
            }
            if let Some(actor) = self.peers[&id].actor {
                following.known.insert(actor, entry.own_seq);
            }
            let in_sync = standing == Standing::Same
                && same_epoch
                && (entry.verdict, entry.judged) == (verdict, judged)
                && judged == tip
                && entry.own_seq == own_seq
                && !self.replica.is_renewing_in(&segment);
            if in_sync {
                following.proved = Some((tip, verdict));
                self.subscribe(id, segment, following);
                return Ok(None);
            }
        }
        let receipts = entry.map_or(0, |entry| entry.own_seq);
        let own_hash = match self.peers[&id].actor.filter(|_| own_seq > receipts) {
            Some(actor) => self.replica.hash_of(&segment, &actor, own_seq)?,
            None => None,
        };
        let address = (!following.introduced).then_some(address);
        following.introduced = true;
        self.subscribe(id, segment, following);
        let segment = SegmentRef { id: segment, address };
        Ok(Some(OfferAnswer { segment, standing, tip, own_seq, vector, own_hash }))
    }

    pub(super) fn subscribe(&mut self, id: ConnectionId, segment: SegmentId, following: Following) {
        self.followers.entry(segment).or_default().insert(id);
        let peer = self.peers.get_mut(&id).expect("it offers");
        peer.unfollow(&segment);
        peer.following.insert(segment, following);
    }

    /// Lets every member who may read a segment follow it, from its beginning: it is new.
    pub(super) fn follow_everyone(&mut self, segment: &SegmentId) -> Result<(), ReplicaError> {
        let address = self.replica.segments()[segment].address.clone();
        let mut news = Vec::new();
        for (id, peer) in &self.peers {
            let member = self.replica.members().by_tls(&peer.key);
            let may = member.is_some_and(|member| member.may(&address.ty, &address.scope));
            let whole = peer.offered && peer.lacking.is_none();
            let wants = whole && !peer.left_out.covers(&address);
            if wants && may && !peer.following.contains_key(segment) {
                news.push(*id);
            }
        }
        for id in news {
            self.subscribe(id, *segment, Following::default());
        }
        Ok(())
    }

    pub(super) fn vector(&mut self, id: ConnectionId, vector: Vector) -> Result<(), ReplicaError> {
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        let Some(following) = peer.following.get_mut(&vector.segment) else { return Ok(()) };
        following.paused = false;
        let held = self.replica.vector(&vector.segment)?;
        let agreed = self.replica.agrees(&vector.segment, &vector.vector)?;
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        if let Some(following) = peer.following.get_mut(&vector.segment) {
            // A peer that holds less than the relay must hold the same; one that holds more has
            // compared what the relay told it.
            let known = vector.vector.stamps.iter().filter(|(actor, stamp)| {
                stamp.seq > held.seq(actor) || agreed.stamps.contains_key(*actor)
            });
            following.known = known.map(|(actor, stamp)| (*actor, stamp.seq)).collect();
        }
        self.pump(id, &vector.segment)
    }

    pub(super) fn credit(&mut self, id: ConnectionId, credit: Credit) {
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        peer.confirm(&credit.segment, credit.pos);
        // What was held back by the window, in this segment or another, may go now.
        let waiting: Vec<_> = peer
            .following
            .iter()
            .filter(|(segment, following)| {
                let tip = self.replica.segment(segment).map_or(0, |row| row.tip);
                following.sent < tip || **segment == credit.segment
            })
            .map(|(segment, _)| *segment)
            .collect();
        self.moved.extend(waiting);
    }

    pub(super) fn member(&self, id: ConnectionId) -> Member {
        let key = &self.peers[&id].key;
        self.replica.members().by_tls(key).expect("members stay members").clone()
    }

    /// The digest of where a peer's logs end, of the generations that it is in.
    pub(super) fn root_for(&self, id: ConnectionId) -> [u8; 16] {
        let (member, left_out) = (self.member(id), &self.peers[&id].left_out);
        let granted = self.replica.segments().values().filter(|row| {
            member.may(&row.address.ty, &row.address.scope) && !left_out.outlives(&row.address)
        });
        let cursors = granted.map(|row| (row.id, row.tip, row.chain, row.verdict, row.judged));
        let catalog = self.replica.published().map_or(0, |published| published.number);
        fieldkeep_protocol::root(self.replica.epoch(), catalog, cursors)
    }
}

fn denied(id: SegmentId) -> OfferAnswer {
    let segment = SegmentRef { id, address: None };
    OfferAnswer {
        segment,
        standing: Standing::Denied,
        tip: 0,
        own_seq: 0,
        vector: None,
        own_hash: None,
    }
}
