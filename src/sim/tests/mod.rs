//! The simulator as seen by its clients: over real sockets, with clients that share no code with it.

mod commands;
mod demo;
mod directory;
mod discord;
mod eventsub_events;
mod eventsub_rest;
mod eventsub_ws;
mod host;
mod kick;
mod listener;
mod twitch;
mod twitch_helix;
mod twitch_oauth;

use std::time::Duration;

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
