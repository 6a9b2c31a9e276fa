//! What an answer, or its lack, means for a source: ours in place of Discord's words. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::ApiError;
use super::wire::ListedGuild;
use crate::core::facet::Facet;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Transport};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;

/// Who tells what was learnt over HTTP.
pub const BY_API: &str = "discord.api";
/// The method under which permissions are told, whichever way they were learnt: the newest complete answer replaces the
/// one before.
pub const PERMISSIONS: &str = "discord.permissions";

/// Returns the identity that every guild needs.
pub fn identity() -> Identity {
    Identity::named("discord/bot")
}

/// Says that the token was accepted, or is no longer. There is no third answer: bot tokens do not expire.
pub fn auth(valid: bool, reason: Option<&str>) -> Fact {
    Fact::Auth {
        identity: identity(),
        check: AuthCheck {
            result: if valid {
                AuthResult::Valid
            } else {
                AuthResult::Revoked
            },
            expires_at: None,
            scopes: BTreeSet::new(),
            reason: reason.map(str::to_owned),
        },
    }
}

/// Says how a transport was found.
pub fn link(transport: Transport, state: LinkState) -> Fact {
    Fact::Connection { transport, state }
}

/// Says that the platform refuses and a person must act.
pub fn refused(transport: Transport, code: &str, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    link(transport, LinkState::Refused { error })
}

/// Says that a transport failed in a way that heals by itself.
pub fn down(transport: Transport, code: &str, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    link(transport, LinkState::Down { error })
}

/// Says that a question about a facet was not answered over a link that works.
pub fn unanswered(facet: Facet, code: &str, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    Fact::Unanswered { facet, error }
}

/// Says that something went wrong without changing any verdict.
pub fn problem(code: &str, message: &str) -> Fact {
    Fact::Problem {
        error: ErrorInfo::new(code, message),
    }
}

/// Returns the stable code of a failure; `None` where nothing was asked and so nothing was learnt.
pub fn code(error: &ApiError) -> Option<&str> {
    Some(match error {
        ApiError::TokenRefused { .. } => "discord.token_invalid",
        ApiError::Forbidden {
            code: 50_013 | 60_003,
            ..
        } => "discord.missing_permissions",
        ApiError::Forbidden { code: 40_007, .. }
        | ApiError::NotFound {
            code: 10_004 | 10_007,
            ..
        } => "discord.not_in_guild",
        ApiError::Forbidden { code: 40_002, .. } => "discord.account_unverified",
        ApiError::Forbidden { .. } => "discord.missing_access",
        ApiError::NotFound { code: 10_003, .. } => "discord.channel_not_found",
        ApiError::NotFound { .. } => "discord.not_found",
        ApiError::ClientBlocked { .. } => "discord.cloudflare_blocked",
        ApiError::EdgeBlocked { .. } => "discord.cloudflare_ban",
        ApiError::RateLimited { .. } => "discord.rate_limited",
        ApiError::Unavailable { code, .. } => code,
        ApiError::Unreadable { .. } => "discord.unreadable",
        ApiError::Rejected { .. } => "discord.rejected",
        ApiError::Held { .. } => return None,
    })
}

/// Returns what a failure to reach Discord at all means for every source that was to be looked at.
///
/// A limit, and a request that was never sent, change no verdict. Nothing here ever touches streams or permissions.
pub fn of_failed_look(error: &ApiError, now: Timestamp) -> Vec<(Timestamp, Fact)> {
    let Some(code) = code(error) else {
        return Vec::new();
    };
    let message = error.to_string();
    match error {
        ApiError::TokenRefused { at, reason } => vec![
            (*at, auth(false, Some(reason))),
            (*at, refused(Transport::Api, code, TOKEN_REFUSED)),
        ],
        ApiError::RateLimited { .. } => vec![(now, problem(code, &message))],
        ApiError::Forbidden { .. }
        | ApiError::NotFound { .. }
        | ApiError::ClientBlocked { .. }
        | ApiError::Rejected { .. } => {
            vec![(now, refused(Transport::Api, code, &message))]
        }
        _ => vec![(now, down(Transport::Api, code, &message))],
    }
}

/// What to do about a token that was refused.
pub const TOKEN_REFUSED: &str =
    "Discord refuses the bot token; give bitbrat the current one (nothing more is sent with this one)";

/// Returns how a guild in the list presents itself. `mode` is how it is followed, which the list alone does not know.
pub fn profile(guild: &ListedGuild, mode: &str) -> Fact {
    let mut fields = BTreeMap::from([("mode".to_owned(), mode.to_owned())]);
    if let Some(name) = guild.name.as_ref().filter(|name| !name.is_empty()) {
        fields.insert("displayName".to_owned(), name.clone());
        fields.insert("guildName".to_owned(), name.clone());
    }
    for (field, count) in [
        ("memberCount", guild.approximate_member_count),
        ("presenceCount", guild.approximate_presence_count),
    ] {
        if let Some(count) = count {
            fields.insert(field.to_owned(), count.to_string());
        }
    }
    Fact::Profile { fields }
}

/// Turns a failure into the port's words.
pub fn port_error(error: ApiError, operation: &'static str) -> PlatformError {
    let platform = PlatformName::Discord;
    match error {
        ApiError::TokenRefused { reason, .. } => PlatformError::Unauthorized { platform, reason },
        ApiError::Forbidden { message, .. } | ApiError::ClientBlocked { message } => {
            PlatformError::Forbidden {
                platform,
                operation,
                reason: message,
            }
        }
        ApiError::RateLimited { wait, .. } => PlatformError::RateLimited {
            platform,
            retry_after: Some(wait),
        },
        ApiError::EdgeBlocked { retry_after, .. } => PlatformError::RateLimited {
            platform,
            retry_after,
        },
        ApiError::Unavailable { code, reason } => PlatformError::Unavailable {
            platform,
            operation,
            reason,
            code,
        },
        ApiError::Unreadable { reason } => PlatformError::Unreadable {
            platform,
            operation,
            reason,
        },
        ApiError::NotFound { message, .. } => PlatformError::Rejected {
            platform,
            operation,
            status: 404,
            reason: message,
        },
        ApiError::Rejected { status, message, .. } => PlatformError::Rejected {
            platform,
            operation,
            status,
            reason: message,
        },
        held @ ApiError::Held { .. } => PlatformError::Unavailable {
            platform,
            operation,
            reason: held.to_string(),
            code: "discord.held".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::AuthResult as AuthStatus;
    use crate::core::observation::Observation;
    use crate::core::verdict::Status;
    use std::time::Duration;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    /// What a guild that was fine looks like after a look that failed with `error`.
    fn after(error: &ApiError) -> (Status, Option<AuthStatus>, Option<String>) {
        let key = "discord:9001".parse().unwrap();
        let fine = [
            (at(0), auth(true, None)),
            (at(0), link(Transport::Api, LinkState::Up)),
        ];
        let observations: Vec<_> = fine
            .into_iter()
            .chain(of_failed_look(error, at(10)))
            .map(|(at, fact)| Observation::new(&key, at, BY_API, fact))
            .collect();
        let record = SourceDocument::from_knowledge(key, Knowledge::of(&observations)).record();
        assert!(record.permissions.is_empty());
        (
            record.status,
            record.auth_status,
            record.last_error.map(|error| error.code),
        )
    }

    #[test]
    fn each_failure_changes_what_it_proves_and_nothing_else() {
        use AuthStatus::{Revoked, Valid};
        use Status::{Connected, Disconnected, Error};
        let words = || "words".to_owned();
        for (error, status, auth, code) in [
            (
                ApiError::TokenRefused {
                    at: at(9),
                    reason: words(),
                },
                Error,
                Revoked,
                Some("discord.token_invalid"),
            ),
            (
                ApiError::EdgeBlocked {
                    status: 403,
                    retry_after: None,
                },
                Disconnected,
                Valid,
                Some("discord.cloudflare_ban"),
            ),
            (
                ApiError::ClientBlocked { message: words() },
                Error,
                Valid,
                Some("discord.cloudflare_blocked"),
            ),
            (
                ApiError::RateLimited {
                    wait: Duration::from_secs(90),
                    global: true,
                    shared: false,
                },
                Connected,
                Valid,
                Some("discord.rate_limited"),
            ),
            (
                ApiError::Unavailable {
                    code: "network.timeout".into(),
                    reason: words(),
                },
                Disconnected,
                Valid,
                Some("network.timeout"),
            ),
            (
                ApiError::Unreadable { reason: words() },
                Disconnected,
                Valid,
                Some("discord.unreadable"),
            ),
            (
                ApiError::Forbidden {
                    code: 40_002,
                    message: words(),
                },
                Error,
                Valid,
                Some("discord.account_unverified"),
            ),
            (
                ApiError::Rejected {
                    status: 400,
                    code: 50_041,
                    message: words(),
                },
                Error,
                Valid,
                Some("discord.rejected"),
            ),
            (
                ApiError::Held {
                    until: at(99),
                    reason: words(),
                },
                Connected,
                Valid,
                None,
            ),
        ] {
            let expected = (status, Some(auth), code.map(str::to_owned));
            assert_eq!(after(&error), expected, "{error:?}");
        }
    }
}
