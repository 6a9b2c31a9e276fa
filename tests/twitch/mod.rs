//! The Twitch adapter against the simulated Twitch, over real sockets.

mod auth;
mod departures;
mod eventsub;
mod foreign;
mod link;
mod listener_harness;
mod mock_eventsub;
mod other_eventsub;
mod permissions;
mod probe;
mod token_checks;
mod webhook;
mod wrong_states;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::clock::{Chance, Clock, ManualClock};
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, Identity, LinkState, Observation};
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::time::Timestamp;
use bitbrat::core::verdict::Verdict;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::platforms::twitch::{self, TwitchOptions, TwitchPlatform};
use bitbrat::platforms::{Platform, Probe, ProbeSet, ProbeSink, ProbeSummary};
use bitbrat::sim::twitch::{TokenSpec, TwitchSim};
use bitbrat::sim::{Fault, Sim, SimOptions};
use bitbrat::tokens::{
    FileTokenStore, MemoryTokenStore, RefreshToken, StoredToken, TokenKind, TokenStore, TokenStoreExt as _,
};
use parking_lot::Mutex;
use secrecy::ExposeSecret;

const BOT: &str = "900100";
/// A channel of another user.
const RAT: &str = "900200";
/// The scopes that the bot was granted.
const SCOPES: [&str; 4] = [
    "user:read:chat",
    "user:read:moderated_channels",
    "user:read:subscriptions",
    "moderator:read:chatters",
];

/// A simulated Twitch with one application, a bot that has a token, and an adapter for it.
struct World {
    sim: Sim,
    store: Arc<dyn TokenStore>,
    /// The application; a public one has no secret.
    client: (&'static str, Option<&'static str>),
    options: TwitchOptions,
    /// Timeout of a response.
    timeout: Duration,
}

impl World {
    async fn confidential() -> Self {
        Self::of(("app", Some("hush-secret"))).await
    }

    /// A public application, whose refresh tokens are valid for one use.
    async fn public() -> Self {
        Self::of(("pub", None)).await
    }

    async fn of(client: (&'static str, Option<&'static str>)) -> Self {
        let world = Self::without_bot(client).await;
        world.give_token(&twitch::bot(), BOT, &SCOPES).await;
        world
    }

    async fn without_bot(client: (&'static str, Option<&'static str>)) -> Self {
        // The simulation starts at a fixed time and moves only when it is advanced.
        let clock = ManualClock::at("2026-05-01T18:00:00Z".parse().unwrap());
        let sim = Sim::start(SimOptions {
            clock,
            ..SimOptions::default()
        })
        .await
        .unwrap();
        sim.twitch.add_client(client.0, client.1);
        sim.twitch.add_channel(BOT, "bitbrat_bot");
        sim.twitch.add_channel(RAT, "ratcaster");
        let urls = sim.twitch.urls();
        let options = TwitchOptions {
            auth_url: urls.auth.parse().unwrap(),
            helix_url: urls.helix.parse().unwrap(),
            eventsub_rest_url: urls.eventsub_rest.parse().unwrap(),
            eventsub_ws_url: urls.eventsub_ws.parse().unwrap(),
            client_id: Some(client.0.to_owned()),
            client_secret: client.1.map(|secret| secret.to_owned().into()),
            ..TwitchOptions::default()
        };
        Self {
            sim,
            store: Arc::new(MemoryTokenStore::default()),
            client,
            options,
            timeout: Duration::from_secs(10),
        }
    }

    fn fail(&self, fault: Fault) {
        self.twitch().host().faults().add(fault);
    }

    fn twitch(&self) -> &TwitchSim {
        &self.sim.twitch
    }

    fn now(&self) -> Timestamp {
        self.sim.clock.now()
    }

    /// Issues a token and stores it as an operator's login would.
    async fn give_token(&self, identity: &Identity, user_id: &str, scopes: &[&str]) {
        let pair = self.twitch().issue_token(TokenSpec {
            client_id: self.client.0.to_owned(),
            user_id: Some(user_id.to_owned()),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..TokenSpec::default()
        });
        let token = StoredToken {
            refresh: pair.refresh.map(RefreshToken::fresh),
            client_id: Some(self.client.0.to_owned()),
            user_id: Some(user_id.to_owned()),
            scopes: pair.scopes.into_iter().collect(),
            expires_at: Some(self.now().plus_secs(pair.expires_in)),
            ..StoredToken::unproven(pair.access, self.now())
        };
        self.put_token(identity, Some(token)).await;
    }

    async fn put_token(&self, identity: &Identity, token: Option<StoredToken>) {
        put_token(self.store.as_ref(), identity, token).await;
    }

    /// Returns the bot's token as it is stored.
    async fn bot_token(&self) -> StoredToken {
        self.store.load(&twitch::bot()).await.unwrap().unwrap()
    }

    /// Changes the bot's token as it is stored.
    async fn change_bot(&self, change: impl FnOnce(&mut StoredToken)) {
        let mut token = self.bot_token().await;
        change(&mut token);
        self.put_token(&twitch::bot(), Some(token)).await;
    }

    /// Returns an adapter as a separate process would have.
    fn platform(&self) -> TwitchPlatform {
        self.platform_with(Arc::clone(&self.store))
    }

    fn platform_with(&self, store: Arc<dyn TokenStore>) -> TwitchPlatform {
        self.platform_on(store, Arc::clone(&self.sim.clock) as Arc<dyn Clock>)
    }

    /// Returns an adapter on a machine with this clock.
    fn platform_on(&self, store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>) -> TwitchPlatform {
        let http = Http::new(
            HttpOptions {
                timeout: self.timeout,
                ..HttpOptions::default()
            },
            Arc::clone(&clock),
        );
        TwitchPlatform::new(self.options.clone(), store, http, clock, Chance::seeded(1))
    }

    /// Probes once.
    async fn look(&self, probes: &[Probe], sources: &[&str]) -> Seen {
        look(&self.platform(), probes, sources).await
    }

    fn requests(&self, method: &str, path: &str) -> u64 {
        self.twitch().host().journal().count(method, path)
    }
}

fn file_store(path: &Path) -> Arc<dyn TokenStore> {
    Arc::new(FileTokenStore::new(path))
}

async fn put_token(store: &dyn TokenStore, identity: &Identity, token: Option<StoredToken>) {
    store.set_token(identity, token).await.unwrap();
}

fn text(token: &StoredToken) -> (String, Option<String>) {
    let refresh = token
        .refresh
        .as_ref()
        .map(|refresh| refresh.secret.expose_secret().to_owned());
    (token.access.expose_secret().to_owned(), refresh)
}

async fn look(platform: &TwitchPlatform, probes: &[Probe], sources: &[&str]) -> Seen {
    let keys: Vec<_> = sources.iter().map(|id| key(id)).collect();
    let probes: ProbeSet = probes.iter().copied().collect();
    let sink = Sink::default();
    let summary = platform.probe(&probes, &keys, &sink).await;
    Seen {
        observations: sink.observations.into_inner(),
        progress: sink.progress.into_inner(),
        summary,
    }
}

fn key(id: &str) -> SourceKey {
    SourceKey::new(PlatformName::Twitch, id).unwrap()
}

#[derive(Default)]
struct Sink {
    observations: Mutex<Vec<Observation>>,
    progress: Mutex<Vec<(usize, usize)>>,
}

impl ProbeSink for Sink {
    fn observe(&self, observation: Observation) {
        self.observations.lock().push(observation);
    }

    fn progress(&self, _platform: PlatformName, done: usize, expected: usize) {
        self.progress.lock().push((done, expected));
    }
}

/// The result of a probe.
#[derive(Debug)]
struct Seen {
    observations: Vec<Observation>,
    progress: Vec<(usize, usize)>,
    summary: ProbeSummary,
}

impl Seen {
    /// The problems of the probe run, a line each.
    fn problem_texts(&self) -> String {
        let texts: Vec<_> = self.summary.problems.iter().map(ToString::to_string).collect();
        texts.join("\n")
    }

    fn of(&self, id: &str) -> Vec<&Fact> {
        self.observations
            .iter()
            .filter(|observation| observation.source.id() == id)
            .map(|observation| &*observation.fact)
            .collect()
    }

    fn knowledge(&self, id: &str) -> Knowledge {
        Knowledge::of(
            self.observations
                .iter()
                .filter(|observation| observation.source.id() == id),
        )
    }

    fn verdict(&self, id: &str) -> Verdict {
        Verdict::of(PlatformName::Twitch, &self.knowledge(id).evidence)
    }

    /// Counts the facts of all sources that `chosen` picks.
    fn count(&self, chosen: impl Fn(&Fact) -> bool) -> usize {
        self.observations
            .iter()
            .filter(|observation| chosen(&observation.fact))
            .count()
    }

    /// Returns the error code with which the API transport of a source was found rejected or down.
    fn failure(&self, id: &str) -> Option<(bool, String)> {
        self.of(id).into_iter().find_map(|fact| match fact {
            Fact::Connection {
                state: LinkState::Refused { error },
                ..
            } => Some((true, error.code.to_string())),
            Fact::Connection {
                state: LinkState::Down { error },
                ..
            } => Some((false, error.code.to_string())),
            _ => None,
        })
    }

    /// Returns the error with which the platform answered that there is no such source.
    fn no_such_source(&self, id: &str) -> Option<String> {
        self.of(id).into_iter().find_map(|fact| match fact {
            Fact::NoSuchSource { error } => Some(error.code.to_string()),
            _ => None,
        })
    }

    /// Returns the grants that a method reported about a source: granted, denied, unknown.
    fn grants(&self, id: &str, wanted: &str) -> Option<EventBuilder> {
        self.of(id).into_iter().find_map(|fact| match fact {
            Fact::Permissions { method, grants } if method == wanted => Some((
                grants.granted.iter().cloned().collect(),
                grants.denied.iter().cloned().collect(),
                grants.unknown.clone(),
            )),
            _ => None,
        })
    }
}

/// Granted, denied, and unknown with the reason.
type EventBuilder = (Vec<String>, Vec<String>, BTreeMap<String, String>);

/// A claim about a stream, an authorization or a permission: what a failed probe must never make.
fn is_claim(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::StreamSeen { .. }
            | Fact::StreamAbsent
            | Fact::StreamPush { .. }
            | Fact::Viewers { .. }
            | Fact::Auth { .. }
            | Fact::Permissions { .. }
    )
}

fn app_token(access: &str, client_id: &str, now: Timestamp) -> StoredToken {
    StoredToken {
        kind: TokenKind::App,
        client_id: Some(client_id.to_owned()),
        ..StoredToken::unproven(access.to_owned(), now)
    }
}
