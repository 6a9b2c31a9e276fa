//! `[web]`: health, metrics and the dashboard.

use std::net::SocketAddr;

use secrecy::SecretString;
use url::Url;

use super::SourceSelector;
use super::key::Key;
use super::reader::Reader;

const LISTEN: Key = Key::new(
    "web.listen",
    "ADDRESS:PORT, or off. Anything but loopback requires a token.",
)
.or("127.0.0.1:8787");
const TOKEN: Key = Key::new(
    "web.token",
    "Bearer token that every caller from elsewhere must show.",
)
.named(&["BITBRAT_WEB_TOKEN"])
.secret();

const PUBLIC_URL: Key = Key::new(
    "web.public_url",
    "The https address under which others reach the web server, for the links of `auth invite`.",
)
.such_as("https://bot.example.org");

const PUBLIC: Key = Key::new(
    "web.public",
    "Sources that `/public` and `/badge/ID.svg` show to everybody: ids, names or globs. None by default.",
)
.list()
.such_as("twitch:* kick:ratcaster");

const SOURCE_METRICS: Key = Key::new(
    "web.source_metrics",
    "How many sources may have series of their own in /metrics. The others are only counted.",
)
.or("0");

pub(super) const KEYS: &[Key] = &[LISTEN, PUBLIC, PUBLIC_URL, SOURCE_METRICS, TOKEN];

#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Where it listens; nowhere when `None`.
    pub listen: Option<SocketAddr>,
    /// Where others reach it.
    pub public_url: Option<Url>,
    /// Token that callers must send.
    pub token: Option<SecretString>,
    /// Sources that are shown without a token.
    pub public: Vec<SourceSelector>,
    /// How many sources may have metrics of their own.
    pub source_metrics: usize,
}

fn public(reader: &mut Reader<'_>) -> Vec<SourceSelector> {
    let Some(found) = reader.list(&PUBLIC) else {
        return Vec::new();
    };
    let mut selectors = Vec::new();
    for text in &found.value {
        match text.parse() {
            Ok(selector) => selectors.push(selector),
            Err(error) => reader.refuse(&PUBLIC, &found.origin, error),
        }
    }
    selectors
}

/// Platforms redirect to https only, except for this machine.
fn public_url(reader: &mut Reader<'_>) -> Option<Url> {
    let found = reader.address(&PUBLIC_URL, &["https", "http"])?;
    let origin = reader.origin(&PUBLIC_URL);
    if !found.username().is_empty() || found.password().is_some() {
        let hint = "leave out what stands before the @; links for other people contain no password";
        reader.refuse_with(&PUBLIC_URL, &origin, "contains a user name or password", hint);
        return None;
    }
    let host = found.host_str().unwrap_or_default();
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if found.scheme() == "https" || is_local {
        return Some(found);
    }
    let hint = "write https://, and let a proxy in front of the web server have the certificate";
    reader.refuse_with(&PUBLIC_URL, &origin, "is not an https address", hint);
    None
}

pub(super) fn read(reader: &mut Reader<'_>) -> WebSettings {
    let token = reader.secret(&TOKEN);
    let public_url = public_url(reader);
    let public = public(reader);
    let source_metrics = reader.number(&SOURCE_METRICS, 0..=10_000).unwrap_or(0);
    let source_metrics = usize::try_from(source_metrics).unwrap_or(0);
    let off = reader
        .layers()
        .iter()
        .find_map(|layer| layer.get(&LISTEN))
        .is_some_and(|(raw, _)| raw.is("off"));
    if off {
        reader.text(&LISTEN);
        return WebSettings {
            listen: None,
            public_url,
            token,
            public,
            source_metrics,
        };
    }
    let listen = reader.socket(&LISTEN);
    if let Some(found) = &listen
        && !found.value.ip().is_loopback()
        && token.is_none()
    {
        reader.refuse_with(
            &LISTEN,
            &found.origin,
            format!(
                "{} can be reached from other machines, but there is no token",
                found.value
            ),
            "set BITBRAT_WEB_TOKEN, or listen at 127.0.0.1",
        );
    }
    WebSettings {
        listen: listen.map(|found| found.value),
        public_url,
        token,
        public,
        source_metrics,
    }
}
