//! Tests of the metrics over a real socket.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::catalog::{ALL, Kind, Metric};
use super::*;
use crate::core::observation::{AuthResult, Identity};
use crate::core::time::Timestamp;
use crate::core::verdict::Status;
use crate::histogram::Buckets;
use crate::persist;
use crate::platforms::{Probe, RateLimit};
use crate::watch::account_reports::AccountState;
use crate::watch::overview::Overview;
use crate::watch::pollers::PollerReport;
use crate::web::tests::{START, Served, get, overview, serve_pages, web};
use crate::web::{Limits, View};

fn account(identity: &str, result: AuthResult) -> AccountState {
    AccountState {
        identity: Identity::named(identity),
        result,
        state: result.to_string(),
        expires_at: Some(Timestamp::from_millis(START + 3_600_000)),
        checked_at: Timestamp::from_millis(START),
        client_rejected: false,
        reason: None,
    }
}

fn buckets() -> Buckets {
    Histogram::new(&[0.5, 2.0]).read()
}

/// A daemon with something to report of every kind.
fn busy() -> Overview {
    let mut overview = overview();
    let twitch = PlatformName::Twitch;
    let poller = |platform| PollerReport {
        platform,
        name: "quick",
        probes: [Probe::Connection, Probe::Stream].into(),
        runs: 4,
        skipped: 1,
        calls: 9,
        problems: 2,
        evidence: BTreeMap::new(),
    };
    overview.pollers = vec![poller(twitch), poller(PlatformName::Kick)];
    overview.pollers[0].evidence = [(Probe::Connection, Timestamp::from_millis(START + 250))].into();
    overview.event_delays = vec![(twitch, buckets())];
    overview.rate_limits = (0..6)
        .map(|left| {
            let limit = RateLimit {
                name: String::new(),
                bucket: format!("user{left}"),
                left,
                size: 800,
            };
            (twitch, limit)
        })
        .collect();
    let summary = &mut overview.summary;
    summary.by_status = [((twitch, Status::Connected), 2), ((twitch, Status::Error), 1)].into();
    summary.live = ["twitch:1".parse().unwrap()].into();
    summary.confirmed = [
        ((twitch, Timestamp::from_millis(START)), 2),
        ((twitch, Timestamp::from_millis(START + 60_000)), 1),
    ]
    .into();
    overview
}

async fn serving(view: fn() -> Overview, source_series: usize) -> Served {
    let (mut web, unready) = web(None).await;
    let view: View = Arc::new(view);
    web.view = Some(view);
    web.measured.source_series = source_series;
    web.measured.request_times = vec![(PlatformName::Twitch, Arc::new(Histogram::new(&[0.5])))];
    web.storing = Some(Arc::new(|| persist::overview::Overview {
        stored: 3,
        foreign: 0,
        postponed: 0,
        dead: 0,
        repeated: 0,
        ignored: BTreeMap::new(),
        writes: 0,
        conflicts: 0,
        chat_counted: 0,
        chat_repeated: 0,
        chat_unplaced: 0,
        chat: BTreeMap::new(),
    }));
    serve_pages((web, unready), Limits::default()).await
}

async fn scraped(served: &Served) -> String {
    let (status, text) = get(served, "/metrics", "").await;
    assert_eq!(status, 200);
    text
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn metrics_report_the_daemon_and_name_no_source() {
    let text = scraped(&serving(busy, 0).await).await;
    has(
        &text,
        &[
            "bitbrat_ready 1",
            "bitbrat_outbox_events 3",
            "bitbrat_outbox_oldest_age_seconds 30",
            "bitbrat_transitions_total 7",
            "bitbrat_store_writes_total 12",
            r#"bitbrat_check_last_success_timestamp_seconds{platform="twitch",check="connection"} 1780000000.250"#,
            r#"bitbrat_check_last_success_timestamp_seconds{platform="kick",check="connection"} 0"#,
            r#"bitbrat_check_interval_seconds{check="auth"} 3600"#,
            r#"bitbrat_listener_connections{listener="twitch-eventsub"} 1"#,
            r#"bitbrat_listener_connections_wanted{listener="twitch-eventsub"} 2"#,
            r#"bitbrat_request_duration_seconds_bucket{platform="twitch",le="+Inf"} 0"#,
        ],
    );
    assert!(!text.contains("900200"), "{text}");
}

#[tokio::test]
async fn every_status_and_account_state_is_present_at_zero() {
    let text = scraped(&serving(busy, 0).await).await;
    has(
        &text,
        &[
            r#"bitbrat_sources{platform="twitch",status="connected"} 2"#,
            r#"bitbrat_sources{platform="twitch",status="disconnected"} 0"#,
            r#"bitbrat_sources{platform="twitch",status="error"} 1"#,
            r#"bitbrat_sources{platform="kick",status="error"} 0"#,
            r#"bitbrat_sources_live{platform="twitch"} 1"#,
            r#"bitbrat_sources_live{platform="kick"} 0"#,
            r#"bitbrat_accounts{platform="twitch",state="revoked"} 1"#,
            r#"bitbrat_accounts{platform="twitch",state="valid"} 0"#,
        ],
    );
}

#[tokio::test]
async fn source_is_stale_three_intervals_after_its_evidence() {
    // The clock stands 90.5 s after the start; a connection is checked every 30 s.
    let text = scraped(&serving(busy, 0).await).await;
    has(&text, &[r#"bitbrat_sources_stale{platform="twitch"} 2"#]);
}

#[tokio::test]
async fn metrics_show_the_state_and_expiry_of_each_token() {
    let text = scraped(&serving(busy, 0).await).await;
    has(
        &text,
        &[
            r#"bitbrat_token_state{account="twitch/bot",state="revoked"} 1"#,
            r#"bitbrat_token_state{account="twitch/bot",state="valid"} 0"#,
            r#"bitbrat_token_expiry_timestamp_seconds{account="twitch/bot"} 1780003600"#,
            r#"bitbrat_account_expiry_timestamp_seconds{account="twitch/bot"} 1780086400"#,
        ],
    );
}

#[tokio::test]
async fn accounts_of_single_sources_are_limited_worst_first() {
    fn view() -> Overview {
        let mut overview = busy();
        let broadcaster = |id: u32| {
            let result = if id == 17 {
                AuthResult::Revoked
            } else {
                AuthResult::Valid
            };
            account(&format!("twitch/broadcaster:{id}"), result)
        };
        overview.summary.accounts = (0..20).map(broadcaster).collect();
        overview
            .summary
            .accounts
            .push(account("twitch/bot", AuthResult::Valid));
        overview
    }
    let text = scraped(&serving(view, 0).await).await;
    let shown: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("bitbrat_token_checked_timestamp_seconds{account=\""))
        .filter_map(|line| line.split('"').next())
        .collect();
    let expected = [
        "twitch/bot",
        "twitch/broadcaster:0",
        "twitch/broadcaster:1",
        "twitch/broadcaster:17",
    ];
    assert_eq!(shown, expected);
    has(
        &text,
        &[
            r#"bitbrat_accounts{platform="twitch",state="revoked"} 1"#,
            r#"bitbrat_accounts{platform="twitch",state="valid"} 20"#,
        ],
    );
    let text = scraped(&serving(view, 10).await).await;
    assert_eq!(
        text.matches("bitbrat_token_checked_timestamp_seconds{").count(),
        11
    );
}

#[tokio::test]
async fn rate_limits_are_limited_to_the_emptiest() {
    let text = scraped(&serving(busy, 0).await).await;
    assert_eq!(text.matches("bitbrat_rate_limit_remaining{").count(), 4);
    has(
        &text,
        &[r#"bitbrat_rate_limit_remaining{platform="twitch",bucket="user0"} 0"#],
    );
}

#[tokio::test]
async fn single_sources_have_series_only_if_configured() {
    let text = scraped(&serving(busy, 1).await).await;
    has(
        &text,
        &[
            r#"bitbrat_source_connected{platform="twitch",id="900200"} 1"#,
            r#"bitbrat_source_live{platform="twitch",id="900200"} 0"#,
            "bitbrat_sources_without_series 0",
        ],
    );
}

#[tokio::test]
async fn format_is_negotiated() {
    let served = serving(busy, 0).await;
    let text = scraped(&served).await;
    has(&text, &["# TYPE bitbrat_transitions_total counter"]);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let (_, text) = get(&served, "/metrics", accept).await;
    has(
        &text,
        &[
            "# TYPE bitbrat_transitions counter",
            "# TYPE bitbrat_build info",
            "# EOF",
        ],
    );
}

/// Every metric of the catalog is in the documentation, which is generated, and appears in a scrape; nothing else does.
#[tokio::test]
async fn every_metric_of_the_catalog_is_reported() {
    let text = scraped(&serving(busy, 1).await).await;
    let reported = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next());
    let reported: Vec<_> = reported.collect();
    // Known only once a platform has answered, or for a live stream.
    let absent = ["bitbrat_clock_error_seconds", "bitbrat_source_viewers"];
    let mut expected: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
    expected.retain(|name| !absent.contains(name) || reported.contains(name));
    if !cfg!(target_os = "linux") {
        expected.retain(|name| !name.starts_with("process_") || reported.contains(name));
    }
    expected.sort_unstable();
    assert_eq!(reported, expected);
}

fn page() -> String {
    let mut rows = String::new();
    for Metric {
        name,
        kind,
        labels,
        help,
    } in ALL
    {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let unit = ALL
            .iter()
            .find(|metric| metric.name == *name)
            .and_then(|metric| metric.unit());
        let (labels, unit) = (labels.join(", "), unit.unwrap_or("–"));
        let _ = writeln!(rows, "| `{name}` | {kind} | {labels} | {unit} | {help} |");
    }
    rows
}

#[test]
fn metrics_page_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("| --- | --- | --- | --- | --- |\n").unwrap();
    let after = rest.find("\n\n").map_or("", |end| &rest[end + 1..]);
    let expected = format!("{before}| --- | --- | --- | --- | --- |\n{}{after}", page());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "docs/metrics.md is out of date: UPDATE_GENERATED=1 cargo nextest run metrics_page"
    );
}

#[test]
fn names_follow_the_conventions() {
    for metric in ALL {
        let name = metric.name;
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
        assert!(
            metric.kind != Kind::Histogram || metric.unit() == Some("seconds"),
            "{name}"
        );
        assert!(
            name.starts_with("bitbrat_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']),
            "{name}"
        );
    }
}
