//! The bus adapter for NATS JetStream.
//!
//! Streams belong to BitBrat: they are found by subject and never created or changed. We own one durable pull consumer
//! per subscription. A publish whose acknowledgement timed out may still arrive, because the client buffers while it
//! reconnects; the message id makes the retry harmless.

mod connection_state;
mod login;
mod tail;
mod unparsable_headers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::MessagesErrorKind;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull};
use async_nats::jetstream::context::{
    ContextBuilder, GetStreamByNameErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderMap};
use async_trait::async_trait;
use futures_util::future;
use futures_util::stream::{self, StreamExt, select as stream_select};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::closing::Leaving;
use super::{
    Accepted, BusError, BusReport, Deliveries, Delivery, EventBus, Filter, Message, Messages, Names,
    Outgoing, Receipt, Settlement, Start, Subscription, in_background,
};
use crate::core::finding::{Finding, Level};
use crate::core::number::count;
use crate::core::time::Timestamp;
use crate::{secrets, tls};
use connection_state::{Connection, Outage, explained};
use tail::Tail;

pub use login::{NatsLogin, nkey_file};

/// Timeout of one request to the server, and of the acknowledgement of a publish.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a whole batch of publishes. Well within the stream's usual duplicate window of two minutes.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);
/// The header by which JetStream detects duplicates.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Connection settings.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Servers, comma-separated; an address may contain a user and a password (percent-encoded), or a token.
    pub servers: SecretString,
    /// Credentials; these take precedence over those in the addresses.
    pub login: NatsLogin,
    /// The deployment's prefix of every topic; ends in a dot.
    pub prefix: String,
    /// How long a delivered message may remain unsettled before it is redelivered (`NATS_ACK_WAIT_SECONDS`).
    pub ack_wait: Duration,
}

impl NatsOptions {
    /// Creates the settings from servers and prefix, with BitBrat's defaults for the rest.
    pub fn new(servers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            servers: SecretString::from(servers.into()),
            login: NatsLogin::default(),
            prefix: prefix.into(),
            ack_wait: Duration::from_mins(1),
        }
    }
}

/// A bus on NATS JetStream. Cheap to clone.
#[derive(Clone)]
pub struct NatsBus {
    client: Client,
    jetstream: Context,
    names: Names,
    location: Arc<str>,
    ack_wait: Duration,
    leaving: Leaving,
    /// Number of reconnects.
    reconnects: Arc<watch::Sender<u64>>,
    connection_state: Connection,
}

impl NatsBus {
    /// Starts to connect and returns immediately: an unreachable server is connected to when it is available. Fails only if
    /// the address or its credentials are invalid.
    pub async fn connect(options: &NatsOptions) -> Result<Self, BusError> {
        let servers = options.servers.expose_secret();
        let location: Arc<str> = without_passwords(servers).into();
        let refused = |reason: String| BusError::Refused {
            location: location.to_string(),
            reason,
        };
        let (addresses, in_address) = login::addresses(servers).map_err(refused)?;
        let reconnects: Arc<watch::Sender<u64>> = Arc::new(watch::Sender::new(0));
        let counted = Arc::clone(&reconnects);
        let connection_state = Connection::new(Arc::clone(&location));
        let (attempts, events) = (connection_state.clone(), connection_state.clone());
        let client = ConnectOptions::new()
            .name("bitbrat")
            .retry_on_initial_connect()
            .connection_timeout(REQUEST_TIMEOUT)
            .client_capacity(4096)
            // A silently lost server is detected after three of these.
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempt| {
                let doublings = u32::try_from(attempt.min(6)).unwrap_or(6);
                Duration::from_millis(50 << doublings).min(Duration::from_secs(2))
            })
            // Called before each attempt with the results of the previous ones; the choice is left to the client.
            .reconnect_to_server_callback(move |servers, _| {
                attempts.attempted(servers.iter().filter_map(|server| server.last_error.as_deref()));
                async { None }
            })
            .event_callback(move |event| {
                events.happened(&event);
                if matches!(event, async_nats::Event::Connected) {
                    counted.send_modify(|count| *count += 1);
                }
                async {}
            });
        let login = options.login.clone().or(in_address);
        if login.ca_file.is_none() && tls::has_special_file() {
            return Err(refused(tls::without_roots()));
        }
        let client = login.apply(client).await.map_err(refused)?;
        let connecting = client.connect(addresses).await;
        let client = connecting.map_err(|error| refused(explained(&error.to_string())))?;
        let jetstream = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            names: Names::with_prefix(options.prefix.clone()),
            location,
            ack_wait: options.ack_wait,
            leaving: Leaving::default(),
            reconnects,
            connection_state,
        })
    }

    /// Waits for the initial connection. Does not wait for a server that rejects the login.
    async fn connected(&self) -> Result<(), BusError> {
        let state = || self.client.connection_state();
        let connected = async {
            while state() != async_nats::connection::State::Connected {
                if matches!(self.connection_state.outage(), Some(Outage::Refused(_))) {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            true
        };
        match timeout(REQUEST_TIMEOUT, connected).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(self.unavailable("no server answers")),
        }
    }

    /// Returns the reason for a failure: the state of the connection is more specific than a request timeout.
    fn unavailable(&self, reason: impl std::fmt::Display) -> BusError {
        let location = self.location.to_string();
        match self.connection_state.outage() {
            Some(Outage::Refused(reason)) => BusError::Refused { location, reason },
            Some(Outage::Failed(reason)) => BusError::Unavailable { location, reason },
            None => BusError::Unavailable {
                location,
                reason: secrets::quote(&reason.to_string()),
            },
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

    async fn stream_for(&self, filter: &Filter) -> Result<jetstream::stream::Stream, BusError> {
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
            // Any other error is a rejection by a server that responded.
            if text.contains("timed out") || text.contains("request failed") {
                self.unavailable(text)
            } else {
                BusError::Refused {
                    location: self.location.to_string(),
                    reason: secrets::quote(&format!("consumer `{name}`: {text}")),
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
        match timeout(BATCH_TIMEOUT, whole).await {
            Ok(results) => results,
            Err(_) => (0..count)
                .map(|_| Err(self.unavailable("publish timed out")))
                .collect(),
        }
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError> {
        self.connected().await?;
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
                    // The client recovers by itself when the server is available again.
                    Err(error) if matches!(error.kind(), MessagesErrorKind::MissingHeartbeat) => {
                        warn!(bus = %bus.location, "No message from the bus for a while");
                        None
                    }
                    Err(error) => Some(Err(bus.unavailable(error))),
                }
            }
        });
        // Returned messages use the connection, which `close` flushes.
        let unreadable = self.unreadable(consumer.clone());
        // The combined stream ends with the client's own stream.
        let all = stream_select(
            deliveries.map(Some).chain(stream::iter([None])),
            unreadable.map(Some),
        )
        .scan((), |(), next| future::ready(next));
        Ok(self.leaving.in_order(all.boxed(), withdraw(consumer)))
    }

    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError> {
        self.connected().await?;
        let stream = self.stream_for(filter).await?;
        let tail = Tail {
            bus: self.clone(),
            subject: self.names.subject(filter),
            reconnects: self.reconnects.subscribe(),
            stream,
        };
        let from = deliver(since.map_or(Start::Now, Start::Since));
        let (messages, last) = tail.open(from).await?;
        Ok(stream::unfold((tail, messages, last), Tail::next).boxed())
    }

    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError> {
        self.connected().await?;
        let asked = Instant::now();
        let mut stream = self.stream_for(&to.filter).await?;
        // Two requests: the name of the stream, and its state.
        let round_trip = asked.elapsed() / 2;
        let info = stream.info().await.map_err(|error| self.unavailable(error))?;
        let mut findings = Self::inspect_stream_config(&info.config);
        let durable = self.names.durable(&to.filter, &to.queue);
        let consumer: Result<PullConsumer, _> = stream.get_consumer(&durable).await;
        let (mut waiting, mut unsettled) = (None, None);
        if let Ok(mut consumer) = consumer {
            let info = consumer.info().await.map_err(|error| self.unavailable(error))?;
            let detail = format!(
                "consumer `{durable}` has {} to read",
                count(info.num_pending, "message")
            );
            findings.push(if info.num_pending > 10_000 {
                Finding::new("subscription", Level::Warn, detail)
                    .next("start more processes with `watch --role persist`")
            } else {
                Finding::new("subscription", Level::Ok, detail)
            });
            (waiting, unsettled) = (Some(info.num_pending), Some(info.num_ack_pending as u64));
        } else {
            let detail = format!("consumer `{durable}` does not exist yet");
            let hint = "it is created when `watch` with the role `persist` first runs";
            findings.push(Finding::new("subscription", Level::Warn, detail).next(hint));
        }
        Ok(BusReport {
            location: self.location.to_string(),
            round_trip,
            waiting,
            unsettled,
            findings,
        })
    }

    fn interruption(&self) -> Option<String> {
        let connected = self.client.connection_state() == async_nats::connection::State::Connected;
        (!connected).then(|| format!("no connection to {}; connecting again", self.location))
    }

    async fn close(&self) {
        // Drained means sent and unsubscribed; an unreachable server is not waited for.
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return;
        }
        self.leaving.wait().await;
        let _ = timeout(REQUEST_TIMEOUT, async {
            let _ = self.client.flush().await;
            let _ = self.client.drain().await;
        })
        .await;
    }
}

impl NatsBus {
    fn inspect_stream_config(config: &jetstream::stream::Config) -> Vec<Finding> {
        let mut findings = vec![Finding::new(
            "stream",
            Level::Ok,
            format!("stream `{}` covers {}", config.name, config.subjects.join(", ")),
        )];
        if config.duplicate_window < Duration::from_mins(1) {
            let detail = format!(
                "stream `{}` recognizes repeated messages for {:?} only",
                config.name, config.duplicate_window
            );
            let next = "let its duplicate window be two minutes, the server's default";
            findings.push(Finding::new("duplicates", Level::Warn, detail).next(next));
        }
        let unlimited = config.max_age.is_zero() && config.max_bytes <= 0 && config.max_messages <= 0;
        if unlimited && config.retention == jetstream::stream::RetentionPolicy::Limits {
            let detail = format!(
                "stream `{}` has no retention limit and will fill the disk",
                config.name
            );
            let next = "give it a maximum age; BitBrat's own tool uses 24 h";
            findings.push(Finding::new("retention", Level::Warn, detail).next(next));
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
            unreadable: None,
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
            // Only without a delay does the server deliver it to the next reader immediately; otherwise it waits for a timer.
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

/// Makes the server discard the requests of a reader that has closed: on a request for the consumer's state, it drops those
/// without an interested client. Otherwise server 2.9 tries to serve one of them with the first returned message, and that
/// message is redelivered only after the ack wait.
async fn withdraw(consumer: PullConsumer) {
    let known = timeout(REQUEST_TIMEOUT, consumer.get_info()).await;
    debug!(known = matches!(known, Ok(Ok(_))), "Left a subscription");
}

/// If the acknowledgement is lost, the message is redelivered after the ack wait, and merging it again changes nothing.
async fn answer(acker: &jetstream::message::Acker, kind: AckKind) {
    match timeout(REQUEST_TIMEOUT, acker.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %error, "An acknowledgement could not be sent"),
        Err(_) => debug!("An acknowledgement could not be sent in time"),
    }
}

/// Formats the servers for people, without passwords.
fn without_passwords(servers: &str) -> String {
    let hidden = secrets::without_credentials(servers);
    let shown = hidden.split(',').map(|server| {
        let server = server.trim();
        let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
        let host = rest
            .trim_start_matches('/')
            .rsplit_once('@')
            .map_or(rest, |(_, host)| host);
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
        assert_eq!(without_passwords("//rat:h,u@sh@one:4222"), "nats://one:4222");
    }
}
