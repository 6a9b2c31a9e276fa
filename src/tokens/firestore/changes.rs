//! Detects changes of documents by a listener, which costs nothing while nothing changes.

use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::listen_request::TargetChange;
use firestore::gcloud_sdk::google::firestore::v1::listen_response::ResponseType;
use firestore::gcloud_sdk::google::firestore::v1::target::{DocumentsTarget, TargetType};
use firestore::gcloud_sdk::google::firestore::v1::{ListenRequest, ListenResponse, Target};
use firestore::gcloud_sdk::tonic::Streaming;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::store::firestore::client::Client;

/// How long a listener that has ended is not opened again. Meanwhile each comparison counts as a change, at most this often.
const PAUSE: Duration = Duration::from_secs(3);

/// A counter of changes.
#[derive(Default)]
pub(super) struct Changes {
    count: u64,
    open: Option<Streaming<ListenResponse>>,
    opened_at: Option<Instant>,
}

impl Changes {
    /// Returns a number that differs from the last one if one of the documents at `paths` may have changed since.
    pub async fn count(&mut self, client: &Client, paths: Vec<String>) -> u64 {
        if self.open.is_none() && self.opened_at.is_none_or(|at| at.elapsed() >= PAUSE) {
            // Whatever has changed since the last listener ended is read now; so is the error, if there is no connection.
            self.count += 1;
            self.open = client.listen(request(client, paths)).await.ok();
            self.opened_at = Some(Instant::now());
        }
        while let Some(stream) = &mut self.open {
            match stream.message().now_or_never() {
                None => break,
                Some(Ok(Some(message))) => match message.response_type {
                    Some(ResponseType::TargetChange(change)) if change.cause.is_some() => self.open = None,
                    Some(ResponseType::TargetChange(_)) | None => {}
                    Some(_) => self.count += 1,
                },
                // Production ends an idle stream at intervals.
                Some(Ok(None) | Err(_)) => self.open = None,
            }
        }
        self.count
    }
}

fn request(client: &Client, documents: Vec<String>) -> ListenRequest {
    ListenRequest {
        database: client.database(),
        target_change: Some(TargetChange::AddTarget(Target {
            target_id: 1,
            target_type: Some(TargetType::Documents(DocumentsTarget { documents })),
            ..Target::default()
        })),
        ..ListenRequest::default()
    }
}
