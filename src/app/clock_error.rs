//! The error of this machine's clock, shared by the processes that use one state directory: a command that only reads asks no
//! platform, and would otherwise take correctly dated evidence for evidence from the future.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::files::{self, Durability};
use crate::http::{self, ClockError};
use crate::lifecycle::Stop;

const FILE: &str = "clock.json";
/// For how long a measurement is used (ms), by a clock that cannot be set where the system has one.
const VALID_MS: i64 = 86_400_000;
/// For how long it is used where only the clock itself shows its age.
const VALID_BY_CLOCK: Duration = Duration::from_mins(10);
/// How often a running process looks at the error.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the file is written while the error stays the same.
const CONFIRMED_EVERY: Duration = Duration::from_mins(1);
/// Differences below this are the same error (ms).
const SAME_MS: i64 = 2_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// Platform time minus the time of this machine (ms).
    offset_ms: i64,
    /// Whether dates may be corrected by it.
    certain: bool,
    /// When it was measured, by the clock of this machine.
    at: Timestamp,
    /// The same instant by a clock that cannot be set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    uptime: Option<Uptime>,
}

/// For how long the system has been running: the clock was set by as much as its differences and those of this one differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Uptime {
    millis: i64,
    /// Identifies the start of the system; another one has another uptime.
    boot: String,
}

/// Uses the error that another process of this machine has measured lately, until this process has measured it. A clock that was
/// set since has another error, which follows from the uptime: without it, a process that starts after the clock was set back would
/// take all stored evidence for evidence from the future until the first response.
pub fn recall(directory: &Path, clock: &dyn Clock) {
    let text = std::fs::read(directory.join(FILE)).ok();
    let known = text.and_then(|text| serde_json::from_slice::<Measured>(&text).ok());
    if let Some(error) = known.and_then(|known| known.now(clock.now(), Uptime::now())) {
        http::assume_clock_error(error);
    }
}

/// Shares what this process has measured, if the state directory exists. Nothing depends on whether the file can be written.
pub fn share(directory: &Path, clock: &dyn Clock) {
    let Some(ClockError { offset_ms, certain }) = http::own_clock_error() else {
        return;
    };
    let measured = Measured {
        offset_ms,
        certain,
        at: clock.now(),
        uptime: Uptime::now(),
    };
    if let Err(error) = write(&directory.join(FILE), &measured) {
        debug!(%error, "The error of the clock cannot be shared");
    }
}

/// Shares the error for as long as the process runs, and logs it when it changes.
pub async fn run(directory: PathBuf, clock: Arc<dyn Clock>, stop: Stop) {
    let differs = |one: i64, other: i64| (one - other).abs() > SAME_MS || (one == 0) != (other == 0);
    let mut logged = 0;
    let mut shared: Option<(ClockError, Timestamp)> = None;
    while stop.sleep(CHECK_INTERVAL).await {
        let offset = http::clock_error();
        if differs(offset, logged) {
            log(offset);
            logged = offset;
        }
        let now = clock.now();
        let is_shared = |error: &ClockError| {
            shared.is_some_and(|(known, at)| {
                known.certain == error.certain
                    && !differs(known.offset_ms, error.offset_ms)
                    && at.is_recent(CONFIRMED_EVERY, now)
            })
        };
        if let Some(error) = http::own_clock_error().filter(|error| !is_shared(error)) {
            let (directory, clock) = (directory.clone(), Arc::clone(&clock));
            crate::blocking::blocking(move || share(&directory, clock.as_ref())).await;
            shared = Some((error, now));
        }
    }
}

fn log(offset: i64) {
    let direction = if offset > 0 { "behind" } else { "ahead of" };
    if offset == 0 {
        info!("The clock of this machine is right again");
    } else {
        let seconds = offset.unsigned_abs() / 1_000;
        warn!(
            offset_ms = offset,
            "The clock of this machine is {seconds} s {direction} the platforms'; dates are corrected. Set the clock"
        );
    }
}

fn write(path: &Path, measured: &Measured) -> std::io::Result<()> {
    let volatile = Durability::Volatile {
        because: "it is valid for minutes and measured again",
    };
    files::write(path, files::FileAccess::Owner, volatile, |file| {
        Ok(serde_json::to_writer(file, measured)?)
    })
}

impl Measured {
    /// Returns the error of a clock that shows `now` at `uptime`, as far as it follows from this measurement.
    fn now(&self, now: Timestamp, uptime: Option<Uptime>) -> Option<ClockError> {
        let (is_used, set_by) = match (&self.uptime, uptime) {
            (Some(then), Some(uptime)) => {
                let elapsed = uptime.millis - then.millis;
                let is_used = then.boot == uptime.boot && (0..=VALID_MS).contains(&elapsed);
                (is_used, self.at.plus_millis(elapsed).millis_since(now))
            }
            _ => (self.offset_ms != 0 && self.at.is_recent(VALID_BY_CLOCK, now), 0),
        };
        is_used.then_some(ClockError {
            offset_ms: self.offset_ms + set_by,
            certain: self.certain,
        })
    }
}

impl Uptime {
    /// Returns the uptime of the system this process runs on; `None` where it cannot be read.
    fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
        let uptime = Duration::try_from_secs_f64(seconds).ok()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            millis: i64::try_from(uptime.as_millis()).ok()?,
            boot: boot.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(1_000_000 + second)
    }

    fn up(second: i64) -> Uptime {
        Uptime {
            millis: (500 + second) * 1_000,
            boot: "a".to_owned(),
        }
    }

    fn measured(offset_ms: i64, uptime: Option<Uptime>) -> Measured {
        Measured {
            offset_ms,
            certain: true,
            at: at(0),
            uptime,
        }
    }

    fn offset(known: &Measured, now: Timestamp, uptime: Option<Uptime>) -> Option<i64> {
        known.now(now, uptime).map(|error| error.offset_ms)
    }

    #[test]
    fn clock_that_was_set_since_the_measurement_has_the_error_that_follows() {
        let known = measured(0, Some(up(0)));
        assert_eq!(offset(&known, at(60), Some(up(60))), Some(0));
        assert_eq!(
            offset(&known, at(60 - 3_600), Some(up(60))),
            Some(3_600_000),
            "set back"
        );
        assert_eq!(
            offset(&known, at(60 + 3_600), Some(up(60))),
            Some(-3_600_000),
            "set ahead"
        );
        let known = measured(90_000, Some(up(0)));
        assert_eq!(offset(&known, at(60), Some(up(60))), Some(90_000));
        assert_eq!(offset(&known, at(150), Some(up(60))), Some(0), "set right");
    }

    #[test]
    fn measurement_of_another_start_of_the_system_or_of_long_ago_is_not_used() {
        let known = measured(90_000, Some(up(0)));
        let other = Uptime {
            boot: "b".to_owned(),
            ..up(60)
        };
        assert_eq!(offset(&known, at(60), Some(other)), None);
        assert_eq!(offset(&known, at(90_000), Some(up(90_000))), None);
        assert_eq!(offset(&known, at(0), Some(up(-60))), None);
    }

    #[test]
    fn error_is_used_for_minutes_where_the_system_tells_no_uptime() {
        let known = measured(90_000, None);
        assert_eq!(offset(&known, at(60), Some(up(60))), Some(90_000));
        assert_eq!(offset(&known, at(700), None), None, "long ago");
        assert_eq!(offset(&known, at(-60), None), None, "from the future");
        assert_eq!(offset(&measured(0, None), at(60), None), None);
    }

    #[test]
    fn file_that_cannot_be_read_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let clock = crate::clock::ManualClock::at(Timestamp::EPOCH);
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        recall(directory.path(), clock.as_ref());
        assert_eq!(http::clock_error(), 0);
    }
}
