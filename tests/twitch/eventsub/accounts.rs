//! Listeners and tokens: connections when tokens expire, cannot be read, or are rejected, and subscriptions that an earlier run
//! left behind.

use std::os::unix::fs::PermissionsExt as _;

use super::super::file_store;
use super::*;

/// Lets twenty seconds of a connection's time pass: more than a keepalive and its timeout.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(20_000 / u64::from(PACE))).await;
}

fn closed(harness: &ListenerHarness, id: &str) -> bool {
    let closed = Fact::Connection {
        transport: Transport::EventSub,
        state: LinkState::Closed,
    };
    harness.facts(id).contains(&closed)
}

#[tokio::test]
async fn tokens_that_cannot_be_read_for_a_while_end_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    let mut world = World::without_bot(("app", Some("hush-secret"))).await;
    world.store = file_store(&path);
    world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    world.twitch().add_channel(CAT, "cat");
    let _time = advance_heartbeat(&world);
    let harness = ListenerHarness::listen(&world, &[RAT]);
    eventually("the line is up", || harness.is_up(RAT)).await;
    // A file that everyone can read is rejected.
    let readable_by = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    readable_by(0o644);
    harness.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the plan is made anew", || {
        harness.status().plan.is_pushed(&key(CAT))
    })
    .await;
    a_while().await;
    assert!(
        harness.is_up(RAT) && !closed(&harness, RAT),
        "{}",
        harness.status().summary()
    );
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
    readable_by(0o600);
    eventually("the new one is heard once tokens can be read", || {
        harness.is_up(CAT)
    })
    .await;
}

#[tokio::test]
async fn rejected_token_on_open_session_is_not_retried_in_a_loop() {
    let (world, _time, harness) = listening().await;
    world.twitch().add_channel(CAT, "cat");
    world
        .change_bot(|token| {
            token.access = "spoilt".to_owned().into();
            token.refresh = None;
        })
        .await;
    let asked = world.requests("POST", "/helix/eventsub/subscriptions");
    harness.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the new one was asked for", || {
        world.requests("POST", "/helix/eventsub/subscriptions") > asked
    })
    .await;
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(PACE))).await;
    // Three subscriptions, each requested at most twice within that time.
    let asked = world.requests("POST", "/helix/eventsub/subscriptions") - asked;
    assert!(asked <= 6, "{asked}");
    assert!(harness.is_up(RAT), "what is heard is heard");
    assert!(
        harness.looks(RAT, Probe::Auth) > 0,
        "the authorization is suspected"
    );
    eventually("what is not heard is told so", || {
        harness.failure(CAT) == Some((false, "twitch.subscription_pending".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn channel_removed_and_readded_is_subscribed_again() {
    let (world, _time, harness) = listening().await;
    harness.channels.send(Vec::new()).unwrap();
    eventually("it is closed", || harness.link(RAT) == Some(LinkState::Closed)).await;
    // The connection still reports its end.
    harness.channels.send(wanted(&[RAT])).unwrap();
    eventually("it is heard again", || harness.is_up(RAT)).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
}

#[tokio::test]
async fn links_left_open_by_killed_run_are_closed_if_not_covered() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    for (id, login) in [(CAT, "cat"), ("900400", "dog")] {
        world.twitch().add_channel(id, login);
    }
    let harness = ListenerHarness::listen_with(&world, &[RAT, CAT], |options| {
        options.limits.max_cost = 2;
        // The third is not monitored any more.
        options.left_open = [key(RAT), key(CAT), key("900400")].into();
    });
    // Twitch grants ten points; the limit of two that this one received lasts until Twitch's first response.
    eventually("both are settled", || {
        harness.is_up(RAT) && (closed(&harness, CAT) || harness.is_up(CAT))
    })
    .await;
    assert!(closed(&harness, CAT) && !closed(&harness, RAT));
    assert!(harness.facts("900400").is_empty());
}

#[tokio::test]
async fn a_socket_too_many_is_waited_for_and_is_nobodys_fault() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    let full = serde_json::json!({"error": "Too Many Requests", "status": 429,
        "message": "number of websocket transports limit exceeded"});
    let fault = Fault::status(429)
        .with_body(FaultBody::Json(full))
        .header("Ratelimit-Remaining", "790")
        .on("/helix/eventsub/subscriptions")
        .method("POST");
    world.fail(fault);
    let harness = ListenerHarness::listen_fast(&world, &[RAT]);
    eventually("the want is told", || harness.failure(RAT).is_some()).await;
    assert_eq!(
        harness.failure(RAT),
        Some((false, "twitch.too_many_sockets".to_owned()))
    );
    let status = harness.status();
    assert!(
        !status.is_healthy() && status.summary().contains("transports limit"),
        "{}",
        status.summary()
    );
    world.twitch().host().faults().clear();
    eventually("it is heard once there is room", || harness.is_up(RAT)).await;
    assert!(harness.status().is_healthy());
}

#[tokio::test]
async fn unrecognized_cost_rejection_falls_back_to_polling() {
    let world = World::confidential().await;
    let _time = hurry_by(&world, FAST);
    world.twitch().add_channel(CAT, "cat");
    let full =
        serde_json::json!({"error": "Too Many Requests", "status": 429, "message": "enough is enough"});
    let fault = Fault::status(429)
        .with_body(FaultBody::Json(full))
        .header("Ratelimit-Remaining", "790")
        .on("/helix/eventsub/subscriptions")
        .method("POST");
    let fault = Fault { skip: 3, ..fault };
    world.fail(fault);
    let harness = ListenerHarness::listen_fast(&world, &[RAT]);
    eventually("the first is up", || {
        harness.is_up(RAT) && enabled(&harness.status()) == 3
    })
    .await;
    harness.channels.send(wanted(&[RAT, CAT])).unwrap();
    let refused = |status: &Status| {
        let mut subscriptions = status.subscriptions.iter();
        subscriptions.any(|one| one.channel == CAT && matches!(one.status, SubscriptionState::Refused(_)))
    };
    eventually("the second is given up", || {
        refused(&harness.status()) || !harness.status().plan.is_pushed(&key(CAT))
    })
    .await;
    assert!(harness.is_up(RAT));
    let refusal = |fact: &Fact| {
        matches!(
            fact,
            Fact::Connection {
                state: LinkState::Refused { .. },
                ..
            }
        )
    };
    assert!(
        !harness.facts(CAT).iter().any(refusal),
        "want of points is nobody's fault"
    );
}

#[tokio::test]
async fn revoked_chat_subscription_keeps_stream_subscription() {
    for status in ["moderator_removed", "chat_user_banned", "authorization_revoked"] {
        let world = World::confidential().await;
        let _time = advance_heartbeat(&world);
        let harness = ListenerHarness::listen_with(&world, &[RAT], |options| options.chat = true);
        eventually("chat is heard", || enabled(&harness.status()) == 4).await;
        assert_eq!(
            world
                .twitch()
                .revoke_subscriptions("channel.chat.message", "", status),
            1
        );
        eventually("the end is told", || {
            let code = format!("twitch.{status}");
            let reported = |fact: &Fact| matches!(fact, Fact::Problem { error } if error.code.text() == code);
            harness.facts(RAT).iter().any(reported)
        })
        .await;
        assert!(harness.is_up(RAT), "{status}");
        world.twitch().go_live(RAT).unwrap();
        eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
    }
}
