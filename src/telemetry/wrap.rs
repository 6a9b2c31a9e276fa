//! Wraps log lines to the terminal at spaces, and indents continuation lines.

use std::io::{self, IsTerminal as _};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Indentation of continuation lines, in columns.
const INDENT: usize = 4;
/// The narrowest terminal that lines are wrapped for; a narrower one wraps itself.
const NARROWEST: usize = 30;

/// Returns the columns that a log line may take; `None` where lines may be of any length, as in a pipe or a file: programs read
/// those line by line. It is determined again for each line, since a terminal may change its size.
pub fn columns() -> Option<usize> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let given = std::env::var("COLUMNS").ok();
    let given = given.and_then(|columns| columns.trim().parse::<usize>().ok());
    let measured = || {
        let (width, _) = terminal_size::terminal_size_of(io::stderr())?;
        Some(usize::from(width.0))
    };
    given.filter(|columns| *columns > 0).or_else(measured)
}

/// Wraps each line of `text` that is wider than `columns` at its spaces. A word that is wider gets a line of its own and is not
/// cut: it may be an address that is copied.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    let columns = columns.max(NARROWEST);
    let mut fitted = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        if width(line) <= columns {
            fitted.push_str(line);
        } else {
            break_line(&mut fitted, line, columns);
        }
    }
    fitted
}

fn break_line(fitted: &mut String, line: &str, columns: usize) {
    let (line, end) = match line.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (line, ""),
    };
    let mut column = 0;
    // Spaces before the next word; they are dropped where the line is wrapped.
    let mut gap = 0;
    for (index, word) in line.split(' ').enumerate() {
        gap += usize::from(index > 0);
        let wide = width(word);
        if wide == 0 {
            // Between two spaces, or nothing but a change of color.
            fitted.push_str(word);
            continue;
        }
        if column > INDENT && column + gap + wide > columns {
            fitted.push('\n');
            fitted.extend(std::iter::repeat_n(' ', INDENT));
            column = INDENT;
        } else {
            fitted.extend(std::iter::repeat_n(' ', gap));
            column += gap;
        }
        gap = 0;
        fitted.push_str(word);
        column += wide;
    }
    fitted.push_str(end);
}

/// Returns the columns that text takes, without the sequences that change its color.
fn width(text: &str) -> usize {
    if !text.contains('\u{1b}') {
        return text.trim_end_matches('\n').width();
    }
    let mut width = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // `ESC [ numbers letter` is all that a log line is colored with.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            width += character.width().unwrap_or(0);
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-11-29T06:48:27.123Z  WARN The connection to chat was lost and is being made again source=twitch:777001 \
                        reason=\"the server closed it without a reason\" wait_ms=1500\n";

    #[test]
    fn log_lines_wrap_at_words_at_60_and_80_columns() {
        assert_eq!(
            fitted(LINE, 60),
            "2026-11-29T06:48:27.123Z  WARN The connection to chat was\n    \
                 lost and is being made again source=twitch:777001\n    \
                 reason=\"the server closed it without a reason\"\n    \
                 wait_ms=1500\n"
        );
        assert_eq!(
            fitted(LINE, 80),
            "2026-11-29T06:48:27.123Z  WARN The connection to chat was lost and is being made\n    \
                 again source=twitch:777001 reason=\"the server closed it without a reason\"\n    \
                 wait_ms=1500\n"
        );
        assert_eq!(fitted(LINE, 400), LINE);
    }

    #[test]
    fn colors_of_a_log_line_take_no_columns() {
        let colored = "\u{1b}[2m2026-11-29\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m a few words \u{1b}[3mfield\u{1b}[0m\u{1b}[2m=\u{1b}[0mvalue\n";
        assert_eq!(width(colored), "2026-11-29  INFO a few words field=value".len());
        let broken = fitted(colored, 30);
        assert_eq!(
            broken.replace(colored.trim_end(), ""),
            broken,
            "it is broken somewhere"
        );
        for line in broken.lines() {
            assert!(width(line) <= 30, "{line:?}");
        }
        assert_eq!(
            broken.matches('\u{1b}').count(),
            colored.matches('\u{1b}').count()
        );
    }

    #[test]
    fn log_word_that_is_too_wide_is_not_cut() {
        let address = format!("https://example.com/{}", "a".repeat(80));
        let line = format!("see {address} for more\n");
        assert_eq!(fitted(&line, 40), format!("see {address}\n    for more\n"));
        let line = format!("more is to be read at {address} for whoever wants\n");
        assert_eq!(
            fitted(&line, 40),
            format!("more is to be read at\n    {address}\n    for whoever wants\n")
        );
        assert_eq!(
            fitted("雪の庭 雪の庭 雪の庭 雪の庭 雪の庭\n", 30),
            "雪の庭 雪の庭 雪の庭 雪の庭\n    雪の庭\n"
        );
    }
}
