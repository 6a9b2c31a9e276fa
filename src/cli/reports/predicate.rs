//! Answers to one question about one source: `sources is-live`, `sources can`, `sources wait`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};
use crate::cli::output::{Note, Report};
use crate::cli::reports::cells;
use crate::core::time::Timestamp;

/// A question and its answer.
#[derive(Debug, Clone)]
pub struct AnswerReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The answer.
    pub answer: AnswerItem,
    /// What to do next, where that is worth telling.
    pub hints: Vec<Note>,
}

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

impl Report for AnswerReport {
    type Item = AnswerItem;
    const KIND: &'static str = "Answer";
    const CSV: &'static [&'static str] =
        &["key", "question", "answer", "because", "rule", "ageMs", "missing"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<AnswerItem> {
        vec![self.answer.clone()]
    }

    fn names(&self) -> Vec<String> {
        vec![self.answer.key.clone()]
    }

    fn view(&self) -> View {
        let AnswerItem {
            key,
            display_name,
            answer,
            because,
            age_ms,
            missing,
            ..
        } = &self.answer;
        let verdict = match answer {
            Answer::Yes => Cell::new("yes").glyph(Glyph::Good).tone(Tone::Good),
            Answer::No => Cell::new("no").glyph(Glyph::Bad).tone(Tone::Warn),
            Answer::Unknown => Cell::new("unknown").glyph(Glyph::Unknown).tone(Tone::Warn),
        };
        let mut line = vec![verdict, Cell::new(key)];
        line.extend(
            display_name
                .as_ref()
                .map(|name| Cell::new(name).tone(Tone::Strong)),
        );
        line.push(Cell::new(because));
        line.extend(age_ms.map(|age| Cell::new(format!("({})", cells::ago(age))).tone(Tone::Dim)));
        let mut blocks = vec![Block::Line(line)];
        blocks.extend(missing.iter().map(|missing| {
            let text = format!("  missing: {missing}");
            Block::Line(vec![Cell::new(text).tone(Tone::Dim)])
        }));
        View { blocks }
    }

    fn notes(&self) -> Vec<Note> {
        self.hints.clone()
    }
}
