//! One session, with the relay or another device: bytes go to the engine, what it says goes back.

use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{Backlog, ClosedReason, Connection, Event, Receiver, Role, Sender};
use fieldkeep_model::PublicKey;
use fieldkeep_protocol::{Code, Phase};
use fieldkeep_replica::ReplicaError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::SyncError;
use crate::device::{Device, now};
use crate::engine::{Input, Output, PeerId, PeerInput, PeerOutput};

/// How long who calls, or was found, may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(3);
/// How long anybody may take to show that it is a member.
const BELONGS: Duration = Duration::from_secs(10);
/// How long the relay has to hear the last that is said to it: it keeps it, and nothing is lost otherwise.
const GOODBYE: Duration = Duration::from_secs(1);
/// What may wait to be sent before the other side counts as one that does not read, in bytes.
const BACKLOG: usize = 8 * 1024 * 1024;

/// Who is on the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Relay,
    Peer(PeerId),
}

impl Way {
    fn connected(self, key: PublicKey, opening: Opening) -> Input {
        let introduces = opening == Opening::Calls;
        match self {
            Self::Relay => Input::Connected,
            Self::Peer(id) => Input::Peer(id, PeerInput::Connected { key, introduces }),
        }
    }

    fn bytes(self, stream: u64, bytes: Vec<u8>) -> Input {
        match self {
            Self::Relay => Input::Bytes(stream, bytes),
            Self::Peer(id) => Input::Peer(id, PeerInput::Bytes(stream, bytes)),
        }
    }

    fn finished(self, stream: u64) -> Input {
        match self {
            Self::Relay => Input::Finished(stream),
            Self::Peer(id) => Input::Peer(id, PeerInput::Finished(stream)),
        }
    }

    fn closed(self) -> Input {
        match self {
            Self::Relay => Input::Closed,
            Self::Peer(id) => Input::Peer(id, PeerInput::Closed),
        }
    }
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// This side calls whom it was told to call, and says who it is.
    Calls,
    /// This side calls whom it has found: a stranger says first who it is.
    Approaches,
    /// This side is called: a stranger says first who it is.
    Answers,
}

/// How long a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until everything is exchanged and proven.
    Complete,
    /// For as long as the connection lasts.
    Cut,
}

/// How a session stands.
enum Standing {
    UnderWay,
    Complete,
    Failed,
}

/// How a session ended.
pub(crate) enum Ended {
    Complete,
    Closed(String),
}

impl Device {
    /// Carries a connection's bytes to the engine and back, until it is done or over, and files beside
    /// them.
    pub(crate) async fn session(
        &self,
        connection: Connection,
        way: Way,
        opening: Opening,
        until: Until,
    ) -> Result<Ended, SyncError> {
        let key = connection.peer();
        let role = if opening == Opening::Answers { Role::Acceptor } else { Role::Dialer };
        let (sender, receiver) = connection.carry(role);
        // Both in one task: whoever drops the session leaves nothing of it behind.
        tokio::select! {
            biased;
            ended = self.talk((sender.clone(), receiver), key, way, opening, until) => ended,
            never = self.exchange_files(way, &sender) => match never {},
        }
    }

    async fn talk(
        &self,
        (sender, mut receiver): (Sender, Receiver),
        key: PublicKey,
        way: Way,
        opening: Opening,
        until: Until,
    ) -> Result<Ended, SyncError> {
        let mut files = self.0.transfers.ended();
        let mut backlog = Backlog::new(sender);
        let (outputs, mut outgoing) = mpsc::unbounded_channel();
        let session = self.0.connect(way, outputs);
        if way == Way::Relay {
            self.0.transfers.tell(None);
        }
        self.step(session, vec![way.connected(key, opening)]).await?;
        let began = Instant::now();
        let first = if opening == Opening::Calls { BELONGS } else { INTRODUCTION };
        let doubt = sleep_until(began + first);
        tokio::pin!(doubt);
        let mut doubted = way != Way::Relay;
        loop {
            while let Ok(output) = outgoing.try_recv() {
                send(&mut backlog, output);
            }
            if backlog.queued() > BACKLOG {
                backlog.close(Code::Busy.number(), "too much waits to be read");
            }
            let mut inputs = Vec::new();
            let (mut closed, mut went) = (None, false);
            let working = self.engine().has_work();
            tokio::select! {
                biased;
                output = outgoing.recv() => {
                    output.into_iter().for_each(|output| send(&mut backlog, output));
                    continue;
                }
                event = receiver.recv() => closed = take(way, event, &mut backlog, &mut inputs),
                () = std::future::ready(()), if working => {}
                _ = files.changed(), if until == Until::Complete => went = true,
                () = &mut doubt, if doubted => {
                    let waited = began.elapsed();
                    doubted = waited < BELONGS;
                    doubt.as_mut().reset(began + BELONGS);
                    if let Some((code, text)) = self.doubt(way, waited) {
                        doubted = false;
                        backlog.close(code.number(), text);
                    }
                }
            }
            while closed.is_none() && inputs.len() < 4_096 {
                tokio::select! {
                    biased;
                    event = receiver.recv() => closed = take(way, event, &mut backlog, &mut inputs),
                    () = std::future::ready(()) => break,
                }
            }
            let idle = inputs.is_empty();
            if !idle {
                self.step(session, inputs).await?;
            }
            if idle && working && closed.is_none() {
                self.work().await?;
            }
            if let Some(ClosedReason { code, text, .. }) = closed {
                let code = code.and_then(Code::from_number);
                match way {
                    Way::Relay => self.engine().ended(code, &text),
                    Way::Peer(id) => self.engine().peer_ended(id, code, &text),
                }
                return Ok(Ended::Closed(text));
            }
            if way == Way::Relay {
                self.look()?;
                self.0.transfers.tell(self.engine().removals_told());
            }
            match self.standing(way, until)? {
                Standing::UnderWay => {}
                // Files go last, and a sync is not done before.
                Standing::Complete if self.has_files_to_exchange(way)? => {
                    // What has just come may let one go that could not before. Whoever exchanges them
                    // knows himself that one went; to have him look would bring him back here at once.
                    if !(went && idle) {
                        self.0.transfers.look();
                    }
                }
                Standing::Complete => {
                    let mut told = false;
                    while let Ok(output) = outgoing.try_recv() {
                        told = true;
                        send(&mut backlog, output);
                    }
                    if told && way == Way::Relay {
                        hang_up(&mut backlog, &mut receiver).await;
                    }
                    finish(backlog, receiver).await;
                    return Ok(Ended::Complete);
                }
                Standing::Failed => {
                    // The other side is told why.
                    while let Ok(output) = outgoing.try_recv() {
                        send(&mut backlog, output);
                    }
                    finish(backlog, receiver).await;
                    return Ok(Ended::Closed("this device ended the session".into()));
                }
            }
        }
    }

    /// Why a peer is waited for no longer, that had so long to show that it belongs here.
    fn doubt(&self, way: Way, waited: Duration) -> Option<(Code, &'static str)> {
        let Way::Peer(id) = way else { return None };
        match self.engine().phase_with(id)? {
            Phase::Opening => Some((Code::OutOfOrder, "no introduction came in time")),
            Phase::Stranger if waited >= BELONGS => {
                Some((Code::NotAMember, "nothing showed in time that who calls is a member"))
            }
            Phase::Stranger | Phase::Open | Phase::Closed => None,
        }
    }

    fn standing(&self, way: Way, until: Until) -> Result<Standing, ReplicaError> {
        let mut engine = self.engine();
        let wanted = until == Until::Complete;
        let (failed, complete) = match way {
            Way::Relay => {
                let may_be = wanted && engine.may_be_complete();
                (engine.has_failed(), may_be && engine.progress()?.complete())
            }
            Way::Peer(id) => {
                let may_be = wanted && engine.may_be_equal(id);
                let progress = if may_be { engine.peer_progress(id)? } else { None };
                let complete = progress.filter(|progress| progress.complete());
                if complete.as_ref().is_some_and(|progress| !progress.parted) {
                    engine.part_from(id);
                    let outputs = engine.commit()?;
                    self.0.deliver(&engine, outputs);
                }
                (engine.has_parted(id), complete.is_some_and(|progress| progress.parted))
            }
        };
        Ok(match (failed, complete) {
            (true, _) => Standing::Failed,
            (false, true) => Standing::Complete,
            (false, false) => Standing::UnderWay,
        })
    }

    /// Takes inputs into one commit, off the async threads.
    async fn step(&self, session: u64, inputs: Vec<Input>) -> Result<(), SyncError> {
        let device = self.clone();
        off(move || {
            let mut engine = device.engine();
            let now = now();
            let awaits = |input: &Input| device.0.awaits(session, input);
            let mut awaited = inputs.into_iter().filter(awaits);
            let taken = awaited.try_for_each(|input| engine.handle(now, input));
            if let Err(error) = taken {
                engine.give_up()?;
                return Err(error);
            }
            let outputs = engine.commit()?;
            device.0.deliver(&engine, outputs);
            Ok(())
        })
        .await
    }

    async fn work(&self) -> Result<(), SyncError> {
        let device = self.clone();
        off(move || {
            let mut engine = device.engine();
            if let Err(error) = engine.work(now()) {
                engine.give_up()?;
                return Err(error);
            }
            let outputs = engine.commit()?;
            device.0.deliver(&engine, outputs);
            Ok(())
        })
        .await
    }

    pub(crate) async fn disconnect(&self, way: Way) -> Result<(), SyncError> {
        self.0.cut(way);
        self.step(0, vec![way.closed()]).await
    }
}

pub(crate) async fn off<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, SyncError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => Ok(result?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(SyncError::Cut(error.to_string())),
        },
    }
}

fn send(backlog: &mut Backlog, output: Output) {
    match output {
        Output::Send { stream, priority, bytes } => {
            backlog.send(stream, priority, Bytes::from(bytes));
        }
        Output::Peer(_, PeerOutput::Send(bytes)) => {
            backlog.send(0, fieldkeep_protocol::priority::CONTROL, Bytes::from(bytes));
        }
        Output::Close(code, text) | Output::Peer(_, PeerOutput::Close(code, text)) => {
            backlog.close(code.number(), &text);
        }
        Output::Changed(_) | Output::Met(_) => {}
    }
}

/// Turns an event into an input, or into the reason why the connection is over.
fn take(
    way: Way,
    event: Event,
    backlog: &mut Backlog,
    inputs: &mut Vec<Input>,
) -> Option<ClosedReason> {
    match event {
        Event::Bytes { stream, bytes } => inputs.push(way.bytes(stream, bytes.to_vec())),
        Event::Finished { stream } => inputs.push(way.finished(stream)),
        Event::Writable { stream } => backlog.writable(stream),
        Event::Closed { reason } => return Some(reason),
    }
    None
}

/// Lets what was sent last arrive: the relay closes once it has heard the end of the control stream.
async fn hang_up(backlog: &mut Backlog, receiver: &mut Receiver) {
    backlog.finish(0);
    let closed = async {
        loop {
            match receiver.recv().await {
                Event::Writable { stream } => backlog.writable(stream),
                Event::Closed { .. } => return,
                Event::Bytes { .. } | Event::Finished { .. } => {}
            }
        }
    };
    let _ = tokio::time::timeout(GOODBYE, closed).await;
}

async fn finish(backlog: Backlog, mut receiver: Receiver) {
    backlog.close(Code::Done.number(), "done");
    let _ = tokio::time::timeout(Duration::from_millis(200), async {
        while !matches!(receiver.recv().await, Event::Closed { .. }) {}
    })
    .await;
}
