//! Eight processes write ten thousand observations of twenty sources to one store, shuffled and repeated.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use bitbrat::clock::{Chance, SystemClock};
use bitbrat::core::code::Code;
use bitbrat::core::counters::Counters;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{ErrorInfo, Fact, LinkState, Observation, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::persist::Persister;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::SourceStore;
use bitbrat::store::firestore::FirestoreStore;
use bitbrat::store::postgres::{PostgresAddress, PostgresStore, PostgresTarget};
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};

use crate::contract::store::worlds::{FirestoreWorld, PostgresWorld, World, emulator, postgres_url};
use crate::stories::publishing::settle;
use crate::support::process;

const PROCESSES: usize = 8;
const SOURCES: usize = 20;
const OBSERVATIONS: usize = 10_000;
/// Number of observations that one process submits at once.
const PORTION: usize = 50;

/// The same ten thousand in every process, in the order in which they happened. Counters increase by one at a time, so one that
/// is lost or counted twice is detected.
fn everything() -> Vec<Observation> {
    let mut chance = fastrand::Rng::with_seed(2026);
    let mut totals: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    (0..OBSERVATIONS)
        .map(|number| {
            let source = chance.usize(..SOURCES);
            let key: SourceKey = format!("kick:{}", source + 1).parse().unwrap();
            let at = Timestamp::from_millis(1_780_000_000_000).plus_secs(i64::try_from(number).unwrap());
            let stream_id = Some(format!("s{}", number / 700));
            let fact = match chance.u8(..8) {
                0 => Fact::StreamPush {
                    live: chance.bool(),
                    stream_id,
                    started_at: None,
                },
                1 => Fact::StreamAbsent,
                2 => Fact::Connection {
                    transport: Transport::Webhook,
                    state: LinkState::Up,
                },
                3 => Fact::Problem {
                    error: ErrorInfo::new(Code::NetworkTimeout, format!("number {number}")),
                },
                4 => Fact::Viewers {
                    count: chance.u64(..500),
                    stream_id,
                },
                _ => {
                    let writer = chance.usize(..PROCESSES);
                    let total = totals.entry((source, writer)).or_default();
                    *total += 1;
                    Fact::Counters {
                        writer: format!("writer-{writer}"),
                        totals: Counters {
                            messages_in: *total,
                            at: Some(at),
                            ..Counters::default()
                        },
                    }
                }
            };
            Observation::new(&key, at, "test", fact)
        })
        .collect()
}

/// The share of one process: a seventh of everything more than it needs, in an order of its own.
fn share(process: usize) -> Vec<Observation> {
    let mut dealer = fastrand::Rng::with_seed(7);
    let mut mine: Vec<_> = everything()
        .into_iter()
        .filter(|_| {
            let holders = [dealer.usize(..PROCESSES), dealer.usize(..PROCESSES)];
            let twice = dealer.u8(..4) == 0;
            holders[0] == process || (twice && holders[1] == process)
        })
        .collect();
    fastrand::Rng::with_seed(process as u64).shuffle(&mut mine);
    mine
}

/// The main function of each process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests as a process of its own"]
async fn one_of_eight() {
    let (Ok(process), Ok(place)) = (
        std::env::var("BITBRAT_TEST_ROLE"),
        std::env::var("BITBRAT_TEST_PLACE"),
    ) else {
        return;
    };
    let process: usize = process.parse().unwrap();
    let store: Arc<dyn SourceStore> = match place.split_once(':') {
        Some(("schema", schema)) => {
            let mut target = PostgresTarget::new(PostgresAddress::parse(&postgres_url()).unwrap());
            schema.clone_into(&mut target.schema);
            Arc::new(PostgresStore::new(target))
        }
        Some((_, project)) => {
            let mut target = FirestoreWorld::with(Retention::default()).await.target;
            project.clone_into(&mut target.project);
            Arc::new(FirestoreStore::new(target))
        }
        None => Arc::new(
            SqliteStore::open(Path::new(&place), SqliteOptions::default())
                .await
                .unwrap(),
        ),
    };
    let chance = Chance::seeded(process as u64);
    let persister = Persister::new(
        store,
        Arc::new(SystemClock),
        WritePolicy::every(std::time::Duration::from_secs(30)),
        chance,
    );
    for portion in share(process).chunks(PORTION) {
        persister.observe(portion).await;
    }
    settle(&persister).await;
}

fn start(number: usize, place: &str) -> Child {
    process::again("stories::processes::one_of_eight")
        .env("BITBRAT_TEST_ROLE", number.to_string())
        .env("BITBRAT_TEST_PLACE", place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn eight_write(place: &str, store: &dyn SourceStore) {
    let children: Vec<_> = (0..PROCESSES).map(|process| start(process, place)).collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stdout)
        );
    }
    let mut by_source: BTreeMap<SourceKey, Vec<Observation>> = BTreeMap::new();
    for observation in everything() {
        by_source
            .entry(observation.source.clone())
            .or_default()
            .push(observation);
    }
    assert_eq!(by_source.len(), SOURCES);
    for (key, observations) in by_source {
        let in_order = SourceDocument::from_knowledge(key.clone(), Knowledge::of(&observations));
        let stored = store.load(&key).await.unwrap().unwrap().value;
        assert_eq!(stored.to_stored(), in_order.to_stored(), "{key}");
        let counted: usize = observations
            .iter()
            .filter(|seen| matches!(*seen.fact, Fact::Counters { .. }))
            .count();
        assert_eq!(stored.record().metrics.messages_in, counted as u64, "{key}");
    }
}

#[tokio::test]
async fn eight_processes_leave_the_document_of_one_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = SqliteStore::open_read_only(&path, SqliteOptions::default())
        .await
        .unwrap();
    eight_write(path.to_str().unwrap(), &store).await;
}

#[tokio::test]
async fn eight_firestore_writers_yield_the_document_of_one() {
    assert!(!emulator().is_empty());
    let world = FirestoreWorld::with(Retention::default()).await;
    let store = FirestoreStore::new(world.target.clone());
    eight_write(&format!("project:{}", world.target.project), &store).await;
}

#[tokio::test]
async fn eight_postgres_writers_yield_the_document_of_one() {
    let world = PostgresWorld::with(Retention::default()).await;
    let store = world.open().await;
    eight_write(&format!("schema:{}", world.target.schema), &*store).await;
}
