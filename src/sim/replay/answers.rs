//! Answers requests by the recording.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{ConnectInfo, FromRequestParts as _, Request, State, WebSocketUpgrade};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::dates::Dates;
use super::script::{Account, PlatformScript, Recorded, is_grant};
use super::{Replayed, Report, sockets};
use crate::secrets::{self, MASK};
use crate::sim::kit::PlatformSim;
use crate::sim::tcp_faults::Wire;
use crate::traffic::format::{Answer, Body, Outcome};
use crate::traffic::redact::{self, Redactor, SOCKET_BASE};

/// The largest body of a request that is compared with recorded ones, in bytes.
const LARGEST_BODY: usize = 4 * 1024 * 1024;

/// Plays the recording of one platform.
pub(super) struct Player<W> {
    pub(super) sim: PlatformSim<W>,
    pub(super) script: Arc<PlatformScript>,
    pub(super) dates: Arc<Dates>,
    pub(super) speed: u32,
    /// Paths that are never answered by the recording.
    pub(super) own: &'static [&'static str],
    /// Reports requests that were not recorded.
    pub(super) report: Report,
    /// The client id in checks of tokens.
    pub(super) client_id: &'static str,
}

impl<W> Clone for Player<W> {
    fn clone(&self) -> Self {
        Self {
            sim: self.sim.clone(),
            script: Arc::clone(&self.script),
            dates: Arc::clone(&self.dates),
            speed: self.speed,
            own: self.own,
            report: Arc::clone(&self.report),
            client_id: self.client_id,
        }
    }
}

/// Answers what was recorded. New tokens, and what was not recorded, are left to the routes of the simulator.
pub(super) async fn by_record<W: Replayed>(
    State(player): State<Player<W>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
    next: Next,
) -> Response {
    player.dates.begin(player.sim.clock().wall());
    let (mut parts, body) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => sockets::play(player, upgrade, wire),
            Err(refused) => refused.into_response(),
        };
    }
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_form = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-www-form"));
    let token = text(header::AUTHORIZATION).and_then(|text| text.split_whitespace().next_back());
    // A token of the client's own stands for the bot's.
    let account = token.map(|token| {
        let issued = W::account(&player.sim, token);
        issued.or_else(|| Some(Account::User(player.script.bot()?.id.clone())))
    });
    let path = parts.uri.path();
    let key = (parts.method.as_str(), path, redact::query(parts.uri.query()));
    let sent = comparable(&body, is_form);
    let found = match player.own.contains(&path) {
        true => None,
        false => player.script.find(key, account.flatten().as_ref(), sent.as_ref()),
    };
    match found {
        Some(recorded) if !is_grant(&recorded.outcome) => player.answer(recorded, &wire).await,
        _ => next.run(Request::from_parts(parts, HttpBody::from(body))).await,
    }
}

/// Returns the form in which the body of a request is compared with recorded ones. What a replay has served needs no change.
fn comparable(body: &[u8], is_form: bool) -> Option<Body> {
    if is_form {
        return Some(Redactor::new(HashSet::new()).form(body));
    }
    serde_json::from_slice(body).ok().map(Body::Json)
}

/// Answers a request of which no answer was recorded: with an error that is no platform's own, so that a client concludes nothing
/// from it about a source.
pub(super) fn unrecorded(report: &Report, method: &Method, uri: &Uri) -> Response {
    let query = redact::query(uri.query());
    let mark = if query.is_empty() { "" } else { "?" };
    let request = secrets::quote(&format!("{method} {}{mark}{query}", uri.path()));
    let message = format!("no answer was recorded for {request}");
    report(&message);
    let body = json!({"error": "Not Found", "status": 404, "code": 0, "message": message});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

impl<W: Replayed> Player<W> {
    async fn answer(&self, recorded: &Recorded, wire: &Wire) -> Response {
        tokio::time::sleep(Duration::from_millis(recorded.took) / self.speed).await;
        match &recorded.outcome {
            Outcome::Answer(answer) => self.response(answer, recorded.at),
            Outcome::Failed(code) => {
                if code == "network.timeout" {
                    self.sim.host().stopping().cancelled().await;
                } else {
                    wire.reset();
                }
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }

    fn response(&self, answer: &Answer, at: u64) -> Response {
        let body = answer.body.as_ref().map(|body| self.served(body, at));
        let mut response = Response::new(HttpBody::from(body.unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in &answer.headers {
            let value = match value.parse::<f64>() {
                // An interval is shorter than any time since 1970.
                Ok(seconds) if name.ends_with("reset") && seconds > 1e9 => self.moved_seconds(value, at),
                _ => value.clone(),
            };
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// Moves a time in seconds, with as many decimals as it has.
    fn moved_seconds(&self, text: &str, at: u64) -> String {
        let decimals = text
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len().min(6));
        let moved = |seconds| self.dates.moved_seconds(seconds, at, self.sim.clock().wall());
        text.parse().map_or_else(
            |_| text.to_owned(),
            |seconds| format!("{:.decimals$}", moved(seconds)),
        )
    }

    /// Returns the text of a recorded body as it is served now.
    pub(super) fn served(&self, body: &Body, at: u64) -> String {
        super::text(body, |value| self.serve(value, "", at))
    }

    /// Moves the times in a value to the present, and leads the addresses of websockets here.
    fn serve(&self, value: &mut Value, name: &str, at: u64) {
        let now = self.sim.clock().wall();
        match value {
            Value::Object(fields) => fields
                .iter_mut()
                .for_each(|(name, value)| self.serve(value, name, at)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.serve(value, name, at)),
            Value::String(text) => {
                if name == "client_id" && text == MASK {
                    self.client_id.clone_into(text);
                } else if let Some(path) = text.strip_prefix(SOCKET_BASE) {
                    *text = format!("{}{path}", self.sim.ws());
                } else if let Some(moved) = self.dates.moved_text(text, at, now) {
                    *text = moved;
                }
            }
            Value::Number(number) if name == "exp" => {
                if let Some(seconds) = number.as_f64() {
                    #[expect(clippy::cast_possible_truncation, reason = "whole seconds of a time")]
                    let moved = self.dates.moved_seconds(seconds, at, now) as i64;
                    *value = moved.into();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
