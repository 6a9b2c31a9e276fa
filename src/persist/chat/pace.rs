//! Messages per minute, from counts that only increase.

use std::collections::BTreeMap;

use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// The current and the last full minute of each source.
#[derive(Debug, Default)]
pub struct Pace {
    minutes: BTreeMap<SourceKey, Minutes>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Minutes {
    running: i64,
    count: u64,
    before: u64,
}

impl Pace {
    /// Counts one message.
    pub fn note(&mut self, source: &SourceKey, now: Timestamp) {
        let minute = minute(now);
        let minutes = self.minutes.entry(source.clone()).or_default();
        if minutes.running != minute {
            *minutes = Minutes {
                running: minute,
                count: 0,
                before: minutes.full_before(minute),
            };
        }
        minutes.count += 1;
    }

    /// Returns the number of messages in the last full minute.
    pub fn per_minute(&self, source: &SourceKey, now: Timestamp) -> u64 {
        self.minutes
            .get(source)
            .map_or(0, |minutes| minutes.full_before(minute(now)))
    }
}

impl Minutes {
    fn full_before(self, minute: i64) -> u64 {
        match minute - self.running {
            0 => self.before,
            1 => self.count,
            _ => 0,
        }
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_full_minute() {
        let source: SourceKey = "twitch:1".parse().unwrap();
        let at = |seconds| Timestamp::EPOCH.plus_secs(seconds);
        let mut pace = Pace::default();
        for second in [0, 10, 59] {
            pace.note(&source, at(second));
        }
        assert_eq!(pace.per_minute(&source, at(59)), 0);
        assert_eq!(pace.per_minute(&source, at(60)), 3);
        pace.note(&source, at(61));
        assert_eq!(pace.per_minute(&source, at(62)), 3);
        assert_eq!(pace.per_minute(&source, at(120)), 1);
        assert_eq!(pace.per_minute(&source, at(180)), 0);
    }
}
