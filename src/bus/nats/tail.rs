//! Reading topics without a durable subscription, for `bitbrat events tail`.

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::NatsBus;
use crate::bus::{BusError, Message};

/// Follows topics with its own consumer, and skips messages that the client cannot parse.
pub(super) struct Tail {
    pub(super) bus: NatsBus,
    pub(super) stream: Stream,
    pub(super) subject: String,
    pub(super) reconnects: watch::Receiver<u64>,
}

impl Tail {
    /// Starts to read. Also returns the sequence number of the last message that is skipped.
    pub(super) async fn open(&self, from: DeliverPolicy) -> Result<(Ordered, u64), BusError> {
        let config = OrderedConfig {
            description: Some("bitbrat events tail".to_owned()),
            filter_subject: self.subject.clone(),
            deliver_policy: from,
            ..OrderedConfig::default()
        };
        let consumer = self.stream.create_consumer(config).await;
        let consumer = consumer.map_err(|error| self.bus.unavailable(error))?;
        let last = consumer.cached_info().delivered.stream_sequence;
        let messages = consumer
            .messages()
            .await
            .map_err(|error| self.bus.unavailable(error))?;
        Ok((messages, last))
    }

    /// Returns the next message, and the state for the one after it.
    pub(super) async fn next(
        (mut tail, mut messages, mut last): (Self, Ordered, u64),
    ) -> Option<(Result<Message, BusError>, (Self, Ordered, u64))> {
        loop {
            let received = tokio::select! {
                next = messages.next() => next?.map_err(|error| tail.bus.unavailable(error)),
                changed = tail.reconnects.changed() => {
                    changed.ok()?;
                    match tail.past_unreadable(last).await {
                        Ok(Some((message, fresh, seq))) => return Some((Ok(message), (tail, fresh, seq))),
                        Ok(None) => continue,
                        Err(error) => Err(error),
                    }
                }
            };
            let message = match received {
                Ok(received) => tail.bus.message(&received),
                Err(error) => return Some((Err(error), (tail, messages, last))),
            };
            last = message.transport_id.parse().unwrap_or(last);
            return Some((Ok(message), (tail, messages, last)));
        }
    }

    /// Checks whether the client cannot parse the message after `last`, and restarts behind it.
    async fn past_unreadable(&self, last: u64) -> Result<Option<(Message, Ordered, u64)>, BusError> {
        let name = self.stream.cached_info().config.name.clone();
        let fetched = self.bus.fetch(&name, &self.subject, last + 1).await;
        let Some(raw) = fetched.map_err(|reason| self.bus.unavailable(reason))? else {
            return Ok(None);
        };
        let Some(why) = raw.fault() else {
            return Ok(None);
        };
        let seq = raw.seq;
        let from = DeliverPolicy::ByStartSequence {
            start_sequence: seq + 1,
        };
        let (messages, _) = self.open(from).await?;
        Ok(Some((raw.into_message(&self.bus, why), messages, seq)))
    }
}
