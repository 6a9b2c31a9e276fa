//! Reads JSON more tolerantly than it is documented. Platforms, and those who simulate them, write numbers as text, leave out
//! what they document and send `null` for what is empty; a field that only decorates must not spoil what stands beside it.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};
use serde_json::Value;

/// Reads `null` and anything unreadable as absent.
pub fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Reads a list, skipping members that cannot be read; anything else is an empty one.
pub fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let Value::Array(list) = Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    Ok(list
        .into_iter()
        .filter_map(|member| serde_json::from_value(member).ok())
        .collect())
}

/// Reads a list of words, which may be written as one text with blanks between them; anything else is absent.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(list) => {
            let words = list.iter().filter_map(Value::as_str);
            Some(words.map(str::to_owned).collect())
        }
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        _ => None,
    })
}

/// Reads a text; a number is its digits, and anything else is empty.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// Reads a whole number that may be written as text or with a point; anything else is absent.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(whole_of(&Value::deserialize(deserializer)?))
}

/// The same for what cannot be negative.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(whole_of(&value).and_then(|number| u64::try_from(number).ok()))
}

/// Reads a number that may be written as text; anything else is absent.
pub fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// Reads yes or no, also as text or 1 and 0; anything else is absent.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_ascii_lowercase);
    Ok(match text.trim() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    })
}

/// Reads an id, a number that may be written as text. Unlike all others here it must be there and must be one.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let id = match &value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    id.ok_or_else(|| D::Error::custom("an id is not a number"))
}

fn whole_of(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.as_i64().or_else(|| from_point(number.as_f64()?))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "what is out of range is not believed before"
)]
fn from_point(number: f64) -> Option<i64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    (number.abs() < LARGEST).then(|| number.round() as i64)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct All {
        #[serde(deserialize_with = "text")]
        text: String,
        #[serde(deserialize_with = "whole")]
        whole: Option<i64>,
        #[serde(deserialize_with = "count")]
        count: Option<u64>,
        #[serde(deserialize_with = "decimal")]
        decimal: Option<f64>,
        #[serde(deserialize_with = "flag")]
        flag: Option<bool>,
        #[serde(deserialize_with = "readable")]
        list: Vec<u8>,
    }

    #[test]
    fn values_are_read_as_they_are_meant_and_the_unreadable_as_absent() {
        let read = |value| serde_json::from_value::<All>(value).unwrap();
        let full = |text: &str| All {
            text: text.to_owned(),
            whole: Some(7_200),
            count: Some(42),
            decimal: Some(1.5),
            flag: Some(true),
            list: vec![1, 3],
        };
        for (value, expected) in [
            (
                json!({"text": "a", "whole": 7200, "count": 42, "decimal": 1.5, "flag": true, "list": [1, "x", 3]}),
                full("a"),
            ),
            (
                json!({"text": 5, "whole": "7200", "count": "42", "decimal": "1.5", "flag": "True", "list": [1, -1, 3]}),
                full("5"),
            ),
            (
                json!({"whole": 7200.0, "count": 42.0, "decimal": 1.5, "flag": 1, "list": [1, 3]}),
                full(""),
            ),
            (
                json!({"text": null, "whole": null, "count": -1, "decimal": [], "flag": "maybe", "list": {}}),
                All::default(),
            ),
            (json!({"whole": 1e300, "count": "many", "new": 1}), All::default()),
        ] {
            assert_eq!(read(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn an_id_keeps_all_its_digits_and_is_never_made_up() {
        #[derive(Deserialize)]
        struct Whose {
            #[serde(deserialize_with = "id")]
            id: u64,
        }
        let read = |value| serde_json::from_value::<Whose>(value).ok().map(|whose| whose.id);
        assert_eq!(read(json!({"id": u64::MAX})), Some(u64::MAX));
        assert_eq!(read(json!({"id": u64::MAX.to_string()})), Some(u64::MAX));
        for value in [
            json!({}),
            json!({"id": null}),
            json!({"id": "abc"}),
            json!({"id": 1.5}),
        ] {
            assert_eq!(read(value), None);
        }
    }
}
