//! Discord's gateway in the daemon: one connection, begun anew when the guilds or the token change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::Value;
use tracing::info;

use crate::app::App;
use crate::core::counters::Counters;
use crate::core::observation::ErrorInfo;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::Failure;
use crate::lifecycle::Stop;
use crate::platforms::discord::DiscordPlatform;
use crate::platforms::discord::gateway::{Board, Ending, GatewayOptions};
use crate::watch::attended::Attendee;
use crate::watch::engine::Engine;
use crate::watch::listening::{Ears, ListenerReport, Listening};

/// Starts listening to the gateway.
pub(super) async fn start(app: &App, engine: &mut Engine) -> Result<(), Failure> {
    let writer = format!("{}-gateway", engine.instance());
    let board = Arc::<Board>::default();
    let ear = Ear {
        restored: engine.totals(&writer).into_iter().collect(),
        discord: app.own_discord().await?,
        board: Arc::clone(&board),
        writer,
    };
    engine.listen(Listening {
        name: "discord-gateway".to_owned(),
        run: Box::new(move |ears, stop| ear.run(ears, stop).boxed()),
        report: Arc::new(move || report(&board)),
    });
    Ok(())
}

/// Listens for the daemon.
struct Ear {
    discord: Arc<DiscordPlatform>,
    board: Arc<Board>,
    writer: String,
    restored: BTreeMap<SourceKey, Counters>,
}

/// Returns the guilds that the gateway tells of: the bot's, not those of other bots.
async fn heard(discord: &DiscordPlatform, ears: &Ears) -> Vec<Attendee> {
    let others = discord
        .with_own_bot(&ears.attended.of(PlatformName::Discord))
        .await;
    let all = ears.attended.all();
    let guilds = all.get(&PlatformName::Discord).into_iter().flatten();
    guilds
        .filter(|guild| !others.contains(&guild.key))
        .cloned()
        .collect()
}

impl Ear {
    async fn run(mut self, ears: Ears, stop: Stop) {
        let (mut changes, mut tokens) = (ears.attended.follow(), self.discord.token_changes());
        loop {
            let sources = heard(&self.discord, &ears).await;
            changes.mark_unchanged();
            tokens.mark_unchanged();
            let options = GatewayOptions {
                sources: sources.iter().map(|guild| guild.key.clone()).collect(),
                restored: self.restored.clone(),
                writer: self.writer.clone(),
                board: Arc::clone(&self.board),
                ..GatewayOptions::default()
            };
            let another = async {
                loop {
                    tokio::select! {
                        changed = changes.changed() => match changed {
                            Ok(()) => {
                                if heard(&self.discord, &ears).await != sources {
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
                    () = stop.requested() => Ending::Farewell,
                    what = another => {
                        info!("Listens to Discord's gateway anew, because {what} changed");
                        Ending::HandOver
                    }
                }
            };
            match self.discord.listener(options) {
                Ok(listener) if !sources.is_empty() => {
                    let totals = listener.run(ending, ears.channel("discord-gateway")).await;
                    self.restored.extend(totals);
                }
                Ok(_) => {
                    ending.await;
                }
                Err(error) => {
                    self.board
                        .cannot(sources.len(), ErrorInfo::new("config.token", error.to_string()));
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
        detail,
    }
}
