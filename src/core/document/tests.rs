//! Tests of documents: preserved fields, derived fields, import of foreign documents.

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
        json!({ "schemaVersion": 1.0, "metrics": { "queue": 1.5 }, "lastStatusUpdate": 7 }),
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
fn connector_document_is_accepted_without_its_status_claims() {
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
fn foreign_fields_may_be_malformed_but_evidence_may_not() {
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

#[test]
fn stored_integers_that_come_back_as_doubles_are_read() {
    fn as_doubles(value: Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64().unwrap()),
            Value::Array(items) => items.into_iter().map(as_doubles).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| (name, as_doubles(value)))
                .collect(),
            other => other,
        }
    }
    let mut document = live_document();
    let totals = Fact::Counters {
        writer: "a".into(),
        totals: crate::core::counters::Counters {
            messages_in: 12,
            ..Default::default()
        },
    };
    document.join(Knowledge::from(&Observation::new(&key(), at(1), "x", totals)));
    let stored = as_doubles(Value::Object(document.to_stored()));
    let text = stored.to_string();
    assert!(text.contains("37.0") && text.contains("12.0"), "{text}");
    assert_eq!(SourceDocument::from_text(key(), &text).unwrap(), document);
    assert_eq!(SourceDocument::from_stored(key(), stored).unwrap(), document);
    let foreign = json!({"metrics": {"received": 120.0, "failed": 2.0}});
    let healed = SourceDocument::from_stored(key(), foreign).unwrap().record();
    assert_eq!((healed.metrics.messages_in, healed.metrics.errors), (120, 2));
}

#[test]
fn name_from_the_address_follows_its_change_after_a_restart() {
    let key: SourceKey = "kick:7".parse().unwrap();
    let slug = |name: &str, seconds| {
        let fields = BTreeMap::from([("slug".to_owned(), name.to_owned())]);
        Knowledge::from(&Observation::new(
            &key,
            at(seconds),
            "kick.api",
            Fact::Profile { fields },
        ))
    };
    let document = SourceDocument::from_knowledge(key.clone(), slug("ada", 0));
    let mut read = SourceDocument::from_text(key.clone(), &document.to_text()).unwrap();
    assert_eq!(read, document);
    assert!(read.is_all_ours());
    read.join(slug("lovelace", 1));
    assert_eq!(read.display_name(), Some("lovelace"));
    let foreign = json!({"displayName": "Ada L."});
    let mut imported = SourceDocument::from_stored(key.clone(), foreign).unwrap();
    imported.join(slug("ada", 0));
    assert_eq!(imported.display_name(), Some("Ada L."));
}

#[test]
fn a_newer_schema_version_is_refused_in_every_form() {
    for newer in [
        json!(99),
        json!(99.0),
        json!("99"),
        json!(" 99.0 "),
        json!(1.5),
        json!(1e300),
    ] {
        let stored = json!({"schemaVersion": newer, "evidence": {}});
        let text = stored.to_string();
        for read in [
            SourceDocument::from_text(key(), &text),
            SourceDocument::from_stored(key(), stored),
        ] {
            assert!(
                matches!(read, Err(BrokenDocument::Newer(2..))),
                "{text}: {read:?}"
            );
        }
    }
    for unknown in [
        json!("v2"),
        json!({"major": 2}),
        json!([1]),
        json!(true),
        json!(""),
    ] {
        let stored = json!({ "schemaVersion": unknown });
        assert!(
            matches!(
                SourceDocument::from_stored(key(), stored),
                Err(BrokenDocument::Unreadable {
                    field: "schemaVersion",
                    ..
                })
            ),
            "{unknown}"
        );
    }
    for ours in [json!(1), json!(1.0), json!("1"), json!(0), json!(null)] {
        assert!(
            SourceDocument::from_stored(key(), json!({ "schemaVersion": ours })).is_ok(),
            "{ours}"
        );
    }
}

#[test]
fn unknown_members_of_metrics_survive() {
    let stored = json!({"metrics": {"received": 5, "queueDepth": 7, "perChannel": {"a": 1}, "gone": null}});
    let document = SourceDocument::from_stored(key(), stored).unwrap();
    let mut again = document.clone();
    for _ in 0..3 {
        let text = again.to_text();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!(again.to_stored())
        );
        again = SourceDocument::from_text(key(), &text).unwrap();
        assert_eq!(
            again,
            SourceDocument::from_stored(key(), Value::Object(again.to_stored())).unwrap()
        );
    }
    let metrics = &again.to_stored()["metrics"];
    assert_eq!(
        (&metrics["queueDepth"], &metrics["perChannel"]),
        (&json!(7), &json!({"a": 1}))
    );
    assert_eq!(
        (&metrics["messagesIn"], &metrics["received"]),
        (&json!(5), &json!(5))
    );
    assert!(metrics.get("gone").is_none());
}

#[test]
fn last_status_update_is_always_stored() {
    let empty = SourceDocument::new(key());
    let problem = Fact::Problem {
        error: crate::core::observation::ErrorInfo::foreign("x", "y"),
    };
    let only_a_problem = SourceDocument::from_knowledge(
        key(),
        Knowledge::from(&Observation::new(&key(), at(5), "x", problem)),
    );
    let foreign = json!({"lastStatusUpdate": "2026-05-01T18:00:00.000Z", "metrics": {"received": 1}});
    let foreign = SourceDocument::from_stored(key(), foreign).unwrap();
    for (document, expected) in [
        (empty, "1970-01-01T00:00:00.000Z".to_owned()),
        (only_a_problem, at(5).to_string()),
        (foreign, "2026-05-01T18:00:00.000Z".to_owned()),
        (live_document(), at(0).to_string()),
    ] {
        assert_eq!(document.to_stored()["lastStatusUpdate"], json!(expected));
        let text: Value = serde_json::from_str(&document.to_text()).unwrap();
        assert_eq!(text["lastStatusUpdate"], json!(expected));
        assert_eq!(
            SourceDocument::from_text(key(), &document.to_text())
                .unwrap()
                .to_stored()["lastStatusUpdate"],
            json!(expected)
        );
    }
}

#[test]
fn permissions_are_absent_while_unknown_and_empty_when_known() {
    let with_value = |grants| {
        let fact = Fact::Permissions {
            method: "m".into(),
            grants,
        };
        let known = Knowledge::from(&Observation::new(&key(), at(0), "x", fact));
        SourceDocument::from_knowledge(key(), known)
            .to_stored()
            .get("permissions")
            .cloned()
    };
    let unknown = crate::core::observation::Grants {
        unknown: BTreeMap::from([("MODERATOR".to_owned(), "missing scope".to_owned())]),
        ..Default::default()
    };
    let none = crate::core::observation::Grants {
        denied: ["MODERATOR".to_owned()].into(),
        ..Default::default()
    };
    assert_eq!(
        with_value(crate::core::observation::Grants::default().into()),
        None
    );
    assert_eq!(with_value(unknown.into()), None);
    assert_eq!(with_value(none.into()), Some(json!([])));
    assert!(!SourceDocument::new(key()).to_stored().contains_key("permissions"));
}

#[test]
fn foreign_metadata_does_not_grow_with_each_broadcast() {
    let mut document = live_document();
    let mut stored = document.to_stored();
    for broadcast in 0..2_000 {
        // The platform's persistence service stores the payload of each of our events in the metadata, member by member.
        let Some(Value::Object(metadata)) = stored.get_mut("metadata") else {
            panic!("metadata");
        };
        let entry = metadata
            .entry("evidence")
            .or_insert_with(|| json!({"stream": {"streams": {}}}));
        entry["stream"]["streams"][format!("4090{broadcast}")] = json!({"seen": "2026-05-01T18:00:00.000Z"});
        metadata.insert("transitions".into(), json!([{"facet": "stream"}]));
        metadata.insert(format!("4090{broadcast}"), json!({"type": "live"}));
        metadata.insert("broadcasterLogin".into(), json!("ratcaster"));
        let sessions = metadata.entry("sessions").or_insert_with(|| json!({}));
        sessions[format!("2026-05-01T18:{broadcast:04}Z")] = json!(true);
        if broadcast % 100 == 0 {
            document = SourceDocument::from_stored(key(), Value::Object(stored)).unwrap();
            stored = document.to_stored();
        }
    }
    document = SourceDocument::from_stored(key(), Value::Object(stored)).unwrap();
    let metadata = &document.to_stored()["metadata"];
    assert!(
        metadata.to_string().len() < 10_000,
        "{} bytes",
        metadata.to_string().len()
    );
    assert_eq!(metadata["broadcasterLogin"], "ratcaster");
    assert_eq!(metadata["40901999"]["type"], "live", "the newest are kept");
    assert!(metadata.get("evidence").is_none() && metadata.get("transitions").is_none());
}

#[test]
fn older_event_does_not_overwrite_a_newer_name() {
    let stored = json!({
        "id": "900200", "platform": "twitch", "displayName": "New Name", "status": "CONNECTED",
        "lastStatusUpdate": "2026-05-01T18:00:00.000Z"
    });
    let with_value = |at: &str, name: &str| {
        let fields = [("displayName".to_owned(), name.to_owned())].into();
        Knowledge::from(&Observation::new(
            &key(),
            at.parse().unwrap(),
            "bitbrat",
            Fact::Profile { fields },
        ))
    };
    let mut document = SourceDocument::from_stored(key(), stored).unwrap();
    document.join(with_value("2026-05-01T17:00:00Z", "Old Name"));
    assert_eq!(document.display_name(), Some("New Name"));
    let stored = serde_json::Value::Object(document.to_stored());
    let mut again = SourceDocument::from_stored(key(), stored).unwrap();
    assert_eq!(again.display_name(), Some("New Name"), "also after the next read");
    again.join(with_value("2026-05-01T19:00:00Z", "Newest Name"));
    assert_eq!(again.display_name(), Some("Newest Name"));
}
