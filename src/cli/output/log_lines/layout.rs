//! Wraps a log line at words, with the text of all its lines in one column.

use super::super::view::{Glyph, Tone};
use super::super::{Style, wrap};

/// Columns of the time, the symbol and the spaces behind them.
const INDENT: usize = 11;
/// Below this width continuation lines are hardly indented: the text would have too few columns.
const NARROW: usize = 50;
/// The narrowest terminal that lines are wrapped for; a narrower one wraps itself.
const NARROWEST: usize = 30;

/// Text in pieces that are colored as a whole and separated by spaces.
#[derive(Default)]
pub(super) struct Spans(Vec<Span>);

struct Span {
    tone: Tone,
    text: String,
    /// Whether it is not broken.
    whole: bool,
}

/// Text in parentheses up to this width is not broken.
const WHOLE: usize = 30;

impl Spans {
    /// Adds text that may be broken at its spaces.
    pub(super) fn push(&mut self, tone: Tone, text: &str) {
        let text = text.to_owned();
        self.0.push(Span {
            tone,
            text,
            whole: false,
        });
    }

    /// Adds text that is not broken unless it is long.
    pub(super) fn push_whole(&mut self, tone: Tone, text: &str) {
        self.push(tone, text);
        if let Some(span) = self.0.last_mut() {
            span.whole = wrap::width(text) <= WHOLE;
        }
    }

    /// Splits the text at spaces, but not within backquotes: a command is copied as a whole. One that is wider than `room` columns
    /// is split nevertheless.
    fn words(&self, room: usize) -> Vec<(Tone, String)> {
        let mut words: Vec<(Tone, String)> = Vec::new();
        for span in &self.0 {
            let mut whole: Vec<&str> = Vec::new();
            for word in span.text.split_whitespace() {
                whole.push(word);
                let quotes: usize = whole.iter().map(|word| word.matches('`').count()).sum();
                if quotes.is_multiple_of(2) && !span.whole {
                    flush(&mut words, span.tone, &mut whole, room);
                }
            }
            flush(&mut words, span.tone, &mut whole, room);
        }
        words
    }
}

fn flush(words: &mut Vec<(Tone, String)>, tone: Tone, whole: &mut Vec<&str>, room: usize) {
    let joined = whole.join(" ");
    if wrap::width(&joined) <= room {
        if !joined.is_empty() {
            words.push((tone, joined));
        }
    } else {
        words.extend(whole.iter().map(|word| (tone, (*word).to_owned())));
    }
    whole.clear();
}

/// Where lines are printed.
pub(super) struct Place {
    style: Style,
    /// Columns; `None` where lines may be of any length.
    columns: Option<usize>,
    /// Columns before the continuation lines.
    indent: usize,
}

impl Place {
    pub(super) fn new(style: Style, columns: Option<usize>) -> Self {
        let columns = columns.map(|columns| columns.max(NARROWEST));
        let indent = match columns {
            Some(columns) if columns < NARROW => 2,
            _ => INDENT,
        };
        Self {
            style,
            columns,
            indent,
        }
    }

    /// Appends a line with its time and symbol.
    pub(super) fn first(
        &self,
        text: &mut String,
        time: &str,
        glyph: Option<Glyph>,
        tone: Tone,
        spans: &Spans,
    ) {
        self.style.paint_to(text, Tone::Dim, time);
        text.push(' ');
        match glyph {
            Some(glyph) => self.style.paint_to(text, tone, glyph.draw(self.style.unicode)),
            None => text.push(' '),
        }
        text.push(' ');
        self.flow(text, INDENT, self.indent, spans);
    }

    /// Appends a line below, with its label.
    pub(super) fn below(&self, text: &mut String, label: &str, value: &str) {
        text.extend(std::iter::repeat_n(' ', self.indent));
        self.style.paint_to(text, Tone::Dim, &format!("{label:<6}"));
        let mut spans = Spans::default();
        spans.push(Tone::Plain, value);
        self.flow(text, self.indent + 6, self.indent + 6, &spans);
    }

    /// Appends words from `column` on, and on lines of their own from `indent` on.
    fn flow(&self, text: &mut String, mut column: usize, indent: usize, spans: &Spans) {
        let room = self
            .columns
            .map_or(usize::MAX, |columns| columns.saturating_sub(indent));
        let mut is_first = true;
        // Words of one color on one line are colored together.
        let mut run: Option<(Tone, String)> = None;
        let print = |text: &mut String, run: &mut Option<(Tone, String)>| {
            if let Some((tone, words)) = run.take() {
                self.style.paint_to(text, tone, &words);
            }
        };
        for (tone, word) in spans.words(room) {
            let wide = wrap::width(&word);
            let fits = self.columns.is_none_or(|columns| column + 1 + wide <= columns);
            if is_first {
                column += wide;
            } else if fits {
                match &mut run {
                    Some((painted, words)) if *painted == tone => words.push(' '),
                    _ => {
                        print(text, &mut run);
                        text.push(' ');
                    }
                }
                column += 1 + wide;
            } else {
                print(text, &mut run);
                text.push('\n');
                text.extend(std::iter::repeat_n(' ', indent));
                column = indent + wide;
            }
            is_first = false;
            run.get_or_insert_with(|| (tone, String::new())).1.push_str(&word);
        }
        print(text, &mut run);
        text.push('\n');
    }
}
