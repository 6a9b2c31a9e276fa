//! The tools for agents over HTTP: `/mcp` as the protocol is today, without sessions, and the older `GET /sse` with
//! `POST /message`, the only one that the platform's tool gateway uses.
//!
//! Both are inside the access control of the web server. A session of the older transport lasts as long as its event stream: the
//! stream owns it, and what serves it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream, StreamExt as _};
use parking_lot::Mutex;
use rmcp::ServiceExt as _;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, PollSender};
use uuid::Uuid;

use super::Site;
use super::problem::Problem;
use crate::core::code::Code;
use crate::lifecycle::Stop;
use crate::mcp::Tools;
use crate::mcp::messages::{self, Received};

/// Maximum size of a message, in bytes. Calls of these tools have some hundred.
const BODY: usize = 64 * 1024;
/// Event streams of the older transport at a time; the gateway needs one.
const SESSIONS: usize = 8;
/// Messages of a session that wait to be read, in each direction.
const WAITING: usize = 16;
/// How long a client may take to begin the protocol once its stream is open.
const BEGIN: Duration = Duration::from_secs(10);

/// What serves agents.
#[derive(Clone)]
pub(super) struct Agents {
    tools: Tools,
    sessions: Sessions,
}

impl Agents {
    pub(super) fn new(tools: Tools) -> Self {
        Self {
            tools,
            sessions: Sessions::default(),
        }
    }
}

/// The open sessions of the older transport, by id.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<BTreeMap<String, mpsc::Sender<ClientJsonRpcMessage>>>>);

/// An open session. It is closed when this is dropped.
struct Session {
    id: String,
    among: Sessions,
    /// The SDK waits for seconds before it cancels the calls of a client that is gone.
    gone: CancellationToken,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.among.0.lock().remove(&self.id);
        self.gone.cancel();
    }
}

impl Sessions {
    /// Opens a session, if there may be another one.
    fn open(&self) -> Result<(Session, mpsc::Receiver<ClientJsonRpcMessage>), Problem> {
        let mut open = self.0.lock();
        if open.len() >= SESSIONS {
            return Err(Problem::new(503, Code::ApiTooManyStreams).retry_after(30));
        }
        // It cannot be guessed: a client that has it may send messages to the session.
        let id = Uuid::new_v4().simple().to_string();
        let (sender, messages) = mpsc::channel(WAITING);
        open.insert(id.clone(), sender);
        let session = Session {
            id,
            among: self.clone(),
            gone: CancellationToken::new(),
        };
        Ok((session, messages))
    }

    fn get(&self, id: &str) -> Option<mpsc::Sender<ClientJsonRpcMessage>> {
        self.0.lock().get(id).cloned()
    }
}

pub(super) fn router(site: &Site) -> Router<Site> {
    let tools = site.agents.tools.clone();
    // Hosts are checked by the guard of the web server, for every page alike.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .enforce_origin_validation()
        .with_max_request_body_bytes(BODY);
    let service = StreamableHttpService::new(
        move || Ok(tools.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new()
        .nest_service("/mcp", service)
        .layer(from_fn(readable))
        .route("/sse", get(connect).fallback(async || not_allowed("GET,HEAD")))
        .route("/message", post(message).fallback(async || not_allowed("POST")))
        .layer(DefaultBodyLimit::max(BODY))
}

/// Answers what is no JSON with the error that JSON-RPC has for it; the SDK answers with a sentence.
async fn readable(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY).await else {
        let detail = format!("A message has at most {BODY} bytes.");
        return Problem::new(413, Code::ApiInvalidMessage)
            .detail(detail)
            .into_response();
    };
    if let Received::Refused(response) = messages::read(&body) {
        return super::answer(400, response);
    }
    next.run(Request::from_parts(head, body.into())).await
}

fn not_allowed(allowed: &'static str) -> Response {
    let detail = format!("This path accepts {allowed}.");
    let mut refused = Problem::new(405, Code::ApiMethodNotAllowed)
        .detail(detail)
        .into_response();
    refused
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

/// Opens a session: the first event says where its messages are to be sent.
async fn connect(State(site): State<Site>) -> Result<Response, Problem> {
    let (session, messages) = site.agents.sessions.open()?;
    let endpoint = Event::default()
        .event("endpoint")
        .data(format!("/message?sessionId={}", session.id));
    let replies = replies(&site.agents.tools, session, messages, site.stop.clone());
    let events = stream::once(std::future::ready(endpoint)).chain(replies);
    let events = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default());
    let mut response = events.into_response();
    let unbuffered = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", unbuffered);
    Ok(response)
}

/// Serves the tools to a session for as long as the stream is read.
fn replies(
    tools: &Tools,
    session: Session,
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    stop: Stop,
) -> impl Stream<Item = Event> + Send + use<> {
    let (sender, mut replies) = mpsc::channel::<ServerJsonRpcMessage>(WAITING);
    let incoming = stream::unfold(messages, |mut messages| async move {
        let message = messages.recv().await?;
        Some((message, messages))
    });
    let transport = (PollSender::new(sender), Box::pin(incoming));
    let tools = tools.for_client(session.gone.clone());
    let served = async move {
        if let Ok(Ok(running)) = tokio::time::timeout(BEGIN, tools.serve(transport)).await {
            let _ = running.waiting().await;
        }
    };
    let ended = async move {
        tokio::select! {
            () = served => {}
            () = stop.requested() => {}
        }
        // Dropped with the stream, however it ends.
        drop(session);
    };
    let replies = stream::poll_fn(move |cx| replies.poll_recv(cx));
    let replies =
        replies.filter_map(|reply| async move { Event::default().event("message").json_data(&reply).ok() });
    replies.take_until(ended)
}

#[derive(Debug, Deserialize)]
struct Addressed {
    #[serde(rename = "sessionId")]
    session: String,
}

/// Takes a message for a session, whose stream has the reply.
async fn message(
    State(site): State<Site>,
    addressed: Result<Query<Addressed>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| {
        let detail = format!("A message has at most {BODY} bytes.");
        Problem::new(rejection.status().as_u16(), Code::ApiInvalidMessage).detail(detail)
    })?;
    let addressed = addressed.ok();
    let session = addressed.and_then(|Query(addressed)| site.agents.sessions.get(&addressed.session));
    let Some(session) = session else {
        let detail = "There is no such session: its event stream has ended. Open another one with GET /sse.";
        return Err(Problem::new(404, Code::ApiNotFound).detail(detail));
    };
    let message: ClientJsonRpcMessage =
        serde_json::from_slice(&body).map_err(|_| Problem::new(400, Code::ApiInvalidMessage))?;
    session
        .try_send(message)
        .map_err(|_| Problem::new(503, Code::ApiBusy).retry_after(1))?;
    Ok((axum::http::StatusCode::ACCEPTED, "Accepted").into_response())
}
