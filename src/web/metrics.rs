//! Metrics for Prometheus, collected for each request from the daemon's overview. Never labeled by source: ten thousand sources
//! would be ten thousand series.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::problem::Problem;
use super::{Site, Stored};
use crate::core::code::Code;
use crate::core::observation::{AuthCheck, AuthResult, Identity};
use crate::core::time::Timestamp;
use crate::persist;
use crate::watch::account_reports::AccountState;
use crate::watch::overview::Overview;

/// The labels of a series, in the order in which they are written.
type Labels = Vec<(&'static str, String)>;

/// Answers in the text format of `OpenMetrics`.
pub(super) async fn metrics(State(web): State<Site>) -> Response {
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
    describe_expiries(&mut registry, &web.expiries.lock());
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], in_order(&text)).into_response()
        }
        Err(_) => Problem::new(500, Code::ApiMetricsUnwritable).into_response(),
    }
}

/// Sorts the series of each metric: the library keeps them in hash maps, whose order changes with every start.
fn in_order(text: &str) -> String {
    let mut ordered = String::with_capacity(text.len());
    let mut series: Vec<&str> = Vec::new();
    let mut flush = |series: &mut Vec<&str>, next: Option<&str>| {
        series.sort_unstable();
        for line in series.drain(..).chain(next) {
            ordered.push_str(line);
            ordered.push('\n');
        }
    };
    for line in text.lines() {
        if line.starts_with('#') {
            flush(&mut series, Some(line));
        } else {
            series.push(line);
        }
    }
    flush(&mut series, None);
    ordered
}

fn describe(registry: &mut Registry, overview: &Overview) {
    for (name, help, value) in [
        (
            "sources_monitored",
            "Monitored sources",
            overview.monitored as u64,
        ),
        (
            "sources_live",
            "Sources that are live",
            overview.summary.live.len() as u64,
        ),
        (
            "inputs_waiting",
            "Observations that were received and not merged yet",
            overview.inputs,
        ),
        (
            "outbox_events",
            "Events that wait to be sent",
            overview.outbox.events as u64,
        ),
    ] {
        gauge(registry, name, help, signed(value));
    }
    for (name, help, value) in [
        ("transitions", "Changes of a verdict", overview.transitions),
        ("events_sent", "Events acknowledged", overview.sent),
        ("events_failed", "Attempts to send that failed", overview.failed),
        (
            "events_refused",
            "Events that will never be taken",
            overview.refused,
        ),
        (
            "heartbeats_dropped",
            "Heartbeats that had to make room",
            overview.dropped,
        ),
    ] {
        counter(registry, name, help, value);
    }
    let by_status = Family::<Labels, Gauge>::default();
    for ((platform, status), count) in &overview.summary.by_status {
        let status = status.to_string().to_lowercase();
        let labels = vec![("platform", platform.to_string()), ("status", status)];
        by_status.get_or_create(&labels).set(signed(*count as u64));
    }
    registry.register("sources", "Sources known, by platform and status", by_status);
    describe_accounts(registry, &overview.summary.accounts);
    let runs = Family::<Labels, Counter>::default();
    let skipped = Family::<Labels, Counter>::default();
    let calls = Family::<Labels, Counter>::default();
    let problems = Family::<Labels, Counter>::default();
    for poller in &overview.pollers {
        let labels = vec![
            ("platform", poller.platform.to_string()),
            ("poller", poller.name.to_owned()),
        ];
        runs.get_or_create(&labels).inc_by(poller.runs);
        skipped.get_or_create(&labels).inc_by(poller.skipped);
        calls.get_or_create(&labels).inc_by(poller.calls);
        problems.get_or_create(&labels).inc_by(poller.problems);
    }
    registry.register("probes", "Probes started", runs);
    registry.register("ticks_skipped", "Ticks skipped because a probe was late", skipped);
    registry.register("calls", "Requests sent to platforms", calls);
    registry.register("probe_problems", "Problems while probing", problems);
    let healthy = Family::<Labels, Gauge>::default();
    for (name, report) in &overview.listeners {
        healthy
            .get_or_create(&vec![("listener", name.clone())])
            .set(i64::from(report.healthy));
    }
    registry.register(
        "listener_healthy",
        "Whether a listener receives what it should",
        healthy,
    );
}

/// Adds the tokens of the accounts. There are few accounts compared to sources: one per platform, and one for each broadcaster
/// who logged in.
fn describe_accounts(registry: &mut Registry, accounts: &[AccountState]) {
    let states = Family::<Labels, Gauge>::default();
    let expiry = Family::<Labels, Gauge>::default();
    let checked = Family::<Labels, Gauge>::default();
    for found in accounts {
        let account = found.identity.to_string();
        let results = [AuthResult::Valid, AuthResult::Expired, AuthResult::Revoked];
        let names = results.iter().map(AuthResult::to_string);
        for state in names.chain([AuthCheck::REJECTED.to_owned()]) {
            let labels = vec![("account", account.clone()), ("state", state.to_lowercase())];
            states.get_or_create(&labels).set(i64::from(state == found.state));
        }
        let labels = vec![("account", account)];
        if let Some(expires_at) = found.expires_at {
            expiry.get_or_create(&labels).set(expires_at.as_millis() / 1000);
        }
        checked
            .get_or_create(&labels)
            .set(found.checked_at.as_millis() / 1000);
    }
    registry.register(
        "token_state",
        "Whether the token of an account is in a state: 1 in the one it is in",
        states,
    );
    registry.register(
        "token_expires_timestamp_seconds",
        "When the token of an account expires",
        expiry,
    );
    registry.register(
        "token_checked_timestamp_seconds",
        "When the token of an account was last checked",
        checked,
    );
}

/// Adds when accounts stop working: unlike the expiry of a token, this takes refreshes into account.
fn describe_expiries(registry: &mut Registry, expiries: &BTreeMap<Identity, Timestamp>) {
    let until = Family::<Labels, Gauge>::default();
    for (identity, works_until) in expiries {
        let labels = vec![("account", identity.to_string())];
        until.get_or_create(&labels).set(works_until.as_millis() / 1000);
    }
    registry.register(
        "account_expiry_timestamp_seconds",
        "When an account stops working without another login",
        until,
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
    let help = "Writes a day that were expected";
    gauge(
        registry,
        "store_writes_per_day_expected",
        help,
        signed(stored.expected_per_day),
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
    let messages = Family::<Labels, Counter>::default();
    for (outcome, count) in [
        ("stored", storing.stored),
        ("postponed", storing.postponed),
        ("dead", storing.dead),
    ] {
        messages
            .get_or_create(&vec![("outcome", outcome.to_owned())])
            .inc_by(count);
    }
    for (why, count) in &storing.ignored {
        let outcome = format!("ignored_{}", why.as_str());
        messages.get_or_create(&vec![("outcome", outcome)]).inc_by(*count);
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
            "Chat messages of unknown channels",
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

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn series_of_a_metric_have_one_order() {
        let text = "# TYPE a gauge\na{x=\"2\"} 1\na{x=\"1\"} 2\n# TYPE b gauge\nb 3\n# EOF\n";
        let ordered = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 1\n# TYPE b gauge\nb 3\n# EOF\n";
        assert_eq!(in_order(text), ordered);
    }
}
