//! What is known about a source, joined from observations. Verdicts are derived from it elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::counters::CounterTable;
use crate::core::join::{Join, Newest};
use crate::core::observation::{
    AuthCheck, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use crate::core::stream::evidence::StreamEvidence;
use crate::core::time::Timestamp;

/// The evidence of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Evidence {
    /// Links by transport.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub connection: BTreeMap<Transport, Link>,
    /// Authorisation by identity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: BTreeMap<Identity, Newest<AuthCheck>>,
    /// Streams.
    pub stream: StreamEvidence,
    /// Viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<Newest<Viewers>>,
    /// Permissions by the method that told them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub permissions: BTreeMap<String, Newest<Grants>>,
    /// Smoothed round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Newest<u64>>,
    /// How the source presents itself, each field dated by itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, Newest<String>>,
    /// The newest error of any kind; it stays after recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Newest<ErrorInfo>>,
}

/// The evidence of one transport: when it was last proven, closed by us, and in trouble.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// Last proof that it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Timestamp>,
    /// Last time that we closed it ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Newest<Trouble>>,
}

/// What was wrong with a transport.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Trouble {
    /// Whether the platform refused (a person must act) rather than failed (it heals by itself).
    pub refused: bool,
    /// Why.
    pub error: ErrorInfo,
}

/// How a link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkNow<'a> {
    /// Nothing is known, or we closed it.
    Unattended,
    /// Proven.
    Up,
    /// In trouble.
    Trouble(&'a Trouble),
}

impl Link {
    /// Returns how the link stands by its newest evidence. Of two events of one instant the worse one counts.
    pub fn now(&self) -> LinkNow<'_> {
        match &self.trouble {
            Some(trouble) if Some(trouble.at) >= self.up.max(self.closed) => LinkNow::Trouble(&trouble.value),
            _ if self.up > self.closed => LinkNow::Up,
            _ => LinkNow::Unattended,
        }
    }

    /// Returns the time of the newest evidence.
    pub fn newest(&self) -> Option<Timestamp> {
        self.up
            .max(self.closed)
            .max(self.trouble.as_ref().map(|trouble| trouble.at))
    }
}

impl Join for Link {
    fn join(&mut self, other: Self) {
        self.up = self.up.max(other.up);
        self.closed = self.closed.max(other.closed);
        self.trouble.join(other.trouble);
    }
}

/// A count of viewers and the stream that they watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Viewers {
    /// The platform's count.
    pub count: u64,
    /// The stream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream_id: Option<String>,
}

impl Join for Evidence {
    fn join(&mut self, other: Self) {
        self.connection.join(other.connection);
        self.auth.join(other.auth);
        self.stream.join(other.stream);
        self.viewers.join(other.viewers);
        self.permissions.join(other.permissions);
        self.latency.join(other.latency);
        self.profile.join(other.profile);
        self.error.join(other.error);
    }
}

/// Evidence and counters: everything about a source that is joined.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Knowledge {
    /// The evidence.
    pub evidence: Evidence,
    /// Totals by writer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: CounterTable,
}

impl Join for Knowledge {
    fn join(&mut self, other: Self) {
        self.evidence.join(other.evidence);
        self.counters.join(other.counters);
    }
}

impl Knowledge {
    /// Joins what `observation` tells.
    pub fn learn(&mut self, observation: &Observation) {
        self.join(Self::from(observation));
    }

    /// Joins all that `observations` tell about one source.
    pub fn of<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> Self {
        let mut all = Self::default();
        for observation in observations {
            all.learn(observation);
        }
        all
    }
}

impl From<&Observation> for Knowledge {
    fn from(observation: &Observation) -> Self {
        let at = observation.at;
        let mut known = Self::default();
        let evidence = &mut known.evidence;
        match observation.fact.clone() {
            Fact::Connection { transport, state } => {
                if let LinkState::Down { error } | LinkState::Refused { error } = &state {
                    evidence.error = Some(Newest::new(at, error.clone()));
                }
                evidence.connection.insert(transport, link(at, state));
            }
            Fact::Auth { identity, check } => {
                evidence.auth.insert(identity, Newest::new(at, check));
            }
            Fact::StreamPush {
                live: true,
                stream_id,
                started_at,
            } => {
                // A platform without stream ids identifies a stream by when it started.
                let id = stream_id.unwrap_or_else(|| started_at.unwrap_or(at).to_string());
                evidence.stream = StreamEvidence::start(at, &id, started_at);
            }
            Fact::StreamPush {
                live: false,
                stream_id,
                ..
            } => {
                evidence.stream = StreamEvidence::end(at, stream_id.as_deref());
            }
            Fact::StreamSeen {
                stream_id,
                started_at,
            } => {
                evidence.stream = StreamEvidence::seen(at, &stream_id, started_at);
            }
            Fact::StreamAbsent => evidence.stream = StreamEvidence::absent(at),
            Fact::Viewers { count, stream_id } => {
                evidence.viewers = Some(Newest::new(at, Viewers { count, stream_id }));
            }
            Fact::Permissions { method, grants } => {
                evidence.permissions.insert(method, Newest::new(at, grants));
            }
            Fact::Latency { millis } => evidence.latency = Some(Newest::new(at, millis)),
            Fact::Profile { fields } => {
                evidence.profile = fields
                    .into_iter()
                    .map(|(field, value)| (field, Newest::new(at, value)))
                    .collect();
            }
            Fact::Counters { writer, totals } => {
                known.counters.insert(writer, totals);
            }
            Fact::Problem { error } => evidence.error = Some(Newest::new(at, error)),
        }
        known
    }
}

fn link(at: Timestamp, state: LinkState) -> Link {
    match state {
        LinkState::Up => Link {
            up: Some(at),
            ..Link::default()
        },
        LinkState::Closed => Link {
            closed: Some(at),
            ..Link::default()
        },
        LinkState::Down { error } => Link {
            trouble: Some(Newest::new(
                at,
                Trouble {
                    refused: false,
                    error,
                },
            )),
            ..Link::default()
        },
        LinkState::Refused { error } => Link {
            trouble: Some(Newest::new(at, Trouble { refused: true, error })),
            ..Link::default()
        },
    }
}
