//! What is traced, for an operator who runs a collector: sessions of devices, and what takes time in them.
//!
//! A span of the target [`TRACES`] belongs to the session that it is given here. One of [`PART`](fieldkeep_replica::PART) belongs to
//! what is being worked on, and whoever listens makes none outside of that. What is done for one session is in its trace; what is done for several at once is a trace of its
//! own, with links to them.
//!
//! No span has a key, a ticket, or anything of a record in it: numbers, names of devices, of frames and of
//! object types. Nothing is made for a session that was not drawn, nor where nobody has said how many are;
//! and no clock is read here.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{RecordKey, SegmentId};
use tracing::span::{EnteredSpan, Id};
use tracing::{Span, debug_span};

use super::{ConnectionId, Engine};

/// For so long, in milliseconds, and for so many frames a session is one trace; then another one goes on,
/// so that who stays connected is seen, and no trace grows without a bound.
const STAGE: (i64, u32) = (600_000, 1_000);
/// The target of spans of sessions, and of what is done for them.
pub const TRACES: &str = "fieldkeep::traces";
/// Sessions that what is done for several at once is linked to, at most.
const LINKS: usize = 64;

/// For whom something is done that will be traced.
#[derive(Debug, Default)]
pub(super) struct Traces {
    sessions: Draw,
    renewals: Draw,
    /// Inputs that were taken in since the last commit.
    inputs: u64,
    /// For whom the next commit is.
    covered: BTreeSet<ConnectionId>,
    /// Who brought what waits to be judged.
    grown: BTreeMap<SegmentId, BTreeSet<ConnectionId>>,
    /// Who wants a record to be judged again.
    wanted: BTreeMap<RecordKey, ConnectionId>,
}

/// A share of what comes, evenly spread, the first included.
#[derive(Debug, Default)]
struct Draw {
    ratio: f64,
    due: f64,
}

impl Draw {
    fn of(ratio: f64) -> Self {
        Self { ratio, due: 1.0 - ratio }
    }

    fn draws(&mut self) -> bool {
        if self.ratio <= 0.0 {
            return false;
        }
        // What is lost by rounding does not make it late.
        self.due += self.ratio + f64::EPSILON;
        let drawn = self.due >= 1.0;
        self.due -= f64::from(u8::from(drawn));
        drawn
    }
}

/// The trace of a session.
#[derive(Debug)]
pub(super) struct Traced {
    span: Span,
    since: i64,
    frames: u32,
    /// How many traces of it there were before.
    part: u64,
}

impl Traces {
    /// An input was taken in.
    pub(super) fn took(&mut self) {
        self.inputs += 1;
    }

    /// Somebody's changes wait to be judged.
    pub(super) fn grew(&mut self, segment: &SegmentId, id: ConnectionId) {
        if self.covered.contains(&id) {
            add(self.grown.entry(*segment).or_default(), id);
        }
    }

    /// All that waited in a segment is judged.
    pub(super) fn judged(&mut self, segment: &SegmentId) {
        self.grown.remove(segment);
    }

    /// Somebody wants a record to be judged again.
    pub(super) fn wished(&mut self, key: &RecordKey, id: ConnectionId) {
        if self.covered.contains(&id) {
            self.wanted.insert(key.clone(), id);
        }
    }

    /// Nothing waits any more.
    pub(super) fn forget(&mut self) {
        self.covered.clear();
        self.grown.clear();
    }
}

fn add(sessions: &mut BTreeSet<ConnectionId>, id: ConnectionId) {
    if sessions.len() < LINKS {
        sessions.insert(id);
    }
}

impl Engine {
    /// Has such a share of the sessions traced that begin from now on, and of the slices that are judged
    /// anew: 1 is all of them, 0 none. Spans go to whoever listens in this process.
    pub fn trace(&mut self, ratio: f64) {
        self.traces.sessions = Draw::of(ratio);
        self.traces.renewals = Draw::of(ratio);
    }

    /// A member's session begins.
    pub(super) fn trace_session(&mut self, id: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(member) = self.replica.members().by_tls(&peer.key) else { return };
        if peer.trace.is_none() && self.traces.sessions.draws() {
            let span = session(id, (member.number, member.name.as_str()), 0);
            let traced = Traced { span, since: self.now, frames: 0, part: 0 };
            peer.trace = (!traced.span.is_disabled()).then_some(traced);
        }
    }

    /// A frame of a session is handled.
    pub(super) fn trace_frame(
        &mut self,
        id: ConnectionId,
        name: &'static str,
    ) -> Option<EnteredSpan> {
        let peer = self.peers.get_mut(&id)?;
        let traced = peer.trace.as_mut()?;
        if traced.since + STAGE.0 <= self.now || traced.frames >= STAGE.1 {
            let member = self.replica.members().by_tls(&peer.key)?;
            let part = traced.part + 1;
            let span = session(id, (member.number, member.name.as_str()), part);
            span.follows_from(&traced.span);
            *traced = Traced { span, since: self.now, frames: 0, part };
        }
        traced.frames += 1;
        add(&mut self.traces.covered, id);
        let span = debug_span!(
            target: TRACES, parent: &traced.span, "frame", otel.name = name
        );
        Some(span.entered())
    }

    /// What was taken in is made durable, and goes on to others.
    pub(super) fn trace_commit(&mut self, writes: bool) -> Option<EnteredSpan> {
        let inputs = counted(std::mem::take(&mut self.traces.inputs));
        let covered = std::mem::take(&mut self.traces.covered);
        if !writes {
            return None;
        }
        self.trace_of(
            &covered,
            |parent| debug_span!(target: TRACES, parent: parent, "commit", inputs),
        )
    }

    /// A slice of a segment is merged and judged.
    pub(super) fn trace_slice(&mut self, segment: &SegmentId) -> Option<EnteredSpan> {
        let whose = self.traces.grown.get(segment)?.clone();
        let row = self.replica.segment(segment)?;
        let of = row.address.ty.as_str();
        let span = self.trace_of(&whose, |parent| {
            let changes = tracing::field::Empty;
            debug_span!(
                target: TRACES, parent: parent, "slice", "type" = of, changes
            )
        });
        self.traces.covered.extend(whose);
        span
    }

    /// A record is judged again, because somebody wants it.
    pub(super) fn trace_wish(&mut self, key: &RecordKey) -> Option<EnteredSpan> {
        let whose = BTreeSet::from([self.traces.wanted.remove(key)?]);
        let of = key.ty.as_str();
        let span = self.trace_of(
            &whose,
            |parent| debug_span!(target: TRACES, parent: parent, "re-judge", "type" = of),
        );
        self.traces.covered.extend(whose);
        span
    }

    /// Records are judged anew, for another catalog or other permissions: nobody's session has asked for it.
    pub(super) fn trace_renewal(&mut self) -> Option<EnteredSpan> {
        let drawn = self.replica.is_renewing() && self.traces.renewals.draws();
        drawn.then(|| debug_span!(target: TRACES, parent: None, "judge anew").entered())
    }

    /// Something that is done for these sessions: in the trace of the only one, or linked to all of them.
    /// Nothing if none of them is traced, or is here any more.
    fn trace_of(
        &self,
        sessions: &BTreeSet<ConnectionId>,
        span: impl FnOnce(Option<Id>) -> Span,
    ) -> Option<EnteredSpan> {
        let traced = |id| Some(&self.peers.get(id)?.trace.as_ref()?.span);
        let spans: Vec<&Span> = sessions.iter().filter_map(traced).take(LINKS).collect();
        let span = match spans.as_slice() {
            [] => return None,
            [only] => span(only.id()),
            several => {
                let span = span(None);
                for session in several {
                    span.follows_from(*session);
                }
                span
            }
        };
        Some(span.entered())
    }
}

/// The span of a session of a member, known by number and name.
fn session(
    id: ConnectionId,
    (number, name): (fieldkeep_model::DeviceNumber, &str),
    part: u64,
) -> Span {
    debug_span!(
        target: TRACES,
        parent: None,
        "session",
        connection = counted(id),
        device.number = counted(number),
        device.name = name,
        part = counted(part),
    )
}

/// A number as spans have it.
fn counted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::{Arc, Mutex};

    use fieldkeep_model::PublicKey;
    use tracing::span::{Attributes, Record};
    use tracing::{Event, Metadata};

    use super::*;
    use crate::directory::Directory;
    use crate::engine::peer::Peer;

    /// Writes down which spans there are, with their parents, and which follow from which.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Noted>>);

    #[derive(Default)]
    struct Noted {
        spans: Vec<(&'static str, Option<u64>)>,
        links: Vec<(u64, u64)>,
    }

    impl tracing::Subscriber for Heard {
        fn enabled(&self, of: &Metadata<'_>) -> bool {
            of.target() == TRACES
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let spans = &mut self.0.lock().expect("nobody has panicked").spans;
            spans.push((span.metadata().name(), span.parent().map(Id::into_u64)));
            Id::from_non_zero_u64(NonZeroU64::new(spans.len() as u64).expect("one at least"))
        }

        fn record_follows_from(&self, span: &Id, follows: &Id) {
            let pair = (span.into_u64(), follows.into_u64());
            self.0.lock().expect("nobody has panicked").links.push(pair);
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_is_done_for_several_sessions_is_in_none_of_them_and_linked_to_each() {
        let folder = tempfile::tempdir().expect("a directory");
        let directory = Directory::init(&folder.path().join("relay"), "acme", None);
        let (replica, _home, _) = directory.expect("founded").into_replica().expect("it opens");
        let mut engine = Engine::new(replica);
        let heard = Heard::default();
        tracing::subscriber::with_default(heard.clone(), || {
            for id in [1, 2] {
                let mut peer = Peer::new(PublicKey([7; 32]));
                let span = session(id, (1, "ann"), 0);
                peer.trace = Some(Traced { span, since: 0, frames: 0, part: 0 });
                engine.peers.insert(id, peer);
            }
            engine.trace_frame(1, "Push");
            drop(engine.trace_commit(true));
            engine.trace_frame(1, "Push");
            engine.trace_frame(2, "Push");
            drop(engine.trace_commit(true));
            engine.trace_frame(2, "Push");
            assert!(engine.trace_commit(false).is_none(), "nothing was written");
            assert!(engine.trace_commit(true).is_none(), "it is for nobody who is traced");
        });
        let heard = heard.0.lock().expect("nobody has panicked");
        let commits = heard.spans.iter().filter(|(name, _)| *name == "commit");
        assert_eq!(commits.map(|(_, parent)| *parent).collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(heard.links, [(7, 1), (7, 2)]);
    }

    #[test]
    fn a_share_is_drawn_evenly_and_begins_with_the_first() {
        for (ratio, drawn) in [(1.0, "1111111111"), (0.5, "1010101010"), (0.1, "1000000000")] {
            let mut draw = Draw::of(ratio);
            let mut all = (0..10).map(|_| if draw.draws() { '1' } else { '0' });
            assert_eq!(all.by_ref().collect::<String>(), drawn, "{ratio}");
            assert!(draw.draws(), "{ratio}: it goes on as it began");
        }
        let mut none = Draw::default();
        assert!(!(0..10).any(|_| none.draws()));
    }
}
