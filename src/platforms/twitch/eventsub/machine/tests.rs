//! Tests of the connection's rules: tables and sequences.

use super::*;
use crate::core::code::Code;
use crate::core::source::PlatformName;

const NOW: Millis = 1_000_000;

/// A connection that receives a sequence of inputs.
struct Story {
    state: State,
    now: Millis,
}

impl Story {
    fn new() -> Self {
        Self {
            state: State::new(NOW),
            now: NOW,
        }
    }

    fn emit(&mut self, input: Input) -> Vec<Effect> {
        let (state, effects) = next(self.state.clone(), input, self.now, 0.5);
        self.state = state;
        effects
    }

    fn after(&mut self, millis: Millis) -> Vec<Effect> {
        self.now += millis;
        self.emit(Input::Tick)
    }

    fn welcome(&mut self, socket: SocketId, session: &str) -> Vec<Effect> {
        self.emit(Input::Welcome {
            socket,
            session: session.to_owned(),
            keepalive_secs: 10,
        })
    }

    /// Returns a connection that is connected, welcomed and up.
    fn live() -> Self {
        let mut story = Self::new();
        story.emit(Input::Tick);
        story.emit(Input::Opened(1));
        story.welcome(1, "first");
        assert_eq!(story.emit(Input::Accepted("first".to_owned())), [Effect::Up]);
        story
    }

    fn moving() -> Self {
        let mut story = Self::live();
        let effects = story.emit(reconnect_to(1, "wss://elsewhere"));
        assert_eq!(effects, [open(2, Some("wss://elsewhere"))]);
        story
    }

    fn is_backing_off(&self) -> bool {
        matches!(self.state.phase, Phase::BackingOff { .. })
    }
}

fn open(socket: SocketId, url: Option<&str>) -> Effect {
    Effect::Open {
        socket,
        url: url.map(str::to_owned),
    }
}

fn reconnect_to(socket: SocketId, url: &str) -> Input {
    Input::Reconnect {
        socket,
        url: url.to_owned(),
    }
}

fn closed_with(socket: SocketId, code: u16) -> Input {
    Input::Closed {
        socket,
        code: Some(code),
    }
}

fn failure() -> Failure {
    Failure::transient(Code::NetworkReset, "because")
}

/// Returns the code with which the connection went down.
fn down(effects: &[Effect]) -> Option<Code> {
    effects.iter().find_map(|effect| match effect {
        Effect::Down(failure) => Some(failure.code),
        _ => None,
    })
}

#[test]
fn connection_is_up_only_after_welcome_and_subscription() {
    let mut story = Story::new();
    assert_eq!(story.emit(Input::Tick), [open(1, None)]);
    assert_eq!(story.emit(Input::Opened(1)), []);
    assert!(!story.state.is_up());
    assert_eq!(
        story.welcome(1, "first"),
        [Effect::Subscribe {
            session: "first".to_owned()
        }]
    );
    assert!(!story.state.is_up());
    assert_eq!(story.emit(Input::Accepted("another".to_owned())), []);
    assert!(!story.state.is_up());
    assert_eq!(story.emit(Input::Accepted("first".to_owned())), [Effect::Up]);
    assert!(story.state.is_up());
    assert_eq!(story.emit(Input::Accepted("first".to_owned())), []);
}

#[test]
fn unreadable_message_closes_the_connection_under_its_own_code() {
    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    story.welcome(1, "first");
    story.emit(Input::Accepted("first".to_owned()));
    let failure = Failure::transient(Code::MessageTooLarge(PlatformName::Twitch), "too large");
    let effects = story.emit(Input::Broken { socket: 1, failure });
    assert_eq!(down(&effects), Some(Code::MessageTooLarge(PlatformName::Twitch)));
    assert!(story.state.deadline().unwrap() <= story.now + 1_000);
}

#[test]
fn each_step_has_its_deadline() {
    let mut story = Story::new();
    story.emit(Input::Tick);
    assert_eq!(story.after(14_999), []);
    assert_eq!(down(&story.after(1)), Some(Code::NetworkTimeout));

    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    assert_eq!(story.after(9_999), []);
    let effects = story.after(1);
    assert_eq!(down(&effects), Some(Code::NoWelcome(PlatformName::Twitch)));
    assert_eq!(effects[0], Effect::Close(1));

    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    story.welcome(1, "first");
    story.now += 9_000;
    story.emit(Input::Received(1));
    assert_eq!(story.after(999), []);
    assert_eq!(down(&story.after(1)), Some(Code::TwitchSessionUnused));
}

#[test]
fn keepalive_timeout_adds_half_and_at_least_five_seconds() {
    for (keepalive_secs, dead_after) in [(10, 15_000), (4, 9_000), (600, 900_000)] {
        let mut story = Story::live();
        story.emit(Input::Stop);
        let mut story = Story::new();
        story.emit(Input::Tick);
        story.emit(Input::Opened(1));
        story.emit(Input::Welcome {
            socket: 1,
            session: "first".to_owned(),
            keepalive_secs,
        });
        story.emit(Input::Accepted("first".to_owned()));
        story.now += 1_000;
        story.emit(Input::Received(1));
        assert_eq!(story.after(dead_after - 1), []);
        assert_eq!(
            down(&story.after(1)),
            Some(Code::KeepaliveTimeout(PlatformName::Twitch)),
            "{keepalive_secs}"
        );
    }
}

#[test]
fn every_close_code_reconnects_to_the_default_url() {
    for code in [
        1000, 1001, 1006, 4000, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4999,
    ] {
        let mut story = Story::live();
        let effects = story.emit(closed_with(1, code));
        let expected = match code {
            4003 => Code::TwitchSessionUnused,
            _ => Code::ConnectionClosed(PlatformName::Twitch),
        };
        assert_eq!(down(&effects), Some(expected));
        assert!(story.is_backing_off());
        assert_eq!(story.after(120_000), [open(2, None)], "{code}");
    }
    let mut story = Story::live();
    let effects = story.emit(Input::Closed {
        socket: 1,
        code: None,
    });
    assert_eq!(down(&effects), Some(Code::NetworkReset));
}

#[test]
fn a_session_that_was_never_used_is_not_tried_again_at_once() {
    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    story.welcome(1, "first");
    story.emit(closed_with(1, 4003));
    assert_eq!(story.after(9_999), []);
    assert_eq!(story.after(1), [open(2, None)]);
}

#[test]
fn backoff_doubles_and_only_a_proven_session_resets_it() {
    let mut story = Story::new();
    let mut waits = Vec::new();
    for socket in 1..=10 {
        assert_eq!(story.emit(Input::Tick), [open(socket, None)]);
        // Welcomes alone prove nothing: a loop of welcomes and closes is a failing loop.
        story.emit(Input::Opened(socket));
        story.welcome(socket, "unproven");
        story.emit(closed_with(socket, 4000));
        let until = story.state.deadline().unwrap();
        waits.push(until - story.now);
        story.now = until;
    }
    assert_eq!(
        waits,
        [
            500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000
        ]
    );
    story.emit(Input::Tick);
    story.emit(Input::Opened(11));
    story.welcome(11, "proven");
    story.emit(Input::Accepted("proven".to_owned()));
    story.emit(closed_with(11, 4000));
    assert_eq!(story.state.deadline().unwrap() - story.now, 500);
}

#[test]
fn backoff_is_drawn_from_the_whole_range() {
    assert_eq!((backoff(0, 0.0), backoff(0, 0.999)), (0, 999));
    assert_eq!((backoff(40, 0.0), backoff(40, 0.999)), (0, 119_880));
}

#[test]
fn reconnect_reads_old_socket_until_new_welcome() {
    let mut story = Story::moving();
    assert!(story.state.is_up());
    assert_eq!(story.emit(Input::Opened(2)), []);
    assert_eq!(story.emit(Input::Received(1)), []);
    assert!(story.state.is_up());
    assert_eq!(
        story.welcome(2, "second"),
        [
            Effect::Close(1),
            Effect::Moved {
                session: "second".to_owned()
            }
        ]
    );
    assert!(story.state.is_up());
    assert_eq!(story.state.session().unwrap().id, "second");
    // The end of the old socket changes nothing, whatever its code.
    assert_eq!(story.emit(closed_with(1, 4004)), []);
    assert!(story.state.is_up());
}

#[test]
fn consecutive_and_repeated_reconnects_are_followed() {
    let mut story = Story::moving();
    story.emit(Input::Opened(2));
    story.welcome(2, "second");
    assert_eq!(
        story.emit(reconnect_to(2, "wss://third")),
        [open(3, Some("wss://third"))]
    );
    assert_eq!(
        story.emit(reconnect_to(2, "wss://fourth")),
        [Effect::Close(3), open(4, Some("wss://fourth"))]
    );
    story.emit(Input::Opened(4));
    let effects = story.welcome(4, "fourth");
    assert_eq!(effects[0], Effect::Close(2));
    assert!(story.state.is_up());
}

#[test]
fn a_move_may_keep_its_session_id() {
    let mut story = Story::moving();
    story.emit(Input::Opened(2));
    story.welcome(2, "first");
    assert_eq!(story.state.session().unwrap().socket, 2);
}

#[test]
fn the_old_socket_may_end_before_the_new_one_is_welcomed() {
    for code in [4004, 4007, 1000] {
        let mut story = Story::moving();
        assert_eq!(story.emit(closed_with(1, code)), []);
        story.emit(Input::Opened(2));
        let effects = story.welcome(2, "second");
        assert_eq!(
            effects,
            [Effect::Moved {
                session: "second".to_owned()
            }]
        );
        assert!(story.state.is_up());
    }
}

#[test]
fn a_move_that_fails_falls_back_to_a_fresh_connect() {
    let failures: [fn(&mut Story) -> Vec<Effect>; 3] = [
        |story| {
            story.emit(Input::NotOpened {
                socket: 2,
                failure: failure(),
                permanent: false,
            })
        },
        |story| story.after(25_000),
        |story| {
            story.emit(Input::Opened(2));
            story.emit(closed_with(2, 4007))
        },
    ];
    for fail in failures {
        let mut story = Story::moving();
        let effects = fail(&mut story);
        assert!(down(&effects).is_some(), "{effects:?}");
        assert!(effects.contains(&Effect::Close(1)), "{effects:?}");
        assert!(!story.state.is_up());
        assert_eq!(story.after(1_000), [open(3, None)]);
    }
}

#[test]
fn a_move_of_a_session_that_is_not_proven_subscribes_again() {
    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    story.welcome(1, "first");
    story.emit(reconnect_to(1, "wss://elsewhere"));
    story.emit(Input::Opened(2));
    let effects = story.welcome(2, "second");
    assert_eq!(
        effects,
        [
            Effect::Close(1),
            Effect::Subscribe {
                session: "second".to_owned()
            }
        ]
    );
    assert!(!story.state.is_up());
}

#[test]
fn what_concerns_another_session_or_socket_changes_nothing() {
    let live = Story::live();
    let strange = [
        Input::Tick,
        Input::Opened(1),
        Input::NotOpened {
            socket: 9,
            failure: failure(),
            permanent: true,
        },
        Input::Received(9),
        closed_with(9, 4000),
        reconnect_to(9, "wss://elsewhere"),
        Input::Accepted("another".to_owned()),
        Input::SessionGone("another".to_owned()),
        Input::NothingAccepted {
            session: "first".to_owned(),
            failure: failure(),
            backoff: 0,
        },
    ];
    for input in strange {
        let (state, effects) = next(live.state.clone(), input.clone(), NOW, 0.5);
        assert_eq!((state, effects), (live.state.clone(), vec![]), "{input:?}");
    }
    // A socket that opens after it was abandoned is closed again.
    let (_, effects) = next(live.state.clone(), Input::Opened(9), NOW, 0.5);
    assert_eq!(effects, [Effect::Close(9)]);
}

#[test]
fn session_without_accepted_subscription_backs_off_a_minute() {
    let mut story = Story::new();
    story.emit(Input::Tick);
    story.emit(Input::Opened(1));
    story.welcome(1, "first");
    let effects = story.emit(Input::NothingAccepted {
        session: "first".to_owned(),
        failure: failure(),
        backoff: PERMANENT_FAILURE_BACKOFF,
    });
    assert_eq!(effects, [Effect::Close(1), Effect::Down(failure())]);
    assert_eq!(story.after(59_999), []);
    assert_eq!(story.after(1), [open(2, None)]);
}

#[test]
fn session_gone_at_twitch_is_replaced() {
    let mut story = Story::live();
    let effects = story.emit(Input::SessionGone("first".to_owned()));
    assert_eq!(down(&effects), Some(Code::SessionEnded(PlatformName::Twitch)));
    assert_eq!(story.after(1_000), [open(2, None)]);
}

#[test]
fn a_clock_that_jumped_ends_every_connection_at_once() {
    let mut story = Story::live();
    let effects = story.emit(Input::Jumped);
    assert_eq!(down(&effects), Some(Code::TwitchClockJump));
    assert_eq!(story.emit(Input::Tick), [open(2, None)], "without a pause");
    let mut resting = Story::new();
    assert_eq!(resting.emit(Input::Jumped), []);
}

#[test]
fn stopping_closes_what_is_open_and_nothing_starts_again() {
    for (mut story, sockets) in [
        (Story::new(), vec![]),
        (Story::live(), vec![1]),
        (Story::moving(), vec![1, 2]),
    ] {
        let mut expected: Vec<_> = sockets.into_iter().map(Effect::Close).collect();
        expected.push(Effect::Ended);
        assert_eq!(story.emit(Input::Stop), expected);
        assert_eq!(story.state.deadline(), None);
        assert_eq!(story.after(1_000_000), []);
        assert_eq!(story.emit(Input::Stop), []);
    }
}

#[test]
fn the_session_that_is_left_may_be_gone_before_the_move_is_done() {
    let mut story = Story::moving();
    assert_eq!(story.emit(Input::SessionGone("first".to_owned())), []);
    story.emit(Input::Opened(2));
    story.welcome(2, "second");
    assert!(story.state.is_up());
}

#[test]
fn a_socket_that_was_left_is_not_used() {
    let mut story = Story::moving();
    assert!(story.state.uses(1) && story.state.uses(2));
    story.emit(Input::Opened(2));
    story.welcome(2, "second");
    assert!(!story.state.uses(1) && story.state.uses(2));
}
