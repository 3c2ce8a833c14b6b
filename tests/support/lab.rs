//! The lab's changes as changes of members: actors renamed, hashes computed anew, signed.

use std::collections::BTreeMap;

use automerge::AutoCommit;
use automerge::transaction::CommitOptions;
use fieldkeep_lab::anatomy::Anatomy;
use fieldkeep_lab::generate;
use fieldkeep_model::{ActorId, ChangeHeader, SegmentAddress, SignedHead};

use super::wire::Raw;

pub(crate) fn header(chunk: &[u8]) -> ChangeHeader {
    ChangeHeader::parse(chunk).expect("a well-formed change")
}

/// What the lab's devices 1, 2, … are called here.
pub(crate) struct Renamed {
    actors: BTreeMap<Vec<u8>, ActorId>,
    hashes: BTreeMap<[u8; 32], [u8; 32]>,
}

impl Renamed {
    /// The lab's first devices are these members, in this order; their numbers must ascend.
    pub(crate) fn new(members: &[&Raw]) -> Self {
        let actors = (1..).zip(members).map(|(n, raw)| (generate::actor(n).to_vec(), raw.actor()));
        Self { actors: actors.collect(), hashes: BTreeMap::new() }
    }

    /// A change with its actors and dependencies renamed; changes come in causal order.
    pub(crate) fn chunk(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut body = Anatomy::of(chunk).expect("well-formed but for its meaning");
        let rename = |actor: &mut Vec<u8>| {
            if let Some(member) = self.actors.get(actor) {
                *actor = member.0.to_vec();
            }
        };
        rename(&mut body.actor);
        body.others.iter_mut().for_each(rename);
        for dep in &mut body.deps {
            *dep = self.hashes.get(dep).copied().unwrap_or(*dep);
        }
        body.deps.sort_unstable();
        let renamed = body.chunk();
        self.hashes.insert(header(chunk).hash.0, header(&renamed).hash.0);
        renamed
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
