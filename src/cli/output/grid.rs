//! Draws a table with comfy-table: which columns fit, how wide each is, and the colours afterwards.

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
    let shown: Vec<usize> = (0..grid.columns.len())
        .filter(|index| wide || !grid.columns[*index].wide_only)
        .collect();
    let mut table = build(grid, look, &shown);
    let natural = table.column_max_content_widths();
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
    let kept: Vec<usize> = shown
        .iter()
        .zip(&widths)
        .filter_map(|(index, width)| width.map(|_| *index))
        .collect();
    let header: Vec<Cell> = grid
        .columns
        .iter()
        .map(|column| Cell::new(column.title).tone(Tone::Strong))
        .collect();
    let rows = grid.headed.then_some(&header).into_iter().chain(&grid.rows);
    for (line, cells) in table.lines().zip(rows) {
        text.extend(std::iter::repeat_n(' ', usize::from(indent)));
        if look.color {
            paint_line(text, &line, kept.iter().map(|index| &cells[*index]), look);
        } else {
            text.push_str(line.trim_end());
        }
        text.push('\n');
    }
}

fn build(grid: &Grid, look: Look, shown: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .force_no_tty()
        .set_delimiter(NO_DELIMITER)
        .set_truncation_indicator(ellipsis(look));
    if grid.headed {
        let titles = shown
            .iter()
            .map(|index| TableCell::new(grid.columns[*index].title));
        let mut header = Row::from(titles.collect::<Vec<_>>());
        header.max_height(1);
        table.set_header(header);
    }
    for cells in &grid.rows {
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

/// Writes a laid out line again with colours: cells come in order, each whole or cut with an ellipsis.
fn paint_line<'a>(text: &mut String, line: &str, cells: impl Iterator<Item = &'a Cell>, look: Look) {
    let mut rest = line.trim_end();
    for cell in cells {
        let spelled = look.spell(cell);
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
        text.push_str(&look.paint(cell.tone, &rest[..end]));
        rest = &rest[end..];
    }
    text.push_str(rest);
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
}
