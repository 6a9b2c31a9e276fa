//! Timestamps: UTC with millisecond precision, the only form that is stored, compared and printed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time in UTC, in whole milliseconds.
///
/// Documents contain milliseconds (the platform's JavaScript services write no higher precision), so evidence is truncated on
/// receipt: values joined in memory and values read from a store are then equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text was not an RFC 3339 timestamp with an offset.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an RFC 3339 timestamp")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Converts milliseconds since the Unix epoch, clamped to the years that RFC 3339 can represent.
    pub fn from_millis(millis: i64) -> Self {
        const YEAR_ONE: i64 = -62_135_596_800_000;
        // The last millisecond that `jiff` can represent.
        const YEAR_9999: i64 = 253_402_207_199_999;
        Self(millis.clamp(YEAR_ONE, YEAR_9999))
    }

    /// Returns `None` if the time is a placeholder for "none": programs write the zero of their clock (`0001-01-01` in Go,
    /// `1970-01-01` in most others) where there is no time.
    pub fn known(self) -> Option<Self> {
        (self > Self::EPOCH).then_some(self)
    }

    /// Returns milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the time `millis` later (earlier if negative).
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Returns the time `seconds` later (earlier if negative).
    #[must_use]
    pub fn plus_secs(self, seconds: i64) -> Self {
        self.plus_millis(seconds.saturating_mul(1000))
    }

    /// Returns the time `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns whether this is less than `period` before `now`. A date ahead of `now` comes from a clock that was ahead and is
    /// not recent: otherwise a wait based on it would last until that date.
    pub fn is_recent(self, period: Duration, now: Self) -> bool {
        const TOLERANCE: Duration = Duration::from_secs(2);
        self <= now.plus(TOLERANCE) && now < self.plus(period)
    }

    /// Returns the milliseconds from `earlier` to `self`; negative if `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
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
        if let Some(at) = own_form(text.as_bytes()) {
            return Ok(at);
        }
        let parsed: jiff::Timestamp = text
            .parse()
            .map_err(|_| InvalidTimestamp(text.chars().take(40).collect()))?;
        // Rounded towards the past, so that a time with nanoseconds never moves to the next millisecond.
        Ok(Self::from_millis(
            i64::try_from(parsed.as_nanosecond().div_euclid(1_000_000)).unwrap_or(0),
        ))
    }
}

/// Parses the format that we write ourselves, `2026-05-01T18:00:00.123Z`, several times faster than a general parser. A
/// document has dozens of timestamps, and a listing a thousand documents.
fn own_form(text: &[u8]) -> Option<Timestamp> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', rest @ ..] = text else {
        return None;
    };
    let [h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2, f3, b'Z'] = rest else {
        return None;
    };
    let number = |digits: &[&u8]| {
        digits.iter().try_fold(0_i64, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + i64::from(**digit - b'0'))
        })
    };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let millis = number(&[f1, f2, f3])?;
    // Dates that may need the finer rules of the calendar are left to the general parser.
    let plain = year >= 1 && (1..=12).contains(&month) && (1..=28).contains(&day);
    if !plain || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since the epoch in the proleptic Gregorian calendar, with years that begin in March so that leap days end them.
    let shifted = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(Timestamp::from_millis(seconds * 1000 + millis))
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

/// Parses borrowed text without a copy: documents contain dozens of timestamps.
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

/// Serializes an optional time as milliseconds since the Unix epoch, for `#[serde(with = "…")]` in private formats: half the
/// length of the text, and parsed several times faster.
pub mod optional_millis {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Timestamp;

    #[expect(clippy::missing_errors_doc, reason = "serde's own")]
    #[expect(missing_docs, reason = "serde's own")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::as_millis).serialize(serializer)
    }

    #[expect(clippy::missing_errors_doc, reason = "serde's own")]
    #[expect(missing_docs, reason = "serde's own")]
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(Timestamp::from_millis))
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
    fn the_zero_time_of_other_programs_is_absent() {
        for (text, expected) in [
            ("0001-01-01T00:00:00Z", false),
            ("0001-01-01T00:00:00+11:00", false),
            ("1970-01-01T00:00:00Z", false),
            ("2026-05-01T18:00:00Z", true),
        ] {
            let known = text.parse::<Timestamp>().ok().and_then(Timestamp::known);
            assert_eq!(known.is_some(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_text_without_an_offset() {
        assert!("2026-05-01T18:00:00".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn our_own_form_is_read_as_any_parser_reads_it() {
        // A step that covers every month, day, hour and kind of leap year within a few thousand years.
        let mut at = Timestamp::from_millis(i64::MIN);
        let end = Timestamp::from_millis(i64::MAX);
        while at < end {
            let text = at.to_string();
            let parsed: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(
                text.parse::<Timestamp>().unwrap().as_millis(),
                parsed.as_millisecond(),
                "{text}"
            );
            assert_eq!(text.parse::<Timestamp>().unwrap(), at);
            at = at.plus_millis(86_400_000 * 11 + 3_723_004);
        }
        for odd in [
            "2026-02-30T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
        ] {
            assert!(odd.parse::<Timestamp>().is_err(), "{odd}");
        }
    }

    #[test]
    fn never_leaves_the_years_that_can_be_written() {
        assert!(Timestamp::from_millis(i64::MAX).to_string().starts_with("9999"));
        assert!(Timestamp::from_millis(i64::MIN).to_string().starts_with("0001"));
    }

    #[test]
    fn a_date_in_the_future_is_not_recent() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        for (ago, recent) in [
            (0, true),
            (59_999, true),
            (60_000, false),
            (-1_500, true),
            (-3_600_000, false),
        ] {
            assert_eq!(
                now.plus_millis(-ago).is_recent(Duration::from_mins(1), now),
                recent,
                "{ago}"
            );
        }
    }
}
