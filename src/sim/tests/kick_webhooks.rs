//! Subscriptions and webhooks of the simulated Kick as seen by their receiver.

use std::sync::Arc;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::kick::{ADA, Rig};
use super::{answer, eventually};
use crate::sim::kick::KickChatSpec;

type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Starts a receiver of webhooks that answers `status`.
async fn receiver(rig: &Rig, status: StatusCode) -> (Received, tokio_util::task::AbortOnDropHandle<()>) {
    let received = Received::default();
    let take = async move |State(received): State<Received>, headers: HeaderMap, body: String| {
        received.lock().push((headers, body));
        status
    };
    let app = axum::Router::new()
        .route("/hook", post(take))
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let task = crate::sim::host::own(async move { axum::serve(listener, app).await.unwrap() });
    rig.kick().set_webhook_url(Some(&url));
    (received, task)
}

async fn subscribe(rig: &Rig, token: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/public/v1/events/subscriptions", rig.kick().http());
    answer(rig.http.post(url).bearer_auth(token).json(&body)).await
}

fn wish(broadcaster: Option<u64>, events: &[&str]) -> Value {
    let events: Vec<_> = events
        .iter()
        .map(|name| json!({"name": name, "version": 1}))
        .collect();
    json!({"broadcaster_user_id": broadcaster, "method": "webhook", "events": events})
}

#[tokio::test]
async fn deliveries_are_signed_over_id_time_and_body() {
    let rig = Rig::start().await;
    let (received, _task) = receiver(&rig, StatusCode::OK).await;
    let wanted = wish(Some(ADA), &["livestream.status.updated", "chat.message.sent"]);
    assert_eq!(subscribe(&rig, &rig.app, wanted).await.0, 200);
    let started_at = rig.kick().go_live(ADA).unwrap();
    rig.kick().chat(ADA, &KickChatSpec::default());
    eventually("two deliveries", async || received.lock().len() == 2).await;
    let pem = rig.get("", "/public/v1/public-key").await.1["data"]["public_key"].clone();
    let text: String = pem
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let key = STANDARD.decode(text).unwrap();
    for (headers, body) in received.lock().iter() {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let message = format!(
            "{}.{}.{body}",
            header("Kick-Event-Message-Id"),
            header("Kick-Event-Message-Timestamp")
        );
        let signature = STANDARD.decode(header("Kick-Event-Signature")).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key)
            .verify(message.as_bytes(), &signature)
            .unwrap();
        assert_eq!(header("Kick-Event-Version"), "1");
    }
    let body: Value = serde_json::from_str(&received.lock()[0].1).unwrap();
    assert_eq!(
        (&body["is_live"], &body["started_at"]),
        (&json!(true), &json!(started_at))
    );
}

#[tokio::test]
async fn subscriptions_have_their_limits_and_errors() {
    let rig = Rig::start().await;
    rig.kick().add_channel(7, "seven");
    rig.kick().knobs(|knobs| {
        knobs.chat_subscription_limit = 1;
        knobs
            .subscription_errors
            .insert("kicks.gifted".to_owned(), "not for you".to_owned());
    });
    let (status, body) = subscribe(&rig, &rig.app, wish(None, &["channel.followed"])).await;
    let words = "broadcaster_user_id is required for app tokens";
    assert_eq!((status, &body["data"]), (400, &json!(words)));
    let both = wish(Some(ADA), &["chat.message.sent", "kicks.gifted"]);
    let (status, body) = subscribe(&rig, &rig.app, both).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&body["data"][0]["error"], &body["data"][1]["error"]),
        (&Value::Null, &json!("not for you"))
    );
    let (status, body) = subscribe(&rig, &rig.app, wish(Some(7), &["chat.message.sent"])).await;
    assert_eq!(
        (status, &body["data"]),
        (400, &json!("event subscription limit reached"))
    );
    let (narrow, _) = rig.user(&["user:read"]);
    assert_eq!(
        subscribe(&rig, &narrow, wish(None, &["channel.followed"]))
            .await
            .0,
        403
    );

    let (_, list) = rig.get(&rig.app, "/public/v1/events/subscriptions").await;
    let id = list["data"][0]["id"].as_str().unwrap();
    let url = format!("{}/public/v1/events/subscriptions", rig.kick().http());
    let many = vec![("id", id); 51];
    let delete = |ids: &[(&str, &str)]| answer(rig.http.delete(&url).query(ids).bearer_auth(&rig.app));
    assert_eq!(delete(&many).await.0, 400);
    assert_eq!(delete(&[("id", id)]).await.0, 204);
    assert_eq!(rig.kick().subscriptions(), json!([]));
}

#[tokio::test]
async fn a_day_of_failures_and_the_switch_both_end_subscriptions() {
    let rig = Rig::start().await;
    let (_received, _task) = receiver(&rig, StatusCode::INTERNAL_SERVER_ERROR).await;
    rig.kick()
        .add_subscription("app", ADA, "livestream.metadata.updated");
    rig.kick().add_subscription("app", ADA, "chat.message.sent");
    let body = json!({});
    rig.kick().emit("livestream.metadata.updated", ADA, &body);
    eventually("a failure", async || rig.kick().deliveries().len() == 1).await;
    rig.sim.clock.advance(86_400_001);
    rig.kick().emit("livestream.metadata.updated", ADA, &body);
    eventually("the end of one", async || {
        rig.kick().subscriptions().as_array().unwrap().len() == 1
    })
    .await;
    rig.kick().set_webhook_url(None);
    assert_eq!(rig.kick().subscriptions(), json!([]));
}
