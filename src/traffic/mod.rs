//! Records the traffic with platforms, without secrets and without what viewers write or are called.
//!
//! A [`Tap`] is attached where all traffic passes: `http::Http`, `websocket::Socket`, and the receiver of webhooks. It only copies
//! what it sees into a bounded queue, so that a probe never waits for the recording; a task of its own (`writer.rs`) removes what
//! must not be kept (`redact.rs`) and writes the file. `sim::replay` serves a recording.

pub mod format;
pub mod redact;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use url::Url;

use crate::core::platform::PlatformName;
use crate::http::{Answer, HttpError};

use self::format::Side;
pub use writer::Recording;

/// Events that may wait to be written.
const QUEUE: usize = 4_096;
/// Size of the events that may wait to be written, in bytes.
const WAITING: usize = 32 * 1024 * 1024;

/// Receives what is to be recorded. Cloning shares it.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    out: mpsc::Sender<Observed>,
    begun: Instant,
    /// Bytes that wait to be written.
    waiting: AtomicUsize,
    /// Events that were dropped since the last line.
    lost: AtomicU64,
    sockets: AtomicU64,
}

/// Something that happened, with everything in it. It never leaves the process.
struct Observed {
    at: Duration,
    platform: PlatformName,
    size: usize,
    event: Event,
}

enum Event {
    Exchange(Box<Sent>, Result<(u16, HeaderMap, Bytes), Cow<'static, str>>),
    Open {
        socket: u64,
        path: String,
        failed: Option<String>,
    },
    Frame {
        socket: u64,
        from: Side,
        content: Bytes,
    },
    Close {
        socket: u64,
        from: Option<Side>,
        code: Option<u16>,
    },
    Webhook {
        kind: String,
        id: String,
        status: u16,
        body: Bytes,
    },
}

/// A request that was sent, and is not answered yet.
pub struct Sent {
    at: Duration,
    took: Duration,
    method: String,
    url: Url,
    token: Option<String>,
    is_form: bool,
    body: Bytes,
}

/// Records the traffic with one platform. Cloning shares the recording.
#[derive(Clone)]
pub struct Tap {
    platform: PlatformName,
    recorder: Recorder,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    fn new() -> (Self, mpsc::Receiver<Observed>) {
        let (out, receiver) = mpsc::channel(QUEUE);
        let shared = Shared {
            out,
            begun: Instant::now(),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            sockets: AtomicU64::new(0),
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// Returns what records the traffic with `platform`.
    pub fn tap(&self, platform: PlatformName) -> Tap {
        Tap {
            platform,
            recorder: self.clone(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }
}

impl Tap {
    /// Whether nothing is recorded any more.
    fn is_over(&self) -> bool {
        self.recorder.0.out.is_closed()
    }

    fn observe(&self, at: Duration, size: usize, event: Event) {
        let shared = &self.recorder.0;
        let observed = Observed {
            at,
            platform: self.platform,
            size,
            event,
        };
        let before = shared.waiting.fetch_add(size, Ordering::Relaxed);
        let sent = if before + size > WAITING {
            Err(TrySendError::Full(observed))
        } else {
            shared.out.try_send(observed)
        };
        if let Err(error) = sent {
            shared.waiting.fetch_sub(size, Ordering::Relaxed);
            if matches!(error, TrySendError::Full(_)) {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Copies a request that is about to be sent.
    pub(crate) fn sent(&self, request: &reqwest::Request) -> Option<Sent> {
        if self.is_over() {
            return None;
        }
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let body = request.body().and_then(reqwest::Body::as_bytes);
        Some(Sent {
            at: self.recorder.elapsed(),
            took: Duration::ZERO,
            method: request.method().to_string(),
            url: request.url().clone(),
            token: header(AUTHORIZATION).map(str::to_owned),
            is_form: header(CONTENT_TYPE)
                .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")),
            body: body.map(Bytes::copy_from_slice).unwrap_or_default(),
        })
    }

    /// Records a request with its result.
    pub(crate) fn answered(&self, mut sent: Sent, result: &Result<Answer, HttpError>) {
        let at = sent.at;
        sent.took = self.recorder.elapsed().saturating_sub(at);
        let outcome = match result {
            Ok(answer) => Ok((answer.status, answer.headers.clone(), answer.body.clone())),
            Err(error) => Err(error.code().text()),
        };
        let size = sent.body.len() + outcome.as_ref().map_or(0, |(_, _, body)| body.len());
        self.observe(at, size, Event::Exchange(Box::new(sent), outcome));
    }

    /// Records that a websocket was opened, or could not be; returns what records its frames.
    pub(crate) fn opened(&self, path: &str, failed: Option<String>) -> SocketTap {
        let socket = self.recorder.0.sockets.fetch_add(1, Ordering::Relaxed) + 1;
        let path = path.to_owned();
        self.observe(self.recorder.elapsed(), 0, Event::Open { socket, path, failed });
        SocketTap {
            tap: self.clone(),
            socket,
            is_closed: false,
        }
    }

    /// Records a webhook and the status of its answer.
    pub fn webhook(&self, kind: &str, id: &str, body: &[u8], status: u16) {
        if self.is_over() {
            return;
        }
        let event = Event::Webhook {
            kind: kind.to_owned(),
            id: id.to_owned(),
            status,
            body: Bytes::copy_from_slice(body),
        };
        self.observe(self.recorder.elapsed(), body.len(), event);
    }
}

/// Records the frames of one websocket.
pub(crate) struct SocketTap {
    tap: Tap,
    socket: u64,
    is_closed: bool,
}

impl SocketTap {
    pub(crate) fn frame(&self, from: Side, content: &[u8]) {
        if self.tap.is_over() {
            return;
        }
        let event = Event::Frame {
            socket: self.socket,
            from,
            content: Bytes::copy_from_slice(content),
        };
        self.tap
            .observe(self.tap.recorder.elapsed(), content.len(), event);
    }

    /// Records the end of the socket. Of several ends, such as the two frames of a closing handshake, the first counts.
    pub(crate) fn closed(&mut self, from: Option<Side>, code: Option<u16>) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let socket = self.socket;
        self.tap.observe(
            self.tap.recorder.elapsed(),
            0,
            Event::Close { socket, from, code },
        );
    }
}
