//! The web server of the daemon: health, metrics, debug pages and a read-only API.
//!
//! It reads the daemon's overview and the store, and changes nothing, so that a mistake here cannot stall the watching.

mod api;
mod debug;
mod guard;
mod health;
mod metrics;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::info;

use crate::clock::Clock;
use crate::core::document::SourceDocument;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Stop;
use crate::persist::{self, Stats};
use crate::store::{HistoryEntry, SourceStore};
use crate::watch::overview::{Overview, View};

/// How long requests in progress may take after a stop.
const FINISH: Duration = Duration::from_secs(2);

/// Writes documents as the JSON that the commands promise.
pub type Render<T> = Arc<dyn Fn(T) -> Value + Send + Sync>;

/// How much was stored, next to what was expected.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// The actual figures.
    pub stats: Stats,
    /// Writes a day that were expected of the configured sources.
    pub expected_per_day: u64,
}

/// What the pages are made of.
#[derive(Clone)]
pub struct Web {
    /// The documents.
    pub store: Arc<dyn SourceStore>,
    /// How the daemon is; `None` in a process that only serves pages.
    pub view: Option<View>,
    /// What was stored; `None` in a process that stores nothing.
    pub stored: Option<Arc<dyn Fn() -> Stored + Send + Sync>>,
    /// How what stores the bus's events is; `None` in a process without that role, or without a bus.
    pub storing: Option<persist::overview::View>,
    /// Further reasons why this process is not ready.
    pub unready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// When this process started.
    pub started_at: Timestamp,
    /// What callers must show.
    pub token: Option<SecretString>,
    /// Writes a list of sources.
    pub list: Render<Vec<Arc<SourceSummary>>>,
    /// Writes one source with its evidence and its latest transitions.
    pub one: Render<(SourceDocument, Vec<HistoryEntry>)>,
}

impl Web {
    fn overview(&self) -> Option<Overview> {
        self.view.as_ref().map(|view| view())
    }

    /// Why this process is not ready; it is when there is no reason.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = (self.unready)();
        reasons.extend(self.overview().into_iter().flat_map(|overview| overview.unready));
        reasons
    }
}

/// Binds an address, before anything else starts: a port that is taken must not be found out later.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot listen at {address}"))
            .because(&error)
            .hint("another program may have the port; choose another with web.listen, or `off`")
    })
}

/// Serves until the stop, then lets requests in progress finish. `extra` are pages that guard themselves: deliveries of a
/// platform come from elsewhere and bring a signature instead of a token.
pub async fn serve(listener: TcpListener, web: Web, extra: Router, stop: Stop) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    info!(%address, "Serving pages at http://{address}/");
    let polite = stop.clone();
    let serving = axum::serve(listener, router(web).merge(extra))
        .with_graceful_shutdown(async move { polite.requested().await });
    let impatient = async {
        stop.requested().await;
        tokio::time::sleep(FINISH).await;
    };
    // Whoever reads a page slowly must not hold up the end of the daemon.
    tokio::select! {
        served = serving.into_future() => served,
        () = impatient => Ok(()),
    }
}

/// Returns all pages.
pub fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(health::root))
        .route("/healthz", get(health::healthy))
        .route("/livez", get(health::healthy))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/_debug/bus", get(debug::bus))
        .route("/_debug/sources", get(debug::sources))
        .route("/_debug/{platform}", get(debug::platform))
        .route("/_debug/{platform}/{listener}", get(debug::listener))
        .route("/api/v1/sources", get(api::list))
        .route("/api/v1/sources/{id}", get(api::one))
        .fallback(async || answer(404, json!({"error": "not_found"})))
        .layer(from_fn_with_state(web.clone(), guard::guard))
        .with_state(web)
}

/// A JSON answer.
fn answer(status: u16, body: Value) -> Response {
    let status = axum::http::StatusCode::from_u16(status).expect("statuses are written as literals");
    (status, axum::Json(body)).into_response()
}
