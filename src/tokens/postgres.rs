//! Tokens in the platform's own tables in PostgreSQL, `twitch_tokens` and `auth_scopes`; ours are in the table `tokens` of our schema.
//!
//! The platform's tables have no version, so the precondition of a write is `xmin`, which is another one after each write of a row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::TokenError;
use super::documents::{Change, DocumentTokenStore, Documents, Fetched, Place, PlatformDocument};
use crate::core::time::Timestamp;
use crate::store::postgres::{Client, Failure, Meaning, PostgresTarget, stored_text};
use crate::store::{StoreError, Version};

/// Where the rows are, and what may be done with them.
#[derive(Debug, Clone)]
pub struct PostgresTokenOptions {
    /// The database, with the schema of our own table.
    pub target: PostgresTarget,
    /// Schema of the platform's tables; `public` unless they were moved.
    pub platform_schema: String,
    /// The name that the Twitch bot's token has in Firestore, from which that of its row follows.
    pub bot_path: String,
    /// As `bot_path`, of the broadcaster.
    pub broadcaster_path: String,
    /// Whether the rows may be changed.
    pub refresh: bool,
    /// The token file for accounts without a row.
    pub file: PathBuf,
}

/// A token store of the platform's rows in PostgreSQL.
pub type PostgresTokenStore = DocumentTokenStore<PostgresDocuments>;

impl PostgresTokenStore {
    /// Creates the store without connecting.
    pub fn new(options: PostgresTokenOptions) -> Self {
        let place = |platform, role, table: &str, path: &str| Place {
            platform,
            role,
            path: format!("{table}/{}", row_id(path)),
        };
        let places = [
            place("twitch", "bot", "twitch_tokens", &options.bot_path),
            place(
                "twitch",
                "broadcaster",
                "twitch_tokens",
                &options.broadcaster_path,
            ),
            place("discord", "bot", "auth_scopes", "discord/bot"),
        ];
        let documents = PostgresDocuments {
            client: Client::new(options.target),
            platform_schema: options.platform_schema,
            changes: AsyncMutex::default(),
        };
        Self::with(documents, places, options.refresh, options.file)
    }
}

/// The platform makes the id of a row from the last two parts of the path.
fn row_id(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts[parts.len().saturating_sub(2)..].join(":")
}

/// The rows of one database.
pub struct PostgresDocuments {
    client: Client,
    platform_schema: String,
    changes: AsyncMutex<Changes>,
}

/// What was last found, to detect changes.
#[derive(Default)]
struct Changes {
    count: u64,
    seen: String,
}

impl PostgresDocuments {
    fn sql(&self, statement: &str, table: &str) -> String {
        let platform = format!("\"{}\".\"{table}\"", self.platform_schema);
        self.client.sql(&statement.replace("{p}", &platform))
    }

    fn explain(&self) -> impl Fn(Failure) -> TokenError {
        |failure| TokenError::Store(failure.explain(&self.client.target))
    }

    /// Returns the rows of a table of the platform with those of ours, as [`FETCH`] does; none if there is no such table.
    async fn rows(&self, table: &str, ids: &[&str]) -> Result<Vec<Row>, Failure> {
        let ids: (&(dyn tokio_postgres::types::ToSql + Sync), Type) = (&ids, Type::TEXT_ARRAY);
        let ids = std::slice::from_ref(&ids);
        let with_own = self.client.query_any(&self.sql(FETCH, table), ids).await;
        // One of the two tables is missing.
        match with_own {
            Err(failure) if failure.meaning() == Meaning::NoSchema => {}
            done => return done,
        }
        match self
            .client
            .query_any(&self.sql(FETCH_WITHOUT_OWN, table), ids)
            .await
        {
            Err(failure) if failure.meaning() == Meaning::NoSchema => Ok(Vec::new()),
            done => done,
        }
    }

    fn fetched(&self, row: &Row, table: &str) -> Result<(String, Fetched, i64), Failure> {
        let id: String = row.try_get(0)?;
        let written_at: Option<i64> = row.try_get(3)?;
        let own: Option<&str> = row.try_get(4)?;
        let own_version: Option<i64> = row.try_get(5)?;
        let read_at: i64 = row.try_get(6)?;
        let path = format!("{table}/{id}");
        let document = PlatformDocument {
            place: format!("{}/{path}", self.client.target),
            fields: fields(row.try_get(1)?),
            version: Version(row.try_get(2)?),
            written_at: Timestamp::from_millis(written_at.unwrap_or(read_at)),
        };
        let own = own.zip(own_version);
        let own = own.map(|(text, version)| (fields(text), Version(version.to_string())));
        Ok((path, Fetched { document, own }, read_at))
    }
}

/// Both rows in one statement, so that they are of the same time.
const FETCH: &str = "
    SELECT p.id::text, p.data::text, p.xmin::text, (extract(epoch FROM p.updated_at) * 1000)::bigint,
           o.data::text, o.version, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM {p} p LEFT JOIN {s}.tokens o ON o.id = p.id::text COLLATE \"C\" WHERE p.id = ANY($1)";

const FETCH_WITHOUT_OWN: &str = "
    SELECT p.id::text, p.data::text, p.xmin::text, (extract(epoch FROM p.updated_at) * 1000)::bigint,
           NULL::text, NULL::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM {p} p WHERE p.id = ANY($1)";

/// Locks the platform's row first, then writes ours, and the platform's only if ours was written: both or neither. Only the given
/// fields change, and `updated_at` is set as the platform does.
const COMMIT: &str = "
    WITH held AS MATERIALIZED (
        SELECT id FROM {p} WHERE id = $1 AND xmin::text = $2 AND {fits} FOR UPDATE
    ), replaced AS (
        UPDATE {s}.tokens SET data = $3::text::jsonb, version = nextval('{s}.versions')
        WHERE id = $1 AND version = $4 AND EXISTS (SELECT FROM held) RETURNING version
    ), added AS (
        INSERT INTO {s}.tokens (id, data) SELECT $1, $3::text::jsonb FROM held WHERE $4 IS NULL
        ON CONFLICT DO NOTHING RETURNING version
    ), own AS (
        SELECT version FROM replaced UNION ALL SELECT version FROM added
    ), platform AS (
        UPDATE {p} p SET data = (p.data - $5) || $6::text::jsonb, updated_at = now()
        FROM own WHERE p.id = $1 AND p.xmin::text = $2 AND cardinality($5) > 0 RETURNING p.xmin::text AS version
    )
    SELECT coalesce((SELECT version FROM platform), $2), version FROM own";

/// What another program has stored there need not be an object.
fn fields(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Splits a place into table and row.
fn table_and_row(place: &Place) -> (&str, &str) {
    place.path.split_once('/').unwrap_or(("", &place.path))
}

#[async_trait]
impl Documents for PostgresDocuments {
    async fn fetch(
        &self,
        places: &[&Place],
    ) -> Result<(Vec<Option<Fetched>>, Option<Timestamp>), TokenError> {
        let mut found = BTreeMap::new();
        let mut read_at = None;
        let tables: BTreeSet<_> = places.iter().map(|place| table_and_row(place).0).collect();
        for table in tables {
            let rows = places.iter().map(|place| table_and_row(place));
            let ids: Vec<_> = rows.filter(|row| row.0 == table).map(|row| row.1).collect();
            for row in self.rows(table, &ids).await.map_err(self.explain())? {
                let (path, fetched, at) = self.fetched(&row, table).map_err(self.explain())?;
                found.insert(path, fetched);
                read_at = Some(Timestamp::from_millis(at));
            }
        }
        Ok((
            places.iter().map(|place| found.remove(&place.path)).collect(),
            read_at,
        ))
    }

    async fn commit(&self, change: Change<'_>) -> Result<Version, TokenError> {
        let (table, row) = table_and_row(change.place);
        let held = change.held;
        let identity = change.identity;
        let conflict = || TokenError::Conflict {
            identity: identity.clone(),
        };
        let base = held.own.as_ref().map(|(_, version)| version.0.parse::<i64>());
        let base = base.transpose().map_err(|_| conflict())?;
        let own = stored_text(Value::Object(change.own).to_string());
        let values = stored_text(Value::Object(change.values).to_string());
        let written = self
            .client
            .query(
                &self.sql(COMMIT, table),
                &[
                    (&row, Type::TEXT),
                    (&held.document.version.0, Type::TEXT),
                    (&own, Type::TEXT),
                    (&base, Type::INT8),
                    (&change.names, Type::TEXT_ARRAY),
                    (&values, Type::TEXT),
                ],
            )
            .await
            .map_err(
                |failure| match failure.explain_write(&self.client.target, identity.as_str()) {
                    StoreError::Conflict { .. } => conflict(),
                    error => TokenError::Store(error),
                },
            )?;
        let written = written.first().ok_or_else(conflict)?;
        let versions = || -> Result<(String, i64), tokio_postgres::Error> {
            Ok((written.try_get(0)?, written.try_get(1)?))
        };
        let (platform, own) = versions().map_err(|error| self.explain()(error.into()))?;
        Ok(Version(format!("{platform}/{own}")))
    }

    async fn changes(&self, places: &[Place]) -> u64 {
        let places: Vec<_> = places.iter().collect();
        let mut changes = self.changes.lock().await;
        // What cannot be read now is compared later.
        if let Ok((found, _)) = self.fetch(&places).await {
            let versions = found.iter().map(|found| {
                let version = |fetched: &Fetched| {
                    let own = fetched.own.as_ref().map(|(_, version)| &version.0);
                    format!("{} {own:?}", fetched.document.version.0)
                };
                found.as_ref().map(version)
            });
            let seen = format!("{:?}", versions.collect::<Vec<_>>());
            if seen != changes.seen {
                changes.seen = seen;
                changes.count += 1;
            }
        }
        changes.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_named_by_the_last_two_parts_of_a_path() {
        for (path, row) in [
            ("oauth/twitch/bot", "twitch:bot"),
            ("/oauth/twitch/broadcaster/", "twitch:broadcaster"),
            ("bot", "bot"),
            ("", ""),
        ] {
            assert_eq!(row_id(path), row, "{path}");
        }
    }
}
