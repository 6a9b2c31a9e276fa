//! The daemon while something is away for minutes, with its time moved: what happened meanwhile is told afterwards, once, and
//! nothing is claimed before it is known.

use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus::{self, Offline, Online};
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::core::verdict::Status::{self, Connected, Disconnected};
use bitbrat::sim::twitch::{EndSpec, StreamSpec};

use super::world::{World, pushed};

fn key(id: u32) -> SourceKey {
    format!("twitch:{id}").parse().unwrap()
}

/// A world with so many sources, of which the first `live` are live with a stream of their own number. The platform's clock is
/// so many milliseconds ahead of ours.
async fn world(sources: u32, live: u32, skew: i64) -> World {
    let mut world = World::new((1..=sources).map(key).collect()).await;
    world.sim.clock.set_skew(skew);
    (1..=live).for_each(|id| begin(&world, id, id, 0));
    world.start().await;
    world.look().await;
    world
}

/// Starts a stream, which polls show so many seconds later.
fn begin(world: &World, id: u32, stream: u32, lag: i64) {
    let spec = StreamSpec {
        stream_id: Some(stream.to_string()),
        lag_ms: Some(lag * 1000),
        ..StreamSpec::default()
    };
    world.sim.twitch.go_live_with(&id.to_string(), &spec).unwrap();
}

/// Ends a stream, which polls show so many seconds later.
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

/// What is stored of the sources from the first on.
async fn stored(world: &World, sources: u32) -> Vec<(Status, StreamStatus)> {
    let mut found = Vec::new();
    for id in 1..=sources {
        let verdict = world.document(&key(id)).await.verdict;
        found.push((verdict.status.value, verdict.stream.value));
    }
    found
}

/// The changes of a source's stream that were told, oldest first: what it is since, and which stream.
async fn told(world: &World, id: u32) -> Vec<(String, String)> {
    let change = |change: Transition| {
        (
            change.to.unwrap_or_default(),
            change.stream_id.unwrap_or_default(),
        )
    };
    world.told(&key(id)).await.into_iter().map(change).collect()
}

fn said(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(to, stream): &(&str, &str)| ((*to).to_owned(), (*stream).to_owned());
    changes.iter().map(owned).collect()
}

#[tokio::test]
async fn what_ends_and_begins_while_the_platform_is_away_for_ninety_seconds_is_told_afterwards_once() {
    let mut world = world(5, 3, 0).await;
    let before = [Online, Online, Online, Offline, Offline];
    assert_eq!(stored(&world, 5).await, before.map(|stream| (Connected, stream)));

    world.sim.twitch.host().go_down();
    world.look().await;
    pass(&world, 30);
    end(&world, 2, 0);
    end(&world, 3, 0);
    begin(&world, 3, 33, 0);
    begin(&world, 4, 4, 0);
    begin(&world, 5, 5, 0);
    pass(&world, 30);
    // Of this one nobody can know.
    end(&world, 5, 0);
    world.look().await;
    assert_eq!(
        stored(&world, 5).await,
        before.map(|stream| (Disconnected, stream))
    );

    pass(&world, 30);
    world.come_up().await;
    world.look().await;
    // That the second is gone is not believed at the first look: its last sign of life is two minutes old.
    let now = [Online, Online, Online, Online, Offline];
    assert_eq!(stored(&world, 5).await, now.map(|stream| (Connected, stream)));
    pass(&world, 60);
    world.look().await;
    for _ in 0..3 {
        let now = [Online, Offline, Online, Online, Offline];
        assert_eq!(stored(&world, 5).await, now.map(|stream| (Connected, stream)));
        pass(&world, 600);
        world.look().await;
        // Nor is any of it told again after a restart.
        world.kill().await;
        world.start().await;
        world.look().await;
    }
    assert_eq!(told(&world, 1).await, said(&[("ONLINE", "1")]));
    assert_eq!(told(&world, 2).await, said(&[("ONLINE", "2"), ("OFFLINE", "2")]));
    assert_eq!(told(&world, 3).await, said(&[("ONLINE", "3"), ("ONLINE", "33")]));
    assert_eq!(told(&world, 4).await, said(&[("OFFLINE", ""), ("ONLINE", "4")]));
    assert_eq!(told(&world, 5).await, said(&[("OFFLINE", "")]));
}

#[tokio::test]
async fn a_store_that_is_away_for_ten_minutes_gets_every_change_in_order_although_the_daemon_is_killed() {
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
        world.look().await;
    }
    assert_eq!(
        stored(&world, 2).await,
        [(Connected, Online), (Connected, Offline)]
    );

    world.set_store_away(false);
    // The pause between attempts is half a minute at most.
    pass(&world, 30);
    world.settle().await;
    assert_eq!(
        stored(&world, 2).await,
        [(Connected, Offline), (Connected, Online)]
    );
    assert_eq!(told(&world, 1).await, said(&[("ONLINE", "1"), ("OFFLINE", "1")]));
    let all = [
        ("OFFLINE", ""),
        ("ONLINE", "21"),
        ("OFFLINE", "21"),
        ("ONLINE", "22"),
    ];
    assert_eq!(told(&world, 2).await, said(&all));
}

#[tokio::test]
async fn a_clock_that_is_fifteen_minutes_off_shows_no_stream_too_long_or_too_short() {
    for skew in [-900_000, 900_000] {
        let world = world(2, 1, skew).await;
        let theirs = |world: &World| -> Timestamp { world.sim.clock.wall() };
        pass(&world, 60);
        world.look().await;
        // A start that is pushed, and that polls show minutes later, as they do its end.
        begin(&world, 2, 21, 150);
        assert!(world.push(pushed(&key(2), "21", true, theirs(&world))));
        for _ in 0..4 {
            pass(&world, 60);
            world.look().await;
            assert_eq!(stored(&world, 2).await, [(Connected, Online); 2], "{skew}");
        }
        end(&world, 2, 600);
        assert!(world.push(pushed(&key(2), "", false, theirs(&world))));
        for _ in 0..12 {
            pass(&world, 60);
            world.look().await;
            let now = [(Connected, Online), (Connected, Offline)];
            assert_eq!(stored(&world, 2).await, now, "{skew}");
        }
        // An end that nobody pushes is found by polls that miss it for a minute, by a clock that is known to half a second.
        end(&world, 1, 0);
        for _ in 0..3 {
            pass(&world, 60);
            world.look().await;
        }
        assert_eq!(stored(&world, 2).await, [(Connected, Offline); 2], "{skew}");
        assert_eq!(told(&world, 1).await.len(), 2, "{skew}");
        let all = [("OFFLINE", ""), ("ONLINE", "21"), ("OFFLINE", "21")];
        assert_eq!(told(&world, 2).await, said(&all), "{skew}");
    }
}
