//! `[web]`: health, metrics and the dashboard.

use std::net::SocketAddr;

use secrecy::SecretString;

use super::key::Key;
use super::reader::Reader;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "web.listen",
        "ADDRESS:PORT, or off. Anything but loopback requires a token.",
    )
    .or("127.0.0.1:8787"),
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
    /// Token that callers must send.
    pub token: Option<SecretString>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> WebSettings {
    let token = reader.secret("web.token");
    let off = reader
        .layers()
        .iter()
        .find_map(|layer| layer.get(KEYS.iter().find(|key| key.path == "web.listen")?))
        .is_some_and(|(raw, _)| raw.is("off"));
    if off {
        reader.text("web.listen");
        return WebSettings { listen: None, token };
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
        token,
    }
}
