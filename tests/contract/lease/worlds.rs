//! The worlds of the suite: how each engine is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::bus::nats::NatsOptions;
use bitbrat::clock::SystemClock;
use bitbrat::lease::{
    FirestoreLeases, LeaseEngine, MemoryLeases, NatsLeases, PostgresLeases, Scope, SqliteLeases,
    SystemBootClock, Terms,
};
use bitbrat::store::firestore::FirestoreTarget;
use bitbrat::store::postgres::{PostgresAddress, PostgresTarget};

use crate::contract::bus::servers::nats_url;
use crate::contract::store::worlds::{emulator, execute, postgres_url};

/// Duration of leases in tests: long enough for a request on a busy machine, short enough to wait for the expiry.
pub const TTL: Duration = Duration::from_secs(4);

/// An empty engine of one kind.
#[async_trait]
pub trait World: Send + Sync + Sized + 'static {
    /// Name for [`open_described`]; `None` if another process cannot use the engine.
    const KIND: Option<&'static str>;

    async fn new() -> Self;

    /// What [`open_described`] needs to open the same engine.
    fn description(&self) -> String;

    /// Opens the engine with a connection of its own, for a fleet of this name.
    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine>;

    async fn open(&self) -> Arc<dyn LeaseEngine> {
        self.open_for("fleet").await
    }

    /// Makes the engine lose all its records.
    async fn wipe(&self);
}

pub fn scope(fleet: &str) -> Scope {
    Scope {
        fleet: fleet.parse().unwrap(),
        terms: Terms::lasting(TTL),
    }
}

/// Opens an engine in another process.
pub async fn open_described(kind: &str, description: &str) -> Arc<dyn LeaseEngine> {
    match kind {
        "sqlite" => sqlite(Path::new(description), "fleet"),
        "postgres" => Arc::new(PostgresLeases::new(postgres(description), scope("fleet"))),
        "nats" => {
            let (url, fleet) = description.split_once(' ').unwrap();
            nats(url, fleet).await
        }
        "firestore" => Arc::new(FirestoreLeases::new(firestore(description, None), scope("fleet"))),
        _ => panic!("{kind}?"),
    }
}

pub struct MemoryWorld(parking_lot::Mutex<Arc<MemoryLeases>>);

fn memory() -> Arc<MemoryLeases> {
    Arc::new(MemoryLeases::new(Terms::lasting(TTL), Arc::new(SystemBootClock)))
}

#[async_trait]
impl World for MemoryWorld {
    const KIND: Option<&'static str> = None;

    async fn new() -> Self {
        Self(parking_lot::Mutex::new(memory()))
    }

    fn description(&self) -> String {
        String::new()
    }

    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine> {
        match fleet {
            "fleet" => Arc::clone(&*self.0.lock()) as _,
            _ => memory(),
        }
    }

    async fn wipe(&self) {
        let wiped = memory();
        *self.0.lock() = wiped;
    }
}

pub struct SqliteWorld(tempfile::TempDir);

pub fn sqlite(path: &Path, fleet: &str) -> Arc<dyn LeaseEngine> {
    let opened = SqliteLeases::new(
        path,
        scope(fleet),
        Arc::new(SystemBootClock),
        Arc::new(SystemClock),
    );
    Arc::new(opened.unwrap())
}

impl SqliteWorld {
    pub fn path(&self) -> PathBuf {
        self.0.path().join("fleet.db")
    }
}

#[async_trait]
impl World for SqliteWorld {
    const KIND: Option<&'static str> = Some("sqlite");

    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn description(&self) -> String {
        self.path().display().to_string()
    }

    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine> {
        sqlite(&self.path(), fleet)
    }

    async fn wipe(&self) {
        for name in ["fleet.db", "fleet.db-wal", "fleet.db-shm"] {
            let _ = std::fs::remove_file(self.0.path().join(name));
        }
    }
}

pub struct PostgresWorld {
    pub schema: String,
}

pub fn postgres(schema: &str) -> PostgresTarget {
    PostgresTarget {
        schema: schema.to_owned(),
        ..PostgresTarget::new(PostgresAddress::parse(&postgres_url()).unwrap())
    }
}

#[async_trait]
impl World for PostgresWorld {
    const KIND: Option<&'static str> = Some("postgres");

    async fn new() -> Self {
        Self {
            schema: format!("l_{}", uuid::Uuid::new_v4().simple()),
        }
    }

    fn description(&self) -> String {
        self.schema.clone()
    }

    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine> {
        Arc::new(PostgresLeases::new(postgres(&self.schema), scope(fleet)))
    }

    async fn wipe(&self) {
        let statement = format!(
            "WITH gone AS (DELETE FROM {0}.fleets) DELETE FROM {0}.leases",
            self.schema
        );
        execute(&postgres_url(), &statement, &[]).await;
    }
}

/// Fleets of NATS share a server, so each world has a name of its own.
pub struct NatsWorld {
    pub url: String,
    pub prefix: String,
}

pub async fn nats(url: &str, fleet: &str) -> Arc<dyn LeaseEngine> {
    let engine = NatsLeases::connect(&NatsOptions::new(url, "unused."), scope(fleet)).await;
    Arc::new(engine.unwrap())
}

impl NatsWorld {
    pub fn at(url: String) -> Self {
        Self {
            url,
            prefix: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
        }
    }
}

#[async_trait]
impl World for NatsWorld {
    const KIND: Option<&'static str> = Some("nats");

    async fn new() -> Self {
        Self::at(nats_url())
    }

    fn description(&self) -> String {
        format!("{} {}-fleet", self.url, self.prefix)
    }

    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine> {
        nats(&self.url, &format!("{}-{fleet}", self.prefix)).await
    }

    async fn wipe(&self) {
        let client = async_nats::connect(&self.url).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        for kind in ["leases", "view"] {
            let name = format!("KV_bitbrat_{}-fleet_{kind}", self.prefix);
            let _ = jetstream.delete_stream(name).await;
        }
        // The time of the creation has whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

pub struct FirestoreWorld {
    project: String,
}

pub fn firestore(project: &str, address: Option<SocketAddr>) -> FirestoreTarget {
    FirestoreTarget {
        emulator: Some(address.map_or_else(emulator, |address| address.to_string())),
        ..FirestoreTarget::new(project, "(default)")
    }
}

#[async_trait]
impl World for FirestoreWorld {
    const KIND: Option<&'static str> = Some("firestore");

    async fn new() -> Self {
        Self {
            project: format!("test-{}", uuid::Uuid::new_v4().simple()),
        }
    }

    fn description(&self) -> String {
        self.project.clone()
    }

    async fn open_for(&self, fleet: &str) -> Arc<dyn LeaseEngine> {
        Arc::new(FirestoreLeases::new(firestore(&self.project, None), scope(fleet)))
    }

    async fn wipe(&self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "a plain client, to change the emulator without our code"
        )]
        let http = reqwest::Client::new();
        let url = format!(
            "http://{}/emulator/v1/projects/{}/databases/(default)/documents",
            emulator(),
            self.project
        );
        let wiped = http.delete(url).send().await.unwrap();
        assert!(wiped.status().is_success());
    }
}
