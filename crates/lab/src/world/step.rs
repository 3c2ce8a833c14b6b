//! Steps of a plan, as they happen: somebody works, a signal comes and goes, something goes wrong.
//!
//! A fault is armed where it needs an opportunity (a connection that is busy, a commit under way)
//! and counts when it has struck, not before.

use std::collections::BTreeSet;

use fieldkeep_device::{Engine, PutError};
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{RecordEdit, RecordKey, TypeName};
use fieldkeep_replica::{ReplicaError, Wrote};
use fieldkeep_store::{Dismissal, Records as _, StoreError};

use super::device::{DeviceNode, Wish};
use super::disk::{File, fill};
use super::fault::Fault;
use super::founding::Joined;
use super::ledger::Saved;
use super::network::{Arrival, LineId, Side};
use super::nonsense;
use super::operator::Decision;
use super::oracle::{Checked, Oracle};
use super::plan::{Act, Step, Who};
use super::plant::Plant;
use super::time::{HOUR, MINUTE, Micros, SECOND};
use super::workload::{Deed, Work, Worker};
use super::{Event, World};
use crate::Dice;

/// A wrong clock is wrong by so much at most: 40 years.
const WRONG_MS: u64 = 40 * 365 * 24 * 3_600_000;

impl World {
    /// Something happens that was planned.
    pub(crate) fn happens(&mut self, step: &Step) -> Checked {
        let dice = Dice::seeded(step.dice);
        let at = match step.who {
            Who::Relay => return self.happens_to_relay(step, dice),
            Who::Device(at) if at < self.devices.len() => at,
            // Its copy was never made.
            Who::Device(_) => return Ok(()),
        };
        match step.act {
            Act::Work(work) => self.works(at, work, dice),
            Act::Sync => self.wish(at, Wish::Once),
            Act::Connect => self.wish(at, Wish::Always),
            Act::Disconnect => self.wish(at, Wish::Offline),
            Act::Meet(other) => {
                self.meets(at, other, dice);
                Ok(())
            }
            Act::Pause => self.pauses(at, pauses(dice)),
            Act::Resume => self.pauses(at, LeftOut::default()),
            Act::Unsubscribe => self.means_to_leave_out(at, dice),
            Act::Subscribe => self.subscribes(at, dice),
            Act::Call => self.wants(at, dice),
            Act::Attach => self.attaches(at, dice),
            Act::Claim => self.claims(at, dice),
            Act::Backup => {
                let device = &self.devices[at];
                let copy = device.disk().and_then(|disk| disk.copy().ok());
                let beside = (device.wanted.clone(), device.files.clone());
                self.devices[at].backup = copy.map(|copy| (copy, beside));
                Ok(())
            }
            Act::Decision(decision) => self.decides(*step, decision),
            Act::Reach(_) => self.decides(*step, Decision::Move),
            Act::Fault(fault) => self.strikes(at, fault, dice),
        }
    }

    fn happens_to_relay(&mut self, step: &Step, mut dice: Dice) -> Checked {
        match step.act {
            Act::Backup => {
                let disk = self.relay.replica().map(fieldkeep_replica::Replica::store);
                let disk = disk.or(self.relay.store.as_ref());
                self.relay.backup = disk.and_then(|disk| disk.copy().ok());
                self.relay.old_files = self.relay.files.clone();
                Ok(())
            }
            Act::Decision(decision) => self.decides(*step, decision),
            Act::Fault(Fault::RelayRestore) => {
                if self.relay.backup.is_some() {
                    self.tally.struck(Fault::RelayRestore);
                }
                self.restore_relay()
            }
            Act::Fault(Fault::RelayDiskFull) => {
                self.fill_relay(true)?;
                self.freed_after(Who::Relay, MINUTE + dice.roll() % (5 * MINUTE));
                Ok(())
            }
            Act::Fault(fault) => {
                self.relay.armed.insert(fault);
                Ok(())
            }
            Act::Work(_)
            | Act::Sync
            | Act::Connect
            | Act::Disconnect
            | Act::Meet(_)
            | Act::Pause
            | Act::Resume
            | Act::Unsubscribe
            | Act::Subscribe
            | Act::Call
            | Act::Attach
            | Act::Claim
            | Act::Reach(_) => Ok(()),
        }
    }

    /// A person pauses those types and no others.
    pub(crate) fn pauses(&mut self, at: usize, paused: LeftOut) -> Checked {
        let now = self.device_clock(at);
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let before = engine.stored_pauses().map_err(ReplicaError::from);
        let committed = before
            .and_then(|before| engine.pause(LeftOut { scopes: before.scopes, ..paused }, now));
        let committed = match committed {
            Ok(()) => engine.commit(),
            Err(error) => engine.give_up().and(Err(error)),
        };
        let outputs = self.goes_on(at, committed)?;
        self.deliver(at, outputs);
        self.part_where_over(at)?;
        self.after_step(at)
    }

    /// Somebody works.
    fn works(&mut self, at: usize, work: Work, dice: Dice) -> Checked {
        self.goes_where_it_may(at);
        let Some(replica) = self.devices[at].replica() else { return Ok(()) };
        let territory = self.workplace(at, &dice);
        let now_ms = self.device_clock(at);
        let deeds = Worker { territory: &territory, replica, now_ms, dice }.deeds(work);
        for deed in deeds {
            self.does(at, &deed)?;
        }
        Ok(())
    }

    /// The territory that somebody works in: the office in all of them.
    pub(crate) fn workplace(&self, at: usize, dice: &Dice) -> String {
        if at > 0 {
            return self.devices[at].territory.clone();
        }
        let territories = super::plan::territories(self.founders);
        format!("t{}", dice.clone().below(territories))
    }

    pub(crate) fn does(&mut self, at: usize, deed: &Deed) -> Checked {
        match deed {
            Deed::Put(..) | Deed::Delete(_) | Deed::Undelete(_) => {
                let edit = self.devices[at].replica().and_then(|replica| deed.edit(replica));
                let Some((key, edit)) = edit else { return Ok(()) };
                self.puts(at, &key, &edit).map(|_| ())
            }
            Deed::Retry(key) => self.wishes(at, |engine, _| engine.queue_rejudge(key)),
            Deed::Dismiss(key) => self.wishes(at, |engine, now| dismiss(engine, key, now)),
        }
    }

    /// A write through the device library's shell. Returns whether it was reported saved.
    pub(crate) fn puts(&mut self, at: usize, key: &RecordKey, edit: &RecordEdit) -> Checked<bool> {
        let put = |engine: &mut Engine, now| engine.replica_mut().put(key, edit, now);
        Ok(self.writes(at, key, edit, put)?.is_some())
    }

    /// A write, and what is saved with it: identified, put, committed, and only then told. Returns what
    /// was reported saved.
    pub(crate) fn writes(
        &mut self,
        at: usize,
        key: &RecordKey,
        edit: &RecordEdit,
        put: impl FnOnce(&mut Engine, i64) -> Result<Wrote, PutError>,
    ) -> Checked<Option<Wrote>> {
        if self.planted(Plant::LyingSync) {
            let disk = self.devices[at].disk();
            self.devices[at].lie = disk.and_then(|disk| disk.copy().ok());
        }
        let identified = self.identify(at).map_err(ReplicaError::from).map_err(PutError::from);
        let (now, asks) = (self.device_clock(at), self.is_the_relays(at, key));
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(None) };
        let wrote = match identified.and_then(|()| put(engine, now)) {
            Ok(wrote) => wrote,
            Err(error) => {
                self.refused(at, error)?;
                self.undo_write(at)?;
                return Ok(None);
            }
        };
        if self.devices[at].armed.remove(&Fault::Kill) {
            self.kill_device(at)?;
            return Ok(None);
        }
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(None) };
        let outputs = match engine.commit() {
            Ok(outputs) => outputs,
            Err(ReplicaError::Store(StoreError::Full)) => {
                self.tally.struck(Fault::DiskFull);
                return Ok(None);
            }
            Err(error) => return Err(self.violation(Oracle::Contained, error.to_string())),
        };
        if asks {
            let text = format!("device {at} wrote {key} upon a state that needs a connection");
            return Err(self.violation(Oracle::Online, text));
        }
        self.wrote_where_it_may(at, &wrote)?;
        if edit.deleted == Some(true) {
            self.ledger.deleted.insert(key.clone());
        }
        self.note_saved(at, &wrote, edit.edits.is_empty())?;
        self.deliver(at, outputs);
        self.foretold(at, &wrote);
        self.device_saw(at)?;
        Ok(Some(wrote))
    }

    /// An honest write fails for want of room, because the record is deleted or gone, or where its
    /// scope is left out; never for another reason.
    fn refused(&mut self, at: usize, error: PutError) -> Checked {
        match error {
            PutError::Replica(ReplicaError::Store(StoreError::Full)) => {
                self.tally.struck(Fault::DiskFull);
                Ok(())
            }
            PutError::NeedsConnection(_) | PutError::Deleted(_) | PutError::Absent(_) => Ok(()),
            PutError::NotSubscribed { ty, scope } if self.leaves_out(at, &ty, &scope) => Ok(()),
            PutError::NoCatalog
            | PutError::UnknownType { .. }
            | PutError::NotSubscribed { .. }
            | PutError::ScopeChange { .. }
            | PutError::Write(_)
            | PutError::Refused(_)
            | PutError::Replica(_) => Err(self.violation(Oracle::Contained, error.to_string())),
        }
    }

    fn note_saved(&mut self, at: usize, wrote: &Wrote, bare: bool) -> Checked {
        self.figures.writes += 1;
        let Some((seq, hash)) = wrote.change else { return Ok(()) };
        self.note(&hash.0);
        let Some(actor) = self.devices[at].replica().map(|replica| replica.me().actor()) else {
            return Ok(());
        };
        let record = wrote.key.clone();
        let segment = wrote.segment;
        let number = self.ledger.entries.len();
        self.devices[at].recent.push(number);
        self.devices[at].unsaved.insert((segment, actor, seq), number);
        let saved = Saved {
            device: at,
            segment,
            record,
            bare,
            actor,
            seq,
            hash,
            lost: false,
            receipt: None,
        };
        if let Some(other) = self.ledger.note(saved).filter(|_| !self.may_be_forked()) {
            let text = format!("{hash} and {other} are both change {seq} of {actor}");
            return Err(self.violation(Oracle::Incarnation, text));
        }
        Ok(())
    }

    pub(crate) fn wishes(
        &mut self,
        at: usize,
        wish: impl FnOnce(&mut Engine, i64) -> Result<(), ReplicaError>,
    ) -> Checked {
        let now = self.device_clock(at);
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let committed = match wish(engine, now) {
            Ok(()) => engine.commit(),
            Err(error) => Err(error),
        };
        match committed {
            Ok(outputs) => self.deliver(at, outputs),
            Err(ReplicaError::Store(StoreError::Full)) => self.full_device(at)?,
            Err(error) => return Err(self.violation(Oracle::Contained, error.to_string())),
        }
        self.device_saw(at)
    }

    /// Something goes wrong with a device.
    fn strikes(&mut self, at: usize, fault: Fault, mut dice: Dice) -> Checked {
        match fault {
            Fault::Kill | Fault::Cut | Fault::Partition | Fault::Nonsense => {
                self.devices[at].armed.insert(fault);
                // A connection is wanted for it to strike.
                if fault != Fault::Kill && self.devices[at].wish == Wish::Offline {
                    self.wish(at, Wish::Once)?;
                }
            }
            Fault::DiskFull => {
                self.fill_device(at, true)?;
                self.freed_after(Who::Device(at), 30 * MINUTE + dice.roll() % (3 * HOUR));
            }
            Fault::Clone | Fault::SilentClone => self.copies(at, fault == Fault::SilentClone)?,
            Fault::Restore | Fault::SilentRestore => {
                self.puts_back(at, fault == Fault::SilentRestore)?;
            }
            Fault::Clock => {
                let wrong = (dice.roll() % (2 * WRONG_MS)) as i64 - WRONG_MS as i64;
                let device = dice.one_in(4);
                let clock =
                    if device { &mut self.relay.clock_ms } else { &mut self.devices[at].clock_ms };
                *clock = wrong;
                self.tally.struck(fault);
            }
            Fault::Loss | Fault::RelayKill | Fault::RelayDiskFull | Fault::RelayRestore => {}
        }
        Ok(())
    }

    /// A full disk has room again after a while.
    fn freed_after(&mut self, who: Who, lasts: Micros) {
        self.events.plan(self.now + lasts, Event::Freed(who, lasts));
    }

    /// A disk has room again, once it has refused something: a fault that nobody noticed is none.
    pub(crate) fn freed(&mut self, who: Who, lasts: Micros) -> Checked {
        let (fault, full) = match who {
            Who::Relay => (Fault::RelayDiskFull, self.relay.full),
            Who::Device(at) => (Fault::DiskFull, self.devices[at].full),
        };
        if !full {
            return Ok(());
        }
        if self.tally.of(fault) == 0 && !self.fine {
            self.freed_after(who, lasts);
            return Ok(());
        }
        match who {
            Who::Relay => self.fill_relay(false),
            Who::Device(at) => self.fill_device(at, false),
        }
    }

    pub(crate) fn fill_device(&mut self, at: usize, full: bool) -> Checked {
        self.devices[at].full = full;
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let filled = fill(engine.replica_mut().store_mut(), full);
        filled.map_err(|error| self.violation(Oracle::Contained, error.to_string()))
    }

    pub(crate) fn fill_relay(&mut self, full: bool) -> Checked {
        self.relay.full = full;
        let Some(engine) = self.relay.engine.as_mut() else { return Ok(()) };
        let filled = fill(engine.replica_mut().store_mut(), full);
        filled.map_err(|error| self.violation(Oracle::Contained, error.to_string()))
    }

    /// A device's directory is copied, and both are used from now on.
    fn copies(&mut self, at: usize, silent: bool) -> Checked {
        // A relay serves two connections of one member: of each device there is one copy.
        let copied: BTreeSet<usize> =
            self.devices[self.copies..].iter().map(|copy| copy.original).collect();
        let mut candidates = (0..self.copies).map(|n| (at + n) % self.copies);
        let may = |at: &usize| !copied.contains(at) && self.devices[*at].disk().is_some();
        let Some(at) = candidates.find(may) else {
            return Ok(());
        };
        self.stop_device(at);
        let original = &self.devices[at];
        let Some(Ok(store)) = original.store.as_ref().map(|store| store.copy()) else {
            return Ok(());
        };
        let seed = fieldkeep_model::Seed(original.seed.0);
        let joined = Joined { seed, territory: original.territory.clone(), store };
        self.files += 1;
        let file = if silent { original.file } else { File(self.files) };
        let mut copy = DeviceNode::new(joined, original.original, file);
        copy.clock_ms = original.clock_ms;
        copy.wanted.clone_from(&original.wanted);
        copy.unsaved.clone_from(&original.unsaved);
        copy.files.clone_from(&original.files);
        self.devices.push(copy);
        self.copies_calls(at, self.devices.len() - 1);
        self.tally.struck(if silent { Fault::SilentClone } else { Fault::Clone });
        self.start_device(at)?;
        self.start_device(self.devices.len() - 1)
    }

    /// A device's directory is put back from its old copy.
    fn puts_back(&mut self, at: usize, silent: bool) -> Checked {
        let Some((backup, beside)) = self.devices[at].backup.as_ref() else { return Ok(()) };
        let (Ok(backup), (wanted, files)) = (backup.copy(), beside.clone()) else { return Ok(()) };
        self.stop_device(at);
        self.devices[at].store = Some(backup);
        (self.devices[at].wanted, self.devices[at].files) = (wanted, files);
        if !silent {
            self.files += 1;
            self.devices[at].file = File(self.files);
        }
        self.tally.struck(if silent { Fault::SilentRestore } else { Fault::Restore });
        self.device_went_back(at);
        self.start_device(at)
    }

    /// Faults that wait for a busy connection strike when it is one.
    pub(crate) fn opportunity(&mut self, at: usize, line: LineId) {
        if self.devices[at].armed.contains(&Fault::Cut)
            && self.network.is_busy(line)
            && self.network.cut(&mut self.events, self.now, line)
        {
            self.devices[at].armed.remove(&Fault::Cut);
            self.tally.struck(Fault::Cut);
        }
        if self.network.is_busy(line) && self.devices[at].armed.remove(&Fault::Partition) {
            // Longer than a connection lives, or not.
            let lasts = if self.dice.one_in(3) { 10 * MINUTE } else { 20 * SECOND };
            let lasts = SECOND + self.dice.roll() % lasts;
            self.network.part(at, self.now + lasts);
            self.tally.struck(Fault::Partition);
            if lasts > super::network::IDLE {
                self.network.cut(&mut self.events, self.now, line);
            }
        }
        if self.devices[at].armed.remove(&Fault::Nonsense) {
            let from = if self.dice.one_in(2) { Side::Device } else { Side::Relay };
            let stream = self.dice.below(3) as u64;
            let bytes = nonsense::bytes(&mut self.dice, from);
            self.send(line, from, Arrival::Bytes(stream, bytes));
            self.tally.struck(Fault::Nonsense);
        }
    }
}

/// One type, two of them, or all.
fn pauses(mut dice: Dice) -> LeftOut {
    let types = ["product", "outlet", "visit", "order", "payment", "stock"];
    let drawn = (0..=dice.below(2)).map(|_| *dice.pick(&types));
    let types = drawn.map(|ty| TypeName::new(ty).expect("a name")).collect();
    LeftOut { all: dice.one_in(4), types, ..LeftOut::default() }
}

/// Puts a record aside, as the device library does.
fn dismiss(engine: &mut Engine, key: &RecordKey, now: i64) -> Result<(), ReplicaError> {
    let rows = engine.replica().store().find(&key.ty, &key.id)?;
    let Some(row) = rows.into_iter().next() else { return Ok(()) };
    let who = engine.replica().me().name.clone();
    let note = "seen to";
    let dismissal = Dismissal { hash: row.hash, who, note: note.to_owned(), time: now };
    engine.replica_mut().store_mut().put_dismissal(key, Some(&dismissal))?;
    engine.queue_dismissal(key, Some(note))
}
