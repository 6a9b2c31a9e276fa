//! What `sources prune` removed, or would remove.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::time::Timestamp;

/// Documents that belong to no source.
#[derive(Debug, Clone)]
pub struct PruneReport {
    pub as_of: Timestamp,
    pub items: Vec<PruneItem>,
    pub dry_run: bool,
}

/// One document.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PruneItem {
    /// Its id in the store.
    pub document_id: String,
    /// Why no source stands behind it.
    pub reason: String,
    /// Whether it was removed.
    pub removed: bool,
    /// The file with a copy of a damaged document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub copied_to: Option<PathBuf>,
}

impl Report for PruneReport {
    type Item = PruneItem;
    const KIND: &'static str = "PruneList";
    const CSV: &'static [&'static str] = &["documentId", "removed", "reason", "copiedTo"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<PruneItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.document_id.clone()).collect()
    }

    fn view(&self) -> View {
        if self.items.is_empty() {
            return View::default();
        }
        let rows = self.items.iter().map(|item| {
            let state = match (item.removed, self.dry_run) {
                (true, _) => Cell::new("removed").glyph(Glyph::Good).tone(Tone::Good),
                (false, true) => Cell::new("would be removed").tone(Tone::Warn),
                (false, false) => Cell::new("was gone or changed").tone(Tone::Dim),
            };
            let why = match item.copied_to.as_ref().filter(|_| item.removed) {
                Some(path) => format!("{}; its copy is {}", item.reason, path.display()),
                None => item.reason.clone(),
            };
            vec![
                Cell::new(&item.document_id),
                state,
                Cell::new(why).tone(Tone::Dim),
            ]
        });
        View::wrapped(
            vec![
                Column::kept("DOCUMENT"),
                Column::kept("STATE"),
                Column::kept("WHY").elastic(20),
            ],
            rows,
        )
    }

    fn notes(&self) -> Vec<Note> {
        if self.items.is_empty() {
            let nothing = "every stored document belongs to a source; there is nothing to remove";
            return vec![Note::Summary(vec![Cell::new(nothing)])];
        }
        if self.dry_run {
            return vec![Note::hint(
                Tone::Warn,
                "nothing was removed",
                Some("bitbrat sources prune"),
            )];
        }
        Vec::new()
    }
}
