//! The lab's changes as changes of members: renamed, and signed.

use automerge::AutoCommit;
use automerge::transaction::CommitOptions;
use fieldkeep_model::{ChangeHeader, SegmentAddress, SignedHead};

use super::wire::Raw;

pub(crate) fn header(chunk: &[u8]) -> ChangeHeader {
    ChangeHeader::parse(chunk).expect("a well-formed change")
}

/// What the lab's devices 1, 2, … are called here.
pub(crate) struct Renamed(fieldkeep_lab::hostile::Renamed);

impl Renamed {
    /// The lab's first devices are these members, in this order; their numbers must ascend.
    pub(crate) fn new(members: &[&Raw]) -> Self {
        Self(fieldkeep_lab::hostile::Renamed::new(members.iter().map(|raw| raw.actor())))
    }

    /// A change with its actors and dependencies renamed; changes come in causal order.
    pub(crate) fn chunk(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.0.chunk(chunk)
    }
}

/// What vouches for a change: its author's own signature, if it is one of these.
pub(crate) fn vouched(authors: &[&Raw], segment: &SegmentAddress, chunk: &[u8]) -> Vec<SignedHead> {
    let Ok(header) = ChangeHeader::parse(chunk) else { return Vec::new() };
    let author = authors.iter().find(|raw| raw.actor() == header.actor);
    author.map(|raw| raw.vouch(&segment.id(&raw.org), &header)).into_iter().collect()
}

/// What was written since the last time, as a change.
pub(crate) fn committed(doc: &mut AutoCommit) -> Vec<u8> {
    doc.commit_with(CommitOptions::default().with_time(1).with_message("mallory"));
    doc.get_last_local_change().expect("something was written").raw_bytes().to_vec()
}

/// A document of the segment as a member has it.
pub(crate) fn document(member: &Raw, chunks: &[Vec<u8>]) -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from(member.actor().0));
    for chunk in chunks {
        let change = automerge::Change::try_from(&chunk[..]).expect("an honest change");
        doc.apply_changes([change]).expect("it applies");
    }
    doc
}
