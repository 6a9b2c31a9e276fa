//! The composition root: settings become adapters here and nowhere else.

use std::sync::Arc;

use crate::clock::{Chance, Clock};
use crate::config::{Settings, TokenTarget};
use crate::core::freshness::Intervals;
use crate::failure::{ExitCode, Failure};
use crate::http::{Http, HttpOptions};
use crate::persist::Persister;
use crate::persist::economy::{Economy, Prediction, Workload, predict};
use crate::platforms::Probe;
use crate::store::SourceStore;
use crate::tokens::{FileTokenStore, TokenStore};

mod bus;
pub mod daemon;
pub mod demo;
mod listeners;
pub mod names;
mod platforms;
mod sources;
mod stores;
mod volume;
pub mod world;

use demo::Demo;
use platforms::Adapters;

pub use sources::{Configured, Sources, Unresolved};

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
    /// Where chance comes from.
    pub chance: Chance,
    adapters: Adapters,
}

/// How a store is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
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
            adapters: Adapters::default(),
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
