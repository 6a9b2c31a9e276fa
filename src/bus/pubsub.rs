//! The bus adapter for Google Pub/Sub.
//!
//! Topics belong to BitBrat and are created only in an emulator, which loses them on every restart. Subscriptions are
//! ours and are created if missing. Ordering keys are not used: BitBrat's own publishers send none, and merging evidence needs
//! no order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future;
use futures_util::stream::{self, StreamExt};
use google_cloud_auth::credentials::{Credentials, anonymous};
use google_cloud_pubsub::client::{BasePublisher, Publisher, Subscriber, SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model::Message as PubsubMessage;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_pubsub::subscriber::{ShutdownBehavior, ShutdownToken};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::closing::Leaving;
use super::{
    Accepted, BusError, BusReport, Deliveries, Delivery, EventBus, Filter, Message, Messages, Names,
    Outgoing, Receipt, Settlement, Subscription, in_background,
};
use crate::core::finding::{Finding, Level};
use crate::core::time::Timestamp;
use crate::secrets;

/// Timeout of one request. The client itself has none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a publish, including batching.
const PUBLISH: Duration = Duration::from_secs(15);
/// Ack deadline of the subscription. The client extends it while a message is held, so this is how long the messages of a
/// crashed process are unavailable.
const ACK_DEADLINE: Duration = Duration::from_secs(20);
/// Maximum message size of the service.
const MAX_MESSAGE: usize = 10_000_000;
/// Interval for discovering new topics of a filter with several topics.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// Connection settings.
#[derive(Debug, Clone, Default)]
pub struct PubsubOptions {
    /// Google Cloud project id.
    pub project: String,
    /// The deployment's prefix of every topic.
    pub prefix: String,
    /// `HOST:PORT` of an emulator; then no credentials are used.
    pub emulator: Option<String>,
    /// A service account's key as JSON; else application default credentials.
    pub key: Option<secrecy::SecretString>,
}

/// A bus on Pub/Sub. Cheap to clone.
#[derive(Clone)]
pub struct PubsubBus {
    shared: Arc<Shared>,
}

struct Shared {
    project: String,
    names: Names,
    emulator: bool,
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
    subscriber: Subscriber,
    base: BasePublisher,
    publishers: Mutex<BTreeMap<String, Publisher>>,
    leaving: Leaving,
}

impl PubsubBus {
    /// Creates the clients. They connect lazily, so a service that is currently unavailable is used when it recovers.
    pub async fn connect(options: &PubsubOptions) -> Result<Self, BusError> {
        let location = format!("pubsub:{}", options.project);
        let refused = |reason: String| BusError::Refused {
            location: location.clone(),
            reason,
        };
        let endpoint = options.emulator.as_ref().map(|host| format!("http://{host}"));
        let credentials = credentials(options).map_err(refused)?;
        macro_rules! client {
            ($builder:expr) => {{
                let mut builder = $builder;
                if let Some(endpoint) = &endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                if let Some(credentials) = &credentials {
                    builder = builder.with_credentials(credentials.clone());
                }
                builder
                    .build()
                    .await
                    .map_err(|error| refused(error.to_string()))?
            }};
        }
        let shared = Shared {
            project: options.project.clone(),
            names: Names::with_prefix(options.prefix.clone()),
            emulator: options.emulator.is_some(),
            topics: client!(TopicAdmin::builder()),
            subscriptions: client!(SubscriptionAdmin::builder()),
            subscriber: client!(Subscriber::builder()),
            base: client!(BasePublisher::builder()),
            publishers: Mutex::default(),
            leaving: Leaving::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

fn credentials(options: &PubsubOptions) -> Result<Option<Credentials>, String> {
    use secrecy::ExposeSecret;
    if options.emulator.is_some() {
        return Ok(Some(anonymous::Builder::new().build()));
    }
    let Some(key) = &options.key else {
        return Ok(None);
    };
    secrets::register_addresses(key.expose_secret());
    // The parser's own message may quote the key.
    let key = serde_json::from_str(key.expose_secret())
        .map_err(|_| "the service account's key is not JSON".to_owned())?;
    let built = google_cloud_auth::credentials::service_account::Builder::new(key).build();
    built
        .map(Some)
        .map_err(|_| "the service account's key cannot be used".to_owned())
}

impl Shared {
    fn location(&self) -> String {
        format!("pubsub:{}", self.project)
    }

    fn topic_path(&self, topic: &str) -> String {
        format!("projects/{}/topics/{}", self.project, self.names.full(topic))
    }

    fn unavailable(&self, reason: impl Into<String>) -> BusError {
        BusError::Unavailable {
            location: self.location(),
            reason: secrets::quote(&reason.into()),
        }
    }

    fn error(&self, error: &google_cloud_pubsub::Error, topic: &str) -> BusError {
        let location = self.location();
        match (code(error), error.http_status_code()) {
            (Some("NOT_FOUND"), _) | (None, Some(404)) => BusError::NoTopic {
                location,
                topic: self.names.full(topic),
            },
            (
                Some(
                    code @ ("PERMISSION_DENIED"
                    | "UNAUTHENTICATED"
                    | "INVALID_ARGUMENT"
                    | "FAILED_PRECONDITION"),
                ),
                _,
            ) => {
                let text = error
                    .status()
                    .map_or_else(String::new, |status| status.message.clone());
                BusError::Refused {
                    location,
                    reason: secrets::quote(&format!("{code}: {text}")),
                }
            }
            _ if error.is_authentication() => BusError::Refused {
                location,
                reason: "no usable credentials".to_owned(),
            },
            (Some(code), _) => self.unavailable(code),
            (None, _) => self.unavailable("no answer"),
        }
    }

    /// Runs one request with a timeout.
    async fn ask<T>(
        &self,
        topic: &str,
        request: impl Future<Output = Result<T, google_cloud_pubsub::Error>>,
    ) -> Result<T, BusError> {
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.error(&error, topic)),
            Err(_) => Err(self.unavailable("no answer in time")),
        }
    }

    fn publisher(&self, topic: &str) -> Publisher {
        let mut publishers = self.publishers.lock();
        let known = publishers.entry(topic.to_owned()).or_insert_with(|| {
            let new = self.base.publisher(self.topic_path(topic));
            new.set_message_count_threshold(100)
                .set_delay_threshold(Duration::from_millis(2))
                .build()
        });
        known.clone()
    }

    async fn publish_once(&self, message: &Outgoing) -> Result<Accepted, BusError> {
        let attributes: usize = message
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let size = message.data.len() + attributes;
        if size > MAX_MESSAGE {
            return Err(BusError::TooLarge { size });
        }
        let prepared = PubsubMessage::new()
            .set_data(message.data.clone())
            .set_attributes(message.attributes.clone());
        match timeout(PUBLISH, self.publisher(&message.topic).publish(prepared)).await {
            Ok(Ok(_)) => Ok(Accepted::default()),
            Ok(Err(PublishError::Rpc(error))) => Err(self.error(&error, &message.topic)),
            Ok(Err(error)) => Err(self.unavailable(error.to_string())),
            Err(_) => Err(self.unavailable("no answer in time")),
        }
    }

    async fn publish(&self, message: &Outgoing) -> Result<Accepted, BusError> {
        match self.publish_once(message).await {
            Err(BusError::NoTopic { .. }) if self.create_topic(&message.topic).await => {
                self.publish_once(message).await
            }
            result => result,
        }
    }

    /// Creates a topic, only in an emulator. Returns whether the topic exists now.
    async fn create_topic(&self, topic: &str) -> bool {
        if !self.emulator {
            return false;
        }
        let request = self.topics.create_topic().set_name(self.topic_path(topic)).send();
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(_)) => {
                info!(topic = %self.names.full(topic), "Created a topic in the emulator");
                true
            }
            Ok(Err(error)) => already_exists(&error),
            Err(_) => false,
        }
    }

    /// Ensures that our subscription to one topic exists, and returns its path.
    async fn subscription(&self, topic: &str, name: &str, short_lived: bool) -> Result<String, BusError> {
        let path = format!("projects/{}/subscriptions/{name}", self.project);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut request = self
                .subscriptions
                .create_subscription()
                .set_name(&path)
                .set_topic(self.topic_path(topic))
                .set_ack_deadline_seconds(i32::try_from(ACK_DEADLINE.as_secs()).unwrap_or(20));
            if short_lived {
                request = request.set_labels([("made-by", "bitbrat"), ("for", "tail")]);
            }
            match timeout(REQUEST_TIMEOUT, request.send()).await {
                Ok(Ok(_)) => return Ok(path),
                Ok(Err(error)) if already_exists(&error) => return Ok(path),
                Ok(Err(error)) => match self.error(&error, topic) {
                    BusError::NoTopic { .. } if attempts == 1 && self.create_topic(topic).await => {}
                    other => return Err(other),
                },
                Err(_) => return Err(self.unavailable("no answer in time")),
            }
        }
    }

    /// Returns the topics (without prefix) that currently match a filter.
    async fn topics(&self, filter: &Filter) -> Result<Vec<String>, BusError> {
        let root = match filter {
            Filter::Topic(topic) => return Ok(vec![topic.clone()]),
            Filter::Under(root) => root,
        };
        let project = format!("projects/{}", self.project);
        let start = format!("{project}/topics/");
        let (mut found, mut page) = (Vec::new(), String::new());
        loop {
            let request = self
                .topics
                .list_topics()
                .set_project(&project)
                .set_page_token(&page)
                .send();
            let answer = self.ask(root, request).await?;
            let names = answer
                .topics
                .iter()
                .filter_map(|topic| topic.name.strip_prefix(&start));
            let ours = names.filter(|full| full.starts_with(self.names.full("").as_str()));
            found.extend(
                ours.map(|full| self.names.bare(full).to_owned())
                    .filter(|topic| filter.matches(topic)),
            );
            page = answer.next_page_token;
            if page.is_empty() {
                return Ok(found);
            }
        }
    }

    fn message(topic: &str, received: PubsubMessage, attempt: Option<i32>) -> Message {
        Message {
            topic: topic.to_owned(),
            transport_id: received.message_id,
            attributes: received
                .attributes
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            data: received.data,
            published_at: received.publish_time.map(|time| {
                let millis = time.seconds().saturating_mul(1000) + i64::from(time.nanos() / 1_000_000);
                Timestamp::from_millis(millis)
            }),
            deliveries: attempt
                .and_then(|attempt| u32::try_from(attempt).ok())
                .unwrap_or(1),
            unreadable: None,
        }
    }

    /// Reads a subscription; also returns the handle that closes it after sending all acknowledgements.
    fn pull(self: &Arc<Self>, path: String, topic: String, in_flight: usize) -> (Deliveries, ShutdownToken) {
        let limit = i64::try_from(in_flight.max(1)).unwrap_or(1000);
        let pulled = self
            .subscriber
            .subscribe(path)
            .set_max_outstanding_messages(limit)
            .set_max_lease_extension(ACK_DEADLINE)
            // Unsettled messages go to the next reader immediately when reading ends; a second delivery is harmless.
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build();
        let closes = pulled.shutdown_token();
        let shared = self.clone();
        let deliveries = stream::unfold(
            (pulled, shared, topic),
            |(mut pulled, shared, topic)| async move {
                let item = match pulled.next().await? {
                    Ok((message, handler)) => {
                        let message = Self::message(&topic, message, handler.delivery_attempt());
                        Ok(Delivery::new(message, Box::new(PubsubReceipt { handler })))
                    }
                    Err(error) => Err(shared.error(&error, &topic)),
                };
                Some((item, (pulled, shared, topic)))
            },
        );
        (deliveries.boxed(), closes)
    }
}

fn code(error: &google_cloud_pubsub::Error) -> Option<&'static str> {
    error.status().map(|status| status.code.name())
}

fn already_exists(error: &google_cloud_pubsub::Error) -> bool {
    code(error) == Some("ALREADY_EXISTS") || error.http_status_code() == Some(409)
}

#[async_trait]
impl EventBus for PubsubBus {
    fn location(&self) -> String {
        self.shared.location()
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>> {
        // All messages are passed to the client before the first response; it sends them in batches.
        future::join_all(messages.iter().map(|message| self.shared.publish(message))).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError> {
        let topics = self.shared.topics(&to.filter).await?;
        let mut pulled = Vec::new();
        for topic in topics {
            let name = self.shared.names.subscription(&topic, &to.queue);
            let path = self.shared.subscription(&topic, &name, false).await?;
            let (deliveries, closes) = self.shared.pull(path, topic, to.in_flight);
            let closed = async move { closes.shutdown().await };
            pulled.push(self.shared.leaving.in_order(deliveries, closed));
        }
        let all = stream::select_all(pulled).chain(stream::pending());
        Ok(match &to.filter {
            Filter::Topic(_) => all.boxed(),
            // Ends without an error at intervals; the follower subscribes again and includes new topics.
            Filter::Under(_) => all.take_until(sleep(TOPIC_CHECK_INTERVAL)).boxed(),
        })
    }

    async fn tail(&self, filter: &Filter, _since: Option<Timestamp>) -> Result<Messages, BusError> {
        let mut pulled = Vec::new();
        for topic in self.shared.topics(filter).await? {
            let queue = format!("bitbrat-tail-{}", uuid::Uuid::new_v4().simple());
            let name = self.shared.names.subscription(&topic, &queue);
            let path = self.shared.subscription(&topic, &name, true).await?;
            let guard = ShortLived {
                shared: self.shared.clone(),
                path: path.clone(),
            };
            let (deliveries, _) = self.shared.pull(path, topic, 1000);
            let messages = deliveries.then(move |next| {
                let _held = &guard;
                future::ready(next)
            });
            pulled.push(messages.boxed());
        }
        let messages = stream::select_all(pulled).then(|next| async move {
            let delivery = next?;
            let message = delivery.message.clone();
            delivery.ack().await;
            Ok(message)
        });
        Ok(messages.boxed())
    }

    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError> {
        let asked = Instant::now();
        let topics = self.shared.topics(&to.filter).await?;
        let mut findings = Vec::new();
        for topic in topics {
            let request = self
                .shared
                .topics
                .get_topic()
                .set_topic(self.shared.topic_path(&topic))
                .send();
            self.shared.ask(&topic, request).await?;
            findings.push(Finding::new(
                "topic",
                Level::Ok,
                format!("topic `{}` exists", self.shared.names.full(&topic)),
            ));
            let name = self.shared.names.subscription(&topic, &to.queue);
            let path = format!("projects/{}/subscriptions/{name}", self.shared.project);
            let request = self
                .shared
                .subscriptions
                .get_subscription()
                .set_subscription(path)
                .send();
            findings.push(match self.shared.ask(&topic, request).await {
                Ok(_) => Finding::new("subscription", Level::Ok, format!("subscription `{name}` exists")),
                Err(BusError::NoTopic { .. }) => Finding::new(
                    "subscription",
                    Level::Warn,
                    format!("subscription `{name}` does not exist yet"),
                )
                .next("it is created when `watch` with the role `persist` first runs; what is published before is not kept for it"),
                Err(error) => return Err(error),
            });
        }
        Ok(BusReport {
            location: self.location(),
            round_trip: asked.elapsed(),
            waiting: None,
            unsettled: None,
            findings,
        })
    }

    async fn close(&self) {
        let publishers: Vec<_> = {
            let known = self.shared.publishers.lock();
            known.values().cloned().collect()
        };
        let flushes = future::join_all(publishers.iter().map(Publisher::flush));
        let flushed = timeout(Duration::from_secs(3), flushes);
        let _ = future::join(flushed, self.shared.leaving.wait()).await;
    }
}

struct PubsubReceipt {
    handler: Handler,
}

#[async_trait]
impl Receipt for PubsubReceipt {
    async fn settle(self: Box<Self>, how: Settlement) {
        match how {
            // Acknowledging is the only way to remove a message permanently.
            Settlement::Done | Settlement::Never => self.handler.ack(),
            Settlement::Again(delay) if delay.is_zero() => self.handler.nack(),
            // A rejected message is redelivered immediately. It is held for the delay, and the client extends its lease.
            Settlement::Again(delay) => in_background(async move {
                sleep(delay).await;
                self.handler.nack();
            }),
        }
    }
}

/// Deletes a private subscription as soon as it is no longer read.
struct ShortLived {
    shared: Arc<Shared>,
    path: String,
}

impl Drop for ShortLived {
    fn drop(&mut self) {
        let (shared, path) = (self.shared.clone(), std::mem::take(&mut self.path));
        self.shared.leaving.last(async move {
            let request = shared
                .subscriptions
                .delete_subscription()
                .set_subscription(path)
                .send();
            let deleted = timeout(REQUEST_TIMEOUT, request).await;
            debug!(
                deleted = matches!(deleted, Ok(Ok(()))),
                "Deleted the subscription of a tail"
            );
        });
    }
}
