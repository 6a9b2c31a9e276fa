//! Tests of the persister with a controlled clock and a store that counts operations and fails on request.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::core::code::Code;
use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Transport};
use crate::core::transition::transitions;
use crate::store::memory::MemoryStore;
use crate::store::{HistoryEntry, Stored, Unusable, Versioned, Write};

const HEARTBEAT: i64 = 30_000;

#[derive(Default)]
struct Scripted {
    inner: MemoryStore,
    down: AtomicBool,
    silent: AtomicBool,
    down_for: Mutex<BTreeSet<String>>,
    writes: AtomicUsize,
    reads: AtomicUsize,
}

impl Scripted {
    fn fault(&self, document_id: &str) -> Result<(), StoreError> {
        let struck = self.down.load(Ordering::SeqCst) || self.down_for.lock().contains(document_id);
        if struck {
            return Err(StoreError::Unavailable {
                location: "scripted".into(),
                reason: "injected".into(),
                hint: None,
            });
        }
        Ok(())
    }
}

#[async_trait]
impl SourceStore for Scripted {
    fn location(&self) -> String {
        "scripted".into()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.fault(&key.to_string())?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.load(key).await
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        self.fault("")?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.load_all().await
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        self.inner.raw(document_id).await
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        self.inner.remove(document_id, version).await
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let mut results = Vec::new();
        for write in writes {
            self.writes.fetch_add(1, Ordering::SeqCst);
            results.push(match self.fault(&write.document.key.to_string()) {
                Ok(()) => self.inner.save(std::slice::from_ref(write)).await.remove(0),
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        self.inner.delete(document_id).await
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
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

struct Harness {
    store: Arc<Scripted>,
    clock: Arc<ManualClock>,
    persister: Persister,
}

impl Harness {
    fn new() -> Self {
        let store = Arc::new(Scripted::default());
        let clock = ManualClock::at(Timestamp::from_millis(1_780_000_000_000));
        let persister = persister(&store, &clock);
        Self {
            store,
            clock,
            persister,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn writes(&self) -> usize {
        self.store.writes.load(Ordering::SeqCst)
    }

    fn reads(&self) -> usize {
        self.store.reads.load(Ordering::SeqCst)
    }

    async fn push(&self, id: &str, live: bool) -> ApplyOutcome {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some("409".into()),
            started_at: None,
        };
        self.see(id, fact).await
    }

    async fn viewers(&self, id: &str, count: u64) -> ApplyOutcome {
        self.see(
            id,
            Fact::Viewers {
                count,
                stream_id: None,
            },
        )
        .await
    }

    async fn see(&self, id: &str, fact: Fact) -> ApplyOutcome {
        let seen = Observation::new(&key(id), self.now(), "test", fact);
        self.persister.observe(&[seen]).await.outcomes[&key(id)]
    }

    async fn stored(&self, id: &str) -> SourceDocument {
        self.store.inner.load(&key(id)).await.unwrap().unwrap().value
    }

    async fn happened(&self, id: &str) -> Vec<String> {
        let entries = self.store.history(&key(id), 100).await.unwrap();
        let describe = |entry: &HistoryEntry| {
            let change = &entry.transition;
            let word = |word: &Option<String>| word.clone().unwrap_or_default();
            format!(
                "{} {}>{}",
                change.facet.as_str(),
                word(&change.from),
                word(&change.to)
            )
        };
        entries.iter().rev().map(describe).collect()
    }
}

fn persister(store: &Arc<Scripted>, clock: &Arc<ManualClock>) -> Persister {
    let write_policy = WritePolicy {
        spread: 0.0,
        ..WritePolicy::every(Duration::from_secs(30))
    };
    Persister::new(store.clone(), clock.clone(), write_policy, Chance::seeded(7))
}

fn key(id: &str) -> SourceKey {
    id.parse().unwrap()
}

#[tokio::test]
async fn a_transition_is_stored_at_once_with_its_history() {
    let harness = Harness::new();
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Written);
    harness.clock.advance(1000);
    assert_eq!(harness.push("kick:5", false).await, ApplyOutcome::Written);
    assert_eq!(
        harness.happened("kick:5").await,
        ["stream UNKNOWN>ONLINE", "stream ONLINE>OFFLINE"]
    );
    assert_eq!((harness.reads(), harness.writes()), (1, 2));
    let stats = harness.persister.stats();
    assert_eq!((stats.documents, stats.writes), (2, 4));
}

#[tokio::test]
async fn everything_else_waits_for_the_heartbeat() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    for count in 1..=10 {
        harness.clock.advance(HEARTBEAT / 20);
        assert_eq!(harness.viewers("kick:5", count).await, ApplyOutcome::Coalesced);
    }
    assert_eq!(harness.writes(), 1);
    let due = harness.persister.stats().next_due.unwrap();
    assert_eq!(due.millis_since(harness.now()), HEARTBEAT / 2);
    harness.clock.set(due);
    assert_eq!(harness.persister.tick().await.count(ApplyOutcome::Written), 1);
    assert_eq!((harness.reads(), harness.writes()), (1, 2));
    assert_eq!(harness.stored("kick:5").await.verdict.viewer_count, Some(10));
    assert_eq!(harness.persister.stats().next_due, None);
    assert!(harness.persister.tick().await.outcomes.is_empty());
}

#[tokio::test]
async fn unchanged_verdict_is_never_written() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Unchanged);
    harness.clock.advance(10 * HEARTBEAT);
    harness.persister.tick().await;
    harness.persister.flush().await;
    assert_eq!(harness.writes(), 1);
}

#[tokio::test]
async fn a_transition_takes_what_was_waiting_along() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    harness.clock.advance(1000);
    harness.viewers("kick:5", 9).await;
    harness.clock.advance(1000);
    assert_eq!(harness.push("kick:5", false).await, ApplyOutcome::Written);
    assert_eq!(harness.persister.stats().pending, 0);
    assert_eq!(
        harness
            .stored("kick:5")
            .await
            .knowledge
            .evidence
            .viewers
            .unwrap()
            .value
            .count,
        9
    );
}

#[tokio::test]
async fn several_transitions_in_one_call_take_one_write() {
    let harness = Harness::new();
    let push = |seconds: i64, live| {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some("409".into()),
            started_at: None,
        };
        Observation::new(&key("kick:5"), harness.now().plus_secs(seconds), "test", fact)
    };
    let applied = harness
        .persister
        .observe(&[push(0, true), push(1, false), push(2, true)])
        .await;
    assert_eq!(harness.writes(), 1);
    assert_eq!(applied.transitions[&key("kick:5")].len(), 3);
    assert_eq!(harness.happened("kick:5").await.len(), 3);
}

#[tokio::test]
async fn a_restart_announces_nothing_twice_and_does_not_write_at_once() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    let again = persister(&harness.store, &harness.clock);
    let fact = Fact::StreamPush {
        live: true,
        stream_id: Some("409".into()),
        started_at: None,
    };
    let later = Observation::new(&key("kick:5"), harness.now().plus_secs(1), "test", fact);
    let applied = again.observe(&[later]).await;
    assert_eq!(applied.outcomes[&key("kick:5")], ApplyOutcome::Coalesced);
    assert!(applied.transitions.is_empty());
    assert_eq!(again.flush().await.count(ApplyOutcome::Written), 1);
    assert_eq!(harness.happened("kick:5").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_persisters_on_one_document_lose_nothing() {
    let harness = Harness::new();
    let other = persister(&harness.store, &harness.clock);
    let up = |transport| Fact::Connection {
        transport,
        state: LinkState::Up,
    };
    harness.see("kick:5", up(Transport::Api)).await;
    let theirs = Observation::new(&key("kick:5"), harness.now(), "test", up(Transport::Webhook));
    other.observe(&[theirs]).await;
    other.flush().await;
    // Our version is outdated; the document is read, joined and written again.
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Written);
    assert_eq!(harness.persister.stats().conflicts, 1);
    let stored = harness.stored("kick:5").await;
    assert_eq!(stored.knowledge.evidence.connection.len(), 2);
    assert_eq!(stored.record().stream_status.to_string(), "ONLINE");
    assert_eq!(
        harness.happened("kick:5").await,
        ["status >CONNECTED", "stream UNKNOWN>ONLINE"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_over_what_both_know_is_not_written_again() {
    let harness = Harness::new();
    let other = persister(&harness.store, &harness.clock);
    harness.viewers("kick:5", 1).await;
    let push = |live| {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some("409".into()),
            started_at: None,
        };
        [Observation::new(&key("kick:5"), harness.now(), "test", fact)]
    };
    other.observe(&push(true)).await;
    other.flush().await;
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Unchanged);
    assert_eq!(harness.happened("kick:5").await, ["stream UNKNOWN>ONLINE"]);
}

#[tokio::test]
async fn failed_write_is_retried_and_loses_no_transition() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    harness.store.down.store(true, Ordering::SeqCst);
    harness.clock.advance(1000);
    assert_eq!(harness.push("kick:5", false).await, ApplyOutcome::Waiting);
    // No immediate retry: nothing is due yet.
    harness.persister.tick().await;
    assert_eq!(harness.writes(), 2);
    let stats = harness.persister.stats();
    assert_eq!((stats.pending, stats.urgent, stats.failures), (1, 1, 1));
    harness.clock.set(stats.next_due.unwrap());
    harness.persister.tick().await;
    let first = stats.next_due.unwrap().millis_since(harness.now());
    let second = harness
        .persister
        .stats()
        .next_due
        .unwrap()
        .millis_since(harness.now());
    assert!(second > first, "{second} after {first}");
    harness.clock.advance(1000);
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Waiting);
    harness.store.down.store(false, Ordering::SeqCst);
    harness.clock.set(harness.persister.stats().next_due.unwrap());
    let applied = harness.persister.tick().await;
    assert_eq!(applied.transitions[&key("kick:5")].len(), 2);
    assert_eq!(
        harness.happened("kick:5").await,
        [
            "stream UNKNOWN>ONLINE",
            "stream ONLINE>OFFLINE",
            "stream OFFLINE>ONLINE"
        ]
    );
}

#[tokio::test]
async fn source_first_seen_during_outage_is_read_before_writing() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    let again = persister(&harness.store, &harness.clock);
    harness.store.down.store(true, Ordering::SeqCst);
    let fact = Fact::StreamPush {
        live: false,
        stream_id: Some("409".into()),
        started_at: None,
    };
    let end = Observation::new(&key("kick:5"), harness.now().plus_secs(9), "test", fact);
    let applied = again.observe(&[end]).await;
    assert_eq!(applied.outcomes[&key("kick:5")], ApplyOutcome::Waiting);
    assert!(again.document(&key("kick:5")).await.is_none());
    harness.store.down.store(false, Ordering::SeqCst);
    harness
        .clock
        .set(again.stats().next_due.unwrap().max(harness.now()));
    assert_eq!(
        again.tick().await.transitions[&key("kick:5")][0].from.as_deref(),
        Some("ONLINE")
    );
}

#[tokio::test]
async fn one_failing_source_does_not_block_the_others() {
    let harness = Harness::new();
    harness.store.down_for.lock().insert("kick:5".into());
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Waiting);
    assert_eq!(harness.push("kick:6", true).await, ApplyOutcome::Written);
    harness.clock.advance(1000);
    assert_eq!(harness.persister.flush().await.failures.len(), 1);
    assert_eq!(harness.push("kick:6", false).await, ApplyOutcome::Written);
}

#[tokio::test]
async fn unusable_document_is_skipped_until_repaired() {
    let harness = Harness::new();
    harness
        .store
        .inner
        .put_raw("kick:5", json!({ "schemaVersion": 99 }));
    assert_eq!(harness.push("kick:5", true).await, ApplyOutcome::Blocked);
    assert_eq!(harness.push("kick:5", false).await, ApplyOutcome::Blocked);
    assert_eq!(harness.push("kick:6", true).await, ApplyOutcome::Written);
    let reported = harness.persister.flush().await.failures;
    assert!(
        matches!(
            &reported[0].1,
            StoreError::Unusable {
                source: Unusable::Broken(_),
                ..
            }
        ),
        "{reported:?}"
    );
    assert_eq!(
        harness.store.inner.get_raw("kick:5").unwrap(),
        json!({ "schemaVersion": 99 })
    );
    harness.store.inner.delete("kick:5").await.unwrap();
    harness.clock.set(harness.persister.stats().next_due.unwrap());
    assert_eq!(harness.persister.tick().await.count(ApplyOutcome::Written), 1);
}

#[tokio::test]
async fn a_document_deleted_behind_our_back_is_written_again_in_full() {
    let harness = Harness::new();
    harness.push("kick:5", true).await;
    harness.see("kick:5", Fact::Latency { millis: 8 }).await;
    harness.persister.flush().await;
    harness.store.inner.delete("kick:5").await.unwrap();
    harness.clock.advance(1000);
    assert_eq!(harness.push("kick:5", false).await, ApplyOutcome::Written);
    assert_eq!(harness.stored("kick:5").await.record().latency_ms, Some(8));
    assert_eq!(
        harness.stored("kick:5").await.record().stream_status.to_string(),
        "OFFLINE"
    );
}

#[tokio::test]
async fn many_sources_are_first_read_together() {
    let harness = Harness::new();
    let seen: Vec<_> = (1..=200)
        .map(|id| {
            let count = Fact::Viewers {
                count: 1,
                stream_id: None,
            };
            Observation::new(&key(&format!("kick:{id}")), harness.now(), "test", count)
        })
        .collect();
    assert_eq!(
        harness
            .persister
            .observe(&seen)
            .await
            .count(ApplyOutcome::Written),
        200
    );
    assert_eq!(harness.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_loses_nothing() {
    let harness = Harness::new();
    let seen = Observation::new(&key("kick:5"), harness.now(), "test", Fact::Latency { millis: 3 });
    harness.store.silent.store(true, Ordering::SeqCst);
    let call = harness.persister.observe(std::slice::from_ref(&seen));
    tokio::time::timeout(Duration::from_secs(1), call)
        .await
        .expect_err("the store is silent");
    harness.store.silent.store(false, Ordering::SeqCst);
    assert_eq!(harness.persister.tick().await.count(ApplyOutcome::Written), 1);
    assert_eq!(
        harness
            .stored("kick:5")
            .await
            .knowledge
            .evidence
            .latency
            .unwrap()
            .value,
        3
    );
}

#[tokio::test]
async fn published_transitions_are_recorded_once_in_any_order() {
    let harness = Harness::new();
    let source = key("kick:5");
    let push = |seconds, live| {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some("4".into()),
            started_at: None,
        };
        Observation::new(
            &source,
            harness.now().plus_secs(seconds - 60_i64),
            "kick.webhook",
            fact,
        )
    };
    let describe = |seen: &[Observation]| {
        let (last, before) = seen.split_last().unwrap();
        let document =
            |seen: &[Observation]| SourceDocument::from_knowledge(source.clone(), Knowledge::of(seen));
        EvidenceUpdate {
            source: source.clone(),
            knowledge: Knowledge::of(std::slice::from_ref(last)),
            reported: crate::core::transition::transitions(
                &document(before).verdict,
                &document(seen).verdict,
            ),
        }
    };
    let story = [push(1, true), push(2, false)];
    let (start, end) = (describe(&story[..1]), describe(&story));
    assert_eq!((start.reported.len(), end.reported.len()), (1, 1));
    // The end arrives first, and the start arrives twice.
    for (update, outcome) in [
        (end, ApplyOutcome::Written),
        (start.clone(), ApplyOutcome::Written),
        (start, ApplyOutcome::Unchanged),
    ] {
        assert_eq!(harness.persister.apply([update]).await.count(outcome), 1);
    }
    let history = harness.store.history(&source, 10).await.unwrap();
    let reported: Vec<_> = history
        .iter()
        .map(|entry| entry.transition.to.as_deref().unwrap())
        .collect();
    assert_eq!(reported, ["OFFLINE", "ONLINE"]);
}

#[tokio::test]
async fn heartbeat_that_overtakes_transitions_is_read_as_one_change() {
    let harness = Harness::new();
    let source = key("kick:5");
    let push = |seconds, live, id: &str| {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some(id.into()),
            started_at: None,
        };
        let at = harness.now().plus_secs(seconds - 60_i64);
        Observation::new(&source, at, "kick.webhook", fact)
    };
    let story = [push(1, true, "4"), push(2, false, "4"), push(3, true, "5")];
    let document = |seen: &[Observation]| SourceDocument::from_knowledge(source.clone(), Knowledge::of(seen));
    let event = |place: usize| EvidenceUpdate {
        source: source.clone(),
        knowledge: Knowledge::of(&story[place..=place]),
        reported: crate::core::transition::transitions(
            &document(&story[..place]).verdict,
            &document(&story[..=place]).verdict,
        ),
    };
    let heartbeat = EvidenceUpdate {
        source: source.clone(),
        knowledge: Knowledge::of(&story),
        reported: Vec::new(),
    };
    // The sender was killed: its next process sends its state before the events that waited.
    for update in [event(0), heartbeat, event(1), event(2)] {
        harness.persister.apply([update]).await;
    }
    let recorded = harness.store.history(&source, 10).await.unwrap();
    let words = |entries: &[HistoryEntry]| {
        let words = entries.iter().map(|entry| entry.transition.to.clone().unwrap());
        words.collect::<Vec<_>>()
    };
    assert_eq!(words(&recorded), ["ONLINE", "ONLINE", "OFFLINE", "ONLINE"]);
    assert_eq!(
        words(&HistoryEntry::without_repeats(recorded)),
        ["ONLINE", "OFFLINE", "ONLINE"]
    );
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_not_hold_up_heartbeats() {
    let harness = Harness::new();
    harness.push("twitch:1", true).await;
    harness.clock.advance(3_600_000);
    harness.clock.advance(HEARTBEAT);
    assert_eq!(harness.viewers("twitch:1", 7).await, ApplyOutcome::Written);
    harness.clock.set(harness.now().plus_millis(-3_600_000));
    assert_eq!(harness.viewers("twitch:1", 8).await, ApplyOutcome::Coalesced);
    harness.clock.advance(2 * HEARTBEAT);
    let applied = harness.persister.tick().await;
    assert_eq!(applied.count(ApplyOutcome::Written), 1);
}

fn titled(title: &str) -> Fact {
    let fields = [("title".to_owned(), title.to_owned())].into();
    Fact::Profile { fields }
}

#[tokio::test]
async fn a_changed_title_is_written_at_once_and_the_same_title_is_not() {
    let harness = Harness::new();
    harness.push("twitch:1", true).await;
    assert_eq!(
        harness.see("twitch:1", titled("Chess")).await,
        ApplyOutcome::Written
    );
    harness.clock.advance(1_000);
    assert_eq!(
        harness.see("twitch:1", titled("Chess")).await,
        ApplyOutcome::Coalesced
    );
    assert_eq!(harness.see("twitch:1", titled("Go")).await, ApplyOutcome::Written);
}

#[tokio::test]
async fn a_title_that_never_rests_is_written_within_limits() {
    let harness = Harness::new();
    harness.push("twitch:1", true).await;
    let before = harness.writes();
    for round in 0..600 {
        harness.clock.advance(1_000);
        harness.see("twitch:1", titled(&round.to_string())).await;
        harness.persister.tick().await;
    }
    // Ten minutes are twenty heartbeats; each may be preceded by one early write.
    let writes = harness.writes() - before;
    assert!((20..=46).contains(&writes), "{writes}");
}

#[tokio::test]
async fn the_first_viewers_of_a_stream_do_not_wait_for_the_heartbeat() {
    let harness = Harness::new();
    harness.push("twitch:1", true).await;
    let viewers = |count, stream: &str| Fact::Viewers {
        count,
        stream_id: Some(stream.to_owned()),
    };
    assert_eq!(
        harness.see("twitch:1", viewers(77, "409")).await,
        ApplyOutcome::Written
    );
    assert_eq!(
        harness.see("twitch:1", viewers(78, "409")).await,
        ApplyOutcome::Coalesced
    );
}

#[tokio::test]
async fn primed_documents_are_not_read_again() {
    let harness = Harness::new();
    harness.push("twitch:1", true).await;
    let key: SourceKey = "twitch:1".parse().unwrap();
    let found = harness.store.load(&key).await.unwrap();
    let again = persister(&harness.store, &harness.clock);
    again.prime(vec![(key.clone(), found)]).await;
    let reads = harness.reads();
    let end = Fact::StreamPush {
        live: false,
        stream_id: Some("409".into()),
        started_at: None,
    };
    harness.clock.advance(1_000);
    let applied = again
        .observe(&[Observation::new(&key, harness.now(), "test", end)])
        .await;
    assert_eq!(applied.outcomes[&key], ApplyOutcome::Written);
    assert_eq!(harness.reads(), reads);
}

#[tokio::test]
async fn unusable_document_says_nothing_about_the_store() {
    let harness = Harness::new();
    let newer = json!({"id": "1", "platform": "twitch", "schemaVersion": 99});
    harness.store.inner.put_raw("twitch:1", newer);
    assert_eq!(harness.push("twitch:1", true).await, ApplyOutcome::Blocked);
    assert!(!harness.persister.stats().failing);
    assert_eq!(harness.push("twitch:2", true).await, ApplyOutcome::Written);
    assert!(!harness.persister.stats().failing);
}

#[tokio::test]
async fn baseline_told_of_a_known_facet_is_no_second_row() {
    let harness = Harness::new();
    let source = key("kick:5");
    let up = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Up,
    };
    harness.see("kick:5", up.clone()).await;
    harness.clock.advance(1_000);
    let seen = Observation::new(&source, harness.now(), "kick.api", up);
    let document = SourceDocument::from_knowledge(source.clone(), Knowledge::from(&seen));
    let nothing = SourceDocument::new(source.clone());
    let reported = crate::core::transition::transitions(&nothing.verdict, &document.verdict);
    assert!(reported[0].initial);
    let update = EvidenceUpdate {
        source: source.clone(),
        knowledge: document.knowledge,
        reported,
    };
    harness.persister.apply([update]).await;
    harness.persister.flush().await;
    assert_eq!(harness.happened("kick:5").await, ["status >CONNECTED"]);
}

/// The result of a check of the bot's token.
fn checked(result: AuthResult) -> Fact {
    Fact::Auth {
        identity: Identity::named("discord/bot"),
        check: AuthCheck {
            result,
            expires_at: None,
            scopes: BTreeSet::new(),
            rejected: false,
            client_rejected: false,
            reason: None,
        }
        .into(),
    }
}

/// The state of the link to the API.
fn api(state: LinkState) -> Fact {
    Fact::Connection {
        transport: Transport::Api,
        state,
    }
}

/// A refusal that comes after the revocation changes no status, and is stored nevertheless: the login that another process stores
/// meanwhile is followed by no error that is older than it.
#[tokio::test(start_paused = true)]
async fn refusal_after_a_revocation_is_no_error_after_the_login() {
    let source = key("discord:5");
    let error = ErrorInfo::new(Code::Unauthorized(source.platform()), "the token is refused");
    let refused = api(LinkState::Refused { error });
    let revoked = checked(AuthResult::Revoked);
    for order in [[refused.clone(), revoked.clone()], [revoked, refused]] {
        let harness = Harness::new();
        let start = harness.now();
        let seen = |millis: i64, fact| Observation::new(&source, start.plus_millis(millis), "test", fact);
        let proven = [seen(0, api(LinkState::Up)), seen(0, checked(AuthResult::Valid))];
        harness.persister.observe(&proven).await;
        harness.clock.advance(1000);
        // Each in a batch of its own.
        for fact in order.clone() {
            harness.persister.observe(&[seen(1000, fact)]).await;
        }
        harness.clock.advance(1000);
        let login = persister(&harness.store, &harness.clock);
        login.observe(&[seen(2000, checked(AuthResult::Valid))]).await;
        login.flush().await;
        harness.clock.advance(1000);
        for found in [
            seen(2603, checked(AuthResult::Valid)),
            seen(2601, api(LinkState::Up)),
        ] {
            harness.persister.observe(&[found]).await;
        }
        let happened = harness.happened("discord:5").await;
        let of_status: Vec<_> = happened
            .iter()
            .filter(|text| text.starts_with("status"))
            .collect();
        assert_eq!(
            of_status,
            [
                "status >CONNECTED",
                "status CONNECTED>ERROR",
                "status ERROR>CONNECTED"
            ],
            "{order:?}"
        );
    }
}

/// A revocation, a login that another process stores, and the recovery as this process finds it: the account is valid again a moment
/// later than the response that proves the connection.
#[tokio::test(start_paused = true)]
async fn login_stored_by_another_process_leaves_a_history_that_ends_in_the_present_state() {
    let harness = Harness::new();
    let source = key("discord:5");
    let start = harness.now();
    let seen = |millis: i64, fact| Observation::new(&source, start.plus_millis(millis), "test", fact);
    let refused = LinkState::Refused {
        error: ErrorInfo::new(Code::NetworkTimeout, "the token is refused"),
    };
    // What this process knows, reported with each change like the events of `watch`.
    let mut known = SourceDocument::new(source.clone());
    let mut report = |facts: Vec<Observation>| {
        let before = known.verdict.clone();
        for fact in &facts {
            known.join(Knowledge::from(fact));
        }
        EvidenceUpdate {
            source: source.clone(),
            knowledge: known.knowledge.clone(),
            reported: transitions(&before, &known.verdict),
        }
    };
    let proven = vec![seen(0, api(LinkState::Up)), seen(0, checked(AuthResult::Valid))];
    harness.persister.apply([report(proven)]).await;
    harness.clock.advance(1000);
    let revoked = report(vec![seen(1000, checked(AuthResult::Revoked))]);
    harness.persister.apply([revoked]).await;
    // It is no transition, and waits for the heartbeat.
    report(vec![seen(1000, api(refused))]);
    harness.clock.advance(1000);
    let login = persister(&harness.store, &harness.clock);
    login.observe(&[seen(2000, checked(AuthResult::Valid))]).await;
    login.flush().await;
    harness.clock.advance(1000);
    for found in [
        seen(2603, checked(AuthResult::Valid)),
        seen(2601, api(LinkState::Up)),
    ] {
        harness.persister.apply([report(vec![found])]).await;
    }
    let entries = harness.store.history(&source, 100).await.unwrap();
    let shown = HistoryEntry::without_repeats(entries);
    let mut of_status = shown.iter().map(|entry| &entry.transition);
    let last = of_status
        .find(|change| change.facet.as_str() == "status")
        .unwrap();
    let present = harness.stored("discord:5").await.verdict.status.value.to_string();
    assert_eq!(
        (last.to.clone(), present.as_str()),
        (Some(present.clone()), "CONNECTED")
    );
}
