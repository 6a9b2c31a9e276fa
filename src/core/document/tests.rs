//! What a document keeps, what it derives, and what it makes of what others wrote.

use std::collections::BTreeMap;

use super::*;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use serde_json::json;

fn key() -> SourceKey {
    "twitch:900200".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

fn live_document() -> SourceDocument {
    let facts = [
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
        Fact::StreamSeen {
            stream_id: "40900001".into(),
            started_at: Some(at(-60)),
        },
        Fact::Viewers {
            count: 37,
            stream_id: Some("40900001".into()),
        },
        Fact::Profile {
            fields: BTreeMap::from([
                ("displayName".into(), "RatCaster".into()),
                ("login".into(), "ratcaster".into()),
            ]),
        },
    ];
    let observations = facts.map(|fact| Observation::new(&key(), at(0), "twitch.helix", fact));
    SourceDocument::from_knowledge(key(), Knowledge::of(&observations))
}

#[test]
fn a_document_reads_back_as_it_was_stored() {
    let document = live_document();
    let stored = document.to_stored();
    assert_eq!(stored["viewerCount"], 37);
    assert_eq!(stored["metadata"]["session"]["streamId"], "40900001");
    let text = document.to_text();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!(stored));
    assert_eq!(
        SourceDocument::from_stored(key(), Value::Object(stored)).unwrap(),
        document
    );
    assert_eq!(SourceDocument::from_text(key(), &text).unwrap(), document);
}

#[test]
fn text_and_value_are_read_alike_whatever_is_in_them() {
    for stored in [
        json!({}),
        json!([]),
        json!("text"),
        json!({ "schemaVersion": 99, "evidence": "later" }),
        json!({ "schemaVersion": "odd", "displayName": 7, "metadata": "none", "metrics": [] }),
        json!({ "evidence": null, "counters": null, "metrics": { "received": 5 } }),
        json!({ "evidence": { "connection": 5 } }),
        json!({ "counters": { "a": { "messagesIn": -1 } } }),
        json!({ "displayName": "Theirs", "tags": [1, null], "extra": null, "status": { "odd": true } }),
        json!({ "metadata": { "login": "x", "gone": null, "session": {}, "displayName": "y" } }),
    ] {
        let text = serde_json::to_string_pretty(&stored).unwrap();
        assert_eq!(
            SourceDocument::from_text(key(), &text),
            SourceDocument::from_stored(key(), stored),
            "{text}"
        );
    }
}

#[test]
fn nothing_is_ever_stored_as_null() {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(fields) => fields.values().any(has_null),
            _ => false,
        }
    }
    assert!(!has_null(&Value::Object(live_document().to_stored())));
    assert!(!has_null(&Value::Object(SourceDocument::new(key()).to_stored())));
}

#[test]
fn a_document_of_the_platforms_own_service_is_accepted_but_its_claims_are_not_believed() {
    let stored = json!({
        "id": "900200", "platform": "twitch", "displayName": "RatCaster", "status": "CONNECTED",
        "streamStatus": "ONLINE", "authStatus": "VALID", "viewerCount": null, "lastError": null,
        "metrics": {"received": 120, "published": 118, "failed": 2, "lastHeartbeat": "2026-05-01T18:00:00.000Z"},
        "metadata": {"login": "ratcaster", "title": null, "joinedChannels": ["#ratcaster"]},
        "notes": "set by a person",
    });
    let document = SourceDocument::from_stored(key(), stored).unwrap();
    let healed = document.to_stored();
    assert_eq!(healed["status"], "DISCONNECTED");
    assert_eq!(healed["streamStatus"], "UNKNOWN");
    assert!(!healed.contains_key("authStatus"));
    assert_eq!(healed["displayName"], "RatCaster");
    assert_eq!(healed["metrics"]["messagesIn"], 120);
    assert_eq!(healed["metrics"]["errors"], 2);
    assert_eq!(healed["notes"], "set by a person");
    assert_eq!(
        healed["metadata"],
        json!({"login": "ratcaster", "joinedChannels": ["#ratcaster"]})
    );
}

#[test]
fn a_document_of_a_newer_program_is_refused() {
    let error = SourceDocument::from_stored(key(), json!({"schemaVersion": 99})).unwrap_err();
    assert!(error.to_string().contains("schemaVersion 99"), "{error}");
}

#[test]
fn broken_fields_of_others_do_not_matter_and_broken_evidence_is_left_alone() {
    let odd = json!({"status": 7, "metrics": "many", "metadata": [1], "permissions": {}});
    assert!(SourceDocument::from_stored(key(), odd).is_ok());
    let broken = json!({"schemaVersion": 1, "evidence": {"latency": "fast"}});
    assert!(matches!(
        SourceDocument::from_stored(key(), broken),
        Err(BrokenDocument::Unreadable {
            field: "evidence",
            ..
        })
    ));
}
