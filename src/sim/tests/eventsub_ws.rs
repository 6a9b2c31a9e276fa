//! EventSub's simulated websocket: its life cycle, its rules, and every fault.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::eventually;
use super::listener::{Listener, Received};
use super::twitch::{BOT, RAT, Rig};

/// Returns a rig, the bot's token and a socket subscribed to the start and end of [`RAT`]'s streams.
async fn subscribed() -> (Rig, String, Listener) {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:bot", "user:read:chat"]);
    let listener = Listener::connect(&rig).await;
    for kind in ["stream.online", "stream.offline"] {
        assert_eq!(listener.subscribe(&rig, &token, kind).await.0, 202);
    }
    (rig, token, listener)
}

fn kind(message: &Value) -> &str {
    message["metadata"]["message_type"].as_str().unwrap()
}

#[tokio::test]
async fn welcome_contains_session_and_keepalive_timeout() {
    let rig = Rig::start().await;
    let url = rig.twitch().urls().eventsub_ws;
    for (query, seconds) in [
        ("", 10),
        ("?keepalive_timeout_seconds=30", 30),
        ("?keepalive_timeout_seconds=9999", 600),
    ] {
        let listener = Listener::connect_to(&format!("{url}{query}")).await;
        let session = &listener.welcome["payload"]["session"];
        assert_eq!(kind(&listener.welcome), "session_welcome");
        assert_eq!(
            (&session["status"], &session["keepalive_timeout_seconds"]),
            (&json!("connected"), &json!(seconds))
        );
        assert!(session["reconnect_url"].is_null() && listener.session.len() > 20);
        let at = listener.welcome["metadata"]["message_timestamp"]
            .as_str()
            .unwrap();
        assert_eq!(at.len(), "2026-05-01T18:00:00.123456789Z".len());
    }
}

#[tokio::test]
async fn a_socket_without_a_subscription_is_closed_after_ten_seconds() {
    let rig = Rig::start().await;
    let mut listener = Listener::connect(&rig).await;
    rig.sim.clock.advance(9_000);
    assert!(listener.silent_for(Duration::from_millis(150)).await);
    rig.sim.clock.advance(1_000);
    assert_eq!(listener.end().await, Received::Closed(4003));
}

#[tokio::test]
async fn keepalives_come_only_when_nothing_else_does() {
    let (rig, _, mut listener) = subscribed().await;
    rig.sim.clock.advance(9_000);
    rig.twitch().go_live(RAT);
    assert_eq!(kind(&listener.message().await), "notification");
    rig.sim.clock.advance(9_000);
    assert!(listener.silent_for(Duration::from_millis(150)).await);
    rig.sim.clock.advance(1_500);
    let keepalive = listener.message().await;
    assert_eq!(
        (kind(&keepalive), &keepalive["payload"]),
        ("session_keepalive", &json!({}))
    );
}

#[tokio::test]
async fn keepalives_can_be_late_or_missing() {
    let (rig, _, mut listener) = subscribed().await;
    rig.twitch()
        .eventsub_knobs(|knobs| knobs.keepalive_late_ms = 20_000);
    rig.sim.clock.advance(29_000);
    assert!(listener.silent_for(Duration::from_millis(150)).await);
    rig.sim.clock.advance(1_500);
    assert_eq!(kind(&listener.message().await), "session_keepalive");
    assert_eq!(
        rig.command("socket", &json!({"act": "mute"})).await,
        (200, json!({"count": 1}))
    );
    rig.sim.clock.advance(600_000);
    assert!(listener.silent_for(Duration::from_millis(150)).await);
}

#[tokio::test]
async fn a_client_that_speaks_is_closed() {
    for frame in [
        Message::Text("hello".into()),
        Message::Binary(vec![1].into()),
        Message::Ping(vec![1].into()),
    ] {
        let (_rig, _, mut listener) = subscribed().await;
        listener.send(frame.clone()).await;
        assert_eq!(listener.end().await, Received::Closed(4001), "{frame:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed() {
    let (rig, token, mut listener) = subscribed().await;
    rig.twitch()
        .eventsub_knobs(|knobs| knobs.pong_timeout_ms = Some(30));
    rig.sim.clock.advance(10_000);
    // A client that does not read does not receive the ping.
    let status = async || {
        let (_, body) = rig.get(&token, "/eventsub/subscriptions").await;
        body["data"][0]["status"].as_str().unwrap().to_owned()
    };
    eventually("the silence is noticed", async || {
        status().await == "websocket_failed_ping_pong"
    })
    .await;
    assert_eq!(listener.end().await, Received::Closed(4002));
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let (rig, _, mut listener) = subscribed().await;
    for _ in 0..5 {
        rig.sim.clock.advance(10_000);
        assert_eq!(kind(&listener.message().await), "session_keepalive");
    }
    rig.twitch().go_live(RAT);
    listener.message_of("notification").await;
}

#[tokio::test]
async fn stream_start_and_end_are_sent_as_events() {
    let (rig, _, mut listener) = subscribed().await;
    let stream = rig.twitch().go_live(RAT).unwrap();
    let online = listener.message().await;
    assert_eq!(
        online["payload"]["event"],
        json!({
            "id": stream.id, "broadcaster_user_id": RAT, "broadcaster_user_login": "ratcaster",
            "broadcaster_user_name": "ratcaster", "type": "live", "started_at": stream.started_at,
        })
    );
    let metadata = &online["metadata"];
    assert_eq!(
        (&metadata["subscription_type"], &metadata["subscription_version"]),
        (&json!("stream.online"), &json!("1"))
    );
    assert_eq!(
        online["payload"]["subscription"]["condition"],
        json!({"broadcaster_user_id": RAT})
    );
    rig.twitch().end_stream(RAT);
    assert_eq!(
        listener.message().await["payload"]["event"]["id"],
        json!(stream.id)
    );
    rig.twitch()
        .eventsub_knobs(|knobs| knobs.offline_without_id = true);
    rig.command("stream_up", &json!({"id": RAT, "silent": true}))
        .await;
    rig.twitch().end_stream(RAT);
    let offline = listener.message().await;
    assert_eq!(offline["metadata"]["subscription_type"], json!("stream.offline"));
    assert_eq!(offline["payload"]["event"].get("id"), None);
}

#[tokio::test]
async fn every_close_code_can_be_had() {
    for code in 4000..=4007 {
        let (rig, token, mut listener) = subscribed().await;
        rig.command(
            "socket",
            &json!({"session_id": listener.session, "act": {"close": code}}),
        )
        .await;
        assert_eq!(listener.end().await, Received::Closed(code));
        let (_, body) = rig.get(&token, "/eventsub/subscriptions").await;
        assert!(
            body["data"][0]["status"]
                .as_str()
                .unwrap()
                .starts_with("websocket_")
        );
        assert_eq!(body["total_cost"], json!(0));
    }
}

#[tokio::test]
async fn socket_can_be_reset_or_frozen() {
    let (rig, _, mut listener) = subscribed().await;
    rig.command("socket", &json!({"act": "reset"})).await;
    assert_eq!(listener.end().await, Received::Lost);

    let (rig, token, mut listener) = subscribed().await;
    rig.command("socket", &json!({"act": "freeze"})).await;
    rig.twitch().go_live(RAT);
    rig.sim.clock.advance(3_000);
    assert!(listener.silent_for(Duration::from_millis(150)).await);
    let (_, body) = rig.get(&token, "/eventsub/subscriptions").await;
    assert_eq!(
        body["data"][0]["status"],
        json!("enabled"),
        "the platform does not know yet"
    );
}

#[tokio::test]
async fn odd_frames_can_be_sent() {
    let (rig, _, mut listener) = subscribed().await;
    rig.command("socket", &json!({"act": "unknown_message"})).await;
    assert_eq!(kind(&listener.message().await), "session_novelty");
    rig.command("socket", &json!({"act": {"frame": "{not json"}}))
        .await;
    assert_eq!(listener.message().await, Value::Null);
}

#[tokio::test]
async fn reconnect_moves_subscriptions_only_after_the_new_welcome() {
    for same_id in [false, true] {
        let (rig, token, mut old) = subscribed().await;
        rig.command("reconnect", &json!({"how": {"same_id": same_id}}))
            .await;
        let order = old.message().await;
        let session = &order["payload"]["session"];
        assert_eq!(
            (kind(&order), &session["status"]),
            ("session_reconnect", &json!("reconnecting"))
        );
        let url = session["reconnect_url"].as_str().unwrap();
        rig.twitch().go_live(RAT);
        assert_eq!(kind(&old.message().await), "notification");
        let mut new = Listener::connect_to(url).await;
        assert_eq!(new.session == old.session, same_id);
        rig.twitch().end_stream(RAT);
        assert_eq!(kind(&new.message().await), "notification");
        assert!(old.silent_for(Duration::from_millis(100)).await);
        old.close().await;
        let (_, body) = rig.get(&token, "/eventsub/subscriptions?status=enabled").await;
        assert_eq!(body["data"].as_array().unwrap().len(), 2);
        assert_eq!(body["data"][0]["transport"]["session_id"], json!(new.session));
        let mut reuse = Listener::dial(url).await;
        assert_eq!(reuse.end().await, Received::Closed(4007));
        rig.command("reconnect", &json!({})).await;
        let chained = new.message_of("session_reconnect").await;
        let url = chained["payload"]["session"]["reconnect_url"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut newest = Listener::connect_to(&url).await;
        rig.twitch().go_live(RAT);
        assert_eq!(kind(&newest.message().await), "notification");
    }
}

#[tokio::test]
async fn events_can_come_on_both_sockets_of_a_handover() {
    let (rig, _, mut old) = subscribed().await;
    rig.command("reconnect", &json!({"how": {"both": true}})).await;
    let order = old.message().await;
    let mut new = Listener::connect_to(order["payload"]["session"]["reconnect_url"].as_str().unwrap()).await;
    rig.twitch().go_live(RAT);
    let (there, here) = (new.message().await, old.message().await);
    assert_eq!(there["metadata"]["message_id"], here["metadata"]["message_id"]);
}

#[tokio::test]
async fn who_does_not_move_in_time_is_closed() {
    let (rig, token, mut listener) = subscribed().await;
    rig.command("reconnect", &json!({})).await;
    let order = listener.message_of("session_reconnect").await;
    let url = order["payload"]["session"]["reconnect_url"]
        .as_str()
        .unwrap()
        .to_owned();
    rig.sim.clock.advance(30_000);
    assert_eq!(listener.end().await, Received::Closed(4004));
    let (_, body) = rig.get(&token, "/eventsub/subscriptions").await;
    assert_eq!(body["data"][0]["status"], json!("websocket_failed_to_reconnect"));
    assert_eq!(Listener::dial(&url).await.end().await, Received::Closed(4007));
}

#[tokio::test]
async fn closing_old_socket_before_welcome_invalidates_reconnect() {
    let (rig, _, mut old) = subscribed().await;
    rig.command("reconnect", &json!({})).await;
    let order = old.message().await;
    let url = order["payload"]["session"]["reconnect_url"]
        .as_str()
        .unwrap()
        .to_owned();
    old.close().await;
    eventually("the old socket is gone", async || {
        rig.twitch().eventsub_state()["sockets"]
            .as_array()
            .unwrap()
            .is_empty()
    })
    .await;
    assert_eq!(Listener::dial(&url).await.end().await, Received::Closed(4007));
}

#[tokio::test]
async fn an_old_socket_left_open_is_closed_after_the_handover() {
    let (rig, _, mut old) = subscribed().await;
    rig.command("reconnect", &json!({})).await;
    let order = old.message().await;
    let mut new = Listener::connect_to(order["payload"]["session"]["reconnect_url"].as_str().unwrap()).await;
    rig.sim.clock.advance(30_000);
    assert_eq!(old.end().await, Received::Closed(4004));
    rig.twitch().go_live(RAT);
    new.message_of("notification").await;
}

#[tokio::test]
async fn unreachable_reconnect_url_refuses_connections() {
    let (rig, _, mut old) = subscribed().await;
    rig.command("reconnect", &json!({"how": {"dead_url": true}}))
        .await;
    let order = old.message().await;
    let url = order["payload"]["session"]["reconnect_url"].as_str().unwrap();
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
}

#[tokio::test]
async fn the_platform_can_go_down_with_its_sockets() {
    let (rig, _, mut listener) = subscribed().await;
    rig.twitch().host().go_down();
    assert_eq!(listener.end().await, Received::Lost);
    eventually("connecting fails", async || {
        tokio_tungstenite::connect_async(rig.twitch().urls().eventsub_ws)
            .await
            .is_err()
    })
    .await;
    // Linux reserves the port, so that no other process answers in place of the platform.
    if cfg!(target_os = "linux") {
        let address = rig.twitch().http().trim_start_matches("http://").parse().unwrap();
        let other = tokio::net::TcpSocket::new_v4().unwrap().bind(address);
        assert_eq!(other.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }
    rig.twitch().host().come_up();
    eventually("connecting works again", async || {
        tokio_tungstenite::connect_async(rig.twitch().urls().eventsub_ws)
            .await
            .is_ok()
    })
    .await;
}
