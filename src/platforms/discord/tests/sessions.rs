//! Sessions that outlive a process, a listener or a token, against the simulated gateway.

use tokio::sync::mpsc;

use super::gateway::{Receiver, counts, eventually, live, patient_world, person, say};
use super::*;
use crate::core::code::Code;
use crate::core::observation::AuthResult;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::verdict::Status;
use crate::platforms::discord::StreamFrom;
use crate::platforms::discord::gateway::{GatewayOptions, Shutdown};
use crate::sim::discord::GatewayAct;
use crate::tokens::{MemoryTokenStore, StoredToken, TokenStore, TokenStoreExt as _};

async fn kept(rig: &Rig) {
    let file = rig.state.path().join("discord-session.json");
    eventually("the session is kept", || file.exists()).await;
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("secret-part"), "the token is in the file");
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_its_session_to_the_next_one() {
    let (rig, platform, harness) = live().await;
    say(&rig, &person(3));
    eventually("counted", || harness.record(GUILD).metrics.messages_in == 3).await;
    kept(&rig).await;
    let before = harness.record(GUILD);
    drop((harness, platform));
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    say(&rig, &person(2));
    rig.discord().put_role(GUILD, 9_100, 1 << 34, Some(true));
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |_| {});
    eventually("connected", || harness.status() == Status::Connected).await;
    eventually("all are counted", || {
        harness.record(GUILD).metrics.messages_in == 5
    })
    .await;
    let record = harness.record(GUILD);
    assert_eq!(record.auth_status, Some(AuthResult::Valid));
    assert_eq!(before.held().len() + 1, record.held().len());
    assert!(
        record.held().contains(&"MANAGE_THREADS".to_owned()),
        "what changed in between is known"
    );
    assert_eq!(
        harness.record(9_002).last_error.unwrap().code,
        Code::NotFound(PlatformName::Discord)
    );
    let reported = counts(&rig);
    assert_eq!(
        (reported.identifies, reported.resumes, reported.misplaced_resumes),
        (1, 1, 0)
    );
    assert_eq!(
        rig.calls("gateway/bot"),
        1,
        "no request asked whether a session may be begun"
    );
    assert_eq!(harness.board.read().resumes, 1);
}

#[tokio::test]
async fn ended_session_is_identified_again_and_totals_continue() {
    let (rig, platform, harness) = live().await;
    say(&rig, &person(3));
    eventually("counted", || harness.record(GUILD).metrics.messages_in == 3).await;
    kept(&rig).await;
    let stored = BTreeMap::from([(
        key(GUILD),
        crate::core::counters::Counters {
            messages_in: 3,
            ..crate::core::counters::Counters::default()
        },
    )]);
    drop((harness, platform));
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    rig.discord().gateway(&GatewayAct::Invalid(false));
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |options| options.restored = stored);
    eventually("connected", || harness.status() == Status::Connected).await;
    assert_eq!((counts(&rig).identifies, counts(&rig).resumes), (2, 1));
    say(&rig, &person(1));
    eventually("counted on", || harness.record(GUILD).metrics.messages_in == 4).await;
}

#[tokio::test]
async fn session_is_not_resumed_for_guilds_it_never_covered() {
    let (rig, platform, harness) = live().await;
    kept(&rig).await;
    drop((harness, platform));
    rig.discord().put_guild(&GuildSpec {
        id: 9_003,
        ..GuildSpec::default()
    });
    let platform = rig.platform(|_| {});
    let harness = Receiver::on(&platform, |options| {
        options.sources = vec![key(GUILD), key(9_003)];
    });
    eventually("connected", || harness.record(9_003).status == Status::Connected).await;
    assert_eq!((counts(&rig).identifies, counts(&rig).resumes), (2, 0));
}

#[tokio::test]
async fn a_clean_end_leaves_nothing_to_take_up() {
    let (rig, _platform, harness) = live().await;
    kept(&rig).await;
    harness.end().await;
    assert!(!rig.state.path().join("discord-session.json").exists());
}

#[tokio::test]
async fn handover_reports_no_close_and_keeps_session_and_totals() {
    let (rig, platform, harness) = live().await;
    say(&rig, &person(2));
    eventually("counted", || harness.record(GUILD).metrics.messages_in == 2).await;
    kept(&rig).await;
    drop(harness);
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    let options = GatewayOptions {
        sources: vec![key(GUILD), key(9_002)],
        ..GatewayOptions::default()
    };
    let board = Arc::clone(&options.board);
    let (sink, mut reported) = mpsc::channel(1_000);
    let until_taken_up = async {
        eventually("taken up", || board.read().resumes == 1).await;
        Shutdown::Handover
    };
    let listener = platform.listener(options).unwrap();
    let totals = listener.run(until_taken_up, sink).await;
    assert_eq!(totals[&key(GUILD)].messages_in, 2);
    let mut closed = false;
    while let Some(observation) = reported.recv().await {
        closed |= format!("{:?}", observation.fact).contains("Closed");
    }
    assert!(!closed, "an end was told");
    let harness = Receiver::on(&platform, |_| {});
    eventually("taken up again", || harness.status() == Status::Connected).await;
    assert_eq!(counts(&rig).identifies, 1);
}

#[tokio::test]
async fn polls_do_not_override_more_exact_gateway_permissions() {
    let (rig, platform, harness) = live().await;
    rig.discord()
        .time_out(GUILD, Some(rig.clock.now().plus_secs(3_600)));
    eventually("known", || harness.record(GUILD).held().len() == 2).await;
    let calls = rig.total_calls();
    let both = [Probe::Connection, Probe::Permissions];
    let polled = probe(&platform, &both, &[GUILD]).await.record(GUILD);
    assert_eq!(polled.held(), ["READ_MESSAGE_HISTORY", "VIEW_CHANNEL"]);
    assert_eq!(polled.metadata["mode"], "gateway");
    assert_eq!(
        rig.total_calls() - calls,
        1,
        "the list, and no request about the member"
    );
    harness.end().await;
    let polled = probe(&platform, &both, &[GUILD]).await.record(GUILD);
    assert_eq!(polled.held().len(), 2);
    assert_eq!(polled.metadata["mode"], "poll");
    assert_eq!(
        rig.calls("guilds/9001/members/4001"),
        1,
        "now there is no other source of it"
    );
}

#[tokio::test]
async fn token_replaced_at_runtime_is_used_by_next_probe() {
    let rig = patient_world().await;
    let tokens = Arc::new(MemoryTokenStore::default());
    let keep = async |text: &str| {
        let token = StoredToken::unproven(text.to_owned(), rig.clock.now());
        let bot = crate::platforms::discord::bot();
        tokens.set_token(&bot, Some(token)).await.unwrap();
    };
    keep(TOKEN).await;
    let platform = rig
        .platform(|_| {})
        .following(tokens.clone() as Arc<dyn TokenStore>);
    let mut changes = platform.token_changes();
    let auth = |seen: &Seen| seen.record(GUILD).auth_status;
    assert_eq!(
        auth(&probe(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    let fresh = rig.discord().reset_token(BOT, false).unwrap();
    assert_eq!(
        auth(&probe(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Revoked)
    );
    let silent = probe(&platform, &Probe::ALL, &[GUILD]).await;
    assert_eq!(
        (auth(&silent), silent.summary.calls),
        (Some(AuthResult::Revoked), 0)
    );
    assert!(!changes.has_changed().unwrap());
    keep(&fresh).await;
    assert_eq!(
        auth(&probe(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    assert!(changes.has_changed().unwrap(), "listeners are told");
    changes.mark_unchanged();
    let harness = Receiver::on(&platform, |_| {});
    eventually("connected with the new one", || {
        harness.status() == Status::Connected
    })
    .await;
    keep("with a blank").await;
    assert_eq!(
        auth(&probe(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    assert!(
        !changes.has_changed().unwrap(),
        "what can be no token changes nothing"
    );
}

/// The stream statuses that follow from the evidence, step by step.
fn verdicts(observations: &[Observation]) -> Vec<StreamStatus> {
    let mut document = SourceDocument::new(key(GUILD));
    let mut steps = vec![document.verdict.stream.value];
    for observation in observations {
        document.join(Knowledge::from(observation));
        steps.push(document.verdict.stream.value);
    }
    steps.dedup();
    steps
}

fn to_summary(history: &[Observation]) -> String {
    let lines = history
        .iter()
        .map(|seen| format!("{} {:?}\n", seen.at, seen.fact));
    lines.collect()
}

#[tokio::test]
async fn a_replay_after_kills_repeats_no_stage() {
    repeats_no_stage(false).await;
}

#[tokio::test]
async fn a_replay_that_contains_resumed_repeats_no_stage() {
    repeats_no_stage(true).await;
}

async fn repeats_no_stage(replays_resumed: bool) {
    let rig = patient_world().await;
    rig.discord()
        .knobs(|knobs| knobs.replays_resumed = replays_resumed);
    rig.discord().put_channel(&ChannelSpec {
        guild: GUILD,
        id: 9_202,
        kind: 13,
        ..ChannelSpec::default()
    });
    let start = |stored: Vec<Observation>| {
        let platform = rig.platform(|all| all.stream_from = Some(StreamFrom::Stage));
        let known = Knowledge::of(&stored).evidence.stream;
        let harness = Receiver::on(&platform, |options| {
            options.streams = [(key(GUILD), known)].into();
        });
        (platform, harness)
    };
    let (platform, harness) = start(Vec::new());
    eventually("connected", || harness.status() == Status::Connected).await;
    kept(&rig).await;
    let online = |harness: &Receiver| harness.record(GUILD).stream_status == StreamStatus::Online;
    rig.discord().set_stage(9_202, Some("Q&A"));
    eventually("the stage is live", || online(&harness)).await;
    rig.discord().set_stage(9_202, None);
    eventually("the stage has ended", || !online(&harness)).await;
    rig.discord().set_stage(9_202, Some("more"));
    eventually("another stage is live", || online(&harness)).await;
    let mut history = harness.streams(GUILD);
    let mut steps = verdicts(&history);
    assert_eq!(
        steps.iter().filter(|step| **step == StreamStatus::Online).count(),
        2
    );
    drop((harness, platform));
    // Killed so soon that it stored nothing: the next process resumes from the same state again.
    let state = rig.state.path().join("discord-session.json");
    let stored = std::fs::read(&state).unwrap();
    for kill in 1..=2 {
        eventually("it is gone", || rig.discord().live_sessions() == 0).await;
        std::fs::write(&state, &stored).unwrap();
        let (platform, harness) = start(history.clone());
        eventually("taken over", || harness.status() == Status::Connected).await;
        history.extend(harness.streams(GUILD));
        assert_eq!(
            verdicts(&history),
            steps,
            "after kill {kill}: {}",
            to_summary(&history)
        );
        // What happens now is replayed to the next process, after the RESUMED of this one.
        let before = harness.streams(GUILD).len();
        rig.discord().set_stage(9_202, None);
        rig.discord().set_stage(9_202, Some("and more"));
        eventually("both are received", || harness.streams(GUILD).len() >= before + 2).await;
        history.extend(harness.streams(GUILD).split_off(before));
        steps = verdicts(&history);
        drop((harness, platform));
    }
    assert_eq!(counts(&rig).identifies, 1);
}
