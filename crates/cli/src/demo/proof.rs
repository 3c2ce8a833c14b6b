//! The proof at the end of the day: what each replica holds, compared piece by piece.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::status::State;
use fieldkeep_model::{Outcome, RecordKey, SegmentId, TypeName};
use fieldkeep_replica::{RecordView, Replica, ReplicaError};
use fieldkeep_store::Page;

/// What a replica holds.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// By segment: how many changes, and blake3 over the sorted heads, which commit to all of them.
    pub(super) segments: BTreeMap<SegmentId, (u64, [u8; 32])>,
    /// The records with all that is known of them.
    pub(super) records: BTreeMap<RecordKey, RecordView>,
}

/// Reads all that a replica holds.
pub(super) fn holding(replica: &mut Replica) -> Result<Holding, ReplicaError> {
    let mut holding = Holding::default();
    let mut types: BTreeSet<TypeName> = BTreeSet::new();
    let ids: Vec<_> = replica.segments().keys().copied().collect();
    for id in ids {
        let proof = replica.proof(&id)?.filter(|proof| proof.pos > 0);
        if let Some(proof) = proof {
            holding.segments.insert(id, (proof.pos, proof.heads));
            types.extend(replica.segment(&id).map(|row| row.address.ty.clone()));
        }
    }
    let everything = Page { deleted: true, ..Page::default() };
    for ty in &types {
        let records = replica.views().list(ty, &everything)?;
        holding.records.extend(records.into_iter().map(|view| (view.key.clone(), view)));
    }
    Ok(holding)
}

impl Holding {
    /// How many changes made it.
    pub(super) fn changes(&self) -> u64 {
        self.segments.values().map(|(changes, _)| changes).sum()
    }

    /// The records with that outcome.
    pub(super) fn judged(&self, outcome: Outcome) -> Vec<&RecordView> {
        let judged = |view: &&RecordView| view.state == State::Judged(outcome);
        self.records.values().filter(judged).collect()
    }

    /// How many fields the records have.
    pub(super) fn fields(&self) -> u64 {
        self.records.values().map(|view| view.fields.len() as u64).sum()
    }

    /// What differs from another replica: segments by their heads, records by content, state,
    /// reasons and last valid state.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let ids: BTreeSet<_> = self.segments.keys().chain(other.segments.keys()).collect();
        let differs = |id: &&&SegmentId| self.segments.get(id) != other.segments.get(id);
        let segments = ids.iter().filter(differs).map(|id| format!("segment {id}"));
        let keys: BTreeSet<_> = self.records.keys().chain(other.records.keys()).collect();
        let known = |holding: &Self, key: &RecordKey| holding.records.get(key).map(content);
        let records = keys.iter().filter(|key| known(self, key) != known(other, key));
        segments.chain(records.map(ToString::to_string)).collect()
    }
}

/// What must be equal everywhere once everything is exchanged.
fn content(view: &RecordView) -> RecordView {
    RecordView { dismissed: None, ..view.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(name: &str, heads: u8, units: i64) -> Holding {
        let key: RecordKey = name.parse().expect("a name");
        let fields = json!({"units": units}).as_object().expect("an object").clone();
        let view = RecordView {
            key: key.clone(),
            fields,
            state: State::Judged(Outcome::Valid),
            deleted: false,
            unsaved: false,
            conflicts: Vec::new(),
            reasons: Vec::new(),
            rules: Vec::new(),
            reason_fields: Vec::new(),
            since: None,
            culprits: Vec::new(),
            last_valid: None,
            dismissed: None,
        };
        let segments = BTreeMap::from([(SegmentId([1; 16]), (1, [heads; 32]))]);
        Holding { segments, records: BTreeMap::from([(key, view)]) }
    }

    #[test]
    fn every_difference_is_named() {
        let base = one("stock/a", 1, 3);
        assert!(base.differences(&one("stock/a", 1, 3)).is_empty());
        assert_eq!(base.differences(&one("stock/a", 1, 4)), ["stock/a"]);
        assert_eq!(base.differences(&one("stock/a", 2, 3)).len(), 1);
        assert_eq!(base.differences(&one("stock/b", 1, 3)), ["stock/a", "stock/b"]);
    }
}
