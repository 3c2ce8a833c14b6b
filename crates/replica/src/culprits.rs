//! Who is named in a verdict: the changes that wrote what its reasons object to.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::Document;
use fieldkeep_model::{ChangeHash, Culprit, Part, Pos, Reason, SegmentId, Writing};
use fieldkeep_store::RecordRow;

use crate::extent::limit_culprits;
use crate::replica::{Replica, ReplicaError};
use crate::taint::is_taint;

/// Changes that are looked at for who did what no value tells of.
const DOERS: usize = 64;

/// Changes of which more is read than where they lie: no verdict has room for as many.
const MOST: usize = 2_048;

/// Changes by position, and the fields that each wrote.
type Written = BTreeMap<Pos, (ChangeHash, BTreeSet<String>)>;

impl Replica {
    /// The changes to which a record's reasons come down, oldest first, as many as a verdict has room for.
    /// Of what should not be there: those that wrote it. Of the rest: those after the last valid state
    /// that wrote the current values of the fields that the reasons name (all of the record's if none
    /// does), and those among the earlier ones that they did not know of: two edits that are wrong
    /// together are both named, whichever came first. Where no change wrote any of them, those that did
    /// something there of which no value tells, or the newest after the last valid state, which left them
    /// as they are. The log is not read for changes that were `named` before.
    pub(crate) fn culprits(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        reasons: &[Reason],
        named: Vec<Culprit>,
    ) -> Result<Vec<Culprit>, ReplicaError> {
        let fields: BTreeSet<String> =
            reasons.iter().flat_map(|reason| reason.fields.iter().cloned()).collect();
        let fields: Vec<String> = match fields.is_empty() {
            true => vec![String::new()],
            false => fields.into_iter().collect(),
        };
        let tainted = match reasons.iter().any(|reason| is_taint(&reason.id)) {
            true => self.tainted_by(id, &row.id)?,
            false => BTreeMap::new(),
        };
        let mut written = match reasons.iter().all(|reason| is_taint(&reason.id)) {
            true => Written::new(),
            false => self.objectionable(id, row, &fields)?,
        };
        let history = &self.load(id)?.history;
        for (hash, fields) in tainted {
            let Some(pos) = history.position(&hash) else { continue };
            written.entry(pos).or_insert_with(|| (hash, BTreeSet::new())).1.extend(fields);
        }
        while written.len() > MOST {
            written.pop_first();
        }
        let mut culprits = self.named(id, row, written, named, &fields)?;
        limit_culprits(&mut culprits);
        Ok(culprits)
    }

    fn objectionable(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        fields: &[String],
    ) -> Result<Written, ReplicaError> {
        let mut written = self.wrote_values(id, row, fields)?;
        if written.is_empty() {
            written = self.doers(id, row, fields)?;
        }
        if written.is_empty() {
            let done = self.row(id).done;
            let history = &self.load(id)?.history;
            let newest = history.changes_of(&row.id, row.valid_pos + 1..=done).next();
            let newest = newest.and_then(|pos| Some((pos, history.change_at(pos)?.2)));
            written.extend(newest.map(|(pos, hash)| (pos, (hash, BTreeSet::new()))));
        }
        Ok(written)
    }

    /// Who wrote the values that stand in those fields: after the last valid state, or before it and
    /// unknown to one who wrote after it.
    fn wrote_values(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        fields: &[String],
    ) -> Result<Written, ReplicaError> {
        let loaded = self.load_document(id)?;
        let document = loaded.document.as_ref().expect("just loaded");
        let history = &loaded.history;
        let mut written = Written::new();
        for (field, actor, counter) in document.writers(&row.id, fields) {
            let Some((hash, _)) = history.author_of_op(&actor, counter) else { continue };
            let Some(pos) = history.position(&hash) else { continue };
            written.entry(pos).or_insert_with(|| (hash, BTreeSet::new())).1.insert(field);
        }
        let recent = written.split_off(&(row.valid_pos + 1));
        if !written.is_empty() {
            let hashes: Vec<_> = recent.values().map(|(hash, _)| *hash).collect();
            let known = history.known_to_all(&hashes);
            written.retain(|_, (hash, _)| !known(hash));
        }
        written.extend(recent);
        Ok(written)
    }

    /// The newest changes after the last valid state that did something to those fields which no value
    /// that stands tells of: who added to a counter, or cleared a field.
    fn doers(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        fields: &[String],
    ) -> Result<Written, ReplicaError> {
        let done = self.row(id).done;
        // The index tells who did anything there: for most records nothing of the log has to be read.
        let whole = fields.iter().any(String::is_empty);
        let names = fields.iter().filter(|_| !whole);
        // A name that somebody made up may have a dot or a bracket in it: it is looked for whole, too.
        let names: Vec<&str> = names
            .flat_map(|field| field.split(['.', '[']).next().into_iter().chain([&**field]))
            .collect();
        let history = &self.load(id)?.history;
        let recent = history.changes_of_fields(&row.id, &names, row.valid_pos + 1..=done);
        let recent: BTreeSet<Pos> = recent.take(DOERS).collect();
        let entries = self.entries(row.sid, &recent).map_err(|error| error.in_segment(id))?;
        let document = self.document(id)?;
        let locate = |actor, counter| document.locate(actor, counter);
        let did = entries.into_iter().map(|entry| {
            let places = Document::deeds_in(&entry.bytes, &locate, &row.id, fields);
            (entry.pos, (entry.header.hash, places))
        });
        Ok(did.filter(|(_, (_, places))| !places.is_empty()).collect())
    }

    /// What a verdict says of those changes. What a generation began with was written by those who were
    /// named before.
    fn named(
        &self,
        id: &SegmentId,
        row: &RecordRow,
        written: Written,
        named: Vec<Culprit>,
        fields: &[String],
    ) -> Result<Vec<Culprit>, ReplicaError> {
        let known: BTreeMap<ChangeHash, &Culprit> =
            named.iter().map(|culprit| (culprit.hash, culprit)).collect();
        let unknown = written.iter().filter(|(_, (hash, _))| !known.contains_key(hash));
        let unknown: Vec<Pos> = unknown.map(|(pos, _)| *pos).collect();
        let mut headers = BTreeMap::new();
        for some in unknown.chunks(DOERS) {
            let entries = self.entries(row.sid, &some.iter().copied().collect());
            let entries = entries.map_err(|error| error.in_segment(id))?;
            headers.extend(entries.into_iter().map(|entry| (entry.pos, entry.header)));
        }
        let (mut culprits, mut begun) = (Vec::new(), BTreeSet::new());
        for (pos, (hash, wrote)) in written {
            if let Some(known) = known.get(&hash) {
                let fields = wrote.into_iter().collect();
                culprits.push(Culprit { fields, ..(*known).clone() });
                continue;
            }
            let Some(header) = headers.get(&pos) else { continue };
            let Writing { person, part } = self.writing_of(header);
            // Who wrote it, not the relay that repeated it.
            let actor = match part {
                Part::Beginning => {
                    let whole = if wrote.is_empty() { fields } else { &[] };
                    begun.extend(wrote.into_iter().chain(whole.iter().cloned()));
                    continue;
                }
                Part::Carried(actor, _) => actor,
                Part::Ordinary => header.actor,
            };
            culprits.push(Culprit {
                hash,
                actor,
                seq: header.seq,
                person: person.to_owned(),
                time: header.time,
                fields: wrote.into_iter().collect(),
            });
        }
        if !begun.is_empty() {
            let told: BTreeSet<ChangeHash> = culprits.iter().map(|culprit| culprit.hash).collect();
            let stands =
                |before: &Culprit| wrote_in(before, &begun) && !told.contains(&before.hash);
            let before: Vec<Culprit> = named.into_iter().filter(stands).collect();
            culprits.splice(..0, before);
        }
        Ok(culprits)
    }
}

/// Whether a change that was named before wrote one of these fields, as far as it was told which.
fn wrote_in(culprit: &Culprit, fields: &BTreeSet<String>) -> bool {
    culprit.fields.is_empty() || culprit.fields.iter().any(|field| fields.contains(field))
}
