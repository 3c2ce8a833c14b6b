//! When merging and judging wait for pushes: a receipt is awaited by somebody, a verdict seldom is.

/// So many changes in one commit mean that pushes are under way, and that more is to come.
const PUSHING: usize = 64;
/// After so many commits on end with pushes under way a slice is judged all the same.
const PATIENCE: usize = 64;

/// What comes in between two slices.
#[derive(Debug, Default)]
pub(super) struct Influx {
    /// Changes that were admitted since the last commit.
    arriving: usize,
    /// Whether pushes are under way, as far as can be told, and for how many commits that was a
    /// reason to judge nothing.
    pushing: bool,
    waited: usize,
}

impl Influx {
    /// Changes were admitted.
    pub(super) fn arrived(&mut self, changes: usize) {
        self.arriving += changes;
    }

    /// What was admitted is on the disk.
    pub(super) fn committed(&mut self) {
        self.pushing |= std::mem::take(&mut self.arriving) >= PUSHING;
        self.waited += usize::from(self.pushing);
    }

    /// A slice is judged.
    pub(super) fn judged(&mut self) {
        (self.pushing, self.waited) = (false, 0);
    }

    /// Whether more is likely to come at once. Never for many commits on end.
    pub(super) fn expects_more(&self) -> bool {
        self.pushing && self.waited < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_judged_at_once() {
        let mut influx = Influx::default();
        influx.arrived(PUSHING - 1);
        influx.committed();
        assert!(!influx.expects_more());
        influx.arrived(PUSHING - 1);
        influx.committed();
        assert!(!influx.expects_more(), "what came before the last commit does not count");
    }

    #[test]
    fn many_changes_mean_that_more_is_to_come_until_a_slice_is_judged() {
        let mut influx = Influx::default();
        influx.arrived(PUSHING);
        influx.committed();
        influx.committed();
        assert!(influx.expects_more());
        influx.judged();
        assert!(!influx.expects_more());
    }

    #[test]
    fn pushes_without_end_do_not_keep_verdicts_back_for_ever() {
        let mut influx = Influx::default();
        let waits = (0..).take_while(|_| {
            influx.arrived(PUSHING);
            influx.committed();
            influx.expects_more()
        });
        assert_eq!(waits.count(), PATIENCE - 1);
        influx.judged();
        influx.arrived(PUSHING);
        influx.committed();
        assert!(influx.expects_more(), "patience begins anew");
    }
}
