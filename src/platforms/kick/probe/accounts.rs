//! The part of a probe that is about accounts, and what they and badges permit.

use std::time::Duration;

use super::super::api::LIST_AT_ONCE;
use super::super::facts::{self, BADGES_METHOD, OWNER_METHOD, SCOPES_METHOD};
use super::super::options::{BOT, broadcaster_of};
use super::context::ProbeContext;
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, Grants, Identity, Transport};
use crate::core::source::PlatformName;
use crate::platforms::kit::token_check::{TokenCheck, TokenStatus};
use crate::platforms::{PlatformError, Probe, Problem};

/// An introspection of less than this age still determines permissions.
const SCOPES_KNOWN_FOR: Duration = Duration::from_mins(5);
/// Minimum interval before a poll checks an account again whose last check gave no evidence.
const RETRY_CHECK: Duration = Duration::from_mins(5);

pub(super) async fn probe(cx: &ProbeContext<'_>) {
    let identities = match cx.platform.api.auth.accounts().await {
        Ok(identities) if identities.is_empty() => return fail_everything_without_identity(cx),
        Ok(identities) => identities,
        Err(error) => return cx.fail(&cx.all(), &error),
    };
    let wanted: Vec<_> = identities
        .into_iter()
        .filter(|identity| broadcaster_of(identity).is_none_or(|id| cx.targets.contains_key(&id)))
        .collect();
    cx.meter.expect(wanted.len());
    for identity in &wanted {
        let max_age = if cx.probes.contains(&Probe::Auth) {
            Duration::ZERO
        } else {
            SCOPES_KNOWN_FOR
        };
        let checked = cx
            .platform
            .api
            .auth
            .checked_within(max_age, identity, &cx.meter)
            .await;
        match checked {
            Ok(checked) => {
                if cx.probes.contains(&Probe::Permissions) && identity.as_str() == BOT {
                    emit_scopes(cx, &checked);
                }
            }
            Err(error) => {
                let concerned = concerned(cx, identity);
                let words = format!("{identity}: {error}");
                // If the host of tokens is unreachable or has a rate limit of its own, this says nothing about the API, which
                // the list request checks.
                let of_tokens_host = matches!(
                    error,
                    PlatformError::Unavailable { .. }
                        | PlatformError::Unreadable { .. }
                        | PlatformError::RateLimited { .. }
                );
                let info = if of_tokens_host {
                    let info = facts::error(&error, &words);
                    cx.emit_all(&concerned, &Fact::Problem { error: info.clone() });
                    info
                } else {
                    cx.emit_all(&concerned, &facts::of_failed_probe(&error));
                    facts::error(&error, &error.to_string())
                };
                cx.problem(Problem::of_account(identity, words).caused_by(info));
            }
        }
        cx.meter.done();
    }
    if cx.probes.contains(&Probe::Permissions) {
        emit_badges(cx);
    }
}

/// Checks accounts whose tokens the requests of this probe did not use, because the application's token serves them: a
/// revoked one is found at this poll, not at the next hourly check. One introspection for the bot, one for the broadcaster
/// that was not checked for the longest time, and none when the rate limit has no capacity left.
pub(super) async fn check_idle(cx: &ProbeContext<'_>) {
    let auth = &cx.platform.api.auth;
    // A token store that cannot be read is reported by the other requests.
    let Ok(identities) = auth.accounts().await else {
        return;
    };
    // The first one is used for requests, so that a refusal of its token is noticed anyway.
    let idle = identities.iter().skip(1);
    let mut broadcasters: Vec<_> = idle
        .clone()
        .filter(|identity| broadcaster_of(identity).is_some_and(|id| cx.targets.contains_key(&id)))
        .map(|identity| (auth.last_check(identity).map(|checked| checked.at), identity))
        .collect();
    broadcasters.sort();
    let bot = idle.filter(|identity| identity.as_str() == BOT);
    let next = broadcasters.first().map(|(_, identity)| *identity);
    for identity in bot.chain(next) {
        // Half of the limit stays for what is polled itself, which a check must not delay.
        let rate_limiter = &cx.platform.api.client.rate_limiter;
        let lists = cx.targets.len().div_ceil(LIST_AT_ONCE);
        if rate_limiter.left() <= lists.max(rate_limiter.limit() / 2) {
            return;
        }
        let before = auth.last_check(identity);
        let failed_lately = before.as_ref().is_some_and(|checked| {
            matches!(checked.status, TokenStatus::Unknown(_)) && checked.at.is_recent(RETRY_CHECK, cx.now())
        });
        if failed_lately {
            continue;
        }
        cx.meter.expect(1);
        let checked = auth.check(identity, &cx.meter).await;
        cx.meter.done();
        let Ok(checked) = checked else { continue };
        // A result without evidence, or without a change, is left to the scheduled check of the account.
        let was_valid = before.is_some_and(|before| before.status == TokenStatus::Valid);
        let is_known = match checked.status {
            TokenStatus::Unknown(_) => true,
            TokenStatus::Valid => was_valid && checked.lost_scopes.is_empty(),
            TokenStatus::Expired(_)
            | TokenStatus::ClientRejected(_)
            | TokenStatus::Rejected(_)
            | TokenStatus::Revoked(_) => false,
        };
        if is_known {
            cx.meter.checks.forget(identity);
        }
    }
}

fn fail_everything_without_identity(cx: &ProbeContext<'_>) {
    let needs =
        "Kick needs a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot";
    cx.emit_all(
        &cx.all(),
        &facts::refused(Transport::Api, Code::NotConfigured(PlatformName::Kick), needs),
    );
    let error = ErrorInfo::new(Code::NotConfigured(PlatformName::Kick), needs);
    cx.problem(Problem::of_platform(needs).caused_by(error));
}

fn emit_scopes(cx: &ProbeContext<'_>, checked: &TokenCheck) {
    if checked.status != TokenStatus::Valid {
        return;
    }
    for (id, key) in &cx.targets {
        cx.emit(
            key,
            checked.at,
            permissions(SCOPES_METHOD, facts::scopes(&checked.token.scopes)),
        );
        if facts::owner(checked) == Some(*id) {
            let granted = Grants {
                granted: ["badge:broadcaster".to_owned()].into(),
                ..Grants::default()
            };
            cx.emit(key, checked.at, permissions(OWNER_METHOD, granted));
        }
    }
}

fn emit_badges(cx: &ProbeContext<'_>) {
    let now = cx.now();
    for (id, key) in &cx.targets {
        let grants = cx
            .platform
            .badges
            .grants(*id, now, cx.platform.options.badges_for);
        if let Some((at, grants)) = grants {
            cx.emit(key, at, permissions(BADGES_METHOD, grants));
        }
    }
}

/// The sources that need an identity.
fn concerned(cx: &ProbeContext<'_>, identity: &Identity) -> Vec<u64> {
    match broadcaster_of(identity) {
        Some(id) => vec![id],
        None => cx.all(),
    }
}

/// Emits the results of account checks, also where a refused token was the reason for the check.
pub(super) fn emit_checks(cx: &ProbeContext<'_>) {
    for (identity, checked) in cx.meter.checks.take() {
        if let Some(id) = facts::owner(&checked).filter(|_| identity.as_str() == BOT) {
            cx.platform.bot.update(id);
        }
        let facts = facts::of_check(&identity, &checked);
        for id in concerned(cx, &identity) {
            for fact in &facts {
                if let Some(key) = cx.targets.get(&id) {
                    cx.emit(key, checked.at, fact.clone());
                }
            }
        }
        for (code, warning) in facts::warnings(&identity, &checked) {
            let error = ErrorInfo::new(code, &warning);
            cx.problem(Problem::of_account(&identity, warning).caused_by(error));
        }
        if let Some(reason) = checked.status.reason() {
            cx.problem(Problem::of_account(&identity, format!("{identity}: {reason}")));
        }
    }
}

fn permissions(method: &str, grants: Grants) -> Fact {
    Fact::Permissions {
        method: method.to_owned(),
        grants: grants.into(),
    }
}
