//! The connection's one task: moves bytes between the queues and quinn.
//!
//! Written as one hand-made future, because it is what every idle connection pays for: a stream has
//! no task, no buffer and no channel, only its handle. It sleeps until quinn or a handle wakes it,
//! then opens, writes and reads whatever needs no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};

use super::outbox::Turn;
use super::{BROKEN_OFF, CONTROL, Event, Role, Shared, State};
use crate::connection::ClosedReason;

/// Room beyond the send window that only control may use, so that data never holds it back.
const CONTROL_RESERVE: u64 = 64 * 1024;
/// The longest chunk that is given out, in bytes.
const CHUNK_LEN_MAX: usize = 16 * 1024;

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send>>;

pub(super) struct Driver {
    shared: Arc<Shared>,
    send_window: u64,
    /// The control stream, until it is there.
    control: Option<Pending<(SendStream, RecvStream)>>,
    control_reader: Option<RecvStream>,
    /// The peer's next stream, until the connection is lost.
    accepting: Option<Pending<RecvStream>>,
    /// Leave to open another stream, while one is wanted.
    opening: Option<Pending<SendStream>>,
    writers: BTreeMap<u64, Writer>,
    /// The peer's data streams; the front one is read first.
    readers: VecDeque<(u64, RecvStream)>,
}

struct Writer {
    stream: SendStream,
    priority: i32,
}

/// How far a stream got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// quinn will wake the task when there is more to do.
    Waiting,
    /// The inbox is full: the receiver will wake the task.
    Full,
    /// All is written, or all was read.
    Done,
    /// The peer broke off the stream.
    BrokenOff,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.meet(context);
        let shared = this.shared.clone();
        let mut state = shared.lock();
        if state.inbox.abandoned() {
            // The connection may have been lost before the receiver left: senders learn it here.
            state.outbox.close();
            shared.drained.notify_waiters();
            shared.met.send_replace(true);
            return Poll::Ready(());
        }
        this.open(context, &state);
        let written = this.write(context, &mut state);
        let read = this.read(context, &mut state);
        let over = this.conclude(&mut state);
        if !over {
            state.driver = Some(context.waker().clone());
        }
        let receiver = state.inbox.ready();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        if [written, read].contains(&Progress::BrokenOff) {
            shared.close(BROKEN_OFF, "a stream was broken off");
        }
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, role: Role, send_window: u32) -> Self {
        let quic = shared.quic.clone();
        let control: Pending<_> = match role {
            Role::Dialer => Box::pin(async move { quic.open_bi().await }),
            Role::Acceptor => Box::pin(async move { quic.accept_bi().await }),
        };
        Self {
            accepting: Some(accept(&shared)),
            shared,
            send_window: send_window.into(),
            control: Some(control),
            control_reader: None,
            opening: None,
            writers: BTreeMap::new(),
            readers: VecDeque::new(),
        }
    }

    /// Takes the control stream when it is there, and the streams that the peer opened.
    fn meet(&mut self, context: &mut Context<'_>) {
        if let Some(control) = &mut self.control
            && let Poll::Ready(met) = control.as_mut().poll(context)
        {
            self.control = None;
            self.shared.met.send_replace(true);
            if let Ok((stream, reader)) = met {
                self.writers.insert(CONTROL, Writer::new(stream, i32::MAX));
                self.control_reader = Some(reader);
            }
        }
        while let Some(accepting) = &mut self.accepting
            && let Poll::Ready(met) = accepting.as_mut().poll(context)
        {
            self.accepting = None;
            if let Ok(reader) = met {
                self.readers.push_back((reader.id().index() + 1, reader));
                self.accepting = Some(accept(&self.shared));
            }
        }
    }

    /// Opens streams for those whose turn is up and that have none.
    fn open(&mut self, context: &mut Context<'_>, state: &State) {
        for turn in state.outbox.turns() {
            if turn.stream == CONTROL || self.writers.contains_key(&turn.stream) {
                continue;
            }
            let shared = &self.shared;
            let opening = self.opening.get_or_insert_with(|| {
                let quic = shared.quic.clone();
                Box::pin(async move { quic.open_uni().await })
            });
            let Poll::Ready(opened) = opening.as_mut().poll(context) else {
                return;
            };
            self.opening = None;
            let Ok(stream) = opened else { return };
            self.writers.insert(turn.stream, Writer::new(stream, turn.priority()));
        }
    }

    /// Gives every stream that has something to write its turn.
    fn write(&mut self, context: &mut Context<'_>, state: &mut State) -> Progress {
        let mut last = None;
        while let Some(turn) = state.outbox.turn_after(last) {
            last = Some(turn);
            let progress = match turn.stream {
                CONTROL => self.write_control(context, turn, state),
                _ => self.write_stream(context, turn, state),
            };
            if progress == Progress::BrokenOff {
                return progress;
            }
            if progress == Progress::Done && state.outbox.rest(turn.stream) {
                // Dropped unfinished streams are finished by quinn.
                self.writers.remove(&turn.stream);
            }
        }
        Progress::Done
    }

    fn write_control(
        &mut self,
        context: &mut Context<'_>,
        turn: Turn,
        state: &mut State,
    ) -> Progress {
        self.shared.quic.set_send_window(self.send_window + CONTROL_RESERVE);
        let progress = self.write_stream(context, turn, state);
        self.shared.quic.set_send_window(self.send_window);
        progress
    }

    fn write_stream(
        &mut self,
        context: &mut Context<'_>,
        turn: Turn,
        state: &mut State,
    ) -> Progress {
        let Some(writer) = self.writers.get_mut(&turn.stream) else {
            return Progress::Waiting;
        };
        writer.prioritise(turn.priority());
        loop {
            let waiting = state.outbox.waiting(turn.stream);
            if waiting.is_empty() {
                return Progress::Done;
            }
            let attempt = pin!(writer.stream.write_chunks(waiting)).poll(context);
            match attempt {
                Poll::Pending => return Progress::Waiting,
                Poll::Ready(Ok(written)) => {
                    if state.outbox.wrote(turn.stream, written.chunks, written.bytes) {
                        state.inbox.push_writable(turn.stream);
                        self.shared.drained.notify_waiters();
                    }
                }
                Poll::Ready(Err(WriteError::Stopped(_))) => return Progress::BrokenOff,
                // The connection is over, which `meet` has seen or will see.
                Poll::Ready(Err(
                    WriteError::ConnectionLost(_)
                    | WriteError::ClosedStream
                    | WriteError::ZeroRttRejected,
                )) => return Progress::Waiting,
            }
        }
    }

    /// Reads control, then each data stream, until nothing is there or the inbox is full.
    fn read(&mut self, context: &mut Context<'_>, state: &mut State) -> Progress {
        if let Some(reader) = &mut self.control_reader {
            match read_stream(context, CONTROL, reader, state) {
                Progress::Waiting | Progress::Full => {}
                Progress::Done => self.control_reader = None,
                Progress::BrokenOff => {
                    self.control_reader = None;
                    return Progress::BrokenOff;
                }
            }
        }
        for _ in 0..self.readers.len() {
            let Some((stream, mut reader)) = self.readers.pop_front() else {
                break;
            };
            let progress = read_stream(context, stream, &mut reader, state);
            if matches!(progress, Progress::Waiting | Progress::Full) {
                self.readers.push_back((stream, reader));
            }
            // When full, the next stream is the first to be read once there is room.
            if matches!(progress, Progress::Full | Progress::BrokenOff) {
                return progress;
            }
        }
        Progress::Done
    }

    /// Whether the connection is lost and all that it left behind was read; then says why.
    fn conclude(&mut self, state: &mut State) -> bool {
        if self.accepting.is_some() {
            return false;
        }
        state.outbox.close();
        self.shared.drained.notify_waiters();
        if self.control_reader.is_some() || !self.readers.is_empty() {
            return false;
        }
        let error = self.shared.quic.close_reason().unwrap_or(ConnectionError::LocallyClosed);
        let said = state.said.take().filter(|_| error == ConnectionError::LocallyClosed);
        state.inbox.close(said.unwrap_or_else(|| ClosedReason::of(&error)));
        true
    }
}

impl Writer {
    fn new(stream: SendStream, priority: i32) -> Self {
        // Fails for a closed stream only, and then the first write says so.
        let _ = stream.set_priority(priority);
        Self { stream, priority }
    }

    fn prioritise(&mut self, priority: i32) {
        if self.priority != priority {
            self.priority = priority;
            // As above.
            let _ = self.stream.set_priority(priority);
        }
    }
}

fn accept(shared: &Shared) -> Pending<RecvStream> {
    let quic = shared.quic.clone();
    Box::pin(async move { quic.accept_uni().await })
}

fn read_stream(
    context: &mut Context<'_>,
    stream: u64,
    reader: &mut RecvStream,
    state: &mut State,
) -> Progress {
    while state.inbox.has_room(stream) {
        match pin!(reader.read_chunk(CHUNK_LEN_MAX, true)).poll(context) {
            Poll::Pending => return Progress::Waiting,
            Poll::Ready(Ok(Some(chunk))) => {
                state.inbox.push(stream, Event::Bytes { stream, bytes: chunk.bytes });
            }
            Poll::Ready(Ok(None)) => {
                state.inbox.push(stream, Event::Finished { stream });
                return Progress::Done;
            }
            Poll::Ready(Err(ReadError::Reset(_))) => return Progress::BrokenOff,
            Poll::Ready(Err(
                ReadError::ConnectionLost(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected,
            )) => return Progress::Done,
        }
    }
    Progress::Full
}
