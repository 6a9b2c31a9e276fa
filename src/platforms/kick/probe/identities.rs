//! The part of a probe that is about accounts, and what they and badges permit.

use super::super::api::LIST_AT_ONCE;
use super::super::facts::{self, BADGES_METHOD, OWNER_METHOD, SCOPES_METHOD};
use super::super::options::{BOT, broadcaster_of};
use super::ProbeRun;
use crate::core::code::Code;
use crate::core::observation::{ErrorInfo, Fact, Grants, Identity};
use crate::core::source::PlatformName;
use crate::platforms::kit::token_check::{TokenCheck, TokenStatus};
use crate::platforms::{PlatformError, Probe, Problem};

/// An introspection up to this age (ms) still determines permissions.
const SCOPES_KNOWN_FOR: i64 = 300_000;
/// Minimum interval (ms) before a poll checks an account again whose last check gave no evidence.
const RETRY_CHECK_MS: i64 = 300_000;

impl ProbeRun<'_> {
    pub(super) async fn probe_identities(&mut self) {
        let identities = match self.platform.api.auth.accounts().await {
            Ok(identities) if identities.is_empty() => return self.fail_everything_without_identity(),
            Ok(identities) => identities,
            Err(error) => return self.fail(&self.all(), &error),
        };
        let wanted: Vec<_> = identities
            .into_iter()
            .filter(|identity| broadcaster_of(identity).is_none_or(|id| self.targets.contains_key(&id)))
            .collect();
        self.meter.expect(wanted.len());
        for identity in &wanted {
            let max_age = if self.probes.contains(&Probe::Auth) {
                -1
            } else {
                SCOPES_KNOWN_FOR
            };
            let checked = self
                .platform
                .api
                .auth
                .checked_within(max_age, identity, &self.meter)
                .await;
            match checked {
                Ok(checked) => {
                    if self.probes.contains(&Probe::Permissions) && identity.as_str() == BOT {
                        self.emit_scopes(&checked);
                    }
                }
                Err(error) => {
                    let concerned = self.concerned(identity);
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
                        self.emit_all(&concerned, &Fact::Problem { error: info.clone() });
                        info
                    } else {
                        self.emit_all(&concerned, &facts::of_failed_probe(&error));
                        facts::error(&error, &error.to_string())
                    };
                    self.problem(Problem::of_account(identity, words).caused_by(info));
                }
            }
            self.meter.done();
        }
        if self.probes.contains(&Probe::Permissions) {
            self.emit_badges();
        }
    }

    /// Checks accounts whose tokens the requests of this probe did not use, because the application's token serves them: a
    /// revoked one is found at this poll, not at the next hourly check. One introspection for the bot, one for the broadcaster
    /// that was not checked for the longest time, and none when the rate limit has no capacity left.
    pub(super) async fn check_idle_accounts(&self) {
        let auth = &self.platform.api.auth;
        // A token store that cannot be read is reported by the other requests.
        let Ok(identities) = auth.accounts().await else {
            return;
        };
        // The first one is used for requests, so that a refusal of its token is noticed anyway.
        let idle = identities.iter().skip(1);
        let mut broadcasters: Vec<_> = idle
            .clone()
            .filter(|identity| broadcaster_of(identity).is_some_and(|id| self.targets.contains_key(&id)))
            .map(|identity| (auth.last_check(identity).map(|checked| checked.at), identity))
            .collect();
        broadcasters.sort();
        let bot = idle.filter(|identity| identity.as_str() == BOT);
        let next = broadcasters.first().map(|(_, identity)| *identity);
        for identity in bot.chain(next) {
            // Half of the limit stays for what is polled itself, which a check must not delay.
            let rate_limiter = &self.platform.api.client.rate_limiter;
            let lists = self.targets.len().div_ceil(LIST_AT_ONCE);
            if rate_limiter.left() <= lists.max(rate_limiter.limit() / 2) {
                return;
            }
            let before = auth.last_check(identity);
            let failed_lately = before.as_ref().is_some_and(|checked| {
                matches!(checked.status, TokenStatus::Unknown(_))
                    && checked.at.is_recent(RETRY_CHECK_MS, self.now())
            });
            if failed_lately {
                continue;
            }
            self.meter.expect(1);
            let checked = auth.check(identity, &self.meter).await;
            self.meter.done();
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
                self.meter.checks.forget(identity);
            }
        }
    }

    fn fail_everything_without_identity(&self) {
        let needs = "Kick needs a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot";
        self.emit_all(
            &self.all(),
            &facts::refused(Code::NotConfigured(PlatformName::Kick), needs),
        );
        let error = ErrorInfo::new(Code::NotConfigured(PlatformName::Kick), needs);
        self.problem(Problem::of_platform(needs).caused_by(error));
    }

    fn emit_scopes(&self, checked: &TokenCheck) {
        if checked.status != TokenStatus::Valid {
            return;
        }
        for (id, key) in &self.targets {
            self.emit(
                key,
                checked.at,
                permissions(SCOPES_METHOD, facts::scopes(&checked.token.scopes)),
            );
            if facts::owner(checked) == Some(*id) {
                let granted = Grants {
                    granted: ["badge:broadcaster".to_owned()].into(),
                    ..Grants::default()
                };
                self.emit(key, checked.at, permissions(OWNER_METHOD, granted));
            }
        }
    }

    fn emit_badges(&self) {
        let now = self.now();
        for (id, key) in &self.targets {
            let grants = self
                .platform
                .badges
                .grants(*id, now, self.platform.options.badges_for);
            if let Some((at, grants)) = grants {
                self.emit(key, at, permissions(BADGES_METHOD, grants));
            }
        }
    }

    /// The sources that need an identity.
    fn concerned(&self, identity: &Identity) -> Vec<u64> {
        match broadcaster_of(identity) {
            Some(id) => vec![id],
            None => self.all(),
        }
    }

    /// Emits the results of account checks, also where a refused token was the reason for the check.
    pub(super) fn emit_checks(&self) {
        for (identity, checked) in self.meter.checks.take() {
            if let Some(id) = facts::owner(&checked).filter(|_| identity.as_str() == BOT) {
                self.platform.bot.update(id);
            }
            let facts = facts::of_check(&identity, &checked);
            for id in self.concerned(&identity) {
                for fact in &facts {
                    if let Some(key) = self.targets.get(&id) {
                        self.emit(key, checked.at, fact.clone());
                    }
                }
            }
            for (code, warning) in facts::warnings(&identity, &checked) {
                let error = ErrorInfo::new(code, &warning);
                self.problem(Problem::of_account(&identity, warning).caused_by(error));
            }
            if let Some(reason) = checked.status.reason() {
                self.problem(Problem::of_account(&identity, format!("{identity}: {reason}")));
            }
        }
    }
}

fn permissions(method: &str, grants: Grants) -> Fact {
    Fact::Permissions {
        method: method.to_owned(),
        grants,
    }
}
