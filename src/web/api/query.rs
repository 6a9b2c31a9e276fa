//! Queries of the API. What is documented is checked: an unknown parameter or a wrong value is refused, not ignored.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{SourceSelector, parse_duration};
use crate::core::code::Code;
use crate::core::freshness::MaxAge;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::view::order::SortKey;
use crate::view::since::Since;
use crate::view::source_row::SourceRow;
use crate::web::problem::Problem;

/// Sources or changes on a page without `limit`, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1000;

/// A query that has only known parameters, once each.
pub(in crate::web) struct Checked<T>(pub(in crate::web) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Checked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let mut reason = &error as &dyn std::error::Error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            invalid(format!("the query is wrong: {reason}"))
        })
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(400, Code::ApiInvalidQuery).detail(detail)
}

/// No parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct NoQuery {}

/// A platform.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::web) enum Platform {
    Twitch,
    Kick,
    Discord,
}

impl Platform {
    pub(in crate::web) fn name(self) -> PlatformName {
        match self {
            Self::Twitch => PlatformName::Twitch,
            Self::Kick => PlatformName::Kick,
            Self::Discord => PlatformName::Discord,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct ActionsQuery {
    /// Only actions on this platform.
    pub(in crate::web) platform: Option<Platform>,
}

/// The oldest evidence that the caller relies on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct AgeQuery {
    /// Rely on evidence that is at most this old; without it, three intervals of its schedule. For example `30s` or `5m`.
    #[schemars(regex(pattern = r"^[0-9]{1,6}[smh]$"))]
    max_age: Option<String>,
}

impl AgeQuery {
    pub(in crate::web) fn max_age(&self) -> Result<MaxAge, Problem> {
        max_age(self.max_age.as_deref())
    }
}

fn max_age(text: Option<&str>) -> Result<MaxAge, Problem> {
    let Some(text) = text else { return Ok(None) };
    let age = Some(text).filter(|text| is_duration(text, "smh"));
    let age = age.and_then(|text| parse_duration(text).ok());
    age.map(Some).ok_or_else(|| {
        let detail = "max_age is not a duration; write for example max_age=30s or max_age=5m";
        Problem::new(400, Code::ApiInvalidMaxAge).detail(detail)
    })
}

/// Whether a text is up to six digits and one of `units`.
fn is_duration(text: &str, units: &str) -> bool {
    let number = text.strip_suffix(|unit| units.contains(unit)).unwrap_or_default();
    (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct HistoryQuery {
    /// Only changes since then: a duration such as `24h` or `7d`, or a time as `2026-11-20T10:00:00Z`.
    #[schemars(regex(
        pattern = r"^([0-9]{1,6}[smhd]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)$"
    ))]
    since: Option<String>,
    /// Changes at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Changes to skip, as in `next` of the part before.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(in crate::web) offset: Option<u32>,
}

impl HistoryQuery {
    pub(in crate::web) fn since(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = &self.since else { return Ok(None) };
        let is_time = text.ends_with('Z') && text.len() == "2026-11-20T10:00:00Z".len();
        let since = Some(text).filter(|text| is_time || is_duration(text, "smhd"));
        let since = since.and_then(|text| text.parse::<Since>().ok());
        since.map(|since| Some(since.before(now))).ok_or_else(|| {
            invalid("since is neither a duration such as 24h nor a time such as 2026-11-20T10:00:00Z".into())
        })
    }

    pub(in crate::web) fn limit(&self) -> Result<usize, Problem> {
        limit(self.limit)
    }

    /// Returns the query of the part that begins at `offset`.
    pub(in crate::web) fn at(&self, offset: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let limit = self.limit.map(|limit| limit.to_string());
        for (name, value) in [
            ("since", self.since.clone()),
            ("limit", limit),
            ("offset", Some(offset.to_string())),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.finish()
    }
}

pub(in crate::web) fn offset(offset: Option<u32>) -> Result<usize, Problem> {
    match offset.unwrap_or(0) {
        within @ 0..=1_000_000 => Ok(within as usize),
        _ => Err(invalid("offset must be at most 1000000".into())),
    }
}

fn limit(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.unwrap_or(USUAL) {
        within @ 1..=MOST => Ok(within as usize),
        _ => Err(invalid(format!("limit must be from 1 to {MOST}"))),
    }
}

/// Filters and order of a list of sources.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct ListQuery {
    /// Only sources of this platform.
    pub(in crate::web) platform: Option<Platform>,
    /// Only sources that are certainly live, or only others.
    pub(in crate::web) live: Option<bool>,
    /// Only sources that need attention or are down, or only others.
    pub(in crate::web) failing: Option<bool>,
    /// Only sources with this id, name or address, or that a glob such as `twitch:*` matches.
    #[schemars(length(min = 1))]
    pub(in crate::web) source: Option<String>,
    /// Fields to sort by, separated by commas; a hyphen in front for descending order.
    #[schemars(regex(
        pattern = r"^-?(id|name|platform|status|stream|viewers|auth|age|latency)(,-?(id|name|platform|status|stream|viewers|auth|age|latency))*$"
    ))]
    pub(in crate::web) sort: Option<String>,
    /// Sources at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Sources to skip, as in `next` of the part before.
    #[schemars(range(min = 0, max = 1_000_000))]
    offset: Option<u32>,
    /// Rely on evidence that is at most this old; without it, three intervals of its schedule. For example `30s` or `5m`.
    #[schemars(regex(pattern = r"^[0-9]{1,6}[smh]$"))]
    max_age: Option<String>,
}

/// A query of a list, parsed.
#[derive(Debug, Default)]
pub(in crate::web) struct Selected {
    platform: Option<PlatformName>,
    live: Option<bool>,
    failing: Option<bool>,
    source: Option<SourceSelector>,
    pub(in crate::web) sort: Vec<SortKey>,
    pub(in crate::web) limit: usize,
    pub(in crate::web) offset: usize,
    pub(in crate::web) max_age: MaxAge,
}

impl ListQuery {
    pub(in crate::web) fn parse(&self) -> Result<Selected, Problem> {
        if self.source.as_deref() == Some("") {
            return Err(invalid("source is empty; leave it out for all sources".into()));
        }
        let source = self.source.as_deref().map(str::parse).transpose();
        let sort = self.sort.iter().flat_map(|fields| fields.split(','));
        let sort: Result<Vec<SortKey>, String> = sort
            .map(
                |field| match field.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    true => Err("fields are written in lower case".to_owned()),
                    false => field.parse(),
                },
            )
            .collect();
        let offset = offset(self.offset)?;
        Ok(Selected {
            platform: self.platform.map(Platform::name),
            live: self.live,
            failing: self.failing,
            source: source.map_err(|error: String| {
                // As for the name of a source that does not exist.
                Problem::new(404, Code::ApiUnknownSource).detail(format!("source is wrong: {error}"))
            })?,
            sort: sort.map_err(|error| invalid(format!("sort is wrong: {error}")))?,
            limit: limit(self.limit)?,
            offset,
            max_age: max_age(self.max_age.as_deref())?,
        })
    }

    /// Returns the query of the part that begins at `offset`.
    pub(in crate::web) fn at(&self, offset: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let platform = self.platform.map(|platform| platform.name().to_string());
        for (name, value) in [
            ("platform", platform),
            ("live", self.live.map(|live| live.to_string())),
            ("failing", self.failing.map(|failing| failing.to_string())),
            ("source", self.source.clone()),
            ("sort", self.sort.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("offset", Some(offset.to_string())),
            ("max_age", self.max_age.clone()),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.finish()
    }
}

impl Selected {
    pub(in crate::web) fn selects(&self, row: &SourceRow) -> bool {
        self.platform
            .is_none_or(|platform| row.summary.key.platform() == platform)
            && self.live.is_none_or(|live| row.is_live() == live)
            && self.failing.is_none_or(|failing| row.is_failing() == failing)
            && self
                .source
                .as_ref()
                .is_none_or(|source| source.selects(&row.summary))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn max_age_is_a_duration_and_nothing_else() {
        for (text, expected) in [
            (None, Ok(None)),
            (Some("5m"), Ok(Some(300))),
            (Some("90s"), Ok(Some(90))),
            (Some("soon"), Err(())),
            (Some("5"), Err(())),
            (Some("1h30m"), Err(())),
            (Some("1234567s"), Err(())),
            (Some(""), Err(())),
        ] {
            let found = max_age(text)
                .map(|age| age.as_ref().map(Duration::as_secs))
                .map_err(drop);
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn query_of_the_next_part_keeps_the_filters() {
        let query = ListQuery {
            platform: Some(Platform::Kick),
            live: Some(true),
            source: Some("kick:*".into()),
            sort: Some("-viewers,name".into()),
            limit: Some(2),
            ..ListQuery::default()
        };
        let expected = "platform=kick&live=true&source=kick%3A*&sort=-viewers%2Cname&limit=2&offset=4";
        assert_eq!(query.at(4), expected);
    }
}
