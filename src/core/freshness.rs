//! How old is what we know? Staleness is computed by whoever reads, from the age of the evidence alone.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;

/// Evidence older than so many of its intervals is stale (our decision: one look may fail, a second may be late).
const INTERVALS_UNTIL_STALE: u64 = 3;

/// How often each thing is looked at, by the schedule in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Between two looks at the connection; also the interval of the latency.
    pub connection: Duration,
    /// Between two checks of the authorisation.
    pub auth: Duration,
    /// Between two looks at the stream.
    pub stream: Duration,
    /// Between two counts of viewers.
    pub viewers: Duration,
    /// Between two questions for permissions.
    pub permissions: Duration,
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
    /// Computes how fresh what `summary` says is at `now`.
    pub fn of(summary: &SourceSummary, intervals: &Intervals, now: Timestamp) -> Self {
        let mut stale = Vec::new();
        let mut age = |at: Option<Timestamp>, interval: Duration, field| {
            let age = age_ms(at?, now);
            if age > limit_ms(interval) {
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

    /// Returns whether `field` is too old to rely on.
    pub fn is_stale(&self, field: Field) -> bool {
        self.stale.contains(&field)
    }
}

/// Returns the age of something that happened `at`, in milliseconds; zero when it is dated in the future.
pub fn age_ms(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.millis_since(at)).unwrap_or(0)
}

fn limit_ms(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(INTERVALS_UNTIL_STALE)
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
    fn evidence_is_stale_after_three_intervals_and_not_a_moment_sooner() {
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
    fn what_nothing_is_known_of_has_no_age_and_is_not_stale() {
        let fresh = Freshness::of(&summary([]), &Intervals::default(), at(0));
        assert_eq!(fresh, Freshness::default());
    }

    #[test]
    fn evidence_dated_ahead_of_our_clock_is_new_not_negative() {
        let fresh = Freshness::of(&connected_and_live(), &Intervals::default(), at(-60));
        assert_eq!((fresh.status_age_ms, fresh.stale), (Some(0), vec![]));
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
