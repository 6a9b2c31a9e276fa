//! What a response, or its absence, means for a source: maps Kick's results to facts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::token_status::days_to_warn_about;
use super::wire::{Channel, Livestream};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{ErrorInfo, Fact, Grants, Identity, LinkState, Transport};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;
use crate::platforms::kit::token_check::{TokenCheck, TokenStatus};
use crate::tokens::TokenKind;

pub(super) use crate::platforms::kit::facts::{down, link, problem, refused, unanswered, up};

/// Origin of observations made over HTTP.
pub(super) const BY_API: &str = "kick.api";
/// Origin of pushed observations.
pub(super) const BY_WEBHOOK: &str = "kick.webhook";

/// The method that reports granted scopes.
pub(super) const SCOPES_METHOD: &str = "kick.scopes";
/// The method that reports badges seen on the bot's own messages.
pub(super) const BADGES_METHOD: &str = "kick.badges";
/// The method that reports that the bot is the broadcaster.
pub(super) const OWNER_METHOD: &str = "kick.owner";

/// Every scope that exists; those that introspection does not list are not granted.
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

/// Reports that the API answers, without evidence whether the source exists.
pub(super) fn answered() -> Fact {
    link(Transport::Api, LinkState::Answered)
}

/// Reports that there is no such channel, so that its absence from lists proves nothing. The API itself answered.
pub(super) fn not_found() -> [Fact; 2] {
    let error = no_such_channel();
    [Fact::NoSuchSource { error }, answered()]
}

/// Returns the error of a channel that does not exist.
pub(super) fn no_such_channel() -> ErrorInfo {
    ErrorInfo::new(
        Code::NotFound(PlatformName::Kick),
        "no such channel on Kick; it may be banned or deleted",
    )
}

/// Returns a failure as an error to store, with a sentence that says which request failed.
pub(super) fn error(error: &PlatformError, message: &str) -> ErrorInfo {
    ErrorInfo::new(error.code(), message)
}

/// Returns what a failed probe means for a source. Nothing here ever affects streams, accounts or permissions.
pub(super) fn of_failed_probe(error: &PlatformError) -> Fact {
    let message = error.to_string();
    match error {
        // A server that limits the rate is reachable: the connection is unchanged, and its evidence gets older.
        PlatformError::RateLimited { .. } => unanswered(Facet::Status, error.code(), &message),
        PlatformError::Unavailable { .. } | PlatformError::Unreadable { .. } => {
            down(Transport::Api, error.code(), &message)
        }
        _ => refused(Transport::Api, error.code(), &message),
    }
}

/// Returns the result of an account check as facts; an unknown status yields none.
pub(super) fn of_check(identity: &Identity, checked: &TokenCheck) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(check) = checked.status.evidence(&checked.token) {
        facts.push(Fact::Auth {
            identity: identity.clone(),
            check: check.into(),
        });
    }
    if checked.client_rejected {
        facts.push(refused(
            Transport::Api,
            Code::ClientRejected(PlatformName::Kick),
            "Kick refuses the client id and secret; its secret may have been changed",
        ));
    } else if let TokenStatus::Unknown(reason) = &checked.status {
        facts.push(problem(
            Code::TokenUnchecked(PlatformName::Kick),
            &format!("{identity}: {reason}"),
        ));
    }
    facts.extend(
        warnings(identity, checked)
            .iter()
            .map(|(code, warning)| problem(*code, warning)),
    );
    facts
}

/// Returns the user that a checked token belongs to.
pub(super) fn owner(checked: &TokenCheck) -> Option<u64> {
    checked.token.user_id.as_ref()?.parse().ok()
}

/// Returns warnings for users about an account, in addition to its status.
pub(super) fn warnings(identity: &Identity, checked: &TokenCheck) -> Vec<(Code, String)> {
    let mut warnings = Vec::new();
    // The application needs no grant.
    let has_grant = checked.token.kind == TokenKind::User && checked.token.refresh.is_some();
    let days = days_to_warn_about(checked.token.obtained_at, checked.at);
    if let Some(days) = days.filter(|_| has_grant) {
        let warning = format!(
            "{identity}: not refreshed for {days} days; Kick revokes a grant after about 30, so log in again soon"
        );
        warnings.push((Code::KickGrantExpiring, warning));
    }
    if !checked.lost_scopes.is_empty() {
        let lost: Vec<_> = checked.lost_scopes.iter().map(String::as_str).collect();
        warnings.push((
            Code::KickScopesLost,
            format!("{identity}: no longer granted: {}", lost.join(", ")),
        ));
    }
    warnings
}

/// Returns what granted scopes permit. Introspection lists all of them, so a missing one is denied for certain.
pub(super) fn scopes(granted: &BTreeSet<String>) -> Grants {
    let name = |scope: &str| format!("scope:{scope}");
    let denied = SCOPES.iter().filter(|scope| !granted.contains(**scope));
    Grants {
        denied: denied.map(|scope| name(scope)).collect(),
        granted: granted.iter().map(|scope| name(scope)).collect(),
        unknown: BTreeMap::new(),
    }
}

/// Returns the id of a stream: the text of its start, which is the same in lists and webhooks. Lists also have an id of
/// their own, which webhooks lack.
pub(super) fn stream_id(stream: &Livestream) -> Option<String> {
    let start = started_at(&stream.started_at).map(|start| start.to_string());
    start.or_else(|| Some(stream.id.clone()).filter(|id| !id.is_empty()))
}

/// Returns when a stream started; Go's zero time is none.
pub(super) fn started_at(text: &str) -> Option<Timestamp> {
    text.trim().parse().ok().and_then(Timestamp::known)
}

/// Indexes rows by id. Of several rows with the same id the one with the greatest rank is returned, whatever their order.
pub(super) fn newest<'a, T, I: Ord, R: Ord>(
    rows: &'a [T],
    id_and_rank: impl Fn(&'a T) -> (I, R),
) -> BTreeMap<I, &'a T> {
    let mut newest: BTreeMap<I, (R, &T)> = BTreeMap::new();
    for row in rows {
        let (id, rank) = id_and_rank(row);
        if newest.get(&id).is_none_or(|(known, _)| rank > *known) {
            newest.insert(id, (rank, row));
        }
    }
    newest.into_iter().map(|(id, (_, row))| (id, row)).collect()
}

/// Collects profile fields that are not empty.
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

/// Returns the profile of a live channel.
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

/// Returns the profile of a channel. Its title lags behind a live stream's, so that is left to the list.
pub(super) fn channel_profile(channel: &Channel, name: Option<&str>, live: bool) -> Option<Fact> {
    let of_offline = |text| if live { None } else { text };
    profile([
        ("displayName", name),
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
    use crate::platforms::kit::answer::Asked;

    #[test]
    fn each_failure_changes_what_it_proves_and_nothing_else() {
        let platform = PlatformName::Kick;
        let (asked, reason) = (Asked::new(platform, "it"), || "words".to_owned());
        for (error, expected) in [
            (
                PlatformError::rate_limited(platform, None),
                "unanswered kick.rate_limited",
            ),
            (
                asked.unavailable(Code::HttpWebPage, reason()),
                "down http.web_page",
            ),
            (asked.unreadable(reason()), "down kick.unreadable"),
            (
                PlatformError::unauthorized(platform, reason()),
                "refused kick.unauthorized",
            ),
            (asked.forbidden(reason()), "refused kick.forbidden"),
            (asked.rejected(400, reason()), "refused kick.rejected"),
            (
                PlatformError::ClientRejected {
                    platform,
                    reason: reason(),
                },
                "refused kick.client_rejected",
            ),
            (
                PlatformError::not_configured(platform, reason()),
                "refused kick.not_configured",
            ),
        ] {
            let found = match of_failed_probe(&error) {
                Fact::Connection {
                    state: LinkState::Down { error },
                    ..
                } => format!("down {}", error.code),
                Fact::Connection {
                    state: LinkState::Refused { error },
                    ..
                } => format!("refused {}", error.code),
                Fact::Unanswered { error, .. } => format!("unanswered {}", error.code),
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
