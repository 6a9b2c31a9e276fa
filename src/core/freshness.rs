//! Freshness: staleness is computed when a source is read, only from the age of the evidence.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::future::{ENTRY_TOLERANCE_MS, is_too_far_ahead};
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;

/// Evidence older than this many intervals is stale (our decision: one probe may fail and a second may be late).
const INTERVALS_UNTIL_STALE: u64 = 3;

/// The oldest acceptable evidence; `None` means three times the probe interval.
pub type MaxAge = Option<Duration>;

/// Probe interval of each field in the current schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Between two probes of the connection; also the interval of the latency.
    pub connection: Duration,
    /// Between two authorization checks.
    pub auth: Duration,
    /// Between two probes of the stream.
    pub stream: Duration,
    /// Between two viewer counts.
    pub viewers: Duration,
    /// Between two permission checks.
    pub permissions: Duration,
    /// The oldest evidence that the reader accepts, independent of the intervals; `None` means three intervals.
    pub max_age: Option<Duration>,
}

impl Intervals {
    /// Replaces the limit of three intervals with the reader's limit, if given.
    #[must_use]
    pub fn within(self, max_age: Option<Duration>) -> Self {
        Self {
            max_age: max_age.or(self.max_age),
            ..self
        }
    }

    /// Accounts for publication of unchanged evidence only once per `heartbeat`: until the next one, published evidence has
    /// that age although it was renewed in the meantime.
    #[must_use]
    pub fn renewed_at_most_every(self, heartbeat: Duration) -> Self {
        Self {
            connection: self.connection.max(heartbeat),
            auth: self.auth.max(heartbeat),
            stream: self.stream.max(heartbeat),
            viewers: self.viewers.max(heartbeat),
            permissions: self.permissions.max(heartbeat),
            max_age: self.max_age,
        }
    }

    /// Returns the age in milliseconds from which evidence that is renewed every `interval` is stale.
    pub fn limit_ms(&self, interval: Duration) -> u64 {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match self.max_age {
            Some(max_age) => millis(max_age),
            None => millis(interval).saturating_mul(INTERVALS_UNTIL_STALE),
        }
    }
}

impl Default for Intervals {
    /// The intervals of the default schedule.
    fn default() -> Self {
        Self {
            connection: Duration::from_secs(30),
            auth: Duration::from_secs(3600),
            stream: Duration::from_secs(60),
            viewers: Duration::from_secs(60),
            permissions: Duration::from_secs(600),
            max_age: None,
        }
    }
}

/// The ages of what is known of a source, and which of its fields are too old to rely on.
///
/// A field without evidence has no age and is not stale: nothing is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    /// The fields whose evidence is older than three of its intervals.
    pub stale: Vec<Field>,
    /// Age in milliseconds of what decided `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_age_ms: Option<u64>,
    /// Age in milliseconds of what decided `streamStatus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_age_ms: Option<u64>,
    /// Age in milliseconds of `viewerCount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers_age_ms: Option<u64>,
    /// Age in milliseconds of what decided `authStatus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_age_ms: Option<u64>,
    /// Age in milliseconds of the newest answer about `permissions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_age_ms: Option<u64>,
    /// Age in milliseconds of `latencyMs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_age_ms: Option<u64>,
}

/// A field of the document that can be stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Field {
    /// `status`
    Status,
    /// `streamStatus`
    StreamStatus,
    /// `viewerCount`
    ViewerCount,
    /// `authStatus`
    AuthStatus,
    /// `permissions`
    Permissions,
    /// `latencyMs`
    LatencyMs,
}

impl Freshness {
    /// Computes the freshness of `summary` at `now`.
    pub fn of(summary: &SourceSummary, intervals: &Intervals, now: Timestamp) -> Self {
        let mut stale = Vec::new();
        let mut age = |at: Option<Timestamp>, interval: Duration, field| {
            let at = at?;
            let age = age_ms(at, now);
            if age > intervals.limit_ms(interval) || is_too_far_ahead(at, now) {
                stale.push(field);
            }
            Some(age)
        };
        Self {
            status_age_ms: age(summary.status_at, intervals.connection, Field::Status),
            stream_age_ms: age(summary.stream_at, intervals.stream, Field::StreamStatus),
            viewers_age_ms: age(summary.viewers_at, intervals.viewers, Field::ViewerCount),
            auth_age_ms: age(summary.auth_at, intervals.auth, Field::AuthStatus),
            permissions_age_ms: age(summary.permissions_at, intervals.permissions, Field::Permissions),
            latency_age_ms: age(summary.latency_at, intervals.connection, Field::LatencyMs),
            stale,
        }
    }

    /// Returns whether `field` is stale.
    pub fn is_stale(&self, field: Field) -> bool {
        self.stale.contains(&field)
    }
}

/// Returns the age of an event at time `at`, in milliseconds.
///
/// A date ahead of `now` by more than the tolerated clock difference is wrong, so the true age is unknown; its distance from
/// `now` is returned instead, so that it never counts as new.
pub fn age_ms(at: Timestamp, now: Timestamp) -> u64 {
    let age = now.millis_since(at);
    if age < -ENTRY_TOLERANCE_MS {
        age.unsigned_abs()
    } else {
        u64::try_from(age).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{Fact, LinkState, Observation, Transport};
    use crate::core::source::SourceKey;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn summary(facts: impl IntoIterator<Item = Fact>) -> SourceSummary {
        let key: SourceKey = "twitch:900200".parse().unwrap();
        let seen: Vec<_> = facts
            .into_iter()
            .map(|fact| Observation::new(&key, at(0), "twitch.helix", fact))
            .collect();
        SourceSummary::of(&SourceDocument::from_knowledge(key, Knowledge::of(&seen)))
    }

    fn connected_and_live() -> SourceSummary {
        summary([
            Fact::Connection {
                transport: Transport::Api,
                state: LinkState::Up,
            },
            Fact::StreamSeen {
                stream_id: "1".into(),
                started_at: None,
            },
            Fact::Viewers {
                count: 3,
                stream_id: Some("1".into()),
            },
        ])
    }

    #[test]
    fn schedule_of_seconds_is_not_stale_between_heartbeats() {
        let checked = Intervals {
            connection: Duration::from_secs(2),
            stream: Duration::from_secs(5),
            ..Intervals::default()
        };
        let renewed = checked.renewed_at_most_every(Duration::from_secs(30));
        assert_eq!(renewed.limit_ms(renewed.connection), 90_000);
        assert_eq!(renewed.limit_ms(renewed.stream), 90_000);
        assert_eq!(
            renewed.limit_ms(renewed.auth),
            3 * 3_600_000,
            "checked less often than that"
        );
        let chosen = renewed.within(Some(Duration::from_secs(4)));
        assert_eq!(chosen.limit_ms(chosen.stream), 4_000, "a reader may ask for more");
    }

    #[test]
    fn evidence_is_stale_only_after_three_intervals() {
        let summary = connected_and_live();
        for (seconds, expected) in [
            (90, vec![]),
            (91, vec![Field::Status]),
            (180, vec![Field::Status]),
            (181, vec![Field::Status, Field::StreamStatus, Field::ViewerCount]),
        ] {
            let fresh = Freshness::of(&summary, &Intervals::default(), at(seconds));
            assert_eq!(fresh.stale, expected, "after {seconds} s");
        }
    }

    #[test]
    fn a_chosen_age_replaces_the_intervals_both_ways() {
        let summary = connected_and_live();
        for (max_age, seconds, stale) in [(10, 10, 0), (10, 11, 3), (3600, 3600, 0), (3600, 3601, 3)] {
            let limits = Intervals::default().within(Some(Duration::from_secs(max_age)));
            let fresh = Freshness::of(&summary, &limits, at(seconds));
            assert_eq!(fresh.stale.len(), stale, "{max_age} {seconds}");
        }
    }

    #[test]
    fn what_nothing_is_known_of_has_no_age_and_is_not_stale() {
        let fresh = Freshness::of(&summary([]), &Intervals::default(), at(0));
        assert_eq!(fresh, Freshness::default());
    }

    #[test]
    fn future_dated_evidence_never_appears_fresh() {
        let fresh = |now| {
            let fresh = Freshness::of(&connected_and_live(), &Intervals::default(), at(now));
            (fresh.status_age_ms, fresh.stale.len())
        };
        assert_eq!(fresh(-1), (Some(0), 0), "clocks differ a little");
        assert_eq!(fresh(-30), (Some(30_000), 0));
        assert_eq!(fresh(-61), (Some(61_000), 3));
        assert_eq!(fresh(-3_600), (Some(3_600_000), 3));
    }

    #[test]
    fn the_wire_names_are_those_of_the_document() {
        let fresh = Freshness::of(&connected_and_live(), &Intervals::default(), at(200));
        assert_eq!(
            serde_json::to_value(&fresh).unwrap(),
            serde_json::json!({
                "stale": ["status", "streamStatus", "viewerCount"],
                "statusAgeMs": 200_000, "streamAgeMs": 200_000, "viewersAgeMs": 200_000,
            })
        );
    }
}
