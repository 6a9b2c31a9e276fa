//! The simulated Discord as a client that shares nothing with it finds it: REST, gateway, controls.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::{client, eventually};
use crate::sim::discord::{DiscordSim, GatewayAct, GuildSpec};
use crate::sim::{Sim, SimOptions};

const TOKEN: &str = "t0ken";
const AGENT: &str = "DiscordBot (https://example.org, 1.0)";

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn world() -> Sim {
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    sim.discord.add_bot(4_001, "bitbrat", TOKEN, 0);
    sim.discord.put_guild(&GuildSpec {
        id: 9_001,
        ..GuildSpec::default()
    });
    sim
}

async fn get_as(discord: &DiscordSim, path: &str, authorization: &str, agent: &str) -> (u16, Value) {
    let answer = client()
        .get(format!("{}{path}", discord.http()))
        .header("authorization", authorization)
        .header("user-agent", agent)
        .send()
        .await
        .unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or(Value::Null),
    )
}

async fn get(discord: &DiscordSim, path: &str) -> (u16, Value) {
    get_as(
        discord,
        &format!("/api/v10/{path}"),
        &format!("Bot {TOKEN}"),
        AGENT,
    )
    .await
}

async fn order(discord: &DiscordSim, order: &str, fields: Value) -> (u16, Value) {
    let url = format!("{}/__sim/discord/{order}", discord.http());
    let answer = client().post(url).json(&fields).send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or(Value::Null),
    )
}

async fn connect(discord: &DiscordSim) -> Socket {
    let url = format!("{}/?v=10&encoding=json", discord.http().replacen("http", "ws", 1));
    let (mut socket, _) = connect_async(url).await.unwrap();
    assert_eq!(frame(&mut socket).await["op"], 10);
    socket
}

async fn frame(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Close(Some(close)))) => return json!({"closed": u16::from(close.code)}),
            Some(Ok(_)) => {}
            other => panic!("no frame but {other:?}"),
        }
    }
}

async fn send(socket: &mut Socket, frame: &Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

fn identify(more: &Value) -> Value {
    let mut data = json!({"token": TOKEN, "intents": 513, "properties": {}});
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more.clone()) {
        data.extend(more);
    }
    json!({"op": 2, "d": data})
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
        ("Bot t0ken", AGENT, "/api/v10/no/such/route", 404, 0),
    ] {
        let (told, body) = get_as(discord, path, authorization, agent).await;
        assert_eq!(
            (told, &body["code"]),
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
async fn limits_are_told_and_a_ban_follows_too_many_refusals() {
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
async fn whoever_breaks_a_rule_of_the_gateway_is_closed_with_its_code() {
    for (frames, code) in [
        (vec![json!({"op": 55})], 4001),
        (vec![json!({"op": 1, "d": "x".repeat(5_000)})], 4002),
        (vec![json!({"op": 8, "d": {}})], 4003),
        (vec![identify(&json!({"token": "wrong"}))], 4004),
        (vec![identify(&json!({})), identify(&json!({}))], 4005),
        (vec![identify(&json!({"shard": [2, 2]}))], 4010),
        (vec![identify(&json!({"intents": 1_u64 << 40}))], 4013),
        (vec![identify(&json!({"intents": 1 << 15}))], 4014),
        ((0..121).map(|_| json!({"op": 1, "d": null})).collect(), 4008),
    ] {
        let sim = world().await;
        let mut socket = connect(&sim.discord).await;
        for frame in &frames {
            send(&mut socket, frame).await;
        }
        let closed = loop {
            let frame = frame(&mut socket).await;
            if frame.get("closed").is_some() {
                break frame;
            }
        };
        assert_eq!(closed["closed"], code);
    }
}

#[tokio::test]
async fn a_session_is_begun_heard_left_and_taken_up() {
    let sim = world().await;
    let mut socket = connect(&sim.discord).await;
    send(&mut socket, &identify(&json!({"token": format!("Bot {TOKEN}")}))).await;
    let ready = frame(&mut socket).await;
    assert_eq!((&ready["t"], &ready["s"]), (&json!("READY"), &json!(1)));
    assert_eq!(ready["d"]["guilds"], json!([{"id": "9001", "unavailable": true}]));
    assert_eq!(frame(&mut socket).await["t"], "GUILD_CREATE");
    send(&mut socket, &json!({"op": 1, "d": 2})).await;
    assert_eq!(frame(&mut socket).await["op"], 11);
    drop(socket);
    eventually("left", async || sim.discord.live_sessions() == 0).await;
    sim.discord.put_role(9_001, 7, 8, None);

    let resume = |seq: u64| json!({"op": 6, "d": {"token": TOKEN, "session_id": ready["d"]["session_id"], "seq": seq}});
    let mut ahead = connect(&sim.discord).await;
    send(&mut ahead, &resume(99)).await;
    assert_eq!(frame(&mut ahead).await["closed"], 4007);
    let mut socket = connect(&sim.discord).await;
    send(&mut socket, &resume(2)).await;
    let missed = frame(&mut socket).await;
    assert_eq!(
        (&missed["t"], &missed["s"]),
        (&json!("GUILD_ROLE_CREATE"), &json!(3))
    );
    assert_eq!(frame(&mut socket).await["t"], "RESUMED");
    assert_eq!(sim.discord.gateway_counts().misplaced_resumes, 2);
    drop(socket);
    eventually("left", async || sim.discord.live_sessions() == 0).await;
    sim.clock.advance(181_000);
    let mut late = connect(&sim.discord).await;
    send(&mut late, &resume(4)).await;
    assert_eq!(frame(&mut late).await["closed"], 4009);
    let mut gone = connect(&sim.discord).await;
    send(&mut gone, &resume(4)).await;
    assert_eq!(
        frame(&mut gone).await,
        json!({"op": 9, "d": false, "s": null, "t": null})
    );
}

#[tokio::test]
async fn too_many_identifies_cost_the_token() {
    let sim = world().await;
    sim.discord.knobs(|knobs| {
        knobs.identify_total = 1;
        knobs.max_concurrency = 1;
    });
    let mut first = connect(&sim.discord).await;
    send(&mut first, &identify(&json!({}))).await;
    assert_eq!(frame(&mut first).await["t"], "READY");
    let (_, told) = get(&sim.discord, "gateway/bot").await;
    assert_eq!(told["session_start_limit"]["remaining"], 0);
    let mut second = connect(&sim.discord).await;
    send(&mut second, &identify(&json!({}))).await;
    assert_eq!(frame(&mut second).await["closed"], 4004);
    assert_eq!(frame(&mut first).await["t"], "GUILD_CREATE");
    assert_eq!(frame(&mut first).await["closed"], 4004, "every session ends");
    assert_eq!(get(&sim.discord, "users/@me").await.0, 401);
}

#[tokio::test]
async fn identifies_that_come_too_fast_are_invalid() {
    let sim = world().await;
    let (mut first, mut second) = (connect(&sim.discord).await, connect(&sim.discord).await);
    send(&mut first, &identify(&json!({}))).await;
    assert_eq!(frame(&mut first).await["t"], "READY");
    send(&mut second, &identify(&json!({}))).await;
    assert_eq!(frame(&mut second).await["op"], 9);
    sim.clock.advance(5_000);
    send(&mut second, &identify(&json!({}))).await;
    assert_eq!(frame(&mut second).await["t"], "READY");
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
        ("sing", json!({}), 404),
    ] {
        assert_eq!(
            order(discord, name, fields.clone()).await.0,
            status,
            "{name} {fields}"
        );
    }
    assert_eq!(get(discord, "users/@me").await.0, 502);
    assert_eq!(get(discord, "stage-instances/9202").await.0, 404);
    let (status, stage) = order(discord, "stage", json!({"channel": "9202", "topic": "Q&A"})).await;
    assert!(status == 200 && stage["id"].is_string(), "{stage}");
    let (_, told) = get(discord, "stage-instances/9202").await;
    assert_eq!(told["topic"], "Q&A");
    let (_, reset) = order(discord, "token_reset", json!({"bot": "4001", "cut": true})).await;
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
