//! Changes of the list of sources: `sources add` and `sources remove`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Listed;
use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};

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

impl Listed for EditItem {
    const KIND: &'static str = "SourceEditList";
    const CSV: &'static [&'static str] = &["source", "result", "file"];

    fn name(&self) -> String {
        self.source.clone()
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| {
            Block::Line(vec![
                Cell::new(&item.source).glyph(Glyph::Good).tone(Tone::Good),
                Cell::new(format!("{} {}", item.result.label(), item.file)),
            ])
        };
        View {
            blocks: items.iter().map(line).collect(),
        }
    }
}
