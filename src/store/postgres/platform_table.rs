//! The platform's own table, `sources`: kept up to date from our documents, so that its services find there what we know.
//!
//! Its other writers have no precondition, replace `metrics` and `metadata` as a whole, and do not notify anybody. So our fields are
//! written again when they differ, at most once a minute beside our own writes: more often, two programs that disagree would only
//! write. Fields that are not ours stay, and the table itself is never created or altered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::client::SharedClient;
use super::error::Failure;

/// Shortest time between two comparisons of everything.
const INTERVAL: Duration = Duration::from_mins(1);

/// Both forms of the table have these columns. Evidence stays in our own table; a document without it is one of another program.
/// The id of theirs has at most 255 characters.
const COPY: &str = "
    WITH ours AS (
        SELECT d.id, d.data - ARRAY['evidence', 'counters', 'schemaVersion'] AS data FROM {s}.documents d
        WHERE ($1 IS NULL OR d.id = ANY($1)) AND d.data ? 'evidence' AND length(d.id) <= 255 AND {fits}
    )
    INSERT INTO {p} AS theirs (id, data, updated_at) SELECT id, data, now() FROM ours ORDER BY id
    ON CONFLICT (id) DO UPDATE SET data = (theirs.data - $2) || excluded.data, updated_at = now()
    WHERE theirs.data IS DISTINCT FROM (theirs.data - $2) || excluded.data";

/// The fields of a document that the platform has. One that is absent in ours is absent in theirs.
const FIELDS: &[&str] = &[
    "id",
    "platform",
    "displayName",
    "status",
    "streamStatus",
    "authStatus",
    "lastStatusUpdate",
    "lastStreamUpdate",
    "lastError",
    "metrics",
    "metadata",
    "viewerCount",
    "permissions",
    "latencyMs",
];

/// The platform's table in one database.
pub struct PlatformTable {
    /// Its name, quoted.
    name: String,
    compared_at: Mutex<Option<Instant>>,
    /// Whether the last attempt failed, which is reported once.
    is_failing: AtomicBool,
}

impl PlatformTable {
    /// The table in this schema.
    pub fn in_schema(schema: &str) -> Self {
        Self {
            name: format!("\"{schema}\".sources"),
            compared_at: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Copies these documents. What fails is repeated by [`PlatformTable::compare`]; our own documents do not depend on it.
    pub async fn copy(&self, client: &SharedClient, ids: Vec<String>) {
        if !ids.is_empty() {
            self.update(client, Some(ids)).await;
        }
    }

    /// Copies every document that differs, unless that was done within the last minute.
    pub async fn compare(&self, client: &SharedClient) {
        let is_due = {
            let mut compared_at = self.compared_at.lock();
            let is_due = compared_at.is_none_or(|at| at.elapsed() >= INTERVAL);
            if is_due {
                *compared_at = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            self.update(client, None).await;
        }
    }

    /// Deletes a document that was deleted from ours.
    pub async fn delete(&self, client: &SharedClient, id: &str) {
        let statement = format!("DELETE FROM {} WHERE id = $1", self.name);
        let deleted = client.query_any(&statement, &[(&id, Type::TEXT)]).await;
        self.report(client, deleted.err());
    }

    async fn update(&self, client: &SharedClient, ids: Option<Vec<String>>) {
        let statement = COPY.replace("{p}", &self.name);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&ids, Type::TEXT_ARRAY), (&FIELDS, Type::TEXT_ARRAY)];
        let copied = client.query(&statement, &parameters).await;
        self.report(client, copied.err());
    }

    fn report(&self, client: &SharedClient, failure: Option<Failure>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        if let (Some(failure), false) = (failure, was_failing) {
            let error = failure.explain(&client.target);
            tracing::warn!(
                table = self.name,
                error = &error as &dyn std::error::Error,
                "The platform's table is not up to date; it is tried again every minute"
            );
        }
    }
}
