//! `[schedule]`: when each probe runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::key::Key;
use super::reader::Reader;
use crate::core::schedule::Schedule;
use crate::core::time::Timestamp;
use crate::platforms::Probe;
use crate::secrets;

const CONNECTION: Key = Key::new(
    "schedule.connection",
    "When the platforms are asked whether they answer and the source exists.",
)
.or("*/30 * * * * *");
const AUTH: Key = Key::new(
    "schedule.auth",
    "When tokens are checked; also right after an unexpected 401.",
)
.or("0 7 * * * *");
const STREAM: Key =
    Key::new("schedule.stream", "When the platforms are asked who is live.").or("0 * * * * *");
const VIEWERS: Key = Key::new(
    "schedule.viewers",
    "When viewers are counted; only of streams that are online.",
)
.or("0 * * * * *");
const PERMISSIONS: Key =
    Key::new("schedule.permissions", "When the bot's permissions are checked.").or("0 */10 * * * *");
const JITTER: Key = Key::new(
    "schedule.jitter",
    "Each run starts up to this much later, so that not all start at once.",
)
.or("2s");

pub(super) const KEYS: &[Key] = &[CONNECTION, AUTH, STREAM, VIEWERS, PERMISSIONS, JITTER];

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

fn key_of(probe: Probe) -> &'static Key {
    match probe {
        Probe::Connection => &CONNECTION,
        Probe::Auth => &AUTH,
        Probe::Stream => &STREAM,
        Probe::Viewers => &VIEWERS,
        Probe::Permissions => &PERMISSIONS,
    }
}

pub(super) fn read(reader: &mut Reader<'_>, now: Timestamp) -> ScheduleSettings {
    let mut probes = BTreeMap::new();
    for probe in Probe::ALL {
        let key = key_of(probe);
        let Some(found) = reader.made(key, |text| match text {
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
            reader.warn(key.path, &found.origin, format!("`{parsed}` never fires"));
        }
        probes.insert(probe, parsed);
    }
    ScheduleSettings {
        probes,
        jitter: reader
            .duration(&JITTER, Duration::ZERO..=Duration::from_mins(1))
            .map_or(Duration::from_secs(2), |found| found.value),
    }
}
