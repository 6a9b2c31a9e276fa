//! A connection's clocks: the monotonic one that it runs by, this machine's wall clock, and an estimate of Twitch's time.

use tokio::time::Instant;

use super::Millis;
use crate::core::time::Timestamp;
use crate::http::Skew;

/// A difference between the wall clock and the monotonic one that no clock correction explains.
const JUMP_MS: i64 = 10_000;
/// Clocks that differ by less are considered correct.
const SANE_MS: i64 = 60_000;

/// A clock that is further off more likely comes from a recorded answer than from a running clock.
const RECORDED_MS: i64 = 86_400_000;

#[derive(Debug)]
pub(in super::super) struct Clocks {
    started: Instant,
    /// Milliseconds of the connection's time per real millisecond.
    pace: u32,
    /// Both clocks when they were last compared.
    compared: (Timestamp, Instant),
    /// Twitch's time minus ours, according to the newest welcome.
    offset: Option<i64>,
}

impl Clocks {
    pub(in super::super) fn new(ours: Timestamp, pace: u32) -> Self {
        let started = Instant::now();
        Self {
            started,
            pace,
            compared: (ours, started),
            offset: None,
        }
    }

    /// Milliseconds since the connection started, by the monotonic clock.
    pub(in super::super) fn now(&self) -> Millis {
        let real = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        real.saturating_mul(u64::from(self.pace))
    }

    /// Records the time of a welcome.
    pub(in super::super) fn welcomed(&mut self, theirs: Timestamp, ours: Timestamp) {
        self.offset = Some(theirs.millis_since(ours));
    }

    /// Converts our time `ours` to Twitch's.
    pub(in super::super) fn theirs(&self, ours: Timestamp, skew: &Skew) -> Timestamp {
        let correction = skew.correction();
        let offset = trusted(self.offset, skew.measured(), correction);
        ours.plus_millis(offset.unwrap_or(correction))
    }

    /// Converts our time `ours` to the earliest of the clocks that may be Twitch's: ours, the one that dates Twitch's HTTP
    /// answers, the one that dated the welcome.
    pub(in super::super) fn earliest(&self, ours: Timestamp, skew: &Skew) -> Timestamp {
        let theirs = self.theirs(ours, skew);
        let others = [Some(0), self.offset, skew.measured()].into_iter().flatten();
        others
            .filter(|offset| offset.abs() <= RECORDED_MS)
            .map(|offset| ours.plus_millis(offset))
            .fold(theirs, Timestamp::min)
    }

    /// Returns by how much the wall clock diverged from the monotonic one since the last call, if that means that this machine
    /// was suspended or that its clock was set.
    pub(in super::super) fn jumped(&mut self, ours: Timestamp) -> Option<i64> {
        let (wall, steady) = std::mem::replace(&mut self.compared, (ours, Instant::now()));
        let passed = self.compared.1.duration_since(steady).as_millis() * u128::from(self.pace);
        let apart = ours.millis_since(wall) - i64::try_from(passed).unwrap_or(i64::MAX);
        if apart.abs() <= JUMP_MS {
            return None;
        }
        // Until the next welcome, Twitch's time advances with the monotonic clock: events published now must not get a future
        // date that would outweigh later ones.
        self.offset = self.offset.map(|offset| offset - apart);
        Some(apart)
    }
}

/// Returns our clock's offset according to a welcome's time, if that is plausible: close to our own clock, or confirmed by the
/// date of Twitch's answers over HTTP. The time of a server whose clock is wrong or recorded must not date our evidence.
///
/// If the polls' evidence is dated by an offset that contradicts the welcome (`correction`), pushes are dated by it too: evidence
/// of one platform is compared by its time.
fn trusted(welcome: Option<i64>, http: Option<i64>, correction: i64) -> Option<i64> {
    let agrees = |one: i64, other: i64| (one - other).abs() <= SANE_MS;
    let witnessed = |offset: i64| http.is_some_and(|http| agrees(http, offset));
    let corrected = correction != 0 && correction.abs() <= RECORDED_MS;
    welcome.filter(|offset| {
        witnessed(*offset) || (agrees(*offset, 0) && (!corrected || agrees(*offset, correction)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_welcomes_time_counts_when_it_is_near_ours_or_witnessed() {
        let years = 3 * 365 * 86_400_000;
        for (welcome, http, correction, expected) in [
            (None, None, 0, None),
            (None, Some(900_000), 0, None),
            (Some(-700), None, 0, Some(-700)),
            (Some(900_000), Some(899_400), 0, Some(900_000)),
            (Some(900_000), None, 0, None),
            (Some(-years), Some(300), 0, None),
            (Some(200), Some(-years), -years, Some(200)),
            (Some(200), Some(900_000), 0, Some(200)),
            (Some(200), Some(-900_000), -900_000, None),
        ] {
            assert_eq!(
                trusted(welcome, http, correction),
                expected,
                "{welcome:?} {http:?} {correction}"
            );
        }
    }

    #[test]
    fn message_is_old_only_by_every_clock_that_may_be_twitchs() {
        let at = |second: i64| Timestamp::EPOCH.plus_secs(100_000_000 + second);
        let mut clocks = Clocks::new(at(0), 1);
        let skew = Skew::default();
        assert_eq!(clocks.earliest(at(0), &skew), at(0));
        // No HTTP answer confirms the welcome's time yet, so it is not used for dating.
        clocks.welcomed(at(-900), at(0));
        assert_eq!(
            (clocks.theirs(at(0), &skew), clocks.earliest(at(0), &skew)),
            (at(0), at(-900))
        );
        clocks.welcomed(at(900), at(0));
        assert_eq!(clocks.earliest(at(0), &skew), at(0));
        clocks.welcomed(at(-100 * 86_400), at(0));
        assert_eq!(clocks.earliest(at(0), &skew), at(0), "a recording");
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
