//! `[web]`: health, metrics and the dashboard.

use std::net::SocketAddr;

use secrecy::SecretString;
use url::Url;

use super::key::Key;
use super::reader::Reader;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "web.listen",
        "ADDRESS:PORT, or off. Anything but loopback requires a token.",
    )
    .or("127.0.0.1:8787"),
    Key::new(
        "web.public_url",
        "The https address under which others reach the web server, for the links of `auth invite`.",
    )
    .such_as("https://bot.example.org"),
    Key::new(
        "web.token",
        "Bearer token that every caller from elsewhere must show.",
    )
    .named(&["BITBRAT_WEB_TOKEN"])
    .secret(),
];

#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Where it listens; nowhere when `None`.
    pub listen: Option<SocketAddr>,
    /// Where others reach it.
    pub public_url: Option<Url>,
    /// Token that callers must send.
    pub token: Option<SecretString>,
}

/// Platforms redirect to https only, except for this machine.
fn public_url(reader: &mut Reader<'_>) -> Option<Url> {
    let found = reader.address("web.public_url", &["https", "http"])?;
    let host = found.host_str().unwrap_or_default();
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if found.scheme() == "https" || is_local {
        return Some(found);
    }
    let origin = reader.origin("web.public_url");
    let hint = "write https://, and let a proxy in front of the web server have the certificate";
    reader.refuse_with("web.public_url", &origin, "is not an https address", hint);
    None
}

pub(super) fn read(reader: &mut Reader<'_>) -> WebSettings {
    let token = reader.secret("web.token");
    let public_url = public_url(reader);
    let off = reader
        .layers()
        .iter()
        .find_map(|layer| layer.get(KEYS.iter().find(|key| key.path == "web.listen")?))
        .is_some_and(|(raw, _)| raw.is("off"));
    if off {
        reader.text("web.listen");
        return WebSettings {
            listen: None,
            public_url,
            token,
        };
    }
    let listen = reader.socket("web.listen");
    if let Some(found) = &listen
        && !found.value.ip().is_loopback()
        && token.is_none()
    {
        reader.refuse_with(
            "web.listen",
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
    }
}
