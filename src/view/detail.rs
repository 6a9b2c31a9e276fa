//! A source in full: every verdict with its evidence, its age and the rule that decided.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::core::counters::CounterTable;
use crate::core::document::SourceDocument;
use crate::core::evidence::LinkNow;
use crate::core::freshness::age_ms;
use crate::core::observation::Grants;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Holding, explain, holdings};
use crate::store::HistoryEntry;
use crate::view::item::SourceItem;
use crate::view::listening::Listening;
use crate::view::source_row::SourceRow;

#[derive(Debug, Clone)]
pub struct SourceInFull {
    pub as_of: Timestamp,
    pub row: SourceRow,
    pub document: SourceDocument,
    /// How changes of its stream reach `watch`, where a plan contains it.
    pub listening: Option<Listening>,
    /// Its latest transitions, newest first.
    pub history: Vec<HistoryEntry>,
}

/// A source in full, as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceDetail {
    #[serde(flatten)]
    item: SourceItem,
    /// Why each verdict is what it is.
    pub verdicts: Verdicts,
    /// How changes of its stream reach `watch`, as far as that is known without asking the platform; Twitch only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listening: Option<Listening>,
    /// How each way to reach the platform stands.
    pub transports: Vec<TransportItem>,
    /// The token status of each account that it needs.
    pub identities: Vec<IdentityItem>,
    /// Every permission that was reported, with its method.
    pub holdings: Vec<HoldingItem>,
    /// Totals by the process that counted them.
    pub counters: CounterTable,
    /// The latest transitions, newest first.
    pub history: Vec<HistoryEntry>,
    /// The evidence as it is stored; its layout may change between versions.
    pub evidence: Value,
}

/// The verdicts that have a rule.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verdicts {
    /// Connected?
    pub status: VerdictItem,
    /// Live?
    pub stream: VerdictItem,
    /// Authorization; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<VerdictItem>,
}

/// One verdict and why.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictItem {
    /// The verdict.
    pub value: String,
    /// The name of the rule that decided.
    pub rule: &'static str,
    /// The rule in words.
    pub because: &'static str,
    /// When the deciding evidence was last confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
    /// How old that is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// One way to reach the platform.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportItem {
    /// `api`, `eventsub`, `gateway` or `webhook`.
    pub name: String,
    /// How it stands.
    pub state: TransportState,
    /// When it was last proven to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_up: Option<Timestamp>,
    /// When we last closed it ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_closed: Option<Timestamp>,
    /// When it last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_failure: Option<Timestamp>,
    /// The error of that failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How a transport stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportState {
    /// Proven to work.
    Up,
    /// Failed, heals by itself.
    Down,
    /// Refused by the platform.
    Refused,
    /// Closed by us, or never opened.
    Closed,
}

/// The token status of one account.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityItem {
    /// Its name, such as `twitch/bot`.
    pub identity: String,
    /// The platform's answer.
    pub status: AuthStatus,
    /// When it was checked.
    #[schemars(with = "String")]
    pub checked_at: Timestamp,
    /// When the access token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// What it was granted.
    pub scopes: Vec<String>,
    /// The reason, where the status alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is known of one permission.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldingItem {
    /// The permission.
    pub permission: String,
    /// Whether the bot has it.
    pub held: Held,
    /// Why that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The methods whose answer this is; where it is unknown, those that could not answer.
    pub methods: Vec<String>,
    /// When the deciding method answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
}

/// Whether something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// For certain.
    Yes,
    /// Certainly not.
    No,
    /// Not known.
    Unknown,
}

impl SourceInFull {
    /// Returns it as JSON shows it.
    pub fn detail(&self) -> SourceDetail {
        let verdict = &self.document.verdict;
        let knowledge = &self.document.knowledge;
        let because = |value: String, rule: &'static str, at: Option<Timestamp>| VerdictItem {
            value,
            rule,
            because: explain(rule),
            at,
            age_ms: at.map(|at| age_ms(at, self.as_of)),
        };
        SourceDetail {
            item: SourceItem::from(&self.row),
            verdicts: Verdicts {
                status: because(
                    verdict.status.value.to_string(),
                    verdict.status.rule,
                    verdict.status.at,
                ),
                stream: because(
                    verdict.stream.value.to_string(),
                    verdict.stream.rule,
                    verdict.stream.at,
                ),
                auth: verdict
                    .auth
                    .as_ref()
                    .map(|auth| because(auth.value.to_string(), auth.rule, auth.at)),
            },
            listening: self.listening.clone(),
            transports: self.transports(),
            identities: self.identities(),
            holdings: self.holdings(),
            counters: knowledge.counters.clone(),
            history: self.history.clone(),
            evidence: serde_json::to_value(&knowledge.evidence).unwrap_or_default(),
        }
    }

    /// Returns how each way to reach the platform stands.
    pub fn transports(&self) -> Vec<TransportItem> {
        let links = &self.document.knowledge.evidence.connection;
        links
            .iter()
            .map(|(transport, link)| TransportItem {
                name: transport.to_string(),
                state: match link.now() {
                    LinkNow::Up => TransportState::Up,
                    LinkNow::Unmonitored => TransportState::Closed,
                    LinkNow::LinkFailure(failure) if failure.refused => TransportState::Refused,
                    LinkNow::LinkFailure(_) => TransportState::Down,
                },
                last_up: link.up,
                last_closed: link.closed,
                last_failure: link.failure.as_ref().map(|failure| failure.at),
                failure: link
                    .failure
                    .as_ref()
                    .map(|failure| format!("{}: {}", failure.value.error.code, failure.value.error.message)),
            })
            .collect()
    }

    /// Returns the token status of each account that it needs.
    pub fn identities(&self) -> Vec<IdentityItem> {
        let checks = &self.document.knowledge.evidence.auth;
        checks
            .iter()
            .map(|(identity, check)| IdentityItem {
                identity: identity.to_string(),
                status: check.value.result,
                checked_at: check.at,
                expires_at: check.value.expires_at,
                scopes: check.value.scopes.iter().cloned().collect(),
                reason: check.value.reason.clone(),
            })
            .collect()
    }

    /// Returns every permission that was reported.
    pub fn holdings(&self) -> Vec<HoldingItem> {
        let evidence = &self.document.knowledge.evidence;
        holdings(evidence)
            .into_iter()
            .map(|(permission, (holding, at))| {
                // A method that was not used, for lack of a scope, has no part in the answer of another.
                let answered = |grants: &Grants| match holding {
                    Holding::Yes => grants.granted.contains(permission),
                    Holding::No => grants.denied.contains(permission),
                    Holding::Unknown(_) => grants.unknown.contains_key(permission),
                };
                let methods: Vec<_> = evidence
                    .permissions
                    .iter()
                    .filter(|(_, grants)| answered(&grants.value))
                    .map(|(method, _)| method.clone())
                    .collect();
                let (held, reason) = match holding {
                    Holding::Yes => (Held::Yes, None),
                    Holding::No => (Held::No, None),
                    Holding::Unknown(reason) => (Held::Unknown, reason),
                };
                HoldingItem {
                    permission: permission.to_owned(),
                    held,
                    reason,
                    methods,
                    at,
                }
            })
            .collect()
    }
}

impl SourceDetail {
    /// The kind of a list of them.
    pub const KIND: &'static str = "SourceDetail";
}
