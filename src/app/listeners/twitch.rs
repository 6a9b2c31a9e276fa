//! Twitch's EventSub in this program: its listener, and the plan that `watch --plan` shows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::app::invites::{self, InviteFile};
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::lifecycle::Stop;
use crate::platforms::descriptor::descriptor;
use crate::platforms::twitch::TwitchPlatform;
use crate::platforms::twitch::eventsub::planner::{Channel, Limits, Plan};
use crate::platforms::twitch::eventsub::{
    EventSubHandle, EventSubListener, EventSubOptions, FileMemory, Status,
};
use crate::platforms::{Listener as _, ListenerEvent, ProbeSink as _};
use crate::watch::engine::Engine;
use crate::watch::listener_context::{Established, ListenerContext, ListenerReport, ListenerTask};
use crate::watch::monitored::{MonitoredSource, MonitoredSources};

/// The listener's name, which is also that of its page.
const NAME: &str = "twitch-eventsub";
/// Capacity of the channel from the listener.
const CAPACITY: usize = 4096;
/// How often recorded consents are read.
const CONSENTS: Duration = Duration::from_mins(1);

/// Returns whether incoming chat is counted over EventSub, and hence nowhere else.
fn counts_chat(app: &App) -> bool {
    descriptor(PlatformName::Twitch)
        .counted_chat(&app.settings)
        .is_some()
}

pub(super) async fn listen(app: &App, engine: &mut Engine) -> Result<(), Failure> {
    let writer = format!("{}-eventsub", engine.instance());
    let invites = invites::file(app);
    let (channels, watched) = watch::channel(monitored(&engine.listened, &invites));
    let options = EventSubOptions {
        chat: counts_chat(app),
        restored: engine.totals(&writer).into_iter().collect(),
        writer,
        left_open: engine.left_open(Transport::EventSub),
        memory: Some(Arc::new(FileMemory::new(
            app.settings.state_dir.join("eventsub-seen"),
        ))),
        ..EventSubOptions::new(watched)
    };
    let (listener, handle) = adapter(app).await?.listener(options);
    let (compared, retried) = (handle.clone(), handle.clone());
    engine.add_observer(Arc::new(move |observation| compared.polled(observation)));
    engine.listen(ListenerTask {
        name: NAME.to_owned(),
        run: Box::new(move |context, stop| {
            let listening = Listening {
                listener,
                handle: retried,
                channels,
                invites,
            };
            Box::pin(run(listening, context, stop))
        }),
        report: Arc::new(move || report(&handle.status())),
    });
    Ok(())
}

async fn adapter(app: &App) -> Result<Arc<TwitchPlatform>, Failure> {
    app.platforms.adapter(PlatformName::Twitch).await
}

/// Without a listener, closes what an earlier run left open, so that its last report does not stay in force.
pub(super) fn leave_closed(app: &App, engine: &Engine) {
    let monitored = engine.monitored.of(PlatformName::Twitch);
    for source in engine.left_open(Transport::EventSub) {
        if !monitored.contains(&source) {
            continue;
        }
        let closed = Fact::Connection {
            transport: Transport::EventSub,
            state: LinkState::Closed,
        };
        engine.observe(Observation::new(
            &source,
            app.clock.now(),
            "twitch.eventsub",
            closed,
        ));
    }
}

/// A listener and what it depends on.
struct Listening {
    listener: EventSubListener,
    handle: EventSubHandle,
    channels: watch::Sender<Vec<Channel>>,
    invites: InviteFile,
}

/// Runs the listener, forwards its observations, and applies changes of the configuration and recorded consents to it.
async fn run(listening: Listening, context: ListenerContext, stop: Stop) {
    let Listening {
        listener,
        handle,
        channels,
        invites,
    } = listening;
    let update = || {
        let next = monitored(&context.monitored, &invites);
        channels.send_if_modified(|now| {
            let differs = *now != next;
            *now = next;
            differs
        });
    };
    let mut consents = tokio::time::interval(CONSENTS);
    consents.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (sink, mut receive) = mpsc::channel(CAPACITY);
    let (mut changes, mut tokens) = (
        context.monitored.follow(),
        context.token_changes_of(PlatformName::Twitch),
    );
    let stopped = Box::pin(async move { stop.requested().await });
    let listening = Box::new(listener).listen(stopped, sink);
    let forwarding = async {
        loop {
            tokio::select! {
                event = receive.recv() => match event {
                    Some(ListenerEvent::Observed(observation)) => context.observations.observe(observation),
                    Some(ListenerEvent::Missed { sources, probes }) => context.pollers.ask_now(&sources, &probes),
                    None => return,
                },
                () = tokens.changed() => handle.retry(),
                Ok(()) = changes.changed() => update(),
                _ = consents.tick() => update(),
            }
        }
    };
    tokio::join!(listening, forwarding);
}

fn report(status: &Status) -> ListenerReport {
    ListenerReport {
        healthy: status.is_healthy(),
        summary: status.summary(),
        connections: Some(Established {
            established: status.connected(),
            wanted: status.plan.connections.len(),
        }),
        subscriptions: Some(Established {
            established: status.enabled(),
            wanted: status.subscriptions.len(),
        }),
        detail: status.detail(),
    }
}

fn monitored(monitored: &MonitoredSources, invites: &InviteFile) -> Vec<Channel> {
    let by_platform = monitored.all();
    let twitch = by_platform.get(&PlatformName::Twitch).into_iter().flatten();
    channels(twitch, invites)
}

/// Returns the channels to plan for, with the recorded consents of their broadcasters.
fn channels<'a>(sources: impl Iterator<Item = &'a MonitoredSource>, invites: &InviteFile) -> Vec<Channel> {
    // Without the file, subscriptions cost what they cost without a consent; commands report what is wrong with it.
    let consents = invites.consents(PlatformName::Twitch).unwrap_or_default();
    sources
        .map(|source| Channel {
            source: source.key.clone(),
            priority: source.priority,
            has_consented: consents.contains(source.key.id()),
        })
        .collect()
}

/// Plans which Twitch channels `watch` would subscribe to, and which it would poll. No socket is opened; only a token that
/// was never checked is checked.
pub async fn eventsub_plan(app: &App) -> Result<(Vec<Channel>, Plan), Failure> {
    let platforms = app.platforms.needed().await?;
    let monitored_sources = app.sources.monitored(&platforms).await?;
    let channels = channels(of_twitch(&monitored_sources), &invites::file(app));
    if !app.settings.platforms.twitch.eventsub {
        let plan = Plan::nothing(&channels, OFF);
        return Ok((channels, plan));
    }
    let (chat, limits) = (counts_chat(app), Limits::default());
    let plan = adapter(app).await?.plan(&channels, chat, limits).await;
    Ok((channels, plan))
}

/// Returns the plan, as far as it follows from stored data, without any request.
pub async fn eventsub_plan_by_memory(app: &App) -> Result<Plan, Failure> {
    let monitored_sources = app.sources.remembered();
    let channels = channels(of_twitch(&monitored_sources), &invites::file(app));
    if !app.settings.platforms.twitch.eventsub {
        return Ok(Plan::nothing(&channels, OFF));
    }
    let (chat, limits) = (counts_chat(app), Limits::default());
    let twitch = adapter(app).await?;
    Ok(twitch.plan_by_memory(&channels, chat, limits).await)
}

const OFF: &str = "twitch.eventsub is switched off";

fn of_twitch(monitored_sources: &[MonitoredSource]) -> impl Iterator<Item = &MonitoredSource> {
    monitored_sources
        .iter()
        .filter(|monitored_source| monitored_source.key.platform() == PlatformName::Twitch)
}
