//! The composition root: settings become adapters here and nowhere else.

use std::sync::Arc;

use secrecy::SecretString;

use crate::clock::{Chance, Clock};
use crate::config::{Settings, SourceAddress, StoreTarget, TokenTarget};
use crate::core::freshness::Intervals;
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::http::{Http, HttpOptions};
use crate::platforms::{Platform, Probe};
use crate::store::memory::MemoryStore;
use crate::store::retention::Retention;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SourceStore, StoreError};
use crate::tokens::{FileTokenStore, Seed, TokenStore};

pub mod demo;
pub mod names;

use demo::Demo;
use names::Names;

/// Settings and the adapters that follow from them.
pub struct App {
    /// The settings in force.
    pub settings: Settings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Talks to the platforms.
    pub http: Http,
    /// The simulated platforms, when this is a demo.
    pub demo: Option<Demo>,
    tokens: Arc<dyn TokenStore>,
    chance: Chance,
}

/// How a store is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read; nothing is created.
    Read,
    /// Read and write; what is missing is created.
    Write,
}

/// A configured source that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The source.
    pub key: SourceKey,
    /// Where it was configured.
    pub origin: String,
}

/// A configured source whose name has not become an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// What is configured, as `platform:name`.
    pub name: String,
    /// Where.
    pub origin: String,
    /// Why it has no id: the platform knows no such name, it was never asked, or it did not answer.
    pub reason: String,
}

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Sources with a key, in the order of the configuration.
    pub known: Vec<Configured>,
    /// Names without an id.
    pub unresolved: Vec<Unresolved>,
}

impl Sources {
    /// Returns the keys of the sources that have one.
    pub fn keys(&self) -> Vec<SourceKey> {
        self.known.iter().map(|source| source.key.clone()).collect()
    }
}

impl From<crate::tokens::TokenError> for Failure {
    fn from(error: crate::tokens::TokenError) -> Self {
        let hint = error.hint();
        Self::new(ExitCode::Failed, "the token store cannot be used").because(&error).hint(hint)
    }
}

impl App {
    /// Puts the program together. Nothing is opened yet.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>, demo: Option<Demo>) -> Self {
        let tokens: Arc<dyn TokenStore> = match (&demo, &settings.tokens.target) {
            // The demo's tokens never meet real ones.
            (Some(demo), _) => demo.tokens(),
            (None, TokenTarget::File(path)) => Arc::new(FileTokenStore::new(path)),
            (None, TokenTarget::Firestore { .. }) => Arc::new(FileTokenStore::new(settings.state_dir.join("tokens.json"))),
        };
        Self {
            http: Http::new(HttpOptions::default(), Arc::clone(&clock)),
            tokens,
            settings,
            clock,
            demo,
            chance: Chance::random(),
        }
    }

    /// Returns how often each thing is looked at.
    pub fn intervals(&self) -> Intervals {
        let now = self.clock.now();
        let usual = Intervals::default();
        let interval = |probe: Probe, usual: std::time::Duration| {
            let millis = self.settings.schedule.interval_millis(probe, now);
            millis
                .and_then(|millis| u64::try_from(millis).ok())
                .map_or(usual, std::time::Duration::from_millis)
        };
        Intervals {
            connection: interval(Probe::Connection, usual.connection),
            auth: interval(Probe::Auth, usual.auth),
            stream: interval(Probe::Stream, usual.stream),
            viewers: interval(Probe::Viewers, usual.viewers),
            permissions: interval(Probe::Permissions, usual.permissions),
        }
    }

    /// Whether the store is the demo's own, which knows nothing when the program starts.
    pub fn is_store_temporary(&self) -> bool {
        self.demo
            .as_ref()
            .is_some_and(|demo| demo.owns(&self.settings.store.target))
    }

    /// Opens the configured store.
    pub async fn store(&self, access: Access) -> Result<Arc<dyn SourceStore>, Failure> {
        self.open_store(&self.settings.store.target, access).await
    }

    /// Opens a store.
    pub async fn open_store(
        &self,
        target: &StoreTarget,
        access: Access,
    ) -> Result<Arc<dyn SourceStore>, Failure> {
        let retention = Retention {
            entries: self.settings.store.history,
            ..Retention::default()
        };
        Ok(match target {
            StoreTarget::Sqlite(path) => {
                let options = SqliteOptions {
                    retention,
                    ..SqliteOptions::default()
                };
                match access {
                    Access::Read => Arc::new(SqliteStore::open_read_only(path, options).await?),
                    Access::Write => Arc::new(SqliteStore::open(path, options).await?),
                }
            }
            StoreTarget::Memory => Arc::new(MemoryStore::new(retention)),
            StoreTarget::Firestore { .. } => {
                return Err(StoreError::Refused {
                    location: target.to_string(),
                    reason: "this build has no Firestore".into(),
                    hint: "use sqlite".into(),
                }
                .into());
            }
        })
    }

    /// Returns where tokens are kept.
    pub fn tokens(&self) -> &Arc<dyn TokenStore> {
        &self.tokens
    }

    /// Takes over tokens that the configuration brings, those that are newer than what is stored.
    pub async fn seed_tokens(&self) -> Result<(), Failure> {
        if self.demo.is_some() {
            return Ok(());
        }
        let twitch = &self.settings.twitch;
        if let Some(access) = &twitch.bot_access_token {
            let seed = Seed {
                access: access.clone(),
                refresh: twitch.bot_refresh_token.clone(),
            };
            let bot = Identity::named("twitch/bot");
            crate::tokens::seed(self.tokens.as_ref(), &bot, &seed, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Returns what is configured, with the names that were resolved before.
    pub fn sources(&self) -> Sources {
        let names = Names::load(&self.settings.state_dir);
        let mut sources = Sources::default();
        for spec in &self.settings.sources {
            let origin = spec.origin.to_string();
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key.clone()),
                SourceAddress::Name(name) => names.key(spec.platform, name),
            };
            match key {
                Some(key) if sources.known.iter().any(|known| known.key == key) => {}
                Some(key) => sources.known.push(Configured { key, origin }),
                None => sources.unresolved.push(Unresolved {
                    name: spec.to_string(),
                    origin,
                    reason: "its id has not been asked for yet".into(),
                }),
            }
        }
        sources
    }

    /// Asks the platforms for the ids of names that are not known yet, and remembers them.
    pub async fn resolve(&self, platforms: &[Arc<dyn Platform>]) -> Result<Sources, Failure> {
        let mut names = Names::load(&self.settings.state_dir);
        let mut trouble: Vec<(String, String)> = Vec::new();
        for platform in platforms {
            let wanted: Vec<String> = self
                .settings
                .sources
                .iter()
                .filter(|spec| spec.platform == platform.name())
                .filter_map(|spec| match &spec.address {
                    SourceAddress::Name(name) if names.key(spec.platform, name).is_none() => Some(name.clone()),
                    _ => None,
                })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            match platform.resolve(&wanted).await {
                Ok(found) => {
                    for (name, key) in wanted.into_iter().zip(found) {
                        match key {
                            Some(key) => names.remember(platform.name(), &name, key),
                            None => trouble.push((
                                format!("{}:{name}", platform.name()),
                                format!("{} knows nobody of this name", platform.name()),
                            )),
                        }
                    }
                }
                Err(error) => {
                    let reason = error.to_string();
                    trouble.extend(wanted.iter().map(|name| (format!("{}:{name}", platform.name()), reason.clone())));
                }
            }
        }
        names.save()?;
        let mut sources = self.sources();
        for unresolved in &mut sources.unresolved {
            if let Some((_, reason)) = trouble.iter().find(|(name, _)| *name == unresolved.name) {
                unresolved.reason.clone_from(reason);
            }
        }
        Ok(sources)
    }

    /// Builds the platforms that the configured sources need.
    pub fn platforms(&self) -> Result<Vec<Arc<dyn Platform>>, Failure> {
        let mut needed: Vec<PlatformName> = self.settings.sources.iter().map(|spec| spec.platform).collect();
        needed.sort_unstable();
        needed.dedup();
        needed.into_iter().map(|platform| self.platform(platform)).collect()
    }

    /// Builds one platform.
    pub fn platform(&self, platform: PlatformName) -> Result<Arc<dyn Platform>, Failure> {
        let _ = (&self.chance, SecretString::from(""));
        Err(Failure::new(
            ExitCode::Configuration,
            format!("{platform} is not supported yet"),
        ))
    }
}
