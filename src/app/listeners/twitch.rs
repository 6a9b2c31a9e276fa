//! Twitch's EventSub in this program: its listener, and the plan that `watch --plan` shows.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::twitch_webhook;
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
    ConduitFile, ConduitOptions, EventSubHandle, EventSubListener, EventSubOptions, FileMemory, PlanOptions,
    Status,
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

/// Starts the listener. Returns the route of its webhook, if there is one; without `served` that has no effect.
pub(super) async fn listen(app: &App, engine: &mut Engine, served: bool) -> Result<Router, Failure> {
    let writer = format!("{}-eventsub", engine.instance());
    let invites = invites::file(app);
    let (channels, watched) = watch::channel(monitored(&engine.listened, &invites));
    let settings = &app.settings.platforms.twitch;
    let state_dir = &app.settings.state_dir;
    let options = EventSubOptions {
        transport: settings.transport,
        conduit: ConduitOptions {
            id: settings.conduit.id.clone(),
            shard_count: settings.conduit.shard_count,
            own_shards: settings.conduit.own_shards.clone(),
            memory: Some(Arc::new(ConduitFile::new(state_dir.join("eventsub-conduit")))),
        },
        chat: counts_chat(app),
        restored: engine.totals(&writer).into_iter().collect(),
        writer,
        left_open: engine.left_open(Transport::EventSub),
        memory: Some(Arc::new(FileMemory::new(state_dir.join("eventsub-seen")))),
        ..EventSubOptions::new(watched)
    };
    let adapter = adapter(app).await?;
    let (listener, handle) = adapter.listener(options);
    let mut pages = Router::new();
    if let Some(webhook) = &settings.webhook {
        if served {
            pages = twitch_webhook::start(engine, &adapter, handle.clone(), webhook, state_dir);
        } else {
            warn!("twitch.webhook_url needs web.listen, or nothing can be delivered");
        }
    }
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
    Ok(pages)
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
    let plan = adapter(app).await?.plan(&channels, &plan_options(app)).await;
    Ok((channels, plan))
}

/// Returns the plan, as far as it follows from stored data, without any request.
pub async fn eventsub_plan_by_memory(app: &App) -> Result<Plan, Failure> {
    let monitored_sources = app.sources.remembered();
    let channels = channels(of_twitch(&monitored_sources), &invites::file(app));
    if !app.settings.platforms.twitch.eventsub {
        return Ok(Plan::nothing(&channels, OFF));
    }
    let twitch = adapter(app).await?;
    Ok(twitch.plan_by_memory(&channels, &plan_options(app)).await)
}

fn plan_options(app: &App) -> PlanOptions {
    PlanOptions {
        chat: counts_chat(app),
        limits: Limits::default(),
        transport: app.settings.platforms.twitch.transport,
    }
}

const OFF: &str = "twitch.eventsub is switched off";

fn of_twitch(monitored_sources: &[MonitoredSource]) -> impl Iterator<Item = &MonitoredSource> {
    monitored_sources
        .iter()
        .filter(|monitored_source| monitored_source.key.platform() == PlatformName::Twitch)
}
