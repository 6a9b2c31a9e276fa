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
///
/// A trouble is over once the source is proven again, or once anything is answered again: the answer leads back to what was
/// known before the trouble (our decision 33).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// Last proof that it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Timestamp>,
    /// Last answer that says nothing of whether the source exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
    /// Last time that we closed it ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Newest<Trouble>>,
    /// Last time that the platform said that the source does not exist. A later trouble hides that, but does not undo it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
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
            Some(trouble) if Some(trouble.at) >= self.up.max(self.closed) && !self.is_over(trouble) => {
                LinkNow::Trouble(&trouble.value)
            }
            _ if self.up > self.closed => LinkNow::Up,
            _ => LinkNow::Unattended,
        }
    }

    /// Returns the time of the newest evidence.
    pub fn newest(&self) -> Option<Timestamp> {
        let told = self.up.max(self.closed);
        let told = told.max(self.trouble.as_ref().map(|trouble| trouble.at));
        match self.now() {
            LinkNow::Up => told.max(self.answered),
            // Where nothing was proven, or what was is not believed any more, an answer of somebody else changes nothing.
            LinkNow::Unattended | LinkNow::Trouble(_) => told,
        }
    }

    /// Whether something was answered since a trouble, and the source was proven before it and not denied since.
    fn is_over(&self, trouble: &Newest<Trouble>) -> bool {
        !trouble.value.error.is_not_found()
            && self.answered > Some(trouble.at)
            && self.up > self.closed.max(self.gone)
    }
}

impl Join for Link {
    fn join(&mut self, other: Self) {
        self.up = self.up.max(other.up);
        self.answered = self.answered.max(other.answered);
        self.closed = self.closed.max(other.closed);
        self.trouble.join(other.trouble);
        self.gone = self.gone.max(other.gone);
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
            Fact::Unanswered { error, .. } | Fact::Problem { error } => {
                evidence.error = Some(Newest::new(at, error));
            }
        }
        known
    }
}

fn link(at: Timestamp, state: LinkState) -> Link {
    let in_trouble = |refused, error: ErrorInfo| Link {
        gone: error.is_not_found().then_some(at),
        trouble: Some(Newest::new(at, Trouble { refused, error })),
        ..Link::default()
    };
    match state {
        LinkState::Up => Link {
            up: Some(at),
            ..Link::default()
        },
        LinkState::Answered => Link {
            answered: Some(at),
            ..Link::default()
        },
        LinkState::Closed => Link {
            closed: Some(at),
            ..Link::default()
        },
        LinkState::Down { error } => in_trouble(false, error),
        LinkState::Refused { error } => in_trouble(true, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    /// How a link stands after what was told of it, a second apart: `up`, `answered`, `closed`, `down`, `refused` or `gone`.
    fn after(told: &str) -> (&'static str, Option<i64>) {
        let error = |code| ErrorInfo::new(code, "it happened");
        let states = told.split_whitespace().map(|word| match word {
            "up" => LinkState::Up,
            "answered" => LinkState::Answered,
            "closed" => LinkState::Closed,
            "down" => LinkState::Down {
                error: error("http.503"),
            },
            "refused" => LinkState::Refused {
                error: error("twitch.forbidden"),
            },
            "gone" => LinkState::Refused {
                error: error("twitch.not_found"),
            },
            other => panic!("{other}"),
        });
        let mut link_now = Link::default();
        for (second, state) in (0..).zip(states) {
            link_now.join(link(at(second), state));
        }
        let stands = match link_now.now() {
            LinkNow::Unattended => "unattended",
            LinkNow::Up => "up",
            LinkNow::Trouble(trouble) if trouble.refused => "refused",
            LinkNow::Trouble(_) => "down",
        };
        let newest = link_now.newest();
        (stands, newest.map(|newest| newest.millis_since(at(0)) / 1_000))
    }

    #[test]
    fn an_answer_ends_a_trouble_and_leads_back_to_what_was_proven_before_it() {
        for (told, stands, newest) in [
            ("", "unattended", None),
            ("up", "up", Some(0)),
            ("up down", "down", Some(1)),
            ("up down up", "up", Some(2)),
            ("up down answered", "up", Some(2)),
            ("up refused answered", "up", Some(2)),
            ("up answered down", "down", Some(2)),
            ("up down answered down", "down", Some(3)),
            // Confirms what is proven, and proves nothing by itself.
            ("up answered", "up", Some(1)),
            ("answered", "unattended", None),
            ("down answered", "down", Some(0)),
            ("up closed answered", "unattended", Some(1)),
            ("up closed down answered", "down", Some(2)),
            // Who does not exist is not made up by a list without him.
            ("up gone answered", "refused", Some(1)),
            ("up gone down answered", "down", Some(2)),
            ("gone answered", "refused", Some(0)),
            ("gone up down answered", "up", Some(3)),
        ] {
            assert_eq!(after(told), (stands, newest), "{told}");
        }
    }

    #[test]
    fn a_question_that_was_not_answered_leaves_its_error_and_changes_nothing_else() {
        let source = "twitch:900200".parse().unwrap();
        let error = ErrorInfo::new("http.503", "no list of streams");
        let fact = Fact::Unanswered {
            facet: crate::core::facet::Facet::Stream,
            error: error.clone(),
        };
        let known = Knowledge::from(&Observation::new(&source, at(0), "test", fact));
        let expected = Evidence {
            error: Some(Newest::new(at(0), error)),
            ..Evidence::default()
        };
        assert_eq!(known.evidence, expected);
    }
}
