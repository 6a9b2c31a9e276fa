//! `--demo`: the simulated platforms in this process, with everything that a new user would have to configure.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::app::world::{self, Setting, World};
use crate::clock::Clock;
use crate::config::{self, StoreTarget};
use crate::core::observation::{Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::sim::twitch::demo::{DemoToken, start_timeline, start_timeline_for_listeners};
use crate::sim::{Sim, SimOptions};
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenKind, TokenRecord, TokenStore};

/// A running demo. The simulation ends when this is dropped.
pub struct Demo {
    sim: Sim,
    world: World,
    tokens: Arc<dyn TokenStore>,
    home: TempDir,
    _timeline: Option<AbortOnDropHandle<()>>,
}

/// When the demo world begins to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Never by itself.
    None,
    /// At once.
    AtOnce,
    /// When a daemon has subscribed to what changes first.
    WithListeners,
}

impl Demo {
    /// Starts the simulated platforms on free ports.
    pub async fn start(clock: Arc<dyn Clock>, motion: Motion) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(ExitCode::Failed, "cannot start the demo").because(&error);
        let home = tempfile::Builder::new()
            .prefix("bitbrat-demo-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir()
            .map_err(failed)?;
        let options = SimOptions {
            clock: Arc::clone(&clock),
            ..SimOptions::default()
        };
        let sim = Sim::start(options).await.map_err(failed)?;
        let world = World::populate(&sim);
        let tokens: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
        for (identity, token) in tokens_of(&world, clock.now()) {
            let record = TokenRecord {
                token: Some(token),
                ..TokenRecord::default()
            };
            tokens
                .lease(&Identity::named(identity))
                .await?
                .save(&record)
                .await?;
        }
        Ok(Self {
            _timeline: match motion {
                Motion::None => None,
                Motion::AtOnce => Some(start_timeline(&sim.twitch)),
                Motion::WithListeners => Some(start_timeline_for_listeners(&sim.twitch)),
            },
            sim,
            world,
            tokens,
            home,
        })
    }

    /// Returns the demo's configuration. Tokens are not part of it: they are in the demo's own store.
    pub fn configuration(&self) -> config::Demo {
        let mut platforms = Vec::new();
        let mut sources = Vec::new();
        for platform in PlatformName::ALL {
            platforms.extend(world::addresses(&self.sim, platform));
            platforms.extend(self.world.application(platform));
            sources.extend(self.world.sources_with_channels(platform));
        }
        platforms.push(("sources", sources.join(" ")));
        let fallbacks = vec![
            ("state_dir", self.home.path().display().to_string()),
            ("store.url", format!("sqlite:{}", self.store_path().display())),
        ];
        let owned = |settings: Vec<Setting>| {
            settings
                .into_iter()
                .map(|(path, value)| (path.to_owned(), value))
                .collect()
        };
        config::Demo {
            platforms: owned(platforms),
            fallbacks: owned(fallbacks),
        }
    }

    /// Whether `store` is the temporary one of the demo.
    pub fn owns(&self, store: &StoreTarget) -> bool {
        match store {
            StoreTarget::Sqlite(path) => *path == self.store_path(),
            StoreTarget::Memory => true,
            StoreTarget::Firestore { .. } => false,
        }
    }

    /// Returns the demo's tokens.
    pub fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::clone(&self.tokens)
    }

    /// Returns what a listener would have received before the demo began: a stream that polls do not show yet.
    pub fn backstory(&self) -> Vec<Observation> {
        let stream = &self.world.twitch.just_live;
        let started = Fact::StreamPush {
            live: true,
            stream_id: Some(stream.stream_id.clone()),
            started_at: Some(stream.started_at),
        };
        SourceKey::new(PlatformName::Twitch, &stream.user_id)
            .map(|key| Observation::new(&key, stream.started_at, "twitch.eventsub", started))
            .into_iter()
            .collect()
    }

    fn store_path(&self) -> std::path::PathBuf {
        self.home.path().join("bitbrat.db")
    }
}

/// Returns every token of the world, by identity.
fn tokens_of(world: &World, now: Timestamp) -> Vec<(String, StoredToken)> {
    let twitch = &world.twitch;
    let mut tokens = vec![
        ("twitch/bot".to_owned(), stored(&twitch.client_id, &twitch.bot)),
        ("kick/bot".to_owned(), kick_bot(world, now)),
        (
            "discord/bot".to_owned(),
            StoredToken::unproven(world.discord.token.clone(), now),
        ),
    ];
    tokens.extend(world.discord.own_tokens.iter().map(|(guild, token)| {
        let token = StoredToken::unproven(token.clone(), now);
        (format!("discord/bot:{guild}"), token)
    }));
    tokens.extend(twitch.broadcasters.iter().map(|token| {
        let identity = format!("twitch/broadcaster:{}", token.user_id);
        (identity, stored(&twitch.client_id, token))
    }));
    tokens
}

fn stored(client_id: &str, token: &DemoToken) -> StoredToken {
    StoredToken {
        kind: TokenKind::User,
        access: token.access.clone().into(),
        refresh: Some(RefreshToken::fresh(token.refresh.clone())),
        client_id: Some(client_id.to_owned()),
        user_id: Some(token.user_id.clone()),
        login: None,
        scopes: token.scopes.iter().cloned().collect(),
        obtained_at: token.obtained_at,
        expires_at: Some(token.obtained_at.plus_secs(token.expires_in)),
    }
}

/// Only the text of Kick's token is stored: the platform returns the rest.
fn kick_bot(world: &World, now: Timestamp) -> StoredToken {
    let mut token = StoredToken::unproven(world.kick.bot_access.clone(), now);
    token.refresh = Some(RefreshToken::fresh(world.kick.bot_refresh.clone()));
    token.client_id = Some(world.kick.client_id.clone());
    token
}
