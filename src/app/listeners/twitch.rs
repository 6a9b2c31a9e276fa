//! Twitch's EventSub in this program: its listener on the daemon's ear, and its plan for people.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::app::App;
use crate::core::observation::{Fact, LinkState, Observation, Transport};
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::lifecycle::Stop;
use crate::platforms::twitch::eventsub::planner::{Channel, Limits, Plan};
use crate::platforms::twitch::eventsub::{EventSubListener, EventSubOptions, FileMemory, Status};
use crate::platforms::{Heard, Listener as _, ProbeSink as _};
use crate::watch::attended::{Attended, Attendee};
use crate::watch::engine::Engine;
use crate::watch::listening::{Ears, ListenerReport, Listening};

/// The listener's name, which is also that of its page.
const NAME: &str = "twitch-eventsub";
/// What the listener may tell before it waits for us.
const HEARD: usize = 4096;

/// Returns whether incoming chat of Twitch is counted over EventSub, and hence nowhere else.
pub(super) fn counts_chat(app: &App) -> bool {
    let twitch = &app.settings.twitch;
    twitch.eventsub && twitch.chat.is_eventsub(&app.settings.bus.target)
}

/// Starts the listener.
pub(super) fn listen(app: &Arc<App>, engine: &mut Engine) {
    let writer = format!("{}-eventsub", engine.instance());
    let (channels, watched) = watch::channel(attended(&engine.attended));
    let options = EventSubOptions {
        chat: counts_chat(app),
        restored: engine.totals(&writer).into_iter().collect(),
        writer,
        left_open: engine.left_open(Transport::EventSub),
        memory: Some(Arc::new(FileMemory::new(
            app.settings.state_dir.join("eventsub-heard"),
        ))),
        ..EventSubOptions::new(watched)
    };
    let (listener, handle) = app.own_twitch().listener(options);
    let compared = handle.clone();
    engine.show(Arc::new(move |observation| compared.polled(observation)));
    engine.listen(Listening {
        name: NAME.to_owned(),
        run: Box::new(move |ears, stop| Box::pin(run(listener, channels, ears, stop))),
        report: Arc::new(move || report(&handle.status())),
    });
}

/// Nobody listens: what an earlier run left open is closed, so that its last word does not stand for ever.
pub(super) fn leave_closed(app: &App, engine: &Engine) {
    let attended = engine.attended.of(PlatformName::Twitch);
    for source in engine.left_open(Transport::EventSub) {
        if !attended.contains(&source) {
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

/// Runs the listener, hands on what it hears, and lets it follow the configuration.
async fn run(listener: EventSubListener, channels: watch::Sender<Vec<Channel>>, ears: Ears, stop: Stop) {
    let (sink, mut heard) = mpsc::channel(HEARD);
    let mut changes = ears.attended.follow();
    let stopped = Box::pin(async move { stop.requested().await });
    let listening = Box::new(listener).listen(stopped, sink);
    let handing_on = async {
        loop {
            tokio::select! {
                told = heard.recv() => match told {
                    Some(Heard::Observed(observation)) => ears.intake.observe(observation),
                    Some(Heard::Missed { sources, probes }) => ears.lanes.ask_now(&sources, &probes),
                    None => return,
                },
                Ok(()) = changes.changed() => {
                    let next = attended(&ears.attended);
                    channels.send_if_modified(|now| {
                        let differs = *now != next;
                        *now = next;
                        differs
                    });
                }
            }
        }
    };
    tokio::join!(listening, handing_on);
}

fn report(status: &Status) -> ListenerReport {
    ListenerReport {
        healthy: status.is_healthy(),
        summary: status.summary(),
        detail: status.detail(),
    }
}

fn attended(attended: &Attended) -> Vec<Channel> {
    let roll = attended.all();
    let twitch = roll.get(&PlatformName::Twitch).into_iter().flatten();
    twitch.map(channel).collect()
}

fn channel(attendee: &Attendee) -> Channel {
    Channel {
        source: attendee.key.clone(),
        priority: attendee.priority,
    }
}

impl App {
    /// Plans which Twitch channels `watch` would listen to, and which it would poll. No socket is opened; only a token that
    /// was never checked is.
    pub async fn eventsub_plan(&self) -> Result<(Vec<Channel>, Plan), Failure> {
        let platforms = self.platforms().await?;
        let attendees = self.attendees(&platforms).await?;
        let channels: Vec<_> = of_twitch(&attendees).collect();
        if !self.settings.twitch.eventsub {
            let plan = Plan::nothing(&channels, OFF);
            return Ok((channels, plan));
        }
        let (chat, limits) = (counts_chat(self), Limits::default());
        let plan = self.own_twitch().plan(&channels, chat, limits).await;
        Ok((channels, plan))
    }

    /// Says what the plan is for one source, as far as that is known without asking anybody.
    pub async fn eventsub_plan_by_memory(&self) -> Plan {
        let attendees = self.remembered();
        let channels: Vec<_> = of_twitch(&attendees).collect();
        if !self.settings.twitch.eventsub {
            return Plan::nothing(&channels, OFF);
        }
        let (chat, limits) = (counts_chat(self), Limits::default());
        self.own_twitch().plan_by_memory(&channels, chat, limits).await
    }
}

const OFF: &str = "twitch.eventsub is switched off";

fn of_twitch(attendees: &[Attendee]) -> impl Iterator<Item = Channel> {
    attendees
        .iter()
        .filter(|attendee| attendee.key.platform() == PlatformName::Twitch)
        .map(channel)
}
