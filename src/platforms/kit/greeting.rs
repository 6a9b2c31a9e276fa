//! Checks whether a platform's websocket opens and sends its greeting. It creates no subscription and no session.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

use crate::core::finding::{Finding, Level};
use crate::websocket;

/// Timeout of the greeting; Twitch and Discord send it at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(12);

/// Opens a websocket and waits for the message that `is_greeting` accepts.
pub async fn check(
    name: &'static str,
    url: &str,
    is_greeting: impl Fn(&Value) -> bool,
    next: &'static str,
) -> Finding {
    let parsed: Option<Url> = url.parse().ok();
    let host = parsed.as_ref().and_then(Url::host_str).unwrap_or("its address");
    match greeting(url, is_greeting).await {
        Ok(after) => {
            let detail = format!("the websocket at {host} is open after {} ms", after.as_millis());
            Finding::new(name, Level::Ok, detail)
        }
        Err(reason) => Finding::new(name, Level::Fail, format!("{host}: {reason}")).next(next),
    }
}

/// Opens a websocket, waits for the message that `is_it` accepts, and closes.
async fn greeting(url: &str, is_it: impl Fn(&Value) -> bool) -> Result<Duration, String> {
    let begun = Instant::now();
    let greeted = async {
        let opened = websocket::open(url, None, None).await;
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
    match tokio::time::timeout(GREETING_TIMEOUT, greeted).await {
        Ok(greeted) => greeted,
        Err(_) => Err(format!("no greeting within {} s", GREETING_TIMEOUT.as_secs())),
    }
}
