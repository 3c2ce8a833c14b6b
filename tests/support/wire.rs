//! Members and relays whose every byte the test writes itself: a link endpoint, frames, and no
//! engine behind them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use fieldkeep_documents::batch;
use fieldkeep_link::{ClosedReason, Connection, Endpoint, Event, Limits, Receiver, Role, Sender};
use fieldkeep_model::membership::{Act, CONTEXT, Entry, MemberKeys};
use fieldkeep_model::{
    ActorId, ChangeHeader, Epoch, Head, MembershipLog, OrgId, PublicKey, Seed, SegmentAddress,
    SegmentId, Signed, SignedHead, Ticket,
};
use fieldkeep_protocol::frame::{Frame, FrameBuffer, Hello, Members, Nack, Push, SegmentRef};
use fieldkeep_protocol::{Code, FRAME_MAX, Offer, VERSION};

use super::soon;

/// One end of a connection, without an engine.
pub(crate) struct Wire {
    _endpoint: Option<Endpoint>,
    pub(crate) sender: Sender,
    receiver: Receiver,
    buffers: BTreeMap<u64, FrameBuffer>,
    frames: VecDeque<Frame>,
    /// Bytes that came in, over all streams.
    pub(crate) heard: u64,
}

/// What a wire hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Frame(Frame),
    Closed(ClosedReason),
}

impl Wire {
    pub(crate) fn over(connection: Connection, role: Role, endpoint: Option<Endpoint>) -> Self {
        let (sender, receiver) = connection.carry(role);
        Self {
            _endpoint: endpoint,
            sender,
            receiver,
            buffers: BTreeMap::new(),
            frames: VecDeque::new(),
            heard: 0,
        }
    }

    /// Calls a relay with that seed's key.
    pub(crate) async fn dial(seed: &Seed, relay: &PublicKey, address: SocketAddr) -> Self {
        let local = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(local, &seed.tls(), Limits::DEVICE).expect("it binds");
        let connection = soon("a handshake", endpoint.connect(address, relay)).await;
        Self::over(connection.expect("the relay is there"), Role::Dialer, Some(endpoint))
    }

    pub(crate) async fn say(&self, frame: &Frame) {
        self.say_on(0, frame).await;
    }

    pub(crate) async fn say_on(&self, stream: u64, frame: &Frame) {
        self.bytes(stream, frame.encode()).await;
    }

    /// Sends bytes as they are. A connection that is over takes none, and that is no failure here.
    pub(crate) async fn bytes(&self, stream: u64, bytes: Vec<u8>) {
        let sent = self.sender.send(stream, 0, bytes.into());
        let _ = soon("room to send", sent).await;
    }

    pub(crate) async fn next(&mut self) -> Heard {
        soon("a frame", self.hear()).await
    }

    async fn hear(&mut self) -> Heard {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Heard::Frame(frame);
            }
            match self.receiver.recv().await {
                Event::Bytes { stream, bytes } => {
                    self.heard += bytes.len() as u64;
                    let buffer = self.buffers.entry(stream).or_default();
                    buffer.push(&bytes);
                    while let Some(frame) = buffer.next(FRAME_MAX).expect("engines send frames") {
                        self.frames.push_back(frame);
                    }
                }
                Event::Finished { .. } | Event::Writable { .. } => {}
                Event::Closed { reason } => return Heard::Closed(reason),
            }
        }
    }

    /// The first frame that `wanted` takes; the others before it are passed over.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(&Frame) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Heard::Frame(frame) => {
                    if let Some(found) = wanted(&frame) {
                        return found;
                    }
                }
                Heard::Closed(reason) => panic!("closed: {reason}"),
            }
        }
    }

    /// Waits for the end, and says which code the other side gave.
    pub(crate) async fn closed(&mut self) -> Option<Code> {
        loop {
            if let Heard::Closed(reason) = self.next().await {
                return reason.code.and_then(Code::from_number);
            }
        }
    }
}

/// A member, or somebody who would be one: a seed and what it knows of the organisation.
pub(crate) struct Raw {
    pub(crate) seed: Seed,
    pub(crate) org: OrgId,
    pub(crate) relay: PublicKey,
    pub(crate) address: SocketAddr,
    /// The number of the entry that admitted it.
    pub(crate) number: u64,
    /// The epoch of the relay's log when it was.
    pub(crate) epoch: Epoch,
}

impl Clone for Raw {
    fn clone(&self) -> Self {
        Self { seed: Seed(self.seed.0), ..*self }
    }
}

/// The first message of a device that knows nothing.
pub(crate) fn hello(org: OrgId) -> Hello {
    Hello {
        versions: vec![VERSION],
        software: "a test".into(),
        org,
        capabilities: 0,
        members: 0,
        members_tip: [0; 32],
        members_sum: [0; 16],
        epoch: Epoch::default(),
        catalog: 0,
        frame_max: FRAME_MAX,
        root: [0; 16],
        actor: None,
        removals: None,
    }
}

/// The entry that takes an invitation up, signed with whatever key is at hand.
pub(crate) fn application(ticket: &Ticket, seed: &Seed, welcome: &Hello) -> Members {
    let act = Act::Join { invite: ticket.invite, keys: MemberKeys::of(seed) };
    let entry = Entry { previous: welcome.members_tip, act };
    Members { base: welcome.members, entries: vec![Signed::new(CONTEXT, &entry, &ticket.key)] }
}

impl Raw {
    /// Somebody with a key of its own that nobody admitted.
    pub(crate) fn stranger(ticket: &Ticket, seed: u8) -> Self {
        let (seed, address) = (Seed([seed; 32]), ticket.addresses[0]);
        let Ticket { org, relay, .. } = *ticket;
        Self { seed, org, relay, address, number: 0, epoch: Epoch::default() }
    }

    /// Joins by the book; afterwards nothing is by the book.
    pub(crate) async fn joined(ticket: &Ticket, seed: u8) -> Self {
        let mut raw = Self::stranger(ticket, seed);
        let (mut wire, welcome) = raw.introduced().await;
        raw.epoch = welcome.epoch;
        wire.say(&Frame::Join(application(ticket, &raw.seed, &welcome))).await;
        let entries = wire.until(|frame| {
            let Frame::Members(members) = frame else { return None };
            (members.base == 0).then(|| members.entries.clone())
        });
        let log = MembershipLog::open(entries.await).expect("the relay's log is sound");
        raw.number = log.by_tls(&raw.seed.tls().public()).expect("it has just joined").number;
        raw
    }

    pub(crate) async fn dial(&self) -> Wire {
        Wire::dial(&self.seed, &self.relay, self.address).await
    }

    /// A connection on which both sides have introduced themselves.
    pub(crate) async fn introduced(&self) -> (Wire, Hello) {
        let mut wire = self.dial().await;
        wire.say(&Frame::Hello(Box::new(hello(self.org)))).await;
        let welcome = wire.until(|frame| {
            let Frame::Welcome(welcome) = frame else { return None };
            Some(Hello::clone(welcome))
        });
        let welcome = welcome.await;
        (wire, welcome)
    }

    /// A connection that follows everything that this member may read.
    pub(crate) async fn following(&self) -> Wire {
        let (mut wire, welcome) = self.introduced().await;
        wire.say(&Frame::Offer(Offer::new(welcome.epoch, 1, [0; 16], &[]))).await;
        wire.until(|frame| matches!(frame, Frame::OfferReply(_)).then_some(())).await;
        wire
    }

    pub(crate) fn actor(&self) -> ActorId {
        ActorId::new(self.number, 0, &self.seed.signing().public())
    }

    /// What vouches for a change and all before it.
    pub(crate) fn vouch(&self, segment: &SegmentId, header: &ChangeHeader) -> SignedHead {
        let head = Head { actor: header.actor, seq: header.seq, hash: header.hash };
        SignedHead::new(&self.org, segment, head, &self.seed.signing())
    }

    /// Changes of one segment with those heads.
    pub(crate) fn push(
        &self,
        address: &SegmentAddress,
        chunks: &[&[u8]],
        heads: Vec<SignedHead>,
    ) -> Push {
        let id = address.id(&self.org);
        let segment = SegmentRef { id, address: Some(address.clone()) };
        Push { segment, batch: batch::encode(chunks, 3), heads }
    }

    /// Changes of this member, its newest vouched for.
    pub(crate) fn own_push(&self, address: &SegmentAddress, chunks: &[&[u8]]) -> Push {
        let newest = chunks.last().expect("there are changes");
        let newest = ChangeHeader::parse(newest).expect("they are well-formed");
        let head = self.vouch(&address.id(&self.org), &newest);
        self.push(address, chunks, vec![head])
    }
}

/// What a relay says of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken,
    Refused { stage: u8, code: String },
}

impl Answer {
    pub(crate) fn refused(stage: u8, code: &str) -> Self {
        Self::Refused { stage, code: code.to_owned() }
    }
}

impl Wire {
    /// Pushes, and waits for the receipt or the refusal.
    pub(crate) async fn answer(&mut self, push: Push) -> Answer {
        self.say_on(1, &Frame::Push(push)).await;
        self.until(|frame| {
            if let Frame::Nack(Nack { stage, code, .. }) = frame {
                return Some(Answer::Refused { stage: *stage, code: code.clone() });
            }
            matches!(frame, Frame::Ack(_)).then_some(Answer::Taken)
        })
        .await
    }
}
