//! What changed about a source, and how long each state had lasted: `sources history`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Column, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::cli::reports::cells;
use crate::core::freshness::age_ms;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::verdict::explain;
use crate::store::HistoryEntry;

/// A source's past.
#[derive(Debug, Clone)]
pub struct HistoryReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The source.
    pub key: SourceKey,
    /// Its transitions, newest first.
    pub entries: Vec<HistoryEntry>,
}

/// One transition as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem {
    /// The source.
    pub key: String,
    #[serde(flatten)]
    entry: HistoryEntry,
    /// The rule in words.
    pub because: &'static str,
    /// How long the state before it had lasted, in milliseconds: of a stream that ended, its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
}

impl Report for HistoryReport {
    type Item = HistoryItem;
    const KIND: &'static str = "HistoryList";
    const CSV: &'static [&'static str] = &[
        "key",
        "at",
        "facet",
        "from",
        "to",
        "streamId",
        "lastedMs",
        "rule",
        "recordedAt",
        "id",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<HistoryItem> {
        let item = |(index, entry): (usize, &HistoryEntry)| HistoryItem {
            key: self.key.to_string(),
            because: explain(&entry.transition.rule),
            lasted_ms: self.lasted(index),
            entry: entry.clone(),
        };
        self.entries.iter().enumerate().map(item).collect()
    }

    fn names(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.id.clone()).collect()
    }

    fn view(&self) -> View {
        if self.entries.is_empty() {
            return View::default();
        }
        let rows = self.entries.iter().enumerate().map(|(index, entry)| {
            let transition = &entry.transition;
            vec![
                Cell::new(cells::moment(transition.at)).tone(Tone::Dim),
                Cell::new(cells::ago(age_ms(transition.at, self.as_of))),
                Cell::new(transition.facet.as_str()),
                cells::change(transition),
                Cell::maybe(self.lasted(index).map(humane::span)),
                Cell::maybe(transition.stream_id.as_deref()),
                Cell::new(explain(&transition.rule)).tone(Tone::Dim),
            ]
        });
        View {
            blocks: vec![Block::Table(Grid {
                columns: vec![
                    Column::ranked("AT", 2),
                    Column::kept("AGE").right(),
                    Column::kept("WHAT"),
                    Column::kept("CHANGE").elastic(20),
                    Column::ranked("AFTER", 1).right(),
                    Column::ranked("STREAM", 6).wide(),
                    Column::ranked("WHY", 3).elastic(20),
                ],
                rows: rows.collect(),
                headed: true,
            })],
        }
    }

    fn notes(&self) -> Vec<Note> {
        if self.entries.is_empty() {
            let what = format!(
                "nothing has changed about {} since it was first looked at",
                self.key
            );
            return vec![Note::hint(Tone::Warn, what, Some("bitbrat probe"))];
        }
        Vec::new()
    }
}

impl HistoryReport {
    /// How long the state lasted that the entry ended: since the next older change of the same verdict.
    fn lasted(&self, index: usize) -> Option<u64> {
        let (newer, older) = self.entries.split_at_checked(index + 1)?;
        let ended = &newer.last()?.transition;
        let began = older.iter().find(|entry| entry.transition.facet == ended.facet)?;
        Some(age_ms(began.transition.at, ended.at))
    }
}
