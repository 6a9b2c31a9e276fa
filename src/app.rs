//! The composition root: settings become adapters here and nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use url::Url;

use crate::clock::{Chance, Clock};
use crate::config::{self, Settings, SourceAddress, StoreTarget, TokenTarget};
use crate::core::freshness::Intervals;
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::http::{Http, HttpOptions};
use crate::persist::Persister;
use crate::persist::economy::{Economy, Prediction, Workload, predict};
use crate::platforms::discord::{DiscordOptions, DiscordPlatform, GuildOptions, SessionStarts, StreamFrom};
use crate::platforms::kick::{KickOptions, KickPlatform};
use crate::platforms::twitch::{TwitchOptions, TwitchPlatform};
use crate::platforms::{Platform, Probe};
use crate::store::firestore::{FirestoreStore, FirestoreTarget};
use crate::store::memory::MemoryStore;
use crate::store::retention::Retention;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SourceStore, StoreError};
use crate::tokens::{FileTokenStore, Seed, TokenStore};

pub mod daemon;
pub mod demo;
mod eventsub;
mod listeners;
pub mod names;
mod volume;
pub mod world;

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
    /// One adapter a platform for the whole process: it knows what is left of the budget.
    twitch: OnceLock<Arc<TwitchPlatform>>,
    kick: OnceLock<Arc<KickPlatform>>,
    discord: tokio::sync::OnceCell<Arc<DiscordPlatform>>,
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
        Self::new(ExitCode::Failed, "the token store cannot be used")
            .because(&error)
            .hint(hint)
    }
}

impl App {
    /// Puts the program together. Nothing is opened yet.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>, demo: Option<Demo>) -> Result<Self, Failure> {
        let tokens: Arc<dyn TokenStore> = match (&demo, &settings.tokens.target) {
            // The demo's tokens never meet real ones.
            (Some(demo), _) => demo.tokens(),
            (None, TokenTarget::File(path)) => Arc::new(FileTokenStore::new(path)),
            (None, TokenTarget::Firestore { .. }) => {
                let what = "tokens.url: this bitbrat keeps tokens in a file only";
                return Err(
                    Failure::new(ExitCode::Configuration, what).hint("set tokens.url to file or file:PATH")
                );
            }
        };
        Ok(Self {
            http: Http::new(HttpOptions::default(), Arc::clone(&clock)),
            tokens,
            settings,
            clock,
            demo,
            chance: Chance::random(),
            twitch: OnceLock::new(),
            kick: OnceLock::new(),
            discord: tokio::sync::OnceCell::new(),
        })
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

    /// Returns how long a command that looks again and again pauses in between. The demo's platforms cost nothing.
    pub fn look_interval(&self) -> std::time::Duration {
        match self.demo {
            Some(_) => std::time::Duration::from_secs(2),
            None => self.intervals().stream,
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
            // It connects when it is first asked; a store that is down then says so.
            StoreTarget::Firestore { project, database } => {
                Arc::new(self.firestore(project, database, retention))
            }
        })
    }

    fn firestore(&self, project: &str, database: &str, retention: Retention) -> FirestoreStore {
        let google = &self.settings.google;
        FirestoreStore::new(FirestoreTarget {
            collection: self.settings.store.collection.clone(),
            emulator: google.firestore_emulator.clone(),
            credentials_file: google.credentials_file.clone(),
            retention,
            ..FirestoreTarget::new(project, database)
        })
    }

    /// Returns the rules of the platform's router, by id; `None` where they are not in the store that we use.
    pub async fn routing_rules(&self) -> Option<Result<Vec<(String, serde_json::Value)>, StoreError>> {
        let StoreTarget::Firestore { project, database } = &self.settings.store.target else {
            return None;
        };
        let store = self.firestore(project, database, Retention::default());
        Some(store.others("configs/routingRules", "rules").await)
    }

    /// Tells the demo's own store what a listener would have heard before the demo began.
    pub async fn tell_backstory(&self) -> Result<(), Failure> {
        let Some(demo) = self.demo.as_ref().filter(|_| self.is_store_temporary()) else {
            return Ok(());
        };
        let persister = self.persister(self.store(Access::Write).await?);
        persister.observe(&demo.backstory()).await;
        persister.flush().await;
        Ok(())
    }

    /// Returns where tokens are kept.
    pub fn tokens(&self) -> &Arc<dyn TokenStore> {
        &self.tokens
    }

    /// Takes over tokens that the configuration brings, those that are newer than what is stored.
    pub async fn seed_tokens(&self) -> Result<(), Failure> {
        for (identity, seed) in self.seeds() {
            crate::tokens::seed(self.tokens.as_ref(), &identity, &seed, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Returns the tokens that the configuration brings. A demo has its own.
    fn seeds(&self) -> Vec<(Identity, Seed)> {
        if self.demo.is_some() {
            return Vec::new();
        }
        let (twitch, kick, discord) = (&self.settings.twitch, &self.settings.kick, &self.settings.discord);
        [
            ("twitch/bot", &twitch.bot_access_token, &twitch.bot_refresh_token),
            ("kick/bot", &kick.bot_access_token, &kick.bot_refresh_token),
            ("discord/bot", &discord.bot_token, &None),
        ]
        .into_iter()
        .filter_map(|(identity, access, refresh)| {
            let seed = Seed {
                access: access.clone()?,
                refresh: refresh.clone(),
            };
            Some((Identity::named(identity), seed))
        })
        .collect()
    }

    /// Returns what is configured, with the names that were resolved before.
    pub fn sources(&self) -> Sources {
        let names = Names::load(&self.settings.state_dir);
        let mut sources = Sources::default();
        let mut seen = HashSet::new();
        for spec in &self.settings.sources {
            let origin = spec.origin.to_string();
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key.clone()),
                SourceAddress::Name(name) => names.key(spec.platform, name),
            };
            match key {
                Some(key) if !seen.insert(key.clone()) => {}
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
                    SourceAddress::Name(name) if names.key(spec.platform, name).is_none() => {
                        Some(name.clone())
                    }
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
                    trouble.extend(
                        wanted
                            .iter()
                            .map(|name| (format!("{}:{name}", platform.name()), reason.clone())),
                    );
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

    /// Builds the platforms that the configured sources need, with the tokens that the configuration brings.
    pub async fn platforms(&self) -> Result<Vec<Arc<dyn Platform>>, Failure> {
        self.seed_tokens().await?;
        let mut needed: Vec<PlatformName> = self.settings.sources.iter().map(|spec| spec.platform).collect();
        needed.sort_unstable();
        needed.dedup();
        let mut platforms = Vec::new();
        for platform in needed {
            platforms.push(self.platform(platform).await?);
        }
        Ok(platforms)
    }

    /// Returns one platform. There is one adapter a platform in the whole process: it knows what is left of the budget.
    pub async fn platform(&self, platform: PlatformName) -> Result<Arc<dyn Platform>, Failure> {
        Ok(match platform {
            PlatformName::Twitch => self.own_twitch(),
            PlatformName::Kick => self.own_kick(),
            PlatformName::Discord => self.own_discord().await?,
        })
    }

    fn own_twitch(&self) -> Arc<TwitchPlatform> {
        let made = || Arc::new(self.twitch(Arc::clone(&self.tokens)));
        Arc::clone(self.twitch.get_or_init(made))
    }

    fn own_kick(&self) -> Arc<KickPlatform> {
        Arc::clone(
            self.kick
                .get_or_init(|| Arc::new(self.kick(Arc::clone(&self.tokens)))),
        )
    }

    async fn own_discord(&self) -> Result<Arc<DiscordPlatform>, Failure> {
        let made = || async {
            let discord = self.discord(self.tokens.as_ref()).await?;
            Ok::<_, Failure>(Arc::new(discord.following(Arc::clone(&self.tokens))))
        };
        Ok(Arc::clone(self.discord.get_or_try_init(made).await?))
    }

    /// Returns the id of Discord's application that the bot belongs to, with one request; `None` when nobody tells it.
    pub async fn discord_application(&self, guild: &SourceKey) -> Option<String> {
        self.own_discord().await.ok()?.application_id(guild).await
    }

    /// Returns what Discord's bot is called, with one request; `None` when nobody tells it.
    pub async fn discord_name(&self) -> Option<String> {
        self.own_discord().await.ok()?.whoami().await.ok()?.name
    }

    /// Returns how Discord's budget of gateway sessions stands; begins none.
    pub async fn discord_sessions(&self) -> Result<SessionStarts, Failure> {
        Ok(self.own_discord().await?.session_starts().await?)
    }

    /// Returns how many of the wanted event subscriptions Kick lists, and how many are wanted.
    pub async fn kick_webhooks(&self) -> Result<(usize, usize), Failure> {
        let keys = self.sources().keys();
        Ok(self.own_kick().webhooks_listed(&keys).await?)
    }

    /// Builds one platform on top of other tokens than the stored ones.
    pub async fn platform_with(
        &self,
        platform: PlatformName,
        tokens: Arc<dyn TokenStore>,
    ) -> Result<Arc<dyn Platform>, Failure> {
        match platform {
            PlatformName::Twitch => Ok(Arc::new(self.twitch(tokens))),
            PlatformName::Discord => {
                let discord = self.discord(tokens.as_ref()).await?;
                Ok(Arc::new(discord.following(tokens)))
            }
            PlatformName::Kick => Ok(Arc::new(self.kick(tokens))),
        }
    }

    /// Builds Kick on top of `tokens`.
    fn kick(&self, tokens: Arc<dyn TokenStore>) -> KickPlatform {
        let settings = &self.settings.kick;
        let options = KickOptions {
            auth_url: settings.auth_url.clone(),
            api_url: settings.api_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            bot_user_id: settings.bot_user_id.as_ref().and_then(|id| id.parse().ok()),
            requests_per_minute: settings.requests_per_minute,
            ..KickOptions::default()
        };
        let (http, clock) = (self.http.clone(), Arc::clone(&self.clock));
        KickPlatform::new(options, tokens, http, clock, self.chance.clone())
    }

    /// Returns what is configured about Discord's guilds.
    fn guilds(&self) -> BTreeMap<u64, GuildOptions> {
        let guilds = self.settings.sources.iter().filter_map(|spec| {
            let id = spec
                .key()
                .filter(|key| key.platform() == PlatformName::Discord)?
                .id()
                .parse()
                .ok()?;
            let channels = spec
                .channels
                .iter()
                .filter_map(|channel| channel.parse().ok())
                .collect();
            let options = GuildOptions {
                channels,
                ..GuildOptions::default()
            };
            Some((id, options))
        });
        guilds.collect()
    }

    /// Lets the platforms in use go by what `next` has configured about single sources.
    pub(crate) fn adopt(&self, next: &Self) {
        if let Some(discord) = self.discord.get() {
            discord.configure(next.guilds());
        }
    }

    /// Builds Discord with the bot's token from `tokens`.
    async fn discord(&self, tokens: &dyn TokenStore) -> Result<DiscordPlatform, Failure> {
        let settings = &self.settings.discord;
        let token = tokens
            .load(&crate::platforms::discord::bot())
            .await?
            .map(|token| token.access);
        let options = DiscordOptions {
            api_url: settings.api_url.to_string(),
            home_page: settings.home_page.to_string(),
            bot_token: token,
            guilds: self.guilds(),
            stream_from: match settings.stream_from {
                config::StreamFrom::None => None,
                config::StreamFrom::Stage => Some(StreamFrom::Stage),
                config::StreamFrom::Event => Some(StreamFrom::Event),
                config::StreamFrom::GoLive => Some(StreamFrom::GoLive),
            },
            state_dir: Some(self.settings.state_dir.clone()),
            ..DiscordOptions::default()
        };
        Ok(DiscordPlatform::new(
            options,
            Arc::clone(&self.clock),
            self.chance.clone(),
        )?)
    }

    /// Returns the addresses that a platform is reached at over HTTP, with what each is for.
    pub fn addresses(&self, platform: PlatformName) -> Vec<(&'static str, Url)> {
        let settings = &self.settings;
        match platform {
            PlatformName::Twitch => vec![
                ("authorisation", settings.twitch.auth_url.clone()),
                ("api", settings.twitch.helix_url.clone()),
            ],
            PlatformName::Kick => vec![
                ("authorisation", settings.kick.auth_url.clone()),
                ("api", settings.kick.api_url.clone()),
            ],
            PlatformName::Discord => vec![("api", settings.discord.api_url.clone())],
        }
    }

    /// Returns the identities that the configured sources cannot do without.
    pub fn needed_identities(&self) -> Vec<Identity> {
        let twitch = &self.settings.twitch;
        let mut needed = Vec::new();
        for platform in PlatformName::ALL {
            let has_sources = self.settings.sources.iter().any(|spec| spec.platform == platform);
            // With its secret the application speaks for itself.
            let app_will_do = match platform {
                PlatformName::Twitch => twitch.client_id.is_some() && twitch.client_secret.is_some(),
                PlatformName::Kick => self.settings.kick.client_secret.is_some(),
                PlatformName::Discord => false,
            };
            if has_sources && !app_will_do {
                needed.push(Identity::named(format!("{platform}/bot")));
            }
        }
        needed
    }

    /// Whether the configuration brings a token of `identity`.
    pub fn is_seeded(&self, identity: &Identity) -> bool {
        self.seeds().iter().any(|(seeded, _)| seeded == identity)
    }

    /// Builds Twitch on top of `tokens`.
    fn twitch(&self, tokens: Arc<dyn TokenStore>) -> TwitchPlatform {
        let settings = &self.settings.twitch;
        let options = TwitchOptions {
            auth_url: settings.auth_url.clone(),
            helix_url: settings.helix_url.clone(),
            eventsub_rest_url: settings.eventsub_rest_url.clone(),
            eventsub_ws_url: settings.eventsub_ws_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            bot_user_id: settings.bot_user_id.clone(),
            ..TwitchOptions::default()
        };
        TwitchPlatform::new(
            options,
            tokens,
            self.http.clone(),
            Arc::clone(&self.clock),
            self.chance.clone(),
        )
    }

    /// Returns what keeps `store` up to date.
    pub fn persister(&self, store: Arc<dyn SourceStore>) -> Persister {
        let economy = self.economy();
        Persister::new(store, Arc::clone(&self.clock), economy, self.chance.clone())
    }

    /// Returns how sparingly the store is written.
    pub fn economy(&self) -> Economy {
        Economy::every(self.settings.store.heartbeat)
    }

    /// Returns what a usual day of `watch` with so many sources costs the store.
    pub fn expected_day(&self, sources: usize) -> Prediction {
        let intervals = self.intervals();
        let confirmed_every = [intervals.connection, intervals.stream, intervals.viewers];
        let confirmed_every = confirmed_every.into_iter().min().unwrap_or(intervals.connection);
        predict(&Workload::usual(sources as u64, confirmed_every), &self.economy())
    }
}
