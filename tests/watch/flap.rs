//! An API of which one part fails: the rest proves that the connection works, and the status does not flap.

use bitbrat::core::facet::Facet;
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::Status;
use bitbrat::platforms::Probe;
use bitbrat::sim::{Fault, FaultBody};

use super::world::World;

/// A daemon that has probed its sources, two batches of which the first channel is live.
async fn watched() -> (World, Vec<SourceKey>) {
    let sources: Vec<SourceKey> = (1..=101)
        .map(|id| format!("twitch:{id}").parse().unwrap())
        .collect();
    let mut world = World::new(sources.clone()).await;
    world.sim.twitch.go_live("1").unwrap();
    world.start().await;
    world.probe().await;
    (world, sources)
}

/// Two minutes by the usual schedule, and probes of streams in between as in another schedule.
async fn two_minutes(world: &World) {
    const CONNECTION: &[Probe] = &[Probe::Connection];
    const STREAM: &[Probe] = &[Probe::Stream, Probe::Viewers];
    const BOTH: &[Probe] = &[Probe::Connection, Probe::Stream, Probe::Viewers];
    for (seconds, probes) in [
        (30, CONNECTION),
        (15, STREAM),
        (15, BOTH),
        (30, CONNECTION),
        (30, BOTH),
    ] {
        world.sim.clock.advance(seconds * 1_000);
        world.probe_for(probes).await;
    }
}

/// The states of the connection that were published of a source, the oldest first.
async fn states(world: &World, source: &SourceKey) -> Vec<String> {
    let transitions = world.transitions_of(source, Facet::Status).await;
    transitions.into_iter().filter_map(|change| change.to).collect()
}

async fn assert_published(world: &World, sources: &[SourceKey], expected: &[&str]) {
    for source in [&sources[0], &sources[1], &sources[100]] {
        assert_eq!(states(world, source).await, expected, "{source}");
    }
}

#[tokio::test]
async fn failing_streams_endpoint_does_not_make_connection_flap() {
    let (mut world, sources) = watched().await;
    let faults = world.sim.twitch.host().faults();
    for fault in [
        Fault::status(503),
        Fault::body(FaultBody::Garbage),
        Fault::status(403),
    ] {
        let number = faults.add(fault.on("/helix/streams"));
        two_minutes(&world).await;
        faults.remove(number);
        assert_published(&world, &sources, &["CONNECTED"]).await;
    }
    // A missing response is not hidden: the stream's evidence has become old, and the last error contains the reason. With the
    // stop everything is stored.
    world.stop().await;
    let document = world.document(&sources[0]).await;
    assert_eq!(document.verdict.stream.value, StreamStatus::Online);
    let age = world.now().millis_since(document.verdict.stream.at.unwrap());
    assert!(age >= 360_000, "{age}");
    let error = document.knowledge.evidence.error.unwrap().value;
    assert_eq!(error.code.text(), "twitch.forbidden", "{error:?}");
}

#[tokio::test]
async fn failing_users_endpoint_does_not_make_connection_flap() {
    let (world, sources) = watched().await;
    world
        .sim
        .twitch
        .host()
        .faults()
        .add(Fault::status(500).on("/helix/users"));
    two_minutes(&world).await;
    two_minutes(&world).await;
    assert_published(&world, &sources, &["CONNECTED"]).await;
    assert_eq!(
        world.document(&sources[1]).await.verdict.status.value,
        Status::Connected
    );
}

#[tokio::test]
async fn total_api_failure_is_one_transition_until_first_answer() {
    let (world, sources) = watched().await;
    let faults = world.sim.twitch.host().faults();
    faults.add(Fault::status(503).on("/helix/users"));
    let streams = faults.add(Fault::status(503).on("/helix/streams"));
    two_minutes(&world).await;
    assert_published(&world, &sources, &["CONNECTED", "DISCONNECTED"]).await;
    faults.remove(streams);
    two_minutes(&world).await;
    assert_published(&world, &sources, &["CONNECTED", "DISCONNECTED", "CONNECTED"]).await;
    faults.clear();
    two_minutes(&world).await;
    assert_published(&world, &sources, &["CONNECTED", "DISCONNECTED", "CONNECTED"]).await;
}
