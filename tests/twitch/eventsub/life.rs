//! The life of connections: what closes, silences and moves them, and what is received nonetheless.

use super::*;

#[tokio::test]
async fn stream_start_and_end_are_reported_at_once() {
    let (world, _time, mut harness) = listening().await;
    eventually("the gap is polled", || harness.looks(RAT, Probe::Stream) == 1).await;
    let stream = world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || {
        harness.stream(RAT) == StreamStatus::Online
    })
    .await;
    assert_eq!(harness.verdict(RAT).broadcast.unwrap().stream_id, stream.id);
    world.twitch().end_stream(RAT).unwrap();
    eventually("the end is told", || harness.stream(RAT) == StreamStatus::Offline).await;
    assert_eq!(harness.pushes(RAT), [true, false]);
    assert_eq!(
        harness.looks(RAT, Probe::Stream),
        1,
        "after the gap before listening"
    );
    let status = harness.status();
    assert!(status.is_healthy() && status.connections[0].state == "CONNECTED");
    assert_eq!((status.tally.events, enabled(&status)), (2, 3));
    harness.stop().await;
    assert_eq!(harness.link(RAT), Some(LinkState::Closed));
    let open = world.twitch().eventsub_state()["sockets"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(open, 0, "sockets are closed politely");
}

/// Breaks the connection and expects that it reconnects without intervention, and receives as before.
async fn survives(spoil: impl FnOnce(&World)) {
    let (world, _time, harness) = listening().await;
    let looks = harness.looks(RAT, Probe::Stream);
    spoil(&world);
    eventually("the line was lost and is back", || {
        harness.reconnects(RAT) >= 1 && harness.is_up(RAT) && harness.looks(RAT, Probe::Stream) > looks
    })
    .await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard again", || {
        harness.stream(RAT) == StreamStatus::Online
    })
    .await;
    assert_eq!(harness.pushes(RAT), [true]);
}

#[tokio::test]
async fn a_tcp_reset_is_survived() {
    survives(|world| {
        assert_eq!(world.twitch().spoil_sockets("", &SocketAct::Reset), 1);
    })
    .await;
}

#[tokio::test]
async fn half_open_connection_is_detected_and_replaced() {
    survives(|world| {
        assert_eq!(world.twitch().spoil_sockets("", &SocketAct::Freeze), 1);
    })
    .await;
}

#[tokio::test]
async fn keepalives_that_stop_are_noticed_and_survived() {
    survives(|world| {
        assert_eq!(world.twitch().spoil_sockets("", &SocketAct::Mute), 1);
    })
    .await;
}

#[tokio::test]
async fn message_that_is_too_large_is_named_and_survived() {
    let (world, _time, harness) = listening().await;
    let frame = SocketAct::Frame(format!("{{\"padding\":\"{}\"}}", "x".repeat(1_100_000)));
    world.twitch().spoil_sockets("", &frame);
    let mut named = false;
    eventually("the line was lost and is back", || {
        let summary = harness.status().summary();
        named |= summary.contains("twitch.message_too_large");
        harness.reconnects(RAT) >= 1 && harness.is_up(RAT)
    })
    .await;
    assert!(named);
}

#[tokio::test]
async fn every_close_code_is_survived() {
    for code in 4000..=4007 {
        survives(|world| {
            assert_eq!(world.twitch().spoil_sockets("", &SocketAct::Close(code)), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn keepalives_that_are_a_little_late_are_no_loss() {
    let (world, _time, harness) = listening_at(SLOW).await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.keepalive_late_ms = 2_000);
    // Three or four of them.
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(SLOW))).await;
    assert_eq!(harness.reconnects(RAT), 0);
    assert!(harness.is_up(RAT));
}

#[tokio::test]
async fn a_move_loses_no_event_and_subscribes_to_nothing_twice() {
    for how in [
        Reconnect::default(),
        Reconnect {
            same_id: true,
            ..Reconnect::default()
        },
        Reconnect {
            both: true,
            ..Reconnect::default()
        },
    ] {
        let (world, _time, harness) = listening().await;
        let created = world.requests("POST", "/helix/eventsub/subscriptions");
        assert_eq!(world.twitch().reconnect_sockets("", &how), 1);
        // An event on the old socket during the reconnect.
        world.twitch().go_live(RAT).unwrap();
        eventually("the new session is in use", || {
            let sockets = world.twitch().eventsub_state();
            sockets["sockets"]
                .as_array()
                .is_some_and(|sockets| sockets.len() == 1)
                && harness.status().connections[0].state == "CONNECTED"
        })
        .await;
        world.twitch().end_stream(RAT).unwrap();
        eventually("events are heard after the move", || {
            harness.pushes(RAT).len() == 2
        })
        .await;
        assert_eq!(harness.pushes(RAT), [true, false], "{how:?}");
        assert_eq!(world.requests("POST", "/helix/eventsub/subscriptions"), created);
        assert_eq!(harness.reconnects(RAT), 0);
        assert!(harness.is_up(RAT));
    }
}

#[tokio::test]
async fn moves_may_follow_each_other() {
    let (world, _time, harness) = listening().await;
    for _ in 0..3 {
        let before = harness.status().connections[0].session.clone();
        world.twitch().reconnect_sockets("", &Reconnect::default());
        eventually("the line has moved", || {
            let line = harness.status().connections[0].clone();
            line.session != before && line.state == "CONNECTED"
        })
        .await;
    }
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
    assert_eq!(harness.reconnects(RAT), 0);
}

#[tokio::test]
async fn unreachable_reconnect_url_falls_back_to_the_default() {
    survives(|world| {
        let dead = Reconnect {
            dead_url: true,
            ..Reconnect::default()
        };
        assert_eq!(world.twitch().reconnect_sockets("", &dead), 1);
    })
    .await;
}

#[tokio::test]
async fn ninety_second_outage_is_reported_and_recovered() {
    let (world, _time, harness) = listening_at(FAST).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || {
        harness.stream(RAT) == StreamStatus::Online
    })
    .await;
    world.twitch().host().go_down();
    eventually("the outage is told", || harness.failure(RAT).is_some()).await;
    assert_eq!(harness.verdict(RAT).status.value.to_string(), "DISCONNECTED");
    assert_eq!(
        harness.stream(RAT),
        StreamStatus::Online,
        "nobody said that it ended"
    );
    tokio::time::sleep(Duration::from_millis(90_000 / u64::from(FAST))).await;
    world.twitch().host().come_up();
    eventually("the line is back", || harness.is_up(RAT)).await;
    eventually("a look reconciles", || harness.looks(RAT, Probe::Stream) >= 2).await;
}

#[tokio::test]
async fn short_interruption_is_counted_but_not_an_outage() {
    let (world, _time, harness) = listening_at(1).await;
    // The first backoff after a proven session is a second at most.
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || harness.reconnects(RAT) == 1).await;
    assert!(!harness.facts(RAT).iter().any(|fact| matches!(
        fact,
        Fact::Connection {
            state: LinkState::Down { .. },
            ..
        }
    )));
}

#[tokio::test]
async fn missed_events_are_detected_by_polls_and_resubscribed() {
    let (world, _time, harness) = listening_at(FAST).await;
    world.twitch().eventsub_knobs(|knobs| knobs.drop_events = true);
    // Start times have whole seconds; this one must be after the start of the listener.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.twitch().go_live(RAT).unwrap();
    let created = world.requests("POST", "/helix/eventsub/subscriptions");
    let platform = world.platform();
    for _ in 0..200 {
        let seen = super::super::look(&platform, &[Probe::Stream], &[RAT]).await;
        seen.observations
            .iter()
            .for_each(|reported| harness.handle.polled(reported));
        if !harness.status().silent.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(harness.status().silent, [key(RAT)]);
    world.twitch().eventsub_knobs(|knobs| knobs.drop_events = false);
    eventually("it is subscribed to anew", || {
        world.requests("POST", "/helix/eventsub/subscriptions") >= created + 2
            && enabled(&harness.status()) == 3
    })
    .await;
    world.twitch().end_stream(RAT).unwrap();
    eventually("it is not silent any more", || harness.status().silent.is_empty()).await;
}

#[tokio::test]
async fn clock_jump_replaces_the_connection() {
    let world = World::confidential().await;
    let harness = ListenerHarness::listen_with(&world, &[RAT], |options| {
        options.pace = 1;
        options.watch_clock = true;
    });
    eventually("the line is up", || harness.is_up(RAT)).await;
    // As after a suspend: the wall clock is a minute ahead, the monotonic one is not.
    world.sim.clock.advance(60_000);
    eventually("the line is back", || harness.reconnects(RAT) == 1).await;
    assert!(harness.is_up(RAT));
}

#[tokio::test]
async fn slow_reader_loses_nothing_and_keeps_the_connection() {
    let world = World::confidential().await;
    let time = hurry_by(&world, SLOW);
    let (_channels, watched) = watch::channel(wanted(&[RAT]));
    let options = EventSubOptions {
        pace: SLOW,
        watch_clock: false,
        flush: Duration::from_millis(20),
        ..EventSubOptions::new(watched)
    };
    let (listener, handle) = Arc::new(world.platform()).listener(options);
    let (sink, mut source) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = own(async move {
        let stop = Box::pin(async move {
            let _ = stopped.await;
        });
        Box::new(listener).listen(stop, sink).await;
    });
    // One subscription is accepted before the others are requested, and pushes may begin once all exist.
    eventually("all subscriptions are enabled", || {
        let status = handle.status();
        let enabled = status
            .subscriptions
            .iter()
            .filter(|it| it.status == SubscriptionState::Enabled);
        enabled.count() == status.subscriptions.len() && !status.subscriptions.is_empty()
    })
    .await;
    for _ in 0..20 {
        world.twitch().go_live(RAT).unwrap();
        world.twitch().end_stream(RAT).unwrap();
    }
    eventually("all is heard", || handle.status().tally.events == 40).await;
    // Twice the time after which an unanswered ping or a missed keepalive would have closed the connection.
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(SLOW))).await;
    assert_eq!(handle.status().tally.reconnects, 0);
    drop(time);
    let mut pushes = 0;
    let reading = async {
        while let Some(incoming) = source.recv().await {
            let push = matches!(&incoming, ListenerEvent::Observed(reported) if matches!(*reported.fact, Fact::StreamPush { .. }));
            pushes += usize::from(push);
            if pushes == 40 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .unwrap();
    drop((stop, task));
}
