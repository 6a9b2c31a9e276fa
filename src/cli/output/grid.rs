//! Draws a table with comfy-table: which columns fit, how wide each is, and the colours afterwards.
//!
//! Measuring text costs comfy-table some ten milliseconds for a thousand rows, three times what reading them takes. So
//! rows in plain ASCII, which need no measuring, are laid out here by the same rules; a test holds the two together.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell as TableCell, CellAlignment, ColumnConstraint, Row, Table, Width};

use crate::cli::output::look::Look;
use crate::cli::output::view::{Cell, Column, Grid, Tone};

/// Spaces between two columns.
const GUTTER: u16 = 2;
/// Separates nothing: cells are cut, never wrapped at words.
const NO_DELIMITER: char = '\u{1f}';

/// Appends the lines of `grid` to `text`, each indented by `indent` spaces. `wide` shows every column, whole.
pub fn draw(text: &mut String, grid: &Grid, look: Look, indent: u16, wide: bool) {
    draw_by(text, grid, look, indent, wide, ascii_width);
}

/// As [`draw`]; `known_width` tells the width of cells that need no measuring.
fn draw_by(
    text: &mut String,
    grid: &Grid,
    look: Look,
    indent: u16,
    wide: bool,
    known_width: fn(&Cell, Look) -> Option<u16>,
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
            match known_width(&cells[*index], look) {
                Some(width) => *widest = width.max(*widest),
                None => is_known = false,
            }
        }
        if !is_known {
            measured.push(cells);
        }
        is_measured.push(!is_known);
    }
    let mut table = build(grid, &measured, look, &shown);
    let mut natural = table.column_max_content_widths();
    for (width, known) in natural.iter_mut().zip(known) {
        *width = known.max(*width);
    }
    let columns: Vec<Column> = shown.iter().map(|index| grid.columns[*index]).collect();
    let room = look
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
    // A table without titles has an empty line in their place; without any line comfy-table knows no columns.
    let header = lines.next().unwrap_or_default();
    if grid.headed {
        let titles: Vec<Cell> = grid
            .columns
            .iter()
            .map(|column| Cell::new(column.title).tone(Tone::Strong))
            .collect();
        text.push_str(&margin);
        paint(text, &header, &titles, &kept, look);
    }
    for (cells, is_measured) in grid.rows.iter().zip(is_measured) {
        text.push_str(&margin);
        if is_measured {
            paint(text, &lines.next().unwrap_or_default(), cells, &kept, look);
        } else {
            lay_out(text, cells, grid, &kept, look);
        }
    }
}

/// Returns the width of a cell in plain ASCII; our own symbols are one column wide each.
fn ascii_width(cell: &Cell, look: Look) -> Option<u16> {
    let glyph = cell.glyph.map_or(0, |glyph| glyph.width(look.unicode));
    let space = usize::from(glyph > 0 && !cell.text.is_empty());
    let width = cell.text.is_ascii().then_some(glyph + space + cell.text.len())?;
    u16::try_from(width).ok()
}

/// Builds a table of the header and `rows`.
fn build(grid: &Grid, rows: &[&[Cell]], look: Look, shown: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .force_no_tty()
        .set_delimiter(NO_DELIMITER)
        .set_truncation_indicator(ellipsis(look));
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
            .map(|index| TableCell::new_owned(look.spell(&cells[*index])))
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

fn ellipsis(look: Look) -> &'static str {
    if look.unicode { "…" } else { "..." }
}

/// Appends a line of cells whose every character is one column wide.
fn lay_out(text: &mut String, cells: &[Cell], grid: &Grid, kept: &[(usize, u16)], look: Look) {
    // Spaces are written when something follows them, so that no line ends in any.
    let mut spaces = 0;
    for (index, width) in kept {
        let width = usize::from(*width);
        let cell = &cells[*index];
        let length = ascii_width(cell, look).map_or(width, usize::from);
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
                look.paint_to(text, cell.tone, &cut(look.spell(cell), width, look));
            } else {
                look.show_to(text, cell);
            }
        }
        spaces += after + usize::from(GUTTER);
    }
    text.push('\n');
}

/// Cuts `spelled`, which is too long, to `width` characters; an ellipsis says so where there is room for one.
fn cut(mut spelled: String, width: usize, look: Look) -> String {
    let mark = ellipsis(look);
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
/// Columns go, greatest rank first, until the rest fits with its elastic columns at their least (those that are always
/// kept at twice that, as long as something else can go); then the elastic ones share what is left, those of small rank
/// first.
fn fit(columns: &[Column], natural: &[u16], room: Option<u16>) -> Vec<Option<u16>> {
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
    let mut spare = room.saturating_sub(needed(&widths, &least));
    let mut by_rank: Vec<usize> = (0..columns.len())
        .filter(|index| widths[*index].is_some())
        .collect();
    by_rank.sort_by_key(|index| (columns[*index].rank, *index));
    for index in by_rank {
        let extra = spare.min(natural[index] - least(index));
        widths[index] = Some(least(index) + extra);
        spare -= extra;
    }
    widths
}

/// Appends a line of comfy-table's, with colours: cells come in order, each whole or cut with an ellipsis.
fn paint(text: &mut String, line: &str, cells: &[Cell], kept: &[(usize, u16)], look: Look) {
    let mut rest = line.trim_end();
    if look.color {
        for (index, _) in kept {
            let spelled = look.spell(&cells[*index]);
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
                let cut = ellipsis(look);
                rest.find(cut).map_or(rest.len(), |found| found + cut.len())
            };
            look.paint_to(text, cells[*index].tone, &rest[..end]);
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
        let look = Look {
            width,
            color,
            unicode: true,
        };
        let mut text = String::new();
        draw(&mut text, &grid(), look, 0, false);
        text
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
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
    fn colours_change_nothing_but_colours() {
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
    fn what_is_laid_out_here_looks_as_comfy_table_would_lay_it_out() {
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
                    let look = Look {
                        width,
                        color,
                        unicode,
                    };
                    let (mut here, mut there) = (String::new(), String::new());
                    draw(&mut here, &table, look, 3, false);
                    draw_by(&mut there, &table, look, 3, false, |_, _| None);
                    assert_eq!(here, there, "{look:?}");
                }
            }
        }
    }
}
