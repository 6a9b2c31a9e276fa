//! What a look tells when it goes wrong: what was proven, and nothing else.

use super::*;
use crate::core::observation::AuthResult;
use crate::core::stream::StreamStatus;
use crate::core::verdict::Status;
use crate::sim::discord::troubles::named;
use crate::sim::{Fault, WireFault};

#[tokio::test]
async fn a_dead_token_costs_one_call_and_then_silence_until_it_changes() {
    let rig = Rig::start().await;
    let fresh = rig.discord().reset_token(BOT, false).unwrap();
    let first = rig.look_once(&Probe::ALL, &[GUILD, 9_002]).await;
    assert_eq!((first.summary.calls, rig.total_calls()), (1, 1));
    for guild in [GUILD, 9_002] {
        let record = first.record(guild);
        assert_eq!(
            (record.status, record.auth_status),
            (Status::Error, Some(AuthResult::Revoked))
        );
        assert_eq!(record.last_error.unwrap().code, "discord.token_invalid");
    }
    for probes in [&Probe::ALL[..], &[Probe::Connection], &[Probe::Permissions]] {
        let later = rig.look_once(probes, &[GUILD]).await;
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
    let revived = look(&with_fresh, &Probe::ALL, &[GUILD]).await;
    let record = revived.record_after(GUILD, &[&first]);
    assert_eq!(
        (record.status, record.auth_status),
        (Status::Connected, Some(AuthResult::Valid))
    );
}

#[tokio::test]
async fn whichever_look_meets_a_dead_token_first_stops_at_one_call() {
    for probe in [Probe::Connection, Probe::Permissions, Probe::Auth] {
        let rig = Rig::start().await;
        rig.discord().reset_token(BOT, false);
        let seen = rig.look_once(&[probe], &[GUILD]).await;
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
async fn a_dead_token_is_tried_again_once_an_hour() {
    let rig = Rig::start().await;
    rig.discord().reset_token(BOT, false);
    rig.look_once(&Probe::ALL, &[GUILD]).await;
    rig.clock.advance(3_599_000);
    rig.look_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(rig.total_calls(), 1);
    rig.clock.advance(2_000);
    rig.look_once(&Probe::ALL, &[GUILD]).await;
    rig.look_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(rig.total_calls(), 2);
    // The one who typed the wrong thing into the portal has put the old token back.
    rig.discord().add_bot(BOT, "bitbrat", TOKEN, 0);
    rig.clock.advance(3_601_000);
    let seen = rig.look_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!(seen.record(GUILD).status, Status::Connected);
    assert_eq!(
        rig.look_once(&Probe::ALL, &[GUILD]).await.record(GUILD).status,
        Status::Connected
    );
}

#[tokio::test]
async fn a_token_reset_between_two_looks_of_one_process_is_noticed_at_once() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let before = look(&platform, &Probe::ALL, &[GUILD]).await;
    rig.discord().reset_token(BOT, false);
    let after = look(&platform, &[Probe::Connection], &[GUILD]).await;
    let record = after.record_after(GUILD, &[&before]);
    assert_eq!(
        (record.status, record.auth_status),
        (Status::Error, Some(AuthResult::Revoked))
    );
    assert!(!record.permissions.is_empty(), "what was known is not unlearnt");
    assert_eq!(look(&platform, &Probe::ALL, &[GUILD]).await.summary.calls, 0);
}

#[tokio::test]
async fn no_trouble_on_the_way_ever_condemns_a_token_or_claims_anything() {
    for (name, status, code) in [
        ("limited_global", Status::Disconnected, "discord.rate_limited"),
        ("cloudflare_page", Status::Disconnected, "discord.cloudflare_ban"),
        (
            "cloudflare_page_retry",
            Status::Disconnected,
            "discord.cloudflare_ban",
        ),
        ("cloudflare_text", Status::Disconnected, "discord.cloudflare_ban"),
        (
            "cloudflare_forbidden",
            Status::Disconnected,
            "discord.cloudflare_ban",
        ),
        ("agent_blocked", Status::Error, "discord.cloudflare_blocked"),
        ("overloaded", Status::Disconnected, "http.503"),
        ("bad_gateway", Status::Disconnected, "http.502"),
        ("portal", Status::Disconnected, "discord.unreadable"),
        ("proxy_unauthorized", Status::Disconnected, "discord.unreadable"),
    ] {
        let rig = Rig::start().await;
        rig.discord().host().faults().add(named(name).unwrap());
        let platform = rig.platform(|options| options.patience = Duration::from_millis(500));
        let seen = look(&platform, &Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!((record.status, record.auth_status), (status, None), "{name}");
        assert_eq!(seen.error_code(GUILD).as_deref(), Some(code), "{name}");
        assert_eq!(record.stream_status, StreamStatus::Unknown);
        assert!(!seen.claims(), "{name}");
        assert!(seen.summary.calls <= 5, "{name}: {}", seen.summary.calls);
    }
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
        rig.discord().host().faults().add(fault.clone().times(1));
        let seen = rig.look_once(&Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!(
            (record.status, record.last_error),
            (Status::Connected, None),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_network_that_is_down_disconnects_and_heals() {
    let rig = Rig::start().await;
    let before = rig.look_once(&Probe::ALL, &[GUILD]).await;
    rig.discord().host().go_down();
    let down = rig.look_once(&[Probe::Connection], &[GUILD]).await;
    let record = down.record_after(GUILD, &[&before]);
    assert_eq!(
        (record.status, record.auth_status),
        (Status::Disconnected, Some(AuthResult::Valid))
    );
    assert!(record.last_error.unwrap().code.starts_with("network."));
    rig.discord().host().come_up();
    let after = rig.look_once(&[Probe::Connection], &[GUILD]).await;
    assert_eq!(
        after.record_after(GUILD, &[&before, &down]).status,
        Status::Connected
    );
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let rig = Rig::start().await;
    rig.discord().host().faults().add(Fault::wire(WireFault::Hang));
    let platform = rig.platform(|options| options.timeout = Duration::from_millis(150));
    let seen = look(&platform, &[Probe::Connection], &[GUILD]).await;
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
    rig.discord()
        .host()
        .faults()
        .add(Fault::status(500).on("/api/v10/users/@me/guilds").after(1));
    let seen = rig.look_once(&[Probe::Connection], &guilds).await;
    let of = |status| {
        guilds
            .iter()
            .filter(|id| seen.record(**id).status == status)
            .count()
    };
    assert_eq!((of(Status::Connected), of(Status::Disconnected)), (200, 200));
}

#[tokio::test]
async fn a_check_of_the_token_that_fails_is_no_news_of_a_link_over_which_the_list_came() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let before = look(&platform, &[Probe::Connection], &[GUILD]).await;
    let faults = rig.discord().host().faults();
    for fault in [Fault::status(503), Fault::body(crate::sim::FaultBody::Garbage)] {
        faults.clear();
        faults.add(fault.on("/api/v10/users/@me"));
        let checked = look(&platform, &[Probe::Auth], &[GUILD]).await;
        let record = checked.record_after(GUILD, &[&before]);
        assert_eq!(record.status, Status::Connected, "{:?}", record.last_error);
        assert!(record.last_error.is_some());
    }
    // Long after the last list that failure is all that is known.
    rig.clock.advance(301_000);
    let checked = look(&platform, &[Probe::Auth], &[GUILD]).await;
    assert_eq!(
        checked.record_after(GUILD, &[&before]).status,
        Status::Disconnected
    );
}

#[tokio::test]
async fn details_that_fail_leave_the_connection_and_the_permissions_alone() {
    for (path, fault) in [
        ("guilds/9001/channels", Fault::status(500)),
        ("guilds/9001/members", named("limited_shared").unwrap()),
        ("guilds/9001", named("cloudflare_page").unwrap()),
    ] {
        let rig = Rig::start().await;
        rig.discord()
            .host()
            .faults()
            .add(fault.on(&format!("/api/v10/{path}")));
        let platform = rig.platform(|options| {
            options.patience = Duration::from_millis(200);
            options.guilds = guild_options(GuildOptions {
                channels: vec![9_200],
                ..GuildOptions::default()
            });
        });
        let seen = look(&platform, &Probe::ALL, &[GUILD]).await;
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
async fn without_a_token_nothing_is_sent_and_the_configuration_is_blamed() {
    let rig = Rig::start().await;
    let platform = rig.platform(|options| options.bot_token = None);
    let seen = look(&platform, &Probe::ALL, &[GUILD]).await;
    let record = seen.record(GUILD);
    assert_eq!((record.status, record.auth_status), (Status::Error, None));
    assert_eq!(seen.error_code(GUILD).as_deref(), Some("config.token"));
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
    assert_eq!(platform.whoami().await.unwrap().id, "4001");
}
