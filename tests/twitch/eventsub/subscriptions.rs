//! Subscriptions: what Twitch rejects, ends and charges for, and changes while the listener runs.

use super::*;

#[tokio::test]
async fn a_welcome_alone_is_no_connection() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    let no = serde_json::json!({"error": "Forbidden", "status": 403, "message": "subscription missing proper authorization"});
    world.fail(
        Fault::status(403)
            .with_body(FaultBody::Json(no))
            .on("/helix/eventsub/subscriptions")
            .method("POST"),
    );
    let harness = ListenerHarness::listen_fast(&world, &[RAT]);
    eventually("the refusal is told", || harness.failure(RAT).is_some()).await;
    assert!(!harness.facts(RAT).iter().any(|fact| {
        matches!(
            fact,
            Fact::Connection {
                state: LinkState::Up,
                ..
            }
        )
    }));
    assert_eq!(harness.verdict(RAT).stream.value, StreamStatus::Unknown);
    // No loop: three subscriptions were requested, and then nothing for a minute.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(world.requests("POST", "/helix/eventsub/subscriptions") <= 6);
    world.twitch().host().faults().clear();
    eventually("it heals when allowed", || harness.is_up(RAT)).await;
}

#[tokio::test]
async fn failed_creations_are_an_outage_under_their_own_code() {
    let json = |body: serde_json::Value| FaultBody::Json(body);
    for (status, body, code) in [
        (502, FaultBody::Html, "http.502"),
        (401, json(serde_json::json!({"code": 401})), "twitch.unreadable"),
        (403, FaultBody::Html, "http.403"),
        (404, FaultBody::Empty, "twitch.unreadable"),
        (200, json(serde_json::json!({})), "twitch.unreadable"),
        (202, json(serde_json::json!({"data": []})), "twitch.unreadable"),
    ] {
        let (world, _time, harness) = listening_at(FAST).await;
        let asked = world.requests("POST", "/helix/eventsub/subscriptions");
        world.fail(
            Fault::status(status)
                .with_body(body)
                .on("/helix/eventsub/subscriptions")
                .method("POST"),
        );
        world.twitch().spoil_sockets("", &SocketAct::Close(4006));
        eventually("the cause is told", || {
            harness.failure(RAT) == Some((false, code.to_owned()))
        })
        .await;
        assert_eq!(harness.verdict(RAT).status.value.to_string(), "DISCONNECTED");
        eventually("the summary names the same cause", || {
            let status = harness.status();
            !status.is_healthy() && status.summary().contains(code)
        })
        .await;
        assert!(world.requests("POST", "/helix/eventsub/subscriptions") - asked < 20);
        world.twitch().host().faults().clear();
        eventually("it heals", || harness.is_up(RAT) && harness.status().is_healthy()).await;
    }
}

#[tokio::test]
async fn failed_creations_at_the_start_are_an_outage() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    world.fail(
        Fault::status(502)
            .with_body(FaultBody::Html)
            .on("/helix/eventsub/subscriptions")
            .method("POST"),
    );
    let harness = ListenerHarness::listen_fast(&world, &[RAT]);
    eventually("the cause is told", || {
        harness.failure(RAT) == Some((false, "http.502".to_owned()))
    })
    .await;
    assert!(harness.status().summary().contains("http.502"));
}

#[tokio::test]
async fn token_expiring_during_session_changes_nothing() {
    let (world, _time, harness) = listening().await;
    world.twitch().expire_tokens_of(BOT);
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
    // And a new session refreshes the token.
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || harness.reconnects(RAT) == 1).await;
    assert_eq!(world.requests("POST", "/oauth2/token"), 1);
}

#[tokio::test]
async fn removed_bot_authorization_is_reported_as_error() {
    let (world, _time, harness) = listening().await;
    world.twitch().disconnect(BOT);
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the refusal is told", || {
        harness.failure(RAT) == Some((true, "twitch.unauthorized".to_owned()))
    })
    .await;
    assert_eq!(harness.verdict(RAT).status.value.to_string(), "ERROR");
}

#[tokio::test]
async fn revocations_are_classified_and_request_a_probe() {
    for (status, code, refused, probe) in [
        (
            "authorization_revoked",
            "authorization_revoked",
            true,
            Probe::Auth,
        ),
        ("user_removed", "user_removed", true, Probe::Connection),
        ("version_removed", "version_removed", true, Probe::Stream),
        ("moderator_removed", "moderator_removed", true, Probe::Permissions),
        ("chat_user_banned", "chat_user_banned", true, Probe::Connection),
        (
            "notification_failures_exceeded",
            "subscription_revoked",
            false,
            Probe::Stream,
        ),
        ("novel_status", "subscription_revoked", false, Probe::Stream),
    ] {
        let (world, _time, harness) = listening().await;
        let looks = harness.looks(RAT, probe);
        assert_eq!(
            world.twitch().revoke_subscriptions("stream.online", "", status),
            1
        );
        eventually("the revocation is told", || harness.failure(RAT).is_some()).await;
        assert_eq!(harness.failure(RAT), Some((refused, format!("twitch.{code}"))));
        eventually("a look is asked for", || harness.looks(RAT, probe) > looks).await;
        assert_eq!(harness.status().tally.errors, 1, "{status}");
    }
}

#[tokio::test]
async fn transiently_revoked_subscription_is_created_again() {
    let (world, _time, harness) = listening_at(FAST).await;
    world
        .twitch()
        .revoke_subscriptions("stream.online", "", "websocket_internal_error");
    eventually("the end is told", || harness.failure(RAT).is_some()).await;
    eventually("it is heard again", || harness.is_up(RAT)).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
}

#[tokio::test]
async fn a_rate_limit_on_subscribing_is_waited_out_within_the_session() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let busy = serde_json::json!({"error": "Too Many Requests", "status": 429, "message": "slow down"});
    let fault = Fault::status(429)
        .with_body(FaultBody::Json(busy))
        .header("Retry-After", "1")
        .header("Ratelimit-Remaining", "5")
        .on("/helix/eventsub/subscriptions")
        .method("POST")
        .times(1);
    world.fail(fault);
    let harness = ListenerHarness::listen(&world, &[RAT]);
    eventually("the line is up", || harness.is_up(RAT)).await;
    assert_eq!(harness.reconnects(RAT), 0);
}

#[tokio::test]
async fn channels_above_cost_limit_are_polled_without_requests() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let ids: Vec<_> = (1..=8).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let harness = ListenerHarness::listen(&world, &ids);
    eventually("five are up", || {
        ids.iter().filter(|id| harness.is_up(id)).count() == 5
    })
    .await;
    let status = harness.status();
    assert_eq!((status.plan.polled.len(), status.plan.cost), (3, 10));
    assert_eq!(world.requests("POST", "/helix/eventsub/subscriptions"), 10);
    assert!(
        harness.facts("8").is_empty(),
        "nothing is claimed of a link that is not there"
    );
    let plan = world
        .platform()
        .plan(&wanted(&ids), &PlanOptions::default())
        .await;
    assert_eq!(
        plan.polled, status.plan.polled,
        "what is shown before is what is done"
    );
}

#[tokio::test]
async fn points_that_others_use_up_are_left_to_them() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    for id in 1..=8_u32 {
        world
            .twitch()
            .add_channel(&id.to_string(), &format!("channel{id}"));
    }
    // Another program of the same application and user has subscriptions to three channels already.
    let mut other = ListenerHarness::listen_fast(&world, &["1", "2", "3"]);
    eventually("the other is up", || {
        (1..=3_u32).all(|id| other.is_up(&id.to_string()))
    })
    .await;
    let harness = ListenerHarness::listen_fast(&world, &["4", "5", "6"]);
    eventually("the rest is polled", || harness.status().plan.cost_limit == 1).await;
    assert_eq!(harness.status().plan.polled.len(), 3);
    assert_eq!(harness.failure("4"), None, "being polled is no trouble");
    // None of the other's subscriptions were removed.
    eventually("the other is still up", || {
        (1..=3_u32).all(|id| other.is_up(&id.to_string()))
    })
    .await;
    other.stop().await;
}

#[tokio::test]
async fn cost_of_lost_session_is_waited_out() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    let ids: Vec<_> = (1..=5).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let harness = ListenerHarness::listen_fast(&world, &ids);
    eventually("all are up", || ids.iter().all(|id| harness.is_up(id))).await;
    world.twitch().eventsub_knobs(|knobs| {
        knobs.orphan_cost_ms = 30_000;
        knobs.orphans_hidden = true;
    });
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("all are up again", || {
        ids.iter()
            .all(|id| harness.is_up(id) && harness.reconnects(id) >= 1)
    })
    .await;
    let status = harness.status();
    assert_eq!(enabled(&status), 10, "{:?}", status.subscriptions);
}

#[tokio::test]
async fn authorized_channels_are_free_and_report_role_changes() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let ids: Vec<_> = (1..=7).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
        let scopes = ["moderation:read", "channel:read:vips"];
        world.give_token(&twitch::broadcaster(id), id, &scopes).await;
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let harness = ListenerHarness::listen(&world, &ids);
    eventually("all are up", || ids.iter().all(|id| harness.is_up(id))).await;
    // Three for each from the bot's own socket, four from each broadcaster's.
    eventually("roles are heard too", || {
        enabled(&harness.status()) == 7 * (3 + 4)
    })
    .await;
    assert_eq!(harness.status().plan.cost, 0);
    world.twitch().set_role("3", BOT, Role::Moderator, true);
    let holds = |role| holding(&harness.knowledge("3").evidence, role).0;
    eventually("the role is told", || holds("MODERATOR") == Holding::Yes).await;
    world.twitch().set_role("3", BOT, Role::Vip, true);
    eventually("the change is told", || {
        holds("MODERATOR") == Holding::No && holds("VIP") == Holding::Yes
    })
    .await;
}

#[tokio::test]
async fn channels_that_come_and_go_are_followed() {
    let (world, _time, harness) = listening().await;
    world.twitch().add_channel(CAT, "cat");
    harness.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the new one is up", || harness.is_up(CAT)).await;
    harness.channels.send(wanted(&[CAT])).unwrap();
    eventually("the old one is closed", || {
        harness.link(RAT) == Some(LinkState::Closed)
    })
    .await;
    eventually("its subscriptions are deleted", || {
        world.requests("DELETE", "/helix/eventsub/subscriptions") >= 2
    })
    .await;
    world.twitch().go_live(CAT).unwrap();
    eventually("events are heard", || harness.stream(CAT) == StreamStatus::Online).await;
    assert_eq!(harness.status().connections.len(), 1);
    assert_eq!(harness.reconnects(CAT), 0);
}

#[tokio::test]
async fn missing_token_opens_no_socket_and_plan_has_the_reason() {
    let world = World::without_bot(("pub", None)).await;
    let mut harness = ListenerHarness::listen(&world, &[RAT]);
    eventually("the plan is made", || !harness.status().plan.polled.is_empty()).await;
    let plan = harness.status().plan;
    assert!(plan.polled[0].reason.contains("token"), "{plan:?}");
    assert_eq!(world.twitch().host().journal().total(), 0);
    harness.stop().await;
}

#[tokio::test]
async fn user_token_uses_one_socket_and_sends_only_pongs() {
    let (world, _time, harness) = listening_at(SLOW).await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.pong_timeout_ms = Some(2_000));
    // Four pings; any message from the client would end in 4001, an unanswered ping in 4002.
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(SLOW))).await;
    assert_eq!(harness.reconnects(RAT), 0);
    let state = world.twitch().eventsub_state();
    assert_eq!(state["sockets"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn reauthorized_bot_uses_its_newest_token() {
    let (world, _time, harness) = listening().await;
    let pair = world.twitch().issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        scopes: SCOPES.iter().map(|scope| (*scope).to_owned()).collect(),
        ..TokenSpec::default()
    });
    let old = super::super::text(&world.bot_token().await).0;
    world
        .change_bot(|token| token.access = pair.access.clone().into())
        .await;
    world.twitch().expire_token(&old);
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || harness.reconnects(RAT) == 1).await;
    assert_eq!(world.requests("POST", "/oauth2/token"), 0);
}

#[tokio::test]
async fn many_authorized_channels_use_two_sockets_and_spare_third() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let ids: Vec<_> = (1..=160).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
        world
            .give_token(&twitch::broadcaster(id), id, &["channel:bot"])
            .await;
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    // A tighter limit than Twitch's, so that the second socket is not filled by titles alone.
    let harness = ListenerHarness::listen_with(&world, &ids, |options| {
        options.limits.per_socket = 200;
    });
    eventually("all are up", || ids.iter().all(|id| harness.is_up(id))).await;
    let status = harness.status();
    assert_eq!(status.connections.len(), 2, "{}", status.summary());
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("all are up again", || {
        let status = harness.status();
        status.tally.reconnects == 2 && status.is_healthy() && enabled(&status) == 400
    })
    .await;
    eventually("all are told to be up", || ids.iter().all(|id| harness.is_up(id))).await;
    world.twitch().go_live("157").unwrap();
    eventually("events are heard", || {
        harness.stream("157") == StreamStatus::Online
    })
    .await;
}
