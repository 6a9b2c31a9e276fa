//! The simulated Discord as seen by a client that shares no code with it: REST and controls.

use serde_json::{Value, json};

use super::{answer, client, command};
use crate::sim::discord::{ChannelSpec, DiscordSim, GatewayAct, GuildSpec};
use crate::sim::{Sim, SimOptions};

pub(super) const TOKEN: &str = "t0ken";
pub(super) const AGENT: &str = "DiscordBot (https://example.org, 1.0)";

pub(super) async fn world() -> Sim {
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    sim.discord.add_bot(4_001, "bitbrat", TOKEN, 0);
    sim.discord.put_guild(&GuildSpec {
        id: 9_001,
        ..GuildSpec::default()
    });
    sim
}

async fn get_as(discord: &DiscordSim, path: &str, authorization: &str, agent: &str) -> (u16, Value) {
    let request = client().get(format!("{}{path}", discord.http()));
    answer(
        request
            .header("authorization", authorization)
            .header("user-agent", agent),
    )
    .await
}

pub(super) async fn get(discord: &DiscordSim, path: &str) -> (u16, Value) {
    get_as(
        discord,
        &format!("/api/v10/{path}"),
        &format!("Bot {TOKEN}"),
        AGENT,
    )
    .await
}

#[tokio::test]
async fn who_asks_wrongly_is_refused_as_documented() {
    let sim = world().await;
    let discord = &sim.discord;
    let me = "/api/v10/users/@me";
    for (authorization, agent, path, status, code) in [
        ("Bot wrong", AGENT, me, 401, 0),
        (TOKEN, AGENT, me, 401, 0),
        ("", AGENT, me, 401, 0),
        ("Bot t0ken", "curl/8", me, 403, 40_333),
        ("Bot t0ken", AGENT, "/api/v5/users/@me", 400, 50_041),
        ("Bot t0ken", AGENT, "/api/v10/guilds/1", 404, 10_004),
        ("Bot t0ken", AGENT, "/api/v10/channels/1", 404, 10_003),
        ("Bot t0ken", AGENT, "/api/v10/guilds/9001/members/1", 404, 10_007),
        (
            "Bot t0ken",
            AGENT,
            "/api/v10/users/@me/guilds?limit=201",
            400,
            50_035,
        ),
        ("Bot t0ken", AGENT, "/api/v10/oauth2/@me", 401, 0),
    ] {
        let (received, body) = get_as(discord, path, authorization, agent).await;
        assert_eq!(
            (received, &body["code"]),
            (status, &json!(code)),
            "{authorization} {agent} {path}"
        );
    }
    assert_eq!(
        get_as(discord, "/api/v10/gateway", "", AGENT).await.0,
        200,
        "needs no token"
    );
}

#[tokio::test]
async fn guilds_are_paged_by_id() {
    let sim = world().await;
    for id in [20, 30, 10] {
        sim.discord.put_guild(&GuildSpec {
            id,
            ..GuildSpec::default()
        });
    }
    for (query, expected) in [
        ("", vec!["10", "20", "30", "9001"]),
        ("?after=10&limit=2", vec!["20", "30"]),
        ("?before=9001&limit=2", vec!["20", "30"]),
        ("?after=9001", vec![]),
    ] {
        let (_, body) = get(&sim.discord, &format!("users/@me/guilds{query}")).await;
        let ids: Vec<_> = body
            .as_array()
            .unwrap()
            .iter()
            .map(|guild| guild["id"].clone())
            .collect();
        assert_eq!(ids, expected, "{query}");
        let counts = body
            .as_array()
            .unwrap()
            .iter()
            .any(|guild| guild.get("approximate_member_count").is_some());
        assert!(!counts);
    }
}

#[tokio::test]
async fn rate_limits_apply_and_repeated_rejections_cause_a_ban() {
    let sim = world().await;
    sim.discord.knobs(|knobs| {
        knobs.bucket = 1;
        knobs.bucket_window_ms = 60_000;
        knobs.invalid_limit = 2;
    });
    assert_eq!(get(&sim.discord, "users/@me").await.0, 200);
    let (status, body) = get(&sim.discord, "users/@me").await;
    assert!(
        status == 429 && body["retry_after"].as_f64().unwrap() > 1.0,
        "{body}"
    );
    assert_eq!(
        get(&sim.discord, "users/@me/guilds").await.0,
        200,
        "another bucket"
    );
    assert_eq!(get(&sim.discord, "users/@me").await.0, 429);
    let (status, body) = get(&sim.discord, "applications/@me").await;
    assert_eq!((status, body), (429, Value::Null), "Cloudflare's page");
    sim.clock.advance(3_600_000);
    assert_eq!(get(&sim.discord, "applications/@me").await.0, 200);
}

#[tokio::test]
async fn the_world_is_changed_over_http() {
    let sim = world().await;
    let discord = &sim.discord;
    for (name, fields, status) in [
        (
            "guild",
            json!({"id": "9002", "name": "Second", "owner": "4001"}),
            204,
        ),
        ("channel", json!({"guild": "9002", "id": "9202", "kind": 13}), 204),
        (
            "role",
            json!({"guild": "9001", "role": "7", "permissions": "8", "held": true}),
            204,
        ),
        (
            "overwrite",
            json!({"channel": "9202", "target": "4001", "kind": 1, "deny": "1024"}),
            204,
        ),
        ("timeout", json!({"guild": "9001", "seconds": 60}), 204),
        ("outage", json!({"id": "9001", "on": true}), 204),
        ("event", json!({"guild": "9002", "id": "9500", "status": 2}), 204),
        (
            "voice",
            json!({"guild": "9002", "user": "77", "channel": "9202", "streaming": true}),
            204,
        ),
        ("gateway", json!({"act": {"close": 4000}}), 204),
        ("gateway", json!({"act": "reconnect"}), 204),
        (
            "trouble",
            json!({"name": "bad_gateway", "path": "/api/v10/users", "times": 1}),
            200,
        ),
        ("trouble", json!({"name": "bad_weather"}), 404),
        ("channel_remove", json!({"id": "1"}), 404),
        ("guild", json!({"id": "9002", "nmae": "x"}), 400),
        ("sing", json!({}), 400),
    ] {
        assert_eq!(command(discord, name, &fields).await.0, status, "{name} {fields}");
    }
    assert_eq!(get(discord, "users/@me").await.0, 502);
    assert_eq!(get(discord, "stage-instances/9202").await.0, 404);
    let (status, stage) = command(discord, "stage", &json!({"channel": "9202", "topic": "Q&A"})).await;
    assert!(status == 200 && stage["id"].is_string(), "{stage}");
    let (_, received) = get(discord, "stage-instances/9202").await;
    assert_eq!(received["topic"], "Q&A");
    let (_, reset) = command(discord, "token_reset", &json!({"bot": "4001", "cut": true})).await;
    assert!(reset["token"].as_str().unwrap().starts_with("4001."));
    assert_eq!(get(discord, "users/@me").await.0, 401);
    let shown = client()
        .get(format!("{}/__sim/discord/world", discord.http()))
        .send()
        .await
        .unwrap();
    let shown = shown.text().await.unwrap();
    assert!(
        shown.contains("Second") && !shown.contains(reset["token"].as_str().unwrap()),
        "{shown}"
    );
    discord.gateway(&GatewayAct::Reset);
}

/// The simulated paths of the REST API, with the fields that Discord's specification of it requires, separated by spaces.
const REQUIRED: [(&str, &str); 14] = [
    ("gateway", "url"),
    ("gateway/bot", "url session_start_limit shards"),
    (
        "users/@me",
        "id username avatar discriminator public_flags flags global_name mfa_enabled locale",
    ),
    (
        "users/@me/guilds",
        "id name icon banner owner permissions features",
    ),
    ("applications/@me", APPLICATION),
    ("oauth2/applications/@me", APPLICATION),
    (
        "guilds/9001",
        "id name icon description home_header splash discovery_splash features banner owner_id \
         application_id region afk_channel_id afk_timeout system_channel_id system_channel_flags \
         widget_enabled widget_channel_id verification_level roles default_message_notifications mfa_level \
         explicit_content_filter max_presences max_members max_stage_video_channel_users \
         max_video_channel_users vanity_url_code premium_tier premium_subscription_count preferred_locale \
         rules_channel_id safety_alerts_channel_id public_updates_channel_id premium_progress_bar_enabled \
         nsfw nsfw_level emojis stickers incidents_data",
    ),
    (
        "guilds/9001/members/4001",
        "avatar banner communication_disabled_until flags joined_at nick pending premium_since roles user \
         mute deaf",
    ),
    (
        "guilds/9001/roles",
        "id name permissions position color colors hoist managed mentionable icon unicode_emoji flags",
    ),
    ("guilds/9001/channels", "id type flags guild_id name position"),
    (
        "channels/9203",
        "id type flags guild_id name owner_id thread_metadata message_count member_count \
         total_message_sent",
    ),
    (
        "stage-instances/9202",
        "guild_id channel_id topic privacy_level id discoverable_disabled guild_scheduled_event_id",
    ),
    (
        "guilds/9001/scheduled-events",
        "id guild_id name description channel_id creator_id image scheduled_start_time scheduled_end_time \
         status entity_type entity_id recurrence_rule privacy_level guild_scheduled_event_exceptions \
         entity_metadata",
    ),
    (
        "guilds/9001/voice-states/77",
        "channel_id deaf guild_id mute request_to_speak_timestamp suppress self_stream self_deaf self_mute \
         self_video session_id user_id",
    ),
];

const APPLICATION: &str = "\
    id name icon description type verify_key flags flags_new redirect_uris interactions_endpoint_url \
     role_connections_verification_url owner approximate_guild_count approximate_user_install_count \
     approximate_user_authorization_count explicit_content_filter team eligible_oauth2_scopes";

/// Adds one object of each kind to guild 9001.
fn furnish(discord: &DiscordSim) {
    for (id, kind) in [(9_200, 0), (9_201, 2), (9_202, 13), (9_203, 11), (9_204, 15)] {
        discord.put_channel(&ChannelSpec {
            guild: 9_001,
            id,
            kind,
            parent: (kind == 11).then_some(9_200),
            ..ChannelSpec::default()
        });
    }
    discord.set_stage(9_202, Some("Q&A"));
    discord.set_event(9_001, 9_500, 2);
    discord.set_voice(9_001, 77, Some(9_201), false);
}

#[tokio::test]
async fn rest_objects_have_every_required_field() {
    let sim = world().await;
    furnish(&sim.discord);
    sim.discord.knobs(|knobs| knobs.global_per_second = 1_000);
    for (path, fields) in REQUIRED {
        let (status, body) = get(&sim.discord, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let items = body.as_array().cloned().unwrap_or_else(|| vec![body]);
        assert!(!items.is_empty(), "{path}");
        for item in items {
            let missing = fields
                .split_whitespace()
                .filter(|field| item.get(field).is_none());
            let missing: Vec<_> = missing.collect();
            assert!(missing.is_empty(), "{path} lacks {missing:?}: {item}");
        }
    }
    let (_, voice) = get(&sim.discord, "channels/9201").await;
    assert_eq!(
        (&voice["bitrate"], &voice["user_limit"], &voice["rtc_region"]),
        (&json!(64_000), &json!(0), &Value::Null)
    );
    let (_, application) = get(&sim.discord, "oauth2/applications/@me").await;
    assert_eq!(application["owner"]["username"], "ada");
}

#[tokio::test]
async fn roles_have_places_and_the_bots_own_is_managed() {
    let sim = world().await;
    sim.discord.put_role(9_001, 7, 8, None);
    let (_, roles) = get(&sim.discord, "guilds/9001/roles").await;
    let shown = |id: &str| {
        let role = roles.as_array().unwrap().iter().find(|role| role["id"] == id);
        let role = role.unwrap();
        (
            role["position"].clone(),
            role["managed"].clone(),
            role["tags"].clone(),
        )
    };
    assert_eq!(shown("9001"), (json!(0), json!(false), Value::Null));
    assert_eq!(shown("9002"), (json!(1), json!(true), json!({"bot_id": "4001"})));
    assert_eq!(shown("7"), (json!(2), json!(false), Value::Null));
}

#[tokio::test]
async fn every_documented_form_of_user_agent_is_let_in() {
    let sim = world().await;
    for (agent, status) in [
        ("DiscordBot (https://example.org, 1.0)", 200),
        ("DiscordBot (https://example.org, 1.0) Node.js/20", 200),
        (
            "DiscordBot (https://github.com/Rapptz/discord.py 2.7.1) Python/3.11 aiohttp/3.14",
            200,
        ),
        ("DiscordBot (https://example.org)", 403),
        ("DiscordBot (example, 1.0)", 403),
        ("Mozilla/5.0", 403),
    ] {
        let path = "/api/v10/users/@me";
        let (given, _) = get_as(&sim.discord, path, "Bot t0ken", agent).await;
        assert_eq!(given, status, "{agent}");
    }
}

#[tokio::test]
async fn an_escaped_at_sign_is_the_same_path() {
    let sim = world().await;
    let (status, body) = get(&sim.discord, "users/%40me").await;
    assert_eq!((status, &body["id"]), (200, &json!("4001")));
    assert_eq!(get(&sim.discord, "users/%40me/guilds").await.0, 200);
}

#[tokio::test]
async fn rate_limit_reset_follows_the_shown_clock() {
    let sim = world().await;
    sim.clock.set_skew(3_600_000);
    let answer = client()
        .get(format!("{}/api/v10/users/@me", sim.discord.http()))
        .header("authorization", "Bot t0ken")
        .header("user-agent", AGENT)
        .send()
        .await
        .unwrap();
    let header = |name: &str| -> f64 { answer.headers()[name].to_str().unwrap().parse().unwrap() };
    let date = jiff::fmt::rfc2822::parse(answer.headers()["date"].to_str().unwrap()).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let date = date.timestamp().as_second() as f64;
    let ahead = header("x-ratelimit-reset") - date;
    assert!(
        (-1.0..=header("x-ratelimit-reset-after") + 2.0).contains(&ahead),
        "{ahead}"
    );
}
