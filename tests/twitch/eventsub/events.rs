//! Evidence from events: starts and ends in every order, repeated, late and unusual, and chat.

use super::*;

#[tokio::test]
async fn title_changes_are_reported() {
    let (world, _time, harness) = listening().await;
    world.twitch().put_channel(bitbrat::sim::twitch::ChannelSpec {
        id: RAT.to_owned(),
        title: Some("a new title".to_owned()),
        ..Default::default()
    });
    eventually("the title is told", || {
        harness
            .knowledge(RAT)
            .evidence
            .profile
            .get("title")
            .is_some_and(|title| title.value == "a new title")
    })
    .await;
}

#[tokio::test]
async fn duplicate_messages_do_not_change_the_verdict() {
    for duplicate in [Duplicate::SameId, Duplicate::FreshId] {
        let (world, _time, harness) = listening().await;
        world
            .twitch()
            .eventsub_knobs(|knobs| knobs.duplicate = Some(duplicate));
        world.twitch().go_live(RAT).unwrap();
        eventually("both copies have come", || {
            let tally = harness.status().tally;
            tally.events + tally.duplicates == 2
        })
        .await;
        let verdict = harness.verdict(RAT);
        assert_eq!(verdict.stream.value, StreamStatus::Online);
        assert_eq!(verdict.broadcast.unwrap().interruptions, Some(0));
    }
}

#[tokio::test]
async fn start_delivered_after_its_end_leaves_stream_offline() {
    let (world, _time, harness) = listening().await;
    world.twitch().eventsub_knobs(|knobs| knobs.hold = true);
    world.twitch().go_live(RAT).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.twitch().end_stream(RAT).unwrap();
    world.twitch().release(true);
    eventually("both have come", || harness.pushes(RAT).len() == 2).await;
    assert_eq!(harness.pushes(RAT), [false, true]);
    assert_eq!(harness.stream(RAT), StreamStatus::Offline);
}

#[tokio::test]
async fn a_flap_of_thirty_seconds_is_one_session() {
    let (world, _time, harness) = listening_at(FAST).await;
    let stream = world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || harness.pushes(RAT).len() == 1).await;
    world.twitch().end_stream_with(RAT, &EndSpec::default()).unwrap();
    eventually("the drop is told", || harness.pushes(RAT).len() == 2).await;
    tokio::time::sleep(Duration::from_millis(30_000 / u64::from(FAST))).await;
    let again = StreamSpec {
        stream_id: Some(stream.id.clone()),
        started_at: Some(stream.started_at),
        ..StreamSpec::default()
    };
    world.twitch().go_live_with(RAT, &again).unwrap();
    eventually("it is back", || harness.stream(RAT) == StreamStatus::Online).await;
    let session = harness.verdict(RAT).broadcast.unwrap();
    assert_eq!((session.stream_id, session.interruptions), (stream.id, Some(1)));
}

#[tokio::test]
async fn an_end_without_an_id_ends_the_stream() {
    let (world, _time, harness) = listening().await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.offline_without_id = true);
    world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || {
        harness.stream(RAT) == StreamStatus::Online
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.twitch().end_stream(RAT).unwrap();
    eventually("the end is told", || harness.stream(RAT) == StreamStatus::Offline).await;
}

#[tokio::test]
async fn messages_older_than_ten_minutes_are_dropped_and_counted() {
    let (world, _time, harness) = listening().await;
    world.twitch().eventsub_knobs(|knobs| knobs.age_ms = 11 * 60_000);
    world.twitch().go_live(RAT).unwrap();
    eventually("it was counted", || harness.status().tally.stale == 1).await;
    assert!(harness.pushes(RAT).is_empty());
    world.twitch().eventsub_knobs(|knobs| knobs.age_ms = 9 * 60_000);
    world.twitch().end_stream(RAT).unwrap();
    eventually("a younger one is heard", || harness.pushes(RAT) == [false]).await;
}

#[tokio::test]
async fn a_clock_that_is_fifteen_minutes_off_loses_no_event() {
    for skew in [-900_000, 900_000] {
        let world = World::confidential().await;
        world.sim.clock.set_skew(skew);
        let _time = advance_heartbeat(&world);
        let harness = ListenerHarness::listen(&world, &[RAT]);
        eventually("the line is up", || harness.is_up(RAT)).await;
        world.twitch().go_live(RAT).unwrap();
        eventually("the start is told", || harness.pushes(RAT).len() == 1).await;
        let pushed = harness
            .reported()
            .into_iter()
            .find(|reported| matches!(*reported.fact, Fact::StreamPush { .. }))
            .unwrap();
        let apart = pushed.at.millis_since(world.sim.clock.wall()).abs();
        assert!(apart < 60_000, "it is dated by Twitch: {apart}");
        assert_eq!(harness.status().tally.stale, 0);
    }
}

#[tokio::test]
async fn unknown_messages_and_events_are_passed_over() {
    let (world, _time, harness) = listening().await;
    world.twitch().spoil_sockets("", &SocketAct::UnknownMessage);
    for frame in [
        "not json",
        "{}",
        "[1]",
        r#"{"metadata":{"message_type":"notification"}}"#,
    ] {
        world
            .twitch()
            .spoil_sockets("", &SocketAct::Frame(frame.to_owned()));
    }
    world.twitch().knobs(|knobs| {
        knobs.unknown_fields = true;
        knobs.unknown_values = true;
    });
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
    assert!(harness.status().tally.unknown >= 5);
    assert_eq!(harness.reconnects(RAT), 0);
}

#[tokio::test]
async fn chat_is_counted_once_without_own_and_shared_messages() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    world.twitch().add_channel(CAT, "cat");
    world.twitch().set_role(RAT, BOT, Role::Vip, true);
    let restored = Counters {
        messages_in: 100,
        ..Counters::default()
    };
    let harness = ListenerHarness::listen_with(&world, &[RAT, CAT], |options| {
        options.chat = true;
        options.restored = BTreeMap::from([(key(RAT), restored)]);
    });
    eventually("chat is heard", || enabled(&harness.status()) == 8).await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.duplicate = Some(Duplicate::FreshId));
    let say = |count, speaker: Option<&str>, shared_with: &[&str]| ChatSpec {
        count,
        user_id: speaker.map(str::to_owned),
        shared_with: shared_with.iter().map(|id| (*id).to_owned()).collect(),
        ..ChatSpec::default()
    };
    world.twitch().chat(RAT, &say(25, None, &[]));
    world.twitch().chat(RAT, &say(3, Some(BOT), &[]));
    world.twitch().chat(CAT, &say(4, None, &[RAT]));
    eventually("all lines are counted", || {
        harness.messages_in(RAT) >= 125
            && harness.messages_in(CAT) >= 4
            && harness.status().tally.shared_chat >= 4
    })
    .await;
    assert_eq!((harness.messages_in(RAT), harness.messages_in(CAT)), (125, 4));
    // The bot's own messages show its badges.
    assert_eq!(holding(&harness.knowledge(RAT).evidence, "VIP").0, Holding::Yes);
}

#[tokio::test]
async fn chat_ban_is_reported_and_stream_events_continue() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let harness = ListenerHarness::listen_with(&world, &[RAT], |options| options.chat = true);
    eventually("chat is heard", || enabled(&harness.status()) == 4).await;
    eventually("the bot is not banned", || {
        holding(&harness.knowledge(RAT).evidence, "BANNED").0 == Holding::No
    })
    .await;
    world.twitch().set_role(RAT, BOT, Role::Banned, true);
    eventually("the ban is told", || {
        holding(&harness.knowledge(RAT).evidence, "BANNED").0 == Holding::Yes
    })
    .await;
    assert!(harness.is_up(RAT));
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || harness.stream(RAT) == StreamStatus::Online).await;
}

/// Memory that outlives a listener.
#[derive(Default)]
struct Kept(Mutex<Vec<(Timestamp, u64)>>);

impl MessageMemory for Kept {
    fn recall(&self) -> Vec<(Timestamp, u64)> {
        self.0.lock().clone()
    }

    fn keep(&self, memory: &[(Timestamp, u64)]) {
        *self.0.lock() = memory.to_vec();
    }
}

#[tokio::test]
async fn a_line_that_is_repeated_after_a_restart_is_not_counted_twice() {
    let world = World::confidential().await;
    let _time = advance_heartbeat(&world);
    let memory = Arc::new(Kept::default());
    let listen = |restored: BTreeMap<SourceKey, Counters>| {
        let memory: Arc<dyn MessageMemory> = Arc::clone(&memory) as Arc<dyn MessageMemory>;
        ListenerHarness::listen_with(&world, &[RAT], |options| {
            options.chat = true;
            options.memory = Some(memory);
            options.restored = restored;
        })
    };
    let line = serde_json::json!({
        "broadcaster_user_id": RAT, "broadcaster_user_login": "ratcaster", "broadcaster_user_name": "ratcaster",
        "chatter_user_id": "5", "message_id": "the-very-same-line", "badges": [],
    });
    let say = || {
        world
            .twitch()
            .emit("channel.chat.message", "broadcaster_user_id", RAT, &line)
    };
    let mut harness = listen(BTreeMap::new());
    eventually("chat is heard", || enabled(&harness.status()) == 4).await;
    assert_eq!(say(), 1);
    eventually("it is counted", || harness.messages_in(RAT) == 1).await;
    harness.stop().await;
    let totals = harness.knowledge(RAT).counters["bitbrat"];
    let again = listen(BTreeMap::from([(key(RAT), totals)]));
    eventually("chat is heard", || enabled(&again.status()) == 4).await;
    assert_eq!(say(), 1);
    eventually("it was recognised", || again.status().tally.duplicates == 1).await;
    assert_eq!(again.messages_in(RAT).max(1), 1);
}
