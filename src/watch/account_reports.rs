//! The accounts that sources need, for logs, readiness and metrics: one report per account, however many sources use it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{error, info};

use crate::core::evidence::Knowledge;
use crate::core::join::{Join as _, Newest};
use crate::core::observation::{AuthCheck, AuthResult, Fact, Identity, Observation};
use crate::core::time::Timestamp;
use crate::telemetry::names;
use crate::tokens::remedy;

/// The newest check of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    pub identity: Identity,
    /// The platform's answer.
    pub result: AuthResult,
    /// The state of its token: the answer, or [`AuthCheck::REJECTED`].
    pub state: String,
    /// When its token expires, if it does.
    pub expires_at: Option<Timestamp>,
    pub checked_at: Timestamp,
    /// Whether the platform rejects the client id and secret.
    pub client_rejected: bool,
    /// Why it is not valid, if the platform gives a reason.
    pub reason: Option<String>,
}

impl AccountState {
    /// Returns why this account makes the process unready. The account of one broadcaster or guild concerns one source, whose own
    /// status shows it; the account of the bot or the application concerns a platform.
    pub(super) fn unready(&self) -> Option<String> {
        let concerns_platform = !self.identity.as_str().contains(':');
        let lost = self.result != AuthResult::Valid && concerns_platform;
        lost.then(|| {
            format!(
                "account {} is {}; run `{}`",
                self.identity,
                self.state,
                remedy(self.identity.as_str(), self.client_rejected)
            )
        })
    }
}

/// The newest check of every account, and which of them were reported.
#[derive(Debug, Default)]
pub struct AccountWatch {
    checks: BTreeMap<Identity, Newest<Arc<AuthCheck>>>,
    /// Accounts that were checked since the last report.
    fresh: BTreeSet<Identity>,
    reported: BTreeMap<Identity, AuthResult>,
}

impl AccountWatch {
    /// Restores checks from before this process started. They are not reported: a login may have replaced the token since.
    pub fn restore(&mut self, known: &Knowledge) {
        for (identity, check) in &known.evidence.auth {
            self.merge(identity, check.clone());
        }
    }

    /// Records what an observation reports about an account.
    pub fn observe(&mut self, observation: &Observation) {
        if let Fact::Auth { identity, check } = &*observation.fact {
            self.merge(identity, Newest::new(observation.at, check.clone()));
            if self.reported.get(identity) != Some(&check.result) {
                self.fresh.insert(identity.clone());
            }
        }
    }

    fn merge(&mut self, identity: &Identity, check: Newest<Arc<AuthCheck>>) {
        match self.checks.get_mut(identity) {
            Some(known) => known.join(check),
            None => drop(self.checks.insert(identity.clone(), check)),
        }
    }

    /// Logs accounts whose state differs from the one reported last, one log entry for each. `needed_by` counts the sources that
    /// use an account.
    pub fn report(&mut self, needed_by: impl Fn(&Identity) -> usize) {
        for identity in std::mem::take(&mut self.fresh) {
            let Some(check) = self.checks.get(&identity) else {
                continue;
            };
            let result = check.value.result;
            let before = self.reported.insert(identity.clone(), result);
            if before == Some(result) {
                continue;
            }
            if result == AuthResult::Valid {
                if before.is_some() {
                    info!(
                        name: names::ACCOUNT, account = %identity, state = %result,
                        "Account `{identity}` is authorized again"
                    );
                }
                continue;
            }
            let sources = needed_by(&identity);
            let reason = check.value.reason.as_deref();
            let command = remedy(identity.as_str(), check.value.client_rejected);
            let plural = if sources == 1 { "" } else { "s" };
            let state = check.value.state();
            error!(
                name: names::ACCOUNT, account = %identity, state, sources, reason, command,
                "Account `{identity}` is {state}, needed by {sources} source{plural}; run `{command}`"
            );
        }
    }

    /// Returns the newest check of every account.
    pub fn states(&self) -> Vec<AccountState> {
        let states = self.checks.iter().map(|(identity, check)| AccountState {
            identity: identity.clone(),
            result: check.value.result,
            state: check.value.state().to_owned(),
            expires_at: check.value.expires_at,
            checked_at: check.at,
            client_rejected: check.value.client_rejected,
            reason: check.value.reason.clone(),
        });
        states.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(identity: &str, second: i64, result: AuthResult) -> Observation {
        let check = AuthCheck::of(result);
        let fact = Fact::Auth {
            identity: Identity::named(identity),
            check: check.into(),
        };
        let source = "twitch:1".parse().unwrap();
        Observation::new(&source, Timestamp::EPOCH.plus_secs(second), "test", fact)
    }

    #[test]
    fn a_revoked_bot_makes_unready_and_a_broadcaster_does_not() {
        let mut accounts = AccountWatch::default();
        accounts.observe(&checked("twitch/bot", 0, AuthResult::Valid));
        accounts.observe(&checked("twitch/broadcaster:777009", 0, AuthResult::Revoked));
        assert!(accounts.states().iter().all(|state| state.unready().is_none()));
        accounts.observe(&checked("twitch/bot", 1, AuthResult::Revoked));
        let reasons: Vec<_> = accounts
            .states()
            .iter()
            .filter_map(AccountState::unready)
            .collect();
        let expected = "account twitch/bot is REVOKED; run `bitbrat auth login twitch`";
        assert_eq!(reasons, [expected]);
        accounts.observe(&checked("twitch/bot", 2, AuthResult::Valid));
        assert!(accounts.states().iter().all(|state| state.unready().is_none()));
    }

    #[test]
    fn rejected_token_is_called_neither_expired_nor_revoked() {
        let mut observation = checked("discord/bot", 0, AuthResult::Revoked);
        if let Fact::Auth { check, .. } = observation.fact_mut() {
            Arc::make_mut(check).rejected = true;
        }
        let mut accounts = AccountWatch::default();
        accounts.observe(&observation);
        let reason = accounts.states()[0].unready().unwrap();
        assert!(reason.starts_with("account discord/bot is REJECTED"), "{reason}");
    }

    #[test]
    fn refused_client_secret_is_not_answered_by_a_login() {
        let state = AccountState {
            identity: Identity::named("twitch/bot"),
            result: AuthResult::Expired,
            state: "EXPIRED".to_owned(),
            expires_at: None,
            checked_at: Timestamp::EPOCH,
            client_rejected: true,
            reason: Some("invalid client secret".to_owned()),
        };
        assert_eq!(
            state.unready().unwrap(),
            "account twitch/bot is EXPIRED; run `bitbrat doctor twitch`"
        );
    }

    #[test]
    fn an_older_check_does_not_replace_a_newer_one() {
        let mut accounts = AccountWatch::default();
        accounts.observe(&checked("kick/bot", 5, AuthResult::Valid));
        accounts.observe(&checked("kick/bot", 4, AuthResult::Expired));
        assert_eq!(accounts.states()[0].result, AuthResult::Valid);
    }

    #[test]
    fn each_account_is_fixed_by_its_own_command() {
        for (identity, command) in [
            ("discord/bot", "bitbrat auth login discord"),
            (
                "twitch/broadcaster:7",
                "bitbrat auth login twitch --as twitch/broadcaster:7",
            ),
            ("kick/app", "bitbrat auth status kick"),
        ] {
            assert_eq!(remedy(identity, false), command);
        }
    }
}
