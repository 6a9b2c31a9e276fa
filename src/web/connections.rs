//! Connections of the web server, bounded before any token was sent.
//!
//! Every client that can reach the port can open connections and send nothing. Their number is a share of the descriptors that
//! this process may have, so that probes and stores always find one; when it is reached, the connection that has waited longest
//! without a request is closed, so that a health check is answered even then.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, Sleep};
use tracing::{debug, warn};

use crate::descriptors;
use crate::lifecycle::Stop;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Timeout of the head of a request, counted from the connection or from the end of the last response.
    pub head: Duration,
    /// How long a client may read nothing of a response.
    pub stalled: Duration,
    /// How long a client may take to read what is ready to be sent, however steadily it reads.
    pub unread: Duration,
    /// How long a connection is not closed for another one once its request is being answered.
    pub undisturbed: Duration,
}

impl Limits {
    /// Returns the limits for a process that may have `descriptors` open.
    ///
    /// A quarter of them is more than dashboards and scrapers of one daemon need. The rest is kept for probes, websockets, the
    /// store and the bus, whose use is not bounded: where few may be open, the web server gets half of what they leave.
    pub fn within(descriptors: usize) -> Self {
        let spare = descriptors.saturating_sub(RESERVE) / 2;
        Self {
            connections: (descriptors / 4).min(spare).clamp(4, 512),
            head: Duration::from_secs(5),
            stalled: Duration::from_secs(20),
            unread: Duration::from_secs(120),
            undisturbed: Duration::from_secs(2),
        }
    }
}

/// Descriptors that a daemon of a few platforms uses for everything but the web server, with calls in progress on all of them.
const RESERVE: usize = 112;
/// Maximum size of the head of a request, in bytes. It includes cookies of other services on the same host.
const HEAD: usize = 16 * 1024;
/// How long to wait before connections are accepted again when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests in progress may take after a stop.
const FINISH: Duration = Duration::from_secs(2);

/// Serves `pages` until the stop, then lets requests in progress finish.
pub(super) async fn serve(listener: TcpListener, pages: Router, limits: Limits, stop: Stop) {
    let mut open = Open::default();
    loop {
        tokio::select! {
            () = stop.requested() => break,
            Some(ended) = open.tasks.join_next_with_id() => open.forget(&ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if open.by_age.len() >= limits.connections && !open.make_room(limits.undisturbed) {
                        debug!(limit = limits.connections, "Refused a connection: all are answering requests");
                        continue;
                    }
                    // An aborted connection holds its descriptor until its task is gone.
                    while open.tasks.len() >= limits.connections
                        && let Some(ended) = open.tasks.join_next_with_id().await
                    {
                        open.forget(&ended);
                    }
                    open.add(socket, Peer(peer.ip()), pages.clone(), limits, stop.clone());
                }
                // The client has closed the connection already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if open.make_room(Duration::ZERO) {
                        debug!(error = %error, "Closed a connection to accept another one");
                    } else {
                        warn!(error = %error, "Cannot accept connections to the web server");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finished = async { while open.tasks.join_next().await.is_some() {} };
    // A client that reads slowly must not delay the end of the daemon.
    let _ = tokio::time::timeout(FINISH, finished).await;
}

/// The address of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Open connections, oldest first.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    by_age: BTreeMap<u64, Connection>,
    ages: std::collections::HashMap<Id, u64>,
    next: u64,
}

struct Connection {
    task: AbortHandle,
    /// Requests that are being answered.
    busy: Arc<AtomicUsize>,
    since: Instant,
}

impl Open {
    fn add(&mut self, socket: TcpStream, peer: Peer, pages: Router, limits: Limits, stop: Stop) {
        let busy: Arc<AtomicUsize> = Arc::default();
        let serving = answer_requests((socket, peer), pages, limits, stop, Arc::clone(&busy));
        let task = self.tasks.spawn(serving);
        self.ages.insert(task.id(), self.next);
        let since = Instant::now();
        self.by_age.insert(self.next, Connection { task, busy, since });
        self.next += 1;
    }

    fn forget(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let Some(age) = self.ages.remove(&id) {
            self.by_age.remove(&age);
        }
    }

    /// Closes the oldest connection that has no request, else the oldest one whose time is over. Returns whether there was one.
    fn make_room(&mut self, undisturbed: Duration) -> bool {
        let idle = |connection: &Connection| connection.busy.load(Ordering::Acquire) == 0;
        let due = |connection: &Connection| connection.since.elapsed() >= undisturbed;
        let oldest = self
            .by_age
            .iter()
            .find(|(_, connection)| idle(connection))
            .or_else(|| self.by_age.iter().find(|(_, connection)| due(connection)))
            .map(|(age, _)| *age);
        let Some(connection) = oldest.and_then(|age| self.by_age.remove(&age)) else {
            return false;
        };
        self.ages.remove(&connection.task.id());
        connection.task.abort();
        true
    }
}

async fn answer_requests(
    (socket, peer): (TcpStream, Peer),
    pages: Router,
    limits: Limits,
    stop: Stop,
    busy: Arc<AtomicUsize>,
) {
    let counted = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (pages, busy) = (pages.clone(), Busy::count(&busy));
        async move {
            let answered: Result<Response, Infallible> = tower::ServiceExt::oneshot(pages, request).await;
            drop(busy);
            answered
        }
    });
    let _ = socket.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD)
        .serve_connection(
            TokioIo::new(Patient::new(socket, limits)),
            TowerToHyperService::new(counted),
        );
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error = %error, "A connection to the web server ended early");
    }
}

/// Counts a request while it is being answered.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket that fails when its peer reads nothing for too long, or takes too long to read everything.
struct Patient {
    socket: TcpStream,
    limits: Limits,
    /// Until the peer has read something.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Until the peer has read everything that is ready to be sent.
    unread: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(socket: TcpStream, limits: Limits) -> Self {
        Self {
            socket,
            limits,
            waiting: None,
            unread: None,
        }
    }

    fn within_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let Limits { stalled, unread, .. } = self.limits;
        let timeouts = [(&mut self.waiting, stalled), (&mut self.unread, unread)];
        let over = timeouts.map(|(timeout, limit)| {
            let timeout = timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            timeout.as_mut().poll(cx).is_ready()
        });
        if over.contains(&true) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.within_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.within_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes when it has written everything.
        self.unread = None;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

pub(super) fn limits() -> Limits {
    Limits::within(descriptors::limit())
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    const FEW: Limits = Limits {
        connections: 4,
        head: Duration::from_secs(600),
        stalled: Duration::from_secs(600),
        unread: Duration::from_secs(600),
        undisturbed: Duration::from_secs(600),
    };

    /// Runs a server, which signals the arrival of a request that is never answered.
    async fn served(
        limits: Limits,
    ) -> (
        std::net::SocketAddr,
        AbortOnDropHandle<()>,
        mpsc::UnboundedReceiver<()>,
    ) {
        let (entered, came) = mpsc::unbounded_channel();
        let never = move || {
            let _ = entered.send(());
            std::future::pending::<&str>()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = "x".repeat(32 * 1024 * 1024);
        let pages = Router::new()
            .route("/", get(async || "fine"))
            .route("/large", get(async move || large.clone()))
            .route("/never", get(never));
        #[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
        let server = tokio::spawn(serve(listener, pages, limits, Stop::never()));
        (address, AbortOnDropHandle::new(server), came)
    }

    async fn open(address: std::net::SocketAddr, sent: &str) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        socket
    }

    async fn asked(address: std::net::SocketAddr) -> String {
        let mut socket = open(
            address,
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .await;
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer).await;
        answer
    }

    /// Reads until the server closes the connection, with or without a shutdown.
    async fn closed(socket: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        rest
    }

    #[tokio::test]
    async fn idle_connections_are_closed_for_new_requests() {
        let (address, _server, _) = served(FEW).await;
        let mut silent = Vec::new();
        for _ in 0..60 {
            silent.push(open(address, "").await);
        }
        assert!(asked(address).await.ends_with("fine"));
        // The oldest was closed first.
        assert_eq!(closed(&mut silent[0]).await, b"");
    }

    #[tokio::test]
    async fn requests_in_progress_are_not_dropped_for_new_ones() {
        let request = "GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (address, _server, mut came) = served(FEW).await;
        let mut busy = Vec::new();
        for _ in 0..FEW.connections {
            busy.push(open(address, request).await);
            came.recv().await.unwrap();
        }
        assert_eq!(asked(address).await, "");
        // But those whose time is over are.
        let limits = Limits {
            undisturbed: Duration::ZERO,
            ..FEW
        };
        let (brief, _server, _) = served(limits).await;
        for _ in 0..20 {
            busy.push(open(brief, request).await);
        }
        assert!(asked(brief).await.ends_with("fine"));
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off() {
        let limits = Limits {
            head: Duration::from_millis(100),
            ..FEW
        };
        let (address, _server, _) = served(limits).await;
        for sent in ["", "GET / HTTP/1.1\r\nHost: local"] {
            assert!(!String::from_utf8_lossy(&closed(&mut open(address, sent).await).await).contains("200"));
        }
        // Nor may a connection idle after a response.
        let mut idle = open(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(closed(&mut idle).await.ends_with(b"fine"));
    }

    #[tokio::test]
    async fn unread_response_is_cut_off() {
        let limits = Limits {
            stalled: Duration::from_millis(100),
            ..FEW
        };
        let (address, server, _) = served(limits).await;
        let mut lazy = open(address, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        // Only after the server's timeout does the client's write fail.
        while lazy.write_all(b"GET / HTTP/1.1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(asked(address).await.ends_with("fine"));
        drop(server);
    }

    #[tokio::test]
    async fn response_that_is_read_too_slowly_is_cut_off() {
        let limits = Limits {
            unread: Duration::from_millis(100),
            ..FEW
        };
        let (address, _server, _) = served(limits).await;
        let mut slow = open(address, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let (mut received, mut byte) = (0, [0]);
        // It reads a little every millisecond and never stops.
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        while let Ok(1..) = slow.read(&mut byte).await {
            received += 1;
            pace.tick().await;
            if slow.write_all(b"x").await.is_err() {
                break;
            }
        }
        assert!(received < 32 * 1024 * 1024);
        assert!(asked(address).await.ends_with("fine"));
    }

    #[test]
    fn connections_are_a_share_of_the_descriptors() {
        for (descriptors, connections) in [
            (8, 4),
            (64, 4),
            (128, 8),
            (160, 24),
            (256, 64),
            (1024, 256),
            (1_000_000, 512),
            (usize::MAX, 512),
        ] {
            assert_eq!(Limits::within(descriptors).connections, connections);
        }
    }

    #[test]
    fn rest_of_the_daemon_keeps_its_descriptors() {
        for descriptors in 120..=1024 {
            let left = descriptors - Limits::within(descriptors).connections;
            assert!(left >= RESERVE.min(descriptors - 8), "{descriptors}: {left}");
        }
    }
}
