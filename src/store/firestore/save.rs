//! Writes many documents in few requests, with a result for each: how writes are grouped, and which are retried individually
//! when one response applies to many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use firestore::gcloud_sdk::google::firestore::v1::Write as Request;
use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::tonic::Code;
use futures_util::stream::{self, StreamExt};

use super::client::Client;
use super::error::{self, Failure};
use super::{history, moment, update, version};
use crate::store::{HistoryEntry, StoreError, Version, Write, stored as documents};

/// Writes in one request; Firestore's own limit is 500.
pub(super) const MAX_WRITES_PER_REQUEST: usize = 450;
/// Bytes of documents in one request; Firestore's own limit is 10 MiB.
const BATCH_BYTES: usize = 7_000_000;
/// Documents with history in one request. They are written atomically, so a conflict of one costs the others a second request;
/// and a request costs much more than a document.
const GROUP: usize = 25;
/// Number of documents that are written individually after such a conflict. Writers that conflict once will conflict again.
const APART: u32 = 50;
/// Requests in flight. Measured: more than 64 gain nothing on one connection.
const IN_FLIGHT: usize = 64;

/// Writes documents over the store's connection.
pub(super) struct Saver {
    client: Arc<Client>,
    /// Remaining number of documents with history that are written individually.
    apart: AtomicU32,
}

impl Saver {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            apart: AtomicU32::new(0),
        }
    }

    /// Writes documents in as few requests as possible, and returns a result for each.
    pub(super) async fn save(&self, writes: &[Write]) -> Vec<Result<Version, StoreError>> {
        let mut results: Vec<Option<Result<Version, StoreError>>> = writes.iter().map(|_| None).collect();
        let mut alone = Vec::new();
        let mut together: Vec<Vec<Planned>> = Vec::new();
        let mut bytes = 0;
        for (index, write) in writes.iter().enumerate() {
            match Planned::of(index, write, &self.client) {
                Err(refused) => results[index] = Some(Err(refused)),
                Ok(planned) if !planned.history.is_empty() || writes.len() == 1 => alone.push(planned),
                Ok(planned) => {
                    bytes += planned.bytes;
                    match together.last_mut() {
                        Some(batch) if batch.len() < MAX_WRITES_PER_REQUEST && bytes < BATCH_BYTES => {
                            batch.push(planned);
                        }
                        _ => {
                            bytes = planned.bytes;
                            together.push(vec![planned]);
                        }
                    }
                }
            }
        }
        let size = self.group_size(alone.len());
        let alone = stream::iter(groups(alone, size))
            .map(|group| self.save_group(group))
            .buffer_unordered(IN_FLIGHT)
            .concat();
        let together = stream::iter(together)
            .map(|batch| self.save_batch(batch))
            .buffer_unordered(4)
            .concat();
        let (alone, together) = futures_util::future::join(alone, together).await;
        for (index, saved) in alone.into_iter().chain(together) {
            results[index] = Some(saved);
        }
        results
            .into_iter()
            .map(|saved| saved.expect("every write was planned or refused"))
            .collect()
    }

    /// Writes documents without history, many in a request.
    async fn save_batch(&self, batch: Vec<Planned>) -> Vec<(usize, Result<Version, StoreError>)> {
        let requests = batch.iter().map(|planned| planned.request.clone()).collect();
        match self.client.batch(requests).await {
            Ok(response) => {
                let mut results = response.write_results.into_iter();
                let mut statuses = response.status.into_iter();
                let answer = |planned: Planned| {
                    let (result, status) = (
                        results.next().unwrap_or_default(),
                        statuses.next().unwrap_or_default(),
                    );
                    let saved = match Code::from(status.code) {
                        Code::Ok => Ok(version(result.update_time)),
                        code => Err(error::of_write(
                            &self.client.target,
                            &planned.document_id,
                            code,
                            &status.message,
                        )),
                    };
                    (planned.index, saved)
                };
                batch.into_iter().map(answer).collect()
            }
            // The response does not identify the invalid document, so each is retried individually.
            Err(Failure::Answer(status)) if batch.len() > 1 && is_about_contents(status.code()) => {
                let alone = stream::iter(batch).map(|planned| self.save_alone(planned));
                alone.buffer_unordered(IN_FLIGHT).collect().await
            }
            Err(failure) => {
                let failure = failure.explain_write(&self.client.target, "");
                let named =
                    |planned: Planned| (planned.index, Err(renamed(failure.clone(), planned.document_id)));
                batch.into_iter().map(named).collect()
            }
        }
    }

    /// Writes documents together with their history atomically; after an error each is retried individually to find the
    /// invalid one.
    async fn save_group(&self, group: Vec<Planned>) -> Vec<(usize, Result<Version, StoreError>)> {
        if group.len() > 1 {
            let mut requests = Vec::new();
            let mut places = Vec::with_capacity(group.len());
            for planned in &group {
                let parent = self.client.path(&planned.document_id);
                places.push(requests.len());
                requests.push(planned.request.clone());
                requests.extend(planned.history.iter().map(|entry| history::write(&parent, entry)));
            }
            match self.client.commit(requests).await {
                Ok(results) => {
                    for planned in &group {
                        self.sweep_if_triggered(planned).await;
                    }
                    let at = |place: usize| results.get(place).and_then(|result| result.update_time);
                    let saved = group.iter().zip(places);
                    return saved
                        .map(|(planned, place)| (planned.index, Ok(version(at(place)))))
                        .collect();
                }
                Err(Failure::Answer(status)) if is_about_one(status.code()) => {
                    self.apart.store(APART, Ordering::Relaxed);
                }
                Err(failure) => {
                    let failure = failure.explain_write(&self.client.target, "");
                    let named = |planned: Planned| {
                        (planned.index, Err(renamed(failure.clone(), planned.document_id)))
                    };
                    return group.into_iter().map(named).collect();
                }
            }
        }
        let alone = stream::iter(group).map(|planned| self.save_alone(planned));
        alone.buffer_unordered(IN_FLIGHT).collect().await
    }

    /// Number of documents with history in the next request.
    fn group_size(&self, documents: usize) -> usize {
        let apart = self.apart.load(Ordering::Relaxed);
        if apart == 0 {
            return GROUP;
        }
        let documents = u32::try_from(documents).unwrap_or(u32::MAX);
        self.apart
            .store(apart.saturating_sub(documents), Ordering::Relaxed);
        1
    }

    /// Writes one document atomically with its history.
    async fn save_alone(&self, planned: Planned) -> (usize, Result<Version, StoreError>) {
        let parent = self.client.path(&planned.document_id);
        let mut requests = vec![planned.request.clone()];
        requests.extend(planned.history.iter().map(|entry| history::write(&parent, entry)));
        let saved = match self.client.commit(requests).await {
            Ok(results) => Ok(version(
                results.into_iter().next().and_then(|result| result.update_time),
            )),
            Err(failure) => Err(failure.explain_write(&self.client.target, &planned.document_id)),
        };
        if saved.is_ok() {
            self.sweep_if_triggered(&planned).await;
        }
        (planned.index, saved)
    }

    async fn sweep_if_triggered(&self, planned: &Planned) {
        // A new document has no old history, and the queries of thousands of sweeps would take longer than the first writes.
        if planned.is_new {
            return;
        }
        let mut entries = planned.history.iter();
        let Some(entry) = entries.find(|entry| history::triggers_sweep(entry)) else {
            return;
        };
        let parent = &self.client.path(&planned.document_id);
        let swept = history::sweep(
            &self.client,
            parent,
            entry.recorded_at,
            self.client.target.retention,
        )
        .await;
        if let Err(failure) = swept {
            let error = failure.explain(&self.client.target);
            tracing::warn!(document = parent, %error, "Old history stays until the next occasion");
        }
    }
}

/// A write with its index in the caller's list, and the data to send.
struct Planned {
    index: usize,
    document_id: String,
    bytes: usize,
    request: Request,
    history: Vec<HistoryEntry>,
    /// Whether it is the first version of the document.
    is_new: bool,
}

impl Planned {
    fn of(index: usize, write: &Write, client: &Client) -> Result<Self, StoreError> {
        let document_id = write.document.key.to_string();
        let (fields, bytes) = documents::write(&write.document)?;
        let condition = match &write.base {
            None => ConditionType::Exists(false),
            Some(base) => match moment(base) {
                Some(at) => ConditionType::UpdateTime(at),
                // A version of another store cannot match the stored one.
                None => return Err(StoreError::Conflict { document_id }),
            },
        };
        Ok(Self {
            index,
            request: update(client.path(&document_id), fields, Some(condition)),
            document_id,
            bytes,
            history: write.history.clone(),
            is_new: write.base.is_none(),
        })
    }
}

/// Splits documents with history into requests.
fn groups(planned: Vec<Planned>, size: usize) -> Vec<Vec<Planned>> {
    let mut groups: Vec<Vec<Planned>> = Vec::new();
    let (mut writes, mut bytes) = (0, 0);
    for planned in planned {
        writes += 1 + planned.history.len();
        bytes += planned.bytes;
        match groups.last_mut() {
            Some(group) if group.len() < size && writes < MAX_WRITES_PER_REQUEST && bytes < BATCH_BYTES => {
                group.push(planned);
            }
            _ => {
                (writes, bytes) = (1 + planned.history.len(), planned.bytes);
                groups.push(vec![planned]);
            }
        }
    }
    groups
}

/// Whether an error of a batch may be caused by one of its writes.
fn is_about_contents(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition
    )
}

/// Whether an error of a group, of which nothing was written, may be caused by one of its documents.
fn is_about_one(code: Code) -> bool {
    is_about_contents(code) || matches!(code, Code::AlreadyExists | Code::NotFound | Code::Aborted)
}

fn renamed(error: StoreError, document_id: String) -> StoreError {
    match error {
        StoreError::Conflict { .. } => StoreError::Conflict { document_id },
        StoreError::Rejected { reason, .. } => StoreError::Rejected { document_id, reason },
        other => other,
    }
}
