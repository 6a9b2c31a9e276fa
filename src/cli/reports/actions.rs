//! The actions that `sources can ID help` lists for a platform.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Report;
use crate::cli::output::view::{Block, Cell, Column, Grid, Tone, View};
use crate::core::permission;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;

/// The actions of one platform.
#[derive(Debug, Clone, Copy)]
pub struct ActionsReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The platform.
    pub platform: PlatformName,
}

/// One action as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionItem {
    /// The platform.
    pub platform: PlatformName,
    /// The name that `sources can` accepts.
    pub action: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What a yes does not cover, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<&'static str>,
}

impl Report for ActionsReport {
    type Item = ActionItem;
    const KIND: &'static str = "ActionList";
    const CSV: &'static [&'static str] = &["platform", "action", "about", "notCovered"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<ActionItem> {
        let platform = self.platform;
        let item = |action: &permission::Action| ActionItem {
            platform,
            action: action.name,
            about: action.about,
            not_covered: permission::not_covered(platform, action.name),
        };
        permission::actions(platform).iter().map(item).collect()
    }

    fn names(&self) -> Vec<String> {
        let actions = permission::actions(self.platform).iter();
        actions.map(|action| action.name.to_owned()).collect()
    }

    fn view(&self) -> View {
        let rows = permission::actions(self.platform)
            .iter()
            .map(|action| vec![Cell::new(action.name).tone(Tone::Strong), Cell::new(action.about)]);
        let grid = Grid {
            columns: vec![Column::kept("ACTION"), Column::kept("WHAT").elastic(20)],
            rows: rows.collect(),
            headed: true,
        };
        View {
            blocks: vec![Block::Table(grid)],
        }
    }
}
