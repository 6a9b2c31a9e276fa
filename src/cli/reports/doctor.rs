//! The results of `doctor`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Listed, Note};
use crate::failure::Failure;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What it belongs to: `configuration`, `state`, `tokens`, `store`, `bus`, `web`, or a platform.
    pub area: String,
    /// What was checked.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// The command to run next, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Could not be checked, or need not be.
    Skipped,
    /// Works, but needs attention.
    Warn,
    /// Does not work.
    Fail,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skipped => "SKIPPED",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

impl Check {
    /// Builds a check without a next command.
    pub fn new(area: &str, name: &str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            area: area.to_owned(),
            name: name.to_owned(),
            outcome,
            detail: detail.into(),
            next: None,
        }
    }

    /// Builds a check from a failure with its causes. Its first hint is the next command.
    pub fn of_failure(area: &str, name: &str, outcome: Outcome, failure: &Failure) -> Self {
        Self {
            next: failure.hints.first().cloned(),
            ..Self::new(area, name, outcome, failure.with_causes())
        }
    }

    /// Names the command to run next.
    #[must_use]
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }
}

impl Listed for Check {
    const KIND: &'static str = "DoctorReport";
    const CSV: &'static [&'static str] = &["area", "name", "outcome", "detail", "next"];

    fn name(&self) -> String {
        format!("{}/{}", self.area, self.name)
    }

    fn view(items: &[Self]) -> View {
        view(items.iter().map(Check::row))
    }

    fn notes(items: &[Self]) -> Vec<Note> {
        notes(items.iter().map(Check::row))
    }
}

impl Check {
    fn row(&self) -> Row<'_> {
        Row {
            area: &self.area,
            name: &self.name,
            word: self.outcome.as_str(),
            outcome: self.outcome,
            detail: &self.detail,
            next: self.next.as_deref(),
        }
    }
}

/// A check as it is shown.
pub(super) struct Row<'a> {
    pub area: &'a str,
    pub name: &'a str,
    /// The outcome as a word.
    pub word: &'static str,
    /// The outcome by which it is colored.
    pub outcome: Outcome,
    pub detail: &'a str,
    pub next: Option<&'a str>,
}

/// Returns the table of checks.
pub(super) fn view<'a>(rows: impl Iterator<Item = Row<'a>>) -> View {
    let mut area = "";
    let rows = rows.map(|row| {
        let (glyph, tone) = match row.outcome {
            Outcome::Ok => (Glyph::Good, Tone::Good),
            Outcome::Skipped => (Glyph::Off, Tone::Dim),
            Outcome::Warn => (Glyph::Warn, Tone::Warn),
            Outcome::Fail => (Glyph::Bad, Tone::Bad),
        };
        let again = std::mem::replace(&mut area, row.area) == row.area;
        vec![
            Cell::new(if again { "" } else { row.area }).tone(Tone::Strong),
            Cell::new(row.name),
            Cell::new(row.word).glyph(glyph).tone(tone),
            Cell::new(row.detail),
        ]
    });
    View::wrapped(
        vec![
            Column::kept("AREA"),
            Column::kept("CHECK"),
            Column::kept("RESULT"),
            Column::kept("FOUND"),
        ],
        rows,
    )
}

/// Returns how many checks had which outcome, and the commands to run next.
pub(super) fn notes<'a>(rows: impl Iterator<Item = Row<'a>>) -> Vec<Note> {
    let rows: Vec<Row<'_>> = rows.collect();
    let mut parts = Vec::new();
    for (outcome, tone) in [
        (Outcome::Ok, Tone::Good),
        (Outcome::Warn, Tone::Warn),
        (Outcome::Fail, Tone::Bad),
        (Outcome::Skipped, Tone::Dim),
    ] {
        let found = || rows.iter().filter(|row| row.outcome == outcome);
        if let Some(first) = found().next() {
            parts.push(Cell::new(format!("{} {}", found().count(), first.word)).tone(tone));
        }
    }
    let mut notes = vec![Note::Summary(parts)];
    let mut shown: Vec<&str> = Vec::new();
    for row in &rows {
        let Some(next) = row.next.filter(|next| !shown.contains(next)) else {
            continue;
        };
        shown.push(next);
        let tone = match row.outcome {
            Outcome::Fail => Tone::Bad,
            Outcome::Ok | Outcome::Skipped | Outcome::Warn => Tone::Warn,
        };
        notes.push(Note::hint(
            tone,
            format!("{}: {}", row.area, row.name),
            Some(next),
        ));
    }
    notes
}
