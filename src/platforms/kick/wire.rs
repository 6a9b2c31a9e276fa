//! Kick's answers, as far as we read them. Unknown fields are ignored, `null` is absent, ids may be text, and secrets that come
//! unasked (`stream.key`, `email`) have no field to land in.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::platforms::lenient::{count, flag, id, lenient, text, whole};

/// Every answer of the API.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
    #[serde(default, deserialize_with = "text")]
    message: String,
}

/// Returns a list in an answer. Kick is written in Go, where an empty list may well be sent as `null`: with its `OK` that is one,
/// without it proves nothing. One thing that was asked for alone may come without a list around it.
pub(super) fn items(told: Envelope<Value>) -> Option<Vec<Value>> {
    match told.data {
        Value::Array(items) => Some(items),
        Value::Null => told.message.eq_ignore_ascii_case("ok").then(Vec::new),
        one => Some(vec![one]),
    }
}

/// Something that stands in the envelope or, where a server knows the OAuth standard better than Kick, without one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Enveloped<T> {
    In(Envelope<T>),
    Bare(T),
}

impl<T> Enveloped<T> {
    /// Returns it.
    pub(super) fn open(self) -> T {
        match self {
            Self::In(envelope) => envelope.data,
            Self::Bare(bare) => bare,
        }
    }
}

/// `POST /oauth/token`. The documentation prints `expires_in` as a text, real answers are numbers.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    #[serde(default, deserialize_with = "whole")]
    pub(super) expires_in: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) refresh_token: Option<String>,
    #[serde(default, deserialize_with = "scopes")]
    pub(super) scope: Option<BTreeSet<String>>,
}

/// `POST /oauth/token/introspect`. Of an inactive token only that is told.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Introspected {
    /// Required: silence about it must not pass for a dead token.
    #[serde(deserialize_with = "flag")]
    pub(super) active: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) client_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) token_type: Option<String>,
    #[serde(default, deserialize_with = "scopes")]
    pub(super) scope: Option<BTreeSet<String>>,
    /// The end in Unix seconds, where `expires_in` elsewhere is a duration.
    #[serde(default, deserialize_with = "whole")]
    pub(super) exp: Option<i64>,
}

/// `GET /public/v1/users`.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    #[serde(deserialize_with = "id")]
    pub(super) user_id: u64,
    #[serde(default, deserialize_with = "text")]
    pub(super) name: String,
}

/// `GET /public/v1/channels`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Channel {
    #[serde(deserialize_with = "id")]
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

/// The stream in a channel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelStream {
    #[serde(deserialize_with = "flag")]
    pub(super) is_live: Option<bool>,
}

/// A category; empty when unset.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Category {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
}

/// A live stream, as `GET /public/v1/users/livestreams` or the older `GET /public/v1/livestreams` tells it: their fields have
/// different names.
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
    #[serde(deserialize_with = "id")]
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
    #[serde(deserialize_with = "id")]
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
            EitherLivestream::Current(told) => Self {
                broadcaster: told.broadcaster_user.id,
                username: told.broadcaster_user.username,
                id: told.id,
                started_at: told.started_at,
                title: told.title,
                viewer_count: told.viewer_count,
                category: told.category,
                slug: told.channel.map(|channel| channel.slug).unwrap_or_default(),
            },
            EitherLivestream::Older(told) => Self {
                broadcaster: told.broadcaster_user_id,
                username: String::new(),
                id: String::new(),
                started_at: told.started_at,
                title: told.stream_title,
                viewer_count: told.viewer_count,
                category: told.category,
                slug: told.slug,
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
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(deserialize_with = "id")]
    pub(super) broadcaster_user_id: u64,
    pub(super) event: String,
}

/// One item of the answer to `POST /public/v1/events/subscriptions`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    #[serde(default, deserialize_with = "text")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) subscription_id: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) error: String,
}

/// Reads scopes, which are one text with blanks between; a list of them is understood too. Absent where nothing is told.
fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeSet<String>>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    fn scopes_are_one_text_or_a_list_and_silence_about_them_is_not_none() {
        let both: BTreeSet<String> = ["chat:write".to_owned(), "user:read".to_owned()].into();
        for (value, expected) in [
            (json!("user:read chat:write"), Some(both.clone())),
            (json!(["user:read", "chat:write"]), Some(both)),
            (json!(""), Some(BTreeSet::new())),
            (json!(null), None),
        ] {
            let told: Introspected = serde_json::from_value(json!({"active": true, "scope": value})).unwrap();
            assert_eq!(told.scope, expected);
        }
    }

    #[test]
    fn an_examination_is_read_with_and_without_envelope_and_never_guessed() {
        let active = |value: Value| {
            serde_json::from_value::<Enveloped<Introspected>>(value)
                .ok()
                .and_then(|told| told.open().active)
        };
        assert_eq!(
            active(json!({"data": {"active": true}, "message": "OK"})),
            Some(true)
        );
        assert_eq!(active(json!({"active": false})), Some(false));
        for nothing in [
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
    fn an_empty_list_may_be_null_and_a_single_thing_may_stand_alone() {
        for (answer, expected) in [
            (json!({"data": [], "message": "OK"}), Some(0)),
            (json!({"data": null, "message": "OK"}), Some(0)),
            (json!({"data": null, "message": "Internal server error"}), None),
            (json!({"data": null}), None),
            (json!({"data": {"user_id": 7}}), Some(1)),
        ] {
            let told = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(items(told).map(|items| items.len()), expected, "{answer}");
        }
    }
}
