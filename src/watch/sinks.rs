//! The two destinations of events: a bus, or the persister of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::dispatcher::{SendError, Sink};
use crate::bus::{EventBus, Outgoing, Recovery};
use crate::clock::Clock;
use crate::core::event::Event;
use crate::core::event::read::{Reading, Side, read};
use crate::persist::{Outcome, Persister};

/// Sends events to a bus.
pub struct BusSink(pub Arc<dyn EventBus>);

#[async_trait]
impl Sink for BusSink {
    fn describe(&self) -> String {
        self.0.location()
    }

    fn interruption(&self) -> Option<String> {
        self.0.interruption()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>> {
        let messages = events.iter().cloned().map(Outgoing::from).collect();
        let results = self.0.publish_many(messages).await;
        results
            .into_iter()
            .map(|result| match result {
                Ok(_) => Ok(()),
                Err(error) => Err(match error.recovery() {
                    Recovery::Retry | Recovery::RetrySlowly => SendError::Transient(error.to_string()),
                    Recovery::GiveUp => SendError::Permanent(error.to_string()),
                }),
            })
            .collect()
    }
}

/// Sends events to the persister of this process, which processes them like events from a bus.
pub struct PersisterSink {
    /// The persister.
    pub persister: Arc<Persister>,
    /// Where it stores, for users.
    pub location: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Sink for PersisterSink {
    fn describe(&self) -> String {
        self.location.clone()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>> {
        let now = self.clock.now();
        let mut updates = Vec::with_capacity(events.len());
        let mut unreadable = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            match read(
                Side::Ingress,
                &BTreeMap::new(),
                event.body.as_bytes(),
                now.max(event.at),
            ) {
                Reading::SourceUpdate(read) => updates.push(*read),
                other => {
                    unreadable.insert(place, format!("our own event is not understood: {other:?}"));
                }
            }
        }
        let applied = self.persister.apply(updates).await;
        events
            .iter()
            .enumerate()
            .map(|(place, event)| {
                if let Some(reason) = unreadable.remove(&place) {
                    return Err(SendError::Permanent(reason));
                }
                match applied.outcomes.get(&event.source) {
                    // An event without a transition may wait in the persister: the next heartbeat contains all of it again.
                    Some(Outcome::Written | Outcome::Unchanged | Outcome::Coalesced) => Ok(()),
                    outcome @ (Some(Outcome::Waiting | Outcome::Blocked) | None) => {
                        let failure = applied
                            .failures
                            .iter()
                            .find(|(source, _)| *source == event.source);
                        let reason =
                            failure.map_or_else(|| "not stored yet".to_owned(), |(_, error)| error.reason());
                        Err(match outcome {
                            Some(Outcome::Blocked) => SendError::Blocked(reason),
                            _ => SendError::Transient(reason),
                        })
                    }
                }
            })
            .collect()
    }
}
