//! SQL statements. Blocking, and independent of files, threads and messages for people.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::core::evidence::Knowledge;
use crate::core::summary::SourceSummary;
use crate::store::retention::Retention;
use crate::store::sqlite::confirmations::{self, Confirmed, group_of};
use crate::store::sqlite::database::{self, WITH_CONFIRMATIONS};
use crate::store::sqlite::stored;
use crate::store::{HistoryEntry, StoreError, Stored, Unusable, Version, Write, stored as documents};

/// A stored document.
pub struct Row {
    document_id: String,
    version: i64,
    text: String,
    /// Newer evidence.
    confirmed: Vec<Knowledge>,
}

impl Row {
    /// Parses a source document, or returns why it cannot be used.
    pub fn read(self) -> Stored {
        merged(stored(self.document_id, self.version, &self.text), self.confirmed)
    }
}

/// Merges newer evidence into a document.
fn merged(mut stored: Stored, confirmed: impl IntoIterator<Item = Knowledge>) -> Stored {
    if let Ok(found) = &mut stored.document {
        for knowledge in confirmed {
            found.value.join(knowledge);
        }
    }
    stored
}

/// A prepared write.
pub struct Upsert {
    pub document_id: String,
    text: String,
    summary_bytes: Vec<u8>,
    pub summary: SourceSummary,
    base: Option<Version>,
    history: Vec<HistoryEntry>,
}

impl Upsert {
    /// Prepares `write`; rejects documents that cannot be stored.
    pub fn of(write: &Write) -> Result<Self, StoreError> {
        let text = documents::write_text(&write.document)?;
        let summary = SourceSummary::of(&write.document);
        Ok(Self {
            document_id: write.document.key.to_string(),
            text,
            summary_bytes: summary.to_bytes(),
            summary,
            base: write.base.clone(),
            history: write.history.clone(),
        })
    }
}

pub fn load(connection: &mut Connection, document_id: &str) -> rusqlite::Result<Option<Row>> {
    let mut confirmed = confirmations::knowledge(connection, Some(group_of(document_id)))?;
    load_with(connection, document_id, &mut confirmed)
}

/// Passes the documents with these ids to `show`, with their places among the ids, in any order.
pub fn load_some(
    connection: &mut Connection,
    ids: &[String],
    mut show: impl FnMut(usize, Option<Row>),
) -> rusqlite::Result<()> {
    let mut groups: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (place, id) in ids.iter().enumerate() {
        groups.entry(group_of(id)).or_default().push(place);
    }
    for (group, places) in groups {
        let mut confirmed = confirmations::knowledge(connection, Some(group))?;
        for place in places {
            show(place, load_with(connection, &ids[place], &mut confirmed)?);
        }
    }
    Ok(())
}

fn load_with(
    connection: &Connection,
    document_id: &str,
    confirmed: &mut Confirmed<Knowledge>,
) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached("SELECT version, document FROM sources WHERE id = ?1")?
        .query_row([document_id], |row| {
            let version = row.get(0)?;
            Ok(Row {
                document_id: document_id.to_owned(),
                version,
                text: text_of(row, 1)?.into_owned(),
                confirmed: confirmed.take(document_id, version).collect(),
            })
        })
        .optional()
}

/// Returns a column as text. What another program has damaged must not hide the other rows.
fn text_of<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Cow<'a, str>> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?))
}

/// Returns the documents that cannot be used. Our own writes add a summary to a document, and a change by another program removes
/// it, so only documents without one are read.
pub fn unusable(connection: &mut Connection) -> rusqlite::Result<Vec<(String, Unusable)>> {
    let ids: Vec<String> = connection
        .prepare_cached("SELECT id FROM sources WHERE summary IS NULL ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut unusable = Vec::new();
    load_some(connection, &ids, |_, row| {
        unusable.extend(row.and_then(|row| row.read().into_unusable()));
    })?;
    Ok(unusable)
}

/// Returns the text of a document, usable or not, and its version.
pub fn raw(connection: &mut Connection, document_id: &str) -> rusqlite::Result<Option<(String, i64)>> {
    connection
        .prepare_cached("SELECT document, version FROM sources WHERE id = ?1")?
        .query_row([document_id], |row| {
            Ok((text_of(row, 0)?.into_owned(), row.get(1)?))
        })
        .optional()
}

/// Deletes a document, and not its history, if it still has this version. Returns whether it had.
pub fn remove(connection: &mut Connection, document_id: &str, version: i64) -> rusqlite::Result<bool> {
    let transaction = database::begin(connection)?;
    let gone = transaction.execute(
        "DELETE FROM sources WHERE id = ?1 AND version = ?2",
        params![document_id, version],
    )?;
    transaction.commit()?;
    Ok(gone > 0)
}

pub fn load_all(connection: &mut Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut confirmed = confirmations::knowledge(connection, None)?;
    // In file order, which is fastest to read; sorting the result costs next to nothing.
    let mut statement = connection.prepare_cached("SELECT id, version, document FROM sources")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (document_id, version): (String, i64) = (row.get(0)?, row.get(1)?);
        let newer = confirmed.take(&document_id, version);
        // Borrowing the text saves a copy of every document.
        all.push(merged(stored(document_id, version, &text_of(row, 2)?), newer));
    }
    all.sort_unstable_by(|a, b| a.document_id.cmp(&b.document_id));
    Ok(all)
}

/// Reads the summaries, and the documents without a valid summary.
pub fn summaries(connection: &mut Connection) -> rusqlite::Result<Vec<Stored<Arc<SourceSummary>>>> {
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema < WITH_CONFIRMATIONS {
        return Ok(load_all(connection)?
            .into_iter()
            .map(Stored::to_summary)
            .collect());
    }
    let mut confirmed = confirmations::summaries(connection)?;
    // The columns are in an index, so no document is read.
    let mut statement = connection.prepare_cached("SELECT id, version, summary FROM sources ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    let mut without = Vec::new();
    while let Some(row) = rows.next()? {
        let (document_id, version): (String, i64) = (row.get(0)?, row.get(1)?);
        let newer: Vec<_> = confirmed.take(&document_id, version).collect();
        let summary = match newer.as_slice() {
            [] => row
                .get_ref(2)?
                .as_blob_or_null()?
                .and_then(SourceSummary::from_bytes),
            [newer] => SourceSummary::from_bytes(newer),
            // Of several writers, each has a part of the evidence.
            _ => None,
        };
        match summary {
            Some(summary) => all.push(Stored {
                document_id,
                document: Ok(Arc::new(summary)),
            }),
            None => without.push(document_id),
        }
    }
    drop(rows);
    drop(statement);
    load_some(connection, &without, |_, row| {
        all.extend(row.map(|row| row.read().to_summary()));
    })?;
    all.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    Ok(all)
}

/// Executes all of `batch` in one transaction. An error fails the whole batch; a conflict only its own write. Transitions survive
/// a power failure; what the next probe confirms again does not wait for the disk.
pub fn save(
    connection: &mut Connection,
    batch: &[Upsert],
    retention: Retention,
) -> rusqlite::Result<Vec<Result<Version, StoreError>>> {
    let has_history = batch.iter().any(|upsert| !upsert.history.is_empty());
    let mode = if has_history { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", mode)?;
    let transaction = database::begin(connection)?;
    let mut results = Vec::with_capacity(batch.len());
    for (upsert, version) in batch.iter().zip(new_versions(&transaction, batch.len())?) {
        let is_written = upsert_one(&transaction, upsert, version, Some(retention))?;
        results.push(match is_written {
            true => Ok(Version(version.to_string())),
            false => Err(StoreError::Conflict {
                document_id: upsert.document_id.clone(),
            }),
        });
    }
    transaction.commit()?;
    Ok(results)
}

/// Writes one document as `version`, with its history unless there is no `retention`. Returns whether its base was the stored
/// version; if not, nothing is written.
pub fn upsert_one(
    transaction: &Transaction<'_>,
    upsert: &Upsert,
    version: i64,
    retention: Option<Retention>,
) -> rusqlite::Result<bool> {
    let (text, summary) = (&upsert.text, &upsert.summary_bytes);
    let written = match &upsert.base {
        None => transaction
            .prepare_cached(
                "INSERT INTO sources (id, version, document, summary) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![upsert.document_id, version, text, summary])?,
        Some(base) => transaction
            .prepare_cached(
                "UPDATE sources SET version = ?2, document = ?3, summary = ?4 WHERE id = ?1 AND version = ?5",
            )?
            .execute(params![upsert.document_id, version, text, summary, base.0.parse::<i64>().ok()])?,
    };
    if written == 0 {
        return Ok(false);
    }
    if let Some(retention) = retention {
        insert_history(transaction, &upsert.document_id, &upsert.history)?;
        // A new document has no history that could be too long or too old.
        if upsert.base.is_some() && !upsert.history.is_empty() {
            limit_history(transaction, &upsert.document_id, retention)?;
        }
    }
    Ok(true)
}

/// Returns versions that were never used, not even by deleted documents.
pub fn new_versions(transaction: &Transaction<'_>, count: usize) -> rusqlite::Result<Range<i64>> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(0..0);
    }
    let last: i64 = transaction
        .prepare_cached("UPDATE sequence SET value = value + ?1 RETURNING value")?
        .query_row([count], |row| row.get(0))?;
    Ok(last + 1 - count..last + 1)
}

pub fn append(
    connection: &mut Connection,
    source: &str,
    entries: &[HistoryEntry],
    retention: Retention,
) -> rusqlite::Result<()> {
    let transaction = database::begin(connection)?;
    insert_history(&transaction, source, entries)?;
    if !entries.is_empty() {
        limit_history(&transaction, source, retention)?;
    }
    transaction.commit()
}

fn insert_history(
    transaction: &Transaction<'_>,
    source: &str,
    entries: &[HistoryEntry],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO history (source, id, at, recorded_at, entry) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for entry in entries {
        let (at, recorded_at) = (entry.transition.at.as_millis(), entry.recorded_at.as_millis());
        let text = serde_json::to_string(entry).unwrap_or_default();
        insert.execute(params![source, entry.id, at, recorded_at, text])?;
    }
    Ok(())
}

/// Deletes the entries of a source that are beyond the limits.
fn limit_history(transaction: &Transaction<'_>, source: &str, retention: Retention) -> rusqlite::Result<()> {
    let newest = transaction
        .prepare_cached("SELECT max(recorded_at) FROM history WHERE source = ?1")?
        .query_row([source], |row| row.get(0))?;
    let horizon = retention.horizon(crate::core::time::Timestamp::from_millis(newest));
    let kept = i64::try_from(retention.entries).unwrap_or(i64::MAX);
    transaction
        .prepare_cached("DELETE FROM history WHERE source = ?1 AND at < ?2")?
        .execute(params![source, horizon.as_millis()])?;
    transaction
        .prepare_cached(
            "DELETE FROM history WHERE source = ?1 AND id IN (SELECT id FROM history WHERE source = ?1
             ORDER BY at DESC, recorded_at DESC, id DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![source, kept])?;
    Ok(())
}

pub fn drop_history_after(
    connection: &mut Connection,
    source: &str,
    until: crate::core::time::Timestamp,
) -> rusqlite::Result<()> {
    let transaction = database::begin(connection)?;
    transaction.execute(
        "DELETE FROM history WHERE source = ?1 AND at > ?2",
        params![source, until.as_millis()],
    )?;
    transaction.commit()
}

pub fn history(
    connection: &mut Connection,
    source: &str,
    limit: usize,
) -> rusqlite::Result<Vec<HistoryEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT entry FROM history WHERE source = ?1 ORDER BY at DESC, recorded_at DESC, id DESC LIMIT ?2",
        )?
        .query_map(params![source, limit], |row| row.get::<_, String>(0))?
        .filter_map(|text| match text.map(|text| serde_json::from_str(&text)) {
            Ok(Ok(entry)) => Some(Ok(entry)),
            // An entry that another program damaged does not hide the others.
            Ok(Err(error)) => {
                tracing::warn!(source, %error, "a history entry cannot be read and is left out");
                None
            }
            Err(error) => Some(Err(error)),
        })
        .collect()
}

pub fn delete(connection: &mut Connection, document_id: &str) -> rusqlite::Result<bool> {
    let transaction = database::begin(connection)?;
    let gone = transaction.execute("DELETE FROM sources WHERE id = ?1", [document_id])?
        + transaction.execute("DELETE FROM history WHERE source = ?1", [document_id])?;
    transaction.commit()?;
    Ok(gone > 0)
}

/// Writes, reads and deletes a separate row.
pub fn check(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = database::begin(connection)?;
    transaction.execute("INSERT OR REPLACE INTO probe VALUES (1, 'bitbrat was here')", [])?;
    transaction.commit()?;
    connection.query_row("SELECT note FROM probe WHERE id = 1", [], |_| Ok(()))?;
    connection.execute("DELETE FROM probe WHERE id = 1", [])?;
    Ok(())
}
