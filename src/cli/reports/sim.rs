//! Where the simulated platforms are, and how to configure a client for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Report;
use crate::cli::output::view::{Block, Cell, Column, Grid, Tone, View};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// The simulated platforms.
#[derive(Debug, Clone)]
pub struct SimReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The platforms.
    pub items: Vec<SimItem>,
}

/// One simulated platform.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SimItem {
    /// The platform.
    pub platform: PlatformName,
    /// Its base address.
    pub address: String,
    /// Where its controls are.
    pub controls: String,
    /// What a client has to be told, as environment variables. The secrets are of the simulated world and open to all.
    pub environment: BTreeMap<String, String>,
}

impl SimReport {
    /// Returns what a client has to be told, as lines of a `.env` file.
    pub fn environment(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.items.iter().flat_map(|item| &item.environment) {
            let quote = if value.contains(' ') { "\"" } else { "" };
            let _ = writeln!(text, "{name}={quote}{value}{quote}");
        }
        text
    }
}

impl Report for SimReport {
    type Item = SimItem;
    const KIND: &'static str = "SimList";
    const CSV: &'static [&'static str] = &["platform", "address", "controls"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SimItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.platform.to_string()).collect()
    }

    fn view(&self) -> View {
        let rows = self.items.iter().map(|item| {
            vec![
                Cell::new(item.platform.as_str()).tone(Tone::Strong),
                Cell::new(&item.address),
                Cell::new(&item.controls).tone(Tone::Dim),
            ]
        });
        let grid = Grid {
            columns: vec![
                Column::kept("PLATFORM"),
                Column::kept("ADDRESS"),
                Column::ranked("CONTROLS", 1),
            ],
            rows: rows.collect(),
            headed: true,
        };
        let variables = self
            .items
            .iter()
            .flat_map(|item| &item.environment)
            .map(|(name, value)| {
                let line = format!("{name}={value}");
                Block::Line(vec![Cell::new(line)])
            });
        let mut blocks = vec![Block::Table(grid), Block::Gap];
        blocks.extend(variables);
        View { blocks }
    }
}
