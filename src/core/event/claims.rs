//! Interpretation of events without our evidence: their source, their time, and which of their claims count as evidence.

use std::collections::BTreeMap;

use serde_json::Value;

use super::EventKind;
use super::dead_letter::Unprocessable;
use super::fields::{field, id_text, storable_key, text};
use crate::core::code::Code;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Transport};
use crate::core::source::{InvalidSourceKey, PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// Tolerated lead of another program's clock (ms). A later time would outrank every correct one until it has passed.
const MAX_AHEAD: i64 = 10 * 60 * 1000;

/// Determines the source of an event, preferring the fields in which BitBrat's connectors never put another id (of a stream or
/// of the bot).
pub(super) fn source(event: &Value) -> Result<SourceKey, Unprocessable> {
    let platform_paths: [&[&str]; 5] = [
        &["payload", "platform"],
        &["identity", "external", "platform"],
        &["payload", "source"],
        &["externalEvent", "source"],
        &["ingress", "connector"],
    ];
    let platform: PlatformName = platform_paths
        .iter()
        .filter_map(|path| text(event, path))
        .find_map(|claimed| {
            claimed
                .split([':', '.'])
                .next()?
                .to_ascii_lowercase()
                .parse()
                .ok()
        })
        .ok_or_else(|| Unprocessable::new(Code::SourcePlatform, "it names no platform that has sources"))?;
    let id_paths: [&[&str]; 4] = [
        &["payload", "broadcasterId"],
        &["externalEvent", "metadata", "broadcasterId"],
        &["payload", "id"],
        &["identity", "external", "id"],
    ];
    let after_colon = || Some(text(event, &["payload", "source"])?.split_once(':')?.1.to_owned());
    let id = id_paths
        .iter()
        .find_map(|path| id_text(field(event, path)?))
        .or_else(after_colon)
        .ok_or_else(|| Unprocessable::new(Code::SourceId, "it names no source"))?;
    SourceKey::new(platform, &id)
        .map_err(|error: InvalidSourceKey| Unprocessable::new(Code::SourceId, error.to_string()))
}

/// The event's own time; the time of receipt only if the event contains none.
pub(super) fn time(kind: EventKind, event: &Value, received: Timestamp) -> Result<Timestamp, Unprocessable> {
    let paths: &[&[&str]] = match kind {
        EventKind::SourceStatus => &[&["payload", "metadata", "observedAt"], &["ingress", "ingressAt"]],
        EventKind::StreamOnline => &[
            &["externalEvent", "createdAt"],
            &["payload", "startedAt"],
            &["ingress", "ingressAt"],
        ],
        EventKind::StreamOffline => &[
            &["externalEvent", "createdAt"],
            &["payload", "endedAt"],
            &["ingress", "ingressAt"],
        ],
    };
    let claimed = paths
        .iter()
        .find_map(|path| text(event, path)?.parse::<Timestamp>().ok()?.known());
    let at = claimed.unwrap_or(received);
    if at.millis_since(received) > MAX_AHEAD {
        return Err(Unprocessable::new(
            Code::TimeFuture,
            format!("its time {at} lies in the future"),
        ));
    }
    Ok(at)
}

/// Returns the facts that an event proves about `source`; `foreign` marks an event of another program.
pub(super) fn facts(
    kind: EventKind,
    source: &SourceKey,
    event: &Value,
    foreign: bool,
) -> Result<Vec<Fact>, Unprocessable> {
    match kind {
        EventKind::SourceStatus => Ok(status(source, event, foreign)),
        EventKind::StreamOnline | EventKind::StreamOffline => stream(kind, source, event),
    }
}

/// Facts of a status event without evidence. Of other programs' events, claims about connection and authorization are ignored:
/// their connectors report CONNECTED while disabled, and VALID by default.
fn status(source: &SourceKey, event: &Value, foreign: bool) -> Vec<Fact> {
    let Some(payload) = body(event) else {
        return Vec::new();
    };
    let error = payload.get("lastError").and_then(|error| {
        let message = text(error, &["message"])?;
        Some(match text(error, &["code"]) {
            Some(code) => ErrorInfo::foreign(code, message),
            None => ErrorInfo::new(Code::Unspecified, message),
        })
    });
    let mut facts = profile(event);
    if foreign {
        facts.extend(error.map(|error| Fact::Problem { error }));
        return facts;
    }
    let state = match (text(payload, &["status"]), error) {
        (Some("CONNECTED"), _) => Some(LinkState::Up),
        (Some("DISCONNECTED"), Some(error)) => Some(LinkState::Down { error }),
        (Some("DISCONNECTED"), None) => Some(LinkState::Closed),
        (Some("ERROR"), error) => Some(LinkState::Refused {
            error: error.unwrap_or_else(|| ErrorInfo::new(Code::Unspecified, "no reason was given")),
        }),
        _ => None,
    };
    facts.extend(state.map(|state| Fact::Connection {
        transport: Transport::Api,
        state,
    }));
    let result = match text(payload, &["authStatus"]) {
        Some("VALID") => Some(AuthResult::Valid),
        Some("EXPIRED") => Some(AuthResult::Expired),
        Some("REVOKED") => Some(AuthResult::Revoked),
        _ => None,
    };
    facts.extend(result.map(|result| Fact::Auth {
        identity: Identity::named(format!("{}/bot", source.platform())),
        check: AuthCheck::of(result).into(),
    }));
    let latency = field(payload, &["metadata", "latencyMs"]).and_then(Value::as_u64);
    facts.extend(latency.map(|millis| Fact::Latency { millis }));
    facts
}

fn stream(kind: EventKind, source: &SourceKey, event: &Value) -> Result<Vec<Fact>, Unprocessable> {
    let live = kind == EventKind::StreamOnline;
    let stream_id = stream_id(live, source, event)?;
    let started_at = ["payload", "externalEvent.metadata"]
        .into_iter()
        .find_map(|part| {
            let path: Vec<_> = part.split('.').chain(["startedAt"]).collect();
            text(event, &path)?.parse().ok()
        });
    let viewers = body(event)
        .and_then(|payload| payload.get("viewer_count"))
        .and_then(Value::as_u64)
        .filter(|_| live);
    let mut facts = profile(event);
    facts.extend(viewers.map(|count| Fact::Viewers {
        count,
        stream_id: stream_id.clone(),
    }));
    facts.push(Fact::StreamPush {
        live,
        stream_id,
        started_at: started_at.filter(|_| live),
    });
    Ok(facts)
}

/// The stream's id. BitBrat's connectors put it where the source's id belongs (`metadata.id`); for the end of a stream they
/// have no id and generate one.
fn stream_id(live: bool, source: &SourceKey, event: &Value) -> Result<Option<String>, Unprocessable> {
    let paths: [&[&str]; 4] = [
        &["payload", "streamId"],
        &["externalEvent", "metadata", "streamId"],
        &["externalEvent", "metadata", "id"],
        &["externalEvent", "id"],
    ];
    let claimed = paths.into_iter().enumerate().find_map(|(n, path)| {
        let id = id_text(field(event, path)?)?;
        let id = id.strip_prefix("offline-").unwrap_or(&id).to_owned();
        let certain = n < 2 || (id.bytes().all(|byte| byte.is_ascii_digit()) && (live || n == 3));
        (certain && id != source.id()).then_some(id)
    });
    match claimed {
        Some(id) if !storable_key(&id) => Err(Unprocessable::new(
            Code::StreamId,
            "its stream id cannot be a stream's",
        )),
        claimed => Ok(claimed),
    }
}

/// The profile fields (name, login, title, …) that an event contains.
fn profile(event: &Value) -> Vec<Fact> {
    let first = |paths: &[&[&str]]| {
        let found = paths.iter().find_map(|path| text(event, path));
        found.map(|value| value.chars().take(300).collect::<String>())
    };
    let metadata = "metadata";
    let fields = [
        (
            "displayName",
            first(&[
                &["payload", "displayName"],
                &["payload", "broadcasterDisplayName"],
                &["externalEvent", metadata, "broadcasterDisplayName"],
            ]),
        ),
        (
            "login",
            first(&[
                &["payload", metadata, "login"],
                &["payload", "broadcasterLogin"],
                &["externalEvent", metadata, "broadcasterLogin"],
            ]),
        ),
        (
            "title",
            first(&[&["payload", "title"], &["externalEvent", metadata, "title"]]),
        ),
        ("category", first(&[&["payload", "gameName"]])),
    ];
    let fields: BTreeMap<_, _> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    if fields.is_empty() {
        Vec::new()
    } else {
        vec![Fact::Profile { fields }]
    }
}

/// The object that describes the fact: the payload, else the metadata of the external event.
fn body(event: &Value) -> Option<&Value> {
    let payload = event
        .get("payload")
        .filter(|payload| payload.as_object().is_some_and(|it| !it.is_empty()));
    payload.or_else(|| field(event, &["externalEvent", "metadata"]))
}
