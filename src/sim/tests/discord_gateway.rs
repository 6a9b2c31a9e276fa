//! The simulated gateway of Discord as seen by a client that shares no code with it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::discord::{AGENT, TOKEN, get, world};
use super::{client, eventually};
use crate::sim::Sim;
use crate::sim::discord::{Author, ChannelSpec, DiscordSim, GatewayAct, MessageSpec};

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

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
async fn gateway_violation_closes_with_its_code() {
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
async fn session_is_identified_left_and_resumed() {
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
    let (_, received) = get(&sim.discord, "gateway/bot").await;
    assert_eq!(received["session_start_limit"]["remaining"], 0);
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
async fn unsimulated_calls_are_501_and_in_the_journal() {
    let sim = world().await;
    let discord = &sim.discord;
    let agent = |request: reqwest::RequestBuilder| request.header("user-agent", AGENT);
    let (status, body) = get(discord, "guilds/9001/bans").await;
    assert_eq!(status, 501);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("GET /api/v10/guilds/9001/bans"),
        "{body}"
    );
    let post = client().post(format!("{}/api/v10/channels/1/messages", discord.http()));
    assert_eq!(agent(post).send().await.unwrap().status().as_u16(), 501);
    let journal = discord.host().journal();
    assert_eq!(journal.count("GET", "/api/v10/guilds/9001/bans"), 1);
    assert_eq!(journal.count("POST", "/api/v10/channels/1/messages"), 1);
    assert_eq!(
        discord.invalid_requests(),
        0,
        "what is not simulated is not the client's fault"
    );
    let etf = format!("{}/?v=10&encoding=etf", discord.http().replacen("http", "ws", 1));
    assert!(connect_async(etf).await.unwrap_err().to_string().contains("501"));
    let mut socket = begun(discord, 513).await;
    send(&mut socket, &json!({"op": 4, "d": {}})).await;
    eventually("the op is in the journal", async || {
        discord.host().journal().count("SEND", "/gateway op 4") == 1
    })
    .await;
}

/// Connects, identifies with these intents, and reads the first frames.
async fn begun(discord: &DiscordSim, intents: u64) -> Socket {
    let mut socket = connect(discord).await;
    send(&mut socket, &identify(&json!({"intents": intents}))).await;
    assert_eq!(frame(&mut socket).await["t"], "READY");
    if intents & 1 != 0 {
        assert_eq!(frame(&mut socket).await["t"], "GUILD_CREATE");
    }
    socket
}

/// A bot with all privileged intents enabled.
async fn privileged() -> Sim {
    let sim = world().await;
    sim.discord.add_bot(4_001, "bitbrat", TOKEN, 565_248);
    sim.discord.put_channel(&ChannelSpec {
        guild: 9_001,
        id: 9_200,
        ..ChannelSpec::default()
    });
    sim
}

#[tokio::test]
async fn members_are_listed_on_request() {
    let sim = privileged().await;
    let mut socket = begun(&sim.discord, 0x201 | 1 << 1).await;
    let ask = |more: &Value| {
        let mut data = json!({"guild_id": "9001", "limit": 0, "nonce": "n"});
        data.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"op": 8, "d": data})
    };
    send(&mut socket, &ask(&json!({"query": ""}))).await;
    let chunk = frame(&mut socket).await;
    assert_eq!(
        (&chunk["t"], &chunk["d"]["nonce"]),
        (&json!("GUILD_MEMBERS_CHUNK"), &json!("n"))
    );
    let names = |chunk: &Value| -> Vec<Value> {
        let members = chunk["d"]["members"].as_array().unwrap();
        members
            .iter()
            .map(|member| member["user"]["username"].clone())
            .collect()
    };
    assert_eq!(names(&chunk), ["bitbrat", "ada"]);
    assert_eq!(chunk["d"]["chunk_count"], 1);

    send(&mut socket, &ask(&json!({"query": ""}))).await;
    let limited = frame(&mut socket).await;
    assert_eq!(
        (&limited["t"], &limited["d"]["opcode"]),
        (&json!("RATE_LIMITED"), &json!(8))
    );
    assert_eq!(limited["d"]["meta"], json!({"guild_id": "9001", "nonce": "n"}));

    send(&mut socket, &ask(&json!({"query": "AD", "limit": 5}))).await;
    assert_eq!(names(&frame(&mut socket).await), ["ada"]);
    send(&mut socket, &ask(&json!({"user_ids": ["4001", "5"]}))).await;
    let chunk = frame(&mut socket).await;
    assert_eq!(
        (names(&chunk), &chunk["d"]["not_found"]),
        (vec![json!("bitbrat")], &json!(["5"]))
    );
}

#[tokio::test]
async fn all_members_are_hidden_without_the_intent() {
    let sim = privileged().await;
    let mut socket = begun(&sim.discord, 513).await;
    send(
        &mut socket,
        &json!({"op": 8, "d": {"guild_id": "9001", "query": "", "limit": 0}}),
    )
    .await;
    send(&mut socket, &json!({"op": 1, "d": null})).await;
    assert_eq!(
        frame(&mut socket).await["op"],
        11,
        "nothing but the heartbeat is answered"
    );
}

#[tokio::test]
async fn content_is_for_the_intent_for_mentions_and_for_oneself() {
    let sim = privileged().await;
    let say = |author: Author, content: &str| {
        sim.discord.send_messages(&MessageSpec {
            channel: 9_200,
            author,
            content: content.to_owned(),
            ..MessageSpec::default()
        });
    };
    for (intents, author, content, shown) in [
        (513, Author::Person, "hi", ""),
        (0x201 | 1 << 15, Author::Person, "hi", "hi"),
        (513, Author::Person, "hi <@4001>", "hi <@4001>"),
        (513, Author::Itself, "mine", "mine"),
        (0x201 | 1 << 15, Author::Webhook, "hook", "hook"),
    ] {
        sim.clock.advance(6_000);
        let mut socket = begun(&sim.discord, intents).await;
        say(author, content);
        let message = frame(&mut socket).await;
        assert_eq!(message["d"]["content"], shown, "{intents} {author:?} {content}");
        let mentioned = content.contains("<@4001>");
        assert_eq!(
            !message["d"]["mentions"].as_array().unwrap().is_empty(),
            mentioned
        );
    }
}

#[tokio::test]
async fn an_invalid_session_resumes_on_any_connection() {
    let sim = world().await;
    let mut socket = connect(&sim.discord).await;
    send(&mut socket, &identify(&json!({}))).await;
    let ready = frame(&mut socket).await;
    assert_eq!(frame(&mut socket).await["t"], "GUILD_CREATE");
    let resume = json!({"op": 6, "d": {"token": TOKEN, "session_id": ready["d"]["session_id"], "seq": 2}});
    for elsewhere in [false, true] {
        sim.discord.gateway(&GatewayAct::Invalid(true));
        let invalid = frame(&mut socket).await;
        assert_eq!((&invalid["op"], &invalid["d"]), (&json!(9), &json!(true)));
        sim.discord.put_role(9_001, 7, 8, None);
        if elsewhere {
            socket = connect(&sim.discord).await;
        }
        send(&mut socket, &resume).await;
        loop {
            let missed = frame(&mut socket).await;
            assert!(missed.get("closed").is_none(), "elsewhere: {elsewhere}: {missed}");
            if missed["t"] == "RESUMED" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_invalid_session_is_begun_anew_on_its_connection() {
    let sim = world().await;
    let mut socket = begun(&sim.discord, 513).await;
    sim.discord.gateway(&GatewayAct::Invalid(false));
    assert_eq!(frame(&mut socket).await["op"], 9);
    sim.clock.advance(6_000);
    send(&mut socket, &identify(&json!({}))).await;
    assert_eq!(frame(&mut socket).await["t"], "READY");
}
