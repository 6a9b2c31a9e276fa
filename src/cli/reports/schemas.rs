//! Lists the outputs that have a schema: `schema` without a name.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Listed;
use crate::cli::output::view::{Block, Cell, Column, Grid, View};

/// One output.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchemaItem {
    /// The name by which its schema is asked for.
    pub name: String,
    /// The commands that print it.
    pub commands: String,
}

impl Listed for SchemaItem {
    const KIND: &'static str = "SchemaList";
    const CSV: &'static [&'static str] = &["name", "commands"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn view(items: &[Self]) -> View {
        let rows = items
            .iter()
            .map(|item| vec![Cell::new(&item.name), Cell::new(&item.commands)]);
        View {
            blocks: vec![Block::Table(Grid {
                columns: vec![Column::kept("NAME"), Column::kept("COMMANDS").elastic(24)],
                rows: rows.collect(),
                headed: false,
            })],
        }
    }
}
