//! What a platform told us, normalised: the only thing that ever enters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::counters::Counters;
use crate::core::facet::Facet;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// One fact about one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The source that the fact is about.
    pub source: SourceKey,
    /// When it happened: the platform's own timestamp, else when we received it.
    pub at: Timestamp,
    /// Who told us, as `platform.channel` (`twitch.helix`, `twitch.eventsub`, `kick.webhook`, …).
    pub by: String,
    /// What we learnt.
    pub fact: Fact,
}

impl Observation {
    /// Builds an observation.
    pub fn new(source: &SourceKey, at: Timestamp, by: &str, fact: Fact) -> Self {
        Self {
            source: source.clone(),
            at,
            by: by.to_owned(),
            fact,
        }
    }
}

/// A normalised fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fact {
    /// A transport works, or does not.
    Connection {
        /// Which one.
        transport: Transport,
        /// How it is.
        state: LinkState,
    },
    /// The platform told how an identity's authorisation is. A failed check tells nothing and is no fact.
    Auth {
        /// Which identity (see [`Identity`]).
        identity: Identity,
        /// What the platform said of it.
        check: AuthCheck,
    },
    /// A stream started or ended, as pushed by the platform.
    StreamPush {
        /// Whether it started (`true`) or ended.
        live: bool,
        /// The platform's id of the stream, where it sends one.
        stream_id: Option<String>,
        /// When the stream started, where known.
        started_at: Option<Timestamp>,
    },
    /// A complete, successful poll listed the stream.
    StreamSeen {
        /// The platform's id of the stream.
        stream_id: String,
        /// When the stream started, where known.
        started_at: Option<Timestamp>,
    },
    /// A complete, successful poll that asked for this source did not list it.
    StreamAbsent,
    /// How many watch.
    Viewers {
        /// The platform's count.
        count: u64,
        /// The stream that they watch.
        stream_id: Option<String>,
    },
    /// What the bot may do here, as far as one method can tell.
    Permissions {
        /// The method's name, for example `twitch.moderated-channels`.
        method: String,
        /// Its complete answer.
        grants: Grants,
    },
    /// A smoothed round trip to the platform, in milliseconds.
    Latency {
        /// Milliseconds.
        millis: u64,
    },
    /// How the source presents itself. Each field is dated by itself.
    Profile {
        /// Field name (`displayName`, `login`, `title`, `category`, …) to value.
        fields: BTreeMap<String, String>,
    },
    /// A writer's running totals.
    Counters {
        /// The writer.
        writer: String,
        /// Its totals.
        totals: Counters,
    },
    /// The platform was asked about a facet and gave no answer that can be used, although its API works. What was known of
    /// the facet stays, and grows old.
    Unanswered {
        /// What was asked about.
        facet: Facet,
        /// Why there is no answer.
        error: ErrorInfo,
    },
    /// Something went wrong that changes no verdict by itself.
    Problem {
        /// What.
        error: ErrorInfo,
    },
}

/// A way to reach a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Request and response over HTTP.
    Api,
    /// Twitch's EventSub websocket.
    EventSub,
    /// Discord's gateway.
    Gateway,
    /// Deliveries to our own HTTP endpoint.
    Webhook,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Api => "api",
            Self::EventSub => "eventsub",
            Self::Gateway => "gateway",
            Self::Webhook => "webhook",
        })
    }
}

/// How a transport was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "link")]
pub enum LinkState {
    /// Proven to work: an answer that needed the source to exist, a welcome with an accepted subscription.
    Up,
    /// It works: an answer came, which says nothing of whether the source exists. That ends a failure; by itself it proves no
    /// connection to the source.
    Answered,
    /// We ended it ourselves; nothing is claimed of it until it is opened again.
    Closed,
    /// It failed in a way that heals by itself.
    Down {
        /// Why.
        error: ErrorInfo,
    },
    /// The platform answered and refuses; a person must act.
    Refused {
        /// Why.
        error: ErrorInfo,
    },
}

/// An error worth keeping: a stable code and one sentence without secrets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Stable, dotted: `twitch.not_found`, `network.timeout`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl ErrorInfo {
    /// Builds an error, cutting the message to 300 characters.
    pub fn new(code: &str, message: impl AsRef<str>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.as_ref().chars().take(300).collect(),
        }
    }

    /// Returns whether it says that the source does not exist, rather than that something fails or is refused.
    pub fn is_not_found(&self) -> bool {
        self.code.ends_with(".not_found")
    }
}

/// The name of one authorised account: `twitch/bot`, `twitch/broadcaster:<user id>`, `twitch/app`, `discord/bot`, ….
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// Wraps a name as it stands in the configuration or the token store.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a platform said of an identity's authorisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthCheck {
    /// The result.
    pub result: AuthResult,
    /// When the access token ends, where it ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// The scopes it was granted.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// Why, where the result alone does not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The result of an authorisation check, worst last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthResult {
    /// The platform accepted the token.
    Valid,
    /// The token has ended and could not be renewed yet.
    Expired,
    /// The grant is gone; a person must authorise again.
    Revoked,
}

/// The complete answer of one method that tells permissions. What it does not name it knows nothing of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Grants {
    /// Held for certain.
    pub granted: BTreeSet<String>,
    /// Not held for certain.
    pub denied: BTreeSet<String>,
    /// Asked for, but the platform gave no usable answer: permission to reason.
    pub unknown: BTreeMap<String, String>,
}
