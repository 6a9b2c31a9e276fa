//! Metrics for Prometheus, gathered anew for each question from what the daemon tells anyway. Never labelled by source:
//! ten thousand sources would be ten thousand series.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Stored, Web, answer};
use crate::core::time::Timestamp;
use crate::persist;
use crate::watch::overview::Overview;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    platform: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    platform: String,
    lane: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfListener {
    listener: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: String,
}

/// Answers in the text format of `OpenMetrics`.
pub(super) async fn metrics(State(web): State<Web>) -> Response {
    let mut registry = Registry::with_prefix("bitbrat");
    gauge(
        &mut registry,
        "ready",
        "Whether this process is ready",
        i64::from(web.reasons().is_empty()),
    );
    let uptime = web.clock.now().since(web.started_at).as_secs();
    gauge(
        &mut registry,
        "uptime_seconds",
        "Time since the start",
        signed(uptime),
    );
    if let Some(overview) = web.overview() {
        describe(&mut registry, &overview);
    }
    if let Some(stored) = &web.stored {
        describe_store(&mut registry, &stored(), web.clock.now());
    }
    if let Some(storing) = &web.storing {
        describe_storing(&mut registry, &storing());
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => answer(500, json!({"error": "metrics_unwritable"})),
    }
}

fn describe(registry: &mut Registry, overview: &Overview) {
    gauge(
        registry,
        "sources_attended",
        "Sources attended",
        signed(overview.attended as u64),
    );
    let by_status = Family::<OfStatus, Gauge>::default();
    for ((platform, status), count) in &overview.summary.by_status {
        let labels = OfStatus {
            platform: platform.to_string(),
            status: status.to_string().to_lowercase(),
        };
        by_status.get_or_create(&labels).set(signed(*count as u64));
    }
    registry.register("sources", "Sources known, by platform and status", by_status);
    gauge(
        registry,
        "sources_live",
        "Sources that are live",
        signed(overview.summary.live.len() as u64),
    );
    counter(
        registry,
        "transitions",
        "Changes of a verdict",
        overview.transitions,
    );
    gauge(
        registry,
        "inputs_waiting",
        "Facts and counts that were heard and not joined yet",
        signed(overview.inputs),
    );
    gauge(
        registry,
        "outbox_events",
        "Events that wait to be sent",
        signed(overview.outbox.events as u64),
    );
    counter(registry, "events_sent", "Events acknowledged", overview.sent);
    counter(
        registry,
        "events_failed",
        "Attempts to send that failed",
        overview.failed,
    );
    counter(
        registry,
        "events_refused",
        "Events that will never be taken",
        overview.refused,
    );
    counter(
        registry,
        "heartbeats_dropped",
        "Heartbeats that had to make room",
        overview.dropped,
    );
    let looks = Family::<OfLane, Counter>::default();
    let skipped = Family::<OfLane, Counter>::default();
    let calls = Family::<OfLane, Counter>::default();
    let problems = Family::<OfLane, Counter>::default();
    for lane in &overview.lanes {
        let labels = OfLane {
            platform: lane.platform.to_string(),
            lane: lane.name.to_owned(),
        };
        looks.get_or_create(&labels).inc_by(lane.looks);
        skipped.get_or_create(&labels).inc_by(lane.skipped);
        calls.get_or_create(&labels).inc_by(lane.calls);
        problems.get_or_create(&labels).inc_by(lane.problems);
    }
    registry.register("looks", "Looks begun", looks);
    registry.register("ticks_skipped", "Ticks skipped because a look was late", skipped);
    registry.register("calls", "Requests sent to platforms", calls);
    registry.register("look_problems", "Problems met while looking", problems);
    let healthy = Family::<OfListener, Gauge>::default();
    for (name, report) in &overview.listeners {
        let labels = OfListener {
            listener: name.clone(),
        };
        healthy.get_or_create(&labels).set(i64::from(report.healthy));
    }
    registry.register(
        "listener_healthy",
        "Whether a listener hears what it should",
        healthy,
    );
}

fn describe_store(registry: &mut Registry, stored: &Stored, now: Timestamp) {
    let stats = stored.stats;
    for (name, help, value) in [
        (
            "store_writes",
            "Documents and history entries written",
            stats.writes,
        ),
        ("store_reads", "Documents read", stats.reads),
        (
            "store_conflicts",
            "Writes that another writer had overtaken",
            stats.conflicts,
        ),
        ("store_failures", "Reads and writes that failed", stats.failures),
    ] {
        counter(registry, name, help, value);
    }
    let expected = ("Writes a day that were expected", stored.expected_per_day);
    gauge(
        registry,
        "store_writes_per_day_expected",
        expected.0,
        signed(expected.1),
    );
    if let Some(pace) = stats.writes_per_day(now) {
        let help = "Writes a day at the pace since the start";
        gauge(registry, "store_writes_per_day", help, signed(pace));
    }
    gauge(
        registry,
        "store_waiting",
        "Sources with changes that are not stored",
        signed(stats.urgent as u64),
    );
}

fn describe_storing(registry: &mut Registry, storing: &persist::overview::Overview) {
    let messages = Family::<OfOutcome, Counter>::default();
    for (outcome, count) in [
        ("stored", storing.stored),
        ("postponed", storing.postponed),
        ("dead", storing.dead),
    ] {
        let outcome = outcome.to_owned();
        messages.get_or_create(&OfOutcome { outcome }).inc_by(count);
    }
    for (why, count) in &storing.ignored {
        let outcome = format!("ignored_{}", why.as_str());
        messages.get_or_create(&OfOutcome { outcome }).inc_by(*count);
    }
    registry.register(
        "bus_messages",
        "Messages read from the bus, by what became of them",
        messages,
    );
    let figures = [
        (
            "bus_foreign",
            "Stored messages that other programs sent",
            storing.foreign,
        ),
        (
            "bus_redelivered",
            "Messages delivered more than once",
            storing.repeated,
        ),
        ("chat_messages", "Chat messages counted", storing.chat_counted),
        (
            "chat_repeated",
            "Chat messages that were counted before",
            storing.chat_repeated,
        ),
        (
            "chat_unplaced",
            "Chat messages of channels that nobody knows",
            storing.chat_unplaced,
        ),
    ];
    for (name, help, value) in figures {
        counter(registry, name, help, value);
    }
    let per_minute = storing.chat.values().map(|chat| chat.per_minute).sum();
    gauge(
        registry,
        "chat_messages_per_minute",
        "Chat messages in the last full minute",
        signed(per_minute),
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
