//! The history of a source as documents in a subcollection, one per entry.

use std::collections::HashMap;

use firestore::gcloud_sdk::google::firestore::v1::structured_query::field_filter::Operator;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::filter::FilterType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::{
    CollectionSelector, Direction, FieldFilter, FieldReference, Filter, Order, Projection,
};
use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::write::Operation;
use firestore::gcloud_sdk::google::firestore::v1::{Document, StructuredQuery, Value as Stored, Write};
use serde_json::Value;

use crate::core::time::Timestamp;
use crate::store::HistoryEntry;
use crate::store::firestore::client::Client;
use crate::store::firestore::error::Failure;
use crate::store::firestore::value;
use crate::store::retention::Retention;

const COLLECTION: &str = "history";
/// An additional field: sorting by it as text gives the order that the port guarantees. One field, so that no composite index
/// is needed.
const SORT_KEY: &str = "sortKey";
/// Documents deleted in one request.
const SWEEP: i32 = 400;

/// Returns the write of `entry` below the document at `parent`. Idempotent.
pub fn write(parent: &str, entry: &HistoryEntry) -> Write {
    let mut fields = match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => value::to_fields(fields),
        _ => HashMap::new(),
    };
    let sort_key = format!("{} {} {}", entry.transition.at, entry.recorded_at, entry.id);
    fields.insert(SORT_KEY.into(), text(sort_key));
    Write {
        operation: Some(Operation::Update(Document {
            name: format!("{parent}/{COLLECTION}/{}", entry.id),
            fields,
            ..Document::default()
        })),
        ..Write::default()
    }
}

/// Returns at most `limit` entries below `parent`, newest first.
pub async fn read(
    client: &Client,
    parent: String,
    limit: usize,
    retention: Retention,
) -> Result<Vec<HistoryEntry>, Failure> {
    let limit = limit.min(retention.entries);
    let found = client.query(parent, sorted(Direction::Descending, limit)).await?;
    let mut entries: Vec<_> = found.into_iter().filter_map(entry).collect();
    // Entries beyond the retention that were not removed yet are omitted.
    retention.apply(&mut entries);
    Ok(entries)
}

fn entry(document: Document) -> Option<HistoryEntry> {
    let name = document.name;
    let fields = Value::Object(value::to_json(document.fields));
    serde_json::from_value(fields)
        .inspect_err(|error| tracing::warn!(document = %name, %error, "a history entry cannot be read and is left out"))
        .ok()
}

/// Whether writing `entry` triggers a cleanup. A cleanup with each entry would cost a read each; the ids of entries are
/// effectively random, so one in 128 triggers it.
pub fn triggers_sweep(entry: &HistoryEntry) -> bool {
    u8::from_str_radix(entry.id.get(..2).unwrap_or_default(), 16).is_ok_and(|first| first < 2)
}

/// Deletes entries beyond the retention below `parent`.
pub async fn sweep(
    client: &Client,
    parent: &str,
    newest: Timestamp,
    retention: Retention,
) -> Result<(), Failure> {
    let mut old = sorted(Direction::Ascending, usize::MAX);
    old.r#where = Some(Filter {
        filter_type: Some(FilterType::FieldFilter(FieldFilter {
            field: Some(field(SORT_KEY)),
            op: Operator::LessThan.into(),
            value: Some(text(retention.horizon(newest).to_string())),
        })),
    });
    delete(client, parent, old).await?;
    let counted = client
        .count(parent.to_owned(), sorted(Direction::Ascending, usize::MAX))
        .await?;
    let surplus = usize::try_from(counted)
        .unwrap_or(0)
        .saturating_sub(retention.entries);
    if surplus > 0 {
        delete(client, parent, sorted(Direction::Ascending, surplus)).await?;
    }
    Ok(())
}

/// Deletes the entries below `parent` that are dated after `until`.
pub async fn drop_after(client: &Client, parent: &str, until: Timestamp) -> Result<(), Failure> {
    let mut later = sorted(Direction::Ascending, usize::MAX);
    later.r#where = Some(Filter {
        filter_type: Some(FilterType::FieldFilter(FieldFilter {
            field: Some(field(SORT_KEY)),
            op: Operator::GreaterThanOrEqual.into(),
            // Sort keys begin with the date of the entry.
            value: Some(text(until.plus_millis(1).to_string())),
        })),
    });
    delete(client, parent, later).await.map(|_| ())
}

/// Deletes the whole history below `parent`. Returns whether there was any.
pub async fn clear(client: &Client, parent: &str) -> Result<bool, Failure> {
    delete(client, parent, sorted(Direction::Ascending, usize::MAX)).await
}

/// Deletes the results of `query` in batches. Returns whether there were any.
async fn delete(client: &Client, parent: &str, query: StructuredQuery) -> Result<bool, Failure> {
    let mut left = query.limit.unwrap_or(i32::MAX);
    let mut any = false;
    while left > 0 {
        let portion = StructuredQuery {
            select: Some(Projection {
                fields: vec![field("__name__")],
            }),
            limit: Some(left.min(SWEEP)),
            ..query.clone()
        };
        let found = client.query(parent.to_owned(), portion).await?;
        if found.is_empty() {
            break;
        }
        any = true;
        left -= i32::try_from(found.len()).unwrap_or(i32::MAX);
        let deletions = found.into_iter().map(|document| Write {
            operation: Some(Operation::Delete(document.name)),
            ..Write::default()
        });
        client.commit(deletions.collect()).await?;
    }
    Ok(any)
}

fn sorted(direction: Direction, limit: usize) -> StructuredQuery {
    StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: COLLECTION.into(),
            all_descendants: false,
        }],
        order_by: vec![Order {
            field: Some(field(SORT_KEY)),
            direction: direction.into(),
        }],
        limit: i32::try_from(limit).ok(),
        ..StructuredQuery::default()
    }
}

fn field(path: &str) -> FieldReference {
    FieldReference {
        field_path: path.into(),
    }
}

fn text(text: String) -> Stored {
    Stored {
        value_type: Some(ValueType::StringValue(text)),
    }
}
