//! Wrong states must be impossible: each test is named after the reason for which another program would have reported one.

use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::Observation;
use std::time::Duration;

use bitbrat::core::observation::{AuthResult, Fact, LinkState};
use bitbrat::core::source::PlatformName;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::{Status, Verdict};
use bitbrat::platforms::twitch;
use bitbrat::platforms::{Platform as _, Probe};
use bitbrat::sim::twitch::{ChannelSpec, StreamSpec};
use bitbrat::sim::{Fault, FaultBody, WireFault};
use bitbrat::tokens::StoredToken;

use super::{BOT, RAT, World, is_claim, look};

const STATES: [Probe; 4] = [
    Probe::Connection,
    Probe::Stream,
    Probe::Viewers,
    Probe::Permissions,
];

/// A channel that is not live.
const QUIET: &str = "900300";

/// Timeout for responses that never arrive.
const SOON: Duration = Duration::from_millis(300);

/// A live channel is observed, then Helix fails for ten minutes: the stream stays ONLINE, and nothing else is claimed.
async fn helix_fails_with(fault: Fault, code: &str, refused: bool) {
    let world = World::confidential().await;
    world.twitch().go_live(RAT).unwrap();
    let platform = world.platform();
    let mut reported: Vec<Observation> = look(&platform, &STATES, &[RAT]).await.observations;
    for _ in 0..2 {
        world.sim.clock.advance(300_000);
        world.twitch().host().faults().clear();
        world.fail(fault.clone().on("/helix"));
        let seen = look(&platform, &STATES, &[RAT]).await;
        let claims: Vec<_> = seen
            .of(RAT)
            .into_iter()
            .filter(|fact| is_claim(fact) && !is_about_own_scopes(fact) && !is_confirmed(fact))
            .collect();
        assert!(claims.is_empty(), "{claims:?}");
        assert_eq!(seen.failure(RAT), Some((refused, code.to_owned())));
        reported.extend(seen.observations);
    }
    let verdict = Verdict::of(PlatformName::Twitch, &Knowledge::of(&reported).evidence);
    assert_eq!(verdict.stream.value, StreamStatus::Online);
    assert!(verdict.viewer_count.is_some());
    let status = verdict.status.value.to_string();
    assert_eq!(status, if refused { "ERROR" } else { "DISCONNECTED" });
}

/// A token that Helix rejects is checked at once, and `validate` accepts it.
fn is_confirmed(fact: &Fact) -> bool {
    matches!(fact, Fact::Auth { check, .. } if check.result == AuthResult::Valid)
}

/// Ids and scopes need no request to Helix; a permanent rejection adds why a permission is unknown.
fn is_about_own_scopes(fact: &Fact) -> bool {
    match fact {
        Fact::Permissions { method, .. } if method == "twitch.identity" || method == "twitch.scopes" => true,
        Fact::Permissions { grants, .. } => grants.granted.is_empty() && grants.denied.is_empty(),
        _ => false,
    }
}

#[tokio::test]
async fn a_401_never_writes_offline() {
    // A gateway's message in Twitch's format, while `validate` accepts the token: there is no rejection.
    helix_fails_with(Fault::status(401), "twitch.unreadable", false).await;
}

#[tokio::test]
async fn rejected_token_never_reports_stream_offline() {
    let world = World::public().await;
    world.twitch().go_live(RAT).unwrap();
    let mut reported = world.look(&STATES, &[RAT]).await.observations;
    world.twitch().disconnect(BOT);
    for _ in 0..3 {
        world.sim.clock.advance(200_000);
        let seen = world.look(&STATES, &[RAT]).await;
        assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamAbsent)), 0);
        assert_eq!(seen.failure(RAT), Some((true, "twitch.unauthorized".to_owned())));
        reported.extend(seen.observations);
    }
    let verdict = Verdict::of(PlatformName::Twitch, &Knowledge::of(&reported).evidence);
    assert_eq!(verdict.stream.value, StreamStatus::Online);
}

#[tokio::test]
async fn a_403_never_writes_offline() {
    helix_fails_with(Fault::status(403), "twitch.forbidden", true).await;
}

#[tokio::test]
async fn a_404_never_writes_offline() {
    helix_fails_with(Fault::status(404), "twitch.rejected", true).await;
}

/// Facts of a probe of two channels for a response of `streams`, both having been live before.
async fn streams_answer(body: &str) -> (Vec<Fact>, Vec<Fact>) {
    let world = World::confidential().await;
    let body = FaultBody::Text(body.to_owned());
    world.fail(Fault::body(body).on("/helix/streams"));
    let seen = world.look(&[Probe::Stream, Probe::Viewers], &[RAT, QUIET]).await;
    let facts = |id| seen.of(id).into_iter().cloned().collect();
    (facts(RAT), facts(QUIET))
}

fn is_absent(fact: &Fact) -> bool {
    matches!(fact, Fact::StreamAbsent)
}

#[tokio::test]
async fn a_row_that_names_its_channel_leaves_only_that_one_open() {
    let odd = format!(r#"{{"data":[{{"id":null,"user_id":{RAT}}}],"pagination":{{}}}}"#);
    let (rat, quiet) = streams_answer(&odd).await;
    assert!(!rat.iter().any(is_absent) && quiet.iter().any(is_absent));
}

#[tokio::test]
async fn row_with_an_impossible_id_marks_no_channel_as_missing() {
    for id in ["0", "\"0\"", "-900300", "900300.5", "1e30", "true", "\"\""] {
        let (rat, quiet) = streams_answer(&format!(
            r#"{{"data":[{{"id":"1","user_id":{id},"type":"live"}}]}}"#
        ))
        .await;
        assert!(!rat.iter().chain(&quiet).any(is_absent), "{id}");
        let world = World::confidential().await;
        let body = FaultBody::Text(format!(r#"{{"data":[{{"id":{id},"login":"a"}}]}}"#));
        let faults = world.twitch().host().faults();
        faults.add(Fault::body(body).on("/helix/users"));
        let seen = world.look(&STATES, &[RAT, QUIET]).await;
        let gone = |fact: &Fact| matches!(fact, Fact::NoSuchSource { .. });
        assert_eq!(seen.count(gone), 0, "{id}");
        let resolved = world.platform().resolve(&["a".to_owned()]).await;
        assert!(!matches!(resolved, Ok(found) if found[0].is_some()), "{id}");
    }
}

#[tokio::test]
async fn answer_without_its_list_ends_neither_stream_nor_channel() {
    for body in [
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        r#"{"data":"x"}"#,
        r#"{"total":0}"#,
        "{}",
        "null",
        "",
    ] {
        let (rat, quiet) = streams_answer(body).await;
        assert!(!rat.iter().chain(&quiet).any(is_absent), "{body}");
        let world = World::confidential().await;
        let faults = world.twitch().host().faults();
        faults.add(Fault::body(FaultBody::Text(body.to_owned())).on("/helix/users"));
        let seen = world.look(&STATES, &[RAT]).await;
        assert_eq!(
            seen.count(|fact| matches!(fact, Fact::NoSuchSource { .. })),
            0,
            "{body}"
        );
        assert!(
            world.platform().resolve(&["a".to_owned()]).await.is_err(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn impossible_viewer_count_is_left_out() {
    for viewers in [
        "-5",
        "1e30",
        "\"many\"",
        "\"-5\"",
        "true",
        "[7]",
        "18446744073709551616",
    ] {
        let row = format!(r#"{{"id":"4","user_id":"{RAT}","type":"live","viewer_count":{viewers}}}"#);
        let (rat, _) = streams_answer(&format!(r#"{{"data":[{row}]}}"#)).await;
        assert!(
            rat.iter().any(|fact| matches!(fact, Fact::StreamSeen { .. })),
            "{viewers}"
        );
        assert!(
            !rat.iter().any(|fact| matches!(fact, Fact::Viewers { .. })),
            "{viewers}"
        );
    }
}

#[tokio::test]
async fn a_list_in_place_of_an_answer_is_no_answer() {
    for body in ["[[]]", "[[],{}]", "[]"] {
        let (rat, quiet) = streams_answer(body).await;
        assert!(!rat.iter().chain(&quiet).any(is_absent), "{body}");
    }
}

#[tokio::test]
async fn a_stale_poll_cache_never_writes_offline() {
    let world = World::confidential().await;
    let spec = StreamSpec {
        lag_ms: Some(180_000),
        ..StreamSpec::default()
    };
    let stream = world.twitch().go_live_with(RAT, &spec).unwrap();
    let push = Fact::StreamPush {
        live: true,
        stream_id: Some(stream.id.clone()),
        started_at: None,
    };
    let mut reported = vec![Observation::new(
        &super::key(RAT),
        world.now(),
        "twitch.eventsub",
        push,
    )];
    for _ in 0..4 {
        world.sim.clock.advance(60_000);
        reported.extend(world.look(&[Probe::Stream], &[RAT]).await.observations);
        let verdict = Verdict::of(PlatformName::Twitch, &Knowledge::of(&reported).evidence);
        assert_eq!(verdict.stream.value, StreamStatus::Online, "{:?}", verdict.stream);
    }
    assert!(
        reported
            .iter()
            .any(|reported| *reported.fact == Fact::StreamAbsent)
    );
    assert!(
        reported
            .iter()
            .any(|reported| matches!(*reported.fact, Fact::StreamSeen { .. }))
    );
}

#[tokio::test]
async fn a_stream_row_with_an_empty_type_keeps_the_previous_state() {
    let world = World::confidential().await;
    world.twitch().go_live(RAT).unwrap();
    world.twitch().set_stream_type(RAT, "");
    let seen = world.look(&[Probe::Stream, Probe::Viewers], &[RAT]).await;
    let claims = seen.count(is_claim);
    assert_eq!(claims, 0, "{:?}", seen.observations);
}

#[tokio::test]
async fn a_channel_whose_display_name_is_not_its_login_is_found() {
    let world = World::confidential().await;
    world.twitch().put_channel(ChannelSpec {
        id: RAT.to_owned(),
        login: Some("yukinoniwa".to_owned()),
        name: Some("雪の庭".to_owned()),
        ..ChannelSpec::default()
    });
    world.twitch().go_live(RAT).unwrap();
    let seen = world
        .look(&[Probe::Connection, Probe::Stream, Probe::Viewers], &[RAT])
        .await;
    let verdict = seen.verdict(RAT);
    assert_eq!(verdict.stream.value, StreamStatus::Online);
    assert!(verdict.viewer_count.is_some());
    let profile = seen.knowledge(RAT).evidence.profile;
    assert_eq!(profile["displayName"].value, "雪の庭");
    assert_eq!(profile["login"].value, "yukinoniwa");
}

#[tokio::test]
async fn a_refresh_that_fails_by_network_is_not_revoked() {
    let mut world = World::public().await;
    world.timeout = SOON;
    for fault in [
        Fault::wire(WireFault::Reset),
        Fault::wire(WireFault::Hang),
        Fault::status(500),
        Fault::body(FaultBody::Html),
        Fault::body(FaultBody::Empty),
    ] {
        world.give_token(&twitch::bot(), BOT, &[]).await;
        let token = super::text(&world.bot_token().await).0;
        world.twitch().expire_token(&token);
        let faults = world.twitch().host().faults();
        faults.clear();
        faults.add(fault.clone().on("/oauth2/token"));
        let seen = world.look(&[Probe::Auth], &[RAT]).await;
        assert_eq!(seen.count(is_claim), 0, "{fault:?}: {:?}", seen.observations);
        assert!(seen.verdict(RAT).auth.is_none());
        assert!(!seen.summary.problems.is_empty());
    }
}

#[tokio::test]
async fn failed_refresh_after_expiry_is_expired_and_recovers() {
    let world = World::public().await;
    world.sim.clock.advance(5 * 3_600_000);
    let faults = world.twitch().host().faults();
    faults.add(Fault::status(503).on("/oauth2/token"));
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).auth.unwrap().value, AuthResult::Expired);
    faults.clear();
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).auth.unwrap().value, AuthResult::Valid);
}

#[tokio::test]
async fn an_unknown_token_is_not_valid() {
    let world = World::confidential().await;
    let unknown = StoredToken::unproven("never-heard-of".to_owned(), world.now());
    world.put_token(&twitch::bot(), Some(unknown)).await;
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    assert_eq!(seen.verdict(RAT).auth.unwrap().value, AuthResult::Expired);
}

#[tokio::test]
async fn inconclusive_validation_is_not_a_valid_token() {
    for fault in [
        Fault::status(500),
        Fault::status(429),
        Fault::status(404),
        Fault::body(FaultBody::Empty),
        Fault::body(FaultBody::Html),
        Fault::body(FaultBody::Garbage),
        Fault::body(FaultBody::Json(serde_json::json!({}))),
        Fault::status(401).with_body(FaultBody::Html),
        Fault::wire(WireFault::Hang),
    ] {
        let mut world = World::confidential().await;
        world.timeout = SOON;
        world.fail(fault.clone().on("/oauth2/validate"));
        let seen = world.look(&[Probe::Auth], &[RAT]).await;
        assert_eq!(seen.count(is_claim), 0, "{fault:?}: {:?}", seen.observations);
        assert_eq!(world.requests("POST", "/oauth2/token"), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_hundred_ids_in_one_call_with_sixty_live_give_sixty() {
    let world = World::confidential().await;
    let ids: Vec<_> = (1..=100).map(|id| id.to_string()).collect();
    for (index, id) in ids.iter().enumerate() {
        world.twitch().add_channel(id, &format!("channel{id}"));
        if index % 5 < 3 {
            world.twitch().go_live(id).unwrap();
        }
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let seen = world.look(&[Probe::Stream, Probe::Viewers], &ids).await;
    assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamSeen { .. })), 60);
    assert_eq!(seen.count(|fact| matches!(fact, Fact::StreamAbsent)), 40);
    assert_eq!(seen.count(|fact| matches!(fact, Fact::Viewers { .. })), 60);
    assert_eq!(world.requests("GET", "/helix/streams"), 1);
}

#[tokio::test]
async fn a_pagination_that_lost_its_cursor_gives_unknown_and_not_no() {
    let world = World::confidential().await;
    for id in 1..=150 {
        let id = id.to_string();
        world.twitch().add_channel(&id, &format!("channel{id}"));
        world
            .twitch()
            .set_role(&id, BOT, bitbrat::sim::twitch::Role::Moderator, true);
    }
    world.twitch().knobs(|knobs| knobs.missing_cursor = true);
    let ids: Vec<_> = (1..=150).map(|id| id.to_string()).collect();
    let mut ids: Vec<_> = ids.iter().map(String::as_str).collect();
    ids.push(RAT);
    let seen = world.look(&[Probe::Permissions], &ids).await;
    let (mut held, mut unknown) = (0, 0);
    for id in ids {
        let listed = seen.grants(id, "twitch.moderated-channels");
        let left_open = seen.grants(id, "twitch.moderated-channels.unanswered");
        let (granted, denied, reasons) = listed.or(left_open).unwrap();
        assert!(denied.is_empty(), "{id}");
        held += granted.len();
        unknown += reasons.len();
    }
    assert_eq!((held, unknown), (100, 51));
}

#[tokio::test]
async fn missing_channel_is_an_error_without_stream_state() {
    let world = World::confidential().await;
    let seen = world.look(&STATES, &["4242", RAT]).await;
    assert_eq!(seen.no_such_source("4242").as_deref(), Some("twitch.not_found"));
    let verdict = seen.verdict("4242");
    assert_eq!(
        (verdict.status.value, verdict.stream.value),
        (Status::Error, StreamStatus::Unknown)
    );
    // Nor for a moment: that it is missing is observed before the list of streams that lacks it.
    let facts = seen.of("4242");
    let place = |is: fn(&Fact) -> bool| facts.iter().position(|fact| is(fact));
    let missing = place(|fact| matches!(fact, Fact::NoSuchSource { .. }));
    let absent = place(|fact| matches!(fact, Fact::StreamAbsent));
    assert!(
        missing.is_some() && absent.is_none_or(|absent| missing < Some(absent)),
        "{facts:?}"
    );
    assert_eq!(seen.failure(RAT), None);
    let up = |fact: &&Fact| {
        matches!(
            fact,
            Fact::Connection {
                state: LinkState::Up,
                ..
            }
        )
    };
    assert_eq!(seen.of(RAT).into_iter().filter(up).count(), 1);
}

#[tokio::test]
async fn error_with_status_200_never_ends_a_stream_or_a_channel() {
    for body in [
        serde_json::json!({"data": [], "error": "Internal Server Error", "status": 500, "message": "boom"}),
        serde_json::json!({"data": [], "error": "Unauthorized", "status": 401, "message": "Invalid OAuth token"}),
    ] {
        for path in ["/helix/streams", "/helix/users"] {
            let world = World::confidential().await;
            let fault = Fault::body(FaultBody::Json(body.clone())).on(path);
            world.fail(fault);
            let seen = world.look(&STATES, &[RAT]).await;
            let absent = |fact: &Fact| match path {
                "/helix/streams" => matches!(fact, Fact::StreamAbsent),
                _ => matches!(fact, Fact::NoSuchSource { .. }),
            };
            assert_eq!(seen.count(absent), 0, "{path} {body}");
            let verdict = Verdict::of(PlatformName::Twitch, &Knowledge::of(&seen.observations).evidence);
            if path == "/helix/streams" {
                assert_eq!(verdict.stream.value, StreamStatus::Unknown, "{body}");
            }
        }
    }
}

#[tokio::test]
async fn poll_for_streams_also_reports_the_viewers_it_was_told() {
    let world = World::confidential().await;
    world.twitch().go_live(RAT).unwrap();
    let seen = world.look(&[Probe::Stream], &[RAT]).await;
    let facts = seen.of(RAT);
    let place = |is: fn(&Fact) -> bool| facts.iter().position(|fact| is(fact));
    let viewers = place(|fact| matches!(fact, Fact::Viewers { .. }));
    let stream = place(|fact| matches!(fact, Fact::StreamSeen { .. }));
    assert!(viewers.is_some() && viewers < stream, "{facts:?}");
}
