//! The rules with documents of sources, over time and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::incident::MessageKind::{self, Close, Open};
use super::message::Message;
use super::rule::{AlertRule, HookRule, Receiver, ReceiverKind};
use super::step::{StepContext, step};
use super::trigger::TriggerKind;
use crate::config::AlertSettings;
use crate::core::code::Code;
use crate::core::document::SourceDocument;
use crate::core::event::EventBuilder;
use crate::core::evidence::Knowledge;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Observation, Transport,
};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::watch::state_file::{AlertInput, AlertState};

/// Sources with their documents, the rules with their state, and the time.
struct World {
    documents: BTreeMap<SourceKey, SourceDocument>,
    inputs: Vec<AlertInput>,
    state: AlertState,
    settings: AlertSettings,
    expiries: BTreeMap<Identity, Timestamp>,
    monitored: usize,
    now: Timestamp,
    sent: Vec<Message>,
    runs: Vec<String>,
}

fn alert(name: &str, on: &[&str]) -> AlertRule {
    AlertRule {
        name: name.to_owned(),
        on: on.iter().map(|trigger| trigger.parse().unwrap()).collect(),
        sources: Vec::new(),
        template: None,
        recover_after: Duration::from_secs(60),
        receiver: Receiver {
            kind: ReceiverKind::Webhook,
            url: "https://example.com/".parse().unwrap(),
            signing_key: None,
            token: None,
            allow_private: false,
        },
    }
}

const ALL: [&str; 8] = [
    "auth.revoked",
    "auth.expired",
    "auth.expiring",
    "source.down",
    "permission.lost",
    "platform.outage",
    "stream.online",
    "stream.offline",
];

impl World {
    fn new(monitored: usize) -> Self {
        Self {
            documents: BTreeMap::new(),
            inputs: Vec::new(),
            state: AlertState::default(),
            settings: AlertSettings {
                alerts: vec![alert("ops", &ALL)],
                ..AlertSettings::default()
            },
            expiries: BTreeMap::new(),
            monitored,
            now: Timestamp::from_millis(1_780_000_000_000),
            sent: Vec::new(),
            runs: Vec::new(),
        }
    }

    fn observe(&mut self, number: usize, fact: Fact) {
        let key: SourceKey = format!("twitch:{number}").parse().unwrap();
        let document = self.documents.entry(key.clone());
        let document = document.or_insert_with(|| SourceDocument::new(key.clone()));
        let before = document.clone();
        document.join(Knowledge::from(&Observation::new(&key, self.now, "test", fact)));
        let builder = EventBuilder {
            before: &before,
            after: document,
            by: "test",
            observed_at: self.now,
        };
        let events = builder.events(&transitions(&before.verdict, &document.verdict));
        let document = Some(document.clone());
        self.inputs.extend(events.into_iter().map(|event| AlertInput {
            event: Some(event),
            document: document.clone(),
        }));
    }

    /// Lets time pass, with a step each second. Each step reads the state as it was stored, as after a restart.
    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            let stored = serde_json::to_string(&self.state.incidents).unwrap();
            self.state.incidents = serde_json::from_str(&stored).unwrap();
            let stored = serde_json::to_string(&self.state.conditions).unwrap();
            self.state.conditions = serde_json::from_str(&stored).unwrap();
            let mut inputs = std::mem::take(&mut self.inputs);
            let is_calm = inputs.is_empty();
            let is_down = |known: &super::cause::Known| {
                let mut kinds = known.conditions.iter().map(|condition| condition.kind);
                kinds.any(|kind| kind == TriggerKind::SourceDown)
            };
            let closed = self
                .state
                .conditions
                .iter()
                .filter(|(_, known)| known.closed_while_up || (is_calm && is_down(known)));
            inputs.extend(closed.map(|(source, _)| AlertInput {
                event: None,
                document: self.documents.get(source).cloned(),
            }));
            let cx = StepContext {
                settings: &self.settings,
                monitored: &[(PlatformName::Twitch, self.monitored)].into(),
                expiries: &self.expiries,
                now: self.now,
            };
            for new in step(&mut self.state, &inputs, &cx) {
                match new.receiver.starts_with("hook:") {
                    true => self.runs.push(new.kind),
                    false => self.sent.push(serde_json::from_str(&new.message).unwrap()),
                }
            }
            self.now = self.now.plus_secs(1);
        }
    }

    fn sent(&self) -> Vec<(MessageKind, TriggerKind, usize)> {
        let short = |message: &Message| (message.kind, message.trigger.unwrap(), message.affected);
        self.sent.iter().map(short).collect()
    }
}

fn up() -> Fact {
    link(LinkState::Up)
}

fn link(state: LinkState) -> Fact {
    Fact::Connection {
        transport: Transport::Api,
        state,
    }
}

fn down(code: Code) -> Fact {
    link(LinkState::Down {
        error: ErrorInfo::new(code, "the platform does not answer"),
    })
}

fn bot(result: AuthResult) -> Fact {
    Fact::Auth {
        identity: Identity::named("twitch/bot"),
        check: Arc::new(AuthCheck::of(result)),
    }
}

#[test]
fn first_start_with_fifty_broken_sources_sends_nothing() {
    let mut world = World::new(50);
    for number in 1..=50 {
        world.observe(number, bot(AuthResult::Revoked));
        world.observe(number, down(Code::Http(503)));
        world.observe(
            number,
            Fact::StreamSeen {
                stream_id: "1".to_owned(),
                started_at: None,
            },
        );
    }
    world.pass(200);
    assert!(world.sent().is_empty(), "{:?}", world.sent());
    for number in 1..=50 {
        world.observe(number, bot(AuthResult::Valid));
        world.observe(number, up());
    }
    world.pass(200);
    assert!(world.sent().is_empty(), "{:?}", world.sent());
}

#[test]
fn revocation_of_nine_sources_is_one_alert_and_one_recovery() {
    let mut world = World::new(9);
    for number in 1..=9 {
        world.observe(number, up());
        world.observe(number, bot(AuthResult::Valid));
    }
    world.pass(10);
    for number in 1..=9 {
        world.observe(number, bot(AuthResult::Revoked));
        world.pass(1);
    }
    world.pass(100);
    assert_eq!(world.sent(), [(Open, TriggerKind::AuthRevoked, 6)]);
    for number in 1..=9 {
        world.observe(number, bot(AuthResult::Valid));
    }
    world.pass(200);
    let expected = [
        (Open, TriggerKind::AuthRevoked, 6),
        (Close, TriggerKind::AuthRevoked, 9),
    ];
    assert_eq!(world.sent(), expected);
    assert!(world.state.incidents.values().all(|incident| !incident.announced));
}

#[test]
fn half_of_a_platform_failing_is_one_message_within_a_minute() {
    let mut world = World::new(1000);
    for number in 1..=1000 {
        world.observe(number, up());
    }
    world.pass(2);
    for second in 0..10 {
        for number in 1..=50 {
            world.observe(second * 50 + number, down(Code::Http(503)));
        }
        world.pass(1);
    }
    world.pass(50);
    assert_eq!(world.sent(), [(Open, TriggerKind::PlatformOutage, 500)]);
    for number in 1..=500 {
        world.observe(number, up());
    }
    world.pass(100);
    let expected = [
        (Open, TriggerKind::PlatformOutage, 500),
        (Close, TriggerKind::PlatformOutage, 500),
    ];
    assert_eq!(world.sent(), expected);
}

#[test]
fn source_that_broke_while_no_daemon_ran_is_reported_once() {
    let mut world = World::new(9);
    world.observe(1, up());
    world.pass(5);
    // Our own stop proves nothing.
    world.observe(1, link(LinkState::Closed));
    world.pass(100);
    assert!(world.sent().is_empty(), "{:?}", world.sent());
    world.now = world.now.plus_secs(3600);
    world.observe(1, down(Code::NetworkTimeout));
    world.pass(100);
    world.observe(1, link(LinkState::Closed));
    world.pass(100);
    world.observe(1, down(Code::NetworkTimeout));
    world.pass(100);
    assert_eq!(world.sent(), [(Open, TriggerKind::SourceDown, 1)]);
}

#[test]
fn alert_on_sources_alone_reports_an_account_once() {
    let mut world = World::new(9);
    world.settings.alerts = vec![alert("sources", &["source.down"])];
    for number in 1..=4 {
        world.observe(number, up());
        world.observe(number, bot(AuthResult::Valid));
    }
    world.pass(1);
    for number in 1..=4 {
        world.observe(number, bot(AuthResult::Revoked));
    }
    world.pass(60);
    assert_eq!(world.sent(), [(Open, TriggerKind::SourceDown, 4)]);
    assert_eq!(world.sent[0].subject, "twitch/bot");
}

#[test]
fn stream_is_one_message_that_its_end_updates() {
    let mut world = World::new(9);
    world.settings.alerts = vec![alert("live", &["stream.online"])];
    let push = |live, id: &str| Fact::StreamPush {
        live,
        stream_id: Some(id.to_owned()),
        started_at: None,
    };
    world.observe(1, Fact::StreamAbsent);
    world.pass(1);
    world.observe(1, push(true, "7"));
    world.pass(30);
    // The same stream after a reconnect is the same message.
    world.observe(1, push(false, "7"));
    world.pass(30);
    world.observe(1, push(true, "7"));
    world.pass(30);
    world.observe(1, push(false, "7"));
    world.pass(100);
    let expected = [
        (Open, TriggerKind::StreamOnline, 1),
        (Close, TriggerKind::StreamOnline, 1),
    ];
    assert_eq!(world.sent(), expected);
}

/// Observes streams that each last half of `period` seconds, with an id of their own unless `same`, and what follows.
fn changing_streams(on: &[&str], period: i64, same: bool) -> World {
    let mut world = World::new(9);
    world.settings.alerts = vec![alert("live", on)];
    world.observe(1, Fact::StreamAbsent);
    world.observe(2, Fact::StreamAbsent);
    world.pass(1);
    for number in 1..=20 {
        let id = if same { "7".to_owned() } else { number.to_string() };
        for live in [true, false] {
            let (stream_id, started_at) = (Some(id.clone()), None);
            world.observe(
                1,
                Fact::StreamPush {
                    live,
                    stream_id,
                    started_at,
                },
            );
            world.pass(period / 2);
        }
    }
    world.pass(2 * 3600);
    world
}

#[test]
fn streams_that_come_and_go_are_three_messages() {
    use MessageKind::Flapping;
    use TriggerKind::{StreamOffline, StreamOnline};
    for (on, period, expected) in [
        (
            &["stream.online"][..],
            6,
            vec![
                (Open, StreamOnline),
                (Flapping, StreamOnline),
                (Close, StreamOnline),
            ],
        ),
        (
            &["stream.offline"][..],
            6,
            vec![
                (Open, StreamOffline),
                (Flapping, StreamOffline),
                (Open, StreamOffline),
            ],
        ),
        (
            &["stream.online", "stream.offline"][..],
            6,
            vec![
                (Open, StreamOnline),
                (Flapping, StreamOnline),
                (Open, StreamOffline),
            ],
        ),
        (
            &["stream.online", "stream.offline"][..],
            240,
            vec![
                (Open, StreamOnline),
                (Open, StreamOffline),
                (Open, StreamOnline),
                (Open, StreamOffline),
                (Open, StreamOnline),
                (Open, StreamOffline),
                (Flapping, StreamOnline),
                (Open, StreamOffline),
            ],
        ),
    ] {
        for same in [true, false] {
            let sent: Vec<_> = changing_streams(on, period, same)
                .sent()
                .into_iter()
                .map(|sent| (sent.0, sent.1))
                .collect();
            assert_eq!(sent, expected, "{on:?} {period} {same}");
        }
    }
    let world = changing_streams(&["stream.online"], 6, false);
    assert!(
        world.sent[1].title.contains("live and offline again and again"),
        "{}",
        world.sent[1].title
    );
}

#[test]
fn stream_that_replaces_another_after_hours_is_reported() {
    let mut world = World::new(9);
    world.settings.alerts = vec![alert("live", &["stream.online"])];
    let push = |live, id: &str| Fact::StreamPush {
        live,
        stream_id: Some(id.to_owned()),
        started_at: None,
    };
    world.observe(1, Fact::StreamAbsent);
    world.pass(1);
    world.observe(1, push(true, "7"));
    world.pass(7200);
    // Without an end in between, and with one a few seconds before.
    world.observe(1, push(true, "8"));
    world.pass(7200);
    world.observe(1, push(false, "8"));
    world.pass(5);
    world.observe(1, push(true, "9"));
    world.pass(5);
    let subjects: Vec<_> = world
        .sent
        .iter()
        .map(|sent| (sent.kind, sent.subject.as_str()))
        .collect();
    let expected = [
        (Open, "twitch:1/7"),
        (Close, "twitch:1/7"),
        (Open, "twitch:1/8"),
        (Close, "twitch:1/8"),
        (Open, "twitch:1/9"),
    ];
    assert_eq!(subjects, expected);
    let ids: std::collections::BTreeSet<_> = world.sent.iter().map(|sent| &sent.id).collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn outage_closes_when_the_platform_answers_again() {
    let mut world = World::new(12);
    for number in 1..=12 {
        world.observe(number, up());
    }
    world.pass(2);
    for number in 1..=12 {
        world.observe(number, down(Code::Http(503)));
    }
    world.pass(60);
    assert_eq!(world.sent(), [(Open, TriggerKind::PlatformOutage, 12)]);
    // The error changes, without a change of any status.
    for number in 1..=12 {
        world.observe(number, down(Code::NetworkTimeout));
    }
    world.pass(60);
    let open = world.state.incidents.values().next().unwrap();
    assert_eq!(
        (open.phase, open.class.as_str()),
        (super::incident::Phase::Open, "network.timeout")
    );
    for number in 1..=10 {
        world.observe(number, up());
    }
    world.pass(100);
    let expected = [
        (Open, TriggerKind::PlatformOutage, 12),
        (Open, TriggerKind::SourceDown, 2),
        (Close, TriggerKind::PlatformOutage, 12),
    ];
    assert_eq!(world.sent(), expected);
    let close = &world.sent[2];
    assert_eq!(close.title, "10 of 12 affected sources of twitch work again");
    assert!(
        close.text.contains("Still not connected: twitch:11, twitch:12"),
        "{}",
        close.text
    );
    assert_eq!(close.remaining.len(), 2);
    for number in 11..=12 {
        world.observe(number, up());
    }
    world.pass(100);
    assert_eq!(world.sent()[3], (Close, TriggerKind::SourceDown, 2));
    assert_eq!(world.sent.len(), 4);
}

#[test]
fn sources_limit_an_alert_and_mutes_silence_it() {
    let mut world = World::new(9);
    world.settings.alerts[0].sources = vec!["twitch:2*".parse().unwrap()];
    for number in [1, 2, 20, 21] {
        world.observe(number, up());
    }
    world.pass(1);
    for number in [1, 2, 20, 21] {
        world.observe(number, down(Code::Http(500)));
    }
    world.state.mutes = vec![super::mute::Mute {
        id: 1,
        pattern: "twitch:20".to_owned(),
        until: world.now.plus_secs(300),
        reason: String::new(),
        created_at: world.now,
    }];
    world.pass(100);
    let subjects =
        |world: &World| -> Vec<String> { world.sent.iter().map(|sent| sent.subject.clone()).collect() };
    assert_eq!(subjects(&world), ["twitch:2", "twitch:21"]);
    world.pass(300);
    assert_eq!(subjects(&world), ["twitch:2", "twitch:21", "twitch:20"]);
}

#[test]
fn account_that_will_expire_is_reported_a_day_before() {
    let mut world = World::new(9);
    let account = Identity::named("kick/bot");
    world
        .expiries
        .insert(account.clone(), world.now.plus_secs(24 * 3600 + 30));
    world.pass(30);
    assert!(world.sent().is_empty(), "{:?}", world.sent());
    world.pass(30);
    assert_eq!(world.sent(), [(Open, TriggerKind::AuthExpiring, 0)]);
    world
        .expiries
        .insert(account, world.now.plus_secs(90 * 24 * 3600));
    world.pass(100);
    assert_eq!(
        world.sent[1].title,
        "kick/bot: the warning about its expiry is over"
    );
}

#[test]
fn hooks_run_on_changes_and_never_on_first_sight() {
    let mut world = World::new(9);
    world.settings.hooks = vec![HookRule {
        name: "lights".to_owned(),
        command: vec!["true".to_owned()],
        on: vec![
            TriggerKind::StreamOnline,
            TriggerKind::SourceDown,
            TriggerKind::AuthRevoked,
        ],
        sources: vec!["twitch:1".parse().unwrap()],
        timeout: Duration::from_secs(1),
        at_most: 1,
    }];
    for number in [1, 2] {
        world.observe(number, up());
        world.observe(number, bot(AuthResult::Valid));
        world.observe(number, Fact::StreamAbsent);
        world.pass(1);
        world.observe(
            number,
            Fact::StreamSeen {
                stream_id: "7".to_owned(),
                started_at: None,
            },
        );
        world.observe(number, bot(AuthResult::Revoked));
        world.pass(1);
        world.observe(number, link(LinkState::Closed));
        world.pass(1);
    }
    assert!(
        world.runs.contains(&"stream.online".to_owned()),
        "{:?}",
        world.runs
    );
    assert!(
        world.runs.contains(&"auth.revoked".to_owned()),
        "{:?}",
        world.runs
    );
    assert_eq!(world.runs.len(), 2, "{:?}", world.runs);
}
