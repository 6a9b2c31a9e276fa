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

fn member(sim: &Sim, shard: usize, conduit: Option<&str>) -> Home {
    let home = sim
        .home(&[])
        .file("bitbrat.toml", QUIET)
        .env("BITBRAT_TWITCH__CONDUIT_OWN_SHARDS", &shard.to_string());
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

fn eventsub(sim: &Sim) -> Value {
    let (_, body) = page(&sim.twitch, "/__sim/twitch/sockets").unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Starts a stream that polls do not show, and waits until one of the members has stored it; then ends it in the same way.
#[track_caller]
fn delivers(sim: &Sim, id: &str, members: &[&str]) {
    let status = |address: &str| {
        let (_, body) = page(address, &format!("/api/v1/sources/twitch:{id}"))?;
        let item: Value = serde_json::from_str(&body).ok()?;
        item["items"][0]["streamStatus"].as_str().map(str::to_owned)
    };
    for (command, wanted) in [("stream_up", "ONLINE"), ("stream_down", "OFFLINE")] {
        let before: Vec<_> = members.iter().map(|address| status(address)).collect();
        sim.order(
            &format!("/__sim/twitch/{command}"),
            &json!({"id": id, "lag_ms": 36_000_000}),
        );
        let begun = std::time::Instant::now();
        let arrived = || {
            let now = members.iter().map(|address| status(address));
            now.zip(&before)
                .any(|(now, before)| now.as_deref() == Some(wanted) && now != *before)
        };
        while !arrived() {
            assert!(begun.elapsed().as_secs() < 60, "{command} of {id} never arrived");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[test]
fn killed_member_of_a_conduit_loses_no_message() {
    let sim = Sim::start();
    let first = member(&sim, 0, None);
    let (_first, one) = watch(&first);
    let id = conduit_of(&one, false);
    let (second, third) = (member(&sim, 1, Some(&id)), member(&sim, 2, Some(&id)));
    let (_second, two) = watch(&second);
    let (mut killed, three): (Process, String) = watch(&third);
    for address in [&one, &two, &three] {
        assert_eq!(conduit_of(address, true), id);
    }
    for channel in CHANNELS {
        delivers(&sim, channel, &[&one, &two, &three]);
    }
    let created = eventsub(&sim)["created"].clone();

    killed.signal("-KILL");
    killed.ends();
    for channel in CHANNELS {
        delivers(&sim, channel, &[&one, &two]);
    }
    let (_third, three) = watch(&third);
    assert_eq!(conduit_of(&three, true), id);
    for channel in CHANNELS {
        delivers(&sim, channel, &[&one, &two, &three]);
    }
    let state = eventsub(&sim);
    assert_eq!(
        (&state["created"], &state["conduits"][0]["dropped"]),
        (&created, &json!(0))
    );
    assert_eq!(state["conduits"].as_array().unwrap().len(), 1);
}
