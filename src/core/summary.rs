//! A source in short: what a list of many sources shows of each, without the evidence behind it.
//!
//! A document is mostly evidence, and a list needs little of that: when each verdict was confirmed, and what is wrong
//! now. A store may keep the summary beside the document, so that a thousand sources are listed without reading a
//! thousand histories. It always follows from the document, and counts only for the version that derived it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::document::{LastError, Metrics, SourceDocument, SourceRecord};
use crate::core::evidence::{Evidence, LinkNow};
use crate::core::observation::{ErrorInfo, Identity};
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::{Timestamp, optional_millis};
use crate::core::verdict::{AuthStatus, NOTHING_PROVEN, Status, deciding_identity};

/// The version of the rules that derive summaries: another one may judge the same evidence differently.
const RULES: &str = env!("CARGO_PKG_VERSION");

/// Roles that a summary names; there may be more.
const NAMED: usize = 3;

/// What a list shows of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSummary {
    /// The source.
    pub key: SourceKey,
    /// The name that people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Box<str>>,
    /// Connected?
    pub status: Status,
    /// Whether anything was ever proven about the connection.
    pub proven: bool,
    /// When `status` was last decided or confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub status_at: Option<Timestamp>,
    /// Live?
    pub stream_status: StreamStatus,
    /// When `stream_status` was last decided or confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub stream_at: Option<Timestamp>,
    /// When the stream that it is about began.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub started_at: Option<Timestamp>,
    /// How many watch; only while online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewer_count: Option<u64>,
    /// When the viewers were counted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub viewers_at: Option<Timestamp>,
    /// Authorised? `None` while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_status: Option<AuthStatus>,
    /// When what decided the authorisation was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub auth_at: Option<Timestamp>,
    /// The identity whose check decided the authorisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Identities whose authorisation is not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unauthorised: Vec<Unauthorised>,
    /// What the bot may do here.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    pub roles: Roles,
    /// When a method last told permissions.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub permissions_at: Option<Timestamp>,
    /// Smoothed round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// When the latency was last measured.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub latency_at: Option<Timestamp>,
    /// The error of a transport that is in trouble now, refusals first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Box<ErrorInfo>>,
    /// The part of the record that a list for people does without, as JSON on one line. It stays text until
    /// [`SourceSummary::record`] is asked for: reading it would take longer than all else.
    #[serde(skip)]
    rest: Box<str>,
}

/// An identity whose authorisation is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unauthorised {
    /// Which.
    pub identity: Identity,
    /// Why, where the platform says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Permissions in short. Scopes do not count: they are what a token allows, the same everywhere, and roles are what differs
/// from source to source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles {
    /// The first few, in the platform's words.
    pub named: Vec<Box<str>>,
    /// How many there are.
    pub count: usize,
}

impl Roles {
    fn of(permissions: &[String]) -> Self {
        let roles = permissions.iter().filter(|name| !name.starts_with("scope:"));
        let mut roles: Vec<&String> = roles.collect();
        // In Discord this one includes all others.
        if roles.iter().any(|name| *name == "ADMINISTRATOR") {
            roles.retain(|name| *name == "ADMINISTRATOR");
        }
        let named = roles.iter().take(NAMED);
        Self {
            named: named.map(|name| name.as_str().into()).collect(),
            count: roles.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What a summary has as text.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestOfRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    metrics: Metrics,
    metadata: Map<String, Value>,
    permissions: Vec<String>,
}

/// The first line of what a store keeps; the second is the rest of the record.
#[derive(Serialize)]
struct Kept<'a> {
    rules: &'static str,
    summary: &'a SourceSummary,
}

#[derive(Deserialize)]
struct Found<'a> {
    rules: &'a str,
    summary: SourceSummary,
}

impl SourceSummary {
    /// Sums up `document`.
    pub fn of(document: &SourceDocument) -> Self {
        let verdict = &document.verdict;
        let evidence = &document.knowledge.evidence;
        let record = document.record();
        let roles = Roles::of(&record.permissions);
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
            started_at: verdict.session.as_ref().and_then(|session| session.started_at),
            viewer_count: record.viewer_count,
            viewers_at: verdict
                .viewer_count
                .and(evidence.viewers.as_ref().map(|viewers| viewers.at)),
            auth_status: record.auth_status,
            auth_at: verdict.auth.as_ref().and_then(|auth| auth.at),
            identity: deciding_identity(evidence).cloned(),
            unauthorised: unauthorised(evidence),
            roles,
            permissions_at: verdict.permissions_at,
            latency_ms: record.latency_ms,
            latency_at: evidence.latency.as_ref().map(|latency| latency.at),
            trouble: trouble(evidence).cloned().map(Box::new),
            rest: rest.into_boxed_str(),
        }
    }

    /// Returns the fields that every reader of the document may rely on.
    pub fn record(&self) -> SourceRecord {
        // What is kept was written by this very version, so it can be read unless somebody changed it.
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

    /// Returns it as text to keep beside its document.
    pub fn to_text(&self) -> String {
        let kept = Kept {
            rules: RULES,
            summary: self,
        };
        let first = serde_json::to_string(&kept).expect("names and numbers can be written as JSON");
        [&*first, &*self.rest].join("\n")
    }

    /// Reads what [`SourceSummary::to_text`] wrote; `None` when another version did, or nobody that we know.
    pub fn from_text(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('\n')?;
        let found: Found<'_> = serde_json::from_str(first).ok()?;
        let summary = SourceSummary {
            rest: rest.into(),
            ..found.summary
        };
        (found.rules == RULES && rest.ends_with('}')).then_some(summary)
    }

    /// Returns why the identity that decided has no valid authorisation, as far as that is so and anyone said why.
    pub fn deciding_reason(&self) -> Option<&str> {
        let deciding = self.identity.as_ref()?;
        let lost = self.unauthorised.iter().find(|lost| lost.identity == *deciding)?;
        lost.reason.as_deref()
    }
}

fn trouble(evidence: &Evidence) -> Option<&ErrorInfo> {
    let links = evidence.connection.values();
    links
        .filter_map(|link| match link.now() {
            LinkNow::Trouble(trouble) => Some(trouble),
            LinkNow::Up | LinkNow::Unattended => None,
        })
        .max_by_key(|trouble| trouble.refused)
        .map(|trouble| &trouble.error)
}

fn unauthorised(evidence: &Evidence) -> Vec<Unauthorised> {
    let lost = evidence.auth.iter();
    let lost = lost.filter(|(_, check)| check.value.result != AuthStatus::Valid);
    lost.map(|(identity, check)| Unauthorised {
        identity: identity.clone(),
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
    fn a_summary_of_other_rules_does_not_count() {
        let summary = SourceSummary::of(&SourceDocument::new("kick:5".parse().unwrap()));
        let text = summary.to_text();
        assert_eq!(SourceSummary::from_text(&text), Some(summary));
        let older = text.replacen(RULES, "0.0.1", 1);
        for other in [older.as_str(), "", "{}", "[]", &text[..text.len() - 1]] {
            assert_eq!(SourceSummary::from_text(other), None, "{other}");
        }
    }
}
