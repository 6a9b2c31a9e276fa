//! Kick's webhooks in the daemon: the web server receives deliveries, their subscriptions are compared with Kick's list, and
//! polls are compared with both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::App;
use crate::clock::Clock;
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::failure::Failure;
use crate::lifecycle::Stop;
use crate::platforms::kick::webhook::{self, WebhookListener};
use crate::platforms::kick::{KickPlatform, Reconciled};
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink as _};
use crate::watch::engine::Engine;
use crate::watch::listener_context::{ListenerContext, ListenerReport, ListenerTask};

/// How often webhooks are compared with the results of polls.
const COMPARE: Duration = Duration::from_secs(30);
/// How often subscriptions are compared with Kick's list. Kick removes them after a day of failed deliveries, and all of them
/// when the switch in its settings is turned off.
const RECONCILE: Duration = Duration::from_mins(15);
/// Delay before the next attempt when something was left over or could not be determined.
const AGAIN: Duration = Duration::from_mins(1);
/// Deliveries that may wait to be processed.
const CAPACITY: usize = 4_096;

/// Starts receiving webhooks. Returns the route that Kick posts to.
pub(super) async fn start(app: &App, engine: &mut Engine) -> Result<Router, Failure> {
    let writer = format!("{}-webhook", engine.instance());
    let (out, receive) = mpsc::channel(CAPACITY);
    let kick: Arc<KickPlatform> = app.platforms.adapter(PlatformName::Kick).await?;
    let hook = kick.webhook_listener(out, &writer);
    hook.track(&engine.listened.of(PlatformName::Kick));
    for (source, totals) in engine.totals(&writer) {
        hook.restore(&source, totals);
    }
    let updating = Arc::clone(&hook);
    engine.add_observer(Arc::new(move |observation| updating.update(observation)));
    let standing = Arc::new(Standing::default());
    let task = Receiver {
        kick,
        hook: Arc::clone(&hook),
        standing: Arc::clone(&standing),
        clock: Arc::clone(&app.machine_clock),
    };
    let counting = Arc::clone(&hook);
    engine.listen(ListenerTask {
        name: "kick-webhook".to_owned(),
        run: Box::new(move |context, stop| task.run(receive, context, stop).boxed()),
        report: Arc::new(move || standing.report(&counting)),
    });
    Ok(webhook::routes(hook))
}

type Round = Result<Reconciled, PlatformError>;

struct Receiver {
    kick: Arc<KickPlatform>,
    hook: Arc<WebhookListener>,
    standing: Arc<Standing>,
    clock: Arc<dyn Clock>,
}

impl Receiver {
    async fn run(self, mut receive: mpsc::Receiver<Observation>, context: ListenerContext, stop: Stop) {
        let mut changes = context.monitored.follow();
        let mut tokens = context.token_changes_of(PlatformName::Kick);
        let mut compare = tokio::time::interval(COMPARE);
        let mut due = Instant::now();
        let mut renew: BTreeSet<SourceKey> = BTreeSet::new();
        let mut rounds: FuturesUnordered<BoxFuture<'_, Round>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(observation) = receive.recv() => {
                    self.standing.lock().silent.remove(&observation.source);
                    context.observations.observe(observation);
                }
                Ok(()) = changes.changed() => {
                    self.hook.track(&context.monitored.of(PlatformName::Kick));
                    due = Instant::now();
                }
                () = tokens.changed() => due = Instant::now(),
                _ = compare.tick() => {
                    for (source, observations) in self.hook.take_missing() {
                        warn!(source.key = %source, "Kick's webhooks of this source are silent; their subscriptions are renewed");
                        for observation in observations { context.observations.observe(observation); }
                        context.pollers.ask_now(std::slice::from_ref(&source), &ProbeSet::from([Probe::Stream]));
                        self.standing.lock().silent.insert(source.clone());
                        renew.insert(source);
                        due = Instant::now();
                    }
                }
                Some(round) = rounds.next() => due = Instant::now() + self.finish_round(round),
                () = tokio::time::sleep_until(due), if rounds.is_empty() => {
                    let wanted = context.monitored.of(PlatformName::Kick);
                    let renewed: Vec<_> = std::mem::take(&mut renew).into_iter().collect();
                    // Changes leave polls, which are authoritative, as much of the quota as they need.
                    let share = self.kick.share_for_changes(wanted.len());
                    let (kick, observations) = (&self.kick, context.observations.clone());
                    rounds.push(async move {
                        kick.reconcile_webhooks(&wanted, &renewed, share, &observations).await
                    }.boxed());
                }
                () = stop.requested() => break,
            }
        }
        // Deliveries that were answered with 200 must not be lost.
        while let Ok(observation) = receive.try_recv() {
            context.observations.observe(observation);
        }
    }

    /// Processes the result of a round; returns when the next one is due.
    fn finish_round(&self, round: Round) -> Duration {
        let mut checked = self.standing.lock();
        let before = checked.trouble.take();
        let pause = match round {
            Ok(reconciled) => {
                let pause = if reconciled.left > 0 { AGAIN } else { RECONCILE };
                if reconciled.created + reconciled.deleted > 0 {
                    let (created, deleted) = (reconciled.created, reconciled.deleted);
                    info!(created, deleted, "Kick's event subscriptions were updated");
                }
                for problem in &reconciled.problems {
                    if !checked.last.problems.contains(problem) {
                        warn!("Kick's webhooks: {problem}");
                    }
                }
                checked.at = Some(self.clock.now());
                checked.last = reconciled;
                pause
            }
            Err(error) => {
                checked.trouble = Some(format!("subscriptions cannot be checked: {error}"));
                AGAIN
            }
        };
        if let Some(trouble) = checked
            .trouble
            .as_ref()
            .filter(|now| before.as_ref() != Some(*now))
        {
            warn!("Kick's webhooks: {trouble}");
        }
        pause
    }
}

/// Status of the subscriptions.
#[derive(Default)]
struct Standing(Mutex<Checked>);

#[derive(Default)]
struct Checked {
    /// When they were last compared with Kick's list.
    at: Option<Timestamp>,
    last: Reconciled,
    trouble: Option<String>,
    /// Sources whose changes polls detected and no webhook reported.
    silent: BTreeSet<SourceKey>,
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, Checked> {
        self.0.lock()
    }

    fn report(&self, hook: &WebhookListener) -> ListenerReport {
        let (counts, checked) = (hook.counts(), self.lock());
        let why_not = match (&checked.trouble, checked.at) {
            (Some(trouble), _) => Some(trouble.clone()),
            (None, None) => Some("subscriptions were not checked yet".to_owned()),
            (None, Some(_)) => None,
        };
        // What single sources lack is reported with those sources; that others receive nothing is no reason to restart.
        let mut summary = format!("{} webhooks accepted", counts.accepted);
        for (count, what) in [
            (checked.last.left, "sources yet to be subscribed"),
            (checked.last.problems.len(), "sources refused"),
            (checked.silent.len(), "sources SILENT"),
        ] {
            if count > 0 {
                summary += &format!(", {count} {what}");
            }
        }
        ListenerReport {
            healthy: why_not.is_none(),
            summary: why_not.unwrap_or(summary),
            connections: None,
            subscriptions: None,
            detail: json!({
                "enabled": true, "accepted": counts.accepted, "forged": counts.forged, "stale": counts.stale,
                "duplicate": counts.duplicate, "other": counts.other, "untracked": counts.untracked,
                "unusable": counts.unusable, "oversized": counts.oversized, "heldOff": counts.held_off,
                "subscriptions": {
                    "checkedAt": checked.at, "created": checked.last.created, "deleted": checked.last.deleted,
                    "left": checked.last.left, "problems": checked.last.problems,
                },
                "silent": checked.silent, "problem": checked.trouble,
            }),
        }
    }
}
