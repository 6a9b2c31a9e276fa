//! `[schedule]`: when each probe runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::key::Key;
use super::reader::Reader;
use crate::core::schedule::Schedule;
use crate::core::time::Timestamp;
use crate::platforms::Probe;
use crate::secrets;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "schedule.connection",
        "When the platforms are asked whether they answer and the source exists.",
    )
    .or("*/30 * * * * *"),
    Key::new(
        "schedule.auth",
        "When tokens are checked; also right after an unexpected 401.",
    )
    .or("0 7 * * * *"),
    Key::new("schedule.stream", "When the platforms are asked who is live.").or("0 * * * * *"),
    Key::new(
        "schedule.viewers",
        "When viewers are counted; only of streams that are online.",
    )
    .or("0 * * * * *"),
    Key::new("schedule.permissions", "When the bot's permissions are checked.").or("0 */10 * * * *"),
    Key::new(
        "schedule.jitter",
        "Each run starts up to this much later, so that not all start at once.",
    )
    .or("2s"),
];

/// When each probe runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// The schedule of each probe; one that is `off` is absent.
    pub probes: BTreeMap<Probe, Schedule>,
    /// Each run starts up to this much later.
    pub jitter: Duration,
}

impl ScheduleSettings {
    /// Returns the interval of a probe: the widest gap between its next runs.
    pub fn interval(&self, probe: Probe, now: Timestamp) -> Option<Duration> {
        let millis = self.probes.get(&probe)?.widest_gap(now, 3)?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, now: Timestamp) -> ScheduleSettings {
    let mut probes = BTreeMap::new();
    for probe in Probe::ALL {
        let path = format!("schedule.{probe}");
        let Some(found) = reader.made(&path, |text| match text {
            "off" => Ok(None),
            // A token in place of a schedule is not repeated.
            _ => Schedule::parse(text)
                .map(Some)
                .map_err(|error| error.to_string().replace(text, &secrets::repeated(text))),
        }) else {
            continue;
        };
        let Some(parsed) = found.value else { continue };
        if !parsed.runs_after(now) {
            reader.warn(&path, &found.origin, format!("`{parsed}` never fires"));
        }
        probes.insert(probe, parsed);
    }
    ScheduleSettings {
        probes,
        jitter: reader
            .duration("schedule.jitter", Duration::ZERO..=Duration::from_mins(1))
            .map_or(Duration::from_secs(2), |found| found.value),
    }
}
