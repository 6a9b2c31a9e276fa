//! Features of every simulated platform: faults of each kind, the journal, the clock, outages, a clean shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{client, eventually};
use crate::clock::{Chance, Clock, SystemClock};
use crate::sim::control;
use crate::sim::{Fault, FaultBody, Host, Server, SimClock, WireFault};

struct Rig {
    server: Server,
    commits: Arc<AtomicU64>,
    http: reqwest::Client,
}

impl Rig {
    async fn start() -> Self {
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        let platform = Router::new()
            .route(
                "/api/list",
                get(|| async { Json(json!({"data": ["some", "thing", "long", "enough"]})) }),
            )
            .route(
                "/api/commit",
                post(move || async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    Json(json!({"done": true}))
                }),
            );
        let host = Host::new(SimClock::new(Arc::new(SystemClock)), Chance::seeded(7));
        let server = host
            .serve(
                "127.0.0.1:0".parse().unwrap(),
                platform,
                control::routes(host.clone()),
            )
            .await
            .unwrap();
        Self {
            server,
            commits,
            http: client(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.http())
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.http.get(self.url(path)).send().await
    }

    async fn control(&self, path: &str, body: &Value) -> reqwest::Response {
        self.http.post(self.url(path)).json(body).send().await.unwrap()
    }

    fn fault(&self, fault: Fault) {
        self.server.host().faults().add(fault);
    }
}

#[tokio::test]
async fn a_false_answer_is_given_as_often_as_planned_over_http() {
    let rig = Rig::start().await;
    let plan = json!({"path": "/api", "status": 429, "times": 1, "headers": {"Retry-After": "3"},
        "body": {"json": {"message": "too fast"}}});
    assert_eq!(
        rig.control("/__sim/faults", &plan)
            .await
            .json::<Value>()
            .await
            .unwrap(),
        json!({"id": 1})
    );
    let first = rig.get("/api/list").await.unwrap();
    assert_eq!(
        (
            first.status().as_u16(),
            first.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    assert_eq!(
        first.json::<Value>().await.unwrap(),
        json!({"message": "too fast"})
    );
    assert_eq!(rig.get("/api/list").await.unwrap().status().as_u16(), 200);
    let shown: Value = rig.get("/__sim/faults").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&shown["faults"][0]["harmed"], &shown["faults"][0]["spent"]),
        (&json!(1), &json!(true))
    );
    let cleared = rig.http.delete(rig.url("/__sim/faults")).send().await.unwrap();
    assert_eq!(cleared.status().as_u16(), 204);
}

#[tokio::test]
async fn invalid_control_request_is_rejected_with_reason() {
    let rig = Rig::start().await;
    let refused = rig.control("/__sim/faults", &json!({"pathh": "/"})).await;
    assert_eq!(refused.status().as_u16(), 400);
    assert!(refused.text().await.unwrap().contains("pathh"));
}

#[tokio::test]
async fn damaged_bodies_are_not_json_and_cut_transfers_fail() {
    let rig = Rig::start().await;
    for body in [
        FaultBody::Html,
        FaultBody::Empty,
        FaultBody::Garbage,
        FaultBody::Truncated,
    ] {
        rig.fault(Fault::body(body.clone()).times(1));
        let answer = rig.get("/api/list").await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{body:?}");
        assert!(answer.json::<Value>().await.is_err(), "{body:?}");
    }
    let whole = rig.get("/api/list").await.unwrap().bytes().await.unwrap().len();
    rig.fault(Fault::body(FaultBody::CutOff).times(1));
    let answer = rig.get("/api/list").await.unwrap();
    assert_eq!(answer.content_length(), Some(whole as u64));
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn a_huge_body_is_streamed_to_its_full_length() {
    let rig = Rig::start().await;
    rig.fault(Fault::body(FaultBody::Huge(5_000_001)).times(1));
    assert_eq!(
        rig.get("/api/list").await.unwrap().bytes().await.unwrap().len(),
        5_000_001
    );
}

#[tokio::test]
async fn an_answer_can_be_late_but_true() {
    let rig = Rig::start().await;
    rig.fault(Fault::delay(80).header("Ratelimit-Remaining", "5"));
    let asked = Instant::now();
    let answer = rig.get("/api/list").await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(80));
    assert_eq!(answer.headers()["ratelimit-remaining"], "5");
    assert_eq!(answer.json::<Value>().await.unwrap()["data"][0], "some");
}

#[tokio::test]
async fn connections_fail_in_each_way() {
    let rig = Rig::start().await;
    // A short timeout is safe only where it is the only possible result: a loaded machine may respond slowly.
    let commit_within = |patience| rig.http.post(rig.url("/api/commit")).timeout(patience).send();
    let commit = || commit_within(Duration::from_secs(60));

    rig.fault(Fault::wire(WireFault::Reset).times(1));
    let reset = commit().await.unwrap_err();
    assert!(
        !reset.is_timeout() && format!("{reset:?}").contains("ConnectionReset"),
        "{reset:?}"
    );
    assert_eq!(rig.commits.load(Ordering::SeqCst), 0);

    for silence in [WireFault::Hang, WireFault::HalfOpen] {
        rig.fault(Fault::wire(silence).times(1));
        let silent = commit_within(Duration::from_millis(300)).await;
        assert!(silent.unwrap_err().is_timeout(), "{silence:?}");
    }
    assert_eq!(rig.commits.load(Ordering::SeqCst), 0);

    rig.fault(Fault::wire(WireFault::LostAfterCommit).times(1));
    assert!(!commit().await.unwrap_err().is_timeout());
    assert_eq!(rig.commits.load(Ordering::SeqCst), 1);
    assert_eq!(commit().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn journal_counts_requests_and_can_be_cleared() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        rig.get("/api/list?user_id=1&user_id=2&token=secret")
            .await
            .unwrap();
    }
    let shown: Value = rig.get("/__sim/requests").await.unwrap().json().await.unwrap();
    assert_eq!(
        shown["counts"],
        json!([{"method": "GET", "path": "/api/list", "total": 3, "statuses": {"200": 3}}])
    );
    assert_eq!(
        shown["recent"][0]["query"],
        json!([["user_id", "1"], ["user_id", "2"], ["token", "***"]])
    );
    assert_eq!(rig.server.host().journal().count("GET", "/api/list"), 3);
    rig.http.delete(rig.url("/__sim/requests")).send().await.unwrap();
    assert_eq!(rig.server.host().journal().total(), 0);
}

#[tokio::test]
async fn the_date_header_follows_the_simulated_clock_and_its_skew() {
    let rig = Rig::start().await;
    let order = json!({"advance_ms": 86_400_000, "skew_ms": 900_000});
    assert_eq!(rig.control("/__sim/clock", &order).await.status().as_u16(), 200);
    let date = rig.get("/api/list").await.unwrap().headers()["date"]
        .to_str()
        .unwrap()
        .to_owned();
    let received = jiff::fmt::rfc2822::parse(&date)
        .unwrap()
        .timestamp()
        .as_millisecond();
    let ahead = received - SystemClock.now().as_millis();
    assert!((87_290_000..=87_301_000).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn outage_refuses_connections_until_simulated_time_passes() {
    let rig = Rig::start().await;
    rig.get("/api/list").await.unwrap();
    assert_eq!(
        rig.control("/__sim/server", &json!({"down_for_ms": 90_000}))
            .await
            .status()
            .as_u16(),
        204
    );
    let others = client();
    eventually("connections are refused", async || {
        others
            .get(rig.url("/api/list"))
            .send()
            .await
            .is_err_and(|error| error.is_connect())
    })
    .await;
    rig.server.host().clock().advance(90_001);
    eventually("the platform is back on its port", async || {
        others.get(rig.url("/api/list")).send().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn stopping_frees_the_port_even_while_an_answer_hangs() {
    /// How long to wait for the effects of the stop.
    const TIMEOUT: Duration = Duration::from_secs(60);
    let rig = Rig::start().await;
    rig.fault(Fault::wire(WireFault::Hang).on("/api/list"));
    // By this response the server is distinguished from another one that is given its port afterwards.
    rig.fault(Fault::status(418).on("/api/ours"));
    let (address, url, ours) = (rig.server.address(), rig.url("/api/list"), rig.url("/api/ours"));
    let http = client();
    let hanging = super::super::host::own(async move {
        // Longer than this test waits, so that only the stop can end the request.
        let request = http.get(url).timeout(TIMEOUT * 10);
        request.send().await.unwrap_err();
    });
    eventually("the request is being answered", async || {
        rig.server.host().journal().total() == 1
    })
    .await;
    drop(rig);
    tokio::time::timeout(TIMEOUT, hanging).await.unwrap().unwrap();
    let others = client();
    let freed = async {
        // The port may be in use again at once, by another test.
        while std::net::TcpListener::bind(address).is_err() {
            match others.get(&ours).send().await {
                Ok(response) if response.status().as_u16() != 418 => break,
                Err(error) if error.is_connect() => break,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(TIMEOUT, freed)
        .await
        .expect("the port is free");
}
