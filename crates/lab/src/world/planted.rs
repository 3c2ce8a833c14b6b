//! What plants do that act on what a node keeps: each is a mistake that a shell or a disk could
//! make, and that no engine would.

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId as AutomergeActor, AutoCommit, ROOT};
use fieldkeep_model::{ChangeHeader, RecordEdit, RecordHash, RecordKey, Verdict};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::{
    Catalogs as _, ChangeRow, Flags, Log as _, Records as _, SegmentRow, StandingVerdict, Store,
    StoreError, Verdicts as _,
};

use super::World;
use super::oracle::{Checked, Oracle};
use super::plant::Plant;
use super::time::HOUR;

/// More records than a segment has.
const ROWS: usize = 1 << 30;

impl World {
    /// Whether a plant is to act.
    pub(crate) fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Whether a plant that acts once is to act now.
    fn due(&mut self, plant: Plant) -> bool {
        self.planted(plant) && !self.plant_acted && self.now > 12 * HOUR
    }

    /// Plants of the relay's shell.
    pub(crate) fn plant_at_relay(&mut self) -> Checked {
        if self.due(Plant::Panic) {
            panic!("planted");
        }
        if self.due(Plant::SkippedGate) {
            let Some(engine) = self.relay.engine.as_mut() else { return Ok(()) };
            let acted = skip_gate(engine.replica_mut());
            self.plant_acted = self.acts(acted)?;
        }
        Ok(())
    }

    /// Plants of devices' shells, before somebody works.
    pub(crate) fn plant_at_device(&mut self, at: usize) -> Checked {
        if self.due(Plant::StaleCursor) {
            let Some(relay) = self.relay.replica() else { return Ok(()) };
            let rows: Vec<SegmentRow> = relay.segments().values().cloned().collect();
            let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
            let acted =
                if engine.is_online() { Ok(false) } else { leap(engine.replica_mut(), &rows) };
            self.plant_acted = self.acts(acted)?;
        }
        if self.due(Plant::UnearnedReceipt) {
            let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
            let acted = if engine.is_online() { Ok(false) } else { pretend(engine.replica_mut()) };
            self.plant_acted = self.acts(acted)?;
            self.device_saw(at)?;
        }
        if self.due(Plant::SystemDelete) {
            let now = self.device_clock(at);
            let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
            let acted = delete_one(engine.replica_mut(), now);
            self.plant_acted = self.acts(acted)?;
        }
        Ok(())
    }

    /// Plants that act when everything has come to rest, so that nothing writes over them.
    pub(crate) fn plant_at_rest(&mut self) -> Checked {
        let plant = self.plant;
        if let Some(engine) =
            self.relay.engine.as_mut().filter(|_| plant == Some(Plant::WrongTaint))
        {
            let acted = taint_one(engine.replica_mut());
            self.plant_acted = self.acts(acted)?;
        }
        for device in &mut self.devices {
            let Some(engine) = device.engine.as_mut() else { continue };
            let replica = engine.replica_mut();
            let acted = match plant {
                Some(Plant::AlteredRecord) => alter_record(replica),
                Some(Plant::AlteredVerdict) => alter_verdict(replica),
                _ => return Ok(()),
            };
            if acted.is_ok_and(|acted| acted) {
                self.plant_acted = true;
                return Ok(());
            }
        }
        Ok(())
    }

    fn acts(&self, result: Result<bool, ReplicaError>) -> Checked<bool> {
        result.map_err(|error| self.violation(Oracle::Contained, error.to_string()))
    }
}

/// [`Plant::OtherCatalog`]: a device's catalog allows less than the relay's, under the same number.
pub(crate) fn tighten(store: &mut Store) -> Result<(), StoreError> {
    forge(store, "record.discount <= 30", "record.discount <= 12")
}

/// [`Plant::OfflineEdit`]: a device's catalog lets people write what only a relay may.
pub(crate) fn open(store: &mut Store) -> Result<(), StoreError> {
    forge(store, "before.state == 'delivered'", "false")
}

fn forge(store: &mut Store, from: &str, to: &str) -> Result<(), StoreError> {
    if let Some(mut catalog) = store.newest_catalog()? {
        catalog.source = catalog.source.replace(from, to);
        store.put_catalog(&catalog)?;
        store.commit()?;
    }
    Ok(())
}

/// A change of nobody's goes into the log as if it had been checked.
fn skip_gate(replica: &mut Replica) -> Result<bool, ReplicaError> {
    let row = replica.segments().values().find(|row| row.address.ty.as_str() == "visit").cloned();
    let Some(mut row) = row else { return Ok(false) };
    let mut document = AutoCommit::new().with_actor(AutomergeActor::from([0xee; 20]));
    let object = document.put_object(ROOT, "smuggled", automerge::ObjType::Map);
    if let Ok(object) = object {
        let _ = document.put(&object, "note", "past the gate");
    }
    document.commit_with(CommitOptions::default().with_time(0));
    let Some(change) = document.get_last_local_change() else { return Ok(false) };
    let bytes = change.raw_bytes().to_vec();
    let Ok(header) = ChangeHeader::parse(&bytes) else { return Ok(false) };
    row.tip += 1;
    row.chain = row.chain.extend(&header.hash);
    let first = header.hash.0[..16].try_into().expect("sixteen bytes");
    row.sum = row.sum.wrapping_add(u128::from_be_bytes(first));
    let change = ChangeRow {
        pos: row.tip,
        actor: header.actor,
        seq: header.seq,
        hash: header.hash,
        flags: Flags::default(),
        bytes,
    };
    replica.store_mut().append_change(row.sid, &change)?;
    save(replica, &row)?;
    Ok(true)
}

fn save(replica: &mut Replica, row: &SegmentRow) -> Result<(), StoreError> {
    replica.store_mut().save_segment(row)?;
    replica.store_mut().commit()?;
    replica.forget()
}

/// The cursor of a segment leaps to the relay's position, and the changes between do not come.
fn leap(replica: &mut Replica, at_relay: &[SegmentRow]) -> Result<bool, ReplicaError> {
    for relay in at_relay {
        let Some(row) = replica.segment(&relay.id) else { continue };
        if row.cursor.pos == 0 || row.cursor.pos >= relay.tip || relay.judged < relay.tip {
            continue;
        }
        if row.tip > row.cursor.pos {
            continue;
        }
        let mut row = row.clone();
        (row.cursor.pos, row.cursor.chain) = (relay.tip, relay.chain.0);
        (row.verdict, row.judged) = (relay.verdict, relay.judged);
        save(replica, &row)?;
        return Ok(true);
    }
    Ok(false)
}

/// Everything that waits for a receipt is taken to have one.
fn pretend(replica: &mut Replica) -> Result<bool, ReplicaError> {
    let rows: Vec<_> = replica.segments().values().map(|row| (row.id, row.sid)).collect();
    for (id, sid) in rows {
        let outgoing = replica.store().outgoing(sid)?;
        if let Some(change) = outgoing.last() {
            replica.acknowledge(&id, &change.actor, change.seq, 0)?;
            replica.commit()?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn delete_one(replica: &mut Replica, now: i64) -> Result<bool, ReplicaError> {
    let segment = replica.segments().values().find(|row| row.address.ty.as_str() == "order");
    let Some((ty, sid)) = segment.map(|row| (row.address.ty.clone(), row.sid)) else {
        return Ok(false);
    };
    let records = replica.store().records_behind(sid, 0, ROWS)?;
    let Some(record) = records.into_iter().find(|record| !record.deleted) else {
        return Ok(false);
    };
    let deleted = replica.put(&RecordKey::new(ty, record.id), &RecordEdit::delete(), now);
    replica.commit()?;
    Ok(deleted.is_ok())
}

/// The first change of a log that is marked as none without permission is marked as one.
fn taint_one(replica: &mut Replica) -> Result<bool, ReplicaError> {
    let rows: Vec<_> = replica.segments().values().map(|row| row.sid).collect();
    for sid in rows {
        let untainted = replica.store().changes(sid, 1, 1)?.into_iter().find(|c| !c.flags.tainted);
        if let Some(change) = untainted {
            replica.store_mut().taint(sid, change.pos)?;
            replica.commit()?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn alter_record(replica: &mut Replica) -> Result<bool, ReplicaError> {
    let rows: Vec<_> = replica.segments().values().map(|row| row.sid).collect();
    for sid in rows {
        if let Some(mut record) = replica.store().records_behind(sid, 0, ROWS)?.into_iter().next() {
            record.json = record.json.replacen('{', "{\"altered\":1,", 1);
            record.hash = RecordHash::of(&record.json);
            replica.store_mut().put_record(&mut record)?;
            replica.commit()?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn alter_verdict(replica: &mut Replica) -> Result<bool, ReplicaError> {
    let rows: Vec<_> = replica.segments().values().map(|row| row.sid).collect();
    for sid in rows {
        let Some((bytes, openings)) = replica.store().standing_verdicts(sid)?.into_iter().next()
        else {
            continue;
        };
        let Ok(mut verdict) = minicbor::decode::<Verdict>(&bytes) else { continue };
        verdict.reasons.clear();
        let bytes = minicbor::to_vec(&verdict).expect("encoding into memory cannot fail");
        let altered = StandingVerdict { bytes, openings, since: 0, about: String::new() };
        replica.store_mut().put_verdict(sid, &verdict.id, Some(&altered))?;
        replica.commit()?;
        return Ok(true);
    }
    Ok(false)
}
