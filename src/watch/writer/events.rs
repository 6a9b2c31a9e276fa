//! Which events report a change.

use crate::core::document::SourceDocument;
use crate::core::event::{Event, EventBuilder, EventKind, InitialEvents};
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{NOTHING_PROVEN, Verdict};
use crate::watch::queue::Class;
use crate::watch::state_file::NewEvent;
use crate::watch::tracker::Change;

/// Which events are left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventRules {
    pub(super) initial_events: InitialEvents,
    /// Whether first observations are reported at all.
    pub(super) lists_baselines: bool,
}

impl EventRules {
    /// Builds the events that report a source's steps since `before`, the document that was published last.
    pub(super) fn events(self, change: &Change, mut before: SourceDocument, now: Timestamp) -> Vec<NewEvent> {
        let mut events = Vec::new();
        for step in &change.steps {
            if !self.lists_baselines && step.changes.iter().all(|change| change.initial) {
                continue;
            }
            let this = EventBuilder {
                before: &before,
                after: &step.after,
                by: &step.by,
                observed_at: now,
            };
            let class = if step.first && !is_live(&step.after.verdict) {
                Class::Baseline
            } else {
                Class::Transition
            };
            let mut of_step = this.events(&step.changes);
            of_step.retain(|event| !self.suppresses(event, &step.after.verdict));
            if of_step.is_empty() {
                // The next event includes this evidence.
                continue;
            }
            events.extend(of_step.into_iter().map(|event| NewEvent {
                class,
                event,
                published: Some(step.after.knowledge.clone()),
            }));
            before = step.after.clone();
        }
        events
    }

    /// Whether a baseline is not published: baselines are disabled, or it would have to claim a status before the connection was
    /// probed.
    fn suppresses(self, event: &Event, after: &Verdict) -> bool {
        let unproven = event.kind == EventKind::SourceStatus && after.status.rule == NOTHING_PROVEN;
        event.initial && (unproven || self.initial_events == InitialEvents::Off)
    }
}

fn is_live(verdict: &Verdict) -> bool {
    verdict.stream.value == StreamStatus::Online
}
