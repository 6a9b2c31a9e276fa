//! The EventSub listener against the simulated Twitch, over real sockets. Time runs fifty times faster on both sides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitbrat::core::counters::Counters;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::{Holding, Verdict, holding};
use bitbrat::platforms::twitch::eventsub::planner::{Channel, Limits};
use bitbrat::platforms::twitch::eventsub::{EventSubHandle, EventSubOptions, MessageMemory, Status};
use bitbrat::platforms::{Heard, Listener, Probe, twitch};
use bitbrat::sim::twitch::{ChatSpec, Duplicate, EndSpec, Reconnect, Role, SocketAct, StreamSpec, TokenSpec};
use bitbrat::sim::{Fault, FaultBody};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{BOT, RAT, SCOPES, World, key};

/// How many times faster than real everything runs.
const PACE: u32 = 50;
const CAT: &str = "900300";

/// A listener at work, and everything that it told.
struct Ear {
    handle: EventSubHandle,
    heard: Arc<Mutex<Vec<Heard>>>,
    channels: watch::Sender<Vec<Channel>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<AbortOnDropHandle<()>>,
    _reader: AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
fn own(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Moves the simulation's clock fifty times as fast as real time.
fn hurry(world: &World) -> AbortOnDropHandle<()> {
    let clock = Arc::clone(&world.sim.clock);
    own(async move {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(4)).await;
            let now = tokio::time::Instant::now();
            let passed = i64::try_from((now - last).as_millis()).unwrap();
            last = now;
            clock.advance(passed * i64::from(PACE));
        }
    })
}

fn wanted(ids: &[&str]) -> Vec<Channel> {
    ids.iter()
        .map(|id| Channel {
            source: key(id),
            priority: 0,
        })
        .collect()
}

impl Ear {
    fn listen(world: &World, ids: &[&str]) -> Self {
        Self::listen_with(world, ids, |_| {})
    }

    fn listen_with(world: &World, ids: &[&str], change: impl FnOnce(&mut EventSubOptions)) -> Self {
        let (channels, watched) = watch::channel(wanted(ids));
        let mut options = EventSubOptions {
            flush: Duration::from_millis(20),
            pace: PACE,
            watch_clock: false,
            ..EventSubOptions::new(watched)
        };
        change(&mut options);
        let (listener, handle) = Arc::new(world.platform()).listener(options);
        let (sink, mut source) = mpsc::channel(64);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let reader = own(async move {
            while let Some(heard) = source.recv().await {
                kept.lock().unwrap().push(heard);
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = own(async move {
            let stop = Box::pin(async move {
                let _ = stopped.await;
            });
            Box::new(listener).listen(stop, sink).await;
        });
        Self {
            handle,
            heard,
            channels,
            stop: Some(stop),
            task: Some(task),
            _reader: reader,
        }
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .expect("a listener that is stopped ends")
            .unwrap();
    }

    fn status(&self) -> Status {
        self.handle.status()
    }

    fn told(&self) -> Vec<Observation> {
        self.heard
            .lock()
            .unwrap()
            .iter()
            .filter_map(|heard| match heard {
                Heard::Observed(observation) => Some(observation.clone()),
                Heard::Missed { .. } => None,
            })
            .collect()
    }

    fn facts(&self, id: &str) -> Vec<Fact> {
        self.told()
            .into_iter()
            .filter(|told| told.source.id() == id)
            .map(|told| told.fact)
            .collect()
    }

    fn knowledge(&self, id: &str) -> Knowledge {
        Knowledge::of(self.told().iter().filter(|told| told.source.id() == id))
    }

    fn verdict(&self, id: &str) -> Verdict {
        Verdict::of(PlatformName::Twitch, &self.knowledge(id).evidence)
    }

    fn stream(&self, id: &str) -> StreamStatus {
        self.verdict(id).stream.value
    }

    fn link(&self, id: &str) -> Option<LinkState> {
        self.facts(id).into_iter().rev().find_map(|fact| match fact {
            Fact::Connection {
                transport: Transport::EventSub,
                state,
            } => Some(state),
            _ => None,
        })
    }

    fn is_up(&self, id: &str) -> bool {
        self.link(id) == Some(LinkState::Up)
    }

    /// Returns the code under which a source's link was last told to be down or refused.
    fn trouble(&self, id: &str) -> Option<(bool, String)> {
        match self.link(id)? {
            LinkState::Down { error } => Some((false, error.code)),
            LinkState::Refused { error } => Some((true, error.code)),
            LinkState::Up | LinkState::Closed => None,
        }
    }

    fn pushes(&self, id: &str) -> Vec<bool> {
        self.facts(id)
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::StreamPush { live, .. } => Some(live),
                _ => None,
            })
            .collect()
    }

    /// Returns how often a look was asked for with this probe about this source.
    fn looks(&self, id: &str, probe: Probe) -> usize {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|heard| {
                matches!(heard, Heard::Missed { sources, probes }
                    if sources.contains(&key(id)) && probes.contains(&probe))
            })
            .count()
    }

    fn messages_in(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.messages_in)
            .max()
            .unwrap_or(0)
    }

    fn reconnects(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.reconnects)
            .max()
            .unwrap_or(0)
    }
}

/// Waits until `condition` holds, and fails with `what` when it does not within twenty seconds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// A world with a listener that is up for `RAT`.
async fn listening() -> (World, AbortOnDropHandle<()>, Ear) {
    let world = World::confidential().await;
    let time = hurry(&world);
    let ear = Ear::listen(&world, &[RAT]);
    eventually("the line is up", || ear.is_up(RAT)).await;
    (world, time, ear)
}

fn enabled(status: &Status) -> usize {
    status
        .subscriptions
        .iter()
        .filter(|subscription| subscription.status == "enabled")
        .count()
}

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

#[tokio::test]
async fn titles_are_told() {
    let (world, _time, ear) = listening().await;
    world.twitch().put_channel(bitbrat::sim::twitch::ChannelSpec {
        id: RAT.to_owned(),
        title: Some("a new title".to_owned()),
        ..Default::default()
    });
    eventually("the title is told", || {
        ear.knowledge(RAT)
            .evidence
            .profile
            .get("title")
            .is_some_and(|title| title.value == "a new title")
    })
    .await;
}

#[tokio::test]
async fn a_welcome_alone_is_no_connection() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let no = serde_json::json!({"error": "Forbidden", "status": 403, "message": "subscription missing proper authorization"});
    world.twitch().host().faults().add(
        Fault::status(403)
            .with_body(FaultBody::Json(no))
            .on("/helix/eventsub/subscriptions")
            .method("POST"),
    );
    let ear = Ear::listen(&world, &[RAT]);
    eventually("the refusal is told", || ear.trouble(RAT).is_some()).await;
    assert!(!ear.facts(RAT).iter().any(|fact| {
        matches!(
            fact,
            Fact::Connection {
                state: LinkState::Up,
                ..
            }
        )
    }));
    assert_eq!(ear.verdict(RAT).stream.value, StreamStatus::Unknown);
    // No loop: three subscriptions were asked for, and then nothing for a minute.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(world.requests("POST", "/helix/eventsub/subscriptions") <= 6);
    world.twitch().host().faults().clear();
    eventually("it heals when allowed", || ear.is_up(RAT)).await;
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
    // A minute and a half of them.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
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
    let (world, _time, ear) = listening().await;
    world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || ear.stream(RAT) == StreamStatus::Online).await;
    world.twitch().host().go_down();
    eventually("the outage is told", || ear.trouble(RAT).is_some()).await;
    assert_eq!(ear.verdict(RAT).status.value.to_string(), "DISCONNECTED");
    assert_eq!(ear.stream(RAT), StreamStatus::Online, "nobody said that it ended");
    tokio::time::sleep(Duration::from_millis(90_000 / u64::from(PACE))).await;
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
async fn a_token_that_ends_while_the_socket_lives_changes_nothing() {
    let (world, _time, ear) = listening().await;
    world.twitch().expire_tokens_of(BOT);
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
    // And a fresh session renews the token by itself.
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || ear.reconnects(RAT) == 1).await;
    assert_eq!(world.requests("POST", "/oauth2/token"), 1);
}

#[tokio::test]
async fn a_bot_whose_grant_is_gone_is_refused_and_says_so() {
    let (world, _time, ear) = listening().await;
    world.twitch().disconnect(BOT);
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the refusal is told", || {
        ear.trouble(RAT) == Some((true, "twitch.unauthorized".to_owned()))
    })
    .await;
    assert_eq!(ear.verdict(RAT).status.value.to_string(), "ERROR");
}

#[tokio::test]
async fn duplicates_with_the_same_id_are_heard_once_and_with_another_change_nothing() {
    for duplicate in [Duplicate::SameId, Duplicate::FreshId] {
        let (world, _time, ear) = listening().await;
        world
            .twitch()
            .eventsub_knobs(|knobs| knobs.duplicate = Some(duplicate));
        world.twitch().go_live(RAT).unwrap();
        eventually("both copies have come", || {
            let tally = ear.status().tally;
            tally.events + tally.duplicates == 2
        })
        .await;
        let verdict = ear.verdict(RAT);
        assert_eq!(verdict.stream.value, StreamStatus::Online);
        assert_eq!(verdict.session.unwrap().interruptions, 0);
    }
}

#[tokio::test]
async fn an_end_that_comes_before_its_start_does_not_leave_the_stream_online() {
    let (world, _time, ear) = listening().await;
    world.twitch().eventsub_knobs(|knobs| knobs.hold = true);
    world.twitch().go_live(RAT).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.twitch().end_stream(RAT).unwrap();
    world.twitch().release(true);
    eventually("both have come", || ear.pushes(RAT).len() == 2).await;
    assert_eq!(ear.pushes(RAT), [false, true]);
    assert_eq!(ear.stream(RAT), StreamStatus::Offline);
}

#[tokio::test]
async fn a_flap_of_thirty_seconds_is_one_session() {
    let (world, _time, ear) = listening().await;
    let stream = world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || ear.pushes(RAT).len() == 1).await;
    world.twitch().end_stream_with(RAT, &EndSpec::default()).unwrap();
    eventually("the drop is told", || ear.pushes(RAT).len() == 2).await;
    tokio::time::sleep(Duration::from_millis(30_000 / u64::from(PACE))).await;
    let again = StreamSpec {
        stream_id: Some(stream.id.clone()),
        started_at: Some(stream.started_at),
        ..StreamSpec::default()
    };
    world.twitch().go_live_with(RAT, &again).unwrap();
    eventually("it is back", || ear.stream(RAT) == StreamStatus::Online).await;
    let session = ear.verdict(RAT).session.unwrap();
    assert_eq!((session.stream_id, session.interruptions), (stream.id, 1));
}

#[tokio::test]
async fn an_end_without_an_id_ends_the_stream() {
    let (world, _time, ear) = listening().await;
    world
        .twitch()
        .eventsub_knobs(|knobs| knobs.offline_without_id = true);
    world.twitch().go_live(RAT).unwrap();
    eventually("the start is told", || ear.stream(RAT) == StreamStatus::Online).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.twitch().end_stream(RAT).unwrap();
    eventually("the end is told", || ear.stream(RAT) == StreamStatus::Offline).await;
}

#[tokio::test]
async fn messages_of_more_than_ten_minutes_ago_are_not_heard_and_counted() {
    let (world, _time, ear) = listening().await;
    world.twitch().eventsub_knobs(|knobs| knobs.age_ms = 11 * 60_000);
    world.twitch().go_live(RAT).unwrap();
    eventually("it was counted", || ear.status().tally.stale == 1).await;
    assert!(ear.pushes(RAT).is_empty());
    world.twitch().eventsub_knobs(|knobs| knobs.age_ms = 9 * 60_000);
    world.twitch().end_stream(RAT).unwrap();
    eventually("a younger one is heard", || ear.pushes(RAT) == [false]).await;
}

#[tokio::test]
async fn a_clock_that_is_fifteen_minutes_off_loses_no_event() {
    for skew in [-900_000, 900_000] {
        let world = World::confidential().await;
        world.sim.clock.set_skew(skew);
        let _time = hurry(&world);
        let ear = Ear::listen(&world, &[RAT]);
        eventually("the line is up", || ear.is_up(RAT)).await;
        world.twitch().go_live(RAT).unwrap();
        eventually("the start is told", || ear.pushes(RAT).len() == 1).await;
        let pushed = ear
            .told()
            .into_iter()
            .find(|told| matches!(told.fact, Fact::StreamPush { .. }))
            .unwrap();
        let apart = pushed.at.millis_since(world.sim.clock.wall()).abs();
        assert!(apart < 60_000, "it is dated by Twitch: {apart}");
        assert_eq!(ear.status().tally.stale, 0);
    }
}

#[tokio::test]
async fn unknown_messages_and_events_are_passed_over() {
    let (world, _time, ear) = listening().await;
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
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
    assert!(ear.status().tally.unknown >= 5);
    assert_eq!(ear.reconnects(RAT), 0);
}

#[tokio::test]
async fn revocations_say_what_they_mean_and_ask_for_a_look() {
    for (status, refused, probe) in [
        ("authorization_revoked", true, Probe::Auth),
        ("user_removed", true, Probe::Connection),
        ("version_removed", true, Probe::Stream),
        ("novel_status", false, Probe::Stream),
    ] {
        let (world, _time, ear) = listening().await;
        let looks = ear.looks(RAT, probe);
        assert_eq!(
            world.twitch().revoke_subscriptions("stream.online", "", status),
            1
        );
        eventually("the revocation is told", || ear.trouble(RAT).is_some()).await;
        assert_eq!(
            ear.trouble(RAT),
            Some((refused, format!("twitch.eventsub.{status}")))
        );
        eventually("a look is asked for", || ear.looks(RAT, probe) > looks).await;
        assert_eq!(ear.status().tally.errors, 1, "{status}");
    }
}

#[tokio::test]
async fn a_subscription_that_was_ended_for_a_passing_reason_is_made_again() {
    let (world, _time, ear) = listening().await;
    world
        .twitch()
        .revoke_subscriptions("stream.online", "", "websocket_internal_error");
    eventually("the end is told", || ear.trouble(RAT).is_some()).await;
    eventually("it is heard again", || ear.is_up(RAT)).await;
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
}

#[tokio::test]
async fn a_rate_limit_on_subscribing_is_waited_out_within_the_session() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let busy = serde_json::json!({"error": "Too Many Requests", "status": 429, "message": "slow down"});
    let fault = Fault::status(429)
        .with_body(FaultBody::Json(busy))
        .header("Retry-After", "1")
        .header("Ratelimit-Remaining", "5")
        .on("/helix/eventsub/subscriptions")
        .method("POST")
        .times(1);
    world.twitch().host().faults().add(fault);
    let ear = Ear::listen(&world, &[RAT]);
    eventually("the line is up", || ear.is_up(RAT)).await;
    assert_eq!(ear.reconnects(RAT), 0);
}

#[tokio::test]
async fn the_eleventh_point_is_not_asked_for_and_its_channel_is_polled() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let ids: Vec<_> = (1..=8).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let ear = Ear::listen(&world, &ids);
    eventually("five are up", || {
        ids.iter().filter(|id| ear.is_up(id)).count() == 5
    })
    .await;
    let status = ear.status();
    assert_eq!((status.plan.polled.len(), status.plan.cost), (3, 10));
    assert_eq!(world.requests("POST", "/helix/eventsub/subscriptions"), 10);
    assert!(
        ear.facts("8").is_empty(),
        "nothing is claimed of a link that is not there"
    );
    let plan = world
        .platform()
        .plan(&wanted(&ids), false, Limits::default())
        .await;
    assert_eq!(
        plan.polled, status.plan.polled,
        "what is shown before is what is done"
    );
}

#[tokio::test]
async fn points_that_others_use_up_are_left_to_them() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    for id in 1..=8_u32 {
        world
            .twitch()
            .add_channel(&id.to_string(), &format!("channel{id}"));
    }
    // Another program of the same application and user listens to three channels already.
    let mut other = Ear::listen(&world, &["1", "2", "3"]);
    eventually("the other is up", || {
        (1..=3_u32).all(|id| other.is_up(&id.to_string()))
    })
    .await;
    let ear = Ear::listen(&world, &["4", "5", "6"]);
    eventually("the rest is polled", || ear.status().plan.cost_limit == 1).await;
    assert_eq!(ear.status().plan.polled.len(), 3);
    assert_eq!(ear.trouble("4"), None, "being polled is no trouble");
    // Nothing of the other's was taken away.
    assert!((1..=3_u32).all(|id| other.is_up(&id.to_string())));
    assert_eq!(other.reconnects("1"), 0);
    other.stop().await;
}

#[tokio::test]
async fn cost_of_a_dead_session_is_waited_for() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let ids: Vec<_> = (1..=5).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let ear = Ear::listen(&world, &ids);
    eventually("all are up", || ids.iter().all(|id| ear.is_up(id))).await;
    world.twitch().eventsub_knobs(|knobs| {
        knobs.orphan_cost_ms = 30_000;
        knobs.orphans_hidden = true;
    });
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("all are up again", || {
        ids.iter().all(|id| ear.is_up(id) && ear.reconnects(id) >= 1)
    })
    .await;
    let status = ear.status();
    assert_eq!(enabled(&status), 10, "{:?}", status.subscriptions);
}

#[tokio::test]
async fn authorised_channels_cost_nothing_and_tell_who_becomes_moderator_or_vip() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let ids: Vec<_> = (1..=7).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
        let scopes = ["moderation:read", "channel:read:vips"];
        world.give_token(&twitch::broadcaster(id), id, &scopes).await;
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let ear = Ear::listen(&world, &ids);
    eventually("all are up", || ids.iter().all(|id| ear.is_up(id))).await;
    // Three for each from the bot's own socket, four from each broadcaster's.
    eventually("roles are heard too", || enabled(&ear.status()) == 7 * (3 + 4)).await;
    assert_eq!(ear.status().plan.cost, 0);
    world.twitch().set_role("3", BOT, Role::Moderator, true);
    let holds = |role| holding(&ear.knowledge("3").evidence, role).0;
    eventually("the role is told", || holds("MODERATOR") == Holding::Yes).await;
    world.twitch().set_role("3", BOT, Role::Vip, true);
    eventually("the change is told", || {
        holds("MODERATOR") == Holding::No && holds("VIP") == Holding::Yes
    })
    .await;
}

#[tokio::test]
async fn chat_is_counted_once_a_line_without_the_bots_own_and_foreign_ones() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    world.twitch().add_channel(CAT, "cat");
    world.twitch().set_role(RAT, BOT, Role::Vip, true);
    let restored = Counters {
        messages_in: 100,
        ..Counters::default()
    };
    let ear = Ear::listen_with(&world, &[RAT, CAT], |options| {
        options.chat = true;
        options.restored = BTreeMap::from([(key(RAT), restored)]);
    });
    eventually("chat is heard", || enabled(&ear.status()) == 8).await;
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
        ear.messages_in(RAT) >= 125 && ear.messages_in(CAT) >= 4 && ear.status().tally.shared_chat >= 4
    })
    .await;
    assert_eq!((ear.messages_in(RAT), ear.messages_in(CAT)), (125, 4));
    // The bot's own lines show its badges.
    assert_eq!(holding(&ear.knowledge(RAT).evidence, "VIP").0, Holding::Yes);
}

#[tokio::test]
async fn a_ban_from_the_chat_is_told_and_the_stream_is_still_heard() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let ear = Ear::listen_with(&world, &[RAT], |options| options.chat = true);
    eventually("chat is heard", || enabled(&ear.status()) == 4).await;
    assert_eq!(holding(&ear.knowledge(RAT).evidence, "BANNED").0, Holding::No);
    world.twitch().set_role(RAT, BOT, Role::Banned, true);
    eventually("the ban is told", || {
        holding(&ear.knowledge(RAT).evidence, "BANNED").0 == Holding::Yes
    })
    .await;
    assert!(ear.is_up(RAT));
    world.twitch().go_live(RAT).unwrap();
    eventually("events are heard", || ear.stream(RAT) == StreamStatus::Online).await;
}

/// Memory that outlives a listener.
#[derive(Default)]
struct Kept(Mutex<Vec<(Timestamp, u64)>>);

impl MessageMemory for Kept {
    fn recall(&self) -> Vec<(Timestamp, u64)> {
        self.0.lock().unwrap().clone()
    }

    fn keep(&self, memory: &[(Timestamp, u64)]) {
        *self.0.lock().unwrap() = memory.to_vec();
    }
}

#[tokio::test]
async fn a_line_that_is_repeated_after_a_restart_is_not_counted_twice() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let memory = Arc::new(Kept::default());
    let listen = |restored: BTreeMap<SourceKey, Counters>| {
        let memory: Arc<dyn MessageMemory> = Arc::clone(&memory) as Arc<dyn MessageMemory>;
        Ear::listen_with(&world, &[RAT], |options| {
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
    let mut ear = listen(BTreeMap::new());
    eventually("chat is heard", || enabled(&ear.status()) == 4).await;
    assert_eq!(say(), 1);
    eventually("it is counted", || ear.messages_in(RAT) == 1).await;
    ear.stop().await;
    let totals = ear.knowledge(RAT).counters["bitbrat"];
    let again = listen(BTreeMap::from([(key(RAT), totals)]));
    eventually("chat is heard", || enabled(&again.status()) == 4).await;
    assert_eq!(say(), 1);
    eventually("it was recognised", || again.status().tally.duplicates == 1).await;
    assert_eq!(again.messages_in(RAT).max(1), 1);
}

#[tokio::test]
async fn channels_that_come_and_go_are_followed() {
    let (world, _time, ear) = listening().await;
    world.twitch().add_channel(CAT, "cat");
    ear.channels.send(wanted(&[RAT, CAT])).unwrap();
    eventually("the new one is up", || ear.is_up(CAT)).await;
    ear.channels.send(wanted(&[CAT])).unwrap();
    eventually("the old one is closed", || {
        ear.link(RAT) == Some(LinkState::Closed)
    })
    .await;
    eventually("its subscriptions are deleted", || {
        world.requests("DELETE", "/helix/eventsub/subscriptions") >= 2
    })
    .await;
    world.twitch().go_live(CAT).unwrap();
    eventually("events are heard", || ear.stream(CAT) == StreamStatus::Online).await;
    assert_eq!(ear.status().lines.len(), 1);
    assert_eq!(ear.reconnects(CAT), 0);
}

#[tokio::test]
async fn a_line_that_does_not_tell_what_polls_see_is_found_silent_and_subscribed_anew() {
    let (world, _time, ear) = listening().await;
    world.twitch().eventsub_knobs(|knobs| knobs.drop_events = true);
    // Start times have whole seconds; this one must lie after we began to listen.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.twitch().go_live(RAT).unwrap();
    let created = world.requests("POST", "/helix/eventsub/subscriptions");
    let platform = world.platform();
    for _ in 0..60 {
        let seen = super::look(&platform, &[Probe::Stream], &[RAT]).await;
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
async fn without_any_token_nothing_is_opened_and_the_plan_says_why() {
    let world = World::without_bot(("pub", None)).await;
    let mut ear = Ear::listen(&world, &[RAT]);
    eventually("the plan is made", || !ear.status().plan.polled.is_empty()).await;
    let plan = ear.status().plan;
    assert!(plan.polled[0].reason.contains("token"), "{plan:?}");
    assert_eq!(world.twitch().host().journal().total(), 0);
    ear.stop().await;
}

#[tokio::test]
async fn a_token_of_a_user_serves_one_socket_and_nothing_but_pongs_is_sent() {
    let (world, _time, ear) = listening().await;
    // Two simulated minutes with pings; anything that we sent would end in 4001, an unanswered ping in 4002.
    tokio::time::sleep(Duration::from_millis(120_000 / u64::from(PACE))).await;
    assert_eq!(ear.reconnects(RAT), 0);
    let state = world.twitch().eventsub_state();
    assert_eq!(state["sockets"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_bot_that_is_told_to_listen_with_a_second_set_of_scopes_uses_its_newest_token() {
    let (world, _time, ear) = listening().await;
    let pair = world.twitch().issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        scopes: SCOPES.iter().map(|scope| (*scope).to_owned()).collect(),
        ..TokenSpec::default()
    });
    let old = super::text(&world.bot_token().await).0;
    world
        .change_bot(|token| token.access = pair.access.clone().into())
        .await;
    world.twitch().expire_token(&old);
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the line is back", || ear.reconnects(RAT) == 1).await;
    assert_eq!(world.requests("POST", "/oauth2/token"), 0);
}

#[tokio::test]
async fn many_authorised_channels_take_two_sockets_and_leave_the_third_free() {
    let world = World::confidential().await;
    let _time = hurry(&world);
    let ids: Vec<_> = (1..=160).map(|id: u32| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
        world.give_token(&twitch::broadcaster(id), id, &[]).await;
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    // A tighter limit than Twitch's, so that the second socket is not filled by titles alone.
    let ear = Ear::listen_with(&world, &ids, |options| options.limits.per_socket = 200);
    eventually("all are up", || ids.iter().all(|id| ear.is_up(id))).await;
    let status = ear.status();
    assert_eq!(status.lines.len(), 2, "{}", status.summary());
    world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("all are up again", || {
        ids.iter().all(|id| ear.is_up(id) && ear.reconnects(id) == 1)
    })
    .await;
    world.twitch().go_live("157").unwrap();
    eventually("events are heard", || ear.stream("157") == StreamStatus::Online).await;
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
