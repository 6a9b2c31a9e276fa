//! Alerts of the whole program: what a receiver gets while it fails, and while the daemon is killed and started again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitbrat::alerts::delivery::{Deliverer, client};
use bitbrat::alerts::message::Message;
use bitbrat::alerts::receivers::sign;
use bitbrat::alerts::rule::{AlertRule, Receiver, ReceiverKind};
use bitbrat::alerts::step::NewDelivery;
use bitbrat::clock::{Chance, Clock as _, ManualClock};
use bitbrat::core::time::Timestamp;
use bitbrat::lifecycle::Stop;
use bitbrat::store::retention::Retention;
use bitbrat::watch::state_file::{DeliveryState, StateFile, StateFileOptions};
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::process::{Process, Sim, toml, until, watch};

const PATIENCE: Duration = Duration::from_secs(120);
const BOT: &str = "777100";
const KEY: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

/// A request that the receiver got, and the status that it answered.
#[derive(Debug, Clone)]
struct Got {
    method: String,
    path: String,
    head: String,
    body: String,
    status: u16,
}

impl Got {
    fn header(&self, name: &str) -> String {
        let found = self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        found.unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How the receiver answers its n-th request: the status, further headers and the body.
type Answers = Box<dyn Fn(usize) -> (u16, &'static str, &'static str) + Send>;

/// A receiver that records what it gets.
struct FakeReceiver {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl FakeReceiver {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let got = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&got);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let place = shared.lock().unwrap().len();
                let answer = answers(place);
                if let Some(got) = exchange(socket, answer) {
                    shared.lock().unwrap().push(got);
                }
            }
        });
        Self { address, got }
    }

    fn all(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn accepted(&self) -> Vec<Got> {
        self.all().into_iter().filter(|got| got.status < 300).collect()
    }

    /// Waits until this many messages of a type were accepted, and returns all that were.
    #[track_caller]
    fn accepts(&self, of_type: &str, count: usize) -> Vec<Got> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let accepted = self.accepted();
            let of_type = accepted.iter().filter(|got| got.json()["type"] == of_type);
            if of_type.count() >= count {
                return accepted;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{count} messages {of_type} were never accepted: {:?}", self.all());
    }
}

fn exchange(mut socket: TcpStream, (status, headers, answer): (u16, &str, &str)) -> Option<Got> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut got = Got {
        method,
        path,
        head: head.clone(),
        body: String::new(),
        status,
    };
    let length = got.header("content-length").parse().ok()?;
    reader.take(length).read_to_string(&mut got.body).ok()?;
    let length = answer.len();
    write!(
        socket,
        "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{answer}"
    )
    .ok()?;
    Some(got)
}

/// Nine channels that one account serves, polled once a second.
fn home(sim: &Sim, receiver: &FakeReceiver) -> Home {
    let sources: Vec<String> = (1..=9).map(|number| format!("twitch:77700{number}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let config = format!(
        "[schedule]\nstream = \"* * * * * *\"\nconnection = \"* * * * * *\"\njitter = \"0s\"\n\
         [twitch]\neventsub = false\n\
         [[alert]]\nname = \"ops\"\ntype = \"webhook\"\nurl = \"http://{}/alerts/not-to-be-logged\"\nallow_private = true\n\
         secret = \"{KEY}\"\non = [\"auth.revoked\", \"source.down\"]\nrecover_after = \"1s\"\n{}",
        receiver.address,
        toml(&sources)
    );
    sim.home(&[]).file("bitbrat.toml", &config)
}

#[track_caller]
fn authorized(address: &str, wanted: &str) {
    until(address, "/api/v1/sources", |_, body| {
        let all: Value = serde_json::from_str(body).unwrap_or_default();
        let items = all["items"].as_array().cloned().unwrap_or_default();
        items.len() == 9 && items.iter().all(|item| item["authStatus"] == wanted)
    });
}

/// Issues a token as the consent page would, and logs the bot in with it.
#[track_caller]
fn log_in(sim: &Sim, home: &Home) {
    let client = sim
        .env
        .lines()
        .find_map(|line| line.strip_prefix("TWITCH_CLIENT_ID="));
    let order = json!({
        "client_id": client.unwrap().trim_matches('"'), "user_id": BOT,
        "scopes": ["user:read:chat", "user:bot", "user:read:moderated_channels"],
    });
    let kind = "Content-Type: application/json\r\n";
    let answer = crate::support::process::ask(
        &sim.twitch,
        "POST",
        "/__sim/twitch/token",
        kind,
        &order.to_string(),
    );
    let pair: Value = serde_json::from_str(&answer.unwrap().1).unwrap();
    let token = |name: &str| pair[name].as_str().unwrap().to_owned();
    let lines = format!("{}\n{}\n", token("access_token"), token("refresh_token"));
    home.run_with(&["auth", "login", "twitch", "--with-token"], &lines)
        .exits(0);
}

#[test]
fn revocation_is_one_alert_and_one_recovery_despite_kills() {
    let sim = Sim::start();
    let receiver = FakeReceiver::start(Box::new(|place| match place % 2 {
        0 => (200, "", "ok"),
        _ => (503, "", "try later"),
    }));
    let home = home(&sim, &receiver);
    let (mut daemon, address) = watch(&home);
    authorized(&address, "VALID");
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    // It is killed after the first request, whose answer it has not recorded.
    let home = home.env("BITBRAT_TEST_FAULT", "alert-sent");
    let mut killed = Process::start(&home, &["watch", "--color", "never"]);
    killed.address();
    sim.order("/__sim/twitch/disconnect", &json!({"user_id": BOT}));
    assert_ne!(killed.ends(), 0);
    let home = home.env("BITBRAT_TEST_FAULT", "none");
    let (daemon, address) = watch(&home);
    authorized(&address, "REVOKED");
    receiver.accepts("alert.open", 2);
    daemon.signal("-KILL");
    drop(daemon);
    let (mut daemon, address) = watch(&home);
    log_in(&sim, &home);
    authorized(&address, "VALID");
    let accepted = receiver.accepts("alert.closed", 1);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    assert!(!daemon.said().contains("not-to-be-logged"), "{}", daemon.said());

    let ids = |all: &[Got]| -> std::collections::BTreeSet<String> {
        all.iter().map(|got| got.header("webhook-id")).collect()
    };
    assert_eq!(ids(&receiver.all()).len(), 2, "{:?}", receiver.all());
    assert_eq!(ids(&accepted).len(), 2);
    let types: Vec<_> = receiver
        .all()
        .iter()
        .map(|got| got.json()["type"].clone())
        .collect();
    assert_eq!(types.first(), Some(&json!("alert.open")));
    assert_eq!(types.last(), Some(&json!("alert.closed")));
    let data = &accepted[0].json()["data"];
    assert_eq!(data["incident"]["subject"], "twitch/bot");
    for got in receiver.all() {
        let at: i64 = got.header("webhook-timestamp").parse().unwrap();
        let key = b"012345678901234567890123";
        let signature = sign(key, &got.header("webhook-id"), at, &got.body);
        assert_eq!(got.header("webhook-signature"), signature);
    }
    let listed = home.run(&["alert", "list", "-o", "json"]).exits(0);
    assert_eq!(listed.item("name", "ops")["state"], "ok");
    assert!(!listed.stdout.contains("not-to-be-logged"), "{}", listed.stdout);
}

#[test]
fn alerts_are_replaced_by_a_reload() {
    let sim = Sim::start();
    let [before, after] = [(); 2].map(|()| FakeReceiver::start(Box::new(|_| (200, "", "ok"))));
    let home = home(&sim, &before);
    let (mut daemon, address) = watch(&home);
    authorized(&address, "VALID");
    let file = home.work().join("bitbrat.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&before.address, &after.address)).unwrap();
    daemon.signal("-HUP");
    daemon.says("The configuration was read again");
    sim.order("/__sim/twitch/disconnect", &json!({"user_id": BOT}));
    let accepted = after.accepts("alert.open", 1);
    assert_eq!(accepted[0].json()["data"]["incident"]["subject"], "twitch/bot");
    // Without any alert nothing is sent any more.
    let (without, _) = text.split_once("[[alert]]").unwrap();
    let sources = &text[text.find("[[source]]").unwrap()..];
    std::fs::write(&file, format!("{without}{sources}")).unwrap();
    daemon.signal("-HUP");
    daemon.says("The configuration was read again");
    log_in(&sim, &home);
    authorized(&address, "VALID");
    daemon.signal("-TERM");
    assert_eq!(daemon.ends(), 0);
    assert_eq!((before.all().len(), after.all().len()), (0, 1));
}

#[test]
fn test_message_reports_what_the_receiver_answers() {
    let sim = Sim::start();
    let receiver = FakeReceiver::start(Box::new(|place| match place {
        0 => (200, "", "ok"),
        _ => (404, "", "no such hook"),
    }));
    let home = home(&sim, &receiver);
    let run = home.run(&["alert", "test", "ops", "-o", "json"]).exits(0);
    assert_eq!(run.item("name", "ops")["accepted"], true);
    assert_eq!(receiver.all()[0].json()["type"], "alert.test");
    let run = home.run(&["alert", "test"]).exits(1);
    assert!(run.stdout.contains("HTTP 404: no such hook"), "{}", run.stdout);
    assert!(!run.stdout.contains("not-to-be-logged"));
    home.run(&["alert", "test", "opps"]).exits(2);
    home.run(&["alert", "list"]).exits(0);
    home.run(&["alert", "mute", "twitch:*", "--for", "2h"]).exits(1);
    home.run(&["probe", "auth"]);
    let muted = home.run(&[
        "alert", "mute", "twitch:*", "--for", "2h", "--reason", "update", "-o", "json",
    ]);
    let muted = muted.exits(0);
    assert_eq!(muted.item("what", "mute")["detail"], "twitch:*");
    home.run(&["alert", "mute", "x", "--for", "soon"]).exits(2);
    let long = home.run(&["alert", "mute", "x", "--for", "31d"]).exits(2);
    assert!(
        long.stderr.contains("31d is too long") && long.stderr.contains("30 days"),
        "{}",
        long.stderr
    );
    home.run(&["alert", "mute", "x", "--for", "7d"]).exits(0);
    // What the receiver did last is listed.
    home.run(&["alert", "test"]).exits(1);
    let listed = home.run(&["alert", "list", "-o", "json"]).exits(0);
    let receiver = listed.item("what", "receiver");
    assert_eq!(receiver["state"], "failing");
    assert!(
        receiver["lastFailure"].is_string() && receiver["reason"] == "HTTP 404: no such hook",
        "{receiver}"
    );
    for words in [&["config", "show"][..], &["config", "show", "-o", "json"]] {
        let shown = home.run(words).exits(0).stdout;
        assert!(shown.contains("alert.ops.on"), "{shown}");
        assert!(
            !shown.contains("not-to-be-logged") && !shown.contains(KEY),
            "{shown}"
        );
    }
    home.run(&["alert", "unmute", "twitch:*"]).exits(0);
    home.run(&["alert", "unmute", "twitch:*"]).exits(2);
}

/// A deliverer with a file of its own and a clock that is moved by hand.
struct Delivering {
    file: Arc<StateFile>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task by its handle")]
fn delivering(kind: ReceiverKind, url: &str) -> Delivering {
    let dir = tempfile::tempdir().unwrap();
    let options = StateFileOptions {
        instance: "w".to_owned(),
        bound: 10,
        has_sink: false,
        has_alerts: true,
        history: Some(Retention::default()),
    };
    let file = Arc::new(StateFile::open(&dir.path().join("watch.db"), options).unwrap());
    let clock = ManualClock::at(Timestamp::from_millis(1_780_000_000_000));
    let receiver = Receiver {
        kind,
        url: url.parse().unwrap(),
        signing_key: None,
        token: None,
        allow_private: true,
    };
    let deliverer = Deliverer {
        state_file: Arc::clone(&file),
        http: client(&receiver, clock.clone()),
        rule: AlertRule {
            name: "ops".to_owned(),
            on: Vec::new(),
            sources: Vec::new(),
            template: None,
            recover_after: Duration::ZERO,
            receiver,
        },
        clock: clock.clone(),
        chance: Chance::seeded(1),
        wake: Arc::default(),
    };
    let task = tokio::spawn(async move { deliverer.run(Stop::never()).await.unwrap() });
    Delivering {
        file,
        clock,
        _dir: dir,
        _task: tokio_util::task::AbortOnDropHandle::new(task),
    }
}

impl Delivering {
    fn queue(&self, incident: &str, kind: &str) {
        let now = self.clock.now();
        let message = Message::test("ops", format!("{incident}-{kind}"), now);
        let new = NewDelivery {
            id: message.id.clone(),
            receiver: "ops".to_owned(),
            incident: incident.to_owned(),
            kind: kind.to_owned(),
            message: json!(message).to_string(),
        };
        // Twice: a message that is derived again is stored once.
        for _ in 0..2 {
            self.file.step_alerts(0, now, |_, _| vec![new.clone()]).unwrap();
        }
    }

    /// Waits until the newest messages are in these states, newest first.
    async fn become_all(&self, states: &[DeliveryState]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let all = self.file.recent_deliveries(10).unwrap();
            if all
                .iter()
                .map(|delivery| delivery.state)
                .eq(states.iter().copied())
            {
                return;
            }
            assert!(Instant::now() < until, "{all:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the oldest waiting message was sent in vain this many times, and returns when it is due.
    async fn attempts(&self, count: u32) -> Timestamp {
        let until = Instant::now() + PATIENCE;
        loop {
            let next = self.file.next_deliveries("ops", 1).unwrap().pop();
            if let Some(next) = next.as_ref().filter(|next| next.attempts >= count) {
                return next.due;
            }
            assert!(Instant::now() < until, "{next:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn receiver_that_was_down_gets_everything_in_order() {
    use DeliveryState::Sent;
    let receiver = FakeReceiver::start(Box::new(
        |place| if place < 2 { (500, "", "") } else { (200, "", "") },
    ));
    let world = delivering(ReceiverKind::Webhook, &format!("http://{}/", receiver.address));
    for (incident, kind) in [("a", "open"), ("b", "open"), ("a", "close")] {
        world.queue(incident, kind);
    }
    world.attempts(1).await;
    world.clock.advance(6_000);
    world.attempts(2).await;
    // Six hours are no reason to give up.
    world.clock.advance(6 * 3_600_000);
    world.become_all(&[Sent, Sent, Sent]).await;
    let ids: Vec<_> = receiver
        .accepted()
        .iter()
        .map(|got| got.header("webhook-id"))
        .collect();
    assert_eq!(ids, ["a-open", "b-open", "a-close"]);
}

#[tokio::test]
async fn message_that_fails_does_not_delay_other_causes() {
    use DeliveryState::{Sent, Waiting};
    // The message about `a` is never accepted, and the one about `b` is.
    let receiver = FakeReceiver::start(Box::new(|place| {
        if place == 2 {
            (200, "", "")
        } else {
            (500, "", "broken")
        }
    }));
    let world = delivering(ReceiverKind::Webhook, &format!("http://{}/", receiver.address));
    world.queue("a", "open");
    world.attempts(1).await;
    world.queue("a", "close");
    world.queue("b", "open");
    world.clock.advance(6_000);
    world.attempts(2).await;
    let records = world.file.receiver_records().unwrap();
    let record = &records["ops"];
    assert!(record.is_failing() && record.waiting == 3, "{record:?}");
    assert_eq!(record.failure.as_deref(), Some("HTTP 500: broken"));
    world.clock.advance(6_000);
    world.become_all(&[Sent, Waiting, Waiting]).await;
    // What failed before is tried again at once.
    world.attempts(3).await;
    let records = world.file.receiver_records().unwrap();
    assert!(records["ops"].succeeded_at.is_some());
    let ids: Vec<_> = receiver
        .all()
        .iter()
        .map(|got| got.header("webhook-id"))
        .collect();
    assert_eq!(ids[..3], ["a-open", "a-open", "b-open"]);
}

#[tokio::test]
async fn flapping_after_a_close_is_a_new_message() {
    use DeliveryState::Sent;
    let receiver = FakeReceiver::start(Box::new(|place| match place {
        0 | 1 => (200, "", r#"{"id": "11"}"#),
        _ => (200, "", r#"{"id": "22"}"#),
    }));
    let world = delivering(ReceiverKind::Discord, &format!("http://{}/x", receiver.address));
    for (count, kind) in (1..).zip(["open", "close", "flapping", "close"]) {
        let new = NewDelivery {
            id: format!("{count}"),
            receiver: "ops".to_owned(),
            incident: "a".to_owned(),
            kind: kind.to_owned(),
            message: json!(Message::test("ops", count.to_string(), world.clock.now())).to_string(),
        };
        let now = world.clock.now();
        world.file.step_alerts(0, now, |_, _| vec![new]).unwrap();
        world.become_all(&vec![Sent; count]).await;
    }
    let sent: Vec<_> = receiver
        .all()
        .iter()
        .map(|got| format!("{} {}", got.method, got.path))
        .collect();
    let (new, edit) = ("POST /x?wait=true", |id: &str| {
        format!("PATCH /x/messages/{id}?wait=true")
    });
    assert_eq!(sent, [new.to_owned(), edit("11"), new.to_owned(), edit("22")]);
}

#[tokio::test]
async fn rate_limit_is_honored_to_the_millisecond() {
    let receiver = FakeReceiver::start(Box::new(|place| match place {
        0 => (
            429,
            "Retry-After: 65\r\n",
            r#"{"message": "slow", "retry_after": 64.57}"#,
        ),
        _ => (200, "", r#"{"id": "4242"}"#),
    }));
    let world = delivering(
        ReceiverKind::Discord,
        &format!("http://{}/api/webhooks/1/t", receiver.address),
    );
    world.queue("a", "open");
    let due = world.attempts(1).await.millis_since(world.clock.now());
    assert!((64_570..=66_000).contains(&due), "{due}");
    world.clock.advance(due);
    world.become_all(&[DeliveryState::Sent]).await;
    // The recovery edits that message.
    world.queue("a", "close");
    world
        .become_all(&[DeliveryState::Sent, DeliveryState::Sent])
        .await;
    let last = receiver.all().pop().unwrap();
    let edit = ("PATCH", "/api/webhooks/1/t/messages/4242?wait=true");
    assert_eq!((last.method.as_str(), last.path.as_str()), edit);
}

#[tokio::test]
async fn receiver_that_is_gone_stops_and_a_rejection_does_not() {
    use DeliveryState::{Dropped, Waiting};
    let gone = FakeReceiver::start(Box::new(|_| (404, "", "Unknown Webhook")));
    let world = delivering(ReceiverKind::Discord, &format!("http://{}/x", gone.address));
    world.queue("a", "open");
    let until = Instant::now() + PATIENCE;
    while world.file.stopped_receivers().unwrap().is_empty() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.become_all(&[Waiting]).await;
    assert_eq!(gone.all().len(), 1);
    world.clock.advance(25 * 3_600_000);
    world.become_all(&[Dropped]).await;
    assert_eq!(gone.all().len(), 1);

    let strict = FakeReceiver::start(Box::new(|place| match place {
        0 | 1 => (400, "", "invalid"),
        2 | 3 => (302, "Location: http://127.0.0.1:1/\r\n", ""),
        _ => (200, "", ""),
    }));
    let world = delivering(ReceiverKind::Slack, &format!("http://{}/x", strict.address));
    for incident in ["a", "b", "c"] {
        world.queue(incident, "open");
    }
    world.become_all(&[DeliveryState::Sent, Dropped, Dropped]).await;
    assert_eq!(strict.all().len(), 5);
}
