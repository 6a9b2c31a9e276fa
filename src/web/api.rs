//! The read-only API: the output of the commands, over HTTP.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use serde_json::json;

use super::{Web, answer};
use crate::config::{SourceArg, parse_duration};
use crate::core::code::Code;
use crate::core::freshness::MaxAge;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::store::{HistoryEntry, StoreError};

/// Transitions shown with one source.
const HISTORY: usize = 20;

/// Every source that the store has a readable document of.
pub(super) async fn list(State(web): State<Web>, RawQuery(query): RawQuery) -> Response {
    let max_age = match max_age(query.as_deref()) {
        Ok(max_age) => max_age,
        Err(message) => return invalid(&message),
    };
    match summaries(&web).await {
        Ok(summaries) => answer(200, (web.list)((max_age, summaries))),
        Err(error) => unavailable(&error),
    }
}

pub(super) async fn one(
    State(web): State<Web>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let max_age = match max_age(query.as_deref()) {
        Ok(max_age) => max_age,
        Err(message) => return invalid(&message),
    };
    let key = match id.parse::<SourceArg>() {
        Ok(SourceArg::Key(key)) => key,
        Ok(wanted) => match named(&web, &wanted).await {
            Ok(key) => key,
            Err(response) => return *response,
        },
        Err(message) => {
            let id: String = id.chars().take(60).collect();
            return answer(
                400,
                json!({"error": Code::ApiInvalidSource, "id": id, "message": message}),
            );
        }
    };
    let found = match web.store.load(&key).await {
        Ok(Some(found)) => found.value,
        Ok(None) => return unknown(&key),
        Err(error) => return unavailable(&error),
    };
    match web.store.history(&key, HISTORY).await {
        Ok(history) => answer(
            200,
            (web.one)((max_age, found, HistoryEntry::without_repeats(history))),
        ),
        Err(error) => unavailable(&error),
    }
}

/// Returns the stored source of that name. No request is sent to the platforms: a page must not cost requests.
async fn named(web: &Web, wanted: &SourceArg) -> Result<SourceKey, Box<Response>> {
    let summaries = summaries(web)
        .await
        .map_err(|error| Box::new(unavailable(&error)))?;
    let fits = |summary: &&Arc<SourceSummary>| match wanted {
        SourceArg::Key(key) => summary.key == *key,
        SourceArg::Name { platform, name } => {
            platform.is_none_or(|platform| summary.key.platform() == platform)
                && summary.names().contains(name)
        }
    };
    let found = summaries.iter().filter(fits).map(|summary| &summary.key);
    match found.collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Box::new(unknown(wanted))),
        several => Err(Box::new(answer(
            409,
            json!({
                "error": Code::ApiAmbiguousSource, "id": wanted.to_string(), "sources": several,
                "message": "several sources have this name; ask for one of them as platform:id",
            }),
        ))),
    }
}

fn unknown(wanted: &impl ToString) -> Response {
    let message = "no stored source has this id or name; /api/v1/sources lists those that are stored";
    answer(
        404,
        json!({"error": Code::ApiUnknownSource, "id": wanted.to_string(), "message": message}),
    )
}

/// Parses the maximum age of evidence that the caller accepts, which replaces the usual three intervals: `max_age=5m`.
fn max_age(query: Option<&str>) -> Result<MaxAge, String> {
    let fields = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut given = fields.filter(|(name, _)| name == "max_age");
    given.next().map(|(_, value)| parse_duration(&value)).transpose()
}

fn invalid(message: &str) -> Response {
    answer(400, json!({"error": Code::ApiInvalidMaxAge, "message": message}))
}

/// Returns summaries of all stored documents that can be read.
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
        json!({"error": Code::ApiStoreUnavailable, "message": error.to_string()}),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::max_age;

    #[test]
    fn max_age_is_a_duration_and_nothing_else() {
        for (query, expected) in [
            (None, Ok(None)),
            (Some("x=1"), Ok(None)),
            (Some("x=1&max_age=5m"), Ok(Some(300))),
            (Some("max_age=90s&max_age=1s"), Ok(Some(90))),
            (Some("max_age=soon"), Err(())),
            (Some("max_age="), Err(())),
        ] {
            let found = max_age(query)
                .map(|age| age.as_ref().map(Duration::as_secs))
                .map_err(drop);
            assert_eq!(found, expected, "{query:?}");
        }
    }
}
