//! A round trip that is measured often, smoothed exponentially.

use std::time::Duration;

use parking_lot::Mutex;

/// The exponential moving average of the measured round trips.
#[derive(Debug)]
pub struct Smoothed {
    /// Weight of the newest measurement, between 0 and 1.
    weight: f64,
    millis: Mutex<Option<f64>>,
}

impl Smoothed {
    pub fn new(weight: f64) -> Self {
        let millis = Mutex::default();
        Self { weight, millis }
    }

    pub fn record(&self, newest: Duration) {
        let newest = newest.as_secs_f64() * 1_000.0;
        let mut millis = self.millis.lock();
        *millis = Some(millis.map_or(newest, |old| old + self.weight * (newest - old)));
    }

    /// Returns the average in milliseconds; `None` before the first measurement.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a round trip is between zero and the timeout"
    )]
    pub fn millis(&self) -> Option<u64> {
        self.millis.lock().map(|millis| millis.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_smoothed() {
        let latency = Smoothed::new(0.2);
        assert_eq!(latency.millis(), None);
        latency.record(Duration::from_millis(100));
        latency.record(Duration::from_millis(600));
        assert_eq!(latency.millis(), Some(200));
    }
}
