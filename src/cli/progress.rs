//! Shows the progress of a probe, one line per platform, on standard error, once it takes longer than a moment.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::output::write_err;
use crate::core::source::PlatformName;
use crate::telemetry::Bars;

/// Work that ends sooner shows no bar.
pub const BAR_DELAY: Duration = Duration::from_millis(500);

/// Draws progress, or does nothing where standard error is no terminal.
pub struct Progress {
    enabled: bool,
    patience: Duration,
    unicode: bool,
    logs: Bars,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    /// Whether they are on the screen.
    shown: bool,
}

impl Progress {
    /// Prepares progress, which is drawn after `patience`; `logs` is notified of bars on the screen, so that log lines do not
    /// split them.
    pub fn new(enabled: bool, patience: Duration, unicode: bool, logs: Bars) -> Self {
        let drawn = Drawn {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            bars: BTreeMap::new(),
            shown: false,
        };
        Self {
            enabled,
            patience,
            unicode,
            logs,
            drawn: Mutex::new(drawn),
        }
    }

    /// Records how many of the expected calls to `platform` are done.
    pub fn calls(&self, platform: PlatformName, done: usize, expected: usize) {
        self.update(platform.as_str(), "calls", done as u64, expected as u64);
    }

    /// Records how much of some work is done.
    pub fn update(&self, what: &str, unit: &str, done: u64, expected: u64) {
        if !self.enabled {
            return;
        }
        let mut drawn = self.drawn.lock();
        if !drawn.bars.contains_key(what) {
            let bar = drawn
                .all
                .add(ProgressBar::new(expected).with_style(self.style(unit)));
            bar.set_prefix(what.to_owned());
            if drawn.shown {
                start_bar(&bar);
            }
            drawn.bars.insert(what.to_owned(), bar);
        }
        let bar = &drawn.bars[what];
        bar.set_length(expected.max(done));
        bar.set_position(done);
    }

    /// Runs `work`, and shows progress once it takes longer than a moment.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        if !self.enabled {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = tokio::time::sleep(self.patience) => {
                self.show();
                work.await
            }
        };
        self.clear();
        result
    }

    /// Starts to show how long something is still waited for. Where standard error is no terminal, a line says so once.
    pub fn countdown(&self, what: &str) -> Countdown {
        let bar = self.enabled.then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let ticks = if self.unicode {
                "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "
            } else {
                "|/-\\ "
            };
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style.tick_chars(ticks));
            bar
        });
        if bar.is_none() {
            // Without the line the command would seem to hang.
            let _ = write_err(&format!("{what}; Ctrl-C stops it.\n"));
        }
        Countdown {
            bar,
            what: what.to_owned(),
        }
    }

    fn show(&self) {
        let mut drawn = self.drawn.lock();
        drawn.shown = true;
        drawn.all.set_draw_target(ProgressDrawTarget::stderr());
        self.logs.show(drawn.all.clone());
        for bar in drawn.bars.values() {
            start_bar(bar);
        }
    }

    /// Takes every bar off the screen.
    pub fn clear(&self) {
        let mut drawn = self.drawn.lock();
        for (_, bar) in std::mem::take(&mut drawn.bars) {
            bar.finish_and_clear();
        }
        let _ = drawn.all.clear();
        drawn.shown = false;
        drawn.all.set_draw_target(ProgressDrawTarget::hidden());
        self.logs.clear();
    }

    fn style(&self, unit: &str) -> ProgressStyle {
        let template = format!("{{spinner}} {{prefix:8}} {{bar:24}} {{pos}}/{{len}} {unit}  {{elapsed}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        if self.unicode {
            style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        } else {
            style.progress_chars("#>-").tick_chars("|/-\\ ")
        }
    }
}

/// A wait with the time that is left.
pub struct Countdown {
    bar: Option<ProgressBar>,
    what: String,
}

impl Countdown {
    /// Shows the time that is left.
    pub fn show(&self, left: Duration) {
        if let Some(bar) = &self.bar {
            let seconds = left.as_secs();
            bar.set_message(format!(
                "{} ({}:{:02} left)",
                self.what,
                seconds / 60,
                seconds % 60
            ));
            bar.tick();
        }
    }

    /// Prints a line above it.
    pub fn say(&self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_err(&format!("{line}\n"))),
            None => write_err(&format!("{line}\n")),
        }
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Draws a bar now and keeps it moving.
fn start_bar(bar: &ProgressBar) {
    bar.tick();
    bar.enable_steady_tick(Duration::from_millis(120));
}
