//! Alerts: incidents, receivers, mutes and messages.

use schemars::JsonSchema;
use serde::Serialize;

use crate::alerts::trigger::TriggerKind;
use crate::cli::output::Listed;
use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};
use crate::core::time::Timestamp;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertItemKind {
    /// A configured alert and its receiver.
    Receiver,
    /// A configured hook.
    Hook,
    /// Something that is, or may be, reported.
    Incident,
    /// A mute that someone has set.
    Mute,
    /// A configured maintenance window.
    Maintenance,
    /// A message.
    Delivery,
}

impl AlertItemKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Hook => "hook",
            Self::Incident => "incident",
            Self::Mute => "mute",
            Self::Maintenance => "maintenance",
            Self::Delivery => "delivery",
        }
    }
}

/// One entry of `alert list`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertItem {
    /// What it is.
    pub what: AlertItemKind,
    /// The name of a receiver, hook or window, the key of an incident, the number of a mute, or the id of a message.
    pub name: String,
    /// Its state in one word: `ok`, `failing` (the last attempt), `stopped` or `unused`; `pending`, `open` or `recovering`; `active`
    /// or `inactive`; `waiting`, `sent` or `dropped`.
    pub state: String,
    /// The kind of receiver, the kind of message, or the pattern of a mute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The kind of cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggerKind>,
    /// Number of affected sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affected: Option<usize>,
    /// Since when: of an incident its cause, of a mute that it was set, of a message that it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
    /// When the state may change: a deadline, the end of a mute or window, the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
    /// Failed attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Why: of a receiver or hook, why the last attempt that failed did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When a receiver last accepted a message, or a run of a hook last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_success: Option<Timestamp>,
    /// When an attempt last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_failure: Option<Timestamp>,
    /// Number of messages or runs that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

impl AlertItem {
    pub fn new(what: AlertItemKind, name: impl Into<String>, state: impl Into<String>) -> Self {
        Self {
            what,
            name: name.into(),
            state: state.into(),
            detail: None,
            trigger: None,
            affected: None,
            since: None,
            until: None,
            attempts: None,
            reason: None,
            last_success: None,
            last_failure: None,
            waiting: None,
        }
    }
}

impl Listed for AlertItem {
    const KIND: &'static str = "AlertList";
    const CSV: &'static [&'static str] = &[
        "what",
        "name",
        "state",
        "detail",
        "trigger",
        "affected",
        "since",
        "until",
        "attempts",
        "reason",
        "lastSuccess",
        "lastFailure",
        "waiting",
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| {
            let (glyph, tone) = match item.state.as_str() {
                "stopped" | "failing" | "open" | "dropped" => (Glyph::Bad, Tone::Bad),
                "pending" | "recovering" | "waiting" => (Glyph::Nothing, Tone::Warn),
                "ok" | "sent" => (Glyph::Good, Tone::Good),
                _ => (Glyph::Nothing, Tone::Plain),
            };
            let mut cells = vec![
                Cell::new(format!("{} {}", item.what.as_str(), item.name)),
                Cell::new(&item.state).glyph(glyph).tone(tone),
            ];
            cells.extend(item.detail.as_ref().map(Cell::new));
            if let Some(affected) = item.affected.filter(|affected| *affected > 0) {
                cells.push(Cell::new(format!("{affected} affected")));
            }
            cells.extend(item.since.map(|since| Cell::new(format!("since {since}"))));
            cells.extend(item.until.map(|until| Cell::new(format!("until {until}"))));
            if let Some(attempts) = item.attempts.filter(|attempts| *attempts > 0) {
                cells.push(Cell::new(format!("{attempts} failed attempts")));
            }
            if let Some(waiting) = item.waiting.filter(|waiting| *waiting > 0) {
                cells.push(Cell::new(format!("{waiting} waiting")));
            }
            cells.extend(
                item.last_success
                    .map(|at| Cell::new(format!("last success {at}"))),
            );
            cells.extend(
                item.last_failure
                    .map(|at| Cell::new(format!("last failure {at}"))),
            );
            cells.extend(
                item.reason
                    .as_ref()
                    .map(|reason| Cell::new(reason).tone(Tone::Dim)),
            );
            Block::Line(cells)
        };
        View {
            blocks: items.iter().map(line).collect(),
        }
    }
}

/// The result of a test message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertTestItem {
    /// The alert.
    pub name: String,
    /// Whether the receiver accepted the message.
    pub accepted: bool,
    /// What it answered, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Listed for AlertTestItem {
    const KIND: &'static str = "AlertTestList";
    const CSV: &'static [&'static str] = &["name", "accepted", "reason"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| {
            let mut cells = vec![Cell::new(&item.name)];
            cells.push(match item.accepted {
                true => Cell::new("accepted the test message")
                    .glyph(Glyph::Good)
                    .tone(Tone::Good),
                false => Cell::new("did not accept the test message")
                    .glyph(Glyph::Bad)
                    .tone(Tone::Bad),
            });
            cells.extend(
                item.reason
                    .as_ref()
                    .map(|reason| Cell::new(reason).tone(Tone::Dim)),
            );
            Block::Line(cells)
        };
        View {
            blocks: items.iter().map(line).collect(),
        }
    }
}
