//! Checks whether a platform's websocket opens and sends its greeting. It creates no subscription and no session.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::app::App;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::core::source::PlatformName;
use crate::websocket;

/// Timeout of the greeting; Twitch and Discord send it at once.
const PATIENCE: Duration = Duration::from_secs(12);

/// Opens EventSub's websocket, where `watch` would.
pub async fn eventsub(app: &App) -> Option<Check> {
    let settings = &app.settings.platforms.twitch;
    if !settings.eventsub {
        return None;
    }
    let url = &settings.eventsub_ws_url;
    let greeted = greeting(url.as_str(), |message| {
        message.pointer("/metadata/message_type").and_then(Value::as_str) == Some("session_welcome")
    });
    let next = "bitbrat config show  # twitch.eventsub_ws_url, and the proxy";
    Some(check(
        PlatformName::Twitch,
        "eventsub",
        url.host_str(),
        greeted.await,
        next,
    ))
}

/// Opens Discord's gateway at `url`, which Discord has returned.
pub async fn gateway(url: &str) -> Check {
    let parsed: Option<url::Url> = url.parse().ok();
    let host = parsed.as_ref().and_then(|url| url.host_str());
    let greeted = greeting(url, |message| {
        message.get("op").and_then(Value::as_u64) == Some(10)
    });
    let next = "bitbrat config show  # discord.api_url, and the proxy";
    check(PlatformName::Discord, "gateway", host, greeted.await, next)
}

fn check(
    platform: PlatformName,
    name: &str,
    host: Option<&str>,
    greeted: Result<Duration, String>,
    next: &str,
) -> Check {
    let host = host.unwrap_or("its address");
    let area = platform.as_str();
    match greeted {
        Ok(after) => {
            let detail = format!("the websocket at {host} is open after {} ms", after.as_millis());
            Check::new(area, name, Outcome::Ok, detail)
        }
        Err(reason) => Check::new(area, name, Outcome::Fail, format!("{host}: {reason}")).next(next),
    }
}

/// Opens a websocket, waits for the message that `is_it` accepts, and closes.
async fn greeting(url: &str, is_it: impl Fn(&Value) -> bool) -> Result<Duration, String> {
    let begun = Instant::now();
    let greeted = async {
        let opened = websocket::open(url, None).await;
        let mut socket = opened.map_err(|error| format!("{} ({})", error.reason, error.code))?;
        while let Some(message) = socket.next().await {
            let Ok(Message::Text(text)) = message else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            if is_it(&message) {
                let after = begun.elapsed();
                let _ = socket.close(None).await;
                return Ok(after);
            }
        }
        Err("the websocket was closed without the platform's greeting".to_owned())
    };
    match tokio::time::timeout(PATIENCE, greeted).await {
        Ok(greeted) => greeted,
        Err(_) => Err(format!("no greeting within {} s", PATIENCE.as_secs())),
    }
}
