//! Listening and tokens: what becomes of lines when tokens end, cannot be read, or are refused, and of what an earlier run
//! left behind.

use std::os::unix::fs::PermissionsExt as _;

use super::super::file_store;
use super::*;

/// Lets twenty seconds of a line's time pass: more than a keepalive and the patience with one.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(20_000 / u64::from(PACE))).await;
}

fn closed(ear: &Ear, id: &str) -> bool {
    let closed = Fact::Connection {
        transport: Transport::EventSub,
        state: LinkState::Closed,
    };
    ear.facts(id).contains(&closed)
}

#[tokio::test]
async fn tokens_that_cannot_be_read_for_a_while_end_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    let mut world = World::without_bot(("app", Some("hush-secret"))).await;
    world.store = file_store(&path);
    world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    world.twitch().add_channel(CAT, "cat");
    let _time = hurry(&world);
    let ear = Ear::listen(&world, &[RAT]);
    eventually("the line is up", || ear.is_up(RAT)).await;
    // Whoever can be read by everybody is not read by us.
    let readable_by = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    readable_by(0o644);
    ear.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the plan is made anew", || ear.status().plan.is_pushed(&key(CAT))).await;
    a_while().await;
    assert!(ear.is_up(RAT) && !closed(&ear, RAT), "{}", ear.status().summary());
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
    readable_by(0o600);
    eventually("the new one is heard once tokens can be read", || ear.is_up(CAT)).await;
}

#[tokio::test]
async fn a_token_that_is_refused_on_a_living_session_is_not_tried_in_a_loop() {
    let (world, _time, ear) = listening().await;
    world.twitch().add_channel(CAT, "cat");
    world
        .change_bot(|token| {
            token.access = "spoilt".to_owned().into();
            token.refresh = None;
        })
        .await;
    let asked = world.requests("POST", "/helix/eventsub/subscriptions");
    ear.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the new one was asked for", || {
        world.requests("POST", "/helix/eventsub/subscriptions") > asked
    })
    .await;
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(PACE))).await;
    // Three subscriptions, each asked for at most twice within that time.
    let asked = world.requests("POST", "/helix/eventsub/subscriptions") - asked;
    assert!(asked <= 6, "{asked}");
    assert!(ear.is_up(RAT), "what is heard is heard");
    assert!(ear.looks(RAT, Probe::Auth) > 0, "the authorisation is suspected");
    eventually("what is not heard is told so", || {
        ear.trouble(CAT) == Some((false, "twitch.eventsub.pending".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_is_taken_away_and_given_back_at_once_is_heard_again() {
    let (world, _time, ear) = listening().await;
    ear.channels.send(Vec::new()).unwrap();
    eventually("it is closed", || ear.link(RAT) == Some(LinkState::Closed)).await;
    // The line still says goodbye.
    ear.channels.send(wanted(&[RAT])).unwrap();
    eventually("it is heard again", || ear.is_up(RAT)).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
}

#[tokio::test]
async fn what_a_killed_run_left_open_is_closed_where_this_one_does_not_listen() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    for (id, login) in [(CAT, "cat"), ("900400", "dog")] {
        world.twitch().add_channel(id, login);
    }
    let ear = Ear::listen_with(&world, &[RAT, CAT], |options| {
        options.limits.max_cost = 2;
        // The third is not attended any more: it is nobody's.
        options.left_open = [key(RAT), key(CAT), key("900400")].into();
    });
    // Twitch grants ten points; that this one was told of two lasts until Twitch's first answer.
    eventually("both are settled", || {
        ear.is_up(RAT) && (closed(&ear, CAT) || ear.is_up(CAT))
    })
    .await;
    assert!(closed(&ear, CAT) && !closed(&ear, RAT));
    assert!(ear.facts("900400").is_empty());
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
    world.twitch().host().faults().add(fault);
    let ear = Ear::listen_fast(&world, &[RAT]);
    eventually("the want is told", || ear.trouble(RAT).is_some()).await;
    assert_eq!(
        ear.trouble(RAT),
        Some((false, "twitch.eventsub.too_many_sockets".to_owned()))
    );
    let status = ear.status();
    assert!(
        !status.is_healthy() && status.summary().contains("transports limit"),
        "{}",
        status.summary()
    );
    world.twitch().host().faults().clear();
    eventually("it is heard once there is room", || ear.is_up(RAT)).await;
    assert!(ear.status().is_healthy());
}

#[tokio::test]
async fn points_that_are_refused_in_unknown_words_lead_to_polling() {
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
    world.twitch().host().faults().add(fault);
    let ear = Ear::listen_fast(&world, &[RAT]);
    eventually("the first is up", || {
        ear.is_up(RAT) && enabled(&ear.status()) == 3
    })
    .await;
    ear.channels.send(wanted(&[RAT, CAT])).unwrap();
    let refused = |status: &Status| {
        let mut subscriptions = status.subscriptions.iter();
        subscriptions.any(|one| one.channel == CAT && one.status.starts_with("refused"))
    };
    eventually("the second is given up", || {
        refused(&ear.status()) || !ear.status().plan.is_pushed(&key(CAT))
    })
    .await;
    assert!(ear.is_up(RAT));
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
        !ear.facts(CAT).iter().any(refusal),
        "want of points is nobody's fault"
    );
}

#[tokio::test]
async fn a_chat_that_is_taken_away_leaves_the_stream_heard() {
    for status in ["moderator_removed", "chat_user_banned", "authorization_revoked"] {
        let world = World::confidential().await;
        let _time = hurry(&world);
        let ear = Ear::listen_with(&world, &[RAT], |options| options.chat = true);
        eventually("chat is heard", || enabled(&ear.status()) == 4).await;
        assert_eq!(
            world
                .twitch()
                .revoke_subscriptions("channel.chat.message", "", status),
            1
        );
        eventually("the end is told", || {
            let code = format!("twitch.eventsub.{status}");
            let told = |fact: &Fact| matches!(fact, Fact::Problem { error } if error.code == code);
            ear.facts(RAT).iter().any(told)
        })
        .await;
        assert!(ear.is_up(RAT), "{status}");
        world.twitch().go_live(RAT).unwrap();
        eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
    }
}
