//! Parses JSON more tolerantly than documented. Platforms and their simulators write numbers as text, omit documented fields and
//! send `null` for empty values; an invalid optional field must not invalidate the fields beside it.

use std::collections::BTreeSet;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Treats `null` and unparsable values as absent.
pub fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Like [`lenient`] for a field that has a default, which stands for `null` and unparsable values.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(lenient(deserializer)?.unwrap_or_default())
}

/// Parses a list and skips members that cannot be parsed; anything else is an empty list.
pub fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let Value::Array(list) = Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    Ok(list
        .into_iter()
        .filter_map(|member| serde_json::from_value(member).ok())
        .collect())
}

/// A list that is parsed row by row: a row that cannot be parsed does not affect the others, but it is kept, because the absence
/// of its subject from the list proves nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    /// The rows that were parsed.
    pub read: Vec<T>,
    /// The rows that were not parsed, if they are valid JSON.
    pub unread: Vec<Value>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            unread: Vec::new(),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut rows = Self::default();
        for raw in Vec::<Box<RawValue>>::deserialize(deserializer)? {
            match raw_row(raw.get()) {
                Ok(row) => rows.read.push(row),
                Err(unread) => rows.unread.push(unread),
            }
        }
        Ok(rows)
    }
}

/// Parses one row, which must be an object: serde would accept a list as a struct's fields in order. Returns a row that cannot be
/// parsed.
pub fn row<T: DeserializeOwned>(value: Value) -> Result<T, Value> {
    match serde_json::from_value(value.clone()) {
        Ok(row) if value.is_object() => Ok(row),
        _ => Err(value),
    }
}

/// Like [`row`], for text.
fn raw_row<T: DeserializeOwned>(raw: &str) -> Result<T, Value> {
    if raw.starts_with('{')
        && let Ok(row) = serde_json::from_str(raw)
    {
        return Ok(row);
    }
    // Duplicate keys are fine in a `Value`: the last one counts.
    row(serde_json::from_str(raw).unwrap_or_default())
}

/// Which of the requested ids an answer leaves undetermined because some of its rows cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unclear<I> {
    /// Ids for which a row was received that cannot be parsed.
    of: BTreeSet<I>,
    /// Whether a row was received that may be about any of them.
    any: bool,
}

impl<I: Ord> Unclear<I> {
    /// Returns a value for which nothing is undetermined.
    pub fn nothing() -> Self {
        Self {
            of: BTreeSet::new(),
            any: false,
        }
    }

    /// Records a row that cannot be parsed, with the id of its subject if that can be parsed and was requested.
    pub fn note(&mut self, id: Option<I>) {
        match id {
            Some(id) => drop(self.of.insert(id)),
            None => self.any = true,
        }
    }

    /// Adds what another part of the answer leaves undetermined.
    pub fn add(&mut self, other: Self) {
        self.of.extend(other.of);
        self.any |= other.any;
    }

    /// Returns whether the absence of `id` proves nothing.
    pub fn concerns<Q: Ord + ?Sized>(&self, id: &Q) -> bool
    where
        I: std::borrow::Borrow<Q>,
    {
        self.any || self.of.contains(id)
    }

    /// Returns whether anything is undetermined.
    pub fn is_any(&self) -> bool {
        self.any || !self.of.is_empty()
    }
}

/// Returns the id in a value, which may be a string or an integer, as a string; `None` if it is neither or empty.
pub fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        // A large id that was converted to a double has lost digits.
        Value::Number(number) if number.is_f64() => whole_of(value)
            .filter(|_| is_whole(value))
            .map(|whole| whole.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Parses an id that is stored as a string and may be written as a number. It must be present and not empty.
pub fn id_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    id_of(&value).ok_or_else(|| D::Error::custom("an id is missing"))
}

/// Parses the id of an account, a positive number that is stored as a string. Anything else may stand for any account.
pub fn account_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = id_text(deserializer)?;
    let is_positive = id.bytes().all(|byte| byte.is_ascii_digit()) && id.bytes().any(|byte| byte != b'0');
    if is_positive {
        Ok(id)
    } else {
        Err(D::Error::custom("an id is not a positive number"))
    }
}

/// Like [`account_id`], where `null` and the empty string mean that there is no account.
pub fn maybe_account_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        value => account_id(value).map(Some).map_err(D::Error::custom),
    }
}

/// Like [`id_text`] for an optional id.
pub fn maybe_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(id_of(&Value::deserialize(deserializer)?))
}

/// Parses a list of strings, which may be written as one space-separated string; anything else is absent.
pub fn texts<'de, D: Deserializer<'de>, C: FromIterator<String>>(
    deserializer: D,
) -> Result<Option<C>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(list) => {
            let texts = list.iter().filter_map(Value::as_str);
            Some(texts.map(str::to_owned).collect())
        }
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        _ => None,
    })
}

/// Parses a string; a number becomes its digits, and anything else is empty.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// Parses an integer that may be written as a string or with a decimal point; anything else is absent.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(whole_of(&Value::deserialize(deserializer)?))
}

/// Like [`whole`] for values that cannot be negative.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(whole_of(&value).and_then(|number| u64::try_from(number).ok()))
}

/// Parses a number that may be written as a string; anything else is absent.
pub fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// Parses a boolean, also as a string or as 1 and 0; anything else is absent. Only for values from which no verdict follows: for
/// others the documented type is required, with [`lenient`].
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

/// Parses a numeric id that may be written as a string. Unlike the other functions here it requires a valid value.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let id = match &value {
        Value::Number(number) => number
            .as_u64()
            .or_else(|| u64::try_from(whole_of(&value).filter(|_| is_whole(&value))?).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    id.ok_or_else(|| D::Error::custom("an id is not a number"))
}

/// Like [`id`] for ids that are never 0: where a row has a 0, its subject is unknown.
pub fn positive_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match id(deserializer)? {
        0 => Err(D::Error::custom("an id is 0")),
        id => Ok(id),
    }
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

/// Whether a number with a decimal point is an integer, as ids are.
fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Values that no field should have but some servers send.
#[cfg(test)]
pub(crate) mod odd {
    use serde_json::Value;

    const MARK: &str = "\u{1}odd\u{1}";
    const VALUES: [&str; 16] = [
        "null",
        "true",
        "7",
        "-1",
        "1.5",
        "1e999",
        "9.87e17",
        "18446744073709551616",
        "\"\"",
        "\"7\"",
        "\"many\"",
        r#""\ud83d""#,
        "[]",
        "{}",
        "[[]]",
        "[1e999]",
    ];

    /// Returns `row` as JSON, once for each of its fields and each odd value in that field.
    pub(crate) fn variants(row: &Value) -> Vec<String> {
        let mut marked = Vec::new();
        mark(row, &mut |row| marked.push(row));
        let mark = Value::from(MARK).to_string();
        let with = |row: &Value| {
            let text = row.to_string();
            VALUES.map(|odd| text.replacen(&mark, odd, 1))
        };
        marked.iter().flat_map(with).collect()
    }

    /// Calls `pass` with variants of `value` in which one member at a time is marked, including nested members.
    fn mark(value: &Value, pass: &mut dyn FnMut(Value)) {
        let members: Vec<(String, Value)> = match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(name, of)| (format!("/{name}"), of.clone()))
                .collect(),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(n, of)| (format!("/{n}"), of.clone()))
                .collect(),
            _ => Vec::new(),
        };
        for (path, member) in members {
            let mut put = |inner: Value| {
                let mut whole = value.clone();
                if let Some(place) = whole.pointer_mut(&path) {
                    *place = inner;
                }
                pass(whole);
            };
            put(Value::from(MARK));
            mark(&member, &mut put);
        }
    }
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
    fn lenient_fields_parse_variants_and_drop_unreadable_values() {
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
    fn one_odd_row_costs_only_itself() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Row {
            #[serde(deserialize_with = "id_text")]
            id: String,
        }
        let body =
            r#"[{"id":"1"},{"id":null},[],["2"],{"id":3},7,{"id":"4","id":"5"},{"id":1e999},{"id":""}]"#;
        let rows: Rows<Row> = serde_json::from_str(body).unwrap();
        let read: Vec<_> = rows.read.iter().map(|row| row.id.as_str()).collect();
        assert_eq!((read, rows.unread.len()), (vec!["1", "3", "5"], 6));
        assert_eq!(row::<Row>(json!(["6"])).unwrap_err(), json!(["6"]));
        let of_value: Rows<Row> = serde_json::from_value(json!([{"id": 1}, {}])).unwrap();
        assert_eq!((of_value.read.len(), of_value.unread.len()), (1, 1));
        for no_list in ["{}", "null", "7"] {
            assert!(serde_json::from_str::<Rows<Row>>(no_list).is_err(), "{no_list}");
        }
    }

    #[test]
    fn an_id_may_be_a_number_but_never_empty() {
        for (value, expected) in [
            (json!("7"), Some("7")),
            (json!(7), Some("7")),
            (json!(7.0), Some("7")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!(9.87e17), None),
            (json!(""), None),
            (json!(" "), None),
            (json!(null), None),
            (json!([7]), None),
            (json!(true), None),
        ] {
            assert_eq!(id_of(&value).as_deref(), expected, "{value}");
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
