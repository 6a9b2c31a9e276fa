//! The configuration in force, and its problems.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Block, Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Invocation, Listed, Note, Report, humane};
use crate::config::{Problem, Shown, SourceSpec};
use crate::core::time::Timestamp;

/// Every key with its value and origin.
#[derive(Debug, Clone)]
pub struct ConfigReport {
    pub as_of: Timestamp,
    pub keys: Vec<Shown>,
    pub sources: Vec<SourceSpec>,
    pub problems: usize,
}

impl Report for ConfigReport {
    type Item = Shown;
    const KIND: &'static str = "Config";
    const CSV: &'static [&'static str] = &["key", "value", "origin", "variable", "help"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// The sources are listed among the keys, each under the key `source`.
    fn items(&self) -> Vec<Shown> {
        let sources = self.sources.iter().map(|source| Shown {
            key: "source".into(),
            value: Some(source.to_string()),
            origin: source.origin.to_string(),
            variable: "BITBRAT_SOURCES".into(),
            help: "A monitored source.".into(),
        });
        self.keys.iter().cloned().chain(sources).collect()
    }

    fn names(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.key.clone()).collect()
    }

    fn view(&self) -> View {
        let rows = self.items().into_iter().map(|shown| {
            let is_set = shown.origin != "default";
            vec![
                Cell::new(&shown.key),
                Cell::maybe(shown.value).tone(if is_set { Tone::Strong } else { Tone::Dim }),
                Cell::new(&shown.origin).tone(if is_set { Tone::Plain } else { Tone::Dim }),
                Cell::new(&shown.variable),
                Cell::new(&shown.help).tone(Tone::Dim),
            ]
        });
        View::table(
            vec![
                Column::kept("KEY"),
                Column::kept("VALUE").elastic(16),
                Column::ranked("FROM", 1).elastic(16),
                Column::ranked("VARIABLE", 2).wide(),
                Column::ranked("WHAT FOR", 3).wide(),
            ],
            rows,
        )
    }

    fn notes(&self) -> Vec<Note> {
        if self.problems == 0 {
            return Vec::new();
        }
        let what = format!(
            "the configuration has {}; defaults stand in for what cannot be used",
            humane::count(self.problems as u64, "problem")
        );
        vec![Note::hint(Tone::Bad, what, Some("bitbrat config check"))]
    }
}

/// A file that was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitItem {
    /// Where it is.
    pub path: String,
}

impl Listed for InitItem {
    const KIND: &'static str = "ConfigInit";
    const CSV: &'static [&'static str] = &["path"];

    fn name(&self) -> String {
        self.path.clone()
    }

    fn view(items: &[Self]) -> View {
        let line = |item: &Self| Block::Line(vec![Cell::new(format!("wrote {}", item.path))]);
        View {
            blocks: items.iter().map(line).collect(),
        }
    }

    fn notes(_: &[Self]) -> Vec<Note> {
        vec![Note::hint(
            Tone::Warn,
            "add your sources to it, then see whether all is well",
            Some("bitbrat config check"),
        )]
    }
}

/// The problems of the configuration.
#[derive(Debug, Clone)]
pub struct CheckReport {
    pub as_of: Timestamp,
    /// The problems, errors first.
    pub problems: Vec<ProblemItem>,
    pub files: Vec<PathBuf>,
    /// How many sources are configured.
    pub sources: usize,
}

/// One problem.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemItem {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// Where the value came from.
    pub origin: String,
    /// The key, where it is about one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ProblemItem {
    /// Takes over a problem, with its hint as it is given after this command line.
    pub fn new(problem: &Problem, severity: &'static str, invocation: &Invocation) -> Self {
        Self {
            severity,
            origin: problem.origin.to_string(),
            key: problem.key.clone(),
            message: problem.message.clone(),
            hint: problem.hint.as_ref().and_then(|hint| invocation.hint(hint)),
        }
    }
}

impl Report for CheckReport {
    type Item = ProblemItem;
    const KIND: &'static str = "ConfigCheck";
    const CSV: &'static [&'static str] = &["severity", "origin", "key", "message", "hint"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<ProblemItem> {
        self.problems.clone()
    }

    fn names(&self) -> Vec<String> {
        self.problems.iter().map(|problem| problem.key.clone()).collect()
    }

    fn view(&self) -> View {
        let mut blocks = Vec::new();
        for problem in &self.problems {
            let (glyph, tone) = match problem.severity {
                "error" => (Glyph::Bad, Tone::Bad),
                _ => (Glyph::Warn, Tone::Warn),
            };
            let place = match problem.key.as_str() {
                "" => problem.origin.clone(),
                key if problem.origin.ends_with(key) => problem.origin.clone(),
                key => format!("{}: {key}", problem.origin),
            };
            blocks.push(Block::Line(vec![
                Cell::new(place).glyph(glyph).tone(tone),
                Cell::new(&problem.message),
            ]));
            if let Some(hint) = &problem.hint {
                blocks.push(Block::Line(vec![
                    Cell::new(format!("    {hint}")).tone(Tone::Dim),
                ]));
            }
        }
        if !self.problems.iter().any(|problem| problem.severity == "error") {
            let files = match self.files.as_slice() {
                [] => "no file, only the environment and defaults".to_owned(),
                files => {
                    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                    names.join(", ")
                }
            };
            let sources = humane::count(self.sources as u64, "source");
            blocks.push(Block::Line(vec![
                Cell::new("the configuration is valid")
                    .glyph(Glyph::Good)
                    .tone(Tone::Good),
                Cell::new(format!("{sources}, from {files}")).tone(Tone::Dim),
            ]));
        }
        View { blocks }
    }
}
