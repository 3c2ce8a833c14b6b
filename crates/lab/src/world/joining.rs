//! Joining in the middle of a run: the operator invites a device, which makes its keys, speaks with
//! the relay as the device library does, and begins with what that brings.
//!
//! The talk is told to the relay's engine frame by frame and in one go: whoever joins stands beside
//! the operator, with a signal. Nobody loses a ticket in this world.

use fieldkeep_device::{application, introduction};
use fieldkeep_model::{Grant, KeyPair, MembershipLog, Seed, Ticket};
use fieldkeep_protocol::frame::{CatalogFile, Frame, Members};
use fieldkeep_protocol::{Phase, Role, Session};
use fieldkeep_relay::{Engine, Input, Output, invite};
use fieldkeep_replica::ReplicaError;

use super::World;
use super::founding::{admin, drawn, grants, settle};
use super::network::LineId;
use super::oracle::{Checked, Oracle};

/// What joining brings.
struct Joined {
    members: MembershipLog,
    catalog: CatalogFile,
}

impl World {
    /// A device that nobody had before is invited, and joins. Returns whether it could.
    pub(crate) fn joins(&mut self, at: usize) -> Checked<bool> {
        if self.devices[at].disk().is_some() {
            return Ok(true);
        }
        let (seed, grants) = (self.seed, grants(at, self.founders));
        let invited = self.commands(|engine| invites(engine, seed, at, grants))?;
        let Some(ticket) = invited else { return Ok(false) };
        let keys = Seed(drawn(seed, "device", at as u64));
        // Beyond the connections that the network opens.
        let line = LineId::MAX - at as LineId;
        let now = self.relay_clock();
        let Some(engine) = self.relay.engine.as_mut() else { return Ok(false) };
        let mut talk = Talk { line, now, ticket, keys, to_others: Vec::new() };
        let joined = talk.enrols(engine);
        // The others are told who joined.
        self.route(talk.to_others);
        let joined = joined.map_err(|error| self.violation(Oracle::Contained, error))?;
        self.commands(|_| Ok(Some(())))?;
        let keys = Seed(drawn(seed, "device", at as u64));
        let store = settle(&keys, joined.members, joined.catalog.notice, joined.catalog.source);
        let store = store.and_then(|mut store| {
            self.devices[at].file.note(&mut store)?;
            store.commit()?;
            Ok(store)
        });
        let store = store.map_err(|error: ReplicaError| {
            self.violation(Oracle::Contained, format!("device {at} cannot join: {error}"))
        })?;
        self.devices[at].store = Some(store);
        self.start_device(at)?;
        Ok(true)
    }
}

/// The admin signs an invitation, as `relay invite` does.
fn invites(
    engine: &mut Engine,
    seed: u64,
    at: usize,
    grants: Vec<Grant>,
) -> Result<Option<Ticket>, ReplicaError> {
    let one_time = KeyPair::from_secret(drawn(seed, "invitation", at as u64));
    let name = format!("person {at}");
    let members = engine.replica().members();
    let (entry, ticket) = invite(members, &admin(seed), one_time, &name, grants, i64::MAX);
    engine.append_members(&[entry])?;
    Ok(Some(ticket))
}

/// A stranger with a ticket who speaks with the relay.
struct Talk {
    line: LineId,
    now: i64,
    ticket: Ticket,
    keys: Seed,
    /// What the relay has to tell others meanwhile.
    to_others: Vec<Output>,
}

impl Talk {
    /// Takes the invitation up. The error says what went wrong in this world, where nothing ought to.
    fn enrols(&mut self, engine: &mut Engine) -> Result<Joined, String> {
        let said = |error: ReplicaError| error.to_string();
        let key = self.keys.tls().public();
        engine.handle(self.now, Input::Connected(self.line, key)).map_err(said)?;
        let mut session = Session::new(Role::Device);
        session.enter(Phase::Opening);
        let hello = Frame::Hello(Box::new(introduction(&self.ticket)));
        let mut members = None;
        let mut catalog = None;
        for frame in self.says(engine, &mut session, &hello)? {
            let Frame::Welcome(welcome) = frame else { continue };
            session.enter(Phase::Open);
            let join = Frame::Join(application(&self.ticket, &self.keys, &welcome));
            for frame in self.says(engine, &mut session, &join)? {
                #[allow(clippy::wildcard_enum_match_arm, reason = "all others say nothing of it")]
                match frame {
                    Frame::Members(Members { base: 0, entries }) => {
                        members = Some(MembershipLog::open(entries).map_err(|e| e.to_string())?);
                    }
                    Frame::Catalog(file) => catalog = Some(file),
                    Frame::Error(error) => return Err(error.text),
                    _ => {}
                }
            }
        }
        engine.handle(self.now, Input::Closed(self.line)).map_err(said)?;
        match (members, catalog) {
            (Some(members), Some(catalog)) => Ok(Joined { members, catalog }),
            _ => Err("who joins is not told who belongs, or by which rules".to_owned()),
        }
    }

    /// Says a frame, and returns what the relay answers on the control stream.
    fn says(
        &mut self,
        engine: &mut Engine,
        session: &mut Session,
        frame: &Frame,
    ) -> Result<Vec<Frame>, String> {
        let said = |error: ReplicaError| error.to_string();
        let input = Input::Bytes(self.line, 0, frame.encode());
        engine.handle(self.now, input).map_err(said)?;
        let mut frames = Vec::new();
        for output in engine.commit().map_err(said)? {
            #[allow(clippy::wildcard_enum_match_arm, reason = "all others go to others")]
            let bytes = match output {
                Output::Send { to, stream: 0, bytes, .. } if to == self.line => bytes,
                other => {
                    self.to_others.push(other);
                    continue;
                }
            };
            session.receive(0, &bytes).map_err(|broken| broken.to_string())?;
            while let Some(frame) = session.next(0).map_err(|broken| broken.to_string())? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }
}
