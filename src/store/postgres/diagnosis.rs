//! What `doctor` reports about a server.

use tokio_postgres::types::Type;

use super::{PostgresStore, schema, watch};
use crate::store::StoreError;

/// Facts about a server and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Version of the server, as it reports it.
    pub server: String,
    /// Whether the server's end of the connection is encrypted.
    pub is_encrypted: bool,
    /// Name of the schema.
    pub schema: String,
    /// Version of the schema; `None` if there is none yet.
    pub schema_version: Option<i64>,
    /// Newest version that this program has.
    pub newest_schema: i64,
    /// Whether a pooler is assumed to be in between, by the configuration or because settings of sessions are refused.
    pub is_pooled: bool,
    /// Whether notifications of changes are received.
    pub has_notifications: bool,
}

impl PostgresStore {
    /// Asks the server about itself; changes nothing. Takes two seconds where notifications are not received.
    pub async fn diagnose(&self) -> Result<Diagnosis, StoreError> {
        let schema = &self.client.target.schema;
        let facts = self
            .client
            .query_any(
                "SELECT current_setting('server_version'),
                        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
                        to_regclass(format('%I.meta', $1)) IS NOT NULL",
                &[(schema, Type::TEXT)],
            )
            .await
            .map_err(self.explain())?;
        let (server, is_encrypted, has_schema) = facts
            .first()
            .map_or_else(Default::default, |row| (row.get(0), row.get(1), row.get(2)));
        let schema_version = match has_schema {
            true => self.schema_version().await?,
            false => None,
        };
        let is_pooled = self.client.is_pooled();
        Ok(Diagnosis {
            server,
            is_encrypted,
            schema: schema.clone(),
            schema_version,
            newest_schema: schema::newest(),
            is_pooled,
            has_notifications: !is_pooled && watch::notifications_arrive(&self.client).await,
        })
    }

    async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        let select = self.client.sql(schema::SELECT_VERSION);
        let found = self
            .client
            .query_any(&select, &[])
            .await
            .map_err(self.explain())?;
        let text: Option<&str> = found.first().and_then(|row| row.try_get(0).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }
}
