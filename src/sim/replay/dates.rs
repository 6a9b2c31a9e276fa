//! Moves the times in a recording to the present: clients reject old messages, and compare times with their own clock.

use std::sync::OnceLock;

use crate::core::time::Timestamp;

/// The time of a recording, and that of its replay.
pub(super) struct Dates {
    /// When the recording began.
    recorded_from: Timestamp,
    /// Milliseconds from there to the first request.
    first: u64,
    speed: u32,
    /// When the first request of the replay was received.
    replayed_from: OnceLock<Timestamp>,
}

impl Dates {
    pub(super) fn new(recorded_from: Timestamp, first: u64, speed: u32) -> Self {
        Self {
            recorded_from,
            first,
            speed,
            replayed_from: OnceLock::new(),
        }
    }

    /// Sets the beginning of the replay, unless it has begun.
    pub(super) fn begin(&self, now: Timestamp) -> Timestamp {
        *self.replayed_from.get_or_init(|| now)
    }

    /// Returns when the replay began.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        self.replayed_from.get().copied()
    }

    /// Returns how many milliseconds after the beginning of the replay something follows that was recorded at `at`.
    pub(super) fn offset(&self, at: u64) -> i64 {
        (signed(at) - signed(self.first)) / i64::from(self.speed)
    }

    /// Returns the time in the replay for a time in a line that was recorded at `at`.
    ///
    /// What was past when it was recorded stays past, and what was to come stays as far ahead. Time during the recording passes
    /// with the speed of the replay.
    pub(super) fn moved(&self, time: Timestamp, at: u64, now: Timestamp) -> Timestamp {
        let line = self.since_first(self.recorded_from.plus_millis(signed(at)));
        let since = self.since_first(time);
        let speed = i64::from(self.speed);
        let ahead = (since - line).max(0);
        let during = since.min(line);
        let passed = if during > 0 { during / speed } else { during };
        let moved = self.begin(now).plus_millis(passed + ahead);
        if ahead > 0 { moved } else { moved.min(now) }
    }

    /// As [`Dates::moved`], for a text that may be a time; `None` where it is none.
    pub(super) fn moved_text(&self, text: &str, at: u64, now: Timestamp) -> Option<String> {
        let bytes = text.as_bytes();
        let is_time = (20..=40).contains(&bytes.len()) && bytes[4] == b'-' && bytes[10] == b'T';
        let time: Timestamp = is_time.then(|| text.parse().ok()).flatten()?;
        Some(self.moved(time.known()?, at, now).to_string())
    }

    /// As [`Dates::moved`], for seconds since 1970.
    pub(super) fn moved_seconds(&self, seconds: f64, at: u64, now: Timestamp) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates, and is clamped to a time"
        )]
        let time = Timestamp::from_millis((seconds * 1000.0) as i64);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact for ages")]
        let moved = self.moved(time, at, now).as_millis() as f64;
        moved / 1000.0
    }

    fn since_first(&self, time: Timestamp) -> i64 {
        time.millis_since(self.recorded_from.plus_millis(signed(self.first)))
    }
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: i64 = 1_780_000_000_000;
    const NOW: i64 = 1_790_000_000_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn past_stays_past_and_future_as_far_ahead() {
        let dates = Dates::new(at(RECORDED), 500, 10);
        assert_eq!(dates.begin(at(NOW)), at(NOW));
        let hour = 3_600_000;
        for (recorded, line, now, expected) in [
            // A stream that began an hour before the first request.
            (RECORDED + 500 - hour, 500, NOW, NOW - hour),
            // Twenty seconds into the recording are two into the replay.
            (RECORDED + 20_500, 20_500, NOW + 2_000, NOW + 2_000),
            // A client that is faster than the recording never sees the future.
            (RECORDED + 20_500, 20_500, NOW + 1_000, NOW + 1_000),
            (RECORDED + 20_500 + hour, 20_500, NOW + 2_000, NOW + 2_000 + hour),
        ] {
            assert_eq!(
                dates.moved(at(recorded), line, at(now)),
                at(expected),
                "{recorded}"
            );
        }
    }

    #[test]
    fn only_times_are_moved() {
        let dates = Dates::new(at(RECORDED), 0, 1);
        let moved = |text: &str| dates.moved_text(text, 0, at(NOW));
        assert_eq!(moved(&at(RECORDED).to_string()), Some(at(NOW).to_string()));
        for text in [
            "2026-05-28",
            "Evening stream, part 12",
            "777001",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(moved(text), None, "{text}");
        }
    }
}
