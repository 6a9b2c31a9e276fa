//! A store wrapper that rejects evidence dated in the future for all readers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;

use super::{HistoryEntry, SourceStore, StoreError, Stored, Unusable, Version, Versioned, Write};
use crate::clock::Clock;
use crate::core::document::SourceDocument;
use crate::core::future::{TOLERANCE_MS, is_too_far_ahead};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;

/// A store that removes evidence dated in the future from documents when they are read. The next write of a document, by any
/// process, then stores it without that evidence.
pub struct Guarded {
    inner: Arc<dyn SourceStore>,
    clock: Arc<dyn Clock>,
    /// Sources whose document was read without a part of the stored evidence, and not written since.
    healed: Arc<Mutex<BTreeSet<SourceKey>>>,
}

impl Guarded {
    /// Wraps `inner`; `clock` provides the current time.
    pub fn new(inner: Arc<dyn SourceStore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            clock,
            healed: Arc::default(),
        }
    }

    fn heal(&self, stored: &mut Stored) {
        if let Ok(found) = &mut stored.document {
            self.refuse(&mut found.value);
        }
    }

    fn refuse(&self, document: &mut SourceDocument) {
        if document.drop_future(self.clock.now()) {
            self.healed.lock().insert(document.key.clone());
        }
    }
}

#[async_trait]
impl SourceStore for Guarded {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let mut found = self.inner.load(key).await?;
        if let Some(found) = &mut found {
            self.refuse(&mut found.value);
        }
        Ok(found)
    }

    async fn load_some(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let mut all = self.inner.load_some(keys).await;
        for found in all.iter_mut().flatten().flatten() {
            self.refuse(&mut found.value);
        }
        all
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        let mut all = self.inner.load_all().await?;
        for stored in &mut all {
            self.heal(stored);
        }
        Ok(all)
    }

    async fn unusable(&self) -> Result<Vec<(String, Unusable)>, StoreError> {
        self.inner.unusable().await
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        self.inner.raw(document_id).await
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        self.inner.remove(document_id, version).await
    }

    fn bills_reads(&self) -> bool {
        self.inner.bills_reads()
    }

    async fn summaries(&self) -> Result<Vec<Stored<Arc<SourceSummary>>>, StoreError> {
        let summaries = self.inner.summaries().await?;
        let now = self.clock.now();
        let from_the_future = |stored: &Stored<Arc<SourceSummary>>| {
            let summary = stored.document.as_ref();
            summary.is_ok_and(|summary| summary.is_from_the_future(now))
        };
        if !summaries.iter().any(from_the_future) {
            return Ok(summaries);
        }
        // The summary without the rejected evidence can only be derived from the document.
        let healed = self.load_all().await?.into_iter().map(Stored::to_summary);
        let mut healed: BTreeMap<_, _> = healed
            .map(|stored| (stored.document_id.clone(), stored))
            .collect();
        let summaries = summaries.into_iter().map(|stored| {
            let healed = from_the_future(&stored)
                .then(|| healed.remove(&stored.document_id))
                .flatten();
            healed.unwrap_or(stored)
        });
        Ok(summaries.collect())
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        for write in writes {
            let key = &write.document.key;
            if !self.healed.lock().remove(key) {
                continue;
            }
            // History entries of rejected evidence are removed with it: after their date they would be accepted as correct.
            // They are removed first, because the retention is relative to the newest entry.
            let until = self.clock.now().plus_millis(TOLERANCE_MS);
            if let Err(error) = self.inner.drop_history_after(key, until).await {
                tracing::warn!(source.key = %key, error = &error as &dyn std::error::Error, "History from the future stays");
                self.healed.lock().insert(key.clone());
            }
        }
        self.inner.save(writes).await
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        self.inner.delete(document_id).await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        self.inner.append_history(key, entries).await
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut entries = self.inner.history(key, limit).await?;
        let now = self.clock.now();
        entries.retain(|entry| !is_too_far_ahead(entry.transition.at, now));
        Ok(entries)
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        self.inner.drop_history_after(key, until).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        let guard = Self {
            healed: Arc::clone(&self.healed),
            ..Self::new(Arc::clone(&self.inner), Arc::clone(&self.clock))
        };
        let changes = self.inner.watch().await?;
        Ok(changes
            .map(move |change| {
                change.map(|mut all| {
                    for stored in &mut all {
                        guard.heal(stored);
                    }
                    all
                })
            })
            .boxed())
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Chance, ManualClock};
    use crate::core::observation::{Fact, LinkState, Observation, Transport};
    use crate::core::stream::StreamStatus;
    use crate::core::verdict::Status;
    use crate::persist::Persister;
    use crate::persist::write_policy::WritePolicy;
    use crate::store::memory::MemoryStore;
    use crate::store::retention::Retention;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    fn seen(second: i64, live: bool) -> Vec<Observation> {
        let key = "kick:900200".parse().unwrap();
        let stream = if live {
            Fact::StreamSeen {
                stream_id: "a".to_owned(),
                started_at: None,
            }
        } else {
            Fact::StreamAbsent
        };
        let up = Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        };
        [up, stream]
            .map(|fact| Observation::new(&key, at(second), "kick.api", fact))
            .to_vec()
    }

    /// Runs one `probe` in a separate process, at `second` by a clock that is `ahead` seconds ahead.
    async fn probe(inner: &Arc<dyn SourceStore>, second: i64, ahead: i64, live: bool) {
        let clock = ManualClock::at(at(second + ahead));
        let store = Arc::new(Guarded::new(Arc::clone(inner), Arc::clone(&clock) as _));
        let persister = Persister::new(
            store,
            clock,
            WritePolicy::every(std::time::Duration::from_secs(30)),
            Chance::seeded(1),
        );
        persister.observe(&seen(second + ahead, live)).await;
        assert!(persister.flush().await.failures.is_empty());
    }

    #[tokio::test]
    async fn one_probe_with_a_clock_ahead_is_healed_by_the_next() {
        for ahead in [150, 3_600, 86_400, 10 * 31_536_000] {
            for live in [true, false] {
                let inner: Arc<dyn SourceStore> = Arc::new(MemoryStore::new(Retention::default()));
                let clock = ManualClock::at(at(30));
                let store = Guarded::new(Arc::clone(&inner), Arc::clone(&clock) as _);
                let key: SourceKey = "kick:900200".parse().unwrap();
                probe(&inner, 0, ahead, !live).await;
                let read = store.load(&key).await.unwrap().unwrap().value.record();
                assert_eq!(
                    (read.status, read.stream_status),
                    (Status::Disconnected, StreamStatus::Unknown),
                    "refused"
                );
                let listed = store.summaries().await.unwrap();
                let listed = listed[0].document.as_ref().unwrap();
                assert_eq!(
                    (listed.stream_status, listed.stream_at),
                    (StreamStatus::Unknown, None)
                );

                probe(&inner, 60, 0, live).await;
                clock.set(at(61));
                // The stored document itself is corrected, also for readers without this wrapper.
                let read = inner.load(&key).await.unwrap().unwrap().value.record();
                let expected = if live {
                    StreamStatus::Online
                } else {
                    StreamStatus::Offline
                };
                assert_eq!((read.status, read.stream_status), (Status::Connected, expected));
                assert_eq!(read.last_stream_update, Some(at(60)));
                let history = HistoryEntry::without_repeats(inner.history(&key, 9).await.unwrap());
                assert_eq!(history.len(), 2, "{history:#?}");
                for entry in history {
                    assert_eq!((entry.transition.at, entry.transition.initial), (at(60), true));
                }
            }
        }
    }

    #[tokio::test]
    async fn machine_an_hour_behind_keeps_the_evidence_of_others() {
        use crate::http::{LenientClock, Skew};
        let key: SourceKey = "kick:900200".parse().unwrap();
        for (measured, status) in [(None, Status::Disconnected), (Some(3_600_000), Status::Connected)] {
            let inner: Arc<dyn SourceStore> = Arc::new(MemoryStore::new(Retention::default()));
            probe(&inner, 0, 0, true).await;
            let skew = Arc::new(Skew::default());
            if let Some(offset) = measured {
                skew.add_sample((at(10), std::time::Instant::now()), offset);
            }
            let clock = LenientClock::with(ManualClock::at(at(10 - 3_600)), skew);
            let store = Arc::new(Guarded::new(Arc::clone(&inner), Arc::clone(&clock) as _));
            let read = store.load(&key).await.unwrap().unwrap().value.record();
            assert_eq!(read.status, status, "{measured:?}");
            // A write of that machine does not delete it either.
            let persister = Persister::new(
                store,
                clock,
                WritePolicy::every(std::time::Duration::from_secs(30)),
                Chance::seeded(1),
            );
            persister
                .observe(&[Observation::new(
                    &key,
                    at(5),
                    "kick.api",
                    Fact::Latency { millis: 7 },
                )])
                .await;
            persister.flush().await;
            let kept = inner.load(&key).await.unwrap().unwrap().value.record();
            assert_eq!(kept.status, status, "{measured:?}");
        }
    }
}
