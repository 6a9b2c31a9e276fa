//! What changed about sources, and how long each state had lasted: `sources history`.

use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::freshness::age_ms;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::verdict::explain;
use crate::store::HistoryEntry;
use crate::view::cells;
use crate::view::envelope::UnusableItem;
use crate::view::history::{HistoryItem, lasted};

/// The past of one or several sources.
#[derive(Debug, Clone)]
pub struct HistoryReport {
    pub as_of: Timestamp,
    pub keys: Vec<SourceKey>,
    /// Their transitions, newest first.
    pub entries: Vec<(SourceKey, HistoryEntry)>,
    /// Documents and names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// Start of the period that was requested.
    pub since: Option<Timestamp>,
}

impl Report for HistoryReport {
    type Item = HistoryItem;
    const KIND: &'static str = HistoryItem::KIND;
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
        HistoryItem::of(&self.entries)
    }

    fn names(&self) -> Vec<String> {
        self.entries.iter().map(|(_, entry)| entry.id.clone()).collect()
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        if self.entries.is_empty() {
            return View::default();
        }
        let is_one = self.keys.len() < 2;
        let rows = self.entries.iter().enumerate().map(|(index, (key, entry))| {
            let transition = &entry.transition;
            let mut cells = vec![
                Cell::new(cells::moment(transition.at)).tone(Tone::Dim),
                Cell::new(cells::ago(age_ms(transition.at, self.as_of))),
                Cell::new(transition.facet.as_str()),
                cells::change(transition),
                Cell::maybe(lasted(&self.entries, index).map(humane::span)),
                Cell::maybe(transition.stream_id.as_deref()),
                Cell::new(explain(&transition.rule)).tone(Tone::Dim),
            ];
            if !is_one {
                cells.insert(2, Cell::new(key.to_string()));
            }
            cells
        });
        let mut columns = vec![
            Column::ranked("AT", 2),
            Column::kept("AGE").right(),
            Column::kept("WHAT"),
            Column::kept("CHANGE").elastic(20),
            Column::ranked("AFTER", 1).right(),
            Column::ranked("STREAM", 6).wide(),
            Column::ranked("WHY", 3).elastic(20),
        ];
        if !is_one {
            columns.insert(2, Column::kept("SOURCE"));
        }
        View::table(columns, rows)
    }

    fn notes(&self) -> Vec<Note> {
        if self.entries.is_empty() {
            let since = self
                .since
                .map_or_else(|| "it was first checked".to_owned(), cells::moment);
            let about = match self.keys.as_slice() {
                [one] => one.to_string(),
                several => humane::count(several.len() as u64, "source"),
            };
            let what = format!("nothing has changed about {about} since {since}");
            return vec![Note::hint(Tone::Warn, what, Some("bitbrat probe"))];
        }
        Vec::new()
    }
}
