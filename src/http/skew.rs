//! Clock skew: how far our clock differs from the platform's, measured by `Date` headers.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::Answer;
use crate::clock::Clock;
use crate::core::time::Timestamp;

/// Samples used for one estimate.
const SAMPLES: usize = 5;
/// `Date` has whole seconds and responses take their time: smaller differences are noise.
const NOISE_MS: i64 = 3000;
/// A `Date` that advances with our own clock for this long is a running clock and not a recorded response.
const CONFIRMED_AFTER_MS: i64 = 10_000;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockError {
    /// Platform time minus our time (ms).
    pub offset_ms: i64,
    /// Whether dates may be corrected by it. A clock that seems to be behind may have met a recorded response; until that is
    /// confirmed over time, evidence of others is only not rejected.
    pub certain: bool,
}

/// An estimate of platform time minus our time.
#[derive(Debug, Default)]
pub struct Skew(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    recent: Vec<i64>,
    /// The sample that the following ones have agreed with, and when it was taken.
    agreed: Option<(Timestamp, i64)>,
    confirmed: bool,
    /// Whether a sample disagreed with the ones before although our own clock had run evenly.
    contradicted: bool,
    /// When the last sample was taken, by our clock and by one that never jumps.
    last: Option<(Timestamp, Instant)>,
    /// What another process has measured, used until this one has, and as a confirmation of what it measures.
    assumed: Option<ClockError>,
}

impl Skew {
    /// Takes a sample from a response's `Date`.
    pub fn update(&self, answer: &Answer) {
        if let Some(date) = answer.server_date() {
            let half_way = i64::try_from(answer.rtt.as_millis() / 2).unwrap_or(0);
            // The header is truncated to seconds: on average it is half a second behind.
            self.add_sample(
                (answer.received_at, Instant::now()),
                date.plus_millis(500)
                    .millis_since(answer.received_at.plus_millis(-half_way)),
            );
        }
    }

    pub(crate) fn add_sample(&self, (at, instant): (Timestamp, Instant), offset: i64) {
        let mut state = self.0.lock();
        let jumped = state.last.replace((at, instant)).is_some_and(|last| {
            let even = i64::try_from(instant.duration_since(last.1).as_millis()).unwrap_or(i64::MAX);
            (at.millis_since(last.0) - even).abs() > NOISE_MS
        });
        let agrees = |agreed: i64| (offset - agreed).abs() <= NOISE_MS;
        if jumped && !state.agreed.is_some_and(|(_, agreed)| agrees(agreed)) {
            // Our own clock was set, which explains the disagreement: earlier samples are no longer valid.
            *state = State {
                last: state.last,
                ..State::default()
            };
        }
        if state.recent.is_empty() {
            let is_confirmed =
                |assumed: ClockError| assumed.certain && (offset - assumed.offset_ms).abs() <= NOISE_MS;
            state.confirmed = state.assumed.take().is_some_and(is_confirmed);
            state.agreed = state.confirmed.then_some((at, offset));
        }
        if state.recent.len() == SAMPLES {
            state.recent.remove(0);
        }
        state.recent.push(offset);
        match state.agreed {
            Some((since, agreed)) if agrees(agreed) => {
                state.confirmed |= at.millis_since(since) >= CONFIRMED_AFTER_MS;
            }
            earlier => {
                if earlier.is_some() {
                    // Their median would match neither.
                    state.recent = vec![offset];
                }
                state.contradicted |= earlier.is_some();
                state.agreed = Some((at, offset));
                state.confirmed = false;
            }
        }
    }

    /// Uses what another process has measured, until this one has measured it itself.
    pub fn assume(&self, error: ClockError) {
        let mut state = self.0.lock();
        if state.recent.is_empty() {
            state.assumed = Some(error);
        }
    }

    /// Returns platform time minus our time in milliseconds (positive: our clock is behind), the median of the newest responses;
    /// `None` before the first.
    pub fn measured(&self) -> Option<i64> {
        let state = self.0.lock();
        let mut sorted = state.recent.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// Returns the offset to correct our clock by: zero while it is within the noise or not confirmed over time.
    ///
    /// A clock of ours that is ahead, by however much, is corrected from the first response on, as long as no other one
    /// contradicts it: evidence dated in the future would outrank everything until then, evidence dated too early (by a response
    /// that was recorded once) is outranked by the next response.
    pub fn correction(&self) -> i64 {
        let state = self.0.lock();
        let (confirmed, contradicted) = (state.confirmed, state.contradicted);
        if let Some(assumed) = state.assumed.filter(|assumed| assumed.certain) {
            let offset = assumed.offset_ms;
            return if offset.abs() > NOISE_MS { offset } else { 0 };
        }
        drop(state);
        let ahead = |offset: i64| !contradicted && offset < 0;
        self.measured()
            .filter(|offset| offset.abs() > NOISE_MS && (confirmed || ahead(*offset)))
            .unwrap_or(0)
    }

    /// Returns the error of our clock if this process has measured it; `None` before, and while responses contradict each other.
    fn error(&self) -> Option<ClockError> {
        let measured = self.measured()?;
        let correction = self.correction();
        let certain = correction != 0 || measured.abs() <= NOISE_MS;
        (certain || measured > 0).then_some(ClockError {
            offset_ms: if certain { correction } else { measured },
            certain,
        })
    }

    /// Returns our time `at` in the platform's time where our clock seems to be behind, confirmed or not.
    ///
    /// A clock that was set back since the last response counts as behind until the next one shows whether it had been ahead.
    pub fn latest(&self, at: Timestamp) -> Timestamp {
        self.latest_at(at, Instant::now())
    }

    fn latest_at(&self, at: Timestamp, instant: Instant) -> Timestamp {
        let (last, assumed) = {
            let state = self.0.lock();
            (state.last, state.assumed)
        };
        let behind = self
            .measured()
            .or(assumed.map(|assumed| assumed.offset_ms))
            .filter(|offset| *offset > NOISE_MS)
            .unwrap_or(0);
        let even = last.map(|(wall, then)| {
            let elapsed = instant.saturating_duration_since(then).as_millis();
            wall.plus_millis(i64::try_from(elapsed).unwrap_or(i64::MAX))
        });
        let was_set_back = even.is_some_and(|even| even.millis_since(at) > NOISE_MS);
        let at = even.filter(|_| was_set_back).unwrap_or(at);
        at.plus_millis(behind)
    }

    /// Returns our time `at` in the platform's time.
    pub fn correct(&self, at: Timestamp) -> Timestamp {
        at.plus_millis(self.correction())
    }
}

/// Skew of the clock of this machine, by the responses of all platforms that this process uses.
static OF_THIS_MACHINE: LazyLock<Arc<Skew>> = LazyLock::new(Arc::default);

/// Returns the time of the platforms minus that of this machine (ms), as far as it is certain; else zero.
pub fn clock_error() -> i64 {
    OF_THIS_MACHINE.correction()
}

/// Returns the error of this machine's clock if this process has measured it.
pub fn own_clock_error() -> Option<ClockError> {
    OF_THIS_MACHINE.error()
}

/// Returns the time of the platforms minus that of this machine (ms) by the last responses, certain or not.
pub fn measured_clock_error() -> Option<i64> {
    OF_THIS_MACHINE.measured()
}

/// Uses the error of this machine's clock that another process has measured, until this one has measured it itself.
pub fn assume_clock_error(error: ClockError) {
    OF_THIS_MACHINE.assume(error);
}

/// Takes a sample of the clock of this machine from any response.
pub(super) fn record_machine_clock(answer: &Answer) {
    OF_THIS_MACHINE.update(answer);
}

/// The clock by which evidence is received and recorded: ours, corrected once its error is certain.
pub struct CorrectedClock {
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
}

impl CorrectedClock {
    /// Corrects `clock`, which must be the one by which responses are dated.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with(clock, Arc::clone(&OF_THIS_MACHINE))
    }

    fn with(clock: Arc<dyn Clock>, skew: Arc<Skew>) -> Arc<Self> {
        Arc::new(Self { clock, skew })
    }
}

impl Clock for CorrectedClock {
    fn now(&self) -> Timestamp {
        self.skew.correct(self.clock.now())
    }

    fn latest(&self) -> Timestamp {
        let now = self.clock.now();
        self.skew.correct(now).max(self.skew.latest(now))
    }
}

/// The clock by which evidence of others counts as from the future. Where the platforms' responses show that our clock is behind,
/// even if that is not certain yet, theirs is used: rejecting the observations of others would delete them from the store.
pub struct LenientClock {
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
}

impl LenientClock {
    /// Uses `clock`, which must be the one by which responses are dated.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with(clock, Arc::clone(&OF_THIS_MACHINE))
    }

    /// Uses `clock` and `skew`.
    pub fn with(clock: Arc<dyn Clock>, skew: Arc<Skew>) -> Arc<Self> {
        Arc::new(Self { clock, skew })
    }
}

impl Clock for LenientClock {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        self.skew.correct(now).max(self.skew.latest(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The time at which both clocks have run for this many seconds.
    fn at(second: i64) -> (Timestamp, Instant) {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let even = Duration::from_secs(second.unsigned_abs());
        (Timestamp::EPOCH.plus_secs(second), *START + even)
    }

    fn certain(offset_ms: i64) -> ClockError {
        ClockError {
            offset_ms,
            certain: true,
        }
    }

    #[test]
    fn a_clock_fifteen_minutes_off_is_noticed_and_confirmed() {
        let skew = Skew::default();
        assert_eq!((skew.measured(), skew.correction()), (None, 0));
        skew.add_sample(at(0), 900_400);
        assert_eq!((skew.measured(), skew.correction()), (Some(900_400), 0));
        skew.add_sample(at(30), 899_700);
        assert_eq!(skew.correction(), 900_400);
        assert_eq!(skew.correct(Timestamp::EPOCH), Timestamp::from_millis(900_400));
    }

    #[test]
    fn evidence_is_received_by_the_corrected_clock() {
        use crate::clock::ManualClock;
        let skew = Arc::new(Skew::default());
        let ours = ManualClock::at(Timestamp::EPOCH.plus_secs(7_200));
        let corrected = CorrectedClock::with(ours.clone(), Arc::clone(&skew));
        let lenient = LenientClock::with(ours, Arc::clone(&skew));
        let seconds = |clock: &dyn Clock| clock.now().as_millis() / 1_000;
        assert_eq!((seconds(&*corrected), seconds(&*lenient)), (7_200, 7_200));
        skew.add_sample(at(0), 900_000);
        assert_eq!(seconds(&*corrected), 7_200, "not confirmed yet");
        assert_eq!(corrected.latest(), lenient.now());
        assert_eq!(
            seconds(&*lenient),
            8_100,
            "nothing of others is refused meanwhile"
        );
        skew.add_sample(at(30), 900_000);
        assert_eq!((seconds(&*corrected), seconds(&*lenient)), (8_100, 8_100));
    }

    #[test]
    fn what_another_process_has_measured_is_used_until_a_response_disagrees() {
        let skew = Skew::default();
        skew.assume(certain(900_000));
        assert_eq!((skew.measured(), skew.correction()), (None, 900_000));
        let (wall, even) = at(0);
        assert_eq!(skew.latest_at(wall, even), wall.plus_millis(900_000));
        skew.add_sample(at(1), 900_300);
        assert_eq!(skew.correction(), 900_300, "confirmed at once");
        let skew = Skew::default();
        skew.assume(certain(900_000));
        skew.add_sample(at(0), 100);
        assert_eq!(skew.correction(), 0, "the clock was set meanwhile");
        skew.assume(certain(900_000));
        assert_eq!(skew.correction(), 0);
    }

    #[test]
    fn uncertain_error_of_another_process_rejects_nothing_and_corrects_nothing() {
        let skew = Skew::default();
        skew.add_sample(at(0), 90_000);
        let error = skew.error().unwrap();
        assert!(!error.certain);
        let reader = Skew::default();
        reader.assume(error);
        assert_eq!(reader.correction(), 0);
        let (wall, even) = at(1);
        assert_eq!(reader.latest_at(wall, even), wall.plus_millis(90_000));
    }

    #[test]
    fn clock_set_back_counts_as_behind_until_the_next_answer() {
        let skew = Skew::default();
        skew.add_sample(at(0), 0);
        let (wall, even) = at(20);
        assert_eq!(skew.latest_at(wall, even), wall);
        assert_eq!(skew.latest_at(wall.plus_millis(-3_600_000), even), wall);
        // It had been ahead: the platform agrees with the clock now.
        let skew = Skew::default();
        skew.add_sample((wall.plus_millis(3_600_000), even), -3_600_000);
        let (wall, even) = at(30);
        skew.add_sample((wall, even), 0);
        assert_eq!(skew.latest_at(wall, even), wall);
    }

    #[test]
    fn changed_offset_counts_from_its_first_answer() {
        let skew = Skew::default();
        for second in [0, 20, 40] {
            skew.add_sample(at(second), -900_000);
        }
        skew.add_sample(at(60), 900_000);
        assert_eq!(skew.measured(), Some(900_000));
        assert_eq!(skew.correction(), 0, "not confirmed yet");
        skew.add_sample(at(80), 900_000);
        assert_eq!(skew.correction(), 900_000);
    }

    #[test]
    fn a_second_of_noise_corrects_nothing() {
        let skew = Skew::default();
        for second in [0, 30, 60] {
            skew.add_sample(at(second), -900);
        }
        assert_eq!((skew.measured(), skew.correction()), (Some(-900), 0));
    }

    #[test]
    fn clock_ahead_is_corrected_at_first_sample() {
        let skew = Skew::default();
        skew.add_sample(at(0), -900_400);
        assert_eq!(skew.correction(), -900_400);
        skew.add_sample(at(60), -900_100);
        assert_eq!(skew.correction(), -900_100);
    }

    #[test]
    fn a_clock_years_ahead_is_corrected_as_well() {
        let skew = Skew::default();
        let three_years = 3 * 365 * 86_400_000;
        skew.add_sample(at(0), -three_years);
        assert_eq!(skew.correction(), -three_years);
    }

    #[test]
    fn a_date_that_stands_still_is_never_trusted() {
        // A recorded response, and one that an intermediary has cached for an hour.
        for age in [300_000_000, 3_600_000] {
            let skew = Skew::default();
            for second in 0..100 {
                skew.add_sample(at(second), -age - second * 1000);
                assert_eq!(skew.correction() != 0, second < 4, "{age} {second}");
            }
        }
    }

    #[test]
    fn clock_jump_ahead_at_runtime_is_corrected_at_once() {
        let skew = Skew::default();
        for second in [0, 30, 60] {
            skew.add_sample(at(second), 200);
        }
        let day = 86_400_000;
        let (wall, even) = at(62);
        skew.add_sample((wall.plus_millis(day), even), -day);
        assert_eq!(skew.correction(), -day);
        skew.add_sample(at(64), 200);
        assert_eq!(skew.correction(), 0, "set right again");
    }
}
