//! The adapter against the simulated Kick, over real sockets.

mod auth;
mod edges;
mod streams;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::options::{APP, BOT};
use super::{KickOptions, KickPlatform};
use crate::clock::{Chance, Clock};
use crate::core::document::{SourceDocument, SourceRecord};
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, Identity, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::http::{Http, HttpOptions};
use crate::platforms::{Platform, Probe, ProbeSet, ProbeSink, ProbeSummary};
use crate::sim::kick::{KickSim, KickTokenSpec};
use crate::sim::{Fault, Sim, SimOptions};
use crate::tokens::{MemoryTokenStore, RefreshToken, StoredToken, TokenStore, TokenStoreExt as _};

/// The bot's user id.
pub(super) const BOT_ID: u64 = 880_100;
/// A channel of another user.
pub(super) const ADA: u64 = 880_200;

/// Stores all observations.
#[derive(Default)]
pub(super) struct Notebook(Mutex<Vec<Observation>>);

impl ProbeSink for Notebook {
    fn observe(&self, observation: Observation) {
        self.0.lock().push(observation);
    }

    fn progress(&self, platform: PlatformName, done: usize, expected: usize) {
        assert_eq!(platform, PlatformName::Kick);
        assert!(done <= expected, "{done} of {expected}");
    }
}

/// A Kick with one application, a bot and a channel, and an adapter for it.
pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) platform: KickPlatform,
    pub(super) store: Arc<MemoryTokenStore>,
    pub(super) notebook: Notebook,
}

fn platform(
    sim: &Sim,
    store: &Arc<MemoryTokenStore>,
    change: impl FnOnce(&mut KickOptions),
    window: Duration,
) -> KickPlatform {
    let urls = sim.kick.urls();
    let mut options = KickOptions {
        auth_url: urls.auth.parse().unwrap(),
        api_url: urls.api.parse().unwrap(),
        client_id: Some("app".to_owned()),
        client_secret: Some("hush".to_owned().into()),
        requests_per_minute: 1_000,
        patience: Duration::from_secs(2),
        ..KickOptions::default()
    };
    change(&mut options);
    let clock: Arc<dyn Clock> = sim.clock.clone();
    let http = Http::new(
        HttpOptions {
            timeout: Duration::from_secs(5),
            max_body: 1 << 20,
            ..HttpOptions::default()
        },
        Arc::clone(&clock),
    );
    let tokens: Arc<dyn TokenStore> = store.clone();
    KickPlatform::with_window(options, tokens, http, clock, Chance::seeded(9), window)
}

impl Rig {
    /// An adapter as in another process, with the same token store.
    pub(super) fn another_process(&self) -> KickPlatform {
        platform(&self.sim, &self.store, |_| {}, Duration::from_mins(1))
    }

    pub(super) async fn start() -> Self {
        Self::with(|_| {}, Duration::from_mins(1)).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut KickOptions), window: Duration) -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        sim.kick.add_app("app", "hush");
        sim.kick.add_channel(BOT_ID, "bitbrat-bot");
        sim.kick.add_channel(ADA, "ada");
        let store = Arc::new(MemoryTokenStore::default());
        let platform = platform(&sim, &store, change, window);
        Self {
            sim,
            platform,
            store,
            notebook: Notebook::default(),
        }
    }

    pub(super) fn fail(&self, fault: Fault) -> u64 {
        self.kick().host().faults().add(fault)
    }

    pub(super) fn kick(&self) -> &KickSim {
        &self.sim.kick
    }

    /// Requests that reached the API or the OAuth host.
    pub(super) fn calls(&self, path: &str) -> u64 {
        let journal = self.kick().host().journal();
        journal.count("GET", path) + journal.count("POST", path)
    }

    pub(super) async fn probe(&self, probes: &[Probe], ids: &[u64]) -> ProbeSummary {
        let probes: ProbeSet = probes.iter().copied().collect();
        let keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
        self.platform.probe(&probes, &keys, &self.notebook).await
    }

    pub(super) fn reported(&self) -> Vec<Observation> {
        self.notebook.0.lock().clone()
    }

    /// Runs all probes of one channel.
    pub(super) async fn probe_one(&self, id: u64) -> ProbeSummary {
        self.probe(&Probe::ALL, &[id]).await
    }

    /// The record that follows from all observations so far.
    pub(super) fn record(&self, id: u64) -> SourceRecord {
        let all = self.notebook.0.lock();
        let of: Vec<_> = all
            .iter()
            .filter(|seen| seen.source == key(id))
            .cloned()
            .collect();
        SourceDocument::from_knowledge(key(id), Knowledge::of(&of)).record()
    }

    /// The evidence about a channel.
    pub(super) fn knowledge(&self, id: u64) -> Knowledge {
        let all = self.notebook.0.lock();
        Knowledge::of(all.iter().filter(|seen| seen.source == key(id)))
    }

    pub(super) fn facts(&self, id: u64) -> String {
        let all = self.notebook.0.lock();
        let of: Vec<_> = all.iter().filter(|seen| seen.source == key(id)).collect();
        format!("{of:#?}")
    }

    /// How many sources were observed live.
    pub(super) fn seen_live(&self) -> usize {
        let all = self.notebook.0.lock();
        let live = all
            .iter()
            .filter(|seen| matches!(*seen.fact, Fact::StreamSeen { .. }));
        live.map(|seen| &seen.source).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn forget(&self) {
        self.notebook.0.lock().clear();
    }

    /// The bot logs in with `scopes`, `seconds` ago.
    pub(super) async fn log_in(&self, scopes: &[&str], seconds: i64) -> (String, String) {
        let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let tokens = self.kick().issue_token(KickTokenSpec {
            client_id: "app".to_owned(),
            user_id: Some(BOT_ID),
            scopes: scopes.clone(),
            expires_in: Some(7_200 - seconds),
            ..KickTokenSpec::default()
        });
        let refresh = tokens.refresh.unwrap();
        let obtained_at = self.sim.clock.now().plus_secs(-seconds);
        let token = StoredToken {
            refresh: Some(RefreshToken::fresh(refresh.clone())),
            scopes: scopes.into_iter().collect(),
            expires_at: Some(obtained_at.plus_secs(7_200)),
            ..StoredToken::unproven(tokens.access.clone(), obtained_at)
        };
        self.keep(BOT, token).await;
        (tokens.access, refresh)
    }

    pub(super) async fn keep(&self, identity: &str, token: StoredToken) {
        let identity = Identity::named(identity);
        self.store.set_token(&identity, Some(token)).await.unwrap();
    }

    pub(super) async fn stored(&self, identity: &str) -> StoredToken {
        self.store
            .load(&Identity::named(identity))
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) async fn app_token(&self) -> StoredToken {
        self.stored(APP).await
    }

    pub(super) fn later(&self, seconds: i64) -> Timestamp {
        self.sim.clock.advance(seconds * 1000)
    }
}

pub(super) fn key(id: u64) -> SourceKey {
    SourceKey::new(PlatformName::Kick, &id.to_string()).unwrap()
}

/// Returns the id of a stream that started then, however that is written.
pub(super) fn instant(started_at: &str) -> String {
    started_at.parse::<Timestamp>().unwrap().to_string()
}

pub(super) fn metadata(record: &SourceRecord) -> BTreeMap<String, String> {
    let texts = record.metadata.iter();
    texts
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}
