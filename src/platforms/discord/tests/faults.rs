//! Results of a probe when something fails: what was proven, and nothing else.

use super::*;
use crate::core::code::Code;
use crate::core::observation::AuthResult;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::verdict::Status;
use crate::sim::discord::faults::named;
use crate::sim::{Fault, WireFault};

#[tokio::test]
async fn rejected_token_costs_one_call_until_it_changes() {
    let rig = Rig::start().await;
    let fresh = rig.discord().reset_token(BOT, false).unwrap();
    let first = rig.probe_once(&Probe::ALL, &[GUILD, 9_002]).await;
    assert_eq!((first.summary.calls, rig.total_calls()), (1, 1));
    for guild in [GUILD, 9_002] {
        let record = first.record(guild);
        assert_eq!(
            (record.status, record.auth_status),
            (Status::Error, Some(AuthResult::Revoked))
        );
        assert_eq!(
            record.last_error.unwrap().code,
            Code::Unauthorized(PlatformName::Discord)
        );
    }
    for probes in [&Probe::ALL[..], &[Probe::Connection], &[Probe::Permissions]] {
        let later = rig.probe_once(probes, &[GUILD]).await;
        assert_eq!(later.summary.calls, 0);
        assert_eq!(later.record(GUILD).auth_status, Some(AuthResult::Revoked));
        let refused_at = later.observations[0].at;
        assert_eq!(
            refused_at, first.observations[0].at,
            "dated when it was refused, not when it was told again"
        );
    }
    assert_eq!(rig.total_calls(), 1);
    let state = std::fs::read_to_string(rig.state.path().join("discord.json")).unwrap();
    assert!(!state.contains("secret-part"), "{state}");

    let with_fresh = rig.platform(|options| options.bot_token = Some(SecretString::from(fresh)));
    let revived = probe(&with_fresh, &Probe::ALL, &[GUILD]).await;
    let record = revived.record_after(GUILD, &[&first]);
    assert_eq!(
        (record.status, record.auth_status),
        (Status::Connected, Some(AuthResult::Valid))
    );
}

#[tokio::test]
async fn every_probe_stops_at_one_call_with_rejected_token() {
    for probe in [Probe::Connection, Probe::Permissions, Probe::Auth] {
        let rig = Rig::start().await;
        rig.discord().reset_token(BOT, false);
        let seen = rig.probe_once(&[probe], &[GUILD]).await;
        assert_eq!(rig.total_calls(), 1, "{probe}");
        assert_eq!(
            seen.record(GUILD).auth_status,
            Some(AuthResult::Revoked),
            "{probe}"
        );
        assert!(!seen.claims());
    }
}

#[tokio::test]
async fn rejected_token_is_retried_once_an_hour() {
    let rig = Rig::start().await;
    rig.discord().reset_token(BOT, false);
    rig.probe_once(&Probe::ALL, &[GUILD]).await;
    rig.clock.advance(3_599_000);
    rig.probe_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(rig.total_calls(), 1);
    rig.clock.advance(2_000);
    rig.probe_once(&Probe::ALL, &[GUILD]).await;
    rig.probe_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(rig.total_calls(), 2);
    // The user who entered the wrong value in the portal has restored the old token.
    rig.discord().add_bot(BOT, "bitbrat", TOKEN, 0);
    rig.clock.advance(3_601_000);
    let seen = rig.probe_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(seen.record(GUILD).status, Status::Connected);
    assert_eq!(
        rig.probe_once(&Probe::ALL, &[GUILD]).await.record(GUILD).status,
        Status::Connected
    );
}

#[tokio::test]
async fn token_reset_between_probes_is_detected_at_once() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let before = probe(&platform, &Probe::ALL, &[GUILD]).await;
    rig.discord().reset_token(BOT, false);
    let after = probe(&platform, &[Probe::Connection], &[GUILD]).await;
    let record = after.record_after(GUILD, &[&before]);
    assert_eq!(
        (record.status, record.auth_status),
        (Status::Error, Some(AuthResult::Revoked))
    );
    assert!(!record.held().is_empty(), "what was known is not unlearnt");
    assert_eq!(probe(&platform, &Probe::ALL, &[GUILD]).await.summary.calls, 0);
}

#[tokio::test]
async fn transport_faults_change_no_token_stream_or_permission() {
    for (name, status, code) in [
        ("limited_global", Status::Disconnected, "discord.rate_limited"),
        ("cloudflare_page", Status::Disconnected, "discord.edge_blocked"),
        (
            "cloudflare_page_retry",
            Status::Disconnected,
            "discord.edge_blocked",
        ),
        ("cloudflare_text", Status::Disconnected, "discord.edge_blocked"),
        (
            "cloudflare_forbidden",
            Status::Disconnected,
            "discord.edge_blocked",
        ),
        ("agent_blocked", Status::Error, "discord.client_blocked"),
        ("overloaded", Status::Disconnected, "http.503"),
        ("bad_gateway", Status::Disconnected, "http.502"),
        ("portal", Status::Disconnected, "discord.unreadable"),
        ("proxy_unauthorized", Status::Disconnected, "discord.unreadable"),
    ] {
        let rig = Rig::start().await;
        rig.fail(named(name).unwrap());
        let platform = rig.platform(|options| options.patience = Duration::from_millis(500));
        let seen = probe(&platform, &Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!((record.status, record.auth_status), (status, None), "{name}");
        assert_eq!(seen.error_code(GUILD).as_deref(), Some(code), "{name}");
        assert_eq!(record.stream_status, StreamStatus::Unknown);
        assert!(!seen.claims(), "{name}");
        assert!(seen.summary.calls <= 6, "{name}: {}", seen.summary.calls);
    }
}

/// Refusals that are not in Discord's own format.
fn foreign_refusals() -> Vec<Fault> {
    let json = |body| Fault::status(401).with_body(crate::sim::FaultBody::Json(body));
    vec![
        Fault::status(401).with_body(crate::sim::FaultBody::Empty),
        Fault::status(401).with_body(crate::sim::FaultBody::Text("Unauthorized".to_owned())),
        json(serde_json::json!({})),
        json(serde_json::json!({"message": "Unauthorized"})),
        json(serde_json::json!({"code": 401, "message": "Unauthorized"})),
        json(serde_json::json!({"error": "Unauthorized", "status": 401, "message": "Unauthorized"})),
    ]
}

#[tokio::test]
async fn failed_permission_request_keeps_known_roles() {
    let own = |code: u64, words: &str| {
        crate::sim::FaultBody::Json(serde_json::json!({"message": words, "code": code}))
    };
    for (status, body) in [
        (403, own(50_001, "Missing Access")),
        (404, own(10_007, "Unknown Member")),
        (400, own(50_035, "Invalid Form Body")),
        (400, crate::sim::FaultBody::Empty),
        (401, crate::sim::FaultBody::Empty),
        (500, crate::sim::FaultBody::Empty),
    ] {
        let rig = Rig::start().await;
        let before = rig.probe_once(&Probe::ALL, &[GUILD]).await;
        assert!(!before.record(GUILD).held().is_empty());
        let fault = Fault::status(status).with_body(body);
        let members = format!("/api/v10/guilds/{GUILD}");
        rig.fail(fault.clone().on(&members));
        let failed = rig.probe_once(&[Probe::Permissions], &[GUILD]).await;
        let record = failed.record_after(GUILD, &[&before]);
        assert_eq!(record.held(), before.record(GUILD).held(), "{fault:?}");
        assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
    }
}

#[tokio::test]
async fn one_foreign_401_is_asked_again_and_no_evidence() {
    for fault in foreign_refusals() {
        let rig = Rig::start().await;
        rig.fail(fault.clone().times(1));
        let record = rig.probe_once(&Probe::ALL, &[GUILD]).await.record(GUILD);
        assert_eq!(
            (record.status, record.auth_status, record.last_error),
            (Status::Connected, Some(AuthResult::Valid), None),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn foreign_refusal_of_discord_is_no_refusal() {
    let foreign = serde_json::json!({"statusCode": 400, "error": "Bad Request", "message": "no"});
    for status in [400, 401, 403, 404] {
        for body in [
            crate::sim::FaultBody::Empty,
            crate::sim::FaultBody::Text("no".to_owned()),
            crate::sim::FaultBody::Json(foreign.clone()),
        ] {
            let rig = Rig::start().await;
            let before = rig.probe_once(&Probe::ALL, &[GUILD]).await;
            let fault = Fault::status(status).with_body(body);
            rig.fail(fault.clone());
            let failed = rig.probe_once(&Probe::ALL, &[GUILD]).await;
            let record = failed.record_after(GUILD, &[&before]);
            assert_ne!(record.status, Status::Error, "{fault:?}");
            assert_eq!(record.auth_status, Some(AuthResult::Valid), "{fault:?}");
            assert_eq!(record.held(), before.record(GUILD).held(), "{fault:?}");
            assert!(record.last_error.is_some(), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn nonsense_token_is_rejected_and_a_reset_one_revoked() {
    let rejected = |seen: &Seen| {
        seen.observations
            .iter()
            .find_map(|reported| match &*reported.fact {
                crate::core::observation::Fact::Auth { check, .. } => Some((check.result, check.rejected)),
                _ => None,
            })
    };
    let rig = Rig::start().await;
    let nonsense = rig.platform(|options| options.bot_token = Some(SecretString::from("nonsense")));
    let seen = probe(&nonsense, &[Probe::Auth], &[GUILD]).await;
    assert_eq!(rejected(&seen), Some((AuthResult::Revoked, true)));
    rig.probe_once(&[Probe::Auth], &[GUILD]).await;
    rig.discord().reset_token(BOT, false);
    let seen = rig.probe_once(&[Probe::Auth], &[GUILD]).await;
    assert_eq!(rejected(&seen), Some((AuthResult::Revoked, false)));
}

#[tokio::test]
async fn refused_token_is_tried_at_once_when_a_person_gives_it() {
    let rig = Rig::start().await;
    rig.discord().reset_token(BOT, false);
    rig.probe_once(&[Probe::Auth], &[GUILD]).await;
    rig.discord().add_bot(BOT, "bitbrat", TOKEN, 0);
    let by_hand = rig.platform(|options| options.try_refused = true);
    let seen = probe(&by_hand, &[Probe::Auth], &[GUILD]).await;
    assert_eq!(seen.record(GUILD).auth_status, Some(AuthResult::Valid));
    // After that it is valid for every process.
    let seen = rig.probe_once(&[Probe::Auth], &[GUILD]).await;
    assert_eq!(seen.record(GUILD).auth_status, Some(AuthResult::Valid));
}

#[tokio::test]
async fn one_failure_alone_changes_nothing() {
    for fault in [
        Fault::status(502),
        Fault::wire(WireFault::Reset),
        Fault::body(crate::sim::FaultBody::Garbage),
        Fault::body(crate::sim::FaultBody::CutOff),
        Fault::body(crate::sim::FaultBody::Empty),
    ] {
        let rig = Rig::start().await;
        rig.fail(fault.clone().times(1));
        let seen = rig.probe_once(&Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!(
            (record.status, record.last_error),
            (Status::Connected, None),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn unanswered_request_times_out() {
    let rig = Rig::start().await;
    rig.fail(Fault::wire(WireFault::Hang));
    let platform = rig.platform(|options| options.timeout = Duration::from_millis(150));
    let seen = probe(&platform, &[Probe::Connection], &[GUILD]).await;
    assert_eq!(seen.error_code(GUILD).as_deref(), Some("network.timeout"));
    assert_eq!(seen.record(GUILD).status, Status::Disconnected);
}

#[tokio::test]
async fn a_failure_in_the_middle_of_the_list_concerns_only_the_rest() {
    let rig = Rig::empty().await;
    let guilds: Vec<_> = (1..=400).map(|n| 10_000 + n).collect();
    for id in &guilds {
        rig.discord().put_guild(&GuildSpec {
            id: *id,
            ..GuildSpec::default()
        });
    }
    rig.fail(Fault::status(500).on("/api/v10/users/@me/guilds").after(1));
    let seen = rig.probe_once(&[Probe::Connection], &guilds).await;
    let of = |status| {
        guilds
            .iter()
            .filter(|id| seen.record(**id).status == status)
            .count()
    };
    assert_eq!((of(Status::Connected), of(Status::Disconnected)), (200, 200));
}

#[tokio::test]
async fn failed_token_check_does_not_affect_working_link() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let before = probe(&platform, &[Probe::Connection], &[GUILD]).await;
    let faults = rig.discord().host().faults();
    for fault in [Fault::status(503), Fault::body(crate::sim::FaultBody::Garbage)] {
        faults.clear();
        faults.add(fault.on("/api/v10/users/@me"));
        let checked = probe(&platform, &[Probe::Auth], &[GUILD]).await;
        let record = checked.record_after(GUILD, &[&before]);
        assert_eq!(record.status, Status::Connected, "{:?}", record.last_error);
        assert!(record.last_error.is_some());
    }
    // Long after the last list that failure is all that is known.
    rig.clock.advance(301_000);
    let checked = probe(&platform, &[Probe::Auth], &[GUILD]).await;
    assert_eq!(
        checked.record_after(GUILD, &[&before]).status,
        Status::Disconnected
    );
}

#[tokio::test]
async fn failed_detail_requests_keep_connection_and_permissions() {
    for (path, fault) in [
        ("guilds/9001/channels", Fault::status(500)),
        ("guilds/9001/members", named("limited_shared").unwrap()),
        ("guilds/9001", named("cloudflare_page").unwrap()),
    ] {
        let rig = Rig::start().await;
        rig.fail(fault.on(&format!("/api/v10/{path}")));
        let platform = rig.platform(|options| {
            options.patience = Duration::from_millis(200);
            options.guilds = guild_options(GuildOptions {
                channels: vec![9_200],
            });
        });
        let seen = probe(&platform, &Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!(
            (record.status, record.auth_status),
            (Status::Connected, Some(AuthResult::Valid)),
            "{path}"
        );
        assert!(!seen.claims() && record.last_error.is_some(), "{path}");
    }
}

#[tokio::test]
async fn missing_token_sends_nothing_and_reports_configuration() {
    let rig = Rig::start().await;
    let platform = rig.platform(|options| options.bot_token = None);
    let seen = probe(&platform, &Probe::ALL, &[GUILD]).await;
    let record = seen.record(GUILD);
    assert_eq!((record.status, record.auth_status), (Status::Error, None));
    assert_eq!(seen.error_code(GUILD).as_deref(), Some("discord.not_configured"));
    for broken in ["", "  ", "two words", "line\nbreak", "Bot ", "ümlaut"] {
        let options = DiscordOptions {
            bot_token: Some(SecretString::from(broken)),
            ..rig.options()
        };
        let clock: Arc<dyn Clock> = Arc::clone(&rig.clock) as _;
        assert!(
            DiscordPlatform::new(options, clock, Chance::seeded(1)).is_err(),
            "{broken:?}"
        );
    }
    assert_eq!(rig.total_calls(), 0);
}

#[tokio::test]
async fn a_token_may_come_with_the_word_bot() {
    let rig = Rig::start().await;
    let platform =
        rig.platform(|options| options.bot_token = Some(SecretString::from(format!("Bot {TOKEN}"))));
    assert_eq!(platform.whoami().await.unwrap().id.0, 4_001);
}

#[tokio::test]
async fn error_with_status_200_is_no_answer() {
    let error = serde_json::json!({"message": "Unknown Guild", "code": 10_004, "id": GUILD.to_string(),
        "owner_id": "1", "roles": [{"id": GUILD.to_string(), "permissions": "8"}]});
    let rig = Rig::start().await;
    for path in ["/api/v10/users/@me/guilds", "/api/v10/guilds"] {
        let fault = Fault::body(crate::sim::FaultBody::Json(error.clone())).on(path);
        rig.fail(fault);
    }
    let listed = rig
        .probe_once(&[Probe::Connection, Probe::Stream], &[GUILD])
        .await;
    let record = listed.record(GUILD);
    assert_eq!(record.stream_status, StreamStatus::Unknown);
    assert_eq!(record.status, Status::Disconnected);
    assert_eq!(listed.error_code(GUILD).as_deref(), Some("discord.unreadable"));
    let detail = rig.probe_channels(&[9_200]).await;
    assert!(detail.record(GUILD).held().is_empty());
}

#[tokio::test]
async fn unreadable_timeout_leaves_sending_unknown() {
    let member = serde_json::json!({"user": {"id": BOT.to_string()}, "roles": [],
        "communication_disabled_until": "garbage"});
    let rig = Rig::start().await;
    let path = format!("/api/v10/guilds/{GUILD}/members");
    let fault = Fault::body(crate::sim::FaultBody::Json(member)).on(&path);
    rig.fail(fault);
    for seen in [
        rig.probe_once(&[Probe::Permissions], &[GUILD]).await,
        rig.probe_channels(&[9_200]).await,
    ] {
        let record = seen.record(GUILD);
        let held = record.held();
        assert!(!held.iter().any(|name| name == "SEND_MESSAGES"), "{held:?}");
        let sending_is_unknown = seen.observations.iter().any(|reported| match &*reported.fact {
            Fact::Permissions { grants, .. } => grants.unknown.contains_key("SEND_MESSAGES"),
            _ => false,
        });
        assert!(sending_is_unknown, "{:?}", seen.observations);
        let problems = format!("{:?}", seen.summary.problems);
        assert!(problems.contains("timeout is unknown"), "{problems}");
    }
}
