//! `[auth]`: logging in.

use super::key::Key;
use super::reader::Reader;

/// The port of the redirect address, unless configured. It is fixed because platforms compare the whole address, and outside the
/// ports that systems assign to outgoing connections.
const DEFAULT_PORT: u16 = 17_563;

const REDIRECT_PORT: Key = Key::new(
    "auth.redirect_port",
    "Port of http://localhost:PORT/callback, the redirect address of logins in a browser; it must be registered at the platform.",
)
.or("17563");

pub(super) const KEYS: &[Key] = &[REDIRECT_PORT];

/// Logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSettings {
    /// The port of the redirect address.
    pub redirect_port: u16,
}

pub(super) fn read(reader: &mut Reader<'_>) -> AuthSettings {
    let port = reader.number(&REDIRECT_PORT, 1..=65_535);
    AuthSettings {
        redirect_port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(DEFAULT_PORT),
    }
}
