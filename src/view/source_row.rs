//! One row of the tables of sources.

use std::borrow::Cow;
use std::sync::Arc;

use crate::core::document::SourceDocument;
use crate::core::freshness::{Field, Freshness, Intervals};
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::verdict::AuthStatus;
use crate::view::health::{Findings, Health};

#[derive(Debug, Clone)]
pub struct SourceRow {
    pub summary: Arc<SourceSummary>,
    /// How old the evidence is.
    pub freshness: Freshness,
    /// All of its problems.
    pub findings: Findings,
    /// Where it is configured (`bitbrat.toml`, an environment variable); `None` when it is only stored.
    pub configured: Option<String>,
    pub stored: bool,
}

impl SourceRow {
    /// Judges a source that is configured and of which nothing is stored.
    pub fn unchecked(key: SourceKey, intervals: &Intervals, now: Timestamp) -> Self {
        let nothing = SourceSummary::of(&SourceDocument::new(key));
        Self {
            stored: false,
            ..Self::new(nothing, intervals, now)
        }
    }

    /// Judges `summary` at `now`.
    pub fn new(summary: impl Into<Arc<SourceSummary>>, intervals: &Intervals, now: Timestamp) -> Self {
        let summary = summary.into();
        let freshness = Freshness::of(&summary, intervals, now);
        Self {
            findings: Findings::of(&summary, &freshness),
            freshness,
            summary,
            configured: None,
            stored: true,
        }
    }

    /// Whether something that the table shows is too old to rely on.
    pub fn is_stale(&self) -> bool {
        let shows_stream = self.summary.stream_status != StreamStatus::Unknown;
        self.findings.stale || (shows_stream && self.freshness.is_stale(Field::StreamStatus))
    }

    /// Whether it is certainly live now.
    pub fn is_live(&self) -> bool {
        self.summary.stream_status == StreamStatus::Online && !self.freshness.is_stale(Field::StreamStatus)
    }

    /// Whether it needs attention or is down, however old the evidence is.
    pub fn is_failing(&self) -> bool {
        matches!(self.findings.worst(), Health::Down | Health::Auth)
    }

    /// Returns its key, with its name where it has one.
    pub fn named(&self) -> String {
        match &self.summary.display_name {
            Some(name) => format!("{} ({name})", self.summary.key),
            None => self.summary.key.to_string(),
        }
    }

    /// Returns the age of the oldest of status and stream, in milliseconds.
    pub fn age_ms(&self) -> Option<u64> {
        self.freshness.status_age_ms.max(self.freshness.stream_age_ms)
    }

    /// Whether there ever was any evidence.
    pub fn is_checked(&self) -> bool {
        self.summary.proven
    }

    /// Returns how urgent it is for a person: what needs attention first, then other problems, then what is live.
    pub fn urgency(&self) -> u8 {
        let found = self.findings;
        if found.needs_person() {
            0
        } else if found.disconnected {
            1
        } else if self.is_stale() || found.unknown {
            2
        } else if self.summary.stream_status == StreamStatus::Online {
            3
        } else {
            4
        }
    }

    /// Returns what the table shows about a source beside its verdicts.
    pub fn note(&self) -> Option<Cow<'_, str>> {
        let summary = &self.summary;
        if let Some(error) = &summary.failure {
            return Some(Cow::Borrowed(&error.message));
        }
        if summary.auth_status.is_some_and(|auth| auth != AuthStatus::Valid) {
            let identity = summary.identity.as_ref()?;
            return Some(match summary.deciding_reason() {
                Some(reason) => Cow::Owned(format!("{identity}: {reason}")),
                None => Cow::Borrowed(identity.as_str()),
            });
        }
        None
    }
}
