//! Rules for when documents are written, and a prediction of the operations per day. No I/O.

use std::time::Duration;

use crate::core::evidence::Knowledge;
use crate::core::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);

/// Intervals between writes to a store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WritePolicy {
    /// Shortest interval between two writes of one source without a transition.
    pub heartbeat: Duration,
    /// Fraction by which a heartbeat is randomly extended, so that many sources do not write at the same time.
    pub spread: f64,
    /// First backoff after a failed write; doubled by each further failure.
    pub retry: Duration,
    /// Longest backoff after failed writes.
    pub retry_cap: Duration,
}

impl WritePolicy {
    /// At most one heartbeat write per source in `heartbeat`.
    pub const fn every(heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            spread: 0.1,
            retry: Duration::from_millis(250),
            retry_cap: Duration::from_secs(30),
        }
    }

    /// Returns when a source written at `written` is written again without a transition. `chance` is in `[0, 1)`.
    pub fn next_heartbeat(&self, written: Timestamp, chance: f64) -> Timestamp {
        later(written, self.heartbeat.mul_f64(1.0 + self.spread * chance))
    }

    /// Returns when a stored source that this process has not written yet is first written without a transition: at a random
    /// time within the first heartbeat, so that a restart does not write everything at once.
    pub fn first_heartbeat(&self, now: Timestamp, chance: f64) -> Timestamp {
        later(now, self.heartbeat.mul_f64(chance))
    }

    /// Returns the time of the next attempt after the `failures`-th consecutive failure (1 is the first). Jitter over the
    /// upper half of the backoff: never immediately, never all sources at the same time.
    pub fn next_try(&self, now: Timestamp, failures: u32, chance: f64) -> Timestamp {
        let doubled = self
            .retry
            .saturating_mul(1_u32 << failures.saturating_sub(1).min(20));
        later(now, doubled.min(self.retry_cap).mul_f64(0.5 + chance / 2.0))
    }
}

/// Fields that people read in a list and expect to change within seconds; a change of any is written early.
const PRESENTATION: [&str; 4] = ["displayName", "login", "title", "category"];

/// Profile of a source, for comparison. It excludes values that change with every response, but includes whether the viewers
/// of a stream are counted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presentation {
    profile: [Option<String>; 4],
    /// The stream whose viewers were counted last.
    counted: Option<String>,
}

impl Presentation {
    /// Extracts the profile.
    pub fn of(known: &Knowledge) -> Self {
        let evidence = &known.evidence;
        Self {
            profile: PRESENTATION.map(|field| Some(evidence.profile.get(field)?.value.clone())),
            counted: evidence
                .viewers
                .as_ref()
                .and_then(|viewers| viewers.value.stream_id.clone()),
        }
    }

    /// Returns whether it only adds fields that were unknown in `before`, and changes none.
    pub fn completes(&self, before: &Self) -> bool {
        let adds = |new: &Option<String>, old: &Option<String>| old.is_none() || new == old;
        let mut fields = self.profile.iter().zip(&before.profile);
        fields.all(|(new, old)| adds(new, old)) && adds(&self.counted, &before.counted)
    }
}

/// A rate limiter that permits a few actions at once, and then one per period. Stores one timestamp per source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// When all permitted actions are available again.
    full_at: Timestamp,
}

impl Default for Burst {
    fn default() -> Self {
        Self {
            full_at: Timestamp::EPOCH,
        }
    }
}

impl Burst {
    /// Actions permitted at once.
    const MOST: i64 = 4;

    /// Returns whether an action is permitted at `now`, and counts it if so. `period` is in milliseconds.
    pub fn acquire(&mut self, now: Timestamp, period: i64) -> bool {
        let debt = self.full_at.millis_since(now);
        // A debt above the maximum means that the clock was set back.
        let debt = if debt > Self::MOST.saturating_mul(period) {
            0
        } else {
            debt.max(0)
        };
        let allowed = debt <= (Self::MOST - 1).saturating_mul(period);
        if allowed {
            self.full_at = now.plus_millis(debt.saturating_add(period));
        }
        allowed
    }
}

fn later(at: Timestamp, pause: Duration) -> Timestamp {
    at.plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// The cost-relevant operations of a deployment per day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Number of configured sources.
    pub sources: u64,
    /// How often a source's evidence is confirmed: the shortest interval of the schedules.
    pub confirmed_every: Duration,
    /// Transitions of one source per day. Two broadcasts are four; a restart of the bot is two.
    pub transitions: u64,
    /// Readers that follow all sources the whole day (`sources status --watch`, dashboards).
    pub followers: u64,
    /// Starts of processes that read all sources once.
    pub starts: u64,
}

impl Workload {
    /// A typical day: eight transitions per source, one start, no followers.
    pub fn usual(sources: u64, confirmed_every: Duration) -> Self {
        Self {
            sources,
            confirmed_every,
            transitions: 8,
            followers: 0,
            starts: 1,
        }
    }
}

/// Cost of a day, in operations as billed by Firestore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// Writes of documents without a transition.
    pub heartbeat_writes: u64,
    /// Writes of documents with a transition, and of their history entries.
    pub transition_writes: u64,
    /// Reads of documents.
    pub reads: u64,
}

impl Prediction {
    /// Returns the total number of writes.
    pub fn writes(&self) -> u64 {
        self.heartbeat_writes + self.transition_writes
    }
}

/// Predicts the cost of a day of `load` with `write_policy`. An upper estimate: a transition also postpones the next
/// heartbeat, which is not subtracted.
pub fn predict(load: &Workload, write_policy: &WritePolicy) -> Prediction {
    let pause = write_policy
        .heartbeat
        .mul_f64(1.0 + write_policy.spread / 2.0)
        .max(load.confirmed_every);
    let heartbeats = DAY.as_millis() / pause.as_millis().max(1);
    let heartbeats = u64::try_from(heartbeats).unwrap_or(u64::MAX);
    let documents = load
        .sources
        .saturating_mul(heartbeats.saturating_add(load.transitions));
    Prediction {
        heartbeat_writes: load.sources.saturating_mul(heartbeats),
        transition_writes: load.sources.saturating_mul(load.transitions).saturating_mul(2),
        reads: load
            .sources
            .saturating_mul(load.starts.saturating_add(load.followers))
            .saturating_add(documents.saturating_mul(load.followers)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: WritePolicy = WritePolicy::every(Duration::from_secs(30));
    const FIRESTORE: WritePolicy = WritePolicy::every(Duration::from_mins(5));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(seconds)
    }

    #[test]
    fn heartbeats_spread_but_never_come_early() {
        let write_policy = LOCAL;
        assert_eq!(write_policy.next_heartbeat(at(100), 0.0), at(130));
        assert_eq!(
            write_policy.next_heartbeat(at(100), 0.5),
            Timestamp::from_millis(131_500)
        );
        assert_eq!(write_policy.first_heartbeat(at(100), 0.5), at(115));
    }

    #[test]
    fn a_burst_is_a_few_at_once_and_then_one_a_period() {
        let mut burst = Burst::default();
        let taken = |burst: &mut Burst, seconds| burst.acquire(at(seconds), 60_000);
        let at_once: Vec<bool> = (0..6).map(|_| taken(&mut burst, 1_000)).collect();
        assert_eq!(at_once, [true, true, true, true, false, false]);
        assert!(!taken(&mut burst, 1_059) && taken(&mut burst, 1_060) && !taken(&mut burst, 1_061));
        assert!(
            taken(&mut burst, -9_000),
            "a clock that was set back blocks nothing"
        );
    }

    #[test]
    fn retries_back_off_to_a_cap() {
        let write_policy = LOCAL;
        let pauses: Vec<i64> = [1, 2, 3, 4, 20, u32::MAX]
            .map(|failures| write_policy.next_try(at(0), failures, 1.0).as_millis())
            .into();
        assert_eq!(pauses, [250, 500, 1000, 2000, 30_000, 30_000]);
        assert_eq!(write_policy.next_try(at(0), 1, 0.0).as_millis(), 125);
    }

    #[test]
    fn firestore_writes_of_200_sources_stay_below_60_000() {
        let load = Workload::usual(200, Duration::from_secs(30));
        let day = predict(&load, &FIRESTORE);
        assert_eq!((day.heartbeat_writes, day.transition_writes), (54_800, 3_200));
        assert!(day.writes() < 60_000);
        assert_eq!(day.reads, 200);
    }

    #[test]
    fn followers_read_every_write() {
        let load = Workload {
            followers: 1,
            transitions: 0,
            ..Workload::usual(10, Duration::from_secs(30))
        };
        let day = predict(&load, &FIRESTORE);
        assert_eq!(day.reads, 10 + 10 + day.heartbeat_writes);
    }

    #[test]
    fn what_is_seldom_confirmed_is_seldom_written() {
        let load = Workload::usual(1, Duration::from_hours(1));
        assert_eq!(predict(&load, &LOCAL).heartbeat_writes, 24);
    }
}
