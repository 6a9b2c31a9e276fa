//! The listeners that the configuration asks for, each put on the daemon's ear.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::json;

use super::{App, eventsub};
use crate::core::source::PlatformName;
use crate::failure::Failure;
use crate::platforms::discord::gateway::GatewayOptions;
use crate::platforms::kick::webhook;
use crate::platforms::{Probe, ProbeSet, ProbeSink as _};
use crate::watch::engine::Engine;
use crate::watch::listening::{ListenerReport, Listening};

/// How often webhooks are held against what polls have found.
const COMPARE: Duration = Duration::from_secs(30);

/// Starts the listeners. Returns the pages that some of them bring.
pub(super) async fn start(app: &Arc<App>, engine: &mut Engine) -> Result<Router, Failure> {
    let attended = engine.attended.all();
    let has = |platform: PlatformName| attended.contains_key(&platform);
    if has(PlatformName::Twitch) && app.settings.twitch.eventsub {
        eventsub::listen(app, engine);
    } else {
        eventsub::leave_closed(app, engine);
    }
    if has(PlatformName::Discord) && app.settings.discord.gateway {
        gateway(app, engine).await?;
    }
    let mut pages = Router::new();
    if has(PlatformName::Kick) && app.settings.kick.webhook {
        pages = pages.merge(webhooks(app, engine));
    }
    Ok(pages)
}

async fn gateway(app: &Arc<App>, engine: &mut Engine) -> Result<(), Failure> {
    let writer = format!("{}-gateway", engine.instance());
    let options = GatewayOptions {
        sources: engine.attended.of(PlatformName::Discord),
        restored: engine.totals(&writer).into_iter().collect(),
        writer,
        ..GatewayOptions::default()
    };
    let listener = app.own_discord().await?.listener(options)?;
    engine.listen(Listening {
        name: "discord-gateway".to_owned(),
        run: Box::new(move |ears, stop| {
            let sink = ears.channel("discord-gateway");
            Box::pin(async move { listener.run(async move { stop.requested().await }, sink).await })
        }),
        report: Arc::new(|| ListenerReport {
            healthy: true,
            summary: "keeps a gateway connection; its state is that of its guilds".to_owned(),
            detail: json!({"enabled": true}),
        }),
    });
    Ok(())
}

fn webhooks(app: &Arc<App>, engine: &mut Engine) -> Router {
    let writer = format!("{}-webhook", engine.instance());
    let (out, mut heard) = tokio::sync::mpsc::channel(4096);
    let kick = app.own_kick();
    let hook = kick.webhook_listener(out, &writer);
    hook.track(&engine.attended.of(PlatformName::Kick));
    for (source, totals) in engine.totals(&writer) {
        hook.restore(&source, totals);
    }
    let learning = Arc::clone(&hook);
    engine.show(Arc::new(move |observation| learning.learn(observation)));
    let (running, counting) = (Arc::clone(&hook), Arc::clone(&hook));
    engine.listen(Listening {
        name: "kick-webhook".to_owned(),
        run: Box::new(move |ears, stop| {
            Box::pin(async move {
                let mut changes = ears.attended.follow();
                let mut compare = tokio::time::interval(COMPARE);
                loop {
                    tokio::select! {
                        Some(observation) = heard.recv() => ears.intake.observe(observation),
                        Ok(()) = changes.changed() => running.track(&ears.attended.of(PlatformName::Kick)),
                        _ = compare.tick() => {
                            for (source, observations) in running.fallen_silent() {
                                for observation in observations { ears.intake.observe(observation); }
                                ears.lanes.ask_now(&[source], &ProbeSet::from([Probe::Stream]));
                            }
                        }
                        () = stop.requested() => return,
                    }
                }
            })
        }),
        report: Arc::new(move || {
            let counts = counting.counts();
            ListenerReport {
                healthy: true,
                summary: format!("{} webhooks accepted", counts.accepted),
                detail: json!({
                    "enabled": true, "accepted": counts.accepted, "forged": counts.forged, "stale": counts.stale,
                    "duplicate": counts.duplicate, "other": counts.other, "untracked": counts.untracked,
                    "unusable": counts.unusable, "oversized": counts.oversized, "heldOff": counts.held_off,
                }),
            }
        }),
    });
    webhook::routes(hook)
}
