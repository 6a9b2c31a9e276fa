//! Access to fields of foreign events: lenient reading, and rejection of values that a store cannot hold.

use serde_json::Value;

/// Returns the value at a path of field names.
pub(super) fn field<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// Returns the text at a path if it is not empty.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    field(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// An id, which some senders encode as a number.
pub(super) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns an error if a value cannot be stored in every store: Firestore rejects arrays in arrays, empty keys, reserved keys
/// and deep nesting, and one such value would fail the write of the whole document.
pub(super) fn storable(value: &Value) -> Result<(), String> {
    fn check(value: &Value, in_array: bool, depth: usize) -> Result<(), String> {
        match value {
            _ if depth > 12 => Err("nested too deeply".to_owned()),
            Value::Array(_) if in_array => Err("an array within an array".to_owned()),
            Value::Array(items) => items.iter().try_for_each(|item| check(item, true, depth + 1)),
            Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
                if !storable_key(key) {
                    return Err("an empty, reserved or oversized key".to_owned());
                }
                check(value, false, depth + 1)
            }),
            _ => Ok(()),
        }
    }
    check(value, false, 0)
}

/// Whether every store accepts `key` as a field name.
pub(super) fn storable_key(key: &str) -> bool {
    let reserved = key.len() >= 4 && key.starts_with("__") && key.ends_with("__");
    !key.is_empty() && key.len() <= 200 && !reserved && !key.chars().any(char::is_control)
}
