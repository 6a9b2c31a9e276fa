//! Changes of the list of sources: `sources add` and `sources remove`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::time::Timestamp;

/// Changes of a configuration file.
#[derive(Debug, Clone)]
pub struct EditReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The sources, in the order in which they were given.
    pub items: Vec<EditItem>,
    /// Notes about the file.
    pub notes: Vec<Note>,
}

/// One source as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EditItem {
    /// The source as it stands in the file: `platform:id` or `platform:name`.
    pub source: String,
    /// What was done.
    pub result: EditResult,
    /// The file.
    pub file: String,
}

/// What was done with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EditResult {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It was there already.
    Unchanged,
}

impl EditResult {
    fn label(self) -> &'static str {
        match self {
            Self::Added => "added to",
            Self::Removed => "removed from",
            Self::Unchanged => "already in",
        }
    }
}

impl Report for EditReport {
    type Item = EditItem;
    const KIND: &'static str = "SourceEditList";
    const CSV: &'static [&'static str] = &["source", "result", "file"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<EditItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.source.clone()).collect()
    }

    fn view(&self) -> View {
        let line = |item: &EditItem| {
            Block::Line(vec![
                Cell::new(&item.source).glyph(Glyph::Good).tone(Tone::Good),
                Cell::new(format!("{} {}", item.result.label(), item.file)),
            ])
        };
        View {
            blocks: self.items.iter().map(line).collect(),
        }
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.clone()
    }
}
