//! How lines live: what cuts them, silences them, moves them, and what is heard all the same.

use super::*;

#[tokio::test]
async fn a_stream_that_starts_and_ends_is_told_at_once_with_twitchs_own_times() {
    let (world, _time, mut ear) = listening().await;
    let stream = world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || ear.stream(RAT) == StreamStatus::Online).await;
    assert_eq!(ear.verdict(RAT).session.unwrap().stream_id, stream.id);
    world.twitch().end_stream(RAT).unwrap();
    eventually("the end is told", || ear.stream(RAT) == StreamStatus::Offline).await;
    assert_eq!(ear.pushes(RAT), [true, false]);
    assert_eq!(ear.looks(RAT, Probe::Stream), 1, "after the gap before listening");
    let status = ear.status();
    assert!(status.is_healthy() && status.lines[0].state == "CONNECTED");
    assert_eq!((status.tally.events, enabled(&status)), (2, 3));
    ear.stop().await;
    assert_eq!(ear.link(RAT), Some(LinkState::Closed));
    let open = world.twitch().eventsub_state()["sockets"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(open, 0, "sockets are closed politely");
}

/// Spoils the line and expects that it is up again by itself, heard as before.
async fn survives(spoil: impl FnOnce(&World)) {
    let (world, _time, ear) = listening().await;
    let looks = ear.looks(RAT, Probe::Stream);
    spoil(&world);
    eventually("the line was lost and is back", || {
        ear.reconnects(RAT) >= 1 && ear.is_up(RAT) && ear.looks(RAT, Probe::Stream) > looks
    })
    .await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard again", || {
        ear.stream(RAT) == StreamStatus::Online
    })
    .await;
    assert_eq!(ear.pushes(RAT), [true]);
}

#[tokio::test]
async fn a_tcp_reset_is_survived() {
    survives(|world| {
        assert_eq!(world.twitch().spoil_sockets("", &SocketAct::Reset), 1);
    })
    .await;
}

#[tokio::test]
async fn half_open_silence_is_noticed_and_survived() {
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
    let (world, _time, ear) = listening().await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.keepalive_late_ms = 2_000);
    // Three or four of them.
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(PACE))).await;
    assert_eq!(ear.reconnects(RAT), 0);
    assert!(ear.is_up(RAT));
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
        let (world, _time, ear) = listening().await;
        let created = world.requests("POST", "/helix/eventsub/subscriptions");
        assert_eq!(world.twitch().reconnect_sockets("", &how), 1);
        // An event on the old socket while we move.
        world.twitch().go_live(RAT).unwrap();
        eventually("the new session is in use", || {
            let sockets = world.twitch().eventsub_state();
            sockets["sockets"]
                .as_array()
                .is_some_and(|sockets| sockets.len() == 1)
                && ear.status().lines[0].state == "CONNECTED"
        })
        .await;
        world.twitch().end_stream(RAT).unwrap();
        eventually("events are heard after the move", || ear.pushes(RAT).len() == 2).await;
        assert_eq!(ear.pushes(RAT), [true, false], "{how:?}");
        assert_eq!(world.requests("POST", "/helix/eventsub/subscriptions"), created);
        assert_eq!(ear.reconnects(RAT), 0);
        assert!(ear.is_up(RAT));
    }
}

#[tokio::test]
async fn moves_may_follow_each_other() {
    let (world, _time, ear) = listening().await;
    for _ in 0..3 {
        let before = ear.status().lines[0].session.clone();
        world.twitch().reconnect_sockets("", &Reconnect::default());
        eventually("the line has moved", || {
            let line = ear.status().lines[0].clone();
            line.session != before && line.state == "CONNECTED"
        })
        .await;
    }
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
    assert_eq!(ear.reconnects(RAT), 0);
}

#[tokio::test]
async fn an_address_to_move_to_that_is_dead_leads_back_to_the_usual_one() {
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
async fn an_outage_of_ninety_seconds_is_told_and_survived() {
    let (world, _time, ear) = listening_at(FAST).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || ear.stream(RAT) == StreamStatus::Online).await;
    world.twitch().host().go_down();
    eventually("the outage is told", || ear.trouble(RAT).is_some()).await;
    assert_eq!(ear.verdict(RAT).status.value.to_string(), "DISCONNECTED");
    assert_eq!(ear.stream(RAT), StreamStatus::Online, "nobody said that it ended");
    tokio::time::sleep(Duration::from_millis(90_000 / u64::from(FAST))).await;
    world.twitch().host().come_up();
    eventually("the line is back", || ear.is_up(RAT)).await;
    eventually("a look reconciles", || ear.looks(RAT, Probe::Stream) >= 2).await;
}

#[tokio::test]
async fn a_short_interruption_is_counted_and_not_told_as_an_outage() {
    let (world, _time, ear) = listening().await;
    // The first pause after a proven session is a second at most.
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || ear.reconnects(RAT) == 1).await;
    assert!(!ear.facts(RAT).iter().any(|fact| matches!(
        fact,
        Fact::Connection {
            state: LinkState::Down { .. },
            ..
        }
    )));
}

#[tokio::test]
async fn a_line_that_does_not_tell_what_polls_see_is_found_silent_and_subscribed_anew() {
    let (world, _time, ear) = listening_at(FAST).await;
    world.twitch().eventsub_knobs(|knobs| knobs.drop_events = true);
    // Start times have whole seconds; this one must lie after we began to listen.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.twitch().go_live(RAT).unwrap();
    let created = world.requests("POST", "/helix/eventsub/subscriptions");
    let platform = world.platform();
    for _ in 0..200 {
        let seen = super::super::look(&platform, &[Probe::Stream], &[RAT]).await;
        seen.observations.iter().for_each(|told| ear.handle.polled(told));
        if !ear.status().silent.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ear.status().silent, [key(RAT)]);
    world.twitch().eventsub_knobs(|knobs| knobs.drop_events = false);
    eventually("it is subscribed to anew", || {
        world.requests("POST", "/helix/eventsub/subscriptions") >= created + 2 && enabled(&ear.status()) == 3
    })
    .await;
    world.twitch().end_stream(RAT).unwrap();
    eventually("it is not silent any more", || ear.status().silent.is_empty()).await;
}

#[tokio::test]
async fn a_clock_that_jumps_ends_the_connection_and_a_fresh_one_follows() {
    let world = World::confidential().await;
    let ear = Ear::listen_with(&world, &[RAT], |options| {
        options.pace = 1;
        options.watch_clock = true;
    });
    eventually("the line is up", || ear.is_up(RAT)).await;
    // As after a suspend: the wall clock is a minute on, the steady one is not.
    world.sim.clock.advance(60_000);
    eventually("the line is back", || ear.reconnects(RAT) == 1).await;
    assert!(ear.is_up(RAT));
}

#[tokio::test]
async fn a_reader_that_stands_still_for_a_while_loses_nothing_and_the_socket_lives() {
    let world = World::confidential().await;
    let time = hurry(&world);
    let (_channels, watched) = watch::channel(wanted(&[RAT]));
    let options = EventSubOptions {
        pace: PACE,
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
    eventually("the line is proven", || {
        handle.status().lines.iter().any(|line| line.state == "CONNECTED")
    })
    .await;
    for _ in 0..20 {
        world.twitch().go_live(RAT).unwrap();
        world.twitch().end_stream(RAT).unwrap();
    }
    eventually("all is heard", || handle.status().tally.events == 40).await;
    // Twice the time after which an unanswered ping or a missed keepalive would have ended the line.
    tokio::time::sleep(Duration::from_millis(40_000 / u64::from(PACE))).await;
    assert_eq!(handle.status().tally.reconnects, 0);
    drop(time);
    let mut pushes = 0;
    let reading = async {
        while let Some(heard) = source.recv().await {
            let push =
                matches!(&heard, Heard::Observed(told) if matches!(told.fact, Fact::StreamPush { .. }));
            pushes += usize::from(push);
            if pushes == 40 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap();
    drop((stop, task));
}
