//! What a response, or its absence, means for a source: maps Discord's results to facts. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::answer::ApiError;
use super::channels::Report;
use super::options::bot;
use super::permissions::Permissions;
use super::wire::{ListedGuild, UNCLEAR_TIMEOUT};
use crate::core::code::Code;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, LinkState, Transport};
use crate::core::permission::{CHANNEL_METHOD, GUILD_METHOD};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, foreign_text};

pub use crate::platforms::kit::facts::{down, link, problem, refused, unanswered, up};

/// Origin of observations made over HTTP.
pub const BY_API: &str = "discord.api";

/// Returns whether the token was accepted or refused. There is no third result: bot tokens do not expire.
pub fn auth(valid: bool, reason: Option<&str>) -> Fact {
    Fact::Auth {
        identity: bot(),
        check: AuthCheck {
            client_rejected: false,
            result: if valid {
                AuthResult::Valid
            } else {
                AuthResult::Revoked
            },
            expires_at: None,
            scopes: BTreeSet::new(),
            rejected: false,
            reason: reason.map(str::to_owned),
        }
        .into(),
    }
}

/// Returns the permissions of a guild without configured channels, where the guild-level permissions cover every action.
pub fn of_guild(base: Permissions) -> [Fact; 2] {
    let fields = BTreeMap::from([("permissionScope".to_owned(), "guild".to_owned())]);
    let method = GUILD_METHOD.to_owned();
    let grants = base.grants();
    [
        Fact::Permissions {
            method,
            grants: grants.into(),
        },
        Fact::Profile { fields },
    ]
}

/// Returns the permissions of a guild with configured channels: those that Discord checks in the guild from the guild, the
/// others from the channels, as far as all of these could be evaluated.
pub fn of_channels(base: Permissions, report: Report) -> Vec<Fact> {
    let mut facts = vec![Fact::Permissions {
        method: GUILD_METHOD.to_owned(),
        grants: base.guild_grants().into(),
    }];
    if let Some(grants) = report.grants {
        let method = CHANNEL_METHOD.to_owned();
        facts.push(Fact::Permissions {
            method,
            grants: grants.into(),
        });
    }
    let scope = report.scope.unwrap_or_else(|| "channels".to_owned());
    let fields = BTreeMap::from([
        ("permissionScope".to_owned(), scope),
        ("channelPermissions".to_owned(), report.overview),
    ]);
    facts.push(Fact::Profile { fields });
    facts
}

/// Returns permissions that were computed without a timeout, for a member that may be in one: what a timeout leaves is granted,
/// what it takes is unknown.
pub fn with_unclear_timeout(facts: Vec<Fact>) -> Vec<Fact> {
    let left: BTreeSet<String> = Permissions::ALL
        .without(Permissions::ADMINISTRATOR)
        .in_timeout()
        .names()
        .into_iter()
        .collect();
    let mut facts = facts;
    for fact in &mut facts {
        if let Fact::Permissions { grants, .. } = fact {
            let grants = Arc::make_mut(grants);
            let granted = std::mem::take(&mut grants.granted);
            let (granted, unknown) = granted.into_iter().partition(|name| left.contains(name));
            grants.granted = granted;
            let unknown: BTreeSet<String> = unknown;
            let reason = |name| (name, UNCLEAR_TIMEOUT.to_owned());
            grants.unknown.extend(unknown.into_iter().map(reason));
        }
    }
    facts
}

/// The bot is not a member of the guild, or the guild does not exist: no such source, over a transport that works.
pub fn not_in_guild(transport: Transport) -> [Fact; 2] {
    let error = ErrorInfo::new(Code::NotFound(PlatformName::Discord), NOT_IN_GUILD);
    [Fact::NoSuchSource { error }, link(transport, LinkState::Answered)]
}

/// Hint for a guild that the bot is not a member of.
pub const NOT_IN_GUILD: &str = "the bot is not a member of this guild, or there is no such guild; invite it";

/// Returns the stable code of a failure; `None` where nothing was sent and so nothing was observed.
pub fn code(error: &ApiError) -> Option<Code> {
    Some(match error {
        ApiError::TokenRefused { .. } => Code::Unauthorized(PlatformName::Discord),
        ApiError::Forbidden {
            code: 50_013 | 60_003,
            ..
        } => Code::DiscordMissingPermissions,
        ApiError::Forbidden { code: 40_007, .. }
        | ApiError::NotFound {
            code: 10_004 | 10_007,
            ..
        } => Code::NotFound(PlatformName::Discord),
        ApiError::Forbidden { code: 40_002, .. } => Code::DiscordAccountUnverified,
        ApiError::Forbidden { .. } => Code::Forbidden(PlatformName::Discord),
        ApiError::NotFound { code: 10_003, .. } => Code::DiscordChannelNotFound,
        ApiError::ClientBlocked { .. } => Code::DiscordClientBlocked,
        ApiError::EdgeBlocked { .. } => Code::EdgeBlocked(PlatformName::Discord),
        ApiError::RateLimited { .. } => Code::RateLimited(PlatformName::Discord),
        ApiError::Unavailable { code, .. } => *code,
        ApiError::Unreadable { .. } | ApiError::Foreign { .. } => Code::Unreadable(PlatformName::Discord),
        ApiError::Rejected { .. } | ApiError::NotFound { .. } => Code::Rejected(PlatformName::Discord),
        ApiError::Held { .. } => return None,
    })
}

/// Returns what a failed request to Discord means for every source that was to be probed.
///
/// A rate limit, and a request that was never sent, change no verdict. Nothing here ever affects streams or permissions.
pub fn of_failed_probe(error: &ApiError, now: Timestamp) -> Vec<(Timestamp, Fact)> {
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

/// Hint for a token that was refused.
pub const TOKEN_REFUSED: &str =
    "Discord refuses the bot token; give bitbrat the current one (nothing more is sent with this one)";

/// Returns the profile of a guild in the list. `mode` is how it is monitored, which the list alone does not contain.
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

/// Converts a failure into the port's error.
pub fn port_error(error: ApiError, operation: &'static str) -> PlatformError {
    let asked = Asked::new(PlatformName::Discord, operation);
    let rate_limited = |retry_after| PlatformError::rate_limited(PlatformName::Discord, retry_after);
    match error {
        ApiError::TokenRefused { reason, .. } => PlatformError::unauthorized(PlatformName::Discord, reason),
        ApiError::Forbidden { message, .. } | ApiError::ClientBlocked { message } => asked.forbidden(message),
        ApiError::RateLimited { wait, .. } => rate_limited(Some(wait)),
        ApiError::EdgeBlocked { retry_after, .. } => rate_limited(retry_after),
        ApiError::Unavailable { code, reason } => asked.unavailable(code, reason),
        ApiError::Unreadable { reason } => asked.unreadable(reason),
        ApiError::Foreign { status } => asked.unreadable(foreign_text(PlatformName::Discord, status)),
        ApiError::NotFound { message, .. } => asked.rejected(404, message),
        ApiError::Rejected { status, message, .. } => asked.rejected(status, message),
        held @ ApiError::Held { .. } => asked.unavailable(Code::DiscordNotSent, held.to_string()),
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

    /// Verdicts of a guild without problems after a probe that failed with `error`.
    fn after(error: &ApiError) -> (Status, Option<AuthStatus>, Option<Code>) {
        let key = "discord:9001".parse().unwrap();
        let fine = [(at(0), auth(true, None)), (at(0), up(Transport::Api))];
        let observations: Vec<_> = fine
            .into_iter()
            .chain(of_failed_probe(error, at(10)))
            .map(|(at, fact)| Observation::new(&key, at, BY_API, fact))
            .collect();
        let record = SourceDocument::from_knowledge(key, Knowledge::of(&observations)).record();
        assert!(record.held().is_empty());
        (
            record.status,
            record.auth_status,
            record.last_error.and_then(|error| error.code.known()),
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
                Some(Code::Unauthorized(PlatformName::Discord)),
            ),
            (
                ApiError::EdgeBlocked {
                    status: 403,
                    retry_after: None,
                },
                Disconnected,
                Valid,
                Some(Code::EdgeBlocked(PlatformName::Discord)),
            ),
            (
                ApiError::ClientBlocked { message: words() },
                Error,
                Valid,
                Some(Code::DiscordClientBlocked),
            ),
            (
                ApiError::RateLimited {
                    wait: Duration::from_secs(90),
                    global: true,
                    shared: false,
                },
                Connected,
                Valid,
                Some(Code::RateLimited(PlatformName::Discord)),
            ),
            (
                ApiError::Unavailable {
                    code: Code::NetworkTimeout,
                    reason: words(),
                },
                Disconnected,
                Valid,
                Some(Code::NetworkTimeout),
            ),
            (
                ApiError::Unreadable { reason: words() },
                Disconnected,
                Valid,
                Some(Code::Unreadable(PlatformName::Discord)),
            ),
            (
                ApiError::Foreign { status: 400 },
                Disconnected,
                Valid,
                Some(Code::Unreadable(PlatformName::Discord)),
            ),
            (
                ApiError::Forbidden {
                    code: 40_002,
                    message: words(),
                },
                Error,
                Valid,
                Some(Code::DiscordAccountUnverified),
            ),
            (
                ApiError::Rejected {
                    status: 400,
                    code: 50_041,
                    message: words(),
                },
                Error,
                Valid,
                Some(Code::Rejected(PlatformName::Discord)),
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
            let expected = (status, Some(auth), code);
            assert_eq!(after(&error), expected, "{error:?}");
        }
    }
}
