//! Injected faults: which responses of a simulated platform fail, how, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Chance;

/// One kind of fault. A fault with neither status, body nor wire lets the real response through,
/// delayed or with additional headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Prefix of the affected paths; empty for all.
    pub path: String,
    /// The affected method; all when absent.
    pub method: Option<String>,
    /// Text that the raw query must contain; any query when absent.
    pub query: Option<String>,
    /// How many matching requests pass unaffected first.
    pub skip: u32,
    /// How many requests are affected; until cleared when absent.
    pub times: Option<u32>,
    /// Share of the matching requests that are affected, 0 to 1; all when absent.
    pub chance: Option<f64>,
    /// Real milliseconds to wait before anything else.
    pub delay_ms: u64,
    /// Status of the injected response; 200 when only a body is given.
    pub status: Option<u16>,
    /// Headers added to the response, such as `Retry-After`.
    pub headers: BTreeMap<String, String>,
    /// Body of the injected response, or change of the real one.
    pub body: Option<FaultBody>,
    /// Fault of the connection.
    pub wire: Option<WireFault>,
}

/// Body of an affected response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultBody {
    Json(Value),
    /// This plain text.
    Text(String),
    /// A proxy's HTML page.
    Html,
    Empty,
    /// Invalid bytes with the content type of JSON.
    Garbage,
    /// The real response, properly framed, but only the first half of its text.
    Truncated,
    /// The real response, cut off after half of its announced length.
    CutOff,
    /// This many bytes of a JSON document that never ends.
    Huge(u64),
}

/// Connection fault of an affected request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireFault {
    /// TCP RST before the request has any effect.
    Reset,
    /// The request has no effect and is never answered; the connection stays open.
    Hang,
    /// The whole connection stops traffic in both directions.
    HalfOpen,
    /// The request takes effect, then the connection is reset instead of answering.
    LostAfterCommit,
}

impl Fault {
    /// Creates a fault with an error response of `status` on every path.
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    pub fn body(body: FaultBody) -> Self {
        Self {
            body: Some(body),
            ..Self::default()
        }
    }

    /// Creates a fault of the connection.
    pub fn wire(wire: WireFault) -> Self {
        Self {
            wire: Some(wire),
            ..Self::default()
        }
    }

    /// Creates a fault that delays the response by `millis` real milliseconds.
    pub fn delay(millis: u64) -> Self {
        Self {
            delay_ms: millis,
            ..Self::default()
        }
    }

    /// Limits the fault to paths that start with `path`.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Limits the fault to requests by `method`.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Limits the fault to `times` requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets `skip` matching requests pass first.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the body of the injected response.
    #[must_use]
    pub fn with_body(mut self, body: FaultBody) -> Self {
        self.body = Some(body);
        self
    }

    fn concerns(&self, method: &str, path: &str, query: &str) -> bool {
        path.starts_with(&self.path)
            && self
                .method
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self
                .query
                .as_ref()
                .is_none_or(|wanted| query.contains(wanted.as_str()))
    }

    /// Returns the response to send instead of the real one, or `None` to use the real one.
    pub(super) fn replacement(&self) -> Option<Response> {
        let damages_the_truth = matches!(self.body, None | Some(FaultBody::Truncated | FaultBody::CutOff));
        if self.status.is_none() && damages_the_truth {
            return None;
        }
        let status = self
            .status
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::OK);
        let reason = status.canonical_reason().unwrap_or("Unknown");
        let as_json = |body: &Value| ("application/json; charset=utf-8", Body::from(body.to_string()));
        let (kind, body) = match &self.body {
            None | Some(FaultBody::Truncated | FaultBody::CutOff) => {
                as_json(&json!({"error": reason, "status": status.as_u16(), "message": reason}))
            }
            Some(FaultBody::Json(body)) => as_json(body),
            Some(FaultBody::Text(text)) => ("text/plain; charset=utf-8", Body::from(text.clone())),
            Some(FaultBody::Html) => ("text/html", Body::from(html_page(status.as_u16(), reason))),
            Some(FaultBody::Empty) => ("application/json", Body::empty()),
            Some(FaultBody::Garbage) => (
                "application/json",
                Body::from(&b"\x00\xff{\"data\":[}\xfe\xfd!!"[..]),
            ),
            Some(FaultBody::Huge(length)) => ("application/json", endless_json(*length)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Some(response)
    }

    /// Returns `response` with the additional headers and, if configured, half of its body missing.
    pub(super) async fn damage(&self, response: Response) -> Response {
        let (mut parts, mut body) = response.into_parts();
        if let Some(cut @ (FaultBody::Truncated | FaultBody::CutOff)) = &self.body {
            let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            let half = whole.slice(..whole.len() / 2);
            if *cut == FaultBody::CutOff {
                // The announced length stays that of the whole body, so the peer detects that the transfer ended early.
                parts
                    .headers
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
                let broken = stream::once(async {
                    // The server needs time to flush its buffer, or the peer would not even receive the head.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
                });
                body = Body::from_stream(stream::once(std::future::ready(Ok(half))).chain(broken));
            } else {
                parts.headers.remove(header::CONTENT_LENGTH);
                body = Body::from(half);
            }
        }
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                parts.headers.insert(name, value);
            }
        }
        Response::from_parts(parts, body)
    }
}

fn html_page(status: u16, reason: &str) -> String {
    format!(
        "<!DOCTYPE html><html><head><title>{status} {reason}</title></head><body><h1>{reason}</h1></body></html>"
    )
}

/// Streams the start of a JSON document and then whitespace, without ever holding it in memory.
fn endless_json(length: u64) -> Body {
    const PIECE: usize = 64 * 1024;
    let blanks = Bytes::from(vec![b' '; PIECE]);
    let start = Bytes::from_static(b"{\"data\":[");
    Body::from_stream(stream::unfold((length, Some(start)), move |(left, start)| {
        let piece = start.unwrap_or_else(|| blanks.clone());
        let take = usize::try_from(left).unwrap_or(PIECE).min(piece.len());
        let step = (take > 0).then(|| {
            let left = left - u64::try_from(take).expect("a piece is small");
            (Ok::<_, std::io::Error>(piece.slice(..take)), (left, None))
        });
        std::future::ready(step)
    }))
}

/// The active faults of one platform, tried in the order in which they were added.
#[derive(Default)]
pub struct Faults(Mutex<Plans>);

#[derive(Default)]
struct Plans {
    last_id: u64,
    plans: Vec<Plan>,
}

struct Plan {
    id: u64,
    fault: Fault,
    passed: u32,
    harmed: u32,
}

impl Plan {
    fn spent(&self) -> bool {
        self.fault.times.is_some_and(|times| self.harmed >= times)
    }
}

impl Faults {
    /// Adds a fault and returns its number.
    pub fn add(&self, fault: Fault) -> u64 {
        /// Finished faults that are still shown; a long run must not collect them forever.
        const REMEMBERED: usize = 100;
        let mut plans = self.0.lock();
        if plans.plans.len() >= REMEMBERED {
            plans.plans.retain(|plan| !plan.spent());
        }
        plans.last_id += 1;
        let id = plans.last_id;
        plans.plans.push(Plan {
            id,
            fault,
            passed: 0,
            harmed: 0,
        });
        id
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.0.lock().plans.clear();
    }

    /// Removes the fault numbered `id`; returns whether there was one.
    pub fn remove(&self, id: u64) -> bool {
        let mut plans = self.0.lock();
        let before = plans.plans.len();
        plans.plans.retain(|plan| plan.id != id);
        plans.plans.len() < before
    }

    /// Returns the fault that affects this request, if any, and counts it.
    pub(super) fn strike(&self, method: &str, path: &str, query: &str, chance: &Chance) -> Option<Fault> {
        for plan in &mut self.0.lock().plans {
            if plan.spent() || !plan.fault.concerns(method, path, query) {
                continue;
            }
            if plan.passed < plan.fault.skip {
                plan.passed += 1;
                continue;
            }
            if plan.fault.chance.is_some_and(|share| chance.fraction() >= share) {
                continue;
            }
            plan.harmed += 1;
            return Some(plan.fault.clone());
        }
        None
    }

    /// Returns the faults with the number of affected requests, as the controls show them.
    pub fn to_json(&self) -> Value {
        let plans = self.0.lock();
        let shown = plans.plans.iter().map(
            |plan| json!({"id": plan.id, "fault": plan.fault, "harmed": plan.harmed, "spent": plan.spent()}),
        );
        json!({"faults": shown.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(faults: &Faults, method: &str, path: &str) -> Option<u16> {
        faults
            .strike(method, path, "", &Chance::seeded(1))
            .and_then(|fault| fault.status)
    }

    #[test]
    fn a_fault_strikes_its_path_and_method_as_often_as_planned() {
        let faults = Faults::default();
        faults.add(
            Fault::status(503)
                .on("/helix/streams")
                .method("get")
                .times(2)
                .after(1),
        );
        assert_eq!(strikes(&faults, "GET", "/helix/users"), None);
        assert_eq!(strikes(&faults, "POST", "/helix/streams"), None);
        let seen: Vec<_> = (0..4)
            .map(|_| strikes(&faults, "GET", "/helix/streams"))
            .collect();
        assert_eq!(seen, [None, Some(503), Some(503), None]);
    }

    #[test]
    fn a_spent_fault_makes_way_for_the_next() {
        let faults = Faults::default();
        faults.add(Fault::status(500).times(1));
        let second = faults.add(Fault::status(429));
        assert_eq!(strikes(&faults, "GET", "/"), Some(500));
        assert_eq!(strikes(&faults, "GET", "/"), Some(429));
        assert!(faults.remove(second) && !faults.remove(second));
        assert_eq!(strikes(&faults, "GET", "/"), None);
    }

    #[test]
    fn a_fault_reads_from_the_documented_json() {
        let fault: Fault = serde_json::from_value(json!({
            "path": "/helix", "times": 3, "status": 429, "headers": {"Retry-After": "2"},
            "body": {"json": {"message": "slow"}},
        }))
        .unwrap();
        let built = Fault::status(429)
            .on("/helix")
            .times(3)
            .header("Retry-After", "2")
            .with_body(FaultBody::Json(json!({"message": "slow"})));
        assert_eq!(fault, built);
        assert!(serde_json::from_value::<Fault>(json!({"pth": "/helix"})).is_err());
    }
}
