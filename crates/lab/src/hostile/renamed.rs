//! The lab's changes as changes of members: actors renamed, hashes computed anew.

use std::collections::BTreeMap;

use fieldkeep_model::{ActorId, ChangeHeader};

use crate::anatomy::Anatomy;
use crate::generate;

/// What the lab's devices 1, 2, … are called elsewhere.
#[derive(Debug)]
pub struct Renamed {
    actors: BTreeMap<Vec<u8>, ActorId>,
    hashes: BTreeMap<[u8; 32], [u8; 32]>,
}

impl Renamed {
    /// The lab's first devices write as these actors, in this order; their numbers must ascend.
    pub fn new(actors: impl IntoIterator<Item = ActorId>) -> Self {
        let actors = (1..).zip(actors).map(|(n, actor)| (generate::actor(n).to_vec(), actor));
        Self { actors: actors.collect(), hashes: BTreeMap::new() }
    }

    /// A change with its actors and dependencies renamed; changes come in causal order.
    ///
    /// # Panics
    /// When its bytes do not parse.
    pub fn chunk(&mut self, chunk: &[u8]) -> Vec<u8> {
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
        let hash = |chunk: &[u8]| ChangeHeader::parse(chunk).expect("a well-formed change").hash.0;
        self.hashes.insert(hash(chunk), hash(&renamed));
        renamed
    }
}
