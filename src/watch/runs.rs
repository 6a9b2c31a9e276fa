//! When daemons of this state directory ran, which separates "nothing changed" from "nothing was monitored".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::blocking::blocking;
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess};
use crate::lifecycle::Stop;

const FILE: &str = "runs.json";
/// Maximum size of the file in bytes.
const LIMIT: u64 = 64 * 1024;
/// How often the end of the current run is written.
const PERIOD: Duration = Duration::from_secs(30);
/// For how long a run is kept after its end (ms): a little more than pages show.
const KEPT_MS: i64 = 8 * 86_400_000;
/// Number of runs kept.
const RUNS: usize = 400;

/// One run of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub from: Timestamp,
    /// When it was last known to run.
    pub until: Timestamp,
}

/// Returns the runs as a running daemon knows them: the last one is its own, whose end is written from time to time only.
pub fn read_in_daemon(directory: &Path, now: Timestamp) -> Vec<Run> {
    let mut runs = read(directory);
    if let Some(own) = runs.last_mut() {
        own.until = own.until.max(now);
    }
    runs
}

/// Returns the runs, oldest first; none if there is no file, or an unreadable one.
pub fn read(directory: &Path) -> Vec<Run> {
    let text = files::read_input_text(&directory.join(FILE), LIMIT).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Records this run until the stop. Nothing depends on whether the file can be written.
pub async fn record(directory: PathBuf, clock: Arc<dyn Clock>, stop: Stop) {
    let from = clock.now();
    loop {
        let (path, now) = (directory.clone(), clock.now());
        let written = blocking(move || write(&path.join(FILE), &with(read(&path), from, now)));
        if let Err(error) = written.await {
            debug!(%error, "The times of runs cannot be written");
        }
        if stop.is_requested() {
            return;
        }
        stop.sleep(PERIOD).await;
    }
}

/// Adds the run that began at `from` and still goes on at `now`, and drops what is too old.
fn with(mut runs: Vec<Run>, from: Timestamp, now: Timestamp) -> Vec<Run> {
    runs.retain(|run| run.from != from && run.until.plus_millis(KEPT_MS) > now);
    let until = now.max(from);
    runs.push(Run { from, until });
    let surplus = runs.len().saturating_sub(RUNS);
    runs.drain(..surplus);
    runs
}

fn write(path: &Path, runs: &[Run]) -> std::io::Result<()> {
    let text = serde_json::to_string(runs)?;
    let durability = Durability::Volatile {
        because: "it is only shown, and written again within half a minute",
    };
    files::write(path, FileAccess::Owner, durability, |file| {
        writeln!(file, "{text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_with_start_and_end() {
        let at = |minute: i64| Timestamp::from_millis(1_780_000_000_000 + minute * 60_000);
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), []);
        let run = |from, until| Run {
            from: at(from),
            until: at(until),
        };
        for (from, now, expected) in [
            (0, 0, vec![run(0, 0)]),
            (0, 5, vec![run(0, 5)]),
            (10, 12, vec![run(0, 5), run(10, 12)]),
            // The first two are older than what is kept.
            (14_000, 14_000, vec![run(14_000, 14_000)]),
        ] {
            let runs = with(read(directory.path()), at(from), at(now));
            write(&directory.path().join(FILE), &runs).unwrap();
            assert_eq!(read(directory.path()), expected);
        }
        assert_eq!(
            read_in_daemon(directory.path(), at(14_001)),
            [run(14_000, 14_001)],
            "the run of the daemon that asks goes on"
        );
        std::fs::write(directory.path().join(FILE), "[{").unwrap();
        assert_eq!(read(directory.path()), []);
    }
}
