//! A bus that also publishes mutations for BitBrat's state engine when streams start and end (`bus.state_mutations`).

use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;

use super::{
    Accepted, BusError, BusReport, Deliveries, EventBus, Filter, Messages, Outgoing, Subscription, names,
};
use crate::core::event::mutation;
use crate::core::time::Timestamp;

/// Wraps another bus and publishes the mutations for each event that it accepts.
pub struct StateMutationBus(pub Arc<dyn EventBus>);

#[async_trait]
impl EventBus for StateMutationBus {
    fn location(&self) -> String {
        self.0.location()
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<Accepted, BusError>> {
        let orders: Vec<Vec<Outgoing>> = messages.iter().map(orders).collect();
        let results = self.0.publish_many(messages).await;
        let taken = results.iter().zip(orders).filter(|(result, _)| result.is_ok());
        let orders: Vec<_> = taken.flat_map(|(_, orders)| orders).collect();
        // Mutations are optional: failures are not retried.
        if !orders.is_empty()
            && let Some(Err(error)) = self.0.publish_many(orders).await.into_iter().find(Result::is_err)
        {
            warn!(error = %error, "Cannot send a stream's state to the state engine");
        }
        results
    }

    fn interruption(&self) -> Option<String> {
        self.0.interruption()
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Deliveries, BusError> {
        self.0.subscribe(to).await
    }

    async fn tail(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Messages, BusError> {
        self.0.tail(filter, since).await
    }

    async fn inspect(&self, to: &Subscription) -> Result<BusReport, BusError> {
        self.0.inspect(to).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

fn orders(message: &Outgoing) -> Vec<Outgoing> {
    if message.topic != names::INGRESS {
        return Vec::new();
    }
    mutation::mutations(&message.id, &message.data)
        .into_iter()
        .map(|order| Outgoing {
            topic: names::STATE_MUTATIONS.to_owned(),
            id: order.id,
            attributes: order.attributes,
            data: order.body.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use serde_json::Value;

    use super::*;
    use crate::bus::local::LocalBus;
    use crate::clock::ManualClock;
    use crate::core::document::SourceDocument;
    use crate::core::event::EventBuilder;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{Fact, Observation};
    use crate::core::transition::transitions;

    #[tokio::test]
    async fn duplicate_stream_event_sends_one_state_mutation() {
        let at = Timestamp::from_millis(1_780_000_000_000);
        let before = SourceDocument::new("kick:7".parse().unwrap());
        let mut after = before.clone();
        let start = Fact::StreamPush {
            live: true,
            stream_id: Some("4".into()),
            started_at: Some(at),
        };
        after.join(Knowledge::from(&Observation::new(
            &before.key,
            at,
            "kick.webhook",
            start,
        )));
        let reported = EventBuilder {
            before: &before,
            after: &after,
            by: "kick.webhook",
            observed_at: at,
        };
        let event = reported
            .events(&transitions(&before.verdict, &after.verdict))
            .remove(0);
        let bus = StateMutationBus(Arc::new(LocalBus::new(ManualClock::at(at))));
        // Published twice, as after a lost acknowledgement.
        for _ in 0..2 {
            bus.publish(event.clone().into()).await.unwrap();
        }
        let filter = Filter::Topic(names::STATE_MUTATIONS.into());
        let orders = bus.tail(&filter, Some(Timestamp::EPOCH)).await.unwrap();
        let waited = tokio::time::sleep(Duration::from_millis(20));
        let orders: Vec<_> = orders.take_until(waited).collect().await;
        assert_eq!(orders.len(), 1);
        let order: Value = serde_json::from_slice(&orders[0].as_ref().unwrap().data).unwrap();
        assert_eq!(
            (&order["key"], &order["value"]),
            (&"stream.state".into(), &"on".into())
        );
        assert_eq!(order["metadata"]["source"], "kick:7");
    }
}
