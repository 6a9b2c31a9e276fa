//! Cron expressions with seconds, in UTC: parsed as the scheduler parses them; ambiguous expressions are rejected.
//!
//! The parser is the one that `tokio-cron-scheduler` uses, with the same options, so an accepted expression works there.

use std::fmt;

use croner::parser::{CronParser, Seconds};

use crate::core::time::Timestamp;

/// A checked cron expression.
#[derive(Clone)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

/// Reason why an expression is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCron {
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
    pub fn parse(text: &str) -> Result<Self, InvalidCron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let nickname = fields.len() == 1 && fields[0].starts_with('@');
        if !nickname {
            match fields.as_slice() {
                [_, _, _, _, _] => return Err(InvalidCron::FiveFields(fields.join(" "))),
                [_, _, _, month_day, _, week_day, ..]
                    if ![*month_day, *week_day]
                        .iter()
                        .any(|day| matches!(*day, "*" | "?")) =>
                {
                    return Err(InvalidCron::BothDays(fields.join(" ")));
                }
                _ => {}
            }
        }
        let parsed = CronParser::builder()
            .seconds(Seconds::Required)
            .dom_and_dow(true)
            .build()
            .parse(text)
            .map_err(|error| InvalidCron::Unreadable {
                text: text.chars().take(60).collect(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            text: fields.join(" "),
            parsed,
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
