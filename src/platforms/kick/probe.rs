//! One probe of some channels: accounts, the list of live streams, then details of as many channels as are due.
//!
//! Only a successful list that was requested for a channel proves that it is not live. Absence from `/channels` means that the
//! channel was removed, and channels on which the two disagree are requested individually.

mod accounts;
mod channel_details;
mod context;
mod stream_list;

use self::channel_details::ChannelDetails;
use self::context::ProbeContext;
use self::stream_list::StreamList;
use super::KickPlatform;
use super::api::LIST_AT_ONCE;
use crate::core::source::SourceKey;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};

/// Probes `sources`.
pub(super) async fn run(
    platform: &KickPlatform,
    probes: &ProbeSet,
    sources: &[SourceKey],
    sink: &dyn ProbeSink,
) -> ProbeSummary {
    let cx = ProbeContext::new(platform, probes, sources, sink);
    if !cx.targets.is_empty() {
        execute(&cx).await;
    }
    cx.meter.summary()
}

async fn execute(cx: &ProbeContext<'_>) {
    let accounts = cx.wants(&[Probe::Auth, Probe::Permissions]);
    if accounts {
        accounts::probe(cx).await;
    }
    if cx.wants(&[Probe::Connection, Probe::Stream, Probe::Viewers]) {
        let due = channel_details::due(cx);
        let chunks = cx.targets.len().div_ceil(LIST_AT_ONCE);
        cx.meter.expect(chunks);
        let mut streams = StreamList::default();
        if streams.walk(cx, &due).await {
            channel_details::fetch_names(cx, &due).await;
            ChannelDetails::new(cx, streams).fetch(due).await;
        }
        cx.emit_latency();
    }
    // Last, because an OAuth host that does not answer must not delay results of the API.
    if !accounts && cx.wants(&[Probe::Connection]) {
        accounts::check_idle(cx).await;
    }
    accounts::emit_checks(cx);
}

/// Returns whether a request that was not sent waits for the end of a backoff.
fn is_backoff(error: &PlatformError) -> bool {
    matches!(error, PlatformError::RateLimited { .. }) || super::answer::is_blocked(error)
}

/// Returns whether a failure will affect every other request of this probe too.
fn is_permanent(error: &PlatformError) -> bool {
    !matches!(
        error,
        PlatformError::Unavailable { .. }
            | PlatformError::Unreadable { .. }
            | PlatformError::Rejected { status: 400, .. }
    ) || super::answer::is_blocked(error)
}
