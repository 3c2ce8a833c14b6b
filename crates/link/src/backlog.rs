//! The backlog of one connection: takes whatever its owner has to send, and hands it to the carrier
//! as the streams have room. Never waits; how much lies in it is for its owner to bound.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::carrier::{SendError, Sender};

/// What waits to be sent on one connection.
#[derive(Debug)]
pub struct Backlog {
    sender: Sender,
    waiting: BTreeMap<u64, Waiting>,
    queued: usize,
}

#[derive(Debug)]
struct Waiting {
    priority: i32,
    messages: VecDeque<Bytes>,
    finish: bool,
}

impl Backlog {
    /// The backlog of a connection.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self { sender, waiting: BTreeMap::new(), queued: 0 }
    }

    /// Bytes that wait here, besides what the streams hold.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Sends a message on a stream, now or when there is room.
    pub fn send(&mut self, stream: u64, priority: i32, message: Bytes) {
        if let Some(waiting) = self.waiting.get_mut(&stream) {
            self.queued += message.len();
            waiting.messages.push_back(message);
            return;
        }
        if let Err(SendError::Full(message)) = self.sender.try_send(stream, priority, message) {
            self.queued += message.len();
            let messages = VecDeque::from([message]);
            self.waiting.insert(stream, Waiting { priority, messages, finish: false });
        }
    }

    /// Ends a stream after everything that was sent on it.
    pub fn finish(&mut self, stream: u64) {
        match self.waiting.get_mut(&stream) {
            Some(waiting) => waiting.finish = true,
            None => self.sender.finish(stream),
        }
    }

    /// A stream has room again.
    pub fn writable(&mut self, stream: u64) {
        let Some(mut waiting) = self.waiting.remove(&stream) else { return };
        while let Some(message) = waiting.messages.pop_front() {
            let length = message.len();
            match self.sender.try_send(stream, waiting.priority, message) {
                Err(SendError::Full(message)) => {
                    waiting.messages.push_front(message);
                    self.waiting.insert(stream, waiting);
                    return;
                }
                Ok(()) | Err(_) => self.queued -= length,
            }
        }
        if waiting.finish {
            self.sender.finish(stream);
        }
    }

    /// Closes the connection. What waits may be lost: what must be heard is the reason.
    pub fn close(&self, code: u32, reason: &str) {
        self.sender.close(code, reason);
    }
}
