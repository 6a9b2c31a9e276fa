//! The contract of [`bitbrat::platforms::Platform`]: each function is one situation, on whichever platform.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bitbrat::core::code::ErrorCode;
use bitbrat::core::observation::{AuthResult, Fact, LinkState};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::Status;
use bitbrat::platforms::{Probe, Subject};
use bitbrat::sim::{Fault, FaultBody, WireFault};
use serde_json::{Value, json};

use super::scenario::{Probed, Recorder, Scenario};
use super::worlds::{Concept, PlatformWorld, Request, SOURCES};

/// The place of a source that never existed.
const MISSING: usize = 15;
/// Longer than any platform's details of a source count as current.
const DETAILS_OUTDATED: i64 = 700;
/// Timeout for responses that never arrive.
const SOON: Duration = Duration::from_millis(300);

// Sources and streams

pub async fn live_source_is_online_and_another_one_offline<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.world.go_live(0);
    let probed = scenario.probe_all(&[0, 1]).await;
    assert_eq!(probed.summary.problems, []);
    for (place, stream) in [(0, StreamStatus::Online), (1, StreamStatus::Offline)] {
        let state = scenario.state(place);
        assert_eq!((state.status, state.stream), (Status::Connected, stream));
        assert_eq!(state.auth, Some(AuthResult::Valid));
    }
    let viewers = scenario.record(0).viewer_count;
    assert_eq!(viewers.is_some(), W::has(Concept::Viewers));
    assert_eq!(scenario.record(1).viewer_count, None);
}

pub async fn ended_stream_is_offline<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.world.end_stream(0);
    // Lists lag behind, so one absence is not enough.
    for _ in 0..4 {
        scenario.pass(60);
        scenario.probe_all(&[0]).await;
        assert_ne!(scenario.state(0).stream, StreamStatus::Unknown);
    }
    assert_eq!(scenario.state(0).stream, StreamStatus::Offline);
    assert_eq!(scenario.record(0).viewer_count, None);
}

pub async fn missing_source_is_an_error_without_stream_state<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.probe_all(&[0, MISSING]).await;
    let missing = scenario.state(MISSING);
    assert_eq!(
        (missing.status, missing.stream),
        (Status::Error, StreamStatus::Unknown)
    );
    assert_eq!(
        missing.auth,
        Some(AuthResult::Valid),
        "the account is not the reason"
    );
    let streams = scenario.history(MISSING, |verdict| verdict.stream.value);
    assert_eq!(streams, [StreamStatus::Unknown], "not offline for a moment");
    assert_eq!(scenario.state(0).status, Status::Connected);
}

pub async fn source_removed_while_live_has_no_stream<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.world.remove(0);
    scenario.pass(DETAILS_OUTDATED);
    scenario.probe_all(&[0, 1]).await;
    let removed = scenario.state(0);
    assert_eq!(
        (removed.status, removed.stream),
        (Status::Error, StreamStatus::Unknown)
    );
    assert_eq!(scenario.allowed(0), [""; 0]);
    assert_eq!(scenario.state(1).status, Status::Connected);
}

pub async fn source_that_exists_again_is_connected_at_once<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    for exists in [true, false, true] {
        if exists {
            scenario.world.create(0);
        } else {
            scenario.world.remove(0);
        }
        scenario.probe_all(&[0]).await;
        scenario.pass(DETAILS_OUTDATED);
    }
    let mut statuses = scenario.history(0, |verdict| verdict.status.value);
    // Before the first answer about it, nothing is proven.
    if statuses[0] == Status::Disconnected {
        statuses.remove(0);
    }
    assert_eq!(statuses, [Status::Connected, Status::Error, Status::Connected]);
}

pub async fn a_failed_probe_never_turns_a_missing_channel_offline<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.probe_all(&[MISSING]).await;
    for fault in [
        Fault::wire(WireFault::Reset),
        Fault::status(404),
        Fault::status(503),
    ] {
        scenario.pass(60);
        scenario.world.heal();
        scenario.world.fail(Request::Api, fault.clone());
        scenario.probe_all(&[MISSING]).await;
        let missing = scenario.state(MISSING);
        let expected = (Status::Error, StreamStatus::Unknown);
        assert_eq!((missing.status, missing.stream), expected, "{fault:?}");
    }
}

// Failures of the API

/// The API fails for ten minutes: what is known about a live source stays, nothing is claimed, and the first answer afterwards
/// ends the failure.
async fn no_claim_follows_from<W: PlatformWorld>(fault: Fault, status: Status) {
    let mut scenario = Scenario::<W>::live().await;
    let before = scenario.state(0);
    if fault.wire == Some(WireFault::Hang) {
        scenario.restart_with_timeout(SOON);
    }
    scenario.world.fail(Request::Api, fault.clone());
    for _ in 0..2 {
        scenario.pass(300);
        let probed = scenario.probe_all(&[0, 1]).await;
        assert!(probed.claims().is_empty(), "{fault:?}: {:?}", probed.claims());
        assert!(!probed.summary.problems.is_empty(), "{fault:?}");
    }
    let mut expected = before.clone();
    expected.status = status;
    assert_eq!(scenario.state(0), expected, "{fault:?}");
    assert!(scenario.record(0).last_error.is_some(), "{fault:?}");
    scenario.world.heal();
    scenario.restart();
    scenario.pass(60);
    scenario.probe_all(&[0, 1]).await;
    assert_eq!(scenario.state(0), before, "{fault:?}");
}

pub async fn a_500_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::status(500), Status::Disconnected).await;
}

pub async fn a_503_never_writes_offline<W: PlatformWorld>() {
    let page = Fault::status(503).with_body(FaultBody::Html);
    no_claim_follows_from::<W>(page, Status::Disconnected).await;
}

/// A platform that asks for fewer requests can be reached.
pub async fn a_429_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(W::rate_limit(90), Status::Connected).await;
}

pub async fn a_reset_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::wire(WireFault::Reset), Status::Disconnected).await;
}

pub async fn a_timeout_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::wire(WireFault::Hang), Status::Disconnected).await;
}

pub async fn a_web_page_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::body(FaultBody::Html), Status::Disconnected).await;
}

pub async fn an_empty_200_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::body(FaultBody::Empty), Status::Disconnected).await;
}

pub async fn a_200_without_data_never_writes_offline<W: PlatformWorld>() {
    let empty = Fault::body(FaultBody::Json(json!({})));
    no_claim_follows_from::<W>(empty, Status::Disconnected).await;
}

pub async fn garbage_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::body(FaultBody::Garbage), Status::Disconnected).await;
}

pub async fn truncated_json_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::body(FaultBody::Truncated), Status::Disconnected).await;
}

pub async fn an_answer_cut_off_never_writes_offline<W: PlatformWorld>() {
    no_claim_follows_from::<W>(Fault::body(FaultBody::CutOff), Status::Disconnected).await;
}

pub async fn a_body_of_100_mb_never_writes_offline<W: PlatformWorld>() {
    let huge = Fault::body(FaultBody::Huge(100 * 1024 * 1024));
    no_claim_follows_from::<W>(huge, Status::Disconnected).await;
}

pub async fn error_with_status_200_never_writes_offline<W: PlatformWorld>() {
    for body in W::errors_with_status_200() {
        no_claim_follows_from::<W>(Fault::body(body), Status::Disconnected).await;
    }
}

pub async fn network_that_is_down_disconnects_and_recovers<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    let before = scenario.state(0);
    scenario.world.host().go_down();
    scenario.pass(60);
    let probed = scenario.probe_all(&[0, 1]).await;
    assert!(probed.claims().is_empty(), "{:?}", probed.claims());
    let mut expected = before.clone();
    expected.status = Status::Disconnected;
    assert_eq!(scenario.state(0), expected);
    scenario.world.host().come_up();
    scenario.pass(60);
    scenario.probe_all(&[0, 1]).await;
    assert_eq!(scenario.state(0), before);
}

/// How platforms refuse a token.
fn local_errors() -> [(PlatformName, Value); 3] {
    [
        (
            PlatformName::Twitch,
            json!({"error": "Unauthorized", "status": 401, "message": "Invalid OAuth token"}),
        ),
        (PlatformName::Kick, json!({"data": {}, "message": "Unauthorized"})),
        (
            PlatformName::Discord,
            json!({"message": "401: Unauthorized", "code": 0}),
        ),
    ]
}

/// Refusals that are not in the format of `platform`.
fn foreign_refusals(platform: PlatformName) -> impl Iterator<Item = Fault> {
    let of_nobody = [
        FaultBody::Empty,
        FaultBody::Text("Unauthorized".to_owned()),
        FaultBody::Json(json!({})),
        FaultBody::Json(json!({"statusCode": 401, "error": "Unauthorized", "message": "no"})),
    ];
    let others = local_errors()
        .into_iter()
        .filter(move |(other, _)| *other != platform);
    let bodies = of_nobody
        .into_iter()
        .chain(others.map(|(_, body)| FaultBody::Json(body)));
    bodies.map(|body| Fault::status(401).with_body(body))
}

pub async fn foreign_401s_never_revoke_and_never_stop_requests<W: PlatformWorld>() {
    for fault in foreign_refusals(W::NAME) {
        let mut scenario = Scenario::<W>::live().await;
        let before = scenario.state(0);
        scenario.world.fail(Request::Api, fault.clone());
        scenario.pass(60);
        let probed = scenario.probe_all(&[0, 1]).await;
        assert!(probed.claims().is_empty(), "{fault:?}: {:?}", probed.claims());
        let mut expected = before.clone();
        expected.status = Status::Disconnected;
        assert_eq!(scenario.state(0), expected, "{fault:?}");
        scenario.world.heal();
        // In the same process, and no hour later.
        scenario.pass(1);
        scenario.probe_all(&[0, 1]).await;
        assert_eq!(scenario.state(0), before, "{fault:?}");
    }
}

// Parts of an answer, and parts of a probe

pub async fn one_odd_row_does_not_blind_the_others<W: PlatformWorld>() {
    let bodies = Scenario::<W>::start().await.world.lists_with_an_odd_row();
    for (request, body) in bodies {
        let mut scenario = Scenario::<W>::start().await;
        scenario.world.fail(request, Fault::body(body.clone()));
        let probed = scenario.probe_all(&[0, 1]).await;
        let here = scenario.state(0);
        assert_eq!(here.status, Status::Connected, "{body:?}");
        if request == Request::Streams {
            assert_eq!(here.stream, StreamStatus::Online, "{body:?}");
            let viewers = W::has(Concept::Viewers).then_some(37);
            assert_eq!(scenario.record(0).viewer_count, viewers, "{body:?}");
        }
        // The odd row may be about the other source: that it is missing from the list proves nothing.
        let other = W::key(1);
        let is_absent = |fact: &Fact| match request {
            Request::Streams => matches!(fact, Fact::StreamAbsent),
            _ => matches!(fact, Fact::NoSuchSource { .. }),
        };
        assert!(!probed.facts_about(&other).any(is_absent), "{body:?}");
    }
}

pub async fn failed_stream_list_leaves_other_results<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.world.set_role(0, true).await;
    scenario.world.fail(Request::Streams, Fault::status(500));
    let probed = scenario.probe_all(&[0, 1]).await;
    let state = scenario.state(0);
    assert_eq!(
        (state.stream, state.auth),
        (StreamStatus::Unknown, Some(AuthResult::Valid))
    );
    assert!(scenario.holds_role(0));
    assert!(!probed.summary.problems.is_empty());
}

pub async fn failed_token_check_leaves_other_results<W: PlatformWorld>() {
    for fault in [
        Fault::status(503),
        Fault::body(FaultBody::Garbage),
        Fault::status(404).with_body(FaultBody::Html),
    ] {
        let mut scenario = Scenario::<W>::start().await;
        scenario.world.go_live(0);
        scenario.world.fail(Request::Token, fault.clone());
        let probed = scenario.probe_all(&[0, 1]).await;
        assert!(!probed.summary.problems.is_empty(), "{fault:?}");
        let state = scenario.state(0);
        assert_eq!(
            (state.status, state.stream),
            (Status::Connected, StreamStatus::Online),
            "{fault:?}"
        );
        assert_eq!(scenario.state(1).stream, StreamStatus::Offline, "{fault:?}");
    }
}

pub async fn failed_permission_request_leaves_permissions_unknown<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.world.set_role(0, true).await;
    scenario.world.fail(Request::Permissions, Fault::status(500));
    let probed = scenario.probe_all(&[0, 1]).await;
    let is_about_the_role = |fact: &Fact| match fact {
        Fact::Permissions { grants, .. } => {
            grants.granted.contains(W::PERMISSION) || grants.denied.contains(W::PERMISSION)
        }
        _ => false,
    };
    for place in [0, 1] {
        assert!(!probed.facts_about(&W::key(place)).any(is_about_the_role));
        assert_eq!(scenario.state(place).status, Status::Connected);
        assert_eq!(scenario.state(place).stream, StreamStatus::Offline);
    }
    assert!(!probed.summary.problems.is_empty());
}

// Permissions

pub async fn permission_follows_the_role<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    for held in [true, false, true] {
        scenario.world.set_role(0, held).await;
        scenario.pass(60);
        scenario.probe_all(&[0]).await;
        assert_eq!(scenario.holds_role(0), held);
    }
}

pub async fn banned_bot_may_not_write<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    assert!(
        scenario.allowed(1).contains(&"send-chat"),
        "{:?}",
        scenario.allowed(1)
    );
    scenario.world.ban(1).await;
    scenario.pass(60);
    scenario.probe_all(&[0, 1]).await;
    // Without a way to find out, only the attempt to write fails.
    assert_eq!(scenario.allowed(1).contains(&"send-chat"), !W::has(Concept::Bans));
    assert!(scenario.allowed(0).contains(&"send-chat"));
}

// Tokens

pub async fn revoked_token_is_detected_within_one_probe<W: PlatformWorld>() {
    for probes in [&[Probe::Connection][..], &[Probe::Auth], &Probe::ALL] {
        let mut scenario = Scenario::<W>::live().await;
        scenario.world.revoke_token();
        scenario.pass(60);
        scenario.probe(probes, &[0, 1]).await;
        for place in [0, 1] {
            let state = scenario.state(place);
            let expected = (Status::Error, Some(AuthResult::Revoked));
            assert_eq!((state.status, state.auth), expected, "{probes:?}");
        }
        assert_eq!(scenario.state(0).stream, StreamStatus::Online, "{probes:?}");
    }
}

pub async fn revoked_token_never_yields_yes<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    assert!(!scenario.allowed(0).is_empty());
    scenario.world.revoke_token();
    scenario.pass(60);
    scenario.probe_all(&[0, 1]).await;
    assert_eq!(scenario.allowed(0), [""; 0]);
    // Nor after everything else failed.
    scenario.world.fail(Request::Api, Fault::status(500));
    scenario.pass(60);
    scenario.probe_all(&[0, 1]).await;
    assert_eq!(scenario.allowed(0), [""; 0]);
}

pub async fn new_login_ends_the_revocation<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.world.revoke_token();
    scenario.pass(60);
    scenario.probe_all(&[0]).await;
    assert_eq!(scenario.state(0).auth, Some(AuthResult::Revoked));
    scenario.world.log_in().await;
    scenario.pass(60);
    scenario.probe_all(&[0]).await;
    let state = scenario.state(0);
    assert_eq!(
        (state.status, state.auth),
        (Status::Connected, Some(AuthResult::Valid))
    );
}

pub async fn expired_token_never_yields_yes<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    if !W::has(Concept::TokenExpiry) {
        scenario.pass(400 * 86_400);
        scenario.probe_all(&[0]).await;
        assert_eq!(
            scenario.state(0).auth,
            Some(AuthResult::Valid),
            "it does not expire"
        );
        assert!(!scenario.allowed(0).is_empty());
        return;
    }
    scenario.world.expire_token().await;
    scenario.pass(60);
    scenario.probe_all(&[0]).await;
    assert_eq!(scenario.state(0).auth, Some(AuthResult::Expired));
    assert_eq!(scenario.allowed(0), [""; 0]);
    scenario.world.log_in().await;
    scenario.pass(60);
    scenario.probe_all(&[0]).await;
    assert_eq!(scenario.state(0).auth, Some(AuthResult::Valid));
}

pub async fn failed_token_check_is_no_evidence<W: PlatformWorld>() {
    let failures = [
        Fault::status(500),
        W::rate_limit(90),
        Fault::body(FaultBody::Html),
        Fault::body(FaultBody::Empty),
        Fault::body(FaultBody::Garbage),
        Fault::wire(WireFault::Reset),
    ];
    for fault in failures.into_iter().chain(foreign_refusals(W::NAME).skip(1)) {
        let mut scenario = Scenario::<W>::live().await;
        let before = scenario.state(0);
        scenario.restart();
        scenario.world.fail(Request::Token, fault.clone());
        scenario.pass(60);
        scenario.probe(&[Probe::Auth], &[0]).await;
        let after = scenario.state(0);
        assert_eq!(
            (after.auth, after.stream),
            (before.auth, before.stream),
            "{fault:?}"
        );
    }
}

pub async fn every_source_needs_the_account_of_the_bot<W: PlatformWorld>() {
    let scenario = Scenario::<W>::start().await;
    let keys: Vec<_> = (0..SOURCES).map(W::key).collect();
    assert_eq!(scenario.platform().needing(&W::bot(), &keys), keys);
}

// What users read

/// Returns the errors in the observations about a source.
fn errors_about(probed: &Probed, source: &SourceKey) -> BTreeSet<ErrorCode> {
    let code = |fact: &Fact| match fact {
        Fact::Connection {
            state: LinkState::Down { error } | LinkState::Refused { error },
            ..
        }
        | Fact::NoSuchSource { error }
        | Fact::Unanswered { error, .. }
        | Fact::Problem { error } => Some(error.code.clone()),
        _ => None,
    };
    probed.facts_about(source).filter_map(code).collect()
}

pub async fn missing_source_is_a_problem_of_the_source<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    let probed = scenario.probe_all(&[0, MISSING]).await;
    let missing = W::key(MISSING);
    assert_eq!(probed.subjects(), [Subject::Source(missing.clone())]);
    let error = probed.summary.problems[0].error.clone();
    let error = error.expect("the observations contain the error").code;
    assert!(errors_about(&probed, &missing).contains(&error), "{error}");
}

pub async fn revoked_token_is_a_problem_of_the_account<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.world.revoke_token();
    let probed = scenario.probe(&[Probe::Auth], &[0, 1]).await;
    assert_eq!(probed.subjects(), [Subject::Account(W::bot())]);
}

pub async fn outage_is_a_problem_of_the_platform<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.world.fail(Request::Api, Fault::status(500));
    let probes = [Probe::Connection, Probe::Stream];
    let probed = scenario.probe(&probes, &[0, 1]).await;
    let subjects = probed.subjects();
    assert!(!subjects.is_empty());
    assert!(
        subjects.iter().all(|subject| *subject == Subject::Platform),
        "{subjects:?}"
    );
    for problem in &probed.summary.problems {
        let error = problem.error.clone().expect("the observations contain the error");
        assert!(
            errors_about(&probed, &W::key(0)).contains(&error.code),
            "{error:?}"
        );
    }
}

pub async fn secret_in_an_error_is_masked<W: PlatformWorld>() {
    for request in [Request::Api, Request::Token] {
        for status in [200, 403, 500] {
            let mut scenario = Scenario::<W>::live().await;
            let secrets = scenario.world.secrets();
            let body = FaultBody::Json(json!({
                "message": secrets.join(" "), "error": secrets[0], "code": 50_001, "data": secrets,
            }));
            scenario
                .world
                .fail(request, Fault::status(status).with_body(body));
            // The scenario checks that nothing that a probe reports contains a secret.
            let probed = scenario.probe_all(&[0]).await;
            assert!(!probed.summary.problems.is_empty(), "{request:?} {status}");
        }
    }
}

// Requests

pub async fn every_request_is_counted<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    let probed = scenario.probe_all(&[0, 1]).await;
    assert_eq!(u64::try_from(probed.summary.calls).unwrap(), scenario.requests());
    // Repetitions too.
    let before = scenario.requests();
    scenario.world.fail(Request::Streams, Fault::status(503).times(1));
    let probed = scenario.probe_all(&[0]).await;
    assert_eq!(
        u64::try_from(probed.summary.calls).unwrap(),
        scenario.requests() - before
    );
    assert_eq!(scenario.world.failed_requests(), 1);
}

pub async fn progress_ends_with_all_expected_calls<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    let probed = scenario.probe_all(&[0, 1]).await;
    let (done, expected) = *probed.progress.last().expect("progress is reported");
    assert!(done == expected && done > 0, "{:?}", probed.progress);
    let done: Vec<_> = probed.progress.iter().map(|(done, _)| *done).collect();
    assert!(done.is_sorted(), "{:?}", probed.progress);
}

pub async fn ten_sources_share_their_calls<W: PlatformWorld>() {
    let mut calls = Vec::new();
    for count in [1, 10] {
        let mut scenario = Scenario::<W>::start().await;
        let places: Vec<_> = (0..count).collect();
        for place in &places {
            scenario.world.create(*place);
        }
        let probed = scenario.probe(&[Probe::Connection, Probe::Auth], &places).await;
        assert!(
            places
                .iter()
                .all(|place| scenario.state(*place).status == Status::Connected)
        );
        calls.push(probed.summary.calls);
    }
    assert_eq!(calls[0], calls[1]);
}

pub async fn no_sources_take_no_requests<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    let probed = scenario.probe_all(&[]).await;
    assert_eq!((probed.summary.calls, scenario.requests()), (0, 0));
    assert_eq!(probed.observations, []);
}

pub async fn source_given_twice_is_probed_once<W: PlatformWorld>() {
    let once = Scenario::<W>::start().await.run(&Probe::ALL, &[0, 1]).await;
    let twice = Scenario::<W>::start().await.run(&Probe::ALL, &[0, 1, 0]).await;
    assert_eq!(once.observations.len(), twice.observations.len());
    assert_eq!(once.summary.calls, twice.summary.calls);
}

pub async fn rate_limit_with_a_wait_is_waited_out<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    scenario.restart();
    scenario.world.fail(Request::Streams, W::rate_limit(1).times(1));
    let start = Instant::now();
    let probed = scenario.run(&[Probe::Stream], &[0]).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    let source = W::key(0);
    let mut facts = probed.facts_about(&source);
    assert!(
        facts.any(|fact| matches!(fact, Fact::StreamSeen { .. })),
        "{probed:?}"
    );
}

pub async fn one_failed_request_is_repeated<W: PlatformWorld>() {
    for fault in [
        Fault::status(502).with_body(FaultBody::Html),
        Fault::status(503),
        Fault::wire(WireFault::Reset),
    ] {
        let mut scenario = Scenario::<W>::live().await;
        let before = scenario.state(0);
        scenario.world.fail(Request::Streams, fault.clone().times(1));
        let probed = scenario.probe_all(&[0]).await;
        assert_eq!(probed.summary.problems, [], "{fault:?}");
        assert_eq!(scenario.state(0), before, "{fault:?}");
    }
}

// Time

pub async fn observations_are_dated_by_the_injected_clock<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::live().await;
    for _ in 0..3 {
        scenario.pass(600);
        let probed = scenario.probe_all(&[0, MISSING]).await;
        for observation in &probed.observations {
            let apart = observation.at.millis_since(scenario.now()).abs();
            assert!(apart < 1_000, "{apart} ms: {observation:?}");
        }
    }
}

pub async fn answer_is_dated_by_when_it_was_asked_for<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.probe_all(&[0]).await;
    scenario.world.fail(Request::Streams, Fault::delay(500));
    let asked_at = scenario.now();
    let (probed, ()) = tokio::join!(scenario.run(&[Probe::Stream], &[0]), async {
        scenario.request_failed().await;
        scenario.pass(60);
    });
    let absent = probed
        .observations
        .iter()
        .find(|one| *one.fact == Fact::StreamAbsent);
    let after = absent.expect("it is not live").at.millis_since(asked_at);
    assert!(after < 1_000, "{after} ms");
}

pub async fn clock_ahead_of_the_platform_dates_nothing_in_the_future<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.world.sim().clock.set_skew(-3_600_000);
    let mut newest = None;
    for _ in 0..2 {
        let probed = scenario.probe_all(&[0, 1]).await;
        newest = probed.observations.iter().map(|one| one.at).max();
        scenario.pass(60);
    }
    let ahead = newest.unwrap().millis_since(scenario.world.sim().clock.wall());
    assert!(ahead < 3_000, "{ahead} ms");
}

// Concurrency

pub async fn cancelled_probe_leaves_nothing_half<W: PlatformWorld>() {
    for request in [Request::Token, Request::Sources, Request::Streams] {
        let mut scenario = Scenario::<W>::live().await;
        let before = scenario.state(0);
        scenario.pass(DETAILS_OUTDATED);
        scenario.world.fail(request, Fault::wire(WireFault::Hang));
        let recorder = Recorder::default();
        tokio::select! {
            _ = scenario.run_into(&recorder, &Probe::ALL, &[0, 1]) => panic!("no response was sent: {request:?}"),
            () = scenario.request_failed() => {}
        }
        let observations = recorder.observations.into_inner();
        scenario.remember(&observations);
        assert_eq!(scenario.state(0), before, "{request:?}");
        scenario.world.heal();
        let probed = scenario.probe_all(&[0, 1]).await;
        assert_eq!(probed.summary.problems, [], "{request:?}");
        assert_eq!(scenario.state(0), before, "{request:?}");
    }
}

pub async fn two_probes_may_run_at_the_same_time<W: PlatformWorld>() {
    let mut scenario = Scenario::<W>::start().await;
    scenario.world.go_live(0);
    let (one, other) = tokio::join!(
        scenario.run(&Probe::ALL, &[0, 1]),
        scenario.run(&[Probe::Connection, Probe::Stream], &[0, 2])
    );
    for (probed, places) in [(one, [0, 1]), (other, [0, 2])] {
        assert_eq!(probed.summary.problems, []);
        scenario.remember(&probed.observations);
        let sources: BTreeSet<_> = probed.observations.iter().map(|one| one.source.clone()).collect();
        assert_eq!(sources, places.map(W::key).into());
    }
    for place in 0..3 {
        assert_eq!(scenario.state(place).status, Status::Connected);
    }
    assert_eq!(scenario.state(0).stream, StreamStatus::Online);
}

// Names

pub async fn names_are_resolved_in_order_and_unknown_ones_to_nothing<W: PlatformWorld>() {
    let scenario = Scenario::<W>::start().await;
    let names = [
        W::name(1),
        W::name(MISSING),
        W::name(0).to_uppercase(),
        W::name(1),
    ];
    let keys = scenario.platform().resolve(&names).await.unwrap();
    assert_eq!(keys, [Some(W::key(1)), None, Some(W::key(0)), Some(W::key(1))]);
}

pub async fn failed_resolution_is_an_error_and_not_an_unknown_name<W: PlatformWorld>() {
    let scenario = Scenario::<W>::start().await;
    for fault in [Fault::status(500), Fault::body(FaultBody::Html)] {
        scenario.world.heal();
        scenario.world.fail(Request::Api, fault.clone());
        let resolved = scenario.platform().resolve(&[W::name(0)]).await;
        assert!(resolved.is_err(), "{fault:?}: {resolved:?}");
    }
}
