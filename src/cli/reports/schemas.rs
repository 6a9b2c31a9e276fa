//! Lists the outputs that have a schema: `schema` without a name.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Report;
use crate::cli::output::view::{Block, Cell, Column, Grid, View};
use crate::core::time::Timestamp;

/// The outputs that have a schema.
#[derive(Debug, Clone)]
pub struct SchemasReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The outputs.
    pub items: Vec<SchemaItem>,
}

/// One output.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchemaItem {
    /// The name by which its schema is asked for.
    pub name: String,
    /// The commands that print it.
    pub commands: String,
}

impl Report for SchemasReport {
    type Item = SchemaItem;
    const KIND: &'static str = "SchemaList";
    const CSV: &'static [&'static str] = &["name", "commands"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SchemaItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.name.clone()).collect()
    }

    fn view(&self) -> View {
        let rows = self
            .items
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
