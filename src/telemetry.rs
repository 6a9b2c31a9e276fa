//! Logs: one subscriber, on stderr, for people or as JSON, quiet about libraries, and friendly to progress bars.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::Clock;
use crate::config::{LogFormat, LogSettings};

/// Libraries that log what we log ourselves, or log routine as trouble: the Firestore client prints an error of its own
/// for every failed call, and a warning for every change when its emulator is behind it.
const MUTED: &str = "gcloud_sdk=off,firestore=error";

/// Starts logging for the whole process and returns the place where progress bars report themselves. A second call
/// changes nothing (tests share a process).
///
/// `verbosity` moves the level: each `-v` counts one up, each `-q` one down.
pub fn start(settings: &LogSettings, verbosity: i8, clock: Arc<dyn Clock>) -> Bars {
    let bars = Bars::default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings, verbosity))
        .with_timer(ClockTime(clock))
        .with_writer(bars.clone());
    let ansi = std::env::var_os("NO_COLOR").is_none() && io::IsTerminal::is_terminal(&io::stderr());
    let started = match settings.format {
        LogFormat::Human => {
            tracing::subscriber::set_global_default(builder.with_ansi(ansi).with_target(false).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
    if started.is_err() {
        tracing::debug!("Logging was started before; its settings stay");
    }
    bars
}

/// Our own level applies to us; everything else speaks from warnings up. An explicit filter replaces both.
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

/// Writes log lines to stderr, lifting a progress bar out of the way where one is on the screen.
#[derive(Clone, Default)]
pub struct Bars(Arc<Mutex<Option<indicatif::MultiProgress>>>);

impl Bars {
    /// From now on, lifts `bars` out of the way for each line.
    pub fn show(&self, bars: indicatif::MultiProgress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars);
    }

    /// No bar is on the screen any more.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One event's text; it is written as a whole.
pub struct Line(Bars);

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let bars = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let written = match bars {
            Some(bars) => bars.suspend(|| io::stderr().write_all(text)),
            None => io::stderr().write_all(text),
        };
        // Nobody reads our logs any more: that is no reason to stop working.
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(text.len()),
        }
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

/// Stamps log lines with our own clock, so that a moved clock shows in them too.
struct ClockTime(Arc<dyn Clock>);

impl FormatTime for ClockTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", self.0.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(level: LevelFilter, filter: Option<&str>) -> LogSettings {
        LogSettings {
            level,
            filter: filter.map(str::to_owned),
            format: LogFormat::Human,
        }
    }

    #[test]
    fn libraries_speak_from_warnings_up_and_the_firestore_client_hardly_at_all() {
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
