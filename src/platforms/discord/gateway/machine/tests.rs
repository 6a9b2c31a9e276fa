//! Every transition of the gateway connection, each as the sequence of inputs that leads to it.

use super::*;
use crate::core::code::Code;
use crate::core::source::PlatformName;

/// A machine with a clock and a random fraction that is always one half.
struct Story {
    machine: Machine,
    now: u64,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self {
            machine: Machine::new(INTENTS_ALL, Pace::default()),
            now: 1_000,
        };
        assert_eq!(story.put(Input::Start), [Order::Ask]);
        story
    }

    /// Runs until READY, at 1,000 ms.
    fn live() -> Self {
        let mut story = Self::begin();
        let general = "wss://general".to_owned();
        assert_eq!(
            story.put(Input::Permitted(general.clone())),
            [Order::Connect(general)]
        );
        assert_eq!(story.put(Input::Opened), []);
        assert_eq!(
            story.get(Kind::Hello(40_000)),
            [Order::Identify { intents: INTENTS_ALL }]
        );
        assert_eq!(story.ready(), []);
        story
    }

    /// Runs for long enough that earlier failures are cleared.
    fn proven() -> Self {
        let mut story = Self::live();
        story.now += PROVEN;
        story
    }

    fn put(&mut self, input: Input) -> Vec<Order> {
        self.machine.next(self.now, input, 0.5)
    }

    fn get(&mut self, kind: Kind) -> Vec<Order> {
        self.put(Input::Received(kind))
    }

    fn ready(&mut self) -> Vec<Order> {
        self.get(Kind::Ready {
            session_id: "a1".into(),
            url: "wss://resume".into(),
            seq: 1,
        })
    }

    /// Advances the clock to the next deadline.
    fn wait(&mut self) -> (u64, Vec<Order>) {
        let due = self.machine.deadline().expect("something is due");
        let waited = due.saturating_sub(self.now);
        self.now = self.now.max(due);
        (waited, self.put(Input::Tick { caught_up: true }))
    }

    fn session(seq: u64) -> Session {
        Session {
            id: "a1".into(),
            url: "wss://resume".into(),
            seq,
        }
    }
}

fn not_opened() -> Input {
    Input::OpenFailed {
        code: Code::NetworkConnect,
        message: "refused".to_owned(),
    }
}

fn reported(orders: &[Order]) -> Vec<Code> {
    let reports = orders.iter().filter_map(|order| match order {
        Order::Report(GatewayReport::Down { code, .. } | GatewayReport::Refused { code, .. }) => Some(*code),
        _ => None,
    });
    reports.collect()
}

#[test]
fn first_heartbeat_is_jittered_then_sent_every_interval() {
    let mut story = Story::live();
    assert_eq!(story.wait(), (20_000, vec![Order::Heartbeat(Some(1))]));
    story.now += 37;
    assert_eq!(
        story.get(Kind::Ack),
        [Order::Report(GatewayReport::HeartbeatAcknowledged(Some(37)))]
    );
    story.get(Kind::Event { seq: 9 });
    assert_eq!(story.wait(), (39_963, vec![Order::Heartbeat(Some(9))]));
    assert_eq!(story.put(Input::Tick { caught_up: true }), [], "not due yet");
}

#[test]
fn saved_session_resumes_without_gateway_query() {
    let mut story = Story {
        machine: Machine::new(INTENTS_ALL, Pace::default()),
        now: 1_000,
    };
    story.machine.restore_session(Story::session(7));
    assert_eq!(story.put(Input::Start), [Order::Connect("wss://resume".into())]);
    story.put(Input::Opened);
    assert_eq!(story.get(Kind::Hello(40_000)), [Order::Resume(Story::session(7))]);
    let orders = story.get(Kind::Invalid(false));
    assert_eq!(orders[0], Order::Hangup(4000));
    assert_eq!(story.wait().1, [Order::Ask], "it was too late");
}

#[test]
fn session_without_resume_url_resumes_at_original_url() {
    let mut story = Story::begin();
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    story.get(Kind::Hello(40_000));
    story.get(Kind::Ready {
        session_id: "a1".into(),
        url: String::new(),
        seq: 1,
    });
    story.put(Input::Closed(None));
    assert_eq!(story.wait().1, [Order::Connect("wss://general".into())]);
}

#[test]
fn ack_without_heartbeat_reports_no_latency() {
    let mut story = Story::live();
    assert_eq!(story.get(Kind::Ack), []);
}

#[test]
fn a_heartbeat_that_is_asked_for_is_sent_at_once() {
    let mut story = Story::live();
    assert_eq!(story.get(Kind::HeartbeatRequested), [Order::Heartbeat(Some(1))]);
    story.now += 5;
    assert_eq!(
        story.get(Kind::Ack),
        [Order::Report(GatewayReport::HeartbeatAcknowledged(Some(5)))]
    );
}

#[test]
fn unacknowledged_heartbeat_closes_connection_and_resumes() {
    let mut story = Story::proven();
    story.machine.heartbeat.as_mut().unwrap().due = story.now;
    assert_eq!(story.wait().1, [Order::Heartbeat(Some(1))]);
    assert_eq!(story.wait(), (40_000, vec![Order::Hangup(4000)]));
    assert_eq!(story.wait(), (500, vec![Order::Connect("wss://resume".into())]));
    assert_eq!(
        story.put(Input::Opened),
        [Order::Report(GatewayReport::Reconnected)]
    );
    assert_eq!(story.get(Kind::Hello(40_000)), [Order::Resume(Story::session(1))]);
    story.get(Kind::Event { seq: 2 });
    assert_eq!(
        story.get(Kind::Resumed { seq: 3 }),
        [Order::Report(GatewayReport::Resumed)]
    );
    assert_eq!(story.machine.session, Some(Story::session(3)));
}

#[test]
fn suspended_or_lagging_process_sends_another_heartbeat() {
    for (late, caught_up) in [(10_001, true), (0, false)] {
        let mut story = Story::live();
        assert_eq!(story.wait().1, [Order::Heartbeat(Some(1))]);
        let due = story.machine.deadline().unwrap();
        story.now = due + late;
        let tick = Input::Tick { caught_up };
        assert_eq!(
            story.put(tick),
            [Order::Heartbeat(Some(1))],
            "another beat, another chance"
        );
        story.now += 37;
        let answered = [Order::Report(GatewayReport::HeartbeatAcknowledged(None))];
        assert_eq!(story.get(Kind::Ack), answered, "alive, but nothing was measured");
        assert_eq!(story.get(Kind::Ack), [], "the second answer says nothing new");
        assert_eq!(story.wait().1, [Order::Heartbeat(Some(1))]);
        story.now += 25;
        assert_eq!(
            story.get(Kind::Ack),
            [Order::Report(GatewayReport::HeartbeatAcknowledged(Some(25)))]
        );
        story.wait();
        let (_, orders) = story.wait();
        assert_eq!(orders[0], Order::Hangup(4000), "silence is still found");
    }
}

#[test]
fn an_acknowledgement_that_was_read_too_late_measures_nothing() {
    let mut story = Story::live();
    story.wait();
    story.now = story.machine.deadline().unwrap() + 1;
    assert_eq!(
        story.get(Kind::Ack),
        [Order::Report(GatewayReport::HeartbeatAcknowledged(None))]
    );
}

#[test]
fn suspended_process_waits_for_hello_again() {
    let mut story = Story::begin();
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    story.now += 3_600_000;
    assert_eq!(story.put(Input::Tick { caught_up: true }), []);
    assert_eq!(story.machine.deadline(), Some(story.now + ENTRY.0));
    story.get(Kind::Hello(600_000));
    story.now = story.machine.deadline().unwrap();
    assert_eq!(story.put(Input::Tick { caught_up: false }), []);
    assert_eq!(story.ready(), []);
}

#[test]
fn reconnect_request_resumes_without_reporting() {
    for kind in [Kind::Reconnect, Kind::Invalid(true)] {
        let mut story = Story::proven();
        assert_eq!(story.get(kind), [Order::Hangup(4000)]);
        assert_eq!(story.wait().1, [Order::Connect("wss://resume".into())]);
    }
}

#[test]
fn a_wish_to_reconnect_may_come_before_hello() {
    let mut story = Story::begin();
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    let orders = story.get(Kind::Reconnect);
    assert_eq!(orders[0], Order::Hangup(4000));
    assert_eq!(story.wait().1, [Order::Ask]);
}

#[test]
fn invalid_session_is_reported_and_reidentified_after_delay() {
    let mut story = Story::proven();
    let orders = story.get(Kind::Invalid(false));
    assert_eq!(
        (&orders[0], reported(&orders)),
        (
            &Order::Hangup(4000),
            vec![Code::SessionEnded(PlatformName::Discord)]
        )
    );
    let (waited, orders) = story.wait();
    assert!((1_000..=5_000).contains(&waited), "{waited}");
    assert_eq!(
        orders,
        [Order::Ask],
        "permission is requested before each Identify"
    );
}

#[test]
fn close_codes_resume_identify_or_end_it() {
    for (code, next) in [
        (None, Order::Connect("wss://resume".into())),
        (Some(1001), Order::Connect("wss://resume".into())),
        (Some(4000), Order::Connect("wss://resume".into())),
        (Some(4008), Order::Connect("wss://resume".into())),
        (Some(4007), Order::Ask),
        (Some(4009), Order::Ask),
    ] {
        let mut story = Story::proven();
        story.put(Input::Closed(code));
        assert_eq!(story.wait().1, [next], "{code:?}");
    }
    for (code, expected_code) in [
        (4010, Code::DiscordInvalidShard),
        (4011, Code::DiscordShardingRequired),
        (4012, Code::DiscordInvalidVersion),
    ] {
        let mut story = Story::proven();
        let orders = story.put(Input::Closed(Some(code)));
        assert_eq!(
            (reported(&orders), story.machine.deadline()),
            (vec![expected_code], None),
            "{code}"
        );
        assert_eq!(story.put(Input::Tick { caught_up: true }), []);
        assert_eq!(story.put(Input::Opened), [], "nothing gets it going");
    }
}

#[test]
fn intents_that_are_refused_are_reduced_once_and_then_given_up() {
    let mut story = Story::live();
    assert_eq!(
        reported(&story.put(Input::Closed(Some(4014)))),
        [Code::DiscordDisallowedIntents]
    );
    assert_eq!(story.wait().1, [Order::Ask]);
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    assert_eq!(
        story.get(Kind::Hello(1_000)),
        [Order::Identify {
            intents: MINIMUM_INTENTS
        }]
    );
    let orders = story.put(Input::Closed(Some(4014)));
    assert!(
        matches!(&orders[..], [Order::Report(GatewayReport::Refused { .. })]),
        "{orders:?}"
    );
    assert_eq!(story.machine.phase(), &Phase::Refused);
}

#[test]
fn rejected_token_is_confirmed_then_idle_until_start() {
    let mut story = Story::proven();
    assert_eq!(story.put(Input::Closed(Some(4004))), [Order::ConfirmToken]);
    let orders = story.put(Input::TokenRejected);
    assert_eq!(orders[1], Order::Report(GatewayReport::TokenRejected));
    assert_eq!(story.machine.deadline(), None);
    assert_eq!(story.put(Input::TokenRejected), [], "reported once");
    assert_eq!(story.put(Input::Start), [Order::Ask]);
}

#[test]
fn a_token_that_only_the_gateway_refuses_is_tried_again_later() {
    let mut story = Story::proven();
    story.put(Input::Closed(Some(4004)));
    assert_eq!(
        reported(&story.put(Input::TokenWorks)),
        [Code::DiscordGatewayRefused]
    );
    assert_eq!(story.wait().1, [Order::Ask]);
}

#[test]
fn token_rejected_elsewhere_closes_the_connection() {
    let mut story = Story::proven();
    assert_eq!(
        story.put(Input::TokenRejected),
        [Order::Hangup(1000), Order::Report(GatewayReport::TokenRejected)]
    );
}

#[test]
fn exhausted_identify_limit_is_waited_out() {
    let mut story = Story::begin();
    let denied = Input::Denied {
        retry_in: 600_000,
        code: Code::DiscordIdentifyLimit,
        message: String::new(),
    };
    assert_eq!(reported(&story.put(denied)), [Code::DiscordIdentifyLimit]);
    assert_eq!(story.wait(), (600_000, vec![Order::Ask]));
}

#[test]
fn session_is_abandoned_after_failed_resumes_with_backoff() {
    let mut story = Story::proven();
    assert_eq!(story.put(Input::Closed(None)), [], "the first loss is not told");
    let mut waits = Vec::new();
    // The session's address may be unreachable while the general one is reachable.
    let mut addresses = ["wss://resume", "wss://general"].into_iter().cycle();
    loop {
        let (waited, orders) = story.wait();
        waits.push(waited);
        if orders == [Order::Ask] {
            break;
        }
        assert_eq!(orders, [Order::Connect(addresses.next().unwrap().into())]);
        let orders = story.put(not_opened());
        assert_eq!(reported(&orders), [Code::NetworkConnect]);
    }
    assert_eq!(waits, [500, 1_500, 3_000, 6_000, 12_000, 24_000]);
    story.put(Input::Permitted("wss://general".into()));
    story.put(not_opened());
    assert_eq!(
        story.wait(),
        (45_000, vec![Order::Ask]),
        "three quarters of a minute, with these dice"
    );
    let failed = Input::AskFailed {
        code: Code::NetworkTimeout,
        message: String::new(),
    };
    assert_eq!(reported(&story.put(failed)), [Code::NetworkTimeout]);
    assert_eq!(story.wait(), (45_000, vec![Order::Ask]));
}

#[test]
fn identifies_that_lead_to_nothing_come_more_and_more_slowly() {
    let mut story = Story::begin();
    let mut waits = Vec::new();
    for _ in 0..10 {
        story.put(Input::Permitted("wss://general".into()));
        story.put(Input::Opened);
        story.get(Kind::Hello(40_000));
        story.get(Kind::Invalid(false));
        let (waited, orders) = story.wait();
        assert_eq!(orders, [Order::Ask]);
        waits.push(waited);
    }
    assert_eq!((waits[0], waits[1], waits[9]), (3_750, 7_500, 675_000));
}

#[test]
fn only_a_stable_session_resets_the_failure_count() {
    let mut story = Story::live();
    story.put(Input::Closed(None));
    story.wait();
    story.put(Input::Opened);
    story.get(Kind::Hello(40_000));
    story.get(Kind::Resumed { seq: 1 });
    story.now += PROVEN - 1;
    assert_eq!(
        reported(&story.put(Input::Closed(None))),
        [Code::ConnectionClosed(PlatformName::Discord)],
        "the second in a row is told"
    );
}

#[test]
fn missing_hello_or_ready_times_out() {
    let mut story = Story::begin();
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    let (waited, orders) = story.wait();
    assert_eq!(
        (waited, reported(&orders)),
        (ENTRY.0, vec![Code::NoWelcome(PlatformName::Discord)])
    );
    story.wait();
    story.put(Input::Permitted("wss://general".into()));
    story.put(Input::Opened);
    story.get(Kind::Hello(600_000));
    let (waited, orders) = story.wait();
    assert_eq!(
        (waited, reported(&orders)),
        (ENTRY.1, vec![Code::NoWelcome(PlatformName::Discord)])
    );
}

#[test]
fn clean_stop_closes_with_1000_and_stays_closed() {
    let mut story = Story::live();
    assert_eq!(
        story.put(Input::Stop),
        [Order::Hangup(1000), Order::Report(GatewayReport::Closed)]
    );
    assert_eq!(story.put(Input::Tick { caught_up: true }), []);
    assert_eq!(story.machine.deadline(), None);
}

#[test]
fn random_inputs_never_identify_without_permission() {
    let inputs = || {
        [
            Input::Start,
            Input::Permitted("wss://general".into()),
            Input::Denied {
                retry_in: 1,
                code: Code::DiscordNotSent,
                message: String::new(),
            },
            Input::AskFailed {
                code: Code::DiscordNotSent,
                message: String::new(),
            },
            Input::TokenRejected,
            Input::TokenWorks,
            Input::Opened,
            not_opened(),
            Input::Received(Kind::Hello(0)),
            Input::Received(Kind::Ready {
                session_id: "a1".into(),
                url: "wss://resume".into(),
                seq: 1,
            }),
            Input::Received(Kind::Ack),
            Input::Received(Kind::HeartbeatRequested),
            Input::Received(Kind::Reconnect),
            Input::Received(Kind::Invalid(true)),
            Input::Received(Kind::Invalid(false)),
            Input::Received(Kind::Resumed { seq: 7 }),
            Input::Received(Kind::Event { seq: 7 }),
            Input::Received(Kind::Other),
            Input::Closed(None),
            Input::Closed(Some(4004)),
            Input::Closed(Some(4014)),
            Input::Tick { caught_up: true },
            Input::Stop,
        ]
    };
    let (mut rng, mut identified) = (fastrand::Rng::with_seed(11), 0);
    for _ in 0..2_000 {
        let (mut machine, mut now, mut permitted) = (Machine::new(INTENTS_ALL, Pace::default()), 0, false);
        for _ in 0..60 {
            now += rng.u64(..100_000);
            let natural = match machine.phase() {
                Phase::Idle | Phase::Refused => Input::Start,
                Phase::Asking => Input::Permitted("wss://general".into()),
                Phase::Connecting => Input::Opened,
                Phase::Greeting { .. } => Input::Received(Kind::Hello(0)),
                Phase::Waiting { .. } | Phase::Entering { .. } | Phase::Live { .. } => {
                    Input::Tick { caught_up: true }
                }
            };
            let input = rng.choice(inputs()).filter(|_| rng.bool()).unwrap_or(natural);
            for order in machine.next(now, input, rng.f64()) {
                match order {
                    Order::Connect(url) => permitted = url == "wss://general",
                    Order::Identify { .. } => {
                        assert!(permitted, "an Identify without permission");
                        permitted = false;
                        identified += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(
        identified > 2_000,
        "the walks got no further than {identified} Identifies"
    );
}
