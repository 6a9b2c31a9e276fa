//! The EventSub listener against the simulated Twitch, over real sockets. Time runs faster on both sides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitbrat::core::counters::Counters;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::{Holding, Verdict, holding};
use bitbrat::platforms::twitch::eventsub::planner::{Channel, Limits};
use bitbrat::platforms::twitch::eventsub::{EventSubHandle, EventSubOptions, MessageMemory, Status};
use bitbrat::platforms::{Heard, Listener, Probe, twitch};
use bitbrat::sim::twitch::{ChatSpec, Duplicate, EndSpec, Reconnect, Role, SocketAct, StreamSpec, TokenSpec};
use bitbrat::sim::{Fault, FaultBody};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{BOT, RAT, SCOPES, World, key};

mod accounts;
mod events;
mod life;
mod subscriptions;

/// How many times faster than real everything runs. A line is lost when a busy machine holds it up for longer than five of
/// its seconds.
const PACE: u32 = 5;
/// The same where minutes are to be waited for and a line that is lost meanwhile is no harm.
const FAST: u32 = 20;
const CAT: &str = "900300";

/// A listener at work, and everything that it told.
struct Ear {
    handle: EventSubHandle,
    heard: Arc<Mutex<Vec<Heard>>>,
    channels: watch::Sender<Vec<Channel>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<AbortOnDropHandle<()>>,
    _reader: AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
fn own(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Moves the simulation's clock as fast as a listener's runs.
fn hurry(world: &World) -> AbortOnDropHandle<()> {
    hurry_by(world, PACE)
}

/// Moves the simulation's clock so many times as fast as real time.
fn hurry_by(world: &World, pace: u32) -> AbortOnDropHandle<()> {
    let clock = Arc::clone(&world.sim.clock);
    own(async move {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(4)).await;
            let now = tokio::time::Instant::now();
            let passed = i64::try_from((now - last).as_millis()).unwrap();
            last = now;
            clock.advance(passed * i64::from(pace));
        }
    })
}

fn wanted(ids: &[&str]) -> Vec<Channel> {
    ids.iter()
        .map(|id| Channel {
            source: key(id),
            priority: 0,
        })
        .collect()
}

impl Ear {
    fn listen(world: &World, ids: &[&str]) -> Self {
        Self::listen_with(world, ids, |_| {})
    }

    fn listen_fast(world: &World, ids: &[&str]) -> Self {
        Self::listen_with(world, ids, |options| options.pace = FAST)
    }

    fn listen_with(world: &World, ids: &[&str], change: impl FnOnce(&mut EventSubOptions)) -> Self {
        let (channels, watched) = watch::channel(wanted(ids));
        let mut options = EventSubOptions {
            flush: Duration::from_millis(20),
            pace: PACE,
            watch_clock: false,
            ..EventSubOptions::new(watched)
        };
        change(&mut options);
        let (listener, handle) = Arc::new(world.platform()).listener(options);
        let (sink, mut source) = mpsc::channel(64);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let reader = own(async move {
            while let Some(heard) = source.recv().await {
                kept.lock().unwrap().push(heard);
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
            heard,
            channels,
            stop: Some(stop),
            task: Some(task),
            _reader: reader,
        }
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .expect("a listener that is stopped ends")
            .unwrap();
    }

    fn status(&self) -> Status {
        self.handle.status()
    }

    fn told(&self) -> Vec<Observation> {
        self.heard
            .lock()
            .unwrap()
            .iter()
            .filter_map(|heard| match heard {
                Heard::Observed(observation) => Some(observation.clone()),
                Heard::Missed { .. } => None,
            })
            .collect()
    }

    fn facts(&self, id: &str) -> Vec<Fact> {
        self.told()
            .into_iter()
            .filter(|told| told.source.id() == id)
            .map(|told| told.fact)
            .collect()
    }

    fn knowledge(&self, id: &str) -> Knowledge {
        Knowledge::of(self.told().iter().filter(|told| told.source.id() == id))
    }

    fn verdict(&self, id: &str) -> Verdict {
        Verdict::of(PlatformName::Twitch, &self.knowledge(id).evidence)
    }

    fn stream(&self, id: &str) -> StreamStatus {
        self.verdict(id).stream.value
    }

    fn link(&self, id: &str) -> Option<LinkState> {
        self.facts(id).into_iter().rev().find_map(|fact| match fact {
            Fact::Connection {
                transport: Transport::EventSub,
                state,
            } => Some(state),
            _ => None,
        })
    }

    fn is_up(&self, id: &str) -> bool {
        self.link(id) == Some(LinkState::Up)
    }

    /// Returns the code under which a source's link was last told to be down or refused.
    fn trouble(&self, id: &str) -> Option<(bool, String)> {
        match self.link(id)? {
            LinkState::Down { error } => Some((false, error.code)),
            LinkState::Refused { error } => Some((true, error.code)),
            LinkState::Up | LinkState::Closed => None,
        }
    }

    fn pushes(&self, id: &str) -> Vec<bool> {
        self.facts(id)
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::StreamPush { live, .. } => Some(live),
                _ => None,
            })
            .collect()
    }

    /// Returns how often a look was asked for with this probe about this source.
    fn looks(&self, id: &str, probe: Probe) -> usize {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|heard| {
                matches!(heard, Heard::Missed { sources, probes }
                    if sources.contains(&key(id)) && probes.contains(&probe))
            })
            .count()
    }

    fn messages_in(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.messages_in)
            .max()
            .unwrap_or(0)
    }

    fn reconnects(&self, id: &str) -> u64 {
        let knowledge = self.knowledge(id);
        knowledge
            .counters
            .values()
            .map(|totals| totals.reconnects)
            .max()
            .unwrap_or(0)
    }
}

/// Waits until `condition` holds, and fails with `what` when it does not within twenty seconds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// A world with a listener that is up for `RAT`.
async fn listening() -> (World, AbortOnDropHandle<()>, Ear) {
    listening_at(PACE).await
}

async fn listening_at(pace: u32) -> (World, AbortOnDropHandle<()>, Ear) {
    let world = World::confidential().await;
    let time = hurry_by(&world, pace);
    let ear = Ear::listen_with(&world, &[RAT], |options| options.pace = pace);
    eventually("the line is up", || ear.is_up(RAT)).await;
    (world, time, ear)
}

fn enabled(status: &Status) -> usize {
    status
        .subscriptions
        .iter()
        .filter(|subscription| subscription.status == "enabled")
        .count()
}
