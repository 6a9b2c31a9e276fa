//! Accounts in a running daemon: a revoked token is reported by the next poll, and a login takes effect at once, for every source
//! that needs the account.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Sim, ask, page, toml, until, watch};

/// Polls once a second; accounts are checked once a year, so only the code under test can detect anything.
const POLLED: &str = "[schedule]\nstream = \"* * * * * *\"\nconnection = \"* * * * * *\"\nviewers = \"0 0 0 1 1 *\"\n\
                      auth = \"0 0 0 1 1 *\"\npermissions = \"0 0 0 1 1 *\"\njitter = \"0s\"\n";
/// The last one does not exist.
const SOURCES: [&str; 3] = ["twitch:777001", "twitch:777002", "twitch:777010"];
const BOT: &str = "777100";

fn home(sim: &Sim, more: &str) -> Home {
    sim.home(&[])
        .file("bitbrat.toml", &format!("{POLLED}{more}{}", toml(&SOURCES)))
}

fn field(item: &Value, name: &str) -> String {
    item[name].as_str().unwrap_or_default().to_owned()
}

/// Waits until the authorization of every source is `wanted`, in the order of [`SOURCES`], and their status too.
#[track_caller]
fn become_all(address: &str, auth: &str, statuses: [&str; 3]) {
    until(address, "/api/v1/sources", |_, body| {
        let all: Value = serde_json::from_str(body).unwrap();
        let items = all["items"].as_array().unwrap();
        SOURCES.iter().zip(statuses).all(|(key, status)| {
            let item = items.iter().find(|item| item["key"] == *key);
            item.is_some_and(|item| field(item, "authStatus") == auth && field(item, "status") == status)
        })
    });
}

/// Issues a token as the consent page would, and logs the bot in with it.
#[track_caller]
fn log_in(sim: &Sim, home: &Home) {
    let client = sim
        .env
        .lines()
        .find_map(|line| line.strip_prefix("TWITCH_CLIENT_ID="));
    let order = json!({
        "client_id": client.unwrap().trim_matches('"'), "user_id": BOT,
        "scopes": ["user:read:chat", "user:bot", "user:read:moderated_channels"],
    });
    let kind = "Content-Type: application/json\r\n";
    let (status, body) = ask(
        &sim.twitch,
        "POST",
        "/__sim/twitch/token",
        kind,
        &order.to_string(),
    )
    .unwrap();
    assert_eq!(status, 200, "{body}");
    let pair: Value = serde_json::from_str(&body).unwrap();
    let lines = format!(
        "{}\n{}\n",
        field(&pair, "access_token"),
        field(&pair, "refresh_token")
    );
    home.run_with(&["auth", "login", "twitch", "--with-token"], &lines)
        .exits(0);
}

#[test]
fn revoked_token_is_reported_by_a_poll_and_healed_by_a_login() {
    let sim = Sim::start();
    let home = home(&sim, "[twitch]\neventsub = false\n");
    let (mut daemon, address) = watch(&home);
    become_all(&address, "VALID", ["CONNECTED", "CONNECTED", "ERROR"]);
    // The polls continue with the application's token.
    sim.order("/__sim/twitch/disconnect", &json!({"user_id": BOT}));
    become_all(&address, "REVOKED", ["ERROR"; 3]);
    log_in(&sim, &home);
    become_all(&address, "VALID", ["CONNECTED", "CONNECTED", "ERROR"]);
    // The commands agree.
    let status = home.run(&["auth", "status", "-o", "json"]).exits(0);
    assert_eq!(status.item("identity", "twitch/bot")["status"], "VALID");
    let table = home.run(&["sources", "status", "-o", "json"]);
    for key in SOURCES {
        assert_eq!(table.item("key", key)["authStatus"], "VALID", "{key}");
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn push_connection_recovers_with_a_login_too() {
    let sim = Sim::start();
    let home = home(&sim, "");
    let (mut daemon, address) = watch(&home);
    let enabled = |_: u16, body: &str| {
        body.contains("\"activeSubscriptions\":") && !body.contains("\"activeSubscriptions\":0")
    };
    become_all(&address, "VALID", ["CONNECTED", "CONNECTED", "ERROR"]);
    until(&address, "/_debug/twitch/eventsub", enabled);
    sim.order("/__sim/twitch/disconnect", &json!({"user_id": BOT}));
    become_all(&address, "REVOKED", ["ERROR"; 3]);
    log_in(&sim, &home);
    become_all(&address, "VALID", ["CONNECTED", "CONNECTED", "ERROR"]);
    until(&address, "/_debug/twitch/eventsub", enabled);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn reload_checks_accounts() {
    let sim = Sim::start();
    let home = home(&sim, "[twitch]\neventsub = false\n");
    let (mut daemon, address) = watch(&home);
    become_all(&address, "VALID", ["CONNECTED", "CONNECTED", "ERROR"]);
    let before = page(&sim.twitch, "/__sim/requests").unwrap().1;
    let validated = |body: &str| body.matches("/oauth2/validate").count();
    daemon.signal("-HUP");
    daemon.says("Accounts are checked");
    until(&sim.twitch, "/__sim/requests", |_, body| {
        validated(body) > validated(&before)
    });
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
}
