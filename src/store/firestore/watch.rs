//! Keeps a listener open: resumes it when it ends, tells an interruption once, and backs off while it lasts.

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
use crate::store::firestore::replica::{Replica, Step, TARGET};
use crate::store::firestore::stored;
use crate::store::firestore::trouble::Failure;
use crate::store::{StoreError, Stored};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

struct Watcher {
    client: Arc<Client>,
    replica: Replica,
    open: Option<Streaming<ListenResponse>>,
    /// Set while an interruption lasts that was told already.
    troubled: bool,
    pause: Duration,
}

/// Yields all documents now and after every change.
pub fn documents(client: Arc<Client>) -> BoxStream<'static, Result<Vec<Stored>, StoreError>> {
    let watcher = Watcher {
        client,
        replica: Replica::new(),
        open: None,
        troubled: false,
        pause: FIRST_PAUSE,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let news = watcher.next().await;
        Some((news, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> Result<Vec<Stored>, StoreError> {
        loop {
            match self.listen().await {
                Ok(documents) => {
                    self.troubled = false;
                    self.pause = FIRST_PAUSE;
                    return Ok(documents);
                }
                // Production ends a quiet stream every so often; that is no interruption.
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
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Listens until there is something to show. `Err(None)` when the stream ended without a reason.
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
            let heard = open.message().await.map_err(Failure::Answer)?;
            match self.replica.hear(heard.ok_or(None)?) {
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
