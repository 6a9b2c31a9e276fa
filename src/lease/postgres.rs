//! Leases in PostgreSQL: a row for each, with the server's clock.
//!
//! `clock_timestamp()` is the time now; `now()` would be that of the start of the transaction. Advisory locks are not used: they
//! are kept as long as a stopped process keeps its connection, have no fence, and do not work through poolers.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseRecord, Scope, SharedText};
use crate::store::StoreError;
use crate::store::postgres::{Client, Failure, PostgresTarget};

/// Connections of one engine: renewals must not wait for the list of leases.
const CONNECTIONS: usize = 2;

/// The engine in one database.
pub struct PostgresLeases {
    client: Client,
    scope: Scope,
}

impl PostgresLeases {
    /// Creates the engine without connecting, with connections of its own.
    pub fn new(target: PostgresTarget, scope: Scope) -> Self {
        Self {
            client: Client::new(PostgresTarget {
                connections: CONNECTIONS,
                patience: scope.terms.patience(),
                ..target
            }),
            scope,
        }
    }

    fn explain(&self) -> impl Fn(Failure) -> LeaseError {
        |failure| LeaseError::Store(failure.explain(&self.client.target))
    }

    fn fleet(&self) -> &str {
        self.scope.fleet.as_str()
    }

    fn ttl_ms(&self) -> i64 {
        i64::try_from(self.scope.terms.ttl.as_millis()).unwrap_or(i64::MAX)
    }

    fn unreadable(&self, reason: String) -> LeaseError {
        LeaseError::Store(StoreError::Refused {
            location: self.client.target.to_string(),
            reason,
            hint: "the table leases was changed by hand; delete the row and start the member again"
                .to_owned(),
        })
    }

    fn record(&self, row: &Row) -> Result<LeaseRecord, LeaseError> {
        let columns = || -> Result<(String, String, i64, String), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        };
        let (name, holder, fence, note) = columns().map_err(|error| self.explain()(error.into()))?;
        Ok(LeaseRecord {
            name: name.parse().map_err(|reason| self.unreadable(reason))?,
            holder: holder.parse().map_err(|reason| self.unreadable(reason))?,
            fence: fence_of(fence),
            note,
        })
    }
}

fn fence_of(number: i64) -> Fence {
    Fence(u64::try_from(number).unwrap_or(0))
}

fn number_of(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

/// A fence begins with the server's time and not with 1, so that it grows even if the table was lost.
const ACQUIRE: &str = "
    INSERT INTO {s}.leases AS l (fleet, name, holder, fence, expires_at, note)
    SELECT $1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
           clock_timestamp() + $4 * interval '1 millisecond', $5
    WHERE {fits}
    ON CONFLICT (fleet, name) DO UPDATE SET
        fence = CASE WHEN l.holder = $3 AND l.expires_at > clock_timestamp() THEN l.fence
                ELSE greatest(l.fence + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) END,
        holder = $3, expires_at = clock_timestamp() + $4 * interval '1 millisecond', note = $5
    WHERE l.expires_at <= clock_timestamp() OR l.holder = $3
    RETURNING fence";

const RENEW: &str = "
    UPDATE {s}.leases SET expires_at = clock_timestamp() + $5 * interval '1 millisecond', note = $6
    WHERE fleet = $1 AND name = $2 AND holder = $3 AND fence = $4 AND expires_at > clock_timestamp() AND {fits}
    RETURNING fence";

const RELEASE: &str = "
    UPDATE {s}.leases SET expires_at = least(expires_at, clock_timestamp())
    WHERE fleet = $1 AND name = $2 AND holder = $3 AND fence = $4 AND {fits}";

const LIST: &str = "
    SELECT name, holder, fence, note FROM {s}.leases
    WHERE fleet = $1 AND expires_at > clock_timestamp() ORDER BY name";

#[async_trait]
impl LeaseEngine for PostgresLeases {
    fn location(&self) -> String {
        self.client.target.to_string()
    }

    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError> {
        let rows = self
            .client
            .query(
                ACQUIRE,
                &[
                    (&self.fleet(), Type::TEXT),
                    (&name.as_str(), Type::TEXT),
                    (&holder.to_string(), Type::TEXT),
                    (&self.ttl_ms(), Type::INT8),
                    (&note, Type::TEXT),
                ],
            )
            .await
            .map_err(self.explain())?;
        let fence = rows.first().map(|row| row.try_get(0)).transpose();
        let fence = fence.map_err(|error| self.explain()(error.into()))?;
        Ok(fence.map(fence_of))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError> {
        let rows = self
            .client
            .query(
                RENEW,
                &[
                    (&self.fleet(), Type::TEXT),
                    (&name.as_str(), Type::TEXT),
                    (&holder.to_string(), Type::TEXT),
                    (&number_of(fence), Type::INT8),
                    (&self.ttl_ms(), Type::INT8),
                    (&note, Type::TEXT),
                ],
            )
            .await
            .map_err(self.explain())?;
        Ok(!rows.is_empty())
    }

    async fn release(&self, name: &LeaseName, holder: &Holder, fence: Fence) -> Result<(), LeaseError> {
        self.client
            .query(
                RELEASE,
                &[
                    (&self.fleet(), Type::TEXT),
                    (&name.as_str(), Type::TEXT),
                    (&holder.to_string(), Type::TEXT),
                    (&number_of(fence), Type::INT8),
                ],
            )
            .await
            .map(drop)
            .map_err(self.explain())
    }

    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError> {
        let rows = self.client.query(LIST, &[(&self.fleet(), Type::TEXT)]).await;
        let rows = rows.map_err(self.explain())?;
        rows.iter().map(|row| self.record(row)).collect()
    }

    async fn view(&self) -> Result<Option<SharedText>, LeaseError> {
        let select = "SELECT version::text, view FROM {s}.fleets WHERE name = $1";
        let rows = self.client.query(select, &[(&self.fleet(), Type::TEXT)]).await;
        let rows = rows.map_err(self.explain())?;
        let read = |row: &Row| -> Result<SharedText, tokio_postgres::Error> {
            Ok(SharedText {
                version: row.try_get(0)?,
                text: row.try_get(1)?,
            })
        };
        let found = rows.first().map(read).transpose();
        found.map_err(|error| self.explain()(error.into()))
    }

    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError> {
        let fleet = self.fleet();
        let written = match base {
            None => {
                let insert = "INSERT INTO {s}.fleets (name, view) SELECT $1, $2 WHERE {fits}
                              ON CONFLICT DO NOTHING RETURNING version";
                self.client
                    .query(insert, &[(&fleet, Type::TEXT), (&text, Type::TEXT)])
                    .await
            }
            Some(base) => {
                // From the sequence: a version does not return after a row was deleted and inserted again.
                let update = "UPDATE {s}.fleets SET view = $2, version = nextval('{s}.versions')
                              WHERE name = $1 AND version::text = $3 AND {fits} RETURNING version";
                self.client
                    .query(
                        update,
                        &[(&fleet, Type::TEXT), (&text, Type::TEXT), (&base, Type::TEXT)],
                    )
                    .await
            }
        };
        Ok(!written.map_err(self.explain())?.is_empty())
    }
}
