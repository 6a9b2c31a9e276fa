//! Entry points of the fuzz targets in `fuzz/`: EventSub frames and lists of subscriptions.

use super::kinds::{Kind, Subscription};
use super::{events, messages};
use crate::core::observation::Observation;
use crate::core::time::Timestamp;

/// Returns what a frame proves.
pub fn observations(frame: &str, bot_user_id: Option<&str>, now: Timestamp) -> Vec<Observation> {
    let Some(message) = messages::read(frame) else {
        return Vec::new();
    };
    let at = message.at.unwrap_or(now);
    let messages::Body::Notification { kind, channel, event } = message.body else {
        return Vec::new();
    };
    let Some(kind) = Kind::named(&kind) else {
        return Vec::new();
    };
    match events::read(kind, event.get(), channel.as_deref(), bot_user_id, at) {
        events::ParsedEvent::Facts(source, observations) => {
            assert!(
                observations
                    .iter()
                    .all(|observation| observation.source == source)
            );
            observations
        }
        events::ParsedEvent::Chat(_) | events::ParsedEvent::Unreadable => Vec::new(),
    }
}

/// Reads a list of subscriptions. One that is supported is described by its own condition.
pub fn subscriptions(body: &[u8]) {
    let Ok(listed) = crate::core::json::read::<messages::Listed>(body) else {
        return;
    };
    for info in &listed.data.read {
        if let Some(subscription) = Subscription::from_info(info) {
            let condition = subscription.condition();
            assert!(
                condition
                    .iter()
                    .all(|(name, value)| info.condition.get(name) == Some(value))
            );
        }
    }
}
