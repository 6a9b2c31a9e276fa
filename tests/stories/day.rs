//! A day of many sources on a moved clock, above a store that counts the operations that Firestore charges for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::clock::{Chance, ManualClock};
use bitbrat::core::code::Code;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Observation, Transport,
};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::persist::Persister;
use bitbrat::persist::write_policy::{Workload, WritePolicy, predict};
use bitbrat::store::memory::MemoryStore;
use bitbrat::store::{HistoryEntry, SourceStore, StoreError, Stored, Version, Versioned, Write};
use futures_util::stream::BoxStream;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
const BEGIN: i64 = 1_780_000_000_000;

/// Transitions of one source in our day: three first observations (connected, offline, authorized); two broadcasts, one of which
/// drops for 40 s; one lost connection; one token that expires and is refreshed.
const TRANSITIONS: usize = 3 + 4 + 2 + 2 + 2;

/// Totals of a day.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "the command that prints a day reads all of it, the test only what it asserts"
)]
pub struct Figures {
    pub sources: usize,
    pub observations: usize,
    pub documents_written: u64,
    pub history_written: u64,
    pub reads: u64,
    pub transitions_happened: usize,
    pub transitions_stored: usize,
    pub predicted: u64,
}

impl Figures {
    pub fn writes(&self) -> u64 {
        self.documents_written + self.history_written
    }
}

/// Simulates a day.
pub async fn simulate(sources: usize, write_policy: WritePolicy) -> Figures {
    let store = Arc::new(Counting::default());
    let clock = ManualClock::at(moment(0));
    let persister = Persister::new(store.clone(), clock.clone(), write_policy, Chance::seeded(24));
    let keys: Vec<SourceKey> = (1..=sources)
        .map(|id| format!("twitch:{id}").parse().expect("a number is an id"))
        .collect();
    let mut observations = 0;
    for minute in 0..DAY / MINUTE {
        clock.set(moment(minute * MINUTE));
        let seen: Vec<_> = keys
            .iter()
            .enumerate()
            .flat_map(|(index, key)| look(key, index, minute))
            .collect();
        observations += seen.len();
        // One by one, as pushes arrive, so that no two transitions share a write by chance.
        for of_source in seen.chunk_by(|a, b| a.source == b.source) {
            persister.observe(of_source).await;
        }
        while persister
            .stats()
            .next_due
            .is_some_and(|due| due < moment((minute + 1) * MINUTE))
        {
            clock.set(
                persister
                    .stats()
                    .next_due
                    .unwrap_or(moment(0))
                    .max(moment(minute * MINUTE)),
            );
            persister.tick().await;
        }
    }
    let mut stored = 0;
    for key in &keys {
        stored += store.history(key, 1000).await.map_or(0, |history| history.len());
    }
    let load = Workload {
        transitions: TRANSITIONS as u64,
        ..Workload::usual(sources as u64, Duration::from_mins(1))
    };
    Figures {
        sources,
        observations,
        documents_written: store.documents.load(Ordering::Relaxed),
        history_written: store.entries.load(Ordering::Relaxed),
        reads: store.reads.load(Ordering::Relaxed),
        transitions_happened: sources * TRANSITIONS,
        transitions_stored: stored,
        predicted: predict(&load, &write_policy).writes(),
    }
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis(BEGIN).plus_secs(seconds)
}

/// The observations of a source in a minute. Each source is offset a little from the one before it.
fn look(key: &SourceKey, index: usize, minute: i64) -> Vec<Observation> {
    let at = moment(minute * MINUTE);
    let see = |seconds: i64, fact| Observation::new(key, at.plus_secs(seconds), "day", fact);
    let own = minute - i64::try_from(index).unwrap_or(0) % 180;
    let push = |live, stream: &str| Fact::StreamPush {
        live,
        stream_id: Some(stream.to_owned()),
        started_at: None,
    };
    let token = |result| Fact::Auth {
        identity: Identity::named("twitch/bot"),
        check: AuthCheck {
            scopes: ["chat:read".to_owned()].into(),
            ..AuthCheck::of(result)
        }
        .into(),
    };
    let lost = LinkState::Down {
        error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
    };
    let (transport, result) = (
        Transport::EventSub,
        if own == 800 {
            AuthResult::Expired
        } else {
            AuthResult::Valid
        },
    );
    let state = if own == 700 { lost } else { LinkState::Up };
    let mut seen = vec![see(0, Fact::Connection { transport, state })];
    if minute % 60 == 0 || own == 800 || own == 801 {
        seen.push(see(0, token(result)));
    }
    // Polls lag behind: three minutes at a start, ten at an end.
    match (own, broadcast(own - 3).or_else(|| broadcast(own - 10))) {
        (_, Some(stream)) => {
            let stream_id = stream.to_owned();
            let count = u64::try_from(own).unwrap_or(0) % 50;
            seen.push(see(
                1,
                Fact::StreamSeen {
                    stream_id,
                    started_at: None,
                },
            ));
            seen.push(see(
                1,
                Fact::Viewers {
                    count,
                    stream_id: Some(stream.to_owned()),
                },
            ));
        }
        (_, None) => seen.push(see(1, Fact::StreamAbsent)),
    }
    match own {
        200 => seen.push(see(2, push(true, "morning"))),
        300 => seen.extend([see(2, push(false, "morning")), see(42, push(true, "morning"))]),
        400 => seen.push(see(2, push(false, "morning"))),
        900 => seen.push(see(2, push(true, "evening"))),
        1150 => seen.push(see(2, push(false, "evening"))),
        _ => {}
    }
    seen
}

fn broadcast(minute: i64) -> Option<&'static str> {
    match minute {
        200..400 => Some("morning"),
        900..1150 => Some("evening"),
        _ => None,
    }
}

/// Counts as Firestore does: a document written, a history entry written, a document read.
#[derive(Default)]
struct Counting {
    inner: MemoryStore,
    documents: AtomicU64,
    entries: AtomicU64,
    reads: AtomicU64,
}

#[async_trait]
impl SourceStore for Counting {
    fn location(&self) -> String {
        "counting".into()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.load(key).await
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        let all = self.inner.load_all().await?;
        self.reads.fetch_add(all.len() as u64, Ordering::Relaxed);
        Ok(all)
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        self.inner.raw(document_id).await
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        self.inner.remove(document_id, version).await
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let entries: usize = writes.iter().map(|write| write.history.len()).sum();
        self.documents.fetch_add(writes.len() as u64, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
        self.inner.save(writes).await
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        self.inner.delete(document_id).await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        self.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
        self.inner.append_history(key, entries).await
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        self.inner.drop_history_after(key, until).await
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.inner.history(key, limit).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        self.inner.watch().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A twentieth of the two hundred that `cargo run --example day_of_writes` simulates; the figures are proportional.
    #[tokio::test]
    async fn ten_sources_stay_under_3000_writes_a_day() {
        let day = simulate(10, WritePolicy::every(Duration::from_mins(5))).await;
        assert_eq!(day.transitions_stored, day.transitions_happened, "{day:?}");
        assert!(day.writes() < 3_000 && day.writes() <= day.predicted, "{day:?}");
        // Few writes, but not none: a heartbeat may be a tenth longer than configured.
        assert!(day.documents_written > 10 * 250, "{day:?}");
    }
}
