//! `[watch]`: the daemon's own limits.

use std::time::Duration;

use super::key::Key;
use super::reader::Reader;

const GRACE: Key = Key::new(
    "watch.grace",
    "How long a stop may take before what is left is cut off.",
)
.or("10s");
const OUTBOX: Key = Key::new(
    "watch.outbox",
    "Events kept while the bus is away; beyond it heartbeats go first.",
)
.or("100000");
const INSTANCE: Key = Key::new(
        "watch.instance",
        "Name under which this process counts. Default: one that is made up once and kept in the state directory.",
    )
    .named(&["INSTANCE_ID"])
    .shared()
    .otherwise("a name is generated instead")
    .such_as("watch-1");

pub(super) const KEYS: &[Key] = &[GRACE, OUTBOX, INSTANCE];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSettings {
    /// How long a stop may take.
    pub grace: Duration,
    /// Events kept while the bus is unreachable.
    pub outbox: usize,
    /// Name under which this process counts, where it is configured.
    pub instance: Option<String>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> WatchSettings {
    let bounds = Duration::from_secs(1)..=Duration::from_mins(5);
    let outbox = reader.number(&OUTBOX, 1000..=10_000_000).unwrap_or(100_000);
    WatchSettings {
        grace: reader
            .duration(&GRACE, bounds)
            .map_or(Duration::from_secs(10), |found| found.value),
        outbox: usize::try_from(outbox).unwrap_or(100_000),
        instance: reader
            .made(&INSTANCE, |text| {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if text.len() <= 80 && text.chars().all(plain) && !text.starts_with("__") {
                    Ok(text.to_owned())
                } else {
                    Err("expects at most 80 letters, digits, dots, dashes and underscores")
                }
            })
            .map(|found| found.value),
    }
}
