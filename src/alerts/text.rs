//! Text of messages: without control characters, within the limits of a receiver, and cut between letters.

use unicode_segmentation::UnicodeSegmentation as _;

use crate::secrets;

/// What replaces the part that is cut off.
const CUT: &str = "…";

/// How a receiver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Unicode characters.
    Characters,
    /// Bytes of UTF-8.
    Bytes,
}

impl Unit {
    fn count(self, text: &str) -> usize {
        match self {
            Self::Characters => text.chars().count(),
            Self::Bytes => text.len(),
        }
    }
}

/// Shortens `text` to at most `limit` units, at the border of what is seen as one character.
pub fn fit(text: &str, limit: usize, unit: Unit) -> String {
    if unit.count(text) <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(unit.count(CUT));
    let (mut used, mut end) = (0, 0);
    for (start, grapheme) in text.grapheme_indices(true) {
        used += unit.count(grapheme);
        if used > room {
            break;
        }
        end = start + grapheme.len();
    }
    format!("{}{CUT}", &text[..end])
}

/// Returns text of a platform on one line, without control and bidirectional characters, and without known secrets.
pub fn clean(text: &str) -> String {
    let masked = secrets::mask_foreign(text);
    let shown = masked.chars().filter_map(|c| match c {
        c if c.is_whitespace() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') => Some(' '),
        c if c.is_control() || is_bidirectional(c) => None,
        // Joiners and variation selectors stay: emoji consist of them.
        c => Some(c),
    });
    shown.collect::<String>().trim().to_owned()
}

/// Whether a character changes the direction of the text around it.
fn is_bidirectional(c: char) -> bool {
    matches!(u32::from(c), 0x061c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069)
}

/// Escapes what Discord interprets as markup, a mention or a link.
pub fn escape_discord(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '(' | ')' | '#' | '@'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Escapes the three characters that Slack interprets; this also disables mentions such as `<!channel>`.
pub fn escape_slack(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_letters_in_the_receivers_unit() {
        let family = "👩‍👩‍👧";
        for (text, limit, unit, expected) in [
            ("short", 5, Unit::Characters, "short"),
            ("longer", 5, Unit::Characters, "long…"),
            ("ééé", 5, Unit::Bytes, "é…"),
            // The family is five characters and 18 bytes, and is never torn apart.
            ("ab👩‍👩‍👧cd", 7, Unit::Characters, "ab…"),
            ("ab👩‍👩‍👧cdef", 23, Unit::Bytes, "ab👩‍👩‍👧…"),
        ] {
            assert_eq!(fit(text, limit, unit), expected, "{text}");
        }
        assert_eq!((family.chars().count(), family.len()), (5, 18));
        let long = family.repeat(1000);
        assert!(fit(&long, 4096, Unit::Bytes).len() <= 4096);
        assert!(fit(&long, 2000, Unit::Characters).chars().count() <= 2000);
    }

    #[test]
    fn platform_text_is_one_line_without_tricks() {
        assert_eq!(clean("no\r\n\u{1b}rat\u{202e}\u{9b}s 👩‍👩‍👧 "), "no  rats 👩‍👩‍👧");
        assert_eq!(escape_slack("<!channel> & co"), "&lt;!channel&gt; &amp; co");
        assert_eq!(
            escape_discord("@everyone [x](y) **b**"),
            "\\@everyone \\[x\\]\\(y\\) \\*\\*b\\*\\*"
        );
    }
}
