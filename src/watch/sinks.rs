//! The destinations of events: a bus, or a remote store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::dispatcher::{SendError, Sink};
use super::state_file::StateFile;
use crate::bus::{EventBus, Outgoing, Recovery};
use crate::core::event::Event;
use crate::persist::{ApplyOutcome, EvidenceUpdate, Persister};

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

/// Stores the states and the transitions of events in a remote store.
pub struct StoreSink {
    /// Merges them with what is stored.
    pub persister: Arc<Persister>,
    /// The file that holds the states.
    pub state_file: Arc<StateFile>,
    /// Where it stores, for users.
    pub location: String,
}

impl StoreSink {
    fn update(&self, event: &Event) -> Result<EvidenceUpdate, SendError> {
        let document = self.state_file.document(&event.source);
        let document = document.map_err(|error| SendError::Transient(error.to_string()))?;
        let document =
            document.ok_or_else(|| SendError::Permanent("its state is no longer in the file".to_owned()))?;
        let stored = document.map_err(|error| SendError::Blocked(error.to_string()))?;
        Ok(EvidenceUpdate {
            source: event.source.clone(),
            knowledge: stored.value.knowledge,
            reported: event.transitions.clone(),
        })
    }
}

#[async_trait]
impl Sink for StoreSink {
    fn describe(&self) -> String {
        self.location.clone()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>> {
        let mut updates = Vec::with_capacity(events.len());
        let mut unusable = BTreeMap::new();
        for event in events {
            match self.update(event) {
                Ok(update) => updates.push(update),
                Err(error) => {
                    unusable.insert(&event.source, error);
                }
            }
        }
        let applied = self.persister.apply(updates).await;
        let result = |event: &Event| {
            if let Some(error) = unusable.remove(&event.source) {
                return Err(error);
            }
            match applied.outcomes.get(&event.source) {
                // An event without a transition may wait in the persister: the next heartbeat contains all of it again.
                Some(ApplyOutcome::Written | ApplyOutcome::Unchanged | ApplyOutcome::Coalesced) => Ok(()),
                outcome @ (Some(ApplyOutcome::Waiting | ApplyOutcome::Blocked) | None) => {
                    let mut failures = applied.failures.iter();
                    let failure = failures.find(|(source, _)| *source == event.source);
                    let reason =
                        failure.map_or_else(|| "not stored yet".to_owned(), |(_, error)| error.reason());
                    Err(match outcome {
                        Some(ApplyOutcome::Blocked) => SendError::Blocked(reason),
                        _ => SendError::Transient(reason),
                    })
                }
            }
        };
        events.iter().map(result).collect()
    }
}
