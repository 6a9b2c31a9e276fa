//! A time in the past, as options and queries accept it.

use std::str::FromStr;
use std::time::Duration;

use crate::config::parse_duration;
use crate::core::time::Timestamp;

/// A time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// Returns the time, relative to `now`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.plus_millis(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago) = days(text).or_else(|| parse_duration(text).ok()) {
            return Ok(Self::Ago(ago));
        }
        let at = text.parse().map(Self::At);
        at.map_err(|_| {
            format!(
                "`{text}` is neither a duration such as 10m or 7d nor a time such as 2026-11-20T10:00:00Z"
            )
        })
    }
}

/// Parses days and weeks (`7d`, `2w`), which durations of the configuration do not have.
pub fn days(text: &str) -> Option<Duration> {
    let (number, each) = match text.strip_suffix('d') {
        Some(number) => (number, 1),
        None => (text.strip_suffix('w')?, 7),
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(each * 86_400)?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_days_and_times_are_read() {
        let now: Timestamp = "2026-05-08T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7d", "2026-05-01T12:00:00.000Z"),
            ("2w", "2026-04-24T12:00:00.000Z"),
            ("1h30m", "2026-05-08T10:30:00.000Z"),
            ("2026-05-01T00:00:00+02:00", "2026-04-30T22:00:00.000Z"),
        ] {
            let since: Since = text.parse().unwrap();
            assert_eq!(since.before(now).to_string(), expected, "{text}");
        }
        for text in ["", "d", "soon", "99999999999999999999d", "-3d"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
