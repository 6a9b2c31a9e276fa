//! The platform port: looks at a platform's API and tells what it saw, as observations.

pub mod answer;
pub mod discord;
pub mod kick;
pub mod lenient;
pub mod meter;
pub mod twitch;
pub mod witnesses;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};

/// Looks at one platform.
#[async_trait]
pub trait Platform: Send + Sync {
    /// Returns which platform this is.
    fn name(&self) -> PlatformName;

    /// Returns the keys of sources that the configuration names by login, slug or the like, in the same order. `None` for a
    /// name that the platform does not know.
    async fn resolve(&self, names: &[String]) -> Result<Vec<Option<SourceKey>>, PlatformError>;

    /// Looks at `sources` for all of `probes` together, sharing calls, and hands every observation to `sink` as soon as it is
    /// made. A look that fails is itself an observation and never one of a stream, an authorisation or a permission: of the
    /// connection when nothing is answered, and of a question without an answer when only that one fails.
    async fn probe(&self, probes: &ProbeSet, sources: &[SourceKey], sink: &dyn ProbeSink) -> ProbeSummary;

    /// Returns what is left of each of its limits at this moment, as far as this process has learned of them.
    fn budgets(&self) -> Vec<Budget>;
}

/// What is left of a limit on requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// What is counted.
    pub name: String,
    /// How much of it is left.
    pub left: u32,
    /// How much there is in all.
    pub size: u32,
}

/// Where a probe's findings go.
#[async_trait]
pub trait ProbeSink: Send + Sync {
    /// Takes one observation.
    fn observe(&self, observation: Observation);

    /// Says how far the look has come, in calls that are done and calls expected in all.
    fn progress(&self, platform: PlatformName, done: usize, expected: usize);

    /// Waits until there is room for what another page of sources will tell. A probe of many sources asks before each; who
    /// collects without bound always has room.
    async fn room(&self) {}
}

/// Listens to what one platform pushes.
///
/// It says of a source's link that it is up only after the platform has welcomed us and accepted what we asked for, and
/// that it is down once it is not. It keeps trying for as long as it runs.
#[async_trait]
pub trait Listener: Send {
    /// Returns which platform it listens to.
    fn name(&self) -> PlatformName;

    /// Listens until `stop` resolves, then closes what is open and tells of it, and returns. What it hears goes to `sink`,
    /// whose other end must be read all the time: while it is full, the listener waits with what it has to tell, but goes
    /// on listening.
    async fn listen(self: Box<Self>, stop: BoxFuture<'static, ()>, sink: mpsc::Sender<Heard>);
}

/// What a listener tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A fact.
    Observed(Observation),
    /// Something may have been missed about these sources, or something about them is suspicious: look at once.
    Missed {
        /// The sources.
        sources: Vec<SourceKey>,
        /// What to look at.
        probes: ProbeSet,
    },
}

/// A thing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// Does the platform answer, and does the source exist?
    Connection,
    /// Are the identities that the source needs authorised?
    Auth,
    /// Is it live?
    Stream,
    /// How many watch?
    Viewers,
    /// What may the bot do there?
    Permissions,
}

/// Things to look at together.
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

/// How a look went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeSummary {
    /// Requests sent, repeats included.
    pub calls: usize,
    /// Problems worth telling a person, each a sentence; what they meant for a source is in its observations.
    pub problems: Vec<String>,
}

/// Why a platform did not answer as asked. Loops ask [`PlatformError::recovery`] and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The credentials were refused.
    #[error("{platform} refused the credentials: {reason}")]
    Unauthorized {
        /// The platform.
        platform: PlatformName,
        /// Its reason.
        reason: String,
    },
    /// Known caller, not allowed; also a missing scope.
    #[error("{platform} does not allow {operation}: {reason}")]
    Forbidden {
        /// The platform.
        platform: PlatformName,
        /// What we asked for.
        operation: &'static str,
        /// Its reason.
        reason: String,
    },
    /// Too many requests.
    #[error("{platform} asked for fewer requests")]
    RateLimited {
        /// The platform.
        platform: PlatformName,
        /// How long to wait, where it said so.
        retry_after: Option<std::time::Duration>,
    },
    /// No answer, or one that says that the platform itself is in trouble (5xx, an edge's block page).
    #[error("{platform} cannot be reached for {operation}: {reason}")]
    Unavailable {
        /// The platform.
        platform: PlatformName,
        /// What we asked for.
        operation: &'static str,
        /// Why.
        reason: String,
        /// `network.timeout`, `network.connect`, `network.tls`, `http.500`, ….
        code: String,
    },
    /// An answer that is not what the platform documents.
    #[error("cannot read {platform}'s answer to {operation}: {reason}")]
    Unreadable {
        /// The platform.
        platform: PlatformName,
        /// What we asked for.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The platform says that the request itself is wrong.
    #[error("{platform} rejected {operation}: {reason}")]
    Rejected {
        /// The platform.
        platform: PlatformName,
        /// What we asked for.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// Its reason.
        reason: String,
    },
    /// The configuration lacks something that this needs.
    #[error("{platform} needs {what}")]
    NotConfigured {
        /// The platform.
        platform: PlatformName,
        /// What is missing, and how to give it.
        what: String,
    },
    /// Our own store of tokens cannot be used. That says nothing about the tokens in it, nor about the platform.
    #[error("the tokens for {platform} cannot be used: {reason}")]
    TokenStore {
        /// The platform.
        platform: PlatformName,
        /// Why, and what to do.
        reason: String,
    },
}

/// What a caller should do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Try again with backoff.
    Retry,
    /// Try again after so long.
    RetryAfter(std::time::Duration),
    /// Check the authorisation first.
    Reauthenticate,
    /// Trying again changes nothing.
    GiveUp,
}

impl PlatformError {
    /// Says what a caller should do next.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::RateLimited { retry_after, .. } => {
                retry_after.map_or(Recovery::Retry, Recovery::RetryAfter)
            }
            Self::Unauthorized { .. } => Recovery::Reauthenticate,
            Self::Unavailable { .. } | Self::Unreadable { .. } | Self::TokenStore { .. } => Recovery::Retry,
            Self::Forbidden { .. } | Self::Rejected { .. } | Self::NotConfigured { .. } => Recovery::GiveUp,
        }
    }
}
