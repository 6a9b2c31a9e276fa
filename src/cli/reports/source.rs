//! One source in full: every verdict with its evidence, its age and the rule that decided.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::cli::output::Report;
use crate::cli::output::view::View;
use crate::cli::reports::plan::Listening;
use crate::cli::reports::sources::{SourceItem, SourceRow};
use crate::core::counters::Counters;
use crate::core::document::SourceDocument;
use crate::core::evidence::LinkNow;
use crate::core::freshness::age_ms;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Holding, explain, holdings};
use crate::store::HistoryEntry;

mod describe;

/// One source and everything known about it.
#[derive(Debug, Clone)]
pub struct SourceReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The source in short.
    pub row: SourceRow,
    /// The same in full.
    pub document: SourceDocument,
    /// How changes of its stream reach `watch`, where a plan says so.
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
    /// How each identity that it needs is authorised.
    pub identities: Vec<IdentityItem>,
    /// Every permission that anything is known of, and how we know.
    pub holdings: Vec<HoldingItem>,
    /// Totals by the process that counted them.
    pub counters: BTreeMap<String, CounterItem>,
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
    /// Authorised? Absent while unknown.
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
    /// When it was last in trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_trouble: Option<Timestamp>,
    /// What that trouble was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
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

/// How one identity is authorised.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityItem {
    /// Its name, such as `twitch/bot`.
    pub identity: String,
    /// What the platform said.
    pub status: AuthStatus,
    /// When it said so.
    #[schemars(with = "String")]
    pub checked_at: Timestamp,
    /// When the access token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// What it was granted.
    pub scopes: Vec<String>,
    /// Why, where the status alone does not say it.
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
    /// The methods that named it.
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

/// Totals of one process.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CounterItem {
    /// Chat messages received.
    pub messages_in: u64,
    /// Chat messages handed to delivery.
    pub messages_out: u64,
    /// Errors met.
    pub errors: u64,
    /// New connections after the first.
    pub reconnects: u64,
    /// When it last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
}

impl From<&Counters> for CounterItem {
    fn from(totals: &Counters) -> Self {
        Self {
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            errors: totals.errors,
            reconnects: totals.reconnects,
            at: totals.at,
        }
    }
}

impl Report for SourceReport {
    type Item = SourceDetail;
    const KIND: &'static str = "SourceDetail";
    const CSV: &'static [&'static str] = &[
        "key",
        "displayName",
        "status",
        "verdicts.status.rule",
        "streamStatus",
        "verdicts.stream.rule",
        "viewerCount",
        "authStatus",
        "permissions",
        "health",
        "stale",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SourceDetail> {
        vec![self.detail()]
    }

    fn names(&self) -> Vec<String> {
        vec![self.document.key.to_string()]
    }

    fn view(&self) -> View {
        self.describe()
    }
}

impl SourceReport {
    fn detail(&self) -> SourceDetail {
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
            counters: knowledge
                .counters
                .iter()
                .map(|(writer, totals)| (writer.clone(), CounterItem::from(totals)))
                .collect(),
            history: self.history.clone(),
            evidence: serde_json::to_value(&knowledge.evidence).unwrap_or_default(),
        }
    }

    fn transports(&self) -> Vec<TransportItem> {
        let links = &self.document.knowledge.evidence.connection;
        links
            .iter()
            .map(|(transport, link)| TransportItem {
                name: transport.to_string(),
                state: match link.now() {
                    LinkNow::Up => TransportState::Up,
                    LinkNow::Unattended => TransportState::Closed,
                    LinkNow::Trouble(trouble) if trouble.refused => TransportState::Refused,
                    LinkNow::Trouble(_) => TransportState::Down,
                },
                last_up: link.up,
                last_closed: link.closed,
                last_trouble: link.trouble.as_ref().map(|trouble| trouble.at),
                trouble: link
                    .trouble
                    .as_ref()
                    .map(|trouble| format!("{}: {}", trouble.value.error.code, trouble.value.error.message)),
            })
            .collect()
    }

    fn identities(&self) -> Vec<IdentityItem> {
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

    fn holdings(&self) -> Vec<HoldingItem> {
        let evidence = &self.document.knowledge.evidence;
        holdings(evidence)
            .into_iter()
            .map(|(permission, (holding, at))| {
                let methods = evidence.permissions.iter().filter(|(_, grants)| {
                    let grants = &grants.value;
                    grants.granted.contains(&permission)
                        || grants.denied.contains(&permission)
                        || grants.unknown.contains_key(&permission)
                });
                let (held, reason) = match holding {
                    Holding::Yes => (Held::Yes, None),
                    Holding::No => (Held::No, None),
                    Holding::Unknown(reason) => (Held::Unknown, reason),
                };
                HoldingItem {
                    methods: methods.map(|(method, _)| method.clone()).collect(),
                    permission,
                    held,
                    reason,
                    at,
                }
            })
            .collect()
    }
}
