//! Slack's incoming webhooks: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>. A message cannot be edited:
//! the response has no id.

use serde_json::json;
use url::Url;

use super::ReceiverRequest;
use crate::alerts::message::Message;
use crate::alerts::text::{Unit, escape_slack, fit};

/// Limits in characters: <https://docs.slack.dev/reference/block-kit/blocks>.
const HEADER: usize = 150;
const SECTION: usize = 3000;

pub(super) fn request(url: &Url, message: &Message, plain: bool) -> ReceiverRequest {
    // An entity that is cut apart would be shown as it is, so the text is cut before: each character becomes at most five.
    let escaped = |text: &str, limit| {
        let mut room = limit;
        loop {
            let text = escape_slack(&fit(text, room, Unit::Characters));
            let over = text.chars().count().saturating_sub(limit);
            if over == 0 {
                break text;
            }
            room = room.saturating_sub(over.div_ceil(4).max(1));
        }
    };
    let text = match &message.templated {
        Some(text) => text.clone(),
        None => format!("{}\n{}", message.title, message.text),
    };
    let mut body = json!({"text": escaped(&text, SECTION)});
    if message.templated.is_none() && !plain {
        body["blocks"] = json!([
            {"type": "header", "text": {"type": "plain_text", "text": fit(&message.title, HEADER, Unit::Characters)}},
            {"type": "section", "text": {"type": "mrkdwn", "text": escaped(&message.text, SECTION)}},
        ]);
    }
    ReceiverRequest {
        method: "POST",
        url: url.clone(),
        headers: Vec::new(),
        body: body.to_string(),
    }
}
