//! The formats in which Prometheus reads metrics: its own text format 0.0.4, and `OpenMetrics` 1.0.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::catalog::{Kind, Metric};
use crate::core::time::Timestamp;
use crate::histogram::Buckets;

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value of a series.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A count.
    Count(u64),
    /// Milliseconds, written in seconds.
    Millis(i64),
    /// Any number.
    Number(f64),
    /// The content of a histogram.
    Buckets(Buckets),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(is_true: bool) -> Self {
        Self::Count(u64::from(is_true))
    }
}

impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Millis(at.as_millis())
    }
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Self::Number(duration.as_secs_f64())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Millis(millis) => {
                let (sign, size) = (if *millis < 0 { "-" } else { "" }, millis.unsigned_abs());
                write!(f, "{sign}{}", size / 1_000)?;
                match size % 1_000 {
                    0 => Ok(()),
                    rest => write!(f, ".{rest:03}"),
                }
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Buckets(buckets) => write!(f, "{}", buckets.count),
        }
    }
}

/// The series of one scrape, in a fixed order.
#[derive(Debug, Default)]
pub(super) struct Exposition(BTreeMap<&'static str, (&'static Metric, BTreeMap<String, Value>)>);

impl Exposition {
    /// Sets the series of `metric` with these values of its labels.
    pub(super) fn set(&mut self, metric: &'static Metric, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "labels of {}", metric.name);
        let mut text = String::new();
        for (name, value) in metric.labels.iter().zip(labels) {
            let separator = if text.is_empty() { "" } else { "," };
            let value = value
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            text += &format!("{separator}{name}=\"{value}\"");
        }
        let (_, series) = self
            .0
            .entry(metric.name)
            .or_insert_with(|| (metric, BTreeMap::new()));
        series.insert(text, value.into());
    }

    /// Returns the counters without labels by name, and the sums of the others.
    pub(super) fn counters(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.0.values().filter(|(metric, _)| metric.kind == Kind::Counter);
        let sum = |series: &BTreeMap<String, Value>| {
            let counts = series.values().map(|value| match value {
                Value::Count(count) => *count,
                _ => 0,
            });
            counts.sum()
        };
        counters
            .map(|(metric, series)| (metric.name, sum(series)))
            .collect()
    }

    /// Writes all series.
    pub(super) fn to_text(&self, format: Format) -> String {
        let mut text = String::new();
        for (metric, series) in self.0.values() {
            header(&mut text, metric, format);
            for (labels, value) in series {
                write_series(&mut text, metric.name, labels, value);
            }
        }
        if format == Format::OpenMetrics {
            text += "# EOF\n";
        }
        text
    }
}

fn header(text: &mut String, metric: &Metric, format: Format) {
    let (family, kind) = match (format, metric.kind) {
        // OpenMetrics names the family without what the kind adds to the names of its series.
        (Format::OpenMetrics, Kind::Counter) => (metric.name.trim_end_matches("_total"), "counter"),
        (Format::OpenMetrics, Kind::Info) => (metric.name.trim_end_matches("_info"), "info"),
        (_, Kind::Counter) => (metric.name, "counter"),
        (_, Kind::Gauge | Kind::Info) => (metric.name, "gauge"),
        (_, Kind::Histogram) => (metric.name, "histogram"),
    };
    let help = metric.help;
    *text += &format!("# HELP {family} {help}\n# TYPE {family} {kind}\n");
    if let Some(unit) = metric.unit().filter(|_| format == Format::OpenMetrics) {
        *text += &format!("# UNIT {family} {unit}\n");
    }
}

fn write_series(text: &mut String, name: &str, labels: &str, value: &Value) {
    let braces = |more: &str| match (labels.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, false) => format!("{{{labels},{more}}}"),
        _ => format!("{{{labels}{more}}}"),
    };
    let all = braces("");
    let Value::Buckets(buckets) = value else {
        *text += &format!("{name}{all} {value}\n");
        return;
    };
    for (bound, count) in &buckets.up_to {
        // As a decimal number, so that both formats have the same series.
        let labels = braces(&format!("le=\"{bound:?}\""));
        let _ = writeln!(text, "{name}_bucket{labels} {count}");
    }
    let (labels, count, sum) = (braces("le=\"+Inf\""), buckets.count, buckets.sum);
    *text += &format!("{name}_bucket{labels} {count}\n{name}_sum{all} {sum}\n{name}_count{all} {count}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::metrics::catalog;

    fn exposition() -> Exposition {
        let mut exposition = Exposition::default();
        exposition.set(&catalog::BUILD, &["1.2.3"], true);
        exposition.set(&catalog::PROBES, &["twitch", "quick"], 7_u64);
        exposition.set(&catalog::PROBES, &["kick", "a\"b\\c\nd"], 1_u64);
        exposition.set(&catalog::CLOCK_ERROR, &[], Value::Millis(-1_050));
        let durations = Buckets {
            up_to: vec![(0.5, 1), (1.0, 2)],
            count: 3,
            sum: 6.25,
        };
        exposition.set(&catalog::REQUEST_DURATION, &["kick"], Value::Buckets(durations));
        exposition
    }

    #[test]
    fn text_format_names_counters_with_total() {
        insta::assert_snapshot!(exposition().to_text(Format::Text));
    }

    #[test]
    fn open_metrics_names_families_and_units() {
        insta::assert_snapshot!(exposition().to_text(Format::OpenMetrics));
    }

    #[test]
    fn values_are_exact_seconds() {
        for (value, text) in [
            (
                Value::from(Timestamp::from_millis(1_780_003_600_000)),
                "1780003600",
            ),
            (
                Value::from(Timestamp::from_millis(1_780_003_600_007)),
                "1780003600.007",
            ),
            (Value::Millis(-7), "-0.007"),
            (Value::from(Duration::from_millis(1_500)), "1.5"),
            (Value::from(false), "0"),
        ] {
            assert_eq!(value.to_string(), text);
        }
    }
}
