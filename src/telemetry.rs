//! Logs: one subscriber, on stderr, for people, as text or as JSON, with few messages of libraries, and compatible with progress
//! bars.

mod human_log;
mod wrap;

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;

#[cfg(test)]
pub(crate) use self::human_log::recorded;
use self::human_log::{HumanLayer, Lines};
pub use self::human_log::{LineFormat, Record, names};
pub use self::wrap::columns;
use crate::clock::Clock;
use crate::config::{LogFormat, LogSettings};
use crate::lifecycle::Stop;
use crate::secrets;

/// Libraries that log what we log ourselves, or log routine as errors: the Firestore client prints an error of its own for every
/// failed call, and a warning for every change when its emulator lags behind it. The MCP server warns of each request for something
/// that it does not offer, with what the client sent.
const MUTED: &str = "gcloud_sdk=off,firestore=error,rmcp=off";

/// What the lines of a terminal look like.
pub struct Appearance {
    /// Whether lines of the format `text` are colored.
    pub color: bool,
    /// The lines of the format `human`.
    pub human: Box<dyn LineFormat>,
}

/// Starts logging for the whole process and returns the handle by which progress bars are registered. A second call changes
/// nothing (tests share a process).
///
/// `verbosity` moves the level: each `-v` raises it by one, each `-q` lowers it by one.
pub fn start(settings: &LogSettings, verbosity: i8, clock: Arc<dyn Clock>, appearance: Appearance) -> Bars {
    let format = settings.format.unwrap_or_else(|| {
        if io::IsTerminal::is_terminal(&io::stderr()) {
            LogFormat::Human
        } else {
            LogFormat::Text
        }
    });
    let lines = (format == LogFormat::Human).then(|| Lines::new(appearance.human));
    let bars = Bars {
        wraps: format == LogFormat::Text,
        lines: lines.clone(),
        ..Bars::default()
    };
    let filter = filter(settings, verbosity);
    let started = if let Some(lines) = lines {
        let out = bars.clone();
        let layer = HumanLayer { lines, out, clock };
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(layer))
    } else {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(ClockTime(clock))
            .with_writer(bars.clone());
        match format {
            LogFormat::Json => {
                tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
            }
            LogFormat::Human | LogFormat::Text => tracing::subscriber::set_global_default(
                builder.with_ansi(appearance.color).with_target(false).finish(),
            ),
        }
    };
    if started.is_err() {
        tracing::debug!("Logging was started before; its settings stay");
    }
    bars
}

/// The configured level applies to this program; everything else logs warnings and errors. An explicit filter replaces both.
fn filter(settings: &LogSettings, verbosity: i8) -> EnvFilter {
    let directives = if let Some(filter) = &settings.filter {
        format!("{MUTED},{filter}")
    } else {
        let level = shifted(settings.level, verbosity);
        let others = level.min(LevelFilter::WARN);
        format!("{others},bitbrat={level},{MUTED}")
    };
    EnvFilter::builder().parse_lossy(directives)
}

fn shifted(level: LevelFilter, by: i8) -> LevelFilter {
    const STEPS: [LevelFilter; 6] = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];
    let here = STEPS.iter().position(|step| *step == level).unwrap_or(3);
    let there = here.saturating_add_signed(isize::from(by)).min(STEPS.len() - 1);
    STEPS[there]
}

/// Writes log lines to stderr, hiding a progress bar for the moment where one is on the screen.
#[derive(Clone, Default)]
pub struct Bars {
    shown: Arc<Mutex<Option<indicatif::MultiProgress>>>,
    /// Whether lines are wrapped to a terminal here; those for people are wrapped by their format.
    wraps: bool,
    /// The lines for people, where that is the format.
    lines: Option<Arc<Lines>>,
}

impl Bars {
    /// From now on, hides `bars` while a line is written.
    pub fn show(&self, bars: indicatif::MultiProgress) {
        *self.shown.lock() = Some(bars);
    }

    /// No bar is on the screen any more.
    pub fn clear(&self) {
        *self.shown.lock() = None;
    }

    /// Merges lines for people that have the same cause, until the stop. Without this each line is printed at once.
    pub async fn merge_lines(&self, stop: Stop) {
        match &self.lines {
            Some(lines) => lines.merge(self, &stop).await,
            None => stop.requested().await,
        }
    }

    /// Writes text to stderr. A closed stderr is no reason to stop working.
    fn print(&self, text: &[u8]) -> io::Result<()> {
        let bars = self.shown.lock().clone();
        let written = match bars {
            Some(bars) => bars.suspend(|| io::stderr().write_all(text)),
            None => io::stderr().write_all(text),
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// One event's text; it is written as a whole.
pub struct Line(Bars);

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let length = text.len();
        // The last line of defense: libraries log texts that no code of ours has masked.
        let text = String::from_utf8_lossy(text);
        let text = secrets::mask(&text);
        // After masking, which needs whole secrets.
        let text = match self.0.wraps.then(wrap::columns).flatten() {
            Some(columns) => Cow::Owned(wrap::fitted(&text, columns)),
            None => text,
        };
        self.0.print(text.as_bytes())?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Bars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

/// Timestamps log lines with our own clock, so that a moved clock shows in them too.
struct ClockTime(Arc<dyn Clock>);

impl FormatTime for ClockTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", self.0.now())
    }
}

/// Runs `act` and returns what it logs.
#[cfg(test)]
pub(crate) fn captured(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(level: LevelFilter, filter: Option<&str>) -> LogSettings {
        LogSettings {
            level,
            filter: filter.map(str::to_owned),
            format: Some(LogFormat::Text),
        }
    }

    #[test]
    fn verbosity_sets_own_log_level_and_disables_gcloud_sdk() {
        for (level, verbosity, expected) in [
            (LevelFilter::INFO, 0, "bitbrat=info"),
            (LevelFilter::INFO, 1, "bitbrat=debug"),
            (LevelFilter::INFO, -1, "bitbrat=warn"),
            (LevelFilter::INFO, 9, "bitbrat=trace"),
            (LevelFilter::INFO, -9, "bitbrat=off"),
        ] {
            let text = filter(&settings(level, None), verbosity).to_string();
            assert!(
                text.contains(expected) && text.contains("gcloud_sdk=off"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_explicit_filter_replaces_the_level() {
        let text = filter(&settings(LevelFilter::INFO, Some("bitbrat::watch=trace")), 2).to_string();
        assert!(
            text.contains("bitbrat::watch=trace") && !text.contains("bitbrat=debug"),
            "{text}"
        );
    }
}
