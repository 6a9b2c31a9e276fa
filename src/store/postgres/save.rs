//! Writes many documents in few statements, with a result for each.
//!
//! A statement writes its documents and their history atomically: the documents whose version is the expected one, and no other.
//! Its ids are sorted and unique, so that two writers lock rows in the same order and never wait for each other in a circle.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use tokio_postgres::types::Type;

use super::client::SharedClient;
use super::error::{Failure, Meaning};
use super::history::{self, Columns, without_nul};
use crate::store::{HistoryEntry, StoreError, Version, Write, stored as documents};

/// Documents in one statement. Measured: more gain little.
const BATCH: usize = 200;
/// Bytes of documents in one statement.
const BATCH_BYTES: usize = 8_000_000;

/// Locks first, in the order of the ids. A document that another transaction has written in the meantime is no longer among those
/// that match, so it is a conflict and not an overwrite. A first version is never an update, and an update never a first version:
/// a source that was deleted stays deleted.
const SAVE: &str = "
    WITH input AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u(id, doc, base) WHERE {fits}
    ), locked AS MATERIALIZED (
        SELECT d.id FROM {s}.documents d JOIN input u ON d.id = u.id AND d.version = u.base ORDER BY d.id FOR UPDATE OF d
    ), updated AS (
        UPDATE {s}.documents d
        SET data = u.doc::jsonb, version = nextval('{s}.versions'), updated_at = clock_timestamp()
        FROM input u JOIN locked l ON l.id = u.id
        WHERE d.id = u.id AND d.version = u.base
        RETURNING d.id, d.version
    ), inserted AS (
        INSERT INTO {s}.documents (id, data)
        SELECT u.id, u.doc::jsonb FROM input u WHERE u.base IS NULL ORDER BY u.id
        ON CONFLICT (id) DO NOTHING
        RETURNING id, version
    ), saved AS (
        SELECT id, version FROM updated UNION ALL SELECT id, version FROM inserted
    ), recorded AS (
        INSERT INTO {s}.history (source, id, at, recorded_at, entry)
        SELECT h.source, h.id, h.at, h.recorded_at, h.entry::jsonb
        FROM unnest($4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[])
            AS h(source, id, at, recorded_at, entry)
        JOIN saved ON saved.id = h.source
        ORDER BY h.source, h.id ON CONFLICT DO NOTHING
    )
    SELECT id, version FROM saved";

/// A write with its index in the caller's list, and the data to send.
struct Planned {
    index: usize,
    document_id: String,
    text: String,
    base: Option<i64>,
    history: Vec<HistoryEntry>,
}

type Saved = (usize, Result<Version, StoreError>);

/// Writes documents in as few statements as possible, and returns a result for each.
pub async fn save(client: &SharedClient, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
    let mut results: Vec<Option<Result<Version, StoreError>>> = writes.iter().map(|_| None).collect();
    let mut planned = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        match Planned::of(index, write) {
            Ok(plan) => planned.push(plan),
            Err(refused) => results[index] = Some(Err(refused)),
        }
    }
    planned.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    // Others need connections, too.
    let at_once = (client.target.connections / 2).max(1);
    let saved = stream::iter(batches(planned))
        .map(|batch| save_batch(client, batch))
        .buffer_unordered(at_once)
        .concat();
    for (index, saved) in saved.await {
        results[index] = Some(saved);
    }
    results
        .into_iter()
        .map(|saved| saved.expect("every write was planned or refused"))
        .collect()
}

/// Splits writes into statements.
fn batches(planned: Vec<Planned>) -> Vec<Vec<Planned>> {
    let mut batches: Vec<Vec<Planned>> = Vec::new();
    let mut bytes = 0;
    for plan in planned {
        bytes += plan.text.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH && bytes < BATCH_BYTES => batch.push(plan),
            _ => {
                bytes = plan.text.len();
                batches.push(vec![plan]);
            }
        }
    }
    batches
}

/// Writes a batch. One that fails because of a document in it is halved until that document is alone.
async fn save_batch(client: &SharedClient, batch: Vec<Planned>) -> Vec<Saved> {
    let mut results = Vec::with_capacity(batch.len());
    let mut waiting = vec![batch];
    while let Some(mut batch) = waiting.pop() {
        match execute(client, &batch).await {
            Ok(versions) => {
                results.extend(batch.iter().map(|plan| (plan.index, plan.outcome(&versions))));
                sweep_if_triggered(client, &batch, &versions).await;
            }
            Err(failure) => match failure.meaning() {
                Meaning::BadValue | Meaning::TooSlow if batch.len() > 1 => {
                    let rest = batch.split_off(batch.len() / 2);
                    waiting.push(rest);
                    waiting.push(batch);
                }
                Meaning::BadValue if batch.len() == 1 => {
                    let plan = &batch[0];
                    results.push((
                        plan.index,
                        Err(failure.explain_write(&client.target, &plan.document_id)),
                    ));
                }
                _ => {
                    let error = failure.explain(&client.target);
                    results.extend(batch.iter().map(|plan| (plan.index, Err(error.clone()))));
                }
            },
        }
    }
    results
}

/// Executes the statement; returns the new versions of what was written.
async fn execute(client: &SharedClient, batch: &[Planned]) -> Result<BTreeMap<String, i64>, Failure> {
    let ids: Vec<&str> = batch.iter().map(|plan| plan.document_id.as_str()).collect();
    let texts: Vec<&str> = batch.iter().map(|plan| plan.text.as_str()).collect();
    let bases: Vec<Option<i64>> = batch.iter().map(|plan| plan.base).collect();
    let mut columns = Columns::default();
    for plan in batch {
        for entry in &plan.history {
            columns.add(&plan.document_id, entry);
        }
    }
    let rows = client
        .query(
            SAVE,
            &[
                (&ids, Type::TEXT_ARRAY),
                (&texts, Type::TEXT_ARRAY),
                (&bases, Type::INT8_ARRAY),
                (&columns.sources, Type::TEXT_ARRAY),
                (&columns.ids, Type::TEXT_ARRAY),
                (&columns.at, Type::INT8_ARRAY),
                (&columns.recorded_at, Type::INT8_ARRAY),
                (&columns.entries, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

async fn sweep_if_triggered(client: &SharedClient, batch: &[Planned], versions: &BTreeMap<String, i64>) {
    for plan in batch {
        // A new document has no old history.
        let may_have_old = plan.base.is_some() && versions.contains_key(&plan.document_id);
        if !may_have_old || !plan.history.iter().any(history::triggers_sweep) {
            continue;
        }
        if let Err(failure) = history::sweep(client, &plan.document_id).await {
            let error = failure.explain(&client.target);
            tracing::warn!(document = plan.document_id, %error, "Old history stays until the next occasion");
        }
    }
}

impl Planned {
    fn of(index: usize, write: &Write) -> Result<Self, StoreError> {
        let document_id = write.document.key.to_string();
        let text = stored_text(documents::write_text(&write.document)?);
        let base = match &write.base {
            None => None,
            Some(base) => match base.0.parse() {
                Ok(base) => Some(base),
                // A version of another store cannot match the stored one.
                Err(_) => return Err(StoreError::Conflict { document_id }),
            },
        };
        Ok(Self {
            index,
            document_id,
            text,
            base,
            history: write.history.clone(),
        })
    }

    fn outcome(&self, versions: &BTreeMap<String, i64>) -> Result<Version, StoreError> {
        match versions.get(&self.document_id) {
            Some(version) => Ok(Version(version.to_string())),
            None => Err(StoreError::Conflict {
                document_id: self.document_id.clone(),
            }),
        }
    }
}

/// Returns JSON in the form in which JSONB accepts it.
pub fn stored_text(text: String) -> String {
    if !text.contains("\\u0000") {
        return text;
    }
    // The text may also be a backslash followed by `u0000`, which only a parser can tell.
    let Ok(mut value) = serde_json::from_str(&text) else {
        return text;
    };
    without_nul(&mut value);
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nul_characters_are_left_out_of_stored_text() {
        let foreign = json!({ "ti\0tle": "a\0b", "list": ["\0", { "deep": "\0x" }], "path": "C:\\u0000" });
        let stored = stored_text(foreign.to_string());
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        assert_eq!(
            stored,
            json!({ "title": "ab", "list": ["", { "deep": "x" }], "path": "C:\\u0000" })
        );
    }
}
