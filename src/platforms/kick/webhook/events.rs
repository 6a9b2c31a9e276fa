//! Parses the body of a delivery. Pure.
//!
//! The type is in a header that is not signed, so a body counts only when it has that type's own fields. Unknown fields
//! are ignored; `livestream.metadata.updated` contains its category twice, with different names, and one is enough.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::core::json;
use crate::platforms::kit::lenient::{count, id_text, lenient, readable, text};

/// The start or end of a stream.
pub const STATUS: &str = "livestream.status.updated";
/// New title, category or language.
pub const METADATA: &str = "livestream.metadata.updated";
pub const CHAT: &str = "chat.message.sent";

/// An event, and the channel that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebhookEvent {
    pub(super) broadcaster: u64,
    pub(super) event: Event,
}

/// Content of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A stream has started or ended.
    Status {
        live: bool,
        /// A start without it gets the time of its delivery; the list of live streams has the rest.
        started_at: Option<String>,
        title: Option<String>,
    },
    /// Profile of a channel.
    Metadata {
        title: Option<String>,
        category: Option<String>,
    },
    /// A chat message was sent.
    Chat {
        message_id: String,
        sender: Option<u64>,
        badges: BTreeSet<String>,
    },
}

/// Why a body cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It has the fields of another type than the header names, which is not signed.
    OtherType,
    /// It lacks a required field.
    Incomplete,
}

#[derive(Deserialize)]
struct Person {
    #[serde(default, deserialize_with = "count")]
    user_id: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    identity: Option<Identity>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(default, deserialize_with = "readable")]
    badges: Vec<Badge>,
}

#[derive(Deserialize)]
struct Badge {
    r#type: String,
}

#[derive(Deserialize)]
struct Status {
    broadcaster: Person,
    /// A start or an end follows from it, so only a boolean counts.
    #[serde(deserialize_with = "lenient")]
    is_live: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    started_at: String,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    broadcaster: Person,
    metadata: About,
}

#[derive(Deserialize)]
struct About {
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    category: Option<Category>,
}

#[derive(Deserialize)]
struct Category {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Chat {
    broadcaster: Person,
    #[serde(deserialize_with = "id_text")]
    message_id: String,
    sender: Person,
}

/// Parses a body of type `kind`; `None` for a type that is not used.
pub(super) fn read(kind: &str, body: &[u8]) -> Option<Result<WebhookEvent, Unusable>> {
    let own = marks(kind)?;
    // The signature was checked over the bytes as received; invalid text encoding is no reason to refuse what Kick has sent.
    let Ok(value) = json::read::<Value>(body) else {
        return Some(Err(Unusable::Incomplete));
    };
    let has = |marks: &[&str]| marks.iter().all(|mark| value.get(mark).is_some());
    if !has(own) {
        let of_another = KINDS.iter().filter(|other| **other != kind);
        let is_another = of_another.filter_map(|other| marks(other)).any(has);
        return Some(Err(if is_another {
            Unusable::OtherType
        } else {
            Unusable::Incomplete
        }));
    }
    let event = match kind {
        STATUS => status(value),
        METADATA => metadata(value),
        _ => chat(value),
    };
    Some(event.ok_or(Unusable::Incomplete))
}

const KINDS: [&str; 3] = [STATUS, METADATA, CHAT];

/// The fields that identify a body of a type.
fn marks(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        STATUS => &["broadcaster", "is_live"],
        METADATA => &["broadcaster", "metadata"],
        CHAT => &["broadcaster", "sender", "message_id", "content"],
        _ => return None,
    })
}

fn status(value: Value) -> Option<WebhookEvent> {
    let body: Status = serde_json::from_value(value).ok()?;
    let live = body.is_live?;
    let started_at = Some(body.started_at.trim().to_owned()).filter(|start| !start.is_empty());
    Some(WebhookEvent {
        broadcaster: body.broadcaster.user_id?,
        event: Event::Status {
            live,
            started_at,
            title: body.title,
        },
    })
}

fn metadata(value: Value) -> Option<WebhookEvent> {
    let body: Metadata = serde_json::from_value(value).ok()?;
    Some(WebhookEvent {
        broadcaster: body.broadcaster.user_id?,
        event: Event::Metadata {
            title: body.metadata.title,
            category: body.metadata.category.and_then(|category| category.name),
        },
    })
}

fn chat(value: Value) -> Option<WebhookEvent> {
    let body: Chat = serde_json::from_value(value).ok()?;
    let badges = body.sender.identity.map(|identity| identity.badges);
    Some(WebhookEvent {
        broadcaster: body.broadcaster.user_id?,
        event: Event::Chat {
            message_id: body.message_id,
            sender: body.sender.user_id,
            badges: badges
                .unwrap_or_default()
                .into_iter()
                .map(|badge| badge.r#type)
                .collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"broadcaster":{"user_id":7,"new":1},"is_live":true,"title":"T",
        "started_at":"2026-06-01T11:00:00Z","ended_at":null,"surprise":{}}"#;
    const ABOUT: &str = r#"{"broadcaster":{"user_id":7},"metadata":{"title":"T","language":"en",
        "category":{"id":1,"name":"Art"},"Category":{"id":1,"name":"Art"}}}"#;
    const LINE: &str = r#"{"broadcaster":{"user_id":7},"message_id":"m","content":"hi","sender":{"user_id":9,
        "identity":{"badges":[{"type":"moderator"},{"type":"subscriber","count":3}]}}}"#;

    #[test]
    fn odd_value_that_decides_nothing_costs_no_delivery() {
        use crate::platforms::kit::lenient::odd;
        for (kind, decides, rest) in [
            (
                STATUS,
                r#"{"broadcaster":{"user_id":7},"is_live":true,"started_at":"2026-06-01T11:00:00Z","#,
                serde_json::json!({"title": "T", "ended_at": null, "surprise": {}}),
            ),
            (
                METADATA,
                r#"{"broadcaster":{"user_id":7},"#,
                serde_json::json!({"metadata": {"title": "T", "language": "en", "category": {"id": 1, "name": "Art"}}}),
            ),
            (
                CHAT,
                r#"{"broadcaster":{"user_id":7},"message_id":"m","content":"hi","#,
                serde_json::json!({"sender": {"user_id": 9, "identity": {"badges": [{"type": "moderator"}]}}}),
            ),
        ] {
            for odd in odd::variants(&rest) {
                let body = odd.replacen('{', decides, 1);
                let event = read(kind, body.as_bytes()).expect("the type is known");
                // The field that the whole event is about cannot be unusual.
                let whole = odd.starts_with("{\"metadata\":{\"")
                    || odd.starts_with("{\"sender\":{\"")
                    || kind == STATUS;
                assert!(event.is_ok() || !whole, "{body}: {event:?}");
            }
        }
    }

    #[test]
    fn each_type_is_read_and_no_other_passes_for_it() {
        for (kind, body) in [(STATUS, START), (METADATA, ABOUT), (CHAT, LINE)] {
            let event = read(kind, body.as_bytes()).unwrap().unwrap();
            assert_eq!(event.broadcaster, 7);
            for other in [START, ABOUT, LINE] {
                if other != body {
                    let refused = read(kind, other.as_bytes()).unwrap();
                    assert_eq!(refused, Err(Unusable::OtherType), "{kind}: {other}");
                }
            }
            for nothing in ["{}", "", "[]", "null", "\u{0}", "[7]"] {
                let refused = read(kind, nothing.as_bytes()).unwrap();
                assert_eq!(refused, Err(Unusable::Incomplete), "{kind}: {nothing}");
            }
        }
        assert_eq!(read("kicks.gifted", b"{}"), None);
    }

    #[test]
    fn chat_event_contains_sender_and_badges() {
        let Event::Chat { sender, badges, .. } = read(CHAT, LINE.as_bytes()).unwrap().unwrap().event else {
            panic!("no chat");
        };
        assert_eq!(sender, Some(9));
        assert_eq!(badges, ["moderator".to_owned(), "subscriber".to_owned()].into());
    }

    #[test]
    fn ids_may_be_text_and_what_decorates_may_be_null() {
        let body = START
            .replace("\"user_id\":7", "\"user_id\":\"7\"")
            .replace("\"T\"", "null");
        assert_eq!(read(STATUS, body.as_bytes()).unwrap().unwrap().broadcaster, 7);
        let body = ABOUT.replace("{\"id\":1,\"name\":\"Art\"}", "null");
        assert_eq!(read(METADATA, body.as_bytes()).unwrap().unwrap().broadcaster, 7);
        let body = LINE.replace("{\"type\":\"moderator\"}", "{\"type\":null}");
        let Event::Chat { badges, .. } = read(CHAT, body.as_bytes()).unwrap().unwrap().event else {
            panic!("no chat");
        };
        assert_eq!(badges, ["subscriber".to_owned()].into());
    }

    #[test]
    fn start_or_end_without_a_time_is_accepted() {
        let time = "\"started_at\":\"2026-06-01T11:00:00Z\",";
        for nothing in [
            "\"started_at\":null,",
            "\"started_at\":\"\",",
            "\"started_at\":\" \",",
            "\"started_at\":{},",
            "",
        ] {
            for is_live in [true, false] {
                let body = START.replace(time, nothing);
                let body = body.replace("\"is_live\":true", &format!("\"is_live\":{is_live}"));
                let Event::Status { live, started_at, .. } =
                    read(STATUS, body.as_bytes()).unwrap().unwrap().event
                else {
                    panic!("{body}");
                };
                assert_eq!((live, started_at), (is_live, None), "{body}");
            }
        }
    }

    #[test]
    fn half_an_emoji_or_broken_utf8_costs_one_character() {
        for broken in [&b"T\\ud83d"[..], b"T\xff", b"T\xf0\x9f\x98"] {
            let (before, after) = START.split_once("\"T\"").unwrap();
            let body = [before.as_bytes(), b"\"", broken, b"\"", after.as_bytes()].concat();
            let Event::Status { title, .. } = read(STATUS, &body).unwrap().unwrap().event else {
                panic!("a start");
            };
            assert!(title.unwrap().starts_with("T\u{fffd}"), "{broken:?}");
        }
        let line = LINE.replace("\"hi\"", "\"\\udE00\"").replace("\"m\"", "7");
        let Event::Chat { message_id, .. } = read(CHAT, line.as_bytes()).unwrap().unwrap().event else {
            panic!("a line");
        };
        assert_eq!(message_id, "7");
    }
}
