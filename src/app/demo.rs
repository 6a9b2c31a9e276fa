//! `--demo`: the simulated platforms in this process, with everything that a new user would have to configure.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::config::{self, StoreTarget};
use crate::core::observation::{Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::sim::twitch::demo::{start_timeline, start_timeline_for_listeners};
use crate::sim::{DemoLogin, DemoWorlds, Setting, Sim, SimOptions};
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenStore, TokenStoreExt as _};

/// A running demo. The simulation ends when this is dropped.
pub struct Demo {
    sim: Sim,
    worlds: DemoWorlds,
    tokens: Arc<dyn TokenStore>,
    home: TempDir,
    _timeline: Option<AbortOnDropHandle<()>>,
}

/// When the demo world begins to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Never by itself.
    None,
    AtOnce,
    /// When a daemon has subscribed to what changes first.
    WithListeners,
}

impl Demo {
    /// Starts the simulated platforms on free ports.
    pub async fn start(clock: Arc<dyn Clock>, motion: Motion) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(ExitCode::Failed, "cannot start the demo").because(&error);
        let home = crate::os::private_temp_dir("bitbrat-demo-").map_err(failed)?;
        let options = SimOptions {
            clock: Arc::clone(&clock),
            ..SimOptions::default()
        };
        let sim = Sim::start(options).await.map_err(failed)?;
        let worlds = DemoWorlds::populate(&sim);
        let tokens: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::default());
        let logins = PlatformName::ALL.map(|platform| worlds.of(platform).logins());
        for login in logins.into_iter().flatten() {
            let token = stored(&login, clock.now());
            tokens
                .set_token(&Identity::named(login.account), Some(token))
                .await?;
        }
        Ok(Self {
            _timeline: match motion {
                Motion::None => None,
                Motion::AtOnce => Some(start_timeline(&sim.twitch)),
                Motion::WithListeners => Some(start_timeline_for_listeners(&sim.twitch)),
            },
            sim,
            worlds,
            tokens,
            home,
        })
    }

    /// Returns the demo's configuration. Tokens are not part of it: they are in the demo's own store.
    pub fn configuration(&self) -> config::Demo {
        let mut platforms = Vec::new();
        let mut sources = Vec::new();
        for platform in PlatformName::ALL {
            let world = self.worlds.of(platform);
            platforms.extend(self.sim.addresses(platform));
            platforms.extend(world.application());
            let channels = world.channels();
            sources.extend(world.sources().into_iter().map(|id| {
                let of_source = channels.iter().find(|(source, _)| *source == id);
                let channel = of_source.map(|(_, channel)| format!("/{channel}"));
                format!("{platform}:{id}{}", channel.unwrap_or_default())
            }));
        }
        platforms.push((config::SOURCES.path, sources.join(" ")));
        let fallbacks = vec![
            (config::STATE_DIR.path, self.home.path().display().to_string()),
            (
                config::STORE_URL.path,
                format!("sqlite:{}", self.store_path().display()),
            ),
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

    /// Makes this user the one who agrees to a login, and soon.
    pub fn consent_as(&self, user_id: Option<&str>) {
        self.sim.twitch.knobs(|knobs| {
            knobs.device_interval = Some(1);
            if let Some(id) = user_id {
                knobs.consent = Some(id.to_owned());
            }
        });
        if let Some(id) = user_id.and_then(|id| id.parse().ok()) {
            self.sim.kick.knobs(|knobs| knobs.consent = Some(id));
        }
    }

    /// Whether `store` is the temporary one of the demo.
    pub fn owns(&self, store: &StoreTarget) -> bool {
        match store {
            StoreTarget::Sqlite(path) => *path == self.store_path(),
            StoreTarget::Memory => true,
            StoreTarget::Firestore { .. } | StoreTarget::Postgres(_) => false,
        }
    }

    pub fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::clone(&self.tokens)
    }

    /// Returns what a listener would have received before the demo began: a stream that polls do not show yet.
    pub fn backstory(&self) -> Vec<Observation> {
        let stream = &self.worlds.twitch.just_live;
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

/// Returns the token of a login as a client would have stored it.
fn stored(login: &DemoLogin, now: Timestamp) -> StoredToken {
    let unproven = StoredToken {
        refresh: login.refresh.clone().map(RefreshToken::fresh),
        client_id: login.client_id.clone(),
        ..StoredToken::unproven(login.access.clone(), now)
    };
    let Some((obtained_at, expires_in)) = login.issued else {
        return unproven;
    };
    StoredToken {
        user_id: Some(login.user_id.clone()),
        scopes: login.scopes.iter().cloned().collect(),
        obtained_at,
        expires_at: Some(obtained_at.plus_secs(expires_in)),
        ..unproven
    }
}
