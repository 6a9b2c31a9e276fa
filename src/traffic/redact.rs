//! Removes what must not be in a recording: secrets, what viewers write, and who they are.
//!
//! Secrets are masked by the registry of this process and by the names of fields, and of the bodies of OAuth only the shape is
//! kept. Ids of users other than the monitored sources and the bots are replaced by numbers that are the same within one recording
//! and lead to no user; names and texts beside them are masked. Names and titles of channels stay.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use serde_json::{Map, Value};

use super::format::Body;
use crate::core::json;
use crate::secrets::{self, MASK};

/// Tokens that get a name of their own; further ones share the last name.
const MOST_TOKENS: usize = 10_000;
/// How much of a text that is not JSON is kept, in characters: it is an error page.
const MOST_TEXT: usize = 16 * 1024;
/// Ids are replaced by numbers from here to twice as much: as long as real ones, and exact in every JSON parser.
const PSEUDONYMS: u64 = 100_000_000_000_000;

/// Fields whose texts are written by users or describe them, with everything in them.
const HIDDEN: &[&str] = &[
    "activities",
    "attachments",
    "avatar",
    "banner",
    "bio",
    "client_status",
    "components",
    "content",
    "email",
    "embeds",
    "fragments",
    "mentions",
    "message_snapshots",
    "nick",
    "poll",
    "presences",
    "referenced_message",
    "replies_to",
    "reply",
    "sticker_items",
    "system_message",
    "text",
];
/// Fields with a secret, besides those whose names are secret everywhere.
const SECRET: &[&str] = &["key", "stream_key", "client_id"];
/// Fields beside the id of a user that describe the same user.
const OF_USER: &[&str] = &[
    "channel_slug",
    "color",
    "description",
    "display_name",
    "global_name",
    "login",
    "name",
    "profile_image_url",
    "profile_picture",
    "reason",
    "user_login",
    "user_name",
    "username",
];
/// Texts in bodies of OAuth that are kept. All others are masked.
const OAUTH_TEXTS: &[&str] = &[
    "error",
    "error_description",
    "expires_at",
    "grant_type",
    "login",
    "message",
    "scope",
    "scopes",
    "token_type",
    "user_id",
];

/// Removes what must not be kept. It replaces equal values by equal ones within one recording.
pub struct Redactor {
    keys: RandomState,
    /// Ids of the monitored sources and of the bots.
    known: HashSet<String>,
    /// Names of tokens, by hash.
    tokens: HashMap<u64, String>,
}

impl Redactor {
    /// Starts with the ids of the monitored sources.
    pub fn new(known: HashSet<String>) -> Self {
        Self {
            keys: RandomState::new(),
            known,
            tokens: HashMap::new(),
        }
    }

    /// Returns the name of a token, which may have a scheme such as `Bearer` before it.
    pub fn token(&mut self, text: &str) -> String {
        let bare = text.split_whitespace().next_back().unwrap_or_default();
        let number = self.tokens.len().min(MOST_TOKENS) + 1;
        let name = || format!("token-{number}");
        if number > MOST_TOKENS {
            return name();
        }
        self.tokens
            .entry(self.keys.hash_one(bare))
            .or_insert_with(name)
            .clone()
    }

    /// Returns the form in which the body of a request or an answer is kept.
    pub fn body(&mut self, bytes: &[u8], is_oauth: bool) -> Option<Body> {
        let text = json::repair(bytes);
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return None;
        }
        let unreadable = Body::Unreadable(bytes.len() as u64);
        if !trimmed.starts_with(['{', '[']) {
            let is_readable = !is_oauth && std::str::from_utf8(bytes).is_ok();
            let masked = || secrets::mask_foreign(trimmed).chars().take(MOST_TEXT).collect();
            return Some(if is_readable {
                Body::Text(masked())
            } else {
                unreadable
            });
        }
        let Ok(mut value) = serde_json::from_str(trimmed) else {
            return Some(unreadable);
        };
        if is_oauth {
            self.keep_shape(&mut value);
        } else {
            self.clean(&mut value, "");
        }
        Some(Body::Json(value))
    }

    /// Returns the form in which the body of a form is kept: which fields there were.
    pub fn form(&mut self, bytes: &[u8]) -> Body {
        let fields = url::form_urlencoded::parse(bytes);
        let fields = fields.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())));
        let mut value = Value::Object(fields.collect());
        self.keep_shape(&mut value);
        Body::Json(value)
    }

    /// Remembers whom an answer calls the owner of the token: bots are not viewers.
    pub fn learn_owner(&mut self, path: &str, query: &str, body: &[u8]) {
        let last = path.rsplit('/').next().unwrap_or_default();
        let is_own = path.ends_with("/users/@me")
            || matches!(last, "validate" | "introspect")
            || (last == "users" && query.is_empty());
        if !is_own {
            return;
        }
        let value: Value = serde_json::from_str(&json::repair(body)).unwrap_or_default();
        let row = match &value["data"] {
            Value::Array(rows) => rows.first(),
            Value::Object(_) => Some(&value["data"]),
            _ => Some(&value),
        };
        let id = row.and_then(|row| id_text(&row["user_id"]).or_else(|| id_text(&row["id"])));
        self.known.extend(id);
    }

    /// Returns the form in which a frame is kept.
    pub fn frame(&mut self, bytes: &[u8]) -> Body {
        // The first frame of a gateway session describes the bot.
        if let Ok(text) = std::str::from_utf8(bytes)
            && text.contains("\"READY\"")
            && let Ok(value) = serde_json::from_str::<Value>(text)
            && value["t"] == "READY"
        {
            self.known.extend(id_text(&value["d"]["user"]["id"]));
        }
        self.body(bytes, false).unwrap_or(Body::Text(String::new()))
    }

    /// Keeps of a body of OAuth what says how a request ended: no token, no code, no application.
    fn keep_shape(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    match value {
                        Value::String(text) if name == "access_token" => *text = self.token(text),
                        Value::String(text) if OAUTH_TEXTS.contains(&name.as_str()) => mask(text),
                        Value::Array(texts) if OAUTH_TEXTS.contains(&name.as_str()) => {
                            for text in texts {
                                self.clean(text, "");
                            }
                        }
                        other => self.keep_shape(other),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.keep_shape(value)),
            Value::String(text) => MASK.clone_into(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Cleans the value of the field `name`.
    fn clean(&self, value: &mut Value, name: &str) {
        match value {
            Value::Object(fields) => self.clean_object(fields, name),
            Value::Array(values) => values.iter_mut().for_each(|value| self.clean(value, name)),
            Value::String(text) if text.starts_with("ws://") || text.starts_with("wss://") => {
                // Parameters of such an address continue a session, and the host is another one in a replay.
                let path = url::Url::parse(text).map_or_else(|_| "/".to_owned(), |url| url.path().to_owned());
                *text = format!("{SOCKET_BASE}{path}");
            }
            Value::String(text) => mask(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn clean_object(&self, fields: &mut Map<String, Value>, parent: &str) {
        let viewers: Vec<String> = fields
            .iter()
            .filter_map(|(name, value)| self.is_viewer(value).then(|| user_prefix(name)).flatten())
            .map(str::to_owned)
            .collect();
        // A user with an id and a name of its own, such as the author of a message.
        let is_viewer = fields.contains_key("username")
            && ["id", "user_id"]
                .iter()
                .filter_map(|name| fields.get(*name))
                .any(|id| self.is_viewer(id));
        for (name, mut value) in std::mem::take(fields) {
            let describes_viewer = viewers.iter().any(|prefix| {
                name.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| OF_USER.contains(&rest))
            });
            let is_id = user_prefix(&name).is_some() || (is_viewer && name == "id");
            if is_secret(&name) {
                hide(&mut value);
            } else if is_id {
                self.replace_id(&mut value);
            } else if name == "session_id" || (name == "id" && parent == "session") {
                self.replace_session(&mut value);
            } else {
                self.clean(&mut value, &name);
                let is_chat = name == "message" && !value.is_string();
                if describes_viewer || is_viewer || is_chat || HIDDEN.contains(&name.as_str()) {
                    self.hide_texts(&mut value);
                }
            }
            fields.insert(secrets::masked(name), value);
        }
    }

    /// Whether a value is the id of a user that is neither a monitored source nor a bot.
    fn is_viewer(&self, id: &Value) -> bool {
        id_text(id).is_some_and(|id| !self.known.contains(&id))
    }

    fn replace_id(&self, id: &mut Value) {
        if let Some(text) = id_text(id).filter(|id| !self.known.contains(id)) {
            let number = self.pseudonym(&text);
            *id = match id {
                Value::Number(_) => number.into(),
                _ => number.to_string().into(),
            };
        }
    }

    fn pseudonym(&self, text: &str) -> u64 {
        PSEUDONYMS + self.keys.hash_one(text) % PSEUDONYMS
    }

    fn replace_session(&self, id: &mut Value) {
        if let Value::String(text) = id
            && !text.is_empty()
        {
            *text = format!("session-{}", self.pseudonym(text));
        }
    }

    /// Masks all texts in a value. Ids stay ids, or a client could not read the rest.
    fn hide_texts(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|value| self.hide_texts(value)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.hide_texts(value)),
            Value::String(text) if is_number(text) => *text = self.pseudonym(text).to_string(),
            Value::String(text) if !text.is_empty() && !is_time(text) => MASK.clone_into(text),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Where addresses of websockets lead to in a recording.
pub const SOCKET_BASE: &str = "wss://platform";

/// Returns parameters sorted and without secrets. A replay applies it to the requests that it compares with recorded ones.
pub fn query(raw: Option<&str>) -> String {
    let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    for (name, value) in &mut pairs {
        if is_secret(name) {
            MASK.clone_into(value);
        } else {
            mask(value);
        }
        mask(name);
    }
    pairs.sort();
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// Returns whether a request is one of OAuth, of whose bodies only the shape is kept.
pub fn is_oauth(path: &str, is_form: bool) -> bool {
    let named = |part: &str| matches!(part, "oauth" | "oauth2" | "introspect" | "validate");
    is_form || path.split('/').any(named)
}

fn mask(text: &mut String) {
    *text = secrets::masked(std::mem::take(text));
}

/// Masks all texts in a secret value.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::String(text) => MASK.clone_into(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    secrets::FIELDS.contains(&name.as_str()) || SECRET.contains(&name.as_str())
}

/// Returns what stands before `user_id` in the name of a field with a user's id; broadcasters are sources.
fn user_prefix(name: &str) -> Option<&str> {
    if name.contains("broadcaster") {
        return None;
    }
    let of_role = [
        "owner_id",
        "creator_id",
        "inviter_id",
        "moderator_id",
        "gifter_id",
    ];
    match name.strip_suffix("user_id") {
        Some(prefix) if prefix.is_empty() || prefix.ends_with('_') => Some(prefix),
        _ if of_role.contains(&name) => name.strip_suffix("id"),
        _ => None,
    }
}

fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::Number(number) => number.as_u64().filter(|id| *id > 0).map(|id| id.to_string()),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_time(text: &str) -> bool {
    text.len() <= 40 && text.parse::<crate::core::time::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests;
