//! The platform port: probes a platform's API and reports the results as observations.

pub mod descriptor;
pub mod discord;
mod error;
pub mod kick;
pub mod kit;
pub mod twitch;

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::error::{PlatformError, Recovery};
use self::kit::oauth::Accounts;
use crate::config::Settings;
use crate::core::finding::Finding;
use crate::core::observation::{AuthCheck, ErrorInfo, Identity, Observation};
use crate::core::platform::{PlatformRules, for_each_platform};
use crate::core::source::{PlatformName, SourceKey};

macro_rules! rules {
    ($($name:ident $module:ident $about:literal;)*) => {
        impl PlatformName {
            /// Returns what is particular to this platform in the rules that all platforms share.
            pub fn rules(self) -> &'static PlatformRules {
                match self {
                    $(Self::$name => &$module::rules::RULES,)*
                }
            }
        }
    };
}
for_each_platform!(rules);

/// Probes one platform.
#[async_trait]
#[warn(missing_docs)]
pub trait Platform: Any + Send + Sync {
    /// Returns which platform this is.
    fn name(&self) -> PlatformName;

    /// Returns the keys of sources that the configuration identifies by login, slug or similar, in the same order. `None` for a
    /// name that does not exist on the platform.
    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError>;

    /// Probes `sources` for all of `probes` together, sharing calls, and passes every observation to `sink` as soon as it is
    /// made. A failed probe is itself an observation, but never one of a stream, an authorization or a permission: it is about
    /// the connection if no request was answered, and about the unanswered request if only that one failed.
    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary;

    /// Returns which of `sources` need the account `identity`. An observation about an account applies to all of them.
    fn needing(&self, identity: &Identity, sources: &[SourceKey]) -> Vec<SourceKey> {
        let needing = sources.iter().filter(|source| identity.concerns(source));
        needing.cloned().collect()
    }

    /// Checks an account that a probe of its sources skips because they do not use it. Returns `None` if there is no such
    /// account.
    async fn check_account(&self, identity: &Identity) -> Option<Result<AuthCheck, PlatformError>> {
        let _ = identity;
        None
    }

    /// Returns the logins of the platform; `None` if its tokens are not obtained by logging in.
    fn accounts(&self) -> Option<&dyn Accounts> {
        None
    }

    /// Returns the name of the user with this id, with one request.
    async fn user_name(&self, id: &str) -> Option<String> {
        let _ = id;
        None
    }

    /// Returns the name of an account whose check does not contain it, with one request.
    async fn account_name(&self, identity: &Identity) -> Option<String> {
        let _ = identity;
        None
    }

    /// Applies what changed settings say about single sources.
    fn reconfigure(&self, settings: &Settings) {
        let _ = settings;
    }

    /// Checks the push connection that `watch` would use for `sources`. Creates no subscription and no session.
    async fn check_push(&self, settings: &Settings, sources: &[SourceKey]) -> Vec<Finding> {
        let _ = (settings, sources);
        Vec::new()
    }

    /// Returns the remaining quota of each rate limit, as far as this process has received it.
    fn rate_limits(&self) -> Vec<RateLimit>;

    /// Divides the rate limits that all processes of the application share among this number of members of a fleet. Called with
    /// every change of their number, and never without a fleet.
    fn divide_rate_limits(&self, members: u32) {
        let _ = members;
    }
}

/// The remaining quota of a rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// What is counted, for people.
    pub name: String,
    /// What is counted, as a label of metrics.
    pub bucket: String,
    /// Remaining requests or points.
    pub left: u32,
    /// Total requests or points.
    pub size: u32,
}

/// Receives the results of a probe.
#[async_trait]
pub trait ProbeSink: Send + Sync {
    /// Receives one observation.
    fn observe(&self, observation: Observation);

    /// Reports the progress of the probe run, as completed calls and expected calls in all.
    fn progress(&self, platform: PlatformName, done: usize, expected: usize);

    /// Waits until there is capacity for the observations of another page of sources. A probe of many sources calls this before
    /// each page; a sink without a bound always has capacity.
    async fn ready(&self) {}

    /// Returns how many calls of a run may be in flight, as far as the rate limit allows: each may bring a page of observations.
    fn calls_at_once(&self) -> usize {
        100
    }
}

/// Receives what one platform pushes.
///
/// It reports a source's link as up only after the platform has welcomed the session and accepted the subscriptions, and as down
/// when that no longer holds. It reconnects for as long as it runs.
#[async_trait]
pub trait Listener: Send {
    /// Returns which platform it listens to.
    fn name(&self) -> PlatformName;

    /// Listens until `stop` resolves, then closes all connections, reports that, and returns. Events go to `sink`, whose receiver
    /// must be read continuously: while it is full, the listener delays its reports but continues to receive.
    async fn listen(self: Box<Self>, stop: BoxFuture<'static, ()>, sink: mpsc::Sender<ListenerEvent>);
}

/// What a listener reports.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerEvent {
    /// An observation.
    Observed(Observation),
    /// Something may have been missed about these sources, or something about them is suspicious: probe them at once.
    Missed {
        /// The sources.
        sources: Vec<SourceKey>,
        /// What to probe.
        probes: ProbeSet,
    },
}

/// A kind of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// Does the platform answer, and does the source exist?
    Connection,
    /// Are the identities that the source needs authorized?
    Auth,
    /// Is it live?
    Stream,
    /// How many viewers are there?
    Viewers,
    /// What permissions does the bot have there?
    Permissions,
}

/// Probes that run together.
pub type ProbeSet = BTreeSet<Probe>;

impl Probe {
    /// Every probe.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Auth,
        Self::Stream,
        Self::Viewers,
        Self::Permissions,
    ];

    /// Returns the name on the command line and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Auth => "auth",
            Self::Stream => "stream",
            Self::Viewers => "viewers",
            Self::Permissions => "permissions",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|probe| probe.as_str() == text)
            .ok_or_else(|| {
                format!("`{text}` is not a probe; use one of connection, auth, stream, viewers, permissions")
            })
    }
}

/// The result of a probe run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeSummary {
    /// Requests sent, including retries.
    pub calls: usize,
    /// Problems worth showing to users.
    pub problems: Vec<Problem>,
}

/// A problem of a probe run. Its meaning for a source is in the run's observations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The sentence for users. It names what it is about.
    pub text: String,
    /// What it is about.
    pub about: Subject,
    /// The error in the observations that it caused, if it caused any: a source whose document has this error shows the problem.
    pub error: Option<ErrorInfo>,
}

/// What a problem of a probe run is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One account, whichever sources need it.
    Account(Identity),
    /// One source.
    Source(SourceKey),
    /// The platform, or a request that several sources share.
    Platform,
}

impl Problem {
    fn new(about: Subject, text: String) -> Self {
        let error = None;
        Self { text, about, error }
    }

    /// Creates a problem of an account.
    pub fn of_account(identity: &Identity, text: impl Into<String>) -> Self {
        Self::new(Subject::Account(identity.clone()), text.into())
    }

    /// Creates a problem of a source.
    pub fn of_source(key: &SourceKey, text: impl Into<String>) -> Self {
        Self::new(Subject::Source(key.clone()), text.into())
    }

    /// Creates a problem of the platform or of several sources.
    pub fn of_platform(text: impl Into<String>) -> Self {
        Self::new(Subject::Platform, text.into())
    }

    /// Adds the error that the observations contain.
    #[must_use]
    pub fn caused_by(self, error: ErrorInfo) -> Self {
        let error = Some(error);
        Self { error, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
