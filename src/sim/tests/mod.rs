//! The simulator as seen by its clients: over real sockets, with clients that share no code with it.

mod commands;
mod conduits;
mod demo;
mod directory;
mod discord;
mod discord_gateway;
mod eventsub_events;
mod eventsub_moderation;
mod eventsub_rest;
mod eventsub_ws;
mod host;
mod kick;
mod kick_webhooks;
mod listener;
mod twitch;
mod twitch_helix;
mod twitch_oauth;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::Value;

use super::PlatformSim;
use super::kit::Simulated;

/// Returns a client that connects to loopback only.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator is tested from outside, not with our own HTTP layer"
)]
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// Waits until `condition` holds, and fails with `what` when it does not within ten seconds.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

/// Sends a request; returns status and JSON body, null when there is none.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Sends a command over HTTP.
async fn command<W: Simulated>(sim: &PlatformSim<W>, name: &str, fields: &Value) -> (u16, Value) {
    let url = format!("{}/__sim/{}/{name}", sim.http(), W::NAME);
    answer(client().post(url).json(fields)).await
}
