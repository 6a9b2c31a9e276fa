//! `[log]`: what is logged and how.

use super::key::Key;
use super::reader::{Reader, clip};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "log.level",
        "error | warn | info | debug | trace. -v and -q move it by one.",
    )
    .named(&["LOG_LEVEL"])
    .or("info"),
    Key::new(
        "log.filter",
        "A filter in the form of RUST_LOG; it replaces log.level.",
    )
    .named(&["RUST_LOG"])
    .such_as("bitbrat=debug"),
    Key::new("log.format", "human | json.").or("human"),
];

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The level.
    pub level: tracing::level_filters::LevelFilter,
    /// A filter in the form of `RUST_LOG`.
    pub filter: Option<String>,
    /// The format.
    pub format: LogFormat,
}

pub(super) fn read(reader: &mut Reader<'_>) -> LogSettings {
    use tracing::level_filters::LevelFilter;
    let level = reader.made("log.level", |text| match text.to_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        "off" | "silent" => Ok(LevelFilter::OFF),
        other => Err(format!(
            "`{}` is none of error, warn, info, debug, trace",
            clip(other)
        )),
    });
    let format = reader.made("log.format", |text| match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("`{}` is neither human nor json", clip(other))),
    });
    let filter = reader.made("log.filter", |text| {
        tracing_subscriber::EnvFilter::builder()
            .parse(text)
            .map(|_| text.to_owned())
            .map_err(|error| format!("`{}` is not a filter ({error})", clip(text)))
    });
    LogSettings {
        level: level.map_or(LevelFilter::INFO, |found| found.value),
        filter: filter.map(|found| found.value),
        format: format.map(|found| found.value).unwrap_or_default(),
    }
}
