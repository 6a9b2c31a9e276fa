//! Keeps a listener open: resumes it when it ends, reports an interruption once, and backs off while it lasts.

use std::sync::Arc;
use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::structured_query::CollectionSelector;
use firestore::gcloud_sdk::google::firestore::v1::target::query_target::QueryType;
use firestore::gcloud_sdk::google::firestore::v1::target::{QueryTarget, ResumeType, TargetType};
use firestore::gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, StructuredQuery, Target, listen_request,
};
use firestore::gcloud_sdk::tonic::{Status, Streaming};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::store::firestore::client::Client;
use crate::store::firestore::error::Failure;
use crate::store::firestore::replica::{Replica, Step, TARGET};
use crate::store::firestore::stored;
use crate::store::{StoreError, Stored};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

struct Watcher {
    client: Arc<Client>,
    replica: Replica,
    open: Option<Streaming<ListenResponse>>,
    /// Whether the current interruption was already reported.
    troubled: bool,
    backoff: Duration,
}

/// Emits all documents now and after every change.
pub fn documents(client: Arc<Client>) -> BoxStream<'static, Result<Vec<Stored>, StoreError>> {
    let watcher = Watcher {
        client,
        replica: Replica::new(),
        open: None,
        troubled: false,
        backoff: FIRST_BACKOFF,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let change = watcher.next().await;
        Some((change, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> Result<Vec<Stored>, StoreError> {
        loop {
            match self.listen().await {
                Ok(documents) => {
                    self.troubled = false;
                    self.backoff = FIRST_BACKOFF;
                    return Ok(documents);
                }
                // Production ends an idle stream at intervals; that is not an interruption.
                Err(None) => {
                    self.open = None;
                    self.rest().await;
                }
                Err(Some(failure)) => {
                    self.open = None;
                    if !std::mem::replace(&mut self.troubled, true) {
                        return Err(failure.explain(&self.client.target));
                    }
                    self.rest().await;
                }
            }
        }
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    /// Listens until there is a state to emit. `Err(None)` if the stream ended without a reason.
    async fn listen(&mut self) -> Result<Vec<Stored>, Option<Failure>> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                self.replica.reconnecting();
                let request = request(&self.client, self.replica.resume_token());
                closed.insert(self.client.listen(request).await?)
            }
        };
        loop {
            let incoming = open.message().await.map_err(Failure::Answer)?;
            match self.replica.receive(incoming.ok_or(None)?) {
                Step::Wait => {}
                Step::Show => return Ok(self.replica.documents().cloned().map(stored).collect()),
                Step::Restart(cause) => return Err(cause.map(Failure::Answer)),
            }
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Answer(status)
    }
}

fn request(client: &Client, resume: Option<Vec<u8>>) -> ListenRequest {
    let query = StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: client.target.collection.clone(),
            all_descendants: false,
        }],
        ..StructuredQuery::default()
    };
    ListenRequest {
        database: client.database(),
        target_change: Some(listen_request::TargetChange::AddTarget(Target {
            target_id: TARGET,
            target_type: Some(TargetType::Query(QueryTarget {
                parent: client.root(),
                query_type: Some(QueryType::StructuredQuery(query)),
            })),
            resume_type: resume.map(ResumeType::ResumeToken),
            ..Target::default()
        })),
        ..ListenRequest::default()
    }
}
