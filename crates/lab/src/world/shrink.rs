//! Shrinking: the fewest steps of a plan that break the same promise.
//!
//! Steps are left out in ever smaller groups, and what still fails is kept. Because each step has
//! dice of its own, what is left out changes nothing of what stays, but for what follows from it.

use std::collections::BTreeSet;

use super::oracle::{Oracle, Violation};
use super::plan::{Settings, Step, Who};
use super::plant::Plant;
use super::run::run_steps;

/// A history that breaks a promise, as short as it could be made.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The places in the plan of the steps that are left.
    pub places: Vec<usize>,
    /// What they break.
    pub violation: Violation,
    /// How many runs it took.
    pub runs: usize,
    /// Whether there was no time to try everything.
    pub cut_short: bool,
}

/// Shrinks a plan that broke a promise, for as long as `go_on` says so.
pub fn shrink(
    settings: &Settings,
    plant: Option<Plant>,
    steps: &[Step],
    violation: &Violation,
    mut go_on: impl FnMut() -> bool,
) -> Shrunk {
    // What was planned for later had no part in it, where it was not the end that found it.
    let before = (0..steps.len()).filter(|place| steps[*place].at <= violation.at);
    let mut trial = Trial {
        settings,
        plant,
        steps,
        oracle: violation.oracle,
        shrunk: Shrunk {
            places: before.collect(),
            violation: violation.clone(),
            runs: 0,
            cut_short: false,
        },
    };
    let everyone: BTreeSet<Who> = steps.iter().map(|step| step.who).collect();
    let everyone: Vec<Who> = everyone.into_iter().collect();
    for few in [everyone.len() / 2, everyone.len() / 4, everyone.len() / 8, 1] {
        for group in everyone.chunks(few.max(1)) {
            trial.without(|step| group.contains(&step.who), &mut go_on);
        }
    }
    let mut size = trial.shrunk.places.len() / 2;
    while size > 0 && !trial.shrunk.cut_short {
        let before = trial.shrunk.places.len();
        let mut from = 0;
        while from < trial.shrunk.places.len() {
            if !trial.without_places(from, size, &mut go_on) {
                from += size;
            }
        }
        // Another round at this size if it was worth it.
        size = if trial.shrunk.places.len() < before { size.min(before / 2) } else { size / 2 };
    }
    trial.shrunk
}

struct Trial<'a> {
    settings: &'a Settings,
    plant: Option<Plant>,
    steps: &'a [Step],
    oracle: Oracle,
    shrunk: Shrunk,
}

impl Trial<'_> {
    fn without(&mut self, leave_out: impl Fn(&Step) -> bool, go_on: &mut impl FnMut() -> bool) {
        let places = self.shrunk.places.iter().copied();
        let left = places.filter(|place| !leave_out(&self.steps[*place])).collect();
        self.attempt(left, go_on);
    }

    fn without_places(
        &mut self,
        from: usize,
        count: usize,
        go_on: &mut impl FnMut() -> bool,
    ) -> bool {
        let mut left = self.shrunk.places.clone();
        left.drain(from..(from + count).min(left.len()));
        self.attempt(left, go_on)
    }

    /// Keeps those places alone if they still break the promise.
    fn attempt(&mut self, places: Vec<usize>, go_on: &mut impl FnMut() -> bool) -> bool {
        if places.len() == self.shrunk.places.len() || self.shrunk.cut_short {
            return false;
        }
        if !go_on() {
            self.shrunk.cut_short = true;
            return false;
        }
        self.shrunk.runs += 1;
        let steps = places.iter().map(|place| self.steps[*place]).collect();
        let run = run_steps(self.settings, self.plant, steps);
        let Some(violation) = run.violation.filter(|v| v.oracle == self.oracle) else {
            return false;
        };
        self.shrunk.places = places;
        self.shrunk.violation = violation;
        true
    }
}
