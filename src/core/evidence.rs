//! Evidence about a source, joined from observations. Verdicts are derived from it in [`crate::core::verdict`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::counters::CounterTable;
use crate::core::join::{Join, Newest};
use crate::core::observation::{
    AuthCheck, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use crate::core::stream::evidence::StreamEvidence;
use crate::core::time::Timestamp;

pub mod bounds;

/// The evidence of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Evidence {
    /// Evidence of whether the source exists.
    #[serde(skip_serializing_if = "Existence::is_unproven")]
    pub existence: Existence,
    /// Links by transport.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub connection: BTreeMap<Transport, Link>,
    /// Authorization checks by identity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: BTreeMap<Identity, Newest<Arc<AuthCheck>>>,
    /// Stream evidence.
    pub stream: StreamEvidence,
    /// The newest viewer count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<Newest<Viewers>>,
    /// Permissions by the method that reported them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub permissions: BTreeMap<String, Newest<Arc<Grants>>>,
    /// Smoothed round-trip time in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Newest<u64>>,
    /// Profile fields (name, title, …); each has its own date.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, Newest<String>>,
    /// The newest error of any kind; it stays after recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Newest<ErrorInfo>>,
}

impl Evidence {
    /// Returns whether the newest evidence of a transport is a refusal.
    pub fn is_refused(&self) -> bool {
        let mut links = self.connection.values();
        links.any(|link| matches!(link.now(), LinkNow::LinkFailure(failure) if failure.refused))
    }
}

/// Evidence of whether the source exists, separate from the connection: neither a failing nor a working link is evidence of
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Existence {
    /// The newest response that contains the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
    /// The newest response that states that the source does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Newest<ErrorInfo>>,
}

impl Existence {
    /// Returns whether there is no evidence for either state.
    pub fn is_unproven(&self) -> bool {
        *self == Self::default()
    }
}

impl Join for Existence {
    fn join(&mut self, other: Self) {
        self.seen = self.seen.max(other.seen);
        self.missing.join(other.missing);
    }
}

/// The evidence of one transport: the times of its last proof, close and failure.
///
/// A failure is over once the source is proven again, or once any request is answered again: the answer restores the state
/// from before the failure (decision 33).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// Last proof that the link works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Timestamp>,
    /// Last response that does not contain the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
    /// Last time that we closed the link ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Newest<LinkFailure>>,
}

/// A failure of a transport.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkFailure {
    /// Whether the platform rejected the request (needs attention) rather than failed (recovers without intervention).
    pub refused: bool,
    /// The cause.
    pub error: ErrorInfo,
}

/// Current state of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkNow<'a> {
    /// No evidence, or closed by us.
    Unmonitored,
    /// Proven to work.
    Up,
    /// Failing.
    LinkFailure(&'a LinkFailure),
}

impl Link {
    /// Returns the state of the link by its newest evidence. Of two events with the same time the worse one counts.
    pub fn now(&self) -> LinkNow<'_> {
        match &self.failure {
            Some(failure) if Some(failure.at) >= self.up.max(self.closed) && !self.is_over(failure) => {
                LinkNow::LinkFailure(&failure.value)
            }
            _ if self.up > self.closed => LinkNow::Up,
            _ => LinkNow::Unmonitored,
        }
    }

    /// Returns the time of the newest evidence.
    pub fn newest(&self) -> Option<Timestamp> {
        let newest_report = self.up.max(self.closed);
        let newest_report = newest_report.max(self.failure.as_ref().map(|failure| failure.at));
        match self.now() {
            LinkNow::Up => newest_report.max(self.answered),
            // If nothing was proven, or the proof is outdated, an answer to a request about another source changes nothing.
            LinkNow::Unmonitored | LinkNow::LinkFailure(_) => newest_report,
        }
    }

    /// Whether a request was answered since the failure, and the source was proven before it.
    fn is_over(&self, failure: &Newest<LinkFailure>) -> bool {
        self.answered > Some(failure.at) && self.up > self.closed
    }
}

impl Join for Link {
    fn join(&mut self, other: Self) {
        self.up = self.up.max(other.up);
        self.answered = self.answered.max(other.answered);
        self.closed = self.closed.max(other.closed);
        self.failure.join(other.failure);
    }
}

/// A viewer count and the stream to which it belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Viewers {
    /// The platform's count.
    pub count: u64,
    /// Id of the stream, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream_id: Option<String>,
    /// Whether the streamer hides the count, so that `count` has no meaning.
    #[serde(skip_serializing_if = "is_false", default)]
    pub hidden: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Join for Evidence {
    fn join(&mut self, other: Self) {
        self.existence.join(other.existence);
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
    /// The joined evidence.
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
    /// Joins an observation.
    pub fn update(&mut self, observation: &Observation) {
        self.join(Self::from(observation));
    }

    /// Adds the id of the stream to an end without an id, if the current evidence identifies it: later, a stream that began in
    /// the meantime could not be distinguished from the one that ended.
    pub fn name_end(&self, observation: &mut Observation) {
        let at = observation.at;
        if let Fact::StreamPush {
            live: false,
            stream_id: stream_id @ None,
            ..
        } = observation.fact_mut()
        {
            let id = self.evidence.stream.live_before(at);
            *stream_id = id.map(str::to_owned);
        }
    }

    /// Joins all `observations` of one source.
    pub fn of<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> Self {
        let mut all = Self::default();
        for observation in observations {
            all.update(observation);
        }
        all
    }
}

impl From<&Observation> for Knowledge {
    fn from(observation: &Observation) -> Self {
        let at = observation.at;
        let mut known = Self::default();
        let evidence = &mut known.evidence;
        match Fact::clone(&observation.fact) {
            Fact::Connection { transport, state } => {
                if let LinkState::Down { error } | LinkState::Refused { error } = &state {
                    evidence.error = Some(Newest::new(at, error.clone()));
                }
                evidence.connection.insert(transport, link(at, state));
            }
            Fact::Exists => evidence.existence.seen = Some(at),
            Fact::NoSuchSource { error } => {
                evidence.error = Some(Newest::new(at, error.clone()));
                evidence.existence.missing = Some(Newest::new(at, error));
            }
            Fact::Auth { identity, check } => {
                evidence.auth.insert(identity, Newest::new(at, check));
            }
            Fact::StreamPush {
                live: true,
                stream_id,
                started_at,
            } => {
                let started_at = started_at.and_then(Timestamp::known);
                let id = stream_id.and_then(named_stream);
                // A platform without stream ids identifies a stream by its start.
                let id = id.unwrap_or_else(|| started_at.unwrap_or(at).to_string());
                evidence.stream = StreamEvidence::start(at, &id, started_at);
            }
            Fact::StreamPush {
                live: false,
                stream_id,
                ..
            } => {
                evidence.stream = StreamEvidence::end(at, stream_id.and_then(named_stream).as_deref());
            }
            Fact::StreamSeen {
                stream_id,
                started_at,
            } => {
                let started_at = started_at.and_then(Timestamp::known);
                let id = named_stream(stream_id);
                let id = id.unwrap_or_else(|| started_at.unwrap_or(at).to_string());
                evidence.stream = StreamEvidence::seen(at, &id, started_at);
            }
            Fact::StreamAbsent => evidence.stream = StreamEvidence::absent(at),
            Fact::Viewers { count, stream_id } => {
                let value = Viewers {
                    count,
                    stream_id: stream_id.and_then(named_stream),
                    hidden: false,
                };
                evidence.viewers = Some(Newest::new(at, value));
            }
            Fact::ViewersHidden { stream_id } => {
                let value = Viewers {
                    count: 0,
                    stream_id: stream_id.and_then(named_stream),
                    hidden: true,
                };
                evidence.viewers = Some(Newest::new(at, value));
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
        bounds::apply(&mut known.evidence);
        known
    }
}

/// Returns the normalized id of a stream. Where a platform identifies a stream by its start, the instant is the id, in any
/// notation; a placeholder time for "none" identifies no stream.
pub fn named_stream(id: String) -> Option<String> {
    match id.parse::<Timestamp>() {
        Ok(start) => start.known().map(|start| start.to_string()),
        Err(_) => Some(bounds::shortened(id, bounds::NAME)).filter(|id| !id.is_empty()),
    }
}

fn link(at: Timestamp, state: LinkState) -> Link {
    let failing = |refused, error: ErrorInfo| Link {
        failure: Some(Newest::new(at, LinkFailure { refused, error })),
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
        LinkState::Down { error } => failing(false, error),
        LinkState::Refused { error } => failing(true, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::source::PlatformName;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
    }

    /// State of a link after a sequence of observations, one second apart: `up`, `answered`, `closed`, `down`, `refused` or
    /// `gone`.
    fn after(newest_report: &str) -> (&'static str, Option<i64>) {
        let error = |code| ErrorInfo::new(code, "it happened");
        let states = newest_report.split_whitespace().map(|word| match word {
            "up" => LinkState::Up,
            "answered" => LinkState::Answered,
            "closed" => LinkState::Closed,
            "down" => LinkState::Down {
                error: error(Code::Http(503)),
            },
            "refused" => LinkState::Refused {
                error: error(Code::Forbidden(PlatformName::Twitch)),
            },
            other => panic!("{other}"),
        });
        let mut link_now = Link::default();
        for (second, state) in (0..).zip(states) {
            link_now.join(link(at(second), state));
        }
        let stands = match link_now.now() {
            LinkNow::Unmonitored => "unmonitored",
            LinkNow::Up => "up",
            LinkNow::LinkFailure(failure) if failure.refused => "refused",
            LinkNow::LinkFailure(_) => "down",
        };
        let newest = link_now.newest();
        (stands, newest.map(|newest| newest.millis_since(at(0)) / 1_000))
    }

    #[test]
    fn answer_ends_failure_and_restores_earlier_state() {
        for (newest_report, stands, newest) in [
            ("", "unmonitored", None),
            ("up", "up", Some(0)),
            ("up down", "down", Some(1)),
            ("up down up", "up", Some(2)),
            ("up down answered", "up", Some(2)),
            ("up refused answered", "up", Some(2)),
            ("up answered down", "down", Some(2)),
            ("up down answered down", "down", Some(3)),
            // Confirms an existing proof, and proves nothing by itself.
            ("up answered", "up", Some(1)),
            ("answered", "unmonitored", None),
            ("down answered", "down", Some(0)),
            ("up closed answered", "unmonitored", Some(1)),
            ("up closed down answered", "down", Some(2)),
            ("refused answered", "refused", Some(0)),
            ("refused up down answered", "up", Some(3)),
        ] {
            assert_eq!(after(newest_report), (stands, newest), "{newest_report}");
        }
    }

    #[test]
    fn one_start_in_two_spellings_is_one_stream() {
        let source = "kick:900200".parse().unwrap();
        let seen = |second, stream_id: &str| {
            let fact = Fact::StreamSeen {
                stream_id: stream_id.to_owned(),
                started_at: stream_id.parse().ok(),
            };
            Observation::new(&source, at(second), "test", fact)
        };
        let spellings = [
            "2026-05-01T18:00:07Z",
            "2026-05-02T05:00:07+11:00",
            "2026-05-01T18:00:07.000Z",
            "2026-05-01 18:00:07+00:00",
        ];
        let all: Vec<_> = (0..)
            .zip(spellings)
            .map(|(second, id)| seen(second, id))
            .collect();
        let streams = Knowledge::of(&all).evidence.stream.streams;
        let ids: Vec<_> = streams.keys().map(String::as_str).collect();
        assert_eq!(ids, ["2026-05-01T18:00:07.000Z"]);
    }

    #[test]
    fn the_zero_time_is_neither_a_start_nor_a_stream() {
        let source = "kick:900200".parse().unwrap();
        let zero = "0001-01-01T00:00:00Z";
        let push = Fact::StreamPush {
            live: true,
            stream_id: Some(zero.to_owned()),
            started_at: zero.parse().ok(),
        };
        let known = Knowledge::from(&Observation::new(&source, at(0), "test", push));
        let expected = StreamEvidence::start(at(0), &at(0).to_string(), None);
        assert_eq!(known.evidence.stream, expected);
    }

    #[test]
    fn unanswered_probe_records_only_its_error() {
        let source = "twitch:900200".parse().unwrap();
        let error = ErrorInfo::new(Code::Http(503), "no list of streams");
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
