//! The history of a source: one row an entry.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::client::Client;
use super::error::Failure;
use super::save::stored_text;
use crate::core::time::Timestamp;
use crate::store::HistoryEntry;

/// Entries deleted in one statement, so that none of them takes long.
const SLICE: i64 = 1_000;

/// The columns of entries, one vector each, as `unnest` takes them.
#[derive(Default)]
pub struct Columns {
    pub sources: Vec<String>,
    pub ids: Vec<String>,
    pub at: Vec<i64>,
    pub recorded_at: Vec<i64>,
    pub entries: Vec<String>,
}

impl Columns {
    pub fn add(&mut self, source: &str, entry: &HistoryEntry) {
        self.sources.push(source.to_owned());
        self.ids.push(entry.id.clone());
        self.at.push(entry.transition.at.as_millis());
        self.recorded_at.push(entry.recorded_at.as_millis());
        let text = serde_json::to_string(entry).expect("an entry is text and numbers");
        self.entries.push(stored_text(text));
    }
}

/// Adds entries without their document.
pub async fn append(client: &Client, source: &str, entries: &[HistoryEntry]) -> Result<(), Failure> {
    for portion in entries.chunks(500) {
        let mut columns = Columns::default();
        for entry in portion {
            columns.add(source, entry);
        }
        client
            .query(
                "INSERT INTO {s}.history (source, id, at, recorded_at, entry)
                 SELECT u.source, u.id, u.at, u.recorded_at, u.entry::jsonb
                 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
                     AS u(source, id, at, recorded_at, entry)
                 WHERE {fits} ORDER BY u.source, u.id ON CONFLICT DO NOTHING",
                &[
                    (&columns.sources, Type::TEXT_ARRAY),
                    (&columns.ids, Type::TEXT_ARRAY),
                    (&columns.at, Type::INT8_ARRAY),
                    (&columns.recorded_at, Type::INT8_ARRAY),
                    (&columns.entries, Type::TEXT_ARRAY),
                ],
            )
            .await?;
    }
    if entries.is_empty() {
        return Ok(());
    }
    sweep(client, source).await
}

/// Returns at most `limit` entries, newest first.
pub async fn read(client: &Client, source: &str, limit: usize) -> Result<Vec<HistoryEntry>, Failure> {
    let retention = client.target.retention;
    let limit = i64::try_from(limit.min(retention.entries)).unwrap_or(i64::MAX);
    let rows = client
        .query(
            "SELECT entry::text FROM {s}.history WHERE source = $1
             ORDER BY at DESC, recorded_at DESC, id DESC LIMIT $2",
            &[(&source, Type::TEXT), (&limit, Type::INT8)],
        )
        .await?;
    let entries = rows.iter().filter_map(|row| {
        let parsed = serde_json::from_str(row.try_get(0).ok()?);
        parsed
            .inspect_err(|error| {
                tracing::warn!(source, %error, "a history entry cannot be read and is left out");
            })
            .ok()
    });
    let mut entries: Vec<_> = entries.collect();
    // Entries beyond the retention that were not removed yet are omitted.
    retention.apply(&mut entries);
    Ok(entries)
}

/// Whether writing `entry` triggers a cleanup: one with each entry would cost a transaction each. The ids of entries are random.
pub fn triggers_sweep(entry: &HistoryEntry) -> bool {
    u8::from_str_radix(entry.id.get(..2).unwrap_or_default(), 16).is_ok_and(|first| first < 8)
}

/// Deletes the entries of a source beyond the retention, in slices.
pub async fn sweep(client: &Client, source: &str) -> Result<(), Failure> {
    let retention = client.target.retention;
    let kept = i64::try_from(retention.entries).unwrap_or(i64::MAX);
    let age = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
    loop {
        let deleted = client
            .query(
                "DELETE FROM {s}.history WHERE {fits} AND source = $1 AND id IN (
                     (SELECT id FROM {s}.history WHERE source = $1
                      ORDER BY at DESC, recorded_at DESC, id DESC OFFSET $2 LIMIT $4)
                     UNION
                     (SELECT id FROM {s}.history WHERE source = $1
                      AND at < (SELECT max(recorded_at) - $3 FROM {s}.history WHERE source = $1) LIMIT $4))
                 RETURNING 1",
                &[
                    (&source, Type::TEXT),
                    (&kept, Type::INT8),
                    (&age, Type::INT8),
                    (&SLICE, Type::INT8),
                ],
            )
            .await?;
        if i64::try_from(deleted.len()).unwrap_or(i64::MAX) < SLICE {
            return Ok(());
        }
    }
}

/// Deletes the entries of a source that are dated after `until`.
pub async fn drop_after(client: &Client, source: &str, until: Timestamp) -> Result<(), Failure> {
    let until = until.as_millis();
    client
        .query(
            "DELETE FROM {s}.history WHERE {fits} AND source = $1 AND at > $2",
            &[(&source, Type::TEXT), (&until, Type::INT8)],
        )
        .await?;
    Ok(())
}

/// Removes what JSONB cannot store: NUL characters, which Firestore and SQLite accept.
pub fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|letter| letter != '\0'),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(fields) => {
            let taken = std::mem::take(fields);
            fields.extend(taken.into_iter().map(|(mut name, mut value)| {
                name.retain(|letter| letter != '\0');
                without_nul(&mut value);
                (name, value)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
