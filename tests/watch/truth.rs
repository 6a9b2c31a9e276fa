//! The ground truth of the virtual week: channels that go live and end.

use std::collections::BTreeMap;

use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;

/// The longest time in seconds without any observation of a channel: an outage of half an hour that begins just before a probe
/// and ends just after the time of one, and the lag of polls.
pub const LONGEST_SILENCE: i64 = 9_300;

/// One broadcast.
#[derive(Debug, Clone)]
pub struct Broadcast {
    pub id: String,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// The ground truth.
pub struct Truth {
    pub broadcasts: BTreeMap<SourceKey, Vec<Broadcast>>,
    changes: BTreeMap<Timestamp, Vec<(SourceKey, String, bool)>>,
}

impl Truth {
    /// Generates `days` of broadcasts of `count` channels: some every day, some seldom, some short.
    pub fn invent(begin: Timestamp, count: u32, days: i64, chance: &mut fastrand::Rng) -> Self {
        let end = begin.plus_secs(days * 86_400);
        let mut broadcasts = BTreeMap::new();
        let mut changes: BTreeMap<Timestamp, Vec<_>> = BTreeMap::new();
        for id in 1..=count {
            let source: SourceKey = format!("twitch:{id}").parse().unwrap();
            let mut list = Vec::new();
            let mut at = begin.plus_secs(chance.i64(1..86_400));
            while at < end {
                // Longer than any outage and the interval between probes together, so that it cannot pass unobserved.
                let length = chance.i64(LONGEST_SILENCE..7 * 3_600);
                list.push(Broadcast {
                    id: format!("{id}{:05}", list.len() + 1),
                    start: at,
                    end: at.plus_secs(length),
                });
                at = at.plus_secs(length + chance.i64(3_600..30 * 3_600));
            }
            for Broadcast { id, start, end } in &list {
                for (at, live) in [(start, true), (end, false)] {
                    changes
                        .entry(*at)
                        .or_default()
                        .push((source.clone(), id.clone(), live));
                }
            }
            broadcasts.insert(source, list);
        }
        Self { broadcasts, changes }
    }

    pub fn keys(&self) -> Vec<SourceKey> {
        self.broadcasts.keys().cloned().collect()
    }

    /// The time of the first change after `now`.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.changes.range(now.plus_millis(1)..).next().map(|(at, _)| *at)
    }

    /// The changes at a time: the source, its stream, and whether that starts.
    pub fn changes_at(&self, at: Timestamp) -> impl Iterator<Item = (SourceKey, String, bool)> {
        self.changes.get(&at).into_iter().flatten().cloned()
    }

    /// Removes all changes after a time.
    pub fn cut(&mut self, after: Timestamp) {
        drop(self.changes.split_off(&after.plus_millis(1)));
        for broadcasts in self.broadcasts.values_mut() {
            broadcasts.retain(|broadcast| broadcast.start <= after);
            for broadcast in broadcasts.iter_mut().filter(|broadcast| broadcast.end > after) {
                broadcast.end = Timestamp::from_millis(i64::MAX);
            }
        }
    }

    /// The broadcast of a source at a time.
    pub fn at(&self, source: &SourceKey, at: Timestamp) -> Option<&Broadcast> {
        self.broadcasts[source]
            .iter()
            .find(|broadcast| broadcast.start <= at && at < broadcast.end)
    }
}
