//! The calls about conduits and their shards, all with the application's token.
//! <https://dev.twitch.tv/docs/eventsub/handling-conduit-events/>

use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

use super::super::super::TwitchPlatform;
use super::super::super::options::{self, below};
use super::super::super::wire::Pagination;
use super::super::rest::is_rate_limit;
use super::shards::ShardInfo;
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, reason};
use crate::platforms::kit::lenient::{Rows, or_default, text};
use crate::platforms::kit::meter::Meter;

/// Maximum number of pages that are read of a list of shards: 20,000 shards, 100 per page.
const MOST_PAGES: usize = 200;

/// A conduit as Twitch lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ConduitInfo {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) shard_count: usize,
}

#[derive(Debug, Deserialize)]
struct Conduits {
    data: Rows<ConduitInfo>,
}

/// What a creation or change of a conduit led to.
pub(super) enum Made {
    Done(ConduitInfo),
    /// The application has as many conduits as Twitch allows.
    LimitReached(String),
}

/// The result of an update of shards. A success answer may contain errors.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Updated {
    #[serde(default)]
    pub(super) data: Rows<ShardInfo>,
    #[serde(default)]
    pub(super) errors: Rows<ShardError>,
}

/// Why a shard was not updated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ShardError {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) message: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) code: String,
}

#[derive(Debug, Deserialize)]
struct Shards {
    data: Rows<ShardInfo>,
    #[serde(default, deserialize_with = "or_default")]
    pagination: Pagination,
}

fn address(twitch: &TwitchPlatform, method: Method, path: &str) -> RequestBuilder {
    twitch
        .helix
        .http
        .request(method, below(&twitch.options.eventsub_rest_url, path))
}

/// Sends a request with the application's token; a token that Twitch rejects is replaced once.
async fn send(
    twitch: &TwitchPlatform,
    asked: Asked,
    request: impl Fn() -> RequestBuilder + Send + Sync,
) -> Result<Answer, PlatformError> {
    let meter = Meter::silent();
    let access = twitch.auth.access(&options::app(), &meter).await?;
    let outcome = twitch.helix.send(&access, request(), &meter).await;
    let refused = match &outcome {
        Ok(answer) if answer.status == 401 => reason(answer),
        _ => return received(asked, outcome),
    };
    match twitch.auth.after_refusal(&access, &refused, &meter).await? {
        Some(renewed) => received(asked, twitch.helix.send(&renewed, request(), &meter).await),
        None => asked.judge(outcome),
    }
}

/// Returns an answer whatever its status.
fn received(asked: Asked, outcome: Result<Answer, HttpError>) -> Result<Answer, PlatformError> {
    match outcome {
        Ok(answer) => Ok(answer),
        failed => asked.judge(failed),
    }
}

/// Lists the conduits of the application.
pub(super) async fn list(twitch: &TwitchPlatform) -> Result<Vec<ConduitInfo>, PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the list of conduits");
    let request = || address(twitch, Method::GET, "eventsub/conduits");
    let answer = asked.judge(Ok(send(twitch, asked, request).await?))?;
    let listed: Conduits = answer.object().map_err(|reason| asked.unreadable(reason))?;
    if listed.data.unread.is_empty() {
        Ok(listed.data.read)
    } else {
        Err(asked.unreadable("a row of it cannot be read".to_owned()))
    }
}

/// Creates a conduit, or changes the number of shards of `id`.
pub(super) async fn make(
    twitch: &TwitchPlatform,
    id: Option<&str>,
    shard_count: usize,
) -> Result<Made, PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the change of a conduit");
    let (method, body) = match id {
        Some(id) => (Method::PATCH, json!({"id": id, "shard_count": shard_count})),
        None => (Method::POST, json!({"shard_count": shard_count})),
    };
    let request = || address(twitch, method.clone(), "eventsub/conduits").json(&body);
    let answer = send(twitch, asked, request).await?;
    if answer.status == 429 && !is_rate_limit(&answer) {
        return Ok(Made::LimitReached(reason(&answer)));
    }
    let answer = asked.judge(Ok(answer))?;
    let made: Conduits = answer.object().map_err(|reason| asked.unreadable(reason))?;
    let made = made.data.read.into_iter().find(|made| !made.id.is_empty());
    made.map(Made::Done)
        .ok_or_else(|| asked.unreadable("the answer names no conduit".to_owned()))
}

/// Lists the shards of a conduit; `None` if it does not exist any more.
pub(super) async fn shards(
    twitch: &TwitchPlatform,
    id: &str,
) -> Result<Option<Vec<ShardInfo>>, PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the list of shards");
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let request = || {
            let request =
                address(twitch, Method::GET, "eventsub/conduits/shards").query(&[("conduit_id", id)]);
            match &cursor {
                Some(cursor) => request.query(&[("after", cursor)]),
                None => request,
            }
        };
        let answer = match asked.judge(Ok(send(twitch, asked, request).await?)) {
            Err(PlatformError::Rejected { status: 404, .. }) => return Ok(None),
            judged => judged?,
        };
        let page: Shards = answer.object().map_err(|reason| asked.unreadable(reason))?;
        found.extend(page.data.read);
        let next = page.pagination.cursor;
        if next.is_none() || next == cursor {
            return Ok(Some(found));
        }
        cursor = next;
    }
    Err(asked.unreadable("the list does not come to an end".to_owned()))
}

/// Assigns shards to a session; `None` if the conduit does not exist any more.
pub(super) async fn attach(
    twitch: &TwitchPlatform,
    id: &str,
    session: &str,
    shards: &[usize],
) -> Result<Option<Updated>, PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the update of shards");
    let rows = shards.iter().map(
        |shard| json!({"id": shard.to_string(), "transport": {"method": "websocket", "session_id": session}}),
    );
    let body = json!({"conduit_id": id, "shards": rows.collect::<Vec<_>>()});
    let request = || address(twitch, Method::PATCH, "eventsub/conduits/shards").json(&body);
    let answer = match asked.judge(Ok(send(twitch, asked, request).await?)) {
        Err(PlatformError::Rejected { status: 404, .. }) => return Ok(None),
        judged => judged?,
    };
    let updated = answer.object().map_err(|reason| asked.unreadable(reason))?;
    Ok(Some(updated))
}
