use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::read::{Ignored, Origin, Reading, Side, SourceUpdate, read};
use super::*;
use crate::core::counters::Counters;
use crate::core::evidence::Knowledge;
use crate::core::join::Join;
use crate::core::laws;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Observation, Transport,
};
use crate::core::stream::StreamStatus;
use crate::core::transition::transitions;
use crate::core::verdict::Status;

fn key() -> SourceKey {
    "twitch:777001".parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A source to which one fact after the other is joined, with the resulting changes.
struct Story {
    document: SourceDocument,
    by: &'static str,
}

impl Story {
    fn of(by: &'static str) -> Self {
        let mut story = Self {
            document: SourceDocument::new(key()),
            by,
        };
        let name = |field: &str, value: &str| (field.to_owned(), value.to_owned());
        let fields = BTreeMap::from([name("displayName", "Streamer"), name("login", "streamer")]);
        story.observes("2026-11-20T09:00:00.000Z", Fact::Profile { fields });
        story
    }

    fn observes(&mut self, when: &str, fact: Fact) -> Vec<Event> {
        self.observes_late(when, when, fact)
    }

    fn observes_late(&mut self, when: &str, observed: &str, fact: Fact) -> Vec<Event> {
        let before = self.document.clone();
        self.document.join(Knowledge::from(&Observation::new(
            &key(),
            at(when),
            self.by,
            fact,
        )));
        let published = EventBuilder {
            before: &before,
            after: &self.document,
            by: self.by,
            observed_at: at(observed),
        };
        published.events(&transitions(&before.verdict, &self.document.verdict))
    }

    fn go_live(&mut self, when: &str) -> Vec<Event> {
        self.observes(
            when,
            Fact::StreamPush {
                live: true,
                stream_id: Some("40999888777".into()),
                started_at: Some(at("2026-11-20T10:00:00.000Z")),
            },
        )
    }

    fn ends(&mut self, when: &str) -> Vec<Event> {
        self.observes(
            when,
            Fact::StreamPush {
                live: false,
                stream_id: None,
                started_at: None,
            },
        )
    }

    fn seen(&mut self, when: &str) -> Vec<Event> {
        self.observes(
            when,
            Fact::StreamSeen {
                stream_id: "40999888777".into(),
                started_at: Some(at("2026-11-20T10:00:00.000Z")),
            },
        )
    }
}

/// The body as other programs use it: without our additional fields, and without the ids, which other tests check.
fn as_others_see_it(event: &Event) -> Value {
    let mut body: Value = serde_json::from_str(&event.body).unwrap();
    let payload = body["payload"].as_object_mut().unwrap();
    for field in ["schemaVersion", "initial", "evidence", "counters", "transitions"] {
        payload.remove(field);
    }
    assert_eq!(body["correlationId"], event.id.as_str());
    body["correlationId"] = "an id".into();
    if let Some(trace) = body.get("traceId") {
        assert_eq!(trace.as_str().unwrap().len(), 32);
        body["traceId"] = "a trace".into();
    }
    body
}

fn one(mut events: Vec<Event>) -> Event {
    assert_eq!(events.len(), 1, "{events:#?}");
    events.remove(0)
}

#[test]
fn a_status_event_is_exactly_what_the_platform_documents() {
    let when = "2026-11-20T09:59:30.000Z";
    let mut story = Story::of("twitch.helix");
    story.observes(when, Fact::Latency { millis: 84 });
    let check = AuthCheck::of(AuthResult::Valid);
    story.observes(
        when,
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: check.into(),
        },
    );
    let totals = Counters {
        messages_in: 120,
        messages_out: 33,
        errors: 1,
        reconnects: 2,
        at: None,
    };
    story.observes(
        when,
        Fact::Counters {
            writer: "one".into(),
            totals,
        },
    );
    let event = one(story.observes(
        when,
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
    ));
    assert_eq!(
        as_others_see_it(&event),
        json!({
            "v": "2", "type": "system.source.status", "correlationId": "an id", "traceId": "a trace",
            "ingress": {"ingressAt": when, "source": "ingress.bitbrat.probe", "connector": "system"},
            "identity": {"external": {"id": "777001", "platform": "twitch", "displayName": "Streamer"}},
            "egress": {"destination": "", "connector": "system"},
            "payload": {
                "source": "twitch:777001", "platform": "twitch", "id": "777001",
                "displayName": "Streamer", "status": "CONNECTED", "authStatus": "VALID",
                "metrics": {"messagesIn": 120, "messagesOut": 33, "errors": 1, "reconnects": 2},
                "metadata": {"login": "streamer", "observedAt": when, "latencyMs": 84}
            },
            "qos": {"persistenceTtlSec": 86400},
            "routing": {"stage": "meta", "slip": [], "history": []}
        })
    );
    assert_eq!(event.attributes["type"], "system.source.status");
    assert_eq!(event.attributes["correlationId"], event.id);
    assert_eq!(event.attributes["idempotencyKey"], event.id);
    assert_eq!(event.attributes["source"], "ingress.bitbrat.probe");

    let error = ErrorInfo::foreign("HTTP_401", "token rejected");
    let refused = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Refused { error },
    };
    let body = as_others_see_it(&one(story.observes("2026-11-20T10:09:30.000Z", refused)));
    assert_eq!(body["payload"]["status"], "ERROR");
    assert_eq!(
        body["payload"]["lastError"],
        json!({"code": "HTTP_401", "message": "token rejected", "at": "2026-11-20T10:09:30.000Z"})
    );
}

/// A stream event as the platform documents it.
fn documented(
    kind: &str,
    id: &str,
    [created_at, received_at]: [&str; 2],
    metadata: &Value,
    payload: &Value,
) -> Value {
    json!({
        "v": "2", "type": format!("system.{kind}"), "correlationId": "an id",
        "ingress": {"ingressAt": received_at, "source": "ingress.twitch.eventsub", "connector": "twitch", "channel": "#streamer"},
        "identity": {"external": {"id": "777001", "platform": "twitch", "displayName": "Streamer", "metadata": {"login": "streamer"}}},
        "egress": {"destination": "", "connector": "twitch", "channel": "#streamer"},
        "externalEvent": {
            "id": id, "source": "twitch.eventsub", "kind": kind, "version": "1",
            "createdAt": created_at, "metadata": metadata
        },
        "payload": payload,
        "routing": {"stage": "meta", "slip": [], "history": []}
    })
}

#[test]
fn stream_events_are_exactly_what_the_platform_documents() {
    let mut story = Story::of("twitch.eventsub");
    let fields = BTreeMap::from([
        ("title".to_owned(), "Chess night".to_owned()),
        ("category".to_owned(), "Chess".to_owned()),
    ]);
    story.observes("2026-11-20T09:59:59.000Z", Fact::Profile { fields });
    let viewers = Fact::Viewers {
        count: 12,
        stream_id: Some("40999888777".into()),
    };
    story.observes("2026-11-20T09:59:59.000Z", viewers);
    let push = |live| Fact::StreamPush {
        live,
        stream_id: live.then(|| "40999888777".to_owned()),
        started_at: live.then(|| at("2026-11-20T10:00:00.000Z")),
    };
    let online = one(story.observes_late("2026-11-20T10:00:00.000Z", "2026-11-20T10:00:02.100Z", push(true)));
    assert_eq!(
        as_others_see_it(&online),
        documented(
            "stream.online",
            "40999888777",
            ["2026-11-20T10:00:00.000Z", "2026-11-20T10:00:02.100Z"],
            &json!({
                "broadcasterId": "777001", "broadcasterLogin": "streamer", "broadcasterDisplayName": "Streamer",
                "startedAt": "2026-11-20T10:00:00.000Z"
            }),
            &json!({
                "platform": "twitch", "id": "777001", "broadcasterId": "777001",
                "broadcasterLogin": "streamer", "broadcasterDisplayName": "Streamer",
                "streamId": "40999888777", "type": "live", "title": "Chess night", "gameName": "Chess",
                "startedAt": "2026-11-20T10:00:00.000Z", "endedAt": null, "viewer_count": 12
            })
        )
    );
    assert_eq!(online.attributes["channel"], "#streamer");

    let offline = one(story.observes_late(
        "2026-11-20T12:30:00.000Z",
        "2026-11-20T12:30:01.400Z",
        push(false),
    ));
    assert_eq!(
        as_others_see_it(&offline),
        documented(
            "stream.offline",
            "offline-40999888777",
            ["2026-11-20T12:30:00.000Z", "2026-11-20T12:30:01.400Z"],
            &json!({"broadcasterId": "777001", "broadcasterLogin": "streamer", "broadcasterDisplayName": "Streamer"}),
            &json!({
                "platform": "twitch", "id": "777001", "broadcasterId": "777001", "streamId": "40999888777",
                "type": null, "title": null, "gameName": null, "startedAt": null,
                "endedAt": "2026-11-20T12:30:00.000Z", "viewer_count": 0
            })
        )
    );
}

#[test]
fn kick_has_no_connector_of_its_own() {
    let key: SourceKey = "kick:42".parse().unwrap();
    let before = SourceDocument::new(key.clone());
    let mut after = before.clone();
    let start = Fact::StreamPush {
        live: true,
        stream_id: None,
        started_at: Some(at("2026-11-20T10:00:00.000Z")),
    };
    after.join(Knowledge::from(&Observation::new(
        &key,
        at("2026-11-20T10:00:01.000Z"),
        "kick.webhook",
        start,
    )));
    let published = EventBuilder {
        before: &before,
        after: &after,
        by: "kick.webhook",
        observed_at: at("2026-11-20T10:00:01.000Z"),
    };
    let body = as_others_see_it(&one(
        published.events(&transitions(&before.verdict, &after.verdict))
    ));
    assert_eq!(body["ingress"]["connector"], "system");
    assert_eq!(body["ingress"].get("channel"), None);
    assert_eq!(body["externalEvent"]["source"], "kick.webhook");
    assert_eq!(body["payload"]["platform"], "kick");
}

#[test]
fn a_push_and_a_poll_of_one_broadcast_come_to_the_same_ids() {
    let mut pushed = Story::of("twitch.eventsub");
    let mut polled = Story::of("twitch.helix");
    let start = one(pushed.go_live("2026-11-20T10:00:01.000Z"));
    let found = one(polled.seen("2026-11-20T10:02:30.000Z"));
    assert_eq!(start.id, found.id);
    let end = one(pushed.ends("2026-11-20T12:00:00.000Z"));
    polled.seen("2026-11-20T12:04:00.000Z");
    assert!(
        polled
            .observes("2026-11-20T12:05:00.000Z", Fact::StreamAbsent)
            .is_empty()
    );
    let missed = one(polled.observes("2026-11-20T12:06:00.000Z", Fact::StreamAbsent));
    assert_eq!(end.id, missed.id);
}

#[test]
fn repeated_stream_starts_and_ends_get_distinct_event_ids() {
    let mut story = Story::of("twitch.eventsub");
    let ids = [
        one(story.go_live("2026-11-20T10:00:01.000Z")).id,
        one(story.ends("2026-11-20T10:20:00.000Z")).id,
        one(story.go_live("2026-11-20T10:21:00.000Z")).id,
        one(story.ends("2026-11-20T10:30:00.000Z")).id,
        one(story.go_live("2026-11-20T10:31:00.000Z")).id,
        one(story.ends("2026-11-20T12:00:00.000Z")).id,
    ];
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:#?}");

    // The same sequence from polls only, which record no ends.
    let mut story = Story::of("twitch.helix");
    let mut ids = vec![one(story.seen("2026-11-20T10:00:30.000Z")).id];
    for hour in ["11", "12", "13"] {
        story.seen(&format!("2026-11-20T{hour}:00:00.000Z"));
        assert!(
            story
                .observes(&format!("2026-11-20T{hour}:00:40.000Z"), Fact::StreamAbsent)
                .is_empty()
        );
        ids.push(one(story.observes(&format!("2026-11-20T{hour}:01:45.000Z"), Fact::StreamAbsent)).id);
        ids.push(one(story.seen(&format!("2026-11-20T{hour}:02:30.000Z"))).id);
    }
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:#?}");
}

#[test]
fn simultaneous_status_and_auth_changes_are_one_event() {
    let mut story = Story::of("twitch.helix");
    let check = AuthCheck::of(AuthResult::Revoked);
    let event = one(story.observes(
        "2026-11-20T10:00:00.000Z",
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: check.into(),
        },
    ));
    let evidence_update = evidence_update(&event.body);
    assert_eq!(evidence_update.transitions.len(), 2);
}

fn received() -> Timestamp {
    at("2026-11-20T13:00:00.000Z")
}

fn reading(body: &str) -> Reading {
    read(Side::Ingress, &BTreeMap::new(), body.as_bytes(), received())
}

fn evidence_update(body: &str) -> SourceUpdate {
    match reading(body) {
        Reading::SourceUpdate(evidence_update) => *evidence_update,
        other => panic!("{body} is {other:?}"),
    }
}

fn document_from(body: &Value) -> SourceDocument {
    let evidence_update = evidence_update(&body.to_string());
    SourceDocument::from_knowledge(evidence_update.source, evidence_update.knowledge)
}

#[test]
fn connector_stream_event_is_parsed_despite_mixed_up_ids() {
    let connector = |kind: &str, external: Value| {
        json!({
            "v": "2", "type": kind, "correlationId": "7c1f0a52-0000-4000-8000-000000000001",
            "ingress": {"ingressAt": "2026-11-20T10:00:03.000Z", "source": "ingress.twitch.eventsub", "connector": "twitch", "channel": "#streamer"},
            "identity": {"external": {"id": "777001", "platform": "twitch", "displayName": "Streamer", "metadata": {"login": "streamer"}}},
            "egress": {"destination": "internal.egress.v1.x", "connector": "twitch"},
            "externalEvent": external, "routing": {"stage": "initial", "slip": [], "history": []}
        })
    };
    let online = connector(
        "system.stream.online",
        json!({
            "id": "40999888777", "source": "twitch.eventsub", "kind": "stream.online", "version": "1", "createdAt": "2026-11-20T10:00:00.000Z",
            "metadata": {"id": "40999888777", "broadcasterId": "777001", "broadcasterLogin": "streamer", "title": "Chess night", "startedAt": "2026-11-20T10:00:00.000Z"}
        }),
    );
    let mut document = document_from(&online);
    assert_eq!(document.key, key());
    assert_eq!(document.verdict.stream.value, StreamStatus::Online);
    assert_eq!(
        document.verdict.broadcast.as_ref().unwrap().stream_id,
        "40999888777"
    );
    assert_eq!(document.record().metadata["title"], "Chess night");
    assert_eq!(document.record().auth_status, None);
    let offline = connector(
        "system.stream.offline",
        json!({
            "id": "offline-7c1f0a52-0000-4000-8000-000000000002", "source": "twitch.eventsub", "kind": "stream.offline", "version": "1",
            "createdAt": "2026-11-20T12:00:00.000Z", "metadata": {"broadcasterId": "777001"}
        }),
    );
    document.join(evidence_update(&offline.to_string()).knowledge);
    assert_eq!(document.verdict.stream.value, StreamStatus::Offline);
    // Late and duplicated: the older start is not restored.
    document.join(evidence_update(&online.to_string()).knowledge);
    assert_eq!(document.verdict.stream.value, StreamStatus::Offline);
}

#[test]
fn own_event_without_evidence_is_trusted_but_connector_is_not() {
    let status = |source: &str| {
        json!({
            "type": "system.source.status", "correlationId": "x", "ingress": {"ingressAt": "2026-11-20T09:59:30.000Z", "source": source},
            "payload": {
                "platform": "twitch", "id": 777_001, "status": "CONNECTED", "authStatus": "VALID",
                "displayName": "Streamer", "metadata": {"observedAt": "2026-11-20T09:59:30.000Z"}
            }
        })
    };
    let ours = evidence_update(&status("ingress.bitbrat.probe").to_string());
    assert_eq!(ours.origin, Origin::OursWithoutEvidence);
    let ours = SourceDocument::from_knowledge(ours.source, ours.knowledge).record();
    assert_eq!(
        (ours.status, ours.auth_status),
        (Status::Connected, Some(AuthResult::Valid))
    );
    let theirs = document_from(&status("ingress.twitch")).record();
    assert_eq!((theirs.status, theirs.auth_status), (Status::Disconnected, None));
    assert_eq!(theirs.display_name.as_deref(), Some("Streamer"));
}

#[test]
fn malformed_messages_are_parsed_ignored_or_dead_lettered() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let huge = format!(
        "{{\"type\":\"system.source.status\",\"x\":\"{}\"}}",
        "x".repeat(2 * 1024 * 1024)
    );
    let dead: &[(&str, &str)] = &[
        ("not json", "json.invalid"),
        ("null", "json.not_an_object"),
        ("[1]", "json.not_an_object"),
        (&deep, "json.invalid"),
        (&huge, "body.too_large"),
        (r#"{"type": 5}"#, "type.not_text"),
        (r#"{"type": "system.source.status"}"#, "source.platform"),
        (
            r#"{"type": "system.source.status", "payload": {"platform": "twitch"}}"#,
            "source.id",
        ),
        (
            r#"{"type": "system.source.status", "payload": {"platform": "twitch", "id": "a/b"}}"#,
            "source.id",
        ),
        (
            r#"{"type": "system.source.status", "payload": {"source": "twitch:bitbrat_bot"}}"#,
            "source.id",
        ),
        (
            r#"{"type": "system.stream.online", "payload": {"platform": "twitch", "id": "1", "streamId": "__x__"}}"#,
            "stream.id",
        ),
        (
            r#"{"type": "system.stream.online", "payload": {"platform": "twitch", "id": "1", "streamId": "2", "startedAt": "2027-01-01T00:00:00Z"}}"#,
            "time.future",
        ),
        (
            r#"{"type": "system.source.status", "payload": {"platform": "twitch", "id": "1", "evidence": {"profile": {"__x__": {"at": "2026-01-01T00:00:00Z", "value": "1"}}}}}"#,
            "evidence.unreadable",
        ),
        (
            r#"{"type": "system.source.status", "payload": {"platform": "twitch", "id": "1", "evidence": {"auth": [[1]]}}}"#,
            "evidence.unreadable",
        ),
        (
            r#"{"type": "system.source.status", "payload": {"platform": "twitch", "id": "1", "evidence": {"latency": "fast"}}}"#,
            "evidence.unreadable",
        ),
    ];
    for (body, code) in dead {
        let shown: String = body.chars().take(120).collect();
        match reading(body) {
            Reading::Unprocessable(dead) => assert_eq!(dead.code.text(), *code, "{shown}"),
            other => panic!("{shown} is {other:?}"),
        }
    }
    let ignored = [
        ("{}", Ignored::NotAboutSources),
        (
            r#"{"type": "connector.status.changed", "connector": "twitch"}"#,
            Ignored::NotAboutSources,
        ),
        (r#"{"type": "llm.request.v1"}"#, Ignored::NotAboutSources),
        (
            r#"{"type": "chat.progress.v1", "ingress": {"connector": "twitch", "channel": "a"}}"#,
            Ignored::NotAboutSources,
        ),
        (r#"{"type": "system.timer.tick"}"#, Ignored::OtherSystemEvent),
        (
            r#"{"type": "system.stream.online", "ingress": {"source": "api-gateway"}, "payload": {"platform": "twitch", "id": "1"}}"#,
            Ignored::Forged,
        ),
        (
            r#"{"type": "system.source.status", "payload": {"source": "twitch:55", "status": "CONNECTING"}}"#,
            Ignored::NoEvidence,
        ),
        (
            r#"{"type": "chat.message.v1", "ingress": {"connector": "slack"}}"#,
            Ignored::ChatOfNoSource,
        ),
    ];
    for (body, why) in ignored {
        assert_eq!(reading(body), Reading::Ignored(why), "{body}");
    }
    let egress =
        r#"{"type": "system.stream.online", "payload": {"platform": "twitch", "id": "1", "streamId": "2"}}"#;
    assert_eq!(
        read(Side::Egress, &BTreeMap::new(), egress.as_bytes(), received()),
        Reading::Ignored(Ignored::SystemOnEgress)
    );
}

proptest! {
    #[test]
    fn events_merge_in_any_order_and_despite_duplicates(
        (history, shuffle) in (vec(laws::observation(), 1..40), any::<u64>())
    ) {
        let mut published = SourceDocument::new(laws::key());
        let mut events = Vec::new();
        for observation in &history {
            let before = published.clone();
            published.join(Knowledge::from(observation));
            let this = EventBuilder { before: &before, after: &published, by: &observation.by, observed_at: observation.at };
            let changes = transitions(&before.verdict, &published.verdict);
            let now = this.events(&changes);
            // Evidence that changes no verdict is published with the next heartbeat, which contains everything.
            events.push(if now.is_empty() { vec![heartbeat(&published, observation.at)] } else { now });
        }
        let mut events: Vec<_> = events.into_iter().flatten().collect();
        let repeat: Vec<_> = events.iter().step_by(3).cloned().collect();
        events.extend(repeat);
        fastrand::Rng::with_seed(shuffle).shuffle(&mut events);
        let mut rebuilt = SourceDocument::new(laws::key());
        for event in &events {
            let evidence_update = evidence_update(&event.body);
            prop_assert_eq!(&evidence_update.source, &event.source);
            prop_assert_eq!(evidence_update.origin, Origin::Ours);
            rebuilt.join(evidence_update.knowledge);
        }
        prop_assert_eq!(rebuilt.to_stored(), published.to_stored());
    }

    #[test]
    fn no_body_makes_the_reader_panic(body in vec(any::<u8>(), 0..200)) {
        let _ = read(Side::Ingress, &BTreeMap::new(), &body, received());
    }
}

#[test]
fn the_schema_accepts_what_we_send() {
    let schema = wire::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut story = Story::of("twitch.eventsub");
    let mut events = story.go_live("2026-11-20T10:00:01.000Z");
    events.extend(story.ends("2026-11-20T12:00:00.000Z"));
    events.push(heartbeat(&story.document, received()));
    for event in events {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let problems: Vec<_> = validator
            .iter_errors(&body)
            .map(|error| error.to_string())
            .collect();
        assert!(problems.is_empty(), "{problems:#?} in {body:#}");
    }
}

#[test]
fn joining_twice_what_came_from_the_bus_is_joining_once() {
    let mut story = Story::of("twitch.eventsub");
    let event = one(story.go_live("2026-11-20T10:00:01.000Z"));
    let mut known = Knowledge::default();
    known.join(evidence_update(&event.body).knowledge);
    let once = known.clone();
    known.join(evidence_update(&event.body).knowledge);
    assert_eq!(known, once);
}

#[test]
fn lone_surrogate_is_not_a_dead_letter() {
    let received = at("2026-11-20T10:00:00.000Z");
    for body in [
        &br#"{"v":"1","type":"chat.message.v1","message":{"text":"cut \ud83d"}}"#[..],
        b"{\"v\":\"1\",\"type\":\"chat.message.v1\",\"message\":{\"text\":\"\xff\"}}",
    ] {
        let reading = read(Side::Ingress, &BTreeMap::new(), body, received);
        assert!(!matches!(reading, Reading::Unprocessable(_)), "{reading:?}");
    }
}

#[test]
fn evidence_whose_integers_come_back_as_doubles_is_read() {
    let body = serde_json::json!({
        "v": "1", "type": "system.source.status",
        "payload": {"platform": "twitch", "id": "777001", "schemaVersion": 1.0,
            "evidence": {"latency": {"at": "2026-11-20T09:59:30.000Z", "value": 84.0}},
            "counters": {"a": {"messagesIn": 3.0}}},
    });
    let received = at("2026-11-20T10:00:00.000Z");
    let reading = read(
        Side::Ingress,
        &BTreeMap::new(),
        body.to_string().as_bytes(),
        received,
    );
    let Reading::SourceUpdate(evidence_update) = reading else {
        panic!("{reading:?}");
    };
    assert_eq!(evidence_update.knowledge.counters["a"].messages_in, 3);
    assert_eq!(evidence_update.knowledge.evidence.latency.unwrap().value, 84);
}

#[test]
fn event_contains_when_it_was_made() {
    let document = SourceDocument::new("twitch:1".parse().unwrap());
    let now = Timestamp::from_millis(1_780_000_000_123);
    let mut event = heartbeat(&document, now);
    assert_eq!(event.made_at(), Some(now));
    event.body = r#"{"type": "foreign"}"#.to_owned();
    assert_eq!(event.made_at(), None);
}
