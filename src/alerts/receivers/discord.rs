//! Discord webhooks: <https://discord.com/developers/docs/resources/webhook#execute-webhook>.

use serde_json::{Value, json};
use url::Url;

use super::{ReceiverRequest, color};
use crate::alerts::message::Message;
use crate::alerts::text::{Unit, escape_discord, fit};

/// Limits in characters: <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>.
const CONTENT: usize = 2000;
const TITLE: usize = 256;
const DESCRIPTION: usize = 4096;

pub(super) fn request(
    url: &Url,
    message: &Message,
    remote_ref: Option<&str>,
    plain: bool,
) -> ReceiverRequest {
    let mut url = url.clone();
    // With it the answer has the id of the message, by which it is edited later.
    url.query_pairs_mut().append_pair("wait", "true");
    if let (Some(id), Ok(mut path)) = (remote_ref, url.path_segments_mut()) {
        path.pop_if_empty().push("messages").push(id);
    }
    let cut = |text: &str, limit| fit(&escape_discord(text), limit, Unit::Characters);
    let mut body = match &message.templated {
        Some(text) => json!({"content": fit(text, CONTENT, Unit::Characters), "embeds": []}),
        None if plain => {
            let text = format!("{}\n{}", message.title, message.text);
            json!({"content": cut(&text, CONTENT), "embeds": []})
        }
        None => json!({
            "content": "",
            "embeds": [{
                "title": cut(&message.title, TITLE),
                "description": cut(&message.text, DESCRIPTION),
                "color": color(message),
                "timestamp": message.at.to_string(),
                "footer": {"text": format!("bitbrat · {}", message.alert)},
            }],
        }),
    };
    // Text of platforms must not notify anyone.
    body["allowed_mentions"] = json!({"parse": []});
    ReceiverRequest {
        method: if remote_ref.is_some() { "PATCH" } else { "POST" },
        url,
        headers: Vec::new(),
        body: body.to_string(),
    }
}

/// Returns the id of the message in a response, if it has the form of one: it becomes a part of an address.
pub(super) fn message_id(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let id = body.get("id")?.as_str()?;
    let is_id = !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit());
    is_id.then(|| id.to_owned())
}
