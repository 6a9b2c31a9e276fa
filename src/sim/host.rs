//! One simulated platform on one port: the server, its faults, its journal and its clock.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::clock::SimClock;
use super::directory::Directory;
use super::faults::{Faults, WireFault};
use super::journal::Journal;
use super::tcp_faults::{Wire, WiredStream, Wires};
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;

/// State that every simulated platform has. Cloning shares it.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    clock: Arc<SimClock>,
    chance: Chance,
    faults: Faults,
    journal: Journal,
    wires: Wires,
    /// `None` while the server is up; during an outage, when it comes back by itself.
    outage: watch::Sender<Option<Timestamp>>,
    stop: CancellationToken,
    directory: Directory,
}

impl Host {
    /// Prepares a platform with `clock`; nothing listens yet.
    pub fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self::listed_in(Directory::default(), clock, chance)
    }

    /// Prepares another platform of the same simulation: same clock, same randomness, and each lists the others.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::listed_in(
            self.0.directory.clone(),
            Arc::clone(&self.0.clock),
            self.0.chance.clone(),
        )
    }

    fn listed_in(directory: Directory, clock: Arc<SimClock>, chance: Chance) -> Self {
        Self(Arc::new(Shared {
            directory,
            clock,
            chance,
            faults: Faults::default(),
            journal: Journal::default(),
            wires: Wires::default(),
            outage: watch::Sender::new(None),
            stop: CancellationToken::new(),
        }))
    }

    /// Returns the simulation's clock.
    pub fn clock(&self) -> &Arc<SimClock> {
        &self.0.clock
    }

    /// Returns the simulation's source of randomness.
    pub fn chance(&self) -> &Chance {
        &self.0.chance
    }

    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Returns the token that is canceled when the server stops; long-lived handlers wait for it too.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Returns the platforms of this simulation.
    pub(super) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Starts an outage: connections are reset and new ones refused, until [`Host::come_up`].
    pub fn go_down(&self) {
        self.go_down_until(Timestamp::from_millis(i64::MAX), None);
    }

    /// Ends the outage, on the same port.
    pub fn come_up(&self) {
        self.0.outage.send_replace(None);
    }

    /// Goes down until `deadline` of simulated time; `spared` is the connection of the control request.
    pub(super) fn go_down_until(&self, deadline: Timestamp, spared: Option<&Wire>) {
        self.0.outage.send_replace(Some(deadline));
        self.0.wires.reset_all(spared);
    }

    /// Serves `platform`, and `controls` below `/__sim/`, on `address` (port 0 picks a free one).
    ///
    /// Faults, the journal and the simulated `Date` apply to `platform` only. Requests without a route in `platform` are answered
    /// with 501. Handlers that need to break their own connection take `ConnectInfo<Wire>`.
    pub async fn serve(&self, address: SocketAddr, platform: Router, controls: Router) -> io::Result<Server> {
        let reservation = reserve(address)?;
        let address = match &reservation {
            Some(reserved) => reserved.local_addr()?,
            None => address,
        };
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let app = platform
            .fallback(unrouted)
            .method_not_allowed_fallback(unrouted)
            .layer(middleware::from_fn_with_state(self.clone(), around))
            .merge(controls);
        let listener = SwitchedListener {
            address,
            socket: Some(socket),
            _reservation: reservation,
            host: self.clone(),
            outage: self.0.outage.subscribe(),
        };
        let stop = self.0.stop.clone();
        let serving = axum::serve(listener, app.into_make_service_with_connect_info::<Wire>());
        let task = own(async move {
            tokio::select! {
                _ = serving.into_future() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Server {
            address,
            host: self.clone(),
            _task: task,
        })
    }
}

/// Binds a socket to `address` that never listens. During an outage, connections are refused, and no other
/// process is given the port, which would then answer in place of this server.
///
/// Only Linux lets a second socket listen on the same address; elsewhere the port is not reserved.
fn reserve(address: SocketAddr) -> io::Result<Option<TcpSocket>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(Some(socket))
}

/// Spawns a task that is aborted when the returned handle is dropped.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the simulator; the handle owns the task"
)]
pub(crate) fn own(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// A running simulated platform; dropping it stops the server and closes its connections.
pub struct Server {
    address: SocketAddr,
    host: Host,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL for HTTP, without a slash at the end.
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the base URL for websockets, without a slash at the end.
    pub fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Returns the state that the platform shares with the rest of the simulation.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.host.0.stop.cancel();
        self.host.0.wires.reset_all(None);
    }
}

/// A listening socket that can be closed and opened again.
pub struct SwitchedListener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    _reservation: Option<TcpSocket>,
    host: Host,
    outage: watch::Receiver<Option<Timestamp>>,
}

impl SwitchedListener {
    /// Waits with the socket closed until the outage is over.
    async fn sit_out(&mut self, until: Timestamp) {
        self.socket = None;
        tokio::select! {
            () = self.host.0.clock.sleep_until(until) => {
                self.host.0.outage.send_if_modified(|outage| {
                    let over = outage.is_some_and(|end| end <= until);
                    if over {
                        *outage = None;
                    }
                    over
                });
            }
            _ = self.outage.changed() => {}
        }
    }
}

impl Listener for SwitchedListener {
    type Io = WiredStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (WiredStream, SocketAddr) {
        /// Delay after a failed bind or accept, so that a lasting failure does not cause a busy loop.
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            let outage = *self.outage.borrow_and_update();
            if let Some(until) = outage {
                self.sit_out(until).await;
                continue;
            }
            let Some(socket) = &self.socket else {
                match TcpListener::bind(self.address).await {
                    Ok(socket) => self.socket = Some(socket),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                continue;
            };
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Small responses must not wait for the peer's acknowledgement.
                        let _ = stream.set_nodelay(true);
                        return (self.host.0.wires.adopt(stream), peer);
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                _ = self.outage.changed() => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, SwitchedListener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, SwitchedListener>) -> Self {
        stream.io().wire().clone()
    }
}

async fn unrouted(method: Method, uri: Uri) -> Response {
    not_simulated(&method, &uri)
}

/// Answers a request that the real platform may support, but the simulation does not: 501, in a format in which clients of each
/// platform find the message.
pub(super) fn not_simulated(method: &Method, uri: &Uri) -> Response {
    unsupported(&format!("{method} {}", uri.path()))
}

/// Answers 501 for `what`, which is not simulated.
pub(super) fn unsupported(what: &str) -> Response {
    let message = format!("not simulated: {what} (what is, is listed at /__sim/)");
    let body = json!({"error": "Not Implemented", "status": 501, "code": 0, "message": message});
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}

/// Records the request, applies a matching fault, and adds the simulated time to the response.
async fn around(
    State(host): State<Host>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri) = (request.method().as_str().to_owned(), request.uri().clone());
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let visit = host.journal().arrived(host.clock().now(), &method, path, query);
    let fault = host
        .faults()
        .strike(&method, path, query, host.chance())
        .unwrap_or_default();
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    let mut response = match fault.wire {
        None => match fault.replacement() {
            Some(replacement) => replacement,
            None => next.run(request).await,
        },
        Some(WireFault::Reset) => {
            wire.reset();
            StatusCode::BAD_GATEWAY.into_response()
        }
        Some(cut @ (WireFault::Hang | WireFault::HalfOpen)) => {
            if cut == WireFault::HalfOpen {
                wire.freeze();
            }
            host.stopping().cancelled().await;
            StatusCode::BAD_GATEWAY.into_response()
        }
        Some(WireFault::LostAfterCommit) => {
            let response = next.run(request).await;
            wire.reset();
            response
        }
    };
    visit.answered(response.status().as_u16());
    let date = jiff::Timestamp::from_millisecond(host.clock().wall().as_millis()).unwrap_or_default();
    if let Ok(date) = HeaderValue::try_from(date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        response.headers_mut().insert(header::DATE, date);
    }
    fault.damage(response).await
}
