//! Public reads with any usable token: the bot's, the application's, or any broadcaster's.
//!
//! Each probe run has one reader. It remembers unusable tokens, and stops sending requests when Twitch does not answer at all, so
//! that a hundred batches do not wait for a hundred timeouts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::TwitchPlatform;
use super::helix::{Call, Page, asked, each};
use super::lists::{self, ListError};
use super::options::{APP, BOT};
use super::wire::User;
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;

/// Consecutive network failures after which a probe run stops sending requests.
const MAX_FAILURES: u32 = 3;

/// Reads public data.
pub(super) struct Reader<'a> {
    twitch: &'a TwitchPlatform,
    /// Identities whose tokens can be used, best first.
    candidates: Vec<Identity>,
    /// The first candidate whose token is not known to be unusable.
    current: AtomicUsize,
    failures: AtomicU32,
    /// Why the best candidate's token could not be used.
    unusable: OnceLock<PlatformError>,
    /// Why no further requests are sent: message (without the operation) and code of the last failure.
    gave_up: Mutex<Option<(Code, String)>>,
}

impl<'a> Reader<'a> {
    /// Determines the available tokens.
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
            unusable: OnceLock::new(),
            gave_up: Mutex::default(),
        })
    }

    /// Requests users by `id` or `login`, at most a page of them.
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

    /// Reads a list with the best usable token.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Page<T>, PlatformError> {
        if let Some((code, reason)) = self.gave_up.lock().clone() {
            return Err(asked(call).unavailable(code, reason));
        }
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let Some(identity) = self.candidates.get(index) else {
                return Err(self.unusable.get().cloned().unwrap_or_else(|| self.no_account()));
            };
            match lists::try_list(self.twitch, identity, call, meter).await {
                Err(ListError {
                    of_token: true,
                    error,
                }) => {
                    // Another call may have advanced it already.
                    self.current.fetch_max(index + 1, Ordering::Relaxed);
                    // The best candidate's problem is the one that the operator must solve.
                    let _ = self.unusable.set(error);
                }
                outcome => {
                    let outcome = outcome.map_err(|failed| failed.error);
                    self.note(&outcome);
                    return outcome;
                }
            }
        }
    }

    fn no_account(&self) -> PlatformError {
        let platform = PlatformName::Twitch;
        if self.candidates.is_empty() {
            let what = "a token: run `bitbrat auth login twitch`, set TWITCH_BOT_ACCESS_TOKEN, or \
                        give a client id and secret";
            return PlatformError::not_configured(platform, what);
        }
        PlatformError::unauthorized(platform, "no stored token is good any more")
    }

    fn note<T>(&self, outcome: &Result<T, PlatformError>) {
        match outcome {
            Err(PlatformError::Unavailable { code, reason, .. }) if code.is_of_network() => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_FAILURES {
                    *self.gave_up.lock() = Some((*code, reason.clone()));
                }
            }
            _ => self.failures.store(0, Ordering::Relaxed),
        }
    }
}
