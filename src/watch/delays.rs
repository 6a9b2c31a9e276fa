//! How long pushed events take to arrive.

use std::sync::Arc;

use crate::clock::Clock;
use crate::core::observation::{Fact, Observation};
use crate::core::source::PlatformName;
use crate::histogram::{Buckets, Histogram};

/// Upper bounds in seconds: pushes usually take less than a second, and platforms deliver some of them again after minutes.
const BOUNDS: [f64; 6] = [0.25, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Counts the delays of pushed changes of streams, by platform.
pub struct EventDelays {
    clock: Arc<dyn Clock>,
    of: Vec<(PlatformName, Histogram)>,
}

impl EventDelays {
    /// Counts the events of `platforms`. `clock` is the one by which events are received, corrected by the platforms' time.
    pub fn new(platforms: impl IntoIterator<Item = PlatformName>, clock: Arc<dyn Clock>) -> Self {
        let of = platforms
            .into_iter()
            .map(|platform| (platform, Histogram::new(&BOUNDS)));
        Self {
            clock,
            of: of.collect(),
        }
    }

    /// Counts an observation that is a pushed change of a stream.
    pub fn observe(&self, observation: &Observation) {
        if !matches!(&*observation.fact, Fact::StreamPush { .. }) {
            return;
        }
        let platform = observation.source.platform();
        if let Some((_, delays)) = self.of.iter().find(|(name, _)| *name == platform) {
            delays.record(self.clock.now().since(observation.at));
        }
    }

    /// Returns what was counted so far.
    pub fn read(&self) -> Vec<(PlatformName, Buckets)> {
        self.of
            .iter()
            .map(|(platform, delays)| (*platform, delays.read()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::core::time::Timestamp;

    #[test]
    fn delay_counts_from_the_platforms_date_of_a_push() {
        let clock = ManualClock::at(Timestamp::EPOCH.plus_secs(100));
        let delays = EventDelays::new([PlatformName::Kick], clock);
        let observed = |source: &str, second: i64, fact: Fact| {
            let at = Timestamp::EPOCH.plus_secs(second);
            delays.observe(&Observation::new(&source.parse().unwrap(), at, "test", fact));
        };
        let push = || Fact::StreamPush {
            live: true,
            stream_id: None,
            started_at: None,
        };
        observed("kick:1", 98, push());
        // A date ahead of our clock is no negative delay.
        observed("kick:1", 101, push());
        observed("kick:1", 0, Fact::StreamAbsent);
        observed("twitch:1", 0, push());
        let (platform, counted) = delays.read().remove(0);
        assert_eq!((platform, counted.count), (PlatformName::Kick, 2));
        assert!((counted.sum - 2.0).abs() < 1e-9, "{counted:?}");
    }
}
