//! The reckoning: everything works again, whatever is under way comes to rest, and then everything
//! is looked at.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::{History, batch};
use fieldkeep_model::status::{LeftOut, State};
use fieldkeep_model::{Outcome, RecordId, SegmentId};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::{Log as _, Records as _, SegmentRow, Store, StoreError};

use super::World;
use super::device::Wish;
use super::oracle::{Checked, Oracle};
use super::plan::CREW;
use super::time::{HOUR, SECOND};

/// How long everything may take to settle once nothing fails any more.
const PATIENCE: u64 = 3 * HOUR;
/// How often it is asked whether it has.
const LOOK: u64 = 5 * SECOND;

/// More records than a segment has.
const ROWS: usize = 1 << 30;

impl World {
    /// Ends every fault and lets everything come to rest.
    pub(crate) fn comes_to_rest(&mut self) -> Checked {
        self.fine = true;
        self.relay.armed.clear();
        self.fill_relay(false)?;
        self.start_relay()?;
        for at in 0..self.devices.len() {
            self.devices[at].armed.clear();
            self.fill_device(at, false)?;
            self.start_device(at)?;
            self.pauses(at, LeftOut::default())?;
            self.subscribes_to_all(at)?;
            // One of those who were apart meets the relay, and the others only each other.
            let wish = if self.apart && at > 0 { Wish::Offline } else { Wish::Always };
            self.wish(at, wish)?;
        }
        let until = self.now + PATIENCE;
        while self.now < until {
            if self.apart {
                self.everybody_meets();
            }
            self.runs_until(self.now + LOOK)?;
            if self.is_settled() {
                return Ok(());
            }
        }
        self.explain_unrest()
    }

    /// Whether nothing is under way and every device is shown as synced.
    fn is_settled(&self) -> bool {
        let relay = self.relay.replica().is_some_and(|r| r.behind().is_empty() && !r.is_renewing());
        let device = |at: usize| self.is_done(at) && !self.has_work(at);
        relay
            && self.undecided == 0
            && !self.calls_are_open()
            && !self.files_are_under_way()
            && self.relay.is_idle()
            && self.network.is_quiet()
            && (0..self.devices.len()).all(device)
    }

    /// Whether nothing is left for a device to do, if it exists.
    fn is_done(&self, at: usize) -> bool {
        let device = &self.devices[at];
        device.complete
            || self.apart && at > 0 && self.has_what_the_relay_has(at)
            || device.disk().is_none()
            || self.knows_it_is_revoked(at)
            || device.exchanged && self.is_refused_rightly(at)
    }

    /// Devices meet two and two, each time another one: every second time one of their crew. The
    /// office sees some of them besides.
    fn everybody_meets(&mut self) {
        let there: Vec<usize> =
            (0..self.devices.len()).filter(|at| self.devices[*at].engine.is_some()).collect();
        let reach = if self.dice.one_in(2) { CREW } else { there.len().max(2) - 1 };
        let shift = 1 + self.dice.below(reach);
        for _ in 0..there.len().div_ceil(CREW) {
            let other = *self.dice.pick(&there);
            if other > 0 && self.devices[other].meetings.is_empty() {
                self.meet(0, other, 20 * SECOND);
            }
        }
        for (place, at) in there.iter().enumerate() {
            let other = there[(place + shift) % there.len()];
            let met = self.devices[*at].meetings.len() + self.devices[other].meetings.len();
            if *at != other && met == 0 {
                self.meet(*at, other, 20 * SECOND);
            }
        }
    }

    /// Whether a device that never meets the relay holds what the relay does, and knows it.
    fn has_what_the_relay_has(&self, at: usize) -> bool {
        let (Some(here), Some(relay)) = (self.devices[at].replica(), self.relay.replica()) else {
            return false;
        };
        let Some(member) = relay.members().member(here.me().number) else { return false };
        let mut granted = relay
            .segments()
            .values()
            .filter(|row| row.tip > 0 && member.may(&row.address.ty, &row.address.scope));
        let equal = granted.all(|there| {
            let row = here.segment(&there.id);
            row.is_some_and(|row| {
                (row.tip, row.sum, row.done) == (there.tip, there.sum, there.tip)
                    && (row.verdict, row.judged) == (there.verdict, there.judged)
            })
        });
        equal && here.store().outgoing_count().is_ok_and(|count| count == 0)
    }

    fn explain_unrest(&self) -> Checked {
        let Some(replica) = self.relay.replica() else {
            return Err(self.violation(Oracle::Settles, "the relay does not run".to_owned()));
        };
        let held: u64 = replica.segments().values().map(|row| row.held).sum();
        let behind = replica.behind().len();
        if held > 0 && behind > 0 {
            let text = format!("{held} records are held, and {behind} segments are not judged");
            return Err(self.violation(Oracle::Held, text));
        }
        let unsettled = (0..self.devices.len()).filter(|at| !self.is_done(*at));
        let described: Vec<_> = unsettled.take(4).map(|at| self.describe(at)).collect();
        let text = format!("after 3 hours without a fault: {}", described.join("; "));
        Err(self.violation(Oracle::Settles, text))
    }

    pub(crate) fn describe(&self, at: usize) -> String {
        let Some(engine) = self.devices[at].engine.as_ref() else {
            return format!("device {at} does not run");
        };
        match engine.progress() {
            Ok(_) if self.apart && at > 0 => format!("device {at} {}", self.lags(engine.replica())),
            Ok(progress) => format!(
                "device {at} is {}, {} to send, {} refused ({}), {} segments open, {:?}, ended {:?}",
                if engine.is_online() { "online" } else { "offline" },
                progress.waiting,
                progress.refused,
                refusal(engine.replica()).unwrap_or_default(),
                progress.open,
                progress.integrity,
                progress.ended
            ),
            Err(error) => format!("device {at}: {error}"),
        }
    }

    /// In what a device that never meets the relay is behind it.
    fn lags(&self, here: &Replica) -> String {
        let waiting = here.store().outgoing_count().unwrap_or_default();
        let there = self.relay.replica().into_iter().flat_map(|relay| relay.segments().values());
        let lags = there.filter_map(|there| {
            let row = here.segment(&there.id)?;
            let look = |row: &SegmentRow| (row.tip, row.judged, row.verdict, row.sum);
            (look(row) != look(there)).then(|| {
                format!(
                    "{}: {} of {} changes, judged {} of {}, verdict {} of {}",
                    there.address,
                    row.tip,
                    there.tip,
                    row.judged,
                    there.judged,
                    row.verdict,
                    there.verdict
                )
            })
        });
        let lags: Vec<String> = lags.collect();
        format!("has {waiting} without a receipt; {}", lags.join(", "))
    }

    /// Looks at everything.
    pub(crate) fn reckons(&mut self) -> Checked {
        self.gate_was_passed()?;
        self.nothing_is_lost()?;
        self.permissions_were_kept()?;
        self.calls_were_kept()?;
        self.files_were_kept()?;
        for at in 0..self.devices.len() {
            self.is_equal(at)?;
        }
        self.rows_are_what_was_written()
    }

    /// Every change in the relay's log passes the gate again, from nothing, and a member wrote it.
    pub(crate) fn gate_was_passed(&self) -> Checked {
        let Some(replica) = self.relay.replica() else { return Ok(()) };
        for row in replica.segments().values() {
            let refused = recheck(replica, row);
            let refused =
                refused.map_err(|error| self.violation(Oracle::Gate, error.to_string()))?;
            if let Some(why) = refused {
                let text = format!("the relay's log of {} holds a change that {why}", row.address);
                return Err(self.violation(Oracle::Gate, text));
            }
        }
        Ok(())
    }

    /// Every write that was reported saved, and that some disk still had, is in the relay's log; or
    /// it lost a fork, lies aside, and its author has written its record again. Where the author's
    /// disk was put back behind it besides, the bytes that lie aside elsewhere are what is left. So
    /// they are of a deletion whose record lies aside with it: there is nothing to delete.
    fn nothing_is_lost(&mut self) -> Checked {
        let standing: Vec<_> = self.ledger.standing().cloned().collect();
        for saved in &standing {
            if self.relay_holds(&saved.segment, &saved.hash) {
                continue;
            }
            if saved.receipt == Some(self.relay.restores) {
                let text = format!(
                    "the relay gave a receipt for change {} of device {} to {}, and has it no more",
                    saved.seq, saved.device, saved.record
                );
                return Err(self.violation(Oracle::Lost, text));
            }
            if self.is_kept_without_permission(saved) {
                self.figures.unauthorised += 1;
                continue;
            }
            let aside = (0..self.devices.len())
                .any(|at| self.aside(at, &saved.segment, &saved.hash).is_some());
            // Whose own log had it, and gave it up.
            let lost = (0..self.devices.len())
                .filter(|at| {
                    self.aside(*at, &saved.segment, &saved.hash).as_deref() == Some("fork")
                })
                .map(|at| self.devices[at].original)
                .collect::<BTreeSet<_>>();
            let there = self.relay_reads(&saved.record).is_some();
            let author = self.devices[saved.device].original;
            if there && aside {
                self.figures.rewritten += 1;
            } else if aside && (saved.bare || !lost.contains(&author)) {
                self.figures.kept_aside += 1;
            } else {
                let text = format!(
                    "change {} of device {} to {} was reported saved: {}",
                    saved.seq,
                    saved.device,
                    saved.record,
                    if aside { "nobody wrote it again" } else { "nobody has it" }
                );
                return Err(self.violation(Oracle::Lost, text));
            }
        }
        self.nobody_deleted(standing.iter().map(|saved| &saved.record).collect())
    }

    fn relay_reads(&self, key: &fieldkeep_model::RecordKey) -> Option<bool> {
        let views = self.relay.replica()?.views();
        views.record(key).ok().flatten().map(|view| view.deleted)
    }

    /// Records that nobody deleted are not deleted.
    fn nobody_deleted(&self, records: BTreeSet<&fieldkeep_model::RecordKey>) -> Checked {
        for record in records {
            let deleted = self.relay_reads(record) == Some(true);
            if deleted && !self.ledger.deleted.contains(record) {
                let text = format!("{record} is deleted, and no person did it");
                return Err(self.violation(Oracle::Deletion, text));
            }
        }
        Ok(())
    }

    /// A device has what the relay has of everything that it may read: changes, records, states and
    /// verdicts.
    fn is_equal(&mut self, at: usize) -> Checked {
        let rows: Vec<SegmentRow> = {
            let Some(replica) = self.devices[at].replica() else { return Ok(()) };
            let number = replica.me().number;
            let Some(relay) = self.relay.replica() else { return Ok(()) };
            let Some(member) = relay.members().member(number) else { return Ok(()) };
            let granted = relay.segments().values();
            let granted = granted.filter(|row| member.may(&row.address.ty, &row.address.scope));
            granted.filter(|row| row.tip > 0).cloned().collect()
        };
        for at_relay in rows {
            let here = self.devices[at].replica().and_then(|r| r.segment(&at_relay.id)).cloned();
            let equal = here.as_ref().is_some_and(|here| {
                (here.tip, here.sum) == (at_relay.tip, at_relay.sum)
                    && (here.records, here.rows) == (at_relay.records, at_relay.rows)
            });
            let Some(here) = here.filter(|_| equal) else {
                let text = format!("device {at} has another {} than the relay", at_relay.address);
                return Err(self.violation(Oracle::Synced, text));
            };
            self.saw_verdicts(Some(at), &here)?;
            self.states_are_equal(at, &here, &at_relay)?;
        }
        Ok(())
    }

    /// Every record is judged, and shown on the device as the relay judged it: a held one as held,
    /// and its neighbours as what they are.
    fn states_are_equal(&self, at: usize, here: &SegmentRow, there: &SegmentRow) -> Checked {
        let (Some(device), Some(relay)) = (self.devices[at].disk(), self.relay.replica()) else {
            return Ok(());
        };
        let read = |store: &Store, sid| {
            states(store, sid).map_err(|error| self.violation(Oracle::Contained, error.to_string()))
        };
        let (shown, judged) = (read(device, here.sid)?, read(relay.store(), there.sid)?);
        if shown == judged {
            return Ok(());
        }
        let differs = judged.iter().find(|(id, state)| shown.get(*id) != Some(state));
        let Some((id, state)) = differs else { return Ok(()) };
        let held = judged.values().any(|state| *state == State::Judged(Outcome::Held));
        let open = matches!(shown.get(id), Some(State::Forecast(_)));
        let oracle = if held && open { Oracle::Held } else { Oracle::Verdicts };
        let shown = shown.get(id).map_or("nothing", |state| state.word());
        let text =
            format!("device {at} shows {id} of {} as {shown}, not {}", here.address, state.word());
        Err(self.violation(oracle, text))
    }

    /// Every row of every store is what its segment's sums say; and on one device everything is
    /// derived again from the changes, and comes out the same.
    fn rows_are_what_was_written(&mut self) -> Checked {
        for at in 0..self.devices.len() {
            if let Some(replica) = self.devices[at].replica() {
                self.verify(&format!("device {at}"), replica)?;
                self.counts_are_true(&format!("device {at}"), replica)?;
            }
        }
        if let Some(replica) = self.relay.replica() {
            self.verify("the relay", replica)?;
        }
        let again = self.dice.below(self.devices.len());
        let derived = match self.devices[again].engine.as_mut() {
            Some(engine) => derive_again(engine.replica_mut()),
            None => Ok(None),
        };
        let derived =
            derived.map_err(|error| self.violation(Oracle::Projection, error.to_string()))?;
        match derived {
            Some(segment) => {
                let text = format!("device {again} derives other records of {segment} again");
                Err(self.violation(Oracle::Projection, text))
            }
            None => Ok(()),
        }
    }

    /// The counts that are kept are those that a recount finds.
    fn counts_are_true(&self, who: &str, replica: &Replica) -> Checked {
        let store = replica.store();
        let both = store.tallies().and_then(|kept| Ok((kept, store.recount()?)));
        let (kept, counted) =
            both.map_err(|error| self.violation(Oracle::Contained, error.to_string()))?;
        if kept == counted {
            return Ok(());
        }
        let text = format!("{who} keeps the counts {kept:?}, and has {counted:?}");
        Err(self.violation(Oracle::Projection, text))
    }

    fn verify(&self, who: &str, replica: &Replica) -> Checked {
        for id in replica.segments().keys() {
            let wrong = replica.verify(id);
            let wrong = wrong.map_err(|e| self.violation(Oracle::Projection, e.to_string()))?;
            if let Some(wrong) = wrong {
                return Err(self.violation(Oracle::Projection, format!("{who}: {wrong}")));
            }
        }
        Ok(())
    }
}

/// Why the relay did not take a change, if there is one that it did not take.
fn refusal(replica: &Replica) -> Option<String> {
    let rows = replica.segments().values();
    let outgoing = rows.filter_map(|row| replica.store().outgoing(row.sid).ok());
    outgoing.flatten().find_map(|change| change.refused)
}

fn states(store: &Store, sid: i64) -> Result<BTreeMap<RecordId, State>, StoreError> {
    let rows = store.records_behind(sid, 0, ROWS)?;
    Ok(rows.into_iter().map(|row| (row.id, row.state)).collect())
}

/// Passes a segment's whole log through the gate again; what refuses it, if anything does.
fn recheck(replica: &Replica, row: &SegmentRow) -> Result<Option<String>, ReplicaError> {
    let mut history = History::new();
    let mut next = 1;
    let mut unvouched = BTreeSet::new();
    while let Some(stretch) = replica.stretch(&row.id, next, 1 << 20, |_, _| false)? {
        next = stretch.last + 1;
        let chunks = match &stretch.pack {
            Some(pack) => batch::decode(pack, 1 << 26).unwrap_or_default(),
            None => stretch.chunks,
        };
        for chunk in chunks {
            let admitted = match history.check(&chunk) {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(Some(refusal.to_string())),
            };
            if replica.author(&admitted.header.actor).is_none() {
                return Ok(Some("no member wrote".to_owned()));
            }
            unvouched.insert(admitted.header.actor);
            history.admit(&admitted);
        }
    }
    let heads = replica.store().heads(row.sid, 1, row.tip)?;
    for (_, head) in heads {
        let newest = history.seq(&head.head.actor) == head.head.seq;
        let author = replica.author(&head.head.actor);
        let signed =
            author.is_some_and(|m| head.verifies(&replica.org(), &row.id, &m.keys.signing));
        if newest && signed && history.contains(&head.head.hash) {
            unvouched.remove(&head.head.actor);
        }
    }
    Ok(unvouched.first().map(|actor| format!("no head of its author {actor} vouches for")))
}

/// Derives every segment again; the first that does not come out the same.
fn derive_again(replica: &mut Replica) -> Result<Option<String>, ReplicaError> {
    let before: Vec<(SegmentId, u64, u128)> =
        replica.segments().values().map(|row| (row.id, row.records, row.rows)).collect();
    for (id, records, rows) in before {
        replica.derive_again(&id)?;
        let row = &replica.segments()[&id];
        if (row.records, row.rows) != (records, rows) {
            return Ok(Some(row.address.to_string()));
        }
    }
    replica.store_mut().rollback();
    replica.forget()?;
    Ok(None)
}
