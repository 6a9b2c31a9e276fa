//! How far our clock is off the platform's, measured on the way from `Date` headers.

use std::sync::{Mutex, PoisonError};

use super::Answer;
use crate::core::time::Timestamp;

/// Samples that count for one estimate.
const SAMPLES: usize = 5;
/// `Date` has whole seconds and answers take their time: smaller differences are noise.
const NOISE_MS: i64 = 3000;
/// A `Date` that follows our own clock for so long is a running clock and not a recorded answer.
const CONFIRMED_AFTER_MS: i64 = 10_000;
/// A clock of ours that is ahead by less is corrected before that is confirmed: no time zone is further off, and answers that
/// somebody recorded are older.
const AHEAD_MS: i64 = 24 * 60 * 60 * 1000;

/// An estimate of platform time minus our time.
#[derive(Debug, Default)]
pub struct Skew(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    recent: Vec<i64>,
    /// The sample that the following ones have agreed with, and when it was taken.
    agreed: Option<(Timestamp, i64)>,
    confirmed: bool,
    /// Whether a sample ever disagreed with the ones before.
    contradicted: bool,
}

impl Skew {
    /// Learns from an answer's `Date`.
    pub fn learn(&self, answer: &Answer) {
        if let Some(date) = answer.server_date() {
            let half_way = i64::try_from(answer.rtt.as_millis() / 2).unwrap_or(0);
            // The header is cut to seconds: on average it is half a second behind.
            self.learn_sample(
                answer.received_at,
                date.plus_millis(500)
                    .millis_since(answer.received_at.plus_millis(-half_way)),
            );
        }
    }

    fn learn_sample(&self, at: Timestamp, offset: i64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.recent.len() == SAMPLES {
            state.recent.remove(0);
        }
        state.recent.push(offset);
        match state.agreed {
            Some((since, agreed)) if (offset - agreed).abs() <= NOISE_MS => {
                state.confirmed |= at.millis_since(since) >= CONFIRMED_AFTER_MS;
            }
            earlier => {
                state.contradicted |= earlier.is_some();
                state.agreed = Some((at, offset));
                state.confirmed = false;
            }
        }
    }

    /// Returns platform time minus our time in milliseconds (positive: our clock is behind), the median of the newest
    /// answers; `None` before the first.
    pub fn measured(&self) -> Option<i64> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted = state.recent.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// Returns the offset to correct our clock by: zero while it is within the noise or not confirmed over time.
    ///
    /// A clock of ours that is ahead is corrected from the first answer on, as long as no other one contradicts it: what is
    /// dated into the future would outweigh everything that is learnt until then, what is dated too early is outweighed by
    /// the next answer.
    pub fn correction(&self) -> i64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (confirmed, contradicted) = (state.confirmed, state.contradicted);
        drop(state);
        let ahead = |offset: i64| !contradicted && (-AHEAD_MS..0).contains(&offset);
        self.measured()
            .filter(|offset| offset.abs() > NOISE_MS && (confirmed || ahead(*offset)))
            .unwrap_or(0)
    }

    /// Returns our moment `at` in the platform's time.
    pub fn correct(&self, at: Timestamp) -> Timestamp {
        at.plus_millis(self.correction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    #[test]
    fn a_clock_fifteen_minutes_off_is_noticed_and_confirmed() {
        let skew = Skew::default();
        assert_eq!((skew.measured(), skew.correction()), (None, 0));
        skew.learn_sample(at(0), 900_400);
        assert_eq!((skew.measured(), skew.correction()), (Some(900_400), 0));
        skew.learn_sample(at(30), 899_700);
        assert_eq!(skew.correction(), 900_400);
        assert_eq!(skew.correct(at(0)), Timestamp::from_millis(900_400));
    }

    #[test]
    fn a_second_of_noise_corrects_nothing() {
        let skew = Skew::default();
        for second in [0, 30, 60] {
            skew.learn_sample(at(second), -900);
        }
        assert_eq!((skew.measured(), skew.correction()), (Some(-900), 0));
    }

    #[test]
    fn a_clock_that_is_ahead_is_corrected_before_it_dates_anything_into_the_future() {
        let skew = Skew::default();
        skew.learn_sample(at(0), -900_400);
        assert_eq!(skew.correction(), -900_400);
        skew.learn_sample(at(60), -900_100);
        assert_eq!(skew.correction(), -900_100);
    }

    #[test]
    fn a_date_that_stands_still_is_never_trusted() {
        // A recorded answer, and one that something on the way has kept for an hour.
        for (age, until) in [(3 * AHEAD_MS, 0), (3_600_000, 4)] {
            let skew = Skew::default();
            for second in 0..100 {
                skew.learn_sample(at(second), -age - second * 1000);
                assert_eq!(skew.correction() != 0, second < until, "{age} {second}");
            }
        }
    }
}
