//! EventSub's simulated REST API: the cost of a subscription, and the reasons for refusing one.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::eventually;
use super::listener::{Listener, wish};
use super::twitch::{BOT, RAT, Rig, helix_error};
use crate::sim::twitch::Role;
use crate::sim::{Fault, FaultBody};

const PATH: &str = "/eventsub/subscriptions";

fn add_channels(rig: &Rig, ids: std::ops::RangeInclusive<u32>) {
    for id in ids {
        rig.twitch().add_channel(&id.to_string(), &format!("channel{id}"));
    }
}

fn about(id: u32) -> Value {
    json!({"broadcaster_user_id": id.to_string()})
}

fn chat(channel: &str) -> Value {
    json!({"broadcaster_user_id": channel, "user_id": BOT})
}

#[tokio::test]
async fn accepted_subscription_matches_the_documentation() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    let listener = Listener::connect(&rig).await;
    let (status, body) = listener.subscribe(&rig, &token, "stream.online").await;
    assert_eq!(
        (
            status,
            &body["total"],
            &body["total_cost"],
            &body["max_total_cost"]
        ),
        (202, &json!(1), &json!(1), &json!(10))
    );
    let shown = &body["data"][0];
    assert_eq!(
        (&shown["status"], &shown["cost"], &shown["version"]),
        (&json!("enabled"), &json!(1), &json!("1"))
    );
    assert_eq!(shown["transport"]["session_id"], json!(listener.session));
    let (status, listed) = rig.get(&token, PATH).await;
    assert_eq!(
        (status, &listed["data"][0], &listed["total"]),
        (200, shown, &json!(1))
    );
    let other = rig.token(RAT, &[]);
    assert_eq!(rig.get(&other, PATH).await.1["data"], json!([]));
}

#[tokio::test]
async fn cost_is_one_unless_the_channel_authorized() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    add_channels(&rig, 1..=11);
    let listener = Listener::connect(&rig).await;
    for id in 1..=10 {
        assert_eq!(
            listener
                .subscribe_to(&rig, &token, "stream.online", &about(id))
                .await
                .0,
            202
        );
    }
    assert_eq!(
        listener
            .subscribe_to(&rig, &token, "stream.online", &about(11))
            .await,
        helix_error(429, "Too Many Requests", "maximum total cost exceeded")
    );
    rig.token("11", &["channel:bot"]);
    let (status, body) = listener
        .subscribe_to(&rig, &token, "stream.online", &about(11))
        .await;
    assert_eq!(
        (status, &body["data"][0]["cost"], &body["total_cost"]),
        (202, &json!(0), &json!(10))
    );
    let own = listener
        .subscribe_to(
            &rig,
            &token,
            "stream.online",
            &json!({"broadcaster_user_id": BOT}),
        )
        .await;
    assert_eq!((own.0, &own.1["data"][0]["cost"]), (202, &json!(0)));
}

#[tokio::test]
async fn equal_subscriptions_conflict_on_one_socket_and_end_at_three() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    let first = Listener::connect(&rig).await;
    let (_, accepted) = first.subscribe(&rig, &token, "stream.online").await;
    let (status, conflict) = first.subscribe(&rig, &token, "stream.online").await;
    assert_eq!(
        (status, &conflict["message"]),
        (409, &json!("subscription already exists"))
    );
    assert_eq!(conflict["id"], accepted["data"][0]["id"]);
    let (second, third, fourth) = (
        Listener::connect(&rig).await,
        Listener::connect(&rig).await,
        Listener::connect(&rig).await,
    );
    for listener in [&second, &third] {
        assert_eq!(listener.subscribe(&rig, &token, "stream.online").await.0, 202);
    }
    assert_eq!(
        fourth.subscribe(&rig, &token, "stream.online").await,
        helix_error(
            429,
            "Too Many Requests",
            "maximum subscriptions with type and condition exceeded"
        )
    );
    assert_eq!(
        fourth.subscribe(&rig, &token, "stream.offline").await,
        helix_error(
            429,
            "Too Many Requests",
            "number of websocket transports limit exceeded"
        )
    );
    third.close().await;
    eventually("the place of the closed socket is free", async || {
        fourth.subscribe(&rig, &token, "stream.offline").await.0 == 202
    })
    .await;
}

#[tokio::test]
async fn a_socket_takes_three_hundred_subscriptions() {
    let rig = Rig::start().await;
    rig.twitch().knobs(|knobs| knobs.bucket = Some(10_000));
    let token = rig.token(BOT, &["user:read:chat"]);
    add_channels(&rig, 1..=301);
    let listener = Listener::connect(&rig).await;
    for id in 1..=301 {
        rig.twitch().set_role(&id.to_string(), BOT, Role::Moderator, true);
        let expected = if id <= 300 { 202 } else { 429 };
        let answer = listener
            .subscribe_to(&rig, &token, "channel.chat.message", &chat(&id.to_string()))
            .await;
        assert_eq!(answer.0, expected, "{id}");
    }
}

#[tokio::test]
async fn a_socket_belongs_to_one_user() {
    let rig = Rig::start().await;
    let listener = Listener::connect(&rig).await;
    let (bot, rat) = (rig.token(BOT, &[]), rig.token(RAT, &[]));
    assert_eq!(listener.subscribe(&rig, &bot, "stream.online").await.0, 202);
    assert_eq!(
        listener.subscribe(&rig, &rat, "stream.online").await,
        helix_error(
            400,
            "Bad Request",
            "websocket transport cannot have subscriptions created by different users"
        )
    );
}

#[tokio::test]
async fn requests_that_cannot_be_right_are_refused() {
    let rig = Rig::start().await;
    let listener = Listener::connect(&rig).await;
    let (bot, app) = (rig.token(BOT, &[]), rig.app_token());
    let refused = async |token: &str, body: Value| rig.post(token, PATH, &body).await.0;
    let good = wish(
        "stream.online",
        &json!({"broadcaster_user_id": RAT}),
        &listener.session,
    );
    assert_eq!(refused(&app, good.clone()).await, 400);
    for (pointer, value) in [
        ("/type", json!("stream.started")),
        ("/type", json!("user.authorization.revoke")),
        ("/version", json!("9")),
        ("/condition", json!({})),
        ("/condition", json!({"broadcaster_user_id": "404"})),
        ("/condition", json!({"broadcaster_user_id": RAT, "extra": "1"})),
        ("/transport/method", json!("webhook")),
        ("/transport/session_id", json!("AgoQnobody")),
    ] {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(refused(&bot, body).await, 400, "{pointer} = {value}");
    }
    assert_eq!(refused("nonsense", good).await, 401);
}

#[tokio::test]
async fn scopes_bans_and_crowds_forbid_chat() {
    let rig = Rig::start().await;
    rig.twitch().knobs(|knobs| knobs.bucket = Some(10_000));
    let token = rig.token(BOT, &["user:read:chat"]);
    let listener = Listener::connect(&rig).await;
    let forbidden = helix_error(403, "Forbidden", "subscription missing proper authorization");
    let ask = async |token: &str, kind: &str, condition: &Value| {
        listener.subscribe_to(&rig, token, kind, condition).await
    };
    assert_eq!(
        ask(&rig.token(BOT, &[]), "channel.chat.message", &chat(RAT)).await,
        forbidden
    );
    let foreign = json!({"broadcaster_user_id": RAT, "user_id": RAT});
    assert_eq!(ask(&token, "channel.chat.message", &foreign).await, forbidden);
    assert_eq!(
        ask(
            &token,
            "channel.moderator.add",
            &json!({"broadcaster_user_id": RAT})
        )
        .await,
        forbidden
    );
    rig.twitch().set_role(RAT, BOT, Role::Banned, true);
    assert_eq!(ask(&token, "channel.chat.message", &chat(RAT)).await, forbidden);
    add_channels(&rig, 1..=102);
    for id in 1..=100 {
        assert_eq!(
            ask(&token, "channel.chat.message", &chat(&id.to_string()))
                .await
                .0,
            202
        );
    }
    assert_eq!(ask(&token, "channel.chat.message", &chat("101")).await, forbidden);
    rig.token("101", &["channel:bot"]);
    assert_eq!(ask(&token, "channel.chat.message", &chat("101")).await.0, 202);
}

#[tokio::test]
async fn a_lost_socket_s_subscriptions_stay_listed_for_a_minute() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    let listener = Listener::connect(&rig).await;
    listener.subscribe(&rig, &token, "stream.online").await;
    let session = listener.session.clone();
    listener.close().await;
    let list = async || rig.get(&token, PATH).await.1;
    eventually("it is disabled", async || {
        list().await["data"][0]["status"] == "websocket_disconnected"
    })
    .await;
    let shown = list().await;
    assert_eq!(
        (&shown["total_cost"], &shown["data"][0]["cost"]),
        (&json!(0), &json!(0))
    );
    assert!(shown["data"][0]["transport"]["disconnected_at"].is_string());
    let again = wish("stream.online", &json!({"broadcaster_user_id": RAT}), &session);
    assert_eq!(
        rig.post(&token, PATH, &again).await,
        helix_error(
            400,
            "Bad Request",
            "websocket transport session does not exist or has already disconnected"
        )
    );
    rig.sim.clock.advance(60_000);
    assert_eq!(list().await["data"].as_array().unwrap().len(), 1);
    rig.sim.clock.advance(60_000);
    assert_eq!(list().await["data"], json!([]));
}

#[tokio::test]
async fn orphans_go_on_costing_for_a_while() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    rig.command(
        "eventsub",
        &json!({"orphan_cost_ms": 30_000, "orphans_hidden": true}),
    )
    .await;
    add_channels(&rig, 1..=10);
    let listener = Listener::connect(&rig).await;
    for id in 1..=10 {
        listener
            .subscribe_to(&rig, &token, "stream.online", &about(id))
            .await;
    }
    listener.close().await;
    eventually("the orphans are hidden", async || {
        rig.get(&token, PATH).await.1["data"] == json!([])
    })
    .await;
    let fresh = Listener::connect(&rig).await;
    assert_eq!(fresh.subscribe(&rig, &token, "stream.online").await.0, 429);
    rig.sim.clock.advance(30_001);
    let fresh = Listener::connect(&rig).await;
    assert_eq!(fresh.subscribe(&rig, &token, "stream.online").await.0, 202);
}

#[tokio::test]
async fn lists_are_filtered_by_one_thing_and_totals_may_be_late() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    let listener = Listener::connect(&rig).await;
    let (_, online) = listener.subscribe(&rig, &token, "stream.online").await;
    listener.subscribe(&rig, &token, "stream.offline").await;
    let count = async |query: &str| {
        let (status, body) = rig.get(&token, &format!("{PATH}{query}")).await;
        (status, body["data"].as_array().map_or(0, Vec::len))
    };
    let id = online["data"][0]["id"].as_str().unwrap();
    assert_eq!(count("?type=stream.online").await, (200, 1));
    assert_eq!(count("?status=enabled").await, (200, 2));
    assert_eq!(count("?status=authorization_revoked").await, (200, 0));
    assert_eq!(count(&format!("?user_id={RAT}")).await, (200, 2));
    assert_eq!(count(&format!("?subscription_id={id}")).await, (200, 1));
    assert_eq!(count("?type=stream.online&status=enabled").await.0, 400);
    rig.twitch().eventsub_knobs(|knobs| knobs.stale_total_ms = 5_000);
    assert_eq!(rig.get(&token, PATH).await.1["total"], json!(0));
    rig.sim.clock.advance(5_000);
    assert_eq!(rig.get(&token, PATH).await.1["total"], json!(2));
}

#[tokio::test]
async fn a_subscription_is_deleted_by_its_owner_only() {
    let rig = Rig::start().await;
    let (bot, rat) = (rig.token(BOT, &[]), rig.token(RAT, &[]));
    let listener = Listener::connect(&rig).await;
    let (_, body) = listener.subscribe(&rig, &bot, "stream.online").await;
    let mut path = PATH.to_owned();
    write!(path, "?id={}", body["data"][0]["id"].as_str().unwrap()).unwrap();
    assert_eq!(rig.delete(&rat, &path).await.0, 404);
    assert_eq!(rig.delete(&bot, &path).await, (204, Value::Null));
    assert_eq!(rig.delete(&bot, &path).await.0, 404);
    assert_eq!(rig.delete(&bot, PATH).await.0, 400);
    assert_eq!(rig.get(&bot, PATH).await.1["data"], json!([]));
}

#[tokio::test]
async fn subscribing_can_be_made_to_fail() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &[]);
    let listener = Listener::connect(&rig).await;
    for (status, message) in [
        (429, "too many"),
        (403, "subscription missing proper authorization"),
    ] {
        let body = json!({"error": "simulated", "status": status, "message": message});
        let fault = Fault::status(status)
            .on("/helix/eventsub")
            .method("POST")
            .times(1);
        rig.twitch()
            .host()
            .faults()
            .add(fault.with_body(FaultBody::Json(body.clone())));
        assert_eq!(
            listener.subscribe(&rig, &token, "stream.online").await,
            (status, body)
        );
    }
    assert_eq!(listener.subscribe(&rig, &token, "stream.online").await.0, 202);
}

#[tokio::test]
async fn documented_types_that_are_not_simulated_are_501() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot"]);
    let listener = Listener::connect(&rig).await;
    let (status, body) = listener.subscribe(&rig, &token, "channel.follow").await;
    assert_eq!(status, 501);
    assert!(
        body["message"].as_str().unwrap().contains("channel.follow"),
        "{body}"
    );
    assert_eq!(listener.subscribe(&rig, &token, "channel.dance").await.0, 400);
}
