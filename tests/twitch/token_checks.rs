//! Checks of accounts: what is evidence about a token, when it becomes known, and how many requests it costs.

use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{AuthCheck, AuthResult, Fact};
use bitbrat::core::source::PlatformName;
use bitbrat::core::verdict::{Holding, Status, Verdict, holding};
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch::{self, TwitchPlatform};
use bitbrat::sim::twitch::TokenSpec;
use bitbrat::sim::{Fault, FaultBody};
use bitbrat::tokens::{RefreshToken, StoredToken};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{BOT, RAT, SCOPES, Seen, World, look};

const QUICK: [Probe; 3] = [Probe::Connection, Probe::Stream, Probe::Viewers];
const VALIDATE: &str = "/oauth2/validate";
const TOKEN: &str = "/oauth2/token";

/// Rejections that are not in Twitch's own format.
fn foreign(status: u16) -> Vec<Fault> {
    let json = |body| Fault::status(status).with_body(FaultBody::Json(body));
    vec![
        Fault::status(status).with_body(FaultBody::Empty),
        Fault::status(status).with_body(FaultBody::Text("Unauthorized".to_owned())),
        Fault::status(status).with_body(FaultBody::Html),
        json(json!({"message": "Unauthorized"})),
        json(json!({"error": "invalid_token", "error_description": "The token expired"})),
        json(json!({"statusCode": status, "error": "Unauthorized", "message": "Invalid token"})),
    ]
}

fn checks<'a>(seen: &'a Seen, id: &str) -> Vec<&'a AuthCheck> {
    let facts = seen.of(id).into_iter();
    facts
        .filter_map(|fact| match fact {
            Fact::Auth { check, .. } => Some(&**check),
            _ => None,
        })
        .collect()
}

/// The verdict about a source after several probes.
fn after(looks: &[&Seen], id: &str) -> Verdict {
    let all = looks.iter().flat_map(|seen| &seen.observations);
    let known = Knowledge::of(all.filter(|reported| reported.source.id() == id));
    Verdict::of(PlatformName::Twitch, &known.evidence)
}

/// Faults on one path of the OAuth host, then none: the account stays VALID throughout.
async fn stays_valid(world: &World, faults: Vec<Fault>, path: &str) {
    for fault in faults {
        world.twitch().host().faults().clear();
        let before = world.look(&[Probe::Auth], &[RAT]).await;
        world.fail(fault.clone().on(path));
        let during = world.look(&[Probe::Auth], &[RAT]).await;
        assert!(
            checks(&during, RAT).is_empty(),
            "{path} {fault:?}: {:?}",
            during.observations
        );
        let auth = after(&[&before, &during], RAT).auth.unwrap();
        assert_eq!(auth.value, AuthResult::Valid, "{path} {fault:?}");
    }
}

#[tokio::test]
async fn foreign_401_of_validate_is_no_evidence() {
    let world = World::confidential().await;
    stays_valid(&world, foreign(401), VALIDATE).await;
    // Nor is one in Twitch's format with another message.
    let framework = json!({"error": "Unauthorized", "status": 401, "message": "Unauthorized", "path": "/"});
    let fault = Fault::status(401).with_body(FaultBody::Json(framework));
    stays_valid(&world, vec![fault], VALIDATE).await;
    assert_eq!(
        world.requests("POST", TOKEN),
        0,
        "no refresh token is sent for that"
    );
}

#[tokio::test]
async fn one_foreign_401_of_validate_is_asked_again() {
    for fault in foreign(401) {
        let world = World::confidential().await;
        world.fail(fault.clone().on(VALIDATE).times(1));
        let seen = world.look(&[Probe::Auth], &[RAT]).await;
        assert_eq!(
            seen.verdict(RAT).auth.unwrap().value,
            AuthResult::Valid,
            "{fault:?}"
        );
        assert_eq!(world.requests("GET", VALIDATE), 2);
    }
}

#[tokio::test]
async fn unanswered_refresh_is_no_refused_credential() {
    for body in [
        FaultBody::Json(json!({"message": "bad", "status": 400})),
        FaultBody::Empty,
    ] {
        let world = World::public().await;
        let before = world.look(&Probe::ALL, &[RAT]).await;
        world.sim.clock.advance(5 * 3_600_000);
        let fault = Fault::status(400).with_body(body.clone());
        world.fail(fault.on(TOKEN));
        let during = world.look(&Probe::ALL, &[RAT]).await;
        let verdict = after(&[&before, &during], RAT);
        assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid, "{body:?}");
        assert_eq!(verdict.status.value, Status::Disconnected, "{body:?}");
        world.twitch().host().faults().clear();
        world.sim.clock.advance(60_000);
        let healed = world.look(&Probe::ALL, &[RAT]).await;
        let verdict = after(&[&before, &during, &healed], RAT);
        assert_eq!(verdict.status.value, Status::Connected, "{body:?}");
    }
}

#[tokio::test]
async fn rejected_token_is_an_error_although_another_one_reads() {
    let world = World::confidential().await;
    let nonsense = StoredToken::unproven("nonsense".to_owned(), world.now());
    world.put_token(&twitch::bot(), Some(nonsense)).await;
    let seen = world.look(&Probe::ALL, &[RAT]).await;
    let verdict = seen.verdict(RAT);
    let auth = verdict.auth.unwrap();
    assert_eq!((auth.value, auth.rule), (AuthResult::Expired, "auth.rejected"));
    assert_eq!(
        (verdict.status.value, verdict.status.rule),
        (Status::Error, "status.token-rejected")
    );
}

#[tokio::test]
async fn refresh_during_a_poll_is_no_problem_of_the_poll() {
    let world = World::confidential().await;
    let pair = world.twitch().issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    world.twitch().expire_token(&pair.access);
    let token = StoredToken {
        refresh: pair.refresh.map(RefreshToken::fresh),
        client_id: Some("app".to_owned()),
        user_id: Some(BOT.to_owned()),
        ..StoredToken::unproven(pair.access, world.now())
    };
    world.put_token(&twitch::bot(), Some(token)).await;
    let polled = world.look(&QUICK, &[RAT]).await;
    assert_eq!(checks(&polled, RAT)[0].result, AuthResult::Valid);
    assert_eq!(polled.summary.problems, []);
    // The token has no scopes, which a check of accounts reports.
    let checked = world.look(&[Probe::Auth], &[RAT]).await;
    let problems = checked.problem_texts();
    assert!(problems.contains("lacks the scope user:read:chat"), "{problems}");
}

#[tokio::test]
async fn odd_values_in_validate_leave_the_account_known() {
    let user: u64 = BOT.parse().unwrap();
    for (body, scopes_known) in [
        (
            json!({"client_id": "app", "user_id": user, "login": null, "scopes": SCOPES, "expires_in": "9000"}),
            true,
        ),
        (
            json!({"client_id": "app", "user_id": BOT, "login": 7, "scopes": null, "expires_in": 9000.0}),
            false,
        ),
        (
            json!({"client_id": "app", "user_id": BOT, "expires_in": null}),
            false,
        ),
    ] {
        let world = World::confidential().await;
        // A token without any evidence yet, scopes included.
        let access = world.bot_token().await.access.expose_secret().to_owned();
        let token = StoredToken::unproven(access, world.now());
        world.put_token(&twitch::bot(), Some(token)).await;
        let fault = Fault::body(FaultBody::Json(body.clone())).on(VALIDATE);
        world.fail(fault);
        let seen = world.look(&Probe::ALL, &[RAT]).await;
        let verdict = seen.verdict(RAT);
        assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid, "{body}");
        let knowledge = seen.knowledge(RAT);
        let scope = |name: &str| holding(&knowledge.evidence, name).0;
        let (granted, other) = (scope("scope:user:read:chat"), scope("scope:user:write:chat"));
        if scopes_known {
            assert_eq!((granted, other), (Holding::Yes, Holding::No), "{body}");
        } else {
            assert!(
                matches!((&granted, &other), (Holding::Unknown(_), Holding::Unknown(_))),
                "{body}: {granted:?} {other:?}"
            );
        }
    }
}

#[tokio::test]
async fn foreign_answer_of_token_endpoint_is_no_evidence() {
    let mut faults = foreign(400);
    faults.extend([401, 403, 404].map(|status| Fault::status(status).with_body(FaultBody::Empty)));
    // In Twitch's error format, with messages that are none of the token endpoint's.
    faults.extend([400, 401, 403].map(|status| {
        Fault::status(status).with_body(FaultBody::Json(json!({"message": "bad", "status": status})))
    }));
    for fault in faults {
        for world in [World::confidential().await, World::public().await] {
            let before = world.look(&[Probe::Auth], &[RAT]).await;
            world.sim.clock.advance(5 * 3_600_000);
            world.fail(fault.clone().on(TOKEN));
            let during = world.look(&[Probe::Auth], &[RAT]).await;
            let auth = after(&[&before, &during], RAT).auth.unwrap();
            assert_eq!(auth.value, AuthResult::Valid, "{fault:?}");
            // The request was repeated, and the refresh token was not used up.
            assert_eq!(world.requests("POST", TOKEN), 3, "{fault:?}");
            world.twitch().host().faults().clear();
            let healed = world.look(&[Probe::Auth], &[RAT]).await;
            assert_eq!(
                healed.verdict(RAT).auth.unwrap().value,
                AuthResult::Valid,
                "{fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn foreign_401_of_helix_is_no_evidence() {
    for fault in foreign(401) {
        let world = World::confidential().await;
        let before = world.look(&Probe::ALL, &[RAT]).await;
        world.fail(fault.clone().on("/helix").times(1));
        let once = world.look(&QUICK, &[RAT]).await;
        assert_eq!(
            after(&[&before, &once], RAT).status.value.to_string(),
            "CONNECTED",
            "{fault:?}"
        );
        world.fail(fault.clone().on("/helix"));
        let always = world.look(&QUICK, &[RAT]).await;
        let verdict = after(&[&before, &once, &always], RAT);
        assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid, "{fault:?}");
        assert_eq!(verdict.status.value.to_string(), "DISCONNECTED", "{fault:?}");
        assert_eq!(
            world.requests("GET", VALIDATE),
            1,
            "a stranger's word is not checked: {fault:?}"
        );
    }
}

#[tokio::test]
async fn revoked_bot_token_is_evidence_within_that_poll() {
    let world = World::confidential().await;
    world.twitch().add_channel("77", "other");
    let platform = world.platform();
    let before = look(&platform, &Probe::ALL, &[RAT, "77", "999"]).await;
    assert_eq!(before.verdict(RAT).auth.unwrap().value, AuthResult::Valid);
    world.twitch().disconnect(BOT);
    world.sim.clock.advance(15_000);
    // The poll uses the application's token.
    let poll = look(&platform, &QUICK, &[RAT, "77", "999"]).await;
    for id in [RAT, "77", "999"] {
        let verdict = after(&[&before, &poll], id);
        assert_eq!(verdict.auth.unwrap().value, AuthResult::Revoked, "{id}");
        assert_eq!(verdict.status.value.to_string(), "ERROR", "{id}");
    }
    assert!(poll.failure(RAT).is_none(), "{:?}", poll.observations);
    let refreshes = world.requests("POST", TOKEN);
    look(&platform, &QUICK, &[RAT]).await;
    assert_eq!(
        world.requests("POST", TOKEN),
        refreshes,
        "a refused refresh token is not sent again"
    );
    // A login is evidence within the next poll's check.
    world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    world.sim.clock.advance(15_000);
    let healed = look(&platform, &[Probe::Auth, Probe::Connection], &[RAT]).await;
    let verdict = after(&[&before, &poll, &healed], RAT);
    assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid);
    assert_eq!(verdict.status.value.to_string(), "CONNECTED");
}

#[tokio::test]
async fn revoked_broadcaster_is_evidence_within_that_poll() {
    let world = World::confidential().await;
    world
        .give_token(&twitch::broadcaster(RAT), RAT, &["moderation:read"])
        .await;
    let before = world.look(&Probe::ALL, &[RAT]).await;
    world.twitch().disconnect(RAT);
    let poll = world.look(&[Probe::Permissions], &[RAT]).await;
    assert_eq!(
        after(&[&before, &poll], RAT).auth.unwrap().value,
        AuthResult::Revoked
    );
}

#[tokio::test]
async fn one_probe_validates_a_token_once() {
    let ids: Vec<_> = (1..=900).map(|id| id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for probes in [&Probe::ALL[..], &QUICK] {
        // Many concurrent batches, with a token without any evidence yet.
        let world = World::confidential().await;
        let access = super::text(&world.bot_token().await).0;
        let unproven = StoredToken::unproven(access, world.now());
        world.put_token(&twitch::bot(), Some(unproven)).await;
        world.look(probes, &ids).await;
        assert_eq!(world.requests("GET", VALIDATE), 1, "{probes:?}");
    }
}

#[tokio::test]
async fn refused_calls_side_by_side_share_one_check() {
    let world = World::confidential().await;
    let ids: Vec<_> = (1..=900).map(|id| id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    world.twitch().disconnect(BOT);
    world.look(&QUICK, &ids).await;
    assert_eq!(
        (world.requests("GET", VALIDATE), world.requests("POST", TOKEN)),
        (1, 2)
    );
}

#[tokio::test]
async fn nonsense_token_is_rejected() {
    for refresh in [None, Some("nonsense")] {
        let world = World::confidential().await;
        let mut token = StoredToken::unproven("nonsense", world.now());
        token.refresh = refresh.map(RefreshToken::fresh);
        world.put_token(&twitch::bot(), Some(token)).await;
        let seen = world.look(&[Probe::Auth], &[RAT]).await;
        let [check] = checks(&seen, RAT)[..] else {
            panic!("{:?}", seen.observations);
        };
        assert_eq!(
            (check.result, check.rejected),
            (AuthResult::Expired, true),
            "{check:?}"
        );
        assert_eq!(seen.verdict(RAT).auth.unwrap().rule, "auth.rejected");
        let reported = seen.problem_texts();
        assert!(reported.contains("REJECTED"), "{reported}");
    }
}

#[tokio::test]
async fn token_that_was_valid_once_is_not_called_rejected() {
    let world = World::public().await;
    world.look(&[Probe::Auth], &[RAT]).await;
    world.twitch().disconnect(BOT);
    let seen = world.look(&[Probe::Auth], &[RAT]).await;
    let check = checks(&seen, RAT)[0];
    assert_eq!((check.result, check.rejected), (AuthResult::Revoked, false));
}

/// A probe with a token that has expired according to `validate`, at a Helix that answers `helix`.
async fn probe_with_overdue_token(world: &World, platform: &TwitchPlatform, helix: Option<Fault>) -> Seen {
    let body = json!({
        "client_id": "app", "user_id": BOT, "login": "bitbrat_bot", "scopes": SCOPES, "expires_in": -3_600
    });
    world.twitch().host().faults().clear();
    let overdue = Fault::body(FaultBody::Json(body)).on(VALIDATE);
    world.fail(overdue);
    if let Some(fault) = helix {
        world.fail(fault.on("/helix"));
    }
    look(platform, &[Probe::Auth], &[RAT]).await
}

#[tokio::test]
async fn token_that_helix_calls_expired_is_not_valid() {
    let world = World::confidential().await;
    let pair = world.twitch().issue_token(TokenSpec {
        client_id: "app".to_owned(),
        user_id: Some(BOT.to_owned()),
        ..TokenSpec::default()
    });
    world
        .put_token(
            &twitch::bot(),
            Some(StoredToken::unproven(pair.access, world.now())),
        )
        .await;
    let platform = world.platform();
    let expired = json!({"error": "Unauthorized", "status": 401, "message": "Token expired"});
    let expired = Fault::status(401).with_body(FaultBody::Json(expired));
    let seen = probe_with_overdue_token(&world, &platform, Some(expired)).await;
    let [check] = checks(&seen, RAT)[..] else {
        panic!("{:?}", seen.observations);
    };
    assert_eq!((check.result, check.rejected), (AuthResult::Expired, false));
    // Where Helix accepts it, or its response does not concern it, the expiry alone decides nothing.
    let accepted = probe_with_overdue_token(&world, &platform, None).await;
    assert_eq!(checks(&accepted, RAT)[0].result, AuthResult::Valid);
    let unclear = probe_with_overdue_token(&world, &platform, Some(Fault::status(503))).await;
    assert!(checks(&unclear, RAT).is_empty(), "{:?}", unclear.observations);
}

#[tokio::test]
async fn foreign_refusal_of_helix_is_no_refusal() {
    for status in [400, 401, 403, 404] {
        for fault in foreign(status) {
            let world = World::confidential().await;
            let before = world.look(&Probe::ALL, &[RAT]).await;
            let faults = world.twitch().host().faults();
            faults.add(fault.clone().on("/helix/streams"));
            let one = world.look(&QUICK, &[RAT]).await;
            let verdict = after(&[&before, &one], RAT);
            assert_eq!(verdict.status.value.to_string(), "CONNECTED", "{fault:?}");
            faults.add(fault.clone().on("/helix"));
            let all = world.look(&QUICK, &[RAT]).await;
            let verdict = after(&[&before, &one, &all], RAT);
            assert_eq!(verdict.status.value.to_string(), "DISCONNECTED", "{fault:?}");
            assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_401_for_a_token_that_validate_accepts_is_no_refusal() {
    for words in ["Unauthorized by gateway", "Unauthorized", "Invalid OAuth token"] {
        let world = World::confidential().await;
        let before = world.look(&Probe::ALL, &[RAT]).await;
        let body = FaultBody::Json(json!({"status": 401, "message": words}));
        let faults = world.twitch().host().faults();
        faults.add(Fault::status(401).with_body(body).on("/helix"));
        let seen = world.look(&QUICK, &[RAT]).await;
        assert_ne!(
            seen.failure(RAT).map(|(refused, _)| refused),
            Some(true),
            "{words}"
        );
        let verdict = after(&[&before, &seen], RAT);
        assert_eq!(verdict.auth.unwrap().value, AuthResult::Valid, "{words}");
        assert_ne!(verdict.status.value.to_string(), "ERROR", "{words}");
    }
}
