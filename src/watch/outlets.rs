//! The two places that events go to: a bus, or straight to the persister of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::dispatcher::{Outlet, Unsent};
use crate::bus::{EventBus, Outgoing, Recovery};
use crate::clock::Clock;
use crate::core::event::Event;
use crate::core::event::read::{Reading, Side, read};
use crate::persist::{Outcome, Persister};

/// Sends events to a bus.
pub struct ToBus(pub Arc<dyn EventBus>);

#[async_trait]
impl Outlet for ToBus {
    fn describe(&self) -> String {
        self.0.location()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>> {
        let messages = events.iter().cloned().map(Outgoing::from).collect();
        let results = self.0.publish_many(messages).await;
        results
            .into_iter()
            .map(|result| match result {
                Ok(_) => Ok(()),
                Err(error) => Err(match error.recovery() {
                    Recovery::Retry | Recovery::RetrySlowly => Unsent::Later(error.to_string()),
                    Recovery::GiveUp => Unsent::Never(error.to_string()),
                }),
            })
            .collect()
    }
}

/// Hands events to the persister of this process, which reads them as it would read them from a bus.
pub struct ToPersister {
    /// The persister.
    pub persister: Arc<Persister>,
    /// Where it stores, for people.
    pub location: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Outlet for ToPersister {
    fn describe(&self) -> String {
        self.location.clone()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), Unsent>> {
        let now = self.clock.now();
        let mut learnt = Vec::with_capacity(events.len());
        let mut unreadable = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            match read(
                Side::Ingress,
                &BTreeMap::new(),
                event.body.as_bytes(),
                now.max(event.at),
            ) {
                Reading::Learnt(read) => learnt.push(*read),
                other => {
                    unreadable.insert(place, format!("our own event is not understood: {other:?}"));
                }
            }
        }
        let applied = self.persister.apply(learnt).await;
        events
            .iter()
            .enumerate()
            .map(|(place, event)| {
                if let Some(reason) = unreadable.remove(&place) {
                    return Err(Unsent::Never(reason));
                }
                match applied.outcomes.get(&event.source) {
                    // What brings no transition may wait in the persister: the next heartbeat tells it again in full.
                    Some(Outcome::Written | Outcome::Unchanged | Outcome::Coalesced) => Ok(()),
                    Some(Outcome::Waiting | Outcome::Blocked) | None => {
                        let failure = applied
                            .failures
                            .iter()
                            .find(|(source, _)| *source == event.source);
                        let reason = failure
                            .map_or_else(|| "not stored yet".to_owned(), |(_, error)| error.to_string());
                        Err(Unsent::Later(reason))
                    }
                }
            })
            .collect()
    }
}
