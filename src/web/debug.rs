//! Debug pages in the platform's formats: a snapshot a connector, and the health of its subscriptions.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::api::{summaries, unavailable};
use super::{Web, answer};
use crate::core::document::SourceRecord;
use crate::core::source::PlatformName;
use crate::core::verdict::Status;
use crate::watch::listening::ListenerReport;

/// Every stored document, with its evidence.
pub(super) async fn sources(State(web): State<Web>) -> Response {
    match web.store.load_all().await {
        Ok(stored) => {
            let sources: Map<String, Value> = stored
                .into_iter()
                .map(|stored| {
                    let value = match stored.document {
                        Ok(found) => Value::Object(found.value.to_stored()),
                        Err(reason) => json!({"unusable": reason.to_string()}),
                    };
                    (stored.document_id, value)
                })
                .collect();
            answer(200, json!({"sources": sources}))
        }
        Err(error) => unavailable(&error),
    }
}

/// What is stored of what the bus tells, and the chat that is counted on it.
pub(super) async fn bus(State(web): State<Web>) -> Response {
    match &web.storing {
        Some(storing) => answer(200, storing().to_json()),
        None => {
            let reason = "this process stores nothing from a bus";
            answer(200, json!({"enabled": false, "reason": reason}))
        }
    }
}

/// How one platform is, in the form of the platform's connector snapshots.
pub(super) async fn platform(State(web): State<Web>, Path(platform): Path<String>) -> Response {
    let Ok(name) = platform.parse::<PlatformName>() else {
        let platform: String = platform.chars().take(60).collect();
        return answer(404, json!({"error": "unknown_platform", "platform": platform}));
    };
    let summaries = match summaries(&web).await {
        Ok(summaries) => summaries,
        Err(error) => return unavailable(&error),
    };
    let own = summaries
        .iter()
        .filter(|summary| summary.key.platform() == name)
        .map(|summary| summary.record());
    let own: Vec<SourceRecord> = own.collect();
    let listeners = listeners_of(&web, name);
    answer(200, snapshot(&own, &listeners))
}

/// One listener: `/_debug/twitch/eventsub`.
pub(super) async fn listener(
    State(web): State<Web>,
    Path((platform, listener)): Path<(String, String)>,
) -> Response {
    let Ok(platform) = platform.parse::<PlatformName>() else {
        let platform: String = platform.chars().take(60).collect();
        return answer(404, json!({"error": "unknown_platform", "platform": platform}));
    };
    let wanted = format!("{platform}-{listener}");
    let found = listeners_of(&web, platform)
        .into_iter()
        .find(|(name, _)| *name == wanted);
    let Some((_, report)) = found else {
        let reason = format!("this process runs no {listener} listener for {platform}");
        return answer(200, json!({"enabled": false, "reason": reason}));
    };
    answer(200, report.detail)
}

fn listeners_of(web: &Web, platform: PlatformName) -> Vec<(String, ListenerReport)> {
    let listeners = web
        .overview()
        .map(|overview| overview.listeners)
        .unwrap_or_default();
    let prefix = format!("{platform}-");
    listeners
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect()
}

fn snapshot(records: &[SourceRecord], listeners: &[(String, ListenerReport)]) -> Value {
    let worst = records
        .iter()
        .map(|record| record.status)
        .max()
        .unwrap_or(Status::Disconnected);
    let newest_error = records
        .iter()
        .filter_map(|record| record.last_error.clone())
        .max_by_key(|error| error.at);
    let sum = |of: fn(&crate::core::document::Metrics) -> u64| {
        records.iter().map(|record| of(&record.metrics)).sum::<u64>()
    };
    let name = |record: &SourceRecord| {
        let login = record
            .metadata
            .get("login")
            .and_then(Value::as_str)
            .map(str::to_owned);
        login
            .or_else(|| record.display_name.clone())
            .unwrap_or_else(|| record.id.clone())
    };
    let mut snapshot = Map::new();
    snapshot.insert("state".into(), worst.to_string().into());
    if let Some(error) = newest_error {
        snapshot.insert(
            "lastError".into(),
            json!({"code": error.code, "message": error.message, "at": error.at}),
        );
    }
    snapshot.insert("joinedChannels".into(), records.iter().map(name).collect());
    snapshot.insert("reconnects".into(), sum(|metrics| metrics.reconnects).into());
    snapshot.insert(
        "counters".into(),
        json!({
            "received": sum(|metrics| metrics.messages_in), "published": sum(|metrics| metrics.messages_out),
            "failed": sum(|metrics| metrics.errors),
        }),
    );
    for (name, report) in listeners {
        let key = if name == "twitch-eventsub" {
            "eventSub"
        } else {
            name.as_str()
        };
        snapshot.insert(key.to_owned(), report.detail.clone());
    }
    Value::Object(snapshot)
}
