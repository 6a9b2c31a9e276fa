//! Many sources in one table: `sources status` and `sources list`.

use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::cli::reports::columns::{RowCells, SourceColumn};
use crate::core::time::Timestamp;
use crate::platforms::Problem;
use crate::view::attention::{self, Attention, Totals};
use crate::view::cells;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::item::SourceItem;
use crate::view::source_row::SourceRow;

#[derive(Debug, Clone)]
pub struct SourcesReport {
    pub as_of: Timestamp,
    /// The sources in the order in which they are shown; the summary and the advice are about all of them, whatever the limit.
    pub rows: Vec<SourceRow>,
    /// Stored documents and configured names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// Problems of a probe that belong to no source.
    pub problems: Vec<Problem>,
    pub show: Show,
    /// The part of it that was requested.
    pub choice: Choice,
}

/// What was requested of a list of sources.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Number of sources shown at most.
    pub limit: Option<usize>,
    /// Columns of tables and CSV; `None` for the usual ones.
    pub columns: Option<Vec<SourceColumn>>,
    /// The filters as they were typed, if any.
    pub filters: Option<String>,
    /// Number of sources before the filters.
    pub considered: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Status,
    /// What was known at a time in the past.
    Past,
    /// Each source and where it is configured.
    List,
}

impl Report for SourcesReport {
    type Item = SourceItem;
    const KIND: &'static str = SourceItem::KIND;
    const CSV: &'static [&'static str] = &[
        "key",
        "platform",
        "id",
        "displayName",
        "status",
        "streamStatus",
        "viewerCount",
        "authStatus",
        "permissions",
        "latencyMs",
        "health",
        "stale",
        "lastStatusUpdate",
        "lastStreamUpdate",
        "lastError.code",
        "lastError.at",
        "metrics.messagesIn",
        "metrics.messagesOut",
        "metrics.errors",
        "metrics.reconnects",
        "configured",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    const LIMITED: bool = true;

    fn items(&self) -> Vec<SourceItem> {
        self.shown().iter().map(SourceItem::from).collect()
    }

    fn names(&self) -> Vec<String> {
        let rows = self.shown().iter();
        rows.map(|row| row.summary.key.to_string()).collect()
    }

    fn total(&self) -> Option<usize> {
        Some(self.rows.len())
    }

    fn csv_fields(&self) -> Vec<&'static str> {
        let Some(columns) = &self.choice.columns else {
            return Self::CSV.to_vec();
        };
        let mut fields = Vec::new();
        for field in columns.iter().flat_map(|column| column.fields()) {
            if !fields.contains(field) {
                fields.push(*field);
            }
        }
        fields
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        self.table(false)
    }

    fn wide_view(&self) -> View {
        self.table(true)
    }

    fn notes(&self) -> Vec<Note> {
        if let Some(filters) = self.choice.filters.as_ref().filter(|_| self.is_empty()) {
            let what = match self.choice.considered {
                0 => "no sources are configured and none are stored".to_owned(),
                1 => format!("the one source does not match {filters}"),
                count => format!(
                    "none of {} sources match {filters}",
                    humane::thousands(count as u64)
                ),
            };
            return vec![Note::hint(Tone::Dim, what, None)];
        }
        if self.is_empty() {
            return vec![
                Note::hint(Tone::Warn, "no sources are configured and none are stored", None),
                Note::hint(
                    Tone::Warn,
                    "add one to bitbrat.toml ([[source]] platform = \"twitch\" id = \"123456\"), or set everything up",
                    Some("bitbrat init"),
                ),
                Note::hint(
                    Tone::Warn,
                    "to try it without any credentials, use the simulated platforms",
                    Some("bitbrat --demo sources status --probe"),
                ),
            ];
        }
        match self.show {
            Show::Status => {
                let mut notes = vec![Note::Summary(self.summary())];
                notes.extend(self.left_out());
                notes.extend(self.hints());
                notes
            }
            // What to do about it is not known: it may be over.
            Show::Past => {
                let as_of = format!("as of {}, from the history", cells::moment(self.as_of));
                let mut summary = vec![Cell::new(as_of).tone(Tone::Strong)];
                summary.extend(self.summary());
                let mut notes = vec![Note::Summary(summary)];
                notes.extend(self.left_out());
                notes
            }
            Show::List => self.left_out().into_iter().collect(),
        }
    }
}

impl SourcesReport {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unusable.is_empty()
    }

    /// Returns the rows within the limit.
    fn shown(&self) -> &[SourceRow] {
        let count = self.choice.limit.unwrap_or(usize::MAX).min(self.rows.len());
        &self.rows[..count]
    }

    fn left_out(&self) -> Option<Note> {
        left_out(self.rows.len(), self.choice.limit)
    }

    fn table(&self, wide: bool) -> View {
        if self.is_empty() {
            return View::default();
        }
        let grid = match (&self.choice.columns, self.show) {
            (Some(columns), _) => {
                let layouts = columns.iter().enumerate();
                let layouts = layouts.map(|(place, column)| column.chosen_layout(place));
                self.grid(columns, layouts.collect())
            }
            (None, Show::Status | Show::Past) => self.status_grid(wide),
            (None, Show::List) => self.grid(&SourceColumn::LIST, layouts(&SourceColumn::LIST)),
        };
        View {
            blocks: vec![Block::Table(grid)],
        }
    }

    fn status_grid(&self, wide: bool) -> Grid {
        let noted = !self.unusable.is_empty() || self.shown().iter().any(|row| row.note().is_some());
        let mut columns = SourceColumn::STATUS.to_vec();
        if wide {
            columns.extend(SourceColumn::WIDE);
        }
        if noted {
            columns.push(SourceColumn::Note);
        }
        self.grid(&columns, layouts(&columns))
    }

    fn grid(&self, columns: &[SourceColumn], layouts: Vec<Column>) -> Grid {
        let rows = self.shown().iter().map(|row| {
            let cells = RowCells::new(row, self.as_of);
            columns.iter().map(|column| cells.cell(*column)).collect()
        });
        let unusable = self
            .unusable
            .iter()
            .map(|unusable| unusable_cells(columns, unusable));
        Grid::headed(layouts, rows.chain(unusable))
    }

    /// The whole report in one line; zero counts that are no problem are left out.
    fn summary(&self) -> Vec<Cell> {
        let Totals {
            live,
            connected,
            stale,
            need,
            ..
        } = Totals::of(&self.rows);
        let mut parts = vec![
            Cell::new(humane::count(self.rows.len() as u64, "source")),
            Cell::new(format!("{} live", humane::thousands(live))).tone(if live > 0 {
                Tone::Live
            } else {
                Tone::Plain
            }),
            Cell::new(format!("{} connected", humane::thousands(connected))),
        ];
        if stale > 0 {
            parts.push(Cell::new(format!("{} stale", humane::thousands(stale))).tone(Tone::Warn));
        }
        if !self.unusable.is_empty() {
            parts.push(Cell::new(format!("{} unusable", self.unusable.len())).tone(Tone::Warn));
        }
        if need > 0 {
            let verb = if need == 1 { "needs" } else { "need" };
            parts.push(Cell::new(format!("{} {verb} attention", humane::thousands(need))).tone(Tone::Bad));
        }
        parts
    }

    /// What a person should do, each hint only once.
    fn hints(&self) -> Vec<Note> {
        let hint = |entry: Attention| Note::hint(entry.tone(), &*entry.what, entry.command.as_deref());
        attention::of(&self.rows, &self.unusable, &self.problems)
            .into_iter()
            .map(hint)
            .collect()
    }
}

fn layouts(columns: &[SourceColumn]) -> Vec<Column> {
    columns.iter().map(|column| column.layout()).collect()
}

/// Returns the note of how many entries a limit leaves out, if any.
pub fn left_out(total: usize, limit: Option<usize>) -> Option<Note> {
    let limit = limit.filter(|limit| *limit < total)?;
    let more = humane::count((total - limit) as u64, "more source");
    let verb = if total - limit == 1 { "is" } else { "are" };
    let what = format!("{more} {verb} not shown (--limit {limit})");
    Some(Note::hint(Tone::Dim, what, None))
}

/// Returns a row about something that cannot be used: its id, what it is, and the reason in the last column.
fn unusable_cells(columns: &[SourceColumn], unusable: &UnusableItem) -> Vec<Cell> {
    let label = match unusable.what {
        UnusableKind::Document => "unusable",
        UnusableKind::Name => "unresolved",
    };
    let cells = columns.iter().enumerate().map(|(place, column)| match column {
        SourceColumn::Source => Cell::new(&unusable.id),
        _ if place > 0 && place + 1 == columns.len() => Cell::new(&unusable.reason).tone(Tone::Warn),
        SourceColumn::Status => Cell::label(label).glyph(Glyph::Unknown).tone(Tone::Warn),
        SourceColumn::Name | SourceColumn::Stream => Cell::none(),
        _ => Cell::label(""),
    });
    cells.collect()
}
