//! The workloads: what is done with an engine, and what is measured while it is.
//!
//! Each has two steps, in processes of their own: one prepares what other replicas would send, the
//! other one does only what is measured. Both find and leave their files in the folder of the
//! engine and the number of records.

mod edits;
mod growth;
mod text;

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::measure::Metrics;
use super::work::{self, Order, Side, Write};

pub(crate) use edits::of as remote_edits;
pub(crate) use growth::{BASE_MESSAGES, BASE_STATE, HUB, ensure_base};
pub(crate) use text::{file as trace_file, folder as traces};

/// The name of a workload, as it is typed and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadName {
    /// K actors write N records, and a hub takes them all.
    Build,
    /// A fresh replica takes all messages at once.
    Fresh,
    /// The saved state is loaded, and every record read.
    Load,
    /// One remote edit on a freshly loaded state.
    Edits1,
    /// A hundred, in record order.
    Edits100Ordered,
    /// A hundred, in random order.
    Edits100Random,
    /// A thousand, in record order.
    Edits1000Ordered,
    /// A thousand, in random order.
    Edits1000Random,
    /// Two replicas with a thousand edits each that the other one lacks.
    Diverged,
    /// A hundred actors with one concurrent edit each.
    Actors,
    /// Five edits of every record, then saved, loaded, and a hundred remote edits.
    History,
    /// All actors write the same field of ten records; engines differ in who wins.
    Contention,
    /// One author types a paper, key by key: the trace `automerge-paper`.
    TextPaper,
    /// One author edits source code: the trace `sveltecomponent`.
    TextSvelte,
    /// Two authors type at once: the trace `friendsforever`.
    TextFriends,
    /// Three authors type at once: the trace `clownschool`.
    TextClowns,
    /// From a commit on one device to the verdict on another one, and to the release.
    Verdict,
}

/// What is done with edits that come from other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    /// So many edits by one actor.
    One(usize, Order),
    /// One edit by each of so many actors.
    Each(usize),
    /// A hundred edits on a long history.
    Late,
}

impl WorkloadName {
    /// All of them, in the order in which they are run and shown.
    pub const ALL: [Self; 17] = [
        Self::Build,
        Self::Fresh,
        Self::Load,
        Self::Edits1,
        Self::Edits100Ordered,
        Self::Edits100Random,
        Self::Edits1000Ordered,
        Self::Edits1000Random,
        Self::Diverged,
        Self::Actors,
        Self::History,
        Self::Contention,
        Self::TextPaper,
        Self::TextSvelte,
        Self::TextFriends,
        Self::TextClowns,
        Self::Verdict,
    ];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Fresh => "fresh",
            Self::Load => "load",
            Self::Edits1 => "edits-1",
            Self::Edits100Ordered => "edits-100-ordered",
            Self::Edits100Random => "edits-100-random",
            Self::Edits1000Ordered => "edits-1000-ordered",
            Self::Edits1000Random => "edits-1000-random",
            Self::Diverged => "diverged",
            Self::Actors => "actors",
            Self::History => "history",
            Self::Contention => "contention",
            Self::TextPaper => "text-paper",
            Self::TextSvelte => "text-svelte",
            Self::TextFriends => "text-friends",
            Self::TextClowns => "text-clowns",
            Self::Verdict => "verdict",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Build => {
                "the actors write the records, a hub merges them, 100 messages at a time"
            }
            Self::Fresh => "an empty replica merges all messages at once",
            Self::Load => "the saved state is loaded and every record read",
            Self::Edits1 => "one remote edit on a freshly loaded state",
            Self::Edits100Ordered => "100 remote edits on a freshly loaded state, by ascending id",
            Self::Edits100Random => "100 remote edits on a freshly loaded state, in random order",
            Self::Edits1000Ordered => {
                "1,000 remote edits on a freshly loaded state, by ascending id"
            }
            Self::Edits1000Random => {
                "1,000 remote edits on a freshly loaded state, in random order"
            }
            Self::Diverged => "two replicas with 1,000 edits each merge each other's",
            Self::Actors => "one edit each by 100 actors who know nothing of each other",
            Self::History => "after five edits of every record: load, and 100 remote edits",
            Self::Contention => "all actors write the same fields of ten records, twenty rounds",
            Self::TextPaper => "a paper typed by one author, 259,778 keys (automerge-paper)",
            Self::TextSvelte => "source code edited by one author (sveltecomponent)",
            Self::TextFriends => "two authors type at once, 26,078 keys (friendsforever)",
            Self::TextClowns => "three authors type at once, 23,136 keys (clownschool)",
            Self::Verdict => "from a commit on one device to the verdict on another one",
        }
    }

    /// Whether it depends on the number of records.
    #[must_use]
    pub fn is_sized(self) -> bool {
        !matches!(
            self,
            Self::Contention
                | Self::TextPaper
                | Self::TextSvelte
                | Self::TextFriends
                | Self::TextClowns
        )
    }

    /// Whether all engines have to arrive at one content; the others are reported apart.
    #[must_use]
    pub fn is_compared(self) -> bool {
        self.is_sized() && self != Self::Verdict
    }

    /// Whether it merges text.
    #[must_use]
    pub fn is_text(self) -> bool {
        self.trace().is_some()
    }

    /// The name of the editing trace that it plays.
    pub(crate) fn trace(self) -> Option<&'static str> {
        #[allow(clippy::wildcard_enum_match_arm, reason = "all others play none")]
        match self {
            Self::TextPaper => Some("automerge-paper"),
            Self::TextSvelte => Some("sveltecomponent"),
            Self::TextFriends => Some("friendsforever"),
            Self::TextClowns => Some("clownschool"),
            _ => None,
        }
    }

    /// Whether it is also run durably, with a projection.
    #[must_use]
    pub fn is_durable(self) -> bool {
        matches!(
            self,
            Self::Build
                | Self::Edits1
                | Self::Edits100Random
                | Self::Edits1000Ordered
                | Self::Edits1000Random
        )
    }

    /// The remote edits that it consists of.
    pub(crate) fn remote(self) -> Option<Remote> {
        #[allow(clippy::wildcard_enum_match_arm, reason = "all others have none")]
        match self {
            Self::Edits1 => Some(Remote::One(1, Order::Random)),
            Self::Edits100Ordered => Some(Remote::One(100, Order::Ascending)),
            Self::Edits100Random => Some(Remote::One(100, Order::Random)),
            Self::Edits1000Ordered => Some(Remote::One(1_000, Order::Ascending)),
            Self::Edits1000Random => Some(Remote::One(1_000, Order::Random)),
            Self::Actors => Some(Remote::Each(100)),
            Self::History => Some(Remote::Late),
            _ => None,
        }
    }
}

/// Makes what the measurement will need.
pub(crate) fn prepare(cell: &Cell) {
    if !cell.workload.is_sized() {
        return;
    }
    if cell.workload != WorkloadName::Build {
        growth::ensure_base(cell);
    }
    if let Some(remote) = cell.workload.remote() {
        edits::prepare(cell, remote);
    }
}

/// Does the work, and tells what it took.
pub(crate) fn measure(cell: &Cell) -> Metrics {
    match cell.workload {
        WorkloadName::Build => growth::build(cell),
        WorkloadName::Fresh => growth::fresh(cell),
        WorkloadName::Load => growth::load(cell),
        WorkloadName::Diverged => edits::diverged(cell),
        WorkloadName::Contention => edits::contention(cell),
        WorkloadName::Edits1
        | WorkloadName::Edits100Ordered
        | WorkloadName::Edits100Random
        | WorkloadName::Edits1000Ordered
        | WorkloadName::Edits1000Random
        | WorkloadName::Actors
        | WorkloadName::History => edits::remote(cell),
        WorkloadName::TextPaper | WorkloadName::TextSvelte => text::sequential(cell),
        WorkloadName::TextFriends | WorkloadName::TextClowns => text::concurrent(cell),
        WorkloadName::Verdict => super::verdict::measure(cell),
    }
}

/// What every engine has to arrive at; nothing for workloads in which engines may differ.
pub(crate) fn expected(workload: WorkloadName, records: usize, seed: u64) -> Option<String> {
    if !workload.is_compared() {
        return None;
    }
    let mut writes = work::records(seed, records);
    let more: Vec<Write> = match workload.remote() {
        Some(remote) => {
            let mut more = if remote == Remote::Late { edits::long(seed, &writes) } else { vec![] };
            more.extend(edits::of(remote, seed, &writes));
            more
        }
        None if workload == WorkloadName::Diverged => {
            let [left, right] =
                [Side::Left, Side::Right].map(|side| edits::of_side(seed, &writes, side));
            left.into_iter().chain(right).collect()
        }
        None => Vec::new(),
    };
    writes.extend(more);
    Some(work::content_after(&writes))
}
