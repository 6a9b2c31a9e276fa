//! What `store migrate` copied, or would copy.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::time::Timestamp;
use crate::view::envelope::UnusableItem;

#[derive(Debug, Clone)]
pub struct MigrateReport {
    pub as_of: Timestamp,
    pub from: String,
    pub to: String,
    pub items: Vec<MigrateItem>,
    /// Documents that could not be read.
    pub unusable: Vec<UnusableItem>,
    /// Whether nothing was written.
    pub dry_run: bool,
}

/// One document.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrateItem {
    /// The source.
    pub key: String,
    /// What became of its document, or would become with `--dry-run`.
    pub copied: Copied,
    /// History entries handed over; those that are there already are not kept twice.
    pub history: usize,
    /// Why it could not be copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Copied {
    /// It was not there before.
    New,
    /// It was joined with what was there.
    Joined,
    /// Everything was there already.
    Unchanged,
}

impl Report for MigrateReport {
    type Item = MigrateItem;
    const KIND: &'static str = "MigrateList";
    const CSV: &'static [&'static str] = &["key", "copied", "history", "problem"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<MigrateItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.key.clone()).collect()
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        if self.items.is_empty() && self.unusable.is_empty() {
            return View::default();
        }
        let rows = self.items.iter().map(|item| {
            let copied = match (&item.problem, item.copied) {
                (Some(problem), _) => Cell::new(problem).glyph(Glyph::Bad).tone(Tone::Bad),
                (None, Copied::New) => Cell::new("new").glyph(Glyph::Good).tone(Tone::Good),
                (None, Copied::Joined) => Cell::new("joined").glyph(Glyph::Good).tone(Tone::Good),
                (None, Copied::Unchanged) => Cell::new("unchanged").tone(Tone::Dim),
            };
            vec![
                Cell::new(&item.key),
                copied,
                Cell::new(humane::thousands(item.history as u64)),
            ]
        });
        let unusable = self.unusable.iter().map(|unusable| {
            let reason = Cell::new(&unusable.reason).glyph(Glyph::Bad).tone(Tone::Warn);
            vec![Cell::new(&unusable.id), reason, Cell::none()]
        });
        View::table(
            vec![
                Column::kept("SOURCE"),
                Column::kept("DOCUMENT").elastic(12),
                Column::ranked("HISTORY", 1).right(),
            ],
            rows.chain(unusable),
        )
    }

    fn notes(&self) -> Vec<Note> {
        let copied = self
            .items
            .iter()
            .filter(|item| item.copied != Copied::Unchanged && item.problem.is_none());
        let verb = if self.dry_run { "would be copied" } else { "copied" };
        let mut parts = vec![Cell::new(format!(
            "{} of {} {verb}",
            humane::thousands(copied.count() as u64),
            humane::count(self.items.len() as u64, "document"),
        ))];
        parts.push(Cell::new(format!("{} to {}", self.from, self.to)).tone(Tone::Dim));
        if !self.unusable.is_empty() {
            let left = humane::count(self.unusable.len() as u64, "unusable document");
            parts.push(Cell::new(format!("{left} left behind")).tone(Tone::Warn));
        }
        vec![Note::Summary(parts)]
    }
}
