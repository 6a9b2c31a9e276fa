//! Identities and how they are authorized: `auth`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::forecast::{Forecast, Lead, Renewal};
use crate::core::time::Timestamp;
use crate::tokens::{APPLICATION_REJECTED, login_command, remedy};

/// Identities and how they are authorized. It never contains a token.
#[derive(Debug, Clone)]
pub struct AuthReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The identities.
    pub items: Vec<IdentityItem>,
    /// What is worth knowing beside them.
    pub notes: Vec<Note>,
}

/// One identity as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityItem {
    /// Its name, such as `twitch/bot`.
    pub identity: String,
    /// The status of its token.
    pub status: AuthState,
    /// The account's login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The account's user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// When the access token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// How long that is from now, in milliseconds; negative when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<i64>,
    /// Whether there is a refresh token.
    pub can_renew: bool,
    /// When it was last refreshed; absent if that was not tried yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refreshed_at: Option<Timestamp>,
    /// How long ago that is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshed_ago_ms: Option<i64>,
    /// How long the account will work; absent if its token cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastItem>,
    /// What it was granted.
    pub scopes: Vec<String>,
    /// Which scopes it should have and lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_scopes: Vec<MissingScope>,
    /// Whether the platform rejects the client id and secret.
    #[serde(skip)]
    pub client_rejected: bool,
    /// The reason, where the status alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How long an account will work.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForecastItem {
    /// What happens when the access token is about to expire.
    pub renewal: Renewal,
    /// When the account stops working without another login; absent if it does not stop, or if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub works_until: Option<Timestamp>,
    /// How long that is from now, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub works_for_ms: Option<i64>,
    /// On which day of its life the refresh token is, counted from its last use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_day: Option<u64>,
    /// About how many days it lives without use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_days: Option<u16>,
    /// In words.
    pub text: String,
    #[serde(skip)]
    pub facts: Forecast,
}

impl ForecastItem {
    /// Returns the forecast as of `now`.
    pub fn of(facts: &Forecast, now: Timestamp) -> Self {
        let works_until = facts.works_until();
        let day = facts.refresh_day(now);
        Self {
            renewal: facts.renewal,
            works_until,
            works_for_ms: works_until.map(|until| until.millis_since(now)),
            refresh_token_day: day.map(|(day, _)| day),
            refresh_token_days: day.map(|(_, days)| days),
            text: in_words(facts, now),
            facts: *facts,
        }
    }
}

/// Returns what is known about a token: `valid 3 h 12 min, refreshed 41 min ago, refresh token day 26 of about 30`.
fn in_words(facts: &Forecast, now: Timestamp) -> String {
    let ago = |at: Timestamp| humane::duration(now.millis_since(at).max(0).unsigned_abs());
    let expires = facts.lifetimes.access_expires;
    let access = match facts.access_until {
        Some(until) if until > now => format!(
            "valid {}",
            humane::duration(until.millis_since(now).unsigned_abs())
        ),
        Some(until) => format!("expired {} ago", ago(until)),
        None if expires => "expiry not known".to_owned(),
        None => "does not expire".to_owned(),
    };
    let renewal = match (facts.renewal, facts.refreshed_at) {
        (Renewal::Refreshed, Some(at)) => Some(format!("refreshed {} ago", ago(at))),
        (Renewal::Refreshed, None) => Some("not refreshed yet".to_owned()),
        (Renewal::Requested, _) => Some("requested anew before that".to_owned()),
        (Renewal::Elsewhere, _) => Some("refreshed by another program".to_owned()),
        (Renewal::Impossible, _) => expires.then(|| "cannot be refreshed".to_owned()),
    };
    let day = facts
        .refresh_day(now)
        .map(|(day, days)| format!("refresh token day {day} of about {days}"));
    let parts: Vec<String> = [Some(access), renewal, day].into_iter().flatten().collect();
    parts.join(", ")
}

/// Returns what to say about an account that stops working within a day.
pub fn stops_soon(identity: &str, forecast: &ForecastItem) -> Option<String> {
    let left = u64::try_from(forecast.works_for_ms?).ok()?;
    let is_soon = u128::from(left) <= Lead::Day.duration().as_millis();
    let why = match forecast.renewal {
        Renewal::Impossible => "its token cannot be refreshed",
        Renewal::Refreshed | Renewal::Requested | Renewal::Elsewhere => {
            "its refresh token was not used for weeks"
        }
    };
    is_soon.then(|| format!("{identity} stops working in {}: {why}", humane::duration(left)))
}

/// A scope that an account lacks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MissingScope {
    /// Its name.
    pub scope: String,
    /// What does not work without it.
    pub without: &'static str,
}

/// The status of an account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthState {
    /// The platform accepted the token.
    Valid,
    /// The token has ended and could not be renewed.
    Expired,
    /// The grant is gone.
    Revoked,
    /// The platform refuses a token that nothing proves to have ever been valid.
    Rejected,
    /// There is no token.
    Missing,
    /// It was not checked, or the check brought no answer.
    Unknown,
}

impl Report for AuthReport {
    type Item = IdentityItem;
    const KIND: &'static str = "AuthList";
    const CSV: &'static [&'static str] = &[
        "identity",
        "status",
        "login",
        "userId",
        "expiresAt",
        "canRenew",
        "scopes",
        "reason",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<IdentityItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.identity.clone()).collect()
    }

    fn view(&self) -> View {
        if self.items.is_empty() {
            return View::default();
        }
        View {
            blocks: vec![Block::Table(Grid {
                columns: vec![
                    Column::kept("IDENTITY"),
                    Column::kept("STATUS"),
                    Column::ranked("ACCOUNT", 1),
                    Column::ranked("FORECAST", 2).elastic(20),
                    Column::ranked("WHY", 3).elastic(16),
                    Column::ranked("SCOPES", 5).wide(),
                ],
                rows: self.items.iter().map(cells).collect(),
                headed: true,
            })],
        }
    }

    fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.items.is_empty() {
            let what = "no identity is stored, and none is needed by the configured sources";
            notes.push(Note::hint(Tone::Warn, what, Some("bitbrat auth login twitch")));
        }
        notes.extend(self.notes.clone());
        for item in &self.items {
            let what = match item.status {
                AuthState::Valid | AuthState::Unknown => {
                    notes.extend(of_forecast(item));
                    notes.extend(of_scopes(item));
                    continue;
                }
                AuthState::Expired | AuthState::Rejected if item.client_rejected => APPLICATION_REJECTED,
                AuthState::Expired => "has expired and could not be renewed",
                AuthState::Revoked => "was revoked; log in again",
                AuthState::Rejected => "is rejected; the token may be mistyped, expired or revoked",
                AuthState::Missing => "has no token",
            };
            let next = remedy(&item.identity, item.client_rejected);
            notes.push(Note::hint(
                Tone::Bad,
                format!("{} {what}", item.identity),
                Some(&next),
            ));
        }
        notes
    }
}

/// Returns the note about an account that stops working within a day.
fn of_forecast(item: &IdentityItem) -> Option<Note> {
    let what = stops_soon(&item.identity, item.forecast.as_ref()?)?;
    Some(Note::hint(Tone::Warn, what, Some(&login_command(&item.identity))))
}

/// Returns what an account cannot do for lack of scopes. A new login requests all of them again.
fn of_scopes(item: &IdentityItem) -> Option<Note> {
    let lacks = |missing: &MissingScope| format!("{} ({})", missing.scope, missing.without);
    let lacks: Vec<String> = item.missing_scopes.iter().map(lacks).collect();
    let what = format!("{} lacks {}", item.identity, lacks.join("; "));
    let next = login_command(&item.identity);
    (!lacks.is_empty()).then(|| Note::hint(Tone::Warn, what, Some(&next)))
}

fn cells(item: &IdentityItem) -> Vec<Cell> {
    let status = match item.status {
        AuthState::Valid => Cell::new("VALID").glyph(Glyph::Good).tone(Tone::Good),
        AuthState::Expired => Cell::new("EXPIRED").glyph(Glyph::Warn).tone(Tone::Warn),
        AuthState::Revoked => Cell::new("REVOKED").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Rejected => Cell::new("REJECTED").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Missing => Cell::new("MISSING").glyph(Glyph::Bad).tone(Tone::Bad),
        AuthState::Unknown => Cell::new("unknown").glyph(Glyph::Unknown).tone(Tone::Dim),
    };
    let account = match (&item.login, &item.user_id) {
        (Some(login), Some(id)) => Cell::new(format!("{login} ({id})")),
        (Some(one), None) | (None, Some(one)) => Cell::new(one),
        (None, None) => Cell::none(),
    };
    let forecast = match (&item.forecast, item.expires_in_ms) {
        (Some(forecast), _) => {
            let is_soon = stops_soon(&item.identity, forecast).is_some();
            let tone = if is_soon { Tone::Warn } else { Tone::Plain };
            Cell::new(&forecast.text).tone(tone)
        }
        (None, Some(past)) if past < 0 => {
            Cell::new(format!("expired {} ago", humane::duration(past.unsigned_abs()))).tone(Tone::Warn)
        }
        (None, _) => Cell::none(),
    };
    vec![
        Cell::new(&item.identity).tone(Tone::Strong),
        status,
        account,
        forecast,
        Cell::maybe(item.reason.as_deref()).tone(Tone::Dim),
        Cell::new(item.scopes.join(" ")).tone(Tone::Dim),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::forecast::TokenLifetimes;

    #[test]
    fn forecast_says_only_what_is_known() {
        const MINUTE: i64 = 60;
        const DAY: i64 = 24 * 60 * MINUTE;
        let now = Timestamp::from_millis(1_780_000_000_000);
        let at = |seconds: Option<i64>| seconds.map(|seconds| now.plus_secs(seconds));
        for (access, renewal, refreshed, days, expected) in [
            (
                Some(192 * MINUTE),
                Renewal::Refreshed,
                Some(-41 * MINUTE),
                None,
                "valid 3 h 12 min, refreshed 41 min ago",
            ),
            (
                Some(192 * MINUTE),
                Renewal::Refreshed,
                Some(-25 * DAY - MINUTE),
                Some(30),
                "valid 3 h 12 min, refreshed 25 d ago, refresh token day 26 of about 30",
            ),
            (
                Some(-MINUTE),
                Renewal::Refreshed,
                None,
                Some(30),
                "expired 1 min ago, not refreshed yet",
            ),
            (
                Some(60 * DAY),
                Renewal::Requested,
                None,
                Some(30),
                "valid 60 d, requested anew before that",
            ),
            (
                None,
                Renewal::Elsewhere,
                None,
                None,
                "expiry not known, refreshed by another program",
            ),
            (
                Some(MINUTE),
                Renewal::Impossible,
                None,
                None,
                "valid 1 min, cannot be refreshed",
            ),
        ] {
            let facts = Forecast {
                access_until: at(access),
                renewal,
                refreshed_at: at(refreshed),
                lifetimes: TokenLifetimes {
                    refresh_days: days,
                    ..TokenLifetimes::default()
                },
            };
            assert_eq!(in_words(&facts, now), expected);
        }
        let bot = Forecast {
            access_until: None,
            renewal: Renewal::Impossible,
            refreshed_at: None,
            lifetimes: TokenLifetimes {
                access_expires: false,
                refresh_days: None,
            },
        };
        assert_eq!(in_words(&bot, now), "does not expire");
        assert!(stops_soon("discord/bot", &ForecastItem::of(&bot, now)).is_none());
    }
}
