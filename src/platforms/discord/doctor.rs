//! What `doctor` checks about the gateway.

use serde_json::Value;

use super::gateway::GatewayOptions;
use super::{DiscordPlatform, SessionStarts};
use crate::core::finding::{Finding, Level};
use crate::platforms::kit::greeting;

/// Checks how many sessions may still be started, and whether the gateway greets.
pub(super) async fn gateway(discord: &DiscordPlatform) -> Vec<Finding> {
    const NAME: &str = "gateway sessions";
    let GatewayOptions {
        identify_cap,
        identify_reserve,
        ..
    } = GatewayOptions::default();
    let SessionStarts { ours, left, url } = match discord.session_starts().await {
        Ok(starts) => starts,
        Err(error) => return vec![Finding::new(NAME, Level::Warn, error.to_string())],
    };
    let rest = left.map_or_else(
        || "Discord does not report how many are left".to_owned(),
        |left| format!("Discord has {left} left"),
    );
    let detail = format!("{ours} of our {identify_cap} a day were started; {rest}");
    let scarce = ours * 10 >= identify_cap * 8 || left.is_some_and(|left| left < identify_reserve);
    let level = if scarce { Level::Warn } else { Level::Ok };
    let is_hello = |message: &Value| message.get("op").and_then(Value::as_u64) == Some(10);
    let next = "bitbrat config show  # discord.api_url, and the proxy";
    vec![
        Finding::new(NAME, level, detail),
        greeting::check("gateway", &url, is_hello, next).await,
    ]
}
