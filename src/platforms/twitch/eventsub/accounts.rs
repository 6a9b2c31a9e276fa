//! The accounts whose tokens can be used to listen: the bot's, and those of broadcasters among the channels.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;

use super::super::oauth::Auth;
use super::super::options::{BOT, broadcaster_of};
use super::planner::{Account, Channel, PlannerInput};
use crate::core::observation::Identity;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;

pub(super) type Accounts = BTreeMap<Identity, Account>;

/// What could be determined about the accounts.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Accounts with usable tokens.
    pub(super) accounts: Accounts,
    /// Why the bot is not among them.
    pub(super) bot_missing: Option<String>,
    /// Why something could not be determined now; retried soon.
    pub(super) unclear: Option<String>,
}

impl Found {
    /// Returns the planner's input.
    pub(super) fn known(self) -> PlannerInput {
        let (bot, broadcasters) = self
            .accounts
            .into_values()
            .partition::<Vec<_>, _>(|account| account.identity.as_str() == BOT);
        PlannerInput {
            bot: bot.into_iter().next(),
            bot_missing: self.bot_missing,
            broadcasters,
            ..PlannerInput::default()
        }
    }
}

/// Finds the accounts whose tokens are usable. If that cannot be determined now, the result `before` still applies: a network
/// failure is no reason to close connections.
pub(super) async fn usable(auth: &Auth, channels: &[Channel], before: &Accounts) -> Found {
    let stored = match identities_for(auth, channels).await {
        Ok(stored) => stored,
        Err(error) => {
            return Found {
                accounts: before.clone(),
                bot_missing: Some(error.to_string()),
                unclear: Some(error.to_string()),
            };
        }
    };
    let mut found = Found::default();
    for identity in stored {
        let error = match auth.access(&identity, &Meter::silent()).await {
            Ok(access) => {
                if let Some(user_id) = access.user_id {
                    let account = Account {
                        identity: identity.clone(),
                        user_id,
                        scopes: access.scopes,
                    };
                    found.accounts.insert(identity, account);
                }
                continue;
            }
            Err(error) => error,
        };
        debug!(identity = %identity, error = &error as &dyn std::error::Error, "A token is not usable");
        if identity.as_str() == BOT {
            found.bot_missing = Some(error.to_string());
        }
        if !matches!(error, PlatformError::Unauthorized { .. }) {
            found.unclear = Some(error.to_string());
            if let Some(account) = before.get(&identity) {
                found.accounts.insert(identity, account.clone());
            }
        }
    }
    found
}

/// Finds the accounts whose tokens were usable when last used, without sending requests.
pub(super) async fn by_memory(auth: &Auth, channels: &[Channel]) -> Found {
    let mut found = Found::default();
    for identity in identities_for(auth, channels).await.unwrap_or_default() {
        let Ok(Some(token)) = auth.stored(&identity).await else {
            continue;
        };
        match token.user_id {
            Some(user_id) => {
                let account = Account {
                    identity: identity.clone(),
                    user_id,
                    scopes: token.scopes,
                };
                found.accounts.insert(identity, account);
            }
            None if identity.as_str() == BOT => {
                found.bot_missing = Some("its token was never checked".to_owned());
            }
            None => {}
        }
    }
    found
}

/// Returns the identities with a token that are relevant for `channels`.
async fn identities_for(auth: &Auth, channels: &[Channel]) -> Result<Vec<Identity>, PlatformError> {
    let wanted: BTreeSet<_> = channels.iter().map(|channel| channel.source.id()).collect();
    let mut stored = auth.identities().await?;
    stored.retain(|identity| {
        identity.as_str() == BOT || broadcaster_of(identity).is_some_and(|id| wanted.contains(id))
    });
    Ok(stored)
}
