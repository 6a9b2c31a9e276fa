//! What looks say of the link to Twitch, one after the other in one process or each in a process of its own.

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
/// A channel that Twitch does not know.
const NOBODY: &str = "4242";
const ALL: [&str; 3] = [RAT, QUIET, NOBODY];

/// A world in which somebody has looked at everything.
struct Told {
    world: World,
    told: Vec<Observation>,
}

impl Told {
    async fn start() -> Self {
        Self::of(World::confidential().await)
    }

    fn of(world: World) -> Self {
        world.twitch().add_channel(QUIET, "quiet");
        world.twitch().go_live(RAT).unwrap();
        Self {
            world,
            told: Vec::new(),
        }
    }

    fn fail(&self, fault: Fault, path: &str) {
        self.world.twitch().host().faults().add(fault.on(path));
    }

    fn calm(&self) {
        self.world.twitch().host().faults().clear();
    }

    async fn look(&mut self, platform: &TwitchPlatform, seconds: i64, probes: &[Probe]) -> Seen {
        self.world.sim.clock.advance(seconds * 1_000);
        let seen = look(platform, probes, &ALL).await;
        self.told.extend(seen.observations.iter().cloned());
        seen
    }

    fn status(&self, id: &str) -> Status {
        let of = self.told.iter().filter(|told| told.source.id() == id);
        let evidence = Knowledge::of(of).evidence;
        Verdict::of(PlatformName::Twitch, &evidence).status.value
    }

    /// What is said of a channel that is live, one that is not, and one that does not exist.
    fn statuses(&self) -> [Status; 3] {
        ALL.map(|id| self.status(id))
    }
}

fn about_the_link(fact: &Fact) -> bool {
    matches!(fact, Fact::Connection { .. })
}

use Status::{Connected, Disconnected, Error};

#[tokio::test]
async fn one_question_that_fails_says_nothing_of_the_link_while_the_other_is_answered() {
    for fault in [
        Fault::status(500),
        Fault::status(403),
        Fault::status(404),
        Fault::status(429).header("Ratelimit-Remaining", "5"),
        Fault::body(FaultBody::Garbage),
        Fault::body(FaultBody::Html),
    ] {
        for (path, other) in [("/helix/streams", CONNECTION), ("/helix/users", STREAM)] {
            let mut told = Told::start().await;
            let platform = told.world.platform();
            told.look(&platform, 0, BOTH).await;
            told.fail(fault.clone(), path);
            // In one look with the other, alone, and after the other.
            for (seconds, probes) in [(60, BOTH), (15, BOTH), (15, other), (30, BOTH)] {
                let seen = told.look(&platform, seconds, probes).await;
                for id in [RAT, QUIET] {
                    assert_eq!(seen.trouble(id), None, "{fault:?} {path}");
                }
                assert_eq!(told.statuses(), [Connected, Connected, Error], "{fault:?} {path}");
            }
            let of = told.told.iter().filter(|told| told.source.id() == QUIET);
            let error = Knowledge::of(of).evidence.error;
            assert!(error.is_some(), "{fault:?} {path}: the failure leaves a trace");
        }
    }
}

#[tokio::test]
async fn a_look_for_streams_alone_that_fails_is_not_held_against_users_that_answered_a_while_ago() {
    let mut told = Told::start().await;
    let platform = told.world.platform();
    told.look(&platform, 0, CONNECTION).await;
    told.fail(Fault::status(503), "/helix/streams");
    let seen = told.look(&platform, 45, STREAM).await;
    assert_eq!(seen.count(about_the_link), 0, "{:?}", seen.observations);
    // Nobody has asked anything else for so long that the answer says nothing of now.
    let seen = told.look(&platform, 290, STREAM).await;
    assert_eq!(seen.trouble(RAT), Some((false, "http.503".to_owned())));
}

#[tokio::test]
async fn without_another_answer_a_failed_look_for_streams_is_a_link_that_is_down() {
    let mut told = Told::start().await;
    let platform = told.world.platform();
    told.look(&platform, 0, BOTH).await;
    told.fail(Fault::status(503), "/helix");
    let another = told.world.platform();
    let seen = told.look(&another, 10, STREAM).await;
    assert_eq!(seen.trouble(QUIET), Some((false, "http.503".to_owned())));
    assert_eq!(told.statuses(), [Disconnected, Disconnected, Disconnected]);
}

#[tokio::test]
async fn a_platform_that_cannot_be_connected_to_is_down_at_the_first_question() {
    let mut told = Told::start().await;
    let platform = told.world.platform();
    told.look(&platform, 0, BOTH).await;
    told.world.twitch().host().go_down();
    for (seconds, probes) in [(30, CONNECTION), (15, STREAM)] {
        let seen = told.look(&platform, seconds, probes).await;
        let (refused, code) = seen.trouble(QUIET).unwrap();
        assert!(!refused && code.starts_with("network."), "{code}");
    }
}

#[tokio::test]
async fn an_answer_ends_a_failure_and_never_makes_up_a_channel() {
    let mut told = Told::start().await;
    // Each look is a process of its own, which remembers nothing.
    for (fault, probes, expected) in [
        (None, BOTH, [Connected, Connected, Error]),
        (Some(Fault::status(503)), STREAM, [Disconnected; 3]),
        (None, STREAM, [Connected, Connected, Disconnected]),
        (None, BOTH, [Connected, Connected, Error]),
        (None, STREAM, [Connected, Connected, Error]),
        (Some(Fault::status(403)), STREAM, [Error; 3]),
        (None, STREAM, [Connected, Connected, Error]),
    ] {
        told.calm();
        if let Some(fault) = &fault {
            told.fail(fault.clone(), "/helix");
        }
        let platform = told.world.platform();
        told.look(&platform, 60, probes).await;
        assert_eq!(told.statuses(), expected, "{fault:?} {probes:?}");
    }
}

#[tokio::test]
async fn after_a_failure_of_the_link_the_first_answer_ends_it_whoever_vouched_before() {
    // Nobody reads in the bot's place.
    let mut told = Told::of(World::public().await);
    let platform = told.world.platform();
    told.look(&platform, 0, BOTH).await;
    told.world.twitch().disconnect(BOT);
    told.look(&platform, 15, STREAM).await;
    assert_eq!(told.statuses(), [Error; 3]);
    told.world.give_token(&twitch::bot(), BOT, &SCOPES).await;
    told.look(&platform, 15, STREAM).await;
    assert_eq!(told.statuses(), [Connected, Connected, Error]);
}

#[tokio::test]
async fn a_stream_that_is_listed_proves_its_channel_and_an_absence_does_not() {
    let mut told = Told::start().await;
    let platform = told.world.platform();
    told.look(&platform, 0, STREAM).await;
    assert_eq!(told.statuses(), [Connected, Disconnected, Disconnected]);
}

#[tokio::test]
async fn what_users_has_told_of_the_link_streams_does_not_tell_again() {
    let mut told = Told::start().await;
    let platform = told.world.platform();
    for (seconds, probes, links) in [
        (0, STREAM, 3),
        (60, BOTH, 3),
        (60, STREAM, 0),
        (60, CONNECTION, 3),
        (299, STREAM, 0),
        (1, STREAM, 3),
    ] {
        let seen = told.look(&platform, seconds, probes).await;
        assert_eq!(seen.count(about_the_link), links, "{seconds} s, {probes:?}");
    }
}
