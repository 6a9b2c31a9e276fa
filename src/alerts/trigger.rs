//! What an alert or a hook reacts to: the words of `on`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{closest, parse_duration};

/// The longest time that a condition can be required to last before it is reported.
pub const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TriggerKind {
    /// A platform does not accept the authorization of an account any more.
    #[serde(rename = "auth.revoked")]
    AuthRevoked,
    /// The token of an account has expired and could not be renewed.
    #[serde(rename = "auth.expired")]
    AuthExpired,
    /// An account stops working within a day.
    #[serde(rename = "auth.expiring")]
    AuthExpiring,
    /// A source is not connected.
    #[serde(rename = "source.down")]
    SourceDown,
    /// The bot has lost a permission.
    #[serde(rename = "permission.lost")]
    PermissionLost,
    /// At least five sources, and half of those of their platform, fail with the same error; until most of them are connected.
    #[serde(rename = "platform.outage")]
    PlatformOutage,
    /// A stream started.
    #[serde(rename = "stream.online")]
    StreamOnline,
    /// A stream ended.
    #[serde(rename = "stream.offline")]
    StreamOffline,
}

impl TriggerKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::AuthRevoked,
        Self::AuthExpired,
        Self::AuthExpiring,
        Self::SourceDown,
        Self::PermissionLost,
        Self::PlatformOutage,
        Self::StreamOnline,
        Self::StreamOffline,
    ];

    /// Returns the word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthRevoked => "auth.revoked",
            Self::AuthExpired => "auth.expired",
            Self::AuthExpiring => "auth.expiring",
            Self::SourceDown => "source.down",
            Self::PermissionLost => "permission.lost",
            Self::PlatformOutage => "platform.outage",
            Self::StreamOnline => "stream.online",
            Self::StreamOffline => "stream.offline",
        }
    }

    /// Returns how long an incident of this kind waits for others with the same cause before it is reported.
    pub fn group_wait(self) -> Duration {
        match self {
            Self::SourceDown | Self::PlatformOutage => Duration::from_secs(30),
            Self::AuthRevoked | Self::AuthExpired | Self::PermissionLost => Duration::from_secs(5),
            Self::AuthExpiring | Self::StreamOnline | Self::StreamOffline => Duration::ZERO,
        }
    }

    /// Whether the end of such an incident is reported. The end of a stream has no end of its own.
    pub fn has_recovery(self) -> bool {
        self != Self::StreamOffline
    }
}

impl fmt::Display for TriggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TriggerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.as_str() == text) {
            return Ok(kind);
        }
        let names = Self::ALL.map(Self::as_str);
        Err(match closest(&text, names.into_iter()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("use one of {}", names.join(", ")),
        })
    }
}

/// An entry of `on`: a kind of change, and how long it must last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The kind of change.
    pub kind: TriggerKind,
    /// How long the condition must last before it is reported.
    pub hold: Duration,
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, hold) = match text.split_once('>') {
            Some((kind, hold)) => (kind, parse_duration(hold)?),
            None => (text, Duration::ZERO),
        };
        if hold > LONGEST_HOLD {
            return Err("a condition can be required to last 24h at most".to_owned());
        }
        Ok(Self {
            kind: kind.parse()?,
            hold,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_may_require_a_duration() {
        for (text, kind, seconds) in [
            ("auth.revoked", TriggerKind::AuthRevoked, 0),
            ("source.down>2m", TriggerKind::SourceDown, 120),
            ("source.down > 1h30m", TriggerKind::SourceDown, 5400),
            ("Stream.Online", TriggerKind::StreamOnline, 0),
        ] {
            let trigger: Trigger = text.parse().unwrap();
            assert_eq!((trigger.kind, trigger.hold.as_secs()), (kind, seconds), "{text}");
        }
        for (text, said) in [
            ("source.dwon", "did you mean `source.down`"),
            ("weather", "use one of auth.revoked"),
            ("source.down>2", "not a duration"),
            ("source.down>48h", "24h at most"),
        ] {
            let error = text.parse::<Trigger>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
