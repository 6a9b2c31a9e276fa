//! Checks the store periodically, apart from its users: whether it answers, and whether old history is due for deletion.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Reason;
use crate::app::volume::StoreStats;
use crate::core::number::count;
use crate::core::source::{PlatformName, SourceKey};
use crate::lifecycle::Tasks;
use crate::store::SourceStore;
use crate::watch::engine::TIDY;

/// How often the store is checked, and the timeout of a check.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the store periodically, so that readiness detects a failure before something has to be written. It only reads: writes
/// cost money on some stores, and the writes that are needed anyway show whether writing works.
pub(super) fn start(store: &Arc<dyn SourceStore>, stats: Option<StoreStats>, tasks: &Tasks) -> Reason {
    // No platform has a source of this number; only the response matters.
    let unused_key = SourceKey::new(PlatformName::Twitch, "1").expect("a number is an id");
    let trouble: Arc<parking_lot::Mutex<Option<String>>> = Arc::default();
    let (seen, store) = (Arc::clone(&trouble), Arc::clone(store));
    tasks.spawn("store-watch", |stop| async move {
        loop {
            let answer = tokio::time::timeout(CHECK_TIMEOUT, store.load(&unused_key));
            let found = tokio::select! {
                answer = answer => match answer {
                    Ok(answer) => answer.err().map(|error| error.to_string()),
                    Err(_) => Some(format!("{} does not answer", store.location())),
                },
                () = stop.requested() => return,
            };
            *seen.lock() = found;
            if !stop.sleep(CHECK_INTERVAL).await {
                return;
            }
        }
    });
    Arc::new(move || {
        let stats = stats.as_ref().map(|stats| stats());
        let refused = stats.filter(|stats| stats.urgent > 0 && stats.failing);
        let unwritten = refused.map(|stats| {
            let verb = if stats.urgent == 1 { "is" } else { "are" };
            format!("{} {verb} not stored yet", count(stats.urgent as u64, "change"))
        });
        let seen = trouble.lock();
        seen.clone().or(unwritten)
    })
}

/// Deletes periodically what the store no longer keeps.
pub(super) fn tidy(store: &Arc<dyn SourceStore>, tasks: &Tasks) {
    let store = Arc::clone(store);
    tasks.spawn("store-tidy", |stop| async move {
        while stop.sleep(TIDY).await {
            if let Err(error) = store.tidy().await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "The store could not be tidied"
                );
            }
        }
    });
}
