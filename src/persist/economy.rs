//! When something is written, and what that costs a day. Pure rules.

use std::time::Duration;

use crate::core::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);

/// How sparingly a store is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Economy {
    /// Shortest time between two writes of one source that bring no transition.
    pub heartbeat: Duration,
    /// By which part of itself a heartbeat may be longer, at random, so that many sources do not write in step.
    pub spread: f64,
    /// First pause after a failed write; each further failure doubles it.
    pub retry: Duration,
    /// Longest pause after failed writes.
    pub retry_cap: Duration,
}

impl Economy {
    /// For stores on this machine.
    pub const LOCAL: Self = Self::every(Duration::from_secs(30));
    /// For Firestore, where each write is paid for.
    pub const FIRESTORE: Self = Self::every(Duration::from_mins(5));

    /// Writes at most one heartbeat a source in `heartbeat`.
    pub const fn every(heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            spread: 0.1,
            retry: Duration::from_millis(250),
            retry_cap: Duration::from_secs(30),
        }
    }

    /// Returns when a source written at `written` is written again if it brings no transition. `chance` is in `[0, 1)`.
    pub fn next_heartbeat(&self, written: Timestamp, chance: f64) -> Timestamp {
        later(written, self.heartbeat.mul_f64(1.0 + self.spread * chance))
    }

    /// Returns when a source that is stored but was not written by us yet is first written if it brings no transition:
    /// somewhere in the first heartbeat, so that a restart does not write everything at once.
    pub fn first_heartbeat(&self, now: Timestamp, chance: f64) -> Timestamp {
        later(now, self.heartbeat.mul_f64(chance))
    }

    /// Returns when to try again after the `failures`-th failure in a row (1 is the first). Full jitter over the upper
    /// half: never at once, never all together.
    pub fn next_try(&self, now: Timestamp, failures: u32, chance: f64) -> Timestamp {
        let doubled = self
            .retry
            .saturating_mul(1_u32 << failures.saturating_sub(1).min(20));
        later(now, doubled.min(self.retry_cap).mul_f64(0.5 + chance / 2.0))
    }
}

fn later(at: Timestamp, pause: Duration) -> Timestamp {
    at.plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// What a deployment does in a day, as far as it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Configured sources.
    pub sources: u64,
    /// How often a source's evidence is confirmed: the shortest interval of the schedules.
    pub confirmed_every: Duration,
    /// Transitions of one source in a day. Two broadcasts are four; a restart of the bot is two.
    pub transitions: u64,
    /// Readers that follow all sources the whole day (`sources status --watch`, dashboards).
    pub followers: u64,
    /// Starts of a process that reads all sources once.
    pub starts: u64,
}

impl Workload {
    /// A usual day: eight transitions a source, one start, nobody who follows.
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

/// What a day costs, in operations as Firestore counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// Writes of documents without a transition.
    pub heartbeat_writes: u64,
    /// Writes of documents with a transition, and of its history entry.
    pub transition_writes: u64,
    /// Reads of documents.
    pub reads: u64,
}

impl Prediction {
    /// Returns all writes.
    pub fn writes(&self) -> u64 {
        self.heartbeat_writes + self.transition_writes
    }
}

/// Predicts a day of `load` under `economy`. On the high side: a transition also postpones the next heartbeat, which is
/// not subtracted.
pub fn predict(load: &Workload, economy: &Economy) -> Prediction {
    let pause = economy
        .heartbeat
        .mul_f64(1.0 + economy.spread / 2.0)
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(seconds)
    }

    #[test]
    fn heartbeats_spread_but_never_come_early() {
        let economy = Economy::LOCAL;
        assert_eq!(economy.next_heartbeat(at(100), 0.0), at(130));
        assert_eq!(
            economy.next_heartbeat(at(100), 0.5),
            Timestamp::from_millis(131_500)
        );
        assert_eq!(economy.first_heartbeat(at(100), 0.5), at(115));
    }

    #[test]
    fn retries_back_off_to_a_cap() {
        let economy = Economy::LOCAL;
        let pauses: Vec<i64> = [1, 2, 3, 4, 20, u32::MAX]
            .map(|failures| economy.next_try(at(0), failures, 1.0).as_millis())
            .into();
        assert_eq!(pauses, [250, 500, 1000, 2000, 30_000, 30_000]);
        assert_eq!(economy.next_try(at(0), 1, 0.0).as_millis(), 125);
    }

    #[test]
    fn two_hundred_sources_on_firestore_stay_under_sixty_thousand_writes() {
        let load = Workload::usual(200, Duration::from_secs(30));
        let day = predict(&load, &Economy::FIRESTORE);
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
        let day = predict(&load, &Economy::FIRESTORE);
        assert_eq!(day.reads, 10 + 10 + day.heartbeat_writes);
    }

    #[test]
    fn what_is_seldom_confirmed_is_seldom_written() {
        let load = Workload::usual(1, Duration::from_hours(1));
        assert_eq!(predict(&load, &Economy::LOCAL).heartbeat_writes, 24);
    }
}
