//! What was known in the past: `status --at`, `is-live --at`, `history --sessions`, `diff`.

use serde_json::json;

use crate::support::Home;

/// A home with a store that keeps what one check of the demo world found.
struct Rig {
    home: Home,
    store: String,
}

impl Rig {
    fn checked() -> Self {
        let home = Home::new();
        let store = format!("store.url=sqlite:{}", home.work().join("kept.db").display());
        let rig = Self { home, store };
        rig.run("probe");
        rig
    }

    fn run(&self, line: &str) -> crate::support::Run {
        let globals = ["--demo", "--still", "--set", &self.store];
        let words: Vec<&str> = globals.into_iter().chain(line.split(' ')).collect();
        self.home.run(&words)
    }
}

#[test]
fn nothing_was_known_before_the_first_check() {
    let rig = Rig::checked();
    let before = rig.run("status --at 1h -o json").exits(8);
    for item in before.json()["items"].as_array().unwrap() {
        assert!(
            item.get("status").is_none() && item.get("authStatus").is_none(),
            "{item:#}"
        );
        assert_eq!(
            (&item["streamStatus"], &item["stored"]),
            (&json!("UNKNOWN"), &json!(false))
        );
        assert!(item.get("viewerCount").is_none(), "{item:#}");
    }
    rig.run("is-live twitch:777001 --at 1h")
        .exits(8)
        .shows("nothing was proven");
    let table = rig.run("status --at 1h").exits(8).shows("not checked yet");
    assert!(table.stderr.contains("as of 20"), "{}", table.stderr);
}

#[test]
fn past_state_has_the_time_that_it_is_of() {
    let rig = Rig::checked();
    let now = rig.run("status -o json").json()["asOf"]
        .as_str()
        .unwrap()
        .to_owned();
    let then = rig.run(&format!("status --at {now} -o json")).exits(4);
    assert_eq!(then.json()["asOf"], json!(now));
    let live = then.item("key", "twitch:777001");
    assert_eq!(
        (&live["status"], &live["streamStatus"]),
        (&json!("CONNECTED"), &json!("ONLINE"))
    );
    assert!(
        live.get("viewerCount").is_none(),
        "a history has no viewers: {live:#}"
    );
    assert_eq!(then.item("key", "twitch:777009")["authStatus"], "REVOKED");
    rig.run(&format!("is-live twitch:777001 --at {now}"))
        .exits(0)
        .shows("as of 20");
    rig.run(&format!("is-live twitch:777002 --at {now}")).exits(1);
    rig.run("status --at 2999-01-01T00:00:00Z")
        .exits(2)
        .names_account("future");
    rig.run("status --at 1h --probe").exits(2);
}

#[test]
fn session_that_was_live_at_first_sight_has_the_start_of_the_platform() {
    let rig = Rig::checked();
    let sessions = rig.run("history twitch:* --sessions -o json").exits(0);
    let live = sessions.item("key", "twitch:777001");
    assert_eq!(live["state"], "live", "{live:#}");
    assert!(live["start"].is_string() && live.get("end").is_none(), "{live:#}");
    assert!(
        live.get("lengthMs").is_none() && live["lengthAtLeastMs"].as_u64() > Some(0),
        "{live:#}"
    );
    rig.run("history twitch:777001 --sessions")
        .exits(0)
        .shows("at least");
    rig.run("history twitch:777002 --sessions")
        .exits(0)
        .names_account("no streams are recorded");
}

#[test]
fn diff_shows_what_was_found_since_and_nothing_afterwards() {
    let rig = Rig::checked();
    let diff = rig.run("diff --since 1h -o json").exits(0);
    let found = diff.json();
    let items = found["items"].as_array().unwrap();
    let has = |key: &str, to: &str| {
        items
            .iter()
            .any(|item| item["key"] == key && item["facet"] == "auth" && item["to"] == to)
    };
    // Of one the bot's account is valid and the broadcaster's is not, which the same check finds.
    assert!(has("twitch:777009", "REVOKED"), "{found:#}");
    assert!(has("discord:888006", "REVOKED"), "{found:#}");
    rig.run("diff --since 1h")
        .exits(0)
        .names_account(" of 19 sources changed since");
    rig.run("diff --since 0s")
        .exits(0)
        .names_account("nothing is recorded as changed");
}
