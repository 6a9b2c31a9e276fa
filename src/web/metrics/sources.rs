//! The sources: counted, and one by one as far as the configuration allows.

use std::collections::BTreeSet;

use super::catalog;
use super::exposition::Exposition;
use crate::core::freshness::Intervals;
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::Status;
use crate::watch::overview::Overview;
use crate::web::Site;

/// Returns the platforms in use.
pub(super) fn platforms(overview: &Overview) -> BTreeSet<PlatformName> {
    let polled = overview.pollers.iter().map(|poller| poller.platform);
    let known = overview.summary.by_status.keys().map(|(platform, _)| *platform);
    polled.chain(known).collect()
}

/// Adds how many sources there are, with every platform and status.
pub(super) fn collect(
    exposition: &mut Exposition,
    overview: &Overview,
    intervals: &Intervals,
    now: Timestamp,
) {
    let summary = &overview.summary;
    let limit = i64::try_from(intervals.limit_ms(intervals.connection)).unwrap_or(i64::MAX);
    for platform in platforms(overview) {
        let name = platform.as_str();
        for status in [Status::Connected, Status::Disconnected, Status::Error] {
            let count = summary.by_status.get(&(platform, status)).copied().unwrap_or(0);
            let label = status.as_str().to_lowercase();
            exposition.set(&catalog::SOURCES, &[name, &label], count);
        }
        let live = summary.live.iter().filter(|source| source.platform() == platform);
        exposition.set(&catalog::SOURCES_LIVE, &[name], live.count());
        let confirmed = summary.confirmed.iter();
        let stale = confirmed.filter(|((of, at), _)| *of == platform && now.millis_since(*at) > limit);
        let stale: usize = stale.map(|(_, count)| count).sum();
        exposition.set(&catalog::SOURCES_STALE, &[name], stale);
    }
}

/// Adds series of single sources, in the order of their ids. Without the store there are none.
pub(super) async fn collect_each(exposition: &mut Exposition, web: &Site) {
    let Ok(stored) = web.store.summaries().await else {
        return;
    };
    let mut sources: Vec<_> = stored
        .into_iter()
        .filter_map(|stored| stored.document.ok())
        .collect();
    sources.sort_by(|a, b| a.key.cmp(&b.key));
    let limit = web.measured.source_series;
    exposition.set(
        &catalog::SOURCES_WITHOUT_SERIES,
        &[],
        sources.len().saturating_sub(limit),
    );
    for source in sources.into_iter().take(limit) {
        let labels = [source.key.platform().as_str(), source.key.id()];
        exposition.set(
            &catalog::SOURCE_CONNECTED,
            &labels,
            source.status == Status::Connected,
        );
        if source.stream_status != StreamStatus::Unknown {
            let is_live = source.stream_status == StreamStatus::Online;
            exposition.set(&catalog::SOURCE_LIVE, &labels, is_live);
        }
        if let Some(viewers) = source.viewer_count {
            exposition.set(&catalog::SOURCE_VIEWERS, &labels, viewers);
        }
    }
}
