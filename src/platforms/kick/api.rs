//! Requests for public data, with a usable token and one retry where a token was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::answer::{read, unreadable};
use super::client::{Call, Client};
use super::oauth::Auth;
use super::options::app;
use super::wire::{Channel, Envelope, Livestream, User, items, subject_of};
use crate::core::code::Code;
use crate::core::time::Timestamp;
use crate::http::Answer;
use crate::platforms::PlatformError;
use crate::platforms::kit::lenient::{self, Unclear};
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::Access;

/// Maximum ids in one request to `users/livestreams`.
pub(super) const LIST_AT_ONCE: usize = 100;
/// Maximum ids in one request to the older `/livestreams`.
const OLDER_AT_ONCE: usize = 50;
/// Maximum ids in one request to `/channels`. 50 are documented, but beyond 25 about half of the responses are wrong
/// (`KickDevDocs` issue 321).
pub(super) const CHANNELS_AT_ONCE: usize = 25;

/// Maximum ids in one request to `/users`; the limit is not documented.
pub(super) const USERS_AT_ONCE: usize = 50;

/// Requests public data.
pub(super) struct Api {
    pub(super) client: Arc<Client>,
    pub(super) auth: Auth,
    /// Whether this server provides live streams in the older list only.
    only_older: AtomicBool,
}

pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Ids for which absence proves nothing, because rows cannot be parsed.
    pub(super) unclear: Unclear<u64>,
    pub(super) at: Timestamp,
}

impl<T> Page<T> {
    /// Merges the result of another request about other ids.
    fn and(mut self, more: Self) -> Self {
        self.items.extend(more.items);
        self.unclear.add(more.unclear);
        // As old as its oldest part.
        self.at = self.at.min(more.at);
        self
    }
}

/// Returns whether a server reports that the path does not exist.
fn is_missing(error: &PlatformError) -> bool {
    match error {
        PlatformError::Rejected { status, .. } => *status == 404,
        PlatformError::Unavailable { code, .. } => *code == Code::Http(404),
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
    /// The list for this is newer than the rest of the API. A server without it is requested for the older one, which Kick has
    /// deprecated and still provides; it is equivalent, since it too is requested for these ids.
    pub(super) async fn livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Page<Livestream>, PlatformError> {
        if self.only_older.load(Ordering::Relaxed)
            && let Ok(page) = self.older_livestreams(ids, meter).await
        {
            return Ok(page);
        }
        let unknown = match self.current_livestreams(ids, meter).await {
            Err(error) if is_missing(&error) => error,
            other => {
                self.only_older.store(false, Ordering::Relaxed);
                return other;
            }
        };
        let page = self.older_livestreams(ids, meter).await.map_err(|_| unknown)?;
        self.only_older.store(true, Ordering::Relaxed);
        Ok(page)
    }

    async fn older_livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Page<Livestream>, PlatformError> {
        let mut all: Option<Page<Livestream>> = None;
        for chunk in ids.chunks(OLDER_AT_ONCE) {
            let mut query: Vec<_> = chunk
                .iter()
                .map(|id| ("broadcaster_user_id", id.to_string()))
                .collect();
            // Without it some live channels are left out.
            query.push(("limit", "100".to_owned()));
            let call = Call::get("/public/v1/livestreams", &query, "the older list of live streams");
            let page = self.list(call, chunk, meter).await?;
            all = Some(match all {
                Some(all) => all.and(page),
                None => page,
            });
        }
        Ok(all.unwrap_or_else(|| {
            let mut unclear = Unclear::nothing();
            unclear.note(None);
            Page {
                items: Vec::new(),
                unclear,
                at: Timestamp::EPOCH,
            }
        }))
    }

    async fn current_livestreams(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Page<Livestream>, PlatformError> {
        let query: Vec<_> = ids.iter().map(|id| ("user_id", id.to_string())).collect();
        let call = Call::get("/public/v1/users/livestreams", &query, "the list of live streams");
        self.list(call, ids, meter).await
    }

    /// Returns the channels of `ids`, in any order.
    pub(super) async fn channels(
        &self,
        ids: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Page<Channel>, PlatformError> {
        let query: Vec<_> = ids
            .iter()
            .map(|id| ("broadcaster_user_id", id.to_string()))
            .collect();
        self.list(
            Call::get("/public/v1/channels", &query, "the channels"),
            ids,
            meter,
        )
        .await
    }

    /// Returns the channel of `slug`. One per request: an unknown one may fail all others in it.
    pub(super) async fn channel_of(
        &self,
        slug: &str,
        meter: &Meter<'_>,
    ) -> Result<Option<Channel>, PlatformError> {
        let query = [("slug", slug.to_owned())];
        let call = Call::get("/public/v1/channels", &query, "the channel of a slug");
        let operation = call.operation;
        match self.list::<Channel>(call, &[], meter).await {
            Ok(page) => {
                let mut channels = page.items.into_iter();
                let found = channels.find(|channel| channel.slug.eq_ignore_ascii_case(slug));
                if found.is_none() && page.unclear.is_any() {
                    return Err(unreadable(operation, "a row of it cannot be read".to_owned()));
                }
                Ok(found)
            }
            Err(PlatformError::Rejected {
                status: 400 | 404, ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the names of users.
    pub(super) async fn users(&self, ids: &[u64], meter: &Meter<'_>) -> Result<Page<User>, PlatformError> {
        let query: Vec<_> = ids.iter().map(|id| ("id", id.to_string())).collect();
        self.list(
            Call::get("/public/v1/users", &query, "the names of users"),
            ids,
            meter,
        )
        .await
    }

    /// Requests a list about `asked`; where that is empty, rows about any id are expected.
    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        call: Call<'_>,
        asked: &[u64],
        meter: &Meter<'_>,
    ) -> Result<Page<T>, PlatformError> {
        let operation = call.operation;
        let answer = self.read(call, meter).await?;
        let envelope: Envelope<Value> = read(&answer, operation)?;
        let mut unclear = Unclear::nothing();
        let mut read_items = Vec::new();
        let rows = items(envelope).ok_or_else(|| unreadable(operation, "it holds no list".to_owned()))?;
        for item in rows {
            let about = subject_of(&item).filter(|id| asked.is_empty() || asked.contains(id));
            match lenient::row(item) {
                Ok(read) => {
                    if !asked.is_empty() && about.is_none() {
                        // This id was not requested: it may be another row with a damaged id.
                        unclear.note(None);
                    }
                    read_items.push(read);
                }
                Err(_) => unclear.note(about),
            }
        }
        Ok(Page {
            unclear,
            items: read_items,
            // What is pushed while the request is in progress is newer than its response.
            at: answer.sent_at,
        })
    }

    /// Sends a request with a token for reading; a refused token is examined once and the request repeated with a better one.
    pub(super) async fn read(&self, call: Call<'_>, meter: &Meter<'_>) -> Result<Answer, PlatformError> {
        let access = self.auth.reader(meter).await?;
        self.send_as(access, call, meter).await
    }

    /// Sends a request as the application.
    pub(super) async fn as_app(&self, call: Call<'_>, meter: &Meter<'_>) -> Result<Answer, PlatformError> {
        let access = self.auth.access(&app(), meter).await?;
        self.send_as(access, call, meter).await
    }

    async fn send_as(
        &self,
        access: Access,
        call: Call<'_>,
        meter: &Meter<'_>,
    ) -> Result<Answer, PlatformError> {
        let with = |token| Call {
            token: Some(token),
            method: call.method.clone(),
            ..call
        };
        let reason = match self.client.exchange(&with(&access.token), meter).await {
            Err(PlatformError::Unauthorized { reason, .. }) => reason,
            other => return other,
        };
        // Introspection decides about a token. A refusal that it contradicts is no evidence about the account, and the request
        // has no result.
        let reason = match self.auth.after_refusal(&access, &reason, meter).await? {
            Some(better) => match self.client.exchange(&with(&better.token), meter).await {
                Err(PlatformError::Unauthorized { reason, .. }) => reason,
                outcome => return outcome,
            },
            None => reason,
        };
        Err(unreadable(call.operation, contradiction(&reason)))
    }
}

fn contradiction(words: &str) -> String {
    format!("status 401 ({words}) for a token that Kick calls valid; its scopes may not be enough")
}
