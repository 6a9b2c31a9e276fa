//! `--demo`: the simulated platforms in this process, with everything a newcomer would have to configure.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::config::{self, StoreTarget};
use crate::core::observation::{Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::sim::twitch::demo::{DemoToken, DemoWorld, populate, start_timeline};
use crate::sim::{Sim, SimOptions};
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenKind, TokenRecord, TokenStore};

/// A running demo. Everything ends when this is dropped.
pub struct Demo {
    sim: Sim,
    twitch: DemoWorld,
    tokens: Arc<dyn TokenStore>,
    home: TempDir,
    _timeline: AbortOnDropHandle<()>,
}

impl Demo {
    /// Starts the simulated platforms on free ports.
    pub async fn start(clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(ExitCode::Failed, "cannot start the demo").because(&error);
        let home = tempfile::Builder::new()
            .prefix("bitbrat-demo-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir()
            .map_err(failed)?;
        let options = SimOptions {
            clock,
            ..SimOptions::default()
        };
        let sim = Sim::start(options).await.map_err(failed)?;
        let twitch = populate(&sim.twitch);
        let tokens: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
        keep(&*tokens, "twitch/bot", &twitch, &twitch.bot).await?;
        for token in &twitch.broadcasters {
            let identity = format!("twitch/broadcaster:{}", token.user_id);
            keep(&*tokens, &identity, &twitch, token).await?;
        }
        Ok(Self {
            _timeline: start_timeline(&sim.twitch),
            sim,
            twitch,
            tokens,
            home,
        })
    }

    /// Returns what is configured for the demo.
    pub fn configuration(&self) -> config::Demo {
        let urls = self.sim.twitch.urls();
        let sources: Vec<String> = self
            .twitch
            .sources
            .iter()
            .map(|id| format!("twitch:{id}"))
            .collect();
        let platforms = [
            ("twitch.client_id", self.twitch.client_id.clone()),
            ("twitch.client_secret", self.twitch.client_secret.clone()),
            ("twitch.bot_user_id", self.twitch.bot.user_id.clone()),
            ("twitch.auth_url", urls.auth),
            ("twitch.helix_url", urls.helix),
            ("twitch.eventsub_rest_url", urls.eventsub_rest),
            ("twitch.eventsub_ws_url", urls.eventsub_ws),
            ("sources", sources.join(" ")),
        ];
        let fallbacks = [
            ("state_dir", self.home.path().display().to_string()),
            ("store.url", format!("sqlite:{}", self.store_path().display())),
        ];
        let owned = |(path, value): (&str, String)| (path.to_owned(), value);
        config::Demo {
            platforms: platforms.map(owned).to_vec(),
            fallbacks: fallbacks.map(owned).to_vec(),
        }
    }

    /// Whether `store` is the one that vanishes with the demo.
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

    /// Returns what a listener would have heard before the demo began: a stream that polls do not show yet.
    pub fn backstory(&self) -> Vec<Observation> {
        let stream = &self.twitch.just_live;
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

async fn keep(
    tokens: &dyn TokenStore,
    identity: &str,
    world: &DemoWorld,
    token: &DemoToken,
) -> Result<(), Failure> {
    let stored = StoredToken {
        kind: TokenKind::User,
        access: token.access.clone().into(),
        refresh: Some(RefreshToken::fresh(token.refresh.clone())),
        client_id: Some(world.client_id.clone()),
        user_id: Some(token.user_id.clone()),
        login: None,
        scopes: token.scopes.iter().cloned().collect(),
        obtained_at: token.obtained_at,
        expires_at: Some(token.obtained_at.plus_secs(token.expires_in)),
    };
    let lease = tokens.lease(&Identity::named(identity)).await?;
    let record = TokenRecord {
        token: Some(stored),
        ..TokenRecord::default()
    };
    lease.save(&record).await?;
    Ok(())
}
