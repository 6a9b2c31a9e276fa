//! Leases: the right to act under a name for a limited time, which several processes share through an engine.
//!
//! The engine decides when a lease has expired; the holder's own clock only ends its right earlier ([`guard`]). Each acquisition
//! has a number, the fence, which is higher than all before it. A record is never deleted, so that no fence returns; with NATS,
//! whose records expire, the number continues in the stream. Beside the leases of a fleet there is one shared text, its view,
//! which is replaced only if it is still as it was read.
//!
//! No process is notified when a lease expires: no engine reports that reliably, so members list the leases repeatedly.

mod boot_clock;
mod firestore;
mod guard;
mod keeper;
mod memory;
mod nats;
mod postgres;
mod sqlite;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::boot_clock::{BootClock, ManualBootClock, SystemBootClock};
pub use self::firestore::FirestoreLeases;
pub use self::guard::{FenceRegister, Guard};
pub use self::keeper::{Keeper, LeaseState};
pub use self::memory::MemoryLeases;
pub use self::nats::NatsLeases;
pub use self::postgres::PostgresLeases;
pub use self::sqlite::SqliteLeases;
use crate::store::StoreError;

/// Name of a fleet or of a lease in it: 1 to 60 letters, digits, `-` and `_`, so that it is valid in every engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseName(String);

impl LeaseName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LeaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 60 || !text.chars().all(is_allowed) {
            return Err(format!(
                "`{}` is not a name of 1 to 60 letters, digits, `-` or `_`",
                crate::secrets::quote(text)
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LeaseName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LeaseName> for String {
    fn from(name: LeaseName) -> Self {
        name.0
    }
}

/// Who holds a lease: a member, and which of its acquisitions it is. A restarted member is another holder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    pub member: LeaseName,
    /// Random.
    pub incarnation: String,
}

impl Holder {
    /// Creates a holder that is different from all others of this member.
    pub fn new(member: LeaseName) -> Self {
        Self {
            member,
            incarnation: uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.member, self.incarnation)
    }
}

impl FromStr for Holder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (member, incarnation) = text.split_once('#').unwrap_or((text, ""));
        Ok(Self {
            member: member.parse()?,
            incarnation: incarnation.to_owned(),
        })
    }
}

/// Number of an acquisition: higher than those of all earlier acquisitions of the same name.
///
/// A new record does not begin at 1, but at the engine's time. So the numbers grow even if an engine has lost its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Times of a lease, all derived from its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts after its last renewal.
    pub ttl: Duration,
}

impl Terms {
    /// Creates the terms of leases that last for `ttl`.
    pub fn lasting(ttl: Duration) -> Self {
        Self { ttl }
    }

    /// How much earlier than the engine the holder stops, and how long a new holder waits.
    pub fn margin(&self) -> Duration {
        (self.ttl / 5).max(Duration::from_secs(1)).min(self.ttl / 3)
    }

    /// How long the holder may act after a request that was granted.
    pub fn right(&self) -> Duration {
        self.ttl.saturating_sub(self.margin())
    }

    /// Time between renewals, before jitter.
    pub fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// Time between attempts after a failure.
    pub fn retry(&self) -> Duration {
        self.ttl / 10
    }

    /// Timeout of one request.
    pub fn patience(&self) -> Duration {
        self.ttl / 4
    }
}

/// A lease that has not expired by the engine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    pub name: LeaseName,
    pub holder: Holder,
    pub fence: Fence,
    /// What the holder has written beside it.
    pub note: String,
}

/// The shared text of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedText {
    /// Version for [`LeaseEngine::replace_view`].
    pub version: String,
    pub text: String,
}

/// Error of a lease engine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// It is unreachable, busy or did not respond in time. Whether a request had an effect is unknown.
    #[error("the lease engine {location} is not available: {reason}")]
    Unavailable { location: String, reason: String },
    /// It rejects us. Needs attention.
    #[error("the lease engine {location} refused: {reason}")]
    Refused {
        location: String,
        reason: String,
        hint: String,
    },
    /// The store that contains the leases cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine has granted a fence that is not higher than all before it.
    #[error(
        "the lease engine {location} has lost its records: it granted `{name}` with fence {found}, although {highest} was granted before"
    )]
    Wiped {
        location: String,
        name: LeaseName,
        found: Fence,
        highest: Fence,
    },
}

impl LeaseError {
    /// Returns whether a retry may succeed without intervention.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Store(error) => error.is_transient(),
            Self::Refused { .. } | Self::Wiped { .. } => false,
        }
    }

    /// Returns how to resolve the error.
    pub fn hint(&self) -> String {
        match self {
            Self::Unavailable { .. } => "check that it runs and can be reached from here; a running `bitbrat watch` tries again by itself".to_owned(),
            Self::Refused { hint, .. } | Self::Store(StoreError::Refused { hint, .. }) => hint.clone(),
            Self::Store(_) => "check fleet.url and the store; a running `bitbrat watch` tries again by itself".to_owned(),
            Self::Wiped { .. } => {
                "stop all members, correct the clock of the engine, and start them again".to_owned()
            }
        }
    }
}

/// The port of leases. One engine object serves one fleet, and has a connection of its own.
#[async_trait]
pub trait LeaseEngine: Send + Sync {
    /// Returns where the leases are, for messages.
    fn location(&self) -> String;

    /// Takes the lease `name` if it has expired, in one atomic step; `None` if another holder has it.
    ///
    /// A holder that has it already renews it and gets the same fence, because the answer to an earlier request may be lost.
    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        note: &str,
    ) -> Result<Option<Fence>, LeaseError>;

    /// Extends the lease and replaces its note; `false` if it has expired or belongs to another holder or fence.
    async fn renew(
        &self,
        name: &LeaseName,
        holder: &Holder,
        fence: Fence,
        note: &str,
    ) -> Result<bool, LeaseError>;

    /// Lets the lease expire now, if it is this holder's. Its fence is kept.
    async fn release(&self, name: &LeaseName, holder: &Holder, fence: Fence) -> Result<(), LeaseError>;

    /// Returns the leases that have not expired, by name.
    async fn list(&self) -> Result<Vec<LeaseRecord>, LeaseError>;

    /// Returns the fleet's shared text; `None` if there is none yet.
    async fn view(&self) -> Result<Option<SharedText>, LeaseError>;

    /// Replaces the shared text if its version is `base` (`None`: if there is none); `false` if it is another one.
    async fn replace_view(&self, base: Option<&str>, text: &str) -> Result<bool, LeaseError>;
}

/// Leases of one fleet.
#[derive(Debug, Clone)]
pub struct Scope {
    pub fleet: LeaseName,
    pub terms: Terms,
}
