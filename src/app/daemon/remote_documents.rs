//! What a remote store contains at the start of the daemon: from a `probe`, or from another writer, before this process.

use std::time::Duration;

use tracing::warn;

use crate::core::compact::{Compact, Interner};
use crate::core::source::SourceKey;
use crate::persist::Persister;
use crate::store::SourceStore;
use crate::watch::monitored::MonitoredSource;

/// Number of documents read together: with their evidence they are large, and only a compact form of them is kept.
const MAX_DOCUMENTS_PER_READ: usize = 50;
/// How long a start waits for the store. What is not read by then is merged when the source is first written.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the stored documents of `sources`. A persister of this process takes them over and need not read them again.
///
/// Without them the first observations after a `probe` would count as changes of an unknown source. A store that does not answer
/// delays a start by at most [`READ_TIMEOUT`] and does not prevent it.
pub(super) async fn read(
    store: &std::sync::Arc<dyn SourceStore>,
    sources: &[MonitoredSource],
    persister: Option<&Persister>,
) -> Vec<(SourceKey, Compact)> {
    let mut known = Vec::new();
    let reading = async {
        let mut interner = Interner::default();
        for part in sources.chunks(MAX_DOCUMENTS_PER_READ) {
            let keys: Vec<SourceKey> = part.iter().map(|source| source.key.clone()).collect();
            let mut found = Vec::new();
            for (key, stored) in keys.iter().zip(store.load_some(&keys).await) {
                match stored {
                    Ok(stored) => found.push((key.clone(), stored)),
                    Err(error) => return Some(error),
                }
            }
            let documents = found
                .iter()
                .filter_map(|(key, stored)| Some((key.clone(), stored.as_ref()?.value.knowledge.clone())));
            known.extend(documents.map(|(key, knowledge)| (key, interner.compact(knowledge))));
            if let Some(persister) = persister {
                persister.prime(found).await;
            }
        }
        None
    };
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(None) => {}
        Ok(Some(error)) => warn!(
            error = &error as &dyn std::error::Error,
            "Cannot read the stored documents; starting without them"
        ),
        Err(_) => warn!(
            store = store.location(),
            "The store does not answer; starting without the stored documents"
        ),
    }
    known
}
