//! Wrong clocks: this machine's, set ahead and back while the daemon runs.

use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::Status;

use super::world::World;

const DAY: i64 = 86_400_000;

#[tokio::test]
async fn a_clock_a_day_ahead_for_ten_seconds_leaves_no_trace() {
    let sources: Vec<SourceKey> = (1..=3)
        .map(|id| format!("twitch:{id}").parse().unwrap())
        .collect();
    let mut world = World::new(sources.clone()).await;
    world.sim.twitch.go_live("1").unwrap();
    world.start().await;
    world.probe().await;
    let clock = &world.sim.clock;
    clock.advance(60_000);
    world.probe().await;

    world.sim.twitch.end_stream("1");
    world.sim.twitch.go_live("2").unwrap();
    // Only this machine's clock jumps: the platform's stays correct.
    clock.set_skew(-DAY);
    clock.advance(DAY);
    world.probe().await;
    clock.advance(10_000);
    world.probe().await;
    clock.advance(-DAY);
    clock.set_skew(0);

    // A third one goes live after that, and polls observe all of it at their usual interval.
    world.sim.twitch.go_live("3").unwrap();
    for _ in 0..16 {
        clock.advance(60_000);
        world.probe().await;
    }
    let now = world.now();
    world.stop().await;
    for (source, expected) in
        sources
            .iter()
            .zip([StreamStatus::Offline, StreamStatus::Online, StreamStatus::Online])
    {
        let document = world.document(source).await;
        assert_eq!(document.verdict.stream.value, expected, "{source}");
        assert_eq!(document.verdict.status.value, Status::Disconnected, "stopped");
        let record = document.record();
        let updates = [record.last_stream_update, record.last_status_update];
        assert!(
            updates.into_iter().flatten().all(|at| at <= now.plus_secs(2)),
            "{updates:?}"
        );
    }
}
