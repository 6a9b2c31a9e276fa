//! Parses EventSub's JSON tolerantly. A daemon must keep receiving when Twitch adds a field, a value or a message type.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::wire::Pagination;
use crate::core::json::{read_object, repair_text};
use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::{self, Rows, id_of, or_default};

/// The keepalive timeout if a welcome does not specify it.
const USUAL_KEEPALIVE_SECS: u64 = 10;

/// Times before this one of 2011 (Unix milliseconds) are placeholders, such as Go's zero time in the year 1.
const FIRST_TIME: i64 = 1_293_840_000_000;

/// The condition of a subscription: whom it is about.
pub(super) type Condition = BTreeMap<String, String>;

/// A message received over a socket.
#[derive(Debug)]
pub(super) struct Message {
    pub(in crate::platforms::twitch) id: String,
    /// When Twitch sent it, if that can be parsed.
    pub(super) at: Option<Timestamp>,
    pub(super) body: Body,
}

/// The content of a message.
#[derive(Debug)]
pub(super) enum Body {
    Welcome {
        session: String,
        keepalive_secs: u64,
    },
    Keepalive,
    Notification {
        kind: String,
        /// The channel in the subscription's condition.
        channel: Option<String>,
        /// The event, whose format depends on the type.
        event: Box<RawValue>,
    },
    Reconnect {
        url: String,
    },
    Revocation(SubscriptionInfo),
    /// An unknown type; it still proves that the connection is alive.
    Unknown(String),
    /// A notification whose event cannot be parsed: something happened, but what is lost.
    Unreadable {
        /// The type of the subscription, if it can be parsed.
        kind: String,
    },
}

/// A subscription as described in messages and by REST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::platforms::twitch) struct SubscriptionInfo {
    #[serde(deserialize_with = "lenient::text")]
    pub(in crate::platforms::twitch) id: String,
    #[serde(deserialize_with = "lenient::text")]
    pub(in crate::platforms::twitch) status: String,
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    pub(in crate::platforms::twitch) kind: String,
    #[serde(deserialize_with = "lenient_condition")]
    pub(super) condition: Condition,
    #[serde(deserialize_with = "or_default")]
    pub(super) cost: u32,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::platforms::twitch) transport: Transport,
}

/// Where a subscription delivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::platforms::twitch) struct Transport {
    #[serde(deserialize_with = "or_default")]
    pub(super) session_id: String,
    /// The address of a webhook.
    #[serde(deserialize_with = "lenient::text")]
    pub(in crate::platforms::twitch) callback: String,
}

/// The answer to creating or listing subscriptions.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) data: Rows<SubscriptionInfo>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) total_cost: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) max_total_cost: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) pagination: Pagination,
}

/// Parses a message; `None` if it is invalid.
pub(super) fn read(text: &str) -> Option<Message> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        metadata: Metadata,
        #[serde(borrow, default)]
        payload: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default, deserialize_with = "lenient::text")]
        message_id: String,
        message_type: String,
        #[serde(default, deserialize_with = "lenient::text")]
        message_timestamp: String,
        #[serde(default, deserialize_with = "lenient::text")]
        subscription_type: String,
    }
    #[derive(Deserialize)]
    struct OfSession {
        session: SessionInfo,
    }
    #[derive(Deserialize)]
    struct SessionInfo {
        #[serde(default, deserialize_with = "lenient::text")]
        id: String,
        #[serde(default, deserialize_with = "lenient::count")]
        keepalive_timeout_seconds: Option<u64>,
        #[serde(default, deserialize_with = "or_default")]
        reconnect_url: Option<String>,
    }
    #[derive(Deserialize)]
    struct OfEvent {
        #[serde(default, deserialize_with = "or_default")]
        subscription: SubscriptionInfo,
        event: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct OfSubscription {
        subscription: SubscriptionInfo,
    }

    let text = repair_text(text);
    let envelope: Envelope<'_> = read_object(&text).ok()?;
    let payload = envelope.payload.map_or("{}", RawValue::get);
    let metadata = envelope.metadata;
    let unknown = |kind: String| Body::Unknown(kind);
    let body = match metadata.message_type.as_str() {
        "session_welcome" => {
            let parsed: OfSession = serde_json::from_str(payload).ok()?;
            Body::Welcome {
                session: parsed.session.id,
                keepalive_secs: parsed
                    .session
                    .keepalive_timeout_seconds
                    .filter(|seconds| *seconds > 0)
                    .unwrap_or(USUAL_KEEPALIVE_SECS),
            }
        }
        "session_keepalive" => Body::Keepalive,
        "session_reconnect" => {
            let parsed: OfSession = serde_json::from_str(payload).ok()?;
            match parsed.session.reconnect_url {
                Some(url) => Body::Reconnect { url },
                None => unknown("session_reconnect without an address".to_owned()),
            }
        }
        "notification" => match serde_json::from_str::<OfEvent>(payload) {
            Ok(mut parsed) => Body::Notification {
                kind: Some(metadata.subscription_type)
                    .filter(|kind| !kind.is_empty())
                    .unwrap_or(parsed.subscription.kind),
                channel: parsed.subscription.condition.remove("broadcaster_user_id"),
                event: parsed.event,
            },
            Err(_) => Body::Unreadable {
                kind: metadata.subscription_type,
            },
        },
        "revocation" => match serde_json::from_str::<OfSubscription>(payload) {
            Ok(parsed) => Body::Revocation(parsed.subscription),
            Err(_) => unknown("revocation of nothing".to_owned()),
        },
        other => unknown(other.chars().take(60).collect()),
    };
    Some(Message {
        id: metadata.message_id,
        at: metadata
            .message_timestamp
            .parse()
            .ok()
            .filter(|at| is_a_time(*at)),
        body,
    })
}

fn is_a_time(at: Timestamp) -> bool {
    at.millis_since(Timestamp::EPOCH) >= FIRST_TIME
}

/// Conditions contain strings; any other values are skipped.
fn lenient_condition<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
    let value: BTreeMap<String, serde_json::Value> = or_default(deserializer)?;
    Ok(value
        .into_iter()
        // Empty values are treated as absent: some servers list every possible key.
        .filter_map(|(key, value)| Some((key, id_of(&value)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platforms::kit::lenient::odd;

    fn message(kind: &str, payload: &str) -> String {
        format!(
            r#"{{"metadata":{{"message_id":"m","message_type":"{kind}","message_timestamp":"2026-05-01T18:00:00.000000001Z",
            "subscription_type":"stream.online","novelty":1}},"payload":{payload}}}"#
        )
    }

    #[test]
    fn odd_value_costs_at_most_its_message() {
        let payload = json!({"subscription": {"id": "s", "status": "enabled", "type": "stream.online", "cost": 0,
            "condition": {"broadcaster_user_id": "1"}, "transport": {"session_id": "A"}},
            "event": {"id": "4", "type": "live", "started_at": "2026-05-01T18:00:00Z"}});
        for odd in odd::variants(&payload) {
            let parsed = read(&message("notification", &odd)).unwrap_or_else(|| panic!("{odd}"));
            assert!(
                matches!(parsed.body, Body::Notification { .. } | Body::Unreadable { .. }),
                "{odd}: {:?}",
                parsed.body
            );
        }
        let metadata =
            json!({"message_id": "m", "message_timestamp": "2026-05-01T18:00:00Z", "subscription_type": "x"});
        for odd in odd::variants(&metadata) {
            let metadata = odd.replacen('{', r#"{"message_type":"session_keepalive","#, 1);
            let text = format!(r#"{{"metadata":{metadata},"payload":{{}}}}"#);
            assert!(matches!(read(&text).unwrap().body, Body::Keepalive), "{text}");
        }
        let row = json!({"id": "1", "status": "enabled", "type": "a", "condition": {"x": "1"}, "cost": 1,
            "transport": {"method": "websocket", "session_id": "A"}});
        for odd in odd::variants(&row) {
            let body = format!(r#"{{"data":[{odd},{row}],"total_cost":1}}"#);
            let listed: Listed =
                crate::core::json::read(body.as_bytes()).unwrap_or_else(|error| panic!("{odd}: {error}"));
            assert!(!listed.data.read.is_empty(), "{odd}");
        }
    }

    #[test]
    fn every_documented_message_is_read() {
        let welcome = message(
            "session_welcome",
            r#"{"session":{"id":"AgoS","status":"connected","keepalive_timeout_seconds":30,"reconnect_url":null,
            "recovery_url":null}}"#,
        );
        let parsed = read(&welcome).unwrap();
        assert!(
            matches!(parsed.body, Body::Welcome { ref session, keepalive_secs: 30 } if session == "AgoS")
        );
        assert_eq!(parsed.at.unwrap().to_string(), "2026-05-01T18:00:00.000Z");
        assert!(matches!(
            read(&message("session_keepalive", "{}")).unwrap().body,
            Body::Keepalive
        ));
        for keepalive in ["0", "null", "\"soon\"", "-3"] {
            let odd = message(
                "session_welcome",
                &format!(r#"{{"session":{{"id":"A","keepalive_timeout_seconds":{keepalive}}}}}"#),
            );
            let parsed = read(&odd).unwrap().body;
            assert!(
                matches!(
                    parsed,
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
        let Body::Revocation(parsed) = read(&revocation).unwrap().body else {
            panic!("a revocation");
        };
        assert_eq!(
            (parsed.status.as_str(), parsed.condition["user_id"].as_str()),
            ("novel_status", "7")
        );
    }

    #[test]
    fn placeholder_time_is_no_message_timestamp() {
        for time in [
            "0001-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
        ] {
            let text = message("session_keepalive", "{}").replace("2026-05-01T18:00:00.000000001Z", time);
            assert_eq!(read(&text).unwrap().at, None, "{time}");
        }
        assert!(read(&message("session_keepalive", "{}")).unwrap().at.is_some());
    }

    #[test]
    fn what_is_new_is_unknown_and_not_an_error() {
        for text in [
            message("session_novelty", r#"{"mood":"curious"}"#),
            message("session_reconnect", r#"{"session":{"id":"A"}}"#),
            message("revocation", "{}"),
            r#"{"metadata":{"message_type":"novel"}}"#.to_owned(),
        ] {
            assert!(matches!(read(&text).unwrap().body, Body::Unknown(_)), "{text}");
        }
        let eventless = message("notification", r#"{"events":[{"id":"1","data":{}}]}"#);
        assert!(
            matches!(read(&eventless).unwrap().body, Body::Unreadable { kind } if kind == "stream.online")
        );
        for text in [
            "",
            "{}",
            "hello",
            r#"{"metadata":{}}"#,
            r#"[{"message_type":"session_keepalive"}]"#,
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn members_may_be_null_and_come_in_any_order() {
        let text = r#"{"payload":{"event":{"id":"4"},"subscription":{"type":"stream.online","id":null,"status":null}},
            "metadata":{"subscription_type":null,"message_timestamp":null,"message_type":"notification","message_id":null}}"#;
        let parsed = read(text).unwrap();
        assert!(parsed.id.is_empty() && parsed.at.is_none());
        assert!(matches!(parsed.body, Body::Notification { kind, .. } if kind == "stream.online"));
    }

    #[test]
    fn lists_are_read_with_null_and_missing_fields() {
        let listed: Listed = serde_json::from_str(
            r#"{"data":[{"id":"1","type":"a","condition":{"x":"1","y":"","z":null,"n":3},"cost":null,"transport":null}],
            "total":"many","total_cost":null,"pagination":null}"#,
        )
        .unwrap();
        assert_eq!(
            listed.data.read[0].condition,
            Condition::from([("n".to_owned(), "3".to_owned()), ("x".to_owned(), "1".to_owned())])
        );
        assert_eq!((listed.total_cost, listed.pagination.cursor), (None, None));
    }
}
