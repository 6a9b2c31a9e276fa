//! Tokens: which are VALID, EXPIRED or REVOKED, and which only have a temporary failure.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::super::options::BOT;
use super::{ADA, BOT_ID, Rig, key};
use crate::clock::Clock as _;
use crate::core::code::Code;
use crate::core::observation::{AuthResult, Identity};
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus::{Online, Unknown};
use crate::core::verdict::Status;
use crate::platforms::{Platform as _, Probe};
use crate::sim::faults::{Fault, FaultBody, WireFault};
use crate::sim::kick::KickTokenSpec;
use crate::tokens::{RefreshToken, StoredToken};

const SCOPES: [&str; 3] = ["user:read", "channel:read", "chat:write"];

#[tokio::test]
async fn app_token_is_fetched_once_and_stored() {
    let rig = Rig::start().await;
    rig.probe_one(ADA).await;
    rig.probe_one(ADA).await;
    assert_eq!(rig.calls("/oauth/token"), 1);
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
    let token = rig.app_token().await;
    let life = token.expires_at.unwrap().millis_since(token.obtained_at) + 60_000;
    assert_eq!(life / 86_400_000, 60);
}

#[tokio::test]
async fn early_revoked_app_token_is_replaced_and_call_repeated() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.probe_one(ADA).await;
    let first = rig.app_token().await;
    rig.kick().disconnect(None);
    rig.probe(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
    assert_eq!(rig.record(ADA).status, Status::Connected);
    assert_eq!(rig.calls("/oauth/token"), 2);
    let second = rig.app_token().await;
    assert_ne!(first.access.expose_secret(), second.access.expose_secret());
}

#[tokio::test]
async fn wrong_client_secret_is_reported_and_not_retried() {
    let rig = Rig::with(
        |options| options.client_secret = Some("wrong".to_owned().into()),
        std::time::Duration::from_mins(1),
    )
    .await;
    let summary = rig.probe_one(ADA).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("invalid_client")),
        "{summary:?}"
    );
    rig.probe_one(ADA).await;
    assert_eq!(rig.calls("/oauth/token"), 1);
    let record = rig.record(ADA);
    assert_eq!((record.status, record.auth_status), (Status::Error, None));
    assert_eq!(
        record.last_error.unwrap().code,
        Code::ClientRejected(PlatformName::Kick)
    );
    assert_eq!(record.stream_status, Unknown);
}

#[tokio::test]
async fn user_token_is_refreshed_before_expiry_and_stored() {
    let rig = Rig::start().await;
    let (access, refresh) = rig.log_in(&SCOPES, 6_700).await;
    rig.probe_one(ADA).await;
    let stored = rig.stored("kick/bot").await;
    assert_ne!(stored.access.expose_secret(), access);
    assert_ne!(stored.refresh.unwrap().secret.expose_secret(), refresh);
    assert_eq!(stored.user_id.as_deref(), Some("880100"));
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
}

#[tokio::test]
async fn expired_token_is_refreshed_for_either_inactive_response() {
    for by_status in [false, true] {
        let rig = Rig::start().await;
        rig.kick()
            .knobs(|knobs| knobs.introspect_inactive_401 = by_status);
        let (access, _) = rig.log_in(&SCOPES, 0).await;
        rig.kick().expire_token(&access);
        rig.probe(&[Probe::Auth], &[ADA]).await;
        assert_eq!(
            rig.record(ADA).auth_status,
            Some(AuthResult::Valid),
            "{by_status}"
        );
    }
}

#[tokio::test]
async fn removed_application_is_revoked_and_not_refreshed_again() {
    for by_status in [false, true] {
        let rig = Rig::start().await;
        rig.kick().knobs(|knobs| {
            knobs.introspect_inactive_401 = by_status;
            knobs.invalid_grant_401 = by_status;
        });
        rig.log_in(&SCOPES, 0).await;
        rig.probe_one(ADA).await;
        rig.kick().disconnect(Some(BOT_ID));
        rig.later(10);
        rig.probe_one(ADA).await;
        let record = rig.record(ADA);
        assert_eq!(
            record.auth_status,
            Some(AuthResult::Revoked),
            "{}",
            rig.facts(ADA)
        );
        assert_eq!(record.status, Status::Error);
        let refreshes = rig.calls("/oauth/token");
        rig.later(10);
        rig.probe_one(ADA).await;
        assert_eq!(
            rig.calls("/oauth/token"),
            refreshes,
            "a refused refresh token is never sent again"
        );
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Revoked));
    }
}

#[tokio::test]
async fn authorization_idle_for_a_month_is_expired_not_revoked() {
    let rig = Rig::start().await;
    let (access, _) = rig.log_in(&SCOPES, 0).await;
    rig.later(31 * 86_400);
    rig.kick().expire_token(&access);
    rig.kick().age_out_refresh(BOT_ID);
    let summary = rig.probe(&[Probe::Auth], &[ADA]).await;
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Expired));
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("31 days")),
        "{summary:?}"
    );
}

#[tokio::test]
async fn aging_authorization_causes_warning_from_day_25() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    // The refreshes fail, as they do while the OAuth host is down.
    rig.later(26 * 86_400);
    rig.fail(Fault::status(404).on("/oauth/token").with_body(FaultBody::Html));
    let summary = rig.probe(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("26 days")),
        "{summary:?}"
    );
    assert_ne!(rig.record(ADA).auth_status, Some(AuthResult::Revoked));
}

#[tokio::test]
async fn failing_oauth_host_does_not_change_token_status() {
    for fault in [
        Fault::status(404),
        Fault::status(404).with_body(FaultBody::Html),
        Fault::status(500),
        Fault::status(403).with_body(FaultBody::Html),
        Fault::body(FaultBody::Html),
        Fault::body(FaultBody::Empty),
        Fault::body(FaultBody::Garbage),
        Fault::wire(WireFault::Reset),
    ] {
        let rig = Rig::start().await;
        rig.log_in(&SCOPES, 0).await;
        rig.probe_one(ADA).await;
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
        rig.fail(fault.clone().on("/oauth"));
        rig.later(3_600);
        rig.probe(&[Probe::Auth], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
        assert_eq!(record.status, Status::Connected, "{fault:?}");
    }
}

#[tokio::test]
async fn revoked_bot_token_is_found_at_the_next_connection_poll() {
    const POLL: [Probe; 3] = [Probe::Connection, Probe::Stream, Probe::Viewers];
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.probe_one(ADA).await;
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
    let before = rig.calls("/oauth/token/introspect");
    rig.later(60);
    rig.probe(&POLL, &[ADA, BOT_ID]).await;
    assert_eq!(
        rig.calls("/oauth/token/introspect"),
        before + 1,
        "one request a poll, however many sources"
    );
    rig.kick().disconnect(Some(BOT_ID));
    rig.later(60);
    rig.probe(&POLL, &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(
        (record.auth_status, record.status),
        (Some(AuthResult::Revoked), Status::Error),
        "{}",
        rig.facts(ADA)
    );
}

#[tokio::test]
async fn oauth_outage_leaves_connection_polls_as_they_are() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.probe_one(ADA).await;
    rig.fail(Fault::status(404).on("/oauth"));
    rig.later(60);
    rig.probe(&[Probe::Connection], &[ADA]).await;
    let sent = rig.calls("/oauth/token/introspect");
    rig.later(60);
    rig.probe(&[Probe::Connection], &[ADA]).await;
    assert_eq!(
        rig.calls("/oauth/token/introspect"),
        sent,
        "not asked at every poll"
    );
    let record = rig.record(ADA);
    assert_eq!(
        (record.auth_status, record.status, record.last_error),
        (Some(AuthResult::Valid), Status::Connected, None)
    );
}

#[tokio::test]
async fn polls_near_the_rate_limit_check_no_account() {
    let rig = Rig::with(
        |options| options.requests_per_minute = 6,
        std::time::Duration::from_mins(1),
    )
    .await;
    rig.log_in(&SCOPES, 0).await;
    // The app token, the list and the channels: half of the limit, the rest of which is for the next polls.
    rig.probe(&[Probe::Connection], &[ADA]).await;
    assert_eq!(rig.calls("/oauth/token/introspect"), 0);
    assert_eq!(rig.record(ADA).status, Status::Connected);
}

/// Refusals that are not in Kick's own format.
fn foreign_refusals() -> Vec<Fault> {
    let json = |body| Fault::status(401).with_body(FaultBody::Json(body));
    vec![
        Fault::status(401).with_body(FaultBody::Empty),
        Fault::status(400).with_body(FaultBody::Empty),
        Fault::status(401).with_body(FaultBody::Text("Unauthorized".to_owned())),
        json(serde_json::json!({"message": "Unauthorized"})),
        json(serde_json::json!({"error": "unauthorized"})),
        json(serde_json::json!({"statusCode": 401, "error": "Unauthorized", "message": "no session"})),
    ]
}

#[tokio::test]
async fn foreign_refusal_of_the_oauth_host_is_no_evidence() {
    for fault in foreign_refusals() {
        for expired in [false, true] {
            let rig = Rig::start().await;
            let (access, _) = rig.log_in(&SCOPES, 0).await;
            rig.probe_one(ADA).await;
            assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
            if expired {
                rig.later(7_300);
                rig.kick().expire_token(&access);
            }
            rig.fail(fault.clone().on("/oauth"));
            rig.probe(&[Probe::Auth], &[ADA]).await;
            assert_eq!(
                rig.record(ADA).auth_status,
                Some(AuthResult::Valid),
                "{expired} {fault:?}"
            );
            rig.kick().host().faults().clear();
            rig.later(60);
            rig.probe(&[Probe::Auth], &[ADA]).await;
            assert_eq!(
                rig.record(ADA).auth_status,
                Some(AuthResult::Valid),
                "{expired} {fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn one_foreign_401_of_the_api_is_asked_again() {
    for fault in foreign_refusals()
        .into_iter()
        .filter(|fault| fault.status == Some(401))
    {
        let rig = Rig::start().await;
        rig.log_in(&SCOPES, 0).await;
        rig.fail(fault.clone().on("/public").times(1));
        rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(
            (record.status, record.last_error),
            (Status::Connected, None),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn nonsense_token_is_rejected() {
    for refresh in [None, Some("nonsense")] {
        let rig = Rig::start().await;
        let mut token = StoredToken::unproven("nonsense", rig.sim.clock.now());
        token.refresh = refresh.map(RefreshToken::fresh);
        rig.keep(BOT, token).await;
        rig.probe(&[Probe::Auth], &[ADA]).await;
        let known = rig.knowledge(ADA);
        let bot = &known.evidence.auth[&Identity::named(BOT)].value;
        assert_eq!((bot.result, bot.rejected), (AuthResult::Expired, true), "{bot:?}");
    }
}

#[tokio::test]
async fn scopes_are_permissions_and_their_loss_is_reported() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.probe_one(ADA).await;
    let permissions = |rig: &Rig| -> BTreeSet<String> { rig.record(ADA).held().iter().cloned().collect() };
    assert!(permissions(&rig).contains("scope:chat:write"));
    assert!(!permissions(&rig).contains("scope:moderation:ban"));
    rig.kick().shrink_scope(BOT_ID, "chat:write");
    rig.later(600);
    let summary = rig.probe_one(ADA).await;
    assert!(!permissions(&rig).contains("scope:chat:write"));
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("chat:write")),
        "{summary:?}"
    );
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
}

#[tokio::test]
async fn the_bot_owns_its_own_channel_and_badges_age_out() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.platform
        .badges()
        .saw(ADA, rig.later(0), ["moderator".to_owned()].into());
    rig.probe(&[Probe::Permissions], &[ADA, BOT_ID]).await;
    assert!(
        rig.record(BOT_ID)
            .held()
            .contains(&"badge:broadcaster".to_owned())
    );
    assert!(rig.record(ADA).held().contains(&"badge:moderator".to_owned()));
    rig.later(8 * 86_400);
    rig.probe(&[Probe::Permissions], &[ADA]).await;
    assert!(!rig.record(ADA).held().contains(&"badge:moderator".to_owned()));
}

#[tokio::test]
async fn token_of_another_user_or_application_is_never_used() {
    let rig = Rig::with(
        |options| options.bot_user_id = Some(ADA),
        std::time::Duration::from_mins(1),
    )
    .await;
    rig.log_in(&SCOPES, 0).await;
    rig.kick().add_app("other", "secret");
    let summary = rig.probe(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("user 880100")),
        "{summary:?}"
    );

    let rig = Rig::start().await;
    rig.kick().add_app("other", "secret");
    let foreign = rig.kick().issue_token(KickTokenSpec {
        client_id: "other".to_owned(),
        user_id: Some(BOT_ID),
        scopes: vec!["user:read".to_owned()],
        ..KickTokenSpec::default()
    });
    let now = rig.later(0);
    rig.keep("kick/bot", StoredToken::unproven(foreign.access, now))
        .await;
    let summary = rig.probe(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.text.contains("another application")),
        "{summary:?}"
    );
}

#[tokio::test]
async fn kick_401_for_a_valid_token_is_no_claim_about_the_account() {
    let rig = Rig::with(
        |options| {
            options.client_secret = None;
        },
        std::time::Duration::from_mins(1),
    )
    .await;
    rig.log_in(&SCOPES, 0).await;
    let words = serde_json::json!({"data": {}, "message": "Unauthorized"});
    let fault = Fault::status(401).with_body(FaultBody::Json(words));
    rig.fail(fault.on("/public/v1/users/livestreams"));
    rig.probe(&[Probe::Stream], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.auth_status, Some(AuthResult::Valid));
    let error = record.last_error.unwrap();
    assert_eq!(
        (record.status, error.code.known()),
        (Status::Disconnected, Some(Code::Unreadable(PlatformName::Kick)))
    );
    assert!(error.message.contains("calls valid"), "{}", error.message);
    assert_eq!(rig.calls("/oauth/token/introspect"), 1);
}

#[tokio::test]
async fn missing_identity_sends_nothing_and_is_reported() {
    let rig = Rig::with(
        |options| options.client_id = None,
        std::time::Duration::from_mins(1),
    )
    .await;
    let summary = rig.probe_one(ADA).await;
    assert_eq!(summary.calls, 0);
    assert!(summary.problems[0].text.contains("kick.client_id"), "{summary:?}");
    assert_eq!(rig.record(ADA).status, Status::Error);
    assert_eq!(rig.kick().host().journal().total(), 0);
}

#[tokio::test]
async fn no_token_or_secret_appears_in_observations_or_output() {
    let rig = Rig::start().await;
    let (access, refresh) = rig.log_in(&SCOPES, 0).await;
    let before = format!("{:?}", rig.probe_one(ADA).await);
    rig.kick().disconnect(Some(BOT_ID));
    let after = format!("{:?}", rig.probe_one(ADA).await);
    let app = rig.app_token().await.access.expose_secret().to_owned();
    let reported = format!("{before}{after}{}{}", rig.facts(ADA), rig.facts(BOT_ID));
    for secret in [access.as_str(), &refresh, &app, "hush", "private@example.invalid"] {
        assert!(!reported.contains(secret), "{reported}");
    }
}

#[tokio::test]
async fn two_processes_that_find_the_tokens_ended_renew_each_once() {
    let rig = Rig::start().await;
    let (access, _) = rig.log_in(&SCOPES, 7_300).await;
    let other = rig.another_process();
    let (probes, sources) = (Probe::ALL.into_iter().collect(), [key(ADA)]);
    tokio::join!(
        rig.platform.probe(&probes, &sources, &rig.notebook),
        other.probe(&probes, &sources, &rig.notebook)
    );
    assert_eq!(
        rig.calls("/oauth/token"),
        2,
        "one for the application, one for the bot"
    );
    assert_ne!(rig.stored("kick/bot").await.access.expose_secret(), access);
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
}

fn introspection(rig: &Rig, exp: i64) -> Fault {
    let exp = rig.sim.clock.now().plus_secs(exp).as_millis() / 1000;
    let data = serde_json::json!({"active": true, "client_id": "app", "token_type": "user",
        "scope": "user:read channel:read chat:write", "exp": exp});
    let body = serde_json::json!({"data": data, "message": "OK"});
    Fault::body(FaultBody::Json(body)).on("/oauth/token/introspect")
}

#[tokio::test]
async fn active_token_past_its_expiry_that_the_api_refuses_is_not_valid() {
    for (refreshes, expected) in [(true, AuthResult::Revoked), (false, AuthResult::Expired)] {
        let rig = Rig::start().await;
        rig.log_in(&SCOPES, 0).await;
        if !refreshes {
            let token = rig.stored(BOT).await;
            rig.keep(
                BOT,
                StoredToken {
                    refresh: None,
                    ..token
                },
            )
            .await;
        }
        rig.probe(&[Probe::Auth], &[ADA]).await;
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
        // The API refuses the token, and its refresh gets `invalid_grant`.
        rig.kick().disconnect(Some(BOT_ID));
        rig.fail(introspection(&rig, -600));
        rig.later(60);
        rig.probe(&[Probe::Auth], &[ADA]).await;
        assert_eq!(rig.record(ADA).auth_status, Some(expected), "{}", rig.facts(ADA));
    }
}

#[tokio::test]
async fn active_token_past_its_expiry_that_the_api_accepts_is_valid() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.fail(introspection(&rig, -600));
    rig.probe(&[Probe::Auth], &[ADA]).await;
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
    assert_eq!(rig.stored(BOT).await.expires_at, None);
}

#[tokio::test]
async fn active_token_past_its_expiry_without_the_apis_answer_is_unknown() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    // The owner of the token is known, so that no other request needs this endpoint.
    rig.probe(&[Probe::Auth], &[ADA]).await;
    rig.forget();
    rig.fail(introspection(&rig, -600));
    rig.fail(Fault::status(401).on("/public/v1/users"));
    rig.probe(&[Probe::Auth], &[BOT_ID]).await;
    let check = rig
        .knowledge(BOT_ID)
        .evidence
        .auth
        .get(&Identity::named(BOT))
        .cloned();
    assert_eq!(check, None);
}

#[tokio::test]
async fn introspection_without_kicks_envelope_revokes_nothing() {
    for (status, body) in [
        (401, serde_json::json!({"error": "invalid_token"})),
        (401, serde_json::json!({"error": "invalid_grant"})),
        (401, serde_json::json!({"error": "Unauthorized"})),
        (401, serde_json::json!({"active": false})),
        (200, serde_json::json!({"active": false})),
        (
            200,
            serde_json::json!({"data": {"active": false}, "message": "Unauthorized"}),
        ),
    ] {
        let rig = Rig::start().await;
        rig.log_in(&SCOPES, 0).await;
        let token = rig.stored(BOT).await;
        rig.keep(
            BOT,
            StoredToken {
                refresh: None,
                ..token
            },
        )
        .await;
        rig.probe(&[Probe::Auth], &[ADA]).await;
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
        let fault = Fault::status(status).with_body(FaultBody::Json(body.clone()));
        rig.fail(fault.on("/oauth/token/introspect"));
        rig.later(60);
        rig.probe(&[Probe::Auth], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(record.auth_status, Some(AuthResult::Valid), "{status} {body}");
        assert_ne!(record.status, Status::Error, "{status} {body}");
    }
}

#[tokio::test]
async fn foreign_oauth_error_of_the_token_endpoint_refuses_no_application() {
    for (status, name) in [
        (401, "invalid_token"),
        (401, "access_denied"),
        (401, "unauthorized_client"),
        (400, "unauthorized_client"),
        (403, "invalid_client"),
    ] {
        let rig = Rig::start().await;
        let body = serde_json::json!({"error": name});
        let fault = Fault::status(status).with_body(FaultBody::Json(body));
        rig.fail(fault.on("/oauth/token"));
        let summary = rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
        let record = rig.record(ADA);
        assert_ne!(record.status, Status::Error, "{status} {name}: {summary:?}");
        assert_eq!(record.auth_status, None, "{status} {name}");
        assert_eq!(
            record.last_error.unwrap().code,
            Code::Unreadable(PlatformName::Kick),
            "{status} {name}"
        );
        let shown = format!("{summary:?}");
        assert!(!shown.contains("invalid_client"), "{shown}");
        // It was asked again, and the next poll asks again too.
        let asked = rig.calls("/oauth/token");
        assert!(asked > 1, "{status} {name}");
        rig.kick().host().faults().clear();
        rig.probe(&[Probe::Connection, Probe::Stream], &[ADA]).await;
        assert_eq!(rig.record(ADA).status, Status::Connected, "{status} {name}");
    }
}
