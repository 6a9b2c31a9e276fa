//! One simulated platform on one port: the server, its failures, its journal and its clock.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::clock::SimClock;
use super::control;
use super::faults::{Faults, WireFault};
use super::journal::Journal;
use super::wire::{Wire, WiredStream, Wires};
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;

/// What every simulated platform has. Cloning shares it.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    clock: Arc<SimClock>,
    chance: Chance,
    faults: Faults,
    journal: Journal,
    wires: Wires,
    /// `None` while the server is up; while it is down, when it comes back by itself.
    outage: watch::Sender<Option<Timestamp>>,
    stop: CancellationToken,
}

impl Host {
    /// Prepares a platform that lives by `clock`; nothing listens yet.
    pub fn new(clock: Arc<SimClock>, chance: Chance) -> Self {
        Self(Arc::new(Shared {
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

    /// Returns the simulation's source of chance.
    pub fn chance(&self) -> &Chance {
        &self.0.chance
    }

    /// Returns the faults in force.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Returns the record of requests.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Returns the token that is cancelled when the server stops; long-lived handlers wait for it too.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Takes the platform off the network: connections are reset and new ones refused, until [`Host::come_up`].
    pub fn go_down(&self) {
        self.go_down_until(Timestamp::from_millis(i64::MAX), None);
    }

    /// Puts the platform back on the network, on the same port.
    pub fn come_up(&self) {
        self.0.outage.send_replace(None);
    }

    /// Goes down until `deadline` of simulated time; `spared` is the connection that brought the order.
    pub(super) fn go_down_until(&self, deadline: Timestamp, spared: Option<&Wire>) {
        self.0.outage.send_replace(Some(deadline));
        self.0.wires.reset_all(spared);
    }

    /// Serves `platform` and the controls below `/__sim/` on `address` (port 0 picks a free one).
    ///
    /// Faults, the journal and the simulated `Date` apply to `platform` only. Handlers that need to spoil their own
    /// connection take `ConnectInfo<Wire>`.
    pub async fn serve(&self, address: SocketAddr, platform: Router, controls: Router) -> io::Result<Server> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let app = platform
            .layer(middleware::from_fn_with_state(self.clone(), around))
            .merge(control::routes(self.clone()).merge(controls));
        let listener = SwitchedListener {
            address,
            socket: Some(socket),
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

/// Starts a task that ends with the returned handle.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the simulator; the handle owns the task"
)]
pub(crate) fn own(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// A running simulated platform; dropping it stops the server and cuts its connections.
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

    /// Returns the base address for HTTP, without a slash at the end.
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the base address for websockets, without a slash at the end.
    pub fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Returns what the platform shares with the rest of the simulation.
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

/// A listening socket that can be taken away and put back.
pub struct SwitchedListener {
    address: SocketAddr,
    socket: Option<TcpListener>,
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
        /// A pause after a failed bind or accept, so that a lasting failure does not spin.
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
                        // Small answers must not wait for the peer's acknowledgement.
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

/// Notes the request, lets a fault strike it, and stamps the answer with the simulated time.
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
