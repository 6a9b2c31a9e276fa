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

/// The version of the rules that derive summaries (another one may judge the same evidence differently), and the number of the
/// form in which they are kept. That form does not name its fields: whoever changes one raises the number.
const RULES: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");

/// Roles that a summary names; there may be more.
const NAMED: usize = 3;

/// What a list shows of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// The source.
    pub key: SourceKey,
    /// The name that people see.
    pub display_name: Option<Box<str>>,
    /// Connected?
    pub status: Status,
    /// Whether anything was ever proven about the connection.
    pub proven: bool,
    /// When `status` was last decided or confirmed.
    #[serde(with = "optional_millis")]
    pub status_at: Option<Timestamp>,
    /// Live?
    pub stream_status: StreamStatus,
    /// When `stream_status` was last decided or confirmed.
    #[serde(with = "optional_millis")]
    pub stream_at: Option<Timestamp>,
    /// When the stream that it is about began.
    #[serde(with = "optional_millis")]
    pub started_at: Option<Timestamp>,
    /// How many watch; only while online.
    pub viewer_count: Option<u64>,
    /// When the viewers were counted.
    #[serde(with = "optional_millis")]
    pub viewers_at: Option<Timestamp>,
    /// Authorised? `None` while unknown.
    pub auth_status: Option<AuthStatus>,
    /// When what decided the authorisation was last confirmed.
    #[serde(with = "optional_millis")]
    pub auth_at: Option<Timestamp>,
    /// The identity whose check decided the authorisation.
    pub identity: Option<Identity>,
    /// Identities whose authorisation is not valid.
    pub unauthorised: Vec<Unauthorised>,
    /// What the bot may do here.
    pub roles: Roles,
    /// When a method last told permissions.
    #[serde(with = "optional_millis")]
    pub permissions_at: Option<Timestamp>,
    /// Smoothed round trip in milliseconds.
    pub latency_ms: Option<u64>,
    /// When the latency was last measured.
    #[serde(with = "optional_millis")]
    pub latency_at: Option<Timestamp>,
    /// The error of a transport that is in trouble now, refusals first.
    pub trouble: Option<Box<ErrorInfo>>,
    /// The part of the record that a list for people does without, as JSON. It stays text until
    /// [`SourceSummary::record`] is asked for: reading it would take longer than all else.
    rest: Box<str>,
}

/// An identity whose authorisation is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unauthorised {
    /// Which.
    pub identity: Identity,
    /// Why, where the platform says so.
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

    /// Returns what to keep of it beside its document. Only programs read it, a thousand at a time, so it has the form that is
    /// read fastest.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&(RULES, self)).expect("text and numbers can be written")
    }

    /// Reads what [`SourceSummary::to_bytes`] wrote; `None` when another version did, or nobody that we know.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rules, bytes) = postcard::take_from_bytes::<&str>(bytes).ok()?;
        if rules != RULES {
            return None;
        }
        let (summary, left) = postcard::take_from_bytes(bytes).ok()?;
        left.is_empty().then_some(summary)
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
    fn what_is_kept_changes_its_form_only_together_with_the_number_of_it() {
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
            unauthorised: vec![Unauthorised {
                identity: bot,
                reason: Some("why".to_owned()),
            }],
            roles: Roles::of(&["VIP".to_owned()]),
            permissions_at: at(7),
            latency_ms: Some(8),
            latency_at: at(9),
            trouble: Some(Box::new(ErrorInfo::new("code", "message"))),
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
