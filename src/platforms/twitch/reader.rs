//! Public reads with whatever token serves: the bot's, the application's, or any broadcaster's.
//!
//! One look has one reader. It remembers which tokens turned out dead, and stops asking a Twitch that does not answer
//! at all, so that a hundred batches do not wait out a hundred timeouts.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;

use super::TwitchPlatform;
use super::helix::{Call, Page, each};
use super::options::{APP, BOT};
use super::wire::User;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::PlatformError;
use crate::platforms::meter::Meter;

/// Failures of the network in a row after which a look stops asking.
const HOPELESS: u32 = 3;

/// Reads public data.
pub(super) struct Reader<'a> {
    twitch: &'a TwitchPlatform,
    /// Whose tokens serve, best first.
    candidates: Vec<Identity>,
    /// The first candidate that is not known to be dead.
    current: AtomicUsize,
    failures: AtomicU32,
    /// Why there is no point in asking on: operation-free words and code of the last failure.
    gave_up: Mutex<Option<(String, String)>>,
}

impl<'a> Reader<'a> {
    /// Finds out whose tokens there are.
    pub(super) async fn new(twitch: &'a TwitchPlatform) -> Result<Self, PlatformError> {
        let stored = twitch.auth.identities().await?;
        let mut candidates = Vec::new();
        candidates.extend(stored.iter().find(|identity| identity.as_str() == BOT).cloned());
        if twitch.auth.can_be_app() || stored.iter().any(|identity| identity.as_str() == APP) {
            candidates.push(Identity::named(APP));
        }
        candidates.extend(
            stored
                .into_iter()
                .filter(|identity| ![BOT, APP].contains(&identity.as_str())),
        );
        Ok(Self {
            twitch,
            candidates,
            current: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            gave_up: Mutex::default(),
        })
    }

    /// Asks for users by `id` or `login`, at most a page of them.
    pub(super) async fn users(
        &self,
        by: &'static str,
        values: &[&str],
        meter: &Meter<'_>,
    ) -> Result<Page<User>, PlatformError> {
        let call = Call {
            operation: "the list of users",
            path: "users",
            query: each(by, values.iter().copied()),
        };
        self.list(&call, meter).await
    }

    /// Reads a list with the best token that works.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Page<T>, PlatformError> {
        if let Some((code, reason)) = self.lock().clone() {
            return Err(PlatformError::Unavailable {
                platform: PlatformName::Twitch,
                operation: call.operation,
                reason,
                code,
            });
        }
        let mut last = None;
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let Some(identity) = self.candidates.get(index) else {
                return Err(last.unwrap_or_else(|| self.nobody()));
            };
            let (auth, helix) = (&self.twitch.auth, &self.twitch.helix);
            match helix.list(auth, identity, call, meter).await {
                Err(error @ (PlatformError::Unauthorized { .. } | PlatformError::NotConfigured { .. })) => {
                    // Another call may have moved on already.
                    self.current.fetch_max(index + 1, Ordering::Relaxed);
                    // The best candidate's trouble is what its operator should hear of.
                    last = last.or(Some(error));
                }
                outcome => {
                    self.note(&outcome);
                    return outcome;
                }
            }
        }
    }

    fn nobody(&self) -> PlatformError {
        let platform = PlatformName::Twitch;
        if self.candidates.is_empty() {
            return PlatformError::NotConfigured {
                platform,
                what:
                    "a token: run `bitbrat auth login twitch --with-token`, set TWITCH_BOT_ACCESS_TOKEN, or \
                       give a client id and secret"
                        .to_owned(),
            };
        }
        PlatformError::Unauthorized {
            platform,
            reason: "no stored token is good any more".to_owned(),
        }
    }

    fn note<T>(&self, outcome: &Result<T, PlatformError>) {
        match outcome {
            Err(PlatformError::Unavailable { code, reason, .. }) if code.starts_with("network.") => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= HOPELESS {
                    *self.lock() = Some((code.clone(), reason.clone()));
                }
            }
            _ => self.failures.store(0, Ordering::Relaxed),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(String, String)>> {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
