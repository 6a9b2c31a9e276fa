//! Lossless conversion between Firestore values and JSON.
//!
//! The crate's own mapping drops nulls and wraps large numbers, so it is not used. A value that JSON cannot represent (other
//! programs may have written it) becomes an object with one member whose name starts with `$firestore.`, so that it is
//! preserved by our writes and by a migration through another store.

use std::collections::HashMap;

use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{ArrayValue, MapValue, Value as Stored};
use firestore::gcloud_sdk::google::r#type::LatLng;
use firestore::gcloud_sdk::prost_types::Timestamp;
use serde_json::{Map, Number, Value, json};

const TIMESTAMP: &str = "$firestore.timestamp";
const BYTES: &str = "$firestore.bytes";
const REFERENCE: &str = "$firestore.reference";
const POINT: &str = "$firestore.point";
const DOUBLE: &str = "$firestore.double";

/// Converts a document's fields to JSON.
pub fn to_json(fields: HashMap<String, Stored>) -> Map<String, Value> {
    let member = |(name, value): (String, Stored)| (name, json_of(value));
    fields.into_iter().map(member).collect()
}

/// Converts JSON to a document's fields.
pub fn to_fields(object: Map<String, Value>) -> HashMap<String, Stored> {
    let member = |(name, value)| (name, stored_of(value));
    object.into_iter().map(member).collect()
}

fn json_of(value: Stored) -> Value {
    match value.value_type {
        // The last four are parts of queries and never stored in a document.
        None
        | Some(
            ValueType::NullValue(_)
            | ValueType::FieldReferenceValue(_)
            | ValueType::VariableReferenceValue(_)
            | ValueType::FunctionValue(_)
            | ValueType::PipelineValue(_),
        ) => Value::Null,
        Some(ValueType::BooleanValue(flag)) => Value::Bool(flag),
        Some(ValueType::IntegerValue(number)) => number.into(),
        Some(ValueType::DoubleValue(number)) => {
            Number::from_f64(number).map_or_else(|| json!({ DOUBLE: number.to_string() }), Value::Number)
        }
        Some(ValueType::StringValue(text)) => Value::String(text),
        Some(ValueType::TimestampValue(at)) => json!({ TIMESTAMP: [at.seconds, at.nanos] }),
        Some(ValueType::BytesValue(bytes)) => json!({ BYTES: bytes }),
        Some(ValueType::ReferenceValue(name)) => json!({ REFERENCE: name }),
        Some(ValueType::GeoPointValue(point)) => json!({ POINT: [point.latitude, point.longitude] }),
        Some(ValueType::ArrayValue(array)) => array.values.into_iter().map(json_of).collect(),
        Some(ValueType::MapValue(map)) => Value::Object(to_json(map.fields)),
    }
}

fn stored_of(value: Value) -> Stored {
    let value_type = match value {
        Value::Null => ValueType::NullValue(0),
        Value::Bool(flag) => ValueType::BooleanValue(flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => ValueType::IntegerValue(number),
            // Beyond the range of `i64`, Firestore has only doubles.
            None => ValueType::DoubleValue(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => ValueType::StringValue(text),
        Value::Array(items) => ValueType::ArrayValue(ArrayValue {
            values: items.into_iter().map(stored_of).collect(),
        }),
        Value::Object(object) => own_word(&object).unwrap_or_else(|| {
            ValueType::MapValue(MapValue {
                fields: to_fields(object),
            })
        }),
    };
    Stored {
        value_type: Some(value_type),
    }
}

/// Parses an object that represents a value without a JSON equivalent.
fn own_word(object: &Map<String, Value>) -> Option<ValueType> {
    let (word, value) = object.iter().next().filter(|_| object.len() == 1)?;
    let pair = || Some((value.get(0)?, value.get(1)?));
    Some(match word.as_str() {
        TIMESTAMP => ValueType::TimestampValue(Timestamp {
            seconds: pair()?.0.as_i64()?,
            nanos: i32::try_from(pair()?.1.as_i64()?).ok()?,
        }),
        BYTES => ValueType::BytesValue(serde_json::from_value(value.clone()).ok()?),
        REFERENCE => ValueType::ReferenceValue(value.as_str()?.to_owned()),
        POINT => ValueType::GeoPointValue(LatLng {
            latitude: pair()?.0.as_f64()?,
            longitude: pair()?.1.as_f64()?,
        }),
        DOUBLE => ValueType::DoubleValue(value.as_str()?.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(value: Value) -> Value {
        json_of(stored_of(value))
    }

    #[test]
    fn json_survives_the_journey_nulls_included() {
        for value in [
            json!(null),
            json!(true),
            json!([1, null, 2.5, "x", { "a": null }]),
            json!({ "big": i64::MAX, "small": i64::MIN, "odd name.with/dots": {} }),
            json!("🐀"),
        ] {
            assert_eq!(through(value.clone()), value);
        }
    }

    #[test]
    fn whole_numbers_stay_whole_and_fractions_stay_fractions() {
        assert_eq!(stored_of(json!(5)).value_type, Some(ValueType::IntegerValue(5)));
        assert_eq!(
            stored_of(json!(5.0)).value_type,
            Some(ValueType::DoubleValue(5.0))
        );
        assert_eq!(through(json!(5.0)), json!(5.0));
    }

    #[test]
    fn a_number_beyond_the_signed_range_never_wraps() {
        assert_eq!(
            stored_of(json!(u64::MAX)).value_type,
            Some(ValueType::DoubleValue(18_446_744_073_709_551_615.0))
        );
    }

    #[test]
    fn what_json_has_no_word_for_survives() {
        for value_type in [
            ValueType::TimestampValue(Timestamp {
                seconds: 5,
                nanos: 123_000,
            }),
            ValueType::BytesValue(vec![0, 255]),
            ValueType::ReferenceValue("projects/p/databases/d/documents/a/b".into()),
            ValueType::GeoPointValue(LatLng {
                latitude: 1.5,
                longitude: -2.0,
            }),
            ValueType::DoubleValue(f64::INFINITY),
        ] {
            let stored = Stored {
                value_type: Some(value_type),
            };
            assert_eq!(stored_of(json_of(stored.clone())), stored);
        }
    }

    #[test]
    fn object_resembling_a_marker_stays_an_object() {
        for value in [json!({ TIMESTAMP: "x" }), json!({ POINT: [1.0, 2.0], "more": 1 })] {
            assert_eq!(through(value.clone()), value);
        }
    }
}
