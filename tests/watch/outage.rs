//! The daemon during outages of minutes, with its time moved: what happened in the meantime is published afterwards, once, and
//! nothing is claimed without evidence.

use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus::{self, Offline, Online};
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::core::verdict::Status::{self, Connected, Disconnected};
use bitbrat::platforms::Probe;
use bitbrat::sim::twitch::{EndSpec, StreamSpec};

use super::world::{World, pushed};

fn key(id: u32) -> SourceKey {
    format!("twitch:{id}").parse().unwrap()
}

/// A world with this many sources, of which the first `live` are live with a stream of their own number. The platform's clock is
/// `skew` milliseconds ahead of ours.
async fn world(sources: u32, live: u32, skew: i64) -> World {
    let mut world = World::new((1..=sources).map(key).collect()).await;
    world.sim.clock.set_skew(skew);
    (1..=live).for_each(|id| begin(&world, id, id, 0));
    world.start().await;
    world.probe().await;
    world
}

/// Starts a stream, which polls show `lag` seconds later.
fn begin(world: &World, id: u32, stream: u32, lag: i64) {
    let spec = StreamSpec {
        stream_id: Some(stream.to_string()),
        lag_ms: Some(lag * 1000),
        ..StreamSpec::default()
    };
    world.sim.twitch.go_live_with(&id.to_string(), &spec).unwrap();
}

/// Ends a stream, which polls show `lag` seconds later.
fn end(world: &World, id: u32, lag: i64) {
    let spec = EndSpec {
        lag_ms: Some(lag * 1000),
        ..EndSpec::default()
    };
    world.sim.twitch.end_stream_with(&id.to_string(), &spec).unwrap();
}

fn pass(world: &World, seconds: i64) {
    world.sim.clock.advance(seconds * 1000);
}

/// The stored states of the sources from the first on.
async fn stored(world: &World, sources: u32) -> Vec<(Status, StreamStatus)> {
    let mut found = Vec::new();
    for id in 1..=sources {
        let verdict = world.document(&key(id)).await.verdict;
        found.push((verdict.status.value, verdict.stream.value));
    }
    found
}

/// The published changes of a source's stream, oldest first: the new state, and which stream.
async fn transitions(world: &World, id: u32) -> Vec<(String, String)> {
    let change = |change: Transition| {
        (
            change.to.unwrap_or_default(),
            change.stream_id.unwrap_or_default(),
        )
    };
    world
        .transitions(&key(id))
        .await
        .into_iter()
        .map(change)
        .collect()
}

fn said(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(to, stream): &(&str, &str)| ((*to).to_owned(), (*stream).to_owned());
    changes.iter().map(owned).collect()
}

#[tokio::test]
async fn stream_changes_during_platform_outage_are_published_once() {
    let mut world = world(5, 3, 0).await;
    let before = [Online, Online, Online, Offline, Offline];
    assert_eq!(stored(&world, 5).await, before.map(|stream| (Connected, stream)));

    world.sim.twitch.host().go_down();
    world.probe().await;
    pass(&world, 30);
    end(&world, 2, 0);
    end(&world, 3, 0);
    begin(&world, 3, 33, 0);
    begin(&world, 4, 4, 0);
    begin(&world, 5, 5, 0);
    pass(&world, 30);
    // There is no evidence of this one.
    end(&world, 5, 0);
    world.probe().await;
    assert_eq!(
        stored(&world, 5).await,
        before.map(|stream| (Disconnected, stream))
    );

    pass(&world, 30);
    world.come_up().await;
    world.probe().await;
    // The first probe is not enough to conclude that the second ended: its last evidence is two minutes old.
    let now = [Online, Online, Online, Online, Offline];
    assert_eq!(stored(&world, 5).await, now.map(|stream| (Connected, stream)));
    pass(&world, 60);
    world.probe().await;
    for _ in 0..3 {
        let now = [Online, Offline, Online, Online, Offline];
        assert_eq!(stored(&world, 5).await, now.map(|stream| (Connected, stream)));
        pass(&world, 600);
        world.probe().await;
        // Nor is any of it published again after a restart.
        world.kill().await;
        world.start().await;
        world.probe().await;
    }
    assert_eq!(transitions(&world, 1).await, said(&[("ONLINE", "1")]));
    assert_eq!(
        transitions(&world, 2).await,
        said(&[("ONLINE", "2"), ("OFFLINE", "2")])
    );
    assert_eq!(
        transitions(&world, 3).await,
        said(&[("ONLINE", "3"), ("ONLINE", "33")])
    );
    assert_eq!(
        transitions(&world, 4).await,
        said(&[("OFFLINE", ""), ("ONLINE", "4")])
    );
    assert_eq!(transitions(&world, 5).await, said(&[("OFFLINE", "")]));
}

#[tokio::test]
async fn store_outage_preserves_change_order_despite_kill() {
    let mut world = world(2, 1, 0).await;
    assert_eq!(
        stored(&world, 2).await,
        [(Connected, Online), (Connected, Offline)]
    );
    let push = |world: &World, id: u32, stream: &str, live: bool| {
        assert!(world.push(pushed(&key(id), stream, live, world.now())));
    };

    world.set_store_away(true);
    for minute in 1..=10_u32 {
        pass(&world, 60);
        match minute {
            2 => {
                begin(&world, 2, 21, 0);
                push(&world, 2, "21", true);
            }
            4 => {
                end(&world, 2, 0);
                push(&world, 2, "21", false);
                end(&world, 1, 0);
            }
            5 => {
                world.settle().await;
                world.kill().await;
                world.start().await;
            }
            6 => {
                begin(&world, 2, 22, 0);
                push(&world, 2, "22", true);
            }
            _ => {}
        }
        world.probe().await;
    }
    assert_eq!(
        stored(&world, 2).await,
        [(Connected, Online), (Connected, Offline)]
    );

    world.set_store_away(false);
    // The backoff is half a minute at most.
    pass(&world, 30);
    world.settle().await;
    assert_eq!(
        stored(&world, 2).await,
        [(Connected, Offline), (Connected, Online)]
    );
    assert_eq!(
        transitions(&world, 1).await,
        said(&[("ONLINE", "1"), ("OFFLINE", "1")])
    );
    let all = [
        ("OFFLINE", ""),
        ("ONLINE", "21"),
        ("OFFLINE", "21"),
        ("ONLINE", "22"),
    ];
    assert_eq!(transitions(&world, 2).await, said(&all));
}

#[tokio::test]
async fn clock_skew_of_fifteen_minutes_does_not_distort_streams() {
    for skew in [-900_000, 900_000] {
        let world = world(2, 1, skew).await;
        let theirs = |world: &World| -> Timestamp { world.sim.clock.wall() };
        pass(&world, 60);
        world.probe().await;
        // A start that is pushed, and that polls show minutes later, as they do its end.
        begin(&world, 2, 21, 150);
        assert!(world.push(pushed(&key(2), "21", true, theirs(&world))));
        for _ in 0..4 {
            pass(&world, 60);
            world.probe().await;
            assert_eq!(stored(&world, 2).await, [(Connected, Online); 2], "{skew}");
        }
        end(&world, 2, 600);
        assert!(world.push(pushed(&key(2), "", false, theirs(&world))));
        for _ in 0..12 {
            pass(&world, 60);
            world.probe().await;
            let now = [(Connected, Online), (Connected, Offline)];
            assert_eq!(stored(&world, 2).await, now, "{skew}");
        }
        // An end that is not pushed is detected by polls that miss it for a minute, by a clock with an accuracy of half a second.
        end(&world, 1, 0);
        for _ in 0..3 {
            pass(&world, 60);
            world.probe().await;
        }
        assert_eq!(stored(&world, 2).await, [(Connected, Offline); 2], "{skew}");
        assert_eq!(transitions(&world, 1).await.len(), 2, "{skew}");
        let all = [("OFFLINE", ""), ("ONLINE", "21"), ("OFFLINE", "21")];
        assert_eq!(transitions(&world, 2).await, said(&all), "{skew}");
    }
}

/// What the daemon does during an outage.
#[derive(Debug, Clone, Copy)]
enum Life {
    Runs,
    Stops,
    IsKilled,
}

#[tokio::test]
async fn viewers_are_known_within_one_poll_after_an_outage() {
    const COUNTED: u64 = 77;
    const POLL: [Probe; 3] = [Probe::Connection, Probe::Stream, Probe::Viewers];
    let spec = |id: &str| StreamSpec {
        stream_id: Some(id.to_owned()),
        viewers: Some(COUNTED),
        lag_ms: Some(0),
        ..StreamSpec::default()
    };
    // The platform's clock may be ahead of ours, or behind.
    for (life, skew, push) in [
        (Life::Runs, 0, false),
        (Life::Runs, 120_000, true),
        (Life::Runs, -120_000, true),
        (Life::Stops, 0, true),
        (Life::IsKilled, 0, false),
        (Life::IsKilled, 120_000, true),
    ] {
        let mut world = World::new((1..=3).map(key).collect()).await;
        world.sim.clock.set_skew(skew);
        let live = |id: u32, stream: &str| {
            let begun = world.sim.twitch.go_live_with(&id.to_string(), &spec(stream));
            begun.unwrap();
        };
        live(1, "1");
        live(2, "2");
        world.start().await;
        world.probe_for(&POLL).await;
        world.sim.twitch.host().go_down();
        world.probe_for(&POLL).await;
        pass(&world, 300);
        // One stream continues, one is another one, one is new.
        end(&world, 2, 0);
        let live = |id: u32, stream: &str| {
            let begun = world.sim.twitch.go_live_with(&id.to_string(), &spec(stream));
            begun.unwrap();
        };
        live(2, "22");
        live(3, "3");
        if push {
            for (id, stream) in [(2, "22"), (3, "3")] {
                world.push(pushed(&key(id), stream, true, world.now()));
            }
            world.settle().await;
        }
        match life {
            Life::Runs => {}
            Life::Stops => world.stop().await,
            Life::IsKilled => world.kill().await,
        }
        pass(&world, 60);
        world.come_up().await;
        if !matches!(life, Life::Runs) {
            world.start().await;
        }
        world.probe_for(&POLL).await;
        // What only describes a source is written within seconds of it.
        pass(&world, 5);
        let counted = async {
            for id in 1..=3 {
                while world.document(&key(id)).await.verdict.viewer_count.is_none() {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), counted).await;
        for (id, stream) in [(1, "1"), (2, "22"), (3, "3")] {
            let verdict = world.document(&key(id)).await.verdict;
            let session = verdict.broadcast.map(|session| session.stream_id);
            assert_eq!(
                (verdict.stream.value, session.as_deref(), verdict.viewer_count),
                (Online, Some(stream), Some(COUNTED)),
                "{life:?}, {skew} ms ahead, pushed: {push}, twitch:{id}"
            );
        }
        if !matches!(life, Life::IsKilled) {
            world.stop().await;
        }
    }
}
