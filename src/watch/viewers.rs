//! Recent viewer counts of sources, for sparklines: thirty points each, since the start of this process. A daemon adds each
//! count that it observes; a process that observes nothing has those that it has read for a page.

use std::collections::BTreeMap;

use crate::core::observation::{Fact, Observation};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::view::source_row::SourceRow;

/// Points per source. When they are used up, two become one, so that they always cover the whole time.
pub const POINTS: usize = 30;
/// Time of a point at first (ms).
const FIRST_STEP_MS: i64 = 30_000;
/// Time of a point at most (ms): thirty of them are a day.
const LAST_STEP_MS: i64 = FIRST_STEP_MS * 128;
/// No count at that time.
const NONE: u16 = u16::MAX;

/// The counts of one source, in at most 60 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    since: Timestamp,
    step_ms: i64,
    points: Vec<u16>,
}

impl Recent {
    fn new(at: Timestamp) -> Self {
        Self {
            since: at,
            step_ms: FIRST_STEP_MS,
            points: Vec::new(),
        }
    }

    fn add(&mut self, at: Timestamp, count: u64) {
        let Ok(mut index) = usize::try_from(at.millis_since(self.since) / self.step_ms) else {
            return;
        };
        while index >= POINTS {
            if self.step_ms < LAST_STEP_MS {
                self.step_ms *= 2;
                self.points = self.points.chunks(2).map(greater).collect();
            } else {
                let surplus = (index + 1 - POINTS).min(POINTS);
                self.points.drain(..surplus.min(self.points.len()));
                let gone = i64::try_from(index + 1 - POINTS).unwrap_or(0);
                self.since = self.since.plus_millis(self.step_ms * gone);
            }
            index = usize::try_from(at.millis_since(self.since) / self.step_ms).unwrap_or(0);
        }
        if self.points.len() <= index {
            self.points.resize(index + 1, NONE);
        }
        self.points[index] = greater(&[self.points[index], short(count)]);
    }

    /// Returns the time of each point and its count, oldest first; `None` where there was no count.
    pub fn points(&self) -> impl ExactSizeIterator<Item = (Timestamp, Option<u64>)> {
        let at = |index: usize| {
            let steps = i64::try_from(index).unwrap_or(0);
            self.since.plus_millis(steps * self.step_ms)
        };
        self.points
            .iter()
            .enumerate()
            .map(move |(index, point)| (at(index), long(*point)))
    }

    pub fn since(&self) -> Timestamp {
        self.since
    }
}

/// Returns the greatest count, ignoring those that are missing.
fn greater(points: &[u16]) -> u16 {
    let known = points.iter().copied().filter(|point| *point != NONE);
    known.max().unwrap_or(NONE)
}

/// Stores a count with eleven significant bits, which a line of twenty pixels does not exceed. Greater counts stay greater.
fn short(count: u64) -> u16 {
    let bits = 64 - count.leading_zeros();
    let exponent = bits.saturating_sub(11).min(30);
    let mantissa = (count >> exponent).min(2047);
    u16::try_from((u64::from(exponent) << 11) | mantissa).unwrap_or(NONE - 1)
}

fn long(point: u16) -> Option<u64> {
    (point != NONE).then(|| u64::from(point & 2047) << (point >> 11))
}

/// The counts of the sources that were live since the start.
#[derive(Debug, Default)]
pub struct Viewers(BTreeMap<SourceKey, Recent>);

impl Viewers {
    /// Adds the count that an observation reports, if it reports one.
    pub fn receive(&mut self, seen: &Observation) {
        if let Fact::Viewers { count, .. } = *seen.fact {
            self.add(&seen.source, seen.at, count);
        }
    }

    /// Adds the counts that are stored, and forgets sources that are gone.
    pub fn read(&mut self, rows: &[SourceRow]) {
        for row in rows.iter().filter(|row| row.is_live()) {
            let summary = &row.summary;
            if let (Some(count), Some(at)) = (summary.viewer_count, summary.viewers_at) {
                self.add(&summary.key, at, count);
            }
        }
        // The rows are sorted by key.
        self.0
            .retain(|key, _| rows.binary_search_by(|row| row.summary.key.cmp(key)).is_ok());
    }

    /// Adds a count at the time when it was taken: one that was not renewed makes no further point.
    fn add(&mut self, key: &SourceKey, at: Timestamp, count: u64) {
        match self.0.get_mut(key) {
            Some(recent) => recent.add(at, count),
            None => {
                let mut recent = Recent::new(at);
                recent.add(at, count);
                self.0.insert(key.clone(), recent);
            }
        }
    }

    pub fn of(&self, key: &SourceKey) -> Option<&Recent> {
        self.0.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::freshness::Intervals;
    use crate::core::observation::{Fact, Observation};
    use crate::core::summary::SourceSummary;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    #[test]
    fn points_cover_the_whole_time_with_few_bytes() {
        let mut recent = Recent::new(at(0));
        for minute in 0..3000 {
            recent.add(at(minute * 60), 100 + minute.unsigned_abs());
            assert!(recent.points.len() <= POINTS);
        }
        let points: Vec<_> = recent.points().collect();
        assert!(points.len() > POINTS / 2);
        let newest = points.last().unwrap();
        assert!(newest.1.unwrap() > 3000, "{newest:?}");
        // A day is kept, and no more.
        let hours = at(2999 * 60).since(points[0].0).as_secs() / 3600;
        assert!((20..=32).contains(&hours), "{hours}");
    }

    #[test]
    fn count_that_is_not_renewed_makes_no_point() {
        let key: SourceKey = "twitch:1".parse().unwrap();
        let facts = [
            Fact::StreamSeen {
                stream_id: "1".to_owned(),
                started_at: None,
            },
            Fact::Viewers {
                count: 5,
                stream_id: Some("1".to_owned()),
            },
        ];
        let seen = facts.map(|fact| Observation::new(&key, at(0), "test", fact));
        let document = SourceDocument::from_knowledge(key.clone(), Knowledge::of(&seen));
        let mut viewers = Viewers::default();
        for seconds in [0, 60, 120] {
            let row = SourceRow::new(SourceSummary::of(&document), &Intervals::default(), at(seconds));
            viewers.read(&[row]);
        }
        assert_eq!(viewers.of(&key).unwrap().points().len(), 1);
    }

    #[test]
    fn time_without_a_count_is_a_gap() {
        let mut recent = Recent::new(at(0));
        recent.add(at(0), 5);
        recent.add(at(95), 7);
        let counts: Vec<_> = recent.points().map(|(_, count)| count).collect();
        assert_eq!(counts, [Some(5), None, None, Some(7)]);
    }

    #[test]
    fn counts_keep_their_order_and_size() {
        let mut before = 0;
        for count in [0, 1, 2047, 2048, 12_345, 1_000_000, u64::from(u32::MAX), u64::MAX] {
            let stored = short(count);
            assert!(stored >= before && stored != NONE, "{count}");
            before = stored;
            if u32::try_from(count).is_ok() {
                let kept = long(stored).unwrap();
                assert!(kept <= count && (count - kept) * 1000 <= count, "{count} {kept}");
            }
        }
    }
}
