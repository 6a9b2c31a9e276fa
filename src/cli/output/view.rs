//! The content of a report for people, independent of the terminal's width, colors and symbols.

pub use crate::view::cell::{Cell, Glyph, Tone, inert_json, is_unsafe, printable};

/// A report for people: blocks from top to bottom.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub blocks: Vec<Block>,
}

impl View {
    pub fn table(columns: Vec<Column>, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self {
            blocks: vec![Block::Table(Grid::headed(columns, rows))],
        }
    }

    /// A table with titles, whose cells are sentences.
    pub fn wrapped(columns: Vec<Column>, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self {
            blocks: vec![Block::Wrapped(Grid::headed(columns, rows))],
        }
    }
}

/// One part of a view.
#[derive(Debug, Clone)]
pub enum Block {
    Table(Grid),
    /// A table whose cells are sentences: they are wrapped and not cut.
    Wrapped(Grid),
    Line(Vec<Cell>),
    /// A heading with cells beside it.
    Section(&'static str, Vec<Cell>),
    /// A sentence under a section, wrapped to the width.
    Remark(String),
    /// A table under a section.
    Nested(Grid),
    Gap,
}

#[derive(Debug, Clone, Default)]
pub struct Grid {
    pub columns: Vec<Column>,
    /// Its rows; each has one cell a column.
    pub rows: Vec<Vec<Cell>>,
    /// Whether the column titles are shown.
    pub headed: bool,
}

impl Grid {
    /// A table with titles.
    pub fn headed(columns: Vec<Column>, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self {
            columns,
            rows: rows.into_iter().collect(),
            headed: true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    /// The columns of the greatest rank are dropped first on a narrow screen; rank 0 is always kept.
    pub rank: u8,
    /// The width below which it is dropped rather than shortened; `None`: never shortened.
    pub elastic: Option<u16>,
    pub right: bool,
    /// Whether it is shown by `-o wide` only.
    pub wide_only: bool,
}

impl Column {
    /// A column that is always shown.
    pub const fn kept(title: &'static str) -> Self {
        Self::ranked(title, 0)
    }

    /// A column that is dropped before those of a smaller rank.
    pub const fn ranked(title: &'static str, rank: u8) -> Self {
        Self {
            title,
            rank,
            elastic: None,
            right: false,
            wide_only: false,
        }
    }

    pub const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// Allows it to be shortened down to `min` characters.
    pub const fn elastic(mut self, min: u16) -> Self {
        self.elastic = Some(min);
        self
    }

    /// Shows it by `-o wide` only.
    pub const fn wide(mut self) -> Self {
        self.wide_only = true;
        self
    }
}
