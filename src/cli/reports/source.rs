//! Sources in full: every verdict with its evidence, its age and the rule that decided.

use crate::cli::output::view::{Block, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::time::Timestamp;
use crate::view::detail::{SourceDetail, SourceInFull};
use crate::view::envelope::UnusableItem;

mod describe;

/// One or several sources and all of their evidence.
#[derive(Debug, Clone)]
pub struct SourceReport {
    pub as_of: Timestamp,
    /// The sources in the order in which they are shown.
    pub sources: Vec<SourceInFull>,
    /// Documents and names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// Number of sources before the limit.
    pub total: usize,
    pub notes: Vec<Note>,
}

impl Report for SourceReport {
    type Item = SourceDetail;
    const KIND: &'static str = SourceDetail::KIND;
    const CSV: &'static [&'static str] = &[
        "key",
        "displayName",
        "status",
        "verdicts.status.rule",
        "streamStatus",
        "verdicts.stream.rule",
        "viewerCount",
        "authStatus",
        "permissions",
        "health",
        "stale",
    ];
    const LIMITED: bool = true;

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SourceDetail> {
        self.sources.iter().map(SourceInFull::detail).collect()
    }

    fn names(&self) -> Vec<String> {
        let sources = self.sources.iter();
        sources.map(|source| source.document.key.to_string()).collect()
    }

    fn total(&self) -> Option<usize> {
        Some(self.total)
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        let mut blocks = Vec::new();
        for source in &self.sources {
            if !blocks.is_empty() {
                blocks.extend([Block::Gap, Block::Gap]);
            }
            blocks.extend(source.describe().blocks);
        }
        View { blocks }
    }

    fn notes(&self) -> Vec<Note> {
        let unusable = self.unusable.iter().map(|unusable| {
            let what = format!("{} cannot be shown: {}", unusable.id, unusable.reason);
            Note::hint(Tone::Warn, what, Some("bitbrat doctor"))
        });
        self.notes.iter().cloned().chain(unusable).collect()
    }
}
