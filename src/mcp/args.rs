//! Arguments of tools, read leniently: models write numbers as text, leave out what is required, and add what nobody asked for.
//! What cannot be used is a problem of the answer, never an error of the protocol.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::answers::Refusal;
use crate::config::{SourceSelector, parse_duration};
use crate::core::code::Code;
use crate::core::freshness::MaxAge;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::view::since::Since;

/// Sources and changes in an answer without `limit`, and at most: clients cut or refuse large results.
const USUAL: u64 = 50;
const MOST: usize = 200;

/// No arguments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct NoArgs {}

/// Filters of a list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ListArgs {
    /// Only sources of this platform: `twitch`, `kick` or `discord`.
    #[serde(deserialize_with = "text")]
    platform: Option<String>,
    /// `true`: only sources that are certainly live. `false`: only others, including those of which it is not known.
    #[serde(deserialize_with = "flag")]
    pub(super) live: Option<bool>,
    /// `true`: only sources that need attention or are down. `false`: only others.
    #[serde(deserialize_with = "flag")]
    pub(super) failing: Option<bool>,
    /// Only the source with this id, name or address, or those that a pattern such as `twitch:*` matches.
    #[serde(deserialize_with = "text", alias = "id", alias = "name", alias = "channel")]
    source: Option<String>,
    /// Sources at most, from 1 to 200; 50 if left out.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u64>,
    /// Sources to skip, to read the next part of a long list.
    #[serde(deserialize_with = "number")]
    offset: Option<u64>,
}

/// One source.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct SourceArgs {
    /// The source: `platform:id` (`twitch:123456`), `platform:name`, a name alone, or the address of its channel.
    #[serde(
        deserialize_with = "text",
        alias = "id",
        alias = "key",
        alias = "name",
        alias = "channel"
    )]
    source: Option<String>,
    /// Rely on evidence that is at most this old, for example `30s` or `5m`. If left out, evidence counts for three intervals of
    /// its schedule.
    #[serde(deserialize_with = "text", alias = "maxAge")]
    max_age: Option<String>,
}

/// One source and an action.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct CanArgs {
    #[serde(flatten)]
    pub(super) of: SourceArgs,
    /// What the bot would do, such as `send-chat`, `ban` or `moderate`; or a permission as the platform names it, such as
    /// `MODERATOR` or `SEND_MESSAGES`. An unknown action is answered with the list of actions.
    #[serde(deserialize_with = "text", alias = "permission")]
    action: Option<String>,
}

/// One source and a period.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct HistoryArgs {
    /// The source: `platform:id` (`twitch:123456`), `platform:name`, a name alone, or the address of its channel.
    #[serde(
        deserialize_with = "text",
        alias = "id",
        alias = "key",
        alias = "name",
        alias = "channel"
    )]
    source: Option<String>,
    /// Only changes since then: a duration such as `24h` or `7d`, or a time such as `2026-11-20T10:00:00Z`.
    #[serde(deserialize_with = "text")]
    since: Option<String>,
    /// Changes at most, from 1 to 200; 50 if left out.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u64>,
}

/// Reads the arguments of a call.
pub(super) fn read<T: DeserializeOwned>(args: JsonObject) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(args))
        .map_err(|error| Refusal::new(Code::ApiInvalidQuery, format!("the arguments are wrong: {error}")))
}

impl ListArgs {
    pub(super) fn platform(&self) -> Result<Option<PlatformName>, Refusal> {
        let Some(text) = &self.platform else {
            return Ok(None);
        };
        text.to_lowercase().parse().map(Some).map_err(|_| {
            let names = PlatformName::ALL.map(|name| name.to_string()).join(", ");
            let detail = format!("`platform` must be one of {names}");
            Refusal::new(Code::ApiUnknownPlatform, detail)
        })
    }

    pub(super) fn source(&self) -> Result<Option<SourceSelector>, Refusal> {
        let source = self.source.as_deref().map(str::parse).transpose();
        source.map_err(|error: String| Refusal::new(Code::ApiInvalidSource, error))
    }

    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        limit(self.limit)
    }

    pub(super) fn offset(&self) -> usize {
        usize::try_from(self.offset.unwrap_or(0)).unwrap_or(usize::MAX)
    }
}

impl SourceArgs {
    pub(super) fn source(&self) -> Result<&str, Refusal> {
        required(self.source.as_deref(), "source", "twitch:123456")
    }

    /// Parses the maximum age; digits alone are seconds.
    pub(super) fn max_age(&self) -> Result<MaxAge, Refusal> {
        let Some(text) = &self.max_age else {
            return Ok(None);
        };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let spelled = if is_number {
            format!("{text}s")
        } else {
            text.clone()
        };
        parse_duration(&spelled).map(Some).map_err(|_| {
            let detail = "`max_age` is not a duration; write for example `30s` or `5m`";
            Refusal::new(Code::ApiInvalidMaxAge, detail)
        })
    }
}

impl CanArgs {
    pub(super) fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }
}

impl HistoryArgs {
    pub(super) fn source(&self) -> Result<&str, Refusal> {
        required(self.source.as_deref(), "source", "twitch:123456")
    }

    pub(super) fn since(&self, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
        let since = self.since.as_deref().map(str::parse::<Since>).transpose();
        let since =
            since.map_err(|error| Refusal::new(Code::ApiInvalidQuery, format!("`since`: {error}")))?;
        Ok(since.map(|since| since.before(now)))
    }

    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        limit(self.limit)
    }
}

fn limit(limit: Option<u64>) -> Result<usize, Refusal> {
    let limit = usize::try_from(limit.unwrap_or(USUAL)).unwrap_or(usize::MAX);
    match limit {
        1..=MOST => Ok(limit),
        _ => Err(Refusal::new(
            Code::ApiInvalidQuery,
            format!("`limit` must be from 1 to {MOST}, not {limit}"),
        )),
    }
}

fn required<'a>(text: Option<&'a str>, name: &str, example: &str) -> Result<&'a str, Refusal> {
    text.ok_or_else(|| {
        let detail = format!("`{name}` is missing; give for example `{example}`");
        Refusal::new(Code::ApiInvalidQuery, detail)
    })
}

/// Reads text, or a number as text. Nothing, or text without content, counts as left out.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Null => None,
        other => Some(other.to_string()),
    })
}

/// Reads `true` or `false`, also as text.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let Some(text) = text(from)? else { return Ok(None) };
    text.to_lowercase()
        .parse()
        .map(Some)
        .map_err(|_| serde::de::Error::custom("a filter is neither true nor false"))
}

/// Reads a whole number, also as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(text) = text(from)? else { return Ok(None) };
    let text = text.strip_suffix(".0").unwrap_or(&text);
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom("`limit` must be a whole number from 1 to 200, and `offset` one from 0")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of<T: DeserializeOwned>(args: &Value) -> Result<T, Refusal> {
        read(args.as_object().unwrap().clone())
    }

    #[test]
    fn arguments_are_read_as_models_write_them() {
        let args: CanArgs =
            of(&json!({"channel": " twitch:1 ", "permission": "ban", "max_age": 90, "extra": [1]})).unwrap();
        assert_eq!(
            (args.of.source().unwrap(), args.action()),
            ("twitch:1", Some("ban"))
        );
        assert_eq!(args.of.max_age().unwrap().map(|age| age.as_secs()), Some(90));
        let args: ListArgs =
            of(&json!({"live": "True", "limit": "20", "platform": "Kick", "source": null})).unwrap();
        assert_eq!(
            (args.live, args.limit().unwrap(), args.failing),
            (Some(true), 20, None)
        );
        assert_eq!(args.platform().unwrap(), Some(PlatformName::Kick));
        assert!(args.source().unwrap().is_none());
        let args: SourceArgs = of(&json!({"source": 123_456})).unwrap();
        assert_eq!(args.source().unwrap(), "123456");
    }

    #[test]
    fn wrong_arguments_are_refused_with_advice() {
        let args: SourceArgs = of(&json!({"max_age": "soon"})).unwrap();
        assert!(args.source().unwrap_err().detail.contains("twitch:123456"));
        assert_eq!(args.max_age().unwrap_err().code, Code::ApiInvalidMaxAge);
        for limit in [
            json!("many"),
            json!(-1),
            json!(0),
            json!("0"),
            json!(201),
            json!(5000),
        ] {
            let read = of::<ListArgs>(&json!({"limit": limit}));
            let refusal = read.and_then(|args| args.limit()).unwrap_err();
            assert!(
                refusal.detail.contains("from 1 to 200"),
                "{limit}: {}",
                refusal.detail
            );
            let read = of::<HistoryArgs>(&json!({"limit": limit}));
            assert!(read.and_then(|args| args.limit()).is_err(), "{limit}");
        }
        assert!(of::<SourceArgs>(&json!({"source": "a", "id": "b"})).is_err());
        let args: ListArgs = of(&json!({"platform": "myspace"})).unwrap();
        assert_eq!(args.platform().unwrap_err().code, Code::ApiUnknownPlatform);
    }
}
