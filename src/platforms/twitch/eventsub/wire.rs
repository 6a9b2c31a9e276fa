//! EventSub's JSON, read tolerantly. A daemon must not go blind because Twitch adds a field, a value or a message type.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::time::Timestamp;

/// What Twitch promises where a welcome does not say it.
const USUAL_KEEPALIVE_SECS: u64 = 10;

/// The condition of a subscription: whom it is about.
pub(super) type Condition = BTreeMap<String, String>;

/// A message that came over a socket.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    /// When Twitch sent it, where that can be read.
    pub(super) at: Option<Timestamp>,
    pub(super) body: Body,
}

/// What a message says.
#[derive(Debug)]
pub(super) enum Body {
    Welcome {
        session: String,
        keepalive_secs: u64,
    },
    Keepalive,
    Notification {
        kind: String,
        /// The event, whose shape depends on the kind.
        event: Box<RawValue>,
    },
    Reconnect {
        url: String,
    },
    Revocation(Told),
    /// A type that we do not know; it still proves that the line is alive.
    Unknown(String),
}

/// A subscription as messages and REST tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    #[serde(deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "lenient_condition")]
    pub(super) condition: Condition,
    #[serde(deserialize_with = "or_default")]
    pub(super) cost: u32,
    #[serde(deserialize_with = "or_default")]
    pub(super) transport: Transport,
}

/// Where a subscription delivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Transport {
    #[serde(deserialize_with = "or_default")]
    pub(super) session_id: String,
}

/// The answer to creating or listing subscriptions.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) data: Vec<Told>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) total_cost: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) max_total_cost: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pagination {
    cursor: Option<String>,
}

impl Listed {
    pub(super) fn cursor(&self) -> Option<&str> {
        self.pagination
            .cursor
            .as_deref()
            .filter(|cursor| !cursor.is_empty())
    }
}

/// Reads a message; `None` when it is not one.
pub(super) fn read(text: &str) -> Option<Message> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        metadata: Metadata,
        #[serde(borrow, default)]
        payload: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default, deserialize_with = "or_default")]
        message_id: String,
        message_type: String,
        #[serde(default, deserialize_with = "or_default")]
        message_timestamp: String,
        #[serde(default, deserialize_with = "or_default")]
        subscription_type: Option<String>,
    }
    #[derive(Deserialize)]
    struct OfSession {
        session: SessionTold,
    }
    #[derive(Deserialize)]
    struct SessionTold {
        #[serde(default, deserialize_with = "or_default")]
        id: String,
        #[serde(default, deserialize_with = "or_default")]
        keepalive_timeout_seconds: Option<u64>,
        #[serde(default, deserialize_with = "or_default")]
        reconnect_url: Option<String>,
    }
    #[derive(Deserialize)]
    struct OfEvent {
        #[serde(default, deserialize_with = "or_default")]
        subscription: Told,
        event: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct OfSubscription {
        subscription: Told,
    }

    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let payload = envelope.payload.map_or("{}", RawValue::get);
    let metadata = envelope.metadata;
    let unknown = |kind: String| Body::Unknown(kind);
    let body = match metadata.message_type.as_str() {
        "session_welcome" => {
            let told: OfSession = serde_json::from_str(payload).ok()?;
            Body::Welcome {
                session: told.session.id,
                keepalive_secs: told
                    .session
                    .keepalive_timeout_seconds
                    .filter(|seconds| *seconds > 0)
                    .unwrap_or(USUAL_KEEPALIVE_SECS),
            }
        }
        "session_keepalive" => Body::Keepalive,
        "session_reconnect" => {
            let told: OfSession = serde_json::from_str(payload).ok()?;
            match told.session.reconnect_url {
                Some(url) => Body::Reconnect { url },
                None => unknown("session_reconnect without an address".to_owned()),
            }
        }
        "notification" => match serde_json::from_str::<OfEvent>(payload) {
            Ok(told) => Body::Notification {
                kind: metadata
                    .subscription_type
                    .filter(|kind| !kind.is_empty())
                    .unwrap_or(told.subscription.kind),
                event: told.event,
            },
            Err(_) => unknown("notification without an event".to_owned()),
        },
        "revocation" => match serde_json::from_str::<OfSubscription>(payload) {
            Ok(told) => Body::Revocation(told.subscription),
            Err(_) => unknown("revocation of nothing".to_owned()),
        },
        other => unknown(other.chars().take(60).collect()),
    };
    Some(Message {
        id: metadata.message_id,
        at: metadata.message_timestamp.parse().ok(),
        body,
    })
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Default + serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Conditions hold texts; whatever else may come one day is left out.
fn lenient_condition<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
    let value: BTreeMap<String, serde_json::Value> = or_default(deserializer)?;
    Ok(value
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        // Empty ones are the same as absent ones: some servers list every key there could be.
        .filter(|(_, value)| !value.is_empty())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, payload: &str) -> String {
        format!(
            r#"{{"metadata":{{"message_id":"m","message_type":"{kind}","message_timestamp":"2026-05-01T18:00:00.000000001Z",
            "subscription_type":"stream.online","novelty":1}},"payload":{payload}}}"#
        )
    }

    #[test]
    fn every_documented_message_is_read() {
        let welcome = message(
            "session_welcome",
            r#"{"session":{"id":"AgoS","status":"connected","keepalive_timeout_seconds":30,"reconnect_url":null,
            "recovery_url":null}}"#,
        );
        let told = read(&welcome).unwrap();
        assert!(matches!(told.body, Body::Welcome { ref session, keepalive_secs: 30 } if session == "AgoS"));
        assert_eq!(told.at.unwrap().to_string(), "2026-05-01T18:00:00.000Z");
        assert!(matches!(
            read(&message("session_keepalive", "{}")).unwrap().body,
            Body::Keepalive
        ));
        for keepalive in ["0", "null", "\"soon\"", "-3"] {
            let odd = message(
                "session_welcome",
                &format!(r#"{{"session":{{"id":"A","keepalive_timeout_seconds":{keepalive}}}}}"#),
            );
            let told = read(&odd).unwrap().body;
            assert!(
                matches!(
                    told,
                    Body::Welcome {
                        keepalive_secs: 10,
                        ..
                    }
                ),
                "{keepalive}"
            );
        }
        let moving = message(
            "session_reconnect",
            r#"{"session":{"id":"A","keepalive_timeout_seconds":null,"reconnect_url":"wss://x/ws?a=b"}}"#,
        );
        assert!(matches!(read(&moving).unwrap().body, Body::Reconnect { url } if url == "wss://x/ws?a=b"));
        let event = message(
            "notification",
            r#"{"subscription":{"id":"s","cost":1,"condition":{"broadcaster_user_id":"1"}},"event":{"id":"4"}}"#,
        );
        assert!(
            matches!(read(&event).unwrap().body, Body::Notification { kind, .. } if kind == "stream.online")
        );
        let revocation = message(
            "revocation",
            r#"{"subscription":{"id":"s","status":"novel_status","type":"stream.online","condition":{"user_id":"7"}}}"#,
        );
        let Body::Revocation(told) = read(&revocation).unwrap().body else {
            panic!("a revocation");
        };
        assert_eq!(
            (told.status.as_str(), told.condition["user_id"].as_str()),
            ("novel_status", "7")
        );
    }

    #[test]
    fn what_is_new_is_unknown_and_not_an_error() {
        for text in [
            message("session_novelty", r#"{"mood":"curious"}"#),
            message("notification", r#"{"events":[{"id":"1","data":{}}]}"#),
            message("session_reconnect", r#"{"session":{"id":"A"}}"#),
            message("revocation", "{}"),
            r#"{"metadata":{"message_type":"novel"}}"#.to_owned(),
        ] {
            assert!(matches!(read(&text).unwrap().body, Body::Unknown(_)), "{text}");
        }
        for text in ["", "{}", "hello", r#"{"metadata":{}}"#] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn members_may_be_null_and_come_in_any_order() {
        let text = r#"{"payload":{"event":{"id":"4"},"subscription":{"type":"stream.online","id":null,"status":null}},
            "metadata":{"subscription_type":null,"message_timestamp":null,"message_type":"notification","message_id":null}}"#;
        let told = read(text).unwrap();
        assert!(told.id.is_empty() && told.at.is_none());
        assert!(matches!(told.body, Body::Notification { kind, .. } if kind == "stream.online"));
    }

    #[test]
    fn lists_are_read_with_null_and_missing_fields() {
        let listed: Listed = serde_json::from_str(
            r#"{"data":[{"id":"1","type":"a","condition":{"x":"1","y":"","z":null,"n":3},"cost":null,"transport":null}],
            "total":"many","total_cost":null,"pagination":null}"#,
        )
        .unwrap();
        assert_eq!(
            listed.data[0].condition,
            Condition::from([("x".to_owned(), "1".to_owned())])
        );
        assert_eq!((listed.total_cost, listed.cursor()), (None, None));
    }
}
