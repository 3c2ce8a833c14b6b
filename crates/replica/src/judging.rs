//! Judging: what a relay states of records, and what a device forecasts.
//!
//! Only the state of the store decides: the record as merged, what it refers to, who else claims
//! its unique values. When a record changes, those that depend on it are judged again.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::{Catalog, Holder, Judgement, Judges, Referent, Rule, Surroundings};
use fieldkeep_model::status::{Forecast, State};
use fieldkeep_model::verdict::{self, Arg, ArgValue, LastValid, Opening};
use fieldkeep_model::{
    Outcome, Pos, Reason, RecordId, RecordKey, SegmentAddress, SegmentId, Signed, TypeName,
    Verdict, VerdictBlock,
};
use fieldkeep_store::{BlockRow, RecordRow, Records, Turned, Verdicts as _};
use serde_json::{Map, Value};

use crate::extent::limit_reasons;
use crate::identity::Role;
use crate::replica::{Replica, ReplicaError};
use crate::verdicts::standing;

/// Verdicts are signed in blocks of about so many bytes, so that frames can carry them.
const BLOCK_BYTES: usize = 64 * 1024;

/// A record that was projected and is to be judged.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) segment: SegmentId,
    pub(crate) row: RecordRow,
    pub(crate) previous: Option<RecordRow>,
    pub(crate) fields: Map<String, Value>,
}

/// A verdict, with what opens its sealed arguments.
type Stated = (Verdict, Vec<Opening>);

/// The other records, as a judge sees them.
pub(crate) struct World<'a, S> {
    pub(crate) store: &'a S,
    /// The id of a segment by its number.
    pub(crate) segment: &'a dyn Fn(i64) -> SegmentId,
    /// Types of which this replica holds only some scopes.
    pub(crate) partial: &'a dyn Fn(&TypeName) -> bool,
    /// The rules in Rust, where a relay judges.
    pub(crate) judges: Option<&'a Judges>,
}

impl<S: Records> Surroundings for World<'_, S> {
    fn referent(&self, ty: &TypeName, id: &RecordId) -> Referent {
        let rows = self.store.find(ty, id).unwrap_or_default();
        match rows.into_iter().next() {
            None if (self.partial)(ty) => Referent::Elsewhere,
            None => Referent::Absent,
            Some(row) if row.deleted => Referent::Deleted,
            Some(row) => Referent::Present {
                held: row.state == State::Judged(Outcome::Held),
                segment: (self.segment)(row.sid),
                fields: fields_of(&row.json),
            },
        }
    }

    fn presence(&self, ty: &TypeName, id: &RecordId) -> Referent {
        match self.store.presence(ty, id).unwrap_or_default() {
            None if (self.partial)(ty) => Referent::Elsewhere,
            None => Referent::Absent,
            Some((_, true, _)) => Referent::Deleted,
            Some((sid, false, state)) => Referent::Present {
                held: state == State::Judged(Outcome::Held),
                segment: (self.segment)(sid),
                fields: Map::new(),
            },
        }
    }

    fn holders(&self, ty: &TypeName, field: &str, value: &str) -> Vec<Holder> {
        let claimants = self.store.first_claimants(ty, field, value).unwrap_or_default();
        let holders = claimants.into_iter();
        holders.map(|(sid, id)| Holder { id, segment: (self.segment)(sid) }).collect()
    }

    fn judges(&self) -> Option<&Judges> {
        self.judges
    }
}

/// What a record of that segment comes to under a catalog, whoever asks.
pub(crate) fn judge(
    catalog: &Catalog,
    address: &SegmentAddress,
    subject: &Subject,
    world: &dyn Surroundings,
) -> Judgement {
    let reads = catalog.ty(&address.ty).is_some_and(|object| object.reads_previous());
    let previous = reads.then(|| last_valid_fields(subject)).flatten();
    let subject = fieldkeep_catalog::Subject {
        ty: &address.ty,
        id: &subject.row.id,
        fields: &subject.fields,
        deleted: subject.row.deleted,
        previous: previous.as_ref(),
        scope: &address.scope,
    };
    catalog.judge(&subject, world)
}

/// The fields of a record's canonical JSON.
pub(crate) fn fields_of(json: &str) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    fields.remove("~deleted");
    fields
}

impl Replica {
    pub(crate) fn judge(&self, catalog: &Catalog, subject: &Subject) -> Judgement {
        let address = &self.row(&subject.segment).address;
        let partial = |ty: &TypeName| self.holds_in_part(ty);
        let segment = |sid| self.segment_of(sid).map_or(SegmentId([0; 16]), |row| row.id);
        let judges = (self.me.role == Role::Relay).then_some(&self.judges);
        let world = World { store: &self.store, segment: &segment, partial: &partial, judges };
        judge(catalog, address, subject, &world)
    }

    /// The object types: those of the catalog, and those of which there are records.
    #[must_use]
    pub fn types(&self) -> BTreeSet<TypeName> {
        let declared = self.published().into_iter().flat_map(|p| p.catalog.types().keys());
        let held = self.segments.values().filter(|row| row.tip > 0).map(|row| &row.address.ty);
        declared.chain(held).cloned().collect()
    }

    /// Whether grants or subscriptions leave out some scopes of a type here.
    #[must_use]
    pub fn holds_in_part(&self, ty: &TypeName) -> bool {
        self.subscriptions.contains_key(ty) || self.was_granted_in_part(ty)
    }

    fn was_granted_in_part(&self, ty: &TypeName) -> bool {
        self.me.role == Role::Device
            && self.members.author(&self.me.actor()).is_none_or(|member| {
                !member.grants.iter().any(|g| g.scope.is_none() && g.ty.as_ref() == Some(ty))
                    && (member.grants.iter().any(|g| g.ty.as_ref() == Some(ty))
                        || !member.grants.contains(&fieldkeep_model::Grant::ALL))
            })
    }

    /// Judges subjects and what depends on them, and appends the verdicts to the logs of their
    /// segments. The segment that was materialised gets a block in any case: how far it is judged.
    pub(crate) fn issue_verdicts(
        &mut self,
        materialised: &SegmentId,
        subjects: Vec<Subject>,
    ) -> Result<Vec<SegmentId>, ReplicaError> {
        let dependants = self.dependants(&subjects, |_| true)?;
        Ok(self.state_verdicts(materialised, subjects.into_iter().chain(dependants))?.0)
    }

    /// Judges subjects alone. Returns the segments that have a block more, and what became of how
    /// many records.
    pub(crate) fn state_verdicts(
        &mut self,
        materialised: &SegmentId,
        subjects: impl Iterator<Item = Subject>,
    ) -> Result<(Vec<SegmentId>, Turned), ReplicaError> {
        let mut verdicts: BTreeMap<SegmentId, Vec<Stated>> = BTreeMap::new();
        verdicts.insert(*materialised, Vec::new());
        let mut turned = Turned::default();
        for subject in subjects {
            let (segment, before) = (subject.segment, outcome_of(subject.previous.as_ref()));
            let (outcome, verdict) = self.decide(subject)?;
            count(&mut turned, before, outcome);
            verdicts.entry(segment).or_default().extend(verdict);
        }
        let judged = verdicts.keys().copied().collect();
        for (segment, verdicts) in verdicts {
            let judged = self.row(&segment).judged;
            self.append_blocks(&segment, verdicts, judged)?;
        }
        Ok((judged, turned))
    }

    /// Judges one record, saves its state, and returns what it came to, with the verdict if it says
    /// something that the last one did not.
    fn decide(&mut self, subject: Subject) -> Result<(Outcome, Option<Stated>), ReplicaError> {
        let (outcome, reasons, openings) = self.reasons(&subject)?;
        let Subject { segment, mut row, previous, fields: merged } = subject;
        let before = previous.as_ref();
        let stood = before.is_some_and(|row| row.state != State::Judged(Outcome::Valid));
        self.count_judged(&segment, before, &row, outcome);
        if outcome == Outcome::Valid {
            if before.is_some_and(|before| before.hash == row.hash) && stood {
                (row.valid, row.valid_pos) = (None, self.row(&segment).done);
                self.store.put_record(&mut row)?;
                self.index_files(&segment, &row, &merged)?;
            }
            if !stood {
                return Ok((outcome, None));
            }
            self.store.put_verdict(row.sid, &row.id, None)?;
            let (reasons, culprits) = (Vec::new(), Vec::new());
            let verdict = Verdict {
                id: row.id,
                outcome,
                record: row.hash,
                reasons,
                culprits,
                last_valid: None,
            };
            return Ok((outcome, Some((verdict, Vec::new()))));
        }
        row.state = State::Judged(outcome);
        (row.valid, row.valid_pos) = match before {
            None => (None, 0),
            Some(before) if stood => (before.valid.clone(), before.valid_pos),
            Some(before) => (Some(before.json.clone()), before.valid_pos),
        };
        let known = self.store.verdict(row.sid, &row.id)?;
        let stated = known.as_ref().and_then(|(bytes, _)| minicbor::decode::<Verdict>(bytes).ok());
        let (named, valid) =
            stated.map_or_else(Default::default, |stated| (stated.culprits, stated.last_valid));
        let last_valid = self.last_valid(&segment, &row, valid)?;
        let culprits = self.culprits(&segment, &row, &reasons, named)?;
        let verdict = Verdict {
            id: row.id.clone(),
            outcome,
            record: row.hash,
            reasons,
            culprits,
            last_valid,
        };
        self.store.put_record(&mut row)?;
        self.index_files(&segment, &row, &merged)?;
        let standing = standing(&verdict, &openings);
        if known.is_some_and(|(bytes, _)| bytes == standing.bytes) {
            return Ok((outcome, None));
        }
        self.store.put_verdict(row.sid, &row.id, Some(&standing))?;
        if before.is_none_or(|before| before.hash != row.hash) {
            self.charge(&segment, row.pos, standing.bytes.len() as u64)?;
        }
        Ok((outcome, Some((verdict, openings))))
    }

    /// The judgement, with what was merged without permission, and with arguments that speak of
    /// other records sealed.
    fn reasons(
        &mut self,
        subject: &Subject,
    ) -> Result<(Outcome, Vec<Reason>, Vec<Opening>), ReplicaError> {
        let Some(catalog) = self.catalog() else {
            return Ok((Outcome::Held, vec![plain("unknown_schema")], Vec::new()));
        };
        let judgement = self.judge(&catalog, subject);
        let (mut outcome, mut reasons) = (judgement.outcome, judgement.reasons);
        let mut openings = Vec::new();
        for private in judgement.private {
            let arg = &mut reasons[private.reason].args[private.arg];
            let ArgValue::Open(value) = &arg.value else { continue };
            if private.segment == subject.segment {
                continue;
            }
            let opening = self.opening(&subject.segment, &subject.row.id, value, private.segment);
            arg.value = ArgValue::Sealed(opening.seal());
            openings.push(opening);
        }
        let taint = self.taint_of(&subject.segment, &subject.row.id)?;
        if let Some(taint) = taint.filter(|_| !subject.row.deleted) {
            outcome = Outcome::Held;
            reasons.insert(0, plain(taint));
        }
        limit_reasons(&mut reasons, &mut openings);
        Ok((outcome, reasons, openings))
    }

    /// An opening whose salt only this relay can tell, and which is the same each time.
    fn opening(
        &self,
        segment: &SegmentId,
        record: &RecordId,
        value: &str,
        about: SegmentId,
    ) -> Opening {
        let key = blake3::derive_key("fieldkeep 1 seal salt", &self.me.keys.secret());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&segment.0).update(record.as_str().as_bytes()).update(&[0]);
        hasher.update(value.as_bytes());
        let salt = hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes");
        Opening { salt, value: value.to_owned(), segment: about }
    }

    /// Counts what is held and what waits in a segment.
    pub(crate) fn count_judged(
        &mut self,
        id: &SegmentId,
        before: Option<&RecordRow>,
        row: &RecordRow,
        outcome: Outcome,
    ) {
        let was = |outcome| {
            u64::from(before.is_some_and(|row| row.state == State::Judged(outcome) && !row.deleted))
        };
        let is = |other| u64::from(outcome == other && !row.deleted);
        let segment = self.row_mut(id);
        segment.held = segment.held - was(Outcome::Held) + is(Outcome::Held);
        segment.waiting = segment.waiting - was(Outcome::Waiting) + is(Outcome::Waiting);
    }

    /// What passed last; as it was `stated`, where that is the same.
    fn last_valid(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        stated: Option<LastValid>,
    ) -> Result<Option<LastValid>, ReplicaError> {
        let Some(json) = row.valid.clone() else { return Ok(None) };
        if let Some(stated) = stated.filter(|stated| stated.json == json) {
            return Ok(Some(stated));
        }
        let heads = self.load(id)?.history.heads_through(row.valid_pos);
        Ok(Some(LastValid { heads, json }))
    }

    /// The records whose judgement depends on what changed: those that refer to a record which
    /// appeared, went or changed what their rules read, and those that claim a value which the
    /// record claims or claimed. Subjects themselves are left out, and what is in a state that is
    /// not asked for.
    fn dependants(
        &self,
        subjects: &[Subject],
        wanted: impl Fn(State) -> bool,
    ) -> Result<Vec<Subject>, ReplicaError> {
        let own: BTreeSet<_> = subjects.iter().map(|s| (s.row.sid, s.row.id.clone())).collect();
        let mut found = BTreeSet::new();
        let Some(catalog) = self.catalog() else { return Ok(Vec::new()) };
        for subject in subjects {
            let ty = &self.row(&subject.segment).address.ty;
            let Some(object) = catalog.ty(ty) else { continue };
            let before = subject.previous.as_ref();
            let appeared = before.is_none_or(|before| before.deleted != subject.row.deleted);
            let content = before.is_none_or(|before| before.hash != subject.row.hash);
            if appeared || (content && rules_look_into(&catalog, ty)) {
                found.extend(self.store.referrers(ty, &subject.row.id)?);
            }
            if !object.fields.values().any(|field| field.unique) {
                continue;
            }
            let mut claims = object.unique_values(&subject.fields);
            if let Some(before) = before.filter(|before| before.hash != subject.row.hash) {
                claims.extend(object.unique_values(&fields_of(&before.json)));
            }
            claims.sort_unstable();
            claims.dedup();
            for (field, value) in claims {
                found.extend(self.store.claimants(ty, &field, &value)?);
            }
        }
        let mut dependants = Vec::new();
        for (sid, id) in found.into_iter().filter(|key| !own.contains(key)) {
            // One that cannot be read is judged when it can be.
            let segment = self.segment_of(sid).filter(|row| !row.damaged).map(|row| row.id);
            let Some(segment) = segment else { continue };
            let row = self.store.record(sid, &id);
            let row = row.map_err(|error| ReplicaError::from(error).in_segment(&segment))?;
            let row = row.filter(|row| wanted(row.state));
            dependants.extend(row.map(|row| unchanged(segment, row)));
        }
        Ok(dependants)
    }

    /// Judges records again as they stand, each with what depends on it, wholly or not at all.
    ///
    /// # Errors
    /// When the replica fails; [`ReplicaError::Damaged`] where what a verdict needs cannot be read.
    pub fn rejudge(&mut self, keys: &[RecordKey]) -> Result<Vec<SegmentId>, ReplicaError> {
        let (judged, _) = self.together(true, |replica| {
            let mut judged = BTreeSet::new();
            for key in keys {
                for row in replica.store.find(&key.ty, &key.id)? {
                    let segment = replica.segment_of(row.sid).map(|row| row.id);
                    let Some(segment) = segment else { continue };
                    let subject = unchanged(segment, row);
                    judged.extend(replica.issue_verdicts(&segment, vec![subject])?);
                }
            }
            Ok::<_, ReplicaError>(judged)
        })?;
        Ok(judged.into_iter().collect())
    }

    /// States every standing verdict again, in the epoch that was just opened: whatever devices
    /// know of the epochs before ends with the first block of this one. Of a segment that cannot be read
    /// nothing is stated.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn restate_verdicts(&mut self) -> Result<Vec<SegmentId>, ReplicaError> {
        let segments: Vec<_> = self.segments.values().map(|row| (row.id, row.sid)).collect();
        let mut restated = Vec::with_capacity(segments.len());
        for (id, sid) in &segments {
            let standing = self.store.standing_verdicts(*sid)?.into_iter();
            let verdicts = standing.filter_map(|(verdict, openings)| {
                Some((minicbor::decode(&verdict).ok()?, minicbor::decode(&openings).ok()?))
            });
            let verdicts = verdicts.collect();
            match self.sparing(id, |replica| replica.append_blocks(id, verdicts, 0)) {
                Err(error) if error.is_damage() => {}
                stated => {
                    stated?;
                    restated.push(*id);
                }
            }
        }
        Ok(restated)
    }

    /// Signs verdicts and appends them, in blocks of a bounded size. All but the last say that the
    /// segment is judged through `meanwhile` only.
    pub(crate) fn append_blocks(
        &mut self,
        id: &SegmentId,
        verdicts: Vec<Stated>,
        meanwhile: Pos,
    ) -> Result<(), ReplicaError> {
        let mut part = Vec::new();
        let mut bytes = 0;
        for (verdict, openings) in verdicts {
            let size = minicbor::to_vec(&verdict).expect("encoding into memory cannot fail").len();
            if bytes + size > BLOCK_BYTES && !part.is_empty() {
                self.append_block(id, std::mem::take(&mut part), meanwhile)?;
                bytes = 0;
            }
            bytes += size;
            part.push((verdict, openings));
        }
        let done = self.row(id).done;
        self.append_block(id, part, done)
    }

    /// Signs a block and appends it.
    fn append_block(
        &mut self,
        id: &SegmentId,
        verdicts: Vec<Stated>,
        pos: Pos,
    ) -> Result<(), ReplicaError> {
        let catalog = self.published.as_ref().map_or(0, |published| published.number);
        let (org, epoch) = (self.org(), self.epoch);
        let heads = self.load(id)?.history.heads_through(pos);
        let row = self.row_mut(id);
        row.verdict += verdicts.len() as u64;
        (row.judged, row.judged_catalog) = (pos, catalog);
        let (sid, number) = (row.sid, row.verdict);
        let (verdicts, openings): (Vec<_>, Vec<_>) = verdicts.into_iter().unzip();
        let openings: Vec<Opening> = openings.into_iter().flatten().collect();
        let stated = !verdicts.is_empty();
        let block =
            VerdictBlock { org, segment: *id, epoch, number, catalog, pos, heads, verdicts };
        let block = Signed::new(verdict::CONTEXT, &block, &self.me.keys);
        self.store.put_judged(sid, &block)?;
        if stated {
            let openings = minicbor::to_vec(&openings).expect("encoding into memory cannot fail");
            self.store.append_block(sid, &BlockRow { epoch, number, block, openings })?;
        }
        Ok(())
    }

    /// Sets the state of projected records on a device: the relay's verdict where it judged this
    /// content, a forecast elsewhere. Returns their rows.
    pub(crate) fn forecast_all(
        &mut self,
        subjects: Vec<Subject>,
    ) -> Result<Vec<RecordRow>, ReplicaError> {
        let dependants = self.dependants(&subjects, |state| matches!(state, State::Forecast(_)))?;
        let rows = subjects.into_iter().map(|subject| self.forecast(subject));
        let rows = rows.collect::<Result<_, _>>()?;
        for dependant in dependants {
            self.forecast(dependant)?;
        }
        Ok(rows)
    }

    /// Saves one composed record on a device, with its state, and sets that of what depends on it.
    /// Its row is written once: nothing else is judged that could ask for it, but where it refers
    /// to itself.
    pub(crate) fn project_alone(
        &mut self,
        mut subject: Subject,
    ) -> Result<RecordRow, ReplicaError> {
        if self.refers_to_itself(&subject) {
            self.save_projected(&mut subject)?;
            let mut rows = self.forecast_all(vec![subject])?;
            return Ok(rows.pop().expect("one subject, one row"));
        }
        self.foretell(&mut subject)?;
        self.save_projected(&mut subject)?;
        let alone = std::slice::from_ref(&subject);
        for dependant in self.dependants(alone, |state| matches!(state, State::Forecast(_)))? {
            self.forecast(dependant)?;
        }
        Ok(subject.row)
    }

    fn refers_to_itself(&self, subject: &Subject) -> bool {
        let address = &self.row(&subject.segment).address;
        let Some(catalog) = self.catalog() else { return false };
        let references = catalog.ty(&address.ty).map(|object| object.references(&subject.fields));
        let references = references.unwrap_or_default();
        references.iter().any(|other| other.ty == address.ty && other.id == subject.row.id)
    }

    /// Sets one record's state on a device, and returns its row.
    pub(crate) fn forecast(&mut self, mut subject: Subject) -> Result<RecordRow, ReplicaError> {
        self.foretell(&mut subject)?;
        let Subject { segment, mut row, previous, fields } = subject;
        let provisional = State::Judged(Outcome::Valid);
        if row.state != provisional || previous.is_some_and(|p| p.state != provisional) {
            self.store.put_record(&mut row)?;
            self.index_files(&segment, &row, &fields)?;
        }
        Ok(row)
    }

    /// Puts a device's knowledge of a record's validity into its row, and writes nothing: the
    /// relay's verdict where it judged this content, a forecast elsewhere.
    fn foretell(&self, subject: &mut Subject) -> Result<(), ReplicaError> {
        let segment = self.row(&subject.segment);
        let (sid, judged) = (segment.sid, segment.judged);
        let stated: Option<Verdict> = match self.store.verdict(sid, &subject.row.id)? {
            Some((bytes, _)) => minicbor::decode(&bytes).ok(),
            None => None,
        };
        let passed = subject.row.unsaved == 0 && (1..=judged).contains(&subject.row.pos);
        let state = match &stated {
            Some(verdict) if verdict.record == subject.row.hash => State::Judged(verdict.outcome),
            None if passed => State::Judged(Outcome::Valid),
            Some(_) | None => {
                let judgement = self.catalog().map(|catalog| self.judge(&catalog, subject));
                foresee(subject, judgement);
                return Ok(());
            }
        };
        let row = &mut subject.row;
        (row.state, row.forecast) = (state, None);
        row.valid = stated.and_then(|verdict| verdict.last_valid).map(|valid| valid.json);
        Ok(())
    }
}

/// What a relay has stated of a record.
pub(crate) fn outcome_of(row: Option<&RecordRow>) -> Outcome {
    match row.map(|row| row.state) {
        Some(State::Judged(outcome)) => outcome,
        Some(State::Forecast(_)) | None => Outcome::Valid,
    }
}

/// Counts a record that comes to be otherwise than it was.
pub(crate) fn count(turned: &mut Turned, before: Outcome, after: Outcome) {
    let count = match after {
        Outcome::Held => &mut turned.held,
        Outcome::Waiting => &mut turned.waiting,
        Outcome::Valid => &mut turned.released,
    };
    *count += u64::from(before != after);
}

/// Puts a forecast into a record's row.
fn foresee(subject: &mut Subject, judgement: Option<Judgement>) {
    let row = &mut subject.row;
    let (forecast, reasons) = match judgement {
        None => (Forecast::NeedsRelay, Vec::new()),
        Some(judgement) => (forecast_of(&judgement), judgement.reasons),
    };
    row.valid = valid_before(subject.previous.as_ref());
    row.state = State::Forecast(forecast);
    row.forecast = (!reasons.is_empty())
        .then(|| minicbor::to_vec(&reasons).expect("encoding into memory cannot fail"));
}

fn forecast_of(judgement: &Judgement) -> Forecast {
    match judgement.outcome {
        Outcome::Held => Forecast::LikelyHeld,
        Outcome::Valid if judgement.complete => Forecast::LikelyValid,
        Outcome::Valid | Outcome::Waiting => Forecast::NeedsRelay,
    }
}

/// A record that is judged as it stands.
pub(crate) fn unchanged(segment: SegmentId, row: RecordRow) -> Subject {
    let fields = fields_of(&row.json);
    let mut judged = row.clone();
    judged.state = State::Judged(Outcome::Valid);
    Subject { segment, row: judged, previous: Some(row), fields }
}

/// The last valid value that a rule may compare with.
fn last_valid_fields(subject: &Subject) -> Option<Map<String, Value>> {
    let previous = subject.previous.as_ref()?;
    if previous.state == State::Judged(Outcome::Valid) {
        return Some(fields_of(&previous.json));
    }
    previous.valid.as_deref().map(fields_of)
}

/// What passed last, as far as a device knows, for a record that it forecasts.
fn valid_before(previous: Option<&RecordRow>) -> Option<String> {
    let previous = previous?;
    let passed = previous.state == State::Judged(Outcome::Valid);
    if passed { Some(previous.json.clone()) } else { previous.valid.clone() }
}

/// Whether a rule reads fields of records of that type through a reference.
fn rules_look_into(catalog: &Catalog, ty: &TypeName) -> bool {
    catalog.types().values().any(|object| {
        let reads = object.rules.iter().any(Rule::looks_into_referents);
        let refers = |field: &fieldkeep_catalog::Field| field.reference.as_ref() == Some(ty);
        reads && object.fields.values().any(|f| refers(f) || f.children.values().any(refers))
    })
}

pub(crate) fn plain(id: &str) -> Reason {
    Reason { id: id.to_owned(), rule: None, fields: Vec::new(), args: Vec::<Arg>::new() }
}
