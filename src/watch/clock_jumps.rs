//! Detects that the wall clock and the monotonic clock diverge: the clock was set, or the machine was suspended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::lifecycle::Stop;

/// By how much (ms) the two may diverge between two checks before it counts as a jump. Clock discipline slews by far less.
const TOLERANCE: i64 = 2_000;
/// How late a check may be before the machine must have been suspended.
const SUSPEND_THRESHOLD: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Compares the clocks once a second and increments `jumps` each time they diverged.
pub async fn run(clock: Arc<dyn Clock>, jumps: watch::Sender<u64>, stop: Stop) {
    let mut last = (clock.now(), Instant::now());
    while stop.sleep(CHECK_INTERVAL).await {
        let now = (clock.now(), Instant::now());
        if let Some(by) = jump(last, now) {
            warn!(by_ms = by, "The clock jumped by {by} ms");
            jumps.send_modify(|count| *count += 1);
        }
        last = now;
    }
}

/// Returns by how much the wall clock jumped between two checks, or how long the machine was suspended.
fn jump(before: (Timestamp, Instant), after: (Timestamp, Instant)) -> Option<i64> {
    let wall = after.0.millis_since(before.0);
    let own = after.1.duration_since(before.1);
    let own_millis = i64::try_from(own.as_millis()).unwrap_or(i64::MAX);
    let parted = wall - own_millis;
    if parted.abs() > TOLERANCE {
        return Some(parted);
    }
    (own > CHECK_INTERVAL + SUSPEND_THRESHOLD).then_some(own_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_clocks_and_sleep_are_noticed_and_slewing_is_not() {
        let start = Instant::now();
        let wall = Timestamp::EPOCH.plus_secs(1_000_000);
        for (wall_ms, own_ms, expected) in [
            (1_000, 1_000, None),
            (2_500, 1_000, None),
            (901_000, 1_000, Some(900_000)),
            (-899_000, 1_000, Some(-900_000)),
            (8_000, 8_000, None),
            (60_000, 60_000, Some(60_000)),
            (3_600_000, 1_000, Some(3_599_000)),
        ] {
            let after = (wall.plus_millis(wall_ms), start + Duration::from_millis(own_ms));
            assert_eq!(jump((wall, start), after), expected, "{wall_ms} {own_ms}");
        }
    }
}
