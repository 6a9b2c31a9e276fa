//! Faults of Firestore: unreachable at the start, killed with loss of data, frozen, rejecting, and documents damaged by other
//! programs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::persist::{ApplyOutcome, Persister};
use bitbrat::store::firestore::{FirestoreStore, FirestoreTarget};
use bitbrat::store::retention::Retention;
use bitbrat::store::{HistoryEntry, SourceStore, StoreError, Write};
use futures_util::StreamExt;
use serde_json::json;

use crate::contract::store::worlds::{FirestoreWorld, World};
use crate::support::ReservedPort;

const PATIENCE: Duration = Duration::from_secs(60);

/// An emulator for one test, which can stop, freeze and start it again.
struct Emulator {
    services: tempfile::TempDir,
    /// Held while the emulator runs, too: it is stopped and started again.
    port: ReservedPort,
}

impl Emulator {
    /// Reserves an address for it, without starting it.
    fn absent() -> Self {
        let emulator = Self {
            services: tempfile::tempdir().unwrap(),
            port: ReservedPort::new(),
        };
        // `scripts/services.sh` takes the port of last time.
        let state = emulator.services.path().join("firestore");
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("port"), emulator.port.number.to_string()).unwrap();
        emulator
    }

    fn services(&self, command: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh");
        let done = Command::new(script)
            .args([command, "firestore"])
            .env("BITBRAT_SERVICES_DIR", self.services.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn start(&self) {
        self.services("up");
        let state = std::fs::read_to_string(self.services.path().join("firestore/run")).unwrap();
        assert!(
            state.contains(&format!("port={}\n", self.port.number)),
            "another port: {state}"
        );
    }

    /// Sends a signal to all of its processes.
    fn signal(&self, signal: &str) {
        let state = std::fs::read_to_string(self.services.path().join("firestore/run")).unwrap();
        let group = state
            .lines()
            .find_map(|line| line.strip_prefix("group="))
            .unwrap();
        let sent = Command::new("kill")
            .args([signal, "--", &format!("-{group}")])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn store(&self, patience: Duration) -> Arc<FirestoreStore> {
        Arc::new(FirestoreStore::new(FirestoreTarget {
            emulator: Some(format!("127.0.0.1:{}", self.port.number)),
            patience,
            ..FirestoreTarget::new("faults", "(default)")
        }))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if self.services.path().join("firestore/run").exists() {
            self.signal("-CONT");
            self.services("down");
        }
    }
}

fn key(id: &str) -> SourceKey {
    id.parse().unwrap()
}

fn push(at: i64, live: bool) -> Observation {
    let fact = Fact::StreamPush {
        live,
        stream_id: Some("409".into()),
        started_at: None,
    };
    let at = SystemClock.now().plus_secs(at - 100);
    Observation::new(&key("kick:5"), at, "test", fact)
}

fn persister(store: &Arc<FirestoreStore>) -> Persister {
    Persister::new(
        store.clone(),
        Arc::new(SystemClock),
        WritePolicy::every(Duration::from_mins(5)),
        Chance::seeded(3),
    )
}

/// Ticks until everything is stored.
async fn settle(persister: &Persister) {
    let settled = async {
        while persister.stats().pending > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            persister.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled)
        .await
        .expect("what is pending is stored in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_killed_or_reset_emulator_loses_no_transition() {
    let emulator = Emulator::absent();
    let store = emulator.store(Duration::from_secs(20));

    // Unreachable at the start: reported at once, with the address and what to do.
    let reported = store.load_all().await.unwrap_err();
    let text = reported.to_string();
    assert!(
        reported.is_transient()
            && text.contains(&emulator.port.number.to_string())
            && text.contains("services.sh"),
        "{text}"
    );
    let persister = persister(&store);
    assert_eq!(
        persister.observe(&[push(0, true)]).await.outcomes[&key("kick:5")],
        ApplyOutcome::Waiting
    );
    let mut watching = store.watch().await.unwrap();
    assert!(watching.next().await.unwrap().is_err());

    emulator.start();
    settle(&persister).await;
    let shown = |wanted: &'static str| {
        move |all: &[bitbrat::store::Stored]| {
            let of = |stored: &bitbrat::store::Stored| {
                stored.document.clone().unwrap().value.record().stream_status
            };
            all.iter()
                .map(|stored| of(stored).to_string())
                .collect::<Vec<_>>()
                == [wanted]
        }
    };
    until(&mut watching, shown("ONLINE")).await;

    // Killed: changes in the meantime are deferred.
    emulator.signal("-KILL");
    assert_eq!(
        persister.observe(&[push(9, false)]).await.outcomes[&key("kick:5")],
        ApplyOutcome::Waiting
    );
    assert!(watching.next().await.unwrap().is_err());

    // Back, without its data: the document is written again as a whole.
    emulator.start();
    settle(&persister).await;
    until(&mut watching, shown("OFFLINE")).await;
    let happened = store.history(&key("kick:5"), 10).await.unwrap();
    let last = happened[0].transition.to.clone();
    assert_eq!(last.as_deref(), Some("OFFLINE"));
}

async fn until(
    watching: &mut futures_util::stream::BoxStream<'static, Result<Vec<bitbrat::store::Stored>, StoreError>>,
    wanted: impl Fn(&[bitbrat::store::Stored]) -> bool,
) {
    let seen = async {
        while let Some(seen) = watching.next().await {
            if seen.is_ok_and(|all| wanted(&all)) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("the watch heals by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_emulator_is_given_up_in_time_and_found_again() {
    let emulator = Emulator::absent();
    emulator.start();
    let store = emulator.store(Duration::from_secs(10));
    let document = SourceDocument::new(key("kick:6"));
    store
        .save(&[Write::new(document.clone(), None)])
        .await
        .remove(0)
        .unwrap();

    let hasty = emulator.store(Duration::from_millis(300));
    hasty.load_all().await.ok();
    emulator.signal("-STOP");
    let write = Write::new(SourceDocument::new(key("kick:7")), None);
    for reported in [
        hasty
            .save(std::slice::from_ref(&write))
            .await
            .remove(0)
            .unwrap_err(),
        hasty.load(&key("kick:6")).await.unwrap_err(),
        hasty.load_all().await.unwrap_err(),
        hasty.check().await.unwrap_err(),
    ] {
        assert!(
            reported.is_transient() && reported.to_string().contains("in time"),
            "{reported}"
        );
    }

    emulator.signal("-CONT");
    // Whether the cancelled write succeeded is for the next one to find out; nothing is lost either way.
    match store.save(&[write]).await.remove(0) {
        Ok(_) | Err(StoreError::Conflict { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    assert_eq!(store.load_all().await.unwrap().len(), 2);
}

#[tokio::test]
async fn missing_or_broken_key_file_is_reported_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    for contents in [None, Some("{ \"type\": \"service_account\" }")] {
        if let Some(contents) = contents {
            std::fs::write(&file, contents).unwrap();
        }
        let store = FirestoreStore::new(FirestoreTarget {
            credentials_file: Some(file.clone()),
            ..FirestoreTarget::new("nobody", "(default)")
        });
        match store.load_all().await.unwrap_err() {
            StoreError::Refused { hint, .. } => assert!(hint.contains("key.json"), "{hint}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_someone_else_broke_blocks_only_its_own_source() {
    let world = FirestoreWorld::with(Retention::default()).await;
    let store = Arc::new(FirestoreStore::new(world.target.clone()));
    let wrong = json!({ "id": 5, "status": ["odd"], "metrics": "none", "evidence": { "connection": 7 } });
    world.put_raw("kick:5", wrong.clone()).await;
    world
        .put_raw(
            "kick:6",
            json!({ "metadata": { "notes": "x".repeat(900 * 1024) } }),
        )
        .await;
    world.put_raw("kick:7", json!({ "schemaVersion": 99 })).await;
    let persister = persister(&store);
    let seen = ["kick:5", "kick:6", "kick:7", "kick:8"].map(|id| {
        let fact = Fact::Latency { millis: 12 };
        Observation::new(&key(id), Timestamp::from_millis(1_780_000_000_000), "test", fact)
    });
    persister.observe(&seen).await;
    let flushed = persister.flush().await;
    let blocked = |id: &str| flushed.outcomes.get(&key(id)) == Some(&ApplyOutcome::Blocked);
    assert!(blocked("kick:5") && blocked("kick:7"), "{:?}", flushed.outcomes);
    assert_eq!(world.raw("kick:5").await.unwrap(), wrong);
    for id in ["kick:6", "kick:8"] {
        let stored = store.load(&key(id)).await.unwrap().unwrap().value;
        assert_eq!(stored.record().latency_ms, Some(12), "{id}");
    }
    let kept = world.raw("kick:6").await.unwrap();
    assert_eq!(kept["metadata"]["notes"].as_str().unwrap().len(), 900 * 1024);
}

fn entry(number: i64) -> HistoryEntry {
    let live = push(number, number % 2 == 0);
    let transition = Transition {
        facet: Facet::Stream,
        from: None,
        to: None,
        at: live.at,
        rule: "test".into(),
        stream_id: None,
        initial: false,
    };
    HistoryEntry::new(&key("kick:5"), live.at, transition)
}

#[tokio::test]
async fn history_is_swept_below_the_retention_now_and_then() {
    let retention = Retention {
        entries: 5,
        ..Retention::default()
    };
    let world = FirestoreWorld::with(retention).await;
    let store = FirestoreStore::new(world.target.clone());
    // A reader with a longer retention sees what is only hidden.
    let all = FirestoreStore::new(FirestoreTarget {
        retention: Retention::default(),
        ..world.target.clone()
    });
    let entries: Vec<_> = (0..40).map(entry).collect();
    store.append_history(&key("kick:5"), &entries).await.unwrap();
    assert_eq!(all.history(&key("kick:5"), 100).await.unwrap().len(), 5);
}

#[tokio::test]
async fn history_is_not_swept_by_the_first_write_of_a_document() {
    let retention = Retention {
        entries: 5,
        ..Retention::default()
    };
    let world = FirestoreWorld::with(retention).await;
    let store = FirestoreStore::new(world.target.clone());
    let all = FirestoreStore::new(FirestoreTarget {
        retention: Retention::default(),
        ..world.target.clone()
    });
    // Of so many entries some trigger a sweep.
    let (first, then): (Vec<_>, Vec<_>) = (0..2_000)
        .map(entry)
        .partition(|entry| !entry.id.starts_with("00"));
    let write = |base, history: &[HistoryEntry]| Write {
        history: history.to_vec(),
        ..Write::new(SourceDocument::new(key("kick:5")), base)
    };
    let (triggers, later) = then.split_at(1);
    let saved = store
        .save(&[write(None, &[triggers, &first[..20]].concat())])
        .await;
    assert_eq!(all.history(&key("kick:5"), 100).await.unwrap().len(), 21);
    let base = saved[0].clone().unwrap();
    assert!(store.save(&[write(Some(base), &later[..1])]).await[0].is_ok());
    assert_eq!(all.history(&key("kick:5"), 100).await.unwrap().len(), 5);
}
