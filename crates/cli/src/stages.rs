//! How far long work is: a bar on stderr, if that is a terminal.

use fieldkeep_relay::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar with an estimate of what remains.
pub(crate) fn bar() -> ProgressBar {
    ticking("[{elapsed_precise}] {bar:30} {pos}/{len}, {eta} left: {msg}")
}

/// The bar of a backup, or of a restore: each stage begins it anew.
pub(crate) struct Stages {
    bar: ProgressBar,
    stage: Option<Stage>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self { bar: ticking("[{elapsed_precise}] {bar:30} {percent}%: {msg}"), stage: None }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        let Progress { stage, done, total } = progress;
        if self.stage.replace(stage) != Some(stage) {
            self.bar.set_message(stage.words());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar on stderr; where that is no terminal it is never drawn.
pub(crate) fn styled(template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The same, which tells the time that passes while nothing comes.
fn ticking(template: &str) -> ProgressBar {
    let bar = styled(template);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}
