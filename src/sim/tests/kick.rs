//! The simulated Kick as seen by its clients.

use serde_json::{Value, json};

use super::{answer, client, command};
use crate::sim::kick::{KickSim, KickStreamSpec, KickTokenSpec, demo};
use crate::sim::{Sim, SimOptions};

pub(super) const ADA: u64 = 721_956;

pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) http: reqwest::Client,
    pub(super) app: String,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        sim.kick.add_app("app", "hush");
        sim.kick.add_channel(ADA, "ada");
        let app = sim.kick.issue_token(KickTokenSpec {
            client_id: "app".to_owned(),
            ..KickTokenSpec::default()
        });
        Self {
            sim,
            http: client(),
            app: app.access,
        }
    }

    pub(super) fn kick(&self) -> &KickSim {
        &self.sim.kick
    }

    pub(super) fn user(&self, scopes: &[&str]) -> (String, String) {
        let tokens = self.kick().issue_token(KickTokenSpec {
            client_id: "app".to_owned(),
            user_id: Some(ADA),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..KickTokenSpec::default()
        });
        (tokens.access, tokens.refresh.unwrap())
    }

    pub(super) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.kick().http());
        answer(self.http.get(url).bearer_auth(token)).await
    }

    async fn form(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/oauth/token", self.kick().http());
        answer(self.http.post(url).form(fields)).await
    }

    async fn command(&self, name: &str, fields: Value) -> (u16, Value) {
        command(self.kick(), name, &fields).await
    }
}

#[tokio::test]
async fn requests_are_refused_in_the_documented_shapes() {
    let rig = Rig::start().await;
    let unauthorized = json!({"data": {}, "message": "Unauthorized"});
    assert_eq!(rig.get("nonsense", "/public/v1/users").await, (401, unauthorized));
    let invalid = json!({"data": {}, "message": "Invalid request"});
    let many = |name: &str, count: u32| {
        let pairs: Vec<_> = (1..=count).map(|id| format!("{name}={id}")).collect();
        pairs.join("&")
    };
    for path in [
        "channels?slug=ada&broadcaster_user_id=1".to_owned(),
        format!("channels?{}", many("broadcaster_user_id", 51)),
        format!("users/livestreams?{}", many("user_id", 101)),
        "users/livestreams".to_owned(),
        "users/livestreams?user_id=1,2".to_owned(),
        format!("livestreams?{}", many("broadcaster_user_id", 51)),
        "channels?slug=a-slug-of-more-than-25-letters".to_owned(),
    ] {
        let answer = rig.get(&rig.app, &format!("/public/v1/{path}")).await;
        assert_eq!(answer, (400, invalid.clone()), "{path}");
    }
    let (narrow, _) = rig.user(&["chat:write"]);
    assert_eq!(rig.get(&narrow, "/public/v1/users").await.0, 403);
}

#[tokio::test]
async fn lists_lag_and_counts_stand_still_for_a_minute() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.list_lag_down_ms = 19_000);
    let started_at = rig.kick().go_live(ADA).unwrap();
    let list = async || {
        rig.get(&rig.app, &format!("/public/v1/users/livestreams?user_id={ADA}"))
            .await
            .1
    };
    let first = list().await;
    assert_eq!(first["data"][0]["started_at"], started_at.as_str());
    assert_eq!(first["data"][0]["viewer_count"], 12);
    rig.kick().set_viewers(ADA, 500);
    assert_eq!(list().await["data"][0]["viewer_count"], 12);
    rig.sim.clock.advance(60_000);
    assert_eq!(list().await["data"][0]["viewer_count"], 500);
    rig.kick().end_stream(ADA);
    let channel = rig.get(&rig.app, "/public/v1/channels?slug=ada").await.1;
    assert_eq!(channel["data"][0]["stream"]["is_live"], false);
    assert_eq!(list().await["data"].as_array().unwrap().len(), 1, "the list lags");
    rig.sim.clock.advance(19_000);
    assert_eq!(list().await, json!({"data": [], "message": "OK"}));
}

#[tokio::test]
async fn the_newer_list_pages_by_cursor() {
    let rig = Rig::start().await;
    for id in 1..=5 {
        rig.kick().add_channel(id, &format!("c{id}"));
        rig.kick().go_live(id);
    }
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let path = format!("/public/v2/livestreams?limit=2&cursor={cursor}");
        let (_, page) = rig.get(&rig.app, &path).await;
        seen += page["data"].as_array().unwrap().len();
        cursor = page["pagination"]["next_cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 5);
    let (_, stats) = rig.get(&rig.app, "/public/v1/livestreams/stats").await;
    assert_eq!(stats["data"]["total_count"], 5);
    let (_, old) = rig
        .get(&rig.app, "/public/v1/livestreams?broadcaster_user_id=3")
        .await;
    assert_eq!(old["data"][0]["stream_title"], "");
}

#[tokio::test]
async fn large_batches_of_channels_are_half_wrong() {
    let rig = Rig::start().await;
    for id in 1..=50 {
        rig.kick().add_channel(id, &format!("c{id}"));
        rig.kick().go_live(id);
    }
    for (count, live) in [(25, 25), (50, 25)] {
        let ids: Vec<_> = (1..=count)
            .map(|id| format!("broadcaster_user_id={id}"))
            .collect();
        let (_, body) = rig
            .get(&rig.app, &format!("/public/v1/channels?{}", ids.join("&")))
            .await;
        let items = body["data"].as_array().unwrap();
        assert_eq!(items.len(), count);
        let shown = items
            .iter()
            .filter(|item| item["stream"]["is_live"] == true)
            .count();
        assert_eq!(shown, live, "{count}");
    }
}

#[tokio::test]
async fn tokens_live_and_die_by_the_rules() {
    let rig = Rig::start().await;
    let (status, app) = rig
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", "app"),
            ("client_secret", "hush"),
        ])
        .await;
    assert_eq!((status, &app["expires_in"]), (200, &json!(5_184_000)));
    let wrong = [
        ("grant_type", "client_credentials"),
        ("client_id", "app"),
        ("client_secret", "no"),
    ];
    let (status, body) = rig.form(&wrong).await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));

    let (access, refresh) = rig.user(&["user:read", "channel:read"]);
    let introspect = async |token: &str| {
        let url = format!("{}/oauth/token/introspect", rig.kick().http());
        answer(rig.http.post(url).bearer_auth(token)).await
    };
    let (_, active) = introspect(&access).await;
    assert_eq!(active["data"]["token_type"], "user");
    assert_eq!(active["data"]["scope"], "channel:read user:read");
    let again = [
        ("grant_type", "refresh_token"),
        ("client_id", "app"),
        ("client_secret", "hush"),
        ("refresh_token", refresh.as_str()),
    ];
    for _ in 0..2 {
        let (status, body) = rig.form(&again).await;
        assert_eq!(status, 200, "a refresh token is reusable");
        assert_ne!(body["refresh_token"], refresh.as_str());
    }
    rig.kick().expire_token(&access);
    assert_eq!(
        introspect(&access).await,
        (200, json!({"data": {"active": false}, "message": "OK"}))
    );
    rig.kick().knobs(|knobs| knobs.introspect_inactive_401 = true);
    assert_eq!(introspect(&access).await.0, 401);
    rig.kick().disconnect(Some(ADA));
    let (status, body) = rig.form(&again).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test]
async fn authorization_code_flow_verifies_pkce() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.consent = Some(ADA));
    // The verifier and challenge of RFC 7636, appendix B.
    let (verifier, challenge) = (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    );
    for (given, expected) in [(verifier, 200), ("something-else", 400)] {
        let url = format!(
            "{}/oauth/authorize?client_id=app&response_type=code&redirect_uri=http://localhost:1/cb&state=s\
             &scope=user:read%20channel:read&code_challenge={challenge}&code_challenge_method=S256",
            rig.kick().http()
        );
        let response = rig.http.get(url).send().await.unwrap();
        let place: url::Url = response.headers()["location"].to_str().unwrap().parse().unwrap();
        let code = place
            .query_pairs()
            .find(|(name, _)| name == "code")
            .unwrap()
            .1
            .into_owned();
        let (status, body) = rig
            .form(&[
                ("grant_type", "authorization_code"),
                ("client_id", "app"),
                ("client_secret", "hush"),
                ("code", &code),
                ("redirect_uri", "http://localhost:1/cb"),
                ("code_verifier", given),
            ])
            .await;
        assert_eq!(status, expected, "{body}");
    }
}

#[tokio::test]
async fn limits_come_with_and_without_a_wait() {
    let rig = Rig::start().await;
    rig.kick().knobs(|knobs| knobs.requests_per_minute = Some(2));
    let path = "/public/v1/livestreams/stats";
    let ask = async || {
        rig.http
            .get(format!("{}{path}", rig.kick().http()))
            .bearer_auth(&rig.app)
            .send()
            .await
            .unwrap()
    };
    let statuses = [ask().await.status(), ask().await.status(), ask().await.status()];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 200, 429]);
    assert!(!ask().await.headers().contains_key("retry-after"));
    rig.kick().knobs(|knobs| knobs.retry_after = Some(30));
    assert_eq!(ask().await.headers()["retry-after"], "30");
    rig.sim.clock.advance(60_000);
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test]
async fn controls_work_over_http_and_report_errors() {
    let rig = Rig::start().await;
    assert_eq!(
        rig.command("channel", json!({"id": 9, "slug": "nine"})).await.0,
        204
    );
    let (status, up) = rig.command("stream_up", json!({"id": 9, "viewers": 4})).await;
    assert_eq!(status, 200);
    assert!(up["started_at"].is_string());
    assert_eq!(
        rig.command("viewers", json!({"id": 9, "viewers": 5})).await.0,
        204
    );
    assert_eq!(rig.command("blip", json!({"id": 9, "answers": 1})).await.0, 204);
    assert_eq!(
        rig.command("knobs", json!({"unknown_slug_400": true})).await.0,
        200
    );
    assert_eq!(rig.command("stream_down", json!({"id": 9})).await.0, 200);
    assert_eq!(rig.command("stream_down", json!({"id": 9})).await.0, 404);
    assert_eq!(rig.command("knobs", json!({"no_such": true})).await.0, 400);
    assert_eq!(rig.command("nonsense", json!({})).await.0, 400);
    assert_eq!(
        rig.get(&rig.app, "/public/v1/channels?slug=unheard-of").await.0,
        400
    );
    let (_, token) = rig
        .command(
            "token",
            json!({"client_id": "app", "user_id": ADA, "scopes": ["user:read"]}),
        )
        .await;
    let access = token["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        rig.get(&access, "/public/v1/users").await.1["data"][0]["name"],
        "ada"
    );
    assert_eq!(rig.command("token_revoke", json!({"token": access})).await.0, 204);
    assert_eq!(rig.get(&access, "/public/v1/users").await.0, 401);
}

#[tokio::test]
async fn the_demo_sources_differ() {
    let rig = Rig::start().await;
    demo::populate(rig.kick());
    let (_, token) = rig
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", demo::CLIENT_ID),
            ("client_secret", demo::CLIENT_SECRET),
        ])
        .await;
    let token = token["access_token"].as_str().unwrap().to_owned();
    let ids = demo::SOURCES.map(|id| format!("user_id={id}"));
    let (_, live) = rig
        .get(&token, &format!("/public/v1/users/livestreams?{}", ids.join("&")))
        .await;
    let counts: Vec<_> = live["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["viewer_count"].clone())
        .collect();
    assert_eq!(counts, [json!(381), json!(0)]);
    let (_, listed) = rig.get(&token, "/public/v1/events/subscriptions").await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    rig.kick().set_webhook_url(Some("http://127.0.0.1:9/hook"));
    rig.kick().end_stream(demo::SILENT);
    let spec = KickStreamSpec::default();
    assert!(rig.kick().go_live_with(demo::SILENT, &spec).is_some());
    assert_eq!(
        rig.kick().emit("chat.message.sent", demo::SILENT, &json!({})),
        0,
        "its webhook is silent"
    );
}
