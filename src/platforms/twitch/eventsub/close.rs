//! What the close codes of an EventSub socket mean.
//! <https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message>

use crate::core::code::Code;
use crate::core::source::PlatformName;

/// Which side caused the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Twitch or the network: reconnect.
    Them,
    /// The client: an immediate reconnect would be closed the same way.
    Us,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) code: Code,
    pub(super) reason: String,
    pub(super) blame: Blame,
}

/// Returns the meaning of a close code; `None` stands for a connection that ended without one.
pub(super) fn meaning(code: Option<u16>) -> Meaning {
    let (reason, blame) = match code {
        Some(4000) => ("Twitch had an internal error", Blame::Them),
        Some(4001) => (
            "Twitch received something on a socket that is only for listening",
            Blame::Us,
        ),
        Some(4002) => ("we did not answer Twitch's pings in time", Blame::Us),
        Some(4003) => (
            "the session was not used: no subscription was accepted in time",
            Blame::Us,
        ),
        Some(4004) => ("we did not move to the new address in time", Blame::Them),
        Some(4005) => ("Twitch met a network timeout", Blame::Them),
        Some(4006) => ("Twitch met a network error", Blame::Them),
        Some(4007) => ("Twitch did not accept the address that we moved to", Blame::Them),
        Some(1000 | 1001) => ("Twitch closed the connection", Blame::Them),
        Some(_) => ("Twitch closed the connection with an unknown code", Blame::Them),
        None => ("the connection broke off", Blame::Them),
    };
    let meant = match code {
        Some(4003) => Code::TwitchSessionUnused,
        Some(_) => Code::ConnectionClosed(PlatformName::Twitch),
        None => Code::NetworkReset,
    };
    let number = code.map_or_else(String::new, |code| format!(" (code {code})"));
    Meaning {
        code: meant,
        reason: format!("{reason}{number}"),
        blame,
    }
}
