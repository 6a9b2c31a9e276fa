//! Tests of pages over real sockets, with a store in memory.

mod api;
mod mcp;
mod pages;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::observation::{AuthResult, Fact, LinkState, Observation, Transport};
use crate::core::source::SourceKey;
use crate::histogram::Histogram;
use crate::store::Write;
use crate::store::memory::MemoryStore;
use crate::store::retention::Retention;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::reading::Configured;
use crate::watch::account_reports::AccountState;
use crate::watch::listener_context::{Established, ListenerReport};
use crate::watch::state_file::Depth;

pub(super) const START: i64 = 1_780_000_000_000;

pub(super) struct Served {
    base: String,
    unready: Arc<Mutex<Vec<String>>>,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

fn key() -> SourceKey {
    "twitch:900200".parse().unwrap()
}

pub(super) fn overview() -> Overview {
    Overview {
        summary: crate::watch::writer::Summary {
            accounts: vec![AccountState {
                identity: Identity::named("twitch/bot"),
                result: AuthResult::Revoked,
                state: "REVOKED".to_owned(),
                expires_at: Some(Timestamp::from_millis(START + 3_600_000)),
                checked_at: Timestamp::from_millis(START),
                client_rejected: false,
                reason: None,
            }],
            ..crate::watch::writer::Summary::default()
        },
        monitored: 1,
        inputs: 0,
        outbox_oldest: Some(Timestamp::from_millis(START + 60_500)),
        deferred: 0,
        outbox: Depth {
            events: 3,
            heartbeats: 1,
        },
        transitions: 7,
        sent: 5,
        failed: 0,
        refused: 0,
        dropped: 0,
        pollers: Vec::new(),
        rate_limits: Vec::new(),
        commit_times: Histogram::new(&[0.1]).read(),
        event_delays: Vec::new(),
        listeners: vec![(
            "twitch-eventsub".into(),
            ListenerReport {
                healthy: true,
                summary: "hears".into(),
                connections: Some(Established {
                    established: 1,
                    wanted: 2,
                }),
                subscriptions: Some(Established {
                    established: 3,
                    wanted: 3,
                }),
                detail: json!({
                    "enabled": true, "state": "CONNECTED", "useYamlConfig": false, "botUserId": "777000",
                    "subscriptionCount": 1, "activeSubscriptions": 1,
                    "subscriptions": [{
                        "channel": "900200", "eventType": "channel.chat.message", "status": "active", "eventCount": 3,
                        "errorCount": 0, "createdAt": null, "lastEventAt": "2026-05-28T20:26:40.000Z", "lastErrorAt": null,
                    }],
                    "plan": {},
                }),
            },
        )],
        unready: Vec::new(),
    }
}

async fn served(token: Option<&str>) -> Served {
    let web = web(token).await;
    serve_pages(web, Limits::default()).await
}

/// Returns pages with one stored source.
pub(super) async fn web(token: Option<&str>) -> (Web, Arc<Mutex<Vec<String>>>) {
    let clock = ManualClock::at(Timestamp::from_millis(START));
    let store = MemoryStore::new(Retention::default());
    let facts = [
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
        Fact::StreamAbsent,
        Fact::Profile {
            fields: [("login".to_owned(), "ratcaster".to_owned())].into(),
        },
    ];
    let observations = facts.map(|fact| Observation::new(&key(), clock.now(), "twitch.helix", fact));
    let document = SourceDocument::from_knowledge(key(), Knowledge::of(&observations));
    store.save(&[Write::new(document, None)]).await.remove(0).unwrap();
    clock.advance(90_500);
    let unready: Arc<Mutex<Vec<String>>> = Arc::default();
    let reasons = Arc::clone(&unready);
    let web = Web {
        store: Arc::new(store),
        view: Some(Arc::new(overview)),
        stored: Some(Arc::new(|| Stored {
            stats: Stats {
                writes: 12,
                documents: 8,
                ..Stats::since(Timestamp::from_millis(1_780_000_000_000))
            },
            expected_per_day: Some(4096),
            unusable: Some(0),
        })),
        storing: None,
        expiries: Arc::new(Mutex::new(
            [(
                Identity::named("twitch/bot"),
                Timestamp::from_millis(START + 86_400_000),
            )]
            .into(),
        )),
        unready: Arc::new(move || reasons.lock().clone()),
        started_at: Timestamp::from_millis(START),
        clock,
        token: token.map(SecretString::from),
        configured: Arc::new(Configured::default),
        problems: Arc::new(Vec::new),
        events: None,
        commits: None,
        viewers: Arc::default(),
        instance: "w1".to_owned(),
        runs: PathBuf::from("/nonexistent"),
        agents: crate::mcp::tests::options(),
        measured: Measured {
            intervals: Arc::new(crate::core::freshness::Intervals::default),
            request_times: Vec::new(),
            source_series: 0,
        },
        settings: vec![Shown {
            key: "twitch.client_secret".to_owned(),
            value: Some("***".to_owned()),
            origin: "environment".to_owned(),
            variable: "TWITCH_CLIENT_SECRET".to_owned(),
            help: String::new(),
        }],
    };
    (web, unready)
}

pub(super) async fn serve_pages((web, unready): (Web, Arc<Mutex<Vec<String>>>), limits: Limits) -> Served {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test owns this one")]
    let server = tokio::spawn(async move {
        serve_within(listener, web, Router::new(), limits, Stop::never())
            .await
            .unwrap();
    });
    Served {
        base,
        unready,
        _server: tokio_util::task::AbortOnDropHandle::new(server),
    }
}

/// Sends plain HTTP, so that the host can be anything.
pub(super) async fn get(served: &Served, path: &str, headers: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = served.base.strip_prefix("http://").unwrap();
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

async fn page(served: &Served, path: &str) -> (u16, Value) {
    let (status, body) = get(served, path, "").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn health_is_reported_in_the_platform_format() {
    let served = served(None).await;
    for path in ["/healthz", "/livez"] {
        let (status, body) = page(&served, path).await;
        assert_eq!(
            (status, &body["status"], &body["service"]),
            (200, &json!("ok"), &json!("bitbrat"))
        );
        assert_eq!(
            (&body["uptimeSec"], &body["timestamp"]),
            (&json!(90), &json!("2026-05-28T20:28:10.500Z"))
        );
    }
    assert_eq!(page(&served, "/readyz").await.1["ready"], true);
    served.unready.lock().push("the store does not answer".into());
    let (status, body) = page(&served, "/readyz").await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert_eq!(body["reasons"], json!(["the store does not answer"]));
    assert_eq!(page(&served, "/healthz").await.0, 200);
}

#[tokio::test]
async fn debug_pages_speak_of_platforms_and_their_listeners() {
    let served = served(None).await;
    let (_, twitch) = page(&served, "/_debug/twitch").await;
    assert_eq!(
        (&twitch["state"], &twitch["joinedChannels"]),
        (&json!("CONNECTED"), &json!(["#ratcaster"]))
    );
    assert_eq!(
        twitch["counters"],
        json!({"received": 0, "published": 0, "failed": 0})
    );
    assert_eq!(
        page(&served, "/_debug/twitch/eventsub").await.1["subscriptionCount"],
        1
    );
    assert_eq!(page(&served, "/_debug/discord/gateway").await.1["enabled"], false);
    let (status, body) = page(&served, "/_debug/myspace").await;
    assert_eq!(
        (status, &body["code"], &body["id"]),
        (404, &json!("api.unknown_platform"), &json!("myspace"))
    );
    assert_eq!(
        (&body["error"], &body["platform"]),
        (&json!("unknown_platform"), &json!("myspace"))
    );
    let (_, sources) = page(&served, "/_debug/sources").await;
    assert_eq!(sources["sources"]["twitch:900200"]["schemaVersion"], 1);
}

#[tokio::test]
async fn process_is_described_in_the_platforms_formats() {
    let served = served(None).await;
    assert_eq!(
        page(&served, "/health").await,
        (200, json!({"status": "ok", "service": "bitbrat"}))
    );
    assert_eq!(
        page(&served, "/_debug/config").await.1,
        json!({"service": "bitbrat", "config": {"twitch.client_secret": "***"}, "requiredEnv": []})
    );
    assert_eq!(
        page(&served, "/_debug/instance").await.1,
        json!({"serviceName": "bitbrat", "instanceId": "w1", "egressTopic": null, "connectorCount": 0, "connectors": []})
    );
    let (_, connectors) = page(&served, "/_debug/connectors").await;
    let (_, mut twitch) = page(&served, "/_debug/twitch").await;
    twitch["started"] = json!(false);
    assert_eq!(connectors, json!({"connectors": {"twitch": twitch}}));
    let (_, counters) = page(&served, "/_debug/counters").await;
    assert_eq!(counters["counters"]["bitbrat_transitions_total"], 7);
}

#[tokio::test]
async fn the_twitch_page_has_the_shape_of_the_connector() {
    let served = served(None).await;
    let (_, twitch) = page(&served, "/_debug/twitch").await;
    let subscription = json!({
        "channel": "ratcaster", "eventType": "channel.chat.message", "status": "active", "eventCount": 3, "errorCount": 0,
        "createdAt": null, "lastEventAt": "2026-05-28T20:26:40.000Z", "lastErrorAt": null,
    });
    assert_eq!(
        twitch,
        json!({
            "state": "CONNECTED", "id": "777000", "joinedChannels": ["#ratcaster"], "reconnects": 0,
            "lastMessageAt": "2026-05-28T20:26:40.000Z",
            "counters": {"received": 0, "published": 0, "failed": 0},
            "eventSub": {
                "enabled": true, "state": "CONNECTED", "useYamlConfig": false, "subscriptionCount": 1,
                "activeSubscriptions": 1, "subscriptionStatus": [subscription],
            },
        })
    );
    let (_, eventsub) = page(&served, "/_debug/twitch/eventsub").await;
    assert_eq!(eventsub["subscriptions"][0]["channel"], "ratcaster");
}

#[tokio::test]
async fn the_api_lists_and_shows_sources() {
    let served = served(None).await;
    assert_eq!(
        page(&served, "/api/v1/sources").await.1["items"][0]["id"],
        "900200"
    );
    assert_eq!(
        page(&served, "/api/v1/sources/twitch:900200").await.1["items"][0]["streamStatus"],
        "OFFLINE"
    );
    for (path, status, code) in [
        ("/api/v1/sources/twitch:1", 404, "api.unknown_source"),
        ("/api/v1/sources/9.87e17", 400, "api.invalid_source"),
        ("/api/v1/sources/myspace:1", 400, "api.invalid_source"),
        ("/api/v1/sources?max_age=soon", 400, "api.invalid_max_age"),
        ("/api/v2/sources", 404, "api.not_found"),
    ] {
        let (found, body) = page(&served, path).await;
        assert_eq!((found, &body["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test]
async fn api_finds_a_source_by_name_and_address() {
    let served = served(None).await;
    for wanted in [
        "twitch:900200",
        "900200",
        "twitch:ratcaster",
        "RatCaster",
        "https%3A%2F%2Fwww.twitch.tv%2Fratcaster",
        "twitch.tv%2Fratcaster",
    ] {
        let (status, body) = page(&served, &format!("/api/v1/sources/{wanted}")).await;
        assert_eq!(
            (status, &body["items"][0]["streamStatus"]),
            (200, &json!("OFFLINE")),
            "{wanted}"
        );
    }
    for wanted in ["kick:ratcaster", "twitch:somebody", "pixelmeadow", "kick:1"] {
        let (status, body) = page(&served, &format!("/api/v1/sources/{wanted}")).await;
        assert_eq!(
            (status, &body["code"], &body["id"]),
            (404, &json!("api.unknown_source"), &json!(wanted))
        );
        let message = body["detail"].as_str().unwrap();
        assert!(message.contains("/api/v1/sources"), "{message}");
    }
}

#[tokio::test]
async fn a_page_elsewhere_cannot_read_along_through_a_browser() {
    let served = served(None).await;
    let rebound = get(&served, "/_debug/sources", "Host: rats.example\r\n").await;
    assert_eq!(rebound.0, 403);
    for headers in [
        "Host: [::1].rats.example\r\n",
        "Host: localhost\r\nHost: rats.example\r\n",
        "Host: rats.example\r\nHost: localhost\r\n",
    ] {
        assert_eq!(get(&served, "/_debug/sources", headers).await.0, 403, "{headers}");
    }
    let elsewhere = "http://rats.example/_debug/sources";
    assert_eq!(get(&served, elsewhere, "Host: localhost\r\n").await.0, 403);
    for host in ["localhost:8787", "127.0.0.1", "[::1]:8787", "LOCALHOST."] {
        assert_eq!(
            get(&served, "/_debug/sources", &format!("Host: {host}\r\n"))
                .await
                .0,
            200,
            "{host}"
        );
    }
}

#[tokio::test]
async fn with_a_token_everything_but_health_asks_for_it() {
    let served = served(Some("s3cret")).await;
    assert_eq!(get(&served, "/healthz", "").await.0, 200);
    assert_eq!(get(&served, "/metrics", "").await.0, 401);
    assert_eq!(
        get(&served, "/metrics", "Authorization: Bearer wrong\r\n")
            .await
            .0,
        401
    );
    assert_eq!(
        get(
            &served,
            "/metrics",
            "Host: any.example\r\nAuthorization: Bearer s3cret\r\n"
        )
        .await
        .0,
        200
    );
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let header = format!("Authorization: {scheme} s3cret\r\n");
        assert_eq!(get(&served, "/metrics", &header).await.0, 200, "{scheme}");
    }
    let twice = "Authorization: Bearer s3cret\r\nAuthorization: Bearer wrong\r\n";
    assert_eq!(get(&served, "/metrics", twice).await.0, 401);
}

/// Sends `requests` at once over one connection, and reads nothing.
async fn pipelined(served: &Served, path: &str, requests: usize) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    socket
        .write_all(request.repeat(requests).as_bytes())
        .await
        .unwrap();
    socket
}

#[tokio::test]
async fn clients_that_read_nothing_delay_no_health_check() {
    // Rendering occupies its thread until the test lets it go on; this runtime has only one thread of its own.
    let (mut pages, unready) = web(None).await;
    let (entered, mut rendering) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (wait, at_once) = (Mutex::new(wait), Arc::new(Mutex::new((0, 0))));
    let counted = Arc::clone(&at_once);
    pages.configured = Arc::new(move || {
        {
            let mut counts = counted.lock();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        let _ = entered.send(());
        let _ = wait.lock().recv();
        counted.lock().0 -= 1;
        Configured::default()
    });
    let served = serve_pages((pages, unready), Limits::default()).await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(pipelined(&served, "/api/v1/sources", 20).await);
    }
    rendering.recv().await.unwrap();
    for path in ["/healthz", "/livez", "/readyz", "/"] {
        assert_eq!(page(&served, path).await.0, 200, "{path}");
    }
    assert_eq!(get(&served, "/metrics", "").await.0, 200);
    for _ in 0..20 {
        go_on.send(()).unwrap();
        rendering.recv().await.unwrap();
    }
    drop(clients);
    drop(go_on);
    assert_eq!(page(&served, "/api/v1/sources").await.0, 200);
    assert_eq!(at_once.lock().1, 1);
}

#[tokio::test]
async fn requests_beyond_the_waiting_ones_are_refused() {
    let (mut pages, unready) = web(None).await;
    let (entered, mut rendering) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    pages.configured = Arc::new(move || {
        let _ = entered.send(());
        let _ = wait.lock().recv();
        Configured::default()
    });
    let limits = Limits {
        heavy: heavy::Limits {
            waiting: 3,
            ..heavy::Limits::default()
        },
        ..Limits::default()
    };
    let served = serve_pages((pages, unready), limits).await;
    let first = page(&served, "/api/v1/sources");
    let started = async {
        rendering.recv().await.unwrap();
        let mut others: futures_util::stream::FuturesUnordered<_> =
            (0..10).map(|_| page(&served, "/api/v1/sources")).collect();
        let mut answers = Vec::new();
        while let Some((status, body)) = futures_util::StreamExt::next(&mut others).await {
            answers.push(status);
            if status == 503 {
                assert_eq!(body["code"], "api.busy");
            }
            if answers.len() == 7 {
                assert_eq!(answers, [503; 7]);
                for _ in 0..4 {
                    go_on.send(()).unwrap();
                }
            }
        }
        answers
    };
    let (first, answers) = tokio::join!(first, started);
    assert_eq!((first.0, &answers[7..]), (200, &[200; 3][..]));
}

#[tokio::test]
async fn unread_large_responses_occupy_limited_memory() {
    let (mut pages, unready) = web(None).await;
    pages.configured = Arc::new(|| Configured {
        unresolved: vec![UnusableItem {
            what: UnusableKind::Name,
            id: "twitch:ratcaster".into(),
            reason: "x".repeat(8 * 1024 * 1024),
        }],
        ..Configured::default()
    });
    let limits = Limits {
        heavy: heavy::Limits {
            unread: 12 * 1024,
            ..heavy::Limits::default()
        },
        ..Limits::default()
    };
    let served = serve_pages((pages, unready), limits).await;
    // The system buffers only a part of a response.
    let lazy = pipelined(&served, "/api/v1/sources", 1).await;
    lazy.readable().await.unwrap();
    assert_eq!(page(&served, "/api/v1/sources").await.0, 503);
    assert_eq!(page(&served, "/_debug/sources").await.0, 200, "a small page");
    drop(lazy);
    while page(&served, "/api/v1/sources").await.0 == 503 {
        tokio::task::yield_now().await;
    }
}
