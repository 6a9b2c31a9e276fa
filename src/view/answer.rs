//! The answer to one question about one source.

use schemars::JsonSchema;
use serde::Serialize;

/// An answer as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnswerItem {
    /// The source asked about.
    pub key: String,
    /// Its name, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What was asked: `live`, `can:moderator`, `connected`, ….
    pub question: String,
    /// The answer.
    pub answer: Answer,
    /// Why, in words.
    pub because: String,
    /// The name of the rule that decided, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How old the evidence is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// What would have to change for a yes, where that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What the answer does not cover, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<String>,
    /// The command that changes or renews the answer, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Proven.
    Yes,
    /// Disproven.
    No,
    /// Not enough evidence, or it is too old.
    Unknown,
}

impl AnswerItem {
    /// The kind of a list of them.
    pub const KIND: &'static str = "Answer";
}
