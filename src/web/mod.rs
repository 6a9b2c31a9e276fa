//! The web server of the daemon: pages for people, a read-only API, health, metrics and debug pages.
//!
//! It reads the daemon's overview and the store, and changes nothing, so that a defect here cannot stall monitoring.

mod api;
mod connections;
mod debug;
mod guard;
mod health;
mod heavy;
mod live;
mod mcp;
mod metrics;
mod pages;
mod problem;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use self::live::Hub;
pub use self::metrics::Measured;
use self::pages::login::{Attempts, Ended};
use self::problem::Problem;
use crate::clock::Clock;
use crate::config::Shown;
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::descriptors;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Stop;
use crate::mcp::{Options, Tools};
use crate::persist::{self, Stats};
use crate::platforms;
use crate::secrets;
use crate::store::SourceStore;
use crate::telemetry::names;
use crate::view::reading::{ConfiguredNow, Reading};
use crate::watch::overview::{Overview, View};
use crate::watch::viewers::Viewers;
#[cfg(fuzzing)]
pub use api::fuzzing;

/// Timeout of a request until its response begins, its body included. Pages are read from memory and the store.
const ANSWER: Duration = Duration::from_secs(10);

/// When accounts stop working without another login. Those without a known end are absent.
pub type Expiries = Arc<Mutex<BTreeMap<Identity, Timestamp>>>;

/// The actual and the expected number of writes.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// The actual figures.
    pub stats: Stats,
    /// Expected writes per day for the configured sources.
    pub expected_per_day: Option<u64>,
    /// How many stored documents cannot be used, once they were counted.
    pub unusable: Option<usize>,
}

/// Data of the pages.
pub struct Web {
    pub store: Arc<dyn SourceStore>,
    /// Overview of the daemon; `None` in a process that only serves pages.
    pub view: Option<View>,
    /// Statistics of writes; `None` in a process that stores nothing.
    pub stored: Option<Arc<dyn Fn() -> Stored + Send + Sync>>,
    /// Overview of the role that stores the bus's events; `None` in a process without that role, or without a bus.
    pub storing: Option<persist::overview::View>,
    pub expiries: Expiries,
    /// Further reasons why this process is not ready.
    pub unready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    pub clock: Arc<dyn Clock>,
    pub started_at: Timestamp,
    /// Token that callers must send.
    pub token: Option<SecretString>,
    /// Returns the part of the configuration in force that concerns sources.
    pub configured: ConfiguredNow,
    /// Returns problems that no source shows, such as a receiver of alerts that accepts nothing.
    pub problems: Arc<dyn Fn() -> Vec<platforms::Problem> + Send + Sync>,
    /// The file that lists published events; `None` in a process that publishes none.
    pub events: Option<PathBuf>,
    /// Counts the commits of this process; `None` in a process that stores nothing.
    pub commits: Option<watch::Receiver<u64>>,
    /// Recent viewer counts, to which this process adds what it observes.
    pub viewers: Arc<Mutex<Viewers>>,
    /// The name under which this process lists its events.
    pub instance: String,
    /// The directory that records when daemons ran.
    pub runs: PathBuf,
    /// How the tools for agents are offered.
    pub agents: Options,
    pub measured: Measured,
    /// The configuration at the start, without secrets.
    pub settings: Vec<Shown>,
}

/// What every handler may use.
#[derive(Clone)]
struct Site {
    web: Arc<Web>,
    hub: Arc<Hub>,
    attempts: Arc<Attempts>,
    ended: Arc<Ended>,
    agents: mcp::Agents,
    stop: Stop,
}

impl std::ops::Deref for Site {
    type Target = Web;

    fn deref(&self) -> &Web {
        &self.web
    }
}

impl Web {
    fn reading(&self) -> Reading {
        Reading {
            store: Arc::clone(&self.store),
            configured: Arc::clone(&self.configured),
            clock: Arc::clone(&self.clock),
        }
    }

    fn overview(&self) -> Option<Overview> {
        self.view.as_ref().map(|view| view())
    }

    /// Why this process is not ready; it is ready when there is no reason.
    fn reasons(&self) -> Vec<String> {
        self.reasons_with(self.overview().as_ref())
    }

    /// The same for an overview that the caller has already.
    fn reasons_with(&self, overview: Option<&Overview>) -> Vec<String> {
        let mut reasons = (self.unready)();
        reasons.extend(overview.into_iter().flat_map(|overview| overview.unready.clone()));
        reasons
    }
}

/// Binds an address, before anything else starts: a port that is in use must be detected at once.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot listen at {address}"))
            .because(&error)
            .hint(if descriptors::is_exhaustion(&error) {
                descriptors::REASON
            } else {
                "another program may have the port; choose another with web.listen, or `off`"
            })
    })
}

/// Serves until the stop, then lets requests in progress finish. `extra` are routes with access control of their own: deliveries
/// of a platform come from elsewhere and have a signature instead of a token.
pub async fn serve(listener: TcpListener, web: Web, extra: Router, stop: Stop) -> std::io::Result<()> {
    serve_within(listener, web, extra, Limits::default(), stop).await
}

/// The limits of what clients may cause.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    heavy: heavy::Limits,
    live: live::Limits,
}

async fn serve_within(
    listener: TcpListener,
    web: Web,
    extra: Router,
    limits: Limits,
    stop: Stop,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    info!(name: names::SERVING, %address, "Serving pages at http://{address}/");
    let tools = Tools::new(web.reading(), web.agents.clone());
    let site = Site {
        agents: mcp::Agents::new(tools),
        web: Arc::new(web),
        hub: Arc::new(Hub::new(limits.live)),
        attempts: Arc::default(),
        ended: Arc::default(),
        stop: stop.clone(),
    };
    let pages = router(site.clone(), limits.heavy)
        .merge(extra)
        .layer(from_fn(in_time));
    tokio::select! {
        () = connections::serve(listener, pages, connections::limits(), stop) => Ok(()),
        never = live::run(site) => match never {},
    }
}

/// Ends a request that takes too long, for example because its body never arrives.
async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER, next.run(request)).await;
    answered.unwrap_or_else(|_| Problem::new(408, Code::ApiTimeout).into_response())
}

fn router(site: Site, heavy: heavy::Limits) -> Router {
    Router::new()
        .route("/healthz", get(health::healthy))
        .route("/livez", get(health::healthy))
        .route("/health", get(health::state_engine))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/_debug/bus", get(debug::bus))
        .route("/_debug/config", get(debug::config))
        .route("/_debug/connectors", get(debug::connectors))
        .route("/_debug/counters", get(debug::counters))
        .route("/_debug/instance", get(debug::instance))
        .route("/_debug/sources", get(debug::sources))
        .route("/_debug/{platform}", get(debug::platform))
        .route("/_debug/{platform}/{listener}", get(debug::listener))
        .merge(api::router())
        .merge(mcp::router(&site))
        .merge(pages::router())
        .fallback(async |State(site): State<Site>, headers: HeaderMap| pages::not_found(&site, &headers))
        .method_not_allowed_fallback(async || Problem::new(405, Code::ApiMethodNotAllowed))
        .layer(from_fn_with_state(heavy::HeavyPages::new(heavy), heavy::limited))
        .layer(from_fn_with_state(site.clone(), guard::guard))
        .with_state(site)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "bodies are written where they are answered"
)]
fn answer(status: u16, body: Value) -> Response {
    let status = axum::http::StatusCode::from_u16(status).expect("statuses are written as literals");
    // Reasons and details of listeners contain foreign text.
    let text = secrets::mask(&body.to_string()).into_owned();
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
