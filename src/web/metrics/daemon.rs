//! What the daemon does: probes, listeners, events.

use std::cmp::Ordering;
use std::time::Duration;

use super::catalog;
use super::exposition::{Exposition, Value};
use crate::core::freshness::Intervals;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::{Probe, RateLimit};
use crate::watch::overview::Overview;

/// How many rate limits of a platform are shown: with many accounts, Twitch has a bucket for each.
const BUCKETS: usize = 4;

/// Adds events, listeners and rate limits.
pub(super) fn collect(exposition: &mut Exposition, overview: &Overview, now: Timestamp) {
    let oldest = overview.outbox_oldest.filter(|_| overview.outbox.events > 0);
    let oldest_age = oldest.map_or(Duration::ZERO, |at| now.since(at));
    exposition.set(&catalog::SOURCES_MONITORED, &[], overview.monitored);
    exposition.set(&catalog::TRANSITIONS, &[], overview.transitions);
    exposition.set(&catalog::OBSERVATIONS_WAITING, &[], overview.inputs);
    exposition.set(&catalog::OUTBOX_EVENTS, &[], overview.outbox.events);
    exposition.set(&catalog::OUTBOX_OLDEST_AGE, &[], oldest_age);
    exposition.set(&catalog::OUTBOX_DEFERRED, &[], overview.deferred);
    exposition.set(&catalog::EVENTS_SENT, &[], overview.sent);
    exposition.set(&catalog::EVENTS_FAILED, &[], overview.failed);
    exposition.set(&catalog::EVENTS_REJECTED, &[], overview.refused);
    exposition.set(&catalog::HEARTBEATS_DROPPED, &[], overview.dropped);
    let commits = Value::Buckets(overview.commit_times.clone());
    exposition.set(&catalog::COMMIT_DURATION, &[], commits);
    for (platform, delays) in &overview.event_delays {
        let delays = Value::Buckets(delays.clone());
        exposition.set(&catalog::EVENT_DELAY, &[platform.as_str()], delays);
    }
    for (name, report) in &overview.listeners {
        let labels = [name.as_str()];
        exposition.set(&catalog::LISTENER_HEALTHY, &labels, report.healthy);
        if let Some(connections) = report.connections {
            exposition.set(&catalog::LISTENER_CONNECTIONS, &labels, connections.established);
            exposition.set(&catalog::LISTENER_CONNECTIONS_WANTED, &labels, connections.wanted);
        }
        if let Some(subscriptions) = report.subscriptions {
            exposition.set(
                &catalog::LISTENER_SUBSCRIPTIONS,
                &labels,
                subscriptions.established,
            );
            exposition.set(
                &catalog::LISTENER_SUBSCRIPTIONS_WANTED,
                &labels,
                subscriptions.wanted,
            );
        }
    }
    collect_rate_limits(exposition, &overview.rate_limits);
}

/// Adds the rate limits with the least left.
fn collect_rate_limits(exposition: &mut Exposition, limits: &[(PlatformName, RateLimit)]) {
    let mut limits: Vec<_> = limits.iter().collect();
    limits.sort_by(|(one, a), (other, b)| {
        let share = |limit: &RateLimit| f64::from(limit.left) / f64::from(limit.size.max(1));
        let by_share = share(a).partial_cmp(&share(b)).unwrap_or(Ordering::Equal);
        one.cmp(other).then(by_share).then(a.bucket.cmp(&b.bucket))
    });
    for of_platform in limits.chunk_by(|(one, _), (other, _)| one == other) {
        for (platform, limit) in of_platform.iter().take(BUCKETS) {
            let labels = [platform.as_str(), &limit.bucket];
            exposition.set(&catalog::RATE_LIMIT_REMAINING, &labels, u64::from(limit.left));
            exposition.set(&catalog::RATE_LIMIT, &labels, u64::from(limit.size));
        }
    }
}

/// Adds the pollers and their checks.
pub(super) fn collect_checks(exposition: &mut Exposition, overview: &Overview, intervals: &Intervals) {
    for (check, interval) in [
        (Probe::Connection, intervals.connection),
        (Probe::Auth, intervals.auth),
        (Probe::Stream, intervals.stream),
        (Probe::Viewers, intervals.viewers),
        (Probe::Permissions, intervals.permissions),
    ] {
        exposition.set(&catalog::CHECK_INTERVAL, &[check.as_str()], interval);
    }
    for poller in &overview.pollers {
        let labels = [poller.platform.as_str(), poller.name];
        exposition.set(&catalog::PROBES, &labels, poller.runs);
        exposition.set(&catalog::PROBE_REQUESTS, &labels, poller.calls);
        exposition.set(&catalog::PROBE_PROBLEMS, &labels, poller.problems);
        exposition.set(&catalog::TICKS_SKIPPED, &labels, poller.skipped);
    }
    for poller in &overview.pollers {
        let platform = poller.platform.as_str();
        if poller.probes.contains(&Probe::Connection) {
            // Every platform has this check, so that one without a success can be alerted on.
            let labels = [platform, Probe::Connection.as_str()];
            exposition.set(&catalog::CHECK_LAST_SUCCESS, &labels, Timestamp::EPOCH);
        }
        for (check, at) in &poller.evidence {
            exposition.set(&catalog::CHECK_LAST_SUCCESS, &[platform, check.as_str()], *at);
        }
    }
}
