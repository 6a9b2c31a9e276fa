//! Reads a recording, and groups its lines by what a client may request.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::core::platform::PlatformName;
use crate::files;
use crate::traffic::format::{
    Body, Entry, Exchange, FORMAT, Header, Line, Outcome, PlatformHeader, Side, VERSION, Webhook,
};

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The first line is not that of a recording.
    #[error("line 1 is not the first line of a recording")]
    Foreign,
    /// It was recorded in another format.
    #[error("it has version {0} of the format, and this program reads version {VERSION}")]
    Version(u64),
    /// A line ends before it is complete.
    #[error("line {0} ends early")]
    Truncated(usize),
    /// A line has another form.
    #[error("line {0} is not a line of a recording")]
    Line(usize),
}

impl Unusable {
    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable(_) | Self::Empty | Self::Foreign => {
                "name a file that `bitbrat watch --record FILE` has written".to_owned()
            }
            Self::Version(_) => "replay it with a version of bitbrat that reads this format".to_owned(),
            Self::Truncated(line) | Self::Line(line) => format!(
                "to replay what is before it, keep the lines before it: `head -n {} FILE`",
                line.saturating_sub(1)
            ),
        }
    }
}

/// A recording.
pub struct Script {
    /// Its first line.
    pub header: Header,
    /// Milliseconds from the start to the first request.
    pub(super) first: u64,
    pub(super) platforms: BTreeMap<PlatformName, PlatformScript>,
}

/// What was recorded of one platform.
pub struct PlatformScript {
    pub(super) header: PlatformHeader,
    exchanges: HashMap<Key, Vec<Recorded>>,
    sockets: Vec<Arc<SocketScript>>,
    next_socket: AtomicUsize,
    pub(super) webhooks: Vec<(u64, Webhook)>,
    /// The users whose tokens were used, in the order of their appearance.
    pub(super) users: Vec<User>,
}

/// What a request is found by: method, path, sorted parameters.
type Key = (String, String, String);

/// A user whose token was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub id: String,
    /// The scopes granted, as far as the platform reported them.
    pub scopes: Vec<String>,
}

/// Whose token a request was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The application's own.
    App,
    /// That of the user with this id.
    User(String),
}

/// A recorded request.
pub(super) struct Recorded {
    pub(super) at: u64,
    pub(super) took: u64,
    account: Option<Account>,
    sent: Option<Body>,
    pub(super) outcome: Outcome,
    is_used: AtomicBool,
}

/// A recorded websocket.
pub(super) struct SocketScript {
    number: u64,
    /// Why it could not be opened.
    pub(super) failed: Option<String>,
    pub(super) opened: u64,
    pub(super) steps: Vec<(u64, Step)>,
}

/// What happened on a websocket.
pub(super) enum Step {
    /// The platform sent this.
    Sent(Body),
    /// The client sent something that is no heartbeat.
    Received,
    /// The platform closed it.
    Closed(Option<u16>),
    /// The connection was lost.
    Lost,
    /// The client closed it.
    Left,
}

impl Script {
    /// Reads a recording.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        Self::parse(&files::read_given(path, files::LARGE)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        if bytes.trim_ascii().is_empty() {
            return Err(Unusable::Empty);
        }
        let mut lines = bytes.split(|byte| *byte == b'\n').enumerate();
        let (_, first) = lines.next().unwrap_or_default();
        let header = header(first)?;
        let platforms = header.platforms.iter().cloned();
        let mut script = Self {
            platforms: platforms
                .map(|header| (header.platform, PlatformScript::new(header)))
                .collect(),
            first: 0,
            header,
        };
        let mut exchanges = Vec::new();
        for (number, text) in lines.filter(|(_, text)| !text.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(text).map_err(|error| match error.is_eof() {
                true => Unusable::Truncated(number + 1),
                false => Unusable::Line(number + 1),
            })?;
            let platform = line.platform.and_then(|name| script.platforms.get_mut(&name));
            match (platform, line) {
                (
                    Some(platform),
                    Line {
                        at,
                        entry: Entry::Request(exchange),
                        ..
                    },
                ) => exchanges.push((platform.header.platform, at, exchange)),
                (Some(platform), line) => platform.add(line.at, line.entry),
                (None, _) => {}
            }
        }
        script.first = exchanges.first().map_or(0, |(_, at, _)| *at);
        for (name, platform) in &mut script.platforms {
            let own = exchanges.iter().filter(|(of, ..)| of == name);
            platform.add_exchanges(own.map(|(_, at, exchange)| (*at, exchange)));
        }
        Ok(script)
    }
}

fn header(line: &[u8]) -> Result<Header, Unusable> {
    let value: Value = serde_json::from_slice(line).map_err(|error| match error.is_eof() {
        true => Unusable::Truncated(1),
        false => Unusable::Foreign,
    })?;
    if value["format"] != FORMAT {
        return Err(Unusable::Foreign);
    }
    match value["version"].as_u64() {
        Some(version) if version == u64::from(VERSION) => {
            serde_json::from_value(value).map_err(|_| Unusable::Foreign)
        }
        version => Err(Unusable::Version(version.unwrap_or(0))),
    }
}

impl PlatformScript {
    fn new(header: PlatformHeader) -> Self {
        Self {
            header,
            exchanges: HashMap::new(),
            sockets: Vec::new(),
            next_socket: AtomicUsize::new(0),
            webhooks: Vec::new(),
            users: Vec::new(),
        }
    }

    fn add(&mut self, at: u64, entry: Entry) {
        let mut step = |socket: u64, step: Step| {
            let script = self.sockets.iter_mut().rfind(|script| script.number == socket);
            if let Some(script) = script.and_then(Arc::get_mut) {
                script.steps.push((at, step));
            }
        };
        match entry {
            Entry::Open(open) => self.sockets.push(Arc::new(SocketScript {
                number: open.socket,
                failed: open.failed,
                opened: at,
                steps: Vec::new(),
            })),
            Entry::Frame(frame) => match (frame.from, op(&frame.body)) {
                // Heartbeats and their answers follow the client's own rhythm.
                (Side::Client, Some(1)) | (Side::Platform, Some(11)) => {}
                (Side::Client, _) => step(frame.socket, Step::Received),
                (Side::Platform, _) => step(frame.socket, Step::Sent(frame.body)),
            },
            Entry::Close(close) => step(
                close.socket,
                match close.from {
                    Some(Side::Platform) => Step::Closed(close.code),
                    Some(Side::Client) => Step::Left,
                    None => Step::Lost,
                },
            ),
            Entry::Webhook(webhook) => self.webhooks.push((at, webhook)),
            Entry::Request(_) | Entry::Lost(_) | Entry::End(_) => {}
        }
    }

    fn add_exchanges<'a>(&mut self, exchanges: impl Iterator<Item = (u64, &'a Exchange)> + Clone) {
        let mut owners: HashMap<&str, Account> = HashMap::new();
        for (_, exchange) in exchanges.clone() {
            if let Some((token, account)) = owner(exchange) {
                owners.entry(token).or_insert(account);
            }
            self.users.extend(user(exchange));
        }
        let mut known: Vec<User> = Vec::new();
        for user in self.users.drain(..) {
            match known.iter_mut().find(|known| known.id == user.id) {
                Some(known) if known.scopes.is_empty() => known.scopes = user.scopes,
                Some(_) => {}
                None => known.push(user),
            }
        }
        self.users = known;
        for (at, exchange) in exchanges {
            let key = (
                exchange.method.clone(),
                exchange.path.clone(),
                exchange.query.clone(),
            );
            let token = exchange.token.as_deref();
            self.exchanges.entry(key).or_default().push(Recorded {
                at,
                took: exchange.took,
                account: token.and_then(|token| owners.get(token)).cloned(),
                sent: exchange.sent.clone(),
                outcome: exchange.outcome.clone(),
                is_used: AtomicBool::new(false),
            });
        }
    }

    /// Returns the recorded request that a request stands for: the next one of the same account with the same body, or of the same
    /// account, or of any. The last one is repeated.
    pub(super) fn find(
        &self,
        (method, path, query): (&str, &str, String),
        account: Option<&Account>,
        sent: Option<&Body>,
    ) -> Option<&Recorded> {
        let group = self.exchanges.get(&(method.to_owned(), path.to_owned(), query))?;
        let is_own = |recorded: &&Recorded| {
            let recorded = recorded.account.as_ref();
            recorded.is_none() || account.is_none() || recorded == account
        };
        let has_body = |recorded: &&Recorded| recorded.sent.as_ref() == sent;
        next(
            group
                .iter()
                .filter(|recorded| is_own(recorded) && has_body(recorded)),
        )
        .or_else(|| next(group.iter().filter(is_own)))
        .or_else(|| next(group.iter()))
    }

    /// Whether any request to a path that contains `part` was recorded.
    pub fn has_request(&self, part: &str) -> bool {
        self.exchanges.keys().any(|(_, path, _)| path.contains(part))
    }

    /// Whether a websocket was recorded.
    pub fn has_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Returns the next recorded websocket; the last one is repeated.
    pub(super) fn next_socket(&self) -> Option<Arc<SocketScript>> {
        let number = self.next_socket.fetch_add(1, Ordering::Relaxed);
        self.sockets.get(number).or(self.sockets.last()).cloned()
    }

    /// Returns the user of the bot's token: one that is not only a broadcaster's.
    pub(super) fn bot(&self) -> Option<&User> {
        let is_broadcaster = |user: &&User| {
            let accounts = self.header.accounts.iter();
            let mut roles = accounts.filter_map(|account| account.split_once('/'));
            roles.any(|(_, role)| role.split_once(':').is_some_and(|(_, id)| id == user.id))
        };
        let mut users = self.users.iter();
        users.find(|user| !is_broadcaster(user)).or(self.users.first())
    }

    /// Whether the bot had a token.
    pub(super) fn has_bot(&self) -> bool {
        let bot = format!("{}/bot", self.header.platform);
        self.header.accounts.contains(&bot)
    }
}

/// Returns the first that is not used yet, or else the last.
fn next<'a>(recorded: impl Iterator<Item = &'a Recorded>) -> Option<&'a Recorded> {
    let mut last = None;
    for recorded in recorded {
        if !recorded.is_used.swap(true, Ordering::Relaxed) {
            return Some(recorded);
        }
        last = Some(recorded);
    }
    last
}

/// Returns the number of a gateway's operation.
fn op(body: &Body) -> Option<u64> {
    match body {
        Body::Json(value) => value["op"].as_u64(),
        Body::Text(_) | Body::Unreadable(_) => None,
    }
}

/// Returns the body of a successful answer.
fn answered(exchange: &Exchange) -> Option<&Value> {
    match &exchange.outcome {
        Outcome::Answer(answer) if (200..300).contains(&answer.status) => match &answer.body {
            Some(Body::Json(value)) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

/// Returns whether an answer contains a new token, which a replay issues by itself.
pub(super) fn is_grant(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answer(answer) => match &answer.body {
            Some(Body::Json(value)) => value["access_token"].is_string(),
            _ => false,
        },
        Outcome::Failed(_) => false,
    }
}

/// Returns the part of an answer about the token that the request was sent with.
fn about_token(exchange: &Exchange) -> Option<&Value> {
    let body = answered(exchange)?;
    let last = exchange.path.rsplit('/').next().unwrap_or_default();
    let is_own = exchange.path.ends_with("/users/@me")
        || matches!(last, "validate" | "introspect")
        || (last == "users" && exchange.query.is_empty());
    is_own.then(|| match &body["data"] {
        Value::Array(rows) => rows.first().unwrap_or(body),
        Value::Object(_) => &body["data"],
        _ => body,
    })
}

/// Returns the name of a token with its owner, where the answer reports it.
fn owner(exchange: &Exchange) -> Option<(&str, Account)> {
    if let Some(Body::Json(sent)) = &exchange.sent
        && sent["grant_type"] == "client_credentials"
    {
        return Some((answered(exchange)?["access_token"].as_str()?, Account::App));
    }
    let token = exchange.token.as_deref()?;
    let about = about_token(exchange)?;
    if let Some(user) = user(exchange) {
        return Some((token, Account::User(user.id)));
    }
    let is_app = exchange.path.ends_with("/validate") || about["token_type"] == "app";
    is_app.then_some((token, Account::App))
}

/// Returns the user whose token a request was sent with, where the answer reports it.
fn user(exchange: &Exchange) -> Option<User> {
    let about = about_token(exchange)?;
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let id = text(&about["user_id"]).or_else(|| text(&about["id"]))?;
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let scopes = match (&about["scopes"], &about["scope"]) {
        (Value::Array(scopes), _) => scopes.iter().filter_map(text).collect(),
        (_, Value::String(scopes)) => words(scopes),
        _ => Vec::new(),
    };
    Some(User { id, scopes })
}

#[cfg(test)]
mod tests;
