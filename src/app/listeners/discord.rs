//! Discord's gateway in the daemon: one connection, replaced when the guilds or the token change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::Value;
use tracing::info;

use crate::app::App;
use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::observation::ErrorInfo;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::stream::evidence::StreamEvidence;
use crate::failure::Failure;
use crate::lifecycle::Stop;
use crate::platforms::discord::DiscordPlatform;
use crate::platforms::discord::gateway::{Board, GatewayOptions, Shutdown};
use crate::watch::engine::Engine;
use crate::watch::listener_context::{Established, ListenerContext, ListenerReport, ListenerTask};
use crate::watch::monitored::MonitoredSource;

pub(super) async fn start(app: &App, engine: &mut Engine) -> Result<(), Failure> {
    let writer = format!("{}-gateway", engine.instance());
    let board = Arc::<Board>::default();
    let task = GatewayTask {
        restored: engine.totals(&writer).into_iter().collect(),
        streams: engine.streams(PlatformName::Discord).into_iter().collect(),
        discord: app.platforms.adapter(PlatformName::Discord).await?,
        board: Arc::clone(&board),
        writer,
    };
    engine.listen(ListenerTask {
        name: "discord-gateway".to_owned(),
        run: Box::new(move |context, stop| task.run(context, stop).boxed()),
        report: Arc::new(move || report(&board)),
    });
    Ok(())
}

/// Receives events for the daemon.
struct GatewayTask {
    discord: Arc<DiscordPlatform>,
    board: Arc<Board>,
    writer: String,
    restored: BTreeMap<SourceKey, Counters>,
    /// What an earlier process had stored, for the first listener.
    streams: BTreeMap<SourceKey, StreamEvidence>,
}

/// Returns the guilds that the gateway reports: the bot's, not those of other bots.
async fn reported_guilds(discord: &DiscordPlatform, context: &ListenerContext) -> Vec<MonitoredSource> {
    let others = discord
        .with_own_bot(&context.monitored.of(PlatformName::Discord))
        .await;
    let all = context.monitored.all();
    let guilds = all.get(&PlatformName::Discord).into_iter().flatten();
    guilds
        .filter(|guild| !others.contains(&guild.key))
        .cloned()
        .collect()
}

impl GatewayTask {
    async fn run(mut self, context: ListenerContext, stop: Stop) {
        let (mut changes, mut tokens) = (context.monitored.follow(), self.discord.token_changes());
        loop {
            let sources = reported_guilds(&self.discord, &context).await;
            changes.mark_unchanged();
            tokens.mark_unchanged();
            let options = GatewayOptions {
                sources: sources.iter().map(|guild| guild.key.clone()).collect(),
                restored: self.restored.clone(),
                // Later listeners resume the session that was stored when the previous one ended.
                streams: std::mem::take(&mut self.streams),
                writer: self.writer.clone(),
                board: Arc::clone(&self.board),
                ..GatewayOptions::default()
            };
            let another = async {
                loop {
                    tokio::select! {
                        changed = changes.changed() => match changed {
                            Ok(()) => {
                                if reported_guilds(&self.discord, &context).await != sources {
                                    return "the guilds";
                                }
                            }
                            Err(_) => std::future::pending().await,
                        },
                        changed = tokens.changed() => match changed {
                            Ok(()) => return "the token",
                            Err(_) => std::future::pending().await,
                        },
                    }
                }
            };
            let ending = async {
                tokio::select! {
                    () = stop.requested() => Shutdown::Final,
                    what = another => {
                        info!("Listens to Discord's gateway anew, because {what} changed");
                        Shutdown::Handover
                    }
                }
            };
            match self.discord.listener(options) {
                Ok(listener) if !sources.is_empty() => {
                    let totals = listener.run(ending, context.channel("discord-gateway")).await;
                    self.restored.extend(totals);
                }
                Ok(_) => {
                    ending.await;
                }
                Err(error) => {
                    self.board.cannot(
                        sources.len(),
                        ErrorInfo::new(Code::NotConfigured(PlatformName::Discord), error.to_string()),
                    );
                    ending.await;
                }
            }
            if stop.is_requested() {
                return;
            }
        }
    }
}

fn report(board: &Board) -> ListenerReport {
    let status = board.read();
    let mut detail = serde_json::to_value(&status).unwrap_or_default();
    if let Value::Object(fields) = &mut detail {
        fields.insert("enabled".to_owned(), true.into());
    }
    ListenerReport {
        healthy: status.is_healthy(),
        summary: status.summary(),
        connections: Some(Established {
            established: usize::from(status.state == "CONNECTED"),
            wanted: usize::from(status.guilds > 0),
        }),
        subscriptions: None,
        detail,
    }
}

/// Returns the id of Discord's application that the bot belongs to, with one request; `None` when Discord does not return it.
pub async fn discord_application(app: &App, guild: &SourceKey) -> Option<String> {
    let discord: Arc<DiscordPlatform> = app.platforms.adapter(PlatformName::Discord).await.ok()?;
    discord.application_id(guild).await
}
