//! The Firestore connection and its calls, each with a timeout. Reads are retried; writes are not: a write whose response was
//! lost may have succeeded, which the caller detects by joining and writing again.

use std::future::Future;
use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use firestore::gcloud_sdk::google::firestore::v1::run_query_request::QueryType;
use firestore::gcloud_sdk::google::firestore::v1::structured_aggregation_query::aggregation::{
    Count, Operator,
};
use firestore::gcloud_sdk::google::firestore::v1::structured_aggregation_query::{
    Aggregation, QueryType as CountedQuery,
};
use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, BatchWriteRequest, BatchWriteResponse, CommitRequest, Document,
    GetDocumentRequest, ListenRequest, ListenResponse, RunAggregationQueryRequest, RunQueryRequest,
    StructuredAggregationQuery, StructuredQuery, Write, WriteResult, batch_get_documents_response,
    run_aggregation_query_request,
};
use firestore::gcloud_sdk::google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag,
};
use firestore::gcloud_sdk::google_cloud_auth::errors::CredentialsError;
use firestore::gcloud_sdk::prost_types::Timestamp as Moment;
use firestore::gcloud_sdk::tonic::{Code, Extensions, Request, Response, Status, Streaming};
use firestore::gcloud_sdk::{GoogleAuthMiddleware, HeaderMap, RequestTimeouts};
use firestore::{FirestoreDb, FirestoreDbOptions};
use futures_util::stream::{self, Stream};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use tokio::sync::OnceCell;

use crate::secrets;
use crate::store::StoreError;
use crate::store::firestore::FirestoreTarget;
use crate::store::firestore::error::{self, Failure};

/// Backoff before each retry of a read.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

type Stub = FirestoreClient<GoogleAuthMiddleware>;

/// A connection that is opened on first use, and reopened after a failure.
pub struct Client {
    pub target: FirestoreTarget,
    connection: OnceCell<FirestoreDb>,
}

impl Client {
    pub fn new(target: FirestoreTarget) -> Self {
        Self {
            target,
            connection: OnceCell::new(),
        }
    }

    /// Returns the resource name of the database.
    pub fn database(&self) -> String {
        format!(
            "projects/{}/databases/{}",
            self.target.project, self.target.database
        )
    }

    /// Returns the parent path of documents.
    pub fn root(&self) -> String {
        format!("{}/documents", self.database())
    }

    /// Returns the path of one source's document.
    pub fn path(&self, document_id: &str) -> String {
        format!("{}/{}/{document_id}", self.root(), self.target.collection)
    }

    async fn stub(&self) -> Result<Stub, Failure> {
        let connecting = self.connection.get_or_try_init(|| async {
            match tokio::time::timeout(self.target.patience * 2, connect(&self.target)).await {
                Ok(connected) => connected,
                Err(_) => Err(error::unavailable(&self.target, "no connection in time".into())),
            }
        });
        connecting
            .await
            .map(|db| db.client().get())
            .map_err(Failure::NoConnection)
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let limit = RequestTimeouts::new().with_total(self.target.patience);
        request.extensions_mut().insert(limit);
        request
    }

    /// Runs a read-only call, with retries.
    async fn reading<M, A, F>(&self, message: M, call: impl Fn(Stub, Request<M>) -> F) -> Result<A, Failure>
    where
        M: Clone,
        F: Future<Output = Result<A, Status>>,
    {
        let mut pauses = PAUSES.into_iter();
        loop {
            let answer = match self.stub().await {
                Ok(stub) => call(stub, self.request(message.clone())).await,
                Err(failure) => return Err(failure),
            };
            let pause = pauses.next();
            match (answer, pause) {
                (Ok(answer), _) => return Ok(answer),
                (Err(status), Some(pause)) if is_retryable_now(&status) => tokio::time::sleep(pause).await,
                (Err(status), _) => return Err(Failure::Answer(status)),
            }
        }
    }

    /// Returns a document by its full path; `None` if it does not exist.
    pub async fn get(&self, path: String) -> Result<Option<Document>, Failure> {
        let message = GetDocumentRequest {
            name: path,
            ..GetDocumentRequest::default()
        };
        let answer = self
            .reading(message, |mut stub, request| async move {
                stub.get_document(request).await
            })
            .await;
        match answer {
            Ok(response) => Ok(Some(response.into_inner())),
            Err(Failure::Answer(status)) if status.code() == Code::NotFound => {
                // A missing database has the same code; then the message does not name the document.
                if status.message().contains("does not exist for project") {
                    return Err(Failure::Answer(status));
                }
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Returns those of the documents at `paths` that exist, and Firestore's time of the read.
    pub async fn get_some(&self, paths: Vec<String>) -> Result<(Vec<Document>, Option<Moment>), Failure> {
        let message = BatchGetDocumentsRequest {
            database: self.database(),
            documents: paths,
            ..BatchGetDocumentsRequest::default()
        };
        let idle = RequestTimeouts::new().with_idle(self.target.patience);
        self.reading(message, |mut stub, mut request| async move {
            request.extensions_mut().insert(idle);
            let mut answers = stub.batch_get_documents(request).await?.into_inner();
            let (mut found, mut read_at) = (Vec::new(), None);
            while let Some(answer) = answers.message().await? {
                read_at = answer.read_time.or(read_at);
                if let Some(batch_get_documents_response::Result::Found(document)) = answer.result {
                    found.push(document);
                }
            }
            Ok((found, read_at))
        })
        .await
    }

    /// Returns the results of a query below `parent`.
    pub async fn query(&self, parent: String, query: StructuredQuery) -> Result<Vec<Document>, Failure> {
        self.query_at(parent, query).await.map(|(found, _)| found)
    }

    /// Returns the results of a query below `parent`, and Firestore's time of the read.
    pub async fn query_at(
        &self,
        parent: String,
        query: StructuredQuery,
    ) -> Result<(Vec<Document>, Option<Moment>), Failure> {
        let message = RunQueryRequest {
            parent,
            query_type: Some(QueryType::StructuredQuery(query)),
            ..RunQueryRequest::default()
        };
        // A large collection takes longer than one response; only the time between two messages is limited.
        let idle = RequestTimeouts::new().with_idle(self.target.patience);
        self.reading(message, |mut stub, mut request| async move {
            request.extensions_mut().insert(idle);
            let mut answers = stub.run_query(request).await?.into_inner();
            let (mut found, mut read_at) = (Vec::new(), None);
            while let Some(answer) = answers.message().await? {
                read_at = answer.read_time.or(read_at);
                found.extend(answer.document);
            }
            Ok((found, read_at))
        })
        .await
    }

    /// Returns the number of results of a query below `parent`, which is billed as one read.
    pub async fn count(&self, parent: String, query: StructuredQuery) -> Result<i64, Failure> {
        let counting = StructuredAggregationQuery {
            aggregations: vec![Aggregation {
                alias: "count".into(),
                operator: Some(Operator::Count(Count { up_to: None })),
            }],
            query_type: Some(CountedQuery::StructuredQuery(query)),
        };
        let message = RunAggregationQueryRequest {
            parent,
            query_type: Some(run_aggregation_query_request::QueryType::StructuredAggregationQuery(counting)),
            ..RunAggregationQueryRequest::default()
        };
        self.reading(message, |mut stub, request| async move {
            let mut answers = stub.run_aggregation_query(request).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                let counted = answer
                    .result
                    .and_then(|result| result.aggregate_fields.get("count").cloned());
                if let Some(ValueType::IntegerValue(count)) = counted.and_then(|value| value.value_type) {
                    return Ok(count);
                }
            }
            Ok(0)
        })
        .await
    }

    /// Executes `writes` atomically.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Vec<WriteResult>, Failure> {
        let message = CommitRequest {
            database: self.database(),
            writes,
            ..CommitRequest::default()
        };
        let mut stub = self.stub().await?;
        let answer = stub.commit(self.request(message)).await;
        answer
            .map(|response| response.into_inner().write_results)
            .map_err(Failure::Answer)
    }

    /// Executes each of `writes` independently. The response has a status for each.
    pub async fn batch(&self, writes: Vec<Write>) -> Result<BatchWriteResponse, Failure> {
        let message = BatchWriteRequest {
            database: self.database(),
            writes,
            ..BatchWriteRequest::default()
        };
        let mut stub = self.stub().await?;
        stub.batch_write(self.request(message))
            .await
            .map(Response::into_inner)
            .map_err(Failure::Answer)
    }

    /// Opens a stream of changes. It has no timeout: no messages arrive while nothing changes.
    pub async fn listen(&self, message: ListenRequest) -> Result<Streaming<ListenResponse>, Failure> {
        let mut stub = self.stub().await?;
        let opening = stub.listen(Request::new(only(message)));
        match tokio::time::timeout(self.target.patience, opening).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(Failure::Answer),
            Err(_) => Err(Failure::Answer(Status::deadline_exceeded(
                "the listener was not accepted in time",
            ))),
        }
    }
}

/// A stream with one message that stays open: ending it would end the responses.
fn only(message: ListenRequest) -> impl Stream<Item = ListenRequest> + Send + 'static {
    use futures_util::StreamExt;
    stream::iter([message]).chain(stream::pending())
}

fn is_retryable_now(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Aborted | Code::Cancelled | Code::Internal
    )
}

async fn connect(target: &FirestoreTarget) -> Result<FirestoreDb, StoreError> {
    let options = FirestoreDbOptions::new(target.project.clone()).with_database_id(target.database.clone());
    let connected = match (&target.emulator, &target.credentials_file) {
        (Some(host), _) => {
            let options = options.with_firebase_api_url(format!("http://{host}"));
            FirestoreDb::with_options_auth(options, Credentials::from(Owner(EntityTag::new()))).await
        }
        (None, Some(file)) => {
            match crate::files::read_input_text(file, crate::files::SMALL) {
                // The library reads the file again; its secrets must be registered for masking before any response.
                Ok(key) => secrets::register_addresses(&key),
                Err(error) => return Err(error::no_credentials(target, &error.to_string())),
            }
            FirestoreDb::with_options_service_account_key_file(options, file.clone()).await
        }
        (None, None) => FirestoreDb::with_options(options).await,
    };
    connected.map_err(|error| error::of_connecting(target, &error))
}

/// Credentials that emulators accept as the owner: security rules do not apply, as for the platform's own services.
#[derive(Debug)]
struct Owner(EntityTag);

impl CredentialsProvider for Owner {
    async fn headers(&self, known: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        if known.get::<EntityTag>() == Some(&self.0) {
            return Ok(CacheableResource::NotModified);
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer owner"));
        Ok(CacheableResource::New {
            entity_tag: self.0.clone(),
            data: headers,
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}
