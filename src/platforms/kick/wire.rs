//! Kick's answers, as far as we read them. Unknown fields are ignored, and secrets that come unasked (`stream.key`,
//! `email`) have no field to land in.

use serde::{Deserialize, Deserializer};

/// Every answer of the API.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) data: T,
}

/// `POST /oauth/token`. The documentation prints `expires_in` as a text, real answers are numbers.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) expires_in: Option<i64>,
    #[serde(default)]
    pub(super) refresh_token: Option<String>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

/// `POST /oauth/token/introspect`. Of an inactive token only that is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Introspected {
    pub(super) active: bool,
    pub(super) client_id: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) scope: Option<String>,
    /// The end in Unix seconds, where `expires_in` elsewhere is a duration.
    #[serde(deserialize_with = "number")]
    pub(super) exp: Option<i64>,
}

/// `GET /public/v1/users`.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) user_id: u64,
    #[serde(default)]
    pub(super) name: String,
}

/// `GET /public/v1/channels`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Channel {
    pub(super) broadcaster_user_id: u64,
    #[serde(default)]
    pub(super) slug: String,
    #[serde(default)]
    pub(super) stream_title: Option<String>,
    #[serde(default)]
    pub(super) category: Option<Category>,
    #[serde(default)]
    pub(super) stream: Option<ChannelStream>,
}

/// The stream in a channel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelStream {
    pub(super) is_live: bool,
}

/// A category; empty when unset.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Category {
    pub(super) name: String,
}

/// `GET /public/v1/users/livestreams`. Its names differ from the older list's.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Livestream {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) started_at: String,
    #[serde(default)]
    pub(super) viewer_count: Option<u64>,
    pub(super) broadcaster_user: Broadcaster,
    #[serde(default)]
    pub(super) category: Option<Category>,
    #[serde(default)]
    pub(super) channel: Option<Slug>,
}

/// Whose livestream it is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Broadcaster {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) username: String,
}

/// The channel of a livestream.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Slug {
    #[serde(default)]
    pub(super) slug: String,
}

/// `GET /public/v1/public-key`.
#[derive(Debug, Deserialize)]
pub(super) struct PublicKeyText {
    pub(super) public_key: String,
}

/// `GET /public/v1/events/subscriptions`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) broadcaster_user_id: u64,
    pub(super) event: String,
}

/// One item of the answer to `POST /public/v1/events/subscriptions`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) error: Option<String>,
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
        Nothing,
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Number(number) => Some(number),
        Either::Text(text) => text.trim().parse().ok(),
        Either::Nothing => None,
    })
}

/// Splits the scopes of an answer, which are one text with blanks between.
pub(super) fn scopes(text: Option<&str>) -> std::collections::BTreeSet<String> {
    text.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_number_text_or_nothing() {
        for (body, expected) in [
            (r#"{"access_token":"a","expires_in":7200}"#, Some(7200)),
            (r#"{"access_token":"a","expires_in":"7200"}"#, Some(7200)),
            (r#"{"access_token":"a","expires_in":null}"#, None),
            (r#"{"access_token":"a"}"#, None),
        ] {
            let granted: Granted = serde_json::from_str(body).unwrap();
            assert_eq!(granted.expires_in, expected, "{body}");
        }
    }

    #[test]
    fn unknown_fields_and_missing_ones_are_no_failure() {
        let stream: Livestream =
            serde_json::from_str(r#"{"broadcaster_user":{"id":7,"new":{}},"newer":[1],"category":null}"#)
                .unwrap();
        assert_eq!((stream.broadcaster_user.id, stream.viewer_count), (7, None));
    }
}
