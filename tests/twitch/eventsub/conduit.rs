//! A conduit with the simulated Twitch: created once, shards attached and kept, and each known fault.

use bitbrat::platforms::twitch::eventsub::planner::TransportChoice;
use bitbrat::platforms::twitch::eventsub::{ConduitMemory, ConduitOptions};
use bitbrat::sim::twitch::{ConduitAct, ConduitKnobs};
use serde_json::{Value, json};

use super::*;

const DOG: &str = "900400";

/// Stores the id of a conduit as the file does.
#[derive(Default)]
struct Remembered(Mutex<Option<String>>);

impl ConduitMemory for Remembered {
    fn recall(&self, _: &str) -> Option<String> {
        self.0.lock().clone()
    }

    fn keep(&self, _: &str, id: &str) {
        *self.0.lock() = Some(id.to_owned());
    }
}

/// A world with three channels, of which a member of a fleet receives some shards.
struct Shared {
    world: World,
    memory: Arc<Remembered>,
    _time: AbortOnDropHandle<()>,
}

impl Shared {
    async fn start() -> Self {
        let world = World::confidential().await;
        world.twitch().add_channel(CAT, "catcaster");
        world.twitch().add_channel(DOG, "dogcaster");
        let time = hurry_by(&world, PACE);
        Self {
            world,
            memory: Arc::default(),
            _time: time,
        }
    }

    /// Starts a listener for all channels that receives `own` of this number of shards.
    fn listen(&self, shard_count: usize, own: &[usize]) -> ListenerHarness {
        ListenerHarness::listen_with(&self.world, &[RAT, CAT, DOG], |options| {
            options.transport = TransportChoice::Conduit;
            options.conduit = ConduitOptions {
                id: None,
                shard_count,
                own_shards: own.to_vec(),
                memory: Some(Arc::clone(&self.memory) as Arc<dyn ConduitMemory>),
            };
        })
    }

    /// Starts a listener with all of three shards, and waits until everything is subscribed.
    async fn complete(&self) -> ListenerHarness {
        let harness = self.listen(3, &[0, 1, 2]);
        up(&harness).await;
        eventually("everything is subscribed", || enabled(&harness.status()) == 11).await;
        harness
    }

    fn state(&self) -> Value {
        self.world.twitch().eventsub_state()
    }

    fn created(&self) -> u64 {
        self.state()["created"].as_u64().unwrap()
    }

    fn conduits(&self) -> Vec<Value> {
        self.state()["conduits"].as_array().unwrap().clone()
    }

    fn knobs(&self, turn: impl FnOnce(&mut ConduitKnobs)) {
        self.world.twitch().conduit_knobs(turn);
    }

    /// Starts a stream that polls do not show yet, and waits until one of these listeners reports it.
    async fn delivers(&self, id: &str, harnesses: &[&ListenerHarness]) {
        let spec = StreamSpec {
            lag_ms: Some(36_000_000),
            ..StreamSpec::default()
        };
        let before: usize = harnesses.iter().map(|harness| harness.pushes(id).len()).sum();
        self.world.twitch().go_live_with(id, &spec).unwrap();
        eventually("the start is pushed", || {
            harnesses
                .iter()
                .map(|harness| harness.pushes(id).len())
                .sum::<usize>()
                > before
        })
        .await;
    }
}

async fn up(harness: &ListenerHarness) {
    eventually("all channels are covered by the conduit", || {
        [RAT, CAT, DOG].iter().all(|id| harness.is_up(id)) && covers(harness)
    })
    .await;
}

fn covers(harness: &ListenerHarness) -> bool {
    let connections = harness.status().connections;
    let mut conduits = connections
        .iter()
        .filter_map(|connection| connection.conduit.as_ref());
    conduits.any(|conduit| conduit.covers && conduit.lost.is_empty())
}

#[tokio::test]
async fn restart_adopts_conduit_and_subscriptions() {
    let shared = Shared::start().await;
    let mut harness = shared.complete().await;
    for id in [RAT, CAT, DOG] {
        shared.delivers(id, &[&harness]).await;
    }
    let (created, conduits) = (shared.created(), shared.conduits());
    // Three types of three channels, and two types of the application.
    assert_eq!(
        (created, conduits.len(), &conduits[0]["shard_count"]),
        (11, 1, &json!(3))
    );
    harness.stop().await;
    assert_eq!(harness.link(RAT), Some(LinkState::Closed));
    let again = shared.complete().await;
    shared.delivers(RAT, &[&again]).await;
    let conduits = shared.conduits();
    assert_eq!((shared.created(), conduits.len()), (11, 1));
}

#[tokio::test]
async fn lost_socket_is_attached_again_and_all_are_polled() {
    let shared = Shared::start().await;
    let harness = shared.complete().await;
    let looks = |id| harness.looks(id, Probe::Stream);
    let before = [RAT, CAT, DOG].map(looks);
    shared.world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("every channel is polled after the gap", || {
        [RAT, CAT, DOG]
            .iter()
            .zip(before)
            .all(|(id, before)| looks(id) > before)
    })
    .await;
    up(&harness).await;
    shared.delivers(CAT, &[&harness]).await;
    assert_eq!((shared.created(), shared.conduits().len()), (11, 1));
}

#[tokio::test]
async fn shards_that_are_not_attached_are_a_failure_until_they_are() {
    type Disturb = fn(&mut ConduitKnobs);
    let faults: [(&str, Disturb); 4] = [
        ("an entry in errors[]", |knobs| {
            knobs.refuse_shards = Some("simulated refusal".to_owned());
        }),
        ("a shard that stays disabled", |knobs| knobs.stay_disabled = true),
        ("a nameless 400", |knobs| knobs.nameless_refusal = true),
        ("a failure of the server", |knobs| knobs.shards_status = Some(500)),
    ];
    for (fault, turn) in faults {
        let shared = Shared::start().await;
        shared.knobs(turn);
        let harness = shared.listen(1, &[0]);
        eventually(fault, || harness.is_down(RAT)).await;
        assert!(!covers(&harness), "{fault}");
        shared.knobs(|knobs| *knobs = ConduitKnobs::default());
        up(&harness).await;
        shared.delivers(RAT, &[&harness]).await;
    }
}

#[tokio::test]
async fn shard_that_did_not_follow_a_moved_socket_is_attached() {
    let shared = Shared::start().await;
    let harness = shared.complete().await;
    shared.knobs(|knobs| knobs.shards_stay = true);
    let attached = shared.conduits()[0]["attached"].as_u64().unwrap();
    let moved = shared.world.twitch().reconnect_sockets("", &Reconnect::default());
    assert_eq!(moved, 1);
    eventually("the shards are attached to the new session", || {
        shared.conduits()[0]["attached"].as_u64().unwrap() >= attached + 3
    })
    .await;
    up(&harness).await;
    shared.delivers(RAT, &[&harness]).await;
    assert_eq!(shared.created(), 11);
}

#[tokio::test]
async fn vanished_conduit_is_replaced_with_all_subscriptions() {
    let shared = Shared::start().await;
    let harness = shared.complete().await;
    let before = shared.conduits()[0]["id"].clone();
    assert_eq!(shared.world.twitch().remove_conduits(""), 1);
    eventually("there is another conduit with everything", || {
        let conduits = shared.conduits();
        conduits.len() == 1 && conduits[0]["id"] != before && shared.created() == 22
    })
    .await;
    up(&harness).await;
    shared.delivers(DOG, &[&harness]).await;
    assert_eq!(
        shared.memory.recall("app"),
        shared.conduits()[0]["id"].as_str().map(str::to_owned)
    );
}

#[tokio::test]
async fn stolen_or_disabled_shard_is_taken_back() {
    for act in [ConduitAct::Steal, ConduitAct::Disable] {
        for lost in [false, true] {
            let shared = Shared::start().await;
            let harness = shared.complete().await;
            shared.knobs(|knobs| {
                knobs.disabled_lost = lost;
                knobs.disabled_twice = !lost;
            });
            let attached = shared.conduits()[0]["attached"].as_u64().unwrap();
            assert_eq!(shared.world.twitch().spoil_shard("", 1, act), 1);
            eventually("the shard is attached again", || {
                shared.conduits()[0]["attached"].as_u64().unwrap() > attached
            })
            .await;
            up(&harness).await;
            for id in [RAT, CAT, DOG] {
                shared.delivers(id, &[&harness]).await;
            }
        }
    }
}

#[tokio::test]
async fn members_share_shards_and_one_may_fail() {
    let shared = Shared::start().await;
    let first = shared.listen(3, &[0]);
    eventually("the first member has created the conduit", || {
        shared.memory.recall("app").is_some() && shared.created() == 11
    })
    .await;
    let second = shared.listen(3, &[1]);
    let mut third = shared.listen(3, &[2]);
    for harness in [&first, &second, &third] {
        up(harness).await;
    }
    for id in [RAT, CAT, DOG] {
        shared.delivers(id, &[&first, &second, &third]).await;
    }
    let looks = first.looks(RAT, Probe::Stream);
    third.stop().await;
    for id in [RAT, CAT, DOG] {
        shared.delivers(id, &[&first, &second]).await;
    }
    // One other shard takes over, so nothing is lost.
    up(&first).await;
    up(&second).await;
    let again = shared.listen(3, &[2]);
    up(&again).await;
    eventually("all are polled after the gap of a shard", || {
        first.looks(RAT, Probe::Stream) > looks
    })
    .await;
    assert_eq!((shared.created(), shared.conduits().len()), (11, 1));
}

#[tokio::test]
async fn two_dead_shards_are_reported_as_lost_messages() {
    let shared = Shared::start().await;
    let first = shared.listen(3, &[0]);
    eventually("the conduit exists", || shared.memory.recall("app").is_some()).await;
    let mut others = shared.listen(3, &[1, 2]);
    up(&first).await;
    up(&others).await;
    others.stop().await;
    eventually("the loss is reported", || {
        first.failure(RAT) == Some((false, "twitch.conduit_shards".to_owned()))
    })
    .await;
    let again = shared.listen(3, &[1, 2]);
    up(&again).await;
    up(&first).await;
}

#[tokio::test]
async fn list_without_cursor_causes_no_second_subscription() {
    let shared = Shared::start().await;
    let mut harness = shared.complete().await;
    harness.stop().await;
    shared.knobs(|knobs| {
        knobs.page_size = Some(3);
        knobs.missing_cursor = true;
    });
    let harness = shared.listen(3, &[0, 1, 2]);
    eventually("what exists is adopted", || enabled(&harness.status()) == 11).await;
    assert_eq!(shared.created(), 11);
    shared.knobs(|knobs| knobs.missing_cursor = false);
    up(&harness).await;
}

#[tokio::test]
async fn sixth_conduit_is_refused_and_none_is_deleted() {
    let shared = Shared::start().await;
    let mut listeners = Vec::new();
    for count in 1..=5 {
        *shared.memory.0.lock() = None;
        listeners.push(shared.listen(1, &[0]));
        eventually("a conduit is created", || {
            shared.conduits().len() == count && shared.memory.recall("app").is_some()
        })
        .await;
    }
    *shared.memory.0.lock() = None;
    let sixth = shared.listen(1, &[0]);
    eventually("the limit is reported", || {
        sixth.failure(RAT) == Some((true, "twitch.conduit".to_owned()))
    })
    .await;
    assert_eq!(shared.conduits().len(), 5);
}

#[tokio::test]
async fn event_on_two_shards_counts_once() {
    let shared = Shared::start().await;
    let harness = shared.complete().await;
    shared.knobs(|knobs| knobs.two_shards = true);
    shared.delivers(RAT, &[&harness]).await;
    eventually("the copy was dropped", || harness.status().tally.duplicates >= 1).await;
    assert_eq!(harness.pushes(RAT), [true]);
}

#[tokio::test]
async fn revoked_app_token_is_replaced() {
    let shared = Shared::start().await;
    let harness = shared.complete().await;
    shared.world.twitch().revoke_app_tokens("app");
    shared.world.twitch().spoil_sockets("", &SocketAct::Reset);
    eventually("the socket was lost", || harness.reconnects(RAT) >= 1).await;
    up(&harness).await;
    shared.delivers(RAT, &[&harness]).await;
}

#[tokio::test]
async fn withdrawn_authorization_over_conduit_is_probed() {
    let shared = Shared::start().await;
    shared
        .world
        .give_token(&twitch::broadcaster(RAT), RAT, &["moderation:read"])
        .await;
    let harness = shared.listen(1, &[0]);
    up(&harness).await;
    let looks = harness.looks(RAT, Probe::Auth);
    shared.world.twitch().disconnect(RAT);
    eventually("the account is probed", || {
        harness.looks(RAT, Probe::Auth) > looks
    })
    .await;
    assert_eq!(harness.looks(CAT, Probe::Auth), 0);
}

#[tokio::test]
async fn abandoned_conduit_is_deleted_after_three_days() {
    let shared = Shared::start().await;
    let mut harness = shared.complete().await;
    harness.stop().await;
    let before = shared.conduits()[0]["id"].clone();
    shared.world.sim.clock.advance(73 * 3_600_000);
    let harness = shared.listen(3, &[0, 1, 2]);
    up(&harness).await;
    assert_ne!(shared.conduits()[0]["id"], before);
    assert_eq!(shared.conduits().len(), 1);
}
