//! The worlds of the suite: how each adapter is opened, and how another program writes to the same store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitbrat::store::SourceStore;
use bitbrat::store::firestore::{FirestoreStore, FirestoreTarget};
use bitbrat::store::memory::MemoryStore;
use bitbrat::store::postgres::{PostgresAddress, PostgresStore, PostgresTarget};
use bitbrat::store::retention::Retention;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Map, Value, json};

/// A fresh, empty store of one kind.
#[async_trait]
pub trait World: Send + Sync + Sized + 'static {
    /// Creates the store.
    async fn with(retention: Retention) -> Self;

    /// Opens the same store once more, as another process would.
    async fn open(&self) -> Arc<dyn SourceStore>;

    /// Puts a document as another program would, without our code.
    async fn put_raw(&self, document_id: &str, document: Value);

    /// Reads a document without our code.
    async fn raw(&self, document_id: &str) -> Option<Value>;
}

pub struct MemoryWorld(MemoryStore);

#[async_trait]
impl World for MemoryWorld {
    async fn with(retention: Retention) -> Self {
        Self(MemoryStore::new(retention))
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        Arc::new(self.0.clone())
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        self.0.put_raw(document_id, document);
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        self.0.get_raw(document_id)
    }
}

pub struct SqliteWorld {
    directory: tempfile::TempDir,
    options: SqliteOptions,
}

impl SqliteWorld {
    fn connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.directory.path().join("store.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }
}

#[async_trait]
impl World for SqliteWorld {
    async fn with(retention: Retention) -> Self {
        let options = SqliteOptions {
            retention,
            watch_interval: Duration::from_millis(10),
            ..SqliteOptions::default()
        };
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            options,
        };
        world.open().await;
        world
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        let path = self.directory.path().join("store.db");
        Arc::new(SqliteStore::open(&path, self.options).await.unwrap())
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO sources (id, version, document) VALUES (?1, 1000000, ?2)",
                (document_id, document.to_string()),
            )
            .unwrap();
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        let text: String = self
            .connection()
            .query_row(
                "SELECT document FROM sources WHERE id = ?1",
                [document_id],
                |row| row.get(0),
            )
            .ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// Returns the emulator's address. Tests that need it fail without it, rather than pass without having tested anything.
pub fn emulator() -> String {
    std::env::var("FIRESTORE_EMULATOR_HOST").expect(
        "a Firestore emulator is needed: run `scripts/services.sh up` and `eval \"$(scripts/services.sh env)\"`, or \
         `gcloud emulators firestore start --host-port=127.0.0.1:8080` and set FIRESTORE_EMULATOR_HOST=127.0.0.1:8080",
    )
}

/// A project of its own in the emulator, accessed without our code through its REST interface.
pub struct FirestoreWorld {
    pub target: FirestoreTarget,
    http: reqwest::Client,
}

impl FirestoreWorld {
    fn url(&self, document_id: &str) -> String {
        let FirestoreTarget {
            project, collection, ..
        } = &self.target;
        format!(
            "http://{}/v1/projects/{project}/databases/(default)/documents/{collection}/{document_id}",
            emulator()
        )
    }
}

#[async_trait]
impl World for FirestoreWorld {
    async fn with(retention: Retention) -> Self {
        let project = format!("test-{}", uuid::Uuid::new_v4().simple());
        let target = FirestoreTarget {
            emulator: Some(emulator()),
            // The emulator's first responses take seconds on a busy machine.
            patience: Duration::from_secs(20),
            retention,
            ..FirestoreTarget::new(&project, "(default)")
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a plain client, to look at the emulator without our code"
        )]
        let http = reqwest::Client::new();
        Self { target, http }
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        Arc::new(FirestoreStore::new(self.target.clone()))
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        let written = self
            .http
            .patch(self.url(document_id))
            .bearer_auth("owner")
            .json(&json!({ "fields": typed(document)["mapValue"]["fields"] }))
            .send()
            .await
            .unwrap();
        assert!(written.status().is_success(), "{}", written.text().await.unwrap());
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        let read = self
            .http
            .get(self.url(document_id))
            .bearer_auth("owner")
            .send()
            .await
            .unwrap();
        let read: Value = read.error_for_status().ok()?.json().await.unwrap();
        Some(plain(&json!({ "mapValue": { "fields": read["fields"] } })))
    }
}

/// Returns the test server's address. Tests that need it fail without it, rather than pass without having tested anything.
pub fn postgres_url() -> String {
    std::env::var("BITBRAT_TEST_POSTGRES_URL").expect(
        "a PostgreSQL server is needed: run `scripts/services.sh up postgres` and `eval \"$(scripts/services.sh env postgres)\"`, \
         or set BITBRAT_TEST_POSTGRES_URL=postgres://USER:PASSWORD@127.0.0.1:5432/DATABASE of a server that may be written to",
    )
}

/// Executes a statement without our code, and returns the first column of its first row as text.
pub async fn execute(url: &str, statement: &str, parameters: &[&str]) -> Option<String> {
    use tokio_postgres::types::{ToSql, Type};
    // The options are those of our own parser.
    let plain = url.split('?').next().unwrap();
    let (client, connection) = tokio_postgres::connect(plain, tokio_postgres::NoTls)
        .await
        .unwrap();
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters
        .iter()
        .map(|text| (text as &(dyn ToSql + Sync), Type::TEXT))
        .collect();
    let work = async move {
        let rows = client.query_typed(statement, &parameters).await.unwrap();
        rows.first().and_then(|row| row.get(0))
    };
    let (found, closed) = futures_util::future::join(work, connection).await;
    closed.unwrap();
    found
}

/// A schema of its own in the test server's database, which other programs use by name.
pub struct PostgresWorld {
    pub target: PostgresTarget,
}

impl PostgresWorld {
    fn sql(&self, statement: &str) -> String {
        statement.replace("{s}", &self.target.schema)
    }
}

#[async_trait]
impl World for PostgresWorld {
    async fn with(retention: Retention) -> Self {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let target = PostgresTarget {
            schema,
            patience: Duration::from_secs(20),
            retention,
            ..PostgresTarget::new(PostgresAddress::parse(&postgres_url()).unwrap())
        };
        let world = Self { target };
        // Other programs can write only where the tables exist.
        world.open().await.load_all().await.unwrap();
        world
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        Arc::new(PostgresStore::new(self.target.clone()))
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        let statement = "INSERT INTO {s}.documents (id, data) VALUES ($1, $2::text::jsonb)
                         ON CONFLICT (id) DO UPDATE SET data = excluded.data";
        execute(
            &postgres_url(),
            &self.sql(statement),
            &[document_id, &document.to_string()],
        )
        .await;
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        let statement = self.sql("SELECT data::text FROM {s}.documents WHERE id = $1");
        let text = execute(&postgres_url(), &statement, &[document_id]).await?;
        Some(serde_json::from_str(&text).unwrap())
    }
}

/// The same, used as through a pooler: without settings of sessions and without notifications.
pub struct PoolerWorld(PostgresWorld);

#[async_trait]
impl World for PoolerWorld {
    async fn with(retention: Retention) -> Self {
        let mut world = PostgresWorld::with(retention).await;
        world.target.pooler = true;
        Self(world)
    }

    async fn open(&self) -> Arc<dyn SourceStore> {
        self.0.open().await
    }

    async fn put_raw(&self, document_id: &str, document: Value) {
        self.0.put_raw(document_id, document).await;
    }

    async fn raw(&self, document_id: &str) -> Option<Value> {
        self.0.raw(document_id).await
    }
}

/// JSON as Firestore's REST interface writes it.
fn typed(value: Value) -> Value {
    match value {
        Value::Null => json!({ "nullValue": null }),
        Value::Bool(flag) => json!({ "booleanValue": flag }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "integerValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => {
            let values: Vec<_> = items.into_iter().map(typed).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Value::Object(fields) => {
            let fields: Map<_, _> = fields
                .into_iter()
                .map(|(name, value)| (name, typed(value)))
                .collect();
            json!({ "mapValue": { "fields": fields } })
        }
    }
}

/// The inverse.
fn plain(value: &Value) -> Value {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "integerValue" => value.as_str().unwrap().parse::<i64>().unwrap().into(),
        "arrayValue" => value["values"]
            .as_array()
            .into_iter()
            .flatten()
            .map(plain)
            .collect(),
        "mapValue" => {
            let fields = value["fields"].as_object().into_iter().flatten();
            fields
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        _ => value.clone(),
    }
}
