//! What a spectator sees of the demonstration: a few lines, and progress where there is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output;

/// How a progress bar looks.
const BAR: &str = "   {msg} {bar:30} {pos}/{len}";

/// Tells the story, or keeps silent when a script reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    speaks: bool,
}

impl Stage {
    pub(super) fn new(speaks: bool) -> Self {
        Self { speaks }
    }

    /// A new act.
    pub(super) fn act(self, text: &str) {
        self.say(&format!("\n{text}"));
    }

    /// What happened in it.
    pub(super) fn tell(self, text: &str) {
        self.say(&format!("   {text}"));
    }

    /// A line, as it is.
    pub(super) fn say(self, text: &str) {
        if self.speaks {
            output::print(text);
        }
    }

    /// A bar for so many steps, invisible where nobody watches.
    pub(super) fn bar(self, steps: u64, what: &'static str) -> ProgressBar {
        if !self.speaks || !output::is_terminal() {
            return ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
        }
        let bar = ProgressBar::new(steps).with_message(what);
        match ProgressStyle::with_template(BAR) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// A time as spectators read it.
pub(super) fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{} ms", time.as_millis());
    }
    format!("{:.1} s", time.as_secs_f64())
}
