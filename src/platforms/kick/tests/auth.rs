//! Tokens: what is VALID, EXPIRED, REVOKED, and what is merely out of order.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::{ADA, BOT_ID, Rig, key};
use crate::core::observation::AuthResult;
use crate::core::stream::StreamStatus::{Online, Unknown};
use crate::core::verdict::Status;
use crate::platforms::{Platform as _, Probe};
use crate::sim::faults::{Fault, FaultBody, WireFault};
use crate::sim::kick::KickTokenSpec;
use crate::tokens::StoredToken;

const SCOPES: [&str; 3] = ["user:read", "channel:read", "chat:write"];

#[tokio::test]
async fn the_app_token_is_fetched_once_and_kept() {
    let rig = Rig::start().await;
    rig.look_at(ADA).await;
    rig.look_at(ADA).await;
    assert_eq!(rig.calls("/oauth/token"), 1);
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
    let token = rig.app_token().await;
    let life = token.expires_at.unwrap().millis_since(token.obtained_at) + 60_000;
    assert_eq!(life / 86_400_000, 60);
}

#[tokio::test]
async fn an_app_token_that_dies_early_is_replaced_once_and_the_call_repeated() {
    let rig = Rig::start().await;
    rig.kick().go_live(ADA);
    rig.look_at(ADA).await;
    let first = rig.app_token().await;
    rig.kick().disconnect(None);
    rig.look(&[Probe::Stream], &[ADA]).await;
    assert_eq!(rig.record(ADA).stream_status, Online);
    assert_eq!(rig.record(ADA).status, Status::Connected);
    assert_eq!(rig.calls("/oauth/token"), 2);
    let second = rig.app_token().await;
    assert_ne!(first.access.expose_secret(), second.access.expose_secret());
}

#[tokio::test]
async fn a_wrong_secret_is_a_persons_business_and_not_tried_again_and_again() {
    let rig = Rig::with(
        |options| options.client_secret = Some("wrong".to_owned().into()),
        std::time::Duration::from_mins(1),
    )
    .await;
    let summary = rig.look_at(ADA).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.contains("invalid_client")),
        "{summary:?}"
    );
    rig.look_at(ADA).await;
    assert_eq!(rig.calls("/oauth/token"), 1);
    let record = rig.record(ADA);
    assert_eq!((record.status, record.auth_status), (Status::Error, None));
    assert_eq!(record.last_error.unwrap().code, "kick.invalid_client");
    assert_eq!(record.stream_status, Unknown);
}

#[tokio::test]
async fn a_user_token_is_refreshed_before_it_ends_and_the_new_pair_is_kept() {
    let rig = Rig::start().await;
    let (access, refresh) = rig.log_in(&SCOPES, 6_700).await;
    rig.look_at(ADA).await;
    let stored = rig.stored("kick/bot").await;
    assert_ne!(stored.access.expose_secret(), access);
    assert_ne!(stored.refresh.unwrap().secret.expose_secret(), refresh);
    assert_eq!(stored.user_id.as_deref(), Some("880100"));
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
}

#[tokio::test]
async fn an_ended_token_is_renewed_whichever_way_kick_says_inactive() {
    for by_status in [false, true] {
        let rig = Rig::start().await;
        rig.kick()
            .knobs(|knobs| knobs.introspect_inactive_401 = by_status);
        let (access, _) = rig.log_in(&SCOPES, 0).await;
        rig.kick().expire_token(&access);
        rig.look(&[Probe::Auth], &[ADA]).await;
        assert_eq!(
            rig.record(ADA).auth_status,
            Some(AuthResult::Valid),
            "{by_status}"
        );
    }
}

#[tokio::test]
async fn a_user_who_has_removed_the_application_is_revoked_and_not_asked_again() {
    for by_status in [false, true] {
        let rig = Rig::start().await;
        rig.kick().knobs(|knobs| {
            knobs.introspect_inactive_401 = by_status;
            knobs.invalid_grant_401 = by_status;
        });
        rig.log_in(&SCOPES, 0).await;
        rig.look_at(ADA).await;
        rig.kick().disconnect(Some(BOT_ID));
        rig.later(10);
        rig.look_at(ADA).await;
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
        rig.look_at(ADA).await;
        assert_eq!(
            rig.calls("/oauth/token"),
            refreshes,
            "a refused refresh token is never sent again"
        );
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Revoked));
    }
}

#[tokio::test]
async fn a_grant_that_lay_idle_for_a_month_has_expired_and_was_not_revoked() {
    let rig = Rig::start().await;
    let (access, _) = rig.log_in(&SCOPES, 0).await;
    rig.later(31 * 86_400);
    rig.kick().expire_token(&access);
    rig.kick().age_out_refresh(BOT_ID);
    let summary = rig.look(&[Probe::Auth], &[ADA]).await;
    assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Expired));
    assert!(
        summary.problems.iter().any(|problem| problem.contains("31 days")),
        "{summary:?}"
    );
}

#[tokio::test]
async fn an_aging_grant_is_warned_about_from_day_twenty_five() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    // The renewals fail, as they do while the OAuth host is down.
    rig.later(26 * 86_400);
    rig.kick()
        .host()
        .faults()
        .add(Fault::status(404).on("/oauth/token").with_body(FaultBody::Html));
    let summary = rig.look(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary.problems.iter().any(|problem| problem.contains("26 days")),
        "{summary:?}"
    );
    assert_ne!(rig.record(ADA).auth_status, Some(AuthResult::Revoked));
}

#[tokio::test]
async fn an_oauth_host_out_of_order_says_nothing_about_a_token() {
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
        rig.look_at(ADA).await;
        assert_eq!(rig.record(ADA).auth_status, Some(AuthResult::Valid));
        rig.kick().host().faults().add(fault.clone().on("/oauth"));
        rig.later(3_600);
        rig.look(&[Probe::Auth], &[ADA]).await;
        let record = rig.record(ADA);
        assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
        assert_eq!(record.status, Status::Connected, "{fault:?}");
    }
}

#[tokio::test]
async fn scopes_are_permissions_and_their_loss_is_told() {
    let rig = Rig::start().await;
    rig.log_in(&SCOPES, 0).await;
    rig.look_at(ADA).await;
    let permissions = |rig: &Rig| -> BTreeSet<String> { rig.record(ADA).permissions.into_iter().collect() };
    assert!(permissions(&rig).contains("scope:chat:write"));
    assert!(!permissions(&rig).contains("scope:moderation:ban"));
    rig.kick().shrink_scope(BOT_ID, "chat:write");
    rig.later(600);
    let summary = rig.look_at(ADA).await;
    assert!(!permissions(&rig).contains("scope:chat:write"));
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.contains("chat:write")),
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
    rig.look(&[Probe::Permissions], &[ADA, BOT_ID]).await;
    assert!(
        rig.record(BOT_ID)
            .permissions
            .contains(&"badge:broadcaster".to_owned())
    );
    assert!(
        rig.record(ADA)
            .permissions
            .contains(&"badge:moderator".to_owned())
    );
    rig.later(8 * 86_400);
    rig.look(&[Probe::Permissions], &[ADA]).await;
    assert!(
        !rig.record(ADA)
            .permissions
            .contains(&"badge:moderator".to_owned())
    );
}

#[tokio::test]
async fn a_token_of_somebody_else_is_never_used() {
    let rig = Rig::with(
        |options| options.bot_user_id = Some(ADA),
        std::time::Duration::from_mins(1),
    )
    .await;
    rig.log_in(&SCOPES, 0).await;
    rig.kick().add_app("other", "secret");
    let summary = rig.look(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.contains("user 880100")),
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
    let summary = rig.look(&[Probe::Auth], &[ADA]).await;
    assert!(
        summary
            .problems
            .iter()
            .any(|problem| problem.contains("another application")),
        "{summary:?}"
    );
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_token_is_told_as_such() {
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
    rig.kick()
        .host()
        .faults()
        .add(fault.on("/public/v1/users/livestreams"));
    rig.look(&[Probe::Stream], &[ADA]).await;
    let record = rig.record(ADA);
    assert_eq!(record.auth_status, Some(AuthResult::Valid));
    assert_eq!(record.last_error.unwrap().code, "kick.forbidden");
    assert_eq!(rig.calls("/oauth/token/introspect"), 1);
}

#[tokio::test]
async fn without_any_identity_nothing_is_sent_and_the_reason_told() {
    let rig = Rig::with(
        |options| options.client_id = None,
        std::time::Duration::from_mins(1),
    )
    .await;
    let summary = rig.look_at(ADA).await;
    assert_eq!(summary.calls, 0);
    assert!(summary.problems[0].contains("kick.client_id"), "{summary:?}");
    assert_eq!(rig.record(ADA).status, Status::Error);
    assert_eq!(rig.kick().host().journal().total(), 0);
}

#[tokio::test]
async fn no_token_or_secret_is_ever_observed_or_told() {
    let rig = Rig::start().await;
    let (access, refresh) = rig.log_in(&SCOPES, 0).await;
    let before = format!("{:?}", rig.look_at(ADA).await);
    rig.kick().disconnect(Some(BOT_ID));
    let after = format!("{:?}", rig.look_at(ADA).await);
    let app = rig.app_token().await.access.expose_secret().to_owned();
    let told = format!("{before}{after}{}{}", rig.facts(ADA), rig.facts(BOT_ID));
    for secret in [access.as_str(), &refresh, &app, "hush", "private@example.invalid"] {
        assert!(!told.contains(secret), "{told}");
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
