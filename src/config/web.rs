//! `[web]`: health, metrics and the dashboard.

use std::net::SocketAddr;

use secrecy::SecretString;

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

pub(super) const KEYS: &[Key] = &[LISTEN, TOKEN];

#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Where it listens; nowhere when `None`.
    pub listen: Option<SocketAddr>,
    /// Token that callers must send.
    pub token: Option<SecretString>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> WebSettings {
    let token = reader.secret(&TOKEN);
    let off = reader
        .layers()
        .iter()
        .find_map(|layer| layer.get(&LISTEN))
        .is_some_and(|(raw, _)| raw.is("off"));
    if off {
        reader.text(&LISTEN);
        return WebSettings { listen: None, token };
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
        token,
    }
}
