//! A source in short: what a list of many sources shows of each, without the evidence behind it.
//!
//! A document is mostly evidence, and a list needs little of that: when each verdict was confirmed, and what is wrong
//! now. A store may keep the summary beside the document, so that a thousand sources are listed without reading a
//! thousand histories. It always follows from the document, and counts only for the version that derived it.

use serde::{Deserialize, Serialize};

use crate::core::document::{SourceDocument, SourceRecord};
use crate::core::evidence::{Evidence, LinkNow};
use crate::core::observation::{ErrorInfo, Identity};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, NOTHING_PROVEN, deciding_identity};

/// The version of the rules that derive summaries: another one may judge the same evidence differently.
const RULES: &str = env!("CARGO_PKG_VERSION");

/// What a list shows of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSummary {
    /// The source.
    pub key: SourceKey,
    /// The fields that every reader may rely on.
    pub record: SourceRecord,
    /// Whether anything was ever proven about the connection.
    pub proven: bool,
    /// When the stream that it is about began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the viewers were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewers_at: Option<Timestamp>,
    /// When what decided the authorisation was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_at: Option<Timestamp>,
    /// When a method last told permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions_at: Option<Timestamp>,
    /// When the latency was last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_at: Option<Timestamp>,
    /// The error of a transport that is in trouble now, refusals first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<ErrorInfo>,
    /// The identity whose check decided the authorisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Identities whose authorisation is not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unauthorised: Vec<Unauthorised>,
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

/// A summary as a store keeps it.
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
        let viewers = evidence.viewers.as_ref();
        Self {
            key: document.key.clone(),
            record: document.record(),
            proven: verdict.status.rule != NOTHING_PROVEN,
            started_at: verdict.session.as_ref().and_then(|session| session.started_at),
            viewers_at: verdict.viewer_count.and(viewers.map(|viewers| viewers.at)),
            auth_at: verdict.auth.as_ref().and_then(|auth| auth.at),
            permissions_at: verdict.permissions_at,
            latency_at: evidence.latency.as_ref().map(|latency| latency.at),
            trouble: trouble(evidence).cloned(),
            identity: deciding_identity(evidence).cloned(),
            unauthorised: unauthorised(evidence),
        }
    }

    /// Returns it as text to keep beside its document.
    pub fn to_text(&self) -> String {
        let kept = Kept {
            rules: RULES,
            summary: self,
        };
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// Reads what [`SourceSummary::to_text`] wrote; `None` when another version did, or nobody that we know.
    pub fn from_text(text: &str) -> Option<Self> {
        let found: Found<'_> = serde_json::from_str(text).ok()?;
        (found.rules == RULES).then_some(found.summary)
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
