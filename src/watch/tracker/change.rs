//! What changed of a source: the steps that changed a verdict, with the write and the history that follow.

use crate::core::compact::CompactDocument;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::{Transition, transitions};
use crate::core::verdict::{CLOSED_BY_US, NOTHING_PROVEN, Verdict};
use crate::store::{HistoryEntry, Version, Write};

/// The changes of one source by a batch.
#[derive(Debug)]
pub struct Change {
    pub source: SourceKey,
    /// The source before the batch.
    pub before: CompactDocument,
    /// The changes of its verdicts, step by step; there is at least one.
    pub steps: Vec<Step>,
}

impl Change {
    /// Returns the write of the new document and its history.
    pub(super) fn write(&self, base: Option<Version>, now: Timestamp) -> Option<Write> {
        Some(Write {
            document: self.steps.last()?.after.clone(),
            base,
            history: self.history(now),
        })
    }

    /// Returns the transitions to record. A status before any evidence of the connection is none.
    pub fn transitions(&self) -> impl Iterator<Item = &Transition> {
        let changes = self.steps.iter().flat_map(|step| &step.changes);
        changes.filter(|change| !(change.initial && change.rule == NOTHING_PROVEN))
    }

    fn history(&self, now: Timestamp) -> Vec<HistoryEntry> {
        HistoryEntry::of_changes(&self.source, now, self.transitions())
    }
}

/// One observation that changed a verdict.
#[derive(Debug)]
pub struct Step {
    /// The source after the observation.
    pub after: SourceDocument,
    pub changes: Vec<Transition>,
    /// The origin of the observation.
    pub by: String,
    /// Whether nothing was known before.
    pub first: bool,
    /// Whether nothing had been claimed about the connection before, or we had closed it ourselves.
    pub unproven_before: bool,
}

impl Step {
    /// Joins `more` and returns the step, if it changes the verdict since `before`.
    pub(super) fn of(
        document: &mut SourceDocument,
        before: Option<Verdict>,
        more: Knowledge,
        by: &str,
    ) -> Option<Self> {
        let before = before.unwrap_or_else(|| document.verdict.clone());
        document.join(more);
        let changes = transitions(&before, &document.verdict);
        (!changes.is_empty()).then(|| Self {
            first: nothing_known(&before),
            unproven_before: matches!(before.status.rule, NOTHING_PROVEN | CLOSED_BY_US),
            after: document.clone(),
            changes,
            by: by.to_owned(),
        })
    }
}

/// Whether a verdict has no evidence: the first observation of a source is no change of it.
fn nothing_known(verdict: &Verdict) -> bool {
    verdict.status.at.is_none() && verdict.stream.at.is_none() && verdict.auth.is_none()
}
