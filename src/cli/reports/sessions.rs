//! The streams of sources, from their starts to their ends: `sources history --sessions`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::freshness::age_ms;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::view::cells;
use crate::view::envelope::UnusableItem;
use crate::view::past::{End, Session};

#[derive(Debug, Clone)]
pub struct SessionsReport {
    pub as_of: Timestamp,
    /// The streams, newest first.
    pub sessions: Vec<(SourceKey, Session)>,
    /// Number of streams before the limit.
    pub total: usize,
    /// Documents and names that cannot be used.
    pub unusable: Vec<UnusableItem>,
}

/// One stream as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionItem {
    /// The source.
    pub key: String,
    /// The platform's id of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// `live`, `ended`, or `unknown` where nothing is proven about its end.
    pub state: SessionState,
    /// When it began; absent where it was live already when it was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub start: Option<Timestamp>,
    /// When it ended; absent where that is not known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub end: Option<Timestamp>,
    /// When it was last proven to be live, where the end is not known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ended_after: Option<Timestamp>,
    /// When it was first missing, where the end is not known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ended_before: Option<Timestamp>,
    /// Its length in milliseconds, where both start and end are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<u64>,
    /// Its least length in milliseconds, where the start is known and the end is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_at_least_ms: Option<u64>,
}

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Live at the last proof.
    Live,
    /// Over.
    Ended,
    /// Nothing is proven about its end.
    Unknown,
}

impl SessionItem {
    fn of((key, session): &(SourceKey, Session)) -> Self {
        let (state, end, ended_after, ended_before) = match session.end {
            End::Live { proven } => (SessionState::Live, None, Some(proven), None),
            End::At(at) => (SessionState::Ended, Some(at), None, None),
            End::Between { proven, missing } => (SessionState::Ended, None, Some(proven), Some(missing)),
            End::Unknown { proven } => (SessionState::Unknown, None, Some(proven), None),
        };
        let since_start = |until: Option<Timestamp>| Some(age_ms(session.start?, until?));
        Self {
            key: key.to_string(),
            stream_id: session.stream_id.clone(),
            state,
            start: session.start,
            end,
            ended_after,
            ended_before,
            length_ms: since_start(end),
            length_at_least_ms: since_start(ended_after),
        }
    }
}

impl Report for SessionsReport {
    type Item = SessionItem;
    const KIND: &'static str = "SessionList";
    const CSV: &'static [&'static str] = &[
        "key",
        "streamId",
        "state",
        "start",
        "end",
        "endedAfter",
        "endedBefore",
        "lengthMs",
        "lengthAtLeastMs",
    ];
    const LIMITED: bool = true;

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SessionItem> {
        self.sessions.iter().map(SessionItem::of).collect()
    }

    fn names(&self) -> Vec<String> {
        let ids = self
            .sessions
            .iter()
            .filter_map(|(_, session)| session.stream_id.clone());
        ids.collect()
    }

    fn total(&self) -> Option<usize> {
        Some(self.total)
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        if self.sessions.is_empty() {
            return View::default();
        }
        let rows = self.sessions.iter().map(|(key, session)| {
            vec![
                cells::session_start(session),
                cells::session_end(session),
                cells::session_length(session),
                Cell::new(key.to_string()),
                Cell::maybe(session.stream_id.as_deref()),
            ]
        });
        let columns = vec![
            Column::kept("START"),
            Column::kept("END"),
            Column::kept("LENGTH").right(),
            Column::kept("SOURCE"),
            Column::ranked("STREAM", 1),
        ];
        View::wrapped(columns, rows)
    }

    fn notes(&self) -> Vec<Note> {
        if self.sessions.is_empty() {
            return vec![Note::hint(Tone::Dim, "no streams are recorded", None)];
        }
        Vec::new()
    }
}
