//! Text as it appears on a screen: without control characters, escape sequences, and characters that have no width. A secret that
//! is interrupted by them is still one for whoever reads it.

/// Returns whether a character has no width on a screen, so that a person cannot see that it was copied along.
pub fn is_invisible(c: char) -> bool {
    matches!(
        u32::from(c),
        0x00ad
            | 0x034f
            | 0x061c
            | 0x115f..=0x1160
            | 0x17b4..=0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xfff9..=0xfffb
            | 0xe0000..=0xe0fff
    )
}

/// What of a text is visible, and where it stands in the text.
pub(super) struct Visible {
    pub(super) bytes: Vec<u8>,
    /// Positions in `bytes` before which something is left out, and how much was up to there.
    gaps: Vec<(usize, usize)>,
}

impl Visible {
    /// Returns the visible texts, as far as they differ from `text`: with escape sequences left out as a terminal does, and with
    /// their control characters left out alone.
    pub(super) fn of(text: &[u8]) -> impl Iterator<Item = Self> {
        let is_plain = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let is_escaped = text.contains(&ESCAPE) || text.windows(2).any(|pair| pair == CSI.as_bytes());
        let all: &[bool] = match (is_plain, is_escaped) {
            (true, _) => &[],
            (false, false) => &[false],
            (false, true) => &[true, false],
        };
        all.iter()
            .map(move |sequences| Self::with(text, *sequences))
            .filter(|visible| !visible.gaps.is_empty())
    }

    fn with(text: &[u8], sequences: bool) -> Self {
        let (mut bytes, mut gaps, mut left_out) = (Vec::with_capacity(text.len()), Vec::new(), 0);
        let mut at = 0;
        while at < text.len() {
            let hidden = hidden(&text[at..], sequences);
            if hidden > 0 {
                left_out += hidden;
                gaps.push((bytes.len(), left_out));
                at += hidden;
            } else {
                bytes.push(text[at]);
                at += 1;
            }
        }
        Self { bytes, gaps }
    }

    /// Returns the range of the text in which `range` stands.
    pub(super) fn origin(&self, (start, end): (usize, usize)) -> (usize, usize) {
        let place = |at: usize| {
            let before = self.gaps.partition_point(|(gap, _)| *gap <= at);
            at + before.checked_sub(1).map_or(0, |last| self.gaps[last].1)
        };
        (place(start), place(end - 1) + 1)
    }
}

/// Returns the visible part of a text; a line break and its indentation become a blank.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hidden = hidden(rest.as_bytes(), true);
        if first.is_whitespace() || matches!(first, '\u{85}' | '\u{2028}' | '\u{2029}') {
            shown.push(' ');
            rest = &rest[first.len_utf8()..];
        } else if hidden > 0 && rest.is_char_boundary(hidden) {
            rest = &rest[hidden..];
        } else {
            shown.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    shown
}

const ESCAPE: u8 = 0x1b;
/// The one-character form of `ESC [`.
const CSI: &str = "\u{9b}";

/// Returns how many bytes at the beginning of a text are invisible.
fn hidden(text: &[u8], sequences: bool) -> usize {
    let blanks = |from: usize| {
        let blanks = text[from..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'));
        blanks.count()
    };
    match text {
        [ESCAPE, ..] if sequences => sequence(text),
        // The indentation of a wrapped line belongs to the break.
        [b'\n' | b'\r', ..] => 1 + blanks(1),
        [0..0x20 | 0x7f, ..] => 1,
        [0x20..0x80, ..] | [] => 0,
        [0xc2, 0x9b, rest @ ..] if sequences => 2 + parameters(rest),
        _ => {
            let length = text.len().min(4);
            let first =
                (1..=length).find_map(|length| std::str::from_utf8(&text[..length]).ok()?.chars().next());
            first
                .filter(|c| c.is_control() || is_invisible(*c))
                .map_or(0, char::len_utf8)
        }
    }
}

/// Returns the length of the escape sequence at the beginning of a text.
fn sequence(text: &[u8]) -> usize {
    match text.get(1) {
        Some(b'[') => 2 + parameters(&text[2..]),
        // A title or a link: up to BEL or `ESC \`.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let ends = text.iter().position(|byte| *byte == 0x07);
            let string = text[2..].windows(2).position(|pair| pair == b"\x1b\\");
            match (ends, string) {
                (Some(pending_notify), Some(string)) => (pending_notify + 1).min(string + 4),
                (Some(pending_notify), None) => pending_notify + 1,
                (None, Some(string)) => string + 4,
                (None, None) => 2,
            }
        }
        Some(b' '..=b'/') => {
            let between = text[1..].iter().take_while(|byte| matches!(byte, b' '..=b'/'));
            (2 + between.count()).min(text.len())
        }
        Some(b'0'..=b'~') => 2,
        _ => 1,
    }
}

/// Returns the length of the parameters of a control sequence and of its last letter.
fn parameters(text: &[u8]) -> usize {
    let inner = text.iter().take_while(|byte| matches!(byte, b' '..=b'?')).count();
    let ends = text.get(inner).is_some_and(|byte| matches!(byte, b'@'..=b'~'));
    inner + usize::from(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_does_not_show_is_left_out() {
        for (text, shown) in [
            ("a\u{200b}b", "ab"),
            ("a\u{1b}[31mb\u{1b}[0m", "ab"),
            ("a\u{9b}1;31mb", "ab"),
            ("a\u{1b}]8;;http://x\u{7}b\u{1b}]8;;\u{1b}\\c", "abc"),
            ("a\u{1b}(Bb", "ab"),
            ("a\n    b", "ab"),
            ("a\r\nb\u{0}c\u{2028}d\u{202e}e", "abcde"),
            ("\u{1b}", ""),
            ("é\u{ad}ü", "éü"),
        ] {
            let visible = Visible::of(text.as_bytes()).next().unwrap();
            assert_eq!(
                String::from_utf8(visible.bytes.clone()).unwrap(),
                shown,
                "{text:?}"
            );
            if let Some(at) = text.find('b') {
                let found = shown.find('b').unwrap();
                assert_eq!(visible.origin((found, found + 1)), (at, at + 1), "{text:?}");
            }
        }
        assert_eq!(Visible::of("a b é".as_bytes()).count(), 0);
        assert_eq!(plain("no\r\n\u{1b}[31mrat\u{202e}\u{200b}s"), "no  rats");
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_visible_part(text in "(\\PC|[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}]|\u{1b}[\\[\\](]){0,40}") {
            let _ = plain(&text);
            for visible in Visible::of(text.as_bytes()) {
                for at in 0..visible.bytes.len() {
                    let (start, end) = visible.origin((at, at + 1));
                    proptest::prop_assert_eq!(&text.as_bytes()[start..end], &visible.bytes[at..=at]);
                }
            }
        }
    }
}
