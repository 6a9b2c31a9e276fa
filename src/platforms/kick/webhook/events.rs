//! What a delivery's body says. Pure.
//!
//! The type stands in a header that is not signed, so a body counts only when it has that type's own fields. Unknown fields
//! are ignored; `livestream.metadata.updated` carries its category twice, spelt differently, and one is enough.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::platforms::lenient::{count, lenient, readable};

/// The start or end of a stream.
pub const STATUS: &str = "livestream.status.updated";
/// New title, category or language.
pub const METADATA: &str = "livestream.metadata.updated";
/// A line of chat.
pub const CHAT: &str = "chat.message.sent";

/// What happened, and in whose channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) broadcaster: u64,
    pub(super) event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A stream has started or ended.
    Status {
        live: bool,
        started_at: String,
        title: Option<String>,
    },
    /// How a channel presents itself.
    Metadata {
        title: Option<String>,
        category: Option<String>,
    },
    /// Somebody has said something.
    Chat {
        message_id: String,
        sender: Option<u64>,
        badges: BTreeSet<String>,
    },
}

/// Why nothing can be made of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It lacks the fields of the type that the header names.
    OtherType,
    /// It is of that type but does not say what we need.
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
    is_live: bool,
    started_at: Option<String>,
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
    name: Option<String>,
}

#[derive(Deserialize)]
struct Chat {
    broadcaster: Person,
    message_id: String,
    sender: Person,
}

/// Reads a body of type `kind`; `None` for a type that we make nothing of.
pub(super) fn read(kind: &str, body: &[u8]) -> Option<Result<Told, Unusable>> {
    let marks: &[&str] = match kind {
        STATUS => &["broadcaster", "is_live"],
        METADATA => &["broadcaster", "metadata"],
        CHAT => &["broadcaster", "sender", "message_id", "content"],
        _ => return None,
    };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Some(Err(Unusable::OtherType));
    };
    if marks.iter().any(|mark| value.get(mark).is_none()) {
        return Some(Err(Unusable::OtherType));
    }
    let told = match kind {
        STATUS => status(value),
        METADATA => metadata(value),
        _ => chat(value),
    };
    Some(told.ok_or(Unusable::Incomplete))
}

fn status(value: Value) -> Option<Told> {
    let body: Status = serde_json::from_value(value).ok()?;
    let started_at = body.started_at?.trim().to_owned();
    (!started_at.is_empty()).then_some(())?;
    Some(Told {
        broadcaster: body.broadcaster.user_id?,
        event: Event::Status {
            live: body.is_live,
            started_at,
            title: body.title,
        },
    })
}

fn metadata(value: Value) -> Option<Told> {
    let body: Metadata = serde_json::from_value(value).ok()?;
    Some(Told {
        broadcaster: body.broadcaster.user_id?,
        event: Event::Metadata {
            title: body.metadata.title,
            category: body.metadata.category.and_then(|category| category.name),
        },
    })
}

fn chat(value: Value) -> Option<Told> {
    let body: Chat = serde_json::from_value(value).ok()?;
    let badges = body.sender.identity.map(|identity| identity.badges);
    Some(Told {
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
    fn each_type_is_read_and_no_other_passes_for_it() {
        for (kind, body) in [(STATUS, START), (METADATA, ABOUT), (CHAT, LINE)] {
            let told = read(kind, body.as_bytes()).unwrap().unwrap();
            assert_eq!(told.broadcaster, 7);
            for other in [START, ABOUT, LINE, "{}", "", "[]", "null", "\u{0}"] {
                if other != body {
                    let refused = read(kind, other.as_bytes()).unwrap();
                    assert_eq!(refused, Err(Unusable::OtherType), "{kind}: {other}");
                }
            }
        }
        assert_eq!(read("kicks.gifted", b"{}"), None);
    }

    #[test]
    fn a_line_of_chat_tells_sender_and_badges() {
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
    fn a_stream_without_a_start_cannot_be_told_from_others() {
        let body = START.replace("\"2026-06-01T11:00:00Z\"", "null");
        assert_eq!(read(STATUS, body.as_bytes()), Some(Err(Unusable::Incomplete)));
    }
}
