//! Composition root: the only place where settings are turned into adapters.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::EventBus;
use crate::clock::{Chance, Clock};
use crate::config::{BusTarget, Settings, StoreTarget};
use crate::core::freshness::Intervals;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::http::{CorrectedClock, Http, HttpOptions, LenientClock};
use crate::persist::Persister;
use crate::persist::write_policy::{Prediction, Workload, WritePolicy, predict};
use crate::platforms::Probe;
use crate::store::SourceStore;
use crate::store::guarded::Guarded;
use crate::store::retention::Retention;
use crate::tokens::TokenStore;
use crate::traffic::Recorder;

mod bus;
pub mod clock_error;
pub mod daemon;
pub mod demo;
pub mod invites;
mod listeners;
pub mod name_cache;
mod platforms;
mod reading;
mod record;
mod sources;
mod stores;
mod volume;

use demo::Demo;

pub use listeners::{discord_application, eventsub_plan, eventsub_plan_by_memory};
pub use platforms::{Platforms, Untried};
pub use sources::{Configured, ConfiguredSources, Lookup, Merged, Sources, Unresolved};
pub use stores::{postgres_diagnosis, routing_rules};

/// Settings and the adapters that follow from them.
pub struct App {
    pub settings: Arc<Settings>,
    /// The clock of this machine. Responses are received by it, which is how its error is measured.
    pub machine_clock: Arc<dyn Clock>,
    /// The clock of this machine, corrected by its error as far as that is known. Ages are shown by it.
    pub clock: Arc<dyn Clock>,
    /// HTTP client that all platforms share.
    pub http: Http,
    /// The simulated platforms, when this is a demo.
    pub demo: Option<Demo>,
    pub chance: Chance,
    /// The platforms and the tokens of their accounts.
    pub platforms: Platforms,
    pub sources: ConfiguredSources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAccess {
    /// Only read; nothing is created.
    Read,
    /// Read and write; what is missing is created.
    Write,
}

impl From<crate::tokens::TokenError> for Failure {
    fn from(error: crate::tokens::TokenError) -> Self {
        let hint = error.hint();
        Self::new(ExitCode::Failed, "the token store cannot be used")
            .because(&error)
            .hint(hint)
    }
}

/// Fails where the system's certificates cannot be loaded: Google's libraries panic then instead of returning an error.
fn needs_certificates(what: &str) -> Result<(), Failure> {
    crate::tls::client_config().map(|_| ()).map_err(|reason| {
        Failure::new(ExitCode::Failed, format!("{what}: {reason}"))
            .hint("install the package ca-certificates, or correct SSL_CERT_FILE and SSL_CERT_DIR")
    })
}

impl App {
    /// Builds the application. No connection and no file is opened yet.
    pub fn new(
        settings: Settings,
        machine_clock: Arc<dyn Clock>,
        demo: Option<Demo>,
    ) -> Result<Self, Failure> {
        let tokens: Arc<dyn TokenStore> = match (&demo, &settings.tokens.target) {
            // Demo tokens are never mixed with real ones.
            (Some(demo), _) => demo.tokens(),
            (None, target) => stores::tokens(&settings, target)?,
        };
        let settings = Arc::new(settings);
        let http = Http::new(HttpOptions::default(), Arc::clone(&machine_clock));
        let chance = Chance::random();
        let platforms = Platforms {
            settings: Arc::clone(&settings),
            tokens,
            http: http.clone(),
            recorder: None,
            request_times: platforms::request_times(),
            clock: Arc::clone(&machine_clock),
            chance: chance.clone(),
            takes_seeds: demo.is_none(),
            adapters: Default::default(),
        };
        let sources = ConfiguredSources {
            settings: Arc::clone(&settings),
        };
        Ok(Self {
            settings,
            clock: CorrectedClock::new(Arc::clone(&machine_clock)),
            machine_clock,
            http,
            demo,
            chance,
            platforms,
            sources,
        })
    }

    /// Returns how often what the store holds of each thing is renewed: as often as it is checked, but no more often than the
    /// store is written.
    pub fn intervals(&self) -> Intervals {
        let settings = &self.settings;
        let store = settings.store.heartbeat;
        let heartbeat = match settings.bus.target {
            BusTarget::Local => store,
            _ => store.max(settings.bus.heartbeat),
        };
        self.checked_every().renewed_at_most_every(heartbeat)
    }

    /// Returns how often each thing is checked.
    pub(crate) fn checked_every(&self) -> Intervals {
        let now = self.clock.now();
        let usual = Intervals::default();
        let interval = |probe: Probe, usual: Duration| {
            let schedule = &self.settings.schedule;
            schedule.interval(probe, now).unwrap_or(usual)
        };
        Intervals {
            connection: interval(Probe::Connection, usual.connection),
            auth: interval(Probe::Auth, usual.auth),
            stream: interval(Probe::Stream, usual.stream),
            viewers: interval(Probe::Viewers, usual.viewers),
            permissions: interval(Probe::Permissions, usual.permissions),
            max_age: None,
        }
    }

    /// Returns the interval between the probes of a command that repeats them. Probes of the demo's platforms cost nothing.
    pub fn probe_interval(&self) -> Duration {
        match self.demo {
            Some(_) => Duration::from_secs(2),
            None => self.checked_every().stream,
        }
    }

    /// Whether the store is the demo's own, which is empty when the program starts.
    pub fn is_store_temporary(&self) -> bool {
        self.demo
            .as_ref()
            .is_some_and(|demo| demo.owns(&self.settings.store.target))
    }

    /// Writes to the demo's own store what a listener would have received before the demo began.
    pub async fn play_backstory(&self) -> Result<(), Failure> {
        let Some(demo) = self.demo.as_ref().filter(|_| self.is_store_temporary()) else {
            return Ok(());
        };
        let configured = self.sources.all().keys();
        let mut backstory = demo.backstory();
        backstory.retain(|observation| configured.contains(&observation.source));
        let recorder = self.recorder(self.store(StoreAccess::Write).await?).await?;
        recorder.record(backstory).await?;
        Ok(())
    }

    /// Records the traffic with platforms from now on. Call it before any platform is used.
    pub fn record(&mut self, recorder: Recorder) {
        self.platforms.recorder = Some(recorder);
    }

    pub fn tokens(&self) -> &Arc<dyn TokenStore> {
        &self.platforms.tokens
    }

    /// Opens the configured bus; `None` when events stay within the process.
    pub async fn bus(&self) -> Result<Option<Arc<dyn EventBus>>, Failure> {
        bus::open(&self.settings).await
    }

    pub async fn store(&self, access: StoreAccess) -> Result<Arc<dyn SourceStore>, Failure> {
        self.open_store(&self.settings.store.target, access).await
    }

    /// Opens a store. What is read from it is free of evidence that is dated in the future.
    pub async fn open_store(
        &self,
        target: &StoreTarget,
        access: StoreAccess,
    ) -> Result<Arc<dyn SourceStore>, Failure> {
        let store = self.open_unguarded_store(target, access).await?;
        Ok(Arc::new(Guarded::new(store, self.evidence_clock())))
    }

    /// Opens a store without filtering, evidence that no reader would accept included.
    pub async fn open_unguarded_store(
        &self,
        target: &StoreTarget,
        access: StoreAccess,
    ) -> Result<Arc<dyn SourceStore>, Failure> {
        stores::open_unguarded(&self.settings, target, access).await
    }

    /// Returns the limits of the history.
    pub fn retention(&self) -> Retention {
        stores::retention(&self.settings)
    }

    /// Returns the file of the documents and the outbox: the store itself, or one of its own beside a remote store.
    pub fn state_file_path(&self) -> PathBuf {
        match &self.settings.store.target {
            StoreTarget::Sqlite(path) => path.clone(),
            StoreTarget::Memory | StoreTarget::Firestore { .. } | StoreTarget::Postgres(_) => {
                self.settings.state_dir.join("watch.db")
            }
        }
    }

    /// Looks up the source called `name` at a platform, and caches the result.
    pub async fn look_up_name(&self, platform: PlatformName, name: &str) -> Result<Lookup, Failure> {
        self.platforms.seed_tokens().await?;
        let platform = self.platforms.get(platform).await?;
        let cache = !self.is_store_temporary();
        self.sources.look_up(platform.as_ref(), name, cache).await
    }

    /// Returns what keeps `store` up to date.
    pub fn persister(&self, store: Arc<dyn SourceStore>) -> Persister {
        let write_policy = self.write_policy();
        Persister::new(store, self.evidence_clock(), write_policy, self.chance.clone())
    }

    /// Returns the clock that evidence of other processes is compared with: this machine's, unless the platforms' responses prove
    /// it wrong.
    pub fn evidence_clock(&self) -> Arc<dyn Clock> {
        LenientClock::new(Arc::clone(&self.machine_clock))
    }

    /// Returns the limits on how often the store is written.
    pub fn write_policy(&self) -> WritePolicy {
        WritePolicy::every(self.settings.store.heartbeat)
    }

    /// Predicts how often a usual day of `watch` writes to a store that takes each document as a request; `None` for a file, in
    /// which what confirms many sources is one row.
    pub fn expected_writes(&self, sources: usize) -> Option<u64> {
        let is_file = matches!(self.settings.store.target, StoreTarget::Sqlite(_));
        (!is_file).then(|| self.expected_day(sources).writes())
    }

    /// Predicts what a usual day of `watch` with this number of sources costs the store.
    pub fn expected_day(&self, sources: usize) -> Prediction {
        let intervals = self.checked_every();
        let confirmed_every = [intervals.connection, intervals.stream, intervals.viewers];
        let confirmed_every = confirmed_every.into_iter().min().unwrap_or(intervals.connection);
        predict(
            &Workload::usual(sources as u64, confirmed_every),
            &self.write_policy(),
        )
    }
}
