//! Answers to one question about one or several sources: `sources is-live`, `sources can`, `sources wait`.

use crate::cli::output::view::{Block, Cell, Glyph, Tone, View};
use crate::cli::output::{Note, Report};
use crate::core::time::Timestamp;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::cells;
use crate::view::envelope::UnusableItem;

/// A question and its answer for each source.
#[derive(Debug, Clone)]
pub struct AnswerReport {
    pub as_of: Timestamp,
    /// The answers, one a source.
    pub answers: Vec<AnswerItem>,
    /// Sources without an answer, because their document or name cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// What to do next, where there is advice.
    pub hints: Vec<Note>,
}

impl Report for AnswerReport {
    type Item = AnswerItem;
    const KIND: &'static str = AnswerItem::KIND;
    const CSV: &'static [&'static str] = &[
        "key",
        "question",
        "answer",
        "because",
        "rule",
        "ageMs",
        "missing",
        "notCovered",
        "fix",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<AnswerItem> {
        self.answers.clone()
    }

    fn names(&self) -> Vec<String> {
        self.answers.iter().map(|answer| answer.key.clone()).collect()
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        let answers = self.answers.iter().flat_map(AnswerItem::blocks);
        let unusable = self.unusable.iter().map(|unusable| {
            let label = Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Warn);
            Block::Line(vec![label, Cell::new(&unusable.id), Cell::new(&unusable.reason)])
        });
        View {
            blocks: answers.chain(unusable).collect(),
        }
    }

    fn notes(&self) -> Vec<Note> {
        self.hints.clone()
    }
}

impl AnswerItem {
    /// Returns the answer on one line, and what is missing and not covered below it.
    fn blocks(&self) -> Vec<Block> {
        let Self {
            key,
            display_name,
            answer,
            because,
            age_ms,
            missing,
            not_covered,
            ..
        } = self;
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
        blocks.extend(not_covered.iter().map(|limit| {
            let text = format!("  not covered: {limit}");
            Block::Line(vec![Cell::new(text).tone(Tone::Dim)])
        }));
        blocks
    }
}
