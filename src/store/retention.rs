//! History retention per source. A pure rule, the same for every adapter, and a join: for any order of arrival, the same
//! entries remain.

use std::cmp::Ordering;
use std::time::Duration;

use crate::core::time::Timestamp;
use crate::store::HistoryEntry;

/// Limits of each source's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of entries; the newest are kept.
    pub entries: usize,
    /// Maximum age of an entry, relative to the time at which the newest entry was recorded. A source without changes for
    /// years thus keeps its last known state.
    pub age: Duration,
}

impl Default for Retention {
    /// 500 entries or 90 days, whichever is less.
    fn default() -> Self {
        Self {
            entries: 500,
            age: Duration::from_hours(90 * 24),
        }
    }
}

impl Retention {
    /// Returns the time before which no entry is kept if the newest entry was recorded at `newest`.
    pub fn horizon(&self, newest: Timestamp) -> Timestamp {
        newest.plus_millis(-i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX))
    }

    /// Sorts `entries` newest first and drops those beyond the retention.
    pub fn apply(&self, entries: &mut Vec<HistoryEntry>) {
        entries.sort_by(newest_first);
        if let Some(newest) = entries.iter().map(|entry| entry.recorded_at).max() {
            let horizon = self.horizon(newest);
            entries.retain(|entry| entry.transition.at >= horizon);
        }
        entries.truncate(self.entries);
    }
}

/// Orders entries by time of the transition, then by time of recording; the id makes the order total.
pub fn newest_first(a: &HistoryEntry, b: &HistoryEntry) -> Ordering {
    let place = |entry: &HistoryEntry| (entry.transition.at, entry.recorded_at);
    place(b).cmp(&place(a)).then_with(|| b.id.cmp(&a.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::facet::Facet;
    use crate::core::transition::Transition;

    fn entry(at: i64) -> HistoryEntry {
        let at = Timestamp::EPOCH.plus_secs(at);
        let transition = Transition {
            facet: Facet::Stream,
            from: None,
            to: Some("ONLINE".into()),
            at,
            rule: "stream.pushed-start".into(),
            stream_id: None,
            initial: false,
        };
        HistoryEntry::new(&"twitch:1".parse().unwrap(), at, transition)
    }

    fn kept(retention: Retention, mut entries: Vec<HistoryEntry>) -> Vec<i64> {
        retention.apply(&mut entries);
        let seconds = |entry: HistoryEntry| entry.transition.at.as_millis() / 1000;
        entries.into_iter().map(seconds).collect()
    }

    #[test]
    fn the_newest_entries_remain_newest_first() {
        let retention = Retention {
            entries: 2,
            ..Retention::default()
        };
        assert_eq!(kept(retention, vec![entry(1), entry(3), entry(2)]), [3, 2]);
    }

    #[test]
    fn age_counts_from_the_newest_record_not_from_today() {
        let retention = Retention {
            entries: 10,
            age: Duration::from_secs(5),
        };
        assert_eq!(kept(retention, vec![entry(4), entry(5), entry(10)]), [10, 5]);
    }

    #[test]
    fn an_empty_history_stays_empty() {
        assert_eq!(kept(Retention::default(), vec![]), Vec::<i64>::new());
    }
}
