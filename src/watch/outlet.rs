//! Where the outbox empties: onto the bus, or without one straight to the persister.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;

use super::dispatcher::{Outlet, Unsent};
use crate::bus::{BusError, EventBus, Outgoing, Recovery, names};
use crate::core::event::read::{Reading, Side, read};
use crate::core::event::{Event, mutation};
use crate::core::time::Timestamp;
use crate::persist::{Outcome, Persister};

/// Sends events to the bus.
pub struct BusOutlet {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// Whether the platform's state engine is told as well (`bus.state_mutations`).
    pub state_mutations: bool,
}

#[async_trait]
impl Outlet for BusOutlet {
    fn describe(&self) -> String {
        self.bus.location()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>> {
        let outgoing = events.iter().cloned().map(Outgoing::from).collect();
        let results = self.bus.publish_many(outgoing).await;
        if self.state_mutations {
            self.mutate(events, &results).await;
        }
        results
            .into_iter()
            .map(|result| result.map(|_| ()).map_err(|error| unsent(&error)))
            .collect()
    }
}

impl BusOutlet {
    /// Tells the state engine what the bus has just taken. A convenience: what fails here is not tried again.
    async fn mutate(&self, events: &[Event], results: &[Result<crate::bus::Accepted, BusError>]) {
        let taken = events.iter().zip(results).filter(|(_, result)| result.is_ok());
        let orders: Vec<_> = taken
            .flat_map(|(event, _)| mutation::mutations(event))
            .map(|order| Outgoing {
                topic: names::STATE_MUTATIONS.to_owned(),
                id: order.id,
                attributes: order.attributes,
                data: order.body.into(),
            })
            .collect();
        if orders.is_empty() {
            return;
        }
        if let Some(Err(error)) = self
            .bus
            .publish_many(orders)
            .await
            .into_iter()
            .find(Result::is_err)
        {
            warn!(error = %error, "The state engine was not told of a stream");
        }
    }
}

fn unsent(error: &BusError) -> Unsent {
    match error.recovery() {
        // A closed bus is one that this process is leaving; the event is sent after the next start.
        Recovery::GiveUp if !matches!(error, BusError::Closed) => Unsent::Never(error.to_string()),
        _ => Unsent::Later(error.to_string()),
    }
}

/// Hands events to the persister of this process, which reads them as it would read them from a bus.
pub struct PersisterOutlet {
    /// The persister.
    pub persister: Arc<Persister>,
}

#[async_trait]
impl Outlet for PersisterOutlet {
    fn describe(&self) -> String {
        "the store".to_owned()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>> {
        let mut learnt = Vec::new();
        let mut results: Vec<Result<(), Unsent>> = Vec::with_capacity(events.len());
        for event in events {
            // The time only guards against other programs' clocks.
            let reading = read(
                Side::Ingress,
                &event.attributes,
                event.body.as_bytes(),
                Timestamp::from_millis(i64::MAX),
            );
            match reading {
                Reading::Learnt(told) => {
                    learnt.push((told.source, told.knowledge));
                    results.push(Ok(()));
                }
                other => results.push(Err(Unsent::Never(format!("our own event reads as {other:?}")))),
            }
        }
        let applied = self.persister.apply(learnt).await;
        for (event, result) in events.iter().zip(&mut results) {
            let outcome = applied.outcomes.get(&event.source);
            let reason = applied
                .failures
                .iter()
                .find(|(source, _)| *source == event.source);
            let reason = reason.map_or_else(
                || "the store is in trouble".to_owned(),
                |(_, error)| error.to_string(),
            );
            match outcome {
                Some(Outcome::Blocked) if result.is_ok() => *result = Err(Unsent::Never(reason)),
                Some(Outcome::Waiting) | None if result.is_ok() => *result = Err(Unsent::Later(reason)),
                // What is coalesced is in memory until its heartbeat, and in the ledger for longer.
                _ => {}
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::bus::Filter;
    use crate::bus::local::LocalBus;
    use crate::clock::{Chance, ManualClock};
    use crate::core::document::SourceDocument;
    use crate::core::event::Told;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{Fact, Observation};
    use crate::core::transition::transitions;
    use crate::persist::economy::Economy;
    use crate::store::memory::MemoryStore;
    use futures_util::StreamExt;

    fn went_live(id: &str) -> Event {
        let key = id.parse().unwrap();
        let before = SourceDocument::new(key);
        let mut after = before.clone();
        let at = Timestamp::from_millis(1_780_000_000_000);
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
        let told = Told {
            before: &before,
            after: &after,
            by: "kick.webhook",
            observed_at: at,
        };
        told.events(&transitions(&before.verdict, &after.verdict))
            .remove(0)
    }

    #[tokio::test]
    async fn the_state_engine_is_told_only_when_asked_for_and_once() {
        for (state_mutations, expected) in [(false, 0), (true, 1)] {
            let clock = ManualClock::at(Timestamp::from_millis(1_780_000_000_000));
            let bus = Arc::new(LocalBus::new(clock));
            let outlet = BusOutlet {
                bus: bus.clone(),
                state_mutations,
            };
            let events = [went_live("kick:7")];
            // Sent twice, as after an acknowledgement that was lost.
            for _ in 0..2 {
                assert_eq!(outlet.send(&events).await, [Ok(())]);
            }
            let filter = Filter::Topic(names::STATE_MUTATIONS.into());
            let told = bus.tail(&filter, Some(Timestamp::EPOCH)).await.unwrap();
            let told: Vec<_> = told
                .take_until(tokio::time::sleep(Duration::from_millis(20)))
                .collect()
                .await;
            assert_eq!(told.len(), expected);
            if let Some(Ok(order)) = told.first() {
                let order: Value = serde_json::from_slice(&order.data).unwrap();
                assert_eq!(
                    (&order["key"], &order["value"]),
                    (&"stream.state".into(), &"on".into())
                );
                assert_eq!(order["metadata"]["source"], "kick:7");
            }
        }
    }

    #[tokio::test]
    async fn without_a_bus_events_are_stored_as_if_they_had_come_from_one() {
        let store = MemoryStore::default();
        let clock = ManualClock::at(Timestamp::from_millis(1_780_000_000_000));
        let economy = Economy::LOCAL;
        let persister = Arc::new(Persister::new(
            Arc::new(store.clone()),
            clock,
            economy,
            Chance::seeded(1),
        ));
        let outlet = PersisterOutlet { persister };
        assert_eq!(
            outlet.send(&[went_live("kick:7"), went_live("twitch:8")]).await,
            [Ok(()), Ok(())]
        );
        for id in ["kick:7", "twitch:8"] {
            assert_eq!(store.raw(id).unwrap()["streamStatus"], "ONLINE");
        }
    }
}
