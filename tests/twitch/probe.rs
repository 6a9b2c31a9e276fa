//! The cost of a probe, how its calls are shared, and its observations besides verdicts.

use std::time::{Duration, Instant};

use bitbrat::core::observation::Fact;
use bitbrat::core::stream::StreamStatus;
use bitbrat::platforms::twitch;
use bitbrat::platforms::{Platform, Probe};
use bitbrat::sim::Fault;
use bitbrat::sim::twitch::{ChannelSpec, Role};

use super::{BOT, RAT, World, key, look};

fn many(world: &World, count: usize) -> Vec<String> {
    let ids: Vec<_> = (1..=count).map(|id| id.to_string()).collect();
    for id in &ids {
        world.twitch().add_channel(id, &format!("channel{id}"));
    }
    ids
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn ten_thousand_sources_take_exactly_100_calls() {
    let world = World::confidential().await;
    let ids = many(&world, 10_000);
    for id in ids.iter().step_by(7) {
        world.twitch().go_live(id).unwrap();
    }
    let slow = Fault::delay(50).on("/helix");
    world.fail(slow);
    let seen = world.look(&[Probe::Stream, Probe::Viewers], &refs(&ids)).await;
    assert_eq!(
        (world.requests("GET", "/helix/streams"), seen.summary.calls),
        (100, 100)
    );
    assert_eq!(seen.summary.problems, []);
    assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamSeen { .. })), 1429);
    assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamAbsent)), 8571);
    assert_eq!(seen.progress.last(), Some(&(100, 100)));
    assert_eq!(
        world.twitch().host().journal().peak_in_flight(),
        92,
        "eight until Twitch has reported the points, then all others"
    );
}

#[tokio::test]
async fn permissions_take_one_call_per_100_moderated_channels() {
    let world = World::confidential().await;
    let ids = many(&world, 1_000);
    for id in &ids[..250] {
        world.twitch().set_role(id, BOT, Role::Moderator, true);
    }
    let seen = world.look(&[Probe::Permissions], &refs(&ids)).await;
    assert_eq!(
        (
            world.requests("GET", "/helix/moderation/channels"),
            seen.summary.calls
        ),
        (3, 3)
    );
    let held = |id: &&String| seen.verdict(id).permissions.contains(&"MODERATOR".to_owned());
    assert_eq!(ids.iter().filter(held).count(), 250);
}

#[tokio::test]
async fn rate_limit_is_observed_before_any_rejection() {
    let world = World::confidential().await;
    // One point a second is refilled, and sixty are available at first.
    world.twitch().knobs(|knobs| knobs.bucket = Some(60));
    let ids = many(&world, 6_200);
    let platform = world.platform();
    // The first response contains the bucket's size.
    look(&platform, &[Probe::Connection], &[RAT]).await;
    let start = Instant::now();
    let clock = std::sync::Arc::clone(&world.sim.clock);
    let ids = refs(&ids);
    let looking = look(&platform, &[Probe::Stream], &ids);
    tokio::pin!(looking);
    let mut advanced = 0;
    let seen = loop {
        tokio::select! {
            seen = &mut looking => break seen,
            // The simulation's time advances with ours, which a loaded machine lets pass in larger steps.
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let passed = i64::try_from(start.elapsed().as_millis()).unwrap();
                clock.advance(passed - advanced);
                advanced = passed;
            }
        }
    };
    assert_eq!(seen.summary.calls, 62, "{:?}", seen.summary.problems);
    assert!(start.elapsed() >= Duration::from_secs(2));
    let refused = world.twitch().host().journal().to_json().to_string();
    assert!(!refused.contains("\"429\":"), "somebody had to refuse");
    assert_eq!(platform.rate_limits()[0].size, 60);
}

#[tokio::test]
async fn a_503_is_asked_again_and_a_400_is_not() {
    let world = World::confidential().await;
    world.twitch().go_live(RAT).unwrap();
    let faults = world.twitch().host().faults();
    faults.add(Fault::status(503).on("/helix/streams").times(2));
    let seen = world.look(&[Probe::Stream], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).stream.value, StreamStatus::Online);
    assert_eq!(seen.summary.calls, 3);
    faults.add(Fault::status(400).on("/helix/users"));
    let seen = world.look(&[Probe::Connection], &[RAT]).await;
    assert_eq!((seen.summary.calls, seen.failure(RAT).unwrap().0), (1, true));
}

#[tokio::test]
async fn one_batch_that_fails_does_not_spoil_the_others() {
    let world = World::confidential().await;
    let ids = many(&world, 250);
    let fault = Fault {
        query: Some("user_id=101&".to_owned()),
        ..Fault::status(500).on("/helix/streams")
    };
    world.fail(fault);
    let seen = world.look(&[Probe::Stream], &refs(&ids)).await;
    assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamAbsent)), 150);
    assert_eq!(seen.failure("150"), Some((false, "http.500".to_owned())));
    assert_eq!(seen.failure("250"), None);
}

#[tokio::test]
async fn a_platform_that_is_gone_is_not_asked_a_hundred_times() {
    let world = World::confidential().await;
    let ids = many(&world, 5_000);
    let platform = world.platform();
    look(&platform, &[Probe::Connection], &[RAT]).await;
    world.twitch().host().go_down();
    let seen = look(&platform, &[Probe::Connection, Probe::Stream], &refs(&ids)).await;
    assert!(seen.summary.calls <= 60, "{}", seen.summary.calls);
    assert_eq!(
        seen.failure("5000").map(|(refused, _)| refused),
        Some(false),
        "the last one is down too"
    );
}

#[tokio::test]
async fn latency_is_measured_and_observations_are_twitch_dated() {
    let world = World::confidential().await;
    world.sim.clock.set_skew(900_000);
    let platform = world.platform();
    let seen = look(&platform, &[Probe::Connection], &[RAT]).await;
    assert_eq!(seen.count(|fact| matches!(fact, Fact::Latency { .. })), 1);
    // Accepted once it has held for a while; from then on observations are dated by Twitch.
    world.sim.clock.advance(30_000);
    let seen = look(&platform, &[Probe::Connection, Probe::Stream], &[RAT]).await;
    let at = seen.observations.last().unwrap().at;
    let apart = at.millis_since(world.sim.clock.wall()).abs();
    assert!(apart < 3_000, "{apart}");
}

#[tokio::test]
async fn names_are_resolved_to_ids_and_unknown_ones_to_nothing() {
    let world = World::confidential().await;
    world.twitch().put_channel(ChannelSpec {
        id: "77".to_owned(),
        login: Some("yukinoniwa".to_owned()),
        name: Some("雪の庭".to_owned()),
        ..ChannelSpec::default()
    });
    let names = [
        "#RatCaster",
        "nobody_here",
        "YukiNoNiwa",
        "not a login",
        "ratcaster",
    ];
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let keys = world.platform().resolve(&names).await.unwrap();
    assert_eq!(
        keys,
        [Some(key(RAT)), None, Some(key("77")), None, Some(key(RAT))]
    );
    assert_eq!(world.requests("GET", "/helix/users"), 1);
}

#[tokio::test]
async fn without_bot_app_token_reads_and_is_authorized() {
    let world = World::without_bot(("app", Some("hush-secret"))).await;
    world.twitch().go_live(RAT).unwrap();
    let seen = world
        .look(&[Probe::Connection, Probe::Auth, Probe::Stream], &[RAT])
        .await;
    let verdict = seen.verdict(RAT);
    assert_eq!(verdict.stream.value, StreamStatus::Online);
    assert_eq!(verdict.status.value.to_string(), "CONNECTED");
    assert_eq!(verdict.auth.unwrap().value.to_string(), "VALID");
    assert_eq!(world.requests("POST", "/oauth2/token"), 1);
    world.look(&[Probe::Stream], &[RAT]).await;
    assert_eq!(world.requests("POST", "/oauth2/token"), 1, "the token is kept");
}

#[tokio::test]
async fn rejected_bot_token_does_not_stop_app_token_reads() {
    let world = World::confidential().await;
    world.twitch().go_live(RAT).unwrap();
    world.twitch().disconnect(BOT);
    let seen = world
        .look(&[Probe::Connection, Probe::Auth, Probe::Stream], &[RAT])
        .await;
    let verdict = seen.verdict(RAT);
    assert_eq!(verdict.stream.value, StreamStatus::Online);
    assert_eq!(verdict.auth.unwrap().value.to_string(), "REVOKED");
    assert_eq!(verdict.status.value.to_string(), "ERROR");
}

#[tokio::test]
async fn missing_tokens_report_the_next_step() {
    let world = World::without_bot(("pub", None)).await;
    let seen = world
        .look(&[Probe::Connection, Probe::Auth, Probe::Permissions], &[RAT])
        .await;
    assert_eq!(
        seen.failure(RAT),
        Some((true, "twitch.not_configured".to_owned()))
    );
    assert!(
        seen.summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("bitbrat auth login twitch"))
    );
    assert_eq!(world.twitch().host().journal().total(), 0);
    assert!(seen.verdict(RAT).auth.is_none());
}

#[tokio::test]
async fn a_broadcasters_token_serves_for_public_reads_too() {
    let world = World::without_bot(("pub", None)).await;
    world.give_token(&twitch::broadcaster(RAT), RAT, &[]).await;
    world.twitch().go_live(RAT).unwrap();
    let seen = world.look(&[Probe::Stream], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).stream.value, StreamStatus::Online);
}
