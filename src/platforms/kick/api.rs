//! The calls that read public data, with a usable token and one second try where a token was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::auth::{Auth, Refused, read, unreadable};
use super::client::{Call, Client};
use super::meter::Meter;
use super::wire::{Channel, Envelope, Livestream, User, items};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::http::Answer;
use crate::platforms::PlatformError;

/// Ids in one call of `users/livestreams`.
pub(super) const LIST_AT_ONCE: usize = 100;
/// Ids in one call of the older `/livestreams`.
const OLDER_AT_ONCE: usize = 50;
/// Ids in one call of `/channels`. 50 are documented, but beyond 25 about half of the answers are wrong (`KickDevDocs`
/// issue 321).
pub(super) const CHANNELS_AT_ONCE: usize = 25;

/// Ids in one call of `/users`; the most is not documented.
pub(super) const USERS_AT_ONCE: usize = 50;

/// Reads public data.
pub(super) struct Api {
    pub(super) client: Arc<Client>,
    pub(super) auth: Auth,
    /// Whether this server serves live streams by the older list only.
    only_older: AtomicBool,
}

/// An answer, read.
pub(super) struct Told<T> {
    pub(super) items: Vec<T>,
    /// Whether some items could not be read, so that nothing may be made of an absence.
    pub(super) partial: bool,
    pub(super) at: Timestamp,
}

impl<T> Told<T> {
    /// Adds what a further call about others has told.
    fn and(mut self, more: Self) -> Self {
        self.items.extend(more.items);
        self.partial |= more.partial;
        // As old as its oldest part.
        self.at = self.at.min(more.at);
        self
    }
}

/// Returns whether a server says that it knows no such path.
fn is_missing(error: &PlatformError) -> bool {
    match error {
        PlatformError::Rejected { status, .. } => *status == 404,
        PlatformError::Unavailable { code, .. } => code == "http.404",
        _ => false,
    }
}

impl Api {
    pub(super) fn new(client: Arc<Client>, auth: Auth) -> Self {
        Self {
            client,
            auth,
            only_older: AtomicBool::new(false),
        }
    }

    /// Returns which of `ids` are live.
    ///
    /// The list for this is younger than the API. A server that does not know it is asked for the older one, which Kick has
    /// deprecated and still serves; it counts as much, since it too is asked for the very ids.
    pub(super) async fn livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Told<Livestream>, PlatformError> {
        if self.only_older.load(Ordering::Relaxed)
            && let Ok(told) = self.older_livestreams(ids, meter).await
        {
            return Ok(told);
        }
        let unknown = match self.current_livestreams(ids, meter).await {
            Err(error) if is_missing(&error) => error,
            other => {
                self.only_older.store(false, Ordering::Relaxed);
                return other;
            }
        };
        let told = self.older_livestreams(ids, meter).await.map_err(|_| unknown)?;
        self.only_older.store(true, Ordering::Relaxed);
        Ok(told)
    }

    async fn older_livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Told<Livestream>, PlatformError> {
        let mut all: Option<Told<Livestream>> = None;
        for chunk in ids.chunks(OLDER_AT_ONCE) {
            let mut query: Vec<_> = chunk
                .iter()
                .map(|id| ("broadcaster_user_id", id.to_string()))
                .collect();
            // Without it some of those that are live are left out.
            query.push(("limit", "100".to_owned()));
            let call = Call::get("/public/v1/livestreams", &query, "the older list of live streams");
            let told = self.list(call, meter).await?;
            all = Some(match all {
                Some(all) => all.and(told),
                None => told,
            });
        }
        Ok(all.unwrap_or(Told {
            items: Vec::new(),
            partial: true,
            at: Timestamp::EPOCH,
        }))
    }

    async fn current_livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Told<Livestream>, PlatformError> {
        let query: Vec<_> = ids.iter().map(|id| ("user_id", id.to_string())).collect();
        let call = Call::get("/public/v1/users/livestreams", &query, "the list of live streams");
        self.list(call, meter).await
    }

    /// Returns the channels of `ids`, in any order.
    pub(super) async fn channels(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Told<Channel>, PlatformError> {
        let query: Vec<_> = ids
            .iter()
            .map(|id| ("broadcaster_user_id", id.to_string()))
            .collect();
        self.list(Call::get("/public/v1/channels", &query, "the channels"), meter)
            .await
    }

    /// Returns the channel of `slug`. One a call: an unknown one may fail all others in it.
    pub(super) async fn channel_of(
        &self,
        slug: &str,
        meter: &Meter<'_>,
    ) -> Result<Option<Channel>, PlatformError> {
        let query = [("slug", slug.to_owned())];
        let call = Call::get("/public/v1/channels", &query, "the channel of a slug");
        match self.list::<Channel>(call, meter).await {
            Ok(told) => Ok(told
                .items
                .into_iter()
                .find(|channel| channel.slug.eq_ignore_ascii_case(slug))),
            Err(PlatformError::Rejected {
                status: 400 | 404, ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the names of users.
    pub(super) async fn users(&self, ids: &[u64], meter: &Meter<'_>) -> Result<Told<User>, PlatformError> {
        let query: Vec<_> = ids.iter().map(|id| ("id", id.to_string())).collect();
        self.list(Call::get("/public/v1/users", &query, "the names of users"), meter)
            .await
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        call: Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Told<T>, PlatformError> {
        let operation = call.operation;
        let answer = self.read(call, meter).await?;
        let envelope: Envelope<Value> = read(&answer, operation)?;
        let told = items(envelope).ok_or_else(|| unreadable(operation, "it holds no list".to_owned()))?;
        let sent = told.len();
        let items: Vec<T> = told
            .into_iter()
            .filter_map(|item| serde_json::from_value(item).ok())
            .collect();
        Ok(Told {
            partial: items.len() < sent,
            items,
            at: answer.received_at,
        })
    }

    /// Sends a read with a token that may read; a refused token is examined once and the call repeated with a better one.
    pub(super) async fn read(&self, call: Call<'_>, meter: &Meter<'_>) -> Result<Answer, PlatformError> {
        let access = self.auth.reader(meter).await?;
        self.send_as(access, call, meter).await
    }

    /// Sends a call as the application.
    pub(super) async fn as_app(&self, call: Call<'_>, meter: &Meter<'_>) -> Result<Answer, PlatformError> {
        let access = self.auth.app(meter).await?;
        self.send_as(access, call, meter).await
    }

    async fn send_as(
        &self,
        access: super::auth::Access,
        call: Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Answer, PlatformError> {
        let with = |token| Call {
            token: Some(token),
            method: call.method.clone(),
            ..call
        };
        let refused = match self.client.exchange(&with(&access.token), &meter.calls).await {
            Err(error @ PlatformError::Unauthorized { .. }) => error,
            other => return other,
        };
        match self.auth.after_refusal(&access, meter).await? {
            Refused::Better(better) => self.client.exchange(&with(&better.token), &meter.calls).await,
            Refused::NotTheToken => Err(PlatformError::Forbidden {
                platform: PlatformName::Kick,
                operation: call.operation,
                reason: "this kind of token or its scopes are not enough".to_owned(),
            }),
            Refused::Hopeless => Err(refused),
        }
    }
}
