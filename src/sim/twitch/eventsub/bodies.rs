//! Parts of event bodies and conditions.

use serde_json::Value;

/// The key of conditions that holds the channel.
pub(super) const BROADCASTER: &str = "broadcaster_user_id";

/// Returns `base` with the fields of `more`.
pub(super) fn joined(mut base: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        base[field] = value.clone();
    }
    base
}
