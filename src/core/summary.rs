//! Summaries of sources: the data that a list of many sources shows, without the evidence.
//!
//! A document is mostly evidence, and a list needs little of it: when each verdict was confirmed, and the current errors. A
//! store may keep the summary next to the document, so that a list of a thousand sources does not read a thousand documents.
//! It is always derived from the document, and is valid only for the version that derived it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::document::{LastError, Metrics, SourceDocument, SourceRecord};
use crate::core::evidence::{Evidence, LinkNow};
use crate::core::future::is_too_far_ahead;
use crate::core::observation::{ErrorInfo, Identity};
use crate::core::permission::Abilities;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::{Timestamp, optional_millis};
use crate::core::verdict::{AuthStatus, Existence, NOTHING_PROVEN, Status, deciding_identity};

/// The version of the rules that derive summaries (another version may derive other verdicts from the same evidence), and the
/// number of the serialized format. That format has no field names: every change of the fields must increment the number.
const RULES: &str = concat!(env!("CARGO_PKG_VERSION"), " 5");

/// Maximum number of roles in a summary.
const NAMED: usize = 3;

/// The data that a list shows of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// The source.
    pub key: SourceKey,
    /// Display name.
    pub display_name: Option<Box<str>>,
    /// Connection status.
    pub status: Status,
    /// Whether there is any evidence about the connection.
    pub proven: bool,
    /// When `status` was last decided or confirmed.
    #[serde(with = "optional_millis")]
    pub status_at: Option<Timestamp>,
    /// Live status.
    pub stream_status: StreamStatus,
    /// When `stream_status` was last decided or confirmed.
    #[serde(with = "optional_millis")]
    pub stream_at: Option<Timestamp>,
    /// When the current or last stream began.
    #[serde(with = "optional_millis")]
    pub started_at: Option<Timestamp>,
    /// Number of viewers; only while online.
    pub viewer_count: Option<u64>,
    /// When the viewers were counted.
    #[serde(with = "optional_millis")]
    pub viewers_at: Option<Timestamp>,
    /// Authorization; `None` while unknown.
    pub auth_status: Option<AuthStatus>,
    /// When the evidence that decided the authorization was last confirmed.
    #[serde(with = "optional_millis")]
    pub auth_at: Option<Timestamp>,
    /// The identity whose check decided the authorization.
    pub identity: Option<Identity>,
    /// Identities without valid authorization.
    pub unauthorized: Vec<Unauthorized>,
    /// Roles and permissions of the bot, with the platform's names.
    pub roles: Roles,
    /// Derived abilities, without regard to token expiry.
    pub abilities: Abilities,
    /// When a method last reported permissions.
    #[serde(with = "optional_millis")]
    pub permissions_at: Option<Timestamp>,
    /// Smoothed round-trip time in milliseconds.
    pub latency_ms: Option<u64>,
    /// When the latency was last measured.
    #[serde(with = "optional_millis")]
    pub latency_at: Option<Timestamp>,
    /// The current error: that the source does not exist, else the error of a failing transport, rejections first.
    pub failure: Option<Box<ErrorInfo>>,
    /// The part of the record that human-readable lists omit, as JSON. It is parsed only by [`SourceSummary::record`], because
    /// parsing it would take longer than everything else.
    rest: Box<str>,
}

/// An identity without valid authorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unauthorized {
    /// The identity.
    pub identity: Identity,
    /// Whether its token was never proven to be valid.
    pub rejected: bool,
    /// Whether the platform rejects the client id and secret.
    pub client_rejected: bool,
    /// Reason, where the platform gives one.
    pub reason: Option<String>,
}

/// Permissions in short. Scopes are not included: they describe a token and are the same for all sources, whereas roles differ
/// from source to source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles {
    /// The first few, with the platform's names.
    pub named: Vec<Box<str>>,
    /// Total number.
    pub count: usize,
}

impl Roles {
    fn of(permissions: &[String]) -> Self {
        let roles = permissions.iter().filter(|name| !name.starts_with("scope:"));
        let mut roles: Vec<&String> = roles.collect();
        // On Discord this one includes all others.
        if roles.iter().any(|name| *name == "ADMINISTRATOR") {
            roles.retain(|name| *name == "ADMINISTRATOR");
        }
        let named = roles.iter().take(NAMED);
        Self {
            named: named.map(|name| name.as_str().into()).collect(),
            count: roles.len(),
        }
    }
}

/// Fields that are serialized as text.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestOfRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    metrics: Metrics,
    metadata: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<String>>,
}

/// The verdicts of a source at a time in the past, each with the time of its last proof; `None` where nothing was known.
#[derive(Debug, Default)]
pub struct PastVerdicts {
    /// Connection status.
    pub status: Option<(Status, Timestamp)>,
    /// Live status.
    pub stream: Option<(StreamStatus, Timestamp)>,
    /// When the stream began.
    pub started_at: Option<Timestamp>,
    /// Authorization.
    pub auth: Option<(AuthStatus, Timestamp)>,
    /// The permissions that the bot had.
    pub permissions: Option<(Vec<String>, Timestamp)>,
}

impl SourceSummary {
    /// Creates the summary of a source of which only `verdicts` are known.
    pub fn of_past(key: SourceKey, name: Option<&str>, verdicts: PastVerdicts) -> Self {
        let nothing = Self::of(&SourceDocument::new(key));
        let (permissions, permissions_at) = verdicts.permissions.unzip();
        let mut rest: RestOfRecord = serde_json::from_str(&nothing.rest).unwrap_or_default();
        let roles = permissions.as_deref().map(Roles::of);
        rest.permissions = permissions;
        let stream = verdicts.stream.map(|(stream, _)| stream);
        Self {
            display_name: name.map(Into::into),
            status: verdicts.status.map_or(nothing.status, |(status, _)| status),
            proven: verdicts.status.is_some(),
            status_at: verdicts.status.map(|(_, at)| at),
            stream_status: stream.unwrap_or(StreamStatus::Unknown),
            stream_at: verdicts.stream.map(|(_, at)| at),
            started_at: verdicts
                .started_at
                .filter(|_| stream == Some(StreamStatus::Online)),
            auth_status: verdicts.auth.map(|(auth, _)| auth),
            auth_at: verdicts.auth.map(|(_, at)| at),
            roles: roles.unwrap_or_default(),
            permissions_at,
            rest: serde_json::to_string(&rest)
                .expect("names and numbers can be written as JSON")
                .into_boxed_str(),
            ..nothing
        }
    }

    /// Creates the summary of `document`.
    pub fn of(document: &SourceDocument) -> Self {
        let verdict = &document.verdict;
        let evidence = &document.knowledge.evidence;
        let record = document.record();
        let roles = Roles::of(record.held());
        let rest = RestOfRecord {
            last_error: record.last_error,
            metrics: record.metrics,
            metadata: record.metadata,
            permissions: record.permissions,
        };
        let rest = serde_json::to_string(&rest).expect("names and numbers can be written as JSON");
        Self {
            key: document.key.clone(),
            display_name: record.display_name.map(String::into_boxed_str),
            status: record.status,
            proven: verdict.status.rule != NOTHING_PROVEN,
            status_at: record.last_status_update,
            stream_status: record.stream_status,
            stream_at: record.last_stream_update,
            started_at: verdict
                .broadcast
                .as_ref()
                .and_then(|broadcast| broadcast.started_at),
            viewer_count: record.viewer_count,
            viewers_at: verdict
                .viewer_count
                .and(evidence.viewers.as_ref().map(|viewers| viewers.at)),
            auth_status: record.auth_status,
            auth_at: verdict.auth.as_ref().and_then(|auth| auth.at),
            identity: deciding_identity(evidence).cloned(),
            unauthorized: unauthorized(evidence),
            roles,
            abilities: Abilities::of(document.key.platform(), evidence),
            permissions_at: verdict.permissions_at,
            latency_ms: record.latency_ms,
            latency_at: evidence.latency.as_ref().map(|latency| latency.at),
            failure: failure(document).cloned().map(Box::new),
            rest: rest.into_boxed_str(),
        }
    }

    /// Returns whether it is based on evidence that is rejected at `now` because it is dated in the future.
    pub fn is_from_the_future(&self, now: Timestamp) -> bool {
        let dates = [
            self.status_at,
            self.stream_at,
            self.viewers_at,
            self.auth_at,
            self.permissions_at,
            self.latency_at,
        ];
        dates.into_iter().flatten().any(|at| is_too_far_ahead(at, now))
    }

    /// Returns the names of the source in lower case: its id, login and display name.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.key.id().to_owned()];
        names.extend(self.display_name.as_deref().map(str::to_lowercase));
        let metadata = self.record().metadata;
        let fields = ["login", "slug"]
            .into_iter()
            .filter_map(|field| metadata.get(field));
        names.extend(fields.filter_map(|name| name.as_str()).map(str::to_lowercase));
        names.sort();
        names.dedup();
        names
    }

    /// Returns the fields of the document that every reader may rely on.
    pub fn record(&self) -> SourceRecord {
        // The text was written by this version, so it can be parsed unless the stored value was modified.
        let rest: RestOfRecord = serde_json::from_str(&self.rest).unwrap_or_default();
        SourceRecord {
            id: self.key.id().to_owned(),
            platform: self.key.platform(),
            display_name: self.display_name.as_deref().map(str::to_owned),
            status: self.status,
            stream_status: self.stream_status,
            last_status_update: self.status_at,
            last_stream_update: self.stream_at,
            last_error: rest.last_error,
            metrics: rest.metrics,
            metadata: rest.metadata,
            auth_status: self.auth_status,
            viewer_count: self.viewer_count,
            permissions: rest.permissions,
            latency_ms: self.latency_ms,
        }
    }

    /// Serializes the summary for storage next to its document. Only programs read it, a thousand at a time, so the format is
    /// optimized for reading.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&(RULES, self)).expect("text and numbers can be written")
    }

    /// Parses the output of [`SourceSummary::to_bytes`]; `None` if another version or another program wrote it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rules, bytes) = postcard::take_from_bytes::<&str>(bytes).ok()?;
        if rules != RULES {
            return None;
        }
        let (summary, left) = postcard::take_from_bytes(bytes).ok()?;
        left.is_empty().then_some(summary)
    }

    /// Returns why the deciding identity has no valid authorization; `None` if it has, or if no reason is known.
    pub fn deciding_reason(&self) -> Option<&str> {
        self.deciding()?.reason.as_deref()
    }

    /// Returns whether the platform rejects the token of the deciding identity.
    pub fn is_rejected(&self) -> bool {
        self.deciding().is_some_and(|lost| lost.rejected)
    }

    /// Returns whether the platform rejects the client id and secret of the deciding identity.
    pub fn is_client_rejected(&self) -> bool {
        self.deciding().is_some_and(|lost| lost.client_rejected)
    }

    fn deciding(&self) -> Option<&Unauthorized> {
        let deciding = self.identity.as_ref()?;
        self.unauthorized.iter().find(|lost| lost.identity == *deciding)
    }
}

fn failure(document: &SourceDocument) -> Option<&ErrorInfo> {
    let evidence = &document.knowledge.evidence;
    if document.verdict.existence.value == Existence::Gone {
        return evidence.existence.missing.as_ref().map(|missing| &missing.value);
    }
    let links = evidence.connection.values();
    links
        .filter_map(|link| match link.now() {
            LinkNow::LinkFailure(failure) => Some(failure),
            LinkNow::Up | LinkNow::Unmonitored => None,
        })
        .max_by_key(|failure| failure.refused)
        .map(|failure| &failure.error)
}

fn unauthorized(evidence: &Evidence) -> Vec<Unauthorized> {
    let lost = evidence.auth.iter();
    let lost = lost.filter(|(_, check)| check.value.result != AuthStatus::Valid);
    lost.map(|(identity, check)| Unauthorized {
        identity: identity.clone(),
        rejected: check.value.rejected,
        client_rejected: check.value.client_rejected,
        reason: check.value.reason.clone(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_as_far_as_they_are_few_and_scopes_are_none() {
        for (permissions, named, count) in [
            ("scope:chat:read scope:user:bot", "", 0),
            ("MODERATOR VIP scope:user:bot", "MODERATOR VIP", 2),
            ("A B C D", "A B C", 4),
            ("A ADMINISTRATOR B C", "ADMINISTRATOR", 1),
        ] {
            let permissions: Vec<String> = permissions.split(' ').map(str::to_owned).collect();
            let roles = Roles::of(&permissions);
            assert_eq!((roles.named.join(" "), roles.count), (named.to_owned(), count));
        }
    }

    #[test]
    fn stored_summary_format_changes_only_with_its_version() {
        let at = |second| Some(Timestamp::from_millis(1_780_000_000_000).plus_secs(second));
        let bot = Identity::named("twitch/bot");
        let summary = SourceSummary {
            display_name: Some("Rat".into()),
            status: Status::Error,
            proven: true,
            status_at: at(1),
            stream_status: StreamStatus::Online,
            stream_at: at(2),
            started_at: at(3),
            viewer_count: Some(4),
            viewers_at: at(5),
            auth_status: Some(AuthStatus::Revoked),
            auth_at: at(6),
            identity: Some(bot.clone()),
            unauthorized: vec![Unauthorized {
                identity: bot,
                rejected: false,
                client_rejected: false,
                reason: Some("why".to_owned()),
            }],
            roles: Roles::of(&["VIP".to_owned()]),
            abilities: Abilities::default(),
            permissions_at: at(7),
            latency_ms: Some(8),
            latency_at: at(9),
            failure: Some(Box::new(ErrorInfo::foreign("code", "message"))),
            ..SourceSummary::of(&SourceDocument::new("kick:5".parse().unwrap()))
        };
        let number = RULES.rsplit(' ').next().unwrap();
        let bytes = &summary.to_bytes()[1 + RULES.len()..];
        insta::assert_snapshot!(format!("{number}: {}", bytes.escape_ascii()));
    }

    #[test]
    fn a_summary_of_other_rules_does_not_count() {
        let summary = SourceSummary::of(&SourceDocument::new("kick:5".parse().unwrap()));
        let bytes = summary.to_bytes();
        assert_eq!(SourceSummary::from_bytes(&bytes), Some(summary));
        let mut older = bytes.clone();
        older[1] ^= 1;
        let longer = [&*bytes, b"}"].concat();
        for other in [&*older, b"", b"{}", &bytes[..bytes.len() - 1], &longer] {
            assert_eq!(SourceSummary::from_bytes(other), None, "{other:?}");
        }
    }
}
