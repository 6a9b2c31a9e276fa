//! Checks the bus: whether it is reachable, has consumers, routes our events without dead letters, and how many events to expect.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::app::{self, App};
use crate::bus::{BusError, BusReport, EventBus, Filter, Names, Subscription, names};
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::config::BusTarget;
use crate::core::event::EventKind;
use crate::core::event::fields::text;
use crate::core::event::read::Side;
use crate::core::event::routing::{self, Quiet, Routed};
use crate::core::finding::{Finding, Level};
use crate::core::source::PlatformName;
use crate::persist::write_policy::Workload;
use crate::persist::{chat, consumer};
use crate::platforms::descriptor::descriptor;
use crate::watch::volume::{self, Volume};

const AREA: &str = "bus";
/// How far back the router's dead letters are read (s), and for how long.
const LOOKBACK: (i64, Duration) = (3600, Duration::from_millis(1500));
/// Events per second that BitBrat's own persistence keeps up with on its default store (measured).
const PLATFORM_PACE: u64 = 8;

/// Checks only whether the bus answers and has what stores the events.
pub async fn reachable(app: &App) -> Vec<Check> {
    let bus = match open(app).await {
        Ok(bus) => bus,
        Err(check) => return vec![*check],
    };
    let checks = of_persisters(app, bus.inspect(&consumer::subscription(app.clock.now())).await);
    bus.close().await;
    checks
}

/// Connects to the bus; without one, or if that fails, returns the check that says so.
async fn open(app: &App) -> Result<Arc<dyn EventBus>, Box<Check>> {
    match app.bus().await {
        Ok(Some(bus)) => Ok(bus),
        Ok(None) => Err(Box::new(local(app.settings.bus.state_mutations))),
        Err(failure) => {
            let mut check = Check::of_failure(AREA, "reachable", Outcome::Fail, &failure);
            check.next.get_or_insert_with(|| "bitbrat config show".to_owned());
            Err(Box::new(check))
        }
    }
}

pub async fn check(app: &App) -> Vec<Check> {
    let settings = &app.settings.bus;
    let bus = match open(app).await {
        Ok(bus) => bus,
        Err(check) => return vec![*check],
    };
    let now = app.clock.now();
    let persisters = consumer::subscription(now);
    let mut checks = Vec::new();
    let found = bus.inspect(&persisters).await;
    let reachable = !matches!(
        found,
        Err(BusError::Unavailable { .. } | BusError::Refused { .. })
    );
    checks.extend(of_persisters(app, found));
    if reachable {
        for (side, name) in [(Side::Ingress, "chat in"), (Side::Egress, "chat out")] {
            checks.extend(of_chat(app, bus.as_ref(), &chat::subscription(side), name).await);
        }
        checks.push(of_topic(app, bus.as_ref(), names::DEAD_LETTERS, "dead letters").await);
        if settings.state_mutations {
            checks.push(of_topic(app, bus.as_ref(), names::STATE_MUTATIONS, "state engine").await);
        }
        checks.push(routing_rule(app, bus.as_ref()).await);
    } else {
        let why = "the bus cannot be asked";
        checks.push(Check::new(AREA, "consumer", Outcome::Skipped, why).next("bitbrat doctor bus"));
        checks.push(Check::new(AREA, "routing rule", Outcome::Skipped, why).next("bitbrat doctor bus"));
    }
    checks.push(volume(app));
    checks.extend(twice(app));
    bus.close().await;
    checks
}

fn local(mutations: bool) -> Check {
    if mutations {
        let what = "local: events stay in this process, so bus.state_mutations has no effect";
        let check = Check::new(AREA, "delivery", Outcome::Warn, what);
        return check.next(
            "bitbrat config show  # set bus.url to nats:// or pubsub:, or bus.state_mutations to false",
        );
    }
    Check::new(
        AREA,
        "delivery",
        Outcome::Ok,
        "local: events stay in this process",
    )
}

/// Checks the stream or topic of sources' events, and its consumers that store them.
fn of_persisters(app: &App, found: Result<BusReport, BusError>) -> Vec<Check> {
    match found {
        Ok(report) => {
            let millis = report.round_trip.as_millis();
            let detail = format!("{}: an answer in {millis} ms", report.location);
            let mut checks = vec![Check::new(AREA, "reachable", Outcome::Ok, detail)];
            checks.extend(report.findings.iter().map(|finding| {
                let name = match finding.about {
                    "subscription" => "consumer",
                    about => about,
                };
                of_finding(app, finding, name)
            }));
            checks
        }
        Err(error @ BusError::NoTopic { .. }) => {
            let check = Check::new(AREA, topic_word(app), Outcome::Fail, error.to_string());
            vec![check.next(make(app, names::INGRESS))]
        }
        Err(error) => {
            let check = Check::new(AREA, "reachable", Outcome::Fail, error.to_string());
            let usual = "bitbrat config show  # bus.url: is the server there?";
            vec![check.next(error.hint().unwrap_or(usual))]
        }
    }
}

fn of_finding(app: &App, finding: &Finding, name: &str) -> Check {
    let outcome = match finding.level {
        Level::Ok => Outcome::Ok,
        Level::Warn => Outcome::Warn,
        Level::Fail => Outcome::Fail,
    };
    let mut detail = finding.detail.clone();
    if matches!(app.settings.bus.target, BusTarget::Pubsub { .. }) && finding.about == "subscription" {
        detail.push_str("; what waits for it is shown by Cloud Monitoring, num_undelivered_messages");
    }
    Check {
        next: finding.next.as_deref().map(str::to_owned),
        ..Check::new(AREA, name, outcome, detail)
    }
}

/// Checks the consumers that count the chat of one direction.
async fn of_chat(app: &App, bus: &dyn EventBus, to: &Subscription, name: &str) -> Option<Check> {
    match bus.inspect(to).await {
        Ok(report) => {
            let about = |finding: &&Finding| finding.about == "subscription";
            report
                .findings
                .iter()
                .find(about)
                .map(|finding| of_finding(app, finding, name))
        }
        Err(error @ BusError::NoTopic { .. }) => {
            let detail = format!("{error}, so nothing is counted there");
            let topic = match &to.filter {
                Filter::Topic(topic) => topic.clone(),
                Filter::Under(root) => format!("{root}.v1"),
            };
            Some(Check::new(AREA, name, Outcome::Warn, detail).next(make(app, &topic)))
        }
        Err(error) => {
            Some(Check::new(AREA, name, Outcome::Fail, error.to_string()).next("bitbrat doctor bus"))
        }
    }
}

/// Checks a topic that we only publish to.
async fn of_topic(app: &App, bus: &dyn EventBus, topic: &str, name: &str) -> Check {
    let to = Subscription {
        filter: Filter::Topic(topic.to_owned()),
        ..consumer::subscription(app.clock.now())
    };
    let full = names_of(app).full(topic);
    match bus.inspect(&to).await {
        Ok(_) => Check::new(AREA, name, Outcome::Ok, format!("`{full}` takes them")),
        Err(error @ BusError::NoTopic { .. }) => Check::new(
            AREA,
            name,
            Outcome::Warn,
            format!("{error}, so they go to the log only"),
        )
        .next(make(app, topic)),
        Err(error) => Check::new(AREA, name, Outcome::Fail, error.to_string()).next("bitbrat doctor bus"),
    }
}

fn names_of(app: &App) -> Names {
    Names::with_prefix(app.settings.bus.prefix.clone())
}

fn topic_word(app: &App) -> &'static str {
    match app.settings.bus.target {
        BusTarget::Pubsub { .. } => "topic",
        BusTarget::Nats(_) | BusTarget::Local => "stream",
    }
}

/// Returns the command that creates what is missing. We create nothing: streams and topics belong to the platform.
fn make(app: &App, topic: &str) -> String {
    let prefix = &app.settings.bus.prefix;
    let full = names_of(app).full(topic);
    match &app.settings.bus.target {
        BusTarget::Pubsub { project } => format!("gcloud pubsub topics create {full} --project={project}"),
        _ if prefix.is_empty() => {
            let part: Vec<_> = topic.split('.').take(2).collect();
            format!(
                "nats stream add {} --subjects='{}.>' --max-age=24h --defaults",
                part.join("-"),
                part.join(".")
            )
        }
        _ => format!(
            "nats stream add BITBRAT --subjects='{prefix}>' --max-age=24h --defaults  # or start BitBrat, which makes it"
        ),
    }
}

/// Checks that the platform's router ignores our events: by its rules where we can read them, else by its dead letters.
async fn routing_rule(app: &App, bus: &dyn EventBus) -> Check {
    const NAME: &str = "routing rule";
    let install = || {
        let rule = routing::rule(Quiet::Ours);
        format!("store at configs/routingRules/rules/bitbrat-sources: {rule}")
    };
    let letters = dead_letters(app, bus).await;
    if letters > 0 {
        let detail = format!(
            "the platform's router filed {} of our events as dead letters in the last hour; a rule keeps them quiet",
            humane::thousands(letters),
        );
        return Check::new(AREA, NAME, Outcome::Warn, detail).next(install());
    }
    let rules = match app::routing_rules(&app.settings).await {
        Some(Ok(rules)) => rules,
        Some(Err(error)) => {
            let detail = format!("the platform's rules cannot be read: {error}");
            return Check::new(AREA, NAME, Outcome::Skipped, detail).next(install());
        }
        None => {
            let detail = "the platform's rules are not where we can read them; without this one its router files our events as dead letters";
            return Check::new(AREA, NAME, Outcome::Skipped, detail).next(install());
        }
    };
    match routing::routed(&rules) {
        Routed::Quiet(id) => Check::new(AREA, NAME, Outcome::Ok, format!("`{id}` keeps our events quiet")),
        Routed::Nowhere => {
            let detail =
                "no rule of the platform's router takes our events, so it files each as a dead letter";
            Check::new(AREA, NAME, Outcome::Warn, detail).next(install())
        }
        Routed::Loud(id) => {
            let detail = format!("rule `{id}` sends our events on, which costs a model call each");
            Check::new(AREA, NAME, Outcome::Warn, detail).next(install())
        }
        Routed::Unclear(id) => {
            let detail = format!("rule `{id}` comes first, and its logic is not understood here");
            Check::new(AREA, NAME, Outcome::Skipped, detail).next(install())
        }
    }
}

/// Counts our events among the messages that the router could not route lately. A bus without retention yields none.
async fn dead_letters(app: &App, bus: &dyn EventBus) -> u64 {
    if !matches!(app.settings.bus.target, BusTarget::Nats(_)) {
        return 0;
    }
    let (seconds, patience) = LOOKBACK;
    let since = app.clock.now().plus_secs(-seconds);
    let filter = Filter::Topic(names::ROUTER_DEAD_LETTERS.to_owned());
    let Ok(letters) = bus.tail(&filter, Some(since)).await else {
        return 0;
    };
    let ours = letters.filter_map(|letter| {
        let body = letter
            .ok()
            .and_then(|letter| serde_json::from_slice::<Value>(&letter.data).ok());
        let kind = body
            .as_ref()
            .and_then(|body| text(body, &["payload", "originalType"]));
        std::future::ready(kind.and_then(EventKind::from_wire))
    });
    let ours = ours.take_until(tokio::time::sleep(patience));
    ours.fold(0, |count, _| std::future::ready(count + 1)).await
}

/// Predicts a day's events on the bus.
fn volume(app: &App) -> Check {
    let sources = app.settings.sources.len() as u64;
    let heartbeat = app.settings.bus.heartbeat;
    let day = expected(app);
    let detail = format!(
        "expected on the bus for {1} with `watch`: {0} a day, never more than 5/s beside transitions",
        humane::count(day.events(), "event"),
        humane::count(sources, "configured source"),
    );
    let trouble = if !day.keeps_pace {
        format!(
            "at that pace heartbeats come less often than every {} s",
            heartbeat.as_secs()
        )
    } else if day.events() > PLATFORM_PACE * 86_400 / 2 {
        "that is more than half of what BitBrat's own persistence keeps up with on PostgreSQL".to_owned()
    } else {
        return Check::new(AREA, "volume", Outcome::Ok, detail);
    };
    let detail = format!("{detail}; {trouble}");
    Check::new(AREA, "volume", Outcome::Warn, detail)
        .next("bitbrat config show  # bus.heartbeat: longer means fewer events")
}

/// Returns the events of a usual day on the bus.
fn expected(app: &App) -> Volume {
    let sources = app.settings.sources.len() as u64;
    let usual = Workload::usual(sources, Duration::ZERO);
    volume::predict(sources, app.settings.bus.heartbeat, usual.transitions)
}

/// Checks that chat is not counted twice.
fn twice(app: &App) -> Option<Check> {
    let counted = PlatformName::ALL
        .into_iter()
        .filter_map(|platform| descriptor(platform).counted_chat(&app.settings));
    let who: Vec<_> = counted.map(|chat| chat.about).collect();
    if who.is_empty() {
        return None;
    }
    let who = who.join(" and ");
    let detail =
        format!("listeners count {who}, so that on the bus is left aside; set it alike in every process");
    Some(Check::new(AREA, "chat counted once", Outcome::Ok, detail))
}
