//! Kick's responses, as far as they are used. Unknown fields are ignored, `null` is absent, ids may be text, and secrets that are
//! sent without being requested (`stream.key`, `email`) have no field.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::{count, id_of, id_text, lenient, positive_id, text, texts, whole};

/// Envelope of every response of the API.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
    #[serde(default, deserialize_with = "text")]
    message: String,
}

/// Returns the rows in a response. A single requested object may be sent without a list around it. `null` is no list: without
/// Kick's `OK` the whole response is none, with it a row that cannot be parsed, so that it does not prove that nothing is listed.
pub(super) fn items(parsed: Envelope<Value>) -> Option<Vec<Value>> {
    match parsed.data {
        Value::Array(items) => Some(items),
        Value::Null if !parsed.message.eq_ignore_ascii_case("ok") => None,
        one => Some(vec![one]),
    }
}

/// Returns the user id of a row that cannot be parsed otherwise.
pub(super) fn subject_of(row: &Value) -> Option<u64> {
    let id = row
        .get("broadcaster_user_id")
        .or_else(|| row.get("broadcaster_user")?.get("id"))
        .or_else(|| row.get("user_id"))?;
    id_of(id)?.parse().ok().filter(|id| *id > 0)
}

/// A value in the envelope or, from a server that stands in for Kick, without one. Only for values that cannot be confused with
/// another server's.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Enveloped<T> {
    In(Envelope<T>),
    Bare(T),
}

impl<T> Enveloped<T> {
    /// Returns the value.
    pub(super) fn open(self) -> T {
        match self {
            Self::In(envelope) => envelope.data,
            Self::Bare(bare) => bare,
        }
    }
}

/// `POST /oauth/token/introspect`. For an inactive token only `active` is sent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Introspected {
    /// Required: neither its absence nor another type must be treated as an inactive or a valid token.
    #[serde(deserialize_with = "lenient")]
    pub(super) active: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) client_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) token_type: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    pub(super) scope: Option<BTreeSet<String>>,
    /// The expiry in Unix seconds, where `expires_in` elsewhere is a duration.
    #[serde(default, deserialize_with = "whole")]
    pub(super) exp: Option<i64>,
}

impl Introspected {
    /// Parses the result in a response.
    pub(super) fn of(envelope: Envelope<Value>) -> Result<Self, String> {
        // Otherwise the members of a list would be parsed as the fields in their order.
        if !envelope.data.is_object() {
            return Err("the answer does not describe a token".to_owned());
        }
        serde_json::from_value(envelope.data).map_err(|error| error.to_string())
    }

    /// Returns when the token expires; an implausible time is none.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        let exp = self.exp.filter(|exp| *exp > 1_000_000_000)?;
        Some(Timestamp::from_millis(exp.saturating_mul(1000)))
    }
}

/// `GET /public/v1/users`.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    #[serde(deserialize_with = "positive_id")]
    pub(super) user_id: u64,
    #[serde(default, deserialize_with = "text")]
    pub(super) name: String,
}

/// `GET /public/v1/channels`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Channel {
    #[serde(deserialize_with = "positive_id")]
    pub(super) broadcaster_user_id: u64,
    #[serde(default, deserialize_with = "text")]
    pub(super) slug: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) stream_title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) category: Option<Category>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) stream: Option<ChannelStream>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelStream {
    #[serde(deserialize_with = "lenient")]
    pub(super) is_live: Option<bool>,
    /// When it started; empty or Go's zero time when it is not live.
    #[serde(deserialize_with = "text")]
    pub(super) start_time: String,
}

/// A category; empty when unset.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Category {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
}

/// A live stream in `GET /public/v1/users/livestreams` or the older `GET /public/v1/livestreams`, whose field names differ.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "EitherLivestream")]
pub(super) struct Livestream {
    pub(super) broadcaster: u64,
    /// Empty in the older list.
    pub(super) username: String,
    /// The stream's own id; empty in the older list.
    pub(super) id: String,
    pub(super) started_at: String,
    pub(super) title: Option<String>,
    pub(super) viewer_count: Option<u64>,
    pub(super) category: Option<Category>,
    pub(super) slug: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EitherLivestream {
    Current(CurrentLivestream),
    Older(OlderLivestream),
}

#[derive(Deserialize)]
struct CurrentLivestream {
    #[serde(default, deserialize_with = "text")]
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "text")]
    started_at: String,
    #[serde(default, deserialize_with = "count")]
    viewer_count: Option<u64>,
    broadcaster_user: Broadcaster,
    #[serde(default, deserialize_with = "lenient")]
    category: Option<Category>,
    #[serde(default, deserialize_with = "lenient")]
    channel: Option<Slug>,
}

#[derive(Deserialize)]
struct OlderLivestream {
    #[serde(deserialize_with = "positive_id")]
    broadcaster_user_id: u64,
    #[serde(default, deserialize_with = "lenient")]
    stream_title: Option<String>,
    #[serde(default, deserialize_with = "text")]
    started_at: String,
    #[serde(default, deserialize_with = "count")]
    viewer_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    category: Option<Category>,
    #[serde(default, deserialize_with = "text")]
    slug: String,
}

#[derive(Deserialize)]
struct Broadcaster {
    #[serde(deserialize_with = "positive_id")]
    id: u64,
    #[serde(default, deserialize_with = "text")]
    username: String,
}

#[derive(Deserialize)]
struct Slug {
    #[serde(default, deserialize_with = "text")]
    slug: String,
}

impl From<EitherLivestream> for Livestream {
    fn from(either: EitherLivestream) -> Self {
        match either {
            EitherLivestream::Current(parsed) => Self {
                broadcaster: parsed.broadcaster_user.id,
                username: parsed.broadcaster_user.username,
                id: parsed.id,
                started_at: parsed.started_at,
                title: parsed.title,
                viewer_count: parsed.viewer_count,
                category: parsed.category,
                slug: parsed.channel.map(|channel| channel.slug).unwrap_or_default(),
            },
            EitherLivestream::Older(parsed) => Self {
                broadcaster: parsed.broadcaster_user_id,
                username: String::new(),
                id: String::new(),
                started_at: parsed.started_at,
                title: parsed.stream_title,
                viewer_count: parsed.viewer_count,
                category: parsed.category,
                slug: parsed.slug,
            },
        }
    }
}

/// `GET /public/v1/public-key`.
#[derive(Debug, Deserialize)]
pub(super) struct PublicKeyText {
    pub(super) public_key: String,
}

/// `GET /public/v1/events/subscriptions`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Subscription {
    #[serde(deserialize_with = "id_text")]
    pub(super) id: String,
    #[serde(deserialize_with = "positive_id")]
    pub(super) broadcaster_user_id: u64,
    pub(super) event: String,
}

/// One item of the response to `POST /public/v1/events/subscriptions`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    #[serde(default, deserialize_with = "text")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) error: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platforms::kit::lenient::odd;
    use crate::platforms::kit::oauth::Granted;

    /// Parses a response as received.
    fn read<T: serde::de::DeserializeOwned>(body: &str) -> serde_json::Result<T> {
        crate::core::json::read(body.as_bytes())
    }

    #[test]
    fn odd_value_costs_at_most_its_row() {
        fn others<T: serde::de::DeserializeOwned>(row: &Value) {
            for odd in odd::variants(row) {
                let body = format!(r#"{{"data":[{odd},{row}],"message":"OK"}}"#);
                let parsed: Envelope<Value> = read(&body).unwrap_or_else(|error| panic!("{odd}: {error}"));
                let rows = items(parsed).unwrap();
                assert_eq!(rows.len(), 2, "{odd}");
                assert!(T::deserialize(&rows[1]).is_ok(), "{odd}");
            }
        }
        others::<Livestream>(
            &json!({"id": "6f1c", "title": "T", "started_at": "2026-06-01T11:00:00Z",
            "viewer_count": 42, "broadcaster_user": {"id": 7, "username": "Ada"}, "category": {"name": "Art"},
            "channel": {"slug": "ada"}}),
        );
        others::<Livestream>(
            &json!({"broadcaster_user_id": 7, "slug": "ada", "stream_title": "T",
            "started_at": "2026-06-01T11:00:00Z", "viewer_count": 42, "category": {"id": 3, "name": "Art"}}),
        );
        others::<Channel>(
            &json!({"broadcaster_user_id": 7, "slug": "ada", "stream_title": "T",
            "category": {"id": 3, "name": "Art"}, "stream": {"is_live": true, "viewer_count": 4}}),
        );
        others::<User>(&json!({"user_id": 7, "name": "Ada"}));
        others::<Subscription>(&json!({"id": "1", "broadcaster_user_id": 7, "event": "x"}));
        for odd in odd::variants(
            &json!({"client_id": "a", "token_type": "user", "scope": "a b", "exp": 1_800_000_000}),
        ) {
            let body = odd.replacen('{', r#"{"active":true,"#, 1);
            let body = format!(r#"{{"data":{body},"message":"OK"}}"#);
            let parsed = read(&body).unwrap_or_else(|error| panic!("{body}: {error}"));
            assert_eq!(Introspected::of(parsed).unwrap().active, Some(true), "{body}");
        }
        for odd in odd::variants(&json!({"expires_in": 5, "refresh_token": "r", "scope": "a b"})) {
            let body = odd.replacen('{', r#"{"access_token":"t","#, 1);
            assert!(read::<Granted>(&body).is_ok(), "{body}");
        }
    }

    #[test]
    fn times_are_read_as_number_text_or_nothing() {
        for (body, expected) in [
            (r#"{"access_token":"a","expires_in":7200}"#, Some(7200)),
            (r#"{"access_token":"a","expires_in":"7200"}"#, Some(7200)),
            (r#"{"access_token":"a","expires_in":7200.0}"#, Some(7200)),
            (
                r#"{"access_token":"a","expires_in":null,"refresh_token":null,"scope":null}"#,
                None,
            ),
            (r#"{"access_token":"a"}"#, None),
        ] {
            let granted: Granted = serde_json::from_str(body).unwrap();
            assert_eq!(granted.expires_in, expected, "{body}");
        }
    }

    #[test]
    fn scopes_parse_as_text_or_list_and_null_is_not_empty() {
        let both: BTreeSet<String> = ["chat:write".to_owned(), "user:read".to_owned()].into();
        for (value, expected) in [
            (json!("user:read chat:write"), Some(both.clone())),
            (json!(["user:read", "chat:write"]), Some(both)),
            (json!(""), Some(BTreeSet::new())),
            (json!(null), None),
        ] {
            let parsed: Introspected =
                serde_json::from_value(json!({"active": true, "scope": value})).unwrap();
            assert_eq!(parsed.scope, expected);
        }
    }

    #[test]
    fn introspection_without_the_envelope_says_nothing() {
        let active = |value: Value| {
            let parsed = serde_json::from_value::<Envelope<Value>>(value).ok()?;
            Introspected::of(parsed).ok()?.active
        };
        assert_eq!(
            active(json!({"data": {"active": true}, "message": "OK"})),
            Some(true)
        );
        assert_eq!(
            active(json!({"data": {"active": false}, "message": "OK"})),
            Some(false)
        );
        for nothing in [
            json!({"active": false}),
            json!({"active": true}),
            json!({"data": [true], "message": "OK"}),
            json!({"data": {}, "message": "OK"}),
            json!({}),
            json!({"data": null}),
            json!([]),
        ] {
            assert_eq!(active(nothing), None);
        }
    }

    #[test]
    fn unknown_fields_missing_ones_and_nulls_are_no_failure() {
        let least = json!({"broadcaster_user": {"id": 7, "new": {}}, "newer": [1]});
        let nulls = json!({"id": null, "title": null, "started_at": null, "viewer_count": null, "category": null,
            "channel": null, "broadcaster_user": {"id": "7", "username": null}});
        for value in [least, nulls] {
            let stream: Livestream = serde_json::from_value(value).unwrap();
            assert_eq!(
                (stream.broadcaster, stream.viewer_count, stream.id.as_str()),
                (7, None, "")
            );
        }
        let channel: Channel = serde_json::from_value(json!({"broadcaster_user_id": "7", "slug": null,
            "category": {"id": 0, "name": null}, "stream": {"is_live": null, "viewer_count": null}}))
        .unwrap();
        assert_eq!((channel.broadcaster_user_id, channel.slug.as_str()), (7, ""));
        let user: User = serde_json::from_value(json!({"user_id": 7, "name": null, "email": null})).unwrap();
        assert_eq!(user.name, "");
    }

    #[test]
    fn a_live_stream_reads_the_same_from_either_list() {
        let current = json!({"id": "6f1c", "title": "T", "started_at": "2026-06-01T11:00:00Z", "viewer_count": 42,
            "broadcaster_user": {"id": 7, "username": "Ada"}, "category": {"name": "Art"}, "channel": {"slug": "ada"}});
        let older = json!({"broadcaster_user_id": 7, "channel_id": 9, "slug": "ada", "stream_title": "T",
            "started_at": "2026-06-01T11:00:00Z", "viewer_count": "42", "category": {"name": "Art"}});
        for value in [current, older] {
            let stream: Livestream = serde_json::from_value(value).unwrap();
            assert_eq!(stream.broadcaster, 7);
            assert_eq!(
                (stream.title.as_deref(), stream.viewer_count, stream.slug.as_str()),
                (Some("T"), Some(42), "ada")
            );
            assert_eq!(stream.started_at, "2026-06-01T11:00:00Z");
        }
    }

    #[test]
    fn only_an_empty_list_lists_nothing() {
        for (answer, rows) in [
            (json!({"data": [], "message": "OK"}), Some(0)),
            (json!({"data": null, "message": "OK"}), Some(1)),
            (json!({"data": null, "message": "Internal server error"}), None),
            (json!({"data": null}), None),
            (json!({"data": "x", "message": "OK"}), Some(1)),
            (json!({"data": {}, "message": "OK"}), Some(1)),
            (json!({"data": {"user_id": 7}}), Some(1)),
        ] {
            let parsed = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(items(parsed).map(|items| items.len()), rows, "{answer}");
        }
        assert!(serde_json::from_value::<Envelope<Value>>(json!({"message": "OK"})).is_err());
    }
}
