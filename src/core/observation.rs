//! Observations: normalized facts from the platforms, the only input of the domain model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::code::{Code, ErrorCode};
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
    /// When it happened: the platform's own timestamp, else the time of receipt.
    pub at: Timestamp,
    /// Origin as `platform.channel` (`twitch.helix`, `twitch.eventsub`, `kick.webhook`, …).
    pub by: String,
    /// The observed fact. One answer may prove the same of thousands of sources.
    pub fact: Arc<Fact>,
}

impl Observation {
    /// Builds an observation of a fact, which several observations may share.
    pub fn new(source: &SourceKey, at: Timestamp, by: &str, fact: impl Into<Arc<Fact>>) -> Self {
        Self {
            source: source.clone(),
            at,
            by: by.to_owned(),
            fact: fact.into(),
        }
    }

    /// Returns the fact to be changed; one that other observations share is copied.
    pub fn fact_mut(&mut self) -> &mut Fact {
        Arc::make_mut(&mut self.fact)
    }
}

/// What a platform proved about a source, in the same form for every platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fact {
    /// State of a transport.
    Connection {
        /// The way to the platform: its API, or a push connection.
        transport: Transport,
        /// Whether requests or events arrive over it.
        state: LinkState,
    },
    /// The platform's response contains the source: it exists, and the bot can reach it.
    Exists,
    /// A complete response of the platform states that the source does not exist: no such channel, or a guild of which the bot
    /// is not a member. Neither a failed request nor a missing API endpoint is such a response.
    NoSuchSource {
        /// The platform's explanation.
        error: ErrorInfo,
    },
    /// The platform reported the authorization of an identity. A failed check reports nothing and is not a fact.
    Auth {
        /// Whose token was checked.
        identity: Identity,
        /// The result of the check; thousands of sources share one.
        check: Arc<AuthCheck>,
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
    /// Number of viewers.
    Viewers {
        /// The platform's count.
        count: u64,
        /// Id of the stream, where known.
        stream_id: Option<String>,
    },
    /// The platform listed the stream without a reliable viewer count, because the streamer hides it.
    ViewersHidden {
        /// Id of the stream, where known.
        stream_id: Option<String>,
    },
    /// Permissions of the bot, as far as one method can determine them.
    Permissions {
        /// The method's name, for example `twitch.moderated-channels`.
        method: String,
        /// Its complete result; thousands of sources may share one.
        grants: Arc<Grants>,
    },
    /// A smoothed round-trip time to the platform.
    Latency {
        /// In milliseconds.
        millis: u64,
    },
    /// Profile fields of the source. Each has its own date.
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
    /// The platform gave no usable answer about a facet although its API works. The previous evidence of the facet stays and
    /// becomes stale.
    Unanswered {
        /// The facet that was checked.
        facet: Facet,
        /// Reason for the missing answer.
        error: ErrorInfo,
    },
    /// An error that changes no verdict by itself.
    Problem {
        /// The error.
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
    /// Deliveries to our HTTP endpoint.
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

/// Observed state of a transport.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "link")]
pub enum LinkState {
    /// Proven to work: a response for which the source must exist, or a welcome with an accepted subscription.
    Up,
    /// A response was received that contains no evidence of the source's existence. It ends a failure, but does not prove a
    /// connection to the source.
    Answered,
    /// Closed by us; no claim until it is opened again.
    Closed,
    /// It failed in a way that recovers without intervention.
    Down {
        /// The cause.
        error: ErrorInfo,
    },
    /// The platform responded with a rejection; needs attention.
    Refused {
        /// The cause.
        error: ErrorInfo,
    },
}

/// A stored error: a stable code and one sentence without secrets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Listed in `docs/errors.md`, or of another program.
    pub code: ErrorCode,
    /// Explanation for people.
    pub message: String,
}

impl ErrorInfo {
    /// Creates an error; the message is truncated to 300 characters.
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Self::of(code.into(), message)
    }

    /// Creates an error that another program reported.
    pub fn foreign(code: &str, message: impl AsRef<str>) -> Self {
        Self::of(ErrorCode::read(code), message)
    }

    fn of(code: ErrorCode, message: impl AsRef<str>) -> Self {
        Self {
            code,
            message: message.as_ref().chars().take(300).collect(),
        }
    }
}

/// The name of one authorized account: `twitch/bot`, `twitch/broadcaster:<user id>`, `twitch/app`, `discord/bot`, ….
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// Wraps a name from the configuration or the token store.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `source` may require this account: a source of its platform, and where the name ends in an id
    /// (`twitch/broadcaster:900200`, `discord/bot:900200`) only the source with that id.
    pub fn concerns(&self, source: &SourceKey) -> bool {
        let Some((platform, role)) = self.0.split_once('/') else {
            return false;
        };
        platform == source.platform().as_str() && role.split_once(':').is_none_or(|(_, id)| id == source.id())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Result of an authorization check of an identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthCheck {
    /// The result.
    pub result: AuthResult,
    /// When the access token expires; `None` if it does not expire.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// The granted scopes.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// Whether the platform rejects a token that was never proven to be valid. `result` does not distinguish this case.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub rejected: bool,
    /// Whether the platform rejects the client id and secret, so that another login does not help.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub client_rejected: bool,
    /// Reason, where `result` does not imply it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl AuthCheck {
    /// A check with this result and no details.
    pub fn of(result: AuthResult) -> Self {
        Self {
            result,
            expires_at: None,
            scopes: BTreeSet::new(),
            rejected: false,
            client_rejected: false,
            reason: None,
        }
    }

    /// The name of the state of a token that the platform does not accept and that nothing proves to have been valid before.
    pub const REJECTED: &str = "REJECTED";

    /// Returns the name of the state as people see it. Documents have no value for a rejected token.
    pub fn state(&self) -> &'static str {
        if self.rejected {
            Self::REJECTED
        } else {
            self.result.as_str()
        }
    }
}

/// The result of an authorization check, worst last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthResult {
    /// The platform accepted the token.
    Valid,
    /// The token has ended and could not be renewed yet.
    Expired,
    /// The grant is gone; a person must log in again.
    Revoked,
}

/// The complete result of one permission method. Permissions that it does not contain are unknown to the method.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Grants {
    /// Permissions that are held.
    pub granted: BTreeSet<String>,
    /// Permissions that are not held.
    pub denied: BTreeSet<String>,
    /// Permissions without a usable answer of the platform, with the reason.
    pub unknown: BTreeMap<String, String>,
}
