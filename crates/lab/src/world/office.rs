//! The operator at work: decisions as the relay's commands carry them out, on the engine of a relay
//! that serves. One that cannot be carried out, because the relay does not run or its disk is full,
//! is tried again until it can.

use fieldkeep_model::membership::Act as Entry;
use fieldkeep_model::{Grant, KeyPair, PublicKey};
use fieldkeep_relay::Engine;
use fieldkeep_replica::{Replica, ReplicaError};

use super::founding::{admin, reaching};
use super::operator::{Decision, Reach};
use super::oracle::{Checked, Oracle};
use super::plan::{Act, Step, Who};
use super::time::MINUTE;
use super::workload;
use super::{Event, World};
use crate::Dice;

impl World {
    /// The operator decides something.
    pub(crate) fn decides(&mut self, step: Step, decision: Decision) -> Checked {
        self.undecided += 1;
        self.tries(step, decision)
    }

    /// Carries a decision out, or plans to.
    pub(crate) fn tries(&mut self, step: Step, decision: Decision) -> Checked {
        let able = self.relay.engine.is_some() && !self.relay.full;
        let done = able && self.carries_out(&step, decision)?;
        if !done {
            self.events.plan(self.now + MINUTE, Event::Again(step, decision));
            return Ok(());
        }
        self.undecided -= 1;
        self.decided.struck(decision);
        Ok(())
    }

    fn carries_out(&mut self, step: &Step, decision: Decision) -> Checked<bool> {
        let dice = Dice::seeded(step.dice);
        match decision {
            Decision::Publish => {
                let first = self.catalog.clone();
                let published = self.commands(|engine| publish(engine, &first, dice).map(Some))?;
                Ok(published.is_some())
            }
            Decision::Join => match step.who {
                Who::Device(at) => self.joins(at),
                Who::Relay => Ok(true),
            },
            Decision::Revoke => match step.who {
                Who::Device(at) => self.decrees(at, None),
                Who::Relay => Ok(true),
            },
            Decision::Move => match (step.who, step.act) {
                (Who::Device(at), Act::Reach(reach)) => self.grants(at, reach),
                _ => Ok(true),
            },
            Decision::Restore => self.restores(dice),
        }
    }

    /// A device is granted something else. Its person works elsewhere once the device knows.
    fn grants(&mut self, at: usize, reach: Reach) -> Checked<bool> {
        let territory = match reach {
            Reach::Territory(number) => format!("t{number}"),
            Reach::Fewer | Reach::Everywhere => self.devices[at].territory.clone(),
        };
        let granted = self.decrees(at, Some(reaching(reach, &territory)))?;
        if granted {
            self.devices[at].bound_for = Some(territory);
        }
        Ok(granted)
    }

    /// The admin signs what becomes of a device. Returns whether the relay knows it.
    fn decrees(&mut self, at: usize, grants: Option<Vec<Grant>>) -> Checked<bool> {
        let (now, tls, admin) = (self.relay_clock(), self.devices[at].tls, admin(self.seed));
        let decreed = self.commands(|engine| decree(engine, now, &tls, &admin, grants))?;
        Ok(decreed.is_some())
    }

    /// The relay's directory is put back from an old copy and opens a new epoch by command: before
    /// anybody comes; or later, when the relay has noticed by itself that this is a copy, and devices
    /// are back.
    fn restores(&mut self, mut dice: Dice) -> Checked<bool> {
        if self.relay.backup.is_none() {
            return Ok(true);
        }
        if dice.one_in(2) {
            self.restore_relay()?;
            self.events.plan(self.now + dice.roll() % (2 * MINUTE), Event::EpochOpens);
            return Ok(true);
        }
        self.put_relay_back_silently()?;
        self.epoch_opens()?;
        Ok(true)
    }

    /// `relay restore`, where the relay runs.
    pub(crate) fn epoch_opens(&mut self) -> Checked {
        if !self.relay.full {
            let now = self.relay_clock();
            self.commands(|engine| engine.restore(now).map(Some))?;
        }
        Ok(())
    }

    /// One command on the relay's engine, with a commit of its own. Returns what it says.
    pub(crate) fn commands<T>(
        &mut self,
        command: impl FnOnce(&mut Engine) -> Result<Option<T>, ReplicaError>,
    ) -> Checked<Option<T>> {
        let done = self.relay.engine.as_mut().map(command).transpose();
        let done = done.map_err(|error| self.violation(Oracle::Contained, error.to_string()))?;
        let outputs = self.relay_commits()?;
        self.route(outputs);
        self.relay_saw()?;
        self.wake_relay();
        Ok(done.flatten())
    }
}

/// Publishes a catalog with other rules than the one in force.
fn publish(engine: &mut Engine, first: &str, mut dice: Dice) -> Result<u64, ReplicaError> {
    let source = |replica: &Replica| replica.published().map(|p| p.catalog.source().to_owned());
    let before = source(engine.replica());
    let mut next = workload::catalog(first, &mut dice);
    while Some(&next) == before.as_ref() {
        next = workload::catalog(first, &mut dice);
    }
    engine.publish(&next)
}

/// Signs and appends what becomes of a device, as `relay grant` and `relay revoke` do: with what the
/// relay holds of it.
fn decree(
    engine: &mut Engine,
    now: i64,
    tls: &PublicKey,
    admin: &KeyPair,
    grants: Option<Vec<Grant>>,
) -> Result<Option<()>, ReplicaError> {
    let member = engine.replica().members().by_tls(tls).map(|member| member.keys.signing);
    let Some(member) = member else { return Ok(None) };
    let left = grants.clone().unwrap_or_default();
    let Some(cuts) = engine.cut_offs(now, &member, &left)? else { return Ok(None) };
    let act = match grants {
        None => Entry::Revoke { member, cuts },
        Some(grants) => Entry::Grant { member, grants, cuts },
    };
    let entry = engine.replica().members().sign(act, admin);
    engine.append_members(&[entry])?;
    Ok(Some(()))
}
