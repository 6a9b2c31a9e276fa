//! The gateway listener against the simulated gateway, over real sockets.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::core::code::Code;
use crate::core::observation::AuthResult;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::verdict::Status;
use crate::platforms::discord::StreamFrom;
use crate::platforms::discord::gateway::{Board, GatewayOptions, Pace, Shutdown};
use crate::sim::discord::{Author, GatewayAct, GatewayCounts, MessageSpec};

type ObservationLog = Arc<Mutex<Vec<Observation>>>;

/// A running listener, and its observations.
pub(super) struct Receiver {
    incoming: ObservationLog,
    pub(super) board: Arc<Board>,
    stop: CancellationToken,
    listening: AbortOnDropHandle<()>,
    _collecting: AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
fn own(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

impl Receiver {
    pub(super) fn on(platform: &DiscordPlatform, change: impl FnOnce(&mut GatewayOptions)) -> Self {
        let mut options = GatewayOptions {
            sources: vec![key(GUILD), key(9_002)],
            flush: Duration::from_millis(50),
            guild_patience: Duration::from_millis(300),
            // Waits that only limit the load on Discord are not needed in a test.
            identify_spacing: Duration::ZERO,
            pace: Pace {
                free: (40, 200),
                identify: (60, 400),
            },
            ..GatewayOptions::default()
        };
        change(&mut options);
        let board = Arc::clone(&options.board);
        let (sink, mut observed) = mpsc::channel(4);
        let (incoming, stop) = (ObservationLog::default(), CancellationToken::new());
        let listener = platform.listener(options).unwrap();
        let (listeners, stopped) = (Arc::clone(&incoming), stop.clone());
        Self {
            incoming,
            board,
            stop,
            listening: own(async move {
                let ending = async {
                    stopped.cancelled_owned().await;
                    Shutdown::Final
                };
                listener.run(ending, sink).await;
            }),
            _collecting: own(async move {
                while let Some(observation) = observed.recv().await {
                    listeners.lock().push(observation);
                }
            }),
        }
    }

    pub(super) fn record(&self, guild: u64) -> SourceRecord {
        let incoming = self.incoming.lock();
        let key = key(guild);
        let of_guild = incoming.iter().filter(|observed| observed.source == key);
        SourceDocument::from_knowledge(key.clone(), Knowledge::of(of_guild)).record()
    }

    /// Observations about streams of a guild, in order.
    pub(super) fn streams(&self, guild: u64) -> Vec<Observation> {
        let incoming = self.incoming.lock();
        let key = key(guild);
        let about = |observed: &&Observation| {
            observed.source == key && format!("{:?}", observed.fact).starts_with("Stream")
        };
        incoming.iter().filter(about).cloned().collect()
    }

    pub(super) fn status(&self) -> Status {
        self.record(GUILD).status
    }

    /// Shuts the listener down for good and waits for it.
    pub(super) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.listening)
            .await
            .unwrap()
            .unwrap();
    }

    fn error(&self) -> String {
        let error = self.record(GUILD).last_error;
        error.map(|error| error.code.to_string()).unwrap_or_default()
    }

    fn shown(&self) -> String {
        format!("{:?}", self.incoming.lock())
    }
}

pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

/// A listener for the usual guild.
pub(super) async fn live() -> (Rig, DiscordPlatform, Receiver) {
    live_in(patient_world().await).await
}

async fn live_in(rig: Rig) -> (Rig, DiscordPlatform, Receiver) {
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("connected", || harness.status() == Status::Connected).await;
    (rig, platform, harness)
}

/// The usual world, in which Identifies may follow each other immediately.
pub(super) async fn patient_world() -> Rig {
    let rig = Rig::start().await;
    rig.discord().knobs(|knobs| knobs.identify_window_ms = 0);
    rig
}

/// A world with short heartbeat intervals, for tests that need them: on a stalled machine heartbeats may time out.
async fn hasty_world() -> Rig {
    let rig = patient_world().await;
    rig.discord().knobs(|knobs| {
        knobs.heartbeat_interval_ms = 200;
        knobs.sends_per_minute = 100_000;
    });
    rig
}

pub(super) fn counts(rig: &Rig) -> GatewayCounts {
    rig.discord().gateway_counts()
}

/// Waits until the session was resumed this many times.
async fn resumed(rig: &Rig, times: u64) {
    eventually("resumed", || {
        counts(rig).resumes == times && rig.discord().live_sessions() == 1
    })
    .await;
}

pub(super) fn say(rig: &Rig, spec: &MessageSpec) {
    let ids = rig.discord().send_messages(&MessageSpec {
        channel: 9_200,
        ..spec.clone()
    });
    assert!(!ids.is_empty());
}

pub(super) fn person(count: u32) -> MessageSpec {
    MessageSpec {
        count,
        ..MessageSpec::default()
    }
}

#[tokio::test]
async fn session_reports_profile_permissions_and_latency() {
    let (rig, _platform, harness) = live_in(hasty_world().await).await;
    eventually("a heartbeat came back", || {
        harness.record(GUILD).latency_ms.is_some()
    })
    .await;
    let record = harness.record(GUILD);
    assert_eq!(record.auth_status, Some(AuthResult::Valid));
    assert_eq!(record.display_name.as_deref(), Some("Lab"));
    assert_eq!(record.metadata["mode"], "gateway");
    assert_eq!(record.metadata["intentsGranted"], "513");
    assert_eq!(record.held().len(), 7);
    assert_eq!(
        (record.stream_status, record.viewer_count),
        (StreamStatus::Unknown, None)
    );
    assert!(record.last_error.is_none());
    let stranger = harness.record(9_002);
    assert_eq!(stranger.status, Status::Error);
    assert_eq!(
        stranger.last_error.unwrap().code,
        Code::NotFound(PlatformName::Discord)
    );
    assert_eq!((counts(&rig).identifies, rig.calls("gateway/bot")), (1, 1));
    assert!(!harness.shown().contains("secret-part"));
}

#[tokio::test]
async fn chat_is_counted_once_without_reading_it() {
    let (rig, _platform, harness) = live().await;
    let spec = |author, kind, copies| MessageSpec {
        author,
        kind,
        copies,
        ..MessageSpec::default()
    };
    say(&rig, &person(20));
    say(&rig, &spec(Author::Person, 19, 3));
    say(&rig, &spec(Author::Person, 7, 1));
    say(&rig, &spec(Author::OtherBot, 0, 1));
    say(&rig, &spec(Author::Webhook, 0, 1));
    say(&rig, &spec(Author::Itself, 0, 2));
    eventually("all are counted", || {
        harness.record(GUILD).metrics.messages_out == 1
    })
    .await;
    assert_eq!(harness.record(GUILD).metrics.messages_in, 21);
}

#[tokio::test]
async fn events_missed_during_reconnect_are_replayed_and_counted_once() {
    for act in [
        GatewayAct::Reconnect,
        GatewayAct::Invalid(true),
        GatewayAct::Close(4000),
        GatewayAct::Close(1001),
        GatewayAct::Reset,
    ] {
        let (rig, _platform, harness) = live().await;
        say(&rig, &person(5));
        rig.discord().gateway(&act);
        eventually("the session is left", || {
            rig.discord().live_sessions() == 0 || counts(&rig).resumes > 0
        })
        .await;
        say(&rig, &person(5));
        if matches!(act, GatewayAct::Close(1001)) {
            // The simulator ends a session that it closes with 1001, and the Resume detects that.
            eventually("a new session", || {
                counts(&rig).identifies == 2 && harness.status() == Status::Connected
            })
            .await;
            continue;
        }
        resumed(&rig, 1).await;
        say(&rig, &person(5));
        eventually("all are counted", || {
            harness.record(GUILD).metrics.messages_in >= 15
        })
        .await;
        let record = harness.record(GUILD);
        assert_eq!(
            (record.metrics.messages_in, record.metrics.reconnects),
            (15, 1),
            "{act:?}"
        );
        assert_eq!(
            (record.status, record.last_error),
            (Status::Connected, None),
            "{act:?}: nothing was reported"
        );
        let observed = counts(&rig);
        assert_eq!(
            (observed.identifies, observed.misplaced_resumes),
            (1, 0),
            "{act:?}"
        );
    }
}

#[tokio::test]
async fn unresponsive_sockets_are_replaced_and_sessions_resumed() {
    for zombie in ["no acknowledgement", "half open"] {
        let (rig, _platform, harness) = live_in(hasty_world().await).await;
        if zombie == "half open" {
            rig.discord().gateway(&GatewayAct::Freeze);
        } else {
            rig.discord().knobs(|knobs| knobs.no_ack = true);
            eventually("left", || counts(&rig).connections > 1).await;
            rig.discord().knobs(|knobs| knobs.no_ack = false);
        }
        eventually("taken up", || {
            counts(&rig).resumes >= 1 && rig.discord().live_sessions() == 1
        })
        .await;
        say(&rig, &person(1));
        eventually("observations arrive again", || {
            harness.record(GUILD).metrics.messages_in == 1
        })
        .await;
        eventually("it is connected", || harness.status() == Status::Connected).await;
        assert_eq!(counts(&rig).identifies, 1, "{zombie}");
    }
}

#[tokio::test]
async fn invalid_session_is_reported_and_identified_again() {
    for act in [
        GatewayAct::Invalid(false),
        GatewayAct::Close(4009),
        GatewayAct::Close(4007),
    ] {
        let (rig, _platform, harness) = live().await;
        rig.discord().gateway(&act);
        let reported = || harness.status() == Status::Disconnected && !harness.error().is_empty();
        eventually("reported with its reason", reported).await;
        eventually("back", || harness.status() == Status::Connected).await;
        assert_eq!(counts(&rig).identifies, 2, "{act:?}");
        assert!(harness.error().is_empty(), "it explains nothing any more");
    }
}

#[tokio::test]
async fn a_close_for_good_is_an_error_and_nothing_is_tried_again() {
    let (rig, _platform, harness) = live().await;
    rig.discord().gateway(&GatewayAct::Close(4011));
    eventually("told", || harness.status() == Status::Error).await;
    assert_eq!(harness.error(), "discord.sharding_required");
    assert_eq!(harness.record(GUILD).auth_status, Some(AuthResult::Valid));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(counts(&rig).connections, 1);
}

#[tokio::test]
async fn intents_that_are_refused_are_reduced() {
    let rig = patient_world().await;
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::Event));
    let harness = Receiver::on(&platform, |_| {});
    eventually("connected", || harness.status() == Status::Connected).await;
    assert_eq!(harness.record(GUILD).metadata["intentsGranted"], "66177");
    rig.discord().gateway(&GatewayAct::Close(4014));
    eventually("with fewer", || {
        harness.record(GUILD).metadata["intentsGranted"] == "513"
    })
    .await;
    rig.discord().gateway(&GatewayAct::Close(4014));
    eventually("given up", || harness.status() == Status::Error).await;
    assert_eq!(harness.error(), "discord.disallowed_intents");
}

#[tokio::test]
async fn a_token_reset_that_cuts_the_socket_revokes_and_silences() {
    let (rig, _platform, harness) = live().await;
    let before = rig.calls("users/@me");
    rig.discord().reset_token(BOT, true);
    eventually("revoked", || {
        harness.record(GUILD).auth_status == Some(AuthResult::Revoked)
    })
    .await;
    assert_eq!(
        (harness.status(), harness.error()),
        (Status::Error, "discord.unauthorized".to_owned())
    );
    assert_eq!(rig.calls("users/@me"), before + 1, "confirmed with one call");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((counts(&rig).connections, counts(&rig).identifies), (1, 1));
    let seen = rig.probe_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(seen.summary.calls, 0, "other processes know");
}

#[tokio::test]
async fn token_reset_found_by_probe_ends_the_session() {
    let (rig, platform, harness) = live_in(hasty_world().await).await;
    rig.discord().reset_token(BOT, false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        harness.record(GUILD).auth_status,
        Some(AuthResult::Valid),
        "nothing has proven otherwise yet"
    );
    probe(&platform, &[Probe::Connection], &[GUILD]).await;
    eventually("revoked", || {
        harness.record(GUILD).auth_status == Some(AuthResult::Revoked)
    })
    .await;
    eventually("left", || rig.discord().live_sessions() == 0).await;
    assert_eq!(counts(&rig).identifies, 1);
}

#[tokio::test]
async fn rejected_token_opens_no_socket() {
    let rig = Rig::start().await;
    rig.discord().reset_token(BOT, false);
    rig.probe_once(&[Probe::Auth], &[GUILD]).await;
    let calls = rig.total_calls();
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("revoked", || {
        harness.record(GUILD).auth_status == Some(AuthResult::Revoked)
    })
    .await;
    assert_eq!((counts(&rig).connections, rig.total_calls()), (0, calls));
}

#[tokio::test]
async fn a_guild_left_while_live_has_no_stream_over_the_gateway() {
    let rig = patient_world().await;
    rig.discord().set_event(GUILD, 9_500, 2);
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::Event));
    let harness = Receiver::on(&platform, |_| {});
    let stream = || harness.record(GUILD).stream_status;
    eventually("live", || stream() == StreamStatus::Online).await;
    rig.discord().remove_guild(GUILD);
    eventually("left", || harness.status() == Status::Error).await;
    assert_eq!(stream(), StreamStatus::Unknown);
}

#[tokio::test]
async fn guild_outage_removal_and_return_are_distinguished() {
    let (rig, _platform, harness) = live().await;
    rig.discord().set_outage(GUILD, true);
    eventually("an outage", || harness.status() == Status::Disconnected).await;
    assert_eq!(harness.error(), "discord.guild_unavailable");
    rig.discord().set_outage(GUILD, false);
    eventually("back", || harness.status() == Status::Connected).await;
    rig.discord().remove_guild(GUILD);
    eventually("removed", || harness.status() == Status::Error).await;
    assert_eq!(harness.error(), "discord.not_found");
    rig.discord().put_guild(&GuildSpec {
        id: GUILD,
        ..GuildSpec::default()
    });
    eventually("invited again", || harness.status() == Status::Connected).await;
}

#[tokio::test]
async fn a_guild_in_an_outage_from_the_start_is_not_connected() {
    let rig = patient_world().await;
    rig.discord().set_outage(GUILD, true);
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("an outage", || harness.error() == "discord.guild_unavailable").await;
    assert_eq!(harness.status(), Status::Disconnected);
    assert_eq!(harness.record(GUILD).auth_status, Some(AuthResult::Valid));
}

#[tokio::test]
async fn changes_of_what_the_bot_may_do_are_known_at_once() {
    let rig = patient_world().await;
    let platform = rig.platform(|options| {
        options.guilds = guild_options(GuildOptions {
            channels: vec![9_200],
        });
    });
    let harness = Receiver::on(&platform, |_| {});
    let holds = |name: &str| harness.record(GUILD).held().contains(&name.to_owned());
    eventually("told", || holds("SEND_MESSAGES")).await;
    let calls = rig.total_calls();
    rig.discord().set_overwrite(9_200, GUILD, 0, 0, 1 << 11);
    eventually("muted", || !holds("SEND_MESSAGES")).await;
    assert_eq!(
        harness.record(GUILD).metadata["channelPermissions"],
        "9200: missing SEND_MESSAGES"
    );
    rig.discord().put_role(GUILD, 9_100, 1 << 3, Some(true));
    eventually("administrator", || holds("MANAGE_GUILD")).await;
    rig.discord().remove_role(GUILD, 9_100);
    eventually("no longer", || !holds("MANAGE_GUILD")).await;
    rig.discord()
        .time_out(GUILD, Some(rig.clock.now().plus_millis(5_000)));
    eventually("in a timeout", || !holds("MANAGE_MESSAGES")).await;
    eventually("released by time alone", || holds("MANAGE_MESSAGES")).await;
    assert_eq!(rig.total_calls(), calls, "without one request");
}

#[tokio::test]
async fn a_mapped_stream_begins_and_ends() {
    let rig = patient_world().await;
    let platform = rig.platform(|options| options.stream_from = Some(StreamFrom::GoLive));
    let harness = Receiver::on(&platform, |_| {});
    let stream = || harness.record(GUILD).stream_status;
    eventually("offline", || stream() == StreamStatus::Offline).await;
    rig.discord().set_voice(GUILD, 77, Some(9_201), true);
    eventually("online", || stream() == StreamStatus::Online).await;
    assert_eq!(harness.record(GUILD).viewer_count, None);
    rig.discord().set_voice(GUILD, 77, Some(9_201), false);
    eventually("offline again", || stream() == StreamStatus::Offline).await;
}

#[tokio::test]
async fn identifies_are_rationed_by_our_own_record_over_restarts() {
    let rig = patient_world().await;
    for run in 1..=3_u64 {
        let platform = rig.platform(|_| {});
        let harness = Receiver::on(&platform, |options| options.identify_cap = 2);
        if run <= 2 {
            eventually("connected", || harness.status() == Status::Connected).await;
        } else {
            eventually("denied", || !harness.error().is_empty()).await;
            assert_eq!(
                (harness.status(), harness.error()),
                (Status::Disconnected, "discord.not_sent".to_owned())
            );
        }
        assert_eq!(counts(&rig).identifies, run.min(2));
        // A killed process would leave its session to the next one.
        harness.end().await;
    }
}

#[tokio::test]
async fn quick_restart_waits_before_the_next_identify() {
    let rig = Rig::start().await;
    rig.discord().knobs(|knobs| knobs.identify_window_ms = 600);
    for run in 1..=3 {
        let platform = rig.platform(|_| {});
        let harness = Receiver::on(&platform, |options| {
            options.identify_spacing = Duration::from_millis(700);
        });
        eventually("connected", || harness.status() == Status::Connected).await;
        assert_eq!(counts(&rig).identifies, run, "none was refused for haste");
        assert_eq!(harness.error(), "");
        harness.end().await;
    }
}

#[tokio::test]
async fn the_last_session_starts_are_left_to_the_bot_itself() {
    let rig = patient_world().await;
    rig.discord().knobs(|knobs| knobs.reported_remaining = Some(199));
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("denied", || !harness.error().is_empty()).await;
    assert_eq!((counts(&rig).connections, counts(&rig).identifies), (0, 0));
    assert!(harness.record(GUILD).last_error.unwrap().message.contains("199"));
}

#[tokio::test]
async fn the_board_shows_how_it_stands() {
    let rig = patient_world().await;
    // Long enough that a stall does not look like a silent gateway, whose session would be resumed.
    rig.discord().knobs(|knobs| knobs.heartbeat_interval_ms = 2_000);
    let (rig, _platform, harness) = live_in(rig).await;
    eventually("a heartbeat came back", || {
        harness.board.read().latency_ms.is_some()
    })
    .await;
    let status = harness.board.read();
    assert!(status.is_healthy());
    assert_eq!(status.summary(), "connected, 1 of 2 guilds available");
    assert_eq!((status.identifies, status.resumes), (1, 0));
    rig.discord().host().go_down();
    rig.discord().gateway(&GatewayAct::Invalid(false));
    eventually("unhealthy", || !harness.board.read().is_healthy()).await;
    eventually("and why", || harness.board.read().last_error.is_some()).await;
    rig.discord().host().come_up();
    eventually("healthy again", || harness.board.read().is_healthy()).await;
    assert!(!format!("{:?}", harness.board.read()).contains("secret-part"));
}

#[tokio::test]
async fn unknown_frames_and_events_are_ignored() {
    let (rig, _platform, harness) = live().await;
    let json = |text: &str| serde_json::from_str(text).unwrap();
    for act in [
        GatewayAct::Frame(json(r#"{"op": 99, "d": {"x": 1}}"#)),
        GatewayAct::Frame(json(r#"["not", "a", "frame"]"#)),
        GatewayAct::Frame(json(r#"{"op": 10, "d": {"heartbeat_interval": 1}}"#)),
        GatewayAct::Heartbeat,
        GatewayAct::Event("SOMETHING_NEW".into(), json(r#"{"guild_id": "9001", "a": [1]}"#)),
        GatewayAct::Event("MESSAGE_CREATE".into(), json(r#"{"id": []}"#)),
        GatewayAct::Event("GUILD_DELETE".into(), json(r#"{"unavailable": "maybe"}"#)),
    ] {
        rig.discord().gateway(&act);
    }
    rig.discord().knobs(|knobs| knobs.unknown_fields = true);
    say(&rig, &person(3));
    eventually("it still hears", || {
        harness.record(GUILD).metrics.messages_in == 3
    })
    .await;
    assert_eq!(
        (harness.status(), counts(&rig).connections),
        (Status::Connected, 1)
    );
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_tried_until_it_can() {
    let rig = patient_world().await;
    rig.discord().host().go_down();
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("told", || harness.error().starts_with("network.")).await;
    assert_eq!(
        (harness.status(), harness.record(GUILD).auth_status),
        (Status::Disconnected, None)
    );
    rig.discord().host().come_up();
    eventually("connected", || harness.status() == Status::Connected).await;
}

#[tokio::test]
async fn a_greeting_that_never_comes_does_not_hold_up_the_end() {
    let rig = Rig::start().await;
    rig.discord().knobs(|knobs| knobs.no_hello = true);
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("a socket is open", || counts(&rig).connections == 1).await;
    harness.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), harness.listening).await;
    assert!(ended.is_ok(), "it does not end");
    assert_eq!(counts(&rig).identifies, 0);
}

#[tokio::test]
async fn clean_stop_closes_the_session_and_reports_totals() {
    let (rig, _platform, harness) = live().await;
    say(&rig, &person(2));
    // Frames on the socket keep their order, so the messages arrive before the next heartbeat's acknowledgement.
    eventually("counted", || harness.record(GUILD).metrics.messages_in == 2).await;
    let Receiver {
        incoming,
        stop,
        listening,
        ..
    } = harness;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), listening)
        .await
        .unwrap()
        .unwrap();
    eventually("the session is over", || rig.discord().live_sessions() == 0).await;
    let closed = || {
        let incoming = incoming.lock();
        let key = key(GUILD);
        let all = incoming.iter().filter(|observed| observed.source == key);
        SourceDocument::from_knowledge(key.clone(), Knowledge::of(all))
            .record()
            .status
    };
    eventually("told", || closed() == Status::Disconnected).await;
    let truth = rig.discord().truth();
    assert_eq!(
        truth["gateway"]["sessions"].as_array().unwrap().len(),
        0,
        "closed with 1000"
    );
}

#[tokio::test]
async fn full_sink_does_not_stop_heartbeats() {
    let rig = hasty_world().await;
    let platform = rig.platform(|_| {});
    let options = GatewayOptions {
        sources: vec![key(GUILD)],
        ..GatewayOptions::default()
    };
    let (sink, mut observed) = mpsc::channel(1);
    let listener = platform.listener(options).unwrap();
    let _listening = own(async move {
        listener.run(std::future::pending(), sink).await;
    });
    eventually("many beats", || counts(&rig).heartbeats >= 8).await;
    // After a stall the session may just be about to be resumed.
    eventually("a session", || rig.discord().live_sessions() == 1).await;
    assert_eq!(counts(&rig).identifies, 1);
    assert!(observed.recv().await.is_some(), "what was heard is still there");
}

#[tokio::test]
async fn an_own_member_entry_that_is_missing_is_asked_for() {
    let (rig, _platform, harness) = live().await;
    let mut whole = serde_json::json!({"id": "9001", "name": "Lab", "owner_id": "77", "members": [],
        "roles": [{"id": "9001", "permissions": "0"}, {"id": "9002", "permissions": "8192"}]});
    whole["channels"] = serde_json::json!([]);
    rig.discord()
        .gateway(&GatewayAct::Event("GUILD_CREATE".into(), whole));
    eventually("computed", || harness.record(GUILD).held() == ["MANAGE_MESSAGES"]).await;
    assert_eq!(rig.calls("guilds/9001/members/4001"), 1);
}
