//! Debug pages in the platform's formats: a snapshot per connector, and the health of its subscriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::health::SERVICE;
use super::problem::Problem;
use super::{Site, answer, metrics};
use crate::core::code::Code;
use crate::core::document::SourceRecord;
use crate::core::source::PlatformName;
use crate::core::summary::SourceSummary;
use crate::core::verdict::Status;
use crate::store::StoreError;
use crate::watch::listener_context::ListenerReport;

/// Every stored document, with its evidence.
pub(super) async fn sources(State(web): State<Site>) -> Response {
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
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Statistics of the events stored from the bus, and of the chat that is counted on it.
pub(super) async fn bus(State(web): State<Site>) -> Response {
    match &web.storing {
        Some(storing) => answer(200, storing().to_json()),
        None => {
            let reason = "this process stores nothing from a bus";
            answer(200, json!({"enabled": false, "reason": reason}))
        }
    }
}

/// Status of one platform, in the form of the platform's connector snapshots.
pub(super) async fn platform(State(web): State<Site>, Path(platform): Path<String>) -> Response {
    let name = match platform_of(&platform) {
        Ok(name) => name,
        Err(unknown) => return *unknown,
    };
    let summaries = match summaries(&web).await {
        Ok(summaries) => summaries,
        Err(error) => return Problem::from(error).into_response(),
    };
    answer(200, Value::Object(snapshot_of(&web, name, &summaries)))
}

/// All platforms in use, as a BitBrat service shows its connectors.
pub(super) async fn connectors(State(web): State<Site>) -> Response {
    let summaries = match summaries(&web).await {
        Ok(summaries) => summaries,
        Err(error) => return Problem::from(error).into_response(),
    };
    let started = started(&web);
    let stored = summaries.iter().map(|summary| summary.key.platform());
    let platforms: BTreeSet<PlatformName> = stored.chain(started.iter().copied()).collect();
    let connectors = platforms.into_iter().map(|platform| {
        let mut connector = snapshot_of(&web, platform, &summaries);
        connector.insert("started".to_owned(), started.contains(&platform).into());
        (platform.to_string(), Value::Object(connector))
    });
    answer(200, json!({"connectors": connectors.collect::<Map<_, _>>()}))
}

/// This process, in the form of a BitBrat service.
pub(super) async fn instance(State(web): State<Site>) -> Response {
    let started = started(&web);
    let connectors = started
        .iter()
        .map(|platform| json!({"name": platform, "enabled": true}));
    let connectors: Vec<Value> = connectors.collect();
    // It delivers no messages, so there is no topic on which it receives them.
    let instance = json!({
        "serviceName": SERVICE, "instanceId": web.instance, "egressTopic": null,
        "connectorCount": connectors.len(), "connectors": connectors,
    });
    answer(200, instance)
}

/// The configuration as it was at the start, in the form of a BitBrat service. Secrets are shown as `***`.
pub(super) async fn config(State(web): State<Site>) -> Response {
    let values = web.settings.iter().map(|shown| {
        let value = shown.value.clone().map_or(Value::Null, Value::String);
        (shown.key.clone(), value)
    });
    let config: Map<String, Value> = values.collect();
    // Every key has a default, or is needed for a single platform only.
    answer(
        200,
        json!({"service": SERVICE, "config": config, "requiredEnv": []}),
    )
}

/// Every counter of the metrics, in the form of BitBrat's router.
pub(super) async fn counters(State(web): State<Site>) -> Response {
    answer(200, json!({"counters": metrics::counters(&web).await}))
}

/// The platforms that this process probes.
fn started(web: &Site) -> BTreeSet<PlatformName> {
    let pollers = web.overview().map(|overview| overview.pollers);
    let pollers = pollers.unwrap_or_default();
    pollers.iter().map(|poller| poller.platform).collect()
}

fn snapshot_of(web: &Site, platform: PlatformName, summaries: &[Arc<SourceSummary>]) -> Map<String, Value> {
    let own = summaries
        .iter()
        .filter(|summary| summary.key.platform() == platform);
    let own: Vec<SourceRecord> = own.map(|summary| summary.record()).collect();
    snapshot(platform, &own, &listeners_of(web, platform))
}

fn platform_of(text: &str) -> Result<PlatformName, Box<Response>> {
    text.parse().map_err(|_| {
        // The last two are what BitBrat's services answer.
        let problem = Problem::new(404, Code::ApiUnknownPlatform)
            .about(text)
            .with("error", "unknown_platform")
            .with("platform", text.chars().take(60).collect::<String>());
        Box::new(problem.into_response())
    })
}

/// Returns summaries of all stored documents that can be read.
async fn summaries(web: &Site) -> Result<Vec<Arc<SourceSummary>>, StoreError> {
    let stored = web.store.summaries().await?;
    Ok(stored
        .into_iter()
        .filter_map(|stored| stored.document.ok())
        .collect())
}

/// One listener: `/_debug/twitch/eventsub`.
pub(super) async fn listener(
    State(web): State<Site>,
    Path((platform, listener)): Path<(String, String)>,
) -> Response {
    let platform = match platform_of(&platform) {
        Ok(platform) => platform,
        Err(unknown) => return *unknown,
    };
    let wanted = format!("{platform}-{listener}");
    let found = listeners_of(&web, platform)
        .into_iter()
        .find(|(name, _)| *name == wanted);
    let Some((_, report)) = found else {
        let reason = format!("this process runs no {listener} listener for {platform}");
        return answer(200, json!({"enabled": false, "reason": reason}));
    };
    let mut detail = report.detail;
    // Without the store the channels keep their ids.
    if let Ok(summaries) = summaries(&web).await {
        let records = summaries.iter().map(|summary| summary.record());
        name_channels(
            &mut detail,
            &names(records.filter(|record| record.platform == platform)),
        );
    }
    answer(200, detail)
}

/// Names by id: the login where there is one, as BitBrat's connectors write channels.
fn names(records: impl IntoIterator<Item = SourceRecord>) -> BTreeMap<String, String> {
    let named = records
        .into_iter()
        .map(|record| (record.id.clone(), name(&record)));
    named.collect()
}

fn name(record: &SourceRecord) -> String {
    let login = record.metadata.get("login").and_then(Value::as_str);
    login
        .map(str::to_owned)
        .or_else(|| record.display_name.clone())
        .unwrap_or_else(|| record.id.clone())
}

/// Writes names instead of ids into a list of subscriptions.
fn name_channels(detail: &mut Value, names: &BTreeMap<String, String>) {
    let subscriptions = detail.get_mut("subscriptions").and_then(Value::as_array_mut);
    for subscription in subscriptions.into_iter().flatten() {
        let id = subscription.get("channel").and_then(Value::as_str);
        if let Some(name) = id.and_then(|id| names.get(id)) {
            subscription["channel"] = name.clone().into();
        }
    }
}

/// The part of Twitch's snapshot that describes EventSub, in the shape of BitBrat's connector.
fn event_sub(detail: &Value) -> Value {
    let field = |name: &str| detail.get(name).cloned().unwrap_or_default();
    json!({
        "enabled": field("enabled"), "state": field("state"), "useYamlConfig": field("useYamlConfig"),
        "subscriptionCount": field("subscriptionCount"), "activeSubscriptions": field("activeSubscriptions"),
        "subscriptionStatus": field("subscriptions"),
    })
}

/// When the newest chat message was received over EventSub.
fn last_message_at(detail: &Value) -> Option<&Value> {
    let subscriptions = detail.get("subscriptions")?.as_array()?.iter();
    subscriptions
        .filter(|subscription| subscription["eventType"] == "channel.chat.message")
        .filter_map(|subscription| subscription.get("lastEventAt"))
        // All have the same form, in which the later text is the later time.
        .filter(|at| at.is_string())
        .max_by_key(|at| at.as_str())
}

fn listeners_of(web: &Site, platform: PlatformName) -> Vec<(String, ListenerReport)> {
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

fn snapshot(
    platform: PlatformName,
    records: &[SourceRecord],
    listeners: &[(String, ListenerReport)],
) -> Map<String, Value> {
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
    let joined = records.iter().filter(|record| record.status == Status::Connected);
    let connector = platform.rules().connector.as_ref();
    let is_login = connector.is_some_and(|connector| connector.channels_are_logins);
    let channel = |record: &SourceRecord| match is_login {
        true => format!("#{}", name(record)),
        false => name(record),
    };
    let mut snapshot = Map::new();
    snapshot.insert("state".into(), worst.to_string().into());
    if let Some(error) = newest_error {
        snapshot.insert(
            "lastError".into(),
            json!({"code": error.code, "message": error.message, "at": error.at}),
        );
    }
    snapshot.insert("joinedChannels".into(), joined.map(channel).collect());
    snapshot.insert("reconnects".into(), sum(|metrics| metrics.reconnects).into());
    snapshot.insert(
        "counters".into(),
        json!({
            "received": sum(|metrics| metrics.messages_in), "published": sum(|metrics| metrics.messages_out),
            "failed": sum(|metrics| metrics.errors),
        }),
    );
    let names = names(records.iter().cloned());
    for (listener, report) in listeners {
        let mut detail = report.detail.clone();
        if listener != "twitch-eventsub" {
            snapshot.insert(listener.clone(), detail);
            continue;
        }
        name_channels(&mut detail, &names);
        if let Some(id) = detail.get("botUserId").filter(|id| id.is_string()) {
            snapshot.insert("id".into(), id.clone());
        }
        if let Some(at) = last_message_at(&detail) {
            snapshot.insert("lastMessageAt".into(), at.clone());
        }
        snapshot.insert("eventSub".into(), event_sub(&detail));
    }
    snapshot
}
