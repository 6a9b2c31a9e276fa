//! The read-only API: what the commands print, over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::{Web, answer};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::store::{HistoryEntry, StoreError};

/// Transitions shown with one source.
const HISTORY: usize = 20;

/// Every source that the store has a readable document of.
pub(super) async fn list(State(web): State<Web>) -> Response {
    match summaries(&web).await {
        Ok(summaries) => answer(200, (web.list)(summaries)),
        Err(error) => unavailable(&error),
    }
}

/// One source.
pub(super) async fn one(State(web): State<Web>, Path(id): Path<String>) -> Response {
    let Ok(key) = id.parse::<SourceKey>() else {
        return answer(
            400,
            json!({"error": "not_a_source", "id": id.chars().take(60).collect::<String>()}),
        );
    };
    let found = match web.store.load(&key).await {
        Ok(Some(found)) => found.value,
        Ok(None) => return answer(404, json!({"error": "unknown_source", "id": key})),
        Err(error) => return unavailable(&error),
    };
    match web.store.history(&key, HISTORY).await {
        Ok(history) => answer(200, (web.one)((found, HistoryEntry::told_once(history)))),
        Err(error) => unavailable(&error),
    }
}

/// What can be read of all that is stored, in short.
pub(super) async fn summaries(web: &Web) -> Result<Vec<Arc<SourceSummary>>, StoreError> {
    let stored = web.store.summaries().await?;
    Ok(stored
        .into_iter()
        .filter_map(|stored| stored.document.ok())
        .collect())
}

pub(super) fn unavailable(error: &StoreError) -> Response {
    answer(
        503,
        json!({"error": "store_unavailable", "message": error.to_string()}),
    )
}
