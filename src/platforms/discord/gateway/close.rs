//! What Discord's close codes mean for the next connection. Pure; the table of "Gateway Close Event Codes".

use crate::core::code::Code;

/// What to do after a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Connect again and resume the session.
    Resume,
    /// Connect again and begin a new session.
    Identify,
    /// The token is refused; no connection is possible with it.
    TokenRefused,
    /// These intents are not allowed; fewer may be.
    FewerIntents(Refusal),
    /// Connecting again changes nothing; this needs attention.
    GiveUp(Refusal),
}

/// Why Discord refuses our connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Message for users.
    pub message: &'static str,
}

/// Returns what follows from a close code; `None` when the connection was lost without one.
pub fn after(code: Option<u16>) -> After {
    match code {
        Some(4004) => After::TokenRefused,
        // 4003: what was sent came before Identify, or the session is gone; 4007 and 4009: it cannot be resumed.
        Some(4003 | 4007 | 4009) => After::Identify,
        Some(4010) => After::GiveUp(Refusal {
            code: Code::DiscordInvalidShard,
            message: "Discord refuses the shard; this is a fault of bitbrat",
        }),
        Some(4011) => After::GiveUp(Refusal {
            code: Code::DiscordShardingRequired,
            message: "the bot is in too many guilds for one gateway connection; set discord.gateway to false and poll",
        }),
        Some(4012) => After::GiveUp(Refusal {
            code: Code::DiscordInvalidVersion,
            message: "Discord no longer supports this version of the gateway; upgrade bitbrat",
        }),
        Some(4013) => After::FewerIntents(Refusal {
            code: Code::DiscordInvalidIntents,
            message: "Discord does not support the requested intents; upgrade bitbrat",
        }),
        Some(4014) => After::FewerIntents(Refusal {
            code: Code::DiscordDisallowedIntents,
            message: "Discord does not allow the intents asked for; switch them on in the developer portal",
        }),
        // What the server's own 1000 and 1001 do to a session is not documented: a Resume costs nothing and shows it.
        _ => After::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_has_its_consequence() {
        let kind = |after: After| match after {
            After::Resume => "resume",
            After::Identify => "identify",
            After::TokenRefused => "token",
            After::FewerIntents(_) => "intents",
            After::GiveUp(_) => "give up",
        };
        for (code, expected) in [
            (None, "resume"),
            (Some(1000), "resume"),
            (Some(1001), "resume"),
            (Some(1006), "resume"),
            (Some(4000), "resume"),
            (Some(4001), "resume"),
            (Some(4002), "resume"),
            (Some(4003), "identify"),
            (Some(4004), "token"),
            (Some(4005), "resume"),
            (Some(4007), "identify"),
            (Some(4008), "resume"),
            (Some(4009), "identify"),
            (Some(4010), "give up"),
            (Some(4011), "give up"),
            (Some(4012), "give up"),
            (Some(4013), "intents"),
            (Some(4014), "intents"),
            // An unknown code is handled like a lost connection.
            (Some(4999), "resume"),
        ] {
            assert_eq!(kind(after(code)), expected, "{code:?}");
        }
    }
}
