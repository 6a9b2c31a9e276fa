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
use crate::http;
use crate::lifecycle::Stop;

/// The file in the state directory.
const FILE: &str = "clock.json";
/// For how long a measurement is used (ms).
const VALID_MS: i64 = 600_000;
/// How often a running process confirms it.
const EVERY: Duration = Duration::from_secs(2);
/// How often the file is written while the error stays the same (ms).
const CONFIRMED_EVERY_MS: i64 = 60_000;
/// Differences below this are the same error (ms).
const SAME_MS: i64 = 2_000;

/// A measured error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// Platform time minus the time of this machine (ms).
    offset_ms: i64,
    /// When it was measured, by the clock of this machine.
    at: Timestamp,
    /// When the machine was started, by the same clock, where the system tells for how long it has run: another value means that
    /// the clock was set since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    started_at: Option<Timestamp>,
}

/// Uses the error that another process of this machine has measured lately, until this process has measured it.
pub fn recall(directory: &Path, clock: &dyn Clock) {
    let now = clock.now();
    let text = std::fs::read(directory.join(FILE)).ok();
    let known = text.and_then(|text| serde_json::from_slice::<Measured>(&text).ok());
    if let Some(measured) = known.filter(|known| is_valid(known, now, started_at(now))) {
        http::presume_clock_error(measured.offset_ms);
    }
}

/// Shares what this process has measured. Nothing depends on whether the file can be written.
pub fn share(directory: &Path, clock: &dyn Clock) {
    let now = clock.now();
    let path = directory.join(FILE);
    let offset_ms = http::clock_error();
    let written = if offset_ms == 0 {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    } else {
        let measured = Measured {
            offset_ms,
            at: now,
            started_at: started_at(now),
        };
        write(&path, &measured)
    };
    if let Err(error) = written {
        debug!(%error, "The error of the clock cannot be shared");
    }
}

/// Shares the error for as long as the process runs, and logs it when it changes.
pub async fn run(directory: PathBuf, clock: Arc<dyn Clock>, stop: Stop) {
    let mut known = (0, Timestamp::EPOCH);
    while stop.sleep(EVERY).await {
        let (offset, now) = (http::clock_error(), clock.now());
        let differs = (offset - known.0).abs() > SAME_MS || (offset == 0) != (known.0 == 0);
        if differs {
            log(offset);
        }
        if differs || (offset != 0 && !known.1.is_recent(CONFIRMED_EVERY_MS, now)) {
            let (directory, clock) = (directory.clone(), Arc::clone(&clock));
            crate::blocking::blocking(move || share(&directory, clock.as_ref())).await;
            known = (offset, now);
        }
    }
}

fn log(offset: i64) {
    let label = if offset > 0 { "behind" } else { "ahead of" };
    if offset == 0 {
        info!("The clock of this machine is right again");
    } else {
        let seconds = offset.unsigned_abs() / 1_000;
        warn!(
            offset_ms = offset,
            "The clock of this machine is {seconds} s {label} the platforms'; dates are corrected. Set the clock"
        );
    }
}

fn write(path: &Path, measured: &Measured) -> std::io::Result<()> {
    files::make_private_dir(path.parent().unwrap_or(Path::new(".")))?;
    let volatile = Durability::Volatile {
        because: "it is valid for minutes and measured again",
    };
    files::write(path, files::Access::Owner, volatile, |file| {
        Ok(serde_json::to_writer(file, measured)?)
    })
}

fn is_valid(known: &Measured, now: Timestamp, started_at: Option<Timestamp>) -> bool {
    let was_set = |then: Timestamp, now: Timestamp| now.millis_since(then).abs() > SAME_MS;
    let is_same_clock = match (known.started_at, started_at) {
        (Some(then), Some(now)) => !was_set(then, now),
        _ => true,
    };
    is_same_clock && known.at.is_recent(VALID_MS, now)
}

/// Returns when this machine was started, by a clock that shows `now`.
fn started_at(now: Timestamp) -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    let uptime = i64::try_from(Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()?;
    Some(now.plus_millis(-uptime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_error_is_used_while_it_is_new_and_the_clock_was_not_set() {
        let at = |second: i64| Timestamp::EPOCH.plus_secs(1_000_000 + second);
        let started = at(-500);
        let known = Measured {
            offset_ms: 90_000,
            at: at(0),
            started_at: Some(started),
        };
        assert!(is_valid(&known, at(60), Some(started)));
        assert!(!is_valid(&known, at(700), Some(started)), "long ago");
        assert!(!is_valid(&known, at(150), Some(at(-410))), "the clock was set");
        assert!(!is_valid(&known, at(-60), None), "from the future");
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
