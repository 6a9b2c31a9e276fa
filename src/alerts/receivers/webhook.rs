//! The JSON document that programs get, in the form of Standard Webhooks: <https://www.standardwebhooks.com/>.

use serde_json::{Value, json};
use url::Url;

use super::ReceiverRequest;
use crate::alerts::incident::MessageKind;
use crate::alerts::message::Message;
use crate::alerts::text::{Unit, fit};

/// The recommended limit of a body in bytes.
const BODY: usize = 20 * 1024;
/// The limit of one text in it.
const TEXT: usize = 4096;

pub(super) fn request(url: &Url, message: &Message) -> ReceiverRequest {
    let mut listed = message.sources.len();
    let mut body = document(message, listed);
    while body.len() > BODY && listed > 0 {
        listed /= 2;
        body = document(message, listed);
    }
    ReceiverRequest {
        method: "POST",
        url: url.clone(),
        headers: Vec::new(),
        body,
    }
}

fn document(message: &Message, listed: usize) -> String {
    let status = match message.kind {
        MessageKind::Open => "open",
        MessageKind::Flapping => "flapping",
        MessageKind::Close => "closed",
        MessageKind::Test => "test",
    };
    let mut incident = json!({
        "key": message.incident,
        "status": status,
        "alert": message.alert,
        "subject": message.subject,
        "affected": message.affected,
        "sources": message.sources.get(..listed).unwrap_or(&message.sources),
    });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            incident[name] = value;
        }
    };
    add("trigger", message.trigger.map(|trigger| json!(trigger)));
    add("class", (!message.class.is_empty()).then(|| json!(message.class)));
    let remaining = message.remaining.get(..listed).unwrap_or(&message.remaining);
    add("remaining", (!remaining.is_empty()).then(|| json!(remaining)));
    add("openedAt", message.opened_at.map(|at| json!(at)));
    add("closedAt", message.closed_at.map(|at| json!(at)));
    add("command", message.command.as_ref().map(|command| json!(command)));
    let text = message.templated.as_ref().unwrap_or(&message.text);
    json!({
        "type": format!("alert.{status}"),
        "timestamp": message.at,
        "data": {
            "title": fit(&message.title, TEXT, Unit::Bytes),
            "text": fit(text, TEXT, Unit::Bytes),
            "incident": incident,
        },
    })
    .to_string()
}
