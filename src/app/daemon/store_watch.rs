//! Checks the store periodically, apart from its users: whether it answers, which of its documents cannot be used, and whether old
//! history is due for deletion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use super::Reason;
use crate::app::volume::StoreStats;
use crate::core::document::SourceDocument;
use crate::core::source::{PlatformName, SourceKey};
use crate::lifecycle::{Stop, Tasks};
use crate::store::{SourceStore, StoreError, Unusable, Versioned};
use crate::watch::engine::TIDY;

/// How often the store is checked, and the timeout of a check.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often documents that cannot be used are counted.
const UNUSABLE_INTERVAL: Duration = Duration::from_hours(1);
/// How many of them the warning names.
const NAMED: usize = 5;

/// The number of documents that cannot be used, for metrics; `None` before they were counted.
pub(super) type UnusableCount = Arc<Mutex<Option<usize>>>;

/// Checks the store periodically, so that readiness detects a failure before something has to be written. It only reads: writes
/// cost money on some stores, and the writes that are needed anyway show whether writing works.
pub(super) fn start(store: &Arc<dyn SourceStore>, stats: Option<StoreStats>, tasks: &Tasks) -> Reason {
    let problem: Arc<Mutex<Option<StoreError>>> = Arc::default();
    let (seen, store) = (Arc::clone(&problem), Arc::clone(store));
    tasks.spawn("store-watch", |stop| async move {
        loop {
            let found = tokio::select! {
                found = check(store.as_ref()) => found,
                () = stop.requested() => return,
            };
            report(seen.lock().as_ref(), found.as_ref());
            *seen.lock() = found;
            if !stop.sleep(CHECK_INTERVAL).await {
                return;
            }
        }
    });
    Arc::new(move || {
        let stats = stats.as_ref().map(|stats| stats());
        let refused = stats.filter(|stats| stats.urgent > 0 && stats.failing);
        let unwritten = refused.map(|stats| format!("{} changes are not stored yet", stats.urgent));
        let problem = problem.lock().as_ref().map(ToString::to_string);
        problem.or(unwritten)
    })
}

/// Returns why the store cannot be used.
async fn check(store: &dyn SourceStore) -> Option<StoreError> {
    // Only the response matters, and not whether there is such a source.
    let key = SourceKey::new(PlatformName::Twitch, "1").expect("a number is an id");
    match tokio::time::timeout(CHECK_TIMEOUT, store.load(&key)).await {
        Ok(answer) => failure_of(answer),
        Err(_) => Some(StoreError::Unavailable {
            location: store.location(),
            reason: "it does not answer".to_owned(),
            hint: None,
        }),
    }
}

/// A document that cannot be used is an answer: the store works.
fn failure_of(answer: Result<Option<Versioned<SourceDocument>>, StoreError>) -> Option<StoreError> {
    let is_about_document = |error: &StoreError| matches!(error, StoreError::Unusable { .. });
    answer.err().filter(|error| !is_about_document(error))
}

/// Logs what needs a person, once. What may be over by itself is reported by those who wait for it.
fn report(before: Option<&StoreError>, now: Option<&StoreError>) {
    let needs_person = |error: &&StoreError| !error.is_transient();
    match (before.filter(needs_person), now) {
        (Some(_), None) => info!("The store can be used again"),
        (before, Some(error)) if needs_person(&error) && before != Some(error) => error!(
            error = error as &dyn std::error::Error,
            "The store cannot be used; nothing is written, and changes wait"
        ),
        _ => {}
    }
}

/// Deletes periodically what the store no longer keeps, and where this process is the one that stores, finds documents that cannot
/// be used. Each set of them causes one warning. They may belong to another program, so they are no reason not to be ready. Where
/// reading costs money only `doctor` finds them.
pub(super) fn maintain(store: &Arc<dyn SourceStore>, is_storing: bool, tasks: &Tasks) -> UnusableCount {
    let tidied = Arc::clone(store);
    tasks.spawn("store-tidy", |stop| async move {
        while stop.sleep(TIDY).await {
            if let Err(error) = tidied.tidy().await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "The store could not be tidied"
                );
            }
        }
    });
    let count = UnusableCount::default();
    if is_storing && !store.bills_reads() {
        let (store, counted) = (Arc::clone(store), Arc::clone(&count));
        tasks.spawn("unusable-documents", |stop| async move {
            find_unusable(store.as_ref(), &counted, &stop).await;
        });
    }
    count
}

async fn find_unusable(store: &dyn SourceStore, count: &Mutex<Option<usize>>, stop: &Stop) {
    let mut before = BTreeMap::new();
    loop {
        // A store that does not answer is reported by the other task.
        if let Ok(found) = store.unusable().await {
            *count.lock() = Some(found.len());
            let found: BTreeMap<String, Unusable> = found.into_iter().collect();
            if let Some(first) = found.keys().find(|id| !before.contains_key(*id)) {
                let names: Vec<&str> = found.keys().take(NAMED).map(String::as_str).collect();
                warn!(
                    documents = found.len(),
                    ids = names.join(", "),
                    reason = %found[first],
                    "Stored documents cannot be used and are left as they are; run `bitbrat doctor store`"
                );
            }
            before = found;
        }
        if !stop.sleep(UNUSABLE_INTERVAL).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::BrokenDocument;

    #[test]
    fn unusable_document_is_an_answer_of_the_store() {
        let unusable = StoreError::Unusable {
            document_id: "twitch:1".to_owned(),
            source: Unusable::Broken(BrokenDocument::NotAnObject),
        };
        assert_eq!(failure_of(Err(unusable)), None);
        assert_eq!(failure_of(Ok(None)), None);
        let newer = StoreError::NewerSchema {
            location: "postgres:db".to_owned(),
            found: 9,
            known: 1,
        };
        assert_eq!(failure_of(Err(newer.clone())), Some(newer));
    }
}
