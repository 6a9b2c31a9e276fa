//! Schedules: intervals such as `90s`, and cron expressions with seconds, in UTC, of which ambiguous ones are rejected.
//!
//! The parser is the one that `tokio-cron-scheduler` uses, with the same options, so an accepted expression works there.

use std::fmt;
use std::time::Duration;

use croner::parser::{CronParser, Seconds};

use crate::core::time::Timestamp;

/// When something runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the times of a cron expression.
    Cron(Cron),
    /// Again after this time, in whole seconds, from the start of the program on.
    Every(Duration),
}

/// The shortest interval: the scheduler counts seconds.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest interval; anything rarer has a date, which is what cron is for.
const LONGEST: Duration = Duration::from_hours(7 * 24);

impl Schedule {
    /// Parses an interval, or else a cron expression.
    pub fn parse(text: &str) -> Result<Self, InvalidSchedule> {
        let word = text.trim();
        // No field of a cron expression stands alone, so a number with a unit can only be an interval.
        if word.contains(char::is_whitespace)
            || !word.starts_with(|c: char| c.is_ascii_digit() || "-+.".contains(c))
        {
            return Cron::parse(text).map(Self::Cron);
        }
        let shown = || word.chars().take(60).collect::<String>();
        let span: jiff::SignedDuration = word.parse().map_err(|_| InvalidSchedule::Neither(shown()))?;
        let span = Duration::try_from(span).map_err(|_| InvalidSchedule::OutOfBounds(shown()))?;
        if word.contains(['.', ',']) || span.subsec_nanos() != 0 {
            return Err(InvalidSchedule::Fraction(shown()));
        }
        if !(SHORTEST..=LONGEST).contains(&span) {
            return Err(InvalidSchedule::OutOfBounds(shown()));
        }
        Ok(Self::Every(span))
    }

    /// Returns whether it ever runs after `after`.
    pub fn runs_after(&self, after: Timestamp) -> bool {
        match self {
            Self::Cron(cron) => cron.next_after(after).is_some(),
            Self::Every(_) => true,
        }
    }

    /// Returns the longest of the next `count` gaps between runs after `after`, in milliseconds. Readers use it as the interval
    /// of the schedule.
    pub fn widest_gap(&self, after: Timestamp, count: usize) -> Option<i64> {
        match self {
            Self::Cron(cron) => cron.widest_gap(after, count),
            Self::Every(interval) => i64::try_from(interval.as_millis()).ok(),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => cron.fmt(f),
            Self::Every(interval) => f.pad(&format!("{}s", interval.as_secs())),
        }
    }
}

/// A checked cron expression.
#[derive(Clone)]
pub struct Cron {
    text: String,
    /// Large compared with an interval.
    parsed: Box<croner::Cron>,
}

/// Reason why a schedule is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// It begins as an interval does, and is none.
    #[error("`{0}` is neither an interval such as 90s, 5m or 1h nor a cron expression of 6 fields")]
    Neither(String),
    /// It is an interval with a part of a second or a fraction.
    #[error("`{0}` is not an interval of whole numbers; write for example 90s or 1m30s")]
    Fraction(String),
    /// It is too short or too long.
    #[error("`{0}` is not an interval between 1s and 168h; write off to switch it off")]
    OutOfBounds(String),
    /// It has no seconds.
    #[error("`{0}` has 5 fields; the first of our 6 fields is the second, so write `0 {0}`")]
    FiveFields(String),
    /// It restricts the day of the month and the day of the week together.
    #[error(
        "`{0}` sets both the day of the month and the day of the week, which programs read differently; set one and \
         leave the other `*`"
    )]
    BothDays(String),
    /// It is not a cron expression.
    #[error("`{text}` is not a cron expression of 6 fields ({reason})")]
    Unreadable {
        /// The expression.
        text: String,
        /// Message of the parser.
        reason: String,
    },
}

impl Cron {
    /// Parses an expression of six fields (second first; a seventh is the year) or a nickname such as `@hourly`.
    pub fn parse(text: &str) -> Result<Self, InvalidSchedule> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let nickname = fields.len() == 1 && fields[0].starts_with('@');
        if !nickname {
            match fields.as_slice() {
                [_, _, _, _, _] => return Err(InvalidSchedule::FiveFields(fields.join(" "))),
                [_, _, _, month_day, _, week_day, ..]
                    if ![*month_day, *week_day]
                        .iter()
                        .any(|day| matches!(*day, "*" | "?")) =>
                {
                    return Err(InvalidSchedule::BothDays(fields.join(" ")));
                }
                _ => {}
            }
        }
        let parsed = CronParser::builder()
            .seconds(Seconds::Required)
            .dom_and_dow(true)
            .build()
            .parse(text)
            .map_err(|error| InvalidSchedule::Unreadable {
                text: text.chars().take(60).collect(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            text: fields.join(" "),
            parsed: Box::new(parsed),
        })
    }

    /// Returns the expression as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the first tick after `after`, or `None` when it never fires again (`0 0 0 31 2 *`).
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // The parser would include a fraction of a second in its result.
        let after = chrono::DateTime::from_timestamp(after.as_millis().div_euclid(1000), 0)?;
        let next = self.parsed.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp_millis()))
    }

    /// Returns the longest of the next `count` gaps between ticks after `after`, in milliseconds. Readers use it as the
    /// interval of the schedule.
    pub fn widest_gap(&self, after: Timestamp, count: usize) -> Option<i64> {
        let mut last = self.next_after(after)?;
        let mut widest = None;
        for _ in 0..count {
            let Some(next) = self.next_after(last) else { break };
            widest = widest.max(Some(next.millis_since(last)));
            last = next;
        }
        widest
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn interval_and_cron_expression_are_schedules() {
        for (text, shown, gap_secs) in [
            ("1m", "60s", 60),
            (" 90s ", "90s", 90),
            ("5m", "300s", 300),
            ("1h", "3600s", 3_600),
            ("1h30m", "5400s", 5_400),
            ("168h", "604800s", 604_800),
            ("0 */10 * * * *", "0 */10 * * * *", 600),
            ("@hourly", "@hourly", 3_600),
        ] {
            let schedule = Schedule::parse(text).unwrap();
            let after = at("2026-05-01T18:00:00Z");
            assert_eq!(schedule.to_string(), shown, "{text}");
            assert_eq!(schedule.widest_gap(after, 3), Some(gap_secs * 1_000), "{text}");
            assert!(schedule.runs_after(after), "{text}");
        }
    }

    #[test]
    fn interval_that_is_none_is_refused_with_the_form() {
        for (text, reason) in [
            ("0s", "between 1s and 168h"),
            ("-5m", "between 1s and 168h"),
            ("169h", "between 1s and 168h"),
            ("1.5m", "write for example 90s or 1m30s"),
            ("500ms", "write for example 90s or 1m30s"),
            ("1x", "neither an interval such as 90s"),
            ("60", "neither an interval such as 90s"),
            ("1m30", "neither an interval such as 90s"),
            ("1m * * * * *", "not a cron expression"),
        ] {
            let error = Schedule::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn expressions_tick_in_utc() {
        for (expression, after, next) in [
            ("0 * * * * *", "2026-05-01T18:00:00Z", "2026-05-01T18:01:00.000Z"),
            (
                "*/30 * * * * *",
                "2026-05-01T18:00:00.500Z",
                "2026-05-01T18:00:30.000Z",
            ),
            ("0 7 * * * *", "2026-05-01T18:07:00Z", "2026-05-01T19:07:00.000Z"),
            ("@daily", "2026-05-01T18:07:00Z", "2026-05-02T00:00:00.000Z"),
            (
                "0 0 3 * * MON",
                "2026-05-01T18:07:00Z",
                "2026-05-04T03:00:00.000Z",
            ),
        ] {
            let cron = Cron::parse(expression).unwrap();
            assert_eq!(cron.next_after(at(after)), Some(at(next)), "{expression}");
        }
    }

    #[test]
    fn what_programs_read_differently_is_refused_with_the_remedy() {
        for (expression, reason) in [
            ("* * * * *", "write `0 * * * * *`"),
            ("0 0 0 1 * MON", "leave the other `*`"),
            ("0 0 0 1 * MON 2030", "leave the other `*`"),
            ("every minute", "not a cron expression"),
            ("61 * * * * *", "not a cron expression"),
            ("@every 5s", "not a cron expression"),
            ("", "not a cron expression"),
        ] {
            let error = Cron::parse(expression).unwrap_err().to_string();
            assert!(error.contains(reason), "{expression}: {error}");
        }
    }

    #[test]
    fn an_expression_that_never_fires_is_known_as_such() {
        let never = Cron::parse("0 0 0 31 2 *").unwrap();
        assert_eq!(never.next_after(at("2026-05-01T18:00:00Z")), None);
        assert_eq!(never.widest_gap(at("2026-05-01T18:00:00Z"), 3), None);
    }

    #[test]
    fn the_widest_gap_is_the_interval() {
        let cron = Cron::parse("0 0,10 * * * *").unwrap();
        assert_eq!(cron.widest_gap(at("2026-05-01T18:00:00Z"), 8), Some(50 * 60_000));
    }
}
