//! Restores the known state at the start: from the file, from a remote store, and what of it was not published yet.

use std::sync::Arc;

use tracing::warn;

use super::{Parts, Route};
use crate::clock::Clock as _;
use crate::core::compact::Compact;
use crate::core::document::SourceDocument;
use crate::core::evidence::{Knowledge, LinkNow};
use crate::core::future::TOLERANCE_MS;
use crate::core::observation::Transport;
use crate::core::source::SourceKey;
use crate::core::transition::transitions;
use crate::failure::{ExitCode, Failure};
use crate::http::LenientClock;
use crate::watch::instance;
use crate::watch::lock::StateLock;
use crate::watch::monitored::MonitoredSource;
use crate::watch::state_file::{StateFile, StateFileError, StateFileOptions};
use crate::watch::tracker::Tracker;
use crate::watch::writer::PendingCommits;

/// Opens the state on disk and restores it.
pub(super) fn restore(parts: &Parts, lock: StateLock) -> Result<(Arc<StateFile>, String, Tracker), Failure> {
    let instance = match &parts.instance {
        Some(name) => name.clone(),
        None => instance::name(&parts.state_dir)
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot name this process").because(&error))?,
    };
    let options = StateFileOptions {
        instance: instance.clone(),
        bound: parts.outbox_capacity,
        has_sink: !matches!(parts.route, Route::File),
        has_alerts: parts.has_alerts,
        history: parts.documents.map(|_| parts.retention),
    };
    let state_file = StateFile::open(&parts.file, options)?.holding(lock);
    let mut tracker = Tracker::new(&instance);
    // Evidence of others is not dropped because this machine's clock is behind.
    let now = LenientClock::new(Arc::clone(&parts.clock)).now();
    let mut healed = Vec::new();
    let sources: Vec<SourceKey> = parts.sources.iter().map(|source| source.key.clone()).collect();
    state_file.restore(&sources, |source, stored| match stored {
        Ok(mut stored) => {
            // The clock may have been ahead during the previous run.
            if stored.value.drop_future(now) {
                healed.push(source);
                tracker.restore_healed(stored);
            } else {
                tracker.restore(stored);
            }
        }
        Err(reason) => {
            warn!(source.key = %source, %reason, "The stored document of `{source}` cannot be used; it stays as it is");
            tracker.protect(&source);
        }
    })?;
    for source in &healed {
        state_file.drop_history_after(source, now.plus_millis(TOLERANCE_MS))?;
    }
    Ok((Arc::new(state_file), instance, tracker))
}

/// Merges what a remote store contains. Returns the links that are open there, of sources that are not in the file.
pub(super) fn merge_stored(
    stored: Vec<(SourceKey, Compact)>,
    tracker: &mut Tracker,
    mut pending: Option<&mut PendingCommits>,
) -> Vec<(Transport, SourceKey)> {
    let mut left = Vec::new();
    for (source, stored) in stored {
        let stored = stored.knowledge();
        if !tracker.knows(&source) {
            let open = open_links(&stored).filter(|transport| *transport != Transport::Api);
            left.extend(open.map(|transport| (transport, source.clone())));
        }
        // Changes that occurred while nothing was published are reported as one event. If the store itself is the destination, the
        // process that wrote it has recorded the change.
        if tracker.merge_stored(&source, &stored, pending.is_some())
            && let Some(pending) = &mut pending
        {
            pending.defer(source);
        }
    }
    left
}

/// Marks the sources whose stored states were not published: by a command, or while there was no bus.
pub(super) fn unpublished(
    state_file: &StateFile,
    sources: &[MonitoredSource],
    tracker: &mut Tracker,
    pending: &mut PendingCommits,
) -> Result<(), StateFileError> {
    for source in sources {
        if !tracker.knows(&source.key) {
            continue;
        }
        match state_file.published(&source.key)? {
            None => tracker.writes.mark_due(std::slice::from_ref(&source.key)),
            Some(published) => {
                let published = SourceDocument::from_knowledge(source.key.clone(), published);
                // The document may have been replaced by one without our evidence, or cannot be used.
                let document = tracker.merge_published(&source.key, published.knowledge.clone());
                if !transitions(&published.verdict, &document.verdict).is_empty() {
                    pending.defer(source.key.clone());
                }
            }
        }
    }
    Ok(())
}

/// The transports whose link is not closed.
pub(super) fn open_links(known: &Knowledge) -> impl Iterator<Item = Transport> {
    let links = known.evidence.connection.iter();
    links
        .filter(|(_, link)| link.now() != LinkNow::Unmonitored)
        .map(|(transport, _)| *transport)
}
