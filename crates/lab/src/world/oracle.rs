//! The oracles that watch all along: what must be true after every commit of every node.
//!
//! They are cheap, because they compare what nodes keep anyway: a segment's sums over its changes
//! and over its rows, its cursors, its receipts. What needs a look at everything is in `reckoning`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use fieldkeep_device::TypeView;
use fieldkeep_model::status::{Forecast, LeftOut, State};
use fieldkeep_model::{
    ChangeHash, Epoch, Outcome, Pos, RecordId, SegmentAddress, SegmentId, TypeName, Verdict,
};
use fieldkeep_replica::{Replica, Wrote};
use fieldkeep_store::{Log as _, Records as _, SegmentRow, Store, StoreError, Verdicts as _};

use super::World;
use super::fault::Fault;
use super::time::{Micros, Moment};

/// A promise, and whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oracle {
    /// The same changes make the same records, on every node and at every time.
    Projection,
    /// At the same verdict cursor the same verdicts stand.
    Verdicts,
    /// What was reported saved is there in the end, on the relay and on every device that may read
    /// it.
    Lost,
    /// What was reported saved is on that disk when its process begins again.
    Saved,
    /// No two changes bear the same name, unless nothing could tell two copies apart.
    Incarnation,
    /// A receipt means that the relay has it.
    Unsaved,
    /// What is shown as synced is equal.
    Synced,
    /// A held record holds up nothing else.
    Held,
    /// A forecast is what the relay says, where the device knows all that the relay does.
    Forecast,
    /// Nobody deletes a record but a person.
    Deletion,
    /// What a node keeps in memory of others is bounded.
    Bounded,
    /// What a device leaves out is exchanged with nobody, nothing is written there, and nothing there
    /// was on that device alone.
    LeftOut,
    /// A call is carried out once or never, all of it or nothing, and both sides say the same of it.
    Called,
    /// Nothing of an edit that needs a connection exists unless a relay wrote it.
    Online,
    /// A file goes after its record, and one that the relay is said to have is there whole.
    Filed,
    /// Nobody has a file but for a record that he may read, and for which somebody attached it who had it.
    Opened,
    /// Whatever is in a log has passed the gate, and a member wrote it.
    Gate,
    /// What is authorised is merged, and what is not is marked where it had to be.
    Permitted,
    /// When nothing fails any more, everything is exchanged, judged and proven soon.
    Settles,
    /// Nothing that a peer or a disk does ends a process.
    Contained,
}

impl Oracle {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Projection,
        Self::Verdicts,
        Self::Lost,
        Self::Saved,
        Self::Incarnation,
        Self::Unsaved,
        Self::Synced,
        Self::Held,
        Self::Forecast,
        Self::Deletion,
        Self::Bounded,
        Self::LeftOut,
        Self::Called,
        Self::Online,
        Self::Filed,
        Self::Opened,
        Self::Gate,
        Self::Permitted,
        Self::Settles,
        Self::Contained,
    ];

    /// The word for it in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Projection => "projection",
            Self::Verdicts => "verdicts",
            Self::Lost => "lost",
            Self::Saved => "saved",
            Self::Incarnation => "incarnation",
            Self::Unsaved => "unsaved",
            Self::Synced => "synced",
            Self::Held => "held",
            Self::Forecast => "forecast",
            Self::Deletion => "deletion",
            Self::Bounded => "bounded",
            Self::LeftOut => "left-out",
            Self::Called => "called",
            Self::Online => "online",
            Self::Filed => "filed",
            Self::Opened => "opened",
            Self::Gate => "gate",
            Self::Permitted => "permitted",
            Self::Settles => "settles",
            Self::Contained => "contained",
        }
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{oracle} at {}: {text}", Moment(*at))]
pub struct Violation {
    /// Which promise.
    pub oracle: Oracle,
    /// When it was noticed.
    pub at: Micros,
    /// What was found.
    pub text: String,
}

/// Something that ends with the first broken promise.
pub(crate) type Checked<T = ()> = Result<T, Box<Violation>>;

/// What was seen of a node's segment last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    tip: Pos,
    sum: u128,
    done: Pos,
    records: u64,
    cursor: (u64, Pos),
}

impl Seen {
    fn of(row: &SegmentRow) -> Self {
        Self {
            tip: row.tip,
            sum: row.sum,
            done: row.done,
            records: row.records,
            cursor: (row.verdict, row.judged),
        }
    }
}

/// A forecast that waits for the relay to judge in the same situation.
#[derive(Debug)]
struct Foretold {
    device: usize,
    record: RecordId,
    forecast: Forecast,
    /// The verdict cursor of the record's segment.
    cursor: (u64, Pos),
    /// The catalog in force: its epoch and number.
    catalog: (Epoch, u64),
    /// The changes that the device held, by segment.
    held: Vec<(SegmentId, u128)>,
}

/// What the oracles remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Records and sum of rows by segment and set of changes.
    projections: HashMap<(SegmentId, Pos, u128), (u64, u128)>,
    /// A digest of what stands by segment and verdict cursor.
    verdicts: HashMap<(SegmentId, Epoch, u64, Pos), [u8; 32]>,
    /// What the relay's log held through a position, whenever a commit ended there.
    logs: HashMap<(SegmentId, Pos), Vec<u128>>,
    relay: BTreeMap<SegmentId, Seen>,
    foretold: HashMap<(SegmentId, u128), Vec<Foretold>>,
    judging: Option<BTreeMap<SegmentId, (u64, Pos)>>,
    /// Receipts since the relay's process began.
    receipts: Vec<(SegmentId, ChangeHash)>,
    /// What a device said of something that it leaves out.
    pub(crate) said: Option<String>,
    pub(crate) counts: Looks,
}

/// How much the oracles have looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Projections compared with one that another node or time made of the same changes.
    pub projections: u64,
    /// Sets of verdicts compared with another node's at the same cursor.
    pub verdicts: u64,
    /// Receipts looked up on the relay.
    pub receipts: u64,
    /// Forecasts compared with the relay's verdict in the same situation.
    pub forecasts: u64,
    /// Times that a device was seen as synced, and compared.
    pub synced: u64,
}

impl World {
    pub(crate) fn violation(&self, oracle: Oracle, text: String) -> Box<Violation> {
        Box::new(Violation { oracle, at: self.now, text })
    }

    fn failed_to_read(&self, error: StoreError) -> Box<Violation> {
        self.violation(Oracle::Contained, error.to_string())
    }

    /// Looks at the relay after a commit.
    pub(crate) fn relay_saw(&mut self) -> Checked {
        let Some(engine) = self.relay.engine.as_ref() else { return Ok(()) };
        if engine.connections() > self.relay.peers.len() + self.relay.inbox.len() {
            let text = format!(
                "the relay keeps {} connections, and {} are open",
                engine.connections(),
                self.relay.peers.len()
            );
            return Err(self.violation(Oracle::Bounded, text));
        }
        let replica = engine.replica();
        let mut moved = Vec::new();
        for row in replica.segments().values() {
            let seen = Seen::of(row);
            let before = self.watch.relay.insert(row.id, seen);
            if before != Some(seen) {
                moved.push((row.clone(), before.unwrap_or_default()));
            }
        }
        for (row, before) in &moved {
            let sums = self.watch.logs.entry((row.id, row.tip)).or_default();
            if !sums.contains(&row.sum) {
                sums.push(row.sum);
            }
            self.saw_projection(None, "the relay", row, before)?;
            if before.cursor != (row.verdict, row.judged) {
                self.saw_verdicts(None, row)?;
            }
        }
        Ok(())
    }

    /// Looks at a device after a commit.
    pub(crate) fn device_saw(&mut self, at: usize) -> Checked {
        let Some(replica) = self.devices[at].replica() else { return Ok(()) };
        if replica.loaded_documents() > 64 {
            let text = format!("device {at} keeps {} documents", replica.loaded_documents());
            return Err(self.violation(Oracle::Bounded, text));
        }
        let mut moved = Vec::new();
        for row in replica.segments().values() {
            let before = self.devices[at].seen.get(&row.id);
            if before != Some(&Seen::of(row)) {
                moved.push((row.clone(), before.copied().unwrap_or_default()));
            }
        }
        self.kept_to_itself()?;
        self.takes_up(at)?;
        for (row, before) in &moved {
            self.nothing_came(at, row)?;
            self.devices[at].seen.insert(row.id, Seen::of(row));
            self.saw_projection(Some(at), &format!("device {at}"), row, before)?;
            if before.cursor != (row.verdict, row.judged) {
                self.saw_verdicts(Some(at), row)?;
            }
        }
        self.saw_receipts(at)?;
        self.saw_outcomes(at)?;
        self.saw_completion(at)
    }

    /// The same changes make the same rows; and no record goes.
    fn saw_projection(
        &mut self,
        device: Option<usize>,
        who: &str,
        row: &SegmentRow,
        before: &Seen,
    ) -> Checked {
        if row.damaged {
            let text = format!("{who} cannot merge {}", row.address);
            return Err(self.violation(Oracle::Contained, text));
        }
        // A branch that is set aside makes the log shorter, unless another comes in for it; nothing
        // else may.
        let grew = row.tip >= before.tip;
        let fewer = row.records < before.records && grew && row.done == row.tip;
        if fewer && !device.is_some_and(|at| self.sets_aside(at, row)) {
            let text = format!(
                "{who} had {} records of {} and has {}",
                before.records, row.address, row.records
            );
            return Err(self.violation(Oracle::Deletion, text));
        }
        if device.is_none() && !grew {
            let text = format!("the relay's log of {} became shorter", row.address);
            return Err(self.violation(Oracle::Lost, text));
        }
        if row.done < row.tip {
            return Ok(());
        }
        let made = (row.records, row.rows);
        let known = *self.watch.projections.entry((row.id, row.tip, row.sum)).or_insert(made);
        self.watch.counts.projections += 1;
        if known != made {
            let text = format!(
                "{who} makes other records of the same {} changes of {}: {} and {}",
                row.tip, row.address, made.0, known.0
            );
            return Err(self.violation(Oracle::Projection, text));
        }
        Ok(())
    }

    /// Whether a device has just set a branch aside.
    fn sets_aside(&self, at: usize, row: &SegmentRow) -> bool {
        let now = self.device_clock(at);
        let asides = self.devices[at].replica().and_then(|r| r.store().asides_in(row.sid).ok());
        asides.unwrap_or_default().iter().any(|aside| aside.time == now)
    }

    /// The same verdicts stand at the same cursor; `None` is the relay.
    pub(crate) fn saw_verdicts(&mut self, device: Option<usize>, row: &SegmentRow) -> Checked {
        let replica = match device {
            Some(at) => self.devices[at].replica(),
            None => self.relay.replica(),
        };
        let Some(replica) = replica else { return Ok(()) };
        let digest = standing(replica.store(), row.sid);
        let digest = digest.map_err(|error| self.failed_to_read(error))?;
        let epoch = replica.epoch();
        let cursor = (row.id, epoch, row.verdict, row.judged);
        let stated = replica.judged_block(&row.id).ok().flatten();
        let stated = stated.and_then(|block| block.read::<fieldkeep_model::VerdictBlock>());
        if stated.is_none_or(|block| block.epoch != epoch) {
            // What stands is of the epoch before: the first block of this one replaces it.
            return Ok(());
        }
        self.watch.counts.verdicts += 1;
        let known = *self.watch.verdicts.entry(cursor).or_insert(digest);
        if known != digest {
            let who = device.map_or_else(|| "the relay".to_owned(), |at| format!("device {at}"));
            let text = format!(
                "{who} has other verdicts of {} at verdict {} and position {} of epoch {epoch}",
                row.address, row.verdict, row.judged
            );
            return Err(self.violation(Oracle::Verdicts, text));
        }
        Ok(())
    }

    /// What has a receipt is on the relay.
    fn saw_receipts(&mut self, at: usize) -> Checked {
        if self.devices[at].unsaved.is_empty() {
            return Ok(());
        }
        let Some(replica) = self.devices[at].replica() else { return Ok(()) };
        let count = replica.store().outgoing_count().map_err(|e| self.failed_to_read(e))?;
        if count == self.devices[at].outgoing {
            return Ok(());
        }
        let mut waiting = std::collections::BTreeSet::new();
        for row in replica.segments().values() {
            let outgoing = replica.store().outgoing(row.sid).map_err(|e| self.failed_to_read(e))?;
            waiting.extend(outgoing.into_iter().map(|change| (row.id, change.actor, change.seq)));
        }
        self.devices[at].outgoing = count;
        let settled: Vec<_> = {
            let unsaved = &self.devices[at].unsaved;
            unsaved
                .iter()
                .filter(|(key, _)| !waiting.contains(key))
                .map(|(k, n)| (*k, *n))
                .collect()
        };
        for (key, number) in settled {
            self.devices[at].unsaved.remove(&key);
            self.saw_receipt(at, number)?;
        }
        Ok(())
    }

    fn saw_receipt(&mut self, at: usize, number: usize) -> Checked {
        let saved = &self.ledger.entries[number];
        let (segment, hash) = (saved.segment, saved.hash);
        // An offer's answer tells receipts by name alone. Where two copies that nothing tells apart
        // use a name twice, one of them takes the other's receipt for its own until the log comes,
        // loses the fork then, and writes its content again.
        if self.aside(at, &segment, &hash).is_some() || self.ledger.is_forked(saved) {
            return Ok(());
        }
        let restores = self.relay.restores;
        let Some(engine) = self.relay.engine.as_mut() else {
            self.watch.receipts.push((segment, hash));
            return Ok(());
        };
        let known = engine.replica().segment(&segment).is_some();
        let held = known && engine.replica_mut().holds_change(&segment, &hash).unwrap_or(false);
        self.watch.counts.receipts += 1;
        if !held && restores == 0 {
            let text =
                format!("device {at} has a receipt of {hash}, and the relay has no such change");
            return Err(self.violation(Oracle::Unsaved, text));
        }
        if held {
            self.ledger.entries[number].receipt = Some(restores);
        }
        self.watch.receipts.push((segment, hash));
        Ok(())
    }

    /// Why a node keeps a change aside, if it does.
    pub(crate) fn aside(
        &self,
        at: usize,
        segment: &SegmentId,
        hash: &ChangeHash,
    ) -> Option<String> {
        let replica = self.devices[at].replica()?;
        let aside = replica.store().aside(replica.segment(segment)?.sid, hash).ok()??;
        Some(aside.reason)
    }

    /// What is shown as synced is what the relay had at that position.
    fn saw_completion(&mut self, at: usize) -> Checked {
        let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(()) };
        let paused = engine.stored_pauses();
        let paused = paused.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        let (exchanged, complete) = if engine.is_online() && engine.may_be_complete() {
            let progress = engine.progress();
            let progress =
                progress.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
            (progress.complete(), progress.complete() && progress.refused == 0)
        } else {
            (false, false)
        };
        self.devices[at].exchanged = exchanged;
        let before = std::mem::replace(&mut self.devices[at].complete, complete);
        if !complete || before {
            return Ok(());
        }
        self.watch.counts.synced += 1;
        self.is_what_the_relay_had(at, |address| !paused.covers(address))?;
        let shown = self.shown_as_synced(at)?;
        let types = self.devices[at].replica().map(Replica::types).unwrap_or_default();
        let quiet = |ty: &TypeName| paused.pauses(ty) || self.waits_left_out(at, ty);
        match types.into_iter().find(|ty| !quiet(ty) && !shown.contains(ty)) {
            Some(ty) => {
                let rows =
                    self.devices[at].replica().into_iter().flat_map(|r| r.segments().values());
                let rows = rows.filter(|row| row.address.ty == ty && self.may_read(at, row));
                let places: Vec<String> = rows.map(place).collect();
                let text = format!(
                    "device {at} has everything, and {ty} is not shown as synced: {}",
                    places.join(", ")
                );
                Err(self.violation(Oracle::Synced, text))
            }
            None => Ok(()),
        }
    }

    /// The types that a device shows as synced.
    fn shown_as_synced(&self, at: usize) -> Checked<BTreeSet<TypeName>> {
        let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(BTreeSet::new()) };
        let types = engine.types();
        let types = types.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        Ok(types.into_iter().filter(TypeView::is_synced).map(|view| view.ty).collect())
    }

    /// What a device that was restarted shows as synced is what the relay had.
    fn shows_after_restart(&self, at: usize) -> Checked {
        let shown = self.shown_as_synced(at)?;
        let left_out = LeftOut { scopes: self.devices[at].left_out.clone(), ..LeftOut::default() };
        self.is_what_the_relay_had(at, |address| {
            shown.contains(&address.ty) && !left_out.covers(address)
        })
    }

    /// What a device has of those segments is what the relay had at the device's place in its log.
    fn is_what_the_relay_had(
        &self,
        at: usize,
        wanted: impl Fn(&SegmentAddress) -> bool,
    ) -> Checked {
        let Some(replica) = self.devices[at].replica() else { return Ok(()) };
        let followed =
            |row: &&SegmentRow| row.tip > 0 && self.may_read(at, row) && wanted(&row.address);
        for row in replica.segments().values().filter(followed) {
            let known = self.watch.logs.get(&(row.id, row.cursor.pos));
            let equal = row.tip == row.cursor.pos
                && row.done == row.tip
                && known.is_some_and(|sums| sums.contains(&row.sum));
            if !equal {
                let text = format!(
                    "device {at} is shown as synced, and its {} with {} changes is not what the \
                     relay had at {}: {}",
                    row.address,
                    row.tip,
                    row.cursor.pos,
                    self.describe(at)
                );
                return Err(self.violation(Oracle::Synced, text));
            }
        }
        Ok(())
    }

    /// Remembers a forecast, with the situation that it was made in.
    pub(crate) fn foretold(&mut self, at: usize, wrote: &Wrote) {
        let State::Forecast(forecast) = wrote.row.state else { return };
        let Some(replica) = self.devices[at].replica() else { return };
        let Some(row) = replica.segment(&wrote.segment) else { return };
        let held = replica.segments().values().map(|row| (row.id, row.sum)).collect();
        let foretold = Foretold {
            device: at,
            record: wrote.key.id.clone(),
            forecast,
            cursor: (row.verdict, row.judged),
            catalog: in_force(replica),
            held,
        };
        self.watch.foretold.entry((row.id, row.sum)).or_default().push(foretold);
    }

    /// Remembers where the verdicts stood before a slice of judging.
    pub(crate) fn before_judging(&mut self) {
        let Some(replica) = self.relay.replica() else { return };
        let behind = replica.behind();
        let cursors = behind.into_iter().filter_map(|id| {
            let row = replica.segment(&id)?;
            Some((id, (row.verdict, row.judged)))
        });
        self.watch.judging = Some(cursors.collect());
    }

    /// Compares forecasts with what the relay has just judged in the same situation.
    pub(crate) fn after_judging(&mut self) -> Checked {
        let Some(before) = self.watch.judging.take() else { return Ok(()) };
        for (id, cursor) in before {
            let Some(row) = self.relay.replica().and_then(|replica| replica.segment(&id)) else {
                continue;
            };
            let row = row.clone();
            if row.done < row.tip {
                continue;
            }
            for foretold in self.watch.foretold.remove(&(id, row.sum)).unwrap_or_default() {
                if foretold.cursor == cursor {
                    self.compare_forecast(&row, &foretold)?;
                }
            }
        }
        Ok(())
    }

    fn compare_forecast(&mut self, row: &SegmentRow, foretold: &Foretold) -> Checked {
        let Some(replica) = self.relay.replica() else { return Ok(()) };
        let same = |(id, sum): &(SegmentId, u128)| {
            replica.segment(id).map_or(*sum == 0, |row| row.sum == *sum && row.done == row.tip)
        };
        let catalog = in_force(replica);
        if catalog != foretold.catalog || !foretold.held.iter().all(same) {
            return Ok(());
        }
        let record = replica.store().record(row.sid, &foretold.record);
        let record = record.map_err(|error| self.failed_to_read(error))?;
        let outcome = match record.map(|record| record.state) {
            Some(State::Judged(outcome)) => outcome,
            Some(State::Forecast(_)) | None => return Ok(()),
        };
        let agrees = match foretold.forecast {
            Forecast::NeedsRelay => return Ok(()),
            Forecast::LikelyValid => outcome == Outcome::Valid,
            Forecast::LikelyHeld => outcome == Outcome::Held,
        };
        if !agrees && reads_beyond(replica, row.sid, &foretold.record) {
            return Ok(());
        }
        self.watch.counts.forecasts += 1;
        if !agrees {
            let text = format!(
                "device {} forecast {:?} for {} of {}, and the relay says {}",
                foretold.device,
                foretold.forecast,
                foretold.record,
                row.address,
                outcome.word()
            );
            return Err(self.violation(Oracle::Forecast, text));
        }
        Ok(())
    }

    /// After a process began again: what was reported saved is there.
    pub(crate) fn device_reopened(&mut self, at: usize) -> Checked {
        self.devices[at].seen.clear();
        for number in std::mem::take(&mut self.devices[at].recent) {
            let saved = &self.ledger.entries[number];
            let (segment, hash, record) = (saved.segment, saved.hash, saved.record.clone());
            if !self.device_holds(at, &segment, &hash) {
                let text = format!("device {at} reported {record} saved, and does not have it");
                return Err(self.violation(Oracle::Saved, text));
            }
        }
        self.shows_after_restart(at)?;
        self.device_saw(at)
    }

    /// Whether a device has a change, in its log or aside.
    pub(crate) fn device_holds(&mut self, at: usize, id: &SegmentId, hash: &ChangeHash) -> bool {
        let aside = self.aside(at, id, hash).is_some();
        let Some(engine) = self.devices[at].engine.as_mut() else { return false };
        let known = engine.replica().segment(id).is_some();
        aside || known && engine.replica_mut().holds_change(id, hash).unwrap_or(false)
    }

    /// Whether the relay has a change.
    pub(crate) fn relay_holds(&mut self, id: &SegmentId, hash: &ChangeHash) -> bool {
        let Some(engine) = self.relay.engine.as_mut() else {
            let store = self.relay.store.as_ref();
            return store.is_some_and(|store| store_holds(store, id, hash).unwrap_or(false));
        };
        let known = engine.replica().segment(id).is_some();
        known && engine.replica_mut().holds_change(id, hash).unwrap_or(false)
    }

    /// After the relay's process began again: everything with a receipt is there.
    pub(crate) fn relay_reopened(&mut self) -> Checked {
        let receipts = std::mem::take(&mut self.watch.receipts);
        if self.relay.restores > 0 {
            return Ok(());
        }
        for (segment, hash) in receipts {
            if !self.relay_holds(&segment, &hash) {
                let text = format!("there is a receipt of {hash}, and the relay lost it");
                return Err(self.violation(Oracle::Lost, text));
            }
        }
        Ok(())
    }

    /// After an old copy took a node's place: what nobody has any more is lost, and that is nobody's
    /// fault; and what was seen of the node begins anew.
    pub(crate) fn take_stock(&mut self) {
        for number in 0..self.ledger.entries.len() {
            let saved = &self.ledger.entries[number];
            if saved.lost {
                continue;
            }
            let (author, segment, hash) = (saved.device, saved.segment, saved.hash);
            let held = self.is_held(author, &segment, &hash);
            self.ledger.entries[number].lost = !held;
        }
        for device in &mut self.devices {
            let entries = &self.ledger.entries;
            device.unsaved.retain(|_, number| !entries[*number].lost);
        }
    }

    /// Whether any disk has a change: the relay's, its author's, or another device's.
    pub(crate) fn is_held(
        &mut self,
        author: usize,
        segment: &SegmentId,
        hash: &ChangeHash,
    ) -> bool {
        let others = (0..self.devices.len()).filter(|at| *at != author);
        let order: Vec<usize> = std::iter::once(author).chain(others).collect();
        self.relay_holds(segment, hash)
            || order.into_iter().any(|at| {
                // A device that is not running has its disk all the same.
                self.device_holds(at, segment, hash) || self.closed_device_holds(at, segment, hash)
            })
    }

    fn closed_device_holds(&self, at: usize, segment: &SegmentId, hash: &ChangeHash) -> bool {
        let Some(store) = self.devices[at].store.as_ref() else { return false };
        store_holds(store, segment, hash).unwrap_or(false)
    }

    /// The relay's log begins anew at an older state.
    pub(crate) fn relay_went_back(&mut self) -> Checked {
        self.watch.relay.clear();
        self.watch.receipts.clear();
        self.take_stock();
        self.relay_saw()
    }

    /// A device begins anew at an older state.
    pub(crate) fn device_went_back(&mut self, at: usize) {
        self.devices[at].seen.clear();
        self.devices[at].recent.clear();
        self.devices[at].unsaved.clear();
        self.recalls_calls(at);
        self.take_stock();
    }

    /// Whether silent copies of a device exist: then a name may be used twice until that is noticed.
    pub(crate) fn may_be_forked(&self) -> bool {
        self.tally.of(Fault::SilentClone) + self.tally.of(Fault::SilentRestore) > 0
    }
}

/// Epoch and number of the catalog in force.
fn in_force(replica: &Replica) -> (Epoch, u64) {
    replica
        .published()
        .map_or_else(Default::default, |published| (published.epoch, published.number))
}

/// A digest of the verdicts that stand in a segment, in order of id.
fn standing(store: &Store, sid: i64) -> Result<[u8; 32], StoreError> {
    let mut hasher = blake3::Hasher::new();
    for (verdict, _) in store.standing_verdicts(sid)? {
        hasher.update(&(verdict.len() as u64).to_be_bytes()).update(&verdict);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Whether a verdict rests on what a device of one territory cannot see: a value that must be the
/// only one of all territories; or on what no rule reads and the relay's log alone decides: that
/// something was merged without permission.
fn reads_beyond(replica: &Replica, sid: i64, record: &RecordId) -> bool {
    let foreign = ["unique", "not_permitted"];
    let stated = replica.store().verdict(sid, record).ok().flatten();
    let stated = stated.and_then(|(bytes, _)| minicbor::decode::<Verdict>(&bytes).ok());
    stated
        .is_some_and(|verdict| verdict.reasons.iter().any(|reason| foreign.contains(&&*reason.id)))
}

/// Whether a closed store has a change, in its rows or aside.
fn store_holds(store: &Store, id: &SegmentId, hash: &ChangeHash) -> Result<bool, StoreError> {
    use fieldkeep_store::Segments as _;
    let Some(row) = store.segments()?.into_iter().find(|row| row.id == *id) else {
        return Ok(false);
    };
    let rows = store.changes(row.sid, 1, usize::MAX)?;
    Ok(rows.iter().any(|change| change.hash == *hash) || store.aside(row.sid, hash)?.is_some())
}

/// Where a segment stands, for whoever looks into what went wrong.
fn place(row: &SegmentRow) -> String {
    let SegmentRow { address, tip, done, judged, told, proven, cursor, .. } = row;
    format!(
        "{address} has {tip}, merged {done}, judged {judged}, cursor {}, told {told}, proven {proven}",
        cursor.pos
    )
}
