//! The directory, and events triggered by name, as seen by a program and a browser.

use serde_json::{Value, json};

use super::listener::Listener;
use super::twitch::{BOT, RAT, Rig};
use super::{answer, client};
use crate::core::source::PlatformName;
use crate::sim::discord::{ChannelSpec, GuildSpec};

async fn get(url: &str, accept: &str) -> (u16, String) {
    let answer = client().get(url).header("accept", accept).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn trigger(address: &str, order: &Value) -> (u16, Value) {
    answer(client().post(format!("{address}/__sim/trigger")).json(order)).await
}

/// A simulation with one source on each platform.
pub(super) async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.sim.kick.add_channel(7, "falcon");
    rig.sim.discord.add_bot(4_001, "bitbrat", "t0ken", 0);
    rig.sim.discord.put_guild(&GuildSpec {
        id: 9_001,
        name: Some("Lab".to_owned()),
        ..GuildSpec::default()
    });
    for (id, kind) in [(9_200, 0), (9_202, 13)] {
        rig.sim.discord.put_channel(&ChannelSpec {
            guild: 9_001,
            id,
            kind,
            ..ChannelSpec::default()
        });
    }
    rig
}

#[tokio::test]
async fn every_port_lists_all_platforms() {
    let rig = rig().await;
    for address in [rig.sim.twitch.http(), rig.sim.kick.http(), rig.sim.discord.http()] {
        let (status, text) = get(&format!("{address}/__sim/"), "*/*").await;
        assert_eq!(status, 200);
        let index: Value = serde_json::from_str(&text).unwrap();
        let platforms: Vec<_> = index["platforms"].as_array().unwrap().iter().collect();
        let addresses: Vec<_> = platforms
            .iter()
            .map(|one| one["address"].as_str().unwrap())
            .collect();
        assert_eq!(platforms.len(), PlatformName::ALL.len());
        assert!(addresses.contains(&address.as_str()), "{addresses:?}");
        let (_, page) = get(&format!("{address}/__sim/"), "text/html,*/*").await;
        for shown in [
            "falcon",
            "ratcaster",
            "Lab",
            "channel.moderate",
            "MESSAGE_CREATE",
            &address,
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        assert_eq!(get(&format!("{address}/__sim/nonsense"), "*/*").await.0, 404);
    }
    assert_eq!(
        rig.twitch().host().journal().total(),
        0,
        "controls are not in the journal"
    );
}

#[tokio::test]
async fn views_in_the_list_are_views_that_exist() {
    let rig = rig().await;
    let (_, text) = get(&format!("{}/__sim/", rig.twitch().http()), "*/*").await;
    let index: Value = serde_json::from_str(&text).unwrap();
    for platform in index["platforms"].as_array().unwrap() {
        let (address, name) = (
            platform["address"].as_str().unwrap(),
            platform["platform"].as_str().unwrap(),
        );
        for view in platform["views"].as_array().unwrap() {
            let url = format!("{address}/__sim/{name}/{}", view.as_str().unwrap());
            assert_eq!(get(&url, "*/*").await.0, 200, "{url}");
        }
    }
}

#[tokio::test]
async fn an_event_is_caused_by_name_from_any_port() {
    let rig = rig().await;
    let token = rig.token(BOT, &["user:bot"]);
    let mut listener = Listener::connect(&rig).await;
    assert_eq!(listener.subscribe(&rig, &token, "stream.online").await.0, 202);
    let kick = rig.sim.kick.http();
    let order = json!({"event": "stream.online", "source": "ratcaster", "fields": {"viewers": "40"}});
    let (status, done) = trigger(&kick, &order).await;
    assert_eq!(
        (status, &done["source"], &done["receivers"]),
        (200, &json!(format!("twitch:{RAT}")), &json!(1))
    );
    let message = listener.message().await;
    assert_eq!(message["payload"]["event"]["broadcaster_user_id"], json!(RAT));
    let (status, done) = trigger(&kick, &json!({"event": "stream.online", "source": "kick:7"})).await;
    assert_eq!((status, &done["receivers"]), (200, &json!(0)));
    let (status, _) = trigger(&kick, &json!({"event": "stream.online", "source": "kick:7"})).await;
    assert_eq!(status, 409, "it is live already");
    let (status, _) = trigger(&kick, &json!({"event": "MESSAGE_CREATE", "source": "Lab"})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn every_listed_event_can_be_caused() {
    let rig = rig().await;
    rig.twitch().knobs(|knobs| knobs.consent = Some(BOT.to_owned()));
    let address = rig.twitch().http();
    let (_, text) = get(&format!("{address}/__sim/events"), "*/*").await;
    let events: Value = serde_json::from_str(&text).unwrap();
    let mut names: Vec<_> = events["events"].as_array().unwrap().iter().collect();
    assert!(names.len() > 20);
    // A guild that the bot was removed from can have no more events.
    names.sort_by_key(|event| event["event"] == "GUILD_DELETE");
    for event in names {
        let source = match event["platform"].as_str().unwrap() {
            "twitch" => "twitch:ratcaster",
            "kick" => "kick:falcon",
            _ => "discord:9001",
        };
        let mut order = json!({"event": event["event"], "source": source, "fields": {}});
        if event["event"] == "channel.moderate" {
            order["fields"]["action"] = "clear".into();
        }
        let (status, body) = trigger(&address, &order).await;
        // Kick's first event has started the stream that the next one would start.
        let started = event["event"] == "stream.online" && source.starts_with("kick");
        assert_eq!(status, if started { 409 } else { 200 }, "{event}: {body}");
    }
}

#[tokio::test]
async fn impossible_event_error_lists_alternatives() {
    let rig = rig().await;
    let address = rig.twitch().http();
    for (event, source, fields, status, words) in [
        (
            "stream.dance",
            "twitch:ratcaster",
            json!({}),
            404,
            "stream.online",
        ),
        (
            "MESSAGE_CREATE",
            "twitch:ratcaster",
            json!({}),
            404,
            "channel.chat.message",
        ),
        ("stream.online", "twitch:missing", json!({}), 404, "ratcaster"),
        (
            "stream.online",
            "myspace:1",
            json!({}),
            404,
            "twitch, kick, discord",
        ),
        ("stream.online", "ratcaster", json!({"vewers": 1}), 400, "viewers"),
        (
            "stream.offline",
            "ratcaster",
            json!({}),
            404,
            "no such channel, stream",
        ),
    ] {
        let order = json!({"event": event, "source": source, "fields": fields});
        let (given, body) = trigger(&address, &order).await;
        let error = body["error"].as_str().unwrap_or_default();
        assert!(
            given == status && error.contains(words),
            "{event} {source}: {given} {error}"
        );
    }
    rig.sim.kick.add_channel(8, "ratcaster");
    let order = json!({"event": "stream.online", "source": "ratcaster"});
    let (status, body) = trigger(&address, &order).await;
    let error = body["error"].as_str().unwrap();
    assert!(
        status == 400 && error.contains("kick:8") && error.contains(RAT),
        "{error}"
    );
}

#[tokio::test]
async fn unsimulated_calls_are_501_on_every_host() {
    let rig = rig().await;
    for (host, address, method, path) in [
        (
            rig.twitch().host(),
            rig.twitch().http(),
            "PATCH",
            "/helix/channels",
        ),
        (rig.twitch().host(), rig.twitch().http(), "GET", "/helix/clips"),
        (
            rig.twitch().host(),
            rig.twitch().http(),
            "GET",
            "/oauth2/userinfo",
        ),
        (
            rig.sim.kick.host(),
            rig.sim.kick.http(),
            "GET",
            "/public/v1/categories",
        ),
        (
            rig.sim.kick.host(),
            rig.sim.kick.http(),
            "DELETE",
            "/public/v1/channels",
        ),
        (
            rig.sim.kick.host(),
            rig.sim.kick.http(),
            "POST",
            "/public/v1/chat",
        ),
        (
            rig.sim.discord.host(),
            rig.sim.discord.http(),
            "GET",
            "/cdn/icons/1.png",
        ),
    ] {
        let verb = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = client()
            .request(verb, format!("{address}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 501, "{method} {path}");
        let body: Value = answer.json().await.unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("not simulated: {method} {path}")),
            "{message}"
        );
        assert_eq!(host.journal().count(method, path), 1, "{method} {path}");
    }
}
