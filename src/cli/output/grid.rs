//! Draws a table with comfy-table: which columns fit, how wide each is, and the colors afterwards.
//!
//! Measuring text costs comfy-table some ten milliseconds for a thousand rows, three times what reading them takes. So rows in
//! plain ASCII, which need no measuring, are laid out here by the same rules; a test compares the two.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell as TableCell, CellAlignment, ColumnConstraint, Row, Table, Width};

use crate::cli::output::style::Style;
use crate::cli::output::view::{Cell, Column, Grid, Tone};
use crate::cli::output::wrap;

/// Spaces between two columns.
const GUTTER: u16 = 2;
/// A delimiter that never occurs: cells are cut, never wrapped at words.
const NO_DELIMITER: char = '\u{1f}';

/// Appends the lines of `grid` to `text`, each indented by `indent` spaces. `wide` shows every column, whole.
pub fn draw(text: &mut String, grid: &Grid, style: Style, indent: u16, wide: bool) {
    draw_by(text, grid, style, indent, wide, ascii_width);
}

/// As [`draw`]; `known_width` returns the width of cells that need no measuring.
fn draw_by(
    text: &mut String,
    grid: &Grid,
    style: Style,
    indent: u16,
    wide: bool,
    known_width: fn(&Cell, Style) -> Option<u16>,
) {
    let shown: Vec<usize> = (0..grid.columns.len())
        .filter(|index| wide || !grid.columns[*index].wide_only)
        .collect();
    let mut known = vec![0; shown.len()];
    let mut measured: Vec<&[Cell]> = Vec::new();
    let mut is_measured = Vec::with_capacity(grid.rows.len());
    for cells in &grid.rows {
        let mut is_known = true;
        for (widest, index) in known.iter_mut().zip(&shown) {
            match known_width(&cells[*index], style) {
                Some(width) => *widest = width.max(*widest),
                None => is_known = false,
            }
        }
        if !is_known {
            measured.push(cells);
        }
        is_measured.push(!is_known);
    }
    let mut table = build(grid, &measured, style, &shown);
    let mut natural = table.column_max_content_widths();
    for (width, known) in natural.iter_mut().zip(known) {
        *width = known.max(*width);
    }
    let columns: Vec<Column> = shown.iter().map(|index| grid.columns[*index]).collect();
    let room = style
        .width
        .filter(|_| !wide)
        .map(|width| width.saturating_sub(indent));
    let widths = fit(&columns, &natural, room);
    table.set_constraints(widths.iter().map(|width| match width {
        Some(width) => ColumnConstraint::Absolute(Width::Fixed(width + GUTTER)),
        None => ColumnConstraint::Hidden,
    }));
    let kept: Vec<(usize, u16)> = shown
        .iter()
        .zip(&widths)
        .filter_map(|(index, width)| width.map(|width| (*index, width)))
        .collect();
    let line = kept
        .iter()
        .map(|(_, width)| usize::from(width + GUTTER))
        .sum::<usize>();
    text.reserve(line * grid.rows.len());
    let margin = " ".repeat(usize::from(indent));
    let mut lines = table.lines();
    // A table without titles has an empty line in their place; without any line comfy-table has no columns.
    let header = lines.next().unwrap_or_default();
    if grid.headed {
        let titles: Vec<Cell> = grid
            .columns
            .iter()
            .map(|column| Cell::new(column.title).tone(Tone::Strong))
            .collect();
        text.push_str(&margin);
        paint(text, &header, &titles, &kept, style);
    }
    for (cells, is_measured) in grid.rows.iter().zip(is_measured) {
        text.push_str(&margin);
        if is_measured {
            paint(text, &lines.next().unwrap_or_default(), cells, &kept, style);
        } else {
            lay_out(text, cells, grid, &kept, style);
        }
    }
}

/// Appends the lines of `grid`, indented by `indent` spaces, every column whole: what does not fit continues on the next line,
/// wrapped at words.
pub fn draw_wrapped(text: &mut String, grid: &Grid, style: Style, indent: u16) {
    const HANG: usize = 2;
    /// The last column is wrapped in its place only if that leaves it this much space.
    const ENOUGH: usize = 20;
    let margin = usize::from(indent);
    // Columns for `-o wide` are not shown here.
    let narrow = narrowed(grid);
    let grid = &narrow;
    let shown: Vec<Vec<String>> = grid
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| style.spell(cell)).collect())
        .collect();
    let widths = column_widths(grid, &shown, usize::MAX);
    let whole = margin
        + widths
            .iter()
            .map(|width| width + usize::from(GUTTER))
            .sum::<usize>();
    let Some(room) = style
        .width
        .map(usize::from)
        .filter(|room| whole.saturating_sub(GUTTER.into()) > *room)
    else {
        return draw(text, grid, style, indent, true);
    };
    let room = room.max(margin + HANG + ENOUGH);
    // A cell that is wider than a line is wrapped, so the columns of other rows are not aligned with its end.
    let widths = column_widths(grid, &shown, room - margin);
    if grid.headed {
        pad(text, margin);
        let mut column = margin;
        // The titles of columns that are continued below are left out.
        for (title, width) in grid.columns.iter().map(|column| column.title).zip(&widths) {
            if column + wrap::width(title) > room {
                break;
            }
            style.paint_to(text, Tone::Strong, title);
            pad(text, width - wrap::width(title) + usize::from(GUTTER));
            column += width + usize::from(GUTTER);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    for (cells, row) in grid.rows.iter().zip(&shown) {
        pad(text, margin);
        let (mut column, mut aligned) = (margin, true);
        for (index, spelled) in row.iter().enumerate() {
            if spelled.is_empty() && index + 1 == row.len() {
                continue;
            }
            let is_first = index == 0;
            if grid.columns[index].right && aligned {
                let left = widths[index].saturating_sub(wrap::width(spelled));
                pad(text, left);
                column += left;
            }
            let start = column + if is_first { 0 } else { usize::from(GUTTER) };
            let fits = start + wrap::width(spelled) <= room;
            // A word is broken nowhere: where the longest does not fit, all of them move to the next line.
            let longest = spelled.split_whitespace().map(wrap::width).max().unwrap_or(0);
            let least = longest.clamp(ENOUGH, room - margin - HANG);
            let here = is_first || fits || (index + 1 == row.len() && start + least <= room);
            let start = if here {
                pad(text, start - column);
                start
            } else {
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
                pad(text, margin + HANG);
                aligned = false;
                margin + HANG
            };
            column = start;
            let lines = wrap::words(spelled, room - start);
            for (place, line) in lines.iter().enumerate() {
                if place > 0 {
                    text.push('\n');
                    pad(text, start);
                }
                style.paint_to(text, cells[index].tone, line);
                column = start + wrap::width(line);
            }
            // Columns stay below each other as long as the row is on its first line.
            if aligned && lines.len() <= 1 && index + 1 < row.len() && !grid.columns[index].right {
                let left = widths[index].saturating_sub(wrap::width(spelled));
                pad(text, left);
                column += left;
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

/// Returns the width of each column, without the cells that are wider than `limit`.
fn column_widths(grid: &Grid, shown: &[Vec<String>], limit: usize) -> Vec<usize> {
    let widest = |index: usize| {
        let cells = shown.iter().map(|row| wrap::width(&row[index]));
        let title = grid.headed.then(|| wrap::width(grid.columns[index].title));
        cells
            .filter(|width| *width <= limit)
            .chain(title)
            .max()
            .unwrap_or(0)
    };
    (0..grid.columns.len()).map(widest).collect()
}

/// Returns `grid` without the columns that are for `-o wide`.
fn narrowed(grid: &Grid) -> Grid {
    let is_kept = |index: &usize| !grid.columns[*index].wide_only;
    let kept: Vec<usize> = (0..grid.columns.len()).filter(is_kept).collect();
    let of_row = |row: &Vec<Cell>| kept.iter().map(|index| row[*index].clone()).collect();
    Grid {
        columns: kept.iter().map(|index| grid.columns[*index]).collect(),
        rows: grid.rows.iter().map(of_row).collect(),
        headed: grid.headed,
    }
}

/// Returns the width of a cell in plain ASCII; our own symbols are one column wide each.
fn ascii_width(cell: &Cell, style: Style) -> Option<u16> {
    let glyph = cell.glyph.map_or(0, |glyph| glyph.width(style.unicode));
    let space = usize::from(glyph > 0 && !cell.text.is_empty());
    let width = cell.text.is_ascii().then_some(glyph + space + cell.text.len())?;
    u16::try_from(width).ok()
}

/// Builds a table of the header and `rows`.
fn build(grid: &Grid, rows: &[&[Cell]], style: Style, shown: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .force_no_tty()
        .set_delimiter(NO_DELIMITER)
        .set_truncation_indicator(ellipsis(style));
    let titles = shown.iter().map(|index| match grid.headed {
        true => TableCell::new(grid.columns[*index].title),
        false => TableCell::new(""),
    });
    let mut header = Row::from(titles.collect::<Vec<_>>());
    header.max_height(1);
    table.set_header(header);
    for cells in rows {
        let cells: Vec<_> = shown
            .iter()
            .map(|index| TableCell::new_owned(style.spell(&cells[*index])))
            .collect();
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    for (column, index) in table.column_iter_mut().zip(shown) {
        column.set_padding((0, GUTTER));
        if grid.columns[*index].right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn ellipsis(style: Style) -> &'static str {
    if style.unicode { "…" } else { "..." }
}

/// Appends a line of cells whose every character is one column wide.
fn lay_out(text: &mut String, cells: &[Cell], grid: &Grid, kept: &[(usize, u16)], style: Style) {
    // Spaces are written when something follows them, so that no line ends in any.
    let mut spaces = 0;
    for (index, width) in kept {
        let width = usize::from(*width);
        let cell = &cells[*index];
        let length = ascii_width(cell, style).map_or(width, usize::from);
        let room = width.saturating_sub(length);
        let (before, after) = match grid.columns[*index].right {
            true => (room, 0),
            false => (0, room),
        };
        spaces += before;
        if length > 0 && width > 0 {
            pad(text, spaces);
            spaces = 0;
            if length > width {
                style.paint_to(text, cell.tone, &cut(style.spell(cell), width, style));
            } else {
                style.add_observer(text, cell);
            }
        }
        spaces += after + usize::from(GUTTER);
    }
    text.push('\n');
}

/// Cuts `spelled`, which is too long, to `width` characters, with an ellipsis where there is space for one.
fn cut(mut spelled: String, width: usize, style: Style) -> String {
    let mark = ellipsis(style);
    let mark = if mark.chars().count() > width { "" } else { mark };
    let end = spelled.char_indices().nth(width - mark.chars().count());
    spelled.truncate(end.map_or(spelled.len(), |(at, _)| at));
    spelled + mark
}

/// Appends so many spaces.
fn pad(text: &mut String, count: usize) {
    const SPACES: &str = "                                                                ";
    let mut left = count;
    while left > 0 {
        let now = left.min(SPACES.len());
        text.push_str(&SPACES[..now]);
        left -= now;
    }
}

/// Decides how wide each column is; `None` drops it.
///
/// Columns are dropped, greatest rank first, until the rest fits with its elastic columns at their minimum (those that are always
/// kept at twice that, as long as others can be dropped); then the elastic ones share what is left, those of small rank first.
/// On a screen that is narrower than the columns that are otherwise kept, these are dropped too, elastic ones first, up to two,
/// and what is left is cut: no line is ever wider than the screen.
fn fit(columns: &[Column], natural: &[u16], room: Option<u16>) -> Vec<Option<u16>> {
    /// The width down to which columns are cut one after the other, the last one first.
    const READABLE: u16 = 8;
    let mut widths: Vec<Option<u16>> = natural.iter().copied().map(Some).collect();
    let Some(room) = room else {
        return widths;
    };
    let least = |index: usize| {
        columns[index]
            .elastic
            .map_or(natural[index], |min| min.min(natural[index]))
    };
    let comfortable = |index: usize| match columns[index].rank {
        0 => natural[index].min(least(index).saturating_mul(2)),
        _ => least(index),
    };
    let needed = |widths: &[Option<u16>], width_of: &dyn Fn(usize) -> u16| -> u16 {
        let kept: Vec<u16> = (0..widths.len())
            .filter(|index| widths[*index].is_some())
            .map(width_of)
            .collect();
        let gutters = GUTTER.saturating_mul(u16::try_from(kept.len().saturating_sub(1)).unwrap_or(u16::MAX));
        kept.iter().fold(gutters, |sum, width| sum.saturating_add(*width))
    };
    while needed(&widths, &comfortable) > room {
        let droppable =
            (0..columns.len()).filter(|index| widths[*index].is_some() && columns[*index].rank > 0);
        let Some(least_important) = droppable.max_by_key(|index| (columns[*index].rank, *index)) else {
            break;
        };
        widths[least_important] = None;
    }
    while needed(&widths, &least) > room {
        let kept: Vec<usize> = (0..columns.len())
            .filter(|index| widths[*index].is_some())
            .collect();
        let [_, _, .., last] = kept.as_slice() else { break };
        let elastic = kept[1..].iter().find(|index| columns[**index].elastic.is_some());
        widths[*elastic.unwrap_or(last)] = None;
    }
    let mut least: Vec<u16> = (0..columns.len()).map(least).collect();
    for readable in [READABLE, 1] {
        for index in (0..columns.len()).rev().filter(|index| widths[*index].is_some()) {
            let over = needed(&widths, &|index| least[index]).saturating_sub(room);
            least[index] -= over.min(least[index].saturating_sub(readable));
        }
    }
    let mut spare = room.saturating_sub(needed(&widths, &|index| least[index]));
    let mut by_rank: Vec<usize> = (0..columns.len())
        .filter(|index| widths[*index].is_some())
        .collect();
    by_rank.sort_by_key(|index| (columns[*index].rank, *index));
    for index in by_rank {
        let extra = spare.min(natural[index] - least[index]);
        widths[index] = Some(least[index] + extra);
        spare -= extra;
    }
    widths
}

/// Appends a line of comfy-table's, with colors: cells come in order, each whole or cut with an ellipsis.
fn paint(text: &mut String, line: &str, cells: &[Cell], kept: &[(usize, u16)], style: Style) {
    let mut rest = line.trim_end();
    if style.color {
        for (index, _) in kept {
            let spelled = style.spell(&cells[*index]);
            let spelled = spelled.trim();
            if spelled.is_empty() {
                continue;
            }
            let start = rest.len() - rest.trim_start().len();
            text.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = if rest.starts_with(spelled) {
                spelled.len()
            } else {
                let cut = ellipsis(style);
                rest.find(cut).map_or(rest.len(), |found| found + cut.len())
            };
            style.paint_to(text, cells[*index].tone, &rest[..end]);
            rest = &rest[end..];
        }
    }
    text.push_str(rest);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::view::Glyph;

    const COLUMNS: [Column; 4] = [
        Column::kept("SOURCE"),
        Column::kept("NAME").elastic(6),
        Column::ranked("VIEWERS", 1).right(),
        Column::ranked("TITLE", 2).elastic(8),
    ];

    fn grid() -> Grid {
        let row = |source: &str, name: &str, viewers: &str, title: &str| {
            vec![
                Cell::new(source),
                Cell::new(name).tone(Tone::Strong),
                Cell::new(viewers),
                Cell::new(title).tone(Tone::Dim).glyph(Glyph::Live),
            ]
        };
        Grid {
            columns: COLUMNS.to_vec(),
            rows: vec![
                row("twitch:1", "RatCaster", "12,345", "sorting cheese all night"),
                row("twitch:22", "ラットキャスター", "7", "more"),
            ],
            headed: true,
        }
    }

    fn drawn(width: Option<u16>, color: bool) -> String {
        let style = Style {
            width,
            color,
            unicode: true,
        };
        let mut text = String::new();
        draw(&mut text, &grid(), style, 0, false);
        text
    }

    #[test]
    fn all_columns_are_shown_when_width_allows() {
        insta::assert_snapshot!(drawn(None, false));
    }

    #[test]
    fn elastic_columns_are_cut_before_anything_is_dropped() {
        insta::assert_snapshot!(drawn(Some(46), false));
    }

    #[test]
    fn the_least_important_column_goes_first() {
        insta::assert_snapshot!(drawn(Some(36), false));
        insta::assert_snapshot!(drawn(Some(20), false));
    }

    #[test]
    fn one_long_row_does_not_pad_the_others() {
        let row =
            |change: &str| ["at", "what", change, "newest-answer"].map(|text| Cell::new(text.to_owned()));
        let grid = Grid {
            columns: vec![Column::kept(""); 4],
            rows: vec![
                row("initially CONNECTED").to_vec(),
                row(&"PERMISSION ".repeat(90)).to_vec(),
            ],
            headed: false,
        };
        for width in [40, 60, 80, 100] {
            let style = Style {
                width: Some(width),
                color: false,
                unicode: true,
            };
            let mut text = String::new();
            draw_wrapped(&mut text, &grid, style, 13);
            for line in text.lines() {
                assert!(wrap::width(line) <= usize::from(width), "{width}: {line}");
                assert_eq!(line.trim_end(), line);
            }
            let is_one_line = text.lines().next().unwrap().ends_with("newest-answer");
            assert_eq!(is_one_line, width >= 60, "{text}");
        }
    }

    #[test]
    fn no_line_is_ever_wider_than_the_screen() {
        for width in 12..120 {
            for line in drawn(Some(width), false).lines() {
                assert!(wrap::width(line) <= usize::from(width), "{width}: {line}");
            }
        }
        let narrow = drawn(Some(14), false);
        assert!(
            narrow.starts_with("SOURCE") && narrow.contains("twitch:"),
            "{narrow}"
        );
    }

    #[test]
    fn colors_change_nothing_but_colors() {
        for width in [None, Some(46), Some(36), Some(20)] {
            let painted = drawn(width, true);
            let mut plain = String::new();
            let mut rest = painted.as_str();
            while let Some(start) = rest.find('\u{1b}') {
                plain.push_str(&rest[..start]);
                rest = &rest[start..];
                rest = &rest[rest.find('m').unwrap() + 1..];
            }
            plain.push_str(rest);
            assert_eq!(plain, drawn(width, false));
            assert!(painted.contains("\u{1b}[1m"));
        }
    }

    #[test]
    fn own_layout_matches_comfy_table() {
        let rows = [
            ["twitch:1", "RatCaster", "12,345", "sorting cheese all night"],
            ["twitch:22", "A", "7", ""],
            ["", "Somebody With A Long Name", "", "x"],
            ["twitch:333333", "", "1", "exactly!"],
        ];
        let mut table = grid();
        table.rows = rows
            .iter()
            .map(|row| {
                let mut cells: Vec<Cell> = row.iter().copied().map(Cell::new).collect();
                cells[3] = Cell::new(row[3]).glyph(Glyph::Live).tone(Tone::Live);
                cells[0].tone = Tone::Good;
                cells
            })
            .collect();
        for headed in [true, false] {
            table.headed = headed;
            for width in [
                None,
                Some(80),
                Some(50),
                Some(44),
                Some(36),
                Some(30),
                Some(22),
                Some(14),
            ] {
                for (unicode, color) in [(true, false), (true, true), (false, false), (false, true)] {
                    let style = Style {
                        width,
                        color,
                        unicode,
                    };
                    let (mut here, mut there) = (String::new(), String::new());
                    draw(&mut here, &table, style, 3, false);
                    draw_by(&mut there, &table, style, 3, false, |_, _| None);
                    assert_eq!(here, there, "{style:?}");
                }
            }
        }
    }
}
