//! A conduit that several processes share: messages arrive while members are killed and started again.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Process, Sim, page, until, watch};

const CHANNELS: [&str; 3] = ["777001", "777002", "777003"];

/// No poll except those that a listener requests.
const QUIET: &str = r#"
[web]
listen = "127.0.0.1:0"
[schedule]
connection = "0 0 0 1 1 *"
stream = "0 0 0 1 1 *"
viewers = "0 0 0 1 1 *"
[twitch]
transport = "conduit"
conduit_shards = 3
chat = "false"
[[source]]
platform = "twitch"
id = "777001"
[[source]]
platform = "twitch"
id = "777002"
[[source]]
platform = "twitch"
id = "777003"
"#;

fn member(sim: &Sim, shards: &str, conduit: Option<&str>) -> Home {
    let home = sim
        .home(&[])
        .file("bitbrat.toml", QUIET)
        .env("BITBRAT_TWITCH__CONDUIT_OWN_SHARDS", shards);
    match conduit {
        Some(id) => home.env("BITBRAT_TWITCH__CONDUIT_ID", id),
        None => home,
    }
}

/// Waits until a member's socket has its shard and nothing is lost, and returns the id of the conduit.
fn conduit_of(address: &str, all_enabled: bool) -> String {
    let conduit = |body: &str| {
        let shown: Value = serde_json::from_str(body).ok()?;
        let connections = shown["lines"].as_array()?.clone();
        let found = connections.into_iter().find(|one| one["conduit"].is_object())?;
        Some(found["conduit"].clone())
    };
    let body = until(address, "/_debug/twitch/eventsub", |_, body| {
        conduit(body).is_some_and(|conduit| {
            conduit["id"].is_string()
                && conduit["lost"] == json!([])
                && (!all_enabled || conduit["disabled"] == json!([]))
        })
    });
    conduit(&body).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Waits until everything is subscribed, and returns how many subscriptions were ever created.
fn created(sim: &Sim, keeper: &str) -> Value {
    until(keeper, "/_debug/twitch/eventsub", |_, body| {
        let shown: Value = serde_json::from_str(body).unwrap_or_default();
        let enabled = shown["activeSubscriptions"].as_u64();
        // Three types of each channel, and two of the application.
        enabled >= Some(11) && enabled == shown["subscriptionCount"].as_u64()
    });
    eventsub(sim)["created"].clone()
}

fn eventsub(sim: &Sim) -> Value {
    let (_, body) = page(&sim.twitch, "/__sim/twitch/sockets").unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Starts a stream that polls do not show, and waits until one of the members has stored it.
#[track_caller]
fn delivers(sim: &Sim, id: &str, stream_id: &str, members: &[&str]) {
    sim.order(
        "/__sim/twitch/stream_up",
        &json!({"id": id, "stream_id": stream_id, "lag_ms": 36_000_000}),
    );
    let has_stream = |address: &str| {
        let Some((_, body)) = page(address, &format!("/api/v1/sources/twitch:{id}")) else {
            return false;
        };
        let item: Value = serde_json::from_str(&body).unwrap_or_default();
        item["items"][0]["metadata"]["session"]["streamId"] == stream_id
    };
    let begun = std::time::Instant::now();
    while !members.iter().any(|address| has_stream(address)) {
        assert!(
            begun.elapsed().as_secs() < 60,
            "stream {stream_id} of {id} never arrived"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn killed_member_of_a_conduit_loses_no_message() {
    let sim = Sim::start();
    let first = member(&sim, "0", None);
    let (_first, one) = watch(&first);
    let id = conduit_of(&one, false);
    let (second, third) = (member(&sim, "1", Some(&id)), member(&sim, "2", Some(&id)));
    let (_second, two) = watch(&second);
    let (mut killed, three): (Process, String) = watch(&third);
    for address in [&one, &two, &three] {
        assert_eq!(conduit_of(address, true), id);
    }
    for (index, channel) in CHANNELS.iter().enumerate() {
        delivers(&sim, channel, &format!("100{index}"), &[&one, &two, &three]);
    }
    let before = created(&sim, &one);

    killed.signal("-KILL");
    killed.ends();
    for (index, channel) in CHANNELS.iter().enumerate() {
        delivers(&sim, channel, &format!("200{index}"), &[&one, &two]);
    }
    let (_third, three) = watch(&third);
    assert_eq!(conduit_of(&three, true), id);
    for (index, channel) in CHANNELS.iter().enumerate() {
        delivers(&sim, channel, &format!("300{index}"), &[&one, &two, &three]);
    }
    let state = eventsub(&sim);
    assert_eq!(
        (&state["created"], &state["conduits"][0]["dropped"]),
        (&before, &json!(0))
    );
    assert_eq!(state["conduits"].as_array().unwrap().len(), 1);
}

#[test]
fn killed_process_with_all_shards_continues_its_conduit() {
    let sim = Sim::start();
    let home = member(&sim, "0 1 2", None);
    let (mut killed, address) = watch(&home);
    let id = conduit_of(&address, true);
    for (index, channel) in CHANNELS.iter().enumerate() {
        delivers(&sim, channel, &format!("100{index}"), &[&address]);
    }
    let before = created(&sim, &address);
    killed.signal("-KILL");
    killed.ends();
    let (mut again, address) = watch(&home);
    assert_eq!(conduit_of(&address, true), id);
    for (index, channel) in CHANNELS.iter().enumerate() {
        delivers(&sim, channel, &format!("200{index}"), &[&address]);
    }
    again.signal("-TERM");
    assert_eq!(again.ends(), 0);
    let state = eventsub(&sim);
    assert_eq!(state["created"], before);
    assert_eq!(state["conduits"][0]["id"], id.as_str());
    let subscriptions = state["subscriptions"].as_array().unwrap().iter();
    let enabled = subscriptions.filter(|one| one["status"] == "enabled").count();
    assert_eq!(before, enabled);
}
