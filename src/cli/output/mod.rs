//! Reports and the ways to print them. A command returns a report and never formats; a renderer prints and never fetches.

use std::fmt::Write as _;
use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::secrets;

pub mod grid;
pub mod invocation;
pub mod log_lines;
pub mod machine;
pub mod style;
pub mod view;
pub mod wrap;
mod yaml;

pub use crate::view::envelope::Envelope;
pub use crate::view::humane;
pub use invocation::{Invocation, quoted};
pub use style::{ColorChoice, Style};
use view::{Block, Cell, Glyph, Tone, View};

pub trait Report {
    /// One entry as JSON shows it. Its fields are stable: fields are added, never renamed.
    type Item: Serialize + JsonSchema;

    /// The `kind` in the JSON envelope.
    const KIND: &'static str;
    /// The fields that CSV shows, as dotted paths into an item.
    const CSV: &'static [&'static str];
    /// Whether a limit may leave entries out, so that the envelope has their total.
    const LIMITED: bool = false;

    fn as_of(&self) -> Timestamp;

    fn items(&self) -> Vec<Self::Item>;

    /// Returns one name an entry, as another command would accept it.
    fn names(&self) -> Vec<String>;

    /// Returns the report for people.
    fn view(&self) -> View;

    /// Returns the report for people with every column.
    fn wide_view(&self) -> View {
        self.view()
    }

    /// Returns notes beside the data: they go to standard error.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// Returns the number of entries before a limit; `None` where there is no limit.
    fn total(&self) -> Option<usize> {
        None
    }

    fn csv_fields(&self) -> Vec<&'static str> {
        Self::CSV.to_vec()
    }

    /// Returns what could not be shown as entries.
    fn unusable(&self) -> Vec<crate::view::envelope::UnusableItem> {
        Vec::new()
    }
}

pub trait Listed: Clone + Serialize + JsonSchema {
    /// See [`Report::KIND`].
    const KIND: &'static str;
    /// See [`Report::CSV`].
    const CSV: &'static [&'static str];

    /// Returns its name, as another command would accept it.
    fn name(&self) -> String;

    /// Returns the list for people.
    fn view(items: &[Self]) -> View;

    /// Returns notes that follow from the entries.
    fn notes(_items: &[Self]) -> Vec<Note> {
        Vec::new()
    }
}

#[derive(Debug, Clone)]
pub struct Listing<I> {
    pub as_of: Timestamp,
    pub items: Vec<I>,
    /// Notes that do not follow from the entries.
    pub notes: Vec<Note>,
}

impl<I> Listing<I> {
    /// A report with the notes that follow from the entries alone.
    pub fn new(as_of: Timestamp, items: Vec<I>) -> Self {
        Self {
            as_of,
            items,
            notes: Vec::new(),
        }
    }
}

impl<I: Listed> Report for Listing<I> {
    type Item = I;
    const KIND: &'static str = I::KIND;
    const CSV: &'static [&'static str] = I::CSV;

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<I> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(I::name).collect()
    }

    fn view(&self) -> View {
        I::view(&self.items)
    }

    fn notes(&self) -> Vec<Note> {
        [I::notes(&self.items), self.notes.clone()].concat()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The report in one line, in parts.
    Summary(Vec<Cell>),
    /// What a person should be aware of or do, and the command to run next.
    Hint {
        what: String,
        tone: Tone,
        /// The next command, where there is one.
        next: Option<String>,
    },
}

impl Note {
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

impl Format {
    /// Whether a program reads it as one structure; then failures are JSON as well.
    pub fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson | Self::Yaml)
    }
}

/// Where and how reports are printed.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub format: Format,
    /// Whether the format was given explicitly.
    pub is_chosen: bool,
    /// Style of standard output.
    pub out: Style,
    /// Style of standard error.
    pub err: Style,
    /// Whether notes are left out.
    pub quiet: bool,
    /// The command line that was run, for comparison with the commands that notes advise.
    pub invocation: &'static Invocation,
    pub is_terminal: bool,
}

impl Output {
    /// Prints `report` on standard output and its notes on standard error. A closed pipe is no error.
    pub fn print<R: Report>(&self, report: &R) -> io::Result<()> {
        let text = render(report, self.format, self.out).map_err(io::Error::other)?;
        write_out(&text)?;
        self.note(&report.notes())
    }

    /// Prints `report` and its notes unless the pipe is closed. Returns whether it is still open: repeated output has to stop
    /// once it is closed.
    pub fn offer<R: Report>(&self, report: &R) -> io::Result<bool> {
        let text = render(report, self.format, self.out).map_err(io::Error::other)?;
        let read = offer(&text)?;
        if read {
            self.note(&report.notes())?;
        }
        Ok(read)
    }

    /// Prints notes on standard error, unless only data was requested.
    pub fn note(&self, notes: &[Note]) -> io::Result<()> {
        if self.quiet || notes.is_empty() {
            return Ok(());
        }
        write_err(&self.text_of(notes, self.err))
    }

    /// Whether `command` is advised here: it is not when it is the command that was just run, or has no effect in the demo world.
    pub fn advises(&self, command: &str) -> bool {
        self.invocation.advise(command).is_some()
    }

    /// Returns notes as text; the commands that they advise repeat the options that were given, and none is the command that was
    /// just run.
    pub fn text_of(&self, notes: &[Note], style: Style) -> String {
        let mut notes = notes.to_vec();
        for note in &mut notes {
            if let Note::Hint { next, .. } = note {
                *next = next.take().and_then(|command| self.invocation.advise(&command));
            }
        }
        self::notes(&notes, style)
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

/// Writes text to standard output. A closed pipe is no error.
pub fn write_out(text: &str) -> io::Result<()> {
    let text = secrets::mask(text);
    let mut out = io::stdout().lock();
    ignore_closed_pipe(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes text to standard output unless the pipe is closed. Returns whether it is still open.
pub fn offer(text: &str) -> io::Result<bool> {
    let text = secrets::mask(text);
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Writes text to standard error. A closed pipe is no error.
pub fn write_err(text: &str) -> io::Result<()> {
    ignore_closed_pipe(io::stderr().lock().write_all(secrets::mask(text).as_bytes()))
}

fn ignore_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Returns `report` as text.
pub fn render<R: Report>(report: &R, format: Format, style: Style) -> Result<String, machine::RenderError> {
    Ok(match format {
        Format::Table => draw(&report.view(), style, false),
        Format::Wide => draw(&report.wide_view(), style, true),
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

fn draw(view: &View, style: Style, wide: bool) -> String {
    let mut text = String::new();
    for block in &view.blocks {
        match block {
            Block::Table(table) => grid::draw(&mut text, table, style, 0, wide),
            // The content of a section is evidence: it is wrapped rather than cut.
            Block::Wrapped(table) if wide => grid::draw(&mut text, table, style, 0, true),
            Block::Wrapped(table) => grid::draw_wrapped(&mut text, table, style, 0),
            Block::Nested(table) => grid::draw_wrapped(&mut text, table, style, SECTION),
            Block::Line(cells) => wrap::line(&mut text, cells, style),
            Block::Section(title, cells) => {
                text.push_str(&style.paint(Tone::Strong, title));
                if !cells.is_empty() {
                    let pad = usize::from(SECTION).saturating_sub(title.len());
                    text.extend(std::iter::repeat_n(' ', pad));
                    wrap::behind(&mut text, cells, style, usize::from(SECTION).max(title.len()));
                }
                text.push('\n');
            }
            Block::Remark(sentence) => {
                let room = style.width.unwrap_or(100).clamp(40, 100) - SECTION;
                for line in wrap::words(sentence, usize::from(room)) {
                    let indent = usize::from(SECTION);
                    let _ = writeln!(text, "{:indent$}{}", "", style.paint(Tone::Dim, &line));
                }
            }
            Block::Gap => text.push('\n'),
        }
    }
    text
}

/// Returns `notes` as text for standard error.
pub fn notes(notes: &[Note], style: Style) -> String {
    let mut text = String::new();
    for (index, note) in notes.iter().enumerate() {
        match note {
            Note::Summary(parts) => {
                text.push('\n');
                wrap::parts(&mut text, parts, style);
            }
            Note::Hint { what, tone, next } => {
                let sign = match tone {
                    Tone::Bad => Glyph::Bad,
                    Tone::Good => Glyph::Good,
                    _ => Glyph::Warn,
                };
                let sign = sign.draw(style.unicode);
                wrap::hanging(&mut text, &view::printable(what.as_str()), sign, *tone, style);
                let repeated =
                    matches!(notes.get(index + 1), Some(Note::Hint { next: after, .. }) if after == next);
                if let Some(next) = next.as_ref().filter(|_| !repeated) {
                    // A command stays on one line, so that it can be copied.
                    let arrow = Glyph::Next.draw(style.unicode);
                    let _ = writeln!(text, "  {arrow} {}", style.paint(Tone::Strong, next));
                }
            }
        }
    }
    text
}

fn at_path<'v>(item: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(item, |value, field| value.get(field))
}
