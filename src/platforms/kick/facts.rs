//! What an answer, or its lack, means for a source: ours in place of Kick's words. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::auth::{Checked, is_app_refusal};
use super::standing::{Standing, worrying_age};
use super::wire::{Channel, Livestream};
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Transport,
};
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;

/// Who tells what was learnt over HTTP.
pub(super) const BY_API: &str = "kick.api";
/// Who tells what was pushed.
pub(super) const BY_WEBHOOK: &str = "kick.webhook";

/// The method that tells granted scopes.
pub(super) const SCOPES_METHOD: &str = "kick.scopes";
/// The method that tells badges seen on the bot's own messages.
pub(super) const BADGES_METHOD: &str = "kick.badges";
/// The method that tells that the bot is the broadcaster.
pub(super) const OWNER_METHOD: &str = "kick.owner";

/// Every scope that exists; what introspection does not name of these is not granted.
const SCOPES: [&str; 11] = [
    "user:read",
    "channel:read",
    "channel:write",
    "channel:rewards:read",
    "channel:rewards:write",
    "chat:write",
    "streamkey:read",
    "events:subscribe",
    "moderation:ban",
    "moderation:chat_message:manage",
    "kicks:read",
];

/// Says that the API works for a source that is known to exist.
pub(super) fn up(transport: Transport) -> Fact {
    Fact::Connection {
        transport,
        state: LinkState::Up,
    }
}

/// Says that the API answers, and nothing of whether the source exists.
pub(super) fn answered() -> Fact {
    Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Answered,
    }
}

/// Says that a transport failed in a way that heals by itself.
pub(super) fn down(transport: Transport, code: &str, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    Fact::Connection {
        transport,
        state: LinkState::Down { error },
    }
}

/// Says that Kick refuses and a person must act.
pub(super) fn refused(code: &str, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Refused { error },
    }
}

/// Says that something went wrong without changing any verdict.
pub(super) fn problem(code: &str, message: &str) -> Fact {
    Fact::Problem {
        error: ErrorInfo::new(code, message),
    }
}

/// Says that there is no such channel; what lists do not show of it then proves nothing.
pub(super) fn not_found() -> Fact {
    refused(
        "kick.not_found",
        "Kick knows no such channel; it may be banned or deleted",
    )
}

/// Returns the stable code of a failure.
pub(super) fn code(error: &PlatformError) -> &str {
    match error {
        error if is_app_refusal(error) => "kick.invalid_client",
        PlatformError::Unauthorized { .. } => "kick.unauthorized",
        PlatformError::Forbidden { .. } => "kick.forbidden",
        PlatformError::RateLimited { .. } => "kick.rate_limited",
        PlatformError::Unavailable { code, .. } => code,
        PlatformError::Unreadable { .. } => "kick.unreadable",
        PlatformError::Rejected { .. } => "kick.rejected",
        PlatformError::NotConfigured { .. } => "config.token",
        PlatformError::TokenStore { .. } => "kick.token_store",
    }
}

/// Returns what a look that failed means for a source. Nothing here ever touches
/// streams, authorisations or permissions.
pub(super) fn of_failed_look(error: &PlatformError) -> Fact {
    let message = error.to_string();
    match error {
        PlatformError::RateLimited { .. }
        | PlatformError::Unavailable { .. }
        | PlatformError::Unreadable { .. } => down(Transport::Api, code(error), &message),
        _ => refused(code(error), &message),
    }
}

/// Returns what was found of an authorisation, as facts; a standing that is not known is none.
pub(super) fn of_check(identity: &Identity, checked: &Checked) -> Vec<Fact> {
    let (result, reason) = match &checked.standing {
        Standing::Valid => (Some(AuthResult::Valid), None),
        Standing::Expired(reason) => (Some(AuthResult::Expired), Some(reason.clone())),
        Standing::Revoked(reason) => (Some(AuthResult::Revoked), Some(reason.clone())),
        Standing::Unknown(_) => (None, None),
    };
    let mut facts = Vec::new();
    if let Some(result) = result {
        facts.push(Fact::Auth {
            identity: identity.clone(),
            check: AuthCheck {
                result,
                expires_at: checked.expires_at,
                scopes: checked.scopes.clone(),
                reason,
            },
        });
    }
    if checked.app_refused {
        facts.push(refused(
            "kick.invalid_client",
            "Kick refuses the client id and secret; its secret may have been changed",
        ));
    } else if let Standing::Unknown(reason) = &checked.standing {
        facts.push(problem("kick.auth_unknown", &format!("{identity}: {reason}")));
    }
    facts.extend(
        worries(identity, checked)
            .iter()
            .map(|(code, worry)| problem(code, worry)),
    );
    facts
}

/// Returns what a person should know of an authorisation beside its standing.
pub(super) fn worries(identity: &Identity, checked: &Checked) -> Vec<(&'static str, String)> {
    let mut worries = Vec::new();
    if let Some(days) = checked
        .renewed_at
        .and_then(|renewed| worrying_age(renewed, checked.at))
    {
        let worry = format!(
            "{identity}: not renewed for {days} days; Kick ends a grant after about 30, so authorise again soon"
        );
        worries.push(("kick.grant_ages", worry));
    }
    if !checked.lost_scopes.is_empty() {
        let lost: Vec<_> = checked.lost_scopes.iter().map(String::as_str).collect();
        worries.push((
            "kick.scopes_lost",
            format!("{identity}: no longer granted: {}", lost.join(", ")),
        ));
    }
    worries
}

/// Returns what granted scopes allow. Introspection lists all of them, so what is missing is denied for certain.
pub(super) fn scopes(granted: &BTreeSet<String>) -> Grants {
    let name = |scope: &str| format!("scope:{scope}");
    let denied = SCOPES.iter().filter(|scope| !granted.contains(**scope));
    Grants {
        denied: denied.map(|scope| name(scope)).collect(),
        granted: granted.iter().map(|scope| name(scope)).collect(),
        unknown: BTreeMap::new(),
    }
}

/// Returns what names a stream: the text of its start, which is the same in lists and webhooks. Lists also have an id of
/// their own, which webhooks lack.
pub(super) fn stream_id(stream: &Livestream) -> &str {
    let started_at = stream.started_at.trim();
    if started_at.is_empty() {
        &stream.id
    } else {
        started_at
    }
}

/// Returns when a stream started; Go's zero time is none.
pub(super) fn started_at(text: &str) -> Option<Timestamp> {
    let at: Timestamp = text.trim().parse().ok()?;
    (at > Timestamp::EPOCH).then_some(at)
}

/// Collects profile fields that say something.
pub(super) fn profile<'a>(fields: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Option<Fact> {
    let fields: BTreeMap<_, _> = fields
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.map(str::trim).filter(|value| !value.is_empty())?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect();
    (!fields.is_empty()).then_some(Fact::Profile { fields })
}

/// Returns how a live channel presents itself.
pub(super) fn live_profile(stream: &Livestream) -> Option<Fact> {
    profile([
        ("displayName", Some(stream.username.as_str())),
        ("slug", Some(stream.slug.as_str())),
        ("title", stream.title.as_deref()),
        (
            "category",
            stream.category.as_ref().map(|category| category.name.as_str()),
        ),
    ])
}

/// Returns how a channel presents itself. Its title lags behind a running stream's, so that is left to the list.
pub(super) fn channel_profile(channel: &Channel, name: Option<&str>, live: bool) -> Option<Fact> {
    let of_offline = |text| if live { None } else { text };
    profile([
        ("displayName", name.or(Some(channel.slug.as_str()))),
        ("slug", Some(channel.slug.as_str())),
        ("title", of_offline(channel.stream_title.as_deref())),
        (
            "category",
            of_offline(channel.category.as_ref().map(|category| category.name.as_str())),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::PlatformName;

    #[test]
    fn each_failure_changes_what_it_proves_and_nothing_else() {
        let platform = PlatformName::Kick;
        let reason = || "words".to_owned();
        for (error, expected) in [
            (
                PlatformError::RateLimited {
                    platform,
                    retry_after: None,
                },
                "down kick.rate_limited",
            ),
            (
                PlatformError::Unavailable {
                    platform,
                    operation: "it",
                    reason: reason(),
                    code: "http.html".into(),
                },
                "down http.html",
            ),
            (
                PlatformError::Unreadable {
                    platform,
                    operation: "it",
                    reason: reason(),
                },
                "down kick.unreadable",
            ),
            (
                PlatformError::Unauthorized {
                    platform,
                    reason: reason(),
                },
                "refused kick.unauthorized",
            ),
            (
                PlatformError::Forbidden {
                    platform,
                    operation: "it",
                    reason: reason(),
                },
                "refused kick.forbidden",
            ),
            (
                PlatformError::Rejected {
                    platform,
                    operation: "it",
                    status: 400,
                    reason: reason(),
                },
                "refused kick.rejected",
            ),
            (
                PlatformError::Rejected {
                    platform,
                    operation: super::super::auth::APP_REFUSED,
                    status: 401,
                    reason: reason(),
                },
                "refused kick.invalid_client",
            ),
            (
                PlatformError::NotConfigured {
                    platform,
                    what: reason(),
                },
                "refused config.token",
            ),
        ] {
            let found = match of_failed_look(&error) {
                Fact::Connection {
                    state: LinkState::Down { error },
                    ..
                } => format!("down {}", error.code),
                Fact::Connection {
                    state: LinkState::Refused { error },
                    ..
                } => format!("refused {}", error.code),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn gos_zero_time_is_no_start() {
        assert_eq!(started_at("0001-01-01T00:00:00Z"), None);
        assert_eq!(started_at(""), None);
        assert!(started_at("2026-06-01T13:00:00+02:00").is_some());
    }

    #[test]
    fn scopes_that_are_not_listed_are_denied() {
        let grants = scopes(&["chat:write".to_owned(), "brand:new".to_owned()].into());
        assert!(grants.granted.contains("scope:chat:write") && grants.granted.contains("scope:brand:new"));
        assert!(
            grants.denied.contains("scope:moderation:ban") && !grants.denied.contains("scope:chat:write")
        );
    }
}
