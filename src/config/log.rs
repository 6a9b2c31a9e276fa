//! `[log]`: what is logged and how.

use super::key::Key;
use super::reader::{Reader, clip};

const LEVEL: Key = Key::new(
    "log.level",
    "error | warn | info | debug | trace. -v and -q move it by one.",
)
.named(&["LOG_LEVEL"])
.shared()
.or("info");
const FILTER: Key = Key::new(
    "log.filter",
    "A filter in the form of RUST_LOG; it replaces log.level.",
)
.named(&["RUST_LOG"])
.shared()
.overriding(LEVEL.path)
.such_as("bitbrat=debug");
const FORMAT: Key = Key::new(
    "log.format",
    "human (lines for people) | text (every field) | json. Default: human on a terminal, otherwise text.",
)
.such_as("json");

pub(super) const KEYS: &[Key] = &[LEVEL, FILTER, FORMAT];

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people: local time, what has changed, and fields only with `-v`.
    Human,
    /// One line per event with its UTC timestamp, level, message and fields.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub level: tracing::level_filters::LevelFilter,
    /// A filter in the form of `RUST_LOG`.
    pub filter: Option<String>,
    /// The format; `None`: human on a terminal, otherwise text.
    pub format: Option<LogFormat>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> LogSettings {
    use tracing::level_filters::LevelFilter;
    let level = reader.made(&LEVEL, |text| match text.to_lowercase().as_str() {
        // The other names are those of npm, pino, syslog and Python, whose programs read the same variable.
        "error" | "err" | "fatal" | "critical" | "crit" | "alert" | "emerg" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" | "notice" | "http" => Ok(LevelFilter::INFO),
        "debug" | "verbose" => Ok(LevelFilter::DEBUG),
        "trace" | "silly" | "all" => Ok(LevelFilter::TRACE),
        "off" | "silent" | "none" => Ok(LevelFilter::OFF),
        other => Err(format!(
            "`{}` is none of error, warn, info, debug, trace",
            clip(other)
        )),
    });
    let format = reader.made(&FORMAT, |text| match text.to_lowercase().as_str() {
        "human" => Ok(LogFormat::Human),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("`{}` is none of human, text, json", clip(other))),
    });
    let filter = reader.made(&FILTER, |text| {
        tracing_subscriber::EnvFilter::builder()
            .parse(text)
            .map(|_| text.to_owned())
            .map_err(|error| format!("`{}` is not a filter ({error})", clip(text)))
    });
    LogSettings {
        level: level.map_or(LevelFilter::INFO, |found| found.value),
        filter: filter.map(|found| found.value),
        format: format.map(|found| found.value),
    }
}
