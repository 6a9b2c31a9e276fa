//! Reports and the ways to print them. A command returns a report and never formats; a renderer prints and never fetches.

use std::fmt::Write as _;
use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};

pub mod grid;
pub mod humane;
pub mod look;
pub mod machine;
pub mod view;

pub use look::{ColorChoice, Look};
pub use machine::Envelope;
use view::{Block, Cell, Glyph, Tone, View};

/// What a command found out.
pub trait Report {
    /// One entry as JSON shows it. Its shape is a promise: fields are added, never renamed.
    type Item: Serialize + JsonSchema;

    /// The `kind` in the JSON envelope.
    const KIND: &'static str;
    /// The fields that CSV shows, as dotted paths into an item.
    const CSV: &'static [&'static str];

    /// When this was true.
    fn as_of(&self) -> Timestamp;

    /// Returns the entries.
    fn items(&self) -> Vec<Self::Item>;

    /// Returns one name an entry, as another command would accept it.
    fn names(&self) -> Vec<String>;

    /// Returns the report for people.
    fn view(&self) -> View;

    /// Returns the report for people who want to see every column.
    fn wide_view(&self) -> View {
        self.view()
    }

    /// Returns what is worth knowing beside the data: it goes to standard error.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// Returns what could not be shown as entries.
    fn unusable(&self) -> Vec<machine::UnusableItem> {
        Vec::new()
    }
}

/// Something worth knowing beside the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The report in one line, in parts.
    Summary(Vec<Cell>),
    /// What a person should know or do, and the command to run next.
    Hint {
        /// What.
        what: String,
        /// How bad it is.
        tone: Tone,
        /// The next command, where there is one.
        next: Option<String>,
    },
}

impl Note {
    /// Builds a hint.
    pub fn hint(tone: Tone, what: impl Into<String>, next: Option<&str>) -> Self {
        Self::Hint {
            what: what.into(),
            tone,
            next: next.map(str::to_owned),
        }
    }
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people; the least important columns give way on a narrow screen
    #[default]
    Table,
    /// For people, every column
    Wide,
    /// One JSON document
    Json,
    /// One JSON object a line
    Ndjson,
    /// One YAML document
    Yaml,
    /// Comma-separated values with a header line
    Csv,
    /// Names only, one a line
    Name,
}

/// Where reports go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// Whether somebody asked for that form.
    pub is_chosen: bool,
    /// How standard output looks.
    pub out: Look,
    /// How standard error looks.
    pub err: Look,
    /// Whether notes are left out.
    pub quiet: bool,
    /// Whether the commands that notes advise are for the demo.
    pub demo: bool,
    /// Whether somebody looks at standard output.
    pub is_terminal: bool,
}

impl Output {
    /// Prints `report` on standard output and its notes on standard error. A reader that has gone away is no error.
    pub fn print<R: Report>(&self, report: &R) -> io::Result<()> {
        let text = render(report, self.format, self.out).map_err(io::Error::other)?;
        write_out(&text)?;
        self.note(&report.notes())
    }

    /// Prints `report` and its notes for as long as somebody reads. Returns whether somebody does: who prints again and
    /// again has to stop with its reader.
    pub fn offer<R: Report>(&self, report: &R) -> io::Result<bool> {
        let text = render(report, self.format, self.out).map_err(io::Error::other)?;
        let read = offer(&text)?;
        if read {
            self.note(&report.notes())?;
        }
        Ok(read)
    }

    /// Prints notes on standard error, unless only data was asked for.
    pub fn note(&self, notes: &[Note]) -> io::Result<()> {
        if self.quiet || notes.is_empty() {
            return Ok(());
        }
        write_err(&self.text_of(notes, self.err))
    }

    /// Returns notes as text; the commands that they advise are for the world that is looked at.
    pub fn text_of(&self, notes: &[Note], look: Look) -> String {
        let mut notes = notes.to_vec();
        if self.demo {
            for note in &mut notes {
                if let Note::Hint { next: Some(next), .. } = note {
                    *next = next
                        .replacen("bitbrat ", "bitbrat --demo ", 1)
                        .replace("--demo --demo", "--demo");
                }
            }
        }
        self::notes(&notes, look)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(ExitCode::Failed, "cannot write the output").because(&error)
    }
}

impl From<machine::RenderError> for Failure {
    fn from(error: machine::RenderError) -> Self {
        Self::new(ExitCode::Failed, "cannot write the output").because(&error)
    }
}

/// Writes text to standard output. A reader that has gone away is no error.
pub fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    forgive_closed_pipe(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes text to standard output for as long as somebody reads it. Returns whether somebody does.
pub fn offer(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Writes text to standard error. A reader that has gone away is no error.
pub fn write_err(text: &str) -> io::Result<()> {
    forgive_closed_pipe(io::stderr().lock().write_all(text.as_bytes()))
}

fn forgive_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Returns `report` as text.
pub fn render<R: Report>(report: &R, format: Format, look: Look) -> Result<String, machine::RenderError> {
    Ok(match format {
        Format::Table => draw(&report.view(), look, false),
        Format::Wide => draw(&report.wide_view(), look, true),
        Format::Json => machine::json(report)?,
        Format::Ndjson => machine::ndjson(report)?,
        Format::Yaml => machine::yaml(report)?,
        Format::Csv => machine::csv(report)?,
        Format::Name => report.names().into_iter().fold(String::new(), |mut text, name| {
            let _ = writeln!(text, "{name}");
            text
        }),
    })
}

/// The column at which the text of a section starts.
const SECTION: u16 = 13;

fn draw(view: &View, look: Look, wide: bool) -> String {
    let mut text = String::new();
    let spaced = |cells: &[Cell]| {
        cells
            .iter()
            .map(|cell| look.show(cell))
            .collect::<Vec<_>>()
            .join("  ")
    };
    for block in &view.blocks {
        match block {
            Block::Table(table) => grid::draw(&mut text, table, look, 0, wide),
            // What is under a heading is evidence: it is wrapped by the terminal rather than cut by us.
            Block::Nested(table) => grid::draw(&mut text, table, look, SECTION, true),
            Block::Line(cells) => text.push_str(&(spaced(cells) + "\n")),
            Block::Section(title, cells) => {
                text.push_str(&look.paint(Tone::Strong, title));
                if !cells.is_empty() {
                    let pad = usize::from(SECTION).saturating_sub(title.len());
                    text.extend(std::iter::repeat_n(' ', pad));
                    text.push_str(&spaced(cells));
                }
                text.push('\n');
            }
            Block::Remark(sentence) => {
                let room = look.width.unwrap_or(100).clamp(40, 100) - SECTION;
                for line in wrap(sentence, usize::from(room)) {
                    let indent = usize::from(SECTION);
                    let _ = writeln!(text, "{:indent$}{}", "", look.paint(Tone::Dim, &line));
                }
            }
            Block::Gap => text.push('\n'),
        }
    }
    text
}

/// Returns `notes` as text for standard error.
pub fn notes(notes: &[Note], look: Look) -> String {
    let mut text = String::new();
    for (index, note) in notes.iter().enumerate() {
        match note {
            Note::Summary(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| look.show(part)).collect();
                let _ = writeln!(text, "\n{}", parts.join(look.separator()));
            }
            Note::Hint { what, tone, next } => {
                let sign = if *tone == Tone::Bad {
                    Glyph::Bad
                } else {
                    Glyph::Warn
                };
                let _ = writeln!(text, "{}", look.show(&Cell::new(what).glyph(sign).tone(*tone)));
                let repeated =
                    matches!(notes.get(index + 1), Some(Note::Hint { next: after, .. }) if after == next);
                if let Some(next) = next.as_ref().filter(|_| !repeated) {
                    let arrow = Glyph::Next.draw(look.unicode);
                    let _ = writeln!(text, "  {arrow} {}", look.paint(Tone::Strong, next));
                }
            }
        }
    }
    text
}

fn wrap(sentence: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns the value at a dotted path.
fn at_path<'v>(item: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(item, |value, field| value.get(field))
}
