//! How long an account will work: from the expiry of its token, whether the token can be refreshed, and the age of the refresh token.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);

/// What is known about the tokens of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLifetimes {
    /// Whether access tokens expire at all.
    pub access_expires: bool,
    /// After about how many days without a refresh a refresh token expires; `None` if it does not age or if that is unknown.
    pub refresh_days: Option<u16>,
}

impl Default for TokenLifetimes {
    fn default() -> Self {
        Self {
            access_expires: true,
            refresh_days: None,
        }
    }
}

/// What happens when an access token is about to expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Renewal {
    /// It is refreshed.
    Refreshed,
    /// The application requests another one with its client id and secret.
    Requested,
    /// Another program refreshes it.
    Elsewhere,
    /// Nothing: another login is needed.
    Impossible,
}

/// How long an account will work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// When the access token expires, if that is known.
    pub access_until: Option<Timestamp>,
    /// What happens then.
    pub renewal: Renewal,
    /// When the token was last refreshed. The age of a refresh token that was never used is unknown: it may have been issued long
    /// before it was stored.
    pub refreshed_at: Option<Timestamp>,
    /// What is known about such tokens.
    pub lifetimes: TokenLifetimes,
}

impl Forecast {
    /// Returns when the account stops working without another login. `None` if it does not stop, or if that is unknown.
    pub fn works_until(&self) -> Option<Timestamp> {
        match self.renewal {
            Renewal::Impossible => self.access_until,
            Renewal::Requested => None,
            Renewal::Refreshed | Renewal::Elsewhere => {
                let refresh_until = self.refresh_until()?;
                Some(
                    self.access_until
                        .map_or(refresh_until, |end| end.max(refresh_until)),
                )
            }
        }
    }

    /// Returns about when the refresh token expires if it is not used before.
    fn refresh_until(&self) -> Option<Timestamp> {
        let days = self.lifetimes.refresh_days?;
        Some(self.refreshed_at?.plus(DAY * u32::from(days)))
    }

    /// Returns on which day of its life the refresh token is, and of about how many.
    pub fn refresh_day(&self, now: Timestamp) -> Option<(u64, u16)> {
        let is_usable = matches!(self.renewal, Renewal::Refreshed | Renewal::Elsewhere);
        let days = self.lifetimes.refresh_days.filter(|_| is_usable)?;
        let age = now.since(self.refreshed_at?);
        Some((age.as_secs() / DAY.as_secs() + 1, days))
    }

    /// Returns whether the account works until `end`; `None` if that cannot be known.
    pub fn outlives(&self, end: Timestamp) -> Option<bool> {
        match (self.works_until(), self.renewal) {
            (Some(until), _) => Some(until > end),
            (None, Renewal::Impossible) => (!self.lifetimes.access_expires).then_some(true),
            (None, _) => Some(true),
        }
    }
}

/// How long before an account stops working there is a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lead {
    /// Seven days.
    #[serde(rename = "7d")]
    Week,
    /// One day.
    #[serde(rename = "1d")]
    Day,
    /// One hour.
    #[serde(rename = "1h")]
    Hour,
}

impl Lead {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// Returns it as a duration.
    pub fn duration(self) -> Duration {
        match self {
            Self::Week => DAY * 7,
            Self::Day => DAY,
            Self::Hour => Duration::from_hours(1),
        }
    }

    /// Returns it for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Week => "7 days",
            Self::Day => "1 day",
            Self::Hour => "1 hour",
        }
    }
}

/// The last warning that was given about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpiryWarning {
    /// When the account stops working.
    pub works_until: Timestamp,
    /// How long before that the warning was due.
    pub lead: Lead,
    /// When it was given.
    pub at: Timestamp,
}

impl ExpiryWarning {
    /// Ends that differ by less are the same: platforms report the remaining time in seconds, counted from each answer.
    const SAME_END: Duration = Duration::from_mins(10);

    /// Returns the warning to give now about an account that stops at `works_until`, where `last` was the last one. Of several that
    /// are due only the most urgent is given. An account that has stopped is reported by its checks instead.
    pub fn due(works_until: Timestamp, last: Option<&Self>, now: Timestamp) -> Option<Self> {
        let left = works_until.since(now);
        let lead = Lead::ALL
            .into_iter()
            .find(|lead| !left.is_zero() && left <= lead.duration())?;
        let is_repeated =
            last.is_some_and(|last| last.lead >= lead && works_until < last.works_until.plus(Self::SAME_END));
        (!is_repeated).then_some(Self {
            works_until,
            lead,
            at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const DAYS: i64 = 24 * HOUR;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn forecast(
        access: Option<i64>,
        renewal: Renewal,
        refreshed: Option<i64>,
        days: Option<u16>,
    ) -> Forecast {
        Forecast {
            access_until: access.map(at),
            renewal,
            refreshed_at: refreshed.map(at),
            lifetimes: TokenLifetimes {
                refresh_days: days,
                ..TokenLifetimes::default()
            },
        }
    }

    #[test]
    fn account_works_as_long_as_something_renews_its_token() {
        use Renewal::{Elsewhere, Impossible, Refreshed, Requested};
        for (access, renewal, refreshed, days, expected) in [
            // Without a refresh the access token decides.
            (Some(4 * HOUR), Impossible, None, None, Some(4 * HOUR)),
            (Some(4 * HOUR), Impossible, Some(-HOUR), Some(30), Some(4 * HOUR)),
            (None, Impossible, None, None, None),
            // A refresh token that does not age, or whose age is unknown, has no known end.
            (Some(4 * HOUR), Refreshed, Some(-HOUR), None, None),
            (Some(4 * HOUR), Refreshed, None, Some(30), None),
            (
                Some(4 * HOUR),
                Refreshed,
                Some(-25 * DAYS),
                Some(30),
                Some(5 * DAYS),
            ),
            (None, Elsewhere, Some(-25 * DAYS), Some(30), Some(5 * DAYS)),
            // An access token that outlives its refresh token works until its own end.
            (
                Some(3 * HOUR),
                Refreshed,
                Some(-30 * DAYS),
                Some(30),
                Some(3 * HOUR),
            ),
            (Some(60 * DAYS), Requested, None, Some(30), None),
        ] {
            let forecast = forecast(access, renewal, refreshed, days);
            assert_eq!(forecast.works_until(), expected.map(at), "{forecast:?}");
        }
    }

    #[test]
    fn day_of_the_refresh_token_is_counted_from_one() {
        for (refreshed, expected) in [
            (0, 1),
            (-DAYS + 1, 1),
            (-DAYS, 2),
            (-25 * DAYS, 26),
            (-31 * DAYS, 32),
        ] {
            let forecast = forecast(None, Renewal::Refreshed, Some(refreshed), Some(30));
            assert_eq!(forecast.refresh_day(at(0)), Some((expected, 30)), "{refreshed}");
        }
        for unknown in [
            forecast(None, Renewal::Refreshed, None, Some(30)),
            forecast(None, Renewal::Refreshed, Some(0), None),
            forecast(None, Renewal::Impossible, Some(0), Some(30)),
        ] {
            assert_eq!(unknown.refresh_day(at(0)), None, "{unknown:?}");
        }
    }

    #[test]
    fn unknown_expiry_proves_nothing_about_the_show() {
        let end = at(2 * HOUR);
        let lasting = Forecast {
            lifetimes: TokenLifetimes {
                access_expires: false,
                refresh_days: None,
            },
            ..forecast(None, Renewal::Impossible, None, None)
        };
        for (forecast, expected) in [
            (forecast(Some(HOUR), Renewal::Impossible, None, None), Some(false)),
            (
                forecast(Some(3 * HOUR), Renewal::Impossible, None, None),
                Some(true),
            ),
            (forecast(None, Renewal::Impossible, None, None), None),
            (forecast(Some(HOUR), Renewal::Refreshed, None, None), Some(true)),
            (forecast(Some(HOUR), Renewal::Requested, None, None), Some(true)),
            (
                forecast(Some(HOUR), Renewal::Refreshed, Some(-30 * DAYS), Some(30)),
                Some(false),
            ),
            (lasting, Some(true)),
        ] {
            assert_eq!(forecast.outlives(end), expected, "{forecast:?}");
        }
    }

    #[test]
    fn each_warning_is_given_once_as_time_passes() {
        let end = at(10 * DAYS);
        let mut last = None;
        let mut given = Vec::new();
        for hour in 0..=240 {
            if let Some(warning) = ExpiryWarning::due(end, last.as_ref(), at(hour * HOUR)) {
                given.push((hour, warning.lead));
                last = Some(warning);
            }
        }
        assert_eq!(given, [(72, Lead::Week), (216, Lead::Day), (239, Lead::Hour)]);
    }

    #[test]
    fn only_the_most_urgent_of_several_due_warnings_is_given() {
        let due = |left: i64, last: Option<(i64, Lead)>| {
            let last = last.map(|(end, lead)| ExpiryWarning {
                works_until: at(end),
                lead,
                at: at(0),
            });
            ExpiryWarning::due(at(left), last.as_ref(), at(0)).map(|warning| warning.lead)
        };
        for (left, last, expected) in [
            (8 * DAYS, None, None),
            (4 * HOUR, None, Some(Lead::Day)),
            (HOUR, None, Some(Lead::Hour)),
            (0, None, None),
            (-HOUR, None, None),
            (4 * HOUR, Some((4 * HOUR, Lead::Day)), None),
            // The end moves by seconds with each answer.
            (4 * HOUR + 3, Some((4 * HOUR, Lead::Day)), None),
            (4 * HOUR, Some((4 * HOUR, Lead::Hour)), None),
            // Another login moves it further.
            (4 * HOUR, Some((2 * HOUR, Lead::Day)), Some(Lead::Day)),
            // An earlier end is no reason for another warning of the same kind.
            (2 * HOUR, Some((4 * HOUR, Lead::Day)), None),
        ] {
            assert_eq!(due(left, last), expected, "{left} {last:?}");
        }
    }
}
