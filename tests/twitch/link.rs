//! Evidence of probes about the link to Twitch, one after the other in one process or each in a process of its own.

use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::PlatformName;
use bitbrat::core::verdict::{Status, Verdict};
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch::{self, TwitchPlatform};
use bitbrat::sim::{Fault, FaultBody};

use super::{BOT, RAT, SCOPES, Seen, World, look};

const CONNECTION: &[Probe] = &[Probe::Connection];
const STREAM: &[Probe] = &[Probe::Stream];
const BOTH: &[Probe] = &[Probe::Connection, Probe::Stream];

/// Another channel, which is not live.
const QUIET: &str = "900300";
/// A channel that does not exist.
const NOBODY: &str = "4242";
const ALL: [&str; 3] = [RAT, QUIET, NOBODY];

/// A world in which everything was probed.
struct EventBuilder {
    world: World,
    reported: Vec<Observation>,
}

impl EventBuilder {
    async fn start() -> Self {
        Self::of(World::confidential().await)
    }

    fn of(world: World) -> Self {
        world.twitch().add_channel(QUIET, "quiet");
        world.twitch().go_live(RAT).unwrap();
        Self {
            world,
            reported: Vec::new(),
        }
    }

    fn fail(&self, fault: Fault, path: &str) {
        self.world.fail(fault.on(path));
    }

    fn calm(&self) {
        self.world.twitch().host().faults().clear();
    }

    async fn look(&mut self, platform: &TwitchPlatform, seconds: i64, probes: &[Probe]) -> Seen {
        self.world.sim.clock.advance(seconds * 1_000);
        let seen = look(platform, probes, &ALL).await;
        self.reported.extend(seen.observations.iter().cloned());
        seen
    }

    fn status(&self, id: &str) -> Status {
        let of = self.reported.iter().filter(|reported| reported.source.id() == id);
        let evidence = Knowledge::of(of).evidence;
        Verdict::of(PlatformName::Twitch, &evidence).status.value
    }

    /// The status of a channel that is live, one that is not, and one that does not exist.
    fn statuses(&self) -> [Status; 3] {
        ALL.map(|id| self.status(id))
    }
}

fn about_the_link(fact: &Fact) -> bool {
    matches!(fact, Fact::Connection { .. })
}

use Status::{Connected, Disconnected, Error};

#[tokio::test]
async fn one_failing_endpoint_keeps_link_while_the_other_answers() {
    for fault in [
        Fault::status(500),
        Fault::status(403),
        Fault::status(404),
        Fault::status(429).header("Ratelimit-Remaining", "5"),
        Fault::body(FaultBody::Garbage),
        Fault::body(FaultBody::Html),
    ] {
        for (path, other) in [("/helix/streams", CONNECTION), ("/helix/users", STREAM)] {
            let mut reported = EventBuilder::start().await;
            let platform = reported.world.platform();
            reported.look(&platform, 0, BOTH).await;
            reported.fail(fault.clone(), path);
            // In one probe with the other, alone, and after the other.
            for (seconds, probes) in [(60, BOTH), (15, BOTH), (15, other), (30, BOTH)] {
                let seen = reported.look(&platform, seconds, probes).await;
                for id in [RAT, QUIET] {
                    assert_eq!(seen.failure(id), None, "{fault:?} {path}");
                }
                assert_eq!(
                    reported.statuses(),
                    [Connected, Connected, Error],
                    "{fault:?} {path}"
                );
            }
            let of = reported
                .reported
                .iter()
                .filter(|reported| reported.source.id() == QUIET);
            let error = Knowledge::of(of).evidence.error;
            assert!(error.is_some(), "{fault:?} {path}: the failure leaves a trace");
        }
    }
}

#[tokio::test]
async fn failed_streams_probe_keeps_link_after_recent_users_answer() {
    let mut reported = EventBuilder::start().await;
    let platform = reported.world.platform();
    reported.look(&platform, 0, CONNECTION).await;
    reported.fail(Fault::status(503), "/helix/streams");
    let seen = reported.look(&platform, 45, STREAM).await;
    assert_eq!(seen.count(about_the_link), 0, "{:?}", seen.observations);
    // There was no other request for so long that its response is no evidence about now.
    let seen = reported.look(&platform, 290, STREAM).await;
    assert_eq!(seen.failure(RAT), Some((false, "http.503".to_owned())));
}

#[tokio::test]
async fn failed_streams_probe_without_other_answer_is_link_down() {
    let mut reported = EventBuilder::start().await;
    let platform = reported.world.platform();
    reported.look(&platform, 0, BOTH).await;
    reported.fail(Fault::status(503), "/helix");
    let another = reported.world.platform();
    let seen = reported.look(&another, 10, STREAM).await;
    assert_eq!(seen.failure(QUIET), Some((false, "http.503".to_owned())));
    // The third does not exist, which no failure of the link changes.
    assert_eq!(reported.statuses(), [Disconnected, Disconnected, Error]);
}

#[tokio::test]
async fn unreachable_platform_is_down_at_the_first_probe() {
    let mut reported = EventBuilder::start().await;
    let platform = reported.world.platform();
    reported.look(&platform, 0, BOTH).await;
    reported.world.twitch().host().go_down();
    for (seconds, probes) in [(30, CONNECTION), (15, STREAM)] {
        let seen = reported.look(&platform, seconds, probes).await;
        let (refused, code) = seen.failure(QUIET).unwrap();
        assert!(!refused && code.starts_with("network."), "{code}");
    }
}

#[tokio::test]
async fn an_answer_ends_a_failure_and_never_makes_up_a_channel() {
    let mut reported = EventBuilder::start().await;
    // Each probe is a process of its own, without memory of earlier ones.
    for (fault, probes, expected) in [
        (None, BOTH, [Connected, Connected, Error]),
        (
            Some(Fault::status(503)),
            STREAM,
            [Disconnected, Disconnected, Error],
        ),
        (None, STREAM, [Connected, Connected, Error]),
        (None, BOTH, [Connected, Connected, Error]),
        (None, STREAM, [Connected, Connected, Error]),
        (Some(Fault::status(403)), STREAM, [Error; 3]),
        (None, STREAM, [Connected, Connected, Error]),
    ] {
        reported.calm();
        if let Some(fault) = &fault {
            reported.fail(fault.clone(), "/helix");
        }
        let platform = reported.world.platform();
        reported.look(&platform, 60, probes).await;
        assert_eq!(reported.statuses(), expected, "{fault:?} {probes:?}");
    }
}

#[tokio::test]
async fn first_answer_after_link_failure_restores_the_link() {
    // No other token reads in place of the bot's.
    let mut reported = EventBuilder::of(World::public().await);
    let platform = reported.world.platform();
    reported.look(&platform, 0, BOTH).await;
    reported.world.twitch().disconnect(BOT);
    reported.look(&platform, 15, STREAM).await;
    assert_eq!(reported.statuses(), [Error; 3]);
    reported.world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    reported.look(&platform, 15, &[Probe::Auth, Probe::Stream]).await;
    assert_eq!(reported.statuses(), [Connected, Connected, Error]);
}

#[tokio::test]
async fn listed_stream_proves_its_channel_but_absence_does_not() {
    let mut reported = EventBuilder::start().await;
    let platform = reported.world.platform();
    reported.look(&platform, 0, STREAM).await;
    assert_eq!(reported.statuses(), [Connected, Disconnected, Disconnected]);
}

#[tokio::test]
async fn streams_do_not_repeat_link_evidence_of_users() {
    let mut reported = EventBuilder::start().await;
    let platform = reported.world.platform();
    for (seconds, probes, links) in [
        (0, STREAM, 3),
        (60, BOTH, 3),
        (60, STREAM, 0),
        (60, CONNECTION, 3),
        (299, STREAM, 0),
        (1, STREAM, 3),
    ] {
        let seen = reported.look(&platform, seconds, probes).await;
        assert_eq!(seen.count(about_the_link), links, "{seconds} s, {probes:?}");
    }
}
