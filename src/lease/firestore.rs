//! Leases in Firestore: a document for each, in `bitbrat_leases`, and one for the view, in `bitbrat_fleets`.
//!
//! Only Firestore's clock decides: a renewal sets `renewedAt` to the time of the request, and a read returns its own time. Writes
//! have the update time that was read as a precondition. A write that changes nothing keeps the update time, so each changes
//! `beat`.

use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::document_transform::FieldTransform;
use firestore::gcloud_sdk::google::firestore::v1::document_transform::field_transform::{
    ServerValue, TransformType,
};
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::field_filter::Operator;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::filter::FilterType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::{
    CollectionSelector, FieldFilter, FieldReference, Filter,
};
use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, StructuredQuery, Value as Stored, Write};
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use serde_json::{Map, Value, json};

use super::{Fence, Holder, LeaseEngine, LeaseError, LeaseName, LeaseRecord, Scope, SharedText};
use crate::store::firestore::client::Client;
use crate::store::firestore::error::Failure;
use crate::store::firestore::{FirestoreTarget, moment, update, value, version};
use crate::store::{StoreError, Version};

const LEASES: &str = "bitbrat_leases";
const VIEWS: &str = "bitbrat_fleets";
const RENEWED_AT: &str = "renewedAt";

/// The engine in one database.
pub struct FirestoreLeases {
    client: Client,
    scope: Scope,
}

/// A lease as it was read.
struct Read {
    record: LeaseRecord,
    is_live: bool,
    beat: i64,
    version: Version,
}

impl FirestoreLeases {
    /// Creates the engine without a request, with a connection of its own.
    pub fn new(target: FirestoreTarget, scope: Scope) -> Self {
        Self {
            client: Client::new(FirestoreTarget {
                patience: scope.terms.patience(),
                ..target
            }),
            scope,
        }
    }

    fn explain(&self, failure: Failure) -> LeaseError {
        LeaseError::Store(failure.explain(&self.client.target))
    }

    fn path(&self, name: &LeaseName) -> String {
        let (root, fleet) = (self.client.root(), &self.scope.fleet);
        format!("{root}/{LEASES}/{fleet}:{name}")
    }

    fn view_path(&self) -> String {
        format!("{}/{VIEWS}/{}", self.client.root(), self.scope.fleet)
    }

    /// Reads one lease. Returns Firestore's time of the read as well.
    async fn read(&self, name: &LeaseName) -> Result<(Option<Read>, Moment), LeaseError> {
        let found = self.client.get_some(vec![self.path(name)]).await;
        let (found, read_at) = found.map_err(|failure| self.explain(failure))?;
        let read_at = read_at.unwrap_or_default();
        let document = found.into_iter().next();
        Ok((
            document.and_then(|document| self.parse(document, read_at)),
            read_at,
        ))
    }

    /// Reads the fields of a document; `None` if another program has written something else there.
    fn parse(&self, document: Document, read_at: Moment) -> Option<Read> {
        let renewed_at = match &document.fields.get(RENEWED_AT)?.value_type {
            Some(ValueType::TimestampValue(at)) => *at,
            _ => return None,
        };
        let version = version(document.update_time);
        let fields = value::to_json(document.fields);
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let record = LeaseRecord {
            name: text("name")?.parse().ok()?,
            holder: text("holder")?.parse().ok()?,
            fence: Fence(fields.get("fence")?.as_u64()?),
            note: text("note").unwrap_or_default().to_owned(),
        };
        let is_released = fields.get("released").and_then(Value::as_bool) == Some(true);
        Some(Read {
            is_live: !is_released && elapsed(renewed_at, read_at) < self.scope.terms.ttl,
            beat: fields.get("beat").and_then(Value::as_i64).unwrap_or(0),
            record,
            version,
        })
    }

    fn fields(&self, record: &LeaseRecord, beat: i64, is_released: bool) -> Map<String, Value> {
        let fields = json!({
            "fleet": self.scope.fleet.as_str(), "name": record.name.as_str(), "holder": record.holder.to_string(),
            "fence": record.fence.0, "note": record.note, "beat": beat, "released": is_released,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Writes a lease whose document is as it was read. `false` if it is not any more.
    async fn write(
        &self,
        record: &LeaseRecord,
        before: Option<&Read>,
        is_released: bool,
    ) -> Result<bool, LeaseError> {
        let condition = match before {
            Some(read) => moment(&read.version).map(ConditionType::UpdateTime),
            None => Some(ConditionType::Exists(false)),
        };
        let beat = before.map_or(0, |read| read.beat.wrapping_add(1));
        let fields = self.fields(record, beat, is_released);
        let write = Write {
            update_transforms: vec![FieldTransform {
                field_path: RENEWED_AT.to_owned(),
                transform_type: Some(TransformType::SetToServerValue(ServerValue::RequestTime.into())),
            }],
            ..update(self.path(&record.name), fields, condition)
        };
        self.commit(write, record.name.as_str()).await
    }

    async fn commit(&self, write: Write, name: &str) -> Result<bool, LeaseError> {
        match self.client.commit(vec![write]).await {
            Ok(_) => Ok(true),
            Err(failure) => match failure.explain_write(&self.client.target, name) {
                StoreError::Conflict { .. } => Ok(false),
                error => Err(LeaseError::Store(error)),
            },
        }
    }
}

fn elapsed(from: Moment, to: Moment) -> Duration {
    let nanos = |at: Moment| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let between = u64::try_from(nanos(to) - nanos(from)).unwrap_or(0);
    Duration::from_nanos(between)
}

fn millis(at: Moment) -> u64 {
    u64::try_from(at.seconds * 1_000 + i64::from(at.nanos / 1_000_000)).unwrap_or(0)
}

#[async_trait]
impl LeaseEngine for FirestoreLeases {
    fn location(&self) -> String {
        self.client.target.to_string()
    }

    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError> {
        let (found, read_at) = self.read(name).await?;
        let fence = match &found {
            Some(read) if read.is_live && read.record.holder == *holder => read.record.fence,
            Some(read) if read.is_live => return Ok(None),
            // A fence begins with the server's time and not with 1, so that it grows even if the document was lost.
            Some(read) => Fence(millis(read_at).max(read.record.fence.0 + 1)),
            None => Fence(millis(read_at).max(1)),
        };
        let record = LeaseRecord {
            name: name.clone(),
            holder: holder.clone(),
            fence,
            note: note.to_owned(),
        };
        let is_taken = self.write(&record, found.as_ref(), false).await?;
        Ok(is_taken.then_some(fence))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError> {
        // A request of our own that was given up may have been written in between.
        for _ in 0..2 {
            let (found, _) = self.read(name).await?;
            let Some(read) = found
                .filter(|read| read.is_live && read.record.holder == *holder && read.record.fence == fence)
            else {
                return Ok(false);
            };
            let record = LeaseRecord {
                note: note.to_owned(),
                ..read.record.clone()
            };
            if self.write(&record, Some(&read), false).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn release(&self, name: &LeaseName, holder: &Holder, fence: Fence) -> Result<(), LeaseError> {
        let (found, _) = self.read(name).await?;
        if let Some(read) = found
            && read.record.holder == *holder
            && read.record.fence == fence
        {
            self.write(&read.record, Some(&read), true).await?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError> {
        let query = StructuredQuery {
            from: vec![CollectionSelector {
                collection_id: LEASES.to_owned(),
                all_descendants: false,
            }],
            r#where: Some(Filter {
                filter_type: Some(FilterType::FieldFilter(FieldFilter {
                    field: Some(FieldReference {
                        field_path: "fleet".to_owned(),
                    }),
                    op: Operator::Equal.into(),
                    value: Some(Stored {
                        value_type: Some(ValueType::StringValue(self.scope.fleet.to_string())),
                    }),
                })),
            }),
            ..StructuredQuery::default()
        };
        let found = self.client.query_at(self.client.root(), query).await;
        let (found, read_at) = found.map_err(|failure| self.explain(failure))?;
        let read_at = read_at.unwrap_or_default();
        let read = found
            .into_iter()
            .filter_map(|document| self.parse(document, read_at));
        let mut live: Vec<_> = read.filter(|read| read.is_live).map(|read| read.record).collect();
        live.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(live)
    }

    async fn view(&self) -> Result<Option<SharedText>, LeaseError> {
        let found = self.client.get(self.view_path()).await;
        let found = found.map_err(|failure| self.explain(failure))?;
        Ok(found.map(|document| {
            let version = version(document.update_time).0;
            let fields = value::to_json(document.fields);
            let text = fields.get("view").and_then(Value::as_str).unwrap_or_default();
            SharedText {
                version,
                text: text.to_owned(),
            }
        }))
    }

    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError> {
        let condition = match base {
            Some(base) => match moment(&Version(base.to_owned())) {
                Some(at) => ConditionType::UpdateTime(at),
                None => return Ok(false),
            },
            None => ConditionType::Exists(false),
        };
        // Every view differs from the one before in its epoch.
        let fields = Map::from_iter([("view".to_owned(), Value::String(text.to_owned()))]);
        let write = update(self.view_path(), fields, Some(condition));
        self.commit(write, VIEWS).await
    }
}
