//! Connections to the server: the pool, time limits of every call, settings of sessions, and which calls are repeated.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures_util::future::join;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};

use super::address::TlsMode;
use super::error::{Failure, Meaning, unavailable};
use super::schema::{self, Schema};
use super::tls::{self, Connector};
use super::{PostgresAccess, PostgresTarget};
use crate::blocking::blocking;
use crate::clock::{Backoff, Chance};
use crate::store::StoreError;

/// How long a statement waits for the lock of another transaction, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 2_000;
/// After which idle time within a transaction the server ends the session, in milliseconds.
const IDLE_IN_TRANSACTION_MS: u32 = 10_000;
/// Attempts at a statement that other transactions are in the way of.
const ATTEMPTS: u32 = 6;
/// Wait before the next one, with jitter: processes that were in each other's way should not meet again.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(5),
    longest: Duration::from_millis(200),
};
/// Connections that vanish without a message are noticed within this time.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Parameters of a statement with their types.
pub type Parameters<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// Connections to one database.
pub struct Client {
    pub target: PostgresTarget,
    pool: Mutex<Option<Pool>>,
    /// Whether sessions cannot have settings of their own, because a pooler shares them among clients.
    is_pooled: AtomicBool,
    schema: tokio::sync::Mutex<Option<Schema>>,
    chance: Chance,
}

/// A connection for one call. One that was not given back is closed: a statement may still be running on it.
struct Lease(Option<Object>);

impl Lease {
    fn give_back(mut self) {
        self.0.take();
    }
}

impl Deref for Lease {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        self.0.as_ref().expect("it was not given back yet")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

impl Client {
    /// Creates the client without connecting.
    pub fn new(target: PostgresTarget) -> Self {
        Self {
            is_pooled: AtomicBool::new(target.pooler),
            target,
            pool: Mutex::default(),
            schema: tokio::sync::Mutex::default(),
            chance: Chance::random(),
        }
    }

    /// Whether a pooler is in between: then there are no settings of sessions and no notifications.
    pub fn is_pooled(&self) -> bool {
        self.is_pooled.load(Ordering::Relaxed)
    }

    /// Replaces `{s}` by the schema of the documents, and `{fits}` by the condition that its version is that of this program.
    pub fn sql(&self, statement: &str) -> String {
        statement
            .replace("{fits}", &schema::fits())
            .replace("{s}", &format!("\"{}\"", self.target.schema))
    }

    /// Executes a statement on the tables, which are created if they are missing and may be. Returns no row if there are none.
    ///
    /// The statement is its own transaction. It is repeated after contention and on a new connection, so it must not do harm twice. If
    /// it writes, it must contain `{fits}`: another process may have migrated the schema since it was checked.
    pub async fn query(&self, statement: &str, parameters: &Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let statement = self.sql(statement);
        let version = self.sql(schema::SELECT_VERSION);
        let mut is_checked_again = false;
        loop {
            if self.ready().await? == Schema::Absent {
                return Ok(Vec::new());
            }
            let failure = match self.repeat(&statement, parameters, Some(&version)).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            let is_other = matches!(failure, Failure::OtherSchema);
            if is_other || failure.meaning() == Meaning::NoSchema {
                // The next call checks it, migrates it, or creates what was deleted.
                *self.schema.lock().await = None;
            }
            if !is_other || std::mem::replace(&mut is_checked_again, true) {
                return Err(failure);
            }
        }
    }

    /// As [`Client::query`], of tables of other programs, without need of our own.
    pub async fn query_any(&self, statement: &str, parameters: &Parameters<'_>) -> Result<Vec<Row>, Failure> {
        self.repeat(statement, parameters, None).await
    }

    /// Executes a statement, with the one that reads the `version` of the schema where it is about our tables.
    async fn repeat(
        &self,
        statement: &str,
        parameters: &Parameters<'_>,
        version: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        let mut is_reconnected = false;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(statement, parameters, version).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            match failure.meaning() {
                // The server was restarted, and the pool may hold more connections to the old one.
                Meaning::Closed if !is_reconnected => {
                    is_reconnected = true;
                    self.disconnect();
                }
                Meaning::Contention if attempt < ATTEMPTS => {
                    sleep(BACKOFF.draw(attempt, &self.chance)).await;
                    attempt += 1;
                }
                Meaning::ReadOnly | Meaning::Closed => {
                    // With several servers, the next connection is to the one that accepts writes.
                    self.disconnect();
                    return Err(failure);
                }
                _ => return Err(failure),
            }
        }
    }

    async fn attempt(
        &self,
        statement: &str,
        parameters: &Parameters<'_>,
        version: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        let connection = self.lease().await?;
        let answer = timeout(
            self.target.patience,
            self.execute(&connection, statement, parameters, version),
        )
        .await;
        match answer {
            Ok(Ok(rows)) => {
                connection.give_back();
                Ok(rows)
            }
            Ok(Err(failure)) => {
                // An error of the server leaves the connection usable, unless it was within a transaction of ours.
                if failure.meaning() != Meaning::Closed && !self.is_pooled() {
                    connection.give_back();
                }
                Err(failure)
            }
            Err(_) => Err(Failure::Late),
        }
    }

    /// The types are given, so that the statement needs no name: a pooler may execute the next one on another connection.
    async fn execute(
        &self,
        connection: &tokio_postgres::Client,
        statement: &str,
        parameters: &Parameters<'_>,
        version: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        if !self.is_pooled() {
            return self
                .execute_checked(connection, statement, parameters, version)
                .await;
        }
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
            self.statement_timeout_ms()
        );
        connection.batch_execute(&begin).await?;
        let rows = self
            .execute_checked(connection, statement, parameters, version)
            .await?;
        connection.batch_execute("COMMIT").await?;
        Ok(rows)
    }

    /// Executes both statements without waiting in between, so that the second one does not cost a round trip.
    async fn execute_checked(
        &self,
        connection: &tokio_postgres::Client,
        statement: &str,
        parameters: &Parameters<'_>,
        version: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        let rows = connection.query_typed(statement, parameters);
        let Some(version) = version else {
            return Ok(rows.await?);
        };
        let (rows, found) = join(rows, connection.query_typed(version, &[])).await;
        let (rows, found) = (rows?, found?);
        let text: Option<&str> = found.first().and_then(|row| row.try_get(0).ok());
        let found: Option<i64> = text.and_then(|text| text.parse().ok());
        let is_usable = match self.target.access {
            PostgresAccess::Write => found == Some(schema::newest()),
            PostgresAccess::Read => found.is_some_and(|found| found <= schema::newest()),
        };
        match is_usable {
            true => Ok(rows),
            false => Err(Failure::OtherSchema),
        }
    }

    /// Makes sure that the schema can be used.
    async fn ready(&self) -> Result<Schema, Failure> {
        // While the server is silent, calls must not wait for each other one after the other.
        let known = timeout(self.target.patience, self.schema.lock()).await;
        let mut known = known.map_err(|_| Failure::Late)?;
        if let Some(schema) = *known {
            return Ok(schema);
        }
        let create = self.target.access == PostgresAccess::Write;
        let connection = self.lease().await?;
        // A migration may wait for that of another process, and longer than a usual statement.
        let limit = self.target.patience * 4;
        let found = timeout(limit, schema::ensure(&connection, &self.target, create)).await;
        let found = found.map_err(|_| Failure::Late)??;
        connection.give_back();
        if found == Schema::Usable {
            *known = Some(found);
        }
        Ok(found)
    }

    /// Takes a connection out of the pool, or makes one.
    async fn lease(&self) -> Result<Lease, Failure> {
        let failure = match self.connect().await {
            Err(failure) if failure.meaning() == Meaning::Pooler && !self.is_pooled() => failure,
            done => return done,
        };
        tracing::debug!(
            error = %failure.explain(&self.target),
            "The server refuses settings of sessions; a pooler is assumed"
        );
        self.is_pooled.store(true, Ordering::Relaxed);
        self.disconnect();
        self.connect().await
    }

    async fn connect(&self) -> Result<Lease, Failure> {
        let pool = self.pool().await?;
        Ok(Lease(Some(pool.get().await?)))
    }

    async fn pool(&self) -> Result<Pool, Failure> {
        if let Some(pool) = &*self.pool.lock() {
            return Ok(pool.clone());
        }
        let manager = Manager::from_config(
            self.config(),
            self.connector().await?,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(self.target.connections)
            .wait_timeout(Some(self.target.patience))
            .create_timeout(Some(self.target.patience))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Failure::Store(unavailable(&self.target, &error.to_string())))?;
        Ok(self.pool.lock().get_or_insert(pool).clone())
    }

    /// Closes the connections that are not in use. Those in use are closed when their call ends.
    fn disconnect(&self) {
        if let Some(pool) = self.pool.lock().take() {
            pool.close();
        }
    }

    /// Returns what makes encrypted connections. Files are read each time, so that corrected ones take effect.
    pub(super) async fn connector(&self) -> Result<Connector, Failure> {
        let address = self.target.address.clone();
        let config = blocking(move || tls::client_config(&address)).await;
        config.map(Connector).map_err(|reason| {
            Failure::Store(StoreError::Refused {
                location: self.target.to_string(),
                reason,
                hint:
                    "correct sslrootcert in the address, or leave it out to trust the system's certificates"
                        .to_owned(),
            })
        })
    }

    /// Returns the configuration of a connection, with the settings of its session.
    pub(super) fn config(&self) -> Config {
        let mut config = self.target.address.config().clone();
        config.ssl_mode(match self.target.address.tls {
            TlsMode::Off => SslMode::Disable,
            TlsMode::Verify | TlsMode::Insecure => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("bitbrat");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(self.target.patience);
        }
        config.keepalives_idle(KEEPALIVE).tcp_user_timeout(KEEPALIVE);
        if !self.is_pooled() {
            let theirs = config.get_options().unwrap_or_default();
            let options = format!(
                "{theirs} -c statement_timeout={} -c lock_timeout={LOCK_TIMEOUT_MS} \
                 -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c TimeZone=UTC -c synchronous_commit=on",
                self.statement_timeout_ms()
            );
            config.options(options.trim());
        }
        config
    }

    /// The server gives up a little before this program does, so that the outcome is known.
    fn statement_timeout_ms(&self) -> u128 {
        self.target.patience.as_millis() * 9 / 10
    }

    pub(super) fn explain(&self) -> impl Fn(Failure) -> StoreError {
        |failure| failure.explain(&self.target)
    }
}

/// A client that several parts of a store share.
pub type SharedClient = Arc<Client>;
