//! Sessions that outlive a process, a listener or a token, against the simulated gateway.

use tokio::sync::mpsc;

use super::gateway::{Ear, counts, eventually, live, patient_world, person, say};
use super::*;
use crate::core::observation::AuthResult;
use crate::core::verdict::Status;
use crate::platforms::discord::gateway::{Ending, GatewayOptions};
use crate::sim::discord::GatewayAct;
use crate::tokens::{MemoryTokenStore, StoredToken, TokenRecord, TokenStore};

async fn kept(rig: &Rig) {
    let file = rig.state.path().join("discord-session.json");
    eventually("the session is kept", || file.exists()).await;
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("secret-part"), "the token is in the file");
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_its_session_to_the_next_one() {
    let (rig, platform, ear) = live().await;
    say(&rig, &person(3));
    eventually("counted", || ear.record(GUILD).metrics.messages_in == 3).await;
    kept(&rig).await;
    let before = ear.record(GUILD);
    drop((ear, platform));
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    say(&rig, &person(2));
    rig.discord().put_role(GUILD, 9_100, 1 << 34, Some(true));
    let platform = rig.platform(|_| {});
    let ear = Ear::on(&platform, |_| {});
    eventually("connected", || ear.status() == Status::Connected).await;
    eventually("all are counted", || ear.record(GUILD).metrics.messages_in == 5).await;
    let record = ear.record(GUILD);
    assert_eq!(record.auth_status, Some(AuthResult::Valid));
    assert_eq!(before.permissions.len() + 1, record.permissions.len());
    assert!(
        record.permissions.contains(&"MANAGE_THREADS".to_owned()),
        "what changed in between is known"
    );
    assert_eq!(ear.record(9_002).last_error.unwrap().code, "discord.not_in_guild");
    let told = counts(&rig);
    assert_eq!((told.identifies, told.resumes, told.misplaced_resumes), (1, 1, 0));
    assert_eq!(
        rig.calls("gateway/bot"),
        1,
        "nobody asked whether a session may be begun"
    );
    assert_eq!(ear.board.read().resumes, 1);
}

#[tokio::test]
async fn a_session_that_has_ended_meanwhile_is_begun_anew_and_totals_go_on() {
    let (rig, platform, ear) = live().await;
    say(&rig, &person(3));
    eventually("counted", || ear.record(GUILD).metrics.messages_in == 3).await;
    kept(&rig).await;
    let stored = BTreeMap::from([(
        key(GUILD),
        crate::core::counters::Counters {
            messages_in: 3,
            ..crate::core::counters::Counters::default()
        },
    )]);
    drop((ear, platform));
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    rig.discord().gateway(&GatewayAct::Invalid(false));
    let platform = rig.platform(|_| {});
    let ear = Ear::on(&platform, |options| options.restored = stored);
    eventually("connected", || ear.status() == Status::Connected).await;
    assert_eq!((counts(&rig).identifies, counts(&rig).resumes), (2, 1));
    say(&rig, &person(1));
    eventually("counted on", || ear.record(GUILD).metrics.messages_in == 4).await;
}

#[tokio::test]
async fn a_session_is_not_taken_up_for_guilds_that_it_never_told_of() {
    let (rig, platform, ear) = live().await;
    kept(&rig).await;
    drop((ear, platform));
    rig.discord().put_guild(&GuildSpec {
        id: 9_003,
        ..GuildSpec::default()
    });
    let platform = rig.platform(|_| {});
    let ear = Ear::on(&platform, |options| {
        options.sources = vec![key(GUILD), key(9_003)];
    });
    eventually("connected", || ear.record(9_003).status == Status::Connected).await;
    assert_eq!((counts(&rig).identifies, counts(&rig).resumes), (2, 0));
}

#[tokio::test]
async fn a_clean_end_leaves_nothing_to_take_up() {
    let (rig, _platform, ear) = live().await;
    kept(&rig).await;
    ear.end().await;
    assert!(!rig.state.path().join("discord-session.json").exists());
}

#[tokio::test]
async fn a_listener_that_hands_over_tells_nobody_and_leaves_totals_and_session() {
    let (rig, platform, ear) = live().await;
    say(&rig, &person(2));
    eventually("counted", || ear.record(GUILD).metrics.messages_in == 2).await;
    kept(&rig).await;
    drop(ear);
    eventually("it is gone", || rig.discord().live_sessions() == 0).await;
    let options = GatewayOptions {
        sources: vec![key(GUILD), key(9_002)],
        ..GatewayOptions::default()
    };
    let board = Arc::clone(&options.board);
    let (sink, mut told) = mpsc::channel(1_000);
    let until_taken_up = async {
        eventually("taken up", || board.read().resumes == 1).await;
        Ending::HandOver
    };
    let listener = platform.listener(options).unwrap();
    let totals = listener.run(until_taken_up, sink).await;
    assert_eq!(totals[&key(GUILD)].messages_in, 2);
    let mut closed = false;
    while let Some(observation) = told.recv().await {
        closed |= format!("{:?}", observation.fact).contains("Closed");
    }
    assert!(!closed, "an end was told");
    let ear = Ear::on(&platform, |_| {});
    eventually("taken up again", || ear.status() == Status::Connected).await;
    assert_eq!(counts(&rig).identifies, 1);
}

#[tokio::test]
async fn polls_say_nothing_less_exact_than_what_the_gateway_knows() {
    let (rig, platform, ear) = live().await;
    rig.discord()
        .time_out(GUILD, Some(rig.clock.now().plus_secs(3_600)));
    eventually("known", || ear.record(GUILD).permissions.len() == 2).await;
    let calls = rig.total_calls();
    let both = [Probe::Connection, Probe::Permissions];
    let polled = look(&platform, &both, &[GUILD]).await.record(GUILD);
    assert_eq!(polled.permissions, ["READ_MESSAGE_HISTORY", "VIEW_CHANNEL"]);
    assert_eq!(polled.metadata["mode"], "gateway");
    assert_eq!(
        rig.total_calls() - calls,
        1,
        "the list, and nobody asked about the member"
    );
    ear.end().await;
    let polled = look(&platform, &both, &[GUILD]).await.record(GUILD);
    assert_eq!(polled.permissions.len(), 2);
    assert_eq!(polled.metadata["mode"], "poll");
    assert_eq!(rig.calls("guilds/9001/members/4001"), 1, "now nobody else knows");
}

#[tokio::test]
async fn a_token_that_is_replaced_while_we_run_is_taken_over_by_the_next_look() {
    let rig = patient_world().await;
    let tokens = Arc::new(MemoryTokenStore::default());
    let keep = async |text: &str| {
        let lease = tokens.lease(&crate::platforms::discord::bot()).await.unwrap();
        let token = Some(StoredToken::unproven(text.to_owned(), rig.clock.now()));
        let record = TokenRecord {
            token,
            ..TokenRecord::default()
        };
        lease.save(&record).await.unwrap();
    };
    keep(TOKEN).await;
    let platform = rig
        .platform(|_| {})
        .following(tokens.clone() as Arc<dyn TokenStore>);
    let mut changes = platform.token_changes();
    let auth = |seen: &Seen| seen.record(GUILD).auth_status;
    assert_eq!(
        auth(&look(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    let fresh = rig.discord().reset_token(BOT, false).unwrap();
    assert_eq!(
        auth(&look(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Revoked)
    );
    let silent = look(&platform, &Probe::ALL, &[GUILD]).await;
    assert_eq!(
        (auth(&silent), silent.summary.calls),
        (Some(AuthResult::Revoked), 0)
    );
    assert!(!changes.has_changed().unwrap());
    keep(&fresh).await;
    assert_eq!(
        auth(&look(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    assert!(changes.has_changed().unwrap(), "listeners are told");
    changes.mark_unchanged();
    let ear = Ear::on(&platform, |_| {});
    eventually("connected with the new one", || ear.status() == Status::Connected).await;
    keep("with a blank").await;
    assert_eq!(
        auth(&look(&platform, &Probe::ALL, &[GUILD]).await),
        Some(AuthResult::Valid)
    );
    assert!(
        !changes.has_changed().unwrap(),
        "what can be no token changes nothing"
    );
}
