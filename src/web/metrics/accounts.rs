//! The tokens of accounts. A platform has few accounts of its own, but each broadcaster who logged in is one more, so their number
//! is limited.

use std::collections::BTreeMap;

use super::catalog;
use super::exposition::Exposition;
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::time::Timestamp;
use crate::watch::account_reports::AccountState;

/// How many accounts of single sources have series of their own unless the configuration allows more.
const ACCOUNTS_OF_SOURCES: usize = 3;

/// The states of a token, as labels.
fn states() -> [String; 4] {
    let [valid, expired, revoked] =
        [AuthResult::Valid, AuthResult::Expired, AuthResult::Revoked].map(|result| result.to_string());
    [valid, expired, revoked, AuthCheck::REJECTED.to_owned()].map(|state| state.to_lowercase())
}

fn platform(identity: &Identity) -> &str {
    identity.as_str().split('/').next().unwrap_or_default()
}

/// Whether an account belongs to a single source, such as `twitch/broadcaster:777001`.
fn is_of_source(identity: &Identity) -> bool {
    identity.as_str().contains(':')
}

/// Adds the number of accounts by state, and the tokens of at most `limit` accounts of single sources.
pub(super) fn collect(exposition: &mut Exposition, accounts: &[AccountState], limit: usize) {
    let mut counts: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for account in accounts {
        let platform = platform(&account.identity);
        for state in states() {
            counts.entry((platform, state)).or_default();
        }
        *counts
            .entry((platform, account.state.to_lowercase()))
            .or_default() += 1;
    }
    for ((platform, state), count) in counts {
        exposition.set(&catalog::ACCOUNTS, &[platform, &state], count);
    }
    let mut shown: Vec<&AccountState> = accounts.iter().collect();
    // Those that need attention first.
    shown.sort_by_key(|account| {
        let is_valid = account.result == AuthResult::Valid;
        (
            is_of_source(&account.identity),
            is_valid,
            account.identity.clone(),
        )
    });
    let own = shown
        .iter()
        .filter(|account| !is_of_source(&account.identity))
        .count();
    shown.truncate(own + limit.max(ACCOUNTS_OF_SOURCES));
    for account in shown {
        let name = account.identity.as_str();
        for state in states() {
            let is_in = state == account.state.to_lowercase();
            exposition.set(&catalog::TOKEN_STATE, &[name, &state], is_in);
        }
        if let Some(expires_at) = account.expires_at {
            exposition.set(&catalog::TOKEN_EXPIRY, &[name], expires_at);
        }
        exposition.set(&catalog::TOKEN_CHECKED, &[name], account.checked_at);
    }
}

/// Adds when accounts stop working: unlike the expiry of a token, this takes refreshes into account. Of the accounts of single
/// sources, those that stop first.
pub(super) fn collect_expiries(
    exposition: &mut Exposition,
    expiries: &BTreeMap<Identity, Timestamp>,
    limit: usize,
) {
    let mut shown: Vec<_> = expiries.iter().collect();
    shown.sort_by_key(|(identity, until)| (is_of_source(identity), **until));
    let own = shown
        .iter()
        .filter(|(identity, _)| !is_of_source(identity))
        .count();
    for (identity, until) in shown.into_iter().take(own + limit.max(ACCOUNTS_OF_SOURCES)) {
        exposition.set(&catalog::ACCOUNT_EXPIRY, &[identity.as_str()], *until);
    }
}
