//! The one kind of instant that is stored, compared and printed: UTC with millisecond precision.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC, in whole milliseconds.
///
/// Documents carry milliseconds (the platform's JavaScript services write no more), so evidence is cut to them on
/// entry: what is joined in memory and what is read back from a store are then the same value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text was not an RFC 3339 timestamp with an offset.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an RFC 3339 timestamp")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Takes milliseconds since the Unix epoch, clamped to the years that RFC 3339 can write.
    pub fn from_millis(millis: i64) -> Self {
        const YEAR_ONE: i64 = -62_135_596_800_000;
        // The last millisecond that `jiff` can hold.
        const YEAR_9999: i64 = 253_402_207_199_999;
        Self(millis.clamp(YEAR_ONE, YEAR_9999))
    }

    /// Returns milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the moment `millis` later (earlier when negative).
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Returns the moment `seconds` later (earlier when negative).
    #[must_use]
    pub fn plus_secs(self, seconds: i64) -> Self {
        self.plus_millis(seconds.saturating_mul(1000))
    }

    /// Returns the milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the time from `earlier` to `self`, or zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis_since(earlier)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{at:.3}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: jiff::Timestamp = text
            .parse()
            .map_err(|_| InvalidTimestamp(text.chars().take(40).collect()))?;
        // Cut towards the past, so that an instant with nanoseconds never moves into the next millisecond.
        Ok(Self::from_millis(
            i64::try_from(parsed.as_nanosecond().div_euclid(1_000_000)).unwrap_or(0),
        ))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Reads the text in place: documents hold dozens of timestamps.
struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 timestamp")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_milliseconds_and_reads_back() {
        let at: Timestamp = "2026-05-01T18:00:00.123456789Z".parse().unwrap();
        assert_eq!(at.to_string(), "2026-05-01T18:00:00.123Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
        let offset: Timestamp = "2026-05-01T20:00:00+02:00".parse().unwrap();
        assert_eq!(offset.to_string(), "2026-05-01T18:00:00.000Z");
    }

    #[test]
    fn refuses_text_without_an_offset() {
        assert!("2026-05-01T18:00:00".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn never_leaves_the_years_that_can_be_written() {
        assert!(Timestamp::from_millis(i64::MAX).to_string().starts_with("9999"));
        assert!(Timestamp::from_millis(i64::MIN).to_string().starts_with("0001"));
    }
}
