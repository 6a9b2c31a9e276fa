//! The EventSub listener against the simulated Twitch, over real sockets. Time runs faster on both sides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::core::counters::Counters;
use bitbrat::core::observation::{Fact, LinkState, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::{Holding, holding};
use bitbrat::platforms::twitch::eventsub::{
    EventSubOptions, MessageMemory, PlanOptions, Status, SubscriptionState,
};
use bitbrat::platforms::{Listener, ListenerEvent, Probe, twitch};
use bitbrat::sim::twitch::{ChatSpec, Duplicate, EndSpec, Reconnect, Role, SocketAct, StreamSpec, TokenSpec};
use bitbrat::sim::{Fault, FaultBody};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::listener_harness::{ListenerHarness, eventually, own, wanted};
use super::{BOT, RAT, SCOPES, World, key};

mod accounts;
mod conduit;
mod events;
mod life;
mod subscriptions;

/// Factor by which everything runs faster than real time. A connection is lost when a busy machine delays it for longer than five
/// of its seconds.
const PACE: u32 = 5;
/// The same where minutes have to pass and a connection that is lost in the meantime does no harm.
const FAST: u32 = 10;
/// The same where no connection may be lost.
const SLOW: u32 = 2;
const CAT: &str = "900300";

/// Moves the simulation's clock as fast as a listener's.
fn advance_heartbeat(world: &World) -> AbortOnDropHandle<()> {
    hurry_by(world, PACE)
}

/// Moves the simulation's clock this many times as fast as real time.
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

impl ListenerHarness {
    fn listen(world: &World, ids: &[&str]) -> Self {
        Self::listen_with(world, ids, |_| {})
    }

    fn listen_fast(world: &World, ids: &[&str]) -> Self {
        Self::listen_with(world, ids, |options| options.pace = FAST)
    }

    fn listen_with(world: &World, ids: &[&str], change: impl FnOnce(&mut EventSubOptions)) -> Self {
        let platform = Arc::new(world.platform());
        Self::listening(&platform, ids, |watched| {
            let mut options = EventSubOptions {
                flush: Duration::from_millis(20),
                pace: PACE,
                watch_clock: false,
                ..EventSubOptions::new(watched)
            };
            change(&mut options);
            options
        })
    }
}

/// A world with a listener that is up for `RAT`.
async fn listening() -> (World, AbortOnDropHandle<()>, ListenerHarness) {
    listening_at(PACE).await
}

async fn listening_at(pace: u32) -> (World, AbortOnDropHandle<()>, ListenerHarness) {
    let world = World::confidential().await;
    let time = hurry_by(&world, pace);
    let harness = ListenerHarness::listen_with(&world, &[RAT], |options| options.pace = pace);
    // The subscription to titles is requested beside the others.
    eventually("the line is up", || {
        harness.is_up(RAT) && enabled(&harness.status()) == 3
    })
    .await;
    (world, time, harness)
}

fn enabled(status: &Status) -> usize {
    status
        .subscriptions
        .iter()
        .filter(|subscription| subscription.status == SubscriptionState::Enabled)
        .count()
}
