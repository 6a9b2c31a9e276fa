//! The bus over NATS JetStream.
//!
//! Streams belong to the platform: they are looked up by subject and never created or changed. Ours is one durable
//! pull consumer per subscription. A publish whose acknowledgement did not come in time may still arrive, because the client
//! buffers while it reconnects; the message id makes the repetition harmless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{MessagesErrorKind, OrderedConfig};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull};
use async_nats::jetstream::context::{
    ContextBuilder, GetStreamByNameErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, ConnectOptions, HeaderMap};
use async_trait::async_trait;
use futures_util::{StreamExt, future};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::leaving::Leaving;
use super::{
    Accepted, BusError, BusReport, Deliveries, Delivery, EventBus, Filter, Finding, Level, Message, Messages,
    Names, Outgoing, Receipt, Settlement, Start, Subscription, in_background,
};
use crate::core::time::Timestamp;

/// How long one request to the server may take, and how long an acknowledgement of a publish.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a whole batch of publishes may take. Well within the stream's usual duplicate window of two minutes.
const BATCH: Duration = Duration::from_secs(20);
/// The header that JetStream recognises repeated messages by.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Servers, comma-separated; an address may hold a user and a password.
    pub servers: SecretString,
    /// What the deployment puts in front of every topic; ends in a dot.
    pub prefix: String,
    /// How long a delivered message may stay unsettled before it is delivered again (`NATS_ACK_WAIT_SECONDS`).
    pub ack_wait: Duration,
}

impl NatsOptions {
    /// Takes the servers and the prefix, and the platform's default for the rest.
    pub fn new(servers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            servers: SecretString::from(servers.into()),
            prefix: prefix.into(),
            ack_wait: Duration::from_mins(1),
        }
    }
}

/// A bus over NATS JetStream. Cheap to clone.
#[derive(Clone)]
pub struct NatsBus {
    client: Client,
    jetstream: Context,
    names: Names,
    location: Arc<str>,
    ack_wait: Duration,
    leaving: Leaving,
}

impl NatsBus {
    /// Starts to connect and returns at once: a server that is away now is connected to when it is back. Fails only when
    /// the address or its credentials cannot be used.
    pub async fn connect(options: &NatsOptions) -> Result<Self, BusError> {
        let servers = options.servers.expose_secret();
        let location: Arc<str> = without_passwords(servers).into();
        let refused = |reason: String| BusError::Refused {
            location: location.to_string(),
            reason,
        };
        let addresses = servers
            .split(',')
            .map(|server| server.trim().parse::<async_nats::ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refused("one of its addresses cannot be read".to_owned()))?;
        let place = location.clone();
        let client = ConnectOptions::new()
            .name("bitbrat")
            .retry_on_initial_connect()
            .connection_timeout(ANSWER)
            .client_capacity(4096)
            .reconnect_delay_callback(|attempt| {
                let doublings = u32::try_from(attempt.min(6)).unwrap_or(6);
                Duration::from_millis(50 << doublings).min(Duration::from_secs(2))
            })
            .event_callback(move |event| {
                let place = place.clone();
                async move {
                    match event {
                        async_nats::Event::Connected => info!(bus = %place, "Connected to the bus"),
                        async_nats::Event::Disconnected => {
                            warn!(bus = %place, "Lost the bus; connecting again");
                        }
                        other => debug!(bus = %place, event = %other, "The bus's client tells"),
                    }
                }
            })
            .connect(addresses)
            .await
            .map_err(|error| refused(error.kind().to_string()))?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            names: Names::with_prefix(options.prefix.clone()),
            location,
            ack_wait: options.ack_wait,
            leaving: Leaving::default(),
        })
    }

    /// Whether a server answers. The very first connection takes a moment.
    async fn is_connected(&self) -> bool {
        let state = || self.client.connection_state();
        let connected = async {
            while state() != async_nats::connection::State::Connected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(ANSWER, connected).await.is_ok()
    }

    fn unavailable(&self, reason: impl std::fmt::Display) -> BusError {
        BusError::Unavailable {
            location: self.location.to_string(),
            reason: reason.to_string(),
        }
    }

    fn publish_error(&self, error: &PublishError, topic: &str, size: usize) -> BusError {
        match error.kind() {
            PublishErrorKind::StreamNotFound => BusError::NoTopic {
                location: self.location.to_string(),
                topic: self.names.full(topic),
            },
            PublishErrorKind::MaxPayloadExceeded => BusError::TooLarge { size },
            _ => self.unavailable(error),
        }
    }

    async fn stream_for(&self, filter: &Filter) -> Result<stream::Stream, BusError> {
        let subject = self.names.subject(filter);
        let name = self.jetstream.stream_by_subject(subject.clone()).await;
        let name = name.map_err(|error| match error.kind() {
            GetStreamByNameErrorKind::NotFound => BusError::NoTopic {
                location: self.location.to_string(),
                topic: subject,
            },
            _ => self.unavailable(error),
        })?;
        let found = self.jetstream.get_stream(&name).await;
        found.map_err(|error| self.unavailable(error))
    }

    fn consumer_config(&self, to: &Subscription) -> pull::Config {
        pull::Config {
            durable_name: Some(self.names.durable(&to.filter, &to.queue)),
            description: Some("bitbrat".to_owned()),
            deliver_policy: deliver(to.from),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: 1000,
            filter_subject: self.names.subject(&to.filter),
            replay_policy: ReplayPolicy::Instant,
            ..pull::Config::default()
        }
    }

    async fn consumer(&self, to: &Subscription) -> Result<PullConsumer, BusError> {
        let stream = self.stream_for(&to.filter).await?;
        let config = self.consumer_config(to);
        let name = config.durable_name.clone().unwrap_or_default();
        let made = stream.get_or_create_consumer(&name, config).await;
        made.map_err(|error| {
            let text = error.to_string();
            // A server that answers refuses; everything else is its absence.
            if text.contains("timed out") || text.contains("request failed") {
                self.unavailable(text)
            } else {
                BusError::Refused {
                    location: self.location.to_string(),
                    reason: format!("consumer `{name}`: {text}"),
                }
            }
        })
    }
}

fn deliver(from: Start) -> DeliverPolicy {
    match from {
        Start::Now => DeliverPolicy::New,
        Start::Since(since) => {
            let nanos = i128::from(since.as_millis()) * 1_000_000;
            async_nats::datetime::from_nanos(nanos).map_or(DeliverPolicy::All, |start_time| {
                DeliverPolicy::ByStartTime { start_time }
            })
        }
    }
}

#[async_trait]
impl EventBus for NatsBus {
    fn location(&self) -> String {
        self.location.to_string()
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>> {
        let count = messages.len();
        let whole = async {
            let mut underway = Vec::with_capacity(count);
            for message in messages {
                let size = message.data.len();
                let mut prepared = PublishMessage::build()
                    .payload(message.data)
                    .message_id(&message.id);
                for (name, value) in &message.attributes {
                    prepared = prepared.header(name.as_str(), value.as_str());
                }
                let sent = self
                    .jetstream
                    .send_publish(self.names.full(&message.topic), prepared)
                    .await;
                underway.push((sent, message.topic, size));
            }
            future::join_all(underway.into_iter().map(|(sent, topic, size)| async move {
                let acked = match sent {
                    Ok(ack) => ack.await,
                    Err(error) => Err(error),
                };
                acked
                    .map(|ack| Accepted {
                        duplicate: ack.duplicate,
                    })
                    .map_err(|error| self.publish_error(&error, &topic, size))
            }))
            .await
        };
        // The client's buffer blocks when it is full during an outage.
        match timeout(BATCH, whole).await {
            Ok(results) => results,
            Err(_) => (0..count)
                .map(|_| Err(self.unavailable("it did not take the messages in time")))
                .collect(),
        }
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError> {
        let consumer = self.consumer(to).await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(to.in_flight.clamp(1, 1000))
            .expires(Duration::from_secs(30))
            .heartbeat(Duration::from_secs(5))
            .messages()
            .await
            .map_err(|error| self.unavailable(error))?;
        let bus = self.clone();
        let deliveries = messages.filter_map(move |next| {
            let bus = bus.clone();
            async move {
                match next {
                    Ok(received) => Some(Ok(bus.delivery(received))),
                    // The client carries on by itself when the server is back.
                    Err(error) if matches!(error.kind(), MessagesErrorKind::MissingHeartbeat) => {
                        warn!(bus = %bus.location, "The bus has not been heard of for a while");
                        None
                    }
                    Err(error) => Some(Err(bus.unavailable(error))),
                }
            }
        });
        // What is given back travels on the connection, which `close` flushes.
        Ok(self.leaving.in_order(deliveries.boxed(), withdraw(consumer)))
    }

    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError> {
        let stream = self.stream_for(filter).await?;
        let config = OrderedConfig {
            description: Some("bitbrat events tail".to_owned()),
            filter_subject: self.names.subject(filter),
            deliver_policy: deliver(since.map_or(Start::Now, Start::Since)),
            ..OrderedConfig::default()
        };
        let consumer = stream
            .create_consumer(config)
            .await
            .map_err(|error| self.unavailable(error))?;
        let messages = consumer
            .messages()
            .await
            .map_err(|error| self.unavailable(error))?;
        let bus = self.clone();
        let messages = messages.map(move |next| match next {
            Ok(received) => Ok(bus.message(&received)),
            Err(error) => Err(bus.unavailable(error)),
        });
        Ok(messages.boxed())
    }

    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError> {
        if !self.is_connected().await {
            return Err(self.unavailable("no server answers"));
        }
        let asked = Instant::now();
        let mut stream = self.stream_for(&to.filter).await?;
        // Two requests: which stream, and its state.
        let round_trip = asked.elapsed() / 2;
        let info = stream.info().await.map_err(|error| self.unavailable(error))?;
        let mut findings = Self::look_at(&info.config);
        let durable = self.names.durable(&to.filter, &to.queue);
        let consumer: Result<PullConsumer, _> = stream.get_consumer(&durable).await;
        let (mut waiting, mut unsettled) = (None, None);
        if let Ok(mut consumer) = consumer {
            let info = consumer.info().await.map_err(|error| self.unavailable(error))?;
            let detail = format!("consumer `{durable}` has {} messages to read", info.num_pending);
            findings.push(if info.num_pending > 10_000 {
                Finding::bad(
                    Level::Odd,
                    "subscription",
                    detail,
                    "start more processes with `watch --role persist`",
                )
            } else {
                Finding::fine("subscription", detail)
            });
            (waiting, unsettled) = (Some(info.num_pending), Some(info.num_ack_pending as u64));
        } else {
            let detail = format!("consumer `{durable}` does not exist yet");
            let hint = "it is made when `watch` with the role `persist` first runs";
            findings.push(Finding::bad(Level::Odd, "subscription", detail, hint));
        }
        Ok(BusReport {
            location: self.location.to_string(),
            round_trip,
            waiting,
            unsettled,
            findings,
        })
    }

    async fn close(&self) {
        // Drained means sent and unsubscribed; a server that is away is not waited for.
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return;
        }
        self.leaving.wait().await;
        let _ = timeout(ANSWER, async {
            let _ = self.client.flush().await;
            let _ = self.client.drain().await;
        })
        .await;
    }
}

impl NatsBus {
    fn look_at(config: &stream::Config) -> Vec<Finding> {
        let mut findings = vec![Finding::fine(
            "stream",
            format!(
                "stream `{}` listens on {}",
                config.name,
                config.subjects.join(", ")
            ),
        )];
        if config.duplicate_window < Duration::from_mins(1) {
            findings.push(Finding::bad(
                Level::Odd,
                "duplicates",
                format!(
                    "stream `{}` recognises repeated messages for {:?} only",
                    config.name, config.duplicate_window
                ),
                "let its duplicate window be two minutes, the server's default",
            ));
        }
        let unlimited = config.max_age.is_zero() && config.max_bytes <= 0 && config.max_messages <= 0;
        if unlimited && config.retention == stream::RetentionPolicy::Limits {
            findings.push(Finding::bad(
                Level::Odd,
                "retention",
                format!(
                    "stream `{}` keeps every message for ever and will fill the disk",
                    config.name
                ),
                "give it a maximum age; the platform's own tool uses 24 h",
            ));
        }
        findings
    }

    fn delivery(&self, received: jetstream::Message) -> Delivery {
        let message = self.message(&received);
        let (_, acker) = received.split();
        Delivery::new(message, Box::new(NatsReceipt { acker: Some(acker) }))
    }

    fn message(&self, received: &jetstream::Message) -> Message {
        let info = received.info().ok();
        Message {
            topic: self.names.bare(received.subject.as_str()).to_owned(),
            transport_id: info
                .as_ref()
                .map_or_else(String::new, |info| info.stream_sequence.to_string()),
            attributes: received.headers.as_ref().map(attributes).unwrap_or_default(),
            data: received.payload.clone(),
            published_at: info.as_ref().and_then(|info| {
                let millis = info.published.unix_timestamp_nanos().div_euclid(1_000_000);
                i64::try_from(millis).ok().map(Timestamp::from_millis)
            }),
            deliveries: info.map_or(1, |info| u32::try_from(info.delivered).unwrap_or(1)),
        }
    }
}

fn attributes(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .filter_map(|(name, values)| {
            let name = name.to_string();
            let value = values.last().filter(|_| !name.eq_ignore_ascii_case(MESSAGE_ID))?;
            Some((name.to_ascii_lowercase(), value.as_str().to_owned()))
        })
        .collect()
}

struct NatsReceipt {
    acker: Option<jetstream::message::Acker>,
}

#[async_trait]
impl Receipt for NatsReceipt {
    async fn settle(mut self: Box<Self>, how: Settlement) {
        let kind = match how {
            Settlement::Done => AckKind::Ack,
            // Only without a delay does the server give it to the next reader by itself; else it looks when a timer says so.
            Settlement::Again(delay) => AckKind::Nak((!delay.is_zero()).then_some(delay)),
            Settlement::Never => AckKind::Term,
        };
        if let Some(acker) = self.acker.take() {
            answer(&acker, kind).await;
        }
    }
}

impl Drop for NatsReceipt {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            in_background(async move { answer(&acker, AckKind::Nak(None)).await });
        }
    }
}

/// Lets the server forget the requests of a reader that has left: asked about the consumer, it drops those that nobody waits
/// for. Server 2.9 else tries to serve one of them with the first message that is given back, and that message comes back
/// only after the ack wait.
async fn withdraw(consumer: PullConsumer) {
    let known = timeout(ANSWER, consumer.get_info()).await;
    debug!(known = matches!(known, Ok(Ok(_))), "Left a subscription");
}

/// Lost, the message is delivered again after the ack wait, and joining it again changes nothing.
async fn answer(acker: &jetstream::message::Acker, kind: AckKind) {
    match timeout(ANSWER, acker.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %error, "An acknowledgement could not be sent"),
        Err(_) => debug!("An acknowledgement could not be sent in time"),
    }
}

/// The servers, for people.
fn without_passwords(servers: &str) -> String {
    let shown = servers.split(',').map(|server| {
        let server = server.trim();
        let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(
            without_passwords("nats://rat:hush@one:4222, two:4222"),
            "nats://one:4222,nats://two:4222"
        );
    }
}
