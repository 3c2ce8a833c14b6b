//! Somebody who calls the relay: a key, a socket and frames, without an engine.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use fieldkeep_documents::batch;
use fieldkeep_link::{Backlog, Connection, Endpoint, Event, Limits, Receiver, Role};
use fieldkeep_model::{ActorId, ChangeHeader, Head, KeyPair, SegmentAddress, SignedHead};
use fieldkeep_protocol::frame::{Frame, Hello, Push, SegmentRef};
use fieldkeep_protocol::{Code, FRAME_MAX, FrameBuffer, Offer, OfferEntry, VERSION, priority};

use super::site::{Facts, seed};

/// The stream that carries a device's own changes.
pub(super) const PUSH: u64 = 1;

/// A member, as far as calling goes.
pub(super) struct Caller {
    pub(super) nth: usize,
    pub(super) address: SocketAddr,
    pub(super) keys: KeyPair,
    pub(super) actor: ActorId,
    pub(super) segment: SegmentAddress,
}

/// What a line hears.
pub(super) enum Heard {
    /// A frame.
    Frame(Frame),
    /// Only that there is room again.
    Room,
    /// The end, and why.
    Closed(Option<Code>, String),
}

/// An open connection. Its socket closes with it.
pub(super) struct Line {
    _endpoint: Endpoint,
    pub(super) receiver: Receiver,
    backlog: Backlog,
    buffers: BTreeMap<u64, FrameBuffer>,
    frames: VecDeque<Frame>,
}

impl Caller {
    pub(super) fn new(facts: &Facts, nth: usize, address: SocketAddr) -> Self {
        let keys = seed(nth).signing();
        let actor = ActorId::new(facts.number(nth), 0, &keys.public());
        Self { nth, address, keys, actor, segment: facts.address(nth) }
    }

    /// A connection, nothing said on it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn dial(&self, facts: &Facts) -> Result<Line, String> {
        dial_with(&seed(self.nth).tls(), facts, self.address).await
    }

    /// A connection on which this member has said who it is and where it stands.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn call(&self, facts: &Facts, entries: &[OfferEntry]) -> Result<Line, String> {
        let mut line = self.dial(facts).await?;
        line.say(0, priority::CONTROL, &Frame::Hello(Box::new(hello(facts, Some(self.actor)))));
        let offer = Offer::new(facts.epoch(), 1, [0; 16], entries);
        line.say(0, priority::CONTROL, &Frame::Offer(offer));
        Ok(line)
    }

    /// Own changes as they are pushed.
    pub(super) fn push(&self, facts: &Facts, chunks: &[&[u8]]) -> Frame {
        let newest = ChangeHeader::parse(chunks.last().expect("there are changes"));
        self.push_as(facts, chunks, Some(&newest.expect("they are well-formed")))
    }

    /// Changes as they are pushed, under the signature of this member whoever they say wrote them.
    pub(super) fn push_as(
        &self,
        facts: &Facts,
        chunks: &[&[u8]],
        newest: Option<&ChangeHeader>,
    ) -> Frame {
        let id = self.segment.id(&facts.org());
        let sign = |newest: &ChangeHeader| {
            let head = Head { actor: newest.actor, seq: newest.seq, hash: newest.hash };
            SignedHead::new(&facts.org(), &id, head, &self.keys)
        };
        Frame::Push(Push {
            segment: SegmentRef { id, address: Some(self.segment.clone()) },
            batch: batch::encode(chunks, 3),
            heads: newest.map(sign).into_iter().collect(),
        })
    }
}

/// A connection under any key.
///
/// # Errors
/// Why there is none.
pub(super) async fn dial_with(
    keys: &KeyPair,
    facts: &Facts,
    address: SocketAddr,
) -> Result<Line, String> {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), keys, Limits::DEVICE);
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let connection = endpoint.connect(address, &facts.relay()).await;
    let connection = connection.map_err(|error| error.to_string())?;
    Ok(Line::over(endpoint, connection))
}

/// The first message of a member that knows the members and the catalog.
pub(super) fn hello(facts: &Facts, actor: Option<ActorId>) -> Hello {
    Hello {
        versions: vec![VERSION],
        software: "fieldkeep lab load".into(),
        org: facts.org(),
        capabilities: 0,
        members: facts.members,
        members_tip: facts.members_tip,
        members_sum: facts.members_sum,
        epoch: facts.epoch(),
        catalog: facts.catalog,
        frame_max: FRAME_MAX,
        root: [0; 16],
        actor,
        removals: None,
    }
}

impl Line {
    fn over(endpoint: Endpoint, connection: Connection) -> Self {
        let (sender, receiver) = connection.carry(Role::Dialer);
        let backlog = Backlog::new(sender);
        let (buffers, frames) = Default::default();
        Self { _endpoint: endpoint, receiver, backlog, buffers, frames }
    }

    pub(super) fn say(&mut self, stream: u64, priority: i32, frame: &Frame) {
        self.backlog.send(stream, priority, frame.encode().into());
    }

    /// Sends bytes as they are.
    pub(super) fn pour(&mut self, stream: u64, priority: i32, bytes: Vec<u8>) {
        self.backlog.send(stream, priority, bytes.into());
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.backlog.queued()
    }

    /// What is heard next. Safe to cancel.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Heard::Frame(frame);
            }
            match self.receiver.recv().await {
                Event::Bytes { stream, bytes } => {
                    let buffer = self.buffers.entry(stream).or_default();
                    buffer.push(&bytes);
                    loop {
                        match buffer.next(FRAME_MAX) {
                            Ok(Some(frame)) => self.frames.push_back(frame),
                            Ok(None) => break,
                            Err(error) => return Heard::Closed(None, error.to_string()),
                        }
                    }
                }
                Event::Finished { stream } => drop(self.buffers.remove(&stream)),
                Event::Writable { stream } => {
                    self.backlog.writable(stream);
                    return Heard::Room;
                }
                Event::Closed { reason } => {
                    let code = reason.code.and_then(Code::from_number);
                    return Heard::Closed(code, reason.text);
                }
            }
        }
    }

    pub(super) fn close(&self) {
        self.backlog.close(Code::Done.number(), "done");
    }
}
