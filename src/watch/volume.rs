//! Predicts how many events a day are sent to the bus. Pure.

use std::time::Duration;

use super::engine::SPREAD;

const DAY: Duration = Duration::from_hours(24);

/// The events of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Events without a transition.
    pub heartbeats: u64,
    /// Events with transitions.
    pub transitions: u64,
    /// Whether heartbeats are sent as often as configured: events that are no transitions are limited to a few per second.
    pub keeps_pace: bool,
}

impl Volume {
    pub fn events(&self) -> u64 {
        self.heartbeats + self.transitions
    }
}

/// Predicts a day of `sources` with this many transitions each. An upper estimate: each event about a source replaces the
/// heartbeat that it would have had.
pub fn predict(sources: u64, heartbeat: Duration, transitions: u64) -> Volume {
    let most = u64::from(SPREAD.get()) * DAY.as_secs();
    let each = u64::try_from(DAY.as_millis() / heartbeat.as_millis().max(1)).unwrap_or(u64::MAX);
    let wanted = sources.saturating_mul(each);
    Volume {
        heartbeats: wanted.min(most),
        transitions: sources.saturating_mul(transitions),
        keeps_pace: wanted <= most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_heartbeats_and_transitions_and_never_a_flood() {
        let day = predict(200, Duration::from_mins(15), 8);
        assert_eq!(
            (day.heartbeats, day.transitions, day.events()),
            (19_200, 1_600, 20_800)
        );
        assert!(day.keeps_pace);
        let crowd = predict(10_000, Duration::from_mins(15), 8);
        assert_eq!((crowd.heartbeats, crowd.keeps_pace), (432_000, false));
    }
}
