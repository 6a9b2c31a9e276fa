//! Pieces of text with their meaning, which terminals and pages draw in their own way.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::secrets::is_invisible;

/// A piece of text with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The symbol in front, if any.
    pub glyph: Option<Glyph>,
    /// The text, free of control characters.
    pub text: Cow<'static, str>,
    /// What it means.
    pub tone: Tone,
}

impl Cell {
    pub fn new(text: impl AsRef<str> + Into<String>) -> Self {
        Self {
            glyph: None,
            text: Cow::Owned(printable(text)),
            tone: Tone::Plain,
        }
    }

    /// A fixed text of the program.
    pub const fn label(text: &'static str) -> Self {
        Self {
            glyph: None,
            text: Cow::Borrowed(text),
            tone: Tone::Plain,
        }
    }

    pub fn none() -> Self {
        Self::label("").glyph(Glyph::Nothing).tone(Tone::Dim)
    }

    /// The text, or the symbol for no value.
    pub fn maybe(text: Option<impl AsRef<str> + Into<String>>) -> Self {
        match text {
            Some(text) if !text.as_ref().is_empty() => Self::new(text),
            _ => Self::none(),
        }
    }

    #[must_use]
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// Puts a symbol in front.
    #[must_use]
    pub fn glyph(mut self, glyph: Glyph) -> Self {
        self.glyph = Some(glyph);
        self
    }
}

/// What a piece of text means to its reader; the style maps it to a color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// In order.
    Good,
    /// Needs attention.
    Warn,
    /// A person must act.
    Bad,
    Live,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glyph {
    /// Connected.
    Up,
    /// Not connected.
    Down,
    /// Rejected, failed.
    Bad,
    Live,
    /// Not live.
    Off,
    /// Over.
    Ended,
    Unknown,
    /// In order.
    Good,
    /// Needs attention.
    Warn,
    Next,
    Nothing,
    /// Too old to rely on.
    Stale,
}

impl Glyph {
    /// Returns the symbol, in ASCII where the terminal supports no more.
    pub fn draw(self, unicode: bool) -> &'static str {
        let (rich, plain) = match self {
            Self::Up => ("●", "*"),
            Self::Down => ("○", "o"),
            Self::Bad => ("✗", "x"),
            Self::Live => ("►", ">"),
            Self::Off | Self::Nothing => ("–", "-"),
            Self::Ended => ("■", "-"),
            Self::Unknown => ("?", "?"),
            Self::Good => ("✓", "+"),
            Self::Warn => ("!", "!"),
            Self::Next => ("→", "->"),
            Self::Stale => ("◌", "~"),
        };
        if unicode { rich } else { plain }
    }

    /// Returns how many columns of the terminal the symbol takes.
    pub fn width(self, unicode: bool) -> usize {
        // The Unicode symbols are one column wide each, the others are ASCII.
        if unicode { 1 } else { self.draw(false).len() }
    }
}

/// Makes foreign text safe for a terminal: names and titles are chosen by strangers.
///
/// Control characters could move the cursor or change colors, and direction marks could make one name look like another; they are
/// replaced by spaces or removed.
pub fn printable(text: impl AsRef<str> + Into<String>) -> String {
    // The line breaks of Unicode are no control characters, and break lines all the same.
    let is_control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let is_plain = |text: &str| {
        // Most text is ASCII, where checking bytes is enough.
        let is_printable = |byte: &u8| (b' '..=b'~').contains(byte);
        text.as_bytes().iter().all(is_printable)
            || !text.chars().any(|c| is_control(c) || is_direction_mark(c))
    };
    if is_plain(text.as_ref()) {
        return text.into();
    }
    text.as_ref()
        .chars()
        .filter(|c| !is_direction_mark(*c))
        .map(|c| if is_control(c) { ' ' } else { c })
        .collect()
}

/// Whether a character changes the direction of the text around it, or is a byte order mark.
fn is_direction_mark(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

/// Whether a character must not be written as it is where text is kept whole: it commands a terminal, breaks a line or changes the
/// direction of text.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_direction_mark(c)
}

/// Writes what a terminal obeys, or no screen shows, in a form that can be read: `\u{202e}`.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Escapes what JSON permits in strings and a terminal obeys: C1 controls, the line breaks of Unicode, and marks that change the
/// direction of text. Programs read the same text; outside of strings, JSON has only ASCII.
pub fn inert_json(text: String) -> String {
    let is_inert = |c: char| (c.is_ascii() && c != '\u{7f}') || !is_unsafe(c);
    if text.chars().all(is_inert) {
        return text;
    }
    let mut inert = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_inert(c) {
            inert.push(c);
        } else {
            // All of them are of the basic plane.
            let _ = write!(inert, "\\u{:04x}", u32::from(c));
        }
    }
    inert
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("Rat\u{1b}[31mCaster\n"), "Rat [31mCaster ");
        assert_eq!(printable("abc\u{202e}cba"), "abccba");
        assert_eq!(printable("a\u{2028}b\u{2029}c\u{9b}31m"), "a b c 31m");
        assert_eq!(printable("naïve 🐀 ラット"), "naïve 🐀 ラット");
    }
}
