//! The operator at work: decisions as the relay's commands carry them out, on the engine of a relay
//! that serves. One that cannot be carried out, because the relay does not run or its disk is full,
//! is tried again until it can.

use fieldkeep_relay::Engine;
use fieldkeep_replica::{Replica, ReplicaError};

use super::operator::Decision;
use super::oracle::{Checked, Oracle};
use super::plan::{Step, Who};
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
                let published = self.commands(|engine| publish(engine, dice).map(Some))?;
                Ok(published.is_some())
            }
            Decision::Join => match step.who {
                Who::Device(at) => self.joins(at),
                Who::Relay => Ok(true),
            },
        }
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
fn publish(engine: &mut Engine, mut dice: Dice) -> Result<u64, ReplicaError> {
    let source = |replica: &Replica| replica.published().map(|p| p.catalog.source().to_owned());
    let before = source(engine.replica());
    let mut next = workload::catalog(&mut dice);
    while Some(&next) == before.as_ref() {
        next = workload::catalog(&mut dice);
    }
    engine.publish(&next)
}
