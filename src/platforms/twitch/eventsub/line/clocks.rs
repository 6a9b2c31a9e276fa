//! A line's clocks: the steady one that it runs by, this machine's, and Twitch's time as far as it is known.

use tokio::time::Instant;

use super::Millis;
use crate::core::time::Timestamp;
use crate::http::Skew;

/// A difference between the wall clock and the steady one that no correction of a clock explains.
const JUMP_MS: i64 = 10_000;
/// Clocks that differ by less are all right.
const SANE_MS: i64 = 60_000;

/// The clocks of one line.
#[derive(Debug)]
pub(super) struct Clocks {
    started: Instant,
    /// Milliseconds of the line's time in a real one.
    pace: u32,
    /// Both clocks when they were last compared.
    compared: (Timestamp, Instant),
    /// Twitch's time minus ours, by the newest welcome.
    offset: Option<i64>,
}

impl Clocks {
    pub(super) fn new(ours: Timestamp, pace: u32) -> Self {
        let started = Instant::now();
        Self {
            started,
            pace,
            compared: (ours, started),
            offset: None,
        }
    }

    /// Milliseconds since the line began, by the steady clock.
    pub(super) fn now(&self) -> Millis {
        let real = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        real.saturating_mul(u64::from(self.pace))
    }

    /// Takes the time of a welcome.
    pub(super) fn welcomed(&mut self, theirs: Timestamp, ours: Timestamp) {
        self.offset = Some(theirs.millis_since(ours));
    }

    /// Returns our moment `ours` in Twitch's time.
    pub(super) fn theirs(&self, ours: Timestamp, skew: &Skew) -> Timestamp {
        let offset = trusted(self.offset, skew.measured());
        ours.plus_millis(offset.unwrap_or_else(|| skew.correction()))
    }

    /// Returns by how much the wall clock went apart from the steady one since the last time, if that means that this machine
    /// slept or that its clock was set.
    pub(super) fn jumped(&mut self, ours: Timestamp) -> Option<i64> {
        let (wall, steady) = std::mem::replace(&mut self.compared, (ours, Instant::now()));
        let passed = self.compared.1.duration_since(steady).as_millis() * u128::from(self.pace);
        let apart = ours.millis_since(wall) - i64::try_from(passed).unwrap_or(i64::MAX);
        if apart.abs() <= JUMP_MS {
            return None;
        }
        // Until the next welcome tells, Twitch's time goes on by the steady clock: what is told now must not be dated into a
        // future that outweighs what follows.
        self.offset = self.offset.map(|offset| offset - apart);
        Some(apart)
    }
}

/// Returns how far our clock is off by a welcome's time, if that is believable: near our own clock, or witnessed by the
/// date of Twitch's answers over HTTP. What a server with a wrong or recorded time says must not date our evidence.
fn trusted(welcome: Option<i64>, http: Option<i64>) -> Option<i64> {
    let witnessed = |offset: i64| http.is_some_and(|http| (http - offset).abs() <= SANE_MS);
    welcome.filter(|offset| offset.abs() <= SANE_MS || witnessed(*offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_welcomes_time_counts_when_it_is_near_ours_or_witnessed() {
        let years = 3 * 365 * 86_400_000;
        for (welcome, http, expected) in [
            (None, None, None),
            (None, Some(900_000), None),
            (Some(-700), None, Some(-700)),
            (Some(900_000), Some(899_400), Some(900_000)),
            (Some(900_000), None, None),
            (Some(-years), Some(300), None),
            (Some(200), Some(-years), Some(200)),
        ] {
            assert_eq!(trusted(welcome, http), expected, "{welcome:?} {http:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_does_not_move_twitchs_time() {
        let at = |second| Timestamp::EPOCH.plus_secs(second);
        let mut clocks = Clocks::new(at(1_000), 1);
        clocks.welcomed(at(1_030), at(1_000));
        assert_eq!(clocks.jumped(at(1_001)), None, "a second of correction");
        let before = clocks.theirs(at(1_001), &Skew::default());
        let apart = clocks.jumped(at(1_061)).unwrap();
        assert!((59_000..=60_000).contains(&apart), "{apart}");
        let after = clocks.theirs(at(1_061), &Skew::default());
        assert!(after.millis_since(before).abs() <= 1_000, "{before} {after}");
    }
}
