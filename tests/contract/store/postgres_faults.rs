//! Faults of PostgreSQL: unreachable at the start, stopped without a farewell, restarted under load, frozen, out of connections,
//! rejecting, and documents damaged by other programs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::counters::Counters;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::persist::{ApplyOutcome, Persister};
use bitbrat::store::postgres::{PostgresAccess, PostgresAddress, PostgresStore, PostgresTarget, TlsMode};
use bitbrat::store::retention::Retention;
use bitbrat::store::{SourceStore, StoreError, Stored, Write};
use futures_util::StreamExt;
use serde_json::json;

use crate::contract::store::worlds::{PostgresWorld, World, execute, postgres_url};
use crate::support::ReservedPort;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server for one test, which can stop, freeze and start it again.
pub struct Server {
    services: tempfile::TempDir,
    /// Held while the server runs, too: it is stopped and started again.
    port: ReservedPort,
}

impl Server {
    /// Reserves an address for it, without starting it.
    pub fn absent() -> Self {
        let server = Self {
            services: tempfile::tempdir().unwrap(),
            port: ReservedPort::new(),
        };
        // `scripts/services.sh` takes the port of last time.
        let state = server.services.path().join("postgres");
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("port"), server.port.number.to_string()).unwrap();
        server
    }

    fn services(&self, command: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh");
        let done = Command::new(script)
            .args([command, "postgres"])
            .env("BITBRAT_SERVICES_DIR", self.services.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn start(&self) {
        self.services("up");
        let state = std::fs::read_to_string(self.services.path().join("postgres/run")).unwrap();
        assert!(
            state.contains(&format!("port={}\n", self.port.number)),
            "another port: {state}"
        );
    }

    /// Stops it as an administrator does (`-INT`) or without a farewell to its clients (`-QUIT`), and waits until it has ended.
    pub fn stop(&self, signal: &str) {
        let state = std::fs::read_to_string(self.services.path().join("postgres/run")).unwrap();
        let group = state
            .lines()
            .find_map(|line| line.strip_prefix("group="))
            .unwrap();
        let send = |signal: &str| {
            let sent = Command::new("kill")
                .args([signal, "--", &format!("-{group}")])
                .stderr(Stdio::null())
                .status();
            sent.unwrap().success()
        };
        assert!(send(signal));
        let deadline = std::time::Instant::now() + PATIENCE;
        while send("-0") {
            assert!(std::time::Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its address as it will be, also before it was started.
    pub fn url(&self) -> String {
        let authority = self.services.path().join("postgres/ca.pem");
        format!(
            "postgres://bitbrat:bitbrat-test-password@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={}",
            self.port.number,
            authority.display()
        )
    }

    pub fn target(&self, patience: Duration) -> PostgresTarget {
        PostgresTarget {
            patience,
            ..PostgresTarget::new(PostgresAddress::parse(&self.url()).unwrap())
        }
    }

    fn store(&self, patience: Duration) -> Arc<PostgresStore> {
        Arc::new(PostgresStore::new(self.target(patience)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.services.path().join("postgres/run").exists() {
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

async fn until(
    watching: &mut futures_util::stream::BoxStream<'static, Result<Vec<Stored>, StoreError>>,
    wanted: &'static str,
) {
    let of = |stored: &Stored| stored.document.clone().unwrap().value.record().stream_status;
    let seen = async {
        while let Some(seen) = watching.next().await {
            let Ok(all) = seen else { continue };
            if all.iter().map(|stored| of(stored).to_string()).eq([wanted]) {
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
async fn late_or_restarted_server_loses_no_transition() {
    let server = Server::absent();
    // The certificates are made with the server.
    let mut target = server.target(Duration::from_secs(20));
    target.address.root_cert = None;
    target.address.tls = TlsMode::Insecure;
    let store = Arc::new(PostgresStore::new(target));

    // Unreachable at the start: reported at once, with the address.
    let reported = store.load_all().await.unwrap_err();
    let text = reported.to_string();
    assert!(
        reported.is_transient() && text.contains(&server.port.number.to_string()),
        "{text}"
    );
    let persister = Persister::new(
        store.clone(),
        Arc::new(SystemClock),
        WritePolicy::every(Duration::from_mins(5)),
        Chance::seeded(3),
    );
    assert_eq!(
        persister.observe(&[push(0, true)]).await.outcomes[&key("kick:5")],
        ApplyOutcome::Waiting
    );
    let mut watching = store.watch().await.unwrap();
    assert!(watching.next().await.unwrap().is_err());

    server.start();
    settle(&persister).await;
    until(&mut watching, "ONLINE").await;

    // Stopped without a farewell: changes in the meantime are deferred.
    server.stop("-QUIT");
    assert_eq!(
        persister.observe(&[push(9, false)]).await.outcomes[&key("kick:5")],
        ApplyOutcome::Waiting
    );
    server.start();
    settle(&persister).await;
    until(&mut watching, "OFFLINE").await;
    let happened = store.history(&key("kick:5"), 10).await.unwrap();
    let last: Vec<_> = happened
        .iter()
        .map(|entry| entry.transition.to.as_deref().unwrap())
        .collect();
    assert_eq!(last, ["OFFLINE", "ONLINE"]);
}

/// Counts up in one document, each time on the version that was written before.
async fn count_up(store: &PostgresStore, id: &str, acknowledged: &AtomicU64, rounds: u64) {
    let mut base = None;
    let mut total = 0;
    while total < rounds {
        let totals = Counters {
            messages_in: total + 1,
            ..Counters::default()
        };
        let fact = Fact::Counters {
            writer: "one".to_owned(),
            totals,
        };
        let known = Knowledge::of(&[Observation::new(&key(id), Timestamp::EPOCH, "test", fact)]);
        let document = SourceDocument::from_knowledge(key(id), known);
        match store.save(&[Write::new(document, base.clone())]).await.remove(0) {
            Ok(version) => {
                total += 1;
                acknowledged.fetch_add(1, Ordering::SeqCst);
                base = Some(version);
            }
            // The write of which nothing was reported may have succeeded.
            Err(StoreError::Conflict { .. }) => match store.load(&key(id)).await {
                Ok(Some(found)) => {
                    assert!(
                        found.value.record().metrics.messages_in >= total,
                        "acknowledged, and not stored"
                    );
                    total = found.value.record().metrics.messages_in;
                    base = Some(found.version);
                }
                Ok(None) => panic!("the document is gone"),
                Err(_) => {}
            },
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_restarts_under_load() {
    const ROUNDS: u64 = 400;
    let server = Server::absent();
    server.start();
    let store = server.store(Duration::from_secs(10));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let ids = ["kick:1", "kick:2", "kick:3"];
    let writers = ids.map(|id| {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        async move { count_up(&store, id, &acknowledged, ROUNDS).await }
    });
    let restarts = async {
        for (at, signal) in [(100, "-INT"), (500, "-QUIT")] {
            while acknowledged.load(Ordering::SeqCst) < at {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::task::block_in_place(|| {
                server.stop(signal);
                server.start();
            });
        }
    };
    let work = futures_util::future::join(futures_util::future::join_all(writers), restarts);
    tokio::time::timeout(PATIENCE * 2, work).await.unwrap();
    for id in ids {
        let stored = store.load(&key(id)).await.unwrap().unwrap().value;
        assert_eq!(stored.record().metrics.messages_in, ROUNDS, "{id}");
    }
}

/// A server that accepts connections and never says anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for tls in ["disable", "no-verify"] {
        let url = format!("postgres://rat@127.0.0.1:{port}/x?sslmode={tls}");
        let store = PostgresStore::new(PostgresTarget {
            patience: Duration::from_millis(300),
            ..PostgresTarget::new(PostgresAddress::parse(&url).unwrap())
        });
        for reported in [
            store.load_all().await.unwrap_err(),
            store.check().await.unwrap_err(),
        ] {
            assert!(
                reported.is_transient() && reported.to_string().contains("in time"),
                "{reported}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_pool_is_reported_and_recovers() {
    let mut world = PostgresWorld::with(Retention::default()).await;
    world.target.connections = 1;
    world.target.patience = Duration::from_millis(1_500);
    let store = Arc::new(PostgresStore::new(world.target.clone()));
    let write = |id: &str| Write::new(SourceDocument::new(key(id)), None);
    store.save(&[write("kick:1")]).await.remove(0).unwrap();
    // Another program holds the table, so that our only connection waits for it.
    let hold = format!(
        "SELECT pg_sleep(4)::text FROM (SELECT 1 FROM {}.documents WHERE id = 'kick:1' FOR UPDATE) held",
        world.target.schema
    );
    let held = async { execute(&postgres_url(), &hold, &[]).await };
    let other = world.open().await;
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let version = other.load(&key("kick:1")).await.unwrap().unwrap().version;
        let blocked = [Write::new(SourceDocument::new(key("kick:1")), Some(version))];
        let (one, others) = futures_util::future::join(
            store.save(&blocked),
            futures_util::future::join_all((0..5).map(|_| store.load(&blocked[0].document.key))),
        )
        .await;
        assert!(one[0].as_ref().is_err_and(StoreError::is_transient), "{one:?}");
        assert!(
            others
                .iter()
                .filter_map(|result| result.as_ref().err())
                .all(StoreError::is_transient)
        );
    };
    futures_util::future::join(held, meanwhile).await;
    store.save(&[write("kick:2")]).await.remove(0).unwrap();
    assert_eq!(store.load_all().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_errors_name_the_next_step() {
    let url = postgres_url();
    let base = url.split('?').next().unwrap();
    let refused = async |url: String| {
        let store = PostgresStore::new(PostgresTarget::new(PostgresAddress::parse(&url).unwrap()));
        match store.load_all().await.unwrap_err() {
            StoreError::Refused { reason, hint, .. } => {
                assert!(!format!("{reason} {hint}").contains("wrong-password"));
                (reason, hint)
            }
            other => panic!("{other}"),
        }
    };
    let user = PostgresAddress::parse(&url).unwrap();
    let password = base.split('@').next().unwrap().rsplit(':').next().unwrap();
    let (reason, hint) = refused(url.replace(password, "wrong-password")).await;
    assert!(
        reason.contains("28P01") && hint.contains("PGPASSWORD"),
        "{reason}: {hint}"
    );
    let (reason, hint) = refused(url.replace("/postgres?", "/nowhere?")).await;
    assert!(
        reason.contains("3D000") && hint.contains("createdb nowhere"),
        "{reason}: {hint}"
    );
    let (reason, hint) = refused(format!("{base}?sslmode=verify-full")).await;
    assert!(
        reason.contains("certificate") && hint.contains("sslrootcert"),
        "{reason}: {hint}"
    );
    let (reason, _) = refused(format!("{base}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem")).await;
    assert!(reason.contains("/nowhere/ca.pem"), "{reason}");
    let other_name = url.replace("127.0.0.1", "127.0.0.2");
    let store = PostgresStore::new(PostgresTarget::new(PostgresAddress::parse(&other_name).unwrap()));
    assert!(store.load_all().await.is_err());
    assert!(user.has_password());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_of_a_newer_version_is_refused() {
    let world = PostgresWorld::with(Retention::default()).await;
    let update = format!(
        "UPDATE {}.meta SET value = '99' WHERE key = 'schema_version'",
        world.target.schema
    );
    execute(&postgres_url(), &update, &[]).await;
    let refused = world.open().await.load_all().await.unwrap_err();
    assert!(
        matches!(refused, StoreError::NewerSchema { found: 99, .. }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_that_becomes_newer_stops_every_write_until_it_fits() {
    let world = PostgresWorld::with(Retention::default()).await;
    let store = world.open().await;
    let persister = Persister::new(
        world.open().await,
        Arc::new(SystemClock),
        WritePolicy::every(Duration::from_millis(100)),
        Chance::seeded(1),
    );
    let written = persister.observe(&[push(1, true)]).await;
    assert_eq!(written.count(ApplyOutcome::Written), 1);
    let before = world.raw("kick:5").await.unwrap();
    let set = async |value: &str| {
        let update = "UPDATE {}.meta SET value = $1 WHERE key = 'schema_version' RETURNING key";
        let update = update.replace("{}", &world.target.schema);
        execute(&postgres_url(), &update, &[value]).await;
    };
    let select = "SELECT value FROM {}.meta WHERE key = 'schema_version'".replace("{}", &world.target.schema);
    let known = execute(&postgres_url(), &select, &[]).await.unwrap();

    set("99").await;
    let waiting = persister.observe(&[push(2, false)]).await;
    assert_eq!(waiting.count(ApplyOutcome::Waiting), 1, "{:?}", waiting.failures);
    let stored = Write::new(SourceDocument::new(key("kick:6")), None);
    let refusals = [
        store.save(&[stored]).await.remove(0).unwrap_err(),
        store.delete("kick:5").await.unwrap_err(),
        store
            .drop_history_after(&key("kick:5"), Timestamp::EPOCH)
            .await
            .unwrap_err(),
        store.load(&key("kick:5")).await.unwrap_err(),
        store.check().await.unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, StoreError::NewerSchema { found: 99, .. }),
            "{refused}"
        );
    }
    assert_eq!(world.raw("kick:5").await.unwrap(), before);
    assert_eq!(world.raw("kick:6").await, None);

    set(&known).await;
    settle(&persister).await;
    let after = store.load(&key("kick:5")).await.unwrap().unwrap();
    assert_eq!(after.value.record().stream_status.to_string(), "OFFLINE");
    assert_eq!(store.history(&key("kick:5"), 10).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_without_its_version_is_refused_and_never_shown_as_empty() {
    let world = PostgresWorld::with(Retention::default()).await;
    for change in ["UPDATE {}.meta SET value = 'banana'", "DELETE FROM {}.meta"] {
        let change = change.replace("{}", &world.target.schema);
        execute(&postgres_url(), &change, &[]).await;
        let refused = world.open().await.load_all().await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Refused { reason, .. } if reason.contains("schema_version")),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_once_by_concurrent_processes() {
    let mut world = PostgresWorld::with(Retention::default()).await;
    world.target.schema.push_str("_b");
    let stores: Vec<_> = (0..8).map(|_| PostgresStore::new(world.target.clone())).collect();
    let reads = stores.iter().map(PostgresStore::load_all);
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_a_database_without_tables_makes_none() {
    let mut world = PostgresWorld::with(Retention::default()).await;
    world.target.schema.push_str("_b");
    world.target.access = PostgresAccess::Read;
    let store = PostgresStore::new(world.target.clone());
    assert!(store.load_all().await.unwrap().is_empty());
    assert!(store.history(&key("kick:5"), 9).await.unwrap().is_empty());
    let select = "SELECT to_regnamespace($1)::text";
    assert_eq!(
        execute(&postgres_url(), select, &[&world.target.schema]).await,
        None
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_document_that_cannot_be_stored_stops_no_other() {
    let world = PostgresWorld::with(Retention::default()).await;
    let constraint = format!(
        "ALTER TABLE {}.documents ADD CHECK (id <> 'kick:7')",
        world.target.schema
    );
    execute(&postgres_url(), &constraint, &[]).await;
    let writes: Vec<_> = (1..=40)
        .map(|id| Write::new(SourceDocument::new(key(&format!("kick:{id}"))), None))
        .collect();
    let results = world.open().await.save(&writes).await;
    for (index, result) in results.iter().enumerate() {
        if index == 6 {
            assert!(
                matches!(result, Err(StoreError::Rejected { document_id, .. }) if document_id == "kick:7"),
                "{result:?}"
            );
        } else {
            assert!(result.is_ok(), "{index}: {result:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_others_that_fit_no_column_are_stored() {
    let world = PostgresWorld::with(Retention::default()).await;
    for (viewers, column) in [
        (json!("abc"), None),
        (json!(1.4), Some("1")),
        (json!(99_999_999_999_i64), Some("2147483647")),
        (json!(-5), Some("0")),
        (json!(null), None),
    ] {
        let document = json!({ "viewerCount": viewers, "status": "x".repeat(9_000) });
        world.put_raw("kick:5", document).await;
        let select = format!("SELECT viewer_count::text FROM {}.documents", world.target.schema);
        let found = execute(&postgres_url(), &select, &[]).await;
        assert_eq!(found.as_deref(), column, "{viewers}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_by_another_program_is_a_new_version() {
    let world = PostgresWorld::with(Retention::default()).await;
    let store = world.open().await;
    let document = SourceDocument::new(key("kick:5"));
    let written = store
        .save(&[Write::new(document.clone(), None)])
        .await
        .remove(0)
        .unwrap();
    world.put_raw("kick:5", json!({ "owner": "team-a" })).await;
    let refused = store.save(&[Write::new(document, Some(written))]).await.remove(0);
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
}
