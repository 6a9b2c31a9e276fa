//! Metrics for Prometheus, collected for each request from the daemon's overview. Labeled by source only where the configuration
//! asks for it: ten thousand sources would be ten thousand series.

mod accept;
mod accounts;
mod catalog;
mod daemon;
mod exposition;
mod process;
mod sources;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};

use self::exposition::{Exposition, Value};
use super::Site;
use crate::core::freshness::Intervals;
use crate::core::source::PlatformName;
use crate::histogram::Histogram;
use crate::http;
use crate::secrets;

/// What only metrics report.
pub struct Measured {
    /// Returns how often each thing about a source is checked, by the configuration in force.
    pub intervals: Arc<dyn Fn() -> Intervals + Send + Sync>,
    /// How long requests to each platform take.
    pub request_times: Vec<(PlatformName, Arc<Histogram>)>,
    /// How many sources may have series of their own.
    pub source_series: usize,
}

/// Answers in the format that the client prefers.
pub(super) async fn metrics(State(web): State<Site>, headers: HeaderMap) -> Response {
    let format = accept::format(&headers);
    let text = collect(&web).await.to_text(format);
    // Buckets and reasons are named by platforms.
    let text = secrets::mask(&text).into_owned();
    ([(CONTENT_TYPE, format.media_type()), (VARY, "Accept")], text).into_response()
}

/// Returns every counter with its sum over all labels.
pub(super) async fn counters(web: &Site) -> serde_json::Map<String, serde_json::Value> {
    let counters = collect(web).await.counters().into_iter();
    counters
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect()
}

async fn collect(web: &Site) -> Exposition {
    let mut exposition = Exposition::default();
    exposition.set(&catalog::BUILD, &[env!("CARGO_PKG_VERSION")], true);
    let overview = web.overview();
    let reasons = web.reasons_with(overview.as_ref());
    exposition.set(&catalog::READY, &[], reasons.is_empty());
    if let Some(error) = http::measured_clock_error() {
        exposition.set(&catalog::CLOCK_ERROR, &[], Value::Millis(error));
    }
    process::collect(&mut exposition, web.started_at);
    let now = web.clock.now();
    let intervals = (web.measured.intervals)();
    if let Some(overview) = overview {
        daemon::collect(&mut exposition, &overview, now);
        daemon::collect_checks(&mut exposition, &overview, &intervals);
        sources::collect(&mut exposition, &overview, &intervals, now);
        accounts::collect(
            &mut exposition,
            &overview.summary.accounts,
            web.measured.source_series,
        );
        for platform in sources::platforms(&overview) {
            let times = web
                .measured
                .request_times
                .iter()
                .find(|(name, _)| *name == platform);
            if let Some((_, times)) = times {
                let labels = [platform.as_str()];
                exposition.set(&catalog::REQUEST_DURATION, &labels, Value::Buckets(times.read()));
            }
        }
    }
    accounts::collect_expiries(&mut exposition, &web.expiries.lock(), web.measured.source_series);
    if let Some(stored) = &web.stored {
        storage::collect(&mut exposition, &stored());
    }
    if let Some(storing) = &web.storing {
        storage::collect_bus(&mut exposition, &storing());
    }
    if web.measured.source_series > 0 {
        sources::collect_each(&mut exposition, web).await;
    }
    exposition
}
