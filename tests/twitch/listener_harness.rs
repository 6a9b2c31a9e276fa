//! A running EventSub listener, for any server, and what it reported.

use std::sync::Arc;
use std::time::Duration;

use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::PlatformName;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::Verdict;
use bitbrat::platforms::twitch::TwitchPlatform;
use bitbrat::platforms::twitch::eventsub::planner::Channel;
use bitbrat::platforms::twitch::eventsub::{EventSubHandle, EventSubOptions, Status};
use bitbrat::platforms::{Listener as _, ListenerEvent, Probe};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::key;

/// A running listener, and everything that it reported.
pub(super) struct ListenerHarness {
    pub(super) handle: EventSubHandle,
    incoming: Arc<Mutex<Vec<ListenerEvent>>>,
    pub(super) channels: watch::Sender<Vec<Channel>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<AbortOnDropHandle<()>>,
    _reader: AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
pub(super) fn own(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Waits until `condition` holds, and fails with `what` when it does not within a minute.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

pub(super) fn wanted(ids: &[&str]) -> Vec<Channel> {
    ids.iter()
        .map(|id| Channel {
            source: key(id),
            priority: 0,
            has_consented: false,
        })
        .collect()
}

impl ListenerHarness {
    /// Starts a listener of `platform` for these channels.
    pub(super) fn listening(
        platform: &Arc<TwitchPlatform>,
        ids: &[&str],
        options: impl FnOnce(watch::Receiver<Vec<Channel>>) -> EventSubOptions,
    ) -> Self {
        let (channels, watched) = watch::channel(wanted(ids));
        let (listener, handle) = platform.listener(options(watched));
        let (sink, mut source) = mpsc::channel(64);
        let incoming = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&incoming);
        let reader = own(async move {
            while let Some(incoming) = source.recv().await {
                kept.lock().push(incoming);
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = own(async move {
            let stop = Box::pin(async move {
                let _ = stopped.await;
            });
            Box::new(listener).listen(stop, sink).await;
        });
        Self {
            handle,
            incoming,
            channels,
            stop: Some(stop),
            task: Some(task),
            _reader: reader,
        }
    }

    pub(super) async fn stop(&mut self) {
        drop(self.stop.take());
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .expect("a listener that is stopped ends")
            .unwrap();
    }

    pub(super) fn status(&self) -> Status {
        self.handle.status()
    }

    pub(super) fn reported(&self) -> Vec<Observation> {
        self.incoming
            .lock()
            .iter()
            .filter_map(|incoming| match incoming {
                ListenerEvent::Observed(observation) => Some(observation.clone()),
                ListenerEvent::Missed { .. } => None,
            })
            .collect()
    }

    pub(super) fn facts(&self, id: &str) -> Vec<Fact> {
        self.reported()
            .into_iter()
            .filter(|reported| reported.source.id() == id)
            .map(|reported| Arc::unwrap_or_clone(reported.fact))
            .collect()
    }

    pub(super) fn knowledge(&self, id: &str) -> Knowledge {
        Knowledge::of(
            self.reported()
                .iter()
                .filter(|reported| reported.source.id() == id),
        )
    }

    pub(super) fn verdict(&self, id: &str) -> Verdict {
        Verdict::of(PlatformName::Twitch, &self.knowledge(id).evidence)
    }

    pub(super) fn stream(&self, id: &str) -> StreamStatus {
        self.verdict(id).stream.value
    }

    pub(super) fn link(&self, id: &str) -> Option<LinkState> {
        self.facts(id).into_iter().rev().find_map(|fact| match fact {
            Fact::Connection {
                transport: Transport::EventSub,
                state,
            } => Some(state),
            _ => None,
        })
    }

    pub(super) fn is_up(&self, id: &str) -> bool {
        self.link(id) == Some(LinkState::Up)
    }

    pub(super) fn is_down(&self, id: &str) -> bool {
        matches!(self.link(id), Some(LinkState::Down { .. }))
    }

    /// Returns the code with which a source's link was last reported as down or rejected.
    pub(super) fn failure(&self, id: &str) -> Option<(bool, String)> {
        match self.link(id)? {
            LinkState::Down { error } => Some((false, error.code.to_string())),
            LinkState::Refused { error } => Some((true, error.code.to_string())),
            LinkState::Up | LinkState::Answered | LinkState::Closed => None,
        }
    }

    pub(super) fn pushes(&self, id: &str) -> Vec<bool> {
        self.facts(id)
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::StreamPush { live, .. } => Some(live),
                _ => None,
            })
            .collect()
    }

    /// Returns how often this probe was requested for this source.
    pub(super) fn looks(&self, id: &str, probe: Probe) -> usize {
        let incoming = self.incoming.lock();
        incoming
            .iter()
            .filter(|incoming| {
                matches!(incoming, ListenerEvent::Missed { sources, probes }
                    if sources.contains(&key(id)) && probes.contains(&probe))
            })
            .count()
    }

    pub(super) fn messages_in(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.messages_in)
            .max()
            .unwrap_or(0)
    }

    pub(super) fn reconnects(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.reconnects)
            .max()
            .unwrap_or(0)
    }
}
