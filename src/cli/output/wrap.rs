//! Wraps text at words, and indents continuation lines to the start of the text.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use crate::cli::output::style::Style;
use crate::cli::output::view::{Cell, Tone};

/// The narrowest screen that text is wrapped for; on a smaller one the terminal wraps.
const NARROWEST: usize = 30;

/// Returns the columns that text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Splits `sentence` at words into lines of at most `room` columns. A word that is wider gets a line of its own.
pub fn words(sentence: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns the columns to use, `None` where lines may be of any length.
fn room(style: Style) -> Option<usize> {
    style.width.map(|width| usize::from(width).max(NARROWEST))
}

/// Appends `what` after `sign`; further lines begin below the text.
pub fn hanging(text: &mut String, what: &str, sign: &str, tone: Tone, style: Style) {
    let indent = width(sign) + 1;
    let Some(room) = room(style) else {
        let line = format!("{sign} {what}");
        let _ = writeln!(text, "{}", style.paint(tone, &line));
        return;
    };
    let mut lines = words(what, room - indent).into_iter();
    let first = format!("{sign} {}", lines.next().unwrap_or_default());
    let _ = writeln!(text, "{}", style.paint(tone, &first));
    for line in lines {
        let _ = writeln!(text, "{:indent$}{}", "", style.paint(tone, &line));
    }
}

/// Appends a paragraph, wrapped at words.
pub fn paragraph(text: &mut String, what: &str, style: Style) {
    match room(style) {
        Some(room) => text.push_str(&words(what, room).join("\n")),
        None => text.push_str(what),
    }
    text.push('\n');
}

/// Appends the parts of a summary, as many per line as fit; one that is wider than a line is wrapped at words.
pub fn parts(text: &mut String, parts: &[Cell], style: Style) {
    let separator = style.separator();
    let mut taken = 0;
    for (index, part) in parts.iter().enumerate() {
        let wide = width(&style.spell(part));
        if index > 0 {
            let fits = room(style).is_none_or(|room| taken + width(separator) + wide <= room);
            if fits {
                text.push_str(separator);
                taken += width(separator);
            } else {
                text.push_str(separator.trim_end());
                text.push('\n');
                taken = 0;
            }
        }
        match room(style) {
            Some(room) if taken == 0 && wide > room => {
                taken = flow(text, std::slice::from_ref(part), style, room, 0, 2);
            }
            _ => {
                style.add_observer(text, part);
                taken += wide;
            }
        }
    }
    text.push('\n');
}

/// Appends cells on one line, two spaces apart. Where they do not fit, each cell is wrapped at words, and further lines are
/// indented by as much as the first, and two more.
pub fn line(text: &mut String, cells: &[Cell], style: Style) {
    match room(style) {
        Some(room) if joined_width(cells, style) > room => {
            let lead = cells
                .first()
                .map_or(0, |cell| cell.text.len() - cell.text.trim_start().len());
            text.extend(std::iter::repeat_n(' ', lead));
            flow(text, cells, style, room, lead, lead + 2);
        }
        _ => join(text, cells, style),
    }
    text.push('\n');
}

/// Appends cells to a line that already has content, two spaces apart; those that do not fit are wrapped at words.
pub fn behind(text: &mut String, cells: &[Cell], style: Style, column: usize) {
    match room(style) {
        Some(room) if column + joined_width(cells, style) > room => {
            flow(
                text,
                cells,
                style,
                room.max(column + NARROWEST / 2),
                column,
                column,
            );
        }
        _ => join(text, cells, style),
    }
}

fn joined_width(cells: &[Cell], style: Style) -> usize {
    let whole: usize = cells.iter().map(|cell| width(&style.spell(cell)) + 2).sum();
    whole.saturating_sub(2)
}

fn join(text: &mut String, cells: &[Cell], style: Style) {
    for (index, cell) in cells.iter().enumerate() {
        text.push_str(if index > 0 { "  " } else { "" });
        style.add_observer(text, cell);
    }
}

/// Appends cells word by word from `start` on, further lines from `indent` on. Returns the column after the last word.
fn flow(text: &mut String, cells: &[Cell], style: Style, room: usize, start: usize, indent: usize) -> usize {
    let mut column = start;
    for (index, cell) in cells.iter().enumerate() {
        let spelled = style.spell(cell);
        for (place, word) in spelled.split_whitespace().enumerate() {
            let gap = match (index, place) {
                (0, 0) => 0,
                (_, 0) => 2,
                _ => 1,
            };
            if column > indent && column + gap + width(word) > room {
                text.push('\n');
                text.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else {
                text.extend(std::iter::repeat_n(' ', gap));
                column += gap;
            }
            style.paint_to(text, cell.tone, word);
            column += width(word);
        }
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(width: u16) -> Style {
        Style {
            width: Some(width),
            color: false,
            unicode: true,
        }
    }

    #[test]
    fn long_text_wraps_at_words_with_hanging_indent() {
        let mut text = String::new();
        let what =
            "the authorization of twitch/bot was revoked and must be given again; needed by 12 sources";
        hanging(&mut text, what, "✗", Tone::Bad, style(40));
        assert_eq!(
            text,
            "✗ the authorization of twitch/bot was\n  revoked and must be given again;\n  needed by 12 sources\n"
        );
    }

    #[test]
    fn line_of_cells_is_broken_only_where_it_does_not_fit() {
        let cells = [
            Cell::new("yes"),
            Cell::new("twitch:1"),
            Cell::new("the newest poll listed it"),
        ];
        let mut text = String::new();
        line(&mut text, &cells, style(80));
        assert_eq!(text, "yes  twitch:1  the newest poll listed it\n");
        text.clear();
        line(&mut text, &cells, style(30));
        assert_eq!(text, "yes  twitch:1  the newest poll\n  listed it\n");
        text.clear();
        line(
            &mut text,
            &[Cell::new("  missing: a very long thing that breaks")],
            style(30),
        );
        assert_eq!(text, "  missing: a very long thing\n    that breaks\n");
    }

    #[test]
    fn summary_of_one_long_part_is_broken_at_words() {
        let mut text = String::new();
        let long = "every stored document belongs to a source; there is nothing to remove";
        parts(&mut text, &[Cell::new(long), Cell::new("done")], style(40));
        assert_eq!(
            text,
            "every stored document belongs to a\n  source; there is nothing to remove ·\ndone\n"
        );
        text.clear();
        parts(
            &mut text,
            &[Cell::new("3 sources"), Cell::new("2 live")],
            style(40),
        );
        assert_eq!(text, "3 sources · 2 live\n");
    }

    #[test]
    fn cells_behind_a_title_are_broken_below_the_first() {
        let mut text = "STATUS       ".to_owned();
        behind(
            &mut text,
            &[Cell::new("CONNECTED"), Cell::new("stale for more than an hour")],
            style(40),
            13,
        );
        assert_eq!(
            text,
            "STATUS       CONNECTED  stale for more\n             than an hour"
        );
    }

    #[test]
    fn wide_characters_count_as_two_columns() {
        assert_eq!(words("雪の庭 雪の庭", 8), ["雪の庭", "雪の庭"]);
        assert_eq!(words("雪の庭 雪の庭", 13), ["雪の庭 雪の庭"]);
    }
}
