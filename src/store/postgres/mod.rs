//! The store adapter for PostgreSQL: a schema of our own, with one row a document.
//!
//! A write contains the version on which it is based as a precondition, so there is no read before it and no lost update. Versions
//! come from a sequence, so that none returns after a deletion. The connection is in `client`, errors in `error`, batching of writes
//! in `save`, the listener in `watch`, tables in `schema`.

mod address;
mod client;
mod diagnosis;
mod error;
mod history;
mod platform_table;
mod save;
mod schema;
mod tls;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub use self::address::{PostgresAddress, TlsMode};
pub(crate) use self::client::Client;
use self::client::SharedClient;
pub use self::diagnosis::Diagnosis;
pub(crate) use self::error::{Failure, Meaning};
use self::platform_table::PlatformTable;
pub(crate) use self::save::stored_text;
use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::store::retention::Retention;
use crate::store::{
    HistoryEntry, SourceStore, StoreError, Stored, Unusable, Version, Versioned, Write, stored as documents,
};

/// Documents that are read in one statement.
const READ_AT_ONCE: usize = 500;

/// As text, because the parser keeps numbers that do not fit a binary form.
const SELECT: &str = "SELECT id, version, data::text FROM {s}.documents";

/// Whether the tables may be created and migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresAccess {
    /// Without tables, the store is empty.
    Read,
    Write,
}

/// Location of the documents, and access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresTarget {
    /// The database, and how to log in there.
    pub address: PostgresAddress,
    /// Schema of our tables.
    pub schema: String,
    /// Whether a connection pooler in transaction mode is in between.
    pub pooler: bool,
    /// Maximum number of connections, beside those that wait for notifications.
    pub connections: usize,
    /// Time limit of one call.
    pub patience: Duration,
    /// Limits of the history.
    pub retention: Retention,
    /// Whether the tables may be created and migrated.
    pub access: PostgresAccess,
    /// Schema of the platform's table `sources`, if it is to be kept up to date.
    pub platform_schema: Option<String>,
    /// The setting with the address, for messages.
    pub setting: &'static str,
}

impl PostgresTarget {
    /// Creates a target with the defaults: schema `bitbrat`, 4 connections, 5 s per call.
    pub fn new(address: PostgresAddress) -> Self {
        Self {
            address,
            schema: "bitbrat".to_owned(),
            pooler: false,
            connections: 4,
            patience: Duration::from_secs(5),
            retention: Retention::default(),
            access: PostgresAccess::Write,
            platform_schema: None,
            setting: "store.url",
        }
    }
}

impl fmt::Display for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.address, f)
    }
}

/// A schema with documents in a database.
pub struct PostgresStore {
    client: SharedClient,
    platform_table: Option<PlatformTable>,
}

impl PostgresStore {
    /// Creates the store without connecting; a server that is unavailable now may have recovered by the first call.
    pub fn new(target: PostgresTarget) -> Self {
        Self {
            platform_table: target.platform_schema.as_deref().map(PlatformTable::in_schema),
            client: Arc::new(Client::new(target)),
        }
    }

    fn explain(&self) -> impl Fn(Failure) -> StoreError {
        self.client.explain()
    }

    /// Reads documents in one statement.
    async fn load_portion(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let ids: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let select = format!("{SELECT} WHERE id = ANY($1)");
        let found = self.client.query(&select, &[(&ids, Type::TEXT_ARRAY)]).await;
        let found = found.and_then(|rows| rows.iter().map(parse).collect::<Result<Vec<_>, _>>());
        let mut found: BTreeMap<_, _> = match found.map_err(self.explain()) {
            Ok(found) => found
                .into_iter()
                .map(|(_, stored)| (stored.document_id.clone(), stored))
                .collect(),
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let read = |id: &String| found.remove(id).map(Stored::into_result).transpose();
        ids.iter().map(read).collect()
    }
}

/// Parses a row of [`SELECT`].
fn parse(row: &Row) -> Result<(i64, Stored), Failure> {
    let (document_id, version, text): (String, i64, &str) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let document = documents::read_text(&document_id, text).map(|value| Versioned {
        value,
        version: Version(version.to_string()),
    });
    Ok((
        version,
        Stored {
            document_id,
            document,
        },
    ))
}

#[async_trait]
impl SourceStore for PostgresStore {
    fn location(&self) -> String {
        self.client.target.to_string()
    }

    async fn load(&self, key: &SourceKey) -> Result<Option<Versioned<SourceDocument>>, StoreError> {
        let mut found = self.load_portion(std::slice::from_ref(key)).await;
        found.pop().unwrap_or(Ok(None))
    }

    async fn load_some(
        &self,
        keys: &[SourceKey],
    ) -> Vec<Result<Option<Versioned<SourceDocument>>, StoreError>> {
        let mut all = Vec::with_capacity(keys.len());
        for portion in keys.chunks(READ_AT_ONCE) {
            all.extend(self.load_portion(portion).await);
        }
        all
    }

    async fn load_all(&self) -> Result<Vec<Stored>, StoreError> {
        let rows = self.client.query(SELECT, &[]).await.map_err(self.explain())?;
        let parsed = rows.iter().map(|row| parse(row).map(|(_, stored)| stored));
        let mut all: Vec<_> = parsed.collect::<Result<_, _>>().map_err(self.explain())?;
        all.sort_by(|a, b| a.document_id.cmp(&b.document_id));
        Ok(all)
    }

    async fn unusable(&self) -> Result<Vec<(String, Unusable)>, StoreError> {
        let select = format!("{SELECT} WHERE id > $1 ORDER BY id LIMIT $2");
        let limit = i64::try_from(READ_AT_ONCE).unwrap_or(i64::MAX);
        let (mut last, mut unusable) = (String::new(), Vec::new());
        loop {
            let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&last, Type::TEXT), (&limit, Type::INT8)];
            let rows = self
                .client
                .query(&select, parameters)
                .await
                .map_err(self.explain())?;
            for row in &rows {
                let (_, stored) = parse(row).map_err(self.explain())?;
                last.clone_from(&stored.document_id);
                unusable.extend(stored.into_unusable());
            }
            if rows.len() < READ_AT_ONCE {
                return Ok(unusable);
            }
        }
    }

    async fn raw(&self, document_id: &str) -> Result<Option<Versioned<String>>, StoreError> {
        let select = format!("{SELECT} WHERE id = $1");
        let rows = self.client.query(&select, &[(&document_id, Type::TEXT)]).await;
        let rows = rows.map_err(self.explain())?;
        let found = |row: &Row| -> Result<_, Failure> {
            let version: i64 = row.try_get(1)?;
            Ok(Versioned {
                value: row.try_get(2)?,
                version: Version(version.to_string()),
            })
        };
        rows.first().map(found).transpose().map_err(self.explain())
    }

    async fn remove(&self, document_id: &str, version: &Version) -> Result<(), StoreError> {
        let conflict = || StoreError::Conflict {
            document_id: document_id.to_owned(),
        };
        let version: i64 = version.0.parse().map_err(|_| conflict())?;
        let gone = self
            .client
            .query(
                "DELETE FROM {s}.documents WHERE id = $1 AND version = $2 AND {fits} RETURNING 1",
                &[(&document_id, Type::TEXT), (&version, Type::INT8)],
            )
            .await
            .map_err(self.explain())?;
        gone.first().map(drop).ok_or_else(conflict)
    }

    async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let results = save::save(&self.client, writes).await;
        if let Some(table) = &self.platform_table {
            let saved = writes.iter().zip(&results).filter(|(_, result)| result.is_ok());
            let ids = saved.map(|(write, _)| write.document.key.to_string()).collect();
            table.copy(&self.client, ids).await;
        }
        results
    }

    async fn delete(&self, document_id: &str) -> Result<bool, StoreError> {
        // No id contains it, and the server would refuse the text.
        if document_id.contains('\0') {
            return Ok(false);
        }
        let gone = self
            .client
            .query(
                "WITH document AS (DELETE FROM {s}.documents WHERE id = $1 AND {fits} RETURNING 1),
                      entries AS (DELETE FROM {s}.history WHERE source = $1 AND {fits} RETURNING 1)
                 SELECT 1 FROM document UNION ALL SELECT 1 FROM entries",
                &[(&document_id, Type::TEXT)],
            )
            .await
            .map_err(self.explain())?;
        if let Some(table) = &self.platform_table {
            table.delete(&self.client, document_id).await;
        }
        Ok(!gone.is_empty())
    }

    async fn append_history(&self, key: &SourceKey, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        history::append(&self.client, &key.to_string(), entries)
            .await
            .map_err(self.explain())
    }

    async fn drop_history_after(&self, key: &SourceKey, until: Timestamp) -> Result<(), StoreError> {
        history::drop_after(&self.client, &key.to_string(), until)
            .await
            .map_err(self.explain())
    }

    async fn history(&self, key: &SourceKey, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        history::read(&self.client, &key.to_string(), limit)
            .await
            .map_err(self.explain())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Vec<Stored>, StoreError>>, StoreError> {
        Ok(watch::documents(Arc::clone(&self.client)))
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        if let Some(table) = &self.platform_table {
            table.compare(&self.client).await;
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        // Two concurrent checks must not interfere.
        let id = uuid::Uuid::new_v4().simple().to_string();
        let id: (&(dyn ToSql + Sync), Type) = (&id, Type::TEXT);
        let id = std::slice::from_ref(&id);
        let query = async |statement| self.client.query(statement, id).await.map_err(self.explain());
        query("INSERT INTO {s}.probe SELECT $1, 'bitbrat was here' WHERE {fits} ON CONFLICT DO NOTHING")
            .await?;
        let read = query("SELECT note FROM {s}.probe WHERE id = $1").await?;
        query("DELETE FROM {s}.probe WHERE id = $1 AND {fits}").await?;
        match read.is_empty() {
            false => Ok(()),
            true => Err(error::unavailable(
                &self.client.target,
                "what was written could not be read back",
            )),
        }
    }
}
