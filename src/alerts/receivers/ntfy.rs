//! ntfy: <https://docs.ntfy.sh/publish/#publish-as-json>. As JSON, because headers cannot hold every character. A message is never
//! edited: servers before 2.16 would publish a second one.

use serde_json::json;
use url::Url;

use super::ReceiverRequest;
use crate::alerts::incident::MessageKind;
use crate::alerts::message::Message;
use crate::alerts::text::{Unit, fit};
use crate::alerts::trigger::TriggerKind::{StreamOffline, StreamOnline};

/// The limit of a message in bytes; longer ones become an attachment.
const MESSAGE: usize = 4096;
/// Of a title there is no documented limit; this much fits on a screen.
const TITLE: usize = 250;

pub(super) fn request(url: &Url, message: &Message, plain: bool) -> ReceiverRequest {
    let path = url.path().trim_matches('/');
    let (base, topic) = path
        .rsplit_once('/')
        .map_or(("", path), |(base, topic)| (base, topic));
    let mut root = url.clone();
    root.set_path(base);
    root.set_query(None);
    let (priority, tag) = match (message.kind, message.trigger) {
        (MessageKind::Test, _) => (3, "test_tube"),
        (MessageKind::Open, Some(StreamOnline)) => (3, "red_circle"),
        (_, Some(StreamOnline | StreamOffline)) => (2, "black_circle"),
        (MessageKind::Open, _) => (4, "rotating_light"),
        (MessageKind::Flapping, _) => (3, "warning"),
        (MessageKind::Close, _) => (3, "white_check_mark"),
    };
    let text = message.templated.as_ref().unwrap_or(&message.text);
    let mut body = json!({
        "topic": topic,
        "title": fit(&message.title, TITLE, Unit::Bytes),
        "message": fit(text, MESSAGE, Unit::Bytes),
    });
    if !plain {
        body["priority"] = json!(priority);
        body["tags"] = json!([tag]);
    }
    ReceiverRequest {
        method: "POST",
        url: root,
        headers: Vec::new(),
        body: body.to_string(),
    }
}
